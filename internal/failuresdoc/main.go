// Command failuresdoc writes the tables of docs/failures.md from the table that the
// tests of the whole system make real, so that page and program can't disagree. It
// is run by go generate in test/failures.
package main

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/imprint-iot/imprint/internal/pagepart"
	"github.com/imprint-iot/imprint/test/failures"
)

func main() { pagepart.Main("failuresdoc", "docs/failures.md", "ways to fail", tables) }

func tables() (string, error) {
	var b strings.Builder
	ways := 0
	for _, section := range failures.Table {
		ways += len(section.Rows)
	}
	fmt.Fprintf(&b, "\n%d ways to fail.\n", ways)
	for _, section := range failures.Table {
		fmt.Fprintf(&b, "\n## %s\n\n| what is wrong | what the device sees | outcome | step | code | fix | test |\n|---|---|---|---|---|---|---|\n", section.Title)
		for _, row := range section.Rows {
			outcome := row.Outcome
			if outcome == "" {
				outcome = "stays on"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | `%s` | [`%s`](errors.md) | %s | `%s` |\n",
				pagepart.Cell(row.Wrong), pagepart.Cell(row.Seen), outcome, row.Step, row.Code, fix(row), pagepart.Cell(row.Name))
		}
	}
	b.WriteString("\n")
	return b.String(), nil
}

// fix shows a command as one, and other words as they are.
func fix(row failures.Row) string {
	text := pagepart.Cell(placeholders(row.Fix))
	if !row.Typed {
		return "... " + text + " ..."
	}
	return "`" + text + "` ✓"
}

// placeholders writes {certificateArn} as CERTIFICATE_ARN. What else stands in
// braces is left alone.
func placeholders(text string) string {
	var b strings.Builder
	for text != "" {
		before, rest, found := strings.Cut(text, "{")
		b.WriteString(before)
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsLetter(r) }) {
			b.WriteString("{")
			text = rest
			continue
		}
		for _, r := range name {
			if unicode.IsUpper(r) {
				b.WriteByte('_')
			}
			b.WriteRune(unicode.ToUpper(r))
		}
		text = after
	}
	return b.String()
}
