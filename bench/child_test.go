package bench_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/bench"
)

// There is one CPU profiler in a process, so these tests don't run in parallel.
func TestObeyProfilesBetweenItsOrders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cpu.prof")
	var out bytes.Buffer
	stopped := 0
	bench.Obey(strings.NewReader("profile "+path+"\nprofile-end\n"), &out, func() { stopped++ })
	if got, want := out.String(), "imprint-bench done\nimprint-bench done\n"; got != want {
		t.Errorf("got answers %q, want %q", got, want)
	}
	if stopped != 1 {
		t.Errorf("stop was called %d times, want once, when its orders ended", stopped)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() == 0 {
		t.Errorf("got no profile: %v", err)
	}
}

func TestObeySaysWhatItCannotDo(t *testing.T) {
	var out bytes.Buffer
	path := filepath.Join(t.TempDir(), "cpu.prof")
	missing := filepath.Join(t.TempDir(), "no", "such")
	bench.Obey(strings.NewReader(strings.Join([]string{
		"profile-end", "dance", "profile " + missing, "profile " + path, "profile " + path,
	}, "\n")), &out, func() {})
	answers := strings.Split(strings.TrimSpace(out.String()), "\n")
	for n, want := range []string{`couldn't obey "profile-end"`, `couldn't obey "dance"`, "couldn't make the CPU profile", "done", "couldn't obey"} {
		if n >= len(answers) || !strings.HasPrefix(answers[n], "imprint-bench "+want) {
			t.Errorf("answer %d: got %q, want %q", n, answers, want)
		}
	}
}
