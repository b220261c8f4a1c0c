package rulesql

import (
	"math/big"
	"strings"
)

// kind is the type of a value. The zero kind is Undefined.
type kind uint8

const (
	kindUndefined kind = iota
	kindNull
	kindBool
	kindInt
	kindDecimal
	kindString
	kindArray
	kindObject
	kindBytes // the payload as it came, when it is no JSON: only encode() and the result know it
	kindRaw   // a member of the payload that nobody has looked into yet: its JSON text
)

// value is a value of the language. Values are shared and never changed; only a document fills
// in what it had left undecoded.
//
// A number is coef x 10^exp, where coef is ref.(*big.Int) if ref isn't nil, else small. An Int has
// exp 0. A number is in small whenever it fits, so that comparing is cheap.
type value struct {
	kind  kind
	plain bool  // of kindRaw: the text is what the encoder would write
	exp   int32 // of numbers
	small int64 // of numbers; 1 is true
	text  string
	ref   any // *big.Int, []value or *object
}

func undefined() value { return value{} }

func boolValue(b bool) value {
	if b {
		return value{kind: kindBool, small: 1}
	}
	return value{kind: kindBool}
}

func intValue(n int64) value { return value{kind: kindInt, small: n} }

func stringValue(s string) value { return value{kind: kindString, text: s} }

func arrayValue(items []value) value { return value{kind: kindArray, ref: items} }

func objectValue(o *object) value { return value{kind: kindObject, ref: o} }

func (v value) isUndefined() bool { return v.kind == kindUndefined }

func (v value) isNumber() bool { return v.kind == kindInt || v.kind == kindDecimal }

func (v value) isTrue() bool { return v.kind == kindBool && v.small == 1 }

func (v value) items() []value {
	items, _ := v.ref.([]value)
	return items
}

func (v value) object() *object {
	o, _ := v.ref.(*object)
	return o
}

// member is one key of an object with its value.
type member struct {
	key string
	val value
}

// object keeps its members in the order in which they came. Objects of more than
// smallObject members have an index.
type object struct {
	members []member
	index   map[string]int
}

const smallObject = 32

func (o *object) find(key string) int {
	if o.index != nil {
		i, ok := o.index[key]
		if !ok {
			return -1
		}
		return i
	}
	for i := range o.members {
		if o.members[i].key == key {
			return i
		}
	}
	return -1
}

// get gives the value of a key, Undefined without it.
func (o *object) get(key string) value {
	i := o.find(key)
	if i < 0 {
		return undefined()
	}
	return o.members[i].val
}

// set gives a key its value: in its old place if it is there, else at the end.
func (o *object) set(key string, v value) {
	i := o.find(key)
	if i >= 0 {
		o.members[i].val = v
		return
	}
	o.members = append(o.members, member{key, v})
	if o.index != nil {
		o.index[key] = len(o.members) - 1
		return
	}
	o.reindex()
}

func (o *object) reindex() {
	if len(o.members) <= smallObject {
		return
	}
	o.index = make(map[string]int, 2*len(o.members))
	for i := range o.members {
		o.index[o.members[i].key] = i
	}
}

// clone copies an object, with room for some more members.
func (o *object) clone(more int) object {
	c := object{members: append(make([]member, 0, len(o.members)+more), o.members...)}
	c.reindex()
	return c
}

// toBool is the standard conversion to Boolean; ok is false for Undefined.
func (v value) toBool() (b, ok bool) {
	switch v.kind {
	case kindBool:
		return v.small == 1, true
	case kindString:
		if strings.EqualFold(v.text, "true") {
			return true, true
		}
		if strings.EqualFold(v.text, "false") {
			return false, true
		}
	}
	return false, false
}

// toNumber is the standard conversion to Decimal of numbers and strings; ok is false for all
// that has none.
func (ev *Evaluation) toNumber(v value) (value, bool) {
	switch v.kind {
	case kindInt, kindDecimal:
		return v, true
	case kindString:
		if len(v.text) > MaxPatternBytes || !ev.spend(len(v.text)/textCharging) {
			return undefined(), false
		}
		n := ev.number(v.text)
		return n, n.isNumber()
	}
	return undefined(), false
}

// toLong converts to Int as functions do with their arguments: rounded down. The result is cut to
// plus or minus 2^53, as whoever calls it has a smaller range yet.
func (ev *Evaluation) toLong(v value) (int64, bool) {
	n, ok := ev.toNumber(v)
	if !ok {
		return 0, false
	}
	n = floorNumber(n)
	const most = 1 << 53
	if n.ref == nil && n.exp == 0 {
		return min(max(n.small, -most), most), true
	}
	if signOf(n) < 0 {
		return -most, true
	}
	return most, true
}

// toInt is toLong for positions and lengths, cut to plus or minus 2^30.
func (ev *Evaluation) toInt(v value) (int, bool) {
	n, ok := ev.toLong(v)
	const most = 1 << 30
	return int(min(max(n, -most), most)), ok
}

// toString is the standard conversion to String; ok is false for Null and Undefined.
func (ev *Evaluation) toString(v value) (string, bool) {
	switch v.kind {
	case kindString:
		return v.text, true
	case kindBool:
		if v.small == 1 {
			return "true", true
		}
		return "false", true
	case kindInt, kindDecimal:
		return ev.keep(string(appendNumber(nil, v))), ev.err == nil
	case kindArray, kindObject:
		text, ok := ev.encode(nil, v)
		return ev.keep(string(text)), ok && ev.err == nil
	}
	return "", false
}

// equal compares as the = operator does; neither value is Undefined.
func (ev *Evaluation) equal(a, b value) bool {
	if !ev.spend(1) {
		return false
	}
	if a.isNumber() && b.isNumber() {
		return compareNumbers(a, b) == 0
	}
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case kindNull, kindUndefined:
		return true
	case kindBool:
		return a.small == b.small
	case kindString:
		return len(a.text) == len(b.text) && ev.spend(len(a.text)/textCharging) && a.text == b.text
	case kindArray:
		x, y := a.items(), b.items()
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			if !ev.equal(x[i], y[i]) {
				return false
			}
		}
		return true
	case kindObject:
		return ev.equalObjects(a.object(), b.object())
	}
	return false
}

// equalObjects compares without regard to order. Members that are Undefined count as missing.
func (ev *Evaluation) equalObjects(x, y *object) bool {
	if x.size() != y.size() {
		return false
	}
	for i := range x.members {
		val := x.members[i].val
		if val.isUndefined() {
			continue
		}
		other := y.get(x.members[i].key)
		if other.isUndefined() || !ev.equal(ev.look(val), ev.look(other)) {
			return false
		}
	}
	return true
}

func (o *object) size() int {
	n := 0
	for i := range o.members {
		if !o.members[i].val.isUndefined() {
			n++
		}
	}
	return n
}

func bigOf(v value) *big.Int {
	if n, ok := v.ref.(*big.Int); ok {
		return n
	}
	return big.NewInt(v.small)
}
