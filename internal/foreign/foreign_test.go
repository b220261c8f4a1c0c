package foreign_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/imprint-iot/imprint/internal/foreign"
)

// outcome is how a test ended, as far as it has told.
type outcome struct {
	testing.TB // panics at whatever isn't below

	failed, skipped string
}

func (*outcome) Helper() {}

func (o *outcome) Fatalf(format string, args ...any) {
	o.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (o *outcome) Skipf(format string, args ...any) {
	o.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// ask asks for programs as a test does.
func ask(names ...string) (found string, ended outcome) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		found = foreign.Program(&ended, names...)
	}()
	<-done
	return found, ended
}

// TestAMissingProgramFailsWhereAllArePromised ensures that no way to set IMPRINT_CI or
// CI lets a test be skipped, and that without them it is, with what to install.
func TestAMissingProgramFailsWhereAllArePromised(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, row := range []struct {
		ours, all string
		fails     bool
	}{
		{"1", "", true},
		{"", "true", true},
		{"true", "", true},
		{"", "1", true},
		{"0", "yes", true},
		{"", "", false},
		{"0", "false", false},
	} {
		t.Run(fmt.Sprintf("IMPRINT_CI=%s CI=%s", row.ours, row.all), func(t *testing.T) {
			t.Setenv("IMPRINT_CI", row.ours)
			t.Setenv("CI", row.all)
			want := outcome{skipped: "mosquitto_pub is missing: install the package mosquitto-clients"}
			if row.fails {
				want = outcome{failed: "mosquitto_pub is missing, and this environment must have it: install the package mosquitto-clients"}
			}
			found, got := ask("mosquitto_pub")
			if found != "" || got != want {
				t.Errorf("got %q, %+v, want %+v", found, got, want)
			}
		})
	}
}

// TestTheFirstProgramThatIsThereIsTaken ensures that the order of names is that of
// preference, and that a test that has its program goes on.
func TestTheFirstProgramThatIsThereIsTaken(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	for _, name := range []string{"second", "third"} {
		err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o700)
		if err != nil {
			t.Fatal(err)
		}
	}
	found, got := ask("/nowhere/first", "second", "third")
	if want := filepath.Join(dir, "second"); found != want || got != (outcome{}) {
		t.Errorf("got %q, %+v, want %q", found, got, want)
	}
}
