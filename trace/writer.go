package trace

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
)

// trimEvery is how often retention is enforced.
const trimEvery = time.Minute

// trimStep bounds one deletion, so that trimming never holds the committer
// long.
const trimStep = 2000

func (l *Log) run() {
	forgotten, err := l.forgotten() // before this log writes any
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { l.endForgotten(forgotten, err) })
	for {
		select {
		case first := <-l.queue:
			batch := l.collect(first)
			if len(batch) > 0 {
				l.write(batch)
			}
		case reply := <-l.flush:
			l.drain()
			close(reply)
		case <-l.closing:
			l.drain()
			// What found no room before, of which there may be more than the queue takes.
			for l.owes() {
				l.handOver()
				l.drain()
			}
			return
		}
	}
}

// trimmer enforces the retention, beside the writer: refused connections must
// not wait while much is deleted.
func (l *Log) trimmer() {
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			l.trim()
		case <-l.closing:
			return
		}
	}
}

// calm is how many times as long a batch waits in which nothing failed. Each commit
// costs as much as many attempts, and most devices are let in.
const calm = 10

// collect waits for company for the first entry, up to Linger from when one that failed
// is heard of, and longer while none is.
func (l *Log) collect(first entry) []entry {
	batch := append(make([]entry, 0, min(l.opts.Batch, 16)), first)
	timer := time.NewTimer(calm * l.opts.Linger)
	defer timer.Stop()
	urgent := first.urgent
	if urgent {
		timer.Reset(l.opts.Linger)
	}
	for !l.enough() {
		select {
		case <-l.hurry:
			// It may be about an entry of the batch before, and this one is earlier then.
			if !urgent {
				urgent = true
				timer.Reset(l.opts.Linger)
			}
		case <-timer.C:
			return l.fill(batch)
		case reply := <-l.flush:
			// Whoever asks for what happened doesn't wait for company.
			l.write(l.fill(batch))
			l.drain()
			close(reply)
			return nil
		case <-l.closing:
			return l.fill(batch)
		}
	}
	return l.fill(batch)
}

// fill adds what waits already.
func (l *Log) fill(batch []entry) []entry {
	for len(batch) < l.opts.Batch {
		select {
		case e := <-l.queue:
			batch = append(batch, e)
		default:
			return batch
		}
	}
	return batch
}

// drain writes what is in the queue now, and not what is added meanwhile: it
// would never end while devices come faster than they are written.
func (l *Log) drain() {
	for n := len(l.queue); n > 0; {
		batch := make([]entry, 0, min(n, l.opts.Batch))
		for len(batch) < cap(batch) {
			batch = append(batch, <-l.queue) // nobody else takes from it
		}
		n -= len(batch)
		l.write(batch)
	}
}

// write stores a batch, and says whether it could. Endings of attempts that are in the same batch are
// merged first, so that a short connection costs one row written once.
func (l *Log) write(batch []entry) bool {
	defer func() {
		for i := range batch {
			batch[i].draft.free()
		}
	}()
	attempts := make(map[string]*imprint.Attempt, len(batch))
	told := make(map[string]bool)
	var order []*imprint.Attempt
	var endings []*ending
	var additions []*addition
	for _, e := range batch {
		if e.attempt != nil {
			attempts[e.attempt.ID] = e.attempt
			if e.told {
				told[e.attempt.ID] = true
			}
			order = append(order, e.attempt)
			continue
		}
		if e.added != nil {
			additions = append(additions, e.added)
			continue
		}
		if a := attempts[e.end.id]; a != nil {
			e.end.apply(l.folds.fingerprints, a)
			continue
		}
		endings = append(endings, e.end)
	}
	endings, over := l.readFailed(endings)
	rows := make(map[string]bool, len(over))
	for _, a := range over {
		// Whoever listed them knows their ids.
		attempts[a.ID], told[a.ID], rows[a.ID] = a, true, true
		order = append(order, a)
	}
	additions = l.merge(attempts, additions)
	order, again := l.fold(order, attempts, told, rows)
	var missing, added []*addition // without a row, and with one
	var grown []imprint.Attempt    // the rows of added
	var changed []imprint.Attempt  // rows that were there before
	err := l.store.Update(context.Background(), func(tx imprint.Tx) error {
		missing, added, grown, changed = nil, nil, nil, nil
		for _, a := range order {
			err := tx.PutAttempt(*a)
			if err != nil {
				return fmt.Errorf("couldn't store attempt %s: %w", a.ID, err)
			}
		}
		for _, end := range endings {
			a, err := end.store(tx, l.folds.fingerprints)
			if err != nil {
				return err
			}
			if a.ID != "" {
				changed = append(changed, a)
			}
		}
		for _, r := range again {
			a, err := r.store(tx)
			if err != nil {
				return fmt.Errorf("couldn't count attempt %s with others: %w", r.latest.ID, err)
			}
			changed = append(changed, a)
		}
		for _, d := range additions {
			a, found, err := d.store(tx, l.folds.fingerprints)
			switch {
			case err != nil:
				return err
			case found:
				added, grown = append(added, d), append(grown, a)
			default:
				missing = append(missing, d)
			}
		}
		return nil
	})
	if err != nil {
		l.keepEarly(missing)
		l.failed.Add(uint64(len(batch)))
		l.opts.Logger.Error("couldn't store attempts", "count", len(batch), "error", err)
		return false
	}
	l.addedTo(grown, added)
	var late []*addition
	for _, r := range again {
		r.fold.row = r.latest.ID
		if r.displaced != nil {
			late = append(late, l.displaced(r.displaced, r.fold)...)
		}
	}
	late = append(late, l.keepEarly(missing)...) // some may be of those displaced
	l.written.Add(uint64(len(batch)))
	if tell := l.told.Load(); tell != nil {
		for _, a := range order {
			changed = append(changed, *a)
		}
		(*tell)(changed)
	}
	if len(late) > 0 {
		l.tellAgain(late)
	}
	return true
}

// maxEarly bounds the additions that wait for their attempt.
const maxEarly = 1024

// merge puts additions, and those that came too early, to the attempts of a batch,
// and gives the others.
func (l *Log) merge(attempts map[string]*imprint.Attempt, additions []*addition) []*addition {
	mergeInto := func(list []*addition) []*addition {
		return slices.DeleteFunc(list, func(added *addition) bool {
			a := attempts[added.id]
			if a != nil {
				added.apply(l.folds.fingerprints, a)
			}
			return a != nil
		})
	}
	l.early = mergeInto(l.early)
	return mergeInto(additions)
}

// keepEarly keeps additions for the attempt that is still to come: a hook runs
// before its device is let in. What comes after its attempt was trimmed, or
// dropped, waits in vain until newer ones take its place. It gives those that failed, of
// attempts that are over and have no row.
func (l *Log) keepEarly(missing []*addition) (late []*addition) {
	for _, added := range missing {
		if anyFailed(added.steps) && l.pastOf(added.id) != nil {
			late = append(late, added)
		} else {
			l.early = append(l.early, added)
		}
	}
	if over := len(l.early) - maxEarly; over > 0 {
		// What went well waits in vain for each device that isn't sampled, and takes no room
		// from what failed.
		l.early = slices.DeleteFunc(l.early, func(added *addition) bool {
			if over == 0 || anyFailed(added.steps) {
				return false
			}
			over--
			return true
		})
		l.early = slices.Delete(l.early, 0, over)
		l.dropped.Add(uint64(over))
	}
	return late
}

func (d *addition) apply(f fingerprints, a *imprint.Attempt) {
	for _, s := range d.steps {
		if len(a.Steps) >= maxAdded {
			if s.Verdict != imprint.VerdictFailed {
				continue
			}
			s.Others = true
		}
		a.Steps = f.add(a.Steps, s)
	}
	a.Steps = inOrder(a.Steps)
}

// inOrder puts steps into the order in which they happened: what ran beside a connection
// tells when it began, and is heard of later.
func inOrder(steps []imprint.Step) []imprint.Step {
	slices.SortStableFunc(steps, func(a, b imprint.Step) int { return a.At.Compare(b.At) })
	return steps
}

// store adds to a stored attempt, if it is there, and gives it.
func (d *addition) store(tx imprint.Tx, f fingerprints) (a imprint.Attempt, found bool, err error) {
	a, err = tx.Attempt(d.id)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return a, false, nil
	}
	if err != nil {
		return a, false, fmt.Errorf("couldn't read attempt %s: %w", d.id, err)
	}
	d.apply(f, &a)
	err = tx.PutAttempt(a)
	if err != nil {
		return a, false, fmt.Errorf("couldn't add to attempt %s: %w", d.id, err)
	}
	return a, true, nil
}

func (e *ending) apply(f fingerprints, a *imprint.Attempt) {
	for _, s := range e.steps {
		a.Steps = f.add(a.Steps, s)
	}
	a.Steps = inOrder(a.Steps)
	if e.outcome != "" {
		a.Outcome, a.Code, a.EndedAt = e.outcome, e.code, e.at
	}
	if e.thing != "" {
		a.Thing = e.thing
	}
}

// read gives a stored attempt with what has come of it, or that alone where its row was
// trimmed while the device was on; nothing where that isn't worth a row.
func (e *ending) read(tx imprint.ReadTx, f fingerprints) (*imprint.Attempt, error) {
	a, err := tx.Attempt(e.id)
	switch {
	case err == nil:
	case imprint.CodeOf(err) != imprint.CodeNotFound:
		return nil, fmt.Errorf("couldn't read attempt %s: %w", e.id, err)
	case !anyFailed(e.steps) && e.thing == "":
		return nil, nil
	default:
		a = *remade(e.id, e.packed, "the steps before CONNACK weren't kept: the entry of this connection was trimmed while it lasted")
	}
	e.apply(f, &a)
	return &a, nil
}

// store adds to a stored attempt, and gives it.
func (e *ending) store(tx imprint.Tx, f fingerprints) (imprint.Attempt, error) {
	a, err := e.read(tx, f)
	if err != nil || a == nil {
		return imprint.Attempt{}, err
	}
	err = tx.PutAttempt(*a)
	if err != nil {
		return *a, fmt.Errorf("couldn't store what came of attempt %s: %w", e.id, err)
	}
	return *a, nil
}

// readFailed reads the attempts that are stored and end now, and in which something
// failed: they are folded like those that are over before they are written. It gives the
// endings of all others.
func (l *Log) readFailed(endings []*ending) (rest []*ending, over []*imprint.Attempt) {
	failed := func(e *ending) bool { return e.failed && e.outcome != "" }
	if l.opts.FoldAfter < 1 || !slices.ContainsFunc(endings, failed) {
		return endings, nil
	}
	whole := make(map[string]*ending) // what the batch has of those that end
	for _, e := range endings {
		if failed(e) {
			whole[e.id] = &ending{}
		}
	}
	for _, e := range endings {
		w := whole[e.id]
		if w == nil {
			rest = append(rest, e)
			continue
		}
		// The end comes last.
		steps, thing := append(w.steps, e.steps...), w.thing
		*w = *e
		w.steps = steps
		if w.thing == "" {
			w.thing = thing
		}
	}
	err := l.store.View(context.Background(), func(tx imprint.ReadTx) error {
		over = nil
		for _, e := range endings {
			if !failed(e) {
				continue
			}
			a, err := whole[e.id].read(tx, l.folds.fingerprints)
			if err != nil {
				return err
			}
			if a != nil {
				over = append(over, a)
			}
		}
		return nil
	})
	if err != nil {
		l.opts.Logger.Warn("couldn't read attempts, to count them with others", "error", err)
		return endings, nil
	}
	return rest, over
}

func (l *Log) trim() {
	before := l.clock().Add(-l.opts.Retention)
	for {
		removed, aliases := 0, 0
		err := l.store.Update(context.Background(), func(tx imprint.Tx) error {
			n, err := tx.TrimAttempts(before, l.opts.Keep, trimStep)
			removed = n
			if err != nil {
				return err
			}
			aliases, err = tx.TrimAttemptAliases(l.opts.Keep, trimStep)
			return err
		})
		if err != nil {
			l.opts.Logger.Error("couldn't trim attempts", "error", err)
			return
		}
		l.trimmed.Add(uint64(removed))
		if removed < trimStep && aliases < trimStep {
			return
		}
		select {
		case <-l.closing:
			return
		default:
		}
	}
}
