package template

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Locate gives line and column of a member by its path, "Resources.thing.Properties.ThingName", or of
// the nearest part of the path that exists. It reads the text anew: it is for messages to people.
func (t *Template) Locate(member string) (line, column int) {
	n := t.find(member)
	if n == nil {
		return 0, 0
	}
	return position(t.text, n.off)
}

func (t *Template) find(member string) *node {
	root, _, err := readTree([]byte(t.text))
	if err != nil {
		return nil // can't be: Parse has read it
	}
	return root.descend(member)
}

// descend follows a path as far as there are members.
func (n *node) descend(path string) *node {
	for path != "" {
		next, rest := n.step(path)
		if next == nil {
			return n
		}
		n, path = next, strings.TrimPrefix(rest, ".")
	}
	return n
}

// step takes the first part off a path. Names may have dots in them: the longest that fits is meant.
func (n *node) step(path string) (next *node, rest string) {
	index, after, found := strings.Cut(strings.TrimPrefix(path, "["), "]")
	if n.kind == nodeArray && found && path[0] == '[' {
		i, err := strconv.Atoi(index)
		if err != nil || i < 0 || i >= len(n.items) {
			return nil, path
		}
		return n.items[i], after
	}
	longest := -1
	for _, m := range n.members {
		after, found := strings.CutPrefix(path, m.name)
		if found && len(m.name) > longest && (after == "" || after[0] == '.' || after[0] == '[') {
			next, rest, longest = m.value, after, len(m.name)
		}
	}
	return next, rest
}

// PackageVersions gives the place of the thing's PackageVersions, if it has any.
func (t *Template) PackageVersions() (Reference, bool) {
	if t.thing == nil || len(t.thing.packages) == 0 {
		return Reference{}, false
	}
	at := Reference{Member: join("Resources", t.thing.logical) + ".Properties.PackageVersions"}
	at.Line, at.Column = t.Locate(at.Member)
	return at, true
}

// NamedPolicy is a policy that a template names, and whose document is elsewhere.
type NamedPolicy struct {
	LogicalName string
	Name        string // empty: it depends on parameters
}

// NamedPolicies lists the policies whose documents the template doesn't have.
func (t *Template) NamedPolicies() []NamedPolicy {
	var all []NamedPolicy
	for _, s := range t.policies {
		if s.name == nil {
			continue
		}
		named := NamedPolicy{LogicalName: s.logical}
		if s.name.value.op == opLiteral {
			named.Name = s.name.value.text
		}
		all = append(all, named)
	}
	return all
}

// Document is a policy document of a template, for checks that know the policy language.
type Document struct {
	LogicalName string
	Member      string // its path
	Text        string
	// Sampled says that its values depend on parameters; the text has Sample in their place.
	Sampled bool
	// Err is why there is no text: with Sample in the place of parameters it is no JSON.
	Err *Error

	t  *Template
	at site
}

// Sample stands for the value of any parameter in a Document.
const Sample = "SAMPLE"

// Documents gives the template's policy documents. Those whose text can't be told without real values
// are left out.
func (t *Template) Documents() []Document {
	params := make(map[string]string, len(t.params))
	for _, param := range t.params {
		params[param.Name] = Sample
	}
	ev := &evaluation{t: t}
	err := ev.bind(params)
	if err != nil {
		return nil // can't be: every parameter has a short value
	}
	var out []Document
	for _, s := range t.policies {
		if s.document == nil {
			continue
		}
		_, depends := t.policyDepends(s)
		d := Document{LogicalName: s.logical, Member: s.document.at.member, Sampled: len(depends) > 0, t: t, at: s.document.at}
		text, _, err := ev.document(s.document)
		if err != nil && (!errors.As(err, &d.Err) || d.Err.Code != CodeBadValue) {
			continue
		}
		d.Text = text
		out = append(out, d)
	}
	return out
}

// Place translates a place in the document to one in the template: by line and column where the
// document is a string, by member where it is an object. Where neither is possible, because functions
// make the text, it is where the document begins.
func (d Document) Place(member string, line, column int) (int, int) {
	if d.at.off >= len(d.t.text) {
		return position(d.t.text, d.at.off)
	}
	if d.t.text[d.at.off] == '"' {
		return position(d.t.text, rawOffset(d.t.text, d.at.off, byteOffset(d.Text, line, column)))
	}
	n := d.t.find(d.Member)
	if n == nil || n.isFunction() {
		return position(d.t.text, d.at.off)
	}
	return position(d.t.text, n.descend(member).off)
}

// byteOffset is the reverse of position.
func byteOffset(text string, line, column int) int {
	off := 0
	for ; line > 1; line-- {
		next := strings.IndexByte(text[off:], '\n')
		if next < 0 {
			return len(text)
		}
		off += next + 1
	}
	for ; column > 1 && off < len(text); column-- {
		_, size := utf8.DecodeRuneInString(text[off:])
		off += size
	}
	return off
}

// rawOffset finds, in a JSON string that begins at start, what stands for byte number n of its value.
func rawOffset(text string, start, n int) int {
	at := start + 1
	for decoded := 0; decoded < n && at < len(text) && text[at] != '"'; {
		raw, size := escape(text[at:])
		at += raw
		decoded += size
	}
	return at
}

// escape gives the length of the first character of a JSON string's inside, as written and decoded.
func escape(s string) (raw, size int) {
	if s[0] != '\\' || len(s) < 2 {
		_, size := utf8.DecodeRuneInString(s)
		return size, size
	}
	first, known := codeUnit(s)
	if !known {
		return 2, 1
	}
	second, known := codeUnit(s[6:])
	if known && utf16.DecodeRune(first, second) != utf8.RuneError {
		return 12, 4
	}
	if utf16.IsSurrogate(first) {
		return 6, utf8.RuneLen(utf8.RuneError) // half a pair is decoded to U+FFFD
	}
	return 6, utf8.RuneLen(first)
}

// codeUnit reads \uXXXX.
func codeUnit(s string) (rune, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	unit, err := strconv.ParseUint(s[2:6], 16, 32)
	return rune(unit), err == nil
}
