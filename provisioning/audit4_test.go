package provisioning_test

import (
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/provisioning"
)

// TestALinesNullIsNoText: docs/bulk-registration.md wants values that are texts;
// null is taken for the empty one, so that devices whose serial number is missing
// become one thing.
func TestALinesNullIsNoText(t *testing.T) {
	err := provisioning.ReadBulkLines(strings.NewReader(`{"SerialNumber":null}`), func(_ int64, p map[string]string, err error) error {
		if err == nil {
			t.Errorf("the line was read as %q, want a refusal", p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
