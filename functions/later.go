package functions

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
	"github.com/imprint-iot/imprint/internal/pause"
	"github.com/imprint-iot/imprint/trace"
)

const (
	// maxLater bounds the event of an asynchronous call, as at AWS Lambda.
	maxLater = 1 << 20
	// firstRefusal and longestRefusal are the pauses after a call that couldn't be
	// run: it waits without being counted as a failure of the function.
	firstRefusal   = time.Second
	longestRefusal = 5 * time.Minute
	// storePause is the pause after a failure of the store, and after a round that
	// couldn't look at all queues.
	storePause = time.Second
	// longestPause is how long nothing is looked at when nothing happens.
	longestPause = time.Hour
)

// queue runs asynchronous calls. They are rows of the store until they have
// succeeded or are given up: a server that dies runs them after its next start,
// and one that dies in the middle of a run runs it again.
type queue struct {
	s      *Service
	wake   chan struct{}
	ctx    context.Context // of the runs; ends with close
	cancel context.CancelFunc
	work   sync.WaitGroup

	places *fair.Places // of runs under way
	rounds *fair.Rounds[imprint.QueuedCall]

	mu     sync.Mutex
	counts map[imprint.Tenant]int // rows, as far as they were counted

	accepted, retried, givenUp atomic.Uint64
}

func newQueue(s *Service) *queue {
	places := fair.New(s.opts.QueueWorkers)
	q := &queue{
		s: s, wake: make(chan struct{}, 1), places: places, rounds: fair.NewRounds[imprint.QueuedCall](places),
		counts: map[imprint.Tenant]int{},
	}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	return q
}

func (q *queue) start() {
	q.poke()
	q.work.Go(func() { q.loop(q.ctx) })
}

func (q *queue) close() {
	q.cancel()
	q.work.Wait()
}

func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// InvokeLater implements imprint.Functions.
func (s *Service) InvokeLater(ctx context.Context, call imprint.FunctionCall) error {
	err := s.queue.add(ctx, call)
	switch imprint.CodeOf(err) {
	case "":
		return nil
	case imprint.CodeFunctionDenied:
		s.denied.Add(1)
	case imprint.CodeFunctionThrottled:
		s.throttles.Add(1)
	}
	s.tell(call, imprint.FunctionResult{}, err)
	return err
}

func (q *queue) add(ctx context.Context, call imprint.FunctionCall) error {
	err := checkPayload(call.Payload, maxLater)
	if err != nil {
		return err
	}
	release, err := q.reserve(ctx, call.Tenant)
	if err != nil {
		return err
	}
	now := q.s.clock()
	err = q.s.store.Update(ctx, func(tx imprint.Tx) error {
		found, err := q.s.resolveCall(tx, call)
		if err != nil {
			return err
		}
		return tx.PutQueuedCall(imprint.QueuedCall{
			ID: trace.NewID(now), Tenant: call.Tenant, Function: found.function.Name, Qualifier: found.qualifier,
			Payload: call.Payload, SourceARN: call.SourceARN, AttemptID: call.AttemptID, DueAt: now, CreatedAt: now,
		})
	})
	if err != nil {
		release()
		return err
	}
	q.accepted.Add(1)
	q.poke()
	return nil
}

// reserve takes one of a tenant's places in the queue. Errors:
// CodeFunctionThrottled.
func (q *queue) reserve(ctx context.Context, tenant imprint.Tenant) (release func(), err error) {
	q.mu.Lock()
	_, counted := q.counts[tenant]
	q.mu.Unlock()
	if !counted {
		n := 0
		err = q.s.store.Glance(ctx, func(tx imprint.ReadTx) error {
			rows, err := tx.QueuedCallCount(tenant)
			n = rows
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("couldn't count the asynchronous calls of %s: %w", tenant, err)
		}
		q.mu.Lock()
		if _, counted = q.counts[tenant]; !counted {
			q.counts[tenant] = n
		}
		q.mu.Unlock()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.counts[tenant] >= q.s.opts.MaxQueued {
		return nil, imprint.Errorf(imprint.CodeFunctionThrottled, "%d asynchronous calls of %s wait already", q.counts[tenant], tenant)
	}
	q.counts[tenant]++
	return func() { q.left(tenant) }, nil
}

// left gives a place back.
func (q *queue) left(tenant imprint.Tenant) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.counts[tenant] > 0 {
		q.counts[tenant]--
	}
}

// recount forgets what was counted of a tenant whose function was deleted with
// its calls.
func (q *queue) recount(tenant imprint.Tenant) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.counts, tenant)
}

// loop starts what is due, whenever something came, ended, or its time has come.
func (q *queue) loop(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		case <-timer.C:
		}
		next, err := q.round(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			q.s.opts.Logger.Error("couldn't read asynchronous calls", "error", err)
			next = storePause
		}
		timer.Reset(next)
	}
}

// round starts what is due and has a place, and says when to look again.
func (q *queue) round(ctx context.Context) (time.Duration, error) {
	now := q.s.clock()
	var due []fair.Work[imprint.QueuedCall]
	var all bool
	var next time.Time
	err := q.s.store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		due, all, err = q.rounds.Next(owedCalls{tx, now}, now)
		if err != nil {
			return err
		}
		next, err = tx.NextCall(now)
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, w := range due {
		if q.places.Take(w.Item.ID, w.Queue, q.s.opts.MaxConcurrency) {
			q.work.Go(func() { q.one(ctx, w) })
		}
	}
	wait := longestPause
	if !next.IsZero() {
		wait = min(max(next.Sub(now), time.Millisecond), wait)
	}
	if !all {
		wait = min(wait, storePause)
	}
	return wait, nil
}

// owedCalls are the calls of the store, a queue each function.
type owedCalls struct {
	imprint.ReadTx
	now time.Time
}

// Tenants implements fair.Source.
func (o owedCalls) Tenants() ([]imprint.Tenant, error) { return o.CallTenants() }

// Queues implements fair.Source.
func (o owedCalls) Queues(t imprint.Tenant, after string, limit int) ([]imprint.DueQueue, error) {
	return o.CallQueues(t, after, limit)
}

// Due implements fair.Source.
func (o owedCalls) Due(q fair.Queue, limit int) ([]imprint.QueuedCall, error) {
	return o.QueuedCalls(q.Tenant, imprint.FunctionName(q.Name), o.now, limit)
}

// one runs one call and writes down what became of it.
func (q *queue) one(ctx context.Context, w fair.Work[imprint.QueuedCall]) {
	call := w.Item
	defer q.poke()
	defer q.places.Give(call.ID, w.Queue)
	err := q.try(ctx, call)
	if err == nil || ctx.Err() != nil {
		return
	}
	q.s.opts.Logger.Error("couldn't run an asynchronous call", "call", call.ID, "function", call.Function, "error", err)
	pause.For(ctx, storePause)
}

// load reads a call whole, with its function or the reason why that can't be
// found. Errors: CodeNotFound when it is gone.
func (q *queue) load(ctx context.Context, id string) (call imprint.QueuedCall, found target, missing, err error) {
	err = q.s.store.View(ctx, func(tx imprint.ReadTx) error {
		call, err = tx.QueuedCall(id)
		if err != nil {
			return err
		}
		found, missing = lookUp(tx, call.Tenant, call.Function, call.Qualifier)
		if imprint.CodeOf(missing) == imprint.CodeNotFound {
			return nil
		}
		return missing
	})
	return call, found, missing, err
}

// try runs a call. Its error is the store's.
func (q *queue) try(ctx context.Context, listed imprint.QueuedCall) error {
	s := q.s
	call, found, missing, err := q.load(ctx, listed.ID)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil // deleted with its function
	}
	if err != nil {
		return err
	}
	if missing != nil {
		return q.giveUp(ctx, call, imprint.FunctionResult{}, missing)
	}
	if s.clock().Sub(call.CreatedAt) > s.opts.QueueAge {
		return q.giveUp(ctx, call, imprint.FunctionResult{}, imprint.Errorf(imprint.CodeFunctionThrottled, "it waited for more than %s", s.opts.QueueAge))
	}
	result, err := s.run(ctx, imprint.FunctionCall{
		Tenant: call.Tenant, ARN: found.arn(), Payload: call.Payload, SourceARN: call.SourceARN, AttemptID: call.AttemptID,
	}, found)
	if ctx.Err() != nil {
		return nil // the server stops: it is run again at the next start
	}
	switch imprint.CodeOf(err) {
	case "":
		return q.remove(ctx, call)
	case imprint.CodeFunctionFailed, imprint.CodeFunctionTimeout:
		call.Failures++
		call.Refusals = 0
		if call.Failures > len(s.opts.RetryAfter) {
			return q.giveUp(ctx, call, result, err)
		}
		call.DueAt = s.clock().Add(s.opts.RetryAfter[call.Failures-1])
	default:
		const doublings = 9
		call.DueAt = s.clock().Add(min(firstRefusal<<min(call.Refusals, doublings), longestRefusal))
		call.Refusals++
	}
	q.retried.Add(1)
	return q.putOff(ctx, call)
}

// putOff stores when a call is to be tried again.
func (q *queue) putOff(ctx context.Context, call imprint.QueuedCall) error {
	return q.s.store.Update(ctx, func(tx imprint.Tx) error {
		// A function that was deleted meanwhile took its calls along.
		_, err := tx.QueuedCall(call.ID)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		return tx.PutQueuedCall(call)
	})
}

func (q *queue) remove(ctx context.Context, call imprint.QueuedCall) error {
	err := q.s.store.Update(ctx, func(tx imprint.Tx) error { return tx.DeleteQueuedCall(call.ID) })
	if err == nil {
		q.left(call.Tenant)
	}
	return err
}

// giveUp removes a call that won't succeed, and says so.
func (q *queue) giveUp(ctx context.Context, call imprint.QueuedCall, result imprint.FunctionResult, why error) error {
	err := q.remove(ctx, call)
	if err != nil {
		return err
	}
	q.givenUp.Add(1)
	q.s.opts.Logger.Warn("an asynchronous call is given up", "call", call.ID, "function", call.Function, "tenant", call.Tenant.String(),
		"source", call.SourceARN, "runs", call.Failures, "error", why, "log", imprint.Excerpt(strings.TrimSpace(result.Log)))
	return nil
}
