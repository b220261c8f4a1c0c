package rulesql_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/rulesql"
)

// docs/rules-sql.md has every function, and no other.
func TestThePageListsTheFunctions(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/rules-sql.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## Functions\n")
	table, _, _ = strings.Cut(table, "\n### ")
	var listed []string
	for _, line := range strings.Split(table, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for _, call := range regexp.MustCompile("`([a-z0-9_]+)\\(").FindAllStringSubmatch(cells[1], -1) {
			if !slices.Contains(listed, call[1]) {
				listed = append(listed, call[1])
			}
		}
	}
	slices.Sort(listed)
	if want := rulesql.FunctionNames(); !slices.Equal(listed, want) {
		t.Errorf("the page lists %v, the program has %v", listed, want)
	}
}
