package awscli_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/internal/awscli"
	"github.com/imprint-iot/imprint/internal/foreign"
)

func start(t *testing.T) *awscli.CLI {
	t.Helper()
	foreign.Program(t, "/usr/bin/aws")
	cli, err := awscli.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := cli.Close()
		if err != nil {
			t.Errorf("couldn't end the host: %v", err)
		}
	})
	return cli
}

// run gives what a command says and its exit status.
func run(t *testing.T, path, dir, stdin string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = []string{"AWS_ACCESS_KEY_ID=AKIA", "AWS_SECRET_ACCESS_KEY=secret", "AWS_DEFAULT_REGION=eu-west-1", "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1", "HOME=" + dir}
	cmd.Stdin = strings.NewReader(stdin)
	var out, failed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failed
	_ = cmd.Run()
	return out.String(), failed.String(), cmd.ProcessState.ExitCode()
}

// TestTheHostedCLISaysWhatTheProgramSays ensures that output, errors, exit status,
// directory, input and environment are those of the program itself.
func TestTheHostedCLISaysWhatTheProgramSays(t *testing.T) {
	t.Parallel()
	cli := start(t)
	dir := t.TempDir()
	err := os.WriteFile(filepath.Join(dir, "in.json"), []byte(`{"thingName":"é"}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"--version"},
		{"iot", "create-thing", "--generate-cli-skeleton"},
		{"iot", "create-thing", "--cli-input-json", "file://in.json", "--endpoint-url", "http://127.0.0.1:1", "--cli-connect-timeout", "1"},
		{"iot", "create-thing", "--cli-input-json", "file:///dev/stdin", "--generate-cli-skeleton", "output"},
		{"configure", "list"},
		{"iot", "no-such-command"},
		{"iot", "create-thing"},
	} {
		out, failed, status := run(t, "/usr/bin/aws", dir, `{"thingName":"x"}`, args...)
		hostedOut, hostedFailed, hostedStatus := run(t, cli.Path(), dir, `{"thingName":"x"}`, args...)
		if out != hostedOut || failed != hostedFailed || status != hostedStatus {
			t.Errorf("aws %s: got %d\n%s%s\nwant %d\n%s%s", strings.Join(args, " "), hostedStatus, hostedOut, hostedFailed, status, out, failed)
		}
	}
}

// TestManyCommandsRunAtOnce ensures that each gets its own answer, and that one whose
// client is killed ends.
func TestManyCommandsRunAtOnce(t *testing.T) {
	t.Parallel()
	cli := start(t)
	dir := t.TempDir()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			out, failed, status := run(t, cli.Path(), dir, "", "--version")
			if status != 0 || !strings.HasPrefix(out, "aws-cli/") {
				t.Errorf("got %d\n%s%s", status, out, failed)
			}
		})
	}
	all.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	// It waits for its input, which doesn't end.
	cmd := exec.CommandContext(ctx, cli.Path(), "iot", "create-thing", "--cli-input-json", "file:///dev/stdin")
	cmd.Dir, cmd.Stdout = dir, write
	input, never, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer never.Close()
	cmd.Stdin = input
	_ = cmd.Run()
	_ = input.Close()
	_ = write.Close()
	// The end of the pipe comes when nobody has it open any more.
	n, err := read.Read(make([]byte, 1))
	if n != 0 || err == nil {
		t.Errorf("got %d bytes, %v", n, err)
	}
}
