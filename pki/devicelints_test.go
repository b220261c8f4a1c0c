package pki_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/pki"
)

// TestEachOfOurLintsFindsItsFault: a good certificate of a kind breaks none, and one that
// differs in one thing breaks the one rule that is about it.
func TestEachOfOurLintsFindsItsFault(t *testing.T) {
	t.Parallel()
	key := newKey(t, pki.KeyP256)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, keyID := new(big.Int).Lsh(big.NewInt(3), 100), []byte{1, 2, 3}
	issuer := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, SubjectKeyId: []byte{7, 7}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: start, NotAfter: start.AddDate(30, 0, 0), KeyUsage: x509.KeyUsageCertSign}
	leaf := func(cn string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: cn, SerialNumber: "IMP-0001"}, NotBefore: start, NotAfter: start.AddDate(1, 0, 0), SubjectKeyId: keyID,
			BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature}
	}
	good := map[pki.ProfileKind]func() *x509.Certificate{
		pki.KindAWSDevice: func() *x509.Certificate { return leaf("AWS IoT Certificate") },
		pki.KindOperational: func() *x509.Certificate {
			c := leaf("SN-1")
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
			c.DNSNames, c.OCSPServer = []string{"a.example", "b.example"}, []string{"http://pki.example.com/ocsp"}
			return c
		},
		pki.KindIDevID: func() *x509.Certificate {
			c := leaf("SN-1")
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17},
				Value: []byte("\x30\x26\xa0\x24\x06\x08\x2b\x06\x01\x05\x05\x07\x08\x04\xa0\x18\x30\x16\x06\x0a\x2b\x06\x01\x04\x01\x81\xfd\x59\x01\x07\x04\x08IMP-0001")}}
			return c
		},
		pki.KindServer: func() *x509.Certificate {
			c := leaf("iot.example.com")
			c.ExtKeyUsage, c.DNSNames = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []string{"iot.example.com"}
			return c
		},
		pki.KindClaim: func() *x509.Certificate {
			c := leaf("batch 7")
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
			return c
		},
		pki.KindIntermediate: func() *x509.Certificate {
			c := leaf("line 7")
			c.IsCA, c.MaxPathLenZero, c.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
			return c
		},
		pki.KindRoot: func() *x509.Certificate {
			c := leaf("root")
			c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
			return c
		},
		pki.KindOCSP: func() *x509.Certificate {
			c := leaf("responder")
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{5, 0}}}
			return c
		},
	}
	lint := func(c *x509.Certificate, public crypto.PublicKey, kind pki.ProfileKind) []string {
		t.Helper()
		der, err := x509.CreateCertificate(rand.Reader, c, issuer, public, key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, broken := range pki.LintDevice(cert, issuer, kind) {
			names = append(names, broken.Name)
		}
		return names
	}
	for kind, make := range good {
		if broken := lint(make(), key.Public(), kind); len(broken) > 0 {
			t.Errorf("a good certificate of the kind %s breaks %q", kind, broken)
		}
	}
	uncritical := func(id asn1.ObjectIdentifier, value []byte) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: id, Value: value})
		}
	}
	names := func(count int) (all []string) {
		for n := range count {
			all = append(all, fmt.Sprintf("host-%04d.with-a-long-name.example.com", n))
		}
		return all
	}
	bad := map[string][]struct {
		kind   pki.ProfileKind
		change func(*x509.Certificate)
	}{
		"e_imprint_serial_number": {
			{pki.KindAWSDevice, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(17) }},
			{pki.KindRoot, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(1) }},
		},
		"e_imprint_key_identifiers": {{pki.KindOperational, func(c *x509.Certificate) { c.SubjectKeyId = nil }}},
		"e_imprint_leaf_is_no_ca": {
			{pki.KindClaim, func(c *x509.Certificate) { c.IsCA = true }},
			{pki.KindIDevID, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }},
			{pki.KindServer, uncritical(asn1.ObjectIdentifier{2, 5, 29, 19}, []byte{0x30, 0})},
		},
		"e_imprint_digital_signature": {
			{pki.KindServer, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }},
			{pki.KindOperational, uncritical(asn1.ObjectIdentifier{2, 5, 29, 15}, []byte{0x03, 0x02, 0x07, 0x80})},
		},
		"e_imprint_ca_usages": {
			{pki.KindIntermediate, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageKeyEncipherment }},
			{pki.KindRoot, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }},
		},
		"e_imprint_path_length":          {{pki.KindIntermediate, func(c *x509.Certificate) { c.MaxPathLenZero, c.MaxPathLen = false, -1 }}},
		"e_imprint_client_usage":         {{pki.KindOperational, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }}},
		"e_imprint_no_any_usage":         {{pki.KindOperational, func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageAny) }}},
		"e_imprint_device_size":          {{pki.KindOperational, func(c *x509.Certificate) { c.DNSNames = names(100) }}},
		"e_imprint_topic_characters":     {{pki.KindOperational, func(c *x509.Certificate) { c.Subject.CommonName = "sensors/#" }}, {pki.KindClaim, func(c *x509.Certificate) { c.Subject.SerialNumber = "${iot:ClientId}" }}},
		"e_imprint_names_once":           {{pki.KindServer, func(c *x509.Certificate) { c.DNSNames = []string{"a.example", "A.example"} }}},
		"e_imprint_claim_ends":           {{pki.KindClaim, func(c *x509.Certificate) { c.NotAfter = pki.NoExpiry() }}},
		"e_imprint_idevid_key":           {{pki.KindIDevID, nil}},
		"e_imprint_hardware_module":      {{pki.KindIDevID, func(c *x509.Certificate) { c.Subject.SerialNumber = "IMP-0002" }}},
		"e_imprint_plain_urls":           {{pki.KindOperational, func(c *x509.Certificate) { c.OCSPServer = []string{"https://pki.example.com/ocsp"} }}, {pki.KindServer, func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"ldap://pki/cn=x"} }}},
		"e_imprint_responder":            {{pki.KindOCSP, func(c *x509.Certificate) { c.ExtraExtensions = nil }}, {pki.KindOCSP, func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) }}},
		"e_imprint_idevid_serial_number": {{pki.KindIDevID, func(c *x509.Certificate) { c.Subject.SerialNumber, c.ExtraExtensions = "", nil }}},
	}
	for _, l := range pki.DeviceLints() {
		if len(bad[l.Name]) == 0 {
			t.Errorf("no certificate shows what %s is against", l.Name)
		}
		for n, c := range bad[l.Name] {
			cert, public := good[c.kind](), key.Public()
			if c.change == nil {
				public = ed.Public()
			} else {
				c.change(cert)
			}
			if broken := lint(cert, public, c.kind); !slices.Contains(broken, l.Name) || len(broken) > 2 {
				t.Errorf("%s, certificate %d of the kind %s: it breaks %q", l.Name, n, c.kind, broken)
			}
		}
	}
}

// TestOurLintsAreDocumented as a table, each with where it is from.
func TestOurLintsAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/ca.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range pki.DeviceLints() {
		if row := "| `" + l.Name + "` | " + l.Says + " | " + l.Source + " |"; !strings.Contains(string(text), row) {
			t.Errorf("docs/ca.md lacks the row\n%s", row)
		}
	}
}

// TestOurLintsKeepTheCAKeyFromSigning what ZLint lets pass: nothing is recorded.
func TestOurLintsKeepTheCAKeyFromSigning(t *testing.T) {
	t.Parallel()
	root := newRoot(t, pki.KeyP256)
	hour := profile(t, pki.ProfileConfig{Name: "hour", Kind: pki.KindOperational, Lifetime: time.Hour, Names: pki.NameRules{DNS: true, URI: true}})
	any := profile(t, pki.ProfileConfig{Name: "any", Kind: pki.KindOperational, Lifetime: time.Hour, ExtraKeyUsages: []string{"2.5.29.37.0"}})
	claim := profile(t, pki.ProfileConfig{Name: "claim", Kind: pki.KindClaim, Unlimited: true})
	endless := newRootBy(t, "idevid-root")
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t, pki.KeyP256).Public()
	urn, err := url.Parse("urn:acme:1")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		by      *ca
		profile *pki.Profile
		request pki.Request
	}{
		"e_imprint_topic_characters": {root, hour, pki.Request{PublicKey: key, RawSubject: named(t, "CN=all/#")}},
		"e_imprint_no_any_usage":     {root, any, pki.Request{PublicKey: key, RawSubject: named(t, "CN=x")}},
		"e_imprint_names_once":       {root, hour, pki.Request{PublicKey: key, RawSubject: named(t, "CN=x"), Names: pki.AltNames{URIs: []*url.URL{urn, urn}}}},
		"e_imprint_claim_ends":       {endless, claim, pki.Request{PublicKey: key, RawSubject: named(t, "CN=x")}},
		"e_imprint_idevid_key":       {endless, builtin(t, "idevid"), pki.Request{PublicKey: ed.Public(), RawSubject: named(t, "SN=1")}},
	} {
		before := len(c.by.journal.all)
		_, err := c.by.Prepare(t.Context(), tenant, c.profile, c.request)
		if err == nil || !strings.Contains(err.Error(), name) || len(c.by.journal.all) != before {
			t.Errorf("%s: got %v, and %d records", name, err, len(c.by.journal.all)-before)
		}
	}
}
