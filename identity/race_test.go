package identity_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

// hooked calls moment at every moment of a read: before and after it, and
// around each of its look-ups.
type hooked struct {
	imprint.Store
	moment func()
}

func (h *hooked) View(ctx context.Context, fn func(imprint.ReadTx) error) error {
	h.moment()
	defer h.moment()
	return h.Store.View(ctx, func(tx imprint.ReadTx) error { return fn(hookedTx{tx, h.moment}) })
}

func (h *hooked) Glance(ctx context.Context, fn func(imprint.ReadTx) error) error {
	h.moment()
	defer h.moment()
	return h.Store.Glance(ctx, func(tx imprint.ReadTx) error { return fn(hookedTx{tx, h.moment}) })
}

type hookedTx struct {
	imprint.ReadTx
	moment func()
}

func (tx hookedTx) Principal(t imprint.Tenant, id imprint.CertificateID, limit int) (imprint.Principal, error) {
	defer tx.moment()
	return tx.ReadTx.Principal(t, id, limit)
}

func (tx hookedTx) ThingGroup(t imprint.Tenant, name imprint.ThingGroupName) (imprint.ThingGroup, error) {
	defer tx.moment()
	return tx.ReadTx.ThingGroup(t, name)
}

func (tx hookedTx) TargetPolicies(t imprint.Tenant, target string, p imprint.Page) ([]imprint.PolicyAttachment, string, error) {
	defer tx.moment()
	return tx.ReadTx.TargetPolicies(t, target, p)
}

func (tx hookedTx) Policy(t imprint.Tenant, name imprint.PolicyName) (imprint.Policy, error) {
	defer tx.moment()
	return tx.ReadTx.Policy(t, name)
}

func (tx hookedTx) PolicyVersion(t imprint.Tenant, name imprint.PolicyName, v int) (imprint.PolicyVersion, error) {
	defer tx.moment()
	return tx.ReadTx.PolicyVersion(t, name, v)
}

// newHooked makes a resolver without moments. A warm one knows the policies and
// groups of device 1 from another device, which it holds.
func newHooked(t *testing.T, store imprint.Store, warm bool) (*hooked, *identity.Resolver) {
	t.Helper()
	h := &hooked{Store: store, moment: func() {}}
	r := identity.NewResolver(h, nil)
	if warm {
		_, err := r.Acquire(t.Context(), home, certID(2))
		if err != nil {
			t.Fatalf("Acquire of the other device: %v", err)
		}
	}
	return h, r
}

// raced runs a test for each change, with a cold and a warm resolver. The numbers
// are of the moments that a read has at least.
func raced(t *testing.T, test func(t *testing.T, store imprint.Store, c change, warm bool, least int)) {
	t.Helper()
	for _, c := range everyChange() {
		for warm, least := range map[bool]int{false: 19, true: 3} {
			t.Run(fmt.Sprintf("%s, warm %t", c.name, warm), func(t *testing.T) {
				t.Parallel()
				store := registrytest.New(t)
				putOne(t, store)
				update(t, store, func(tx imprint.Tx) error { return putDevice(tx, 2, "one", "p") })
				test(t, store, c, warm, least)
			})
		}
	}
}

// A change that is committed at any moment of a read is either in what was read,
// or makes it stale; and somebody who asks after the change was acknowledged,
// while the read is still under way, sees the change.
func TestAChangeDuringALoadIsNeverLost(t *testing.T) {
	t.Parallel()
	raced(t, func(t *testing.T, store imprint.Store, c change, warm bool, least int) {
		round := 0
		for at := 0; ; at++ {
			round++
			count, done := 0, false
			h, r := newHooked(t, store, warm)
			h.moment = func() {
				count++
				if count-1 != at {
					return
				}
				done = true
				update(t, store, func(tx imprint.Tx) error { return c.make(tx, round) })
				h.moment = func() {}
				second, err := r.Acquire(t.Context(), home, certID(1))
				if err != nil {
					t.Fatalf("Acquire after the change: %v", err)
				}
				if !c.shown(second, round) || second.Stale() {
					t.Errorf("moment %d: after the change the identity shows it: %t, is stale: %t; want true, false", at, c.shown(second, round), second.Stale())
				}
				r.Release(second)
			}
			who, err := r.Acquire(t.Context(), home, certID(1))
			if err != nil {
				t.Fatalf("Acquire: %v", err)
			}
			if done && !c.shown(who, round) && !who.Stale() {
				t.Errorf("moment %d: the identity neither shows the change nor is stale", at)
			}
			r.Release(who)
			r.Close()
			if !done {
				if at < least {
					t.Fatalf("the read had %d moments, want at least %d", at, least)
				}
				return
			}
		}
	})
}

// The hook above lets a second reader publish first. Here the read that began
// before the change publishes alone.
func TestAReadThatMissedAChangeIsStaleFromItsFirstMoment(t *testing.T) {
	t.Parallel()
	raced(t, func(t *testing.T, store imprint.Store, c change, warm bool, least int) {
		for at := 0; ; at++ {
			count, done := 0, false
			h, r := newHooked(t, store, warm)
			h.moment = func() {
				if count == at {
					done = true
					update(t, store, func(tx imprint.Tx) error { return c.make(tx, at+1) })
				}
				count++
			}
			who, err := r.Acquire(t.Context(), home, certID(1))
			if err != nil {
				t.Fatalf("Acquire: %v", err)
			}
			if done && !c.shown(who, at+1) && !who.Stale() {
				t.Errorf("moment %d: the identity neither shows the change nor is stale", at)
			}
			r.Close()
			if !done {
				if at < least {
					t.Fatalf("the read had %d moments, want at least %d", at, least)
				}
				return
			}
		}
	})
}
