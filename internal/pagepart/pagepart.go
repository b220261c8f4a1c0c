// Package pagepart renews the generated part of a page and leaves what people wrote
// around it to the byte. The part stands between two comments:
//
//	<!-- generated: operations -->
//	<!-- end of the generated part -->
//
// A page without them is refused, and so is one with more than one such part: which
// is meant would be a guess.
package pagepart

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

const end = "<!-- end of the generated part -->\n"

func begin(title string) string { return "<!-- generated: " + title + " -->\n" }

// Main is the main function of a program that renews a part: of the page that the
// flag -out names, else of page. It ends the program if that fails.
func Main(program, page, title string, text func() (string, error)) {
	out := flag.String("out", page, "page to renew")
	flag.Parse()
	err := renew(*out, title, text)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
		os.Exit(1)
	}
}

func renew(file, title string, text func() (string, error)) error {
	part, err := text()
	if err != nil {
		return err
	}
	page, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("couldn't read the page: %w", err)
	}
	renewed, err := replace(string(page), title, part)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	err = os.WriteFile(file, []byte(renewed), 0o644)
	if err != nil {
		return fmt.Errorf("couldn't write the page: %w", err)
	}
	return nil
}

// replace gives the page with another text in the part of that title.
func replace(page, title, text string) (string, error) {
	before, rest, found := strings.Cut(page, begin(title))
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return "", fmt.Errorf("there is no generated part %q: put %q and %q around its place", title, strings.TrimSpace(begin(title)), strings.TrimSpace(end))
	}
	if strings.Contains(after, begin(title)) {
		return "", fmt.Errorf("there are several generated parts %q: leave one", title)
	}
	return before + begin(title) + text + end + after, nil
}

// Cell writes a text so that it stays in one cell of a table.
func Cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
