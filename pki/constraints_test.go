package pki_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// outside makes an authority of a CA that other people made, with a nameConstraints
// extension of theirs or what change says.
func outside(t *testing.T, constraints []byte, critical bool, change func(*x509.Certificate)) (*pki.Authority, error) {
	t.Helper()
	key := newKey(t, pki.KeyP256)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "theirs"}, NotBefore: start.Add(-time.Hour), NotAfter: start.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1, 2, 3}}
	if constraints != nil {
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: critical, Value: constraints}}
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return pki.NewAuthority(pki.IssuerConfig{ID: "theirs", Certificate: cert, Signer: pki.NewSoftSigner(key), Journal: &memory{}, Clock: at(start)})
}

// tlv writes one element of less than 128 octets.
func tlv(tag byte, content ...[]byte) []byte {
	var all []byte
	for _, one := range content {
		all = append(all, one...)
	}
	return append([]byte{tag, byte(len(all))}, all...)
}

// TestConstraintsThatNobodyUnderstandsSignNothing: also where they aren't critical.
func TestConstraintsThatNobodyUnderstandsSignNothing(t *testing.T) {
	t.Parallel()
	other := tlv(0xa0, []byte{0x06, 0x03, 0x2a, 0x03, 0x04}, tlv(0xa0, tlv(0x0c, []byte("x"))))
	dns := tlv(0x82, []byte("a.example"))
	for name, constraints := range map[string][]byte{
		"another name":     tlv(0x30, tlv(0xa0, tlv(0x30, other))),
		"a registered id":  tlv(0x30, tlv(0xa1, tlv(0x30, []byte{0x88, 0x03, 0x2a, 0x03, 0x04}))),
		"with a distance":  tlv(0x30, tlv(0xa0, tlv(0x30, tlv(0xa4, named(t, "O=Acme")), tlv(0x80, []byte{1})))),
		"an odd directory": tlv(0x30, tlv(0xa0, tlv(0x30, tlv(0xa4, tlv(0x04, []byte("x")))))),
	} {
		for _, critical := range []bool{true, false} {
			_, err := outside(t, constraints, critical, nil)
			if imprint.CodeOf(err) != imprint.CodeCertificateValidation || !strings.Contains(err.Error(), "aren't understood") {
				t.Errorf("%s, critical %t: got %v", name, critical, err)
			}
		}
	}
	_, err := outside(t, tlv(0x30, tlv(0xa0, tlv(0x30, dns), tlv(0x30, tlv(0xa4, named(t, "O=Acme"))))), true, nil)
	if err != nil {
		t.Errorf("constraints of DNS names and directories: %v", err)
	}
}

// TestConstraintsHoldAsRFC5280Says, also those that Go's verifier doesn't look at.
func TestConstraintsHoldAsRFC5280Says(t *testing.T) {
	t.Parallel()
	key := newKey(t, pki.KeyP256).Public()
	all := pki.NameRules{DNS: true, IP: true, URI: true, Email: true}
	p := profile(t, pki.ProfileConfig{Name: "any", Kind: pki.KindOperational, Lifetime: time.Hour, Names: all})
	site := tlv(0x30, tlv(0xa4, named(t, "O=Acme", "OU=Site 7")))
	permitted := tlv(0x30, tlv(0xa0, site))
	excluded := tlv(0x30, tlv(0xa1, site))
	uri := func(text string) pki.AltNames {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return pki.AltNames{URIs: []*url.URL{u}}
	}
	mail := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
	address, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "x"}}, {{Type: mail, Value: asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte("a@evil.example")}}}})
	if err != nil {
		t.Fatal(err)
	}
	cn := named(t, "CN=x")
	// ISO 8859-1 in T61Strings, as old machines write it.
	evil := tlv(0x30, tlv(0xa1, tlv(0x30, tlv(0xa4, named(t, "O=Übel")))))
	latin, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: asn1.RawValue{Tag: asn1.TagT61String, Bytes: []byte("\xdcbel")}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name        string
		constraints []byte
		change      func(*x509.Certificate)
		subject     []byte
		names       pki.AltNames
		words       string // empty: it is signed
	}{
		{"a subject in the directory", permitted, nil, named(t, "O=Acme", "OU=Site 7", "CN=x"), pki.AltNames{}, ""},
		{"in other letters and spaces", permitted, nil, named(t, "O=ACME", "OU=site   7", "CN=x"), pki.AltNames{}, ""},
		{"one of another site", permitted, nil, named(t, "O=Acme", "OU=Site 8", "CN=x"), pki.AltNames{}, "don't permit the subject"},
		{"in another order", permitted, nil, named(t, "OU=Site 7", "O=Acme", "CN=x"), pki.AltNames{}, "don't permit the subject"},
		{"one above the directory", permitted, nil, named(t, "O=Acme"), pki.AltNames{}, "don't permit the subject"},
		{"one that is excluded", excluded, nil, named(t, "O=Acme", "OU=Site 7", "CN=x"), pki.AltNames{}, "exclude the subject"},
		{"one that isn't excluded", excluded, nil, named(t, "O=Acme", "OU=Site 8", "CN=x"), pki.AltNames{}, ""},
		{"an excluded one in another type of text", evil, nil, latin, pki.AltNames{}, "exclude the subject"},
		{"an address in the subject", nil, func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{"acme.example"} }, address, pki.AltNames{}, "email name"},
		{"an excluded address in the subject", nil, func(c *x509.Certificate) { c.ExcludedEmailAddresses = []string{"evil.example"} }, address, pki.AltNames{}, "email name"},
		{"a wildcard over an excluded host", nil, func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"www.acme.example"} }, cn, pki.AltNames{DNS: []string{"*.acme.example"}}, "would stand, too"},
		{"a wildcard beside an excluded host", nil, func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"www.other.example"} }, cn, pki.AltNames{DNS: []string{"*.acme.example"}}, ""},
		{"a wildcard above a permitted host", nil, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"www.acme.example"} }, cn, pki.AltNames{DNS: []string{"*.acme.example"}}, "don't permit"},
		{"a URI without a host", nil, func(c *x509.Certificate) { c.ExcludedURIDomains = []string{"evil.example"} }, cn, uri("urn:acme:1"), "hosts of URIs"},
		{"a URI with an address", nil, func(c *x509.Certificate) { c.PermittedURIDomains = []string{"acme.example"} }, cn, uri("coap://192.0.2.1/"), "hosts of URIs"},
		{"a URI with a permitted host", nil, func(c *x509.Certificate) { c.PermittedURIDomains = []string{"acme.example"} }, cn, uri("coap://acme.example/x"), ""},
		{"an excluded address of a network", nil, func(c *x509.Certificate) {
			c.ExcludedIPRanges = []*net.IPNet{{IP: net.IPv4(192, 0, 2, 0).To4(), Mask: net.CIDRMask(24, 32)}}
		}, cn, pki.AltNames{IPs: []net.IP{net.IPv4(192, 0, 2, 9)}}, "exclude the address"},
	} {
		a, err := outside(t, c.constraints, false, c.change)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		err = a.Check(p, pki.Request{PublicKey: key, RawSubject: c.subject, Names: c.names})
		if c.words == "" && err != nil || c.words != "" && (imprint.CodeOf(err) != imprint.CodeCertificateValidation || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.words)
		}
	}
}

// TestAProfilesDirectoriesBindItsIntermediates: here, and for OpenSSL. Go's verifier knows no
// such constraints and takes nothing below them, as the documentation says.
func TestAProfilesDirectoriesBindItsIntermediates(t *testing.T) {
	t.Parallel()
	root := newRoot(t, pki.KeyP256)
	site := root.below(t, pki.KeyP256, profile(t, pki.ProfileConfig{Name: "site", Kind: pki.KindIntermediate, Lifetime: 24 * time.Hour,
		Constraints: pki.NameConstraints{PermittedDirectories: []string{"/C=DE/O=Acme"}, ExcludedDirectories: []string{"/C=DE/O=Acme/OU=Prototypes"}}}), "site 7")
	p := profile(t, pki.ProfileConfig{Name: "hour", Kind: pki.KindOperational, Lifetime: time.Hour})
	ask := func(subject ...string) pki.Request {
		return pki.Request{PublicKey: newKey(t, pki.KeyP256).Public(), RawSubject: named(t, subject...), NotAfter: start.Add(time.Hour)}
	}
	dir := t.TempDir()
	put(t, dir, "root.pem", root.issued.PEM)
	put(t, dir, "site.pem", site.issued.PEM)
	var leaf *pki.Issued
	for _, p := range []*pki.Profile{builtin(t, "device"), p} {
		for _, subject := range [][]string{{"C=DE", "O=Other", "CN=x"}, {"CN=x"}, {"C=DE", "O=Acme", "OU=Prototypes", "CN=x"}} {
			_, err := site.Prepare(t.Context(), tenant, p, ask(subject...))
			if imprint.CodeOf(err) != imprint.CodeCertificateValidation || !strings.Contains(err.Error(), "name constraints") {
				t.Errorf("profile %s, %q: got %v", p.Name(), subject, err)
			}
		}
		leaf = issue(t, site.Authority, p, ask("C=DE", "O=Acme", "CN=x"))
		put(t, dir, "leaf.pem", leaf.PEM)
		if out := openssl(t, dir, "verify", "-x509_strict", "-attime", unix(start), "-CAfile", "root.pem", "-untrusted", "site.pem", "leaf.pem"); !strings.Contains(out, "leaf.pem: OK") {
			t.Errorf("profile %s: openssl verify: %s", p.Name(), out)
		}
	}
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root.issued.Certificate)
	middle.AddCert(site.issued.Certificate)
	_, err := leaf.Certificate.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle, CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err == nil {
		t.Error("Go's verifier takes constraints of directories now: say so in docs/ca.md")
	}
	_, err = pki.NewProfile(pki.ProfileConfig{Name: "site", Kind: pki.KindIntermediate, Lifetime: time.Hour, Constraints: pki.NameConstraints{PermittedDirectories: []string{"O=Acme"}}})
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
		t.Errorf("a directory that isn't a name: got %v", err)
	}
}
