package ca_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
)

var (
	home  = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	other = imprint.Tenant{Account: "111111111111", Region: "us-east-1"}
	now   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// office is an engine on a real registry.
type office struct {
	*ca.Engine
	t      *testing.T
	store  imprint.Store
	sealer imprint.Sealer
	mu     sync.Mutex
	at     time.Time
}

func (o *office) clock() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.at
}

func (o *office) later(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.at = o.at.Add(d)
}

func newOffice(t *testing.T) *office {
	t.Helper()
	dir := t.TempDir()
	o := &office{t: t, store: registrytest.Open(t, filepath.Join(dir, "registry.db")), at: now}
	key, err := seal.LoadOrCreateMasterKey(filepath.Join(dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	o.open(seal.New(key))
	return o
}

func (o *office) open(sealer imprint.Sealer) {
	o.sealer = sealer
	profiles, err := pki.NewProfiles(pki.ProfileConfig{Name: "hour", Kind: pki.KindOperational, Lifetime: time.Hour},
		pki.ProfileConfig{Name: "again", Kind: pki.KindOperational, Lifetime: time.Hour, AllowKeyReuse: true})
	if err != nil {
		o.t.Fatal(err)
	}
	o.Engine = ca.New(ca.Options{Store: o.store, Sealer: sealer, Journal: issuelog.New(o.store), Clock: o.clock, Profiles: profiles, BaseURL: "http://pki.example.com",
		Logger: slog.New(slog.DiscardHandler)})
	o.t.Cleanup(o.Close)
}

func subject(t *testing.T, cn string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn, Organization: []string{"Acme"}}}, key(t))
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return csr.RawSubject
}

func key(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (o *office) root(name string) imprint.CertificateAuthority {
	o.t.Helper()
	a, err := o.Create(o.t.Context(), home, ca.Spec{Name: name, Type: imprint.AuthorityRoot, RawSubject: subject(o.t, name), Profile: "root"})
	if err != nil {
		o.t.Fatal(err)
	}
	return a
}

func (o *office) below(parent imprint.AuthorityID, name string) imprint.CertificateAuthority {
	o.t.Helper()
	a, err := o.Create(o.t.Context(), home, ca.Spec{Name: name, Type: imprint.AuthoritySubordinate, RawSubject: subject(o.t, name), Parent: parent, Profile: "intermediate",
		Revocation: imprint.RevocationConfiguration{CRL: true, CRLDays: 7, OCSP: true}})
	if err != nil {
		o.t.Fatal(err)
	}
	return a
}

func (o *office) issue(id imprint.AuthorityID, cn string) ca.Issued {
	o.t.Helper()
	issued, err := o.Issue(o.t.Context(), home, id, "hour", pki.Request{PublicKey: key(o.t).Public(), RawSubject: subject(o.t, cn)})
	if err != nil {
		o.t.Fatal(err)
	}
	return issued
}

// register puts a device's certificate into the registry, as a first connection does.
func (o *office) register(i ca.Issued, signer imprint.CertificateID) {
	o.t.Helper()
	err := o.store.Update(o.t.Context(), func(tx imprint.Tx) error {
		return tx.PutCertificate(imprint.Certificate{Tenant: home, ID: i.ID, PEM: i.PEM, Status: imprint.CertificateActive, CAID: signer, Serial: pki.SerialHex(i.Certificate.SerialNumber)})
	})
	if err != nil {
		o.t.Fatal(err)
	}
}

func (o *office) status(id imprint.CertificateID) imprint.CertificateStatus {
	o.t.Helper()
	var status imprint.CertificateStatus
	err := o.store.View(o.t.Context(), func(tx imprint.ReadTx) error {
		c, err := tx.Certificate(home, id)
		status = c.Status
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return status
}

func refused(t *testing.T, what string, err error, code imprint.Code, words string) {
	t.Helper()
	if imprint.CodeOf(err) != code || err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("%s: got %q (%v), want %s with %q", what, imprint.CodeOf(err), err, code, words)
	}
}

func TestAHierarchySignsDevicesThatVerify(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("Acme root")
	line := o.below(root.ID, "Acme line 7")
	issued := o.issue(line.ID, "SN-1")
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(root.Certificate))
	middle.AppendCertsFromPEM([]byte(issued.Chain))
	_, err := issued.Certificate.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		t.Errorf("the device's certificate doesn't verify: %v", err)
	}
	at := "/" + string(home.Account) + "/" + string(home.Region) + "/" + string(line.ID)
	if want := "http://pki.example.com/crl" + at + ".crl"; len(issued.Certificate.CRLDistributionPoints) != 1 || issued.Certificate.CRLDistributionPoints[0] != want {
		t.Errorf("CRLs: got %q, want %s", issued.Certificate.CRLDistributionPoints, want)
	}
	if want := "http://pki.example.com/ocsp" + at; len(issued.Certificate.OCSPServer) != 1 || issued.Certificate.OCSPServer[0] != want {
		t.Errorf("OCSP: got %q, want %s", issued.Certificate.OCSPServer, want)
	}
	found, chain, err := o.Certificate(t.Context(), home, line.ID, strings.ToUpper(pki.SerialHex(issued.Certificate.SerialNumber)))
	if err != nil || found.CertificateID != issued.ID || chain != issued.Chain || found.Profile != "hour" || string(found.Certificate) != string(issued.Certificate.Raw) {
		t.Errorf("what was issued isn't found: %+v, %v", found, err)
	}
	_, _, err = o.Certificate(t.Context(), other, line.ID, found.Serial)
	refused(t, "another tenant's certificate", err, imprint.CodeNotFound, "doesn't exist")
	_, err = o.Issue(t.Context(), other, line.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "x")})
	refused(t, "another tenant's authority", err, imprint.CodeNotFound, "doesn't exist")
	for _, text := range []string{"Acme line 7", string(line.ID), line.ARN()} {
		a, err := o.Find(t.Context(), home, text)
		if err != nil || a.ID != line.ID {
			t.Errorf("Find(%q): got %s, %v", text, a.ID, err)
		}
	}
}

func TestAnAuthorityThatMayNotSignDoesNot(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	line := o.below(root.ID, "line")
	request := func() pki.Request { return pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN-1")} }
	change := func(edit func(*imprint.CertificateAuthority)) {
		t.Helper()
		err := o.store.Update(t.Context(), func(tx imprint.Tx) error {
			a, err := tx.Authority(home, line.ID)
			if err != nil {
				return err
			}
			edit(&a)
			return tx.PutAuthority(a)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	before := line
	for _, c := range []struct {
		name, words string
		code        imprint.Code
		edit        func(*imprint.CertificateAuthority)
	}{
		{"disabled", "DISABLED", imprint.CodeAuthorityState, func(a *imprint.CertificateAuthority) { a.Status = imprint.AuthorityDisabled }},
		{"deleted", "DELETED", imprint.CodeAuthorityState, func(a *imprint.CertificateAuthority) { a.Status = imprint.AuthorityDeleted }},
		{"without its key", "isn't here", imprint.CodeAuthorityState, func(a *imprint.CertificateAuthority) { a.Key = "" }},
		{"of another profile", "doesn't sign by profile hour", imprint.CodeAccessDenied, func(a *imprint.CertificateAuthority) { a.Profiles = []string{"server"} }},
		{"past the end of signing", "signs nothing more", imprint.CodeCAExpired, func(a *imprint.CertificateAuthority) { a.SigningEnds = now }},
		{"with a key sealed for another", "couldn't open the key", imprint.CodeInternal, func(a *imprint.CertificateAuthority) { a.SealedKey = root.SealedKey }},
		{"revoked", "was revoked", imprint.CodeAuthorityState, func(a *imprint.CertificateAuthority) { a.RevokedAt = now }},
	} {
		o.issue(line.ID, "warm "+c.name) // its key is open
		change(c.edit)
		_, err := o.Issue(t.Context(), home, line.ID, "hour", request())
		refused(t, c.name, err, c.code, c.words)
		change(func(a *imprint.CertificateAuthority) { *a = before })
	}
	pending, err := o.Create(t.Context(), home, ca.Spec{Name: "pending", Type: imprint.AuthoritySubordinate, RawSubject: subject(t, "pending")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Issue(t.Context(), home, pending.ID, "hour", request())
	refused(t, "without a certificate", err, imprint.CodeAuthorityState, "PENDING_CERTIFICATE")
	o.later(40 * 365 * 24 * time.Hour)
	_, err = o.Issue(t.Context(), home, line.ID, "hour", request())
	refused(t, "expired", err, imprint.CodeAuthorityState, "EXPIRED")
}

// TestRevokingAnIntermediateStopsItsDevicesAndNobodyElses: what it issued, what was
// registered because it had signed, and nothing of its sister.
func TestRevokingAnIntermediateStopsItsDevicesAndNobodyElses(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	bad, good := o.below(root.ID, "bad"), o.below(root.ID, "good")
	err := o.store.Update(t.Context(), func(tx imprint.Tx) error {
		for _, a := range []imprint.CertificateAuthority{bad, good} {
			err := tx.PutCA(imprint.CACertificate{Tenant: home, ID: a.CertificateID, PEM: a.Certificate, Status: imprint.CAActive, AutoRegistration: true})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var gone, stay []imprint.CertificateID
	for n := range 3 {
		one, two := o.issue(bad.ID, fmt.Sprint("bad", n)), o.issue(good.ID, fmt.Sprint("good", n))
		o.register(one, bad.CertificateID)
		o.register(two, good.CertificateID)
		gone, stay = append(gone, one.ID), append(stay, two.ID)
	}
	// Signed elsewhere by the same key, and registered at its first connection.
	foreign := ca.Issued{Issued: &pki.Issued{ID: imprint.CertificateID(strings.Repeat("f", 64)), PEM: "p", Certificate: &x509.Certificate{}}}
	o.register(foreign, bad.CertificateID)
	gone = append(gone, foreign.ID)
	_, err = o.RevokeBelow(t.Context(), home, bad.ID, "")
	refused(t, "an authority that isn't revoked", err, imprint.CodeAuthorityState, "isn't revoked")
	_, err = o.Revoke(t.Context(), home, root.ID, bad.Serial, imprint.ReasonKeyCompromise)
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Issue(t.Context(), home, bad.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "x")})
	refused(t, "a revoked authority", err, imprint.CodeAuthorityState, "was revoked")
	for range 2 { // again changes nothing
		_, err = o.RevokeBelow(t.Context(), home, bad.ID, "")
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range gone {
		if got := o.status(id); got != imprint.CertificateRevoked {
			t.Errorf("a device of the revoked authority is %s", got)
		}
	}
	for _, id := range stay {
		if got := o.status(id); got != imprint.CertificateActive {
			t.Errorf("a device of its sister is %s", got)
		}
	}
	err = o.store.View(t.Context(), func(tx imprint.ReadTx) error {
		one, err := tx.CA(home, bad.CertificateID)
		two, err2 := tx.CA(home, good.CertificateID)
		if one.Status != imprint.CAInactive || two.Status != imprint.CAActive {
			t.Errorf("registered CAs: %s and %s, want INACTIVE and ACTIVE", one.Status, two.Status)
		}
		return errors.Join(err, err2)
	})
	if err != nil {
		t.Fatal(err)
	}
	o.issue(good.ID, "goes on")
	_, err = o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthoritySubordinate, RawSubject: subject(t, "x"), Parent: bad.ID, Profile: "intermediate"})
	refused(t, "an authority below a revoked one", err, imprint.CodeAuthorityState, "was revoked")
}

func TestRevokeByReason(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	line := o.below(root.ID, "line")
	issued := o.issue(line.ID, "SN-1")
	o.register(issued, "")
	serial := pki.SerialHex(issued.Certificate.SerialNumber)
	_, err := o.Revoke(t.Context(), home, line.ID, serial, "BECAUSE")
	refused(t, "a reason that isn't one", err, imprint.CodeInvalidRequest, "BECAUSE")
	_, err = o.Revoke(t.Context(), home, root.ID, serial, imprint.ReasonSuperseded)
	refused(t, "another authority's", err, imprint.CodeNotFound, "issued nothing")
	done, err := o.Revoke(t.Context(), home, line.ID, "0x00"+strings.ToUpper(serial), "")
	if err != nil || done.Reason != imprint.ReasonUnspecified || !done.RevokedAt.Equal(now) {
		t.Fatalf("got %+v, %v", done, err)
	}
	o.later(time.Hour)
	done, err = o.RevokeCertificate(t.Context(), home, issued.Certificate.Raw, imprint.ReasonKeyCompromise)
	if err != nil || done.Reason != imprint.ReasonKeyCompromise || !done.RevokedAt.Equal(now) {
		t.Errorf("a reason after none: got %+v, %v", done, err)
	}
	done, err = o.Revoke(t.Context(), home, line.ID, serial, imprint.ReasonSuperseded)
	if err != nil || done.Reason != imprint.ReasonKeyCompromise {
		t.Errorf("a second reason: got %+v, %v", done, err)
	}
	if got := o.status(issued.ID); got != imprint.CertificateRevoked {
		t.Errorf("in the registry it is %s", got)
	}
}

func TestRepeatedRequestsAndReusedKeys(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	line := o.below(o.root("root").ID, "line")
	request := pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN-1"), Token: "once", By: "test"}
	one, err := o.Issue(t.Context(), home, line.ID, "hour", request)
	if err != nil {
		t.Fatal(err)
	}
	two, err := o.Issue(t.Context(), home, line.ID, "hour", request)
	if err != nil || two.ID != one.ID || two.Chain != one.Chain {
		t.Errorf("the same request again: got %s, %v, want %s", two.ID, err, one.ID)
	}
	stranger := request
	stranger.PublicKey = key(t).Public()
	_, err = o.Issue(t.Context(), home, line.ID, "hour", stranger)
	refused(t, "the token with another key", err, imprint.CodeInvalidRequest, "another request")
	request.Token = ""
	_, err = o.Issue(t.Context(), home, line.ID, "hour", request)
	refused(t, "the key again", err, imprint.CodeKeyReused, string(one.ID))
	request.Renews = one.ID
	_, err = o.Issue(t.Context(), home, line.ID, "hour", request)
	if err != nil {
		t.Errorf("a renewal with the key: %v", err)
	}
	request.Renews = ""
	_, err = o.Issue(t.Context(), home, line.ID, "again", request)
	if err != nil {
		t.Errorf("a profile that lets keys be reused: %v", err)
	}
	_, err = o.Revoke(t.Context(), home, line.ID, pki.SerialHex(one.Certificate.SerialNumber), imprint.ReasonKeyCompromise)
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Issue(t.Context(), home, line.ID, "again", request)
	refused(t, "a key that was lost", err, imprint.CodeCertificateWeak, "KEY_COMPROMISE")
}

// TestTheRequestOfACAMakesNoDevice: everybody can read it, and a profile that lets keys be
// reused would take it. Neither does that of an authority whose row is of a version that
// didn't name keys.
func TestTheRequestOfACAMakesNoDevice(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	pending, err := o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthoritySubordinate, RawSubject: subject(t, "line")})
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.ParseCSRPEM(pending.CSR)
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Issue(t.Context(), home, root.ID, "again", pki.RequestOf(csr))
	refused(t, "a waiting CA's request", err, imprint.CodeKeyReused, string(pending.ID))
	forgotten := pending
	forgotten.KeyHash = ""
	err = o.store.Update(t.Context(), func(tx imprint.Tx) error { return tx.PutAuthority(forgotten) })
	if err == nil {
		err = o.RememberKeys(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Issue(t.Context(), home, root.ID, "again", pki.RequestOf(csr))
	refused(t, "an older version's CA's request", err, imprint.CodeKeyReused, string(pending.ID))
	other, err := pki.ParseCSRPEM(root.CSR)
	if err != nil {
		t.Fatal(err)
	}
	second := o.root("second")
	_, err = o.Issue(t.Context(), home, second.ID, "again", pki.RequestOf(other))
	refused(t, "another root's request", err, imprint.CodeKeyReused, "a CA's certificate")
}

// TestImportOfAForeignIntermediate: a CA made with openssl's rules signs the request of an
// authority here, and one that came with its key signs here.
func TestImportOfAForeignIntermediate(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	foreignKey := key(t)
	template := &x509.Certificate{SerialNumber: serial(1), Subject: pkix.Name{CommonName: "Foreign root"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, MaxPathLen: -1}
	rootDER, err := x509.CreateCertificate(rand.Reader, template, template, foreignKey.Public(), foreignKey)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(rootDER)
	if err != nil {
		t.Fatal(err)
	}
	a, err := o.Create(t.Context(), home, ca.Spec{Name: "ours", Type: imprint.AuthoritySubordinate, RawSubject: subject(t, "ours")})
	if err != nil {
		t.Fatal(err)
	}
	sign := func(public crypto.PublicKey, rawSubject []byte, isCA bool) string {
		t.Helper()
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: serial(2), RawSubject: rawSubject, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
			IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, MaxPathLenZero: isCA}, root, public, foreignKey)
		if err != nil {
			t.Fatal(err)
		}
		return pki.EncodeCertificatePEM(der)
	}
	csr, err := pki.ParseCSRPEM(a.CSR)
	if err != nil {
		t.Fatal(err)
	}
	chain := pki.EncodeCertificatePEM(rootDER)
	for _, c := range []struct{ name, certificate, chain, words string }{
		{"another key's", sign(key(t).Public(), a.Subject, true), chain, "another key"},
		{"another subject", sign(csr.PublicKey, subject(t, "theirs"), true), chain, "subject"},
		{"no CA", sign(csr.PublicKey, a.Subject, false), chain, "isn't a CA's"},
		{"a chain that didn't sign", sign(csr.PublicKey, a.Subject, true), o.root("unrelated").Certificate, "didn't sign"},
		{"no chain at all", sign(csr.PublicKey, a.Subject, true), "nonsense", "holds no certificate"},
		{"no certificate", "nonsense", chain, ""},
	} {
		_, err := o.Import(t.Context(), home, a.ID, c.certificate, c.chain)
		refused(t, c.name, err, imprint.CodeCertificateValidation, c.words)
	}
	_, err = o.Import(t.Context(), home, a.ID, sign(csr.PublicKey, a.Subject, true), chain)
	if err != nil {
		t.Fatal(err)
	}
	issued := o.issue(a.ID, "SN-1")
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	middle.AppendCertsFromPEM([]byte(issued.Chain))
	_, err = issued.Certificate.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		t.Errorf("what it signs doesn't verify: %v", err)
	}
	theirs := key(t)
	certificate := sign(theirs.Public(), subject(t, "their line"), true)
	_, err = o.Adopt(t.Context(), home, ca.Spec{Name: "wrong key"}, certificate, chain, key(t))
	refused(t, "another key", err, imprint.CodeCertificateValidation, "isn't that of the certificate")
	adopted, err := o.Adopt(t.Context(), home, ca.Spec{Name: "theirs"}, certificate, chain, theirs)
	if err != nil {
		t.Fatal(err)
	}
	o.issue(adopted.ID, "SN-2")
	keyless, err := o.Adopt(t.Context(), home, ca.Spec{Name: "theirs without key"}, sign(key(t).Public(), subject(t, "keyless"), true), chain, nil)
	if err != nil || keyless.Status != imprint.AuthorityActive {
		t.Fatalf("without its key: %s, %v", keyless.Status, err)
	}
	_, err = o.Issue(t.Context(), home, keyless.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "x")})
	refused(t, "signing without the key", err, imprint.CodeAuthorityState, "isn't here")
}

// TestCreateRefuses what can't be an authority, and makes nothing.
func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.root("taken")
	for _, c := range []struct {
		name string
		spec ca.Spec
		code imprint.Code
	}{
		{"a taken name", ca.Spec{Name: "taken", Type: imprint.AuthorityRoot}, imprint.CodeAlreadyExists},
		{"an odd name", ca.Spec{Name: "../x", Type: imprint.AuthorityRoot}, imprint.CodeInvalidRequest},
		{"no type", ca.Spec{Name: "x"}, imprint.CodeInvalidRequest},
		{"a root below", ca.Spec{Type: imprint.AuthorityRoot, Parent: "x"}, imprint.CodeInvalidRequest},
		{"nobody above", ca.Spec{Type: imprint.AuthoritySubordinate, Profile: "intermediate"}, imprint.CodeInvalidRequest},
		{"an odd key", ca.Spec{Type: imprint.AuthorityRoot, Kind: "p521"}, imprint.CodeInvalidRequest},
		{"an odd algorithm", ca.Spec{Type: imprint.AuthorityRoot, Algorithm: "MD5"}, imprint.CodeInvalidRequest},
		{"a key elsewhere", ca.Spec{Type: imprint.AuthorityRoot, KeyURI: "pkcs11:token=x"}, imprint.CodeInvalidRequest},
		{"an unknown profile", ca.Spec{Type: imprint.AuthorityRoot, Profiles: []string{"nothing"}}, imprint.CodeNotFound},
	} {
		c.spec.RawSubject = subject(t, "x")
		_, err := o.Create(t.Context(), home, c.spec)
		refused(t, c.name, err, c.code, "")
	}
	err := o.store.View(t.Context(), func(tx imprint.ReadTx) error {
		all, _, err := tx.Authorities(home, imprint.Page{Limit: 100, Ascending: true})
		if len(all) != 1 {
			t.Errorf("there are %d authorities, want 1", len(all))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func serial(n int64) *big.Int { return big.NewInt(n) }
