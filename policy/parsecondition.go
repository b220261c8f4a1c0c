package policy

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

func (p *parser) conditions(st *statement, n *node, path string) *SyntaxError {
	if n.kind != nodeObject {
		return p.fail(n, path, `write {"StringEquals": {"key": "value"}}`, "a condition is an object, not %s", n.kind)
	}
	total := 0
	for i := range n.members {
		m := &n.members[i]
		opPath := path + "." + m.name
		op, hint, ok := parseOperator(m.name)
		if !ok {
			return syntaxErrorAt(p.text, m.offset, opPath, hint, "unknown condition operator %q", m.name)
		}
		if m.value.kind != nodeObject {
			return p.fail(&m.value, opPath, `write {"key": "value"}`, "expected an object of condition keys, not %s", m.value.kind)
		}
		if len(m.value.members) == 0 {
			return p.fail(&m.value, opPath, "add a key, or remove the operator", "operator without condition keys")
		}
		total += len(m.value.members)
		if total > maxKeys {
			return p.fail(n, path, "split the statement", "more than %d condition keys", maxKeys)
		}
		err := p.conditionKeys(st, &m.value, op, m.name, opPath)
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) conditionKeys(st *statement, n *node, op operator, name, path string) *SyntaxError {
	seen := map[string]bool{}
	for i := range n.members {
		m := &n.members[i]
		keyPath := path + "." + m.name
		if !strings.Contains(m.name, ":") || len(m.name) > maxVariable {
			return syntaxErrorAt(p.text, m.offset, keyPath, "write prefix:Name, for example iot:Connection.Thing.IsAttached", "%q is not a condition key", m.name)
		}
		key := parseKey(m.name)
		// Keys ignore case, but not the name of a thing attribute in brackets.
		identity := key.name
		if key.id == keyThingAttribute {
			identity = "[" + key.name
		}
		if seen[identity] {
			return syntaxErrorAt(p.text, m.offset, keyPath, "merge the two into one", "condition key %q appears twice", m.name)
		}
		seen[identity] = true
		c := &condition{operator: op, key: key, name: name}
		err := p.conditionValues(c, &m.value, keyPath)
		if err != nil {
			return err
		}
		st.conditions = append(st.conditions, c)
		st.source.Conditions = append(st.source.Conditions, Condition{Operator: name, Key: m.name, Values: c.sources()})
	}
	return nil
}

func (p *parser) conditionValues(c *condition, n *node, path string) *SyntaxError {
	items := []node{*n}
	if n.kind == nodeArray {
		items = n.items
	}
	if len(items) > maxList {
		return p.fail(n, path, "use wildcards with StringLike", "more than %d values", maxList)
	}
	for i := range items {
		item, itemPath := &items[i], path
		if n.kind == nodeArray {
			itemPath = fmt.Sprintf("%s[%d]", path, i)
		}
		if item.kind > nodeBool {
			return p.fail(item, itemPath, "", "expected a string, a number or a boolean, not %s", item.kind)
		}
		v, problem, hint := p.conditionValue(c.operator.kind, item.text)
		if problem != "" {
			return p.fail(item, itemPath, hint, "%s", problem)
		}
		c.values = append(c.values, v)
	}
	return nil
}

// conditionValue compiles one value; a value without variables is checked and converted now.
func (p *parser) conditionValue(kind operatorKind, text string) (*condValue, string, string) {
	mode := patternMode{variables: p.mode.variables, wildcards: kind == opStringLike}
	pat, err := parsePattern(text, mode)
	if err != nil {
		return nil, err.Error(), variableHint
	}
	v := &condValue{source: text, pattern: pat, constant: !pat.hasVars}
	if kind == opARN {
		return v, p.arnValue(v), "write arn:aws:iot:REGION:ACCOUNT:TYPE/NAME, with wildcards if wanted"
	}
	// A pattern with wildcards has no one text; StringLike only ever matches.
	if !v.constant || kind == opStringLike {
		return v, "", ""
	}
	v.text = pat.expand(nil)
	problem, hint := v.convert(kind)
	return v, problem, hint
}

// convert prepares a constant for comparing, or says what is wrong with it.
func (v *condValue) convert(kind operatorKind) (string, string) {
	ok := true
	hint := ""
	switch kind {
	case opNumeric:
		_, ok = parseDecimal(v.text)
		hint = "write digits, with an optional sign and decimal point"
	case opDate:
		v.time, ok = parseDate(v.text)
		hint = "write 2026-01-31T12:00:00Z, or seconds since 1970"
	case opBool, opNull:
		_, ok = parseBool(v.text)
		hint = "write true or false"
	case opBinary:
		_, err := base64.StdEncoding.DecodeString(v.text)
		ok, hint = err == nil, "write standard base64"
	case opIP:
		v.prefix, ok = parseCIDR(v.text)
		hint = "write an address such as 192.0.2.1, or a range such as 192.0.2.0/24"
	}
	if !ok {
		return fmt.Sprintf("malformed value %q", v.text), hint
	}
	return "", ""
}

// arnValue compiles the six parts one by one, so that no wildcard reaches over a colon.
func (p *parser) arnValue(v *condValue) string {
	parts := splitARN(v.source)
	if v.source == "*" || len(parts) != 6 {
		if v.source != "*" && !v.pattern.hasVars {
			return fmt.Sprintf("%q is not an ARN", v.source)
		}
		parts = []string{v.source}
	}
	for _, part := range parts {
		pat, err := parsePattern(part, p.mode)
		if err != nil {
			return err.Error()
		}
		v.arn = append(v.arn, pat)
	}
	return ""
}

func parseBool(s string) (value, ok bool) {
	switch {
	case strings.EqualFold(s, "true"):
		return true, true
	case strings.EqualFold(s, "false"):
		return false, true
	}
	return false, false
}

// parseCIDR reads an address or a range; IPv4 in IPv6 form counts as IPv4.
func parseCIDR(s string) (netip.Prefix, bool) {
	if strings.IndexByte(s, '/') < 0 {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, false
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, false
	}
	return prefix.Masked(), true
}

// parseDate reads the W3C profile of ISO 8601, or seconds since 1970. Four
// digits are a year.
func parseDate(s string) (time.Time, bool) {
	for _, layout := range [...]string{"2006-01-02T15:04:05Z07:00", "2006-01-02", "2006-01", "2006", "2006-01-02T15:04Z07:00"} {
		t, err := time.Parse(layout, s)
		if err == nil {
			return t, true
		}
	}
	d, ok := parseDecimal(s)
	if !ok || len(d.whole) > 15 {
		return time.Time{}, false
	}
	seconds := int64(0)
	for _, c := range []byte(d.whole) {
		seconds = seconds*10 + int64(c-'0')
	}
	if d.negative {
		seconds = -seconds
	}
	return time.Unix(seconds, 0), true
}

// decimal is a number as its digits, so that long integers compare exactly.
type decimal struct {
	negative bool
	whole    string // without leading zeros
	fraction string // without trailing zeros
}

func parseDecimal(s string) (decimal, bool) {
	var d decimal
	if s != "" && (s[0] == '-' || s[0] == '+') {
		d.negative = s[0] == '-'
		s = s[1:]
	}
	whole, fraction, dot := strings.Cut(s, ".")
	if whole == "" || dot && fraction == "" || strings.Trim(whole, "0123456789") != "" || strings.Trim(fraction, "0123456789") != "" {
		return decimal{}, false
	}
	d.whole = strings.TrimLeft(whole, "0")
	d.fraction = strings.TrimRight(fraction, "0")
	d.negative = d.negative && (d.whole != "" || d.fraction != "")
	return d, true
}

func (d decimal) compare(o decimal) int {
	if d.negative != o.negative {
		if d.negative {
			return -1
		}
		return 1
	}
	c := len(d.whole) - len(o.whole)
	if c == 0 {
		c = strings.Compare(d.whole, o.whole)
	}
	if c == 0 {
		c = strings.Compare(d.fraction, o.fraction)
	}
	if d.negative {
		return -c
	}
	return c
}
