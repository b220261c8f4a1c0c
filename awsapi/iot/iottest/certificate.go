package iottest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/pki"
)

// CA is a certificate authority of a test's operator.
type CA struct {
	Certificate *x509.Certificate
	PEM         string
	Key         crypto.Signer
}

// NewCA makes a self-signed CA with a fresh P-256 key, valid from an hour ago
// for ten years. Each edit may change the template.
func NewCA(t testing.TB, commonName string, edits ...func(*x509.Certificate)) *CA {
	t.Helper()
	return NewCAWithKey(t, NewKey(t), commonName, edits...)
}

// NewCAWithKey is NewCA with a key that is there already.
func NewCAWithKey(t testing.TB, key crypto.Signer, commonName string, edits ...func(*x509.Certificate)) *CA {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: newSerial(t), Subject: pkix.Name{CommonName: commonName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	for _, edit := range edits {
		edit(template)
	}
	cert, text := sign(t, template, template, key.Public(), key)
	return &CA{Certificate: cert, PEM: text, Key: key}
}

// Leaf signs a device certificate with a fresh key, valid from an hour ago for
// a year. Each edit may change the template.
func (ca *CA) Leaf(t testing.TB, commonName string, edits ...func(*x509.Certificate)) (*x509.Certificate, string) {
	t.Helper()
	return ca.LeafOf(t, NewKey(t).Public(), commonName, edits...)
}

// LeafOf is Leaf with a key that is there already.
func (ca *CA) LeafOf(t testing.TB, public crypto.PublicKey, commonName string, edits ...func(*x509.Certificate)) (*x509.Certificate, string) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: newSerial(t), Subject: pkix.Name{CommonName: commonName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	for _, edit := range edits {
		edit(template)
	}
	return sign(t, template, ca.Certificate, public, ca.Key)
}

// LeafPEM is the text of Leaf.
func (ca *CA) LeafPEM(t testing.TB, commonName string) string {
	t.Helper()
	_, text := ca.Leaf(t, commonName)
	return text
}

// NewCSR makes a signing request of a key with a subject.
func NewCSR(t testing.TB, key crypto.Signer, subject pkix.Name) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		t.Fatalf("couldn't make a request: %v", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// NewKey makes a P-256 key.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("couldn't make a key: %v", err)
	}
	return key
}

func sign(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, string) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatalf("couldn't sign a certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("couldn't read back a certificate: %v", err)
	}
	return cert, pki.EncodeCertificatePEM(der)
}

func newSerial(t testing.TB) *big.Int {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatalf("couldn't make a serial number: %v", err)
	}
	return serial.Add(serial, big.NewInt(1))
}
