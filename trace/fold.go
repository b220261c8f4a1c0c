package trace

import (
	"container/list"
	"time"

	"github.com/imprint-iot/imprint"
)

// A device that is refused comes again, and again: firmware retries every few
// seconds for weeks. Its first attempts are kept whole; further ones that fail in
// the same way are counted with the last of them, for foldFor; then the next one is
// kept whole again, so that whoever asks for what failed lately finds it.
const (
	// foldFor is how long attempts are counted with one.
	foldFor = 5 * time.Minute
	// maxFolds bounds the devices whose failures are remembered; the one that
	// failed longest ago is forgotten.
	maxFolds = 16384
)

// failure is what makes two attempts alike.
type failure struct {
	tenant imprint.Tenant
	code   imprint.Code
	step   string // the last one that failed
	// who is the certificate, or the address where none is known.
	who string
}

func failureOf(a *imprint.Attempt) failure {
	f := failure{tenant: a.Tenant, code: a.Code, who: string(a.CertificateID)}
	if f.who == "" {
		f.who = a.Host()
	}
	for i := range a.Steps {
		if a.Steps[i].Verdict == imprint.VerdictFailed {
			f.step = a.Steps[i].Name
		}
	}
	return f
}

// fold is what is known of the attempts of one failure.
type fold struct {
	failure failure
	began   time.Time // of the first
	kept    int       // how many are kept whole
	id      string    // the last of those
}

// repeated are attempts that are counted with one that was stored in an earlier
// batch.
type repeated struct {
	id      string
	count   int
	last    time.Time
	attempt *imprint.Attempt // the latest of them
}

// folds remembers failures. It is the writer's.
type folds struct {
	after  int // how many are kept whole; below 1: all
	byKind map[failure]*list.Element
	recent list.List // of *fold, the latest first
}

func newFolds(after int) *folds {
	return &folds{after: after, byKind: make(map[failure]*list.Element)}
}

// take says with which attempt's id a refused attempt is to be counted; empty: it
// is kept whole.
func (f *folds) take(a *imprint.Attempt) string {
	if f.after < 1 || a.Outcome != imprint.OutcomeRefused {
		return ""
	}
	kind := failureOf(a)
	element := f.byKind[kind]
	if element == nil {
		if f.recent.Len() >= maxFolds {
			oldest := f.recent.Remove(f.recent.Back()).(*fold)
			delete(f.byKind, oldest.failure)
		}
		element = f.recent.PushFront(&fold{failure: kind, began: a.At})
		f.byKind[kind] = element
	}
	f.recent.MoveToFront(element)
	known := element.Value.(*fold)
	if age := a.At.Sub(known.began); age >= foldFor || age < -foldFor {
		known.began, known.kept = a.At, 0
	}
	if known.kept >= f.after {
		return known.id
	}
	known.kept++
	known.id = a.ID
	return ""
}

// renew makes an attempt the one that others of its kind are counted with.
func (f *folds) renew(a *imprint.Attempt) {
	element := f.byKind[failureOf(a)]
	if element != nil {
		element.Value.(*fold).id = a.ID
	}
}

// fold takes attempts out of a batch that are counted with others: with those that
// are in the batch at once, the others are given by the id of what they count with.
func (l *Log) fold(order []*imprint.Attempt, attempts map[string]*imprint.Attempt) (kept []*imprint.Attempt, again map[string]*repeated) {
	kept = order[:0]
	for _, a := range order {
		id := l.folds.take(a)
		if id == "" {
			kept = append(kept, a)
			continue
		}
		l.folded.Add(1)
		delete(attempts, a.ID)
		if with := attempts[id]; with != nil {
			with.Repeats++
			with.LastAt = a.At
			continue
		}
		if again == nil {
			again = make(map[string]*repeated)
		}
		r := again[id]
		if r == nil {
			r = &repeated{id: id}
			again[id] = r
		}
		r.count++
		r.last, r.attempt = a.At, a
	}
	return kept, again
}

// store counts with the stored attempt, or stores the latest when that is gone; it
// gives what it stored.
func (r *repeated) store(tx imprint.Tx) (imprint.Attempt, error) {
	a, err := tx.Attempt(r.id)
	switch {
	case err == nil:
		a.Repeats += r.count
		a.LastAt = r.last
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		a = *r.attempt
		a.Repeats = r.count - 1
		if a.Repeats > 0 {
			a.LastAt = r.last
		}
	default:
		return a, err
	}
	return a, tx.PutAttempt(a)
}
