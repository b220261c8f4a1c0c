package policy

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is deeper than any policy goes: document, statements, statement,
// condition, operator, key, list.
const maxDepth = 10

// maxNodes bounds the tree: a document of the largest size that is nothing but
// brackets must not become a tree a hundred times its size.
const maxNodes = 20000

type nodeKind uint8

const (
	nodeString nodeKind = iota
	nodeNumber
	nodeBool
	nodeNull
	nodeArray
	nodeObject
)

func (k nodeKind) String() string {
	return [...]string{"a string", "a number", "a boolean", "null", "an array", "an object"}[k]
}

// node is one JSON value with the byte offsets where it begins and ends. text is
// the decoded string, or the number or boolean as written.
type node struct {
	kind    nodeKind
	offset  int
	end     int
	text    string
	items   []node
	members []member
}

type member struct {
	name   string
	offset int
	value  node
}

// jsonReader reads RFC 8259 JSON strictly, with duplicate member names refused
// (RFC 8259 section 4 leaves their meaning open, and a policy must have one meaning).
type jsonReader struct {
	text  []byte
	pos   int
	nodes int
}

func readJSON(text []byte) (node, *SyntaxError) {
	r := &jsonReader{text: text}
	root, err := r.value(0)
	if err != nil {
		return node{}, err
	}
	r.space()
	if r.pos < len(r.text) {
		return node{}, r.fail("remove what follows the closing brace", "unexpected text after the document")
	}
	return root, nil
}

func (r *jsonReader) fail(hint, format string, args ...any) *SyntaxError {
	return syntaxErrorAt(r.text, r.pos, "", hint, format, args...)
}

func (r *jsonReader) space() {
	for r.pos < len(r.text) {
		switch r.text[r.pos] {
		case ' ', '\t', '\r', '\n':
			r.pos++
		default:
			return
		}
	}
}

func (r *jsonReader) peek() byte {
	if r.pos < len(r.text) {
		return r.text[r.pos]
	}
	return 0
}

func (r *jsonReader) value(depth int) (node, *SyntaxError) {
	n, err := r.anyValue(depth)
	n.end = r.pos
	return n, err
}

func (r *jsonReader) anyValue(depth int) (node, *SyntaxError) {
	if depth > maxDepth {
		return node{}, r.fail("a policy never needs such nesting", "more than %d levels of nesting", maxDepth)
	}
	r.nodes++
	if r.nodes > maxNodes {
		return node{}, r.fail("split the policy", "more than %d values", maxNodes)
	}
	r.space()
	if r.pos >= len(r.text) {
		return node{}, r.fail("the document is cut off", "unexpected end of the document")
	}
	switch c := r.peek(); {
	case c == '{':
		return r.object(depth)
	case c == '[':
		return r.array(depth)
	case c == '"':
		start := r.pos
		s, err := r.str()
		return node{kind: nodeString, offset: start, text: s}, err
	case c == '-' || '0' <= c && c <= '9':
		return r.number()
	default:
		return r.word()
	}
}

func (r *jsonReader) word() (node, *SyntaxError) {
	for _, w := range [...]struct {
		text string
		kind nodeKind
	}{{"true", nodeBool}, {"false", nodeBool}, {"null", nodeNull}} {
		if strings.HasPrefix(string(r.text[r.pos:min(len(r.text), r.pos+len(w.text))]), w.text) {
			n := node{kind: w.kind, offset: r.pos, text: w.text}
			r.pos += len(w.text)
			return n, nil
		}
	}
	c, _ := utf8.DecodeRune(r.text[r.pos:])
	hint := "JSON has only objects, arrays, strings in double quotes, numbers, true, false and null"
	if c == '\'' {
		hint = "use double quotes"
	}
	return node{}, r.fail(hint, "unexpected character %q", c)
}

func (r *jsonReader) object(depth int) (node, *SyntaxError) {
	n := node{kind: nodeObject, offset: r.pos}
	seen := map[string]bool{}
	r.pos++
	r.space()
	if r.peek() == '}' {
		r.pos++
		return n, nil
	}
	for {
		r.space()
		if r.peek() != '"' {
			return n, r.fail("a member name in double quotes belongs here; a trailing comma is not allowed", "expected a member name")
		}
		m := member{offset: r.pos}
		var err *SyntaxError
		m.name, err = r.str()
		if err != nil {
			return n, err
		}
		if seen[m.name] {
			return n, syntaxErrorAt(r.text, m.offset, "", "merge the two into one", "member %q appears twice", m.name)
		}
		seen[m.name] = true
		r.space()
		if r.peek() != ':' {
			return n, r.fail("", "expected ':' after %q", m.name)
		}
		r.pos++
		m.value, err = r.value(depth + 1)
		if err != nil {
			return n, err
		}
		n.members = append(n.members, m)
		more, err := r.next('}')
		if err != nil || !more {
			return n, err
		}
	}
}

func (r *jsonReader) array(depth int) (node, *SyntaxError) {
	n := node{kind: nodeArray, offset: r.pos}
	r.pos++
	r.space()
	if r.peek() == ']' {
		r.pos++
		return n, nil
	}
	for {
		item, err := r.value(depth + 1)
		if err != nil {
			return n, err
		}
		n.items = append(n.items, item)
		more, err := r.next(']')
		if err != nil || !more {
			return n, err
		}
	}
}

// next reads the comma before another element, or the closing bracket.
func (r *jsonReader) next(closing byte) (bool, *SyntaxError) {
	r.space()
	if r.pos >= len(r.text) {
		return false, r.fail("the document is cut off", "unexpected end of the document, expected ',' or '%c'", closing)
	}
	switch r.text[r.pos] {
	case ',':
		r.pos++
		return true, nil
	case closing:
		r.pos++
		return false, nil
	}
	return false, r.fail("a comma may be missing", "expected ',' or '%c'", closing)
}

func (r *jsonReader) digits() bool {
	start := r.pos
	for c := r.peek(); '0' <= c && c <= '9'; c = r.peek() {
		r.pos++
	}
	return r.pos > start
}

func (r *jsonReader) number() (node, *SyntaxError) {
	start := r.pos
	if r.peek() == '-' {
		r.pos++
	}
	leadingZero := r.peek() == '0'
	first := r.pos
	ok := r.digits() && (!leadingZero || r.pos == first+1)
	if ok && r.peek() == '.' {
		r.pos++
		ok = r.digits()
	}
	if ok && (r.peek() == 'e' || r.peek() == 'E') {
		r.pos++
		if r.peek() == '+' || r.peek() == '-' {
			r.pos++
		}
		ok = r.digits()
	}
	if !ok {
		r.pos = start
		return node{}, r.fail("", "malformed number")
	}
	return node{kind: nodeNumber, offset: start, text: string(r.text[start:r.pos])}, nil
}

func (r *jsonReader) str() (string, *SyntaxError) {
	start := r.pos
	r.pos++
	var b strings.Builder
	for r.pos < len(r.text) {
		c := r.text[r.pos]
		switch {
		case c == '"':
			r.pos++
			return b.String(), nil
		case c < 0x20:
			return "", r.fail("write it as an escape such as \\n", "control character in a string")
		case c == '\\':
			err := r.escape(&b)
			if err != nil {
				return "", err
			}
		default:
			b.WriteByte(c)
			r.pos++
		}
	}
	r.pos = start
	return "", r.fail("close it with a double quote", "string without an end")
}

func (r *jsonReader) escape(b *strings.Builder) *SyntaxError {
	if r.pos+1 >= len(r.text) {
		return r.fail("", "escape without an end")
	}
	c := r.text[r.pos+1]
	if c == 'u' {
		return r.unicodeEscape(b)
	}
	i := strings.IndexByte(`"\/bfnrt`, c)
	if i < 0 {
		return r.fail("write a backslash itself as \\\\", "unknown escape \\%c", c)
	}
	b.WriteByte("\"\\/\b\f\n\r\t"[i])
	r.pos += 2
	return nil
}

func (r *jsonReader) unicodeEscape(b *strings.Builder) *SyntaxError {
	unit, ok := r.hex4(r.pos)
	if !ok {
		return r.fail("\\u takes four hexadecimal digits", "malformed \\u escape")
	}
	if !utf16.IsSurrogate(unit) {
		b.WriteRune(unit)
		r.pos += 6
		return nil
	}
	low, ok := r.hex4(r.pos + 6)
	char := utf16.DecodeRune(unit, low)
	if !ok || char == utf8.RuneError {
		return r.fail("a surrogate needs its pair", "half of a surrogate pair")
	}
	b.WriteRune(char)
	r.pos += 12
	return nil
}

// hex4 reads \uXXXX at offset at.
func (r *jsonReader) hex4(at int) (rune, bool) {
	if at+6 > len(r.text) || r.text[at] != '\\' || r.text[at+1] != 'u' {
		return 0, false
	}
	var v rune
	for _, c := range r.text[at+2 : at+6] {
		d := strings.IndexByte("0123456789abcdef", lowerByte(c))
		if d < 0 {
			return 0, false
		}
		v = v<<4 | rune(d)
	}
	return v, true
}
