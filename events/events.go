// Package events hands stored events to their subscribers: at least once, and
// never before the change that they tell of is durable.
//
// A flow puts an imprint.Event into the transaction of its change. The
// Dispatcher hears of the commit, publishes the event and removes it once the
// Publisher says that it is handed over: the broker says so when it is in the
// queue of every persistent session that gets it, and topic rules have run. A server
// that dies in between publishes it after its next start.
//
//	d := events.NewDispatcher(store, broker, logger)
//	defer d.Close()
//
// Each account has its own events under way, a bounded number, and each event is removed
// when its own results are in: whose rules are slow, or have no room, holds up nobody
// else, and an event that fails makes no other come again.
//
// What it does not do: it keeps no order between events, and it doesn't wait
// for subscribers; the broker's own queues do.
package events

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/pause"
)

// Publisher takes an event to the subscribers of its tenant.
type Publisher interface {
	// PublishEvent doesn't wait for what one tenant can hold up. Done hears once, also
	// during the call, that the event is handed over, or why it isn't: then it may have
	// been in part, and is published again.
	PublishEvent(ctx context.Context, event imprint.Event, done func(error))
}

// Dispatcher publishes stored events.
type Dispatcher struct {
	store     imprint.Store
	publisher Publisher
	logger    *slog.Logger
	stopWatch func()
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	work      sync.WaitGroup
	closeOnce sync.Once
	published atomic.Uint64

	mu       sync.Mutex // also held while ctx ends
	accounts map[imprint.AccountID]*account
}

// NewDispatcher starts publishing, beginning with what an earlier run left.
func NewDispatcher(store imprint.Store, publisher Publisher, logger *slog.Logger) *Dispatcher {
	d := &Dispatcher{store: store, publisher: publisher, logger: logger, accounts: map[imprint.AccountID]*account{}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.stopWatch = store.Watch(d.committed)
	d.work.Go(d.begin)
	return d
}

// Published counts the events published since the start.
func (d *Dispatcher) Published() uint64 { return d.published.Load() }

// Close stops. Events that wait stay in the store.
func (d *Dispatcher) Close() {
	d.closeOnce.Do(func() {
		d.stopWatch()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.cancel()
	})
	d.work.Wait()
}

// begin looks for what an earlier run left.
func (d *Dispatcher) begin() {
	for {
		var tenants []imprint.Tenant
		err := d.store.View(d.ctx, func(tx imprint.ReadTx) error {
			var err error
			tenants, err = tx.EventTenants()
			return err
		})
		if err == nil {
			for _, tenant := range tenants {
				d.notice(tenant)
			}
			return
		}
		if d.ctx.Err() != nil {
			return
		}
		d.logger.Error("couldn't look for stored events", "error", err)
		pause.For(d.ctx, retryAfter)
	}
}

func (d *Dispatcher) committed(changes []imprint.Change) {
	var last *imprint.Tenant
	for n, c := range changes {
		if c.Kind == imprint.ChangeEvent && (last == nil || *last != c.Tenant) {
			last = &changes[n].Tenant
			d.notice(c.Tenant)
		}
	}
}

// notice tells that a tenant has events. Accounts are few, and each keeps its goroutine.
func (d *Dispatcher) notice(tenant imprint.Tenant) {
	d.mu.Lock()
	a := d.accounts[tenant.Account]
	if a == nil && d.ctx.Err() == nil {
		a = newAccount(d)
		d.accounts[tenant.Account] = a
		d.work.Go(func() { a.run(d.ctx) })
	}
	d.mu.Unlock()
	if a != nil {
		a.notice(tenant)
	}
}
