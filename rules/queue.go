package rules

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
)

// work is a message with the rules that match it.
type work struct {
	message  *imprint.RuleMessage
	rules    []*rule
	snapshot *snapshot
}

// bytes is about what it takes of memory.
func (w *work) bytes() int {
	return 512 + len(w.message.Topic) + len(w.message.Payload) + len(w.message.Properties.Correlation)
}

// queue has the messages that wait for their rules. Accounts take turns, and within one
// its tenants. An account gets one more place, byte or worker as long as it has fewer
// than it leaves free: half when it is alone. Who waits for room is put in as soon as there
// is some, so that nobody tries in vain: accounts take turns in this, too.
type queue struct {
	engine *Engine
	ctx    context.Context // of the runs
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu       sync.Mutex
	accounts map[imprint.AccountID]*share
	ready    []*share // that have work, each once
	count    int
	bytes    int
	running  int // messages
	workers  int
	started  bool
	closed   bool
	full     []*share      // that have waiters, each once
	finished chan struct{} // closed when nothing waits and runs; nil when nobody waits
}

// share is what an account has of a queue.
type share struct {
	ready   []*tenant // that have work, each once
	count   int
	bytes   int
	running int
	waiters list.List // *waiter: publishers without room, who came first in front
}

// waiter is work whose publisher waits for room.
type waiter struct {
	tenant  *tenant
	work    work
	account *share
	place   *list.Element // in the line of the account
	in      chan struct{} // closed when the work is in the queue
}

func newQueue(e *Engine) *queue {
	q := &queue{engine: e, accounts: map[imprint.AccountID]*share{}}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	return q
}

func (q *queue) start() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.started = true
	q.hire()
}

func (q *queue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count
}

// push puts work in. Errors: CodeRulesBusy, CodeUnavailable.
func (q *queue) push(ctx context.Context, t *tenant, w work) error {
	waits := q.enter(t, w)
	if waits == nil {
		return nil
	}
	if w.message.Wait {
		timer := time.NewTimer(q.engine.opts.RoomPatience)
		defer timer.Stop()
		ends := false
		select {
		case <-waits.in:
			return nil
		case <-timer.C:
		case <-ctx.Done():
		case <-q.ctx.Done():
			ends = true
		}
		if q.leave(waits) {
			return nil
		}
		if ends {
			return imprint.Errorf(imprint.CodeUnavailable, "the topic rules of this server end")
		}
	}
	q.engine.drop(w.message)
	return imprint.Errorf(imprint.CodeRulesBusy, "as many messages as allowed wait for the topic rules of %s", t.name)
}

// enter puts work in, or gives what it waits as: in the line of its account, if its
// publisher waits at all.
func (q *queue) enter(t *tenant, w work) *waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	a := q.accounts[t.name.Account]
	if a == nil {
		a = &share{}
		q.accounts[t.name.Account] = a
	}
	if q.fits(a, &w) {
		q.put(a, t, w)
		return nil
	}
	waits := &waiter{tenant: t, work: w, account: a}
	if w.message.Wait {
		if a.waiters.Len() == 0 {
			q.full = append(q.full, a)
		}
		waits.in = make(chan struct{})
		waits.place = a.waiters.PushBack(waits)
	}
	return waits
}

// fits says whether there is room for work of an account. The caller holds the lock.
func (q *queue) fits(a *share, w *work) bool {
	opts := &q.engine.opts
	return !q.closed && q.bytes+w.bytes() <= opts.MaxQueuedBytes && fair.MayTake(a.count, opts.MaxQueued-q.count) && fair.MayTake(a.bytes, opts.MaxQueuedBytes-q.bytes)
}

// put puts in work that fits. The caller holds the lock.
func (q *queue) put(a *share, t *tenant, w work) {
	if len(t.waiting) == 0 {
		a.ready = append(a.ready, t)
	}
	t.waiting = append(t.waiting, w)
	if a.count == 0 {
		q.ready = append(q.ready, a)
	}
	a.count++
	a.bytes += w.bytes()
	q.count++
	q.bytes += w.bytes()
	q.hire()
}

// admit puts in the work of waiters, as much as fits. The caller holds the lock and calls
// it whenever more may fit: room that one account frees may be another's.
func (q *queue) admit() {
	for {
		n := slices.IndexFunc(q.full, func(a *share) bool { return q.fits(a, &a.waiters.Front().Value.(*waiter).work) })
		if n < 0 {
			return
		}
		a := q.full[n]
		q.full = slices.Delete(q.full, n, n+1)
		first := a.waiters.Remove(a.waiters.Front()).(*waiter)
		if a.waiters.Len() > 0 {
			q.full = append(q.full, a)
		}
		q.put(a, first.tenant, first.work)
		close(first.in)
	}
}

// leave takes a waiter away that waits no longer; in: its work came in meanwhile.
func (q *queue) leave(w *waiter) (in bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-w.in:
		return true
	default:
	}
	a := w.account
	a.waiters.Remove(w.place)
	if a.waiters.Len() == 0 {
		q.full = slices.DeleteFunc(q.full, func(s *share) bool { return s == a })
	}
	q.admit() // the next may be smaller
	return false
}

// next is the place in ready of the account that gets the next worker; -1: none does.
// Those that have as many as they may have one at least, so that few are passed over.
func (q *queue) next() int {
	return slices.IndexFunc(q.ready, func(a *share) bool { return fair.MayTake(a.running, q.engine.opts.Workers-q.running) })
}

// hire starts a worker if there is work for one more. That hires the next.
func (q *queue) hire() {
	if q.started && q.workers < q.engine.opts.Workers && q.next() >= 0 {
		q.workers++
		q.work.Go(q.run)
	}
}

// run takes work until there is none.
func (q *queue) run() {
	for {
		t, w, a := q.take()
		if a == nil {
			return
		}
		q.engine.run(q.ctx, t, w)
		q.mu.Lock()
		a.running--
		q.running--
		q.mu.Unlock()
	}
}

// take gives the next message; no share: nobody may have a worker more.
func (q *queue) take() (*tenant, work, *share) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.next()
	if n < 0 {
		q.workers--
		if q.workers == 0 && q.finished != nil {
			close(q.finished)
			q.finished = nil
		}
		return nil, work{}, nil
	}
	a := q.ready[n]
	q.ready = slices.Delete(q.ready, n, n+1)
	t := a.ready[0]
	a.ready = slices.Delete(a.ready, 0, 1)
	w := t.waiting[0]
	t.waiting[0] = work{}
	t.waiting = t.waiting[1:]
	if len(t.waiting) == 0 {
		t.waiting = nil
	} else {
		a.ready = append(a.ready, t)
	}
	a.count--
	a.bytes -= w.bytes()
	if a.count > 0 {
		q.ready = append(q.ready, a)
	}
	a.running++
	q.running++
	q.count--
	q.bytes -= w.bytes()
	q.admit()
	q.hire()
	return t, w, a
}

// close goes on with what waits until the context ends, and says how much is
// lost: what nobody comes again with.
func (q *queue) close(ctx context.Context) int {
	q.mu.Lock()
	q.closed = true
	var finished chan struct{}
	if q.workers > 0 {
		finished = make(chan struct{})
		q.finished = finished
	}
	q.mu.Unlock()
	if finished != nil {
		select {
		case <-finished:
		case <-ctx.Done():
		}
	}
	q.mu.Lock()
	lost := 0
	for _, a := range q.ready {
		for _, t := range a.ready {
			for _, w := range t.waiting {
				if w.message.Done == nil {
					lost++
				}
			}
		}
	}
	q.ready, q.count = nil, 0
	q.mu.Unlock()
	q.cancel()
	q.work.Wait()
	return lost
}
