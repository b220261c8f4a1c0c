package trace_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/trace"
)

// failing is a store that fails for a while.
type failing struct {
	*kept
	views, updates atomic.Pointer[time.Time] // until when these fail
}

func (f *failing) View(ctx context.Context, fn func(imprint.ReadTx) error) error {
	if until := f.views.Load(); until != nil && time.Now().Before(*until) {
		return errors.New("disk")
	}
	return f.kept.View(ctx, fn)
}

func (f *failing) Update(ctx context.Context, fn func(imprint.Tx) error) error {
	if until := f.updates.Load(); until != nil && time.Now().Before(*until) {
		return errors.New("disk")
	}
	return f.kept.Update(ctx, fn)
}

// TestForgottenConnectionsAreEndedOnceTheStoreWorks ensures that a store that fails while a
// server starts doesn't leave the attempts of the one before connected for ever, that those
// of devices that came meanwhile stay so, and that a server which is stopped doesn't wait.
func TestForgottenConnectionsAreEndedOnceTheStoreWorks(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]struct{ views, updates time.Duration }{
		"to list": {15 * time.Second, 0}, "to end": {0, 15 * time.Second}, "for good": {time.Hour, time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := &failing{kept: newKept()}
			options := trace.Options{Logger: quiet(), SuccessRate: -1}
			killed := trace.NewLog(store, time.Now, options)
			var on []*trace.Recorder
			for n := range 1100 { // more than a page
				on = append(on, letIn(killed, fmt.Sprintf("device-%d", n)))
			}
			flush(t, killed)
			killed.Close() // as if it were killed: nothing ends
			time.Sleep(time.Hour)
			began := time.Now()
			views, updates := began.Add(fails.views), began.Add(fails.updates)
			store.views.Store(&views)
			store.updates.Store(&updates)
			l := trace.NewLog(store, time.Now, options)
			defer l.Close()
			time.Sleep(3 * time.Second)
			early := letIn(l, "early") // it is stored when they are listed later
			time.Sleep(15 * time.Second)
			fresh := letIn(l, "fresh")
			time.Sleep(time.Minute)
			synctest.Wait()
			want := imprint.OutcomeClosed
			if name == "for good" {
				want = imprint.OutcomeConnected
			}
			for _, rec := range on {
				if a := store.attempt(rec.ID()); a.Outcome != want || want == imprint.OutcomeClosed && !a.EndedAt.Equal(began) {
					t.Fatalf("%s: an attempt is %s since %s, want %s", name, a.Outcome, a.EndedAt, want)
				}
			}
			for rec, is := range map[*trace.Recorder]bool{early: fails.updates == 0, fresh: fails.updates < time.Hour} {
				if a := store.attempt(rec.ID()); is && a.Outcome != imprint.OutcomeConnected {
					t.Errorf("%s: the attempt of a device that is on is %q", name, a.Outcome)
				}
			}
		})
	}
}
