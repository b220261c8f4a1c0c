package trace

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
)

// A device that was let in stays on for weeks, and may be refused the same thing each
// second. What fails is never left out: the same failure is one step that counts itself,
// up to maxFailures different ones are told apart, and further ones by name and code.

const (
	// maxFailures is how many failures of a device that is on are told apart.
	maxFailures = 32
	// After soonHanded times in which the writer had nothing new but more of the same,
	// it has that once in handAgain only: each time is a row written anew.
	soonHanded = 64
	handAgain  = time.Minute
)

// trouble is what a device that was let in has had more of than usual.
type trouble struct {
	kinds  []uint64      // the failures that are told apart: fingerprints.failure
	fresh  bool          // one of them wasn't handed over
	again  int           // how often more of the same alone was handed over
	handed time.Time     // when that was
	last   *imprint.Step // a step that there was no room for, unless another one comes
}

// addLate adds a step of a device that was let in. One that failed is handed over within
// a second: who wonders why a device that is on doesn't do what it should can't wait for
// its end. The lock is held.
func (r *Recorder) addLate(s imprint.Step) {
	if s.Verdict == imprint.VerdictFailed {
		r.addFailure(s)
		return
	}
	if r.lateSteps >= maxSteps {
		t := r.troubled()
		if t.last != nil {
			r.skipped++
		}
		t.last = &s
		return
	}
	if r.late == nil && r.attempt != nil {
		// Few have any; those who do have many, as they are claims.
		r.late = make([]imprint.Step, 0, usualSteps)
	}
	r.late = append(r.late, s)
	r.lateSteps++
}

func (r *Recorder) troubled() *trouble {
	if r.trouble == nil {
		r.trouble = &trouble{}
	}
	return r.trouble
}

func (r *Recorder) addFailure(s imprint.Step) {
	t := r.troubled()
	kind := r.log.folds.failure(&s)
	if !slices.Contains(t.kinds, kind) && len(t.kinds) >= maxFailures {
		s.Others = true
		kind = r.log.folds.failure(&s)
	}
	if !slices.Contains(t.kinds, kind) {
		t.kinds, t.fresh = append(t.kinds, kind), true
	}
	r.late = r.log.folds.add(r.late, s)
	r.failed = true
	r.handOverSoon()
}

// adopt takes steps that somebody else adds to the attempt, one of which failed: the
// attempt is kept then, sampled or not. It is false where they are to be added to what
// the writer has, or gets.
func (r *Recorder) adopt(steps []imprint.Step) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.connected && !r.ended {
		r.failed = true // it will be sampled
	}
	if !r.connected || r.ended || r.stored || r.attempt != nil {
		return false
	}
	for _, s := range steps {
		r.addLate(s)
	}
	r.late = inOrder(r.late)
	return true
}

// addLast adds the last of the steps that there was no room for, as it tells how it
// ended. The lock is held.
func (r *Recorder) addLast() {
	if r.trouble == nil || r.trouble.last == nil {
		return
	}
	last := *r.trouble.last
	if r.skipped > 0 {
		r.late = append(r.late, r.left(last.At))
	}
	r.late = append(r.late, last)
}

// handOverSoon asks the log to call handOver. The lock is held.
func (r *Recorder) handOverSoon() {
	if !r.waiting {
		r.waiting = true
		r.log.soon(r)
	}
}

// patient says that what is to be handed over is more of the same, of which there was
// enough lately. The lock is held.
func (r *Recorder) patient() bool {
	t := r.trouble
	return t != nil && t.again >= soonHanded && !t.fresh && r.stored && r.thing == "" && r.log.clock().Sub(t.handed) < handAgain
}

// handOver gives the writer what it doesn't have yet of a device that is on.
func (r *Recorder) handOver() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = false
	if r.ended {
		return
	}
	if r.patient() {
		r.handOverSoon()
		return
	}
	// The writer may wait for who waits for this lock: what finds no room, and must be
	// kept, is tried again in a second, or comes with the end.
	must := r.failed || r.thing != ""
	r.refused.Store(false)
	again := r.stored
	a := r.take()
	e := entry{attempt: a, draft: r.draft, told: r.told.Load(), urgent: r.failed}
	switch {
	case a != nil:
		// Before it is the writer's.
		r.packed, r.stumbled = pack(a), anyFailed(a.Steps)
	case r.stored && (len(r.late) > 0 || r.thing != ""):
		e.end = r.ending()
	default:
		return
	}
	switch {
	case r.log.offer(e):
		r.draft = nil
	case must:
		if a != nil {
			r.attempt, r.late, r.stored = a, nil, false // take gives it again
		}
		r.refused.Store(true)
		r.handOverSoon()
		return
	case a != nil:
		// As if it hadn't been sampled: what fails later is told yet.
		r.log.dropped.Add(1)
		r.draft.free()
		r.stored, r.draft = false, nil
	default:
		r.log.dropped.Add(1)
	}
	r.stumbled = r.stumbled || r.failed
	if t := r.trouble; t != nil {
		if again && !t.fresh {
			t.again++
		}
		t.fresh, t.handed = false, r.log.clock()
	}
	r.late, r.thing, r.failed = nil, "", false
}

// ending is what the writer doesn't have of an attempt that it has. The lock is held.
func (r *Recorder) ending() *ending {
	return &ending{id: r.id, packed: r.packed, steps: r.late, thing: r.thing, failed: r.stumbled || r.failed}
}

// take gives the attempt of a device that was let in with its later steps, unless the
// writer has it or nothing of it is to be kept. The lock is held.
func (r *Recorder) take() *imprint.Attempt {
	a := r.attempt
	switch {
	case a != nil:
		r.attempt = nil
	case !r.stored && (r.failed || r.thing != ""):
		a = remade(r.id, r.packed, unsampled)
	default:
		return nil
	}
	r.stored = true
	for _, s := range r.late {
		// More of the same, where the queue had no room for what there was before.
		a.Steps = r.log.folds.add(a.Steps, s)
	}
	if r.thing != "" {
		a.Thing = r.thing
	}
	return a
}

// unsampled says why an attempt lacks its first steps.
const unsampled = "the steps before CONNACK weren't kept: many devices were let in at that time"

// remade gives the attempt of a device that is on without the steps that weren't kept.
func remade(id, packed, why string) *imprint.Attempt {
	a := unpack(packed)
	a.ID, a.Outcome = id, imprint.OutcomeConnected
	a.Steps = []imprint.Step{{
		At: a.At, Name: leftName, Verdict: imprint.VerdictInfo, Detail: why,
	}}
	return a
}

// leftName is that of the step that tells of steps that there was no room for.
const leftName = "trace"

// left tells of the steps that there was no room for.
func (r *Recorder) left(at time.Time) imprint.Step {
	return imprint.Step{
		At: at, Name: leftName, Verdict: imprint.VerdictInfo, Detail: strconv.Itoa(r.skipped) + " steps before the last weren't kept",
	}
}

// pack holds what is known of a device's attempt, without steps, in few bytes: there is
// one for each idle connection that isn't sampled.
func pack(a *imprint.Attempt) string {
	return strings.Join([]string{
		strconv.FormatInt(a.At.UnixNano(), 36), string(a.Tenant.Account), string(a.Tenant.Region), a.Address, a.SNI, a.ALPN, a.TLSVersion,
		string(a.CertificateID), a.Serial, string(a.Thing), string(a.ClientID), a.Subject,
	}, "\x00")
}

// unpack is the reverse of pack.
func unpack(packed string) *imprint.Attempt {
	// None but a subject may have a zero byte in it.
	parts := append(strings.SplitN(packed, "\x00", packedParts), make([]string, packedParts)...)
	at, _ := strconv.ParseInt(parts[0], 36, 64)
	return &imprint.Attempt{
		At: time.Unix(0, at).UTC(), Tenant: imprint.Tenant{Account: imprint.AccountID(parts[1]), Region: imprint.Region(parts[2])},
		Address: parts[3], SNI: parts[4], ALPN: parts[5], TLSVersion: parts[6],
		CertificateID: imprint.CertificateID(parts[7]), Serial: parts[8], Thing: imprint.ThingName(parts[9]), ClientID: imprint.ClientID(parts[10]), Subject: parts[11],
	}
}

// packedParts is how many pack joins.
const packedParts = 12
