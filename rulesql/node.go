package rulesql

// node is a piece of a compiled statement. Nodes never change once Parse has returned.
type node interface {
	eval(ev *Evaluation, sc *scope) value
}

// scope is the element that a nested SELECT is at; nil is the payload.
type scope struct {
	element value
	outer   *scope
}

// at gives the scope so many levels out; nil is the payload.
func (sc *scope) at(up int) *scope {
	for ; up > 0 && sc != nil; up-- {
		sc = sc.outer
	}
	return sc
}

type literalNode struct{ v value }

func (n *literalNode) eval(ev *Evaluation, _ *scope) value {
	ev.spend(1)
	return n.v
}

// pathNode is "a.b.c" in the scope that Parse found it to belong to.
type pathNode struct {
	up   int // scopes out from where it stands
	keys []string
	name string // what stands for the whole of it where there are no keys: an alias
}

func (n *pathNode) eval(ev *Evaluation, sc *scope) value {
	if !ev.spend(len(n.keys) + 1) {
		return undefined()
	}
	sc = sc.at(n.up)
	keys := n.keys
	var v value
	if sc == nil {
		v = ev.member(keys[0])
		keys = keys[1:]
	} else {
		v = sc.element
	}
	for _, key := range keys {
		if v.kind != kindObject {
			return undefined()
		}
		v = ev.look(v.object().get(key))
	}
	return v
}

// variableNode is "@name".
type variableNode struct {
	index int
	name  string
}

func (n *variableNode) eval(ev *Evaluation, _ *scope) value {
	ev.spend(1)
	return ev.variable(n.index)
}

// memberNode is ".key" behind something other than a path.
type memberNode struct {
	of  node
	key string
}

func (n *memberNode) eval(ev *Evaluation, sc *scope) value {
	v := n.of.eval(ev, sc)
	if v.kind != kindObject || !ev.spend(1) {
		return undefined()
	}
	return ev.look(v.object().get(n.key))
}

// starNode is "*" as a value: the payload, or the element of a nested SELECT.
type starNode struct{}

func (n *starNode) eval(ev *Evaluation, sc *scope) value {
	ev.spend(1)
	if sc != nil {
		return sc.element
	}
	return ev.all()
}

// bytesNode is "*" for functions that take the payload's bytes and nothing that is in them.
type bytesNode struct{}

func (n *bytesNode) eval(ev *Evaluation, _ *scope) value {
	ev.spend(1)
	return value{kind: kindBytes}
}

type arrayNode struct{ items []node }

func (n *arrayNode) eval(ev *Evaluation, sc *scope) value {
	items := make([]value, 0, len(n.items))
	for _, item := range n.items {
		items = append(items, item.eval(ev, sc))
	}
	ev.spend(1)
	return arrayValue(items)
}

type objectNode struct {
	keys []string
	vals []node
}

func (n *objectNode) eval(ev *Evaluation, sc *scope) value {
	o := &object{members: make([]member, 0, len(n.keys))}
	for i, key := range n.keys {
		v := n.vals[i].eval(ev, sc)
		if !v.isUndefined() {
			o.set(key, v)
		}
	}
	ev.spend(1)
	return objectValue(o)
}

type caseNode struct {
	subject      node
	whens, thens []node
	otherwise    node // nil without ELSE
}

func (n *caseNode) eval(ev *Evaluation, sc *scope) value {
	subject := n.subject.eval(ev, sc)
	if subject.isUndefined() || !ev.spend(1) {
		return undefined()
	}
	for i, when := range n.whens {
		v := when.eval(ev, sc)
		if !v.isUndefined() && ev.equal(subject, v) {
			return n.thens[i].eval(ev, sc)
		}
	}
	if n.otherwise == nil {
		return undefined()
	}
	return n.otherwise.eval(ev, sc)
}

// inNode is "a IN array", "a IN (x, y)" and their negations.
type inNode struct {
	left   node
	array  node   // nil with a list
	list   []node // each an element
	negate bool
}

func (n *inNode) eval(ev *Evaluation, sc *scope) value {
	left := n.left.eval(ev, sc)
	if left.isUndefined() || !ev.spend(1) {
		return undefined()
	}
	if n.array == nil {
		for _, item := range n.list {
			v := item.eval(ev, sc)
			if !v.isUndefined() && ev.equal(left, v) {
				return boolValue(!n.negate)
			}
		}
		return boolValue(n.negate)
	}
	array := n.array.eval(ev, sc)
	if array.kind != kindArray {
		return undefined()
	}
	for _, item := range array.items() {
		if !item.isUndefined() && ev.equal(left, item) {
			return boolValue(!n.negate)
		}
	}
	return boolValue(n.negate)
}

// existsNode is "EXISTS(a)": whether an array has an element, or anything else is there.
type existsNode struct{ of node }

func (n *existsNode) eval(ev *Evaluation, sc *scope) value {
	v := n.of.eval(ev, sc)
	if v.kind == kindArray {
		return boolValue(len(v.items()) > 0)
	}
	return boolValue(!v.isUndefined())
}

// nestedNode is "(SELECT ... FROM source ...)".
type nestedNode struct {
	selection selection
	source    node
	where     node // nil without
}

func (n *nestedNode) eval(ev *Evaluation, sc *scope) value {
	source := n.source.eval(ev, sc)
	if !ev.spend(1) {
		return undefined()
	}
	switch source.kind {
	case kindArray:
		out := []value{}
		for _, element := range source.items() {
			v := n.one(ev, &scope{element, sc})
			if ev.err != nil {
				return undefined()
			}
			if !v.isUndefined() {
				out = append(out, v)
			}
		}
		return arrayValue(out)
	case kindObject:
		return n.one(ev, &scope{source, sc})
	}
	return undefined()
}

func (n *nestedNode) one(ev *Evaluation, sc *scope) value {
	if n.where != nil && !n.where.eval(ev, sc).isTrue() {
		return undefined()
	}
	return n.selection.eval(ev, sc)
}

// callNode is a call of a function of the table.
type callNode struct {
	fn       *function
	name     string // as written
	args     []node
	wrong    bool // the number of arguments: always Undefined
	prepared any  // what fn made of constant arguments
}

func (n *callNode) eval(ev *Evaluation, sc *scope) value {
	if n.wrong || !ev.spend(1) {
		return undefined()
	}
	base := len(ev.stack)
	for _, arg := range n.args {
		v := arg.eval(ev, sc)
		ev.stack = append(ev.stack, v)
	}
	var out value
	if ev.err == nil {
		out = n.fn.call(ev, n, ev.stack[base:])
	}
	clear(ev.stack[base:])
	ev.stack = ev.stack[:base]
	return out
}
