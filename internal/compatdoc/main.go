// Command compatdoc writes the list of offered operations into
// docs/compatibility.md, from the routes that the control plane really serves.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint/awsapi/iot"
)

// begin and end enclose the generated part of the page.
const (
	begin = "<!-- generated: operations -->\n"
	end   = "<!-- end of the generated part -->\n"
)

func main() {
	out := flag.String("out", "docs/compatibility.md", "page to renew")
	flag.Parse()
	err := renew(*out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "compatdoc:", err)
		os.Exit(1)
	}
}

func renew(path string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("couldn't read the page: %w", err)
	}
	before, rest, found := strings.Cut(string(page), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("%s has no generated part", path)
	}
	err = os.WriteFile(path, []byte(before+begin+operations()+end+after), 0o644)
	if err != nil {
		return fmt.Errorf("couldn't write the page: %w", err)
	}
	return nil
}

func operations() string {
	offered := map[string]bool{}
	for _, route := range iot.NewService(iot.Rooms{}).Routes() {
		offered[route.Operation().Name] = true
	}
	var yes, no []string
	for _, op := range iot.Operations() {
		if offered[op.Name] {
			yes = append(yes, op.Name)
			continue
		}
		no = append(no, op.Name)
	}
	slices.Sort(yes)
	slices.Sort(no)
	return fmt.Sprintf("\nOffered (%d): %s.\n\nNot offered (%d): %s.\n\n", len(yes), strings.Join(yes, ", "), len(no), strings.Join(no, ", "))
}
