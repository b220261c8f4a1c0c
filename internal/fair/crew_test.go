package fair_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

var (
	home    = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	another = imprint.Tenant{Account: "111111111111", Region: "us-east-1"}
)

// calls are asynchronous calls of the store, of one function.
type calls struct {
	imprint.ReadTx
	now time.Time
}

func (c calls) Tenants() ([]imprint.Tenant, error) { return c.CallTenants() }

func (c calls) Queues(t imprint.Tenant, after string, limit int) ([]imprint.DueQueue, error) {
	return c.CallQueues(t, after, limit)
}

func (c calls) Due(q fair.Queue, limit int) ([]imprint.QueuedCall, error) {
	return c.QueuedCalls(q.Tenant, imprint.FunctionName(q.Name), c.now, limit)
}

// newCrew makes a crew for the calls of a store.
func newCrew(store imprint.Store, do func(context.Context, imprint.QueuedCall) error) *fair.Crew[imprint.QueuedCall] {
	return fair.NewCrew(4, fair.Duty[imprint.QueuedCall]{
		Name: "calls", Store: store, Clock: time.Now, Logger: slog.New(slog.DiscardHandler), Do: do,
		Owed: func(tx imprint.ReadTx, now time.Time) fair.Source[imprint.QueuedCall] { return calls{tx, now} },
		Next: func(tx imprint.ReadTx, now time.Time) (time.Time, error) { return tx.NextCall(now) },
		ID:   func(call imprint.QueuedCall) string { return call.ID },
		GiveUp: func(ctx context.Context, call imprint.QueuedCall, _ error) error {
			return store.Update(ctx, func(tx imprint.Tx) error { return tx.DeleteQueuedCall(call.ID) })
		},
	})
}

func put(t *testing.T, store imprint.Store, call imprint.QueuedCall) {
	t.Helper()
	call.Tenant, call.Function, call.Payload = home, "f", []byte("{}")
	err := store.Update(t.Context(), func(tx imprint.Tx) error { return tx.PutQueuedCall(call) })
	if err != nil {
		t.Fatal(err)
	}
}

func newStore(t *testing.T) imprint.Store {
	t.Helper()
	store := registrytest.New(t)
	err := store.Update(t.Context(), func(tx imprint.Tx) error {
		return tx.PutFunction(imprint.Function{Tenant: home, Name: "f"})
	})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// TestACrewDoesWhatIsDueWhenItIs ensures that work that was there at the start is done,
// that what comes later is done when it is due and not before, and that a piece whose
// doing failed is done again.
func TestACrewDoesWhatIsDueWhenItIs(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	var failed atomic.Bool
	done := make(chan string)
	crew := newCrew(store, func(ctx context.Context, call imprint.QueuedCall) error {
		if call.ID == "fails once" && !failed.Swap(true) {
			return errors.New("the disk broke")
		}
		if time.Now().Before(call.DueAt) {
			t.Errorf("%s is done %s before it is due", call.ID, time.Until(call.DueAt))
		}
		err := store.Update(ctx, func(tx imprint.Tx) error { return tx.DeleteQueuedCall(call.ID) })
		done <- call.ID
		return err
	})
	defer crew.Close()
	put(t, store, imprint.QueuedCall{ID: "old", DueAt: time.Now()})
	crew.Start()
	if got := <-done; got != "old" {
		t.Fatalf("got %q, want what was there", got)
	}
	put(t, store, imprint.QueuedCall{ID: "later", DueAt: time.Now().Add(300 * time.Millisecond)})
	crew.Poke()
	if got := <-done; got != "later" {
		t.Fatalf("got %q, want what was put off", got)
	}
	put(t, store, imprint.QueuedCall{ID: "fails once", DueAt: time.Now()})
	crew.Poke()
	if got := <-done; got != "fails once" {
		t.Fatalf("got %q, want what failed", got)
	}
}

// TestAPieceThatPanicsIsGivenUp ensures that a panic ends neither the server nor the crew,
// and that its piece isn't done again.
func TestAPieceThatPanicsIsGivenUp(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	put(t, store, imprint.QueuedCall{ID: "bursts", DueAt: time.Now().Add(-time.Minute)})
	put(t, store, imprint.QueuedCall{ID: "later", DueAt: time.Now().Add(100 * time.Millisecond)})
	var bursts atomic.Int64
	done := make(chan struct{})
	crew := newCrew(store, func(ctx context.Context, call imprint.QueuedCall) error {
		if call.ID == "bursts" {
			bursts.Add(1)
			panic("a bug")
		}
		defer close(done)
		return store.Update(ctx, func(tx imprint.Tx) error { return tx.DeleteQueuedCall(call.ID) })
	})
	crew.Start()
	<-done
	crew.Close()
	if got := bursts.Load(); got != 1 {
		t.Errorf("what panics was done %d times, want once", got)
	}
	err := store.View(t.Context(), func(tx imprint.ReadTx) error {
		_, err := tx.QueuedCall("bursts")
		return err
	})
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		t.Errorf("what panics: got %v, want it gone", err)
	}
}

// TestACrewThatEndsLeavesItsWork ensures that Close interrupts what is under way and
// waits for it, and that the next crew does it.
func TestACrewThatEndsLeavesItsWork(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	put(t, store, imprint.QueuedCall{ID: "long", DueAt: time.Now()})
	begun := make(chan struct{})
	ended := false
	crew := newCrew(store, func(ctx context.Context, _ imprint.QueuedCall) error {
		close(begun)
		<-ctx.Done()
		ended = true
		return ctx.Err()
	})
	crew.Start()
	<-begun
	if got := crew.UnderWay(); got != 1 {
		t.Errorf("got %d under way, want 1", got)
	}
	crew.Close()
	if !ended || crew.Context().Err() == nil {
		t.Error("Close didn't end the work, or didn't wait for it")
	}
	again := make(chan string)
	next := newCrew(store, func(ctx context.Context, call imprint.QueuedCall) error {
		select {
		case again <- call.ID:
		case <-ctx.Done():
		}
		return nil
	})
	next.Start()
	if got := <-again; got != "long" {
		t.Errorf("the next crew: got %q, want what was left", got)
	}
	next.Close()
}

// TestAnAccountHasNoMoreRowsThanItMay ensures the bound with what the store had, however
// many ask at once; that a row that is gone makes room, and that accounts don't share.
func TestAnAccountHasNoMoreRowsThanItMay(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	var counted atomic.Int64
	rows := fair.NewRows(10, func(_ context.Context, account imprint.AccountID) (int, error) {
		if broken.Load() {
			return 0, errors.New("the disk broke")
		}
		counted.Add(1)
		held := map[imprint.Tenant]int{home: 1, {Account: home.Account, Region: "eu-west-1"}: 2}
		return fair.CountOf(account, slices.Collect(maps.Keys(held)), func(tenant imprint.Tenant) (int, error) { return held[tenant], nil })
	})
	fill := func(account imprint.AccountID) string {
		var taken, refused atomic.Int64
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				ok, err := rows.Reserve(t.Context(), account, 1)
				if err != nil {
					t.Error(err)
				}
				if ok {
					taken.Add(1)
					return
				}
				refused.Add(1)
			})
		}
		all.Wait()
		return fmt.Sprintf("%d taken, %d refused", taken.Load(), refused.Load())
	}
	if got, want := fill(home.Account), "7 taken, 13 refused"; got != want {
		t.Errorf("beside three: got %s, want %s", got, want)
	}
	if got, want := fill(another.Account), "10 taken, 10 refused"; got != want {
		t.Errorf("another account: got %s, want %s", got, want)
	}
	rows.Left(home.Account, 1)
	before := counted.Load()
	broken.Store(true) // nothing is counted again
	if got, want := fill(home.Account), "1 taken, 19 refused"; got != want || counted.Load() != before {
		t.Errorf("after one has left: got %s, want %s", got, want)
	}
	rows.Forget(home.Account)
	ok, err := rows.Reserve(t.Context(), home.Account, 1)
	if ok || err == nil {
		t.Errorf("counting fails: got %t, %v, want the failure", ok, err)
	}
	broken.Store(false)
	if got, want := fill(home.Account), "7 taken, 13 refused"; got != want {
		t.Errorf("counted anew: got %s, want %s", got, want)
	}
}
