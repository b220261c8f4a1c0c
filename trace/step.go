package trace

import (
	"errors"

	"github.com/imprint-iot/imprint"
)

// Fail adds the step that failed, with the code and the fix of the error, and what a
// policy was asked if the error tells that.
func (r *Recorder) Fail(step string, err error) { r.FailWith(step, err, "") }

// FailWith is Fail with what the device's own log has of it (see imprint.Step.Wire).
func (r *Recorder) FailWith(step string, err error, wire string) {
	s := imprint.Step{
		Name: step, Verdict: imprint.VerdictFailed, Code: imprint.CodeOf(err),
		Detail: err.Error(), Fix: imprint.HintOf(err), Wire: wire,
	}
	var denial interface {
		Asked() (action, resource string)
	}
	if errors.As(err, &denial) {
		s.Action, s.Resource = denial.Asked()
	}
	r.add(s, nil)
}

// Sent says what a device that isn't let in was sent: it becomes part of the last step
// that failed, else of the last. It has no effect after Connected or End.
func (r *Recorder) Sent(wire string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.attempt == nil || r.connected || r.ended || len(r.attempt.Steps) == 0 {
		return
	}
	steps := r.attempt.Steps
	at := len(steps) - 1
	for i := at; i >= 0; i-- {
		if steps[i].Verdict == imprint.VerdictFailed {
			at = i
			break
		}
	}
	steps[at].Wire = wire
}

// InfoWith adds a step that is neither good nor bad, with what the device's own log has
// of it.
func (r *Recorder) InfoWith(step, wire, format string, args ...any) {
	r.add(imprint.Step{Name: step, Verdict: imprint.VerdictInfo, Detail: format, Wire: wire}, args)
}

// Made adds a step that made a certificate: who asks for that finds the attempt.
func (r *Recorder) Made(step string, certificate imprint.CertificateID, format string, args ...any) {
	r.add(imprint.Step{Name: step, Verdict: imprint.VerdictOK, Detail: format, Certificate: certificate}, args)
}

// AllowedBy is Allowed with the statement that decided, in words; empty: not known.
func (r *Recorder) AllowedBy(step, action, resource, by string) {
	if by == "" {
		r.Allowed(step, action, resource)
		return
	}
	if r == nil || r.full() {
		return
	}
	r.add(imprint.Step{Name: step, Verdict: imprint.VerdictOK, Detail: "allowed by " + by, Action: action, Resource: resource}, nil)
}
