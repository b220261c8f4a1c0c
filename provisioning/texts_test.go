package provisioning_test

import (
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

// TestALinesNullIsNoText ensures that devices whose serial number is missing don't
// become one thing.
func TestALinesNullIsNoText(t *testing.T) {
	err := provisioning.ReadBulkLines(strings.NewReader(`{"SerialNumber":null}`), func(_ int64, p map[string]string, err error) error {
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
			t.Errorf("the line was read as %q, %v; want a refusal", p, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
