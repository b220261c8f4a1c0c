package template

import (
	"strconv"
	"strings"
)

type opcode uint8

const (
	opLiteral  opcode = iota // text
	opParam                  // parameter number param
	opResource               // reference to resource text: parses, has no value
	opList                   // args
	opJoin                   // args: delimiter, list
	opSplit                  // args: delimiter, source
	opSelect                 // args: index, list
	opFind                   // args: map, key, sub-key
	opSub                    // args: the variables and references, pieces: how they are put together
)

// expr is a compiled value. Its type is known when it is parsed: opList and opSplit give a
// list of strings, everything else a string.
type expr struct {
	op    opcode
	text  string
	param int
	args  []*expr
	// pieces of opSub, in order. Each argument is evaluated once however often it appears: a short
	// text must not ask for long work.
	pieces []piece
	at     site
}

// piece is literal text, or the argument of that number when there is no text.
type piece struct {
	text string
	arg  int
}

func (e *expr) isList() bool { return e.op == opList || e.op == opSplit }

// field is a value with the rule that it must obey once evaluated.
type field struct {
	value *expr
	check check
}

// field compiles a string property. A literal is checked at once.
func (p *parser) field(n *node, path string, check check) (field, error) {
	e, err := p.stringExpr(n, path)
	if err != nil {
		return field{}, err
	}
	if e.op == opLiteral && check != nil {
		if problem := check(e.text); problem != "" {
			return field{}, p.fault(e.at, CodeInvalid, "%s", problem)
		}
	}
	return field{e, check}, nil
}

// stringExpr compiles a string or a function that gives one.
func (p *parser) stringExpr(n *node, path string) (*expr, error) {
	at := site{n.off, path}
	if n.kind == nodeString {
		return &expr{op: opLiteral, text: n.text, at: at}, nil
	}
	if n.kind != nodeObject || !n.isFunction() {
		e := p.fault(at, CodeInvalid, "must be a string or a function, not %s", n.describe())
		if n.kind == nodeNumber || n.kind == nodeBool {
			e.Hint = "write it in quotes"
		}
		return nil, e
	}
	e, err := p.function(n, path)
	if err != nil {
		return nil, err
	}
	if e.isList() {
		e := p.fault(at, CodeInvalid, "%s gives a list where a string is needed", n.members[0].name)
		e.Hint = "pick one item with Fn::Select or concatenate them with Fn::Join"
		return nil, e
	}
	return e, nil
}

// listExpr compiles a list of strings or a function that gives one.
func (p *parser) listExpr(n *node, path string, itemPaths bool) (*expr, error) {
	at := site{n.off, path}
	if n.kind == nodeArray {
		list := &expr{op: opList, at: at}
		for i, item := range n.items {
			itemPath := path
			if itemPaths {
				itemPath = path + "[" + strconv.Itoa(i) + "]"
			}
			e, err := p.stringExpr(item, itemPath)
			if err != nil {
				return nil, err
			}
			list.args = append(list.args, e)
		}
		return list, nil
	}
	if n.kind != nodeObject || !n.isFunction() {
		e := p.fault(at, CodeInvalid, "must be a list or a function that gives one, not %s", n.describe())
		if n.kind == nodeString {
			e.Hint = "write it in square brackets"
		}
		return nil, e
	}
	e, err := p.function(n, path)
	if err != nil {
		return nil, err
	}
	if !e.isList() {
		e := p.fault(at, CodeInvalid, "%s gives a string where a list is needed", n.members[0].name)
		e.Hint = "write it in square brackets, or cut it with Fn::Split"
		return nil, e
	}
	return e, nil
}

const functionNames = "Ref, Fn::Join, Fn::Select, Fn::Split, Fn::FindInMap, Fn::Sub"

// function compiles an object for which isFunction holds.
func (p *parser) function(n *node, path string) (*expr, error) {
	if len(n.members) != 1 {
		e := p.fault(site{n.off, path}, CodeInvalid, "a function must be the only member of its object")
		e.Hint = "members named Ref or Fn::... are functions"
		return nil, e
	}
	call := n.members[0]
	at := site{n.off, path}
	switch call.name {
	case "Ref":
		if call.value.kind != nodeString {
			return nil, p.fault(site{call.value.off, path}, CodeInvalid,
				"Ref needs the name of a parameter, not %s", call.value.describe())
		}
		return p.reference(call.value.text, site{call.value.off, path})
	case "Fn::Join":
		return p.joinCall(call.value, at)
	case "Fn::Split":
		return p.splitCall(call.value, at)
	case "Fn::Select":
		return p.selectCall(call.value, at)
	case "Fn::FindInMap":
		return p.findCall(call.value, at)
	case "Fn::Sub":
		return p.subCall(call.value, at)
	}
	e := p.fault(site{call.off, path}, CodeInvalid, "unknown function %s", quote(call.name))
	e.Hint = "the functions are " + functionNames
	return nil, e
}

// arguments checks the form of a call: a list of so many.
func (p *parser) arguments(n *node, at site, name string, count int, form string) error {
	if n.kind == nodeArray && len(n.items) == count {
		return nil
	}
	got := n.describe()
	if n.kind == nodeArray {
		got = "a list of " + strconv.Itoa(len(n.items))
	}
	e := p.fault(site{n.off, at.member}, CodeInvalid, "%s needs a list of %d, not %s", name, count, got)
	e.Hint = "the form is " + form
	return e
}

func (p *parser) joinCall(n *node, at site) (*expr, error) {
	err := p.arguments(n, at, "Fn::Join", 2, `{"Fn::Join": ["delimiter", ["value", ...]]}`)
	if err != nil {
		return nil, err
	}
	delimiter, err := p.stringExpr(n.items[0], at.member)
	if err != nil {
		return nil, err
	}
	list, err := p.listExpr(n.items[1], at.member, false)
	if err != nil {
		return nil, err
	}
	return &expr{op: opJoin, args: []*expr{delimiter, list}, at: at}, nil
}

func (p *parser) splitCall(n *node, at site) (*expr, error) {
	err := p.arguments(n, at, "Fn::Split", 2, `{"Fn::Split": ["delimiter", "source"]}`)
	if err != nil {
		return nil, err
	}
	delimiter, err := p.stringExpr(n.items[0], at.member)
	if err != nil {
		return nil, err
	}
	if delimiter.op == opLiteral && delimiter.text == "" {
		return nil, p.fault(delimiter.at, CodeInvalid, "the delimiter of Fn::Split must not be empty")
	}
	source, err := p.stringExpr(n.items[1], at.member)
	if err != nil {
		return nil, err
	}
	return &expr{op: opSplit, args: []*expr{delimiter, source}, at: at}, nil
}

func (p *parser) selectCall(n *node, at site) (*expr, error) {
	err := p.arguments(n, at, "Fn::Select", 2, `{"Fn::Select": ["0", ["value", ...]]}`)
	if err != nil {
		return nil, err
	}
	index, err := p.indexExpr(n.items[0], at.member)
	if err != nil {
		return nil, err
	}
	for _, item := range n.items[1].items {
		if item.kind == nodeNull {
			return nil, p.fault(site{item.off, at.member}, CodeInvalid, "the list of Fn::Select must not contain null")
		}
	}
	list, err := p.listExpr(n.items[1], at.member, false)
	if err != nil {
		return nil, err
	}
	if index.op == opLiteral && list.op == opList {
		i, _ := parseIndex(index.text)
		if i >= len(list.args) {
			return nil, p.fault(index.at, CodeInvalid, "%s", indexProblem(index.text, len(list.args)))
		}
	}
	return &expr{op: opSelect, args: []*expr{index, list}, at: at}, nil
}

// indexExpr compiles the index of Fn::Select: a number, or a string that holds one.
func (p *parser) indexExpr(n *node, path string) (*expr, error) {
	if n.kind == nodeNumber {
		literal := *n
		literal.kind = nodeString
		n = &literal
	}
	index, err := p.stringExpr(n, path)
	if err != nil {
		return nil, err
	}
	if index.op != opLiteral {
		return index, nil
	}
	if _, ok := parseIndex(index.text); !ok {
		return nil, p.fault(index.at, CodeInvalid, "%s", notIndex(index.text))
	}
	return index, nil
}

// parseIndex reads a zero-based index of at most nine decimal digits.
func parseIndex(s string) (int, bool) {
	if s == "" || len(s) > 9 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	i, err := strconv.Atoi(s)
	return i, err == nil
}

func notIndex(s string) string {
	return "the index " + quote(s) + " of Fn::Select is not a whole number from 0"
}

func indexProblem(index string, items int) string {
	return "the index " + index + " of Fn::Select is out of range: the list has " + strconv.Itoa(items) + " items"
}

func (p *parser) findCall(n *node, at site) (*expr, error) {
	err := p.arguments(n, at, "Fn::FindInMap", 3, `{"Fn::FindInMap": ["map", "key", "sub-key"]}`)
	if err != nil {
		return nil, err
	}
	find := &expr{op: opFind, at: at}
	for _, item := range n.items {
		e, err := p.stringExpr(item, at.member)
		if err != nil {
			return nil, err
		}
		find.args = append(find.args, e)
	}
	return find, p.checkFind(find)
}

// checkFind refuses a look-up whose literal arguments can never succeed.
func (p *parser) checkFind(find *expr) error {
	name, key, sub := find.args[0], find.args[1], find.args[2]
	if len(p.t.mappings) == 0 {
		e := p.fault(find.at, CodeInvalid, "Fn::FindInMap is used, but the template has no mappings")
		e.Hint = "add a Mappings section; only fleet provisioning templates have one"
		return e
	}
	if name.op != opLiteral {
		return nil
	}
	keys, known := p.t.mappings[name.text]
	if !known {
		e := p.fault(name.at, CodeInvalid, "unknown map %s", quote(name.text))
		e.Hint = "Mappings has " + names(p.t.mappings)
		return e
	}
	if key.op == opLiteral {
		subs, known := keys[key.text]
		if !known {
			e := p.fault(key.at, CodeInvalid, "unknown key %s in map %s", quote(key.text), quote(name.text))
			e.Hint = "the map has " + names(keys)
			return e
		}
		keys = map[string]map[string]string{key.text: subs}
	}
	if sub.op != opLiteral {
		return nil
	}
	for _, subs := range keys {
		if _, known := subs[sub.text]; known {
			return nil
		}
	}
	e := p.fault(sub.at, CodeInvalid, "unknown sub-key %s in map %s", quote(sub.text), quote(name.text))
	e.Hint = "no key that can be meant has it"
	return e
}
