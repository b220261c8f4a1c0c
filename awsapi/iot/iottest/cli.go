package iottest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/awscli"
)

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
	return &CLI{path: awscli.Program(t), dir: dir, url: s.URL, env: []string{
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
