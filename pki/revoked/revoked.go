// Package revoked says whether a certificate authority of this server, or an imported CRL of
// a CA elsewhere, took a certificate back, whoever comes with it: a device for the first time,
// or an operator who registers it.
//
//	warning, err := revoked.Check(tx, tenant, leaf, now)
//	if revoked.Is(err) { ... }
//
// What it promises: asked in the transaction that registers a certificate, it refuses one
// that was revoked before that by its issuer, also if no registry had it, one that an
// authority signed which was revoked, or is below one that was. What an authority issued here
// and revoked is refused in every account. Authorities that an account adopted without
// having issued by them here speak for that account alone, in all of its regions.
//
// A CA elsewhere speaks by the lists that the tenant imported (package ca/foreign), and these
// for that tenant alone, about the certificates that it signed and what is below those that
// are a CA's.
//
// What it does not do: it asks nobody over the network, so no OCSP responders either.
package revoked

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// Refusal says why a certificate may not be registered in a tenant; nil: its authorities
// say nothing against it. Errors: CodeCertificateRevoked; the store's.
func Refusal(tx imprint.ReadTx, tenant imprint.Tenant, cert *x509.Certificate) error {
	id := pki.CertificateID(cert.Raw)
	r, err := Against(tx, tenant, cert)
	switch {
	case err != nil:
		return err
	case r != nil && r.Own:
		return imprint.Errorf(imprint.CodeCertificateRevoked, "certificate %s was revoked by its issuer at %s (%s)", id, r.RevokedAt.UTC().Format(time.RFC3339), r.Reason)
	case r != nil:
		return imprint.Errorf(imprint.CodeCertificateRevoked, "certificate %s was signed by certificate authority %s, which was revoked at %s (%s), or is below one that was",
			id, r.Authority, r.RevokedAt.UTC().Format(time.RFC3339), r.Reason).
			WithHint("Give the device a certificate of a CA that is trusted: imprint ca list shows which are.")
	case !cert.IsCA:
		return nil
	}
	return authority(tx, tenant, id)
}

// Against gives what authorities of this server say against a certificate in a tenant, that
// they revoked it or that one above it was revoked; nil: nothing. Errors: the store's.
func Against(tx imprint.ReadTx, tenant imprint.Tenant, cert *x509.Certificate) (*imprint.Revocation, error) {
	id := pki.CertificateID(cert.Raw)
	against, err := tx.Revocations(id, pki.SerialHex(cert.SerialNumber), cert.RawIssuer)
	if err != nil {
		return nil, fmt.Errorf("couldn't look for revocations of certificate %s: %w", id, err)
	}
	for n := range against {
		r := &against[n]
		if r.CertificateID != "" && r.CertificateID != id {
			continue // another certificate with its serial number
		}
		holds, err := concerns(tx, tenant, *r, cert)
		if err != nil {
			return nil, err
		}
		if holds {
			return r, nil
		}
	}
	return nil, nil
}

// authority refuses the certificate of an authority that was revoked itself, whoever signed
// it.
func authority(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID) error {
	own, err := tx.AuthorityOf(tenant, id)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		return nil
	case err != nil:
		return fmt.Errorf("couldn't look for the authority of certificate %s: %w", id, err)
	case !own.RevokedAt.IsZero():
		return imprint.Errorf(imprint.CodeCertificateRevoked, "certificate %s is that of certificate authority %s, which was revoked at %s (%s)",
			id, own.ID, own.RevokedAt.UTC().Format(time.RFC3339), own.RevocationReason).
			WithHint("Make another CA: imprint ca create")
	}
	return nil
}

// concerns says whether a revocation speaks for a tenant and is about a certificate.
func concerns(tx imprint.ReadTx, tenant imprint.Tenant, r imprint.Revocation, cert *x509.Certificate) (bool, error) {
	if r.Own && r.CertificateID != "" {
		// Only who signed the very certificate has it on record, unless it was adopted.
		_, err := tx.AdoptedRevocation(r.Tenant, r.Authority, pki.SerialHex(cert.SerialNumber))
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return true, nil
		}
		return r.Tenant.Account == tenant.Account, err
	}
	if r.Tenant.Account != tenant.Account {
		return false, nil
	}
	authority, err := tx.Authority(r.Tenant, r.Authority)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("couldn't read the issuer of certificate %s: %w", pki.CertificateID(cert.Raw), err)
	}
	if authority.Certificate == "" || !bytes.Equal(authority.Subject, cert.RawIssuer) {
		return false, nil
	}
	return signedBy(cert, authority.Certificate), nil
}
