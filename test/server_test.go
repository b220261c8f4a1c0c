package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

// server is one Imprint server process with its data directory.
type server struct {
	t     *testing.T
	dir   string
	flags []string
	// program is what runs.
	program string
	// settings are environment variables of the process.
	settings []string
	// troubled are words of the errors that a test makes the server log.
	troubled string

	mu     sync.Mutex // guards what a restart changes
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process has ended
	exit   int           // valid then
	stdout *said
	facts  facts

	stderr *said             // of all its processes
	env    map[string]string // what `imprint env` exports
}

// facts are what server.json tells.
type facts struct {
	Account      string `json:"account"`
	Region       string `json:"region"`
	APIURL       string `json:"apiUrl"`
	MQTTAddress  string `json:"mqttAddress"`
	HTTPSAddress string `json:"httpsAddress"`
	CABundle     string `json:"caBundle"`
}

// said collects what a process writes and wakes those who wait for it.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newSaid() *said { return &said{more: make(chan struct{})} }

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	close(s.more)
	s.more = make(chan struct{})
	return len(p), nil
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// wait returns the text once ok accepts it.
func (s *said) wait(t *testing.T, what string, ok func(string) bool) string {
	t.Helper()
	text, err := s.await(t.Context(), patience, ok)
	if err != nil {
		t.Fatalf("waited for %s: %v; got:\n%s", what, err, text)
	}
	return text
}

func (s *said) await(ctx context.Context, limit time.Duration, ok func(string) bool) (string, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		s.mu.Lock()
		text, more := s.text.String(), s.more
		s.mu.Unlock()
		if ok(text) {
			return text, nil
		}
		select {
		case <-more:
		case <-timer.C:
			return text, fmt.Errorf("nothing after %s", limit)
		case <-ctx.Done():
			return text, ctx.Err()
		}
	}
}

// startServer starts a server on an empty directory. It is stopped when the
// test ends, and its log is looked at.
func startServer(t *testing.T, flags ...string) *server {
	t.Helper()
	s := newServer(t, flags...)
	s.start()
	s.readEnv()
	return s
}

// newServer is a server that isn't started yet.
func newServer(t *testing.T, flags ...string) *server {
	t.Helper()
	s := &server{t: t, dir: filepath.Join(t.TempDir(), "data"), flags: flags, program: serving, settings: []string{ownUserIDs()}, stderr: newSaid()}
	t.Cleanup(s.finish)
	return s
}

// ownUserIDs is a setting that gives a server's functions user ids of their own:
// other servers run at the same time, also of other test processes.
func ownUserIDs() string {
	const first, process, room = 400_000_000, 1_800_000, 30_000
	return fmt.Sprint("IMPRINT_FUNCTION_UID_BASE=", first+os.Getpid()%900*process+int(servers.Add(1))%(process/room)*room)
}

var servers atomic.Int64

// cleanEnv is the environment of processes: nothing of the person who runs the
// tests but the path.
func cleanEnv(extra ...string) []string {
	return append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir(), "TMPDIR=" + os.TempDir(), "LC_ALL=C",
		"AWS_PAGER=", "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	}, extra...)
}

// start runs the program and waits until it says that it is ready.
func (s *server) start() {
	s.t.Helper()
	err := s.tryStart()
	if err != nil {
		s.t.Fatalf("%v\n%s", err, s.stderr)
	}
}

func (s *server) tryStart() error {
	args := append([]string{
		"serve", "--data", s.dir, "--mqtt-address", "127.0.0.1:0", "--api-address", "127.0.0.1:0",
		"--https-address", "127.0.0.1:0",
		"--log-level", "debug", "--rsa-key-pool", "1",
	}, s.flags...)
	cmd := exec.Command(s.program, args...)
	cmd.Env = cleanEnv(s.settings...)
	stdout, ended := newSaid(), make(chan struct{})
	cmd.Stdout, cmd.Stderr = stdout, s.stderr
	err := cmd.Start()
	if err != nil {
		return fmt.Errorf("couldn't start the server: %w", err)
	}
	s.mu.Lock()
	s.cmd, s.ended, s.stdout = cmd, ended, stdout
	s.mu.Unlock()
	go func() {
		_ = cmd.Wait()
		s.mu.Lock()
		s.exit = cmd.ProcessState.ExitCode()
		s.mu.Unlock()
		close(ended)
	}()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	_, err = stdout.await(ctx, 2*time.Minute, func(text string) bool { return strings.Contains(text, "attempts") })
	if err != nil {
		return fmt.Errorf("the server didn't get ready: %w", err)
	}
	data, err := os.ReadFile(filepath.Join(s.dir, "server.json"))
	if err != nil {
		return fmt.Errorf("couldn't read where the server is: %w", err)
	}
	var f facts
	err = json.Unmarshal(data, &f)
	if err != nil {
		return fmt.Errorf("couldn't read where the server is: %w", err)
	}
	s.mu.Lock()
	s.facts = f
	s.mu.Unlock()
	return nil
}

// at gives where the server is now.
func (s *server) at() facts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.facts
}

// device is the server's device port as IP address and port.
func (s *server) device() string {
	_, port, err := net.SplitHostPort(s.at().MQTTAddress)
	if err != nil {
		s.t.Fatalf("server.json has the MQTT address %q: %v", s.at().MQTTAddress, err)
	}
	return net.JoinHostPort("127.0.0.1", port)
}

func (s *server) port() string {
	_, port, _ := net.SplitHostPort(s.device())
	return port
}

// greeting is what the server printed at its last start.
func (s *server) greeting() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stdout.String()
}

// signal sends a signal to the process and gives its exit code once it ended.
func (s *server) signal(sig os.Signal) int {
	s.mu.Lock()
	cmd, ended := s.cmd, s.ended
	s.mu.Unlock()
	_ = cmd.Process.Signal(sig)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		s.t.Errorf("the server didn't end within %s of signal %s", patience, sig)
		_ = cmd.Process.Kill()
		<-ended
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exit
}

// running says whether the process lives.
func (s *server) running() bool {
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	if ended == nil {
		return false
	}
	select {
	case <-ended:
		return false
	default:
		return true
	}
}

// finish ends the server and looks at its log.
func (s *server) finish() {
	if s.running() {
		exit := s.signal(syscall.SIGTERM)
		if exit != 0 {
			s.t.Errorf("the server's exit code at SIGTERM: got %d, want 0", exit)
		}
	}
	log := s.stderr.String()
	if s.troubled != "" {
		log = strings.Join(slices.DeleteFunc(strings.SplitAfter(log, "\n"), func(line string) bool { return strings.Contains(line, s.troubled) }), "")
	}
	for _, bad := range []string{"WARNING: DATA RACE", "panic:", "fatal error:", "level=ERROR"} {
		if at := strings.Index(log, bad); at >= 0 {
			s.t.Errorf("the server's log has %q:\n%.4000s", bad, log[at:])
		}
	}
	if secret := s.env["AWS_SECRET_ACCESS_KEY"]; secret != "" && strings.Contains(log, secret) {
		s.t.Error("the server's log has the operator's secret")
	}
	if s.t.Failed() && testing.Verbose() {
		s.t.Logf("end of the server's log:\n%s", log[max(0, len(log)-2000):])
	}
}

// imprint runs a subcommand on the server's data directory.
func (s *server) imprint(t *testing.T, subcommand string, args ...string) toolRun {
	t.Helper()
	return runTool(t, "", cleanEnv(), program, append([]string{subcommand, "--data", s.dir}, args...)...)
}

func (s *server) readEnv() {
	s.t.Helper()
	run := s.imprint(s.t, "env")
	if run.exit != 0 {
		s.t.Fatalf("imprint env: exit code %d\n%s", run.exit, run.all())
	}
	s.env = map[string]string{}
	for line := range strings.Lines(run.stdout) {
		name, value, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if found && strings.HasPrefix(line, "export ") {
			s.env[name] = strings.Trim(value, "'")
		}
	}
}

// shell runs a script in bash after eval "$(imprint env)", with the AWS CLI
// first in the path.
func (s *server) shell(t *testing.T, dir, script string) toolRun {
	t.Helper()
	aws := toolPath(t, "aws")
	env := cleanEnv("IMPRINT_DATA="+s.dir, "PATH="+filepath.Dir(program)+":"+filepath.Dir(aws)+":"+os.Getenv("PATH"))
	return runTool(t, "", env, "bash", "-c", "set -euo pipefail\ncd '"+dir+"'\neval \"$(imprint env)\"\n"+script)
}

// aws runs one command of the AWS CLI and gives its output.
func (s *server) aws(t *testing.T, dir, command string) string {
	t.Helper()
	run := s.shell(t, dir, "aws "+command)
	if run.exit != 0 {
		t.Fatalf("aws %s: exit code %d\n%s", command, run.exit, run.all())
	}
	return strings.TrimSpace(run.stdout)
}

// attempt is what `imprint explain --json` prints of one connection.
type attempt struct {
	Address       string      `json:"address"`
	ServerName    string      `json:"serverName"`
	TLSVersion    string      `json:"tlsVersion"`
	CertificateID string      `json:"certificateId"`
	Thing         string      `json:"thingName"`
	ClientID      string      `json:"clientId"`
	Began         float64     `json:"began"`
	Ended         float64     `json:"ended"`
	Outcome       string      `json:"outcome"`
	Code          string      `json:"code"`
	Repeats       int         `json:"repeats"`
	Steps         []traceStep `json:"steps"`
}

type traceStep struct {
	Name    string `json:"step"`
	Verdict string `json:"verdict"`
	Code    string `json:"code"`
	Detail  string `json:"detail"`
	Fix     string `json:"fix"`
	Wire    string `json:"wire"`
}

// explain gives the attempts of a device, newest first.
func (s *server) explain(t *testing.T, who string) []attempt {
	t.Helper()
	run := s.imprint(t, "explain", "--json", who)
	if run.exit != 0 && strings.TrimSpace(run.stdout) != "[]" {
		t.Fatalf("imprint explain %s: exit code %d\n%s", who, run.exit, run.all())
	}
	var list []attempt
	err := json.Unmarshal([]byte(run.stdout), &list)
	if err != nil {
		t.Fatalf("imprint explain %s: %v\n%s", who, err, run.stdout)
	}
	slices.Reverse(list) // the command tells them in the order in which they happened
	return list
}

// attempts gives the newest attempts of all devices, newest first.
func (s *server) attempts(t *testing.T, limit int) []attempt {
	t.Helper()
	run := s.imprint(t, "attempts", "--json", "--limit", strconv.Itoa(limit))
	if run.exit != 0 {
		t.Fatalf("imprint attempts: exit code %d\n%s", run.exit, run.all())
	}
	var list []attempt
	err := json.Unmarshal([]byte(run.stdout), &list)
	if err != nil {
		t.Fatalf("imprint attempts: %v\n%.300s", err, run.stdout)
	}
	return list
}

// awaitExplained asks until the newest n attempts of a device have ended: a
// device may notice the end of its connection before the server has written it
// down. One that is refused can't be found before that, so it mustn't be under way.
func (s *server) awaitExplained(t *testing.T, who string, n int) []attempt {
	t.Helper()
	s.awaitRefusals(t)
	deadline := time.Now().Add(patience)
	for {
		list := s.explain(t, who)
		ended := 0
		for _, a := range list[:min(n, len(list))] {
			if a.Ended > 0 {
				ended++
			}
		}
		if ended >= n {
			return list[:n]
		}
		if time.Now().After(deadline) {
			t.Errorf("imprint explain %s: got %d attempt(s), %d of the newest %d ended; want %d ended:\n%+v", who, len(list), ended, n, n, list)
			return nil
		}
	}
}
