package trace

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
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
	// told is set once the id was given to somebody, who may ask for it: the device, a
	// function, an event.
	told atomic.Bool
	// refused is set while what must be kept of it finds no room in the queue.
	refused atomic.Bool

	mu sync.Mutex // guards what follows
	// attempt is nil once it was handed to the writer: of an idle connection its id
	// alone is held.
	attempt *imprint.Attempt
	draft   *draft // the memory of attempt and args; nil where that isn't from there
	// args are what the details of the attempt's steps are made of, where nobody has
	// read them yet: of most devices that are let in nobody does.
	args [][]any
	// packed is what the attempt of a device that is on is made of again: when it wasn't
	// kept and a later step fails, and when its row was trimmed meanwhile.
	packed    string
	late      []imprint.Step    // steps after Connected that weren't handed over
	lateSteps int               // all of them but those that failed
	trouble   *trouble          // what went wrong after Connected; nil: nothing
	thing     imprint.ThingName // that came of it after Connected, and wasn't handed over
	skipped   int               // steps that there was no room for
	connected bool
	stored    bool // the writer has the attempt
	stumbled  bool // a step of what it has failed
	failed    bool // one of late failed, or one that somebody else added
	waiting   bool // the log hands over what there is in a moment
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
	d, _ := drafts.Get().(*draft)
	d.attempt = imprint.Attempt{ID: id, At: now, Address: address, Steps: d.steps[:0]}
	return &Recorder{log: l, id: id, draft: d, attempt: &d.attempt}
}

// usualSteps is how many steps most connections have, and nearly all first ones.
const usualSteps = 16

// draft is the memory of an attempt while it is told, and until it is written: the next
// one has it then.
type draft struct {
	attempt imprint.Attempt
	steps   [usualSteps]imprint.Step
	args    [usualSteps][]any
}

var drafts = sync.Pool{New: func() any { return new(draft) }}

// free gives the memory back. Nobody may have the attempt any more. Nil is no draft.
func (d *draft) free() {
	if d != nil {
		*d = draft{}
		drafts.Put(d)
	}
}

// ID names the attempt; empty on a nil Recorder.
func (r *Recorder) ID() string {
	if r == nil {
		return ""
	}
	if !r.told.Swap(true) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.ended {
			r.log.remember(r)
		}
	}
	return r.id
}

// StoredID is ID for a row that is stored with what the attempt made, and leads to the
// attempt if that is kept.
func (r *Recorder) StoredID() string {
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
	if r.attempt != nil && !r.connected {
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
	if r.connected && !r.ended {
		r.handOverSoon()
	}
}

// OK adds a step that went well.
func (r *Recorder) OK(step, format string, args ...any) {
	r.add(imprint.Step{Name: step, Verdict: imprint.VerdictOK, Detail: format}, args)
}

// Info adds a step that is neither good nor bad.
func (r *Recorder) Info(step, format string, args ...any) {
	r.add(imprint.Step{Name: step, Verdict: imprint.VerdictInfo, Detail: format}, args)
}

// Allowed adds what a policy allowed, unless that would take the place of other
// steps.
func (r *Recorder) Allowed(step, action, resource string) {
	if r == nil || r.full() {
		return
	}
	r.add(imprint.Step{Name: step, Verdict: imprint.VerdictOK, Detail: "allowed", Action: action, Resource: resource}, nil)
}

// full tells that there is no room but for the end.
func (r *Recorder) full() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	steps := r.lateSteps
	if !r.connected && r.attempt != nil {
		steps = len(r.attempt.Steps)
	}
	return steps >= maxSteps-2
}

// add adds a step. Its detail is the format of args, if there are any.
func (r *Recorder) add(s imprint.Step, args []any) {
	if r == nil {
		return
	}
	if len(args) > 0 && !constant(args) {
		s.Detail, args = fmt.Sprintf(s.Detail, args...), nil
	}
	s.Fix, s.Resource = bounded(s.Fix), bounded(s.Resource)
	if len(args) == 0 {
		s.Detail = bounded(s.Detail)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	s.At = r.log.clock()
	if r.connected {
		s.Detail = formatted(s.Detail, args)
		r.addLate(s)
		return
	}
	a := r.attempt
	if len(a.Steps) < maxSteps {
		if len(args) > 0 {
			if r.args == nil {
				r.args = r.draft.args[:0]
			}
			for len(r.args) < len(a.Steps) {
				r.args = append(r.args, nil)
			}
			r.args = append(r.args, args)
		}
		a.Steps = append(a.Steps, s)
		return
	}
	// The last step tells how it ended: it takes the place of the one before.
	r.write()
	s.Detail = formatted(s.Detail, args)
	r.skipped = max(r.skipped+1, 2)
	a.Steps[maxSteps-2], a.Steps[maxSteps-1] = r.left(s.At), s
}

// constant says whether values can be formatted later: none of them is of a kind that
// its owner may change meanwhile.
func constant(args []any) bool {
	for _, arg := range args {
		switch arg.(type) {
		case nil, string, int, imprint.Tenant, time.Time:
			continue
		}
		switch reflect.TypeOf(arg).Kind() {
		case reflect.String, reflect.Bool, reflect.Float64,
			reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
			reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		default:
			return false
		}
	}
	return true
}

// write formats the details that weren't. The lock is held.
func (r *Recorder) write() {
	for i, args := range r.args {
		if args != nil {
			s := &r.attempt.Steps[i]
			s.Detail = formatted(s.Detail, args)
		}
	}
	r.args = nil
}

func formatted(format string, args []any) string {
	if len(args) == 0 {
		return format
	}
	return bounded(fmt.Sprintf(format, args...))
}

func bounded(s string) string {
	if len(s) <= maxDetail {
		return s
	}
	return strings.ToValidUTF8(s[:maxDetail], "") + "..."
}

// Connected records that the device was let in. The attempt is handed to the writer
// within a second, or when the connection ends before.
func (r *Recorder) Connected() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.connected || r.ended {
		return
	}
	r.connected, r.skipped = true, 0
	r.attempt.Outcome = imprint.OutcomeConnected
	r.failed = r.failed || anyFailed(r.attempt.Steps) // such as messages that were dropped meanwhile
	if r.failed || r.log.samples(r.attempt) {
		r.write()
		r.handOverSoon()
		return
	}
	r.leaveOut()
}

// leaveOut keeps of an attempt what it is made of again alone. The lock is held.
func (r *Recorder) leaveOut() {
	r.packed = pack(r.attempt)
	r.draft.free()
	r.attempt, r.args, r.draft = nil, nil, nil
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
	mustKeep = (outcome == imprint.OutcomeRefused && code != imprint.CodeOverloaded) || outcome == imprint.OutcomeProvisioned || outcome == imprint.OutcomeEnrolled
	a := r.attempt
	switch {
	case r.connected:
		outcome, mustKeep = imprint.OutcomeClosed, r.failed || r.thing != ""
		r.addLast()
		a = r.take()
	case outcome == imprint.OutcomeClosed && !r.failed && !r.log.samples(a):
		// Health checks that come for the handshake alone are as many as devices.
		r.leaveOut()
		a = nil
	default:
		r.write()
	}
	switch {
	case a != nil:
		a.Outcome, a.Code, a.EndedAt = outcome, code, now
		e = entry{attempt: a, draft: r.draft, told: r.told.Load(), urgent: r.failed || outcome == imprint.OutcomeRefused}
	case !r.stored:
		r.log.unsampled.Add(1)
		if r.told.Load() {
			r.log.keep(r.id, past{packed: r.packed, why: unsampled, outcome: outcome, code: code, ended: now})
		}
	default:
		e = entry{end: r.ending(), urgent: r.failed}
		e.end.at, e.end.outcome, e.end.code = now, outcome, code
	}
	r.attempt, r.draft, r.late, r.packed, r.trouble = nil, nil, nil, "", nil
	if r.told.Load() {
		r.log.forget(r.id)
	}
	return e, mustKeep
}

// samples says whether the attempt of a device that is let in is kept: always when a
// step failed.
func (l *Log) samples(a *imprint.Attempt) bool {
	return anyFailed(a.Steps) || l.successes == nil || l.successes.AllowN(l.clock(), 1)
}

// SamplesLine says whether a line of a bulk registration that went well is to be recorded.
func (l *Log) SamplesLine() bool {
	return !l.opts.Off && (l.lines == nil || l.lines.AllowN(l.clock(), 1))
}

// Began is when the connection was accepted; zero once Connected was called.
func (r *Recorder) Began() time.Time {
	if r == nil {
		return time.Time{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.attempt == nil || r.connected {
		return time.Time{}
	}
	return r.attempt.At
}
