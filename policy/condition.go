package policy

import (
	"bytes"
	"encoding/base64"
	"net/netip"
	"strings"
	"time"
)

// condition is one operator with one key and its values.
type condition struct {
	operator operator
	key      keyRef
	name     string // the operator as written
	values   []*condValue
}

// condValue is one value of a condition. The converted forms are set for constants.
type condValue struct {
	source   string
	pattern  *pattern
	constant bool
	text     string
	time     time.Time
	prefix   netip.Prefix
	arn      []*pattern
}

func (c *condition) sources() []string {
	out := make([]string, len(c.values))
	for i, v := range c.values {
		out[i] = v.source
	}
	return out
}

// holds evaluates the condition (IAM user guide, "Condition operators" and
// "Creating a condition that tests multiple key values"). A key without a value
// and a key with an empty set of values count both as absent.
func (c *condition) holds(e *eval, effect Effect) bool {
	var one [1]string
	values := e.values(&c.key, &one, c.needsText())
	if c.operator.kind == opNull {
		return c.holdsNull(e, len(values) == 0)
	}
	if len(values) == 0 {
		switch {
		case c.operator.ifExists || c.operator.quant == quantAll:
			return true
		case c.operator.quant == quantAny:
			return false
		}
		return c.operator.negated && c.trusts(e, effect)
	}
	if c.operator.negated && !c.trusts(e, effect) {
		return false
	}
	any, all := false, true
	for _, value := range values {
		ok := c.matchesAny(e, value) != c.operator.negated
		any = any || ok
		all = all && ok
	}
	if c.operator.quant == quantAll || c.operator.quant == quantNone && c.operator.negated {
		return all
	}
	return any
}

// trusts is false when a negated operator of an Allow compares with a variable
// that has no value: its text differs from everything, which would grant.
func (c *condition) trusts(e *eval, effect Effect) bool {
	if effect == Deny {
		return true
	}
	for _, v := range c.values {
		if !v.pattern.resolved(e) {
			return false
		}
	}
	return true
}

func (c *condition) holdsNull(e *eval, absent bool) bool {
	for _, v := range c.values {
		want, ok := parseBool(v.resolve(e))
		if ok && want == absent {
			return true
		}
	}
	return false
}

// needsText is false where the time or the address is compared as such.
func (c *condition) needsText() bool {
	return c.operator.kind != opDate && c.operator.kind != opNull
}

func (v *condValue) resolve(e *eval) string {
	if v.constant {
		return v.text
	}
	return v.pattern.expand(e)
}

// matchesAny reports whether one value of the key matches any value of the policy.
func (c *condition) matchesAny(e *eval, value string) bool {
	for _, v := range c.values {
		if c.matches(e, v, value) {
			return true
		}
	}
	return false
}

func (c *condition) matches(e *eval, v *condValue, value string) bool {
	switch c.operator.kind {
	case opString:
		if v.constant {
			return v.text == value
		}
		return v.pattern.match(e, &subject{b: value})
	case opStringLike:
		return v.pattern.match(e, &subject{b: value})
	case opStringFold:
		return strings.EqualFold(v.resolve(e), value)
	case opNumeric:
		return c.matchesNumber(v.resolve(e), value)
	case opDate:
		return c.matchesDate(e, v, value)
	case opBool:
		want, ok := parseBool(v.resolve(e))
		got, known := parseBool(value)
		return ok && known && want == got
	case opBinary:
		want, err := base64.StdEncoding.DecodeString(v.resolve(e))
		got, err2 := base64.StdEncoding.DecodeString(value)
		return err == nil && err2 == nil && bytes.Equal(want, got)
	case opIP:
		return c.matchesIP(e, v, value)
	case opARN:
		return v.matchesARN(e, value)
	}
	return false
}

func (r relation) holds(comparison int) bool {
	switch r {
	case relLess:
		return comparison < 0
	case relLessEqual:
		return comparison <= 0
	case relGreater:
		return comparison > 0
	case relGreaterEqual:
		return comparison >= 0
	}
	return comparison == 0
}

func (c *condition) matchesNumber(want, got string) bool {
	w, ok := parseDecimal(want)
	g, known := parseDecimal(got)
	return ok && known && c.operator.relation.holds(g.compare(w))
}

func (c *condition) matchesDate(e *eval, v *condValue, value string) bool {
	want, ok := v.time, true
	if !v.constant {
		want, ok = parseDate(v.pattern.expand(e))
	}
	var got time.Time
	known := true
	if c.key.id == keyCurrentTime || c.key.id == keyEpochTime {
		got = e.now()
	} else {
		got, known = parseDate(value)
	}
	return ok && known && c.operator.relation.holds(got.Compare(want))
}

func (c *condition) matchesIP(e *eval, v *condValue, value string) bool {
	want, ok := v.prefix, true
	if !v.constant {
		want, ok = parseCIDR(v.pattern.expand(e))
	}
	var got netip.Addr
	if c.key.id == keySourceIP {
		got = e.vars.sourceIP
	} else {
		address, err := netip.ParseAddr(value)
		if err != nil {
			return false
		}
		got = address.Unmap()
	}
	return ok && want.Contains(got)
}

// matchesARN compares the six parts one by one. ArnEquals and ArnLike are the same.
func (v *condValue) matchesARN(e *eval, value string) bool {
	if len(v.arn) == 1 {
		return v.arn[0].match(e, &subject{b: value})
	}
	for i, p := range v.arn {
		part := value
		if i < len(v.arn)-1 {
			var found bool
			part, value, found = strings.Cut(value, ":")
			if !found {
				return false
			}
		}
		if !p.match(e, &subject{b: part}) {
			return false
		}
	}
	return true
}
