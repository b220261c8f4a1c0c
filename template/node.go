package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

type nodeKind uint8

const (
	nodeNull nodeKind = iota
	nodeBool
	nodeNumber
	nodeString
	nodeArray
	nodeObject
)

// node is a JSON value with the byte offset of its first character.
type node struct {
	kind    nodeKind
	off     int
	text    string // string: decoded; number, boolean: as written
	items   []*node
	members []member
}

type member struct {
	name  string
	off   int // of the name
	value *node
}

func (n *node) describe() string {
	switch n.kind {
	case nodeBool:
		return "a boolean"
	case nodeNumber:
		return "a number"
	case nodeString:
		return "a string"
	case nodeArray:
		return "a list"
	case nodeObject:
		return "an object"
	}
	return "null"
}

// get returns the value of a member, or nil.
func (n *node) get(name string) *node {
	for _, m := range n.members {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// isFunction reports whether an object is meant as a function call, well-formed or not.
func (n *node) isFunction() bool {
	for _, m := range n.members {
		if m.name == "Ref" || strings.HasPrefix(m.name, "Fn::") {
			return true
		}
	}
	return false
}

// readTree checks the body as a whole and makes its node tree.
func readTree(body []byte) (*node, string, error) {
	// A character has at most four bytes: longer bodies are refused before they are read.
	if len(body) > MaxTemplateCharacters*utf8.UTFMax || utf8.RuneCount(body) > MaxTemplateCharacters {
		return nil, "", &Error{Code: CodeLimit,
			Msg:  fmt.Sprintf("the template has more than %d characters", MaxTemplateCharacters),
			Hint: "remove white space, or refer to existing policies by PolicyName instead of writing documents into the template"}
	}
	text := string(body)
	if i := firstInvalidUTF8(text); i >= 0 {
		return nil, "", fault(text, site{off: i}, CodeSyntax, "the template is not valid UTF-8 text")
	}
	var whole json.RawMessage
	err := json.Unmarshal(body, &whole)
	if err != nil {
		return nil, "", syntaxFault(text, err)
	}
	r := &treeReader{text: text, dec: json.NewDecoder(strings.NewReader(text))}
	r.dec.UseNumber()
	root, err := r.value(0)
	if err != nil {
		return nil, "", err
	}
	return root, text, nil
}

func firstInvalidUTF8(s string) int {
	for i, r := range s {
		if r != utf8.RuneError {
			continue
		}
		_, size := utf8.DecodeRuneInString(s[i:])
		if size <= 1 {
			return i
		}
	}
	return -1
}

func syntaxFault(text string, err error) *Error {
	off := len(text)
	var syntax *json.SyntaxError
	// The offset counts the bytes read, the offending one included; at the end of the text there
	// is no offending byte.
	if errors.As(err, &syntax) {
		off = int(syntax.Offset)
		if off > 0 && !strings.Contains(syntax.Error(), "unexpected end") {
			off--
		}
	}
	e := fault(text, site{off: off}, CodeSyntax, "the template is not valid JSON: "+err.Error())
	if strings.HasPrefix(text, "\ufeff") {
		e.Hint = "remove the byte order mark at the start of the file"
	}
	return e
}

// treeReader turns the decoder's tokens into nodes. Its input is known to be valid JSON.
type treeReader struct {
	text string
	dec  *json.Decoder
	// steps lead from the root to the current value. The path is put together only for an error:
	// paths of all values could be far longer than the text.
	steps []step
}

// step is a member name, or a list index when there is no name.
type step struct {
	name  string
	named bool
	index int
}

func (r *treeReader) path() string {
	path := ""
	for _, s := range r.steps {
		if s.named {
			path = join(path, s.name)
			continue
		}
		path += "[" + strconv.Itoa(s.index) + "]"
	}
	return path
}

func (r *treeReader) within(s step, depth int) (*node, error) {
	r.steps = append(r.steps, s)
	n, err := r.value(depth)
	r.steps = r.steps[:len(r.steps)-1]
	return n, err
}

// next returns the next token and the offset of its first byte: the decoder tells where the last
// token ended, and between two tokens there are only separators.
func (r *treeReader) next() (json.Token, int, error) {
	off := int(r.dec.InputOffset())
	for off < len(r.text) && strings.IndexByte(" \t\r\n,:", r.text[off]) >= 0 {
		off++
	}
	token, err := r.dec.Token()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, off, syntaxFault(r.text, err)
	}
	return token, off, nil
}

func (r *treeReader) value(depth int) (*node, error) {
	token, off, err := r.next()
	if err != nil {
		return nil, err
	}
	n := &node{off: off}
	switch v := token.(type) {
	case json.Delim:
		if depth >= MaxDepth {
			return nil, fault(r.text, site{off, r.path()}, CodeLimit,
				fmt.Sprintf("objects and lists are nested more than %d deep", MaxDepth))
		}
		if v == '[' {
			n.kind = nodeArray
			return n, r.array(n, depth)
		}
		n.kind = nodeObject
		return n, r.object(n, depth)
	case string:
		n.kind, n.text = nodeString, v
	case json.Number:
		n.kind, n.text = nodeNumber, v.String()
	case bool:
		n.kind, n.text = nodeBool, fmt.Sprint(v)
	}
	return n, nil
}

func (r *treeReader) array(n *node, depth int) error {
	for r.dec.More() {
		item, err := r.within(step{index: len(n.items)}, depth+1)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
	}
	_, _, err := r.next()
	return err
}

func (r *treeReader) object(n *node, depth int) error {
	seen := make(map[string]int)
	for r.dec.More() {
		token, off, err := r.next()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		if first, twice := seen[name]; twice {
			e := fault(r.text, site{off, join(r.path(), name)}, CodeInvalid, fmt.Sprintf("duplicate member %s", quote(name)))
			line, _ := position(r.text, first)
			e.Hint = fmt.Sprintf("it appears first in line %d; keep one of the two", line)
			return e
		}
		seen[name] = off
		value, err := r.within(step{name: name, named: true}, depth+1)
		if err != nil {
			return err
		}
		n.members = append(n.members, member{name, off, value})
	}
	_, _, err := r.next()
	return err
}

// join appends a member name to a path, shortened when it is very long: compiled values keep
// their paths.
func join(path, name string) string {
	const most = 128
	if utf8.RuneCountInString(name) > most {
		name = string([]rune(name)[:most]) + "..."
	}
	if path == "" {
		return name
	}
	return path + "." + name
}
