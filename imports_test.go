package imprint_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/imprint-iot/imprint"

// floors are the rooms of docs/architecture.md by their floor. What isn't here stands
// beside them.
var floors = map[string]int{
	"cmd":     5,
	"gateway": 4, "awsapi": 4, "est": 4,
	"provisioning": 3, "broker": 3, "events": 3, "rules": 3, "functions": 3, "trace": 3, "audit": 3, "ca": 3, "renewal": 3,
	"store": 2, "identity": 2,
	"policy": 1, "template": 1, "rulesql": 1, "mqtt": 1, "pki": 1,
	".": 0,
}

// neighbours are the imports within a floor that docs/architecture.md names.
var neighbours = map[[2]string]bool{
	{"gateway", "trace"}: true, {"awsapi", "trace"}: true, {"est", "trace"}: true, {"provisioning", "trace"}: true, {"broker", "trace"}: true, {"functions", "trace"}: true, {"rules", "trace"}: true,
	{"rulesql", "mqtt"}: true,
}

// Imports go down only: no room uses one of a floor above, nor, but for those that
// docs/architecture.md names, a neighbour.
func TestImportsGoDownOnly(t *testing.T) {
	t.Parallel()
	looked := 0
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		from, _, nested := strings.Cut(filepath.ToSlash(path), "/")
		if !nested {
			from = "."
		}
		floor, known := floors[from]
		if !known {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		looked++
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			rest, ours := strings.CutPrefix(name+"/", module+"/")
			if !ours {
				continue
			}
			to, _, _ := strings.Cut(rest, "/")
			if to == "" {
				to = "."
			}
			below, known := floors[to]
			if known && to != from && below >= floor && !neighbours[[2]string{from, to}] {
				t.Errorf("%s, on floor %d, imports %s, on floor %d", path, floor, name, below)
			}
		}
		return nil
	})
	if err != nil || looked < 300 {
		t.Fatalf("looked at %d files, %v", looked, err)
	}
}
