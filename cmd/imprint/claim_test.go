package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestAnEmptyUploadSaysNothingOfTheList ensures that a list whose length nobody asked
// for isn't called empty.
func TestAnEmptyUploadSaysNothingOfTheList(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"", "\n\n", "serial\n"} {
		var out bytes.Buffer
		column := ""
		if strings.HasPrefix(file, "serial") {
			column = "serial"
		}
		err := uploadSerials(t.Context(), nil, "/guards/x", strings.NewReader(file), column, &out)
		if err != nil || out.String() != "no serial number was read: the allow list is as it was\n" {
			t.Errorf("%q: got %q, %v", file, out.String(), err)
		}
	}
}
