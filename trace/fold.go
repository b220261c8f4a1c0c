package trace

import (
	"container/list"
	"fmt"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
)

// A device that is refused comes again, and again: firmware retries every few
// seconds for weeks; and what is wrong with one is often wrong with a fleet. The first
// attempts that fail in one way are kept whole; further ones are counted in one entry,
// which is that of the latest: who looks for what is wrong wants the newest. After
// foldFor it begins anew, so that whoever asks for what failed lately finds it.
const (
	// foldFor is how long attempts are counted with one.
	foldFor = 5 * time.Minute
	// maxOwn is how many entries of their own, each of one device that failed in one
	// way, a kind of failure may have in foldFor. All others are counted in the kind's.
	maxOwn = 64
	// takeovers is how many of those attempts of a device are kept whole that end because
	// another one took its client id, as audits look at who did, and how often. Up to
	// maxApart devices have entries of their own then.
	takeovers = 8
	// maxKinds bounds the kinds that are told apart in foldFor, and maxKindsOf those of one
	// account, or of nobody's devices: who makes up ways to fail takes none of them from
	// others. What fails in further ways is told apart by its code alone.
	maxKinds   = 1024
	maxKindsOf = 256
	// maxApart is how many devices of one entry are told apart, and maxSample how many
	// of them it names.
	maxApart  = 1000
	maxSample = 10
)

// kindKey is what the attempts of a kind have in common.
type kindKey struct {
	tenant imprint.Tenant
	code   imprint.Code
	way    uint64 // see fingerprints.kind; 0 where only the code tells
}

// kind is what is known of one kind of failure, in foldFor.
type kind struct {
	key   kindKey
	began time.Time
	own   map[uint64]*fold // by fingerprints.exact
	all   *fold            // of the devices that have none of their own
	// devices are fingerprints of who is counted in all, and sample names the latest.
	devices map[uint64]struct{}
	sample  []string
}

// fold is one entry that attempts are counted in.
type fold struct {
	id   string // of the first
	row  string // the id of the attempt that is stored for all
	kept int    // how many were kept whole
	many *kind  // not nil: it counts those of many devices
}

// folds remembers failures. It is the writer's.
type folds struct {
	after int // how many are kept whole; below 1: all
	kinds map[kindKey]*list.Element
	of    map[imprint.AccountID]int // how many of them are an account's
	age   list.List                 // of *kind, the one that began first in front
	fingerprints
}

func newFolds(after int) *folds {
	return &folds{after: after, kinds: make(map[kindKey]*list.Element), of: make(map[imprint.AccountID]int), fingerprints: newFingerprints()}
}

// foldable says whether an attempt may be counted with others: one that failed.
func foldable(a *imprint.Attempt) bool {
	return a.Outcome == imprint.OutcomeRefused || a.Outcome == imprint.OutcomeClosed && anyFailed(a.Steps)
}

func anyFailed(steps []imprint.Step) bool {
	return slices.ContainsFunc(steps, func(s imprint.Step) bool { return s.Verdict == imprint.VerdictFailed })
}

// take says which entry an attempt is to be counted in now; nil: it is kept whole.
func (f *folds) take(a *imprint.Attempt, now time.Time) *fold {
	if f.after < 1 || !foldable(a) {
		return nil
	}
	k := f.kindOf(a, now)
	exact := f.exact(a)
	into, after, own := k.own[exact], f.after, maxOwn
	if a.Code == imprint.CodeTakenOver {
		// Who took whose place is seen by several attempts of each.
		after, own = max(after, takeovers), maxApart
	}
	if into == nil && len(k.own) < own && k.key.way != 0 {
		into = &fold{}
		k.own[exact] = into
	}
	if into == nil {
		if k.all == nil {
			k.all = &fold{many: k}
		}
		into, after = k.all, 1
		f.meet(k, a)
	}
	if into.kept < after {
		into.kept++
		into.id, into.row = a.ID, a.ID
		if into.many != nil {
			a.Fold = a.ID
		}
		return nil
	}
	return into
}

// kindOf gives the kind of an attempt's failure, which is new however long ago the attempt
// began or ended.
func (f *folds) kindOf(a *imprint.Attempt, now time.Time) *kind {
	for oldest := f.age.Front(); oldest != nil; oldest = f.age.Front() {
		k := oldest.Value.(*kind)
		if age := now.Sub(k.began); age < foldFor && age > -foldFor {
			break
		}
		f.forget(oldest)
	}
	key := kindKey{a.Tenant, a.Code, f.kind(a)}
	known := f.kinds[key]
	if known == nil && (len(f.kinds) >= maxKinds || f.of[a.Tenant.Account] >= maxKindsOf) {
		key.way = 0
		known = f.kinds[key]
		if known == nil && len(f.kinds) >= 2*maxKinds {
			f.forget(f.age.Front()) // more codes and tenants than are remembered
		}
	}
	if known != nil {
		return known.Value.(*kind)
	}
	k := &kind{key: key, began: now, own: make(map[uint64]*fold)}
	f.kinds[key] = f.age.PushBack(k)
	f.of[a.Tenant.Account]++
	return k
}

func (f *folds) forget(element *list.Element) {
	key := f.age.Remove(element).(*kind).key
	delete(f.kinds, key)
	f.of[key.tenant.Account]--
	if f.of[key.tenant.Account] == 0 {
		delete(f.of, key.tenant.Account)
	}
}

// meet notes whose attempt is counted with those of other devices.
func (f *folds) meet(k *kind, a *imprint.Attempt) {
	who := whoOf(a)
	if len(k.devices) < maxApart {
		if k.devices == nil {
			k.devices = make(map[uint64]struct{})
		}
		k.devices[f.text(who)] = struct{}{}
	}
	k.sample = slices.DeleteFunc(k.sample, func(known string) bool { return known == who })
	if len(k.sample) == maxSample {
		k.sample = slices.Delete(k.sample, 0, 1)
	}
	k.sample = append(k.sample, who)
}

// whoOf names the device of an attempt: by its certificate, or by its address where
// none is known, or by its line of a bulk registration.
func whoOf(a *imprint.Attempt) string {
	if a.CertificateID != "" {
		return string(a.CertificateID)
	}
	if a.OfLine() {
		return a.Address
	}
	return a.Host()
}

// repeated are the attempts of one batch that are counted in one entry.
type repeated struct {
	fold   *fold
	row    string           // the attempt that was stored for it
	before *imprint.Attempt // that attempt, where it is in the same batch
	first  time.Time        // when the first of them began
	count  int
	latest *imprint.Attempt
	// aliases find the entry for those who know the id of an attempt that is no longer
	// there, or its device.
	aliases []imprint.AttemptAlias
	stored  []string // the ids of all but the latest that have rows
	// displaced is what store found in the entry's row.
	displaced *imprint.Attempt
}

// fold takes attempts out of a batch that are counted with others. Told are those whose id
// somebody knows, rows those that are stored.
func (l *Log) fold(order []*imprint.Attempt, attempts map[string]*imprint.Attempt, told, rows map[string]bool) (kept []*imprint.Attempt, again []*repeated) {
	kept = order[:0]
	var byFold map[*fold]*repeated
	now := l.clock()
	gone := func(r *repeated, a *imprint.Attempt) {
		if a == nil {
			return
		}
		if told[a.ID] {
			l.keepFolded(a).in = r.fold
		}
		if rows[a.ID] {
			r.stored = append(r.stored, a.ID)
		}
		r.gone(a, told[a.ID])
	}
	for _, a := range order {
		into := l.folds.take(a, now)
		if into == nil {
			kept = append(kept, a)
			continue
		}
		l.folded.Add(1)
		r := byFold[into]
		if r == nil {
			r = &repeated{fold: into, row: into.row, before: attempts[into.row], first: a.At}
			if byFold == nil {
				byFold = make(map[*fold]*repeated)
			}
			byFold[into] = r
			again = append(again, r)
			gone(r, r.before)
		}
		gone(r, r.latest)
		r.latest = a
		r.count++
	}
	if len(again) == 0 {
		return kept, nil
	}
	return slices.DeleteFunc(kept, func(a *imprint.Attempt) bool {
		return slices.ContainsFunc(again, func(r *repeated) bool { return r.before == a })
	}), again
}

// gone makes an attempt that another takes the place of findable.
func (r *repeated) gone(a *imprint.Attempt, told bool) {
	if told {
		r.alias(a, a.ID)
	}
	r.devices(a)
}

func (r *repeated) alias(a *imprint.Attempt, word string) {
	if word != "" {
		r.aliases = append(r.aliases, imprint.AttemptAlias{Tenant: a.Tenant, Word: word, Fold: r.fold.id})
	}
}

// devices makes a device findable that is counted with others.
func (r *repeated) devices(a *imprint.Attempt) {
	if r.fold.many == nil {
		return
	}
	r.alias(a, whoOf(a))
	r.alias(a, string(a.ClientID))
	r.alias(a, a.Serial)
}

// store puts the latest attempt in the place of the one that was stored, with the
// count of both; it gives what it stored.
func (r *repeated) store(tx imprint.Tx) (imprint.Attempt, error) {
	a := *r.latest
	a.Fold = r.fold.id
	aliases := r.aliases
	r.displaced = nil
	if r.before != nil {
		a.Repeats, a.FirstAt = r.count, r.before.At
	} else {
		old, err := tx.Attempt(r.row)
		switch {
		case err == nil:
			a.Repeats, a.FirstAt = old.Repeats+r.count, old.FirstAt
			if old.Repeats == 0 {
				a.FirstAt = old.At
			}
			err = tx.DeleteAttempt(old.ID)
			if err != nil {
				return a, err
			}
			r.displaced = &old
			displaced := repeated{fold: r.fold}
			displaced.gone(&old, true)
			aliases = append(displaced.aliases, aliases...)
		case imprint.CodeOf(err) == imprint.CodeNotFound: // trimmed, or never stored
			if r.count > 1 {
				a.Repeats, a.FirstAt = r.count-1, r.first
			}
		default:
			return a, err
		}
	}
	for _, id := range r.stored {
		err := tx.DeleteAttempt(id)
		if err != nil {
			return a, err
		}
	}
	if k := r.fold.many; k != nil {
		a.Devices, a.Sample = min(len(k.devices), a.Repeats+1), slices.Clone(k.sample)
	}
	for _, alias := range aliases {
		err := tx.PutAttemptAlias(alias)
		if err != nil {
			return a, fmt.Errorf("couldn't make %q find it: %w", alias.Word, err)
		}
	}
	return a, tx.PutAttempt(a)
}
