package trace

import (
	"context"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
)

// What a function or a rule does for a device may fail when the device has gone, and when
// its attempt has no row: it wasn't sampled, or it is counted in another one. Then the
// attempt is made again for that failure alone, and is kept, or counted, as any that failed.

const (
	// A generation of such attempts holds up to maxPast, and takes more for pastFor. There
	// are two.
	maxPast = 1 << 13
	pastFor = 10 * time.Minute
)

// past is an attempt that is over and has no row, or one that another takes the place of.
type past struct {
	packed  string // see pack
	why     string // it lacks its steps
	outcome imprint.Outcome
	code    imprint.Code
	ended   time.Time
	// added are the failures that its row was told afterwards: the attempt that takes the
	// place of the row doesn't have them. They are the writer's.
	added []imprint.Step
	// in is what counts it; nil: nothing does. It is the writer's.
	in *fold
}

// attempt makes it again.
func (p *past) attempt(id string) *imprint.Attempt {
	a := remade(id, p.packed, p.why)
	a.Outcome, a.Code, a.EndedAt = p.outcome, p.code, p.ended
	return a
}

// pasts has the attempts of which somebody knows the id, who may say yet what failed.
type pasts struct {
	mu         sync.Mutex
	young, old map[string]*past
	began      time.Time // the young ones
}

// keep remembers an attempt, and gives what is known of it.
func (l *Log) keep(id string, p past) *past {
	s, now := &l.past, l.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.young) >= maxPast || now.Sub(s.began) >= pastFor {
		s.young, s.old, s.began = nil, s.young, now
	}
	if s.young == nil {
		s.young = make(map[string]*past)
	}
	known := s.young[id]
	if known == nil {
		known = s.old[id]
	}
	if known == nil {
		known = &p
	}
	s.young[id] = known
	return known
}

// keepFolded is keep of an attempt that may come to be counted in another one.
func (l *Log) keepFolded(a *imprint.Attempt) *past {
	return l.keep(a.ID, past{
		packed: pack(a), why: "the attempt's own steps weren't kept: it is counted with others that ended in the same way",
		outcome: a.Outcome, code: a.Code, ended: a.EndedAt,
	})
}

// pastOf gives what keep remembers; nil: nothing.
func (l *Log) pastOf(id string) *past {
	l.past.mu.Lock()
	defer l.past.mu.Unlock()
	if p := l.past.young[id]; p != nil {
		return p
	}
	return l.past.old[id]
}

// addedTo remembers failures that were added to rows, which others may take the place of.
func (l *Log) addedTo(rows []imprint.Attempt, additions []*addition) {
	for i, added := range additions {
		if a := &rows[i]; anyFailed(added.steps) && foldable(a) {
			p := l.keepFolded(a)
			with := imprint.Attempt{Steps: p.added}
			added.apply(l.folds.fingerprints, &with)
			p.added = with.Steps
		}
	}
}

// displaced gives the failures that were added to a row whose place another one took, in a
// fold.
func (l *Log) displaced(a *imprint.Attempt, in *fold) []*addition {
	p := l.keepFolded(a)
	p.in = in
	if len(p.added) == 0 {
		return nil
	}
	added := &addition{id: a.ID, steps: p.added}
	p.added = nil
	return []*addition{added}
}

// tellAgain writes additions that failed to attempts which have no row: they are made
// again, and are counted with the others no more.
func (l *Log) tellAgain(additions []*addition) {
	var batch []entry
	counted := make(map[*fold]int)
	var again []*past
	there := make(map[string]bool)
	for _, added := range additions {
		if p := l.pastOf(added.id); p != nil && !there[added.id] {
			there[added.id] = true
			if p.in != nil {
				counted[p.in]++
			}
			again = append(again, p)
			batch = append(batch, entry{attempt: p.attempt(added.id), told: true, urgent: true})
		}
		batch = append(batch, entry{added: added})
	}
	if !l.write(batch) {
		return // each stays where it is counted
	}
	for _, p := range again {
		p.in = nil
	}
	l.uncount(counted)
}

// uncount takes attempts that have rows of their own again out of those that count them.
func (l *Log) uncount(counted map[*fold]int) {
	if len(counted) == 0 {
		return
	}
	err := l.store.Update(context.Background(), func(tx imprint.Tx) error {
		for in, n := range counted {
			a, err := tx.Attempt(in.row)
			if imprint.CodeOf(err) == imprint.CodeNotFound {
				continue // trimmed
			}
			if err != nil {
				return err
			}
			a.Repeats = max(a.Repeats-n, 0)
			a.Devices = min(a.Devices, a.Repeats+1)
			err = tx.PutAttempt(a)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		l.opts.Logger.Warn("couldn't correct the counts of attempts in which something failed late", "error", err)
	}
}
