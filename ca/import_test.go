package ca_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
)

// stranger is a CA of other people.
type stranger struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func foreignRoot(t *testing.T, cn string, change func(*x509.Certificate)) stranger {
	t.Helper()
	f := stranger{t: t, key: key(t)}
	template := caTemplate(cn, change)
	f.cert = f.create(template, template, f.key.Public())
	return f
}

func caTemplate(cn string, change func(*x509.Certificate)) *x509.Certificate {
	template := &x509.Certificate{SerialNumber: serial(1), Subject: pkix.Name{CommonName: cn, Organization: []string{"Acme"}}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, MaxPathLen: -1}
	if change != nil {
		change(template)
	}
	return template
}

func (f stranger) create(template, parent *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	f.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		f.t.Fatal(err)
	}
	return cert
}

// sign makes a CA's certificate below.
func (f stranger) sign(public crypto.PublicKey, rawSubject []byte, change func(*x509.Certificate)) string {
	f.t.Helper()
	template := caTemplate("", change)
	template.SerialNumber, template.RawSubject = big.NewInt(time.Now().UnixNano()), rawSubject
	return pki.EncodeCertificatePEM(f.create(template, f.cert, public).Raw)
}

func (f stranger) pem() string { return pki.EncodeCertificatePEM(f.cert.Raw) }

func (o *office) count() int {
	o.t.Helper()
	all, _, err := o.Authorities(o.t.Context(), home, imprint.Page{Limit: 100, Ascending: true})
	if err != nil {
		o.t.Fatal(err)
	}
	return len(all)
}

// TestAnAdoptedCACanDoWhatItIsFor: what can't sign, and whose key nobody should trust, isn't
// taken, and leaves nothing.
func TestAnAdoptedCACanDoWhatItIsFor(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	f := foreignRoot(t, "Foreign root", nil)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good := key(t)
	crl := imprint.RevocationConfiguration{CRL: true, CRLDays: 7}
	for _, c := range []struct {
		name   string
		key    crypto.Signer
		spec   ca.Spec
		change func(*x509.Certificate)
		code   imprint.Code
		words  string
	}{
		{"RSA of 1024 bits", short, ca.Spec{}, nil, imprint.CodeCertificateWeak, "1024 bits"},
		{"an exponent of 3", cubeKey(t), ca.Spec{}, nil, imprint.CodeCertificateWeak, "exponent is 3"},
		{"P-521", p521, ca.Spec{}, nil, imprint.CodeCertificateWeak, "p521"},
		{"Ed25519", ed, ca.Spec{}, nil, imprint.CodeCertificateWeak, "ed25519"},
		{"no cRLSign and CRLs", good, ca.Spec{Revocation: crl}, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }, imprint.CodeCertificateValidation, "cRLSign"},
		{"a critical extension that nobody knows", good, ca.Spec{}, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 3, 6, 1, 4, 1, 32473, 1}, Critical: true, Value: []byte{5, 0}}}
		}, imprint.CodeCertificateValidation, "isn't understood"},
	} {
		c.spec.Name = "theirs"
		_, err := o.Adopt(t.Context(), home, c.spec, f.sign(c.key.Public(), subject(t, "theirs"), c.change), f.pem(), c.key)
		refused(t, c.name, err, c.code, c.words)
	}
	if n := o.count(); n != 0 {
		t.Errorf("%d authorities are left, want none", n)
	}
	a, err := o.Adopt(t.Context(), home, ca.Spec{Name: "theirs"}, f.sign(good.Public(), subject(t, "theirs"), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }), f.pem(), good)
	if err != nil {
		t.Fatal(err)
	}
	o.issue(a.ID, "SN-1")
	_, err = o.Update(t.Context(), home, a.ID, ca.Edit{Revocation: &crl})
	refused(t, "CRLs later", err, imprint.CodeCertificateValidation, "cRLSign")
	_, err = o.Adopt(t.Context(), home, ca.Spec{}, f.sign(p521.Public(), subject(t, "chain alone"), nil), f.pem(), nil)
	if err != nil {
		t.Errorf("a P-521 key that doesn't sign here: %v", err)
	}
	_, err = o.Adopt(t.Context(), home, ca.Spec{}, f.sign(short.Public(), subject(t, "chain alone"), nil), f.pem(), nil)
	refused(t, "a short key in the chain", err, imprint.CodeCertificateWeak, "1024 bits")
}

// cubeKey is an RSA key with the exponent 3.
func cubeKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	three, one := big.NewInt(3), big.NewInt(1)
	prime := func() *big.Int {
		for {
			p, err := rand.Prime(rand.Reader, 1024)
			if err != nil {
				t.Fatal(err)
			}
			less := new(big.Int).Sub(p, one)
			if new(big.Int).Mod(less, three).Sign() != 0 {
				return p
			}
		}
	}
	p, q := prime(), prime()
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 3}, D: new(big.Int).ModInverse(three, phi), Primes: []*big.Int{p, q}}
	k.Precompute()
	err := k.Validate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestALeafOutlivesNobodyAboveIt, and stays within the limits of all of them, also of those
// that are elsewhere, and of those that came here by themselves, before it or after it.
func TestALeafOutlivesNobodyAboveIt(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"with its chain", "after its root", "before its root"} {
		o := newOffice(t)
		f := foreignRoot(t, "Foreign root", func(c *x509.Certificate) {
			c.NotAfter, c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = now.Add(30*time.Minute), []string{"acme.example"}, true
		})
		adopt := func(certificate, chain string, key *ecdsa.PrivateKey) imprint.CertificateAuthority {
			t.Helper()
			var own crypto.Signer
			if key != nil {
				own = key
			}
			a, err := o.Adopt(t.Context(), home, ca.Spec{}, certificate, chain, own)
			if err != nil {
				t.Fatalf("%s: %v", way, err)
			}
			return a
		}
		mine, chain := key(t), ""
		switch way {
		case "with its chain":
			chain = f.pem()
		case "after its root":
			adopt(f.pem(), "", nil)
		}
		a := adopt(f.sign(mine.Public(), subject(t, "line"), nil), chain, mine)
		if way == "before its root" {
			o.issue(a.ID, "x") // it is open, and knows of none above
			adopt(f.pem(), "", nil)
		}
		request := func() pki.Request {
			return pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN-1")}
		}
		_, err := o.Issue(t.Context(), home, a.ID, "hour", request())
		refused(t, way+": an hour below a root that has half of one", err, imprint.CodeCertificateValidation, "until 2026-03-01T12:30:00Z")
		issued, err := o.Issue(t.Context(), home, a.ID, "operational", request())
		if err != nil || !issued.Certificate.NotAfter.Equal(f.cert.NotAfter) {
			t.Errorf("%s: a certificate that is shortened ends at %v, %v; want %s", way, issued, err, f.cert.NotAfter)
		}
		if !strings.HasSuffix(issued.Chain, f.pem()) {
			t.Errorf("%s: the chain is\n%s", way, issued.Chain)
		}
		outside := request()
		outside.Names.DNS = []string{"other.example"}
		_, err = o.Issue(t.Context(), home, a.ID, "operational", outside)
		refused(t, way+": a name that the root doesn't permit", err, imprint.CodeCertificateValidation, "don't permit")
	}
}

// TestAChainIsWhatAVerifierTakes.
func TestAChainIsWhatAVerifierTakes(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	k := key(t)
	for _, c := range []struct {
		name, words string
		root        func(*x509.Certificate)
	}{
		{"an ended root", "valid until", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }},
		{"a root that comes to be", "valid from", func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }},
	} {
		f := foreignRoot(t, "Foreign root", c.root)
		_, err := o.Adopt(t.Context(), home, ca.Spec{}, f.sign(k.Public(), subject(t, "line"), nil), f.pem(), k)
		refused(t, c.name, err, imprint.CodeCertificateValidation, c.words)
	}
	root := foreignRoot(t, "Foreign root", func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })
	middle := stranger{t: t, key: key(t)}
	parsed, err := pki.ParseCertificatePEM(root.sign(middle.key.Public(), subject(t, "middle"), nil))
	if err != nil {
		t.Fatal(err)
	}
	middle.cert = parsed
	_, err = o.Adopt(t.Context(), home, ca.Spec{}, middle.sign(k.Public(), subject(t, "line"), nil), middle.pem()+root.pem(), k)
	refused(t, "a CA too many below the root", err, imprint.CodeCertificateValidation, "in a row")
	for _, above := range []string{root.pem(), middle.pem()} {
		_, err = o.Adopt(t.Context(), home, ca.Spec{}, above, "", nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = o.Adopt(t.Context(), home, ca.Spec{}, middle.sign(k.Public(), subject(t, "line"), nil), "", k)
	refused(t, "a CA too many below a root that is here", err, imprint.CodeCertificateValidation, "in a row")
}

// TestNobodyReplacesAnAuthoritysLimits: everybody can read its request, and any CA sign it.
func TestNobodyReplacesAnAuthoritysLimits(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	line := o.below(o.root("root").ID, "line")
	csr, err := pki.ParseCSRPEM(line.CSR)
	if err != nil {
		t.Fatal(err)
	}
	// Its own name and key identifier are what a forger has in any case.
	parent, err := pki.ParseCertificatePEM(line.Chain)
	if err != nil {
		t.Fatal(err)
	}
	f := foreignRoot(t, "", func(c *x509.Certificate) { c.RawSubject, c.SubjectKeyId = parent.RawSubject, parent.SubjectKeyId })
	_, err = o.Import(t.Context(), home, line.ID, f.sign(csr.PublicKey, line.Subject, nil), f.pem())
	refused(t, "a certificate by another CA", err, imprint.CodeCertificateValidation, "isn't known to have signed")
	_, err = o.Import(t.Context(), home, line.ID, f.sign(csr.PublicKey, line.Subject, nil), "")
	refused(t, "one without its chain", err, imprint.CodeCertificateValidation, "isn't known to have signed")
	_, err = o.Update(t.Context(), home, line.Parent, ca.Edit{Profiles: &[]string{ca.AllProfiles}})
	if err != nil {
		t.Fatal(err)
	}
	request := pki.RequestOf(csr)
	renewed, err := o.Issue(t.Context(), home, line.Parent, "aws-subordinate-ca-0", withEnd(request, now.AddDate(5, 0, 0)))
	if err != nil {
		t.Fatal(err)
	}
	again, err := o.Import(t.Context(), home, line.ID, renewed.PEM, renewed.Chain)
	if err != nil || again.CertificateID != renewed.ID || again.Parent != line.Parent {
		t.Errorf("its issuer's next certificate: %s, %v", again.CertificateID, err)
	}
	root, err := o.Authority(t.Context(), home, line.Parent)
	if err != nil {
		t.Fatal(err)
	}
	rootRequest, err := pki.ParseCSRPEM(root.CSR)
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Import(t.Context(), home, root.ID, f.sign(rootRequest.PublicKey, root.Subject, func(c *x509.Certificate) { c.SubjectKeyId = nil }), f.pem())
	// Of the same name, so that it looks like the root's own.
	refused(t, "a cross-certificate in the place of a root's own", err, imprint.CodeCertificateValidation, "")
}

// TestNobodyReplacesAnAdoptedCAByOneOfItsName: it has no request to be compared with, and
// what it revoked counts under its own certificate alone.
func TestNobodyReplacesAnAdoptedCAByOneOfItsName(t *testing.T) {
	t.Parallel()
	for _, withKey := range []bool{true, false} {
		o := newOffice(t)
		above := newMaker(t, "Their root", nil)
		for what, by := range map[string]*maker{"root": nil, "CA below one": above} {
			own := newMaker(t, "Adopted "+what, by)
			a, err := own.adopt(o, ca.Spec{}, withKey)
			if err != nil {
				t.Fatal(err)
			}
			stranger := newMaker(t, "Adopted "+what, by)
			_, err = o.Import(t.Context(), home, a.ID, stranger.pem(), stranger.chain)
			refused(t, "a stranger's "+what, err, imprint.CodeCertificateValidation, "another key than that of the present certificate")
			next := own.renew()
			again, err := o.Import(t.Context(), home, a.ID, pki.EncodeCertificatePEM(next.Raw), own.chain)
			if err != nil || again.CertificateID != pki.CertificateID(next.Raw) {
				t.Errorf("the next certificate of the %s: %s, %v", what, again.CertificateID, err)
			}
		}
	}
}

func withEnd(r pki.Request, end time.Time) pki.Request {
	r.NotAfter = end
	return r
}

// TestARootTakesNoCrossCertificate: it is for verifiers.
func TestARootTakesNoCrossCertificate(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	csr, err := pki.ParseCSRPEM(root.CSR)
	if err != nil {
		t.Fatal(err)
	}
	f := foreignRoot(t, "Foreign root", nil)
	_, err = o.Import(t.Context(), home, root.ID, f.sign(csr.PublicKey, root.Subject, nil), f.pem())
	refused(t, "a cross-certificate", err, imprint.CodeCertificateValidation, "is a root")
}

// TestARefusedCreationLeavesNothing: its name is free for the next attempt, and no key was
// made in a module.
func TestARefusedCreationLeavesNothing(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	line := o.below(root.ID, "line")
	before := o.count()
	for _, c := range []struct {
		name, words string
		code        imprint.Code
		spec        ca.Spec
	}{
		{"a parent that isn't there", "doesn't exist", imprint.CodeNotFound, ca.Spec{Parent: "00000000-0000-4000-8000-000000000000", Profile: "intermediate"}},
		{"a profile that isn't there", "doesn't exist", imprint.CodeNotFound, ca.Spec{Parent: root.ID, Profile: "nothing"}},
		{"a profile for devices", "isn't of the kind", imprint.CodeInvalidRequest, ca.Spec{Parent: root.ID, Profile: "operational"}},
		{"a parent that may have none below", "in a row", imprint.CodeCertificateValidation, ca.Spec{Parent: line.ID, Profile: "intermediate"}},
		{"a life beyond the parent's", "until", imprint.CodeCertificateValidation, ca.Spec{Parent: root.ID, Profile: "aws-subordinate-ca-0"}},
		{"a root's life beyond its profile", "beyond", imprint.CodeCertificateValidation, ca.Spec{Type: imprint.AuthorityRoot, Profile: "root", NotAfter: now.AddDate(50, 0, 0)}},
	} {
		c.spec.Name, c.spec.RawSubject = "next", subject(t, "next")
		if c.spec.Type == "" {
			c.spec.Type = imprint.AuthoritySubordinate
		}
		_, err := o.Create(t.Context(), home, c.spec)
		refused(t, c.name, err, c.code, c.words)
	}
	if n := o.count(); n != before {
		t.Errorf("%d authorities were left", n-before)
	}
	_, err := o.Create(t.Context(), home, ca.Spec{Name: "next", Type: imprint.AuthoritySubordinate, RawSubject: subject(t, "next"), Parent: root.ID, Profile: "intermediate"})
	if err != nil {
		t.Errorf("the name isn't free: %v", err)
	}
}

// TestWhatACrashKeptFromAnAuthorityIsOnRecord: its certificate was made, and isn't made again.
func TestWhatACrashKeptFromAnAuthorityIsOnRecord(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for _, before := range []imprint.CertificateAuthority{o.root("root"), o.below(o.root("other").ID, "line")} {
		err := o.store.Update(t.Context(), func(tx imprint.Tx) error {
			pending := before
			pending.Status, pending.Certificate, pending.Chain, pending.CertificateID, pending.Serial, pending.Parent = imprint.AuthorityPending, "", "", "", "", ""
			return tx.PutAuthority(pending)
		})
		if err != nil {
			t.Fatal(err)
		}
		after, err := o.Import(t.Context(), home, before.ID, "", "")
		if err != nil || after.Status != imprint.AuthorityActive || after.CertificateID != before.CertificateID || after.Chain != before.Chain || after.Parent != before.Parent {
			t.Errorf("%s: got %s with %s below %q, %v", before.Name, after.Status, after.CertificateID, after.Parent, err)
		}
	}
	pending, err := o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthoritySubordinate, RawSubject: subject(t, "pending")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Import(t.Context(), home, pending.ID, "", "")
	refused(t, "one that has none on record", err, imprint.CodeNotFound, "no certificate was made here")
}

// TestAShortLivedAuthorityIssuesByShorterProfiles, and by longer ones for seven days.
func TestAShortLivedAuthorityIssuesByShorterProfiles(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	a, err := o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject(t, "short"), Profile: "root", ShortLived: true})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := o.issue(a.ID, "SN-1").Certificate.NotAfter, now.Add(time.Hour); !got.Equal(want) {
		t.Errorf("by a profile of an hour it ends at %s, want %s", got, want)
	}
	long, err := o.Issue(t.Context(), home, a.ID, "operational", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN-2")})
	if err != nil || !long.Certificate.NotAfter.Equal(now.Add(7*24*time.Hour)) {
		t.Errorf("by a profile of years it ends at %v, %v", long.Issued, err)
	}
}

// TestATokenIsForOneRequest: another one with it is refused, and what doesn't count any more
// is given to nobody again.
func TestATokenIsForOneRequest(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	line := o.below(o.root("root").ID, "line")
	request := pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN-1"), Token: "once"}
	issued, err := o.Issue(t.Context(), home, line.ID, "hour", request)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*pki.Request){
		"another subject": func(r *pki.Request) { r.RawSubject = subject(t, "SN-2") },
		"another end":     func(r *pki.Request) { r.NotAfter = now.Add(time.Minute) },
		"a name":          func(r *pki.Request) { r.Names.DNS = []string{"a.example"} },
		"a renewal":       func(r *pki.Request) { r.Renews = issued.ID },
	} {
		other := request
		change(&other)
		_, err = o.Issue(t.Context(), home, line.ID, "hour", other)
		refused(t, name, err, imprint.CodeInvalidRequest, "used for another request")
	}
	_, err = o.Issue(t.Context(), home, line.ID, "again", request)
	refused(t, "another profile", err, imprint.CodeInvalidRequest, "used for another request")
	o.later(2 * time.Hour)
	_, err = o.Issue(t.Context(), home, line.ID, "hour", request)
	refused(t, "an ended certificate's token", err, imprint.CodeInvalidRequest, "ended")
	request.Token, request.PublicKey = "twice", key(t).Public()
	issued, err = o.Issue(t.Context(), home, line.ID, "hour", request)
	if err == nil {
		_, err = o.Revoke(t.Context(), home, line.ID, pki.SerialHex(issued.Certificate.SerialNumber), imprint.ReasonSuperseded)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Issue(t.Context(), home, line.ID, "hour", request)
	refused(t, "a revoked certificate's token", err, imprint.CodeInvalidRequest, "revoked")

	spec := ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject(t, "token"), Name: "one", IdempotencyToken: "ca", TokenFor: time.Hour}
	first, err := o.Create(t.Context(), home, spec)
	if err != nil {
		t.Fatal(err)
	}
	renamed := spec
	renamed.Name = "two"
	_, err = o.Create(t.Context(), home, renamed)
	refused(t, "an authority of another name", err, imprint.CodeInvalidRequest, "another certificate authority")
	_, err = o.Delete(t.Context(), home, first.ID, 7)
	if err != nil {
		t.Fatal(err)
	}
	second, err := o.Create(t.Context(), home, spec)
	if err != nil || second.ID == first.ID {
		t.Errorf("after its deletion the token gives %s, %v; want another one than %s", second.ID, err, first.ID)
	}
}

// TestAnEndedRootSignsNothing, not even itself.
func TestAnEndedRootSignsNothing(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	csr, err := pki.ParseCSRPEM(root.CSR)
	if err != nil {
		t.Fatal(err)
	}
	request := withEnd(pki.RequestOf(csr), now.AddDate(60, 0, 0))
	end := now.Add(time.Hour)
	_, err = o.Update(t.Context(), home, root.ID, ca.Edit{SigningEnds: &end})
	if err != nil {
		t.Fatal(err)
	}
	o.later(time.Hour)
	_, err = o.SelfSign(t.Context(), home, root.ID, "aws-root-ca", request)
	refused(t, "past the end of signing", err, imprint.CodeCAExpired, "signs nothing more")
	_, err = o.Update(t.Context(), home, root.ID, ca.Edit{SigningEnds: new(time.Time)})
	if err != nil {
		t.Fatal(err)
	}
	o.later(31 * 365 * 24 * time.Hour)
	_, err = o.SelfSign(t.Context(), home, root.ID, "aws-root-ca", request)
	refused(t, "an ended root", err, imprint.CodeAuthorityState, "EXPIRED")
}

// TestNoKeyIsMadeInAModuleForARefusedAuthority: it couldn't be taken back.
func TestNoKeyIsMadeInAModuleForARefusedAuthority(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	profiles, err := pki.NewProfiles()
	if err != nil {
		t.Fatal(err)
	}
	keys := &countingKeys{}
	engine := ca.New(ca.Options{Store: o.store, Journal: issuelog.New(o.store), Clock: o.clock, Profiles: profiles, Keys: keys})
	t.Cleanup(engine.Close)
	spec := ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject(t, "root"), Profile: "root", NotAfter: now.AddDate(50, 0, 0), KeyURI: "module:1"}
	_, err = engine.Create(t.Context(), home, spec)
	refused(t, "a root's life beyond its profile", err, imprint.CodeCertificateValidation, "beyond")
	if keys.made != 0 {
		t.Errorf("%d keys were made", keys.made)
	}
	spec.NotAfter = time.Time{}
	_, err = engine.Create(t.Context(), home, spec)
	if err != nil || keys.made != 1 {
		t.Errorf("%d keys were made, %v; want one", keys.made, err)
	}
}

// countingKeys count the keys that were made.
type countingKeys struct {
	slowKeys
	made int
}

func (k *countingKeys) Generate(ctx context.Context, uri string, kind pki.KeyKind) (string, pki.Signer, error) {
	k.made++
	return k.slowKeys.Generate(ctx, uri, kind)
}

// TestAnAuthorityKeepsToItsOrder: so many certificates by a profile, also when requests come
// at once, and other authorities have their own count.
func TestAnAuthorityKeepsToItsOrder(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	profiles, err := pki.NewProfiles(pki.ProfileConfig{Name: "order", Kind: pki.KindOperational, Lifetime: time.Hour, MaxCertificates: 5, Subject: pki.SubjectRules{Fixed: map[string]string{"OU": "SKU 7"}}})
	if err != nil {
		t.Fatal(err)
	}
	engine := ca.New(ca.Options{Store: o.store, Sealer: o.sealer, Journal: issuelog.New(o.store), Clock: o.clock, Profiles: profiles})
	t.Cleanup(engine.Close)
	root := o.root("root")
	var lines [2]imprint.CertificateAuthority
	for n := range lines {
		lines[n], err = engine.Create(t.Context(), home, ca.Spec{Type: imprint.AuthoritySubordinate, RawSubject: subject(t, "line"), Parent: root.ID, Profile: "intermediate", Profiles: []string{"order"}})
		if err != nil {
			t.Fatal(err)
		}
	}
	ask := func(line imprint.AuthorityID, profile string) error {
		_, err := engine.Issue(t.Context(), home, line, profile, pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN-1")})
		return err
	}
	refused(t, "another profile", ask(lines[0].ID, "operational"), imprint.CodeAccessDenied, "doesn't sign by profile operational")
	errs := make(chan error, 12)
	for range cap(errs) {
		go func() { errs <- ask(lines[0].ID, "order") }()
	}
	signed := 0
	for range cap(errs) {
		err := <-errs
		if err == nil {
			signed++
			continue
		}
		refused(t, "one more than the order", err, imprint.CodeLimitExceeded, "as many as that lets one authority sign")
	}
	if signed != 5 {
		t.Errorf("%d certificates were signed of an order of 5", signed)
	}
	err = ask(lines[1].ID, "order")
	if err != nil {
		t.Errorf("another authority's order: %v", err)
	}
	_, err = pki.NewProfile(pki.ProfileConfig{Name: "x", Kind: pki.KindOperational, Lifetime: time.Hour, MaxCertificates: -1})
	refused(t, "less than none", err, imprint.CodeInvalidRequest, "maxCertificates")
}
