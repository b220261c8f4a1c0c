package test

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/google/go-cmp/cmp"
)

// nextCommands are the commands that the greeting says to type.
func nextCommands(t *testing.T, greeting string) []string {
	t.Helper()
	_, rest, found := strings.Cut(greeting, "Next, in another terminal:")
	if !found {
		t.Fatalf("the greeting names no next commands:\n%s", greeting)
	}
	var list []string
	for line := range strings.Lines(rest) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, line)
		}
	}
	return list
}

func TestServeMakesEverythingAtItsFirstStartAndSaysWhatToTypeNext(t *testing.T) {
	need(t, "bash", "aws", "timeout")
	t.Parallel()
	s := startServer(t)
	greeting := s.greeting()
	for _, want := range []string{s.at().MQTTAddress, s.at().APIURL, s.dir, s.at().CABundle, "/readyz", "/metrics"} {
		if !strings.Contains(greeting, want) {
			t.Errorf("the greeting lacks %q:\n%s", want, greeting)
		}
	}
	commands := nextCommands(t, greeting)
	if len(commands) != 3 {
		t.Fatalf("next commands: got %q, want three", commands)
	}
	// Typed as they stand; the third one goes on until it is stopped.
	aws := toolPath(t, "aws")
	path := "PATH=" + filepath.Dir(aws) + ":" + os.Getenv("PATH")
	run := runTool(t, "", cleanEnv(path), "bash", "-c", "set -e\n"+commands[0]+"\n"+commands[1])
	if run.exit != 0 || !regexp.MustCompile(`"registrationCode": "[0-9a-f]{64}"`).MatchString(run.stdout) {
		t.Errorf("the first two commands: got exit code %d, want 0 and a registration code\n%s", run.exit, run.all())
	}
	run = runTool(t, "", cleanEnv(path), "timeout", "--signal=TERM", "3", "bash", "-c", "exec "+commands[2])
	if run.exit != 124 || run.stderr != "" {
		t.Errorf("the third command: got exit code %d, want it to run until stopped (124)\n%s", run.exit, run.all())
	}
}

func TestEnvMakesThePlainAWSCLIWork(t *testing.T) {
	need(t, "bash", "aws")
	t.Parallel()
	s := startServer(t)
	run := s.shell(t, t.TempDir(), `
test "$(aws iot describe-endpoint --endpoint-type iot:Data-ATS --query endpointAddress --output text)" = "${IMPRINT_MQTT%:*}"
aws iot create-thing --thing-name 'pump:1' --attribute-payload '{"attributes":{"site":"north"}}' --query thingArn --output text
aws --output text iot describe-thing --thing-name pump:1 --query attributes.site
test -r "$IMPRINT_CA"`)
	want := arn + "thing/pump:1\nnorth\n"
	if run.exit != 0 || run.stdout != want {
		t.Errorf("AWS CLI after eval: got exit code %d and %q, want 0 and %q\n%s", run.exit, run.stdout, want, run.stderr)
	}
}

// scan calls fn with each file of the data directory.
func scan(t *testing.T, dir string, fn func(path string, info fs.FileInfo, data []byte)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.IsDir() {
			fn(path, info, nil)
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fn(path, info, data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSecretsAreNeitherLoggedNorInClearOnDisk(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	keys := must(s.sdk(t).CreateKeysAndCertificate(t.Context(), &iot.CreateKeysAndCertificateInput{SetAsActive: true}))(t)
	private := aws.ToString(keys.KeyPair.PrivateKey)
	block, _ := pem.Decode([]byte(private))
	if block == nil {
		t.Fatalf("CreateKeysAndCertificate gave no PEM key: %.30q", private)
	}
	// What would give secrets away, in the forms in which they could stand there.
	secret := s.env["AWS_SECRET_ACCESS_KEY"]
	if len(secret) != 40 {
		t.Fatalf("length of the operator's secret: got %d, want 40", len(secret))
	}
	raw, err := base64.StdEncoding.DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	// The private half of a key stands behind its public one; the end is enough.
	tail := block.Bytes[len(block.Bytes)-48:]
	line := strings.Split(private, "\n")[3]
	forms := map[string][]byte{
		"the operator's secret": []byte(secret), "the operator's secret, decoded": raw, "a PEM private key": []byte("PRIVATE KEY-----"),
		"the device's private key": tail, "a line of the device's private key": []byte(line),
	}
	look := func() {
		scan(t, s.dir, func(path string, info fs.FileInfo, data []byte) {
			// The log's library gives its own modes, in a directory that is closed to others.
			closed := strings.Contains(path, "/issuance-log/log/")
			public := info.IsDir() || strings.HasSuffix(path, ".pem") || closed
			switch mode := info.Mode().Perm(); {
			case info.IsDir() && mode != 0o700 && !closed:
				t.Errorf("mode of %s: got %o, want 700", path, mode)
			case !public && mode&0o077 != 0:
				t.Errorf("mode of %s: got %o, want nothing for others", path, mode)
			}
			for what, form := range forms {
				if bytes.Contains(data, form) {
					t.Errorf("%s holds %s", path, what)
				}
			}
		})
	}
	look()
	if exit := s.signal(syscall.SIGTERM); exit != 0 {
		t.Errorf("exit code: got %d, want 0", exit)
	}
	look()
	log := s.stderr.String() + s.greeting()
	for what, form := range forms {
		if strings.Contains(log, string(form)) {
			t.Errorf("the log holds %s", what)
		}
	}
}

func TestASecondStartKeepsKeysRootAndRegistry(t *testing.T) {
	need(t, "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	f := s.line(t, "Second start")
	d := f.device(t, "meter-1", "P-256")
	s.join(t, d)
	before, env, root := s.registry(t), s.env, readFile(t, s.at().CABundle)
	s.signal(syscall.SIGTERM)
	s.start()
	s.readEnv()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "IMPRINT_CA", "AWS_REGION"} {
		if s.env[name] != env[name] {
			t.Errorf("%s changed over a restart", name)
		}
	}
	if readFile(t, s.at().CABundle) != root {
		t.Error("the server's root changed over a restart")
	}
	if diff := cmp.Diff(before, s.registry(t)); diff != "" {
		t.Errorf("the registry changed over a restart (-before +after):\n%s", diff)
	}
	run := s.publish(t, d, d.name, "d/meter-1/x")
	if run.exit != 0 {
		t.Errorf("a known device after a restart: exit code %d\n%s", run.exit, run.all())
	}
}
