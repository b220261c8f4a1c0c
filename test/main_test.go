package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/internal/awscli"
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

// packages are where Debian keeps the programs that the tests need.
var packages = map[string]string{
	"openssl": "openssl", "mosquitto_pub": "mosquitto-clients", "mosquitto_sub": "mosquitto-clients",
	"curl": "curl", "/usr/bin/python3": "python3",
	"mosquitto": "mosquitto", "node": "nodejs", "aws": "awscli", "bash": "bash", "timeout": "coreutils", "stdbuf": "coreutils",
}

// need gives the paths of programs. Where one is missing the test is skipped,
// or fails where IMPRINT_CI or CI is set.
func need(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		_, err := toolPath(name)
		if err == nil {
			continue
		}
		message := fmt.Sprintf("%s is missing: install the package %s", name, packages[name])
		if mustHaveAll() {
			t.Fatal(message)
		}
		t.Skip(message)
	}
}

func mustHaveAll() bool {
	for _, name := range []string{"IMPRINT_CI", "CI"} {
		value := os.Getenv(name)
		if value != "" && value != "0" && value != "false" {
			return true
		}
	}
	return false
}

// host runs the commands of the AWS CLI. It ends with the test program.
var host = sync.OnceValues(awscli.Start)

// toolPath finds a program. Of several AWS CLIs, the system's is meant: others
// in the PATH may be shims without one behind them.
func toolPath(name string) (string, error) {
	if name == "aws" {
		info, err := os.Stat("/usr/bin/aws")
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			cli, err := host()
			if err != nil {
				return "", err
			}
			return cli.Path(), nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil && name == "mosquitto" {
		// Servers aren't in every person's PATH.
		path, err = exec.LookPath("/usr/sbin/mosquitto")
	}
	if err != nil {
		return "", fmt.Errorf("couldn't find %s: %w", name, err)
	}
	return path, nil
}

// toolRun is how a foreign program ended.
type toolRun struct {
	exit   int
	stdout string
	stderr string
}

func (r toolRun) all() string { return r.stdout + r.stderr }

// runTool runs a program to its end; it fails the test when the program can't
// be run or doesn't end.
func runTool(t *testing.T, stdin string, env []string, name string, args ...string) toolRun {
	t.Helper()
	path, err := toolPath(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = env
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
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
