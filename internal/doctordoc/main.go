// Command doctordoc writes the tables of docs/doctor.md from those that imprint
// doctor answers with, so that page and program can't disagree. It is run by go
// generate in doctor.
package main

import (
	"fmt"
	"strings"

	"github.com/imprint-iot/imprint/doctor"
	"github.com/imprint-iot/imprint/internal/pagepart"
)

func main() { pagepart.Main("doctordoc", "docs/doctor.md", "checks and codes", tables) }

func tables() (string, error) {
	var b strings.Builder
	b.WriteString("\n## The checks\n\n| check | what is looked at |\n|---|---|\n")
	for _, check := range doctor.Names() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", check[0], pagepart.Cell(check[1]))
	}
	b.WriteString("\n## The codes\n\n| code | what it means | what to do |\n|---|---|---|\n")
	for _, row := range doctor.Codes() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", row.Code, pagepart.Cell(row.Meaning), pagepart.Cell(row.Fix))
	}
	b.WriteString("\n")
	return b.String(), nil
}
