package ca_test

import (
	"bufio"
	"context"
	"crypto"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// slowKeys are keys in a module that takes its time from a moment on: it says so and
// doesn't come back.
type slowKeys struct {
	held   pki.Signer
	hang   bool
	asking func()
}

func (k *slowKeys) Check(imprint.Tenant, string) error { return nil }

func (k *slowKeys) Stores(imprint.Tenant) []ca.KeyStore { return nil }

func (k *slowKeys) List(context.Context, imprint.Tenant, string) ([]ca.StoredKey, error) {
	return nil, nil
}

func (k *slowKeys) Open(context.Context, string) (pki.Signer, error) { return k, nil }

func (k *slowKeys) Generate(_ context.Context, uri string, kind pki.KeyKind) (string, pki.Signer, error) {
	key, err := pki.NewKey(kind)
	k.held = pki.NewSoftSigner(key)
	return uri, k, err
}

func (k *slowKeys) Public() crypto.PublicKey { return k.held.Public() }

func (k *slowKeys) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.hang {
		k.asking()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return k.held.Sign(ctx, digest, opts)
}

const crashDir = "IMPRINT_TEST_CRASH_DIR"

// TestMain is also the process that is killed while it signs.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		err := signForever(dir)
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// signForever makes a root whose key is in a module, and a request to sign that the module
// never answers.
func signForever(dir string) error {
	key, err := seal.LoadOrCreateMasterKey(filepath.Join(dir, "master.key"))
	if err != nil {
		return err
	}
	ctx := context.Background()
	store, err := sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(dir, "registry.db"), Sealer: seal.New(key), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	profiles, err := pki.NewProfiles()
	if err != nil {
		return err
	}
	keys := &slowKeys{asking: func() { fmt.Println("signing") }}
	engine := ca.New(ca.Options{Store: store, Sealer: seal.New(key), Journal: issuelog.New(store), Clock: time.Now, Profiles: profiles, Keys: keys})
	name, err := pki.ParseSubject("/CN=root")
	if err != nil {
		return err
	}
	root, err := engine.Create(ctx, home, ca.Spec{Type: imprint.AuthorityRoot, RawSubject: name, Profile: "root", KeyURI: "module:1"})
	if err != nil {
		return err
	}
	keys.hang = true
	csr, err := os.ReadFile(filepath.Join(dir, "device.csr"))
	if err != nil {
		return err
	}
	parsed, err := pki.ParseCSRPEM(string(csr))
	if err != nil {
		return err
	}
	request := pki.RequestOf(parsed)
	request.Token = "token"
	_, err = engine.Issue(ctx, home, root.ID, "operational", request)
	return err
}

// TestAKillBetweenIntentAndSignatureLeavesNothingUnknown kills a process with SIGKILL while
// a key signs: the intent stands in the registry, no certificate came of it, its serial
// number is never given to another one, and the same request may come again.
func TestAKillBetweenIntentAndSignatureLeavesNothingUnknown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	device := key(t)
	csr, err := pki.NewSigningRequest(t.Context(), pki.NewSoftSigner(device), subject(t, "SN-1"))
	if err != nil {
		t.Fatal(err)
	}
	err = os.WriteFile(filepath.Join(dir, "device.csr"), []byte(csr), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Start()
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "signing\n" {
		t.Fatalf("the process said %q, %v", line, err)
	}
	err = cmd.Process.Kill()
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed

	o := &office{t: t, store: registrytest.Open(t, filepath.Join(dir, "registry.db")), at: time.Now()}
	master, err := seal.LoadMasterKey(filepath.Join(dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	o.open(seal.New(master))
	log := issuelog.New(o.store)
	unfinished, _, err := log.Unfinished(t.Context(), home, imprint.Page{Limit: 100})
	if err != nil || len(unfinished) != 1 || unfinished[0].Subject != "CN=SN-1,O=Acme" {
		t.Fatalf("after the kill there are the intents %+v, %v; want one", unfinished, err)
	}
	intent := unfinished[0]
	_, _, err = o.Certificate(t.Context(), home, intent.Authority, intent.Serial)
	refused(t, "the certificate of the intent", err, imprint.CodeNotFound, "never given to a certificate")
	_, err = o.Revoke(t.Context(), home, intent.Authority, intent.Serial, "")
	refused(t, "revoking it", err, imprint.CodeNotFound, "never given to a certificate")
	// The same request again, to an authority whose key answers, with key and token.
	line7 := o.root("answers")
	parsed, err := pki.ParseCSRPEM(csr)
	if err != nil {
		t.Fatal(err)
	}
	request := pki.RequestOf(parsed)
	request.Token = "token"
	issued, err := o.Issue(t.Context(), home, line7.ID, "operational", request)
	if err != nil {
		t.Fatalf("the key of an intent without a certificate is refused: %v", err)
	}
	if pki.SerialHex(issued.Certificate.SerialNumber) == intent.Serial {
		t.Error("the intent's serial number was used again")
	}
	all, _, err := log.Unfinished(t.Context(), home, imprint.Page{Limit: 100})
	if err != nil || len(all) != 1 || all[0].Serial != intent.Serial {
		t.Errorf("the intent is %+v, %v", all, err)
	}
}
