package registry

import (
	"time"

	"github.com/imprint-iot/imprint"
)

// attemptBody is what no look-up needs of an attempt, as it is read (appendBody writes it).
type attemptBody struct {
	EndedAt int64           `json:"ended,omitempty"` // milliseconds; absent: zero time
	SNI     string          `json:"sni,omitempty"`
	ALPN    string          `json:"alpn,omitempty"`
	TLS     string          `json:"tls,omitempty"`
	Subject string          `json:"subject,omitempty"`
	Outcome imprint.Outcome `json:"outcome,omitempty"`
	Code    imprint.Code    `json:"code,omitempty"`
	Log     []loggedStep    `json:"log,omitempty"`
	Repeats int             `json:"again,omitempty"`
	FirstAt int64           `json:"first,omitempty"` // milliseconds, when Repeats isn't 0
	Devices int             `json:"devices,omitempty"`
	Sample  []string        `json:"sample,omitempty"`
	// Steps hold them instead where one isn't near the attempt's time.
	Steps []imprint.Step `json:"steps,omitempty"`
}

// loggedStep is a step in few bytes: what an attempt costs goes by the pages that
// it fills.
type loggedStep struct {
	After   int64           `json:"t,omitempty"` // nanoseconds after the attempt's time as its column has it
	Name    string          `json:"s"`
	Verdict imprint.Verdict `json:"v"`
	Code    imprint.Code    `json:"c,omitempty"`
	Detail  string          `json:"d,omitempty"`
	Fix     string          `json:"f,omitempty"`

	Action   string `json:"a,omitempty"`
	Resource string `json:"r,omitempty"`

	Wire        string                `json:"w,omitempty"`
	Certificate imprint.CertificateID `json:"m,omitempty"`

	Repeats int   `json:"n,omitempty"`
	Last    int64 `json:"l,omitempty"` // as After, when Repeats isn't 0
	Others  bool  `json:"o,omitempty"`
}

// near bounds After.
const near = 100 * 365 * 24 * time.Hour

func (b *attemptBody) readSteps(at time.Time) []imprint.Step {
	for i := range b.Steps {
		b.Steps[i].At, b.Steps[i].LastAt = b.Steps[i].At.UTC(), b.Steps[i].LastAt.UTC()
	}
	if len(b.Log) == 0 {
		return b.Steps
	}
	steps := make([]imprint.Step, len(b.Log))
	for i := range b.Log {
		s := &b.Log[i]
		steps[i] = imprint.Step{
			At: at.Add(time.Duration(s.After)), Name: s.Name, Verdict: s.Verdict, Code: s.Code, Detail: s.Detail, Fix: s.Fix,
			Action: s.Action, Resource: s.Resource, Wire: s.Wire, Certificate: s.Certificate,
			Repeats: s.Repeats, Others: s.Others,
		}
		if s.Repeats > 0 {
			steps[i].LastAt = at.Add(time.Duration(s.Last))
		}
	}
	return steps
}
