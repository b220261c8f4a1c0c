package main

import (
	"fmt"
	"testing"

	"golang.org/x/time/rate"
)

// TestLimitsBeyondTheBoundTakeThePlaceOfOne ensures that who comes from many addresses
// doesn't have the limits of all callers begin anew.
func TestLimitsBeyondTheBoundTakeThePlaceOfOne(t *testing.T) {
	t.Parallel()
	l := limits{perSecond: 1, buckets: map[string]*rate.Limiter{}}
	for n := range maxLimiters + 10 {
		l.take(fmt.Sprint(n))
	}
	if got := len(l.buckets); got != maxLimiters {
		t.Errorf("%d limits are kept, want %d", got, maxLimiters)
	}
}
