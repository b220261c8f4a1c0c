package ca

import (
	"container/list"
	"context"
	"crypto"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
)

const (
	// maxAnswers bounds the responses that are kept, some 20 MB.
	maxAnswers = 16_384
	// patience is how long a request waits for others of the same authority.
	patience = time.Second
	// signTime bounds one use of an authority's key for a response. Modules give up
	// later: the one who asked is gone by then.
	signTime = 3 * time.Second
)

// responders are what OCSP responses are signed by, and the responses.
//
// An answer is kept for half of its validity while it is true, the longest unused one
// leaves for a new one, and the same question isn't signed twice at once.
type responders struct {
	mu      sync.Mutex
	open    map[place]*responder
	gates   map[place]*gate
	answers map[question]*list.Element
	used    list.List // of keptAnswer, the one used last first
	flights map[question]*flight
}

// question is what an answer is about.
type question struct {
	place
	serial    string
	hash      crypto.Hash
	issuer    imprint.CertificateID
	revokedAt int64
	reason    int
}

type answer struct {
	der         []byte
	from, until time.Time
}

type keptAnswer struct {
	q question
	a answer
}

// flight is an answer that is being made. Its members are read when done is closed.
type flight struct {
	done chan struct{}
	a    answer
	err  error
}

func (r *responders) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.open)
	clear(r.gates)
	clear(r.answers)
	r.used.Init()
}

// leave forgets what signs for an authority that was changed: its key may be gone, and
// what couldn't be done before may be possible.
func (r *responders) leave(at place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, at)
	delete(r.gates, at)
}

// errBusy is the answer to requests beyond what a key may be asked to sign.
func errBusy() error {
	return imprint.Errorf(imprint.CodeThrottled, "the certificate authority's key has more OCSP responses to sign than it may")
}

// answer gives what is kept for a question, or makes it. Making goes on when the one who
// asked has left: others wait for it.
func (r *responders) answer(ctx context.Context, q question, now time.Time, sign func(context.Context) (answer, error)) (answer, error) {
	r.mu.Lock()
	kept := r.answers[q]
	if kept != nil {
		a := kept.Value.(*keptAnswer).a
		if age := now.Sub(a.from); age >= 0 && age < ocspValid/2 && now.Before(a.until) {
			r.used.MoveToFront(kept)
			r.mu.Unlock()
			return a, nil
		}
	}
	under := r.flights[q]
	if under != nil {
		r.mu.Unlock()
		return under.wait(ctx)
	}
	own := &flight{done: make(chan struct{}), err: errBusy()} // until it is made
	if r.flights == nil {
		r.flights = map[question]*flight{}
	}
	r.flights[q] = own
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.flights, q)
		r.mu.Unlock()
		close(own.done)
	}()
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), signTime)
	defer cancel()
	own.a, own.err = sign(limited)
	if own.err == nil {
		r.keep(q, own.a)
	}
	return own.a, own.err
}

func (f *flight) wait(ctx context.Context) (answer, error) {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-f.done:
		return f.a, f.err
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case <-limit.C:
		return answer{}, errBusy()
	}
}

func (r *responders) keep(q question, a answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answers == nil {
		r.answers = map[question]*list.Element{}
	}
	present := r.answers[q]
	if present != nil {
		present.Value.(*keptAnswer).a = a
		r.used.MoveToFront(present)
		return
	}
	if len(r.answers) >= maxAnswers {
		oldest := r.used.Back()
		delete(r.answers, oldest.Value.(*keptAnswer).q)
		r.used.Remove(oldest)
	}
	r.answers[q] = r.used.PushFront(&keptAnswer{q, a})
}
