package policy

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/imprint-iot/imprint/internal/nearest"
)

// Finding is a mistake that the linter found. Line and Column count from 1, Column in
// characters; Member is the path of the element, such as "Statement[0].Resource[1]".
type Finding struct {
	Code     LintCode `json:"code"`
	Severity Severity `json:"severity"`
	Line     int      `json:"line"`
	Column   int      `json:"column"`
	Member   string   `json:"member,omitempty"`
	Message  string   `json:"message"`
	Fix      string   `json:"fix"`
}

// LintOptions say where the policy will be used; what is empty isn't checked.
type LintOptions struct {
	Region, Account string
}

// maxFindings bounds what Lint gives.
const maxFindings = 1000

// Lint looks for the usual mistakes in a device's policy, in the order of the
// document. A document that is no policy gives one finding.
func Lint(text []byte, options LintOptions) []Finding {
	l := &linter{text: text, options: options}
	doc, err := ParseWith(text, ParseOptions{MaxCharacters: -1})
	if err != nil {
		l.syntax(err)
		return l.findings
	}
	root, syntax := readJSON(text)
	if syntax != nil {
		l.syntax(syntax)
		return l.findings
	}
	_, err = Parse(text)
	if err != nil {
		l.tooLong(err)
	}
	l.doc, l.mode, l.claim = doc, patternMode{variables: doc.version == Version2012, wildcards: true}, doc.forClaims()
	list := root.member("Statement")
	for i, st := range doc.statements {
		n, path := list, "Statement"
		if list.kind == nodeArray {
			n, path = &list.items[i], fmt.Sprintf("Statement[%d]", i)
		}
		l.statement(&linted{statement: st, node: n, path: path})
	}
	l.whole()
	slices.SortStableFunc(l.findings, func(a, b Finding) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return l.findings
}

// member finds a member of an object; nil when it isn't there.
func (n *node) member(name string) *node {
	for i := range n.members {
		if n.members[i].name == name {
			return &n.members[i].value
		}
	}
	return nil
}

type linter struct {
	text     []byte
	options  LintOptions
	doc      *Document
	mode     patternMode
	claim    bool  // the document is for claim certificates
	lines    []int // offset of each line; made when first needed
	findings []Finding
}

// linted is a statement with its place.
type linted struct {
	*statement
	node *node
	path string
}

// items gives the places of the strings of a member, whose name may begin with Not,
// in their order.
func (st *linted) items(name string) ([]*node, []string) {
	path := st.path + "." + name
	n := st.node.member(name)
	if n == nil {
		n, path = st.node.member("Not"+name), st.path+".Not"+name
	}
	if n.kind != nodeArray {
		return []*node{n}, []string{path}
	}
	nodes, paths := make([]*node, len(n.items)), make([]string, len(n.items))
	for i := range n.items {
		nodes[i], paths[i] = &n.items[i], fmt.Sprintf("%s[%d]", path, i)
	}
	return nodes, paths
}

func (l *linter) syntax(err error) {
	var syntax *SyntaxError
	if !errors.As(err, &syntax) {
		return
	}
	code := LintSyntax
	if strings.Contains(syntax.Msg, errVariableOpen.Error()) {
		code = LintVariableUnbalanced
	}
	l.findings = append(l.findings, Finding{Code: code, Severity: severityOf(code), Line: syntax.Line, Column: syntax.Column,
		Member: syntax.Member, Message: syntax.Msg, Fix: syntax.Hint})
}

func (l *linter) tooLong(err error) {
	var syntax *SyntaxError
	if errors.As(err, &syntax) {
		l.findings = append(l.findings, Finding{Code: LintTooLong, Severity: severityOf(LintTooLong), Line: syntax.Line, Column: syntax.Column,
			Message: syntax.Msg, Fix: syntax.Hint})
	}
}

func (l *linter) find(code LintCode, at int, member, fix, format string, args ...any) {
	if len(l.findings) >= maxFindings {
		return
	}
	if l.lines == nil {
		l.lines = []int{0}
		for i, c := range l.text {
			if c == '\n' {
				l.lines = append(l.lines, i+1)
			}
		}
	}
	line := sort.SearchInts(l.lines, at+1)
	l.findings = append(l.findings, Finding{
		Code: code, Severity: severityOf(code), Line: line, Column: utf8.RuneCount(l.text[l.lines[line-1]:at]) + 1, Member: member,
		Message: fmt.Sprintf(format, args...), Fix: fix,
	})
}

func (l *linter) statement(st *linted) {
	l.actions(st)
	l.resources(st)
	l.conditions(st)
	if st.source.Effect == Deny {
		return
	}
	nodes, paths := st.items("Action")
	if st.source.NotAction {
		l.find(LintAllowsAllBut, nodes[0].offset, paths[0], "list in Action what is allowed", "NotAction with Allow allows every action that isn't listed")
	}
	nodes, paths = st.items("Resource")
	if st.source.NotResource {
		l.find(LintAllowsAllBut, nodes[0].offset, paths[0], "list in Resource what is allowed; Deny the exceptions", "NotResource with Allow allows every resource that isn't listed")
		return
	}
	l.wide(st)
}

// actions looks for actions that nobody is asked for.
func (l *linter) actions(st *linted) {
	nodes, paths := st.items("Action")
	for i, written := range st.source.Actions {
		service, _, _ := strings.Cut(strings.ToLower(written), ":")
		// What a device may do at Greengrass and over the jobs' own endpoint is named
		// in the same policies.
		if written == "*" || service == "greengrass" || service == "iotjobsdata" || slices.ContainsFunc(DataPlaneActions(), func(a Action) bool {
			return actionMatch(written, string(a))
		}) {
			continue
		}
		fix := "leave it out: it is for operators, or doesn't exist"
		var names []string
		for _, a := range DataPlaneActions() {
			names = append(names, string(a))
		}
		near := nearest.Name(written, names)
		if near != "" && nearest.Distance(written, near) <= 3 {
			fix = fmt.Sprintf("did you mean %q?", near)
		}
		l.find(LintActionUnknown, nodes[i].offset, paths[i], fix, "no device is asked for %q", written)
	}
}

// kinds gives the resource types that the actions of a statement are checked
// against; all says that a pattern names so much that nothing can be said.
func (st *linted) kinds() (kinds []string, all bool) {
	if st.source.NotAction {
		return nil, true
	}
	for _, written := range st.source.Actions {
		if written == "*" || strings.EqualFold(written, "iot:*") {
			return nil, true
		}
		for _, a := range DataPlaneActions() {
			if actionMatch(written, string(a)) && !slices.Contains(kinds, a.ResourceKind()) {
				kinds = append(kinds, a.ResourceKind())
			}
		}
	}
	return kinds, len(kinds) == 0
}

// variables looks at the variables of a text.
func (l *linter) variables(p *pattern, written string, at int, path string) {
	if !l.mode.variables && strings.Contains(written, "${") {
		l.find(LintVariablesOff, at, path, `write "Version": "2012-10-17"`, "version %s has no variables: %q is plain text", l.doc.version, written)
		return
	}
	if naked := nakedVariable(written); naked != "" {
		l.find(LintVariableSyntax, at, path, "write ${"+strings.Trim(naked, "${}()")+"}", "%q is no variable", naked)
	}
	p.variables(func(v *piece) bool {
		switch {
		case v.hasFall:
		case v.key.list || v.key.id == keyConnectAttributes:
			l.find(LintVariableValueless, at, path, "use it as a condition key with ForAnyValue or ForAllValues", "%s may have several values and is never substituted", v.text)
		case v.key.id == keyCertificateID:
			l.find(LintVariableValueless, at, path, "use ${iot:Connection.Thing.ThingName} or ${iot:Certificate.Subject.CommonName}", "%s has no value: AWS IoT Core documents none", v.text)
		case v.key.id == keyOther:
			l.find(LintVariableUnknown, at, path, nearestKey(v.key.text), "no connection has a variable %s", v.text)
		}
		return true
	})
}

// nakedVariable finds a variable's name that isn't written as ${name}.
func nakedVariable(s string) string {
	for _, prefix := range []string{"iot:", "aws:"} {
		for from := 0; ; {
			i := strings.Index(s[from:], prefix)
			if i < 0 {
				break
			}
			i += from
			from = i + len(prefix)
			open := strings.TrimRight(s[:i], " ")
			if strings.HasSuffix(open, "${") || !strings.HasSuffix(open, "{") && !strings.HasSuffix(open, "$(") && !strings.HasSuffix(open, "$") {
				continue
			}
			start := strings.LastIndexAny(open, "{(")
			if strings.HasSuffix(open, "$") {
				start = len(open) - 1
			}
			if strings.HasSuffix(open, "$(") {
				start--
			}
			end := strings.IndexAny(s[i:], "})/ ")
			if end < 0 {
				end = len(s) - i
			} else if s[i+end] != '/' {
				end++
			}
			return s[start : i+end]
		}
	}
	return ""
}

// KnownKeys lists the condition keys that connections have; those of attributes
// stand for all of their form.
func KnownKeys() []string {
	keys := []string{"iot:Connection.Thing.Attributes[NAME]"}
	for _, known := range keyNames {
		if known.id != keyCertificateID && !strings.HasSuffix(known.name, ".List") {
			keys = append(keys, known.name)
		}
	}
	for _, name := range certNames {
		keys = append(keys, "iot:Certificate.Subject."+name, "iot:Certificate.Issuer."+name)
	}
	return keys
}

func nearestKey(written string) string {
	near := nearest.Name(written, KnownKeys())
	if near == "" {
		return "use one of the iot: and aws: keys, such as ${iot:Connection.Thing.ThingName}"
	}
	return fmt.Sprintf("did you mean %s?", near)
}

func (l *linter) conditions(st *linted) {
	all := st.node.member("Condition")
	if all == nil {
		return
	}
	next := 0 // statement.conditions are in the order of the document
	for _, operator := range all.members {
		for _, key := range operator.value.members {
			c := st.conditions[next]
			next++
			path := st.path + ".Condition." + operator.name + "." + key.name
			if c.key.id == keyOther && c.operator.kind != opNull {
				l.find(LintConditionKeyUnknown, key.offset, path, nearestKey(key.name), "no connection has the condition key %q", key.name)
			}
			for _, v := range c.values {
				if v.pattern != nil {
					l.variables(v.pattern, v.source, key.value.offset, path)
				}
			}
		}
	}
}
