package rules_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestTheProgramBringsTheTimeZones ensures that parse_time knows zones where the machine
// has none: the program is static, and may be all that is in a container.
func TestTheProgramBringsTheTimeZones(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "../cmd/imprint").Output()
	if err != nil {
		t.Fatalf("couldn't list what the program is made of: %v", err)
	}
	if !slices.Contains(strings.Fields(string(out)), "time/tzdata") {
		t.Error("the program doesn't have time/tzdata in it")
	}
}
