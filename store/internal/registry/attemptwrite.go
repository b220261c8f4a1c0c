package registry

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
)

// bodyWriter writes what no look-up needs of an attempt: numbers, with the lengths of the
// texts, apart from the texts, which then lie together as they do in attemptWords. There is
// one for each device that comes the first time, so nothing is formatted and nothing escaped.
type bodyWriter struct{ numbers, texts []byte }

// A number before each step has its verdict's place in stepVerdicts in the lowest bits, then a
// bit for each of stepTexts that it has, then these.
const (
	verdictBits = 2
	repeatsBit  = 1 << (verdictBits + stepTextCount)
	othersBit   = repeatsBit << 1
)

const stepTextCount = 7

// stepTexts are those that many steps haven't.
func stepTexts(s *imprint.Step) [stepTextCount]*string {
	return [...]*string{&s.Detail, &s.Fix, (*string)(&s.Code), &s.Wire, (*string)(&s.Certificate), &s.Action, &s.Resource}
}

// stepVerdicts are those that have a number; another one is a text.
var stepVerdicts = [1 << verdictBits]imprint.Verdict{1: imprint.VerdictOK, 2: imprint.VerdictInfo, 3: imprint.VerdictFailed}

// write is the inverse of bodyReader.read. Of steps the nanoseconds are kept, of the rest the
// milliseconds, as of all other times.
func (w *bodyWriter) write(a *imprint.Attempt) {
	w.numbers, w.texts = w.numbers[:0], w.texts[:0]
	at := readTime(millis(a.At))
	w.moment(at, a.EndedAt.Truncate(time.Millisecond))
	w.text(a.SNI)
	w.text(a.ALPN)
	w.text(a.TLSVersion)
	w.text(a.Subject)
	w.text(string(a.Outcome))
	w.text(string(a.Code))
	w.count(a.Repeats)
	if a.Repeats != 0 {
		w.moment(at, a.FirstAt.Truncate(time.Millisecond))
	}
	w.count(a.Devices)
	w.count(len(a.Sample))
	for _, name := range a.Sample {
		w.text(name)
	}
	w.count(len(a.Steps))
	for i := range a.Steps {
		w.step(at, &a.Steps[i])
		at = a.Steps[i].At
	}
}

func (w *bodyWriter) step(since time.Time, s *imprint.Step) {
	has := max(0, slices.Index(stepVerdicts[:], s.Verdict))
	texts := stepTexts(s)
	for i, text := range texts {
		if *text != "" {
			has |= 1 << (verdictBits + i)
		}
	}
	if s.Repeats > 0 {
		has |= repeatsBit
	}
	if s.Others {
		has |= othersBit
	}
	w.count(has)
	w.moment(since, s.At)
	w.text(s.Name)
	if has&(1<<verdictBits-1) == 0 {
		w.text(string(s.Verdict))
	}
	for _, text := range texts {
		if *text != "" {
			w.text(*text)
		}
	}
	if s.Repeats > 0 {
		w.count(s.Repeats)
		w.moment(s.At, s.LastAt)
	}
}

func (w *bodyWriter) count(n int) { w.numbers = binary.AppendUvarint(w.numbers, uint64(max(n, 0))) }

// moment writes a time as the nanoseconds since another one, of which 0 and those after it
// count one more; or 0, and the time in seconds, where those are too many: of the zero time, too.
func (w *bodyWriter) moment(since, t time.Time) {
	d := t.Sub(since)
	switch {
	case d == math.MinInt64 || d == math.MaxInt64:
		w.numbers = append(w.numbers, 0)
		w.numbers = binary.AppendVarint(w.numbers, t.Unix())
		w.count(t.Nanosecond())
		return
	case d >= 0:
		d++
	}
	w.numbers = binary.AppendVarint(w.numbers, int64(d))
}

func (w *bodyWriter) text(s string) {
	w.count(len(s))
	w.texts = append(w.texts, s...)
}
