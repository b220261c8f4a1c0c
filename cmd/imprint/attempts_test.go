package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAnAttemptsTableKeepsItsColumns ensures that a detail of several lines, such as a
// function's log, stays in its column and moves no other one.
func TestAnAttemptsTableKeepsItsColumns(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	err := printAttempt(&out, attempt{ID: "a", Outcome: "connected", Steps: []step{
		{At: 0.001, Name: "function", Verdict: "ok", Detail: "answered"},
		{At: 0.002, Name: "function.log", Verdict: "info", Detail: "START\none\nREPORT\tDuration: 1 ms"},
		{At: 0.003, Name: "session", Verdict: "failed", Detail: "closed", Fix: "Check the link."},
	}})
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(out.String(), "\n")
	const want = `  +1.0 ms  function      ok      answered
  +2.0 ms  function.log          START
                                 one
                                 REPORT  Duration: 1 ms
  +3.0 ms  session       FAILED  closed
                                 -> Check the link.
`
	if diff := cmp.Diff(want, table); diff != "" {
		t.Errorf("the steps (-want +got):\n%s", diff)
	}
}
