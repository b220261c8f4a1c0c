package policy

import (
	"fmt"
	"strings"
	"unicode/utf8"
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

// nearest gives the name with the smallest edit distance to what was written,
// or "" when none is close enough to be meant.
func nearest(written string, names []string) string {
	if len(written) > 64 {
		return ""
	}
	best, bestDistance := "", len(written)/2+1
	for _, name := range names {
		d := editDistance(strings.ToLower(written), strings.ToLower(name))
		if d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// editDistance is the Levenshtein distance in bytes; its callers bound the lengths.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

func didYouMean(written string, names []string) string {
	name := nearest(written, names)
	if name == "" {
		return "one of " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("did you mean %q?", name)
}
