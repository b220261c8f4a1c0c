package pki_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/pki"
)

// chained is a certificate of anybody with its key.
type chained struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// under makes a certificate below a CA, nil: self-signed, with name constraints or none, which
// makes it a CA.
func under(t *testing.T, parent *chained, subject, constraints []byte, isCA bool) *chained {
	t.Helper()
	made := &chained{key: newKey(t, pki.KeyP256).(*ecdsa.PrivateKey)}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), RawSubject: subject, NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(1, 0, 0), IsCA: isCA, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if isCA {
		template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageCertSign, nil
	}
	if constraints != nil {
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: true, Value: constraints}}
	}
	by, key := template, made.key
	if parent != nil {
		by, key = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, made.key.Public(), key)
	if err == nil {
		made.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// TestPathsKeepConstraintsOfDirectories: what Go's verifier refuses below such a CA is verified
// by the rules of RFC 5280, wherever in the path the CA stands.
func TestPathsKeepConstraintsOfDirectories(t *testing.T) {
	t.Parallel()
	directory := func(list byte, text ...string) []byte { return tlv(list, tlv(0x30, tlv(0xa4, named(t, text...)))) }
	permitted := tlv(0x30, directory(0xa0, "O=Acme"), directory(0xa1, "O=Acme", "OU=Lab"))
	other := tlv(0x30, tlv(0xa0, tlv(0x30, []byte{0x88, 0x03, 0x2a, 0x03, 0x04})))
	for name, c := range map[string]struct {
		top, middle []byte
		subject     []byte
		words       string // empty: there is a path
	}{
		"permitted by the anchor":      {permitted, nil, named(t, "O=ACME", "CN=x"), ""},
		"permitted by the one between": {nil, permitted, named(t, "O=Acme", "CN=x"), ""},
		"not permitted by the anchor":  {permitted, nil, named(t, "O=Evil", "CN=x"), "don't permit the subject"},
		"not permitted between":        {nil, permitted, named(t, "O=Evil", "CN=x"), "don't permit the subject"},
		"excluded":                     {nil, permitted, named(t, "O=Acme", "OU=Lab", "CN=x"), "exclude the subject"},
		"of a kind that isn't known":   {nil, other, named(t, "O=Acme", "CN=x"), "unhandled critical extension"},
	} {
		root := under(t, nil, named(t, "O=Acme", "CN=root"), c.top, true)
		middle := under(t, root, named(t, "O=Acme", "CN=middle"), c.middle, true)
		leaf := under(t, middle, c.subject, nil, false)
		path, err := pki.VerifyPath(leaf.cert, []*x509.Certificate{root.cert}, []*x509.Certificate{middle.cert}, start, x509.ExtKeyUsageClientAuth)
		if c.words == "" && (err != nil || len(path) != 3 || !path[1].Equal(middle.cert)) {
			t.Errorf("%s: got a path of %d, %v", name, len(path), err)
		}
		if c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%s: got %v, want %q", name, err, c.words)
		}
	}
	root := under(t, nil, named(t, "O=Acme", "CN=root"), permitted, true)
	outside := under(t, root, named(t, "O=Evil", "CN=middle"), nil, true)
	leaf := under(t, outside, named(t, "O=Acme", "CN=x"), nil, false)
	_, err := pki.VerifyPath(leaf.cert, []*x509.Certificate{root.cert}, []*x509.Certificate{outside.cert}, start, x509.ExtKeyUsageAny)
	if err == nil || !strings.Contains(err.Error(), "don't permit the subject") {
		t.Errorf("a CA between that isn't permitted: got %v", err)
	}
}
