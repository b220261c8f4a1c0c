// Command failuresdoc writes the tables of docs/failures.md from the table that the
// tests of the whole system make real, so that page and program can't disagree. It
// is run by go generate in test/failures.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"unicode"

	"github.com/imprint-iot/imprint/test/failures"
)

// begin and end enclose the generated part of the page.
const (
	begin = "<!-- generated: ways to fail -->\n"
	end   = "<!-- end of the generated part -->\n"
)

func main() {
	out := flag.String("out", "docs/failures.md", "page to renew")
	flag.Parse()
	err := renew(*out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "failuresdoc:", err)
		os.Exit(1)
	}
}

func renew(file string) error {
	page, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("couldn't read the page: %w", err)
	}
	before, rest, found := strings.Cut(string(page), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("%s has no generated part", file)
	}
	err = os.WriteFile(file, []byte(before+begin+tables()+end+after), 0o644)
	if err != nil {
		return fmt.Errorf("couldn't write the page: %w", err)
	}
	return nil
}

func tables() string {
	var b strings.Builder
	for _, section := range failures.Table {
		fmt.Fprintf(&b, "\n## %s\n\n| what is wrong | what the device sees | outcome | step | code | fix | test |\n|---|---|---|---|---|---|---|\n", section.Title)
		for _, row := range section.Rows {
			outcome := row.Outcome
			if outcome == "" {
				outcome = "stays on"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | `%s` | [`%s`](errors.md) | %s | `%s` |\n",
				cell(row.Wrong), cell(row.Seen), outcome, row.Step, row.Code, fix(row), cell(row.Name))
		}
	}
	b.WriteString("\n")
	return b.String()
}

// fix shows a command as one, and other words as they are.
func fix(row failures.Row) string {
	text := cell(placeholders(row.Fix))
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

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
