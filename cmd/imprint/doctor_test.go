package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/doctor"
	"github.com/imprint-iot/imprint/internal/foreign"
)

// Colours are for terminals whose person didn't refuse them.
func TestColoursAreForTerminals(t *testing.T) {
	script := foreign.Program(t, "script") // gives a command a terminal
	// The test's own program is imprint when it is called so.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := t.TempDir() + "/imprint"
	err = os.Symlink(self, name)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		env  string
		want bool
	}{{"TERM=xterm", true}, {"TERM=dumb", false}, {"NO_COLOR=1", false}} {
		cmd := exec.Command(script, "-qec", name+" doctor --cert none.pem --key none.key --endpoint localhost:1", os.DevNull)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TERM=xterm", tt.env}
		out, _ := cmd.CombinedOutput() // something failed: the exit code says so
		if !strings.Contains(string(out), "FileUnreadable") {
			t.Fatalf("%s: got %q, want the report", tt.env, out)
		}
		if got := strings.Contains(string(out), "\x1b["); got != tt.want {
			t.Errorf("%s: colours: got %t, want %t\n%q", tt.env, got, tt.want, out)
		}
	}
}

// A report is columns, and a fix stands below its check.
func TestTheSheetHasColumns(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &sheet{out: &out, paint: painterFor(&out)}
	s.line(doctor.Check{Name: "tcp", Verdict: doctor.Failed, Code: doctor.TCPRefused, Detail: "refused", Fix: "start it"})
	s.line(doctor.Check{Name: "tls", Verdict: doctor.Skipped, Detail: "not reached"})
	s.end(&doctor.Report{CertificateID: "abc", Checks: []doctor.Check{{Verdict: doctor.OK}}, Healthy: true})
	want := "FAILED   tcp                          TCPRefused: refused\n" +
		"                                       -> start it\n"[1:] +
		"-        tls                          not reached\n" +
		"\ncertificate abc\nnothing failed, 0 warning(s), 0 check(s) skipped\n"
	if got := out.String(); got != want || s.err != nil {
		t.Errorf("got %v and\n%s\nwant\n%s", s.err, got, want)
	}
}
