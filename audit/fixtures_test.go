package audit_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/store/sqlite"
)

var (
	home  = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	twin  = imprint.Tenant{Account: "000000000000", Region: "eu-west-1"}
	other = imprint.Tenant{Account: "111111111111", Region: "us-east-1"}
)

var instant = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// hands is a clock that tests set.
type hands struct {
	mu  sync.Mutex
	now time.Time
}

func (h *hands) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hands) set(at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = at
}

type plainSealer struct{}

func (plainSealer) Seal(plain, _ []byte) ([]byte, error)  { return plain, nil }
func (plainSealer) Open(sealed, _ []byte) ([]byte, error) { return sealed, nil }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// house is a registry under audit.
type house struct {
	t     *testing.T
	path  string
	store imprint.Store
	hands *hands
	opts  audit.Options
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, path: filepath.Join(t.TempDir(), "registry.db"), hands: &hands{now: instant}, opts: audit.Options{Rest: -1, Logger: quiet()}}
	h.open()
	return h
}

func (h *house) open() {
	h.t.Helper()
	h.store = registrytest.Open(h.t, h.path, func(o *sqlite.Options) { o.Sealer, o.Clock, o.Logger = plainSealer{}, h.hands.clock, quiet() })
}

// put writes rows that must be taken.
func (h *house) put(fn func(imprint.Tx) error) {
	h.t.Helper()
	err := h.store.Update(context.Background(), fn)
	if err != nil {
		h.t.Fatalf("couldn't put: %v", err)
	}
}

func (h *house) auditor() *audit.Auditor {
	h.t.Helper()
	a, err := audit.New(context.Background(), h.store, h.hands.clock, h.opts)
	if err != nil {
		h.t.Fatalf("couldn't make an auditor: %v", err)
	}
	h.t.Cleanup(a.Close)
	return a
}

// start begins an audit.
func (h *house) start(a *audit.Auditor, checks ...imprint.AuditCheck) imprint.AuditTask {
	h.t.Helper()
	task, err := a.Start(context.Background(), imprint.AuditTask{Tenant: home, Type: imprint.AuditOnDemand}, checks, false)
	if err != nil {
		h.t.Fatalf("couldn't start an audit: %v", err)
	}
	return task
}

func (h *house) task(id string) imprint.AuditTask {
	h.t.Helper()
	var task imprint.AuditTask
	err := h.store.View(context.Background(), func(tx imprint.ReadTx) error {
		found, err := tx.AuditTask(home, id)
		task = found
		return err
	})
	if err != nil {
		h.t.Fatalf("couldn't read audit %s: %v", id, err)
	}
	return task
}

// await waits for the end of an audit.
func (h *house) await(id string) imprint.AuditTask {
	h.t.Helper()
	h.eventually("audit "+id+" is over", func() bool { return h.task(id).Status != imprint.AuditInProgress })
	return h.task(id)
}

// eventually waits for what must happen.
func (h *house) eventually(what string, happened func() bool) {
	h.t.Helper()
	deadline := time.After(2 * time.Minute)
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for !happened() {
		select {
		case <-look.C:
		case <-deadline:
			h.t.Fatalf("it isn't so in time that %s", what)
		}
	}
}

func (h *house) findings(task string) []imprint.AuditFinding {
	h.t.Helper()
	var found []imprint.AuditFinding
	err := h.store.View(context.Background(), func(tx imprint.ReadTx) error {
		page, _, err := tx.AuditFindings(home, imprint.AuditFindingFilter{Task: task}, imprint.Page{Limit: 10_000, Ascending: true})
		found = page
		return err
	})
	if err != nil {
		h.t.Fatalf("couldn't read findings: %v", err)
	}
	return found
}

// finds does one check and expects findings as "KIND/id CODE" in any order, each with
// words and something to type, and the number of resources that were looked at.
func (h *house) finds(check imprint.AuditCheck, resources int64, want ...string) []imprint.AuditFinding {
	h.t.Helper()
	a := h.auditor()
	defer a.Close()
	task := h.await(h.start(a, check).ID)
	run := task.Run(check)
	status := imprint.AuditRunCompliant
	if len(want) > 0 {
		status = imprint.AuditRunNonCompliant
	}
	if task.Status != imprint.AuditCompleted || run.Status != status || run.Resources != resources || run.NonCompliant != int64(len(want)) || run.Findings != int64(len(want)) {
		h.t.Errorf("%s: got %s, %+v; want COMPLETED, %s, %d of %d resources", check, task.Status, *run, status, len(want), resources)
	}
	found := h.findings(task.ID)
	var got []string
	for _, f := range found {
		got = append(got, f.Resource.Key()+" "+f.Code)
		if f.Check != check || f.Reason == "" || f.Mitigation == "" || f.Severity == "" || f.Tenant != home || !f.TaskStartedAt.Equal(task.CreatedAt) {
			h.t.Errorf("finding %+v lacks something", f)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		h.t.Errorf("%s:\n got %q\nwant %q", check, got, want)
	}
	return found
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// authority is a CA of a test's operator.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
}

var serials = struct {
	mu   sync.Mutex
	last int64
}{}

func nextSerial() *big.Int {
	serials.mu.Lock()
	defer serials.mu.Unlock()
	serials.last++
	return big.NewInt(1<<40 + serials.last)
}

// newAuthority makes a CA that another signed, or, with nil, itself.
func newAuthority(t testing.TB, name string, by *authority, edits ...func(*x509.Certificate)) *authority {
	t.Helper()
	ca := &authority{t: t, key: newKey(t)}
	template := &x509.Certificate{SerialNumber: nextSerial(), Subject: pkix.Name{CommonName: name}, NotBefore: instant.AddDate(-1, 0, 0), NotAfter: instant.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true}
	for _, edit := range edits {
		edit(template)
	}
	parent, key := template, ca.key
	if by != nil {
		parent, key = by.cert, by.key
	}
	ca.cert = signed(t, template, parent, ca.key.Public(), key)
	return ca
}

func signed(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatalf("couldn't sign: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// row is the CA as the registry has it.
func (ca *authority) row() imprint.CACertificate {
	return imprint.CACertificate{Tenant: home, ID: pki.CertificateID(ca.cert.Raw), PEM: pki.EncodeCertificatePEM(ca.cert.Raw), Status: imprint.CAActive, SubjectKey: pki.SubjectKey(ca.cert.RawSubject),
		Subject: pki.SubjectText(ca.cert.RawSubject), Serial: pki.SerialHex(ca.cert.SerialNumber), NotBefore: ca.cert.NotBefore, NotAfter: ca.cert.NotAfter, CreatedAt: instant.AddDate(0, -1, 0)}
}

// leaf makes a device's certificate, ACTIVE, as the registry has it.
func (ca *authority) leaf(name string, edits ...func(*x509.Certificate)) imprint.Certificate {
	ca.t.Helper()
	return ca.leafOf(newKey(ca.t).Public(), name, edits...)
}

func (ca *authority) leafOf(public crypto.PublicKey, name string, edits ...func(*x509.Certificate)) imprint.Certificate {
	ca.t.Helper()
	template := &x509.Certificate{SerialNumber: nextSerial(), Subject: pkix.Name{CommonName: name}, NotBefore: instant.AddDate(0, -2, 0), NotAfter: instant.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature}
	for _, edit := range edits {
		edit(template)
	}
	cert := signed(ca.t, template, ca.cert, public, ca.key)
	return imprint.Certificate{Tenant: home, ID: pki.CertificateID(cert.Raw), PEM: pki.EncodeCertificatePEM(cert.Raw), Status: imprint.CertificateActive, CAID: pki.CertificateID(ca.cert.Raw),
		Serial: pki.SerialHex(cert.SerialNumber), Subject: pki.SubjectText(cert.RawSubject), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, CreatedAt: instant.AddDate(0, -1, 0)}
}

// until sets the end of a certificate.
func until(at time.Time) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotAfter = at }
}

// certificates puts certificates.
func (h *house) certificates(certs ...imprint.Certificate) {
	h.t.Helper()
	h.put(func(tx imprint.Tx) error {
		for _, c := range certs {
			err := tx.PutCertificate(c)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// cas puts CAs.
func (h *house) cas(all ...imprint.CACertificate) {
	h.t.Helper()
	h.put(func(tx imprint.Tx) error {
		for _, c := range all {
			err := tx.PutCA(c)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// policyNamed puts a policy with one document.
func (h *house) policyNamed(name imprint.PolicyName, document string, targets ...string) {
	h.t.Helper()
	h.put(func(tx imprint.Tx) error {
		err := tx.PutPolicy(imprint.Policy{Tenant: home, Name: name, DefaultVersion: 2, LastVersion: 2})
		if err == nil {
			err = tx.PutPolicyVersion(imprint.PolicyVersion{Tenant: home, Policy: name, Version: 2, Document: document})
		}
		for _, target := range targets {
			if err == nil {
				err = tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: home, Policy: name, Target: target})
			}
		}
		return err
	})
}

func device(c imprint.Certificate, code string) string {
	return "DEVICE_CERTIFICATE/" + string(c.ID) + " " + code
}

func ca(c imprint.CACertificate, code string) string {
	return "CA_CERTIFICATE/" + string(c.ID) + " " + code
}
