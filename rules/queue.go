package rules

import (
	"context"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
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

// queue has the messages that wait for their rules. Tenants take turns; one may
// have half of the places and of the workers.
type queue struct {
	engine *Engine
	ctx    context.Context // of the runs
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu       sync.Mutex
	ready    []*tenant // that have work and may have one worker more
	count    int
	bytes    int
	workers  int
	started  bool
	closed   bool
	room     chan struct{} // closed when a place becomes free; nil when nobody waits
	finished chan struct{} // closed when nothing waits and runs; nil when nobody waits
}

func newQueue(e *Engine) *queue {
	q := &queue{engine: e}
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
	room := q.tryPush(t, w)
	if room == nil {
		return nil
	}
	if w.message.Wait {
		timer := time.NewTimer(q.engine.opts.RoomPatience)
		defer timer.Stop()
		for room != nil {
			select {
			case <-room:
				room = q.tryPush(t, w)
				continue
			case <-timer.C:
			case <-ctx.Done():
			case <-q.ctx.Done():
				return imprint.Errorf(imprint.CodeUnavailable, "the topic rules of this server end")
			}
			break
		}
		if room == nil {
			return nil
		}
	}
	q.engine.drop(w.message)
	return imprint.Errorf(imprint.CodeRulesBusy, "as many messages as allowed wait for the topic rules of %s", t.name)
}

// tryPush puts work in, or gives a channel that is closed when it is worth
// another try.
func (q *queue) tryPush(t *tenant, w work) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := w.bytes()
	opts := &q.engine.opts
	full := q.count >= opts.MaxQueued || q.bytes+size > opts.MaxQueuedBytes || len(t.waiting) >= (opts.MaxQueued+1)/2
	if full || q.closed {
		if q.room == nil {
			q.room = make(chan struct{})
		}
		return q.room
	}
	t.waiting = append(t.waiting, w)
	q.count++
	q.bytes += size
	q.list(t)
	q.hire()
	return nil
}

// list puts a tenant into the round when it has work and may have a worker more.
func (q *queue) list(t *tenant) {
	if t.listed || len(t.waiting) == 0 || t.running >= max(1, q.engine.opts.Workers/2) {
		return
	}
	t.listed = true
	q.ready = append(q.ready, t)
}

// hire starts workers while there is work for more.
func (q *queue) hire() {
	if !q.started {
		return
	}
	for q.workers < min(q.engine.opts.Workers, q.workers+len(q.ready)) {
		q.workers++
		q.work.Go(q.run)
		if q.workers >= q.count {
			return
		}
	}
}

// run takes work until there is none.
func (q *queue) run() {
	for {
		t, w, ok := q.take()
		if !ok {
			return
		}
		q.engine.run(q.ctx, t, w)
		q.mu.Lock()
		t.running--
		q.list(t)
		q.mu.Unlock()
	}
}

func (q *queue) take() (*tenant, work, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.ready) == 0 {
		q.workers--
		if q.workers == 0 && q.finished != nil {
			close(q.finished)
			q.finished = nil
		}
		return nil, work{}, false
	}
	t := q.ready[0]
	q.ready[0] = nil
	q.ready = q.ready[1:]
	t.listed = false
	w := t.waiting[0]
	t.waiting[0] = work{}
	t.waiting = t.waiting[1:]
	if len(t.waiting) == 0 {
		t.waiting = nil
	}
	t.running++
	q.count--
	q.bytes -= w.bytes()
	q.list(t)
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
	return t, w, true
}

// close goes on with what waits until the context ends, and says how much is
// left.
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
	left := q.count
	q.ready, q.count = nil, 0
	q.mu.Unlock()
	q.cancel()
	q.work.Wait()
	return left
}
