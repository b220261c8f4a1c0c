package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/imprint-iot/imprint"
)

// draft is a certificate with the filler in the place of its signature, and what it
// must hold.
type draft struct {
	der                 []byte
	serial              *big.Int
	subject             []byte
	spki, keyID         []byte
	notBefore, notAfter time.Time
	extensions          []pkix.Extension
	// unnamed ones have their names in subjectAltName alone; isCA ones may sign others.
	unnamed, isCA bool
}

// draft builds the certificate for a request.
func (a *Authority) draft(now time.Time, profile *Profile, request Request) (*draft, error) {
	refusal := profile.checkKey(request.PublicKey)
	if refusal != nil {
		return nil, refusal
	}
	own, ok := a.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || own.Equal(request.PublicKey) != (profile.kind == KindRoot) {
		return nil, invalid("the request's key is the CA's own").WithHint("Make a key for the device.")
	}
	d := &draft{}
	var err error
	d.subject, err = profile.subjectOf(request)
	if err != nil {
		return nil, err
	}
	err = readable(d.subject)
	if err != nil {
		return nil, err
	}
	if profile.kind == KindAWSDevice {
		request.Names = AltNames{} // it has none, whatever the request says
	}
	err = errors.Join(profile.names.check(request.Names, profile.name), a.permits(profile, d.subject, request))
	if err != nil {
		return nil, err
	}
	d.notBefore, d.notAfter, err = a.window(now, profile, request)
	if err != nil {
		return nil, err
	}
	d.serial, err = newSerial()
	if err != nil {
		return nil, err
	}
	d.spki, d.keyID, err = encodedKey(request.PublicKey)
	if err != nil {
		return nil, err
	}
	refusal = a.known.Refusal(d.spki)
	if refusal != nil {
		return nil, refusal
	}
	d.extensions, err = a.extensionsFor(profile, d, request)
	if err != nil {
		return nil, err
	}
	d.unnamed, d.isCA = emptyName(d.subject), profile.kind.isCA()
	d.der, err = a.encode(d)
	if err != nil {
		return nil, invalid("couldn't build the certificate: %w", err)
	}
	return d, nil
}

// encode writes a draft's certificate (RFC 5280 section 4.1): once, because these
// very bytes are what is linted and what is signed. x509.CreateCertificate would
// sign for each draft and verify that signature, two thirds of what a draft under
// P-256 costs.
func (a *Authority) encode(d *draft) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, 1024+len(d.subject)+len(d.spki)))
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) { a.encodeTBS(b, d) })
		b.AddBytes(a.filler.algorithm)
		b.AddASN1BitString(a.filler.signature)
	})
	return b.Bytes()
}

func (a *Authority) encodeTBS(b *cryptobyte.Builder, d *draft) {
	b.AddASN1(cryptobyte_asn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
		b.AddASN1Int64(2) // v3
	})
	b.AddASN1BigInt(d.serial)
	b.AddBytes(a.filler.algorithm)
	b.AddBytes(a.cert.RawSubject)
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addTime(b, d.notBefore)
		addTime(b, d.notAfter)
	})
	b.AddBytes(d.subject)
	b.AddBytes(d.spki)
	b.AddASN1(cryptobyte_asn1.Tag(3).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
		b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, extension := range d.extensions {
				addExtension(b, extension)
			}
		})
	})
}

// addTime writes a time as RFC 5280 section 4.1.2.5 demands: UTCTime through 2049,
// GeneralizedTime from 2050 on.
func addTime(b *cryptobyte.Builder, t time.Time) {
	if t.Year() >= 2050 {
		b.AddASN1GeneralizedTime(t)
		return
	}
	b.AddASN1UTCTime(t)
}

func addExtension(b *cryptobyte.Builder, e pkix.Extension) {
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(e.Id)
		if e.Critical { // DER leaves out what is the default
			b.AddASN1Boolean(true)
		}
		b.AddASN1OctetString(e.Value)
	})
}

// window gives the validity of a certificate: the profile's, or what the request asks for
// within that, never beyond the CA's own.
func (a *Authority) window(now time.Time, profile *Profile, request Request) (notBefore, notAfter time.Time, err error) {
	notBefore, notAfter = profile.validity(now)
	if !request.NotAfter.IsZero() {
		asked := request.NotAfter.UTC().Truncate(time.Second)
		if asked.After(notAfter) {
			return notBefore, notAfter, invalid("the request asks for a certificate until %s, profile %s gives none beyond %s",
				asked.Format(time.RFC3339), profile.name, notAfter.Format(time.RFC3339)).WithHint("Ask for a shorter validity, or use another profile.")
		}
		notAfter = asked
	}
	if !request.NotBefore.IsZero() {
		asked := request.NotBefore.UTC().Truncate(time.Second)
		if asked.Before(notBefore) {
			return notBefore, notAfter, invalid("the request asks for a certificate from %s, profile %s gives none from before %s",
				asked.Format(time.RFC3339), profile.name, notBefore.Format(time.RFC3339)).WithHint("Leave the beginning out: it is a little before now.")
		}
		notBefore = asked
	}
	if notBefore.Before(a.cert.NotBefore) && request.NotBefore.IsZero() && !now.Before(a.cert.NotBefore) {
		notBefore = a.cert.NotBefore
	}
	if profile.shorten && notAfter.After(a.ends) {
		notAfter = a.ends
	}
	return notBefore, notAfter, a.covers(now, profile, notBefore, notAfter)
}

// covers says whether the CA, and each above it, is valid for as long as a certificate will
// be, and whether that isn't over.
func (a *Authority) covers(now time.Time, profile *Profile, notBefore, notAfter time.Time) error {
	over := !notAfter.After(now)
	if !notBefore.Before(a.cert.NotBefore) && !notAfter.After(a.ends) && notBefore.Before(notAfter) && !over {
		return nil
	}
	from, until := a.cert.NotBefore.UTC().Format(time.RFC3339), a.ends.UTC().Format(time.RFC3339)
	if a.id == "" && profile.kind == KindAWSDevice {
		// The built-in device CA and the server's own profile: no request could be right.
		return imprint.Errorf(imprint.CodeInternal, "couldn't make a certificate from %s until %s: the CA is valid from %s until %s",
			notBefore.Format(time.RFC3339), notAfter.Format(time.RFC3339), from, until).
			WithHint("Check the server's clock, and the end of validity in the profile.")
	}
	if over && a.ends.After(now) {
		return invalid("the certificate would be valid until %s, and it is %s", notAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339)).
			WithHint("Ask for an end that is to come, or use a profile whose notAfter isn't over.")
	}
	return invalid("the certificate would be valid from %s until %s, the CA and those above it are from %s until %s",
		notBefore.Format(time.RFC3339), notAfter.Format(time.RFC3339), from, until).
		WithHint("Ask for a validity within the CA's, set shortenToCA in profile %s, or sign with a CA that lasts longer.", profile.name)
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
// demands: what encode made is trusted no more than any other input.
func (a *Authority) inspect(d *draft, kind ProfileKind) (*tokenState, error) {
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
		{"subject", bytes.Equal(cert.RawSubject, d.subject) && (!emptyName(cert.RawSubject) || d.unnamed)},
		{"validity", cert.NotBefore.Equal(d.notBefore) && cert.NotAfter.Equal(d.notAfter)},
		{"public key", bytes.Equal(cert.RawSubjectPublicKeyInfo, d.spki)},
		{"extensions", sameExtensions(cert.Extensions, d.extensions)},
		{"CA flag", cert.IsCA == d.isCA},
	}
	for _, check := range checks {
		if !check.ok {
			return nil, imprint.Errorf(imprint.CodeInternal, "the draft's %s isn't what the profile demands", check.field)
		}
	}
	err = ownRules(cert, a.cert, kind)
	if err != nil {
		return nil, err
	}
	return &tokenState{authority: a, tbs: bytes.Clone(cert.RawTBSCertificate)}, nil
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

// filler is what stands behind the to-be-signed bytes of a draft: the CA's
// signature algorithm and a signature of that kind, by a throwaway key under other
// bytes.
type filler struct{ algorithm, signature []byte }

// newFiller takes the filler from a certificate that a throwaway key signs for
// itself and that is forgotten, and so the algorithm's encoding from crypto/x509.
func newFiller(key crypto.Signer, algorithm x509.SignatureAlgorithm) (filler, error) {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), SignatureAlgorithm: algorithm}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return filler{}, fmt.Errorf("couldn't sign with the throwaway key: %w", err)
	}
	input := cryptobyte.String(der)
	var body, tbs, id cryptobyte.String
	var signature []byte
	if !input.ReadASN1(&body, cryptobyte_asn1.SEQUENCE) || !body.ReadASN1Element(&tbs, cryptobyte_asn1.SEQUENCE) ||
		!body.ReadASN1Element(&id, cryptobyte_asn1.SEQUENCE) || !body.ReadASN1BitStringAsBytes(&signature) {
		return filler{}, errors.New("the throwaway key's certificate can't be read")
	}
	return filler{algorithm: bytes.Clone(id), signature: bytes.Clone(signature)}, nil
}
