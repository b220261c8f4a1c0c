package provisioning_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/store/sqlite"
	"github.com/imprint-iot/imprint/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	home    = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	another = imprint.Tenant{Account: "111111111111", Region: "us-east-1"}
	instant = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
)

func clock() time.Time { return instant }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// faulty lets the registry's commits fail.
func faulty(faults sqlite.Faults) func(*sqlite.Options) {
	return func(o *sqlite.Options) { o.Faults = faults }
}

// authority is a CA of the test, outside of any registry.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(tb testing.TB, name string, key *ecdsa.PrivateKey) *authority {
	tb.Helper()
	if key == nil {
		key = newKey(tb)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		tb.Fatal(err)
	}
	cert := sign(tb, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: instant.Add(-time.Hour), NotAfter: instant.Add(1000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}, nil, &key.PublicKey, key)
	return &authority{key: key, cert: cert}
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func sign(tb testing.TB, template, parent *x509.Certificate, public, signer any) *x509.Certificate {
	tb.Helper()
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

// device makes a device certificate.
func (a *authority) device(tb testing.TB, subject pkix.Name, key *ecdsa.PrivateKey) *x509.Certificate {
	tb.Helper()
	if key == nil {
		key = newKey(tb)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		tb.Fatal(err)
	}
	return sign(tb, &x509.Certificate{
		SerialNumber: serial, Subject: subject, NotBefore: instant.Add(-time.Hour), NotAfter: instant.Add(time.Hour),
	}, a.cert, &key.PublicKey, a.key)
}

// registered is the CA's row, open for auto-registration with a template; the
// empty template means just-in-time registration.
func (a *authority) registered(tenant imprint.Tenant, body string) imprint.CACertificate {
	ca := imprint.CACertificate{
		Tenant: tenant, ID: pki.CertificateID(a.cert.Raw), PEM: pki.EncodeCertificatePEM(a.cert.Raw), Status: imprint.CAActive,
		Mode: imprint.ModeDefault, AutoRegistration: true, OwnedBy: tenant.Account, SubjectKey: pki.SubjectKey(a.cert.RawSubject),
		Subject: pki.SubjectText(a.cert.RawSubject), NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		CreatedAt: instant, ModifiedAt: instant, CustomerVersion: 1,
	}
	if body != "" {
		ca.Registration = &imprint.RegistrationConfig{TemplateBody: body, RoleARN: "arn:aws:iam::000000000000:role/r"}
	}
	return ca
}

func update(tb testing.TB, store imprint.Store, fn func(imprint.Tx) error) {
	tb.Helper()
	err := store.Update(context.Background(), fn)
	if err != nil {
		tb.Fatalf("couldn't update the store: %v", err)
	}
}

func view(tb testing.TB, store imprint.Store, fn func(imprint.ReadTx) error) {
	tb.Helper()
	err := store.View(context.Background(), fn)
	if err != nil {
		tb.Fatalf("couldn't read the store: %v", err)
	}
}

// patience bounds every wait for what must happen.
const patience = 2 * time.Minute

// eventually waits for what others bring about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("it isn't so in time that %s", what)
		}
	}
}

// world is a store with a CA, an engine, and a trace.
type world struct {
	store  *sqlite.Store
	engine *provisioning.Engine
	log    *trace.Log
	ca     *authority
	// failing makes commits fail while it is set.
	failing *fault
}

// fault is asked before each commit.
type fault struct {
	left    chan struct{}
	commits atomic.Int64 // those before, whether they failed or not
	spared  atomic.Int64 // commits that don't fail yet
}

func (f *fault) strike() error {
	f.commits.Add(1)
	if f.spared.Add(-1) >= 0 {
		return nil
	}
	select {
	case <-f.left:
		return errors.New("the disk broke")
	default:
		return nil
	}
}

func newWorld(tb testing.TB, body string, opts provisioning.Options) *world {
	tb.Helper()
	w := &world{ca: newAuthority(tb, "Line 1", nil), failing: &fault{left: make(chan struct{}, 100)}}
	w.store = registrytest.Open(tb, filepath.Join(tb.TempDir(), "registry.db"), faulty(sqlite.Faults{BeforeCommit: w.failing.strike}))
	opts.Logger = quiet()
	if opts.Identities == nil {
		opts.Identities = &foresight{TB: tb}
	}
	w.engine = provisioning.NewEngine(w.store, clock, opts)
	tb.Cleanup(w.engine.Close)
	w.log = trace.NewLog(w.store, clock, trace.Options{Logger: quiet(), Linger: time.Microsecond, FoldAfter: -1, SuccessRate: -1})
	tb.Cleanup(w.log.Close)
	update(tb, w.store, func(tx imprint.Tx) error { return tx.PutCA(w.ca.registered(home, body)) })
	return w
}

func idOf(cert *x509.Certificate) imprint.CertificateID {
	sum := sha256.Sum256(cert.Raw)
	return imprint.CertificateID(hex.EncodeToString(sum[:]))
}
