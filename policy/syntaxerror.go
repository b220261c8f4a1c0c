package policy

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/imprint-iot/imprint/internal/nearest"
)

// SyntaxError says where and why a document is not a policy. Line and Column
// count from 1, Column in characters. Member is the path of the offending
// element, such as "Statement[0].Effect", empty for the document itself. Hint
// tells what to write instead.
type SyntaxError struct {
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Member string `json:"member,omitempty"`
	Msg    string `json:"message"`
	Hint   string `json:"hint,omitempty"`
}

// Error gives the sentence "line 3, column 5: Statement[0].Effect: message (hint)".
func (e *SyntaxError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "line %d, column %d: ", e.Line, e.Column)
	if e.Member != "" {
		b.WriteString(e.Member)
		b.WriteString(": ")
	}
	b.WriteString(e.Msg)
	if e.Hint != "" {
		b.WriteString(" (")
		b.WriteString(e.Hint)
		b.WriteString(")")
	}
	return b.String()
}

// syntaxErrorAt turns a byte offset into line and column.
func syntaxErrorAt(text []byte, offset int, member, hint, format string, args ...any) *SyntaxError {
	if offset > len(text) {
		offset = len(text)
	}
	line, start := 1, 0
	for i, c := range text[:offset] {
		if c == '\n' {
			line++
			start = i + 1
		}
	}
	return &SyntaxError{
		Line:   line,
		Column: utf8.RuneCount(text[start:offset]) + 1,
		Member: member,
		Msg:    fmt.Sprintf(format, args...),
		Hint:   hint,
	}
}

func didYouMean(written string, names []string) string {
	name := nearest.Name(written, names)
	if name == "" {
		return "one of " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("did you mean %q?", name)
}
