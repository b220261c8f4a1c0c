package rulesql

import "strings"

// expression parses a whole expression.
func (p *parser) expression() (node, *SyntaxError) {
	return p.binary(precedenceOr)
}

// binary parses operators that bind at least as tight as least.
func (p *parser) binary(least int) (node, *SyntaxError) {
	fault := p.enter(p.peek())
	if fault != nil {
		return nil, fault
	}
	defer p.leave()
	left, fault := p.operand(least)
	for fault == nil {
		t := p.peek()
		if t.isWord("IN") || t.isWord("NOT") && p.ahead(1).isWord("IN") {
			if least > precedenceComparison {
				return left, nil
			}
			left, fault = p.in(left)
			continue
		}
		op, ok := operatorOf(t)
		if !ok || op.precedence() < least {
			return left, nil
		}
		fault = p.count(t)
		if fault != nil {
			return nil, fault
		}
		p.pos++
		var right node
		right, fault = p.binary(op.precedence() + 1)
		left = &binaryNode{op, left, right}
	}
	return nil, fault
}

// operand parses what stands before or behind an operator.
func (p *parser) operand(least int) (node, *SyntaxError) {
	t := p.peek()
	switch {
	case t.isWord("NOT") && least <= precedenceNot:
		p.pos++
		of, fault := p.binary(precedenceNot)
		return &notNode{of}, fault
	case t.is("-"):
		return p.minus()
	}
	of, fault := p.primary()
	if fault != nil {
		return nil, fault
	}
	return p.members(of)
}

func (p *parser) minus() (node, *SyntaxError) {
	t := p.take()
	fault := p.enter(t)
	if fault != nil {
		return nil, fault
	}
	defer p.leave()
	of, fault := p.operand(precedenceProduct + 1)
	if fault != nil {
		return nil, fault
	}
	if n, ok := of.(*literalNode); ok && n.v.isNumber() {
		return &literalNode{negated(n.v, p.s.version)}, nil
	}
	return &minusNode{of}, nil
}

// members parses ".key" behind an operand.
func (p *parser) members(of node) (node, *SyntaxError) {
	for p.peek().is(".") && !p.ahead(1).is("*") {
		dot := p.take()
		t := p.peek()
		if t.kind != tokenName {
			return nil, p.fault(t, "a key that doesn't start with a letter is read with get(object, 'key')",
				"expected a name behind the point, not %s", t.describe())
		}
		p.pos++
		fault := p.count(dot)
		if fault != nil {
			return nil, fault
		}
		path, ok := of.(*pathNode)
		if !ok {
			of = &memberNode{of, t.text}
			continue
		}
		path.keys = append(path.keys, t.text)
	}
	return of, nil
}

// reserved can't start an operand.
var reserved = [...]string{"SELECT", "FROM", "WHERE", "AS", "AND", "OR", "IN", "WHEN", "THEN", "ELSE", "END"}

func (p *parser) primary() (node, *SyntaxError) {
	t := p.take()
	fault := p.count(t)
	if fault != nil {
		return nil, fault
	}
	switch t.kind {
	case tokenString:
		return &literalNode{stringValue(t.text)}, nil
	case tokenNumber:
		v := parseNumber(t.text, p.s.version)
		if v.isUndefined() {
			return nil, p.fault(t, "numbers are below 1E1000", "the number %s is out of range", excerpt(t.text))
		}
		return &literalNode{v}, nil
	case tokenVariable:
		i := p.variableIndex(t.text)
		if i < 0 {
			return nil, p.fault(t, "set it before SELECT: SET @"+excerpt(t.text)+" = ...", "the variable @%s isn't set", excerpt(t.text))
		}
		return &variableNode{i, t.text}, nil
	case tokenName:
		return p.named(t)
	}
	switch {
	case t.is("("):
		return p.parenthesis()
	case t.is("["):
		return p.arrayLiteral(t)
	case t.is("{"):
		return p.objectLiteral(t)
	case t.is("*"):
		return nil, p.fault(t, "as a value, it is the argument of a function: encode(*, 'base64')", `"*" has no value on its left`)
	}
	return nil, p.fault(t, "", "expected a value, not %s", t.describe())
}

// named parses what starts with a word.
func (p *parser) named(t token) (node, *SyntaxError) {
	switch {
	case p.peek().is("("):
		return p.call(t)
	case t.isWord("NULL"):
		return &literalNode{value{kind: kindNull}}, nil
	case t.isWord("TRUE"):
		return &literalNode{boolValue(true)}, nil
	case t.isWord("FALSE"):
		return &literalNode{boolValue(false)}, nil
	case t.isWord("CASE"):
		return p.caseOf(t)
	case t.isWord("NOT"):
		return nil, p.fault(t, "put it in parentheses: (NOT a)", "NOT can't stand here")
	}
	for _, word := range reserved {
		if t.isWord(word) {
			return nil, p.fault(t, "a member with this name is get(*, '"+t.text+"')", "expected a value, not %s", strings.ToUpper(t.text))
		}
	}
	return p.path(t), nil
}

// path finds the scope that a name belongs to: the nested SELECT whose alias it is, else the one that
// it stands in.
func (p *parser) path(t token) *pathNode {
	for i := len(p.aliases) - 1; i >= 0; i-- {
		if p.aliases[i] == t.text {
			return &pathNode{up: len(p.aliases) - 1 - i, name: t.text}
		}
	}
	return &pathNode{keys: []string{t.text}}
}

// parenthesis is "(expression)" or a nested SELECT; the "(" is taken.
func (p *parser) parenthesis() (node, *SyntaxError) {
	var n node
	var fault *SyntaxError
	if p.peek().isWord("SELECT") {
		n, fault = p.nested()
	} else {
		n, fault = p.expression()
	}
	if fault != nil {
		return nil, fault
	}
	fault = p.want(")", "to close the parenthesis")
	if fault != nil {
		return nil, fault
	}
	return n, nil
}

// nested is SELECT ... FROM source [AS alias] [WHERE ...]. FROM is read before the items, because
// they are in the scope that it makes.
func (p *parser) nested() (node, *SyntaxError) {
	keyword := p.take()
	fault := p.since(keyword, "nested SELECT")
	if fault != nil {
		return nil, fault
	}
	fault = p.enter(keyword)
	if fault != nil {
		return nil, fault
	}
	defer p.leave()
	items := p.pos
	from := p.fromAhead()
	if from < 0 {
		return nil, p.fault(keyword, "as in (SELECT VALUE name FROM list)", "the nested SELECT has no FROM")
	}
	n := &nestedNode{}
	p.pos = from + 1
	n.source, fault = p.binary(precedenceProduct + 1)
	if fault != nil {
		return nil, fault
	}
	alias := ""
	if p.word("AS") {
		t := p.take()
		if t.kind != tokenName {
			return nil, p.fault(t, "", "expected a name behind AS, not %s", t.describe())
		}
		alias = t.text
	}
	behind := p.pos
	p.aliases = append(p.aliases, alias)
	defer func() { p.aliases = p.aliases[:len(p.aliases)-1] }()
	p.pos = items
	n.selection, fault = p.selection()
	if fault != nil {
		return nil, fault
	}
	if p.pos != from {
		t := p.peek()
		return nil, p.fault(t, "", "unexpected %s in the nested SELECT", t.describe())
	}
	p.pos = behind
	if p.word("WHERE") {
		n.where, fault = p.expression()
	}
	return n, fault
}

// fromAhead finds the FROM of the SELECT whose items start here, or gives -1.
func (p *parser) fromAhead() int {
	level := 0
	for i := p.pos; i < len(p.tokens); i++ {
		t := p.tokens[i]
		switch {
		case t.is("("), t.is("["), t.is("{"):
			level++
		case t.is(")"), t.is("]"), t.is("}"):
			level--
			if level < 0 {
				return -1
			}
		// A name behind a point is a key.
		case level == 0 && t.isWord("FROM") && !p.tokens[i-1].is("."):
			return i
		}
	}
	return -1
}
