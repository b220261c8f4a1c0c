package rulesql

import (
	"strings"

	"github.com/imprint-iot/imprint/internal/nearest"
)

// caseOf is CASE v WHEN t THEN r ... [ELSE r] END; CASE is taken.
func (p *parser) caseOf(keyword token) (node, *SyntaxError) {
	if p.peek().isWord("WHEN") {
		return nil, p.fault(p.peek(), "CASE true WHEN condition THEN value ... END decides by conditions", "CASE has no value to compare")
	}
	n := &caseNode{}
	var fault *SyntaxError
	n.subject, fault = p.expression()
	if fault != nil {
		return nil, fault
	}
	for p.word("WHEN") {
		when, fault := p.expression()
		if fault != nil {
			return nil, fault
		}
		if !p.word("THEN") {
			return nil, p.fault(p.peek(), "WHEN value THEN result", "expected THEN, not %s", p.peek().describe())
		}
		then, fault := p.expression()
		if fault != nil {
			return nil, fault
		}
		n.whens, n.thens = append(n.whens, when), append(n.thens, then)
	}
	if len(n.whens) == 0 {
		return nil, p.fault(p.peek(), "CASE v WHEN t THEN r END", "expected WHEN, not %s", p.peek().describe())
	}
	if p.word("ELSE") {
		n.otherwise, fault = p.expression()
		if fault != nil {
			return nil, fault
		}
	}
	if !p.word("END") {
		return nil, p.fault(p.peek(), "CASE ends with END", "expected END, not %s", p.peek().describe())
	}
	return n, p.count(keyword)
}

// in is "IN array", "IN (a, b)" or "IN (SELECT ...)" behind left, with NOT before it or without.
func (p *parser) in(left node) (node, *SyntaxError) {
	n := &inNode{left: left, negate: p.word("NOT")}
	keyword := p.take()
	fault := p.count(keyword)
	if fault != nil {
		return nil, fault
	}
	if !p.peek().is("(") || p.ahead(1).isWord("SELECT") {
		n.array, fault = p.binary(precedenceSum)
		return n, fault
	}
	p.pos++
	n.list, fault = p.list(")", false)
	if fault != nil {
		return nil, fault
	}
	if len(n.list) == 1 {
		if _, literal := n.list[0].(*literalNode); !literal {
			n.array, n.list = n.list[0], nil
		}
	}
	return n, nil
}

// list is expressions up to the closing sign, which it takes. With star, an element may be "*".
func (p *parser) list(closing string, star bool) ([]node, *SyntaxError) {
	var nodes []node
	if p.sign(closing) {
		return nodes, nil
	}
	for {
		if t := p.ahead(1); star && p.peek().is("*") && (t.is(",") || t.is(closing)) {
			p.pos++
			nodes = append(nodes, &starNode{})
		} else {
			n, fault := p.expression()
			if fault != nil {
				return nil, fault
			}
			nodes = append(nodes, n)
		}
		if p.sign(closing) {
			return nodes, nil
		}
		fault := p.want(",", "or "+closing)
		if fault != nil {
			return nil, fault
		}
	}
}

func (p *parser) arrayLiteral(t token) (node, *SyntaxError) {
	fault := p.since(t, "array literals")
	if fault != nil {
		return nil, fault
	}
	items, fault := p.list("]", false)
	return &arrayNode{items}, fault
}

func (p *parser) objectLiteral(t token) (node, *SyntaxError) {
	fault := p.since(t, "object literals")
	if fault != nil {
		return nil, fault
	}
	n := &objectNode{}
	if p.sign("}") {
		return n, nil
	}
	for {
		key := p.take()
		if key.kind != tokenString {
			return nil, p.fault(key, "as in {'level': a.level}", "a key of an object must be in quotes, not %s", key.describe())
		}
		fault = p.want(":", "behind a key")
		if fault != nil {
			return nil, fault
		}
		v, fault := p.expression()
		if fault != nil {
			return nil, fault
		}
		n.keys, n.vals = append(n.keys, key.text), append(n.vals, v)
		if p.sign("}") {
			return n, nil
		}
		fault = p.want(",", "or }")
		if fault != nil {
			return nil, fault
		}
	}
}

// call parses a call; its name is taken, the "(" not.
func (p *parser) call(name token) (node, *SyntaxError) {
	open := p.take()
	fault := p.enter(open)
	if fault != nil {
		return nil, fault
	}
	defer p.leave()
	switch {
	case name.isWord("CAST"):
		return p.cast(name)
	case name.isWord("EXISTS"):
		of, fault := p.parenthesis()
		return &existsNode{of}, fault
	}
	fn := functionNamed(name.text)
	if fn == nil {
		hint := ""
		if near := nearest.Name(name.text, functionNames()); near != "" {
			hint = "did you mean " + near + "()?"
		}
		return nil, p.fault(name, hint, "there is no function %s()", excerpt(name.text))
	}
	if fn.second {
		fault = p.since(name, "function "+fn.name+"()")
		if fault != nil {
			return nil, fault
		}
	}
	args, fault := p.list(")", true)
	if fault != nil {
		return nil, fault
	}
	return p.finish(&callNode{fn: fn, name: name.text, args: args}, name)
}

// finish checks a call's arguments and prepares what is constant among them.
func (p *parser) finish(n *callNode, name token) (node, *SyntaxError) {
	fn := n.fn
	if len(n.args) < fn.least || len(n.args) > fn.most {
		n.wrong = true
		p.warn(name, fn.name+"() with this number of arguments is always Undefined; it takes "+fn.takes())
		return n, nil
	}
	if fn.external || fn.name == "decode" && isText(n.args[1], proto) {
		p.usesExternal(fn.name)
	}
	if fn.bytes && len(p.aliases) == 0 {
		if _, star := n.args[0].(*starNode); star {
			n.args[0] = &bytesNode{}
		}
	}
	if fn.prepare == nil {
		return n, nil
	}
	prepared, problem, hint := fn.prepare(n.args)
	if problem != "" {
		return nil, p.fault(name, hint, "%s(): %s", fn.name, problem)
	}
	n.prepared = prepared
	return n, nil
}

// isText says whether a node is this text, whatever the message is.
func isText(n node, text string) bool {
	literal, ok := n.(*literalNode)
	return ok && literal.v.kind == kindString && literal.v.text == text
}

func (p *parser) usesExternal(name string) {
	for _, known := range p.external {
		if known == name {
			return
		}
	}
	p.external = append(p.external, name)
}

// castTypes are the types of cast(); those of the second version are marked.
var castTypes = map[string]struct {
	to             kind
	double, second bool
}{
	"string": {to: kindString}, "nvarchar": {to: kindString}, "text": {to: kindString},
	"ntext": {to: kindString}, "varchar": {to: kindString},
	"int": {to: kindInt}, "integer": {to: kindInt},
	"double":  {to: kindDecimal, double: true},
	"decimal": {to: kindDecimal, second: true},
	"bool":    {to: kindBool, second: true}, "boolean": {to: kindBool, second: true},
}

// cast is "value AS type)".
func (p *parser) cast(name token) (node, *SyntaxError) {
	const form = "cast(value AS Int), with Int, Decimal, Double, Boolean or String"
	of, fault := p.expression()
	if fault != nil {
		return nil, fault
	}
	if !p.word("AS") {
		return nil, p.fault(p.peek(), form, "expected AS, not %s", p.peek().describe())
	}
	t := p.take()
	to, ok := castTypes[strings.ToLower(t.text)]
	if t.kind != tokenName || !ok {
		return nil, p.fault(t, form, "there is no type %s", t.describe())
	}
	if to.second {
		fault = p.since(t, "cast to "+t.text)
		if fault != nil {
			return nil, fault
		}
	}
	return &castNode{of: of, to: to.to, double: to.double}, p.want(")", "behind the type of "+name.text)
}
