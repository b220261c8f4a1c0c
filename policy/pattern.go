package policy

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// piece is a stretch of a pattern without '*'.
type piece struct {
	kind     pieceKind
	text     string // literal text; for a variable its text as written, "${name}"
	key      keyRef
	fallback string // ${name, 'fallback'}
	hasFall  bool
}

type pieceKind uint8

const (
	pieceText pieceKind = iota
	pieceAnyChar
	pieceVariable
)

// pattern is a text with wildcards and variables, split at its stars. The
// chunks must appear in the text in order; the first is anchored at the start
// unless leadStar, the last at the end unless trailStar.
type pattern struct {
	source    string
	chunks    [][]piece
	leadStar  bool
	trailStar bool
	hasVars   bool
}

type patternMode struct {
	variables bool // ${...} has a meaning (Version 2012-10-17)
	wildcards bool // * and ? have a meaning
}

// maxVariable bounds the name inside ${...}.
const maxVariable = 256

var (
	errVariableOpen  = errors.New("variable without a closing brace")
	errVariableEmpty = errors.New("variable without a name")
	errVariableLong  = errors.New("variable name too long")
	errVariableInner = errors.New("variable inside a variable")
)

// parsePattern splits a source text. Only malformed variables are errors.
func parsePattern(source string, mode patternMode) (*pattern, error) {
	p := &pattern{source: source}
	var chunk []piece
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			chunk = append(chunk, piece{text: text.String()})
			text.Reset()
		}
	}
	started := false
	for i := 0; i < len(source); {
		c := source[i]
		switch {
		case mode.wildcards && c == '*':
			flush()
			if len(chunk) > 0 {
				p.chunks = append(p.chunks, chunk)
				chunk = nil
			}
			p.leadStar = p.leadStar || !started
			p.trailStar = true
			i++
		case mode.wildcards && c == '?':
			flush()
			chunk = append(chunk, piece{kind: pieceAnyChar})
			p.trailStar = false
			i++
		case mode.variables && strings.HasPrefix(source[i:], "${"):
			v, size, err := parseVariable(source[i:])
			if err != nil {
				return nil, err
			}
			p.trailStar = false
			i += size
			if v.kind == pieceText {
				text.WriteString(v.text)
				break
			}
			flush()
			chunk = append(chunk, v)
			p.hasVars = true
		default:
			text.WriteByte(c)
			p.trailStar = false
			i++
		}
		started = true
	}
	flush()
	if len(chunk) > 0 {
		p.chunks = append(p.chunks, chunk)
	}
	return p, nil
}

// parseVariable reads "${...}" at the start of s: one of the three escapes, or
// a name, or a name with a default value in single quotes.
func parseVariable(s string) (piece, int, error) {
	end := strings.IndexByte(s, '}')
	if end < 0 {
		return piece{}, 0, errVariableOpen
	}
	body, whole := s[2:end], s[:end+1]
	switch {
	case body == "":
		return piece{}, 0, errVariableEmpty
	case body == "*" || body == "?" || body == "$":
		return piece{kind: pieceText, text: body}, len(whole), nil
	case strings.Contains(body, "${"):
		return piece{}, 0, errVariableInner
	case len(body) > maxVariable:
		return piece{}, 0, errVariableLong
	}
	v := piece{kind: pieceVariable, text: whole}
	name, fallback, found := strings.Cut(body, ",")
	fallback = strings.TrimSpace(fallback)
	if found && len(fallback) >= 2 && fallback[0] == '\'' && fallback[len(fallback)-1] == '\'' {
		v.fallback, v.hasFall = fallback[1:len(fallback)-1], true
		body = strings.TrimSpace(name)
	}
	v.key = parseKey(body)
	return v, len(whole), nil
}

// variables calls f for each variable of the pattern until f returns false.
func (p *pattern) variables(f func(*piece) bool) {
	for _, chunk := range p.chunks {
		for i := range chunk {
			if chunk[i].kind == pieceVariable && !f(&chunk[i]) {
				return
			}
		}
	}
}

// resolved reports whether every variable of the pattern has a value.
func (p *pattern) resolved(e *eval) bool {
	if !p.hasVars {
		return true
	}
	for _, chunk := range p.chunks {
		for i := range chunk {
			if chunk[i].kind != pieceVariable || chunk[i].hasFall {
				continue
			}
			_, ok := e.substitute(&chunk[i].key)
			if !ok {
				return false
			}
		}
	}
	return true
}

// value is the text that a text or variable piece stands for.
func (p *piece) value(e *eval) string {
	if p.kind == pieceText {
		return p.text
	}
	s, ok := e.substitute(&p.key)
	if ok {
		return s
	}
	if p.hasFall {
		return p.fallback
	}
	return p.text
}

// expand gives the text of a pattern without wildcards.
func (p *pattern) expand(e *eval) string {
	if len(p.chunks) == 0 {
		return ""
	}
	chunk := p.chunks[0]
	if len(chunk) == 1 {
		return chunk[0].value(e)
	}
	var b strings.Builder
	for i := range chunk {
		b.WriteString(chunk[i].value(e))
	}
	return b.String()
}

// subject is a text in two parts, so that a resource needs no concatenation.
type subject struct{ a, b string }

func (s *subject) size() int { return len(s.a) + len(s.b) }

// hasAt reports whether lit stands at offset at.
func (s *subject) hasAt(at int, lit string) bool {
	if at < 0 || at+len(lit) > s.size() {
		return false
	}
	if at >= len(s.a) {
		at -= len(s.a)
		return s.b[at:at+len(lit)] == lit
	}
	head := len(s.a) - at
	if head >= len(lit) {
		return s.a[at:at+len(lit)] == lit
	}
	return s.a[at:] == lit[:head] && s.b[:len(lit)-head] == lit[head:]
}

// charAt is the width in bytes of the character at offset at < size.
func (s *subject) charAt(at int) int {
	part := s.a
	if at >= len(s.a) {
		part, at = s.b, at-len(s.a)
	}
	if part[at] < utf8.RuneSelf {
		return 1
	}
	_, width := utf8.DecodeRuneInString(part[at:])
	return width
}

// charBefore is the width in bytes of the character that ends at offset at > 0.
func (s *subject) charBefore(at int) int {
	part := s.a[:min(at, len(s.a))]
	if at > len(s.a) {
		part = s.b[:at-len(s.a)]
	}
	_, width := utf8.DecodeLastRuneInString(part)
	return width
}

// match compares the whole pattern with the whole text. Each chunk after a star
// is taken at its leftmost place: a later place never helps, since what follows is
// another star or the anchored end. So no star is ever tried again.
func (p *pattern) match(e *eval, s *subject) bool {
	if len(p.chunks) == 0 {
		return p.leadStar || s.size() == 0
	}
	pos, end := 0, s.size()
	chunks := p.chunks
	if !p.leadStar {
		pos = matchForward(e, chunks[0], s, 0, end)
		if pos < 0 {
			return false
		}
		chunks = chunks[1:]
		if len(chunks) == 0 && !p.trailStar {
			return pos == end
		}
	}
	if !p.trailStar && len(chunks) > 0 {
		end = matchBackward(e, chunks[len(chunks)-1], s, end)
		if end < pos {
			return false
		}
		chunks = chunks[:len(chunks)-1]
	}
	for _, chunk := range chunks {
		pos = find(e, chunk, s, pos, end)
		if pos < 0 {
			return false
		}
	}
	return true
}

// matchForward gives the end of the chunk that starts at pos, or -1.
func matchForward(e *eval, chunk []piece, s *subject, pos, end int) int {
	for i := range chunk {
		p := &chunk[i]
		if p.kind == pieceAnyChar {
			if pos >= end {
				return -1
			}
			pos += s.charAt(pos)
			continue
		}
		v := p.value(e)
		if pos+len(v) > end || !s.hasAt(pos, v) {
			return -1
		}
		pos += len(v)
	}
	if pos > end {
		return -1
	}
	return pos
}

// matchBackward gives the start of the chunk that ends at pos, or -1.
func matchBackward(e *eval, chunk []piece, s *subject, pos int) int {
	for i := len(chunk) - 1; i >= 0; i-- {
		p := &chunk[i]
		if p.kind == pieceAnyChar {
			if pos <= 0 {
				return -1
			}
			pos -= s.charBefore(pos)
			continue
		}
		v := p.value(e)
		pos -= len(v)
		if !s.hasAt(pos, v) {
			return -1
		}
	}
	return pos
}

// find gives the end of the leftmost occurrence of the chunk in [pos, end), or -1.
func find(e *eval, chunk []piece, s *subject, pos, end int) int {
	for pos <= end {
		if chunk[0].kind == pieceText && pos >= len(s.a) {
			i := strings.Index(s.b[pos-len(s.a):end-len(s.a)], chunk[0].text)
			if i < 0 {
				return -1
			}
			pos += i
		}
		after := matchForward(e, chunk, s, pos, end)
		if after >= 0 {
			return after
		}
		if pos >= end {
			return -1
		}
		pos += s.charAt(pos)
	}
	return -1
}
