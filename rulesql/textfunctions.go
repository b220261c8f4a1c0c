package rulesql

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// textFunctions take texts; other values are converted, Null and Undefined make the result
// Undefined. Positions count characters (Unicode code points) from 0.
var textFunctions = []function{
	{name: "lower", least: 1, most: 1, call: onText(strings.ToLower)},
	{name: "upper", least: 1, most: 1, call: onText(strings.ToUpper)},
	{name: "trim", least: 1, most: 1, call: onText(strings.TrimSpace)},
	{name: "ltrim", least: 1, most: 1, call: onText(func(s string) string { return strings.TrimLeft(s, " \t\r\n") })},
	{name: "rtrim", least: 1, most: 1, call: onText(func(s string) string { return strings.TrimRight(s, " \t\r\n") })},
	{name: "length", least: 1, most: 1, second: true, call: measured(utf8.RuneCountInString)},
	{name: "numbytes", least: 1, most: 1, second: true, call: measured(func(s string) int { return len(s) })},
	{name: "startswith", least: 2, most: 2, call: compared(strings.HasPrefix)},
	{name: "endswith", least: 2, most: 2, call: compared(strings.HasSuffix)},
	{name: "indexof", least: 2, most: 2, second: true, call: indexOf},
	{name: "lpad", least: 2, most: 2, call: padded(true)},
	{name: "rpad", least: 2, most: 2, call: padded(false)},
	{name: "replace", least: 3, most: 3, call: replaceText},
	{name: "substring", least: 2, most: 3, call: substring},
	{name: "concat", least: 0, most: anyNumber, call: concat},
	{name: "chr", least: 1, most: 1, call: character},
	{name: "regexp_matches", least: 2, most: 2, call: regexpMatches, prepare: preparePattern},
	{name: "regexp_substr", least: 2, most: 2, call: regexpSubstr, prepare: preparePattern},
	{name: "regexp_replace", least: 3, most: 3, call: regexpReplace, prepare: preparePattern},
	{name: "md2", least: 1, most: 1, call: hashed(func(b []byte) []byte { h := md2Sum(b); return h[:] })},
	{name: "md5", least: 1, most: 1, call: hashed(func(b []byte) []byte { h := md5.Sum(b); return h[:] })},
	{name: "sha1", least: 1, most: 1, call: hashed(func(b []byte) []byte { h := sha1.Sum(b); return h[:] })},
	{name: "sha224", least: 1, most: 1, call: hashed(func(b []byte) []byte { h := sha256.Sum224(b); return h[:] })},
	{name: "sha256", least: 1, most: 1, call: hashed(func(b []byte) []byte { h := sha256.Sum256(b); return h[:] })},
	{name: "sha384", least: 1, most: 1, call: hashed(func(b []byte) []byte { h := sha512.Sum384(b); return h[:] })},
	{name: "sha512", least: 1, most: 1, call: hashed(func(b []byte) []byte { h := sha512.Sum512(b); return h[:] })},
}

type callFunction = func(ev *Evaluation, n *callNode, args []value) value

func onText(change func(string) string) callFunction {
	return func(ev *Evaluation, _ *callNode, args []value) value {
		s, ok := ev.toString(args[0])
		if !ok || !ev.room(len(s)) {
			return undefined()
		}
		return stringValue(ev.keep(change(s)))
	}
}

func measured(measure func(string) int) callFunction {
	return func(ev *Evaluation, _ *callNode, args []value) value {
		s, ok := ev.toString(args[0])
		if !ok || !ev.spend(len(s)/textCharging) {
			return undefined()
		}
		return intValue(int64(measure(s)))
	}
}

// twoTexts converts the first two arguments.
func (ev *Evaluation) twoTexts(args []value) (a, b string, ok bool) {
	a, ok = ev.toString(args[0])
	if !ok {
		return "", "", false
	}
	b, ok = ev.toString(args[1])
	return a, b, ok && ev.spend((len(a)+len(b))/textCharging)
}

func compared(compare func(a, b string) bool) callFunction {
	return func(ev *Evaluation, _ *callNode, args []value) value {
		a, b, ok := ev.twoTexts(args)
		if !ok {
			return undefined()
		}
		return boolValue(compare(a, b))
	}
}

// indexOf gives -1 where the second text isn't in the first.
func indexOf(ev *Evaluation, _ *callNode, args []value) value {
	a, b, ok := ev.twoTexts(args)
	if !ok {
		return undefined()
	}
	i := strings.Index(a, b)
	if i < 0 {
		return intValue(-1)
	}
	return intValue(int64(utf8.RuneCountInString(a[:i])))
}

func padded(left bool) callFunction {
	const most = 1000
	return func(ev *Evaluation, _ *callNode, args []value) value {
		s, ok := ev.toString(args[0])
		if !ok {
			return undefined()
		}
		n, ok := ev.toInt(args[1])
		if !ok {
			return undefined()
		}
		n = min(max(n, 0), most)
		if !ev.room(len(s) + n) {
			return undefined()
		}
		if left {
			return stringValue(strings.Repeat(" ", n) + s)
		}
		return stringValue(s + strings.Repeat(" ", n))
	}
}

// replaceText leaves the text alone where there is nothing to look for.
func replaceText(ev *Evaluation, _ *callNode, args []value) value {
	s, old, ok := ev.twoTexts(args)
	if !ok {
		return undefined()
	}
	with, ok := ev.toString(args[2])
	if !ok {
		return undefined()
	}
	if old == "" {
		return stringValue(s)
	}
	count := strings.Count(s, old)
	if !ev.room(len(s) + count*(len(with)-len(old))) {
		return undefined()
	}
	return stringValue(strings.Replace(s, old, with, count))
}

func substring(ev *Evaluation, _ *callNode, args []value) value {
	s, ok := ev.toString(args[0])
	if !ok || !ev.spend(len(s)/textCharging) {
		return undefined()
	}
	from, ok := ev.toInt(args[1])
	if !ok {
		return undefined()
	}
	to := len(s)
	if len(args) == 3 {
		to, ok = ev.toInt(args[2])
		if !ok {
			return undefined()
		}
	}
	from = byteOffset(s, from)
	return stringValue(s[from:max(byteOffset(s, to), from)])
}

// byteOffset gives where character n starts, or the end it is beyond.
func byteOffset(s string, n int) int {
	if n <= 0 {
		return 0
	}
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

// concat joins arrays and their like, else texts.
func concat(ev *Evaluation, _ *callNode, args []value) value {
	switch len(args) {
	case 0:
		return undefined()
	case 1:
		return args[0]
	}
	array, text := false, false
	for _, a := range args {
		array = array || a.kind == kindArray
		text = text || a.kind == kindString
	}
	if array {
		return concatArrays(ev, args)
	}
	if !text {
		return undefined()
	}
	parts := make([]string, len(args))
	size := 0
	for i, a := range args {
		s, ok := ev.toString(a)
		if !ok {
			return undefined()
		}
		parts[i] = s
		size += len(s)
	}
	if !ev.room(size) {
		return undefined()
	}
	return stringValue(strings.Join(parts, ""))
}

func concatArrays(ev *Evaluation, args []value) value {
	out := []value{}
	for _, a := range args {
		switch a.kind {
		case kindUndefined:
		case kindArray:
			if !ev.spend(2 * len(a.items())) {
				return undefined()
			}
			out = append(out, a.items()...)
		default:
			out = append(out, a)
		}
	}
	return arrayValue(out)
}

// character is for ASCII.
func character(ev *Evaluation, _ *callNode, args []value) value {
	n, ok := ev.toInt(args[0])
	if !ok || n < 0 || n > 127 {
		return undefined()
	}
	return stringValue(string(rune(n)))
}

func hashed(sum func([]byte) []byte) callFunction {
	return func(ev *Evaluation, _ *callNode, args []value) value {
		s, ok := ev.toString(args[0])
		if !ok || !ev.room(len(s)) {
			return undefined()
		}
		return stringValue(hex.EncodeToString(sum([]byte(s))))
	}
}
