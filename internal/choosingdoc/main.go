// Command choosingdoc writes the tables of docs/choosing.md from those that imprint
// advise answers with, so that page and program can't disagree. It is run by go
// generate in advise.
package main

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint/advise"
	"github.com/imprint-iot/imprint/internal/pagepart"
)

func main() { pagepart.Main("choosingdoc", "docs/choosing.md", "flows", tables) }

func tables() (string, error) {
	var b strings.Builder
	b.WriteString("\n## The questions\n\n| question | answer | |\n|---|---|---|\n")
	for _, q := range advise.Questions() {
		for n, option := range q.Options {
			text := ""
			if n == 0 {
				text = fmt.Sprintf("%s `--%s`", q.Text, q.Name)
			}
			fmt.Fprintf(&b, "| %s | `%s` | %s |\n", text, option.Answer, option.Text)
		}
	}
	b.WriteString("\n## The flows\n\nPreferred from top to bottom, where several are possible.\n\n| flow | choose it when | it needs |\n|---|---|---|\n")
	for _, row := range advise.Table() {
		needs := "nothing but a claim certificate in the image"
		if len(row.Needs) > 0 {
			needs = strings.Join(row.Needs, "; ")
		}
		fmt.Fprintf(&b, "| [%s](%s) | %s | %s |\n", row.Title, path.Base(row.Page), row.Take, needs)
	}
	for _, accounts := range []struct {
		title  string
		answer advise.Answer
	}{{"One account", advise.OneAccount}, {"Several accounts", advise.SeveralAccounts}} {
		fmt.Fprintf(&b, "\n## %s: what to take first\n\n", accounts.title)
		err := matrix(&b, accounts.answer)
		if err != nil {
			return "", err
		}
	}
	b.WriteString("\n")
	return b.String(), nil
}

// matrix writes which flow is preferred without an installer: a row for the device and
// the line, a column for the PKI. Lines of one device that are alike share a row.
func matrix(b *strings.Builder, accounts advise.Answer) error {
	questions := advise.Questions()
	b.WriteString("| device | line |")
	for _, pki := range questions[2].Options {
		fmt.Fprintf(b, " PKI: `%s` |", pki.Answer)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(questions[2].Options)) + "\n")
	for _, device := range questions[0].Options {
		var lines [][]string // of the line's answers that share a row
		var cells []string
		for _, line := range questions[1].Options {
			cell := ""
			for _, pki := range questions[2].Options {
				advice, err := advise.For(advise.Answers{
					DeviceKey: device.Answer, Manufacturer: line.Answer, PKI: pki.Answer, Accounts: accounts, Installer: advise.NoInstaller,
				})
				if err != nil {
					return err
				}
				first := advice.Flows[0]
				cell += fmt.Sprintf(" [%s](%s) |", first.Name, path.Base(first.Page))
			}
			if at := slices.Index(cells, cell); at >= 0 {
				lines[at] = append(lines[at], "`"+string(line.Answer)+"`")
				continue
			}
			cells, lines = append(cells, cell), append(lines, []string{"`" + string(line.Answer) + "`"})
		}
		for n := range cells {
			fmt.Fprintf(b, "| `%s` | %s |%s\n", device.Answer, strings.Join(lines[n], ", "), cells[n])
		}
	}
	return nil
}
