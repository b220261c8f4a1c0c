package policy

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/imprint-iot/imprint/internal/nearest"
)

// Limits of a document. MaxCharacters is AWS IoT's quota; the byte limit
// counts whitespace too and is the one in the API model of CreatePolicy.
const (
	MaxCharacters = 2048
	MaxBytes      = 404600
)

// Bounds on lists; the character quota is normally reached long before.
const (
	maxStatements = 500
	maxList       = 2000
	maxKeys       = 200
)

// ParseOptions adjusts Parse. The zero value is AWS IoT's quota.
type ParseOptions struct {
	// MaxCharacters limits the document, whitespace not counted. 0 means
	// MaxCharacters; a negative number leaves only MaxBytes.
	MaxCharacters int
}

// Parse reads a policy document with the default options. The error is always a [*SyntaxError].
func Parse(text []byte) (*Document, error) { return ParseWith(text, ParseOptions{}) }

// ParseWith reads a policy document. It is strict: member names are
// case-sensitive, unknown and repeated members are refused. The error is always a [*SyntaxError].
func ParseWith(text []byte, options ParseOptions) (*Document, error) {
	p := &parser{text: text}
	err := p.checkSize(options)
	if err != nil {
		return nil, err
	}
	root, err := readJSON(text)
	if err != nil {
		return nil, err
	}
	doc, err := p.document(&root)
	if err != nil {
		return nil, err
	}
	return doc, nil
}

type parser struct {
	text  []byte
	whole string // the document, which statements are parts of
	mode  patternMode
}

func (p *parser) fail(n *node, member, hint, format string, args ...any) *SyntaxError {
	return syntaxErrorAt(p.text, n.offset, member, hint, format, args...)
}

func (p *parser) checkSize(options ParseOptions) *SyntaxError {
	if len(p.text) > MaxBytes {
		return syntaxErrorAt(nil, 0, "", "shorten the policy or split it into several", "%d bytes, at most %d are allowed", len(p.text), MaxBytes)
	}
	limit := options.MaxCharacters
	if limit == 0 {
		limit = MaxCharacters
	}
	count := 0
	for i := 0; i < len(p.text); {
		r, width := utf8.DecodeRune(p.text[i:])
		if r == utf8.RuneError && width == 1 {
			return syntaxErrorAt(p.text, i, "", "save the document as UTF-8", "not UTF-8")
		}
		if r != ' ' && r != '\t' && r != '\n' && r != '\r' {
			count++
		}
		i += width
	}
	if limit > 0 && count > limit {
		return syntaxErrorAt(nil, 0, "", "shorten it with wildcards or variables, or split it into several policies",
			"%d characters not counting whitespace, at most %d are allowed", count, limit)
	}
	return nil
}

func (p *parser) document(root *node) (*Document, *SyntaxError) {
	if root.kind != nodeObject {
		return nil, p.fail(root, "", `begin with {"Version":"2012-10-17","Statement":[...]}`, "a policy is an object, not %s", root.kind)
	}
	p.whole = string(p.text)
	doc := &Document{text: p.whole, version: Version2008}
	var list *node
	for i := range root.members {
		m := &root.members[i]
		var err *SyntaxError
		switch m.name {
		case "Version":
			doc.version, err = p.version(&m.value)
		case "Id":
			doc.id, err = p.str(&m.value, "Id")
		case "Statement":
			list = &m.value
		default:
			err = p.unknown(m, "", []string{"Version", "Id", "Statement"})
		}
		if err != nil {
			return nil, err
		}
	}
	if list == nil {
		return nil, p.fail(root, "", "add a Statement with Effect, Action and Resource", "member Statement is missing")
	}
	p.mode = patternMode{variables: doc.version == Version2012, wildcards: true}
	return doc, p.statements(doc, list)
}

func (p *parser) version(n *node) (string, *SyntaxError) {
	v, err := p.str(n, "Version")
	if err != nil {
		return "", err
	}
	if v != Version2012 && v != Version2008 {
		return "", p.fail(n, "Version", "write 2012-10-17: it is the version of the language, not of your policy", "unknown version %q", v)
	}
	return v, nil
}

func (p *parser) statements(doc *Document, list *node) *SyntaxError {
	items := []node{*list}
	switch list.kind {
	case nodeObject:
	case nodeArray:
		items = list.items
	default:
		return p.fail(list, "Statement", "", "expected an object or an array of objects, not %s", list.kind)
	}
	if len(items) == 0 {
		return p.fail(list, "Statement", "a policy without statements allows nothing", "no statements")
	}
	if len(items) > maxStatements {
		return p.fail(list, "Statement", "split the policy", "more than %d statements", maxStatements)
	}
	for i := range items {
		path := "Statement"
		if list.kind == nodeArray {
			path = fmt.Sprintf("Statement[%d]", i)
		}
		st, err := p.statement(&items[i], path)
		if err != nil {
			return err
		}
		doc.statements = append(doc.statements, st)
	}
	return nil
}

// statementMembers are the members of a statement in an identity policy.
func statementMembers() []string {
	return []string{"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
}

func (p *parser) statement(n *node, path string) (*statement, *SyntaxError) {
	if n.kind != nodeObject {
		return nil, p.fail(n, path, "", "a statement is an object, not %s", n.kind)
	}
	st := &statement{}
	st.source.Text = p.whole[n.offset:n.end]
	where := syntaxErrorAt(p.text, n.offset, "", "", "")
	st.source.Line, st.source.Column = where.Line, where.Column
	for i := range n.members {
		err := p.statementMember(st, &n.members[i], path)
		if err != nil {
			return nil, err
		}
	}
	switch {
	case st.source.Effect == "":
		return nil, p.fail(n, path, `add "Effect": "Allow" or "Effect": "Deny"`, "member Effect is missing")
	case st.source.Actions == nil:
		return nil, p.fail(n, path, `add "Action", for example "iot:Connect"`, "member Action or NotAction is missing")
	case st.source.Resources == nil:
		return nil, p.fail(n, path, `add "Resource" with ARNs, or "*"`, "member Resource or NotResource is missing")
	}
	return st, nil
}

func (p *parser) statementMember(st *statement, m *member, parent string) *SyntaxError {
	path := parent + "." + m.name
	n := &m.value
	var err *SyntaxError
	switch m.name {
	case "Sid":
		st.source.Sid, err = p.str(n, path)
	case "Effect":
		st.source.Effect, err = p.effect(n, path)
	case "Action", "NotAction":
		if st.source.Actions != nil {
			return syntaxErrorAt(p.text, m.offset, path, "keep one of the two", "Action and NotAction in one statement")
		}
		st.source.NotAction = m.name == "NotAction"
		st.source.Actions, err = p.actions(n, path)
	case "Resource", "NotResource":
		if st.source.Resources != nil {
			return syntaxErrorAt(p.text, m.offset, path, "keep one of the two", "Resource and NotResource in one statement")
		}
		st.source.NotResource = m.name == "NotResource"
		err = p.resources(st, n, path)
	case "Condition":
		err = p.conditions(st, n, path)
	case "Principal", "NotPrincipal":
		return syntaxErrorAt(p.text, m.offset, path, "remove it: the policy applies to whatever it is attached to", "%s is not allowed here", m.name)
	default:
		return p.unknown(m, parent, statementMembers())
	}
	return err
}

func (p *parser) unknown(m *member, parent string, names []string) *SyntaxError {
	path := m.name
	if parent != "" {
		path = parent + "." + m.name
	}
	return syntaxErrorAt(p.text, m.offset, path, didYouMean(m.name, names), "unknown member %q", m.name)
}

func (p *parser) str(n *node, path string) (string, *SyntaxError) {
	if n.kind != nodeString {
		return "", p.fail(n, path, "", "expected a string, not %s", n.kind)
	}
	return n.text, nil
}

func (p *parser) effect(n *node, path string) (Effect, *SyntaxError) {
	s, err := p.str(n, path)
	if err != nil {
		return "", err
	}
	if s != string(Allow) && s != string(Deny) {
		return "", p.fail(n, path, didYouMean(s, []string{"Allow", "Deny"}), "effect %q is neither Allow nor Deny", s)
	}
	return Effect(s), nil
}

// list reads a string or an array of strings and gives each to f with its path.
func (p *parser) list(n *node, path string, f func(item *node, path string) *SyntaxError) *SyntaxError {
	if n.kind == nodeString {
		return f(n, path)
	}
	if n.kind != nodeArray {
		return p.fail(n, path, "", "expected a string or an array of strings, not %s", n.kind)
	}
	if len(n.items) == 0 {
		return p.fail(n, path, "name at least one", "empty array")
	}
	if len(n.items) > maxList {
		return p.fail(n, path, "use wildcards", "more than %d entries", maxList)
	}
	for i := range n.items {
		itemPath := fmt.Sprintf("%s[%d]", path, i)
		item := &n.items[i]
		if item.kind != nodeString {
			return p.fail(item, itemPath, "", "expected a string, not %s", item.kind)
		}
		err := f(item, itemPath)
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) actions(n *node, path string) ([]string, *SyntaxError) {
	var out []string
	err := p.list(n, path, func(item *node, itemPath string) *SyntaxError {
		if !validAction(item.text) {
			return p.fail(item, itemPath, actionHint(item.text), "%q is not an action", item.text)
		}
		out = append(out, item.text)
		return nil
	})
	return out, err
}

// validAction accepts "*" and "service:Name", each side of letters, digits, '-' and wildcards.
func validAction(s string) bool {
	if s == "*" {
		return true
	}
	service, name, ok := strings.Cut(s, ":")
	if !ok || service == "" || name == "" {
		return false
	}
	for i := range len(s) {
		c := lowerByte(s[i])
		if ('a' > c || c > 'z') && ('0' > c || c > '9') && i != len(service) && strings.IndexByte("-_*?", c) < 0 {
			return false
		}
	}
	return true
}

func actionHint(s string) string {
	names := make([]string, 0, 18)
	for _, a := range DataPlaneActions() {
		names = append(names, string(a))
	}
	near := nearest.Name(s, names)
	if near == "" {
		return `write service:Name, for example iot:Publish, or "*"`
	}
	return fmt.Sprintf("did you mean %q?", near)
}

func (p *parser) resources(st *statement, n *node, path string) *SyntaxError {
	return p.list(n, path, func(item *node, itemPath string) *SyntaxError {
		hint := arnProblem(item.text)
		if hint != "" {
			return p.fail(item, itemPath, hint, "%q is not an ARN", item.text)
		}
		pat, err := parsePattern(item.text, p.mode)
		if err != nil {
			return p.fail(item, itemPath, variableHint, "%v", err)
		}
		st.resources = append(st.resources, pat)
		st.source.Resources = append(st.source.Resources, item.text)
		return nil
	})
}

const variableHint = "write ${name}; for a literal dollar sign before a brace write ${$}{"

// arnProblem says what keeps a resource from being "*" or
// arn:partition:service:region:account:resource. Fewer parts are fine when the
// last one ends in '*', which then covers the rest.
func arnProblem(s string) string {
	if s == "*" {
		return ""
	}
	const shape = `write arn:aws:iot:REGION:ACCOUNT:TYPE/NAME, or "*"`
	rest, ok := strings.CutPrefix(s, "arn:")
	if !ok {
		return shape
	}
	parts := splitARN("arn:" + rest)
	if len(parts) < 6 && !strings.HasSuffix(s, "*") {
		return fmt.Sprintf("it has %d of 6 parts separated by colons; %s", len(parts), shape)
	}
	for i, part := range parts {
		if part == "" && i != 3 && i != 4 {
			return fmt.Sprintf("part %d is empty; %s", i+1, shape)
		}
	}
	return ""
}

// splitARN cuts at the first five colons outside ${...}.
func splitARN(s string) []string {
	parts := make([]string, 0, 6)
	start, inside := 0, false
	for i := 0; i < len(s) && len(parts) < 5; i++ {
		switch {
		case strings.HasPrefix(s[i:], "${"):
			inside = true
		case s[i] == '}':
			inside = false
		case s[i] == ':' && !inside:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}
