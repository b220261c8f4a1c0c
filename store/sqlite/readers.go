package sqlite

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// readers is the pool of reading connections. Each is opened when it is first
// needed.
type readers struct {
	file   *database
	slots  chan struct{} // one for each of idle
	closed chan struct{}

	mu   sync.Mutex
	idle []*reader // the one that was used last comes last
}

type reader struct {
	session *session // nil: to be opened
	began   bool
}

func newReaders(file *database) *readers {
	p := &readers{file: file, slots: make(chan struct{}, file.opts.Readers), closed: make(chan struct{})}
	for range file.opts.Readers {
		p.free(&reader{})
	}
	return p
}

// take gives the reader that was used last, to who has a slot. A commit makes each
// connection read its pages anew, so few connections in use read fewer.
func (p *readers) take() *reader {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	r := p.idle[last]
	p.idle = p.idle[:last]
	return r
}

func (p *readers) free(r *reader) {
	p.mu.Lock()
	p.idle = append(p.idle, r)
	p.mu.Unlock()
	p.slots <- struct{}{}
}

func (p *readers) get(ctx context.Context) (*reader, error) {
	select {
	case <-p.closed:
		return nil, errClosed()
	default:
	}
	select {
	case <-p.slots:
	case <-p.closed:
		return nil, errClosed()
	case <-ctx.Done():
		return nil, errCancelled(ctx.Err())
	}
	r := p.take()
	if r.session != nil {
		return r, nil
	}
	s, err := p.file.reader()
	if err != nil {
		p.free(r)
		return nil, err
	}
	r.session = s
	return r, nil
}

// put ends the reader's transaction and gives it back.
func (p *readers) put(r *reader) {
	err := r.end()
	if err != nil {
		p.file.opts.Logger.Warn("a reading connection is closed", "error", err)
	}
	p.free(r)
}

// close waits for every reader to come back.
func (p *readers) close() error {
	close(p.closed)
	var errs []error
	for range cap(p.slots) {
		<-p.slots
		r := p.take()
		if r.session != nil {
			errs = append(errs, r.session.close())
		}
	}
	return errors.Join(errs...)
}

// begin starts the snapshot, which the first read fixes.
func (r *reader) begin(ctx context.Context) error {
	r.session.ctx = ctx
	err := r.session.control("BEGIN")
	if err != nil {
		return fmt.Errorf("couldn't begin to read: %w", err)
	}
	r.began = true
	return nil
}

// end ends the transaction. A connection on which that fails is closed; the
// next user of the slot opens another.
func (r *reader) end() error {
	s := r.session
	s.ctx = context.Background()
	spoilt := s.spoilt
	s.spoilt = nil
	var err error
	if r.began {
		err = s.control("ROLLBACK")
	}
	r.began = false
	if err == nil && (spoilt == nil || ended(spoilt)) {
		return nil
	}
	r.session = nil
	return errors.Join(spoilt, err, s.close())
}

// ended says whether an error came from a caller's context.
func ended(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
