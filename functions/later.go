package functions

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
	"github.com/imprint-iot/imprint/trace"
)

const (
	// maxLater bounds the event of an asynchronous call, as at AWS Lambda.
	maxLater = 1 << 20
	// firstRefusal and longestRefusal are the pauses after a call that couldn't be
	// run: it waits without being counted as a failure of the function.
	firstRefusal   = time.Second
	longestRefusal = 5 * time.Minute
)

// queue runs asynchronous calls. They are rows of the store until they have
// succeeded or are given up: a server that dies runs them after its next start,
// and one that dies in the middle of a run runs it again.
type queue struct {
	s    *Service
	crew *fair.Crew[imprint.QueuedCall]
	rows *fair.Rows

	accepted, retried, givenUp atomic.Uint64
}

func newQueue(s *Service) *queue {
	q := &queue{s: s}
	q.crew = fair.NewCrew(s.opts.QueueWorkers, fair.Duty[imprint.QueuedCall]{
		Name: "asynchronous calls", Store: s.store, Clock: s.clock, Logger: s.opts.Logger, OfQueue: s.opts.MaxConcurrency,
		Owed: func(tx imprint.ReadTx, now time.Time) fair.Source[imprint.QueuedCall] { return owedCalls{tx, now} },
		Next: func(tx imprint.ReadTx, now time.Time) (time.Time, error) { return tx.NextCall(now) },
		ID:   func(call imprint.QueuedCall) string { return call.ID },
		Do:   q.try,
		GiveUp: func(ctx context.Context, call imprint.QueuedCall, why error) error {
			err := q.giveUp(ctx, call, imprint.FunctionResult{}, why)
			q.rows.Forget(call.Tenant.Account) // lists don't have the event
			return err
		},
	})
	q.rows = fair.NewRows(s.opts.MaxQueued, func(ctx context.Context, account imprint.AccountID) (rows int, err error) {
		err = s.store.Glance(ctx, func(tx imprint.ReadTx) error {
			tenants, err := tx.CallTenants()
			if err != nil {
				return err
			}
			rows, err = fair.CountOf(account, tenants, tx.QueuedCallUnits)
			return err
		})
		return rows, err
	})
	return q
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
	units := imprint.OwedUnits(len(call.Payload))
	ok, err := q.rows.Reserve(ctx, call.Tenant.Account, units)
	if err != nil {
		return fmt.Errorf("couldn't count the asynchronous calls of account %s: %w", call.Tenant.Account, err)
	}
	if !ok {
		return imprint.Errorf(imprint.CodeFunctionThrottled, "as many asynchronous calls of account %s wait as may (%d, and large events count as several)", call.Tenant.Account, q.s.opts.MaxQueued)
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
		q.rows.Left(call.Tenant.Account, units)
		return err
	}
	q.accepted.Add(1)
	q.crew.Poke()
	return nil
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
		q.rows.Left(call.Tenant.Account, imprint.OwedUnits(len(call.Payload)))
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
