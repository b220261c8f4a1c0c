package sqlite

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/store/internal/registry"
)

// States of a request. Whoever moves it away from waiting owns its outcome.
const (
	waiting int32 = iota
	started
	withdrawn
)

// request is one Update.
type request struct {
	ctx   context.Context
	fn    func(imprint.Tx) error
	state atomic.Int32
	done  chan error // gets the outcome once

	// Owned by the committer.
	err     error
	wrote   bool
	after   bool // another closure had written before it in the transaction
	changes []imprint.Change
}

// maxBatchWrites ends a batch whose closures write a lot (see cost), so that
// nobody waits long for the commit. A closure is never split.
const maxBatchWrites = 4096

// committer runs the requests. Its fields belong to the goroutine of work.
type committer struct {
	opts    Options
	queue   <-chan *request
	session *session
	renew   func() (*session, error)
	tell    func([]imprint.Change)
	check   *checkpointer

	batch   []*request
	current *request     // the closure that runs
	tx      *registry.Tx // what it runs on
	began   bool         // BEGIN was said
	dirty   bool         // a closure before the current one wrote in this transaction
	nested  bool         // the current closure has a savepoint
	writes  int          // cost of this batch
	last    int          // size of the batch before
	since   time.Time    // when this batch began
	crowded bool         // somebody came while the batch before was committed
	first   time.Time    // when this batch got its first member
	timer   *time.Timer  // of linger

	failing atomic.Bool // the last COMMIT failed; read by Ready
	done    chan struct{}
}

// work runs until the queue is closed and empty. A closure that ends its
// goroutine (runtime.Goexit) takes work along: another goroutine then goes on
// in its place.
func (c *committer) work() {
	defer func() {
		if c.current != nil {
			go c.work()
		}
	}()
	if c.current != nil {
		c.settle(imprint.Errorf(imprint.CodeInternal, "the change ended its goroutine"))
	}
	for {
		r, more := c.next()
		if r == nil {
			c.commit()
			if !more {
				close(c.done)
				return
			}
			continue
		}
		c.batch = append(c.batch, r)
		if !r.state.CompareAndSwap(waiting, started) {
			continue
		}
		if err := r.ctx.Err(); err != nil {
			r.err = errCancelled(err)
			continue
		}
		err := c.begin()
		if err != nil {
			r.err = err
			c.abort(err)
			continue
		}
		c.current = r
		err = c.call()
		c.settle(err)
	}
}

// next gives the next request of the batch, or nil when the batch ends. The
// second result is false at the end of all.
func (c *committer) next() (*request, bool) {
	if len(c.batch) == 0 {
		// Who waits already came while the last batch was committed.
		c.crowded = len(c.queue) > 0
		r, more := <-c.queue
		c.first = time.Now()
		return r, more
	}
	if len(c.batch) >= c.opts.MaxBatch || c.writes >= maxBatchWrites {
		return nil, true
	}
	select {
	case r, more := <-c.queue:
		return r, more
	default:
	}
	if c.last > 1 {
		// Those whom the last commit answered are about to come again: let
		// them run, or every second batch would have one member.
		runtime.Gosched()
	}
	select {
	case r, more := <-c.queue:
		return r, more
	default:
	}
	if !c.crowded {
		return nil, true
	}
	return c.linger()
}

// linger waits a little for company, as long as others were seen to write at
// the same time. A lone writer never waits: nobody comes while its own change
// is committed.
func (c *committer) linger() (*request, bool) {
	left := c.opts.Linger - time.Since(c.first)
	if left <= 0 {
		return nil, true
	}
	c.timer.Reset(left)
	defer c.timer.Stop()
	select {
	case r, more := <-c.queue:
		return r, more
	case <-c.timer.C:
		return nil, true
	}
}

func (c *committer) begin() error {
	if c.began {
		return nil
	}
	if c.session == nil {
		s, err := c.renew()
		if err != nil {
			return err
		}
		c.session = s
	}
	c.session.spoilt = nil
	err := c.session.control("BEGIN IMMEDIATE")
	if err != nil {
		return fmt.Errorf("couldn't begin a transaction: %w", err)
	}
	c.began, c.dirty = true, false
	c.since = c.opts.Clock()
	return nil
}

// call runs the current closure. Its first write opens its savepoint, unless
// nothing was written before it: then the transaction itself can be undone.
func (c *committer) call() (err error) {
	c.nested = false
	before := c.session.writes
	c.session.beforeWrite = func() error {
		c.session.beforeWrite = nil
		c.current.wrote = true
		if !c.dirty {
			return nil
		}
		c.nested = true
		return c.session.control("SAVEPOINT closure")
	}
	c.tx = registry.New(c.session, c.opts.Sealer)
	defer func() {
		c.session.beforeWrite = nil
		c.current.changes = c.tx.Finish()
		c.writes += c.session.writes - before
		if p := recover(); p != nil {
			c.opts.Logger.Error("a change panicked", "panic", p, "stack", string(debug.Stack()))
			err = imprint.Errorf(imprint.CodeInternal, "the change panicked: %v", p)
		}
	}()
	return c.current.fn(c.tx)
}

// settle keeps or undoes what the current closure wrote.
func (c *committer) settle(err error) {
	r := c.current
	c.current = nil
	r.err, r.after = err, c.dirty
	if err != nil {
		r.changes = nil
	}
	if spoilt := c.session.spoilt; spoilt != nil {
		c.abort(spoilt)
		return
	}
	if !r.wrote {
		return
	}
	var failed error
	switch {
	case err == nil && c.nested:
		failed = c.session.control("RELEASE closure")
	case err == nil:
	case c.nested:
		failed = c.session.control("ROLLBACK TO closure")
		if failed == nil {
			failed = c.session.control("RELEASE closure")
		}
	default:
		failed = c.session.control("ROLLBACK")
		c.began = failed != nil
	}
	if failed != nil {
		c.abort(fmt.Errorf("couldn't settle a change: %w", failed))
		return
	}
	if err == nil {
		c.dirty = true
	}
}

// abort undoes the whole transaction. What has no error yet gets this one, and
// so does what failed after having seen changes that are now undone.
func (c *committer) abort(err error) {
	for _, r := range c.batch {
		if r.err == nil || r.after {
			r.err = err
		}
		r.changes, r.after = nil, false
	}
	if c.session != nil {
		c.session.spoilt = nil
		rollback := c.session.control("ROLLBACK")
		if rollback != nil {
			// There may be no transaction any more, or the connection is broken:
			// a new one is in a known state.
			closing := c.session.close()
			c.session = nil
			c.opts.Logger.Warn("the writing connection is opened again", "error", err, "rollback", rollback, "close", closing)
		}
	}
	c.began, c.dirty = false, false
}

// commit ends the batch: COMMIT, then watchers, then answers.
func (c *committer) commit() {
	if c.began {
		changes := c.changes()
		told, err := c.finish()
		if err != nil {
			c.opts.Logger.Error("couldn't commit", "changes", len(c.batch), "error", err)
			c.abort(err)
		}
		if told {
			c.tell(changes)
		}
	}
	for i, r := range c.batch {
		r.done <- r.err
		c.batch[i] = nil
	}
	wrote := c.writes > 0
	c.last, c.writes = len(c.batch), 0
	c.batch = c.batch[:0]
	if wrote && c.session != nil {
		c.session.writes = c.check.committed(c.session)
	}
}

// finish commits and says whether watchers must hear of the changes: after an
// error of COMMIT nobody knows whether they are kept.
func (c *committer) finish() (told bool, err error) {
	if !c.dirty {
		// Nothing was written: this ends the transaction without a sync.
		err = c.session.control("COMMIT")
		if err == nil {
			c.began = false
		}
		return false, err
	}
	err = c.opts.Faults.strike(c.opts.Faults.BeforeCommit)
	if err != nil {
		c.failing.Store(true)
		return false, failure(imprint.CodeUnavailable, err, "Nothing was changed: retry.")
	}
	err = c.opts.Faults.strike(c.opts.Faults.Commit)
	if err == nil {
		err = c.session.control("COMMIT")
	}
	if err == nil {
		c.began = false
		err = c.opts.Faults.strike(c.opts.Faults.AfterCommit)
	}
	c.failing.Store(err != nil)
	if err != nil {
		return true, &imprint.Error{Code: imprint.CodeUnavailable, Op: "couldn't commit", Err: err, Hint: commitHint(err)}
	}
	took := c.opts.Clock().Sub(c.since)
	if took >= c.opts.SlowCommit {
		c.opts.Logger.Warn("a commit was slow", slog.Duration("took", took), slog.Int("changes", len(c.batch)))
	}
	return true, nil
}

func commitHint(err error) string {
	hint := imprint.HintOf(err)
	if hint == imprint.Describe(imprint.CodeInternal).Hint {
		hint = "Retry: what isn't acknowledged may or may not be kept."
	}
	return hint
}

// changes gives what the closures of the batch changed; those that failed have
// none.
func (c *committer) changes() []imprint.Change {
	var all []imprint.Change
	for _, r := range c.batch {
		all = append(all, r.changes...)
	}
	return all
}
