package pki

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/imprint-iot/imprint"
)

// CRL says what list to sign.
type CRL struct {
	Number                 int64 // greater than that of the list before
	ThisUpdate, NextUpdate time.Time
	// Divided says that the list is about some of the authority's certificates alone: about
	// those that name one of its URLs.
	Divided bool
	URLs    []string
	Entries []imprint.RevokedSerial
}

// SignCRL signs a certificate revocation list (RFC 5280 section 5). The key signs a
// TBSCertList that is built here, which no verifier takes for a certificate. A list of a
// divided authority has an issuingDistributionPoint with the URLs that stand in the
// certificates that it is about: without it, it could be put in the place of another, and is
// never signed. Errors: CodeInternal for that, and for an entry that isn't a serial number;
// the signer's.
func (a *Authority) SignCRL(ctx context.Context, list CRL) ([]byte, error) {
	template := &x509.RevocationList{
		SignatureAlgorithm: a.algorithm, Number: big.NewInt(list.Number), ThisUpdate: list.ThisUpdate.UTC().Truncate(time.Second),
		NextUpdate: list.NextUpdate.UTC().Truncate(time.Second), RevokedCertificateEntries: make([]x509.RevocationListEntry, 0, len(list.Entries)),
	}
	for _, entry := range list.Entries {
		serial, ok := new(big.Int).SetString(entry.Serial, 16)
		reason, known := entry.Reason.Code()
		if !ok || !known && entry.Reason != "" {
			return nil, imprint.Errorf(imprint.CodeInternal, "the record of revocations has serial number %q with reason %q", imprint.Excerpt(entry.Serial), imprint.Excerpt(string(entry.Reason)))
		}
		// Reason 0 must be left out (RFC 5280 section 5.3.1): crypto/x509 does.
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: serial, RevocationTime: entry.RevokedAt.UTC().Truncate(time.Second), ReasonCode: reason,
		})
	}
	if list.Divided && len(list.URLs) == 0 {
		return nil, imprint.Errorf(imprint.CodeInternal, "a list of some certificates must say of which: it has no URL")
	}
	if list.Divided {
		point, err := distributionPoint(list.URLs)
		if err != nil {
			return nil, err
		}
		template.ExtraExtensions = append(template.ExtraExtensions, point)
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, a.cert, boundSigner{ctx, a.signer})
	if err != nil {
		return nil, fmt.Errorf("couldn't sign the revocation list: %w", err)
	}
	return der, nil
}

// Delegates says whether a responder's certificate may stand below the authority: not
// where its extendedKeyUsage is limited to other usages, or its names to others than the
// responder's. Giving the usage OCSPSigning to an intermediate would make that a responder
// of the CA above it.
func (a *Authority) Delegates(p *Profile) bool {
	subject, err := p.subjectOf(Request{})
	return err == nil && a.permits(p, subject, Request{}) == nil
}

// distributionPoint is a critical extension (RFC 5280 section 5.2.5): the list is about
// the certificates alone that name one of these URLs.
func distributionPoint(urls []string) (pkix.Extension, error) {
	explicit := cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(explicit, func(b *cryptobyte.Builder) {
			b.AddASN1(explicit, func(b *cryptobyte.Builder) {
				for _, url := range urls {
					addGeneralName(b, 6, []byte(url))
				}
			})
		})
	})
	der, err := b.Bytes()
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("couldn't encode issuingDistributionPoint: %w", err)
	}
	return pkix.Extension{Id: objectID{2, 5, 29, 28}, Critical: true, Value: der}, nil
}

// Points gives the URLs in what the authority signs.
func (a *Authority) Points() Points { return a.points }

// PublicKey is the authority's own.
func (a *Authority) PublicKey() crypto.PublicKey { return a.cert.PublicKey }
