package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// Adopt takes in an authority that was made elsewhere: with its key, which is sealed, with
// the name of one that is in a key store (spec.KeyURI), or without, for the chain alone; and
// with what it revoked there. One that was here before and is gone comes back under its id.
// Errors: those of Import and of the key's store; CodeCertificateValidation for
// CRLs that aren't its own; CodeInvalidRequest when it is to sign CRLs here and nobody said
// what it revoked.
func (e *Engine) Adopt(ctx context.Context, tenant imprint.Tenant, spec Spec, certificate, chain string, key crypto.Signer) (imprint.CertificateAuthority, error) {
	var a imprint.CertificateAuthority
	cert, err := pki.ParseCertificatePEM(certificate)
	if err != nil {
		return a, err
	}
	spec.Type, spec.RawSubject = imprint.AuthoritySubordinate, cert.RawSubject
	if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		spec.Type = imprint.AuthorityRoot
	}
	spec.Profile, spec.Parent = "", ""
	err = e.check(&spec)
	if err != nil {
		return a, err
	}
	if spec.Algorithm == "" {
		spec.Algorithm = defaultAlgorithm(pki.KeyKindOf(cert.PublicKey))
	}
	a, err = e.adopted(ctx, tenant, &spec, cert)
	if err != nil {
		return a, err
	}
	if key != nil {
		own, comparable := key.Public().(interface{ Equal(crypto.PublicKey) bool })
		if !comparable || !own.Equal(cert.PublicKey) {
			return a, imprint.Errorf(imprint.CodeCertificateValidation, "the key isn't that of the certificate")
		}
		err = e.keepKey(&a, key)
		if err != nil {
			return a, err
		}
	}
	if spec.KeyURI != "" {
		err = e.adoptKey(ctx, &a, spec.KeyURI, cert)
		if err != nil {
			return a, err
		}
	}
	err = answerable(&a)
	if err != nil {
		return a, err
	}
	above, err := parseChain(chain)
	if err != nil {
		return a, err
	}
	above, err = e.checkInstall(ctx, &a, cert, above, func(tx imprint.ReadTx) error { return e.mayAdopt(tx, &a, cert, &spec) })
	if err != nil {
		return a, err
	}
	// What it revoked comes first: an authority without it must not be there for a moment. But
	// what can't be adopted revokes nothing.
	lists, err := e.takeListsOf(ctx, &a, cert, spec.LastCRLs)
	if err != nil {
		return a, err
	}
	for _, l := range lists {
		a.CRLs.Floor = max(a.CRLs.Floor, l.number)
	}
	if len(lists) > 0 || spec.IssuedNothing {
		a.CRLs.Unknown = false
	}
	// One that comes back keeps the row that it has until it has its certificate again.
	installed := a
	err = e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		err := e.mayAdopt(tx, &a, cert, &spec)
		if err == nil {
			err = e.put(tx, &a)
		}
		if err == nil {
			installed, err = e.installInto(tx, tenant, a.ID, cert, above)
		}
		return err
	})
	return installed, err
}

// mayAdopt refuses a certificate that an authority has, or a name or a key that is taken.
func (e *Engine) mayAdopt(tx imprint.ReadTx, a *imprint.CertificateAuthority, cert *x509.Certificate, spec *Spec) error {
	err := e.mayCreate(tx, a.Tenant, spec)
	if err != nil {
		return err
	}
	before, err := tx.AuthorityOf(a.Tenant, pki.CertificateID(cert.Raw))
	if err == nil && (before.ID != a.ID || !e.gone(&before)) {
		return alreadyOf(&before)
	}
	if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
		return err
	}
	if spec.KeyURI != "" {
		return e.unused(tx, a, cert.PublicKey)
	}
	return nil
}

func alreadyOf(a *imprint.CertificateAuthority) error {
	return imprint.Errorf(imprint.CodeAlreadyExists, "the certificate is that of an authority already, %s", called(a))
}

// adopted is the row of an authority that is taken in.
func (e *Engine) adopted(ctx context.Context, tenant imprint.Tenant, spec *Spec, cert *x509.Certificate) (imprint.CertificateAuthority, error) {
	now := e.opts.Clock()
	a := imprint.CertificateAuthority{
		Tenant: tenant, ID: imprint.AuthorityID(uuid.NewString()), Name: spec.Name, Type: spec.Type, Status: imprint.AuthorityPending, Subject: cert.RawSubject,
		KeyAlgorithm: kindName(cert.PublicKey), SigningAlgorithm: spec.Algorithm, Profiles: spec.Profiles, SigningEnds: spec.SigningEnds,
		Revocation: spec.Revocation, Tags: spec.Tags, CreatedAt: now, ChangedAt: now, CRLs: imprint.CRLHistory{Unknown: true},
	}
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		before, err := tx.AuthorityOf(tenant, pki.CertificateID(cert.Raw))
		switch {
		case imprint.CodeOf(err) == imprint.CodeNotFound:
			return nil
		case err != nil:
			return err
		case !before.RevokedAt.IsZero():
			return imprint.Errorf(imprint.CodeCertificateValidation, "the certificate is that of certificate authority %s, which was revoked at %s", called(&before), before.RevokedAt.Format(time.RFC3339)).
				WithHint("Make another CA: imprint ca create")
		case e.gone(&before):
			a.ID, a.CRLs = before.ID, before.CRLs
		}
		return nil
	})
	return a, err
}

// takenList is a CRL of an authority that was made elsewhere.
type takenList struct {
	number  int64
	entries []x509.RevocationListEntry
}

// takePage is how many entries of a CRL one transaction takes.
const takePage = 500

func (e *Engine) takeLists(ctx context.Context, a *imprint.CertificateAuthority, lists [][]byte) ([]takenList, error) {
	cert, err := pki.ParseCertificatePEM(a.Certificate)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeAuthorityState, "certificate authority %s has no certificate", called(a)).WithHint("Import it first: imprint ca import")
	}
	return e.takeListsOf(ctx, a, cert, lists)
}

// takeListsOf reads CRLs and makes what stands there revoked here, too: in the record, and in
// the registry where it has them.
func (e *Engine) takeListsOf(ctx context.Context, a *imprint.CertificateAuthority, cert *x509.Certificate, lists [][]byte) ([]takenList, error) {
	var all []takenList
	for _, data := range lists {
		l, err := readList(data, cert)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	for _, l := range all {
		for page := range slices.Chunk(l.entries, takePage) {
			err := e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
				for _, entry := range page {
					err := e.takeEntry(tx, a, cert, entry)
					if err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

var (
	deltaCRLIndicator        = asn1.ObjectIdentifier{2, 5, 29, 27}
	issuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
)

// readList reads a CRL that a certificate's key signed. A delta, and one of other CAs, too,
// isn't the whole of what this one revoked.
func readList(data []byte, cert *x509.Certificate) (takenList, error) {
	refuse := func(format string, args ...any) (takenList, error) {
		return takenList{}, imprint.Errorf(imprint.CodeCertificateValidation, "the CRL "+format, args...).
			WithHint("Give the last complete CRL that this CA signed: openssl crl -in FILE -noout -text shows it.")
	}
	block, _ := pem.Decode(data)
	if block != nil {
		data = block.Bytes
	}
	list, err := x509.ParseRevocationList(data)
	if err != nil {
		return refuse("can't be read: %w", err)
	}
	err = list.CheckSignatureFrom(cert)
	if err != nil {
		return refuse("wasn't signed by %s: %w", pki.SubjectText(cert.RawSubject), err)
	}
	for _, ext := range list.Extensions {
		if ext.Id.Equal(deltaCRLIndicator) {
			return refuse("is a delta: it says only what changed")
		}
		if ext.Critical && !ext.Id.Equal(issuingDistributionPoint) {
			return refuse("has the critical extension %s, which isn't understood", ext.Id)
		}
		if ext.Id.Equal(issuingDistributionPoint) && indirect(ext.Value) {
			return refuse("is an indirect one: it tells of other CAs' certificates, too")
		}
	}
	taken := takenList{entries: list.RevokedCertificateEntries}
	if list.Number != nil {
		// Room for as many lists as anybody can sign.
		if list.Number.BitLen() > 61 {
			return refuse("has the number %s: numbers to 2^61 can be gone on from", list.Number)
		}
		taken.number = list.Number.Int64()
	}
	return taken, nil
}

// indirect says whether an issuingDistributionPoint has the flag indirectCRL (RFC 5280
// section 5.2.5).
func indirect(der []byte) bool {
	var point struct {
		Point      asn1.RawValue  `asn1:"optional,tag:0"`
		Users      bool           `asn1:"optional,tag:1"`
		CAs        bool           `asn1:"optional,tag:2"`
		Reasons    asn1.BitString `asn1:"optional,tag:3"`
		Indirect   bool           `asn1:"optional,tag:4"`
		Attributes bool           `asn1:"optional,tag:5"`
	}
	rest, err := asn1.Unmarshal(der, &point)
	return err != nil || len(rest) > 0 || point.Indirect
}

// takeEntry takes one entry over. What was revoked here already stays as it is.
func (e *Engine) takeEntry(tx imprint.Tx, a *imprint.CertificateAuthority, cert *x509.Certificate, entry x509.RevocationListEntry) error {
	serial := pki.SerialHex(entry.SerialNumber)
	_, err := tx.AdoptedRevocation(a.Tenant, a.ID, serial)
	if err == nil || imprint.CodeOf(err) != imprint.CodeNotFound {
		return err
	}
	taken := imprint.AdoptedRevocation{Tenant: a.Tenant, Authority: a.ID, Serial: serial, RevokedAt: entry.RevocationTime, Reason: imprint.ReasonOf(entry.ReasonCode)}
	registered, err := tx.CertificatesBySerial(a.Tenant, serial)
	if err != nil {
		return err
	}
	for _, device := range registered {
		leaf, err := pki.ParseCertificatePEM(device.PEM)
		if err != nil || !bytes.Equal(leaf.RawIssuer, cert.RawSubject) || leaf.CheckSignatureFrom(cert) != nil {
			continue // another CA's
		}
		err = e.revokeRow(tx, device)
		if err != nil {
			return err
		}
		// A list has no keys: that of a certificate which is known here is remembered. The
		// number is meant all the same, whatever certificate has it.
		taken.KeyHash, err = pki.KeyHash(leaf.PublicKey)
		if err != nil {
			return err
		}
	}
	err = tx.PutAdoptedRevocation(taken)
	if err != nil {
		return err
	}
	return listDue(tx, a.Tenant, a.ID, serial, e.opts.Clock())
}
