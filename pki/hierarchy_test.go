package pki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// ca is a CA of a test hierarchy.
type ca struct {
	*pki.Authority
	issued  *pki.Issued
	key     crypto.Signer
	journal *memory
}

func newKey(t testing.TB, kind pki.KeyKind) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case pki.KeyP384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case pki.KeyRSA2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestARootIsMadeAlsoWhenTheSecondEnds while it is made.
func TestARootIsMadeAlsoWhenTheSecondEnds(t *testing.T) {
	t.Parallel()
	now := start
	config := pki.IssuerConfig{ID: "a", Signer: pki.NewSoftSigner(newKey(t, pki.KeyP256)), Journal: &memory{}, Clock: func() time.Time {
		now = now.Add(time.Second)
		return now
	}}
	_, err := pki.NewRoot(t.Context(), tenant, config, builtin(t, "root"), pki.Request{RawSubject: named(t, "CN=root")})
	if err != nil {
		t.Error(err)
	}
}

func named(t testing.TB, text ...string) []byte {
	t.Helper()
	var name pkix.RDNSequence
	ids := map[string]asn1.ObjectIdentifier{"C": {2, 5, 4, 6}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "CN": {2, 5, 4, 3}, "SN": {2, 5, 4, 5}}
	for _, one := range text {
		kind, value, _ := strings.Cut(one, "=")
		tag := asn1.TagUTF8String
		if kind == "C" || kind == "SN" {
			tag = asn1.TagPrintableString
		}
		name = append(name, pkix.RelativeDistinguishedNameSET{{Type: ids[kind], Value: asn1.RawValue{Tag: tag, Bytes: []byte(value)}}})
	}
	der, err := asn1.Marshal(name)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func builtin(t testing.TB, name string) *pki.Profile {
	t.Helper()
	all, err := pki.NewProfiles()
	if err != nil {
		t.Fatal(err)
	}
	p, err := all.Profile(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newRoot(t testing.TB, kind pki.KeyKind) *ca {
	t.Helper()
	return rootBy(t, kind, "root")
}

// newRootBy makes a root by another built-in profile.
func newRootBy(t testing.TB, name string) *ca {
	t.Helper()
	return rootBy(t, pki.KeyP256, name)
}

func rootBy(t testing.TB, kind pki.KeyKind, name string) *ca {
	t.Helper()
	r := &ca{key: newKey(t, kind), journal: &memory{}}
	config := pki.IssuerConfig{Signer: pki.NewSoftSigner(r.key), Journal: r.journal, Clock: at(start), ID: "root"}
	issued, err := pki.NewRoot(t.Context(), tenant, config, builtin(t, name), pki.Request{RawSubject: named(t, "C=DE", "O=Acme", "CN=Acme root")})
	if err != nil {
		t.Fatal(err)
	}
	return r.open(t, config, issued)
}

func (c *ca) open(t testing.TB, config pki.IssuerConfig, issued *pki.Issued) *ca {
	t.Helper()
	config.Certificate = issued.Certificate
	config.Points = pki.Points{CRL: "http://crl.example.com/a/", CRLShards: 8, OCSP: "http://ocsp.example.com/a", Issuer: "http://crl.example.com/a.cer"}
	a, err := pki.NewAuthority(config)
	if err != nil {
		t.Fatal(err)
	}
	c.Authority, c.issued = a, issued
	return c
}

func (c *ca) below(t testing.TB, kind pki.KeyKind, p *pki.Profile, cn string) *ca {
	t.Helper()
	sub := &ca{key: newKey(t, kind), journal: &memory{}}
	issued := issue(t, c.Authority, p, pki.Request{PublicKey: sub.key.Public(), RawSubject: named(t, "O=Acme", "CN="+cn)})
	return sub.open(t, pki.IssuerConfig{Signer: pki.NewSoftSigner(sub.key), Journal: sub.journal, Clock: at(start), ID: "sub"}, issued)
}

// TestEveryProfileMakesCertificatesThatVerifiersTake checks each built-in profile under
// each kind of CA key with openssl and with Go's verifier; ZLint has passed before a key
// signed.
func TestEveryProfileMakesCertificatesThatVerifiersTake(t *testing.T) {
	t.Parallel()
	for _, kind := range []pki.KeyKind{pki.KeyP256, pki.KeyP384, pki.KeyRSA2048} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			root := newRoot(t, kind)
			policyCA := root.below(t, kind, builtin(t, "policy-ca"), "Acme products")
			line := policyCA.below(t, kind, builtin(t, "intermediate"), "Acme line 7")
			uri, err := url.Parse("urn:acme:device:7")
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				profile, purpose string
				by               *ca
				usage            x509.ExtKeyUsage
				request          pki.Request
			}{
				{"operational", "sslclient", line, x509.ExtKeyUsageClientAuth, pki.Request{RawSubject: named(t, "CN=SN-1"), Names: pki.AltNames{DNS: []string{"sn-1.devices.example.com"}, URIs: []*url.URL{uri}}}},
				{"claim-certificate", "sslclient", line, x509.ExtKeyUsageClientAuth, pki.Request{RawSubject: named(t, "CN=claim")}},
				{"device", "sslclient", line, x509.ExtKeyUsageClientAuth, pki.Request{}},
				{"idevid", "sslclient", line, x509.ExtKeyUsageClientAuth, pki.Request{RawSubject: named(t, "O=Acme", "SN=0001", "CN=IDevID")}},
				{"server", "sslserver", policyCA, x509.ExtKeyUsageServerAuth, pki.Request{RawSubject: named(t, "CN=iot.example.com"), Names: pki.AltNames{DNS: []string{"iot.example.com"}, IPs: []net.IP{net.IPv4(192, 0, 2, 1), net.ParseIP("2001:db8::1")}}}},
				{"server", "sslserver", policyCA, x509.ExtKeyUsageServerAuth, pki.Request{Names: pki.AltNames{DNS: []string{"unnamed.example.com"}}}},
				{"ocsp", "ocsphelper", policyCA, x509.ExtKeyUsageOCSPSigning, pki.Request{}},
			} {
				t.Run(c.profile, func(t *testing.T) {
					p := builtin(t, c.profile)
					if c.profile == "idevid" || c.profile == "device" {
						// Longer than any CA: they end with it here.
						p = profile(t, pki.ProfileConfig{Name: c.profile, Kind: p.Kind(), Lifetime: 5 * 365 * 24 * time.Hour})
					}
					c.request.PublicKey = newKey(t, pki.KeyP256).Public()
					leaf := issue(t, c.by.Authority, p, c.request)
					roots, middle := x509.NewCertPool(), x509.NewCertPool()
					roots.AddCert(root.issued.Certificate)
					middle.AddCert(policyCA.issued.Certificate)
					middle.AddCert(line.issued.Certificate)
					_, err := leaf.Certificate.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle, CurrentTime: start.Add(time.Hour), KeyUsages: []x509.ExtKeyUsage{c.usage}})
					if err != nil {
						t.Errorf("Go's verifier: %v", err)
					}
					dir := t.TempDir()
					put(t, dir, "root.pem", root.issued.PEM)
					put(t, dir, "chain.pem", policyCA.issued.PEM+line.issued.PEM)
					put(t, dir, "leaf.pem", leaf.PEM)
					out := openssl(t, dir, "verify", "-x509_strict", "-attime", unix(start.Add(time.Hour)), "-purpose", c.purpose, "-CAfile", "root.pem", "-untrusted", "chain.pem", "leaf.pem")
					if !strings.Contains(out, "leaf.pem: OK") {
						t.Errorf("openssl verify: %s", out)
					}
					if !leaf.Certificate.NotAfter.Before(c.by.issued.Certificate.NotAfter.Add(1)) {
						t.Errorf("it ends at %s, its CA at %s", leaf.Certificate.NotAfter, c.by.issued.Certificate.NotAfter)
					}
					if bits := leaf.Certificate.SerialNumber.BitLen(); bits < 64 {
						t.Errorf("the serial number has %d bits", bits)
					}
				})
			}
		})
	}
}

// TestNobodySignsWhatTheProfileForbids: each request is refused before the CA key and the
// journal are reached.
func TestNobodySignsWhatTheProfileForbids(t *testing.T) {
	t.Parallel()
	root := newRoot(t, pki.KeyP256)
	line := root.below(t, pki.KeyP256, builtin(t, "intermediate"), "line")
	constrained := root.below(t, pki.KeyP256, profile(t, pki.ProfileConfig{Name: "site", Kind: pki.KindIntermediate, Lifetime: 24 * time.Hour,
		Constraints: pki.NameConstraints{PermittedDNS: []string{"site7.example.com"}, ExcludedIPs: []string{"10.0.0.0/8"}}}), "site 7")
	strict := profile(t, pki.ProfileConfig{Name: "strict", Kind: pki.KindOperational, Lifetime: time.Hour, Keys: []pki.KeyKind{pki.KeyP256},
		Subject: pki.SubjectRules{Required: []string{"CN"}, Allowed: []string{"CN", "O"}, Patterns: map[string]string{"CN": "SN-[0-9]{4}"}},
		Names:   pki.NameRules{DNS: true, Patterns: map[string]string{"dns": `[a-z0-9-]+\.example\.com`}}})
	key := newKey(t, pki.KeyP256).Public()
	good := named(t, "CN=SN-0001")
	for name, c := range map[string]struct {
		by      *ca
		profile *pki.Profile
		request pki.Request
		code    imprint.Code
		words   string
	}{
		"another kind of key":          {line, strict, pki.Request{PublicKey: newKey(t, pki.KeyRSA2048).Public(), RawSubject: good}, imprint.CodeCertificateWeak, "rsa2048"},
		"the CA's own key":             {line, strict, pki.Request{PublicKey: line.key.Public(), RawSubject: good}, imprint.CodeCertificateValidation, "CA's own"},
		"no common name":               {line, strict, pki.Request{PublicKey: key, RawSubject: named(t, "O=Acme")}, imprint.CodeCertificateValidation, "CN 0 times"},
		"two common names":             {line, strict, pki.Request{PublicKey: key, RawSubject: named(t, "CN=SN-0001", "CN=SN-0002")}, imprint.CodeCertificateValidation, "CN 2 times"},
		"a pattern":                    {line, strict, pki.Request{PublicKey: key, RawSubject: named(t, "CN=SN-00012")}, imprint.CodeCertificateValidation, "doesn't match"},
		"an attribute":                 {line, strict, pki.Request{PublicKey: key, RawSubject: named(t, "CN=SN-0001", "OU=x")}, imprint.CodeCertificateValidation, "OU"},
		"a name":                       {line, strict, pki.Request{PublicKey: key, RawSubject: good, Names: pki.AltNames{DNS: []string{"a.example.org"}}}, imprint.CodeCertificateValidation, "a.example.org"},
		"an address":                   {line, strict, pki.Request{PublicKey: key, RawSubject: good, Names: pki.AltNames{IPs: []net.IP{net.IPv4(192, 0, 2, 1)}}}, imprint.CodeCertificateValidation, "IP"},
		"a longer life":                {line, strict, pki.Request{PublicKey: key, RawSubject: good, NotAfter: start.Add(2 * time.Hour)}, imprint.CodeCertificateValidation, "beyond"},
		"a life beyond the CA's":       {constrained, profile(t, pki.ProfileConfig{Name: "long", Kind: pki.KindOperational, Lifetime: 48 * time.Hour}), pki.Request{PublicKey: key, RawSubject: good}, imprint.CodeCertificateValidation, "valid from"},
		"no end below an ending CA":    {line, builtin(t, "idevid"), pki.Request{PublicKey: key, RawSubject: named(t, "SN=1")}, imprint.CodeCertificateValidation, "valid from"},
		"an IDevID without serial":     {line, builtin(t, "idevid"), pki.Request{PublicKey: key, RawSubject: good}, imprint.CodeCertificateValidation, "SERIALNUMBER 0 times"},
		"a server below clients only":  {line, builtin(t, "server"), pki.Request{PublicKey: key, Names: pki.AltNames{DNS: []string{"a.example.com"}}}, imprint.CodeCertificateValidation, "extendedKeyUsage"},
		"a server without names":       {root, builtin(t, "server"), pki.Request{PublicKey: key, RawSubject: good}, imprint.CodeCertificateValidation, "subjectAltName"},
		"a CA below path length 0":     {line, builtin(t, "intermediate"), pki.Request{PublicKey: key, RawSubject: good}, imprint.CodeCertificateValidation, "in a row"},
		"a root below a CA":            {line, builtin(t, "root"), pki.Request{PublicKey: key, RawSubject: good}, imprint.CodeCertificateValidation, "CA's own"},
		"a name that isn't permitted":  {constrained, builtin(t, "server"), pki.Request{PublicKey: key, NotAfter: start.Add(time.Hour), Names: pki.AltNames{DNS: []string{"a.site8.example.com"}}}, imprint.CodeCertificateValidation, "don't permit"},
		"an address that is excluded":  {constrained, builtin(t, "server"), pki.Request{PublicKey: key, NotAfter: start.Add(time.Hour), Names: pki.AltNames{IPs: []net.IP{net.IPv4(10, 1, 2, 3)}}}, imprint.CodeCertificateValidation, "exclude"},
		"a lower-case country (ZLint)": {line, profile(t, pki.ProfileConfig{Name: "any", Kind: pki.KindOperational, Lifetime: time.Hour}), pki.Request{PublicKey: key, RawSubject: named(t, "C=de", "CN=x")}, imprint.CodeCertificateValidation, "e_subj_country"},
		"a type that nobody reads":     {line, builtin(t, "operational"), pki.Request{PublicKey: key, RawSubject: tlv(0x30, tlv(0x31, tlv(0x30, []byte{6, 3, 0x55, 4, 3}, tlv(26, []byte("x")))))}, imprint.CodeCertificateValidation, "isn't text"},
		"no subject":                   {line, profile(t, pki.ProfileConfig{Name: "any", Kind: pki.KindOperational, Lifetime: time.Hour}), pki.Request{PublicKey: key}, imprint.CodeCertificateValidation, "no subject"},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(c.by.journal.all)
			_, err := c.by.Prepare(t.Context(), tenant, c.profile, c.request)
			if imprint.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %q (%v), want %q with %q", imprint.CodeOf(err), err, c.code, c.words)
			}
			if len(c.by.journal.all) != before {
				t.Error("the refused request is in the journal")
			}
		})
	}
	ok := issue(t, constrained.Authority, builtin(t, "server"), pki.Request{PublicKey: key, NotAfter: start.Add(time.Hour), Names: pki.AltNames{DNS: []string{"a.site7.example.com"}}})
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root.issued.Certificate)
	middle.AddCert(constrained.issued.Certificate)
	_, err := ok.Certificate.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle, CurrentTime: start, DNSName: "a.site7.example.com"})
	if err != nil {
		t.Errorf("a permitted name isn't accepted: %v", err)
	}
}

// TestAFixedSubjectTakesThePlaceOfTheRequests: and its attributes stand first.
func TestAFixedSubjectTakesThePlaceOfTheRequests(t *testing.T) {
	t.Parallel()
	root := newRoot(t, pki.KeyP256)
	p := profile(t, pki.ProfileConfig{Name: "fixed", Kind: pki.KindOperational, Lifetime: time.Hour, Subject: pki.SubjectRules{Fixed: map[string]string{"O": "Acme", "C": "DE"}}})
	leaf := issue(t, root.Authority, p, pki.Request{PublicKey: newKey(t, pki.KeyP256).Public(), RawSubject: named(t, "CN=SN-1", "O=Mallory")})
	if got, want := pki.SubjectText(leaf.Certificate.RawSubject), "CN=SN-1,O=Acme,C=DE"; got != want {
		t.Errorf("subject: got %s, want %s", got, want)
	}
}

// TestAnIDevIDHasItsHardwareModuleName holds the octets of the reference for the type
// 1.3.6.1.4.1.32473.1.7 and the serial number IMP-0001.
func TestAnIDevIDHasItsHardwareModuleName(t *testing.T) {
	t.Parallel()
	root := newRoot(t, pki.KeyP256)
	p := profile(t, pki.ProfileConfig{Name: "idevid", Kind: pki.KindIDevID, Lifetime: time.Hour, Names: pki.NameRules{HardwareType: "1.3.6.1.4.1.32473.1.7"}})
	leaf := issue(t, root.Authority, p, pki.Request{PublicKey: newKey(t, pki.KeyP256).Public(), RawSubject: named(t, "O=Acme", "SN=IMP-0001")})
	want := "\x30\x26\xa0\x24\x06\x08\x2b\x06\x01\x05\x05\x07\x08\x04\xa0\x18\x30\x16\x06\x0a\x2b\x06\x01\x04\x01\x81\xfd\x59\x01\x07\x04\x08IMP-0001"
	at := slices.IndexFunc(leaf.Certificate.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) })
	if at < 0 || string(leaf.Certificate.Extensions[at].Value) != want || leaf.Certificate.Extensions[at].Critical {
		t.Errorf("subjectAltName isn't as wanted: %+v", leaf.Certificate.Extensions)
	}
	dir := t.TempDir()
	put(t, dir, "leaf.pem", leaf.PEM)
	if out := openssl(t, dir, "x509", "-in", "leaf.pem", "-noout", "-text"); !strings.Contains(out, "X509v3 Subject Alternative Name") {
		t.Errorf("openssl shows no name: %s", out)
	}
}

// TestWeakKeysAreRefused by what is known against them.
func TestWeakKeysAreRefused(t *testing.T) {
	t.Parallel()
	sound := newKey(t, pki.KeyRSA2048).Public().(*rsa.PublicKey)
	if refusal := pki.WeakKey(sound); refusal != nil {
		t.Fatalf("a sound key: %v", refusal)
	}
	small := &rsa.PublicKey{N: newBig(0).Mul(sound.N, newBig(7)), E: 65537}
	prime, err := rand.Prime(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	next := newBig(0).Add(prime, newBig(2))
	for !next.ProbablyPrime(20) {
		next.Add(next, newBig(2))
	}
	for name, c := range map[string]struct {
		key   crypto.PublicKey
		words string
	}{
		"a small factor":  {small, "prime below 752"},
		"close primes":    {&rsa.PublicKey{N: newBig(0).Mul(prime, next), E: 65537}, "CVE-2022-26320"},
		"off its curve":   {offCurve(1), "point of its curve"},
		"no point at all": {offCurve(0), "point of its curve"},
	} {
		refusal := pki.WeakKey(c.key)
		if imprint.CodeOf(refusal) != imprint.CodeCertificateWeak || !strings.Contains(refusal.Error(), c.words) {
			t.Errorf("%s: got %v, want %q", name, refusal, c.words)
		}
	}
	hash, err := pki.KeyHash(sound)
	if err != nil {
		t.Fatal(err)
	}
	known, err := pki.NewKnownKeys("# keys of demo boards\n\n" + hash + "  the demo board's\n")
	if err != nil {
		t.Fatal(err)
	}
	root := newRoot(t, pki.KeyP256)
	a, err := pki.NewAuthority(pki.IssuerConfig{Certificate: root.issued.Certificate, Signer: pki.NewSoftSigner(root.key), Journal: &memory{}, Clock: at(start), Known: known})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Prepare(t.Context(), tenant, builtin(t, "operational"), pki.Request{PublicKey: sound, RawSubject: named(t, "CN=x")})
	if imprint.CodeOf(err) != imprint.CodeCertificateWeak || !strings.Contains(err.Error(), "the demo board's") {
		t.Errorf("a known key: got %v", err)
	}
	_, err = pki.NewKnownKeys("abc")
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
		t.Errorf("a list that isn't one: got %v", err)
	}
}

// offCurve is a key that nothing but setting its coordinates makes.
func offCurve(n int64) *ecdsa.PublicKey {
	//lint:ignore SA1019 the coordinates are what is wrong here
	return &ecdsa.PublicKey{Curve: elliptic.P256(), X: newBig(n), Y: newBig(n)}
}

func unix(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }
