package registry

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/imprint-iot/imprint"
)

// appendBody appends the JSON of an attempt's body, as attemptBody reads it: encoding/json
// takes several times as long, and there is one for each device that comes the first time.
func appendBody(dst []byte, a *imprint.Attempt) ([]byte, error) {
	at := readTime(millis(a.At))
	for i := range a.Steps {
		after := a.Steps[i].At.Sub(at)
		if after <= -near || after >= near {
			return appendFar(dst, a)
		}
	}
	o := object{append(dst, '{')}
	if !a.EndedAt.IsZero() {
		o.number("ended", millis(a.EndedAt))
	}
	o.text("sni", a.SNI)
	o.text("alpn", a.ALPN)
	o.text("tls", a.TLSVersion)
	o.text("subject", a.Subject)
	o.text("outcome", string(a.Outcome))
	o.text("code", string(a.Code))
	if len(a.Steps) > 0 {
		o.list("log")
		for i := range a.Steps {
			o.step(&a.Steps[i], at)
		}
		o.end(']')
	}
	if a.Repeats != 0 {
		o.number("again", int64(a.Repeats))
		o.number("first", millis(a.FirstAt))
	}
	o.number("devices", int64(a.Devices))
	if len(a.Sample) > 0 {
		o.list("sample")
		for _, name := range a.Sample {
			o.separate()
			o.quote(name)
		}
		o.end(']')
	}
	o.end('}')
	return o.dst, nil
}

// appendFar is appendBody of an attempt with a step that isn't near its time.
func appendFar(dst []byte, a *imprint.Attempt) ([]byte, error) {
	body := attemptBody{SNI: a.SNI, ALPN: a.ALPN, TLS: a.TLSVersion, Subject: a.Subject,
		Outcome: a.Outcome, Code: a.Code, Devices: a.Devices, Sample: a.Sample, Steps: a.Steps}
	if a.Repeats != 0 {
		body.Repeats, body.FirstAt = a.Repeats, millis(a.FirstAt)
	}
	if !a.EndedAt.IsZero() {
		body.EndedAt = millis(a.EndedAt)
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("couldn't encode attempt %s: %w", a.ID, err)
	}
	return append(dst, text...), nil
}

// object is JSON that is being written. What is empty or 0 is left out.
type object struct{ dst []byte }

func (o *object) separate() {
	if last := o.dst[len(o.dst)-1]; last != '{' && last != '[' {
		o.dst = append(o.dst, ',')
	}
}

func (o *object) key(name string) {
	o.separate()
	o.dst = append(o.dst, '"')
	o.dst = append(o.dst, name...)
	o.dst = append(o.dst, '"', ':')
}

func (o *object) text(name, value string) {
	if value != "" {
		o.key(name)
		o.quote(value)
	}
}

func (o *object) number(name string, value int64) {
	if value != 0 {
		o.key(name)
		o.dst = strconv.AppendInt(o.dst, value, 10)
	}
}

func (o *object) list(name string) {
	o.key(name)
	o.dst = append(o.dst, '[')
}

func (o *object) end(bracket byte) { o.dst = append(o.dst, bracket) }

// step writes what loggedStep reads.
func (o *object) step(s *imprint.Step, at time.Time) {
	o.separate()
	o.dst = append(o.dst, '{')
	o.number("t", int64(s.At.Sub(at)))
	o.text("s", s.Name)
	o.text("v", string(s.Verdict))
	o.text("c", string(s.Code))
	o.text("d", s.Detail)
	o.text("f", s.Fix)
	o.text("a", s.Action)
	o.text("r", s.Resource)
	o.text("w", s.Wire)
	o.text("m", string(s.Certificate))
	if s.Repeats > 0 {
		o.number("n", int64(s.Repeats))
		o.number("l", int64(s.LastAt.Sub(at)))
	}
	if s.Others {
		o.key("o")
		o.dst = append(o.dst, "true"...)
	}
	o.end('}')
}

func (o *object) quote(text string) {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			o.quoteSpecial(text, i)
			return
		}
	}
	o.dst = append(o.dst, '"')
	o.dst = append(o.dst, text...)
	o.dst = append(o.dst, '"')
}

// quoteSpecial is quote of a text whose first character that isn't plain is at an index.
// Quotation marks are in most details; the rest is for encoding/json.
func (o *object) quoteSpecial(text string, from int) {
	start := len(o.dst)
	o.dst = append(o.dst, '"')
	o.dst = append(o.dst, text[:from]...)
	for i := from; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			o.dst = append(o.dst, '\\', c)
		case c < ' ' || c >= 0x7f:
			o.dst = o.dst[:start]
			quoted, _ := json.Marshal(text) // never fails for a string
			o.dst = append(o.dst, quoted...)
			return
		default:
			o.dst = append(o.dst, c)
		}
	}
	o.dst = append(o.dst, '"')
}
