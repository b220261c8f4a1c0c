package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/imprint-iot/imprint"
)

// draft is a certificate under the throwaway signature, with what it must hold.
type draft struct {
	der                 []byte
	serial              *big.Int
	subject, spki       []byte
	notBefore, notAfter time.Time
	extensions          []pkix.Extension
}

// draft builds the certificate for a request.
func (a *Authority) draft(now time.Time, profile *Profile, request Request) (*draft, error) {
	refusal := profile.keys.checkPublicKey(request.PublicKey)
	if refusal != nil {
		return nil, refusal
	}
	own, ok := a.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || own.Equal(request.PublicKey) {
		return nil, invalid("the request's key is the CA's own").WithHint("Make a key for the device.")
	}
	d := &draft{}
	var err error
	d.subject, err = profile.subjectOf(request)
	if err != nil {
		return nil, err
	}
	d.notBefore, d.notAfter = profile.validity(now)
	err = a.covers(d.notBefore, d.notAfter)
	if err != nil {
		return nil, err
	}
	d.serial, err = newSerial()
	if err != nil {
		return nil, err
	}
	spki, keyID, err := encodedKey(request.PublicKey)
	if err != nil {
		return nil, err
	}
	d.spki = spki
	d.extensions, err = profileExtensions(a.cert.SubjectKeyId, keyID)
	if err != nil {
		return nil, err
	}
	// The extensions are given as extra ones, because CreateCertificate would
	// put its own into another order. It takes the issuer's name and nothing
	// else from the parent.
	template := &x509.Certificate{
		SerialNumber: d.serial, RawSubject: d.subject, NotBefore: d.notBefore, NotAfter: d.notAfter,
		SignatureAlgorithm: a.algorithm, ExtraExtensions: d.extensions,
	}
	parent := &x509.Certificate{RawSubject: a.cert.RawSubject}
	d.der, err = x509.CreateCertificate(rand.Reader, template, parent, request.PublicKey, a.throwaway)
	if err != nil {
		return nil, invalid("couldn't build the certificate: %w", err)
	}
	return d, nil
}

// covers says whether the CA is valid for as long as a certificate will be.
func (a *Authority) covers(notBefore, notAfter time.Time) error {
	if notBefore.Before(a.cert.NotBefore) || notAfter.After(a.cert.NotAfter) || !notBefore.Before(notAfter) {
		return imprint.Errorf(imprint.CodeInternal, "couldn't make a certificate from %s until %s: the CA is valid from %s until %s",
			notBefore.Format(time.RFC3339), notAfter.Format(time.RFC3339), a.cert.NotBefore.Format(time.RFC3339), a.cert.NotAfter.Format(time.RFC3339)).
			WithHint("Check the server's clock, and the end of validity in the profile.")
	}
	return nil
}

// profileExtensions gives the four extensions in the order in which AWS IoT
// Core writes them.
func profileExtensions(issuerKeyID, keyID []byte) ([]pkix.Extension, error) {
	aki, err := asn1.Marshal(struct {
		KeyID []byte `asn1:"tag:0"`
	}{issuerKeyID})
	if err != nil {
		return nil, fmt.Errorf("couldn't encode authorityKeyIdentifier: %w", err)
	}
	ski, err := asn1.Marshal(keyID)
	if err != nil {
		return nil, fmt.Errorf("couldn't encode subjectKeyIdentifier: %w", err)
	}
	return []pkix.Extension{
		{Id: asn1.ObjectIdentifier{2, 5, 29, 35}, Value: aki},
		{Id: asn1.ObjectIdentifier{2, 5, 29, 14}, Value: ski},
		// basicConstraints: an empty SEQUENCE is cA FALSE.
		{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 0x00}},
		// keyUsage: a BIT STRING with bit 0, digitalSignature, alone.
		{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{0x03, 0x02, 0x07, 0x80}},
	}, nil
}

// inspect reads the draft back and compares every field with what the profile
// demands: what CreateCertificate made is trusted no more than any other input.
func (a *Authority) inspect(d *draft) (*tokenState, error) {
	cert, err := x509.ParseCertificate(d.der)
	if err != nil {
		return nil, fmt.Errorf("couldn't read back the draft: %w", err)
	}
	checks := []struct {
		field string
		ok    bool
	}{
		{"version", cert.Version == 3},
		{"serial number", cert.SerialNumber.Cmp(d.serial) == 0 && d.serial.Sign() == 1 && len(d.serial.Bytes()) == 20},
		{"signature algorithm", cert.SignatureAlgorithm == a.algorithm},
		{"issuer", bytes.Equal(cert.RawIssuer, a.cert.RawSubject)},
		{"subject", bytes.Equal(cert.RawSubject, d.subject) && !emptyName(cert.RawSubject)},
		{"validity", cert.NotBefore.Equal(d.notBefore) && cert.NotAfter.Equal(d.notAfter)},
		{"public key", bytes.Equal(cert.RawSubjectPublicKeyInfo, d.spki)},
		{"extensions", sameExtensions(cert.Extensions, d.extensions)},
		{"CA flag", !cert.IsCA},
	}
	for _, check := range checks {
		if !check.ok {
			return nil, imprint.Errorf(imprint.CodeInternal, "the draft's %s isn't what the profile demands", check.field)
		}
	}
	algorithm, err := outerAlgorithm(cert.Raw)
	if err != nil {
		return nil, err
	}
	return &tokenState{authority: a, tbs: bytes.Clone(cert.RawTBSCertificate), algorithm: algorithm}, nil
}

func sameExtensions(got, want []pkix.Extension) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if !got[i].Id.Equal(want[i].Id) || got[i].Critical != want[i].Critical || !bytes.Equal(got[i].Value, want[i].Value) {
			return false
		}
	}
	return true
}

// outerAlgorithm gives the signatureAlgorithm of a certificate, tag and length
// with it.
func outerAlgorithm(der []byte) ([]byte, error) {
	input := cryptobyte.String(der)
	var body, tbs, algorithm cryptobyte.String
	if !input.ReadASN1(&body, cryptobyte_asn1.SEQUENCE) ||
		!body.ReadASN1Element(&tbs, cryptobyte_asn1.SEQUENCE) ||
		!body.ReadASN1Element(&algorithm, cryptobyte_asn1.SEQUENCE) {
		return nil, imprint.Errorf(imprint.CodeInternal, "the draft has no signature algorithm")
	}
	return bytes.Clone(algorithm), nil
}
