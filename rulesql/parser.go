package rulesql

import (
	"strings"

	"github.com/imprint-iot/imprint/mqtt"
)

// parser fills a Statement from tokens.
type parser struct {
	s      *Statement
	text   string
	tokens []token // ends with a tokenEnd
	pos    int

	aliases []string // of the nested SELECTs around, outermost first; empty without AS
	depth   int
	nodes   int

	external []string
	warnings []Warning
}

func (p *parser) peek() token { return p.tokens[p.pos] }

// ahead looks n tokens further.
func (p *parser) ahead(n int) token { return p.tokens[min(p.pos+n, len(p.tokens)-1)] }

func (p *parser) take() token {
	t := p.tokens[p.pos]
	if p.pos < len(p.tokens)-1 {
		p.pos++
	}
	return t
}

// word takes a keyword if it is there.
func (p *parser) word(w string) bool {
	if !p.peek().isWord(w) {
		return false
	}
	p.pos++
	return true
}

// sign takes a sign if it is there.
func (p *parser) sign(s string) bool {
	if !p.peek().is(s) {
		return false
	}
	p.pos++
	return true
}

func (p *parser) fault(t token, hint, format string, args ...any) *SyntaxError {
	return syntaxErrorAt(p.text, t.off, hint, format, args...)
}

func (p *parser) warn(t token, msg string) {
	if len(p.warnings) < MaxProblems {
		line, column := position(p.text, t.off)
		p.warnings = append(p.warnings, Warning{line, column, msg})
	}
}

// want takes a sign that must be there.
func (p *parser) want(sign, where string) *SyntaxError {
	if p.sign(sign) {
		return nil
	}
	t := p.peek()
	return p.fault(t, "", "expected %q %s, not %s", sign, where, t.describe())
}

// since refuses what a version doesn't have.
func (p *parser) since(t token, what string) *SyntaxError {
	if !p.s.version.first() {
		return nil
	}
	return p.fault(t, `set the rule's awsIotSqlVersion to "2016-03-23"`, "SQL version %s has no %s", p.s.version, what)
}

// enter counts a level of nesting and a node; leave ends the level.
func (p *parser) enter(t token) *SyntaxError {
	p.depth++
	if p.depth > MaxDepth {
		return p.fault(t, "", "more than %d levels of nesting", MaxDepth)
	}
	return p.count(t)
}

func (p *parser) leave() { p.depth-- }

func (p *parser) count(t token) *SyntaxError {
	p.nodes++
	if p.nodes > MaxNodes {
		return p.fault(t, "", "more than %d operators, calls, names and literals", MaxNodes)
	}
	return nil
}

// statement is [SET ...] SELECT ... [FROM 'filter'] [WHERE ...].
func (p *parser) statement() *SyntaxError {
	if p.peek().isWord("SET") {
		fault := p.settings()
		if fault != nil {
			return fault
		}
	}
	if !p.word("SELECT") {
		t := p.peek()
		return p.fault(t, "a statement is SELECT ... FROM 'topic/filter' WHERE ...", "expected SELECT, not %s", t.describe())
	}
	var fault *SyntaxError
	p.s.selection, fault = p.selection()
	if fault != nil {
		return fault
	}
	if p.word("FROM") {
		fault = p.from()
		if fault != nil {
			return fault
		}
	}
	if p.word("WHERE") {
		p.s.where, fault = p.expression()
		if fault != nil {
			return fault
		}
	}
	return p.end()
}

// foreign are words of other SQLs that people try.
var foreign = [...]struct{ word, hint string }{
	{"LIKE", "startswith(a, b), endswith(a, b) or regexp_matches(a, 'pattern') compare texts in part"},
	{"BETWEEN", "write a >= low AND a <= high"},
	{"IS", "isNull(a) and isUndefined(a) test for nothing"},
	{"GROUP", "a rule looks at one message at a time"},
	{"ORDER", "a rule looks at one message at a time"},
	{"LIMIT", "a rule looks at one message at a time"},
	{"JOIN", "a rule looks at one message at a time"},
	{"UNION", "a rule looks at one message at a time"},
}

// end expects nothing more.
func (p *parser) end() *SyntaxError {
	t := p.peek()
	if t.kind == tokenEnd {
		return nil
	}
	hint := ""
	switch {
	case t.is("["):
		hint = "an element of an array is get(array, 0)"
	case t.is("."):
		hint = "a key that doesn't start with a letter is read with get(object, 'key')"
	case t.kind == tokenName || t.kind == tokenString:
		hint = "a new name for a value needs AS before it"
	}
	for _, f := range foreign {
		if t.isWord(f.word) {
			hint = f.hint
		}
	}
	return p.fault(t, hint, "unexpected %s", t.describe())
}

// settings is SET @name = expression [, ...].
func (p *parser) settings() *SyntaxError {
	set := p.take()
	fault := p.since(set, "SET clause")
	if fault != nil {
		return fault
	}
	for {
		t := p.take()
		switch {
		case t.kind != tokenVariable:
			return p.fault(t, "SET @name = expression, @other = expression SELECT ...", "expected a variable, not %s", t.describe())
		case len([]rune(t.text)) > MaxVariableCharacters:
			return p.fault(t, "", "the name of a variable has more than %d characters", MaxVariableCharacters)
		case p.variableIndex(t.text) >= 0:
			return p.fault(t, "a variable is set once", "@%s is set twice", t.text)
		case len(p.s.sets) == MaxVariables:
			return p.fault(t, "", "more than %d variables", MaxVariables)
		}
		fault = p.want("=", "behind @"+t.text)
		if fault != nil {
			return fault
		}
		n, fault := p.expression()
		if fault != nil {
			return fault
		}
		p.s.sets = append(p.s.sets, setting{t.text, n})
		if !p.sign(",") {
			return nil
		}
	}
}

func (p *parser) variableIndex(name string) int {
	for i := range p.s.sets {
		if p.s.sets[i].name == name {
			return i
		}
	}
	return -1
}

// from reads the filter of the outermost FROM.
func (p *parser) from() *SyntaxError {
	t := p.take()
	if t.kind != tokenString {
		return p.fault(t, "as in FROM 'sensors/+/state'", "the topic filter of FROM must be in quotes, not %s", t.describe())
	}
	err := mqtt.CheckTopicFilter(t.text)
	if err != nil {
		return p.fault(t, "+ stands for one level, # for all further ones", "'%s' is no topic filter: %v", excerpt(t.text), err)
	}
	if strings.HasPrefix(t.text, "$share/") {
		return p.fault(t, "write the filter without $share", "a rule can't share a subscription")
	}
	if strings.HasPrefix(t.text, "$aws/rules/") {
		return p.fault(t, "leave FROM out: messages on $aws/rules/{name}/... reach the rule by its name", "a rule can't subscribe to Basic Ingest topics")
	}
	p.s.filter, p.s.hasFilter = t.text, true
	return nil
}

// selection is the list behind SELECT.
func (p *parser) selection() (selection, *SyntaxError) {
	var s selection
	s.value = p.valueKeyword()
	if s.value {
		p.pos++
	}
	for {
		it, fault := p.item(s.value)
		if fault != nil {
			return s, fault
		}
		s.items = append(s.items, it)
		if !p.peek().is(",") {
			return s, nil
		}
		if s.value {
			return s, p.fault(p.peek(), "an array literal, SELECT VALUE [a, b], holds several", "SELECT VALUE has one item")
		}
		p.pos++
	}
}

// valueKeyword says whether VALUE, which may also be a name, is the keyword here.
func (p *parser) valueKeyword() bool {
	if !p.peek().isWord("VALUE") {
		return false
	}
	t := p.ahead(1)
	switch t.kind {
	case tokenName:
		_, operator := operatorOf(t)
		return !operator && !(t.isWord("NOT") && p.ahead(2).isWord("IN")) && !t.isWord("FROM") && !t.isWord("AS") && !t.isWord("WHERE") && !t.isWord("IN")
	case tokenSign:
		if t.is("*") {
			after := p.ahead(2)
			return after.kind == tokenEnd || after.is(")") || after.isWord("FROM") || after.isWord("WHERE")
		}
		return t.is("(") || t.is("[") || t.is("{")
	}
	return t.kind != tokenEnd
}

// item is "*", "a.b.*" or an expression, with AS where there is one.
func (p *parser) item(value bool) (item, *SyntaxError) {
	first := p.peek()
	var it item
	var fault *SyntaxError
	if p.sign("*") {
		it.node, it.spread = &starNode{}, true
	} else {
		it.node, fault = p.expression()
		if fault != nil {
			return it, fault
		}
	}
	if p.peek().is(".") && p.ahead(1).is("*") {
		p.pos += 2
		it.spread = true
	}
	if p.peek().isWord("AS") {
		as := p.take()
		if value {
			return it, p.fault(as, "leave AS out", "the item of SELECT VALUE has no name")
		}
		it.spread = false
		it.path, fault = p.alias()
		return it, fault
	}
	if !it.spread && !value {
		it.path = []string{p.nameOf(it.node, first)}
	}
	return it, nil
}

// alias is name[.name...].
func (p *parser) alias() ([]string, *SyntaxError) {
	var path []string
	for {
		t := p.take()
		if t.kind != tokenName && t.kind != tokenString {
			return nil, p.fault(t, "as in AS state.reported.level", "expected a name behind AS, not %s", t.describe())
		}
		path = append(path, t.text)
		if len(path) > MaxDepth {
			return nil, p.fault(t, "", "a name has more than %d parts", MaxDepth)
		}
		if !p.sign(".") {
			return path, nil
		}
	}
}

// nameOf is the key of an item without AS: the last name of a path, the name of a function, else
// the text itself.
func (p *parser) nameOf(n node, first token) string {
	switch n := n.(type) {
	case *pathNode:
		if len(n.keys) == 0 {
			return n.name
		}
		return n.keys[len(n.keys)-1]
	case *memberNode:
		return n.key
	case *callNode:
		return n.name
	case *variableNode:
		return n.name
	case *castNode:
		return "cast"
	}
	return p.text[first.off:p.tokens[p.pos-1].end]
}
