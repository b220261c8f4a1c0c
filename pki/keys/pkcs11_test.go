package keys_test

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/keys"
)

// helperPIDs are the processes that this one started for a module and that run.
func helperPIDs(t testing.TB, module string) []int {
	t.Helper()
	var found []int
	processes, err := filepath.Glob("/proc/[0-9]*/maps")
	if err != nil {
		t.Fatal(err)
	}
	for _, maps := range processes {
		text, err := os.ReadFile(maps)
		if err != nil || !bytes.Contains(text, []byte(module)) {
			continue // it has ended, or is another's
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(maps)))
		if err != nil {
			t.Fatal(err)
		}
		if pid != os.Getpid() {
			found = append(found, pid)
		}
	}
	return found
}

// onlyHelper gives the one process of a module.
func onlyHelper(t testing.TB, module string) int {
	t.Helper()
	pids := helperPIDs(t, module)
	if len(pids) != 1 {
		t.Fatalf("%d processes have the module loaded, want 1", len(pids))
	}
	return pids[0]
}

// impatient is for tests of what hangs: they wait for the whole deadline. The making of
// keys isn't bound by it.
func impatient(c *keys.Config) { c.Timeout = 2 * time.Second }

// In the eyes of another program, the key can't leave the token and never could.
func TestKeysMadeInATokenStayThere(t *testing.T) {
	t.Parallel()
	h := newHSM(t)
	_, uri := generate(t, h.store(), h.uri("object=root;id=%01%02"), keys.P256)
	if want := ";object=root;id=%01%02?"; !strings.Contains(uri.String(), want) {
		t.Errorf("the key's URI is %s, want %s in it", uri, want)
	}
	objects := h.tool("--list-objects", "--type", "privkey")
	for _, want := range []string{"sensitive, always sensitive, never extractable, local", "ID:         0102", "label:      root"} {
		if !strings.Contains(objects, want) {
			t.Errorf("pkcs11-tool lacks %q:\n%s", want, objects)
		}
	}
}

// Keys that other programs made are found by label and by id, whichever their
// public half is known by; where several fit, the error names them.
func TestKeysOfOtherProgramsAreFound(t *testing.T) {
	t.Parallel()
	h := newHSM(t)
	h.tool("--keypairgen", "--key-type", "EC:prime256v1", "--id", "01", "--label", "root")
	h.tool("--keypairgen", "--key-type", "EC:secp384r1", "--id", "02", "--label", "twin")
	h.tool("--keypairgen", "--key-type", "rsa:2048", "--id", "03", "--label", "twin")
	h.tool("--keypairgen", "--key-type", "EC:secp521r1", "--id", "04", "--label", "strange")
	s := h.store()
	for attributes, want := range map[string]keys.Kind{"object=root": keys.P256, "id=%02": keys.P384, "object=twin;id=%03": keys.RSA2048, "object=root;type=private": keys.P256} {
		signer := open(t, s, h.uri(attributes))
		if kind, _ := keys.KindOf(signer.Public()); kind != want {
			t.Errorf("%s is a %s key, want %s", attributes, kind, want)
		}
		err := signOnce(t.Context(), signer, "x")
		if err != nil {
			t.Errorf("%s: %v", attributes, err)
		}
	}
	for _, refused := range []struct {
		attributes string
		code       imprint.Code
		words      []string
	}{
		{"object=twin", imprint.CodeInvalidRequest, []string{"2 keys fit", "object=twin;id=%02", "object=twin;id=%03", "Add ;id="}},
		{"object=nobody", imprint.CodeNotFound, []string{"no such private key", `"root"`, "--list-objects"}},
		{"object=root;id=%02", imprint.CodeNotFound, nil},
		{"object=strange", imprint.CodeKeyRefused, []string{"P-256 or P-384"}},
		{"", imprint.CodeInvalidRequest, []string{"no key", "object=LABEL"}},
	} {
		_, err := s.Open(t.Context(), h.uri(refused.attributes))
		expect(t, err, refused.code, refused.words...)
	}
	list, err := s.List(t.Context(), h.uri(""))
	if err != nil || len(list) != 4 {
		t.Fatalf("listed %d keys, %v, want 4", len(list), err)
	}
	list, err = s.List(t.Context(), h.uri("object=strange"))
	if err != nil || len(list) != 1 || list[0].Problem == "" || list[0].Public != nil {
		t.Errorf("the P-521 key is listed as %+v, %v, want one with a problem", list, err)
	}
	if pids := helperPIDs(t, h.module); len(pids) != 1 {
		t.Errorf("%d processes for one token, want 1", len(pids))
	}
}

// What is wrong with a token's address is told, with what is there instead.
func TestTokensThatDoNotFitAreNamed(t *testing.T) {
	t.Parallel()
	h := newHSM(t)
	s := h.store()
	generate(t, s, h.uri("object=root"), keys.P256)
	query := "?module-path=" + h.module + "&pin-source=" + h.pinFile()
	for _, refused := range []struct {
		uri   string
		code  imprint.Code
		words []string
	}{
		{"pkcs11:token=elsewhere;object=root" + query, imprint.CodeKeyUnavailable, []string{"no such token", `token="t-`, "--list-slots"}},
		{"pkcs11:token=" + h.label + ";serial=0;object=root" + query, imprint.CodeKeyUnavailable, []string{"no such token"}},
		{"pkcs11:token=" + h.label + ";object=root?module-path=/nowhere.so", imprint.CodeKeyUnavailable, []string{"/nowhere.so", "can't be loaded"}},
		{"pkcs11:token=" + h.label + ";object=root?module-path=" + h.pinFile(), imprint.CodeKeyUnavailable, []string{"can't be loaded"}},
		{"pkcs11:token=" + h.label + ";object=root?module-path=" + h.module, imprint.CodeNotFound, []string{"pin-source"}},
		{"pkcs11:token=" + h.label + ";object=root" + query + "x", imprint.CodeKeyUnavailable, []string{"pin-source", "no such file"}},
	} {
		_, err := s.Open(t.Context(), parse(t, refused.uri))
		expect(t, err, refused.code, refused.words...)
	}
	h.writePIN("one\ntwo\n")
	_, err := s.Open(t.Context(), parse(t, "pkcs11:token="+h.label+";model=SoftHSM%20v2;object=root"+query))
	expect(t, err, imprint.CodeKeyRefused, "one line", "pin-source")
	if h.logins() == 0 {
		t.Error("the module didn't note the logins")
	}
}

// A wrong PIN reaches the token once, however often keys are opened or used, and
// another PIN is tried when a key is opened again.
func TestAWrongPINIsTriedOnce(t *testing.T) {
	t.Parallel()
	h := newHSM(t)
	s := h.store()
	signer, uri := generate(t, s, h.uri("object=root"), keys.P256)
	before := h.logins()
	h.writePIN("wrong-1\n")
	// The present login lasts.
	err := signOnce(t.Context(), signer, "x")
	if err != nil {
		t.Fatal(err)
	}
	kill(t, onlyHelper(t, h.module), syscall.SIGKILL)
	var refusal error
	eventually(t, "the wrong PIN is refused", func() error {
		refusal = signOnce(t.Context(), signer, "x")
		if imprint.CodeOf(refusal) != imprint.CodeKeyRefused {
			return fmt.Errorf("got %v, want CodeKeyRefused", refusal)
		}
		return nil
	})
	expect(t, refusal, imprint.CodeKeyRefused, "PIN", "isn't tried again", "pin-source")
	// Another one isn't tried either, as long as nobody opens the key again.
	h.writePIN("wrong-2\n")
	err = signOnce(t.Context(), signer, "x")
	expect(t, err, imprint.CodeKeyRefused, "PIN")
	h.writePIN("wrong-1\n")
	for range 3 {
		err = signOnce(t.Context(), signer, "x")
		expect(t, err, imprint.CodeKeyRefused, "PIN")
		_, err = s.Open(t.Context(), uri)
		expect(t, err, imprint.CodeKeyRefused, "PIN", "wrong before")
		_, err = s.List(t.Context(), h.uri(""))
		expect(t, err, imprint.CodeKeyRefused, "PIN")
		_, _, err = s.Generate(t.Context(), h.uri("object=other"), keys.P256)
		expect(t, err, imprint.CodeKeyRefused, "PIN")
	}
	if got := h.logins() - before; got != 1 {
		t.Errorf("the wrong PIN was tried %d times, want once", got)
	}
	// The right one, without opening again: nobody said that it may be tried.
	h.writePIN(h.pin)
	err = signOnce(t.Context(), signer, "x")
	expect(t, err, imprint.CodeKeyRefused)
	again := open(t, s, uri)
	for _, one := range []keys.Signer{again, signer} {
		err = signOnce(t.Context(), one, "x")
		if err != nil {
			t.Errorf("with the right PIN: %v", err)
		}
	}
}

func kill(t testing.TB, pid int, signal syscall.Signal) {
	t.Helper()
	err := syscall.Kill(pid, signal)
	if err != nil {
		t.Fatal(err)
	}
}

// The PIN is in no argument, environment variable, error or list, although the module
// prints it; nor does the helper get Imprint's secrets.
func TestThePINIsNowhereToBeSeen(t *testing.T) {
	h := newHSM(t)
	t.Setenv("IMPRINT_MASTER_KEY", "the master key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "the secret key")
	s := h.store()
	signer, uri := generate(t, s, h.uri("object=root"), keys.P256)
	err := signOnce(t.Context(), signer, "x")
	if err != nil {
		t.Fatal(err)
	}
	pid := onlyHelper(t, h.module)
	seen := map[string]string{"URI": uri.String()}
	for _, name := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		seen[name] = string(text)
	}
	if !strings.Contains(seen["environ"], "SOFTHSM2_CONF=") {
		t.Error("the helper lacks the environment that the module needs")
	}
	h.tell("crash")
	_, err = signer.Sign(t.Context(), digestOf(t, crypto.SHA256, "x"), crypto.SHA256)
	expect(t, err, imprint.CodeKeyUnavailable, "ended")
	seen["error of a crash"] = fmt.Sprintf("%v %+v", err, err)
	h.heal("crash")
	h.writePIN("other-0815")
	_, err = s.List(t.Context(), h.uri(""))
	seen["error of a wrong PIN"] = fmt.Sprintf("%v %+v", err, err)
	for where, text := range seen {
		for _, secret := range []string{h.pin, "other-0815", "the master key", "the secret key"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %q: %q", where, secret, text)
			}
		}
	}
}

// The helper dies, is stopped, crashes in the module, hangs in it, or the token fails:
// an error within the deadline each time, and signatures again afterwards, with the same
// Signer.
func TestSigningRecoversFromEveryFailureOfATokensProcess(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]struct {
		begin, end func(t *testing.T, h *hsm)
		words      string
	}{
		"killed in the middle of a call": {
			func(t *testing.T, h *hsm) { h.tell("hang") },
			func(t *testing.T, h *hsm) { h.heal("hang") }, "ended (signal: killed)",
		},
		"stopped": {
			func(t *testing.T, h *hsm) { kill(t, onlyHelper(t, h.module), syscall.SIGSTOP) },
			func(*testing.T, *hsm) {}, "silent",
		},
		"crashing in the module": {
			func(t *testing.T, h *hsm) { h.tell("crash") },
			func(t *testing.T, h *hsm) { h.heal("crash") }, "ended (",
		},
		"hanging in the module": {
			func(t *testing.T, h *hsm) { h.tell("hang") },
			func(t *testing.T, h *hsm) { h.heal("hang") }, "silent",
		},
		"token failing": {
			func(t *testing.T, h *hsm) { h.tell("device") },
			func(t *testing.T, h *hsm) { h.heal("device") }, "CKR_DEVICE_ERROR",
		},
		"token signing nonsense": {
			func(t *testing.T, h *hsm) { h.tell("garbage") },
			func(t *testing.T, h *hsm) { h.heal("garbage") }, "doesn't verify",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHSM(t)
			s := h.store(func(c *keys.Config) {
				if trouble.words == "silent" {
					c.Timeout = 5 * time.Second // the test waits for it
				}
			})
			signer, _ := generate(t, s, h.uri("object=root"), keys.P256)
			err := signOnce(t.Context(), signer, "before")
			if err != nil {
				t.Fatal(err)
			}
			remove(t, filepath.Join(h.dir, "signing"))
			trouble.begin(t, h)
			result := make(chan error, 1)
			within(t, patience, "the failure", func() {
				go func() { result <- signOnce(t.Context(), signer, "during") }()
				if strings.HasPrefix(name, "killed") {
					eventually(t, "the call has begun", func() error {
						_, err := os.Stat(filepath.Join(h.dir, "signing"))
						return err
					})
					kill(t, onlyHelper(t, h.module), syscall.SIGKILL)
				}
				err = <-result
			})
			expect(t, err, imprint.CodeKeyUnavailable, trouble.words)
			trouble.end(t, h)
			eventually(t, "signing again", func() error { return signOnce(t.Context(), signer, "after") })
			onlyHelper(t, h.module)
		})
	}
}

// A token that is taken out is an error, and works again when it is back.
//
// Not beside other tests: SoftHSM's programs don't like to see a token vanish.
func TestATokenMayGoAndComeBack(t *testing.T) {
	h := newHSM(t)
	s := h.store()
	signer, _ := generate(t, s, h.uri("object=root"), keys.P256)
	err := signOnce(t.Context(), signer, "before")
	if err != nil {
		t.Fatal(err)
	}
	// SoftHSM looks for its tokens when it is initialised.
	tokens, err := filepath.Glob(filepath.Join(tokenDir(), "*", "token.object"))
	if err != nil {
		t.Fatal(err)
	}
	dir := ""
	for _, object := range tokens {
		text, err := os.ReadFile(object)
		if err == nil && bytes.Contains(text, []byte(h.label)) {
			dir = filepath.Dir(object)
		}
	}
	if dir == "" {
		t.Fatal("the token's directory isn't found")
	}
	away := filepath.Join(scratch, "away-"+filepath.Base(dir))
	err = os.Rename(dir, away)
	if err != nil {
		t.Fatal(err)
	}
	kill(t, onlyHelper(t, h.module), syscall.SIGKILL)
	var gone error
	eventually(t, "the token is missed", func() error {
		within(t, patience, "a signature without token", func() { gone = signOnce(t.Context(), signer, "during") })
		if gone == nil || !strings.Contains(gone.Error(), "no such token") {
			return fmt.Errorf("got %v, want that no such token is there", gone)
		}
		return nil
	})
	expect(t, gone, imprint.CodeKeyUnavailable)
	err = os.Rename(away, dir)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token is back", func() error { return signOnce(t.Context(), signer, "after") })
}

// A caller with little patience gets its error and takes nobody's token away.
func TestAnImpatientCallerHarmsNobody(t *testing.T) {
	t.Parallel()
	h := newHSM(t)
	signer, _ := generate(t, h.store(), h.uri("object=root"), keys.P256)
	err := signOnce(t.Context(), signer, "x")
	if err != nil {
		t.Fatal(err)
	}
	pid := onlyHelper(t, h.module)
	h.tell("hang")
	patient := make(chan error, 1)
	go func() { patient <- signOnce(t.Context(), signer, "patient") }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	within(t, 15*time.Second, "the impatient call", func() { err = signOnce(ctx, signer, "impatient") })
	expect(t, err, imprint.CodeKeyUnavailable, "in time")
	h.heal("hang")
	err = <-patient
	if err != nil {
		t.Errorf("the patient caller: %v", err)
	}
	if now := onlyHelper(t, h.module); now != pid {
		t.Error("the helper was restarted")
	}
}

// What a module prints to standard output doesn't get into the protocol.
func TestModulesMayPrint(t *testing.T) {
	t.Parallel()
	h := newHSM(t)
	signer, _ := generate(t, h.store(), h.uri("object=root"), keys.P256)
	h.tell("chatter")
	for range 3 {
		err := signOnce(t.Context(), signer, "x")
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A key that wants the PIN for each signature gets it.
func TestKeysThatAlwaysAuthenticateSign(t *testing.T) {
	t.Parallel()
	h := newHSM(t)
	h.tool("--keypairgen", "--key-type", "EC:prime256v1", "--id", "01", "--label", "careful", "--always-auth")
	signer := open(t, h.store(), h.uri("object=careful"))
	for range 3 {
		err := signOnce(t.Context(), signer, "x")
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := h.logins(); got < 4 {
		t.Errorf("%d logins for 3 signatures, want at least 4", got)
	}
}

// The helper ends with the last key of its token, with the Store, and by itself when
// its parent is gone.
func TestNoHelperIsLeftBehind(t *testing.T) {
	t.Parallel()
	h := newHSM(t)
	path, err := helper()
	if err != nil {
		t.Fatal(err)
	}
	s := keys.NewStore(keys.Config{PKCS11Helper: path})
	signer, uri, err := s.Generate(t.Context(), h.uri("object=root"), keys.P256)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Open(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	none := func() error {
		if pids := helperPIDs(t, h.module); len(pids) > 0 {
			return fmt.Errorf("processes %v have the module loaded", pids)
		}
		return nil
	}
	err = signer.Close()
	if err != nil {
		t.Fatal(err)
	}
	err = signOnce(t.Context(), second, "x")
	if err != nil {
		t.Errorf("with the other key of the token closed: %v", err)
	}
	err = second.Close()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "after the last key", none)
	third, err := s.Open(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Close()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "after the Store", none)
	err = signOnce(t.Context(), third, "x")
	expect(t, err, imprint.CodeInternal, "closed")
	_, err = s.Open(t.Context(), uri)
	expect(t, err, imprint.CodeInternal, "closed")
	err = third.Close()
	if err != nil {
		t.Error(err)
	}
}

// Without the helper, or with another program in its place, the error says what to
// build.
func TestAMissingHelperIsExplained(t *testing.T) {
	t.Parallel()
	h := newHSM(t)
	bare := filepath.Join(t.TempDir(), "imprint-pkcs11")
	sh(t, "go", "build", "-o", bare, "github.com/imprint-iot/imprint/cmd/imprint-pkcs11")
	script := filepath.Join(t.TempDir(), "script")
	put(t, script, []byte("#!/bin/sh\necho hello, is there anybody out there\nexec sleep 60\n"))
	err := os.Chmod(script, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	for path, words := range map[string][]string{
		filepath.Join(t.TempDir(), "nothing"): {"couldn't start imprint-pkcs11", "make pkcs11-helper"},
		bare:                                  {"has no PKCS#11", "make pkcs11-helper"},
		script:                                {"protocol"},
		"/bin/true":                           {"imprint-pkcs11 ended (exit status 0)"},
	} {
		s := newStore(t, func(c *keys.Config) { c.PKCS11Helper = path })
		within(t, patience, path, func() { _, err = s.Open(t.Context(), h.uri("object=root")) })
		expect(t, err, imprint.CodeKeyUnavailable, words...)
	}
}
