package imprint_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/policy"
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

// The page of the policy explainer has every rule of the linter, every near miss and
// every variable, in the program's own words.
func TestThePolicyExplainerPageIsComplete(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("docs/policy-explainer.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	for _, rule := range policy.LintRules() {
		row := "| `" + string(rule.Code) + "` | " + string(rule.Severity) + " | " + rule.Meaning + " | " + rule.Fix + " |"
		if !strings.Contains(page, row) {
			t.Errorf("docs/policy-explainer.md lacks the row\n%s", row)
		}
	}
	for _, kind := range policy.NearMissKinds() {
		if !strings.Contains(page, "| `"+string(kind)+"` |") {
			t.Errorf("docs/policy-explainer.md lacks the near miss %s", kind)
		}
	}
	for _, key := range policy.KnownKeys() {
		name := strings.TrimPrefix(strings.TrimPrefix(key, "iot:Certificate.Subject."), "iot:Certificate.Issuer.")
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/policy-explainer.md lacks the variable %s", key)
		}
	}
}
