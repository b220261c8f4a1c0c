package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/internal/awscli"
	"github.com/imprint-iot/imprint/internal/foreign"
)

// program is the built imprint, and serving the same with the race detector
// where cgo is on, which only servers are run with: it makes the start of a
// short command take a second. Both are set once, before any test.
var program, serving string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	program = os.Getenv("IMPRINT_TEST_PROGRAM")
	if program != "" {
		serving = program
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "imprint-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "couldn't make a directory for the program:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program = filepath.Join(dir, "imprint")
	serving = program
	err = build(program, "CGO_ENABLED=0")
	if err == nil && cgoWorks() {
		serving = filepath.Join(dir, "imprint-race")
		err = build(serving, "CGO_ENABLED=1", "-race", "-gcflags=modernc.org/sqlite/lib=-race=false", "-gcflags=modernc.org/libc=-race=false")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// cgoWorks says whether the race detector can be built in.
func cgoWorks() bool {
	out, err := exec.Command("go", "env", "CGO_ENABLED", "CC").Output()
	if err != nil {
		return false
	}
	enabled, cc, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	_, err = exec.LookPath(strings.TrimSpace(cc))
	return enabled == "1" && err == nil
}

func build(to, cgo string, flags ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	args := append([]string{"build", "-o", to}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/imprint")...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), cgo)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("couldn't build imprint: %w\n%s", err, out)
	}
	return nil
}

// need lists the programs that a test runs: it ends here where one is missing.
func need(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		toolPath(t, name)
	}
}

// toolPath finds a program that the test needs.
func toolPath(t *testing.T, name string) string {
	t.Helper()
	switch name {
	case "aws":
		return awscli.Program(t)
	case "mosquitto":
		// Servers aren't in every person's PATH.
		return foreign.Program(t, name, "/usr/sbin/mosquitto")
	}
	return foreign.Program(t, name)
}

// toolRun is how a foreign program ended.
type toolRun struct {
	exit   int
	stdout string
	stderr string
}

func (r toolRun) all() string { return r.stdout + r.stderr }

// runTool runs a program to its end; it fails the test when the program can't
// be run or doesn't end. A script may have dozens of commands, and the machine another
// load.
func runTool(t *testing.T, stdin string, env []string, name string, args ...string) toolRun {
	t.Helper()
	path := toolPath(t, name)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = env
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	result := toolRun{stdout: stdout.String(), stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		result.exit = exit.ExitCode()
	default:
		t.Fatalf("couldn't run %s %s: %v\n%s", name, strings.Join(args, " "), err, result.all())
	}
	return result
}
