package imprint_test

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/policy"
)

var markdownLink = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

// allPages are the pages of the root and of docs.
func allPages(t *testing.T) []string {
	t.Helper()
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
	return pages
}

// Every relative link of a page leads to a file.
func TestLinksOfThePagesResolve(t *testing.T) {
	t.Parallel()
	for _, page := range allPages(t) {
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

var (
	testName       = regexp.MustCompile(`\bTest[A-Z0-9]\w*`)
	testDefinition = regexp.MustCompile(`(?m)^func (Test[A-Z0-9]\w*)\(`)
	failureHeading = regexp.MustCompile(`^## What (can go|goes) wrong`)
)

// allTests are the names of all tests, whatever their build tag.
func allTests(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, found := range testDefinition.FindAllSubmatch(text, -1) {
			names[string(found[1])] = true
		}
		return err
	})
	if err != nil || len(names) < 100 {
		t.Fatalf("found %d tests, %v", len(names), err)
	}
	return names
}

// Every test that a page names is there: one that is renamed takes its mention
// along. TestAuthorization is an operation of AWS IoT, and TestX any test.
func TestThePagesNameTestsThatExist(t *testing.T) {
	t.Parallel()
	known := allTests(t)
	known["TestAuthorization"], known["TestX"] = true, true
	for _, page := range allPages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range testName.FindAllString(string(text), -1) {
			if !known[name] {
				t.Errorf("%s names %s, and there is no such test", page, name)
			}
		}
	}
}

// Every row of a page's table of failures names its test, or is the same as the row
// above it.
func TestEveryFailureOfThePagesHasItsTest(t *testing.T) {
	t.Parallel()
	tables := 0
	for _, page := range allPages(t) {
		file, err := os.Open(page)
		if err != nil {
			t.Fatal(err)
		}
		within, line := false, ""
		for lines := bufio.NewScanner(file); lines.Scan(); {
			before := line
			line = lines.Text()
			if strings.HasPrefix(line, "#") {
				within = failureHeading.MatchString(line)
			}
			if !within || !strings.HasPrefix(line, "|") {
				continue
			}
			cells := strings.Split(strings.Trim(line, "| "), "|")
			last := strings.TrimSpace(cells[len(cells)-1])
			switch {
			case !strings.HasPrefix(before, "|"):
				tables++
				if !strings.HasPrefix(last, "test") {
					t.Errorf("%s: the last column of the table of failures is %q, want the test of each", page, last)
					within = false
				}
			case last != "the same" && !testName.MatchString(last) && strings.Trim(last, "-") != "":
				t.Errorf("%s: no test stands beside %q", page, strings.TrimSpace(cells[0]))
			}
		}
		err = file.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	if tables < 8 {
		t.Errorf("found %d tables of failures, want at least 8", tables)
	}
}
