package trace

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
)

// maxSteps and maxDetail bound what one attempt can cost.
const (
	maxSteps  = 64
	maxDetail = 2048
	// maxAdded is the number of steps from which on an attempt takes no additions.
	maxAdded = 3 * maxSteps
)

// Recorder collects the steps of one connection. All methods are safe for use by
// several goroutines, as a connection's requests are answered beside its reader,
// and on a nil Recorder, which records nothing.
type Recorder struct {
	log *Log
	id  string // constant

	mu sync.Mutex // guards what follows
	// attempt is nil once Connected handed it over: an idle connection then
	// holds its id alone.
	attempt *imprint.Attempt
	// unsampled, when not nil, is the attempt of a device that was let in and isn't
	// kept, without its steps: it is when a later one fails.
	unsampled *imprint.Attempt
	late      []imprint.Step    // steps after Connected
	thing     imprint.ThingName // that came of it after Connected
	skipped   int               // steps that there was no room for
	failed    bool              // a late step failed
	ended     bool
}

// Begin starts the record of one accepted socket. Address is ip:port. It is nil when
// nothing is recorded.
func (l *Log) Begin(address string) *Recorder {
	if l.opts.Off {
		return nil
	}
	now := l.clock()
	id := NewID(now)
	return &Recorder{log: l, id: id, attempt: &imprint.Attempt{
		ID: id, At: now, Address: address, Steps: make([]imprint.Step, 0, 12),
	}}
}

// ID names the attempt; empty on a nil Recorder.
func (r *Recorder) ID() string {
	if r == nil {
		return ""
	}
	return r.id
}

// Describe lets fn fill in what is known of the peer: tenant, SNI, certificate,
// client id. It has no effect after Connected or End.
func (r *Recorder) Describe(fn func(*imprint.Attempt)) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.attempt != nil {
		fn(r.attempt)
	}
}

// Provisioned says which thing came of a connection that was let in: who asks for
// the thing finds the connection.
func (r *Recorder) Provisioned(thing imprint.ThingName) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.thing = thing
}

// OK adds a step that went well.
func (r *Recorder) OK(step, format string, args ...any) {
	r.add(imprint.Step{Name: step, Verdict: imprint.VerdictOK, Detail: sprintf(format, args)})
}

// Info adds a step that is neither good nor bad.
func (r *Recorder) Info(step, format string, args ...any) {
	r.add(imprint.Step{Name: step, Verdict: imprint.VerdictInfo, Detail: sprintf(format, args)})
}

// Fail adds the step that failed, with the code and the fix of the error, and what a
// policy was asked if the error tells that.
func (r *Recorder) Fail(step string, err error) {
	s := imprint.Step{
		Name: step, Verdict: imprint.VerdictFailed, Code: imprint.CodeOf(err),
		Detail: err.Error(), Fix: imprint.HintOf(err),
	}
	var denial interface {
		Asked() (action, resource string)
	}
	if errors.As(err, &denial) {
		s.Action, s.Resource = denial.Asked()
	}
	r.add(s)
}

// Allowed adds what a policy allowed, unless that would take the place of other
// steps.
func (r *Recorder) Allowed(step, action, resource string) {
	if r == nil || r.full() {
		return
	}
	r.add(imprint.Step{Name: step, Verdict: imprint.VerdictOK, Detail: "allowed", Action: action, Resource: resource})
}

// full tells that there is no room but for the end.
func (r *Recorder) full() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	steps := len(r.late)
	if r.attempt != nil {
		steps = len(r.attempt.Steps)
	}
	return steps >= maxSteps-2
}

func sprintf(format string, args []any) string {
	if len(args) == 0 {
		return format
	}
	return fmt.Sprintf(format, args...)
}

func (r *Recorder) add(s imprint.Step) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	s.At = r.log.clock()
	s.Detail, s.Fix, s.Resource = bounded(s.Detail), bounded(s.Fix), bounded(s.Resource)
	steps := &r.late
	if r.attempt != nil {
		steps = &r.attempt.Steps
	} else if s.Verdict == imprint.VerdictFailed {
		r.failed = true
	}
	if len(*steps) < maxSteps {
		*steps = append(*steps, s)
		return
	}
	// The last step tells how it ended: it takes the place of the one before.
	r.skipped++
	(*steps)[maxSteps-1] = s
	(*steps)[maxSteps-2] = imprint.Step{
		At: s.At, Name: "trace", Verdict: imprint.VerdictInfo, Detail: strconv.Itoa(r.skipped+1) + " steps before the last weren't kept",
	}
}

func bounded(s string) string {
	if len(s) <= maxDetail {
		return s
	}
	return strings.ToValidUTF8(s[:maxDetail], "") + "..."
}

// Connected records that the device was let in and hands the attempt to the
// writer; later steps are kept for End.
func (r *Recorder) Connected() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.attempt == nil || r.ended {
		return
	}
	r.attempt.Outcome = imprint.OutcomeConnected
	if r.log.samples(r.attempt) {
		r.log.put(entry{attempt: r.attempt}, false)
	} else {
		r.attempt.Steps = nil
		r.unsampled = r.attempt
	}
	r.attempt, r.skipped = nil, 0
}

// End records how the attempt ended. For a connection that Connected was
// called for, the outcome is OutcomeClosed. Calls after the first do nothing.
func (r *Recorder) End(outcome imprint.Outcome, code imprint.Code) {
	if r == nil {
		return
	}
	e, mustKeep := r.end(outcome, code)
	if e != (entry{}) {
		// It may wait for room: not under the lock, as others still have steps to add.
		r.log.put(e, mustKeep)
	}
}

// end ends the record and gives what is to be written; nothing when it was ended
// before, or isn't kept.
func (r *Recorder) end(outcome imprint.Outcome, code imprint.Code) (e entry, mustKeep bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return entry{}, false
	}
	r.ended = true
	now := r.log.clock()
	if r.unsampled != nil {
		r.endUnsampled(now, code)
		return entry{}, false
	}
	if r.attempt == nil {
		return entry{end: &ending{id: r.id, at: now, outcome: imprint.OutcomeClosed, code: code, steps: r.late, thing: r.thing}}, r.failed
	}
	a := r.attempt
	r.attempt = nil
	a.Outcome, a.Code, a.EndedAt = outcome, code, now
	return entry{attempt: a}, (outcome == imprint.OutcomeRefused && code != imprint.CodeOverloaded) || outcome == imprint.OutcomeProvisioned
}

// samples says whether the attempt of a device that is let in is kept: always when a
// step failed.
func (l *Log) samples(a *imprint.Attempt) bool {
	for i := range a.Steps {
		if a.Steps[i].Verdict == imprint.VerdictFailed {
			return true
		}
	}
	return l.successes == nil || l.successes.AllowN(l.clock(), 1)
}

// endUnsampled forgets an attempt of which nothing is kept, unless a step failed or a
// device was provisioned. The lock is held.
func (r *Recorder) endUnsampled(now time.Time, code imprint.Code) {
	a := r.unsampled
	r.unsampled = nil
	if !r.failed && r.thing == "" {
		r.log.unsampled.Add(1)
		return
	}
	a.Steps = append([]imprint.Step{{
		At: a.At, Name: "trace", Verdict: imprint.VerdictInfo, Detail: "the steps before CONNACK weren't kept: many devices were let in at that time",
	}}, r.late...)
	a.Outcome, a.Code, a.EndedAt = imprint.OutcomeClosed, code, now
	if r.thing != "" {
		a.Thing = r.thing
	}
	r.log.put(entry{attempt: a}, true)
}

// Began is when the connection was accepted; zero after Connected.
func (r *Recorder) Began() time.Time {
	if r == nil {
		return time.Time{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.attempt == nil {
		return time.Time{}
	}
	return r.attempt.At
}
