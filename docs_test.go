package imprint_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
)

var markdownLink = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

// Every relative link of a page leads to a file.
func TestLinksOfThePagesResolve(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, more...)
	if len(pages) < 5 {
		t.Fatalf("found %d pages, want at least 5", len(pages))
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range markdownLink.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			_, err = os.Stat(filepath.Join(filepath.Dir(page), link[1]))
			if err != nil {
				t.Errorf("%s links to %s: %v", page, link[1], err)
			}
		}
	}
}

// The page of errors has every code of the table.
func TestTheErrorPageIsComplete(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range imprint.Descriptions() {
		if !strings.Contains(string(page), "| `"+string(row.Code)+"` |") {
			t.Errorf("docs/errors.md lacks %s: run make generate", row.Code)
		}
	}
}
