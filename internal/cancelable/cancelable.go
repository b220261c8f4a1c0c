// Package cancelable runs long tasks of tenants in the background. Each can be canceled
// by its id while it runs, no more than so many have their turn at once, of one account
// no more than it leaves to others, and none is left when Close returns.
//
//	tasks := cancelable.New(ctx, 4)
//	tasks.Go(tenant, id, func(ctx context.Context) {
//		done, err := tasks.Turn(ctx, tenant.Account)
//		...
//	})
//	tasks.Cancel(tenant, id)
//
// What a canceled task leaves is its own business: whoever cancels says in the registry
// first that it is over, for a task that hasn't begun here.
package cancelable

import (
	"context"
	"slices"
	"sync"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
)

// Tasks are tasks under way. It is safe for many goroutines.
type Tasks struct {
	ctx    context.Context // ends with Close
	end    context.CancelFunc
	atOnce int
	ended  sync.WaitGroup

	mu      sync.Mutex
	running map[key]context.CancelFunc
	turns   int // that tasks have
	held    map[imprint.AccountID]int
	waiting []*turn // who is first is next, if its account may have one more
}

// turn is what a task waits for.
type turn struct {
	account imprint.AccountID
	come    chan struct{} // closed when it has
}

type key struct {
	tenant imprint.Tenant
	id     string
}

// New makes a Tasks, in which so many have their turn at once. It goes on when ctx
// ends, whose values the tasks have.
func New(ctx context.Context, atOnce int) *Tasks {
	t := &Tasks{atOnce: atOnce, running: map[key]context.CancelFunc{}, held: map[imprint.AccountID]int{}}
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

// Turn waits until the task may work, and done gives its turn to another. Accounts take
// turns; one alone has half of them at once, and one at least. Errors: the context's.
func (t *Tasks) Turn(ctx context.Context, account imprint.AccountID) (done func(), err error) {
	mine := &turn{account, make(chan struct{})}
	t.mu.Lock()
	t.waiting = append(t.waiting, mine)
	t.next()
	t.mu.Unlock()
	select {
	case <-mine.come:
	case <-ctx.Done():
		if t.leave(mine) {
			return nil, ctx.Err()
		}
	}
	return func() { t.done(account) }, nil
}

// leave ends a wait. False: the turn has come.
func (t *Tasks) leave(mine *turn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := slices.Index(t.waiting, mine)
	if at < 0 {
		return false
	}
	t.waiting = slices.Delete(t.waiting, at, at+1)
	return true
}

func (t *Tasks) done(account imprint.AccountID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turns--
	t.held[account]--
	if t.held[account] == 0 {
		delete(t.held, account)
	}
	t.next()
}

// next gives the turns that are free to those that wait. What else waits of an account
// that gets one goes behind all others.
func (t *Tasks) next() {
	for {
		at := slices.IndexFunc(t.waiting, func(w *turn) bool { return fair.MayTake(t.held[w.account], t.atOnce-t.turns) })
		if at < 0 {
			return
		}
		first := t.waiting[at]
		var others, same []*turn
		for _, w := range slices.Delete(t.waiting, at, at+1) {
			if w.account == first.account {
				same = append(same, w)
			} else {
				others = append(others, w)
			}
		}
		t.waiting = append(others, same...)
		t.turns++
		t.held[first.account]++
		close(first.come)
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
