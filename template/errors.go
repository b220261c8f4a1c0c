package template

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Code classifies an Error so that a caller can branch or count without reading text.
type Code string

// Codes of errors that Parse returns.
const (
	// CodeSyntax: the body is not one JSON object of valid UTF-8 text.
	CodeSyntax Code = "syntax"
	// CodeInvalid: well-formed JSON that breaks a rule of the template language.
	CodeInvalid Code = "invalid"
	// CodeUnresolved: a Ref or Fn::Sub names neither a parameter nor a resource.
	CodeUnresolved Code = "unresolved_reference"
	// CodeLimit: a size, depth, count or work limit is exceeded. Plan returns it too.
	CodeLimit Code = "limit_exceeded"
)

// Codes of errors that Plan returns, beside CodeLimit.
const (
	// CodeMissingParameter: a parameter has neither a value nor a default.
	CodeMissingParameter Code = "missing_parameter"
	// CodeBadValue: an evaluated value breaks the rule of its property.
	CodeBadValue Code = "bad_value"
	// CodeIndexOutOfRange: Fn::Select asked for an item that the list does not have.
	CodeIndexOutOfRange Code = "index_out_of_range"
	// CodeMissingMapKey: Fn::FindInMap asked for a map, key or sub-key that does not exist.
	CodeMissingMapKey Code = "missing_map_key"
	// CodeResourceReference: a Ref names a resource of the template, which has no value.
	CodeResourceReference Code = "resource_reference"
)

// Error is the error of Parse and Plan: one fault, where it is and what to do about it.
type Error struct {
	Code Code
	// Line and Column are 1-based; Column counts characters. Both are 0 when the fault has no
	// place in the text.
	Line, Column int
	// Member is the path of the member at fault, down to the property or list item whose value
	// is evaluated: "Resources.thing.Properties.ThingGroups[1]". Empty for the whole document.
	Member string
	// Parameter names the parameter or reference concerned, if there is one.
	Parameter string
	// Msg says what is wrong. For unresolved references and missing parameters it is AWS's
	// wording "Cannot resolve reference value: NAME".
	Msg string
	// Hint says what to do; it may be empty.
	Hint string
}

// Error gives "line 3, column 14, Resources.thing.Properties.ThingName: what is wrong".
func (e *Error) Error() string {
	var b strings.Builder
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d, column %d", e.Line, e.Column)
	}
	if e.Member != "" {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(e.Member)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	b.WriteString(e.Msg)
	return b.String()
}

// site is the place of a construct: byte offset in the text and member path.
type site struct {
	off    int
	member string
}

// fault makes an Error at a place of text.
func fault(text string, at site, code Code, msg string) *Error {
	line, column := position(text, at.off)
	return &Error{Code: code, Line: line, Column: column, Member: at.member, Msg: msg}
}

// position translates a byte offset to a 1-based line and column in characters.
func position(text string, off int) (line, column int) {
	if off > len(text) {
		off = len(text)
	}
	before := text[:off]
	line = strings.Count(before, "\n") + 1
	start := strings.LastIndexByte(before, '\n') + 1
	return line, utf8.RuneCountInString(before[start:]) + 1
}

// quote shows a value in an error, shortened: values come from devices and may be long.
func quote(s string) string {
	const most = 80
	if utf8.RuneCountInString(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	runes := 0
	for i := range s {
		if runes == most {
			return fmt.Sprintf("%q...", s[:i])
		}
		runes++
	}
	return fmt.Sprintf("%q", s)
}
