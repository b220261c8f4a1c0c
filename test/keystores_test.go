package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/internal/foreign"
	"github.com/imprint-iot/imprint/internal/ownport"
)

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// hsm is a SoftHSM token behind a module that can be told to do harm.
type hsm struct {
	dir, module, pin string
	settings         []string // of the server
}

func newHSM(t *testing.T) *hsm {
	t.Helper()
	need(t, "softhsm2-util", "gcc", "go")
	_, err := os.Stat(softHSM)
	if err != nil {
		foreign.Missing(t, "softhsm2", "scripts/test-tools installs it")
	}
	h := &hsm{dir: t.TempDir(), pin: "pin-of-the-token-4711"}
	h.module = filepath.Join(h.dir, "faulty.so")
	helper, conf := filepath.Join(h.dir, "imprint-pkcs11"), filepath.Join(h.dir, "softhsm2.conf")
	writeFile(t, conf, "directories.tokendir = "+filepath.Join(h.dir, "tokens")+"\nobjectstore.backend = file\nlog.level = ERROR\n")
	h.settings = []string{"SOFTHSM2_CONF=" + conf, "IMPRINT_PKCS11_HELPER=" + helper, "IMPRINT_HSM_PIN=" + h.pin}
	// The go command has settings of the person's own.
	run := runTool(t, "", append(os.Environ(), "CGO_ENABLED=1", "SOFTHSM2_CONF="+conf), "bash", "-c", fmt.Sprintf(`set -eu
mkdir %[1]s/tokens
go build -tags pkcs11 -o %[2]s ../cmd/imprint-pkcs11
gcc -shared -fPIC -O1 -I"$(go list -m -f '{{.Dir}}' github.com/miekg/pkcs11)" '-DSOFTHSM="%[3]s"' -o %[4]s ../pki/keys/testdata/faulty.c -ldl
softhsm2-util --init-token --free --label imprint --so-pin so-%[5]s --pin %[5]s`, h.dir, helper, softHSM, h.module, h.pin))
	if run.exit != 0 {
		t.Fatalf("exit code %d\n%s", run.exit, run.all())
	}
	return h
}

// store gives --ca-key-store's value.
func (h *hsm) store(name, source string) string {
	return name + "=pkcs11:token=imprint?module-path=" + h.module + "&pin-source=" + source
}

// caScript are functions of scripts about CAs.
const caScript = `
request() { openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/O=Acme/CN=$1" -keyout $1.key -out $1.csr 2>/dev/null; }
issue() { request $2; imprint ca issue $1 --csr $2.csr --profile operational --out $2.pem; }
# refused WORDS COMMAND... wants a refusal with the words.
refused() {
  if "${@:2}" >out.txt 2>err.txt; then echo "$* went through: $(cat out.txt)"; exit 9; fi
  grep -q "$1" err.txt || { echo "wanted $1 of $*:"; cat err.txt; exit 9; }
}
`

func (s *server) caScript(t *testing.T, dir, script string) string {
	t.Helper()
	run := s.shell(t, dir, caScript+script)
	if run.exit != 0 {
		t.Fatalf("exit code %d\n%s", run.exit, run.all())
	}
	return run.stdout
}

// TestAKeyInAnHSMCarriesAWholeCA: made in the module, it signs certificates, CRLs and OCSP
// responders that openssl verifies, also after a restart.
func TestAKeyInAnHSMCarriesAWholeCA(t *testing.T) {
	need(t, "bash", "openssl", "curl")
	t.Parallel()
	h := newHSM(t)
	dir := t.TempDir()
	door := ownport.Address(t)
	disk := filepath.Join(h.dir, "disk") + "/"
	err := os.Mkdir(disk, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, "--ca-key-store", h.store("hsm", "env:IMPRINT_HSM_PIN"), "--ca-key-store", "disk=file:"+disk, "--ca-key-timeout", "5s",
		"--ca-key-store", h.store("theirs@111111111111", "env:IMPRINT_HSM_PIN"), "--pki-address", door, "--pki-url", "http://"+door)
	s.settings = append(s.settings, h.settings...)
	s.start()
	s.readEnv()
	said := s.caScript(t, dir, `
imprint ca keys
imprint ca create --root --name root --subject '/C=DE/O=Acme/CN=Acme root' --key hsm:root --key-kind p384 --crl --ocsp | grep '^key'
imprint ca create --parent root --name line7 --subject '/O=Acme/CN=Acme line 7' --key hsm:line7 --crl --ocsp | grep '^status'
imprint ca create --parent root --name line8 --subject '/O=Acme/CN=Acme line 8' --key disk:line8 --key-kind rsa2048 | grep '^key'
imprint ca cert root --out root.pem; imprint ca cert line7 --out line7.pem; imprint ca cert line7 --chain --out chain.pem; imprint ca cert line8 --chain --out chain8.pem
issue line7 good; issue line7 bad; issue line8 eight
openssl verify -x509_strict -CAfile root.pem -untrusted chain.pem good.pem bad.pem
openssl verify -x509_strict -CAfile root.pem -untrusted chain8.pem eight.pem
imprint ca keys hsm | sed 's/;id=[^ ]*//; s/ CA .*/ CA/; s/  */ /g' | sort
# Places that the operator didn't name can't be reached, nor keys of other accounts.
refused 'InvalidRequestException' imprint ca create --root --subject /CN=x --key 'pkcs11:token=imprint;object=x?module-path=/tmp/x.so'
refused 'InvalidRequestException' imprint ca create --root --subject /CN=x --key disk:../x
refused 'no such key store' imprint ca create --root --subject /CN=x --key other:x
refused 'for account' imprint ca create --root --subject /CN=x --key theirs:x
# One key is one CA's, and none is made where the creation can't come to an end.
refused 'that of certificate authority root' imprint ca create --root --subject /CN=x --key hsm:root --existing-key
refused 'that of an authority already' imprint ca adopt --cert line7.pem --key hsm:line7
refused 'such a key already' imprint ca create --root --subject /CN=x --key hsm:root
refused "doesn't exist" imprint ca create --root --subject /CN=x --key hsm:x --profile nothing
refused "of the kind root" imprint ca create --root --subject /CN=x --key hsm:x --profile intermediate
refused 'called "root" already' imprint ca create --root --name root --subject /CN=x --key hsm:x
imprint ca keys hsm | wc -l
`)
	expectLines(t, said, `hsm +pkcs11`, `disk +file`, `key +EC_secp384r1 \(hsm:root;id=.*\)`, `status +ACTIVE`, `key +RSA_2048 \(disk:line8\)`, "good.pem: OK", "bad.pem: OK", "eight.pem: OK",
		`hsm:line7 p256 of CA`, `hsm:root p384 of CA`, "2")
	// Signed by the keys in the module after a restart, which makes new responders.
	s.signal(os.Interrupt)
	s.start()
	said = s.caScript(t, dir, `
imprint ca revoke --cert bad.pem --reason key-compromise >/dev/null
url=$(openssl x509 -in good.pem -noout -ext crlDistributionPoints | sed -n 's/.*URI://p')
for n in $(seq 100); do curl -sf "$url" -o line7.crl && openssl crl -in line7.crl -inform der -noout -text | grep -q Key.Compromise && break; sleep 0.1; done
openssl crl -in line7.crl -inform der -out line7.crl.pem
openssl verify -crl_check -CAfile root.pem -untrusted chain.pem -CRLfile line7.crl.pem good.pem
openssl verify -crl_check -CAfile root.pem -untrusted chain.pem -CRLfile line7.crl.pem bad.pem 2>&1 | grep -o 'certificate revoked' || true
ocsp=$(openssl x509 -in good.pem -noout -ocsp_uri)
for one in good bad; do openssl ocsp -issuer line7.pem -cert $one.pem -url $ocsp -CAfile root.pem -verify_other chain.pem 2>&1 | grep -E '^Response verify|pem:'; done
issue line7 later; openssl verify -CAfile root.pem -untrusted chain.pem later.pem
`)
	expectLines(t, said, "good.pem: OK", "certificate revoked", "Response verify OK", "good.pem: good", "Response verify OK", "bad.pem: revoked", "later.pem: OK")
	s.tellsNoSecret(t, h.pin)
}

// tellsNoSecret looks for a secret in the log and the command lines of the server and of
// what it started, and in the environment of the latter.
func (s *server) tellsNoSecret(t *testing.T, secret string) {
	t.Helper()
	if strings.Contains(s.stderr.String(), secret) {
		t.Error("the server's log has the PIN")
	}
	pid := fmt.Sprint(s.cmd.Process.Pid)
	var started []string
	threads, err := filepath.Glob("/proc/" + pid + "/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		more, _ := os.ReadFile(thread) // the thread may have ended
		started = append(started, strings.Fields(string(more))...)
	}
	if len(started) == 0 {
		t.Error("the server has no process for the module")
	}
	files := []string{"/proc/" + pid + "/cmdline"}
	for _, child := range started {
		files = append(files, "/proc/"+child+"/cmdline", "/proc/"+child+"/environ")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		if strings.Contains(string(text), secret) {
			t.Errorf("%s has the PIN", file)
		}
	}
}

// TestAnHSMThatIsGoneStallsNobody: while it hangs, crashes or isn't there, its CAs refuse
// within the bound and issue nothing, others sign on, a restart works, and it is back when
// the module is.
func TestAnHSMThatIsGoneStallsNobody(t *testing.T) {
	need(t, "bash", "openssl")
	t.Parallel()
	h := newHSM(t)
	pin, dir := filepath.Join(h.dir, "pin"), t.TempDir()
	writeFile(t, pin, h.pin+"\n")
	s := newServer(t, "--ca-key-store", h.store("hsm", "file:"+pin), "--ca-key-timeout", "2s")
	s.settings, s.troubled = append(s.settings, h.settings...), "code=ServiceUnavailableException"
	s.start()
	s.readEnv()
	s.caScript(t, dir, `
imprint ca create --root --name hard --subject '/CN=hard' --key hsm:hard
imprint ca create --root --name soft --subject '/CN=soft'
issue hard before
`)
	tell := func(what string) { writeFile(t, filepath.Join(h.dir, what), "") }
	heal := func(what string) { remove(t, filepath.Join(h.dir, what)) }
	// others sign while 8 requests wait for the module.
	const stalled = `
request many
for n in $(seq 8); do refused KEY imprint ca issue hard --csr many.csr --profile operational & all="$all $!"; done
began=$(date +%s%N)
issue soft soft$RANDOM
test $(( ($(date +%s%N) - began) / 1000000 )) -lt 15000 || { echo "the other CA took too long"; exit 9; }
for one in $all; do wait $one; done
`
	harm := strings.ReplaceAll(stalled, "KEY", "ServiceUnavailableException")
	tell("hang")
	began := time.Now()
	said := s.caScript(t, dir, "all=\n"+harm+"cat err.txt\n")
	if !strings.Contains(said, "was silent for") || strings.Contains(said, h.dir) {
		t.Errorf("the caller is told: %s", said)
	}
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("8 requests to a module that hangs took %s, with a bound of 2s", took)
	}
	heal("hang")
	s.caScript(t, dir, issueSoon("after1"))
	// The token is taken out, and the module dies of it.
	tokens := filepath.Join(h.dir, "tokens")
	rename(t, tokens, tokens+".away")
	tell("crash")
	s.caScript(t, dir, "request x; refused ServiceUnavailableException imprint ca issue hard --csr x.csr --profile operational\n")
	heal("crash")
	mkdir(t, tokens)
	s.caScript(t, dir, "all=\n"+harm+"refused ServiceUnavailableException imprint ca create --root --subject /CN=x --key hsm:x\n")
	s.signal(os.Interrupt)
	s.start() // without its HSM
	s.caScript(t, dir, "all=\n"+harm+"refused ServiceUnavailableException imprint ca keys hsm\n")
	remove(t, tokens)
	rename(t, tokens+".away", tokens)
	s.caScript(t, dir, issueSoon("after2"))
	// A wrong PIN reaches the token once, and a corrected one needs no restart.
	writeFile(t, pin, "wrong\n")
	s.signal(os.Interrupt)
	s.start()
	logins := func() int {
		text, err := os.ReadFile(filepath.Join(h.dir, "logins"))
		if err != nil {
			t.Fatal(err)
		}
		return len(text)
	}
	before := logins()
	s.caScript(t, dir, `request x; for n in 1 2 3; do refused ServiceUnavailableException imprint ca issue hard --csr x.csr --profile operational; done`)
	if n := logins() - before; n != 1 {
		t.Errorf("the wrong PIN reached the token %d times, want 1", n)
	}
	writeFile(t, pin, h.pin+"\n")
	s.caScript(t, dir, issueSoon("after3"))
	s.caScript(t, dir, `
imprint ca cert hard --out hard.pem
openssl verify -CAfile hard.pem before.pem after1.pem after2.pem after3.pem
`)
}

// issueSoon issues as soon as the module is back, for which a pause may have to end.
func issueSoon(name string) string {
	return fmt.Sprintf(`
for n in $(seq 100); do issue hard %[1]s 2>err.txt && break; sleep 0.2; done
test -s %[1]s.pem || { cat err.txt; exit 9; }
`, name)
}

// TestAKeyInATPMCarriesACA, which goes away and comes back.
func TestAKeyInATPMCarriesACA(t *testing.T) {
	need(t, "bash", "openssl", "swtpm")
	t.Parallel()
	// A socket's path must be short.
	state, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(state) })
	socket := filepath.Join(state, "s")
	stop := startTPM(t, state, socket)
	wrapped := filepath.Join(t.TempDir(), "keys") + "/"
	mkdir(t, wrapped)
	s := newServer(t, "--ca-key-timeout", "5s")
	s.settings = append(s.settings, "IMPRINT_CA_KEY_STORE=tpm=tpm:file="+wrapped+"?device=unix:"+socket+",handles=tpm:?device=unix:"+socket)
	s.troubled = "code=ServiceUnavailableException"
	s.start()
	s.readEnv()
	dir := t.TempDir()
	said := s.caScript(t, dir, `
imprint ca create --root --name root --subject '/CN=root' --key handles:0x81008001 | grep ^key
imprint ca create --parent root --name line --subject '/CN=line' --key tpm:line --key-kind rsa2048 | grep ^key
imprint ca cert root --out root.pem; imprint ca cert line --chain --out chain.pem
issue line one; openssl verify -x509_strict -CAfile root.pem -untrusted chain.pem one.pem
imprint ca keys tpm | sed 's/  */ /g; s/ CA .*/ CA/'; imprint ca keys handles | grep -c 'handles:0x81008001 .*of CA'
`)
	expectLines(t, said, `key +EC_prime256v1 \(handles:0x81008001\)`, `key +RSA_2048 \(tpm:line\)`, "one.pem: OK", "tpm:line rsa2048 of CA", "1")
	stop()
	s.caScript(t, dir, "request x; refused ServiceUnavailableException imprint ca issue line --csr x.csr --profile operational\n")
	startTPM(t, state, socket)
	said = s.caScript(t, dir, "issue line two; openssl verify -CAfile root.pem -untrusted chain.pem two.pem\n")
	expectLines(t, said, "two.pem: OK")
}

// startTPM starts a software TPM and gives what ends it.
func startTPM(t *testing.T, state, socket string) func() {
	t.Helper()
	cmd := exec.Command(toolPath(t, "swtpm"), "socket", "--tpm2", "--tpmstate", "dir="+state, "--ctrl", "type=unixio,path="+socket+".ctrl",
		"--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	err := cmd.Start()
	if err != nil {
		t.Fatal(err)
	}
	ended := false
	stop := func() {
		if ended {
			return
		}
		ended = true
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		_ = os.Remove(socket)
		_ = os.Remove(socket + ".ctrl")
	}
	t.Cleanup(stop)
	deadline := time.Now().Add(patience)
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
			return stop
		}
		if time.Now().After(deadline) {
			t.Fatalf("swtpm doesn't listen: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A key store that can't be one ends the start, and no word that may be a PIN is repeated.
func TestAKeyStoreThatCannotBeOneEndsTheStart(t *testing.T) {
	t.Parallel()
	for store, words := range map[string]string{
		"tpm:":                      "isn't of the form",
		"Hsm=tpm:":                  "can't be the name",
		"hsm@12=tpm:":               "account",
		"hsm=tpm:handle=0x81008001": "names a key",
		"hsm=pkcs11:token=x?module-path=/x.so&pin-value=4711":                "pin-value",
		"hsm=pkcs11:token=x?module-path=/x.so&pin-source=env:HSM_PIN":        "IMPRINT_",
		"hsm=pkcs11:token=x;object=key?module-path=/x.so&pin-source=file:/x": "names a key",
	} {
		run := runTool(t, "", cleanEnv(), program, "serve", "--data", filepath.Join(t.TempDir(), "data"), "--ca-key-store", store)
		if run.exit != 2 || !strings.Contains(run.stderr, words) || strings.Contains(run.stderr, "4711") {
			t.Errorf("%s: exit code %d, want 2 with %q:\n%s", store, run.exit, words, run.stderr)
		}
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	err := os.Remove(path)
	if err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	err := os.Rename(from, to)
	if err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	err := os.Mkdir(path, 0o700)
	if err != nil {
		t.Fatal(err)
	}
}
