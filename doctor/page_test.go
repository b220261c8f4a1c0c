package doctor_test

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/doctor"
)

// The page has every check and every code, and every code of the source a row.
func TestThePageOfTheDoctorIsComplete(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range doctor.Names() {
		if !strings.Contains(string(page), "| `"+name[0]+"` | ") {
			t.Errorf("docs/doctor.md lacks the check %s: run make generate", name[0])
		}
	}
	described := map[string]bool{}
	for _, row := range doctor.Codes() {
		if row.Meaning == "" || row.Fix == "" || described[string(row.Code)] {
			t.Errorf("got the row %+v, want a meaning, a fix, and one row a code", row)
		}
		described[string(row.Code)] = true
		if !strings.Contains(string(page), "| `"+string(row.Code)+"` | ") {
			t.Errorf("docs/doctor.md lacks the code %s: run make generate", row.Code)
		}
	}
	source, err := os.ReadFile("codes.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, constant := range regexp.MustCompile(`Code = "([A-Za-z0-9]+)"`).FindAllStringSubmatch(string(source), -1) {
		if !described[constant[1]] {
			t.Errorf("the code %s has no description", constant[1])
		}
	}
}

// Every code can come up: it stands in the source somewhere but in the list.
func TestEveryCodeIsUsed(t *testing.T) {
	t.Parallel()
	var used strings.Builder
	for _, file := range sources(t) {
		if file == "codes.go" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		used.Write(text)
	}
	list, err := os.ReadFile("codes.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, constant := range regexp.MustCompile(`(?m)^\t([A-Za-z0-9]+) +Code = `).FindAllStringSubmatch(string(list), -1) {
		if !regexp.MustCompile(`\b` + constant[1] + `\b`).MatchString(used.String()) {
			t.Errorf("no check can give the code %s", constant[1])
		}
	}
}

// The room stands beside the house: of the project it imports two crafts alone.
func TestTheRoomImportsTwoCraftsAlone(t *testing.T) {
	t.Parallel()
	const project = "github.com/imprint-iot/imprint"
	allowed := []string{project + "/mqtt", project + "/pki"}
	for _, file := range sources(t) {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			path := strings.Trim(spec.Path.Value, `"`)
			foreign := strings.Contains(strings.Split(path, "/")[0], ".")
			if foreign && !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", file, path)
			}
		}
	}
}

func sources(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
}
