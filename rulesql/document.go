package rulesql

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// document reads JSON (RFC 8259). The members of the payload's outermost object are only
// scanned; ev.look decodes one when an expression asks for it, and one that nobody asks for is
// copied to the result as it stands.
//
// It is written out here, and not encoding/json, because values must keep the order of members
// and the digits of numbers, and because most members of most messages are never looked at.
type document struct {
	text    string
	pos     int
	version Version
	plain   bool // since it was set: only what the encoder would write the same way
}

// parsePayload reads a whole payload; members of an outermost object stay kindRaw. ok is false if
// it isn't JSON.
func parsePayload(payload []byte, v Version) (root value, ok bool) {
	if !utf8.Valid(payload) {
		return undefined(), false
	}
	d := document{text: string(payload), version: v}
	d.space()
	if d.pos < len(d.text) && d.text[d.pos] == '{' {
		root, ok = d.outermost()
	} else {
		root, ok = d.value(1)
	}
	if !ok {
		return undefined(), false
	}
	d.space()
	return root, d.pos == len(d.text)
}

// parseJSON reads a JSON document of which everything is wanted.
func parseJSON(text string, v Version) (value, bool) {
	if !utf8.ValidString(text) {
		return undefined(), false
	}
	d := document{text: text, version: v}
	d.space()
	root, ok := d.value(1)
	if !ok {
		return undefined(), false
	}
	d.space()
	return root, d.pos == len(d.text)
}

// look decodes a member that was only scanned.
func (ev *Evaluation) look(v value) value {
	if v.kind != kindRaw {
		return v
	}
	d := document{text: v.text, version: ev.version}
	decoded, ok := d.value(2)
	if !ok {
		return undefined()
	}
	return decoded
}

func (d *document) space() {
	for d.pos < len(d.text) {
		switch d.text[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
			d.plain = false
		default:
			return
		}
	}
}

// next takes c if it is there.
func (d *document) next(c byte) bool {
	if d.pos < len(d.text) && d.text[d.pos] == c {
		d.pos++
		return true
	}
	return false
}

func (d *document) word(w string) bool {
	if strings.HasPrefix(d.text[d.pos:], w) {
		d.pos += len(w)
		return true
	}
	return false
}

func (d *document) outermost() (value, bool) {
	// A member takes some twenty bytes.
	o := &object{members: make([]member, 0, min(max(len(d.text)/20, 4), smallObject))}
	ok := d.members(func(key string) bool {
		start := d.pos
		d.plain = true
		scanned := d.skip(2)
		o.set(key, value{kind: kindRaw, plain: d.plain, text: d.text[start:d.pos]})
		return scanned
	})
	return objectValue(o), ok
}

// members reads "{...}"; each member's value is read by take.
func (d *document) members(take func(key string) bool) bool {
	d.pos++
	d.space()
	if d.next('}') {
		return true
	}
	for {
		key, ok := d.string()
		if !ok {
			return false
		}
		d.space()
		if !d.next(':') {
			return false
		}
		d.space()
		if !take(key) {
			return false
		}
		d.space()
		if d.next('}') {
			return true
		}
		if !d.next(',') {
			return false
		}
		d.space()
	}
}

func (d *document) value(depth int) (value, bool) {
	if depth > MaxPayloadDepth || d.pos >= len(d.text) {
		return undefined(), false
	}
	switch c := d.text[d.pos]; {
	case c == '{':
		o := &object{}
		ok := d.members(func(key string) bool {
			v, ok := d.value(depth + 1)
			o.set(key, v)
			return ok
		})
		return objectValue(o), ok
	case c == '[':
		return d.array(depth)
	case c == '"':
		s, ok := d.string()
		return stringValue(s), ok
	case c == '-' || c >= '0' && c <= '9':
		text, ok := d.number()
		return parseNumber(text, d.version), ok
	case c == 't':
		return boolValue(true), d.word("true")
	case c == 'f':
		return boolValue(false), d.word("false")
	case c == 'n':
		return value{kind: kindNull}, d.word("null")
	}
	return undefined(), false
}

func (d *document) array(depth int) (value, bool) {
	items := []value{}
	d.pos++
	d.space()
	if d.next(']') {
		return arrayValue(items), true
	}
	for {
		v, ok := d.value(depth + 1)
		if !ok {
			return undefined(), false
		}
		items = append(items, v)
		d.space()
		if d.next(']') {
			return arrayValue(items), true
		}
		if !d.next(',') {
			return undefined(), false
		}
		d.space()
	}
}

// skip reads a value without making it.
func (d *document) skip(depth int) bool {
	if depth > MaxPayloadDepth || d.pos >= len(d.text) {
		return false
	}
	switch c := d.text[d.pos]; {
	case c == '{':
		return d.skipList('}', depth, true)
	case c == '[':
		return d.skipList(']', depth, false)
	case c == '"':
		return d.skipString()
	case c == '-' || c >= '0' && c <= '9':
		text, ok := d.number()
		if ok && !plainNumber(text, d.version) {
			d.plain = false
		}
		return ok
	case c == 't':
		return d.word("true")
	case c == 'f':
		return d.word("false")
	case c == 'n':
		return d.word("null")
	}
	return false
}

func (d *document) skipList(end byte, depth int, keyed bool) bool {
	d.pos++
	d.space()
	if d.next(end) {
		return true
	}
	var keys [12]string
	for n := 0; ; n++ {
		if keyed {
			start := d.pos
			if !d.skipString() {
				return false
			}
			// Of a key that is there twice the last value counts, which decoding finds out.
			if n >= len(keys) || slices.Contains(keys[:n], d.text[start:d.pos]) {
				d.plain = false
			} else {
				keys[n] = d.text[start:d.pos]
			}
			d.space()
			if !d.next(':') {
				return false
			}
			d.space()
		}
		if !d.skip(depth + 1) {
			return false
		}
		d.space()
		if d.next(end) {
			return true
		}
		if !d.next(',') {
			return false
		}
		d.space()
	}
}

// number takes the text of a number: -?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?
func (d *document) number() (string, bool) {
	start := d.pos
	d.next('-')
	n := leadingDigits(d.text[d.pos:])
	if n == 0 || n > 1 && d.text[d.pos] == '0' {
		return "", false
	}
	d.pos += n
	if d.next('.') {
		n = leadingDigits(d.text[d.pos:])
		if n == 0 {
			return "", false
		}
		d.pos += n
	}
	if d.next('e') || d.next('E') {
		if !d.next('+') {
			d.next('-')
		}
		n = leadingDigits(d.text[d.pos:])
		if n == 0 {
			return "", false
		}
		d.pos += n
	}
	return d.text[start:d.pos], true
}

// plainNumber says that a number of a document is written as appendNumber writes it.
func plainNumber(text string, v Version) bool {
	unsigned, negative := strings.CutPrefix(text, "-")
	whole, fraction, decimal := strings.Cut(unsigned, ".")
	if len(whole)+len(fraction) > 18 || leadingDigits(whole) != len(whole) {
		return false
	}
	if !decimal {
		return !negative || whole != "0"
	}
	if leadingDigits(fraction) != len(fraction) || len(fraction) > 6 {
		return false
	}
	if strings.Trim(fraction, "0") != "" {
		return true
	}
	return v.first() && whole != "0"
}

func (d *document) skipString() bool {
	if !d.next('"') {
		return false
	}
	for d.pos < len(d.text) {
		c := d.text[d.pos]
		d.pos++
		switch {
		case c == '"':
			return true
		case c < ' ':
			return false
		case c != '\\':
			continue
		}
		d.plain = false
		if d.pos >= len(d.text) {
			return false
		}
		c = d.text[d.pos]
		d.pos++
		if c == 'u' {
			_, ok := d.hex()
			if !ok {
				return false
			}
			continue
		}
		if strings.IndexByte(`"\/bfnrt`, c) < 0 {
			return false
		}
	}
	return false
}

func (d *document) hex() (rune, bool) {
	if d.pos+4 > len(d.text) {
		return 0, false
	}
	n, err := strconv.ParseUint(d.text[d.pos:d.pos+4], 16, 16)
	if err != nil {
		return 0, false
	}
	d.pos += 4
	return rune(n), true
}

// string takes a string; without escapes it is a part of the text.
func (d *document) string() (string, bool) {
	start := d.pos + 1
	plain := d.plain
	d.plain = true
	ok := d.skipString()
	escaped := !d.plain
	d.plain = plain && !escaped
	if !ok {
		return "", false
	}
	raw := d.text[start : d.pos-1]
	if !escaped {
		return raw, true
	}
	return unescape(raw), true
}

// unescape resolves the escapes of a string that skipString accepted. Halves of surrogate pairs
// without their other half become U+FFFD.
func unescape(raw string) string {
	var b strings.Builder
	b.Grow(len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			b.WriteByte(raw[i])
			continue
		}
		i++
		switch raw[i] {
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'u':
			r := hexRune(raw[i+1 : i+5])
			i += 4
			if utf16.IsSurrogate(r) {
				pair := rune(utf8.RuneError)
				if strings.HasPrefix(raw[i+1:], `\u`) {
					pair = utf16.DecodeRune(r, hexRune(raw[i+3:i+7]))
				}
				if pair != utf8.RuneError {
					i += 6
				}
				r = pair
			}
			b.WriteRune(r)
		default:
			b.WriteByte(raw[i])
		}
	}
	return b.String()
}

func hexRune(s string) rune {
	n, err := strconv.ParseUint(s, 16, 16)
	if err != nil {
		return utf8.RuneError
	}
	return rune(n)
}
