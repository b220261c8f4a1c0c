package keys_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/keys"
)

// loadedObjects lists what a TPM has loaded: keys and sessions.
func (p *softTPM) loadedObjects() string {
	p.t.Helper()
	return strings.TrimSpace(p.tool("tpm2_getcap", "handles-transient") + p.tool("tpm2_getcap", "handles-loaded-session"))
}

func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	put(t, path, []byte(text))
	return path
}

// The TPM itself says that the key was made in it and can't leave it.
func TestKeysMadeInATPMStayThere(t *testing.T) {
	t.Parallel()
	p := newTPM(t)
	generate(t, newStore(t), p.uri("handle=0x81008001", ""), keys.P256)
	attributes := p.tool("tpm2_readpublic", "-c", "0x81008001")
	if want := "value: fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign"; !strings.Contains(attributes, want) {
		t.Errorf("tpm2_readpublic lacks %q:\n%s", want, attributes)
	}
}

// Key files of OpenSSL's provider open here, and OpenSSL signs with ours.
func TestKeyFilesAreOpenSSLs(t *testing.T) {
	t.Parallel()
	p := newTPM(t)
	s := newStore(t)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	_, err := p.try("openssl", "list", "-provider", "tpm2", "-providers")
	if err != nil {
		missing(t, "tpm2-openssl")
	}
	for name, args := range map[string][]string{"ec.tss": {"-algorithm", "EC", "-pkeyopt", "group:P-256"}, "rsa.tss": {"-algorithm", "RSA", "-pkeyopt", "bits:2048"}} {
		p.tool("openssl", append([]string{"genpkey", "-provider", "tpm2", "-out", file(name)}, args...)...)
		err = signOnce(t.Context(), open(t, s, p.uri("file="+file(name), "")), "x")
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, kind := range map[string]keys.Kind{"p256.tss": keys.P256, "rsa2048.tss": keys.RSA2048} {
		signer, _ := generate(t, s, p.uri("file="+file(name), ""), kind)
		put(t, file("data"), []byte("to be signed"))
		p.tool("openssl", "dgst", "-provider", "tpm2", "-provider", "default", "-propquery", "?provider=tpm2", "-sha256", "-sign", file(name), "-out", file("signature"), file("data"))
		signature, err := os.ReadFile(file("signature"))
		if err != nil {
			t.Fatal(err)
		}
		err = verify(signer.Public(), digestOf(t, crypto.SHA256, "to be signed"), signature, crypto.SHA256)
		if err != nil {
			t.Errorf("%s: what OpenSSL signed with it: %v", name, err)
		}
	}
	info, err := os.Stat(file("p256.tss"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v, %v, want 0600", info.Mode(), err)
	}
}

// Keys that tpm2-tools made sign here where they may; others say why they don't.
func TestKeysOfTPM2Tools(t *testing.T) {
	t.Parallel()
	p := newTPM(t)
	s := newStore(t)
	dir := t.TempDir()
	p.tool("tpm2_createprimary", "-C", "o", "-G", "ecc", "-c", dir+"/parent")
	p.tool("tpm2_evictcontrol", "-C", "o", "-c", dir+"/parent", "0x81000001")
	p.tool("tpm2_flushcontext", "-t")
	for handle, made := range map[string][]string{
		"0x81008001": {"-G", "ecc", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign"},
		"0x81008002": {"-G", "ecc:ecdsa-sha256:null", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"},
		"0x81008003": {"-G", "ecc", "-a", "fixedtpm|fixedparent|sensitivedataorigin|sign"},
		"0x81008004": {"-G", "ecc", "-a", "sensitivedataorigin|userwithauth|sign"},
	} {
		p.tool("tpm2_create", append(made, "-C", "0x81000001", "-u", dir+"/u", "-r", dir+"/r", "-c", dir+"/key")...)
		p.tool("tpm2_flushcontext", "-t")
		p.tool("tpm2_load", "-C", "0x81000001", "-u", dir+"/u", "-r", dir+"/r", "-c", dir+"/key")
		p.tool("tpm2_evictcontrol", "-C", "o", "-c", dir+"/key", handle)
		p.tool("tpm2_flushcontext", "-t")
	}
	err := signOnce(t.Context(), open(t, s, p.uri("handle=0x81008001", "")), "x")
	if err != nil {
		t.Error(err)
	}
	for handle, refused := range map[string]struct {
		code imprint.Code
		word string
	}{
		"0x81008002": {imprint.CodeKeyRefused, "restricted"}, "0x81008003": {imprint.CodeKeyRefused, "policy"}, "0x81000001": {imprint.CodeKeyRefused, "isn't one that signs"},
		"0x81008009": {imprint.CodeNotFound, "handles-persistent"},
	} {
		_, err = s.Open(t.Context(), p.uri("handle="+handle, ""))
		expect(t, err, refused.code, refused.word)
	}
	list, err := s.List(t.Context(), p.uri("", ""))
	if err != nil || len(list) != 5 {
		t.Fatalf("listed %+v, %v, want 5 keys", list, err)
	}
	for _, one := range list {
		name := one.URI.String()
		if usable := strings.Contains(name, "0x81008001") || strings.Contains(name, "0x81008004"); usable != (one.Problem == "") {
			t.Errorf("%s is listed with the problem %q", name, one.Problem)
		}
		if got, want := one.Extractable, strings.Contains(name, "0x81008004"); got != want {
			t.Errorf("%s is listed as extractable: %v, want %v", name, got, want)
		}
	}
	_, _, err = s.Generate(t.Context(), p.uri("handle=0x81008001", ""), keys.P256)
	expect(t, err, imprint.CodeAlreadyExists, "0x81008001")
	_, _, err = s.Generate(t.Context(), p.uri("handle=0x81008010", ""), keys.RSA4096)
	expect(t, err, imprint.CodeKeyRefused, "doesn't make rsa4096")
	_, err = s.Open(t.Context(), p.uri("", ""))
	expect(t, err, imprint.CodeInvalidRequest, "no key")
}

// Nothing stays loaded, neither after signatures nor after errors.
func TestNothingStaysLoadedInATPM(t *testing.T) {
	t.Parallel()
	p := newTPM(t)
	s := newStore(t)
	auth := write(t, "auth", "right\n")
	file := filepath.Join(t.TempDir(), "key.tss")
	signer, _ := generate(t, s, p.uri("file="+file, "&auth-source="+auth), keys.P256)
	for range 5 {
		err := signOnce(t.Context(), signer, "x")
		if err != nil {
			t.Fatal(err)
		}
	}
	put(t, auth, []byte("wrong\n"))
	err := signOnce(t.Context(), signer, "x")
	expect(t, err, imprint.CodeKeyRefused, "password")
	if left := p.loadedObjects(); left != "" {
		t.Errorf("still loaded: %s", left)
	}
}

// A wrong password reaches the TPM once, however often the key is used; another is
// tried.
func TestAWrongPasswordIsTriedOnce(t *testing.T) {
	t.Parallel()
	p := newTPM(t)
	s := newStore(t)
	auth := write(t, "auth", "right\n")
	uri := p.uri("handle=0x81008001", "&auth-source="+auth)
	signer, _ := generate(t, s, uri, keys.P256)
	counter := func() string {
		for line := range strings.Lines(p.tool("tpm2_getcap", "properties-variable")) {
			if strings.Contains(line, "TPM2_PT_LOCKOUT_COUNTER") {
				return strings.TrimSpace(line[strings.Index(line, ":")+1:])
			}
		}
		return ""
	}
	put(t, auth, []byte("wrong\n"))
	for range 5 {
		err := signOnce(t.Context(), signer, "x")
		expect(t, err, imprint.CodeKeyRefused, "password", "auth-source")
		err = signOnce(t.Context(), open(t, s, uri), "x")
		expect(t, err, imprint.CodeKeyRefused, "password", "isn't tried again")
	}
	if got := counter(); got != "0x1" {
		t.Errorf("the TPM counts %s wrong passwords, want 0x1", got)
	}
	bare := open(t, s, p.uri("handle=0x81008001", ""))
	err := signOnce(t.Context(), bare, "x")
	expect(t, err, imprint.CodeKeyRefused, "auth-source=file:/PATH")
	put(t, auth, []byte("right"))
	err = signOnce(t.Context(), signer, "x")
	if err != nil {
		t.Errorf("with the right password: %v", err)
	}
}

// A TPM that hangs or dies is an error within the deadline; when it is back, the same
// Signer works, and nothing of the broken exchange stays loaded.
func TestSigningRecoversFromEveryFailureOfATPM(t *testing.T) {
	t.Parallel()
	p := newTPM(t)
	s := newStore(t, impatient)
	file := filepath.Join(t.TempDir(), "key.tss")
	inFile, _ := generate(t, s, p.uri("file="+file, ""), keys.P256)
	inTPM, _ := generate(t, s, p.uri("handle=0x81008001", ""), keys.RSA2048)
	both := []keys.Signer{inFile, inTPM}
	works := func(what string) {
		t.Helper()
		for _, signer := range both {
			eventually(t, what, func() error { return signOnce(t.Context(), signer, "x") })
		}
		if left := p.loadedObjects(); left != "" {
			t.Errorf("%s: still loaded: %s", what, left)
		}
	}
	fails := func(what string, words ...string) {
		t.Helper()
		for _, signer := range both {
			var err error
			within(t, 30*time.Second, what, func() { err = signOnce(t.Context(), signer, "x") })
			expect(t, err, imprint.CodeKeyUnavailable, words...)
		}
	}
	works("at first")
	kill(t, p.cmd.Process.Pid, syscall.SIGSTOP)
	fails("while the TPM is stopped")
	kill(t, p.cmd.Process.Pid, syscall.SIGCONT)
	works("after the TPM was stopped")
	p.stop()
	fails("without the TPM", "couldn't reach the TPM", p.socket)
	p.start()
	works("with the TPM started again")
}

// An exchange that is cut in the middle leaves a key loaded in the TPM: the next one
// unloads it, and leaves those of other programs alone.
func TestABrokenExchangeIsTidiedUp(t *testing.T) {
	t.Parallel()
	p := newTPM(t)
	// Between Imprint and the TPM stands a socket that cuts the line after the
	// answer to TPM2_CreatePrimary, of which Imprint hears nothing.
	const createPrimary = 0x131
	front := filepath.Join(p.dir, "f")
	listener, err := net.Listen("unix", front)
	if err != nil {
		t.Fatal(err)
	}
	cut := make(chan bool, 1)
	cut <- true
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			relay(conn, p.socket, func(command []byte) bool {
				if len(command) < 10 || int(command[8])<<8|int(command[9]) != createPrimary {
					return false
				}
				select {
				case <-cut:
					return true
				default:
					return false
				}
			})
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	file := filepath.Join(t.TempDir(), "key.tss")
	generate(t, newStore(t), p.uri("file="+file, ""), keys.P256)
	p.tool("tpm2_createprimary", "-C", "o", "-G", "rsa")
	before := p.loadedObjects()
	if before == "" {
		t.Fatal("the other program's key isn't loaded")
	}
	s := newStore(t)
	uri := parse(t, "tpm:file="+file+"?device=unix:"+front)
	_, err = s.Open(t.Context(), uri)
	expect(t, err, imprint.CodeKeyUnavailable)
	if p.loadedObjects() == before {
		t.Fatal("the cut left nothing behind, so the test shows nothing")
	}
	err = signOnce(t.Context(), open(t, s, uri), "x")
	if err != nil {
		t.Error(err)
	}
	if after := p.loadedObjects(); after != before {
		t.Errorf("loaded afterwards: %s, want %s", after, before)
	}
}

// relay passes commands and answers on, and cuts the line instead of passing an answer
// where it is told to.
func relay(conn net.Conn, socket string, cutAfter func(command []byte) bool) {
	defer conn.Close()
	tpm, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer tpm.Close()
	buffer := make([]byte, 8192)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		gone := cutAfter(buffer[:n])
		_, err = tpm.Write(buffer[:n])
		if err != nil {
			return
		}
		n, err = tpm.Read(buffer)
		if err != nil || gone {
			return
		}
		_, err = conn.Write(buffer[:n])
		if err != nil {
			return
		}
	}
}

// Where other programs have filled the TPM, the error says how to empty it.
func TestAFullTPMIsExplained(t *testing.T) {
	t.Parallel()
	p := newTPM(t)
	s := newStore(t)
	file := filepath.Join(t.TempDir(), "key.tss")
	signer, _ := generate(t, s, p.uri("file="+file, ""), keys.P256)
	for range 3 {
		p.tool("tpm2_createprimary", "-C", "o", "-G", "ecc")
	}
	err := signOnce(t.Context(), signer, "x")
	expect(t, err, imprint.CodeKeyUnavailable, "no room", "tpm2_flushcontext -t")
	p.tool("tpm2_flushcontext", "-t")
	err = signOnce(t.Context(), signer, "x")
	if err != nil {
		t.Error(err)
	}
}

// A key in the place of the one that was opened, or of another TPM, never signs.
func TestAnotherTPMsKeysAreRefused(t *testing.T) {
	t.Parallel()
	p, other := newTPM(t), newTPM(t)
	s := newStore(t)
	uri := p.uri("handle=0x81008001", "")
	signer, _ := generate(t, s, uri, keys.P256)
	p.tool("tpm2_evictcontrol", "-C", "o", "-c", "0x81008001")
	err := signOnce(t.Context(), signer, "x")
	expect(t, err, imprint.CodeNotFound, "0x81008001")
	generate(t, s, uri, keys.P256)
	err = signOnce(t.Context(), signer, "x")
	expect(t, err, imprint.CodeKeyUnavailable, "doesn't verify")

	file := filepath.Join(t.TempDir(), "key.tss")
	generate(t, s, p.uri("file="+file, ""), keys.P256)
	_, err = s.Open(t.Context(), other.uri("file="+file, ""))
	expect(t, err, imprint.CodeKeyRefused, "of another TPM")
	_, _, err = s.Generate(t.Context(), p.uri("file="+file, ""), keys.P256)
	expect(t, err, imprint.CodeAlreadyExists, file)
	_, err = s.Open(t.Context(), p.uri("file=/no/such.tss", ""))
	expect(t, err, imprint.CodeNotFound, "/no/such.tss")
}

// A device that isn't there or isn't a TPM is an error, never a panic or a stall.
func TestWhatIsNoTPMIsRefused(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := newStore(t, impatient)
	for name, answer := range map[string]string{
		"silent": "", "short": "\x80\x01", "lying": "\x80\x01\xff\xff\xff\xff\x00\x00\x00\x00", "tiny": "\x80\x01\x00\x00\x00\x01\x00\x00\x00\x00",
		"empty": "\x80\x01\x00\x00\x00\x0a\x00\x00\x00\x00", "odd": "\x80\x01\x00\x00\x00\x0a\x00\x00\xff\xff",
	} {
		socket := filepath.Join(dir, name)
		listener, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = io.WriteString(conn, answer)
				if answer != "" {
					_ = conn.Close()
					continue
				}
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}
		}()
		within(t, 30*time.Second, name, func() {
			_, err = s.Open(t.Context(), parse(t, "tpm:handle=0x81008001?device=unix:"+socket))
		})
		expect(t, err, imprint.CodeKeyUnavailable)
		_ = listener.Close()
		<-done
	}
	for _, device := range []string{"/dev/null-not", "/etc/passwd", "/dev/null", "unix:/etc/passwd"} {
		_, err = s.Open(t.Context(), parse(t, "tpm:handle=0x81008001?device="+device))
		expect(t, err, imprint.CodeKeyUnavailable)
	}
}

// A key file that is cut, has a policy or is of another type is refused.
func TestKeyFilesThatAreNotRightAreRefused(t *testing.T) {
	t.Parallel()
	key, err := keys.NewKey(keys.P256)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, data []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data})
	}
	for name, data := range map[string][]byte{
		"empty": nil, "pkcs8": block("PRIVATE KEY", der), "wrong content": block("TSS2 PRIVATE KEY", der), "long": bytes.Repeat([]byte("x"), 20<<10),
	} {
		path := write(t, "key.tss", string(data))
		_, err = newStore(t).Open(t.Context(), parse(t, "tpm:file="+path))
		if code := imprint.CodeOf(err); code != imprint.CodeInvalidRequest && name != "long" || err == nil {
			t.Errorf("%s: got %v, want CodeInvalidRequest", name, err)
		}
	}
}

// Whatever is read as a key file is written so that it reads the same.
func FuzzKeyFile(f *testing.F) {
	plain := []byte{0x30, 0x1f, 0x06, 0x06, 0x67, 0x81, 0x05, 0x0a, 0x01, 0x03, 0xa0, 0x03, 0x01, 0x01, 0xff, 0x02, 0x04, 0x40, 0x00, 0x00, 0x01, 0x04, 0x04, 0x00, 0x02, 0x01, 0x02, 0x04, 0x04, 0x00, 0x02, 0x03, 0x04}
	_, err := keys.ParseKeyFile(pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: plain}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Fuzz(func(t *testing.T, data []byte) {
		text, err := keys.ParseKeyFile(pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: data}))
		if err != nil {
			return
		}
		again, err := keys.ParseKeyFile(text)
		if err != nil || !bytes.Equal(again, text) {
			t.Errorf("%x became %s, which reads as %s, %v", data, text, again, err)
		}
	})
}
