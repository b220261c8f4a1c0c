package imprint_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// recording are the methods whose first argument is the name of a step.
var recording = map[string]bool{"OK": true, "Info": true, "InfoWith": true, "Fail": true, "FailWith": true, "Made": true, "Allowed": true, "AllowedBy": true, "fail": true, "step": true}

var stepName = regexp.MustCompile(`^[a-z]+(\.[a-z]+)*$`)

// The page of the trace has every step that the code records, and no other.
func TestTheTracePageHasEveryStep(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/trace.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "\n| step | what it tells |\n")
	table, _, ended := strings.Cut(table, "\n\n")
	if !found || !ended {
		t.Fatal("docs/trace.md has no table of steps")
	}
	told := map[string]bool{}
	for line := range strings.Lines(table) {
		names := strings.Split(line, "|")[1]
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(names, -1) {
			told[name[1]] = true
		}
	}
	recorded, literals := map[string]string{}, map[string]bool{}
	for _, room := range []string{"attempt.go", "broker", "ca", "cmd/imprint", "est", "events", "functions", "gateway", "pki", "provisioning", "renewal", "rules", "trace"} {
		err = filepath.WalkDir(room, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if name := literal(n); name != "" {
					literals[name] = true
				}
				if name := recordedBy(n); name != "" {
					recorded[name] = path
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(told) < 80 || len(recorded) < 60 {
		t.Fatalf("the page has %d steps and the code %d", len(told), len(recorded))
	}
	for _, name := range slices.Sorted(maps.Keys(recorded)) {
		if !told[name] {
			t.Errorf("docs/trace.md doesn't have the step %s of %s", name, recorded[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(told)) {
		operation, est := strings.CutPrefix(name, "est.")
		if !literals[name] && (!est || !literals[operation]) {
			t.Errorf("docs/trace.md has the step %s, which no code records", name)
		}
	}
}

// recordedBy is the name of the step that a call or a literal records; empty: none, or one
// that isn't written there.
func recordedBy(n ast.Node) string {
	name := ""
	switch n := n.(type) {
	case *ast.CallExpr:
		method, ok := n.Fun.(*ast.SelectorExpr)
		if ok && recording[method.Sel.Name] && len(n.Args) > 1 {
			name = literal(n.Args[0])
		}
	case *ast.CompositeLit:
		kind, ok := n.Type.(*ast.SelectorExpr)
		if !ok || kind.Sel.Name != "Step" {
			return ""
		}
		for _, element := range n.Elts {
			field, ok := element.(*ast.KeyValueExpr)
			if !ok {
				continue // go vet wants keys
			}
			if key, named := field.Key.(*ast.Ident); named && key.Name == "Name" {
				name = literal(field.Value)
			}
		}
	}
	if !stepName.MatchString(name) {
		return ""
	}
	return name
}

func TestStepsAreReadWithAndWithoutKeys(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{`imprint.Step{Name: "tls.done"}`: "tls.done", `imprint.Step{"tls.done"}`: ""} {
		step, err := parser.ParseExpr(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := recordedBy(step); got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}

// literal is the text of a string literal; empty: it is none.
func literal(n ast.Node) string {
	l, ok := n.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return ""
	}
	text, err := strconv.Unquote(l.Value)
	if err != nil {
		return ""
	}
	return text
}
