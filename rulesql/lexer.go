package rulesql

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenName
	tokenNumber
	tokenString
	tokenVariable // text is the name without "@"
	tokenSign     // operators and punctuation
)

type token struct {
	kind tokenKind
	off  int    // where it starts, in bytes
	end  int    // behind its end
	text string // as written; of a string its value
}

// is says whether t is a sign.
func (t token) is(sign string) bool { return t.kind == tokenSign && t.text == sign }

// isWord says whether t is a keyword, without regard to case.
func (t token) isWord(word string) bool {
	return t.kind == tokenName && len(t.text) == len(word) && strings.EqualFold(t.text, word)
}

// describe names a token in an error.
func (t token) describe() string {
	switch t.kind {
	case tokenEnd:
		return "the end"
	case tokenString:
		return "the text '" + excerpt(t.text) + "'"
	case tokenVariable:
		return "@" + excerpt(t.text)
	}
	return excerpt(t.text)
}

// lex splits text[from:] into tokens, the last one a tokenEnd. With braces, it ends at the "}"
// that closes a "${" before from.
func lex(text string, from int, braces bool) ([]token, *SyntaxError) {
	var tokens []token
	depth := 0
	l := lexer{text: text, pos: from}
	for {
		t, err := l.next()
		if err != nil {
			return nil, err
		}
		if braces && t.is("{") {
			depth++
		}
		if braces && t.is("}") {
			if depth == 0 {
				return append(tokens, token{kind: tokenEnd, off: t.off, end: t.end}), nil
			}
			depth--
		}
		tokens = append(tokens, t)
		if t.kind == tokenEnd {
			if braces {
				return nil, syntaxErrorAt(text, from-2, `close it with "}"`, `"${" has no end`)
			}
			return tokens, nil
		}
	}
}

type lexer struct {
	text string
	pos  int
}

func (l *lexer) fault(off int, hint, format string, args ...any) *SyntaxError {
	return syntaxErrorAt(l.text, off, hint, format, args...)
}

func (l *lexer) next() (token, *SyntaxError) {
	for l.pos < len(l.text) && strings.IndexByte(" \t\r\n", l.text[l.pos]) >= 0 {
		l.pos++
	}
	start := l.pos
	if start == len(l.text) {
		return token{kind: tokenEnd, off: start, end: start}, nil
	}
	c := l.text[start]
	switch {
	case c == '\'' || c == '"':
		return l.quoted(c)
	case c >= '0' && c <= '9':
		return l.number()
	case c == '@':
		l.pos++
		name := l.name()
		if name == "" {
			return token{}, l.fault(start, "letters, digits and underscores, as in @limit", `"@" has no name behind it`)
		}
		return token{tokenVariable, start, l.pos, name}, nil
	}
	if name := l.name(); name != "" {
		return token{tokenName, start, l.pos, name}, nil
	}
	return l.sign()
}

// name takes letters, digits and underscores; the caller knows that it doesn't start with a digit.
func (l *lexer) name() string {
	start := l.pos
	for l.pos < len(l.text) {
		c := l.text[l.pos]
		if c < utf8.RuneSelf {
			if c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
				break
			}
			l.pos++
			continue
		}
		r, size := utf8.DecodeRuneInString(l.text[l.pos:])
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.Is(unicode.Mn, r) {
			break
		}
		l.pos += size
	}
	return l.text[start:l.pos]
}

func (l *lexer) number() (token, *SyntaxError) {
	start := l.pos
	l.pos += leadingDigits(l.text[l.pos:])
	if l.pos+1 < len(l.text) && l.text[l.pos] == '.' {
		if n := leadingDigits(l.text[l.pos+1:]); n > 0 {
			l.pos += 1 + n
		}
	}
	if l.pos < len(l.text) && l.text[l.pos]|0x20 == 'e' {
		sign := l.pos + 1
		if sign < len(l.text) && (l.text[sign] == '-' || l.text[sign] == '+') {
			sign++
		}
		if n := leadingDigits(l.text[sign:]); n > 0 {
			l.pos = sign + n
		}
	}
	end := l.pos
	if name := l.name(); name != "" {
		return token{}, l.fault(start, "a key that doesn't start with a letter is read with get(object, 'key')",
			"%s is neither a number nor a name", excerpt(l.text[start:l.pos]))
	}
	return token{tokenNumber, start, end, l.text[start:end]}, nil
}

// quoted takes a string. A quote inside is written twice or behind a backslash; a backslash
// before anything else stands for itself, so that regular expressions need no second one.
func (l *lexer) quoted(quote byte) (token, *SyntaxError) {
	start := l.pos
	l.pos++
	from := l.pos
	var b strings.Builder
	for l.pos < len(l.text) {
		c := l.text[l.pos]
		l.pos++
		ahead := byte(0)
		if l.pos < len(l.text) {
			ahead = l.text[l.pos]
		}
		switch {
		case c == '\\' && ahead == '\\':
			l.pos++
		case c == quote && ahead == quote, c == '\\' && ahead == quote:
			b.WriteString(l.text[from : l.pos-1])
			from = l.pos
			l.pos++
		case c == quote:
			b.WriteString(l.text[from : l.pos-1])
			return token{tokenString, start, l.pos, b.String()}, nil
		}
	}
	return token{}, l.fault(start, "close it with the quote that opened it", "a text has no end")
}

func (l *lexer) sign() (token, *SyntaxError) {
	start := l.pos
	rest := l.text[start:]
	for _, sign := range [...]string{"<>", "<=", ">=", "!=", "||"} {
		if strings.HasPrefix(rest, sign) {
			l.pos += 2
			return token{tokenSign, start, l.pos, sign}, nil
		}
	}
	for _, comment := range [...]string{"--", "/*", "//"} {
		// Two minus signs can also be a subtraction of a negative number.
		if strings.HasPrefix(rest, comment) && (comment != "--" || strings.HasPrefix(rest, "-- ")) {
			return token{}, l.fault(start, "leave it out", "the language has no comments")
		}
	}
	if strings.IndexByte("()[]{},.:*+-/%=<>", rest[0]) >= 0 {
		l.pos++
		return token{tokenSign, start, l.pos, rest[:1]}, nil
	}
	r, _ := utf8.DecodeRuneInString(rest)
	hint := ""
	switch r {
	case ';':
		hint = "a statement has no semicolon"
	case '`':
		hint = "a key with unusual characters is read with get(object, 'key')"
	case '$':
		hint = `"${...}" belongs into fields of actions, topics into quotes`
	case '#':
		hint = "put the topic filter in quotes"
	}
	return token{}, l.fault(start, hint, "unexpected character %q", r)
}
