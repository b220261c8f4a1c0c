//go:build unix

package translog_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
	"github.com/imprint-iot/imprint/pki/translog"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
	"github.com/imprint-iot/imprint/store/sqlite"
)

func TestMain(m *testing.M) {
	killChild()
	goleak.VerifyTestMain(m)
}

var tenant = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func masterKey() imprint.Sealer {
	key, err := seal.ParseMasterKey(base64.StdEncoding.EncodeToString(make([]byte, seal.KeySize)))
	if err != nil {
		panic(err)
	}
	return seal.New(key)
}

// world is a server's data directory with its CA, as far as signing needs one.
type world struct {
	dir     string
	store   imprint.Store
	ca      *pki.Authority
	profile *pki.Profile
}

func openWorld(ctx context.Context, dir string) (*world, error) {
	store, err := sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(dir, "registry.db"), Sealer: masterKey(), Logger: quiet()})
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir, store: store}
	w.ca, err = pki.OpenAuthority(ctx, dir, pki.AuthorityConfig{Sealer: masterKey(), Journal: issuelog.New(store), Clock: time.Now, Key: pki.KeyP256})
	if err == nil {
		w.profile, err = pki.NewProfile(pki.ProfileConfig{})
	}
	if err == nil {
		err = store.Update(ctx, func(tx imprint.Tx) error {
			return tx.PutTenantSettings(imprint.TenantSettings{Tenant: tenant, EndpointPrefix: "a", CreatedAt: time.Now()})
		})
	}
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return w, nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	registrytest.PutEmpty(t, filepath.Join(dir, "registry.db"))
	return worldIn(t, dir)
}

func worldIn(t *testing.T, dir string) *world {
	t.Helper()
	w, err := openWorld(t.Context(), dir)
	if err != nil {
		t.Fatalf("couldn't make a data directory: %v", err)
	}
	t.Cleanup(func() { _ = w.store.Close() })
	return w
}

func (w *world) logDir() string { return filepath.Join(w.dir, "issuance-log") }

func (w *world) tilesDir() string { return filepath.Join(w.logDir(), "log") }

func (w *world) source() tiles.Source { return tiles.Dir(w.tilesDir()) }

func (w *world) config() translog.Config {
	return translog.Config{Dir: w.logDir(), Store: w.store, Sealer: masterKey(), Clock: time.Now, Logger: quiet(), Interval: 10 * time.Millisecond}
}

func (w *world) open(t *testing.T, change ...func(*translog.Config)) *translog.Log {
	t.Helper()
	config := w.config()
	for _, c := range change {
		c(&config)
	}
	log, err := translog.Open(t.Context(), config)
	if err != nil {
		t.Fatalf("couldn't open the log: %v", err)
	}
	closed := false
	t.Cleanup(func() {
		if !closed {
			_ = log.Close(context.Background())
		}
	})
	return log
}

var deviceKey = func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}()

// issue signs a certificate with the device CA and registers it, as the API does: the
// certificate's row and its issuance in one commit.
func (w *world) issue(ctx context.Context) (*x509.Certificate, error) {
	token, err := w.ca.Prepare(ctx, tenant, w.profile, pki.Request{PublicKey: deviceKey.Public()})
	if err != nil {
		return nil, err
	}
	issued, err := w.ca.SignInto(ctx, token, func(issued *pki.Issued, record func(imprint.Tx) error) error {
		return w.store.Update(ctx, func(tx imprint.Tx) error {
			err := tx.PutCertificate(registered(issued.Certificate))
			if err != nil {
				return err
			}
			return record(tx)
		})
	})
	if err != nil {
		return nil, err
	}
	return issued.Certificate, nil
}

func registered(c *x509.Certificate) imprint.Certificate {
	return imprint.Certificate{
		Tenant: tenant, ID: pki.CertificateID(c.Raw), PEM: pki.EncodeCertificatePEM(c.Raw), Status: imprint.CertificateActive,
		Serial: pki.SerialHex(c.SerialNumber), CreatedAt: time.Now(), NotBefore: c.NotBefore, NotAfter: c.NotAfter,
	}
}

func (w *world) mustIssue(t *testing.T, count int) []*x509.Certificate {
	t.Helper()
	certs := make([]*x509.Certificate, count)
	for i := range certs {
		var err error
		certs[i], err = w.issue(t.Context())
		if err != nil {
			t.Fatalf("couldn't issue a certificate: %v", err)
		}
	}
	return certs
}

// issuances are all of the store, by id.
func (w *world) issuances(t *testing.T) []imprint.LoggedIssuance {
	t.Helper()
	var all []imprint.LoggedIssuance
	err := w.store.View(t.Context(), func(tx imprint.ReadTx) error {
		var err error
		all, err = tx.LoggedIssuances("", 10_000)
		return err
	})
	if err != nil {
		t.Fatalf("couldn't read the issuances: %v", err)
	}
	return all
}

// waitAll waits until everything that is issued is in the log.
func (w *world) waitAll(t *testing.T, log *translog.Log) {
	t.Helper()
	for _, i := range w.issuances(t) {
		if i.CertificateID == "" {
			continue
		}
		_, err := log.Wait(t.Context(), i.ID)
		if err != nil {
			t.Fatalf("couldn't wait for issuance %s: %v", i.ID, err)
		}
	}
}

// logged makes a world whose log has count certificates, and closes the log. Those of one
// count are copies of a world that is made once, and have its keys.
func logged(t *testing.T, count int) (*world, []*x509.Certificate) {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	first := made.worlds[count]
	if first == nil {
		w := newWorld(t)
		first = &madeWorld{certs: w.mustIssue(t, count)}
		log := w.open(t)
		w.waitAll(t, log)
		closeLog(t, log)
		err := w.store.Close()
		if err != nil {
			t.Fatal(err)
		}
		first.read(t, w.dir)
		made.worlds[count] = first
	}
	return worldIn(t, first.write(t)), first.certs
}

// made are the worlds of which logged gives copies, by the length of their log.
var made = struct {
	sync.Mutex
	worlds map[int]*madeWorld
}{worlds: map[int]*madeWorld{}}

// madeWorld is what a world has on disk.
type madeWorld struct {
	files []madeFile
	certs []*x509.Certificate
}

type madeFile struct {
	name string
	mode fs.FileMode
	data []byte
}

func (m *madeWorld) read(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		file := madeFile{mode: info.Mode()}
		file.name, err = filepath.Rel(dir, path)
		if err == nil && !entry.IsDir() {
			file.data, err = os.ReadFile(path)
		}
		m.files = append(m.files, file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (m *madeWorld) write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, file := range m.files {
		path := filepath.Join(dir, file.name)
		var err error
		if file.mode.IsDir() {
			err = os.MkdirAll(path, file.mode.Perm())
		} else {
			err = os.WriteFile(path, file.data, file.mode.Perm())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func closeLog(t *testing.T, log *translog.Log) {
	t.Helper()
	err := log.Close(context.Background())
	if err != nil {
		t.Fatalf("couldn't close the log: %v", err)
	}
}

func (w *world) verifier(t *testing.T) *tiles.Verifier {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.logDir(), "verifier.txt"))
	if err != nil {
		t.Fatalf("couldn't read the public key: %v", err)
	}
	v, err := tiles.NewVerifier(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestEveryCompletedIssuanceIsLoggedOnceInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustIssue(t, 3)
	// An intent that was never signed isn't logged.
	_, err := w.ca.Prepare(t.Context(), tenant, w.profile, pki.Request{PublicKey: deviceKey.Public()})
	if err != nil {
		t.Fatal(err)
	}
	log := w.open(t, func(c *translog.Config) { c.Batch = 2 })
	w.mustIssue(t, 4)
	w.waitAll(t, log)
	if got := log.Counters(); got.Size != 7 || got.Published != 7 || got.Waiting != 0 || got.Broken {
		t.Errorf("counters: got %+v, want 7 logged and published", got)
	}
	w.checkBijection(t, log.Verifier(), 7)
	closeLog(t, log)

	log = w.open(t)
	w.mustIssue(t, 300)
	w.waitAll(t, log)
	w.checkBijection(t, log.Verifier(), 307)
	closeLog(t, log)
}

// checkBijection ensures that the log has want entries, each of the issuance that has its
// index, with the certificate's bytes.
func (w *world) checkBijection(t *testing.T, verifier *tiles.Verifier, want int) {
	t.Helper()
	source := tiles.Dir(w.tilesDir())
	checkpoint, err := verifier.Latest(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	if checkpoint.N != int64(want) {
		t.Fatalf("the checkpoint has %d entries, want %d", checkpoint.N, want)
	}
	byIndex := make(map[int64]imprint.LoggedIssuance)
	for _, i := range w.issuances(t) {
		if i.LogIndex >= 0 {
			byIndex[i.LogIndex] = i
		}
		if (i.LogIndex >= 0) != (i.CertificateID != "") {
			t.Errorf("issuance %s with certificate %q has index %d", i.ID, i.CertificateID, i.LogIndex)
		}
	}
	seen := 0
	err = tiles.Check(t.Context(), source, checkpoint, tiles.CheckOptions{
		Entry: func(index int64, raw []byte) error {
			e, err := tiles.ParseEntry(raw)
			if err != nil {
				return err
			}
			i := byIndex[index]
			if i.ID != e.Issuance || i.CertificateID != e.Certificate || i.Tenant != e.Tenant || len(e.DER) == 0 {
				t.Errorf("entry %d is %+v, want that of issuance %+v", index, e, i)
			}
			seen++
			return nil
		},
		Damage: func(d tiles.Damage) { t.Errorf("%s: %s", d.Path, d.Problem) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen != want || len(byIndex) != want {
		t.Errorf("got %d entries and %d issuances with an index, want %d", seen, len(byIndex), want)
	}
}

// recordOnly is a completed issuance whose certificate is nowhere.
func recordOnly(id string) imprint.Issuance {
	return imprint.Issuance{ID: id, Tenant: tenant, Serial: "1", CertificateID: idOf([]byte(id)), At: time.Now()}
}

func idOf(der []byte) imprint.CertificateID {
	sum := sha256.Sum256(der)
	return imprint.CertificateID(hex.EncodeToString(sum[:]))
}

// recordOnly records issuances whose certificates are nowhere, behind all that there are.
func (w *world) recordOnly(t *testing.T, count int) {
	t.Helper()
	from := len(w.issuances(t))
	w.update(t, func(tx imprint.Tx) error {
		for i := range count {
			err := tx.PutIssuance(recordOnly(fmt.Sprintf("f%08d", from+i)))
			if err != nil {
				return err
			}
		}
		return nil
	})
}
