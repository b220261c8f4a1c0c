// Command compatdoc writes the list of offered operations into
// docs/compatibility.md, from the routes that the control plane really serves.
package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint/awsapi/iot"
	"github.com/imprint-iot/imprint/internal/pagepart"
)

func main() { pagepart.Main("compatdoc", "docs/compatibility.md", "operations", operations) }

func operations() (string, error) {
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
	return fmt.Sprintf("\nOffered (%d): %s.\n\nNot offered (%d): %s.\n\n", len(yes), strings.Join(yes, ", "), len(no), strings.Join(no, ", ")), nil
}
