package identity

import (
	"fmt"
	"testing"

	"github.com/imprint-iot/imprint/policy"
)

// TestPolicySetsBeyondTheBoundTakeThePlaceOfOne ensures that documents that differ from
// device to device don't have all others be compiled again.
func TestPolicySetsBeyondTheBoundTakeThePlaceOfOne(t *testing.T) {
	t.Parallel()
	c := setCache{sets: map[setKey]*policy.Set{}}
	for n := range maxSets + 10 {
		_, err := c.compiled([]document{{name: "p", text: fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:us-east-1:000000000000:client/%d"}]}`, n)}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := c.len(); got != maxSets {
		t.Errorf("%d sets are kept, want %d", got, maxSets)
	}
}
