package pause_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imprint-iot/imprint/internal/pause"
)

// TestAPauseIsAsLongAsItsContextAllows ensures how long each pause takes, and what it
// tells.
func TestAPauseIsAsLongAsItsContextAllows(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name       string
		end, pause time.Duration // end: of the context
		full       bool
		took       time.Duration
	}{
		{"the context goes on", time.Hour, time.Minute, true, time.Minute},
		{"the context ends before", time.Second, time.Minute, false, time.Second},
		{"the context has ended", 0, time.Minute, false, 0},
		{"nothing to wait for", time.Hour, 0, true, 0},
		{"less than nothing", time.Hour, -1, true, 0},
		{"nothing, after the end", 0, 0, false, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), row.end)
				defer cancel()
				began := time.Now()
				full := pause.For(ctx, row.pause)
				if took := time.Since(began); full != row.full || took != row.took {
					t.Errorf("got %t after %s, want %t after %s", full, took, row.full, row.took)
				}
			})
		})
	}
}
