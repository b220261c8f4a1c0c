// Package events hands stored events to their subscribers: at least once, and
// never before the change that they tell of is durable.
//
// A flow puts an imprint.Event into the transaction of its change. The
// Dispatcher hears of the commit, publishes the event and removes it once the
// Publisher says that it is handed over: the broker says so when it is in the
// queue of every persistent session that gets it, and topic rules have run. A server
// that dies in between publishes it after its next start.
//
//	d := events.NewDispatcher(store, broker, clock, events.Options{})
//	defer d.Close()
//
// Each account has its own events under way, a bounded number, and each event is removed
// when its own results are in: whose rules are slow, or have no room, holds up nobody
// else, and an event that fails makes no other come again. What of an account waits in the
// store is bounded, too: the oldest is dropped beyond it.
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

// Options tune a Dispatcher. Zero values give the defaults in brackets.
type Options struct {
	// MaxStored bounds the events of one account that wait in the store, each 8 KiB of one
	// counting as one more: about, as a tenth more events may come before they are counted
	// again. Those under way are never dropped [100,000].
	MaxStored int
	// Attempts are told which events of theirs were dropped; nil: nobody is.
	Attempts Attempts
	Logger   *slog.Logger // [slog.Default]
}

// Attempts keep what became of the events of an attempt.
type Attempts interface {
	Append(attemptID string, steps ...imprint.Step)
}

// Dispatcher publishes stored events.
type Dispatcher struct {
	store     imprint.Store
	publisher Publisher
	clock     imprint.Clock
	opts      Options
	logger    *slog.Logger
	stopWatch func()
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	work      sync.WaitGroup
	closeOnce sync.Once
	published atomic.Uint64
	dropped   atomic.Uint64

	mu       sync.Mutex // also held while ctx ends
	accounts map[imprint.AccountID]*account
}

// NewDispatcher starts publishing, beginning with what an earlier run left.
func NewDispatcher(store imprint.Store, publisher Publisher, clock imprint.Clock, opts Options) *Dispatcher {
	if opts.MaxStored <= 0 {
		opts.MaxStored = 100_000
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	d := &Dispatcher{store: store, publisher: publisher, clock: clock, opts: opts, logger: opts.Logger, accounts: map[imprint.AccountID]*account{}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.stopWatch = store.Watch(d.committed)
	d.work.Go(d.begin)
	return d
}

// Published counts the events published since the start.
func (d *Dispatcher) Published() uint64 { return d.published.Load() }

// Dropped counts the events dropped since the start, as too many of their account waited.
func (d *Dispatcher) Dropped() uint64 { return d.dropped.Load() }

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
				d.notice(tenant, uncounted)
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
	for n := 0; n < len(changes); {
		tenant, count := changes[n].Tenant, 0
		for ; n < len(changes) && changes[n].Tenant == tenant; n++ {
			if changes[n].Kind == imprint.ChangeEvent {
				count++
			}
		}
		if count > 0 {
			d.notice(tenant, count)
		}
	}
}

// notice tells that a tenant has events, a number of new ones. Accounts are few, and each
// keeps its goroutine.
func (d *Dispatcher) notice(tenant imprint.Tenant, count int) {
	d.mu.Lock()
	a := d.accounts[tenant.Account]
	if a == nil && d.ctx.Err() == nil {
		a = newAccount(d, tenant.Account)
		d.accounts[tenant.Account] = a
		d.work.Go(func() { a.run(d.ctx) })
	}
	d.mu.Unlock()
	if a != nil {
		a.notice(tenant, count)
	}
}
