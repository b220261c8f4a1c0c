package pagepart

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const page = "# A page\n\n<!-- generated: other -->\nkept\n<!-- end of the generated part -->\n" +
	"<!-- generated: rows -->\nold\n<!-- end of the generated part -->\nwritten by hand, without a last line end"

// TestOnlyThePartChanges ensures that what stands around the part stays, and that a
// part renewed twice is as if renewed once.
func TestOnlyThePartChanges(t *testing.T) {
	t.Parallel()
	want := strings.Replace(page, "old\n", "new\n", 1)
	got := page
	for range 2 {
		var err error
		got, err = replace(got, "rows", "new\n")
		if err != nil || got != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
}

// TestAPageWithoutAClearPlaceIsLeftAlone ensures that such a page, and one whose
// text can't be made, is refused and stays as it was on disk.
func TestAPageWithoutAClearPlaceIsLeftAlone(t *testing.T) {
	t.Parallel()
	failed := errors.New("no rows")
	for _, row := range []struct {
		name, page, want string
		fail             error
	}{
		{"no part", "# A page\n", `no generated part "rows"`, nil},
		{"a part of another title", strings.ReplaceAll(page, "rows", "lines"), `no generated part "rows"`, nil},
		{"no end", "<!-- generated: rows -->\nold\n", `no generated part "rows"`, nil},
		{"an end before it", "<!-- end of the generated part -->\n<!-- generated: rows -->\n", `no generated part "rows"`, nil},
		{"twice", page + "\n" + page, `several generated parts "rows"`, nil},
		{"no text", page, "no rows", failed},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "page.md")
			err := os.WriteFile(file, []byte(row.page), 0o600)
			if err != nil {
				t.Fatal(err)
			}
			err = renew(file, "rows", func() (string, error) { return "new\n", row.fail })
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q in it", err, row.want)
			}
			got, err := os.ReadFile(file)
			if err != nil || string(got) != row.page {
				t.Errorf("got the page %q, %v, want %q", got, err, row.page)
			}
		})
	}
}
