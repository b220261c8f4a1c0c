// Package pause waits without outliving who waits: a pause ends with its context, and
// leaves no timer behind.
package pause

import (
	"context"
	"time"
)

// For waits so long, or until the context ends; full tells that it was so long. A
// context that has ended already leaves no pause, and one of no length is full unless
// it has.
func For(ctx context.Context, d time.Duration) (full bool) {
	if d <= 0 || ctx.Err() != nil {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
