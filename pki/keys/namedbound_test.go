package keys

import (
	"fmt"
	"testing"

	"github.com/imprint-iot/imprint"
)

// TestFailuresBeyondTheBoundTakeThePlaceOfOne ensures that who asks for many keys that
// aren't there doesn't have all failures be tried again.
func TestFailuresBeyondTheBoundTakeThePlaceOfOne(t *testing.T) {
	t.Parallel()
	n := Named{failed: map[string]failure{}}
	for i := range maxFailed + 10 {
		n.note(t.Context(), fmt.Sprint(i), imprint.Errorf(imprint.CodeKeyUnavailable, "it isn't there"))
	}
	if got := len(n.failed); got != maxFailed {
		t.Errorf("%d failures are remembered, want %d", got, maxFailed)
	}
}
