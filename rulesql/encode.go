package rulesql

// encode appends v as JSON, without spaces, members in order, Undefined members and items left
// out. ok is false if there is nothing to write, or when a limit was met.
func (ev *Evaluation) encode(dst []byte, v value) ([]byte, bool) {
	start := len(dst)
	dst, ok := ev.appendJSON(dst, v, start)
	return dst, ok && ev.err == nil
}

func (ev *Evaluation) appendJSON(dst []byte, v value, start int) ([]byte, bool) {
	if !ev.spend(1 + len(v.text)/textCharging) {
		return dst, false
	}
	if len(dst)-start > MaxResultBytes {
		ev.exceed("a result is longer than the %d bytes that a rule may make", MaxResultBytes)
		return dst, false
	}
	switch v.kind {
	case kindNull:
		return append(dst, "null"...), true
	case kindBool:
		if v.small == 1 {
			return append(dst, "true"...), true
		}
		return append(dst, "false"...), true
	case kindInt, kindDecimal:
		return appendNumber(dst, v), true
	case kindString:
		return appendQuoted(dst, v.text), true
	case kindRaw:
		if v.plain {
			return append(dst, v.text...), true
		}
		return ev.appendJSON(dst, ev.look(v), start)
	case kindArray:
		return ev.appendArray(dst, v.items(), start), true
	case kindObject:
		return ev.appendObject(dst, v.object(), start), true
	}
	return dst, false
}

func (ev *Evaluation) appendObject(dst []byte, o *object, start int) []byte {
	dst = append(dst, '{')
	first := true
	for i := range o.members {
		before := len(dst)
		if !first {
			dst = append(dst, ',')
		}
		dst = append(appendQuoted(dst, o.members[i].key), ':')
		var ok bool
		dst, ok = ev.appendJSON(dst, o.members[i].val, start)
		if !ok {
			dst = dst[:before]
			continue
		}
		first = false
	}
	return append(dst, '}')
}

func (ev *Evaluation) appendArray(dst []byte, items []value, start int) []byte {
	dst = append(dst, '[')
	first := true
	for i := range items {
		before := len(dst)
		if !first {
			dst = append(dst, ',')
		}
		var ok bool
		dst, ok = ev.appendJSON(dst, items[i], start)
		if !ok {
			dst = dst[:before]
			continue
		}
		first = false
	}
	return append(dst, ']')
}

const hexDigits = "0123456789ABCDEF"

// appendQuoted escapes what JSON demands and nothing else.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}
