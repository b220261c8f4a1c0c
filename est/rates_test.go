package est

import (
	"fmt"
	"testing"
)

// TestRatesBeyondTheBoundTakeThePlaceOfOne ensures that who comes from many networks
// doesn't have the rates of all begin anew.
func TestRatesBeyondTheBoundTakeThePlaceOfOne(t *testing.T) {
	t.Parallel()
	p := newRates(1, 1)
	for n := range maxBuckets + 10 {
		p.bucket(fmt.Sprint(n))
	}
	if got := len(p.buckets); got != maxBuckets {
		t.Errorf("%d rates are kept, want %d", got, maxBuckets)
	}
}
