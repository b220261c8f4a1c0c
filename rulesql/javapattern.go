package rulesql

import (
	"strconv"
	"strings"
)

// translatePattern writes a pattern of Java's (java.util.regex.Pattern) in Go's syntax. What
// needs backtracking, and what Go has no word for, is a problem. What neither of them takes is left
// to the parser.
func translatePattern(java string) (out, problem string) {
	t := patternTranslator{in: java}
	for t.pos < len(java) && t.problem == "" {
		t.step()
	}
	return t.out.String(), t.problem
}

type patternTranslator struct {
	in      string
	pos     int
	out     strings.Builder
	class   bool // inside [...]
	problem string
}

func (t *patternTranslator) rest() string { return t.in[t.pos:] }

// emit writes s for the next n bytes.
func (t *patternTranslator) emit(s string, n int) {
	t.out.WriteString(s)
	t.pos += n
}

func (t *patternTranslator) step() {
	rest := t.rest()
	switch c := rest[0]; {
	case c == '\\':
		t.escape()
	case t.class:
		t.inClass(rest)
	case c == '[':
		t.class = true
		t.emit("[", 1)
		if strings.HasPrefix(t.rest(), "^") {
			t.emit("^", 1)
		}
	case strings.HasPrefix(rest, "(?"):
		t.group(rest)
	case c == '*' || c == '+' || c == '?' || c == '}':
		t.emit(rest[:1], 1)
		if strings.HasPrefix(t.rest(), "+") {
			t.problem = "possessive quantifiers such as a*+ aren't available"
		}
		// A lazy quantifier's "?" isn't a quantifier of its own.
		if strings.HasPrefix(t.rest(), "?") {
			t.emit("?", 1)
		}
	default:
		t.emit(rest[:1], 1)
	}
}

func (t *patternTranslator) inClass(rest string) {
	switch {
	case rest[0] == ']':
		t.class = false
	case rest[0] == '[':
		t.problem = "a character class inside another isn't available"
	case strings.HasPrefix(rest, "&&"):
		t.problem = "intersections of character classes (&&) aren't available"
	}
	t.emit(rest[:1], 1)
}

func (t *patternTranslator) group(rest string) {
	for _, no := range [...]struct{ start, problem string }{
		{"(?=", "lookahead (?=...) isn't available"},
		{"(?!", "negative lookahead (?!...) isn't available"},
		{"(?<=", "lookbehind (?<=...) isn't available"},
		{"(?<!", "negative lookbehind (?<!...) isn't available"},
		{"(?>", "atomic groups (?>...) aren't available"},
	} {
		if strings.HasPrefix(rest, no.start) {
			t.problem = no.problem
			return
		}
	}
	t.emit("(?", 2)
	// Flags: u and d change nothing that matters to RE2.
	for t.pos < len(t.in) && strings.IndexByte("imsudx-", t.in[t.pos]) >= 0 {
		switch c := t.in[t.pos]; c {
		case 'x':
			t.problem = "the flag x (comments) isn't available"
			return
		case 'u', 'd':
			t.pos++
		default:
			t.emit(string(c), 1)
		}
	}
}

// escapes are what one letter behind a backslash stands for; inside a class without the brackets.
var escapes = map[byte]string{
	'h': `[\t \x{A0}\x{1680}\x{180e}\x{2000}-\x{200a}\x{202f}\x{205f}\x{3000}]`,
	'v': `[\n\x0B\f\r\x{85}\x{2028}\x{2029}]`,
	'e': `[\x1B]`,
}

func (t *patternTranslator) escape() {
	rest := t.rest()
	if len(rest) < 2 {
		t.problem = "the regular expression ends with a backslash"
		return
	}
	c := rest[1]
	if class, ok := escapes[c]; ok {
		if t.class {
			class = class[1 : len(class)-1]
		}
		t.emit(class, 2)
		return
	}
	switch {
	case c >= '1' && c <= '9' || c == 'k':
		t.problem = `back references such as \1 aren't available`
	case c == 'G' || c == 'X' || c == 'N':
		t.problem = `\` + string(c) + " isn't available"
	case c == 'R' && !t.class:
		t.emit(`(?:\r\n|[\n\x0B\f\r\x{85}\x{2028}\x{2029}])`, 2)
	case c == 'Z' && !t.class:
		t.emit(`(?:\n?\z)`, 2)
	case c == 'Q':
		t.quoted(rest)
	case c == 'p' || c == 'P':
		t.property(rest)
	case c == 'u' && len(rest) >= 6:
		t.emit(`\x{`+rest[2:6]+"}", 6)
	case c == '0':
		t.octal(rest)
	case c == 'c' && len(rest) >= 3:
		t.emit(`\x{`+strconv.FormatInt(int64(rest[2]^64), 16)+"}", 3)
	default:
		t.emit(rest[:2], 2)
	}
}

// quoted copies \Q...\E as escaped characters, so that nothing in it means anything.
func (t *patternTranslator) quoted(rest string) {
	text, _, closed := strings.Cut(rest[2:], `\E`)
	n := 2 + len(text)
	if closed {
		n += 2
	}
	var b strings.Builder
	for i := range len(text) {
		if strings.IndexByte(`\.+*?()|[]{}^$-&`, text[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(text[i])
	}
	t.emit(b.String(), n)
}

func (t *patternTranslator) octal(rest string) {
	n := 2
	for n < len(rest) && n < 5 && rest[n] >= '0' && rest[n] <= '7' {
		n++
	}
	code, err := strconv.ParseUint(rest[2:n], 8, 8)
	if err != nil {
		t.problem = `\0 is an octal number such as \012`
		return
	}
	t.emit(`\x{`+strconv.FormatUint(code, 16)+"}", n)
}

// posixClasses are \p{...} of Java that Go writes [[:...:]].
var posixClasses = map[string]string{
	"Lower": "lower", "Upper": "upper", "ASCII": "ascii", "Alpha": "alpha", "Digit": "digit",
	"Alnum": "alnum", "Punct": "punct", "Graph": "graph", "Print": "print", "Blank": "blank",
	"Cntrl": "cntrl", "XDigit": "xdigit", "Space": "space",
}

func (t *patternTranslator) property(rest string) {
	end := strings.IndexByte(rest, '}')
	if len(rest) < 3 || rest[2] != '{' || end < 0 {
		t.emit(rest[:2], 2)
		return
	}
	name := rest[3:end]
	posix, ok := posixClasses[name]
	if !ok {
		name = strings.TrimPrefix(name, "Is")
		t.emit(rest[:2]+"{"+name+"}", end+1)
		return
	}
	if rest[1] == 'P' {
		posix = "^" + posix
	}
	class := "[:" + posix + ":]"
	if !t.class {
		class = "[" + class + "]"
	}
	t.emit(class, end+1)
}
