package rulesql

// operator is one of two operands.
type operator uint8

const (
	opOr operator = iota
	opAnd
	opEqual
	opUnequal
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
	opAdd
	opSubtract
	opJoin
	opMultiply
	opDivide
	opRemainder
)

// precedence binds tighter the higher it is.
func (op operator) precedence() int {
	switch op {
	case opOr:
		return precedenceOr
	case opAnd:
		return precedenceAnd
	case opAdd, opSubtract, opJoin:
		return precedenceSum
	case opMultiply, opDivide, opRemainder:
		return precedenceProduct
	}
	return precedenceComparison
}

const (
	precedenceOr = iota + 1
	precedenceAnd
	precedenceNot
	precedenceComparison
	precedenceSum
	precedenceProduct
)

// operatorOf recognizes an operator.
func operatorOf(t token) (operator, bool) {
	if t.kind == tokenName {
		switch {
		case t.isWord("OR"):
			return opOr, true
		case t.isWord("AND"):
			return opAnd, true
		}
		return 0, false
	}
	if t.kind != tokenSign {
		return 0, false
	}
	switch t.text {
	case "=":
		return opEqual, true
	case "<>", "!=":
		return opUnequal, true
	case "<":
		return opLess, true
	case "<=":
		return opLessEqual, true
	case ">":
		return opGreater, true
	case ">=":
		return opGreaterEqual, true
	case "+":
		return opAdd, true
	case "-":
		return opSubtract, true
	case "||":
		return opJoin, true
	case "*":
		return opMultiply, true
	case "/":
		return opDivide, true
	case "%":
		return opRemainder, true
	}
	return 0, false
}

type binaryNode struct {
	op          operator
	left, right node
}

func (n *binaryNode) eval(ev *Evaluation, sc *scope) value {
	left := n.left.eval(ev, sc)
	right := n.right.eval(ev, sc)
	if !ev.spend(1) {
		return undefined()
	}
	switch n.op {
	case opOr, opAnd:
		return logical(n.op, left, right)
	case opEqual, opUnequal:
		if left.isUndefined() || right.isUndefined() {
			return undefined()
		}
		return boolValue(ev.equal(left, right) == (n.op == opEqual))
	case opJoin:
		return ev.join(left, right)
	case opAdd:
		if left.kind == kindString || right.kind == kindString {
			return ev.join(left, right)
		}
	}
	return ev.arithmetic(n.op, left, right)
}

// logical follows the tables of AND and OR: what isn't a Boolean, or a text that says one, makes the
// result Undefined whatever the other side is (developer guide, "Operators").
func logical(op operator, left, right value) value {
	x, ok := left.toBool()
	if !ok {
		return undefined()
	}
	y, ok := right.toBool()
	if !ok {
		return undefined()
	}
	if op == opAnd {
		return boolValue(x && y)
	}
	return boolValue(x || y)
}

func (ev *Evaluation) join(left, right value) value {
	x, ok := ev.toString(left)
	if !ok {
		return undefined()
	}
	y, ok := ev.toString(right)
	if !ok || !ev.room(len(x)+len(y)) {
		return undefined()
	}
	return stringValue(x + y)
}

// arithmetic computes and compares numbers. A text counts as the Decimal that it says, so that
// '5' / 2 has a fraction and 5 / 2 has none; + never comes here with a text.
func (ev *Evaluation) arithmetic(op operator, left, right value) value {
	x, ok := ev.toNumber(left)
	if !ok {
		return undefined()
	}
	y, ok := ev.toNumber(right)
	if !ok {
		return undefined()
	}
	if left.kind == kindString || right.kind == kindString {
		x.kind = kindDecimal
	}
	if !ev.spendOn(x, y) {
		return undefined()
	}
	switch op {
	case opLess:
		return boolValue(compareNumbers(x, y) < 0)
	case opLessEqual:
		return boolValue(compareNumbers(x, y) <= 0)
	case opGreater:
		return boolValue(compareNumbers(x, y) > 0)
	case opGreaterEqual:
		return boolValue(compareNumbers(x, y) >= 0)
	case opAdd, opSubtract:
		return addNumbers(x, y, op == opSubtract, ev.version)
	case opMultiply:
		return multiplyNumbers(x, y, ev.version)
	case opDivide:
		return divideNumbers(x, y, ev.version)
	case opRemainder:
		return remainderOf(x, y, ev.version)
	}
	return undefined()
}

// spendOn counts the steps of computing with two numbers.
func (ev *Evaluation) spendOn(x, y value) bool {
	if x.ref == nil && y.ref == nil && x.exp == 0 && y.exp == 0 {
		return ev.err == nil
	}
	return ev.spend(longNumber)
}

type notNode struct{ of node }

func (n *notNode) eval(ev *Evaluation, sc *scope) value {
	b, ok := n.of.eval(ev, sc).toBool()
	if !ok || !ev.spend(1) {
		return undefined()
	}
	return boolValue(!b)
}

type minusNode struct{ of node }

func (n *minusNode) eval(ev *Evaluation, sc *scope) value {
	v, ok := ev.toNumber(n.of.eval(ev, sc))
	if !ok || !ev.spend(1) {
		return undefined()
	}
	return negated(v, ev.version)
}

func negated(v value, version Version) value {
	zero := value{kind: v.kind, exp: v.exp}
	return addNumbers(zero, v, true, version)
}

// castNode is "cast(value AS type)".
type castNode struct {
	of node
	to kind
	// double says that the type is Double: Decimal of double precision.
	double bool
}

// eval follows the casting tables (developer guide, "cast()"): as the standard conversions, and
// numbers to and from Booleans.
func (n *castNode) eval(ev *Evaluation, sc *scope) value {
	v := n.of.eval(ev, sc)
	if !ev.spend(1) {
		return undefined()
	}
	switch n.to {
	case kindString:
		s, ok := ev.toString(v)
		if !ok {
			return undefined()
		}
		return stringValue(s)
	case kindBool:
		if v.isNumber() {
			return boolValue(signOf(v) != 0)
		}
		b, ok := v.toBool()
		if !ok {
			return undefined()
		}
		return boolValue(b)
	}
	if v.kind == kindBool {
		v = intValue(v.small)
		if n.to == kindDecimal && ev.version.first() {
			return value{kind: kindDecimal, small: v.small * 10, exp: -1}
		}
	}
	number, ok := ev.toNumber(v)
	if !ok {
		return undefined()
	}
	switch {
	case n.to == kindInt:
		return floorNumber(number)
	case n.double:
		return floatNumber(toFloat(number), ev.version)
	case ev.version.first():
		number.kind = kindDecimal
	}
	return number
}
