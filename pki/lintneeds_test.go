package pki

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zmap/zlint/v3/lint"
)

// TestLintsThatNeedAnExtensionAreThoseWhoseSourceSaysSo reads the source of the lints in
// use: the table names exactly those that begin to look at a certificate with
//
//	return util.IsExtInCert(c, util.SomeOID)
//
// or with that and something more. To leave out one of those where the extension isn't
// there changes no verdict.
func TestLintsThatNeedAnExtensionAreThoseWhoseSourceSaysSo(t *testing.T) {
	t.Parallel()
	l, err := newLinter(nil)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]*lint.CertificateLint{}
	for _, one := range l.lints {
		used[one.Name] = one.CertificateLint
	}
	dir := lintSource(t)
	oids := oidValues(t, filepath.Join(dir, "util", "oid.go"))
	want := map[string]string{}
	for _, folder := range []string{"rfc", "community"} {
		files, err := filepath.Glob(filepath.Join(dir, "lints", folder, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no lints in %s: %v", folder, err)
		}
		for _, path := range files {
			name, oid := neededBy(t, path)
			if used[name] != nil && oid != "" {
				want[name] = oids[oid]
			}
		}
	}
	got := map[string]string{}
	for oid, names := range lintNeeds {
		for _, name := range names {
			got[name] = oid
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 40 {
		t.Errorf("lints that need an extension (-source +table), %d:\n%s", len(want), diff)
	}
}

func lintSource(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-json", "github.com/zmap/zlint/v3").Output()
	if err != nil {
		t.Fatalf("couldn't find the lints' source: %v", err)
	}
	var module struct{ Dir string }
	err = json.Unmarshal(out, &module)
	if err != nil {
		t.Fatal(err)
	}
	return module.Dir
}

func parse(t *testing.T, path string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatalf("couldn't read %s: %v", path, err)
	}
	return file
}

// oidValues gives the dotted form of each identifier of a file.
func oidValues(t *testing.T, path string) map[string]string {
	t.Helper()
	values := map[string]string{}
	ast.Inspect(parse(t, path), func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Names) != 1 || len(spec.Values) != 1 {
			return true
		}
		literal, ok := spec.Values[0].(*ast.CompositeLit)
		if !ok {
			return true
		}
		var parts []string
		for _, e := range literal.Elts {
			number, ok := e.(*ast.BasicLit)
			if !ok {
				return true
			}
			parts = append(parts, number.Value)
		}
		values[spec.Names[0].Name] = strings.Join(parts, ".")
		return true
	})
	return values
}

// neededBy gives the name of the lint of a file and the identifier of the extension
// without which it doesn't apply; empty where there is none.
func neededBy(t *testing.T, path string) (name, oid string) {
	t.Helper()
	applies := 0
	ast.Inspect(parse(t, path), func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.KeyValueExpr:
			key, isName := n.Key.(*ast.Ident)
			value, isText := n.Value.(*ast.BasicLit)
			if isName && isText && key.Name == "Name" {
				name, _ = strconv.Unquote(value.Value)
			}
		case *ast.FuncDecl:
			if n.Name.Name != "CheckApplies" {
				return true
			}
			applies++
			ret, ok := n.Body.List[0].(*ast.ReturnStmt)
			if ok && len(n.Body.List) == 1 {
				oid = firstCondition(ret.Results[0], n.Type.Params.List[0].Names[0].Name)
			}
		}
		return true
	})
	if applies > 1 {
		return "", "" // several lints in a file: left alone
	}
	return name, oid
}

// firstCondition gives X of util.IsExtInCert(c, util.X), if that is what is evaluated
// first and what decides.
func firstCondition(e ast.Expr, parameter string) string {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return firstCondition(e.X, parameter)
	case *ast.BinaryExpr:
		if e.Op == token.LAND {
			return firstCondition(e.X, parameter)
		}
	case *ast.CallExpr:
		if len(e.Args) != 2 || fmt.Sprint(text(e.Fun), text(e.Args[0])) != "util.IsExtInCert"+parameter {
			return ""
		}
		oid, _ := strings.CutPrefix(text(e.Args[1]), "util.")
		return oid
	}
	return ""
}

func text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return text(e.X) + "." + e.Sel.Name
	}
	return "?"
}
