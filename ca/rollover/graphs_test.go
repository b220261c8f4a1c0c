package rollover

import (
	"fmt"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

// TestGraphsBeyondTheBoundTakeThePlaceOfOne ensures that one tenant more doesn't have the
// CAs of all others be read again.
func TestGraphsBeyondTheBoundTakeThePlaceOfOne(t *testing.T) {
	t.Parallel()
	p := Planner{opts: Options{Store: registrytest.New(t)}, graphs: map[imprint.Tenant]*graph{}}
	for n := range maxGraphs + 10 {
		tenant := imprint.Tenant{Account: imprint.AccountID(fmt.Sprintf("%012d", n)), Region: "us-east-1"}
		err := p.view(t.Context(), tenant, func(imprint.ReadTx, *graph) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := len(p.graphs); got != maxGraphs {
		t.Errorf("the CAs of %d tenants are kept, want %d", got, maxGraphs)
	}
}
