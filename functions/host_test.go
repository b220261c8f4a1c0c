package functions

import (
	"testing"

	"github.com/imprint-iot/imprint"
)

// TestAFunctionThatMayNotRunLeavesNothing ensures that calls of functions with a reserved
// concurrency of 0 leave no pool behind, for which no process would ever end.
func TestAFunctionThatMayNotRunLeavesNothing(t *testing.T) {
	t.Parallel()
	h := &host{pools: map[poolKey]*pool{}, counts: map[functionKey]int{}, used: map[imprint.AccountID]int{}, opts: Options{}.withDefaults()}
	_, err := h.acquire(t.Context(), target{function: imprint.Function{Name: "f", RevisionID: "1"}})
	if imprint.CodeOf(err) != imprint.CodeFunctionThrottled || len(h.pools) != 0 {
		t.Errorf("got %v and %d pools, want %s and none", err, len(h.pools), imprint.CodeFunctionThrottled)
	}
}
