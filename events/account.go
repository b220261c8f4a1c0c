package events

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
	"github.com/imprint-iot/imprint/internal/pause"
)

const (
	// window bounds the events of one account that are under way; one of its tenants has
	// at most as many of them as it leaves.
	window = 1024
	// refill is how many more of a tenant must have room before it is looked at again
	// while some are under way: looking reads those, too.
	refill = 64
	// linger lets a burst of commits, or of results, share one round, which costs a commit.
	linger = 20 * time.Millisecond
	// retryAfter is the pause after a failure of the store, or to hand over an event.
	retryAfter = time.Second
)

// account hands over the events of one account, so that whatever holds them up is
// nobody else's.
type account struct {
	id         imprint.AccountID
	dispatcher *Dispatcher
	wake       chan struct{}

	mu     sync.Mutex
	look   map[imprint.Tenant]struct{} // may have events that aren't under way
	over   map[imprint.Tenant][]string // handed over, and to be removed
	failed map[imprint.Tenant][]string // to be handed over again; the tenant rests until then
	why    error                       // one of them failed
	fresh  int                         // stored since they were counted

	// Of the goroutine alone: what was read and isn't removed, with its units.
	underWay map[imprint.Tenant]map[string]int
	count    int
	// excess are units of stored events beyond the bound, of the account that has stored them.
	excess int
	stored map[imprint.Tenant]int // as far as they were counted
}

func newAccount(d *Dispatcher, id imprint.AccountID) *account {
	return &account{
		id: id, dispatcher: d, wake: make(chan struct{}, 1), look: map[imprint.Tenant]struct{}{},
		over: map[imprint.Tenant][]string{}, failed: map[imprint.Tenant][]string{}, underWay: map[imprint.Tenant]map[string]int{},
		stored: map[imprint.Tenant]int{},
	}
}

// notice tells that a tenant has events, a number of new ones.
func (a *account) notice(tenant imprint.Tenant, count int) {
	a.mu.Lock()
	a.look[tenant] = struct{}{}
	a.fresh = min(a.fresh+count, uncounted)
	a.mu.Unlock()
	a.poke()
}

func (a *account) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// ended hears what became of an event.
func (a *account) ended(tenant imprint.Tenant, id string, err error) {
	a.mu.Lock()
	if err == nil {
		a.dispatcher.published.Add(1)
		a.over[tenant] = append(a.over[tenant], id)
	} else {
		a.failed[tenant] = append(a.failed[tenant], id)
		a.why = err
	}
	a.mu.Unlock()
	a.poke()
}

func (a *account) run(ctx context.Context) {
	timer := time.NewTimer(retryAfter)
	timer.Stop()
	resting := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
			pause.For(ctx, linger)
		case <-timer.C:
			resting = false
			a.forgive()
		}
		err := a.round(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			a.dispatcher.logger.Error("couldn't publish stored events", "error", err)
			pause.For(ctx, retryAfter)
			a.poke()
		}
		if !resting && a.hasFailed() {
			timer.Reset(retryAfter)
			resting = true
		}
	}
}

func (a *account) hasFailed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.failed) > 0
}

// forgive lets what failed be read again.
func (a *account) forgive() {
	a.mu.Lock()
	failed, why := a.failed, a.why
	a.failed, a.why = map[imprint.Tenant][]string{}, nil
	for tenant := range failed {
		a.look[tenant] = struct{}{}
	}
	a.mu.Unlock()
	for tenant, ids := range failed {
		a.dispatcher.logger.Error("couldn't hand over stored events, which come again", "tenant", tenant.String(), "events", len(ids), "error", why)
		a.forget(tenant, ids)
	}
}

// forget ends that events are under way, and gives their units.
func (a *account) forget(tenant imprint.Tenant, ids []string) (units int) {
	mine := a.underWay[tenant]
	for _, id := range ids {
		units += mine[id]
		delete(mine, id)
	}
	a.count -= len(ids)
	if len(mine) == 0 {
		delete(a.underWay, tenant)
	}
	return units
}

// round removes what is handed over, drops what is too much, and starts what has room.
func (a *account) round(ctx context.Context) error {
	err := a.remove(ctx)
	if err != nil {
		return err
	}
	err = a.bound(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	tenants := slices.Collect(maps.Keys(a.look))
	a.mu.Unlock()
	for _, tenant := range tenants {
		err := a.start(ctx, tenant)
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *account) remove(ctx context.Context) error {
	a.mu.Lock()
	over := a.over
	a.over = map[imprint.Tenant][]string{}
	a.mu.Unlock()
	if len(over) == 0 {
		return nil
	}
	err := a.dispatcher.store.Update(ctx, func(tx imprint.Tx) error {
		for tenant, ids := range over {
			err := tx.DeleteEvents(tenant, ids)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		a.mu.Lock()
		for tenant, ids := range over {
			a.over[tenant] = append(a.over[tenant], ids...)
		}
		a.mu.Unlock()
		return fmt.Errorf("couldn't remove published events: %w", err)
	}
	for tenant, ids := range over {
		a.gone(tenant, a.forget(tenant, ids))
	}
	return nil
}

// start hands over events of a tenant that aren't under way yet, as many as have room.
func (a *account) start(ctx context.Context, tenant imprint.Tenant) error {
	if !a.takeLook(tenant) {
		return nil
	}
	mine := a.underWay[tenant]
	limit := len(mine) + window/2 // what may be under way of one tenant at most, and what is
	var list []imprint.Event
	err := a.dispatcher.store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		list, err = tx.Events(tenant, limit)
		return err
	})
	if err != nil {
		a.notice(tenant, 0)
		return fmt.Errorf("couldn't read stored events: %w", err)
	}
	if mine == nil && len(list) > 0 {
		mine = map[string]int{}
		a.underWay[tenant] = mine
	}
	more := len(list) == limit
	for _, event := range list {
		if _, under := mine[event.ID]; under {
			continue
		}
		if !fair.MayTake(len(mine), window-a.count) || a.rests(tenant) {
			more = true
			break
		}
		mine[event.ID] = unitsOf(event)
		a.count++
		a.dispatcher.publisher.PublishEvent(ctx, event, func(err error) { a.ended(tenant, event.ID, err) })
	}
	if more {
		a.mu.Lock()
		a.look[tenant] = struct{}{}
		a.mu.Unlock()
	}
	return nil
}

// takeLook says whether a tenant's events are worth a look, and notes that it is taken:
// what comes from now on is another's.
func (a *account) takeLook(tenant imprint.Tenant) bool {
	held, least := len(a.underWay[tenant]), 0
	if held > 0 {
		least = refill
	}
	if a.rests(tenant) || !fair.MayTake(held+least, window-a.count-least) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.look, tenant)
	return true
}

func (a *account) rests(tenant imprint.Tenant) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.failed[tenant]) > 0
}
