package trace

import (
	"hash/maphash"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/imprint-iot/imprint"
)

// fingerprints tell attempts that failed in different ways apart.
type fingerprints struct{ seed maphash.Seed }

func newFingerprints() fingerprints { return fingerprints{maphash.MakeSeed()} }

func (f fingerprints) text(s string) uint64 { return maphash.String(f.seed, s) }

// exact is the same for two attempts of one device whose steps a person would read as
// the same: only times, durations and the device's port may differ.
func (f fingerprints) exact(a *imprint.Attempt) uint64 {
	var h maphash.Hash
	h.SetSeed(f.seed)
	words(&h, whoOf(a), string(a.Outcome), a.SNI, a.ALPN, a.TLSVersion, a.Serial, string(a.ClientID), string(a.Thing))
	for i := range a.Steps {
		s := &a.Steps[i]
		words(&h, s.Name, string(s.Verdict), string(s.Code), s.Action, s.Resource)
		plain(&h, without(s.Detail, a.Address))
	}
	return h.Sum64()
}

// kind is the same for attempts of many devices that failed in the same way: at the same
// steps, with the same words but for what the devices are called, by the same template.
func (f fingerprints) kind(a *imprint.Attempt) uint64 {
	names := [...]string{
		a.Subject, string(a.CertificateID), a.Address, a.Serial, a.SNI, string(a.ClientID), string(a.Thing), a.Host(),
	}
	var h maphash.Hash
	h.SetSeed(f.seed)
	words(&h, string(a.Outcome))
	for i := range a.Steps {
		s := &a.Steps[i]
		if s.Verdict != imprint.VerdictFailed && s.Name != "template" {
			continue
		}
		detail, resource := s.Detail, s.Resource
		for _, name := range names {
			detail, resource = without(detail, name), without(resource, name)
		}
		words(&h, s.Name, string(s.Code), s.Action, resource)
		plain(&h, detail)
	}
	return max(h.Sum64(), 1)
}

// failure is the same for two failed steps of one attempt that a person would read as
// the same.
func (f fingerprints) failure(s *imprint.Step) uint64 {
	var h maphash.Hash
	h.SetSeed(f.seed)
	words(&h, s.Name, string(s.Code))
	if !s.Others {
		words(&h, s.Action, s.Resource)
		plain(&h, s.Detail)
	}
	return h.Sum64()
}

// add adds a step to those of an attempt. A failure that is there already is counted.
func (f fingerprints) add(steps []imprint.Step, s imprint.Step) []imprint.Step {
	if s.Verdict != imprint.VerdictFailed {
		return append(steps, s)
	}
	kind := f.failure(&s)
	for i := range steps {
		known := &steps[i]
		if known.Verdict != s.Verdict || known.Others != s.Others || known.Name != s.Name || known.Code != s.Code || f.failure(known) != kind {
			continue
		}
		again, last := known.Repeats+1+s.Repeats, s.Last()
		if s.Others {
			at := known.At
			*known = s
			known.At = at
		}
		known.Repeats, known.LastAt = again, last
		return steps
	}
	return append(steps, s)
}

func words(h *maphash.Hash, list ...string) {
	for _, word := range list {
		_, _ = h.WriteString(word)
		_ = h.WriteByte(0)
	}
}

// without leaves a name out of a text, where it isn't a part of a longer word.
func without(text, name string) string {
	if name == "" || !strings.Contains(text, name) {
		return text
	}
	var b strings.Builder
	for at := 0; ; {
		next := strings.Index(text[at:], name)
		if next < 0 {
			b.WriteString(text[at:])
			return b.String()
		}
		from, to := at+next, at+next+len(name)
		b.WriteString(text[at:from])
		if from > 0 && inWord(text[from-1]) || to < len(text) && inWord(text[to]) {
			b.WriteString(name)
		} else {
			b.WriteByte('~')
		}
		at = to
	}
}

func inWord(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= utf8.RuneSelf
}

// plain writes a text without the times and durations in it.
func plain(h *maphash.Hash, text string) {
	written := 0
	for i := 0; i < len(text); {
		if !inWord(text[i]) {
			i++
			continue
		}
		end := i
		for end < len(text) && (inWord(text[end]) || strings.IndexByte(".:+-", text[end]) >= 0) {
			end++
		}
		if c := text[i]; '0' <= c && c <= '9' && passing(strings.TrimRight(text[i:end], ".:+-"), text[end:]) {
			_, _ = h.WriteString(text[written:i])
			_ = h.WriteByte('~')
			written = end
		}
		i = end
	}
	_, _ = h.WriteString(text[written:])
	_ = h.WriteByte(0)
}

// passing says whether a word that begins with a digit, and what follows it, is a time or
// a duration: 2026-03-04T05:06:07Z, 1.5s, 2m30s, 12 ms.
func passing(word, rest string) bool {
	if len(word) >= len("2006-01-02T15:04:05") && word[4] == '-' && word[10] == 'T' {
		return true
	}
	if strings.HasPrefix(rest, " ms") && strings.Trim(word, "0123456789.") == "" {
		return true
	}
	switch word[len(word)-1] {
	case 's', 'm', 'h':
		_, err := time.ParseDuration(word)
		return err == nil
	}
	return false
}
