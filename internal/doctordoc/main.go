// Command doctordoc writes the tables of docs/doctor.md from those that imprint
// doctor answers with, so that page and program can't disagree. It is run by go
// generate in doctor.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/imprint-iot/imprint/doctor"
)

// begin and end enclose the generated part of the page.
const (
	begin = "<!-- generated: checks and codes -->\n"
	end   = "<!-- end of the generated part -->\n"
)

func main() {
	out := flag.String("out", "docs/doctor.md", "page to renew")
	flag.Parse()
	err := renew(*out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "doctordoc:", err)
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
	b.WriteString("\n## The checks\n\n| check | what is looked at |\n|---|---|\n")
	for _, check := range doctor.Names() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", check[0], cell(check[1]))
	}
	b.WriteString("\n## The codes\n\n| code | what it means | what to do |\n|---|---|---|\n")
	for _, row := range doctor.Codes() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", row.Code, cell(row.Meaning), cell(row.Fix))
	}
	b.WriteString("\n")
	return b.String()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
