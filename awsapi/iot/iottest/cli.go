package iottest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/awscli"
)

// Tool finds a foreign program that a test needs. Without it the test is
// skipped, and fails where all tools must be there: CI=true or IMPRINT_CI=1.
func Tool(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" || os.Getenv("IMPRINT_CI") == "1" {
		t.Fatalf("none of %q is installed, and this environment must have it", names)
	}
	t.Skipf("none of %q is installed", names)
	return ""
}

// host runs all commands of a test program. It ends with it.
var host = sync.OnceValues(awscli.Start)

// hostedCLI gives what runs the system's AWS CLI; one that is elsewhere runs as it is.
func hostedCLI(t testing.TB) string {
	t.Helper()
	path := Tool(t, "/usr/bin/aws", "aws")
	if path != "/usr/bin/aws" {
		return path
	}
	cli, err := host()
	if err != nil {
		t.Fatal(err)
	}
	return cli.Path()
}

// CLI is the AWS CLI of the machine, asking a server for one tenant. It sees no
// configuration but its own.
type CLI struct {
	path, dir, url string
	env            []string
}

// CLI prepares the AWS CLI; dir is where it runs, for file:// arguments.
func (s *Server) CLI(t testing.TB, tenant imprint.Tenant, dir string) *CLI {
	t.Helper()
	id, secret := s.Key(tenant.Account)
	return &CLI{path: hostedCLI(t), dir: dir, url: s.URL, env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "AWS_CONFIG_FILE=" + filepath.Join(dir, "none"),
		"AWS_SHARED_CREDENTIALS_FILE=" + filepath.Join(dir, "none"), "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ACCESS_KEY_ID=" + id, "AWS_SECRET_ACCESS_KEY=" + secret, "AWS_DEFAULT_REGION=" + string(tenant.Region),
		"AWS_CA_BUNDLE=" + s.CAFile, "AWS_PAGER=", "AWS_MAX_ATTEMPTS=1",
	}}
}

// IoT runs aws iot with arguments and gives what it wrote to standard output
// and standard error, and whether it succeeded.
func (c *CLI) IoT(t testing.TB, args ...string) (stdout, stderr string, ok bool) {
	t.Helper()
	args = append([]string{"--endpoint-url", c.url, "--output", "json", "iot"}, args...)
	cmd := exec.CommandContext(t.Context(), c.path, args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	var out, failure bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failure
	err := cmd.Run()
	return out.String(), failure.String(), err == nil
}

// MustIoT is IoT for commands that must succeed.
func (c *CLI) MustIoT(t testing.TB, args ...string) string {
	t.Helper()
	stdout, stderr, ok := c.IoT(t, args...)
	if !ok {
		t.Fatalf("aws iot %q failed: %s", args, stderr)
	}
	return stdout
}
