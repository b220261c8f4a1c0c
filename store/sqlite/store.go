package sqlite

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/store/internal/registry"
)

// Store is an imprint.Store in one SQLite file. It is made by Open.
type Store struct {
	opts    Options
	file    *database
	lock    *fileLock
	commits *committer
	check   *checkpointer
	readers *readers
	queue   chan *request

	// entering counts the Updates that may still put a request into the queue.
	// Close sets closed under gate, waits for them, and only then closes the
	// queue; so whatever was accepted is committed.
	gate     sync.RWMutex
	closed   bool
	entering sync.WaitGroup
	ended    chan struct{} // closed when Close is done
	endErr   error

	watch    sync.Mutex // guards changes of watchers
	watchers atomic.Pointer[[]*watcher]
}

var _ imprint.Store = (*Store)(nil)

type watcher struct{ fn func([]imprint.Change) }

// Update implements imprint.Store. A context that ends before fn has begun
// takes the change back; once fn has begun Update waits for its outcome.
func (s *Store) Update(ctx context.Context, fn func(imprint.Tx) error) error {
	r := &request{ctx: ctx, fn: fn, done: make(chan error, 1)}
	err := s.enter(ctx, r)
	if err != nil {
		return err
	}
	select {
	case err = <-r.done:
		return err
	case <-ctx.Done():
	}
	if r.state.CompareAndSwap(waiting, withdrawn) {
		return errCancelled(ctx.Err())
	}
	return <-r.done
}

// enter puts the request into the queue, waiting while that is full.
func (s *Store) enter(ctx context.Context, r *request) error {
	s.gate.RLock()
	if s.closed {
		s.gate.RUnlock()
		return errClosed()
	}
	s.entering.Add(1)
	s.gate.RUnlock()
	defer s.entering.Done()
	select {
	case s.queue <- r:
		return nil
	case <-ctx.Done():
		return errCancelled(ctx.Err())
	}
}

// View implements imprint.Store. It waits for one of Options.Readers
// connections. The context ends long searches inside fn too.
func (s *Store) View(ctx context.Context, fn func(imprint.ReadTx) error) error {
	reader, err := s.readers.get(ctx)
	if err != nil {
		return err
	}
	defer s.readers.put(reader)
	err = reader.begin(ctx)
	if err != nil {
		return err
	}
	tx := registry.New(reader.session, s.opts.Sealer)
	defer tx.Finish()
	return s.read(tx, fn)
}

// Glance implements imprint.Store. It waits as View does.
func (s *Store) Glance(ctx context.Context, fn func(imprint.ReadTx) error) error {
	reader, err := s.readers.get(ctx)
	if err != nil {
		return err
	}
	defer s.readers.put(reader)
	reader.session.ctx = ctx
	tx := registry.New(reader.session, s.opts.Sealer)
	defer tx.Finish()
	return s.read(tx, fn)
}

func (s *Store) read(tx *registry.Tx, fn func(imprint.ReadTx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.opts.Logger.Error("a read panicked", "panic", p, "stack", string(debug.Stack()))
			err = imprint.Errorf(imprint.CodeInternal, "the read panicked: %v", p)
		}
	}()
	return fn(tx)
}

// Watch implements imprint.Store. A call that is under way when stop is called
// may still end after it.
func (s *Store) Watch(fn func([]imprint.Change)) (stop func()) {
	w := &watcher{fn}
	s.setWatchers(func(all []*watcher) []*watcher { return append(all, w) })
	return func() {
		s.setWatchers(func(all []*watcher) []*watcher {
			for i := range all {
				if all[i] == w {
					return append(all[:i], all[i+1:]...)
				}
			}
			return all
		})
	}
}

// setWatchers replaces the list by a changed copy, so that tell needs no lock.
func (s *Store) setWatchers(change func([]*watcher) []*watcher) {
	s.watch.Lock()
	defer s.watch.Unlock()
	var all []*watcher
	if old := s.watchers.Load(); old != nil {
		all = append(all, *old...)
	}
	all = change(all)
	s.watchers.Store(&all)
}

// tell calls the watchers, on the committer's goroutine.
func (s *Store) tell(changes []imprint.Change) {
	all := s.watchers.Load()
	if all == nil || len(changes) == 0 {
		return
	}
	for _, w := range *all {
		s.tellOne(w, changes)
	}
}

// tellOne survives a watcher's panic: the commit has happened, and those who
// wait for it must be answered.
func (s *Store) tellOne(w *watcher, changes []imprint.Change) {
	defer func() {
		if p := recover(); p != nil {
			s.opts.Logger.Error("a watcher panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	w.fn(changes)
}

// Ready implements imprint.Store: it reads, passes the committer, and, when the
// last commit failed, tries a durable write.
func (s *Store) Ready(ctx context.Context) error {
	err := s.View(ctx, func(tx imprint.ReadTx) error {
		_, err := tx.Events(imprint.Tenant{}, 1)
		return err
	})
	if err != nil {
		return fmt.Errorf("couldn't read the registry: %w", err)
	}
	err = s.Update(ctx, func(imprint.Tx) error {
		if !s.commits.failing.Load() {
			return nil
		}
		_, err := s.commits.session.Exec(
			"INSERT INTO readiness (id, at) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET at = excluded.at",
			int64(1), s.opts.Clock().UnixMilli())
		return err
	})
	if err != nil {
		return fmt.Errorf("couldn't write the registry: %w", err)
	}
	return nil
}

// Check reads the whole file and says whether its structure is sound (PRAGMA
// quick_check). It takes about a second for each gigabyte.
func (s *Store) Check(ctx context.Context) error {
	reader, err := s.readers.get(ctx)
	if err != nil {
		return err
	}
	defer s.readers.put(reader)
	reader.session.ctx = ctx
	var verdict string
	err = reader.session.first("PRAGMA quick_check(1)", &verdict)
	if err != nil {
		return fmt.Errorf("couldn't check the database: %w", err)
	}
	if verdict != "ok" {
		return imprint.Errorf(imprint.CodeInternal, "the database is damaged: %s", verdict).
			WithHint("Stop the server and restore the last backup.")
	}
	return nil
}

// Close implements imprint.Store: it commits what was accepted, waits for
// Views, moves the log into the file and lets go of it. Further calls wait for
// the first and return the same.
func (s *Store) Close() error {
	s.gate.Lock()
	if s.closed {
		s.gate.Unlock()
		<-s.ended
		return s.endErr
	}
	s.closed = true
	s.gate.Unlock()
	s.entering.Wait()
	close(s.queue)
	<-s.commits.done
	s.endErr = errors.Join(s.check.close(), s.readers.close(), s.commits.close(), s.lock.release())
	close(s.ended)
	return s.endErr
}

// close moves the log into the file and closes the writing connection. It is
// called when work has ended.
func (c *committer) close() error {
	if c.session == nil {
		return nil
	}
	_, err := checkpoint(c.session, "TRUNCATE")
	return errors.Join(err, c.session.close())
}
