package ca

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// Concerned names by their ARNs the authorities that revoking a certificate for a reason is
// about: the one that issued it, by the record of that or, where there is none, by its
// signature, and those that have its key, when it is or was an authority's. A reason that is
// about the key is about those, too, whose certificates go along; "*" stands for the built-in
// CA. A certificate that only looks like an issued one, by its issuer's name and its number,
// isn't it. Errors: CodeNotFound when there is none.
func (e *Engine) Concerned(ctx context.Context, tenant imprint.Tenant, der []byte, reason imprint.RevocationReason) ([]string, error) {
	shown, err := pki.ParseIssued(der)
	if err != nil {
		return nil, err
	}
	var about map[imprint.AuthorityID]bool
	err = e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		about, err = holders(tx, tenant, shown.ID, reason.OfKey())
		if err != nil {
			return err
		}
		err = each(tx, tenant, func(a *imprint.CertificateAuthority) error {
			by, err := issued(tx, a, shown)
			if by {
				about[a.ID] = true
			}
			return err
		})
		if err != nil {
			return err
		}
		if len(about) == 0 {
			return issuedByNobody(shown.ID)
		}
		if reason != imprint.ReasonKeyCompromise {
			return nil
		}
		return alongWith(tx, tenant, shown, about)
	})
	var arns []string
	for _, id := range slices.Sorted(maps.Keys(about)) {
		arn := "*"
		if id != "" {
			arn = tenant.AuthorityARN(id)
		}
		arns = append(arns, arn)
	}
	return arns, err
}

// alongWith adds the authorities of what goes along with a certificate of a lost key.
func alongWith(tx imprint.ReadTx, tenant imprint.Tenant, shown *pki.Issued, about map[imprint.AuthorityID]bool) error {
	keyHash, err := pki.KeyHash(shown.Certificate.PublicKey)
	if err != nil {
		return err
	}
	of := shown.ID
	record, err := tx.IssuanceOfCertificate(tenant, shown.ID)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		of = "" // made elsewhere: nothing renewed it here
	case err != nil:
		return err
	case record.CA:
		return nil // holders has all of its key
	}
	return reach(tx, tenant, keyHash, of, func(i imprint.Issuance, _ imprint.RevocationReason) error {
		about[i.Authority] = true
		return nil
	})
}

// holders gives the authorities that have a certificate or had it, or have another one of its
// key: a reason that is about the key takes those along. OfKey: with those that signed one of
// these, on whose lists they come.
func holders(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID, ofKey bool) (map[imprint.AuthorityID]bool, error) {
	has := map[imprint.AuthorityID]bool{}
	own, err := tx.AuthorityCertificate(tenant, id)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return has, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := tx.AuthorityCertificatesWithKey(tenant.Account, own.KeyHash)
	for _, c := range append(all, own) {
		if c.Tenant != tenant {
			continue
		}
		if c.Authority != "" {
			has[c.Authority] = true
		}
		if ofKey && c.Issuer != "" {
			has[c.Issuer] = true
		}
	}
	return has, err
}

// WouldTake names by their ARNs the authorities that one which is adopted with a certificate
// would become the parent of: to revoke it stops them.
func (e *Engine) WouldTake(ctx context.Context, tenant imprint.Tenant, certificate string) ([]string, error) {
	cert, err := pki.ParseCertificatePEM(certificate)
	if err != nil {
		return nil, err
	}
	var arns []string
	err = e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		arns = nil
		below, err := orphansOf(tx, tenant, cert)
		for _, a := range below {
			arns = append(arns, a.ARN())
		}
		return err
	})
	return arns, err
}

// issued says whether an authority signed a certificate.
func issued(tx imprint.ReadTx, a *imprint.CertificateAuthority, shown *pki.Issued) (bool, error) {
	cert := shown.Certificate
	if a.Certificate == "" || !bytes.Equal(a.Subject, cert.RawIssuer) {
		return false, nil
	}
	record, err := tx.IssuanceOf(a.Tenant, a.ID, pki.SerialHex(cert.SerialNumber))
	if err == nil && record.CertificateID == shown.ID {
		return true, nil
	}
	if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
		return false, err
	}
	issuer, err := pki.ParseCertificatePEM(a.Certificate)
	if err != nil {
		return false, fmt.Errorf("couldn't read the certificate of authority %s: %w", called(a), err)
	}
	return cert.CheckSignatureFrom(issuer) == nil, nil
}

func issuedByNobody(id imprint.CertificateID) error {
	return imprint.Errorf(imprint.CodeNotFound, "no certificate authority of this account and region issued the certificate %s", id).
		WithHint("Adopt its CA, without the key if that is elsewhere: imprint ca adopt")
}
