package registry

import (
	_ "embed"
	"encoding/json"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/imprint-iot/imprint"
)

// attemptBody is a body of before, when they were JSON.
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

// loggedStep is one of its steps.
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

// jsonWords are what bodies of before were packed with.
//
//go:embed attemptjsonwords.txt
var jsonWords []byte

var jsonDict = sync.OnceValue(func() *s2.Dict { return s2.MakeDict(jsonWords, nil) })

// readJSON reads a body of before into an attempt.
func readJSON(stored []byte, a *imprint.Attempt) error {
	if len(stored) > 0 && stored[0] == packedJSON {
		text, err := unpack(jsonDict(), stored[1:])
		if err != nil {
			return err
		}
		stored = text
	}
	var body attemptBody
	err := json.Unmarshal(stored, &body)
	if err != nil {
		return err
	}
	if body.EndedAt != 0 {
		a.EndedAt = readTime(body.EndedAt)
	}
	a.SNI, a.ALPN, a.TLSVersion, a.Subject = body.SNI, body.ALPN, body.TLS, body.Subject
	a.Outcome, a.Code, a.Steps = body.Outcome, body.Code, body.readSteps(a.At)
	if body.Repeats != 0 {
		a.Repeats, a.FirstAt = body.Repeats, readTime(body.FirstAt)
	}
	a.Devices, a.Sample = body.Devices, body.Sample
	return nil
}

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
