package rulesql

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// SyntaxError says where and why a text is not a statement. Line and Column count from 1, Column in
// characters. Hint tells what to write instead; it may be empty.
type SyntaxError struct {
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Msg    string `json:"message"`
	Hint   string `json:"hint,omitempty"`
}

// Error gives the sentence "line 1, column 8: message (hint)".
func (e *SyntaxError) Error() string {
	if e.Hint == "" {
		return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Msg)
	}
	return fmt.Sprintf("line %d, column %d: %s (%s)", e.Line, e.Column, e.Msg, e.Hint)
}

// Warning is something in a statement that AWS IoT Core takes too, but that can't do what its
// author meant, such as a call with the wrong number of arguments, which is always Undefined.
type Warning struct {
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Msg    string `json:"message"`
}

// syntaxErrorAt turns a byte offset into line and column.
func syntaxErrorAt(text string, offset int, hint, format string, args ...any) *SyntaxError {
	line, column := position(text, offset)
	return &SyntaxError{Line: line, Column: column, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

func position(text string, offset int) (line, column int) {
	before := text[:min(offset, len(text))]
	start := strings.LastIndexByte(before, '\n') + 1
	return strings.Count(before, "\n") + 1, utf8.RuneCountInString(before[start:]) + 1
}

// excerpt shortens what is quoted.
func excerpt(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
