// Package cancelable runs long tasks of tenants in the background. Each can be canceled
// by its id while it runs, no more than so many have their turn at once, and none is
// left when Close returns.
//
//	tasks := cancelable.New(ctx, 4)
//	tasks.Go(tenant, id, func(ctx context.Context) {
//		done, err := tasks.Turn(ctx)
//		...
//	})
//	tasks.Cancel(tenant, id)
//
// What a canceled task leaves is its own business: whoever cancels says in the registry
// first that it is over, for a task that hasn't begun here.
package cancelable

import (
	"context"
	"sync"

	"github.com/imprint-iot/imprint"
)

// Tasks are tasks under way. It is safe for many goroutines.
type Tasks struct {
	ctx   context.Context // ends with Close
	end   context.CancelFunc
	turns chan struct{}
	ended sync.WaitGroup

	mu      sync.Mutex
	running map[key]context.CancelFunc
}

type key struct {
	tenant imprint.Tenant
	id     string
}

// New makes a Tasks, in which so many have their turn at once. It goes on when ctx
// ends, whose values the tasks have.
func New(ctx context.Context, atOnce int) *Tasks {
	t := &Tasks{turns: make(chan struct{}, atOnce), running: map[key]context.CancelFunc{}}
	t.ctx, t.end = context.WithCancel(context.WithoutCancel(ctx))
	return t
}

// Context is that of the work beside the tasks: it ends with Close.
func (t *Tasks) Context() context.Context { return t.ctx }

// Go runs a task, whose context ends with Cancel or Close.
func (t *Tasks) Go(tenant imprint.Tenant, id string, run func(context.Context)) {
	name := key{tenant, id}
	ctx, cancel := context.WithCancel(t.ctx)
	t.mu.Lock()
	t.running[name] = cancel
	t.mu.Unlock()
	t.ended.Go(func() {
		defer func() {
			cancel()
			t.mu.Lock()
			delete(t.running, name)
			t.mu.Unlock()
		}()
		run(ctx)
	})
}

// Beside runs what looks after the tasks, such as a sweep, until the end of Context.
func (t *Tasks) Beside(run func()) { t.ended.Go(run) }

// Turn waits until the task may work, and done gives its turn to another. Errors: the
// context's.
func (t *Tasks) Turn(ctx context.Context) (done func(), err error) {
	select {
	case t.turns <- struct{}{}:
		return func() { <-t.turns }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Cancel ends the context of a task, if it runs here.
func (t *Tasks) Cancel(tenant imprint.Tenant, id string) {
	t.mu.Lock()
	cancel := t.running[key{tenant, id}]
	t.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// Close ends the contexts of all tasks and waits for them.
func (t *Tasks) Close() {
	t.end()
	t.ended.Wait()
}
