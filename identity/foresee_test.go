package identity_test

import (
	"context"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

// foresee makes device 1 anew and foresees its identity, as a flow does; before it
// settles, it calls between.
func foresee(t *testing.T, store imprint.Store, r *identity.Resolver, between func()) {
	t.Helper()
	var settle func(bool)
	err := store.Update(context.Background(), func(tx imprint.Tx) error {
		err := putDevice(tx, 1, "one", "p")
		settle = r.Foresee(tx, home, certID(1), nil)
		return err
	})
	if err != nil {
		t.Errorf("couldn't make the device: %v", err)
	}
	between()
	settle(err == nil)
}

// warmed is a resolver that knows the policies and groups of device 1 from device 2.
func warmed(t *testing.T) (imprint.Store, *hooked, *identity.Resolver) {
	t.Helper()
	store := registrytest.New(t)
	putOne(t, store)
	update(t, store, func(tx imprint.Tx) error { return putDevice(tx, 2, "one", "p") })
	h, r := newHooked(t, store, true)
	t.Cleanup(r.Close)
	return store, h, r
}

func TestAForeseenIdentityNeedsNoLookUp(t *testing.T) {
	t.Parallel()
	store, h, r := warmed(t)
	looks := 0
	h.moment = func() { looks++ }
	acquire := func() *identity.Identity {
		t.Helper()
		who, err := r.Acquire(t.Context(), home, certID(1))
		if err != nil {
			t.Fatal(err)
		}
		if who.Stale() || len(who.Things) != 1 || who.Things[0].Thing.Name != "one" || who.Policies == nil || who.Certificate.Status != imprint.CertificateActive {
			t.Errorf("got %+v, want device 1, current", who)
		}
		return who
	}
	foresee(t, store, r, func() {})
	who := acquire()
	if looks != 0 {
		t.Errorf("%d moments of look-ups, want none", looks)
	}
	r.Release(who)
	foresee(t, store, r, func() {}) // while an older one is kept
	r.Release(acquire())
	if looks != 0 {
		t.Errorf("%d moments of look-ups after the second time, want none", looks)
	}
	if got := r.Awaited(); got != 0 {
		t.Errorf("changes that are still awaited: got %d, want 0", got)
	}
}

func TestWhatDidNotCommitIsNotForeseen(t *testing.T) {
	t.Parallel()
	store, _, r := warmed(t)
	var settle func(bool)
	failed := context.Canceled
	err := store.Update(t.Context(), func(tx imprint.Tx) error {
		err := putDevice(tx, 1, "another", "q")
		if err != nil {
			return err
		}
		settle = r.Foresee(tx, home, certID(1), nil)
		return failed
	})
	if err == nil {
		t.Fatal("the change was committed")
	}
	settle(false)
	who, err := r.Acquire(t.Context(), home, certID(1))
	if err != nil {
		t.Fatal(err)
	}
	if len(who.Things) != 1 || who.Things[0].Thing.Name != "one" {
		t.Errorf("things: got %+v, want one", who.Things)
	}
	if got := r.Awaited(); got != 0 {
		t.Errorf("changes that are still awaited: got %d, want 0", got)
	}
}

// A resolver that doesn't know a policy leaves the identity to the connection.
func TestAnIdentityThatNeedsMoreThanOneLookUpIsNotForeseen(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	putOne(t, store)
	h, r := newHooked(t, store, false)
	defer r.Close()
	foresee(t, store, r, func() {})
	looks := 0
	h.moment = func() { looks++ }
	_, err := r.Acquire(t.Context(), home, certID(1))
	if err != nil || looks == 0 {
		t.Errorf("got %v with %d moments of look-ups, want nil with some", err, looks)
	}
	if got := r.Awaited(); got != 0 {
		t.Errorf("changes that are still awaited: got %d, want 0", got)
	}
}

// Whenever another change is committed, in the transaction's own batch before or
// after it, or later, what is acquired after both is what the registry holds.
func TestAChangeBesideAForeseenIdentityIsNeverLost(t *testing.T) {
	t.Parallel()
	for _, c := range everyChange() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store, _, r := warmed(t)
			check := func(how string, round int) {
				t.Helper()
				who, err := r.Acquire(t.Context(), home, certID(1))
				if err != nil {
					t.Fatal(err)
				}
				fresh := identity.NewResolver(store, nil)
				defer fresh.Close()
				truth, err := fresh.Acquire(t.Context(), home, certID(1))
				if err != nil {
					t.Fatal(err)
				}
				if got, want := c.shown(who, round), c.shown(truth, round); got != want || who.Stale() {
					t.Errorf("%s, round %d: the identity shows the change: %t, is stale: %t; want %t, false", how, round, got, who.Stale(), want)
				}
				r.Release(who)
			}
			change := func(round int) {
				err := store.Update(context.Background(), func(tx imprint.Tx) error { return c.make(tx, round) })
				if err != nil {
					t.Errorf("couldn't make the change: %v", err)
				}
			}
			round := 0
			for range 30 {
				round++
				var both sync.WaitGroup
				both.Go(func() { change(round) })
				both.Go(func() { foresee(t, store, r, func() {}) })
				both.Wait()
				check("beside each other", round)
			}
			round++
			foresee(t, store, r, func() { change(round) })
			check("before it settles", round)
			round++
			foresee(t, store, r, func() {})
			change(round)
			check("after it settled", round)
			if got := r.Awaited(); got != 0 {
				t.Errorf("changes that are still awaited: got %d, want 0", got)
			}
		})
	}
}
