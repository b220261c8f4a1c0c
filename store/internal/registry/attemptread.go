package registry

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/imprint-iot/imprint"
)

// bodyReader reads what bodyWriter wrote. What it reads once it met the end of numbers or
// texts is empty, and bad is set.
type bodyReader struct {
	numbers []byte
	texts   string
	bad     bool
}

var errCutBody = errors.New("it is cut or damaged")

func (r *bodyReader) read(a *imprint.Attempt) error {
	a.EndedAt = r.moment(a.At)
	a.SNI, a.ALPN, a.TLSVersion, a.Subject = r.text(), r.text(), r.text(), r.text()
	a.Outcome, a.Code = imprint.Outcome(r.text()), imprint.Code(r.text())
	a.Repeats = r.count(math.MaxInt)
	if a.Repeats != 0 {
		a.FirstAt = r.moment(a.At)
	}
	a.Devices = r.count(math.MaxInt)
	for range r.count(len(r.numbers)) {
		a.Sample = append(a.Sample, r.text())
	}
	if n := r.count(len(r.numbers)); n > 0 {
		a.Steps = make([]imprint.Step, n)
	}
	since := a.At
	for i := range a.Steps {
		r.step(since, &a.Steps[i])
		since = a.Steps[i].At
	}
	if r.bad || len(r.numbers) > 0 || r.texts != "" {
		return errCutBody
	}
	return nil
}

func (r *bodyReader) step(since time.Time, s *imprint.Step) {
	has := r.count(math.MaxInt)
	s.At = r.moment(since)
	s.Name, s.Verdict = r.text(), stepVerdicts[has&(1<<verdictBits-1)]
	if s.Verdict == "" {
		s.Verdict = imprint.Verdict(r.text())
	}
	for i, text := range stepTexts(s) {
		if has&(1<<(verdictBits+i)) != 0 {
			*text = r.text()
		}
	}
	if has&repeatsBit != 0 {
		s.Repeats = r.count(math.MaxInt)
		s.LastAt = r.moment(s.At)
	}
	s.Others = has&othersBit != 0
}

func (r *bodyReader) count(most int) int {
	n, length := binary.Uvarint(r.numbers)
	if length <= 0 || n > uint64(most) {
		*r = bodyReader{bad: true}
		return 0
	}
	r.numbers = r.numbers[length:]
	return int(n)
}

func (r *bodyReader) varint() int64 {
	n, length := binary.Varint(r.numbers)
	if length <= 0 {
		*r = bodyReader{bad: true}
		return 0
	}
	r.numbers = r.numbers[length:]
	return n
}

func (r *bodyReader) moment(since time.Time) time.Time {
	d := r.varint()
	switch {
	case d == 0:
		seconds := r.varint()
		return time.Unix(seconds, int64(r.count(999_999_999))).UTC()
	case d > 0:
		d--
	}
	return since.Add(time.Duration(d))
}

func (r *bodyReader) text() string {
	n := r.count(len(r.texts))
	text := r.texts[:n]
	r.texts = r.texts[n:]
	return text
}
