package storetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/imprint-iot/imprint"
)

var errOwn = errors.New("the closure's own error")

func testAtomicity(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	update(t, store, func(tx imprint.Tx) error { return tx.PutThing(thing(here, "kept")) })
	var kept imprint.Tx
	err := store.Update(context.Background(), func(tx imprint.Tx) error {
		kept = tx
		err := tx.PutThing(thing(here, "new"))
		if err != nil {
			return err
		}
		err = tx.DeleteThing(here, "kept")
		if err != nil {
			return err
		}
		_, err = tx.Thing(here, "kept")
		wantCode(t, err, imprint.CodeNotFound)
		_, err = tx.Thing(here, "new")
		if err != nil {
			t.Errorf("a transaction doesn't read its own write: %v", err)
		}
		return fmt.Errorf("wrapped: %w", errOwn)
	})
	if !errors.Is(err, errOwn) {
		t.Errorf("got %v, want the closure's error", err)
	}
	same(t, "things after a failed change", thingNames(t, store, here), []string{"kept"})
	err = kept.PutThing(thing(here, "late"))
	if err == nil {
		t.Error("a Tx works after its closure")
	}
	update(t, store, func(imprint.Tx) error { return nil })
}

func thingNames(t *testing.T, store imprint.Store, tenant imprint.Tenant) []string {
	t.Helper()
	var names []string
	view(t, store, func(tx imprint.ReadTx) error {
		things, _, err := tx.Things(tenant, imprint.ThingFilter{}, imprint.Page{Limit: 10_000, Ascending: true})
		for _, one := range things {
			names = append(names, string(one.Name))
		}
		return err
	})
	return names
}

// together runs the changes so that they are likely to share a transaction:
// they wait while the first one is held back.
func together(store imprint.Store, changes []func(imprint.Tx) error) []error {
	errs := make([]error, len(changes))
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = store.Update(context.Background(), func(imprint.Tx) error {
			once.Do(func() { close(entered) })
			<-release
			return nil
		})
	})
	<-entered
	var begun sync.WaitGroup
	for i, change := range changes {
		begun.Add(1)
		wg.Go(func() {
			begun.Done()
			errs[i] = store.Update(context.Background(), change)
		})
	}
	begun.Wait()
	for range 10 * len(changes) {
		runtime.Gosched()
	}
	close(release)
	wg.Wait()
	return errs
}

func testNeighbours(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	for round := range 20 {
		var changes []func(imprint.Tx) error
		var want []string
		for n := range 20 {
			good := (n+round)%3 != 0
			label := fmt.Sprintf("round%02d-%02d", round, n)
			if good {
				want = append(want, label)
			}
			changes = append(changes, func(tx imprint.Tx) error {
				err := tx.PutThing(thing(here, label))
				if err != nil {
					return err
				}
				if good {
					return nil
				}
				err = tx.DeleteThing(here, "shared")
				if err != nil {
					return err
				}
				return errOwn
			})
		}
		update(t, store, func(tx imprint.Tx) error { return tx.PutThing(thing(here, "shared")) })
		errs := together(store, changes)
		for n, err := range errs {
			if good := (n+round)%3 != 0; good == (err != nil) || !good && !errors.Is(err, errOwn) {
				t.Errorf("change %d of round %d got %v", n, round, err)
			}
		}
		same(t, "things", thingNames(t, store, here), append(want, "shared"))
		update(t, store, func(tx imprint.Tx) error {
			for _, label := range want {
				err := tx.DeleteThing(here, imprint.ThingName(label))
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func testPanics(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	put := func(label string, then func()) func(imprint.Tx) error {
		return func(tx imprint.Tx) error {
			err := tx.PutThing(thing(here, label))
			if err != nil {
				return err
			}
			then()
			return nil
		}
	}
	panics := func() { panic("on purpose") }
	errs := together(store, []func(imprint.Tx) error{
		put("a", func() {}), put("b", panics), put("c", func() {}), put("d", runtime.Goexit), put("e", func() {}),
		func(imprint.Tx) error { panic(errOwn) },
	})
	for i, want := range []imprint.Code{"", imprint.CodeInternal, "", imprint.CodeInternal, "", imprint.CodeInternal} {
		wantCode(t, errs[i], want)
	}
	same(t, "things", thingNames(t, store, here), []string{"a", "c", "e"})
	err := store.View(context.Background(), func(imprint.ReadTx) error { panic("on purpose") })
	wantCode(t, err, imprint.CodeInternal)
	update(t, store, put("f", func() {}))
}

func testIncrements(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	const workers, each = 8, 125
	update(t, store, func(tx imprint.Tx) error {
		counter := thing(here, "counter")
		counter.Version = 0
		return tx.PutThing(counter)
	})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range each {
				err := store.Update(context.Background(), func(tx imprint.Tx) error {
					counter, err := tx.Thing(here, "counter")
					if err != nil {
						return err
					}
					counter.Version++
					counter.Attributes = map[string]string{"worker": strconv.Itoa(w)}
					return tx.PutThing(counter)
				})
				if err != nil {
					t.Errorf("Update: %v", err)
				}
			}
		})
	}
	wg.Wait()
	view(t, store, func(tx imprint.ReadTx) error {
		counter, err := tx.Thing(here, "counter")
		if counter.Version != workers*each {
			t.Errorf("got %d, want %d", counter.Version, workers*each)
		}
		return err
	})
}

func testCancel(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	err := store.Update(cancelled, func(tx imprint.Tx) error { return tx.PutThing(thing(here, "never")) })
	wantCode(t, err, imprint.CodeUnavailable)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error in the chain", err)
	}
	err = store.View(cancelled, func(tx imprint.ReadTx) error {
		_, err := tx.Thing(here, "x")
		return err
	})
	wantCode(t, err, imprint.CodeUnavailable)

	// While the first change is held back the second is taken back; the third
	// loses its context when it has begun, and is kept.
	entered, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	third, cancelThird := context.WithCancel(context.Background())
	wg.Go(func() {
		err := store.Update(third, func(tx imprint.Tx) error {
			close(entered)
			<-release
			return tx.PutThing(thing(here, "begun"))
		})
		if err != nil {
			t.Errorf("a change that had begun got %v", err)
		}
	})
	<-entered
	cancelThird()
	second, cancelSecond := context.WithCancel(context.Background())
	var ran atomic.Bool
	result := make(chan error)
	go func() {
		result <- store.Update(second, func(imprint.Tx) error {
			ran.Store(true)
			return nil
		})
	}()
	cancelSecond()
	wantCode(t, <-result, imprint.CodeUnavailable)
	close(release)
	wg.Wait()
	same(t, "things", thingNames(t, store, here), []string{"begun"})
	if ran.Load() {
		t.Error("a change that was taken back ran")
	}
}

func testSnapshot(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	update(t, store, func(tx imprint.Tx) error { return tx.PutThing(thing(here, "a")) })
	view(t, store, func(tx imprint.ReadTx) error {
		_, err := tx.Thing(here, "a")
		if err != nil {
			return err
		}
		update(t, store, func(tx imprint.Tx) error {
			err := tx.DeleteThing(here, "a")
			if err != nil {
				return err
			}
			return tx.PutThing(thing(here, "b"))
		})
		things, _, err := tx.Things(here, imprint.ThingFilter{}, imprint.Page{Limit: 10})
		if len(things) != 1 || things[0].Name != "a" {
			t.Errorf("a view that had begun sees %v", things)
		}
		return err
	})
	same(t, "things", thingNames(t, store, here), []string{"b"})
}
