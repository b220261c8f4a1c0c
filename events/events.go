// Package events hands stored events to their subscribers: at least once, and
// never before the change that they tell of is durable.
//
// A flow puts an imprint.Event into the transaction of its change. The
// Dispatcher hears of the commit, publishes the event and removes it once the
// Publisher says that it is handed over: the broker says so when it is in the
// queue of every persistent session that gets it. A server that dies in between
// publishes it after its next start.
//
//	d := events.NewDispatcher(store, broker, logger)
//	defer d.Close()
//
// What it does not do: it keeps no order between events, and it doesn't wait
// for subscribers; the broker's own queues do.
package events

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/pause"
)

// Publisher takes events to the subscribers of their tenants. After an error some
// may have been handed over: they are published again.
type Publisher interface {
	PublishEvents(context.Context, []imprint.Event) error
}

const (
	// batchSize bounds one round of publication.
	batchSize = 512
	// linger lets a burst of commits share one round, which costs a commit.
	linger = 20 * time.Millisecond
	// retryAfter is the pause after a failure of the store.
	retryAfter = time.Second
)

// Dispatcher publishes stored events.
type Dispatcher struct {
	store     imprint.Store
	publisher Publisher
	logger    *slog.Logger
	wake      chan struct{}
	stopWatch func()
	cancel    context.CancelFunc
	done      chan struct{}
	closeOnce sync.Once
	published atomic.Uint64
}

// NewDispatcher starts publishing, beginning with what an earlier run left.
func NewDispatcher(store imprint.Store, publisher Publisher, logger *slog.Logger) *Dispatcher {
	ctx, cancel := context.WithCancel(context.Background())
	d := &Dispatcher{
		store: store, publisher: publisher, logger: logger,
		wake: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{}),
	}
	d.wake <- struct{}{}
	d.stopWatch = store.Watch(d.committed)
	go d.run(ctx)
	return d
}

// Published counts the events published since the start.
func (d *Dispatcher) Published() uint64 { return d.published.Load() }

// Close stops. Events that wait stay in the store.
func (d *Dispatcher) Close() {
	d.closeOnce.Do(func() {
		d.stopWatch()
		d.cancel()
	})
	<-d.done
}

func (d *Dispatcher) committed(changes []imprint.Change) {
	for _, c := range changes {
		if c.Kind != imprint.ChangeEvent {
			continue
		}
		select {
		case d.wake <- struct{}{}:
		default:
		}
		return
	}
}

func (d *Dispatcher) run(ctx context.Context) {
	defer close(d.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		}
		pause.For(ctx, linger)
		for {
			n, err := d.round(ctx)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				d.logger.Error("couldn't publish stored events", "error", err)
				pause.For(ctx, retryAfter)
				continue
			}
			if n < batchSize {
				break
			}
		}
	}
}

func (d *Dispatcher) round(ctx context.Context) (int, error) {
	var waiting []imprint.Event
	err := d.store.View(ctx, func(tx imprint.ReadTx) error {
		list, err := tx.Events(batchSize)
		waiting = list
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("couldn't read stored events: %w", err)
	}
	if len(waiting) == 0 {
		return 0, nil
	}
	err = d.publisher.PublishEvents(ctx, waiting)
	if err != nil {
		return 0, fmt.Errorf("couldn't hand over stored events: %w", err)
	}
	ids := make([]string, len(waiting))
	for i, event := range waiting {
		ids[i] = event.ID
	}
	d.published.Add(uint64(len(waiting)))
	err = d.store.Update(ctx, func(tx imprint.Tx) error { return tx.DeleteEvents(ids) })
	if err != nil {
		return 0, fmt.Errorf("couldn't remove published events: %w", err)
	}
	return len(waiting), nil
}
