package keys_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/foreign"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki/keys"
)

// scratch is a directory for what all tests of a run share.
var scratch string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	var err error
	scratch, err = os.MkdirTemp("", "keys-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	// One configuration of SoftHSM for the run: it stands in the environment, which
	// helpers inherit. Each test has a token of its own.
	conf := filepath.Join(scratch, "softhsm2.conf")
	err = os.WriteFile(conf, []byte("directories.tokendir = "+tokenDir()+"\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"), 0o600)
	if err == nil {
		err = os.Mkdir(tokenDir(), 0o700)
	}
	if err == nil {
		err = os.Setenv("SOFTHSM2_CONF", conf)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if code == 0 {
		err = goleak.Find()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

func tokenDir() string { return filepath.Join(scratch, "tokens") }

// tool finds a program.
func tool(t testing.TB, names ...string) string {
	t.Helper()
	return foreign.Program(t, names...)
}

func missing(t testing.TB, name string) {
	t.Helper()
	foreign.Missing(t, name, "scripts/test-tools installs it")
}

// sh runs a program and gives what it says.
func sh(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := try(t, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

func try(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool(t, name), args...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func put(t testing.TB, path string, data []byte) {
	t.Helper()
	err := os.WriteFile(path, data, 0o600)
	if err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	err := os.Remove(path)
	if err != nil {
		t.Fatal(err)
	}
}

func parse(t testing.TB, text string) keys.URI {
	t.Helper()
	uri, err := keys.ParseURI(text)
	if err != nil {
		t.Fatalf("ParseURI(%q): %v", text, err)
	}
	return uri
}

func sealer(t testing.TB, fill byte) imprint.Sealer {
	t.Helper()
	k, err := seal.ParseMasterKey(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, seal.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	return seal.New(k)
}

// patience is how long a test waits on a busy machine for what comes for certain.
const patience = 2 * time.Minute

// newStore makes a Store for a test, with a deadline that a busy machine keeps.
func newStore(t testing.TB, edit ...func(*keys.Config)) *keys.Store {
	t.Helper()
	config := keys.Config{Sealer: sealer(t, 1), Timeout: 30 * time.Second}
	for _, e := range edit {
		e(&config)
	}
	s := keys.NewStore(config)
	t.Cleanup(func() {
		err := s.Close()
		if err != nil {
			t.Errorf("couldn't close the store: %v", err)
		}
	})
	return s
}

func open(t testing.TB, s *keys.Store, uri keys.URI) keys.Signer {
	t.Helper()
	signer, err := s.Open(t.Context(), uri)
	if err != nil {
		t.Fatalf("%v (%s)", err, imprint.HintOf(err))
	}
	closeLater(t, signer)
	return signer
}

func generate(t testing.TB, s *keys.Store, uri keys.URI, kind keys.Kind) (keys.Signer, keys.URI) {
	t.Helper()
	signer, made, err := s.Generate(t.Context(), uri, kind)
	if err != nil {
		t.Fatalf("%v (%s)", err, imprint.HintOf(err))
	}
	closeLater(t, signer)
	return signer, made
}

func closeLater(t testing.TB, signer keys.Signer) {
	t.Cleanup(func() {
		err := signer.Close()
		if err != nil {
			t.Errorf("couldn't close the key: %v", err)
		}
	})
}

// expect checks an error's code and that its text and hint have certain words.
func expect(t testing.TB, err error, code imprint.Code, words ...string) {
	t.Helper()
	if got := imprint.CodeOf(err); got != code {
		t.Errorf("got code %q (%v), want %q", got, err, code)
		return
	}
	text := err.Error() + "\n" + imprint.HintOf(err)
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("got %q, want %q in it", text, word)
		}
	}
}

// within fails the test when f takes longer; the bound is far above what it should take.
func within(t testing.TB, bound time.Duration, what string, f func()) {
	t.Helper()
	begun := time.Now()
	f()
	if took := time.Since(begun); took > bound {
		t.Errorf("%s took %v, want at most %v", what, took, bound)
	}
}

// eventually repeats f until it gives no error. It is for what comes back by itself
// after a pause that the test can't see.
func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// helper builds imprint-pkcs11, once for all tests.
var helper = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "imprint-pkcs11")
	args := []string{"build", "-tags", "pkcs11", "-o", path}
	if withRace {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "github.com/imprint-iot/imprint/cmd/imprint-pkcs11")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("couldn't build imprint-pkcs11: %w\n%s", err, out)
	}
	return path, nil
})

// faultyModule builds the module that does harm on request, once for all tests.
var faultyModule = sync.OnceValues(func() (string, error) {
	headers, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/miekg/pkcs11").Output()
	if err != nil {
		return "", fmt.Errorf("couldn't find PKCS#11's headers: %w", err)
	}
	path := filepath.Join(scratch, "faulty.so")
	out, err := exec.Command("gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-I"+strings.TrimSpace(string(headers)),
		"-DSOFTHSM=\""+softHSM+"\"", "-o", path, "testdata/faulty.c", "-ldl").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("couldn't build the faulty module: %w\n%s", err, out)
	}
	return path, nil
})

// hsm is a SoftHSM token with a module of its own that can be told to misbehave.
type hsm struct {
	t      testing.TB
	label  string
	pin    string
	dir    string // of module, PIN file and what the module is told
	module string
}

// initTokens keeps tests from initialising tokens side by side: SoftHSM picks a free
// slot first and takes it later.
var initTokens sync.Mutex

func newHSM(t testing.TB) *hsm {
	t.Helper()
	tool(t, "softhsm2-util")
	tool(t, "gcc")
	_, err := os.Stat(softHSM)
	if err != nil {
		missing(t, "softhsm2")
	}
	h := &hsm{t: t, label: "t-" + filepath.Base(t.TempDir()) + fmt.Sprintf("-%d", time.Now().UnixNano()%1e9), pin: "secret-4711", dir: t.TempDir()}
	initTokens.Lock()
	defer initTokens.Unlock()
	sh(t, "softhsm2-util", "--init-token", "--free", "--label", h.label, "--so-pin", "so-"+h.pin, "--pin", h.pin)
	built, err := faultyModule()
	if err != nil {
		t.Fatal(err)
	}
	h.module = filepath.Join(h.dir, "faulty.so")
	code, err := os.ReadFile(built)
	if err != nil {
		t.Fatal(err)
	}
	put(t, h.module, code)
	h.writePIN(h.pin + "\n")
	return h
}

func (h *hsm) writePIN(text string) { put(h.t, h.pinFile(), []byte(text)) }
func (h *hsm) pinFile() string      { return filepath.Join(h.dir, "pin") }

// tell makes the module misbehave; heal ends that.
func (h *hsm) tell(what string) { put(h.t, filepath.Join(h.dir, what), nil) }
func (h *hsm) heal(what string) { remove(h.t, filepath.Join(h.dir, what)) }

func (h *hsm) uri(attributes string) keys.URI {
	h.t.Helper()
	return parse(h.t, h.text(attributes))
}

func (h *hsm) text(attributes string) string {
	if attributes != "" {
		attributes = ";" + attributes
	}
	return "pkcs11:token=" + h.label + attributes + "?module-path=" + h.module + "&pin-source=file:" + h.pinFile()
}

func (h *hsm) logins() int {
	data, err := os.ReadFile(filepath.Join(h.dir, "logins"))
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	return len(data)
}

// tool runs OpenSC's pkcs11-tool on the token, with SoftHSM itself.
func (h *hsm) tool(args ...string) string {
	h.t.Helper()
	return sh(h.t, "pkcs11-tool", append([]string{"--module", softHSM, "--token-label", h.label, "--login", "--pin", h.pin}, args...)...)
}

// store makes a Store that uses imprint-pkcs11 as built from this tree.
func (h *hsm) store(edit ...func(*keys.Config)) *keys.Store {
	h.t.Helper()
	path, err := helper()
	if err != nil {
		h.t.Fatal(err)
	}
	return newStore(h.t, append([]func(*keys.Config){func(c *keys.Config) { c.PKCS11Helper = path }}, edit...)...)
}

// softTPM is a software TPM in a process of its own.
type softTPM struct {
	t      testing.TB
	dir    string
	socket string
	cmd    *exec.Cmd
}

func newTPM(t testing.TB) *softTPM {
	t.Helper()
	tool(t, "swtpm")
	// A socket's path must be short.
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatal(err)
	}
	p := &softTPM{t: t, dir: dir, socket: filepath.Join(dir, "s")}
	p.start()
	t.Cleanup(func() {
		p.stop()
		err := os.RemoveAll(dir)
		if err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *softTPM) start() {
	p.t.Helper()
	p.cmd = exec.Command(tool(p.t, "swtpm"), "socket", "--tpm2", "--tpmstate", "dir="+p.dir, "--ctrl", "type=unixio,path="+p.socket+".ctrl",
		"--server", "type=unixio,path="+p.socket, "--flags", "not-need-init,startup-clear")
	err := p.cmd.Start()
	if err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, "swtpm doesn't listen", func() error {
		conn, err := net.Dial("unix", p.socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func (p *softTPM) stop() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it was killed
	p.cmd = nil
	_ = os.Remove(p.socket)
	_ = os.Remove(p.socket + ".ctrl")
}

func (p *softTPM) uri(front, query string) keys.URI {
	p.t.Helper()
	return parse(p.t, "tpm:"+front+"?device=unix:"+p.socket+query)
}

// tool runs one of tpm2-tools.
func (p *softTPM) tool(name string, args ...string) string {
	p.t.Helper()
	p.t.Helper()
	out, err := p.try(name, args...)
	if err != nil {
		p.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

func (p *softTPM) try(name string, args ...string) (string, error) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), tool(p.t, name), args...)
	cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI=swtpm:path="+p.socket, "TPM2OPENSSL_TCTI=swtpm:path="+p.socket)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
