package ca

import (
	"bytes"
	"context"
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// Concerned gives the authorities that revoking a certificate is about: the one that
// issued it, by the record of that or, where there is none, by its signature, and those that
// have its key, when it is or was an authority's. A certificate that only looks like an issued
// one, by its issuer's name and its number, isn't it. Errors: CodeNotFound when there is none.
func (e *Engine) Concerned(ctx context.Context, tenant imprint.Tenant, der []byte) ([]imprint.CertificateAuthority, error) {
	shown, err := pki.ParseIssued(der)
	if err != nil {
		return nil, err
	}
	var about []imprint.CertificateAuthority
	err = e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		about = nil
		has, err := holders(tx, tenant, shown.ID)
		if err != nil {
			return err
		}
		err = each(tx, tenant, func(a *imprint.CertificateAuthority) error {
			by, err := issued(tx, a, shown)
			if by || err == nil && has[a.ID] {
				about = append(about, *a)
			}
			return err
		})
		if err == nil && len(about) == 0 {
			err = issuedByNobody(shown.ID)
		}
		return err
	})
	return about, err
}

// holders gives the authorities that have a certificate or had it, or have another one of its
// key: a reason that is about the key takes those along.
func holders(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID) (map[imprint.AuthorityID]bool, error) {
	own, err := tx.AuthorityCertificate(tenant, id)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := tx.AuthorityCertificatesWithKey(tenant, own.KeyHash)
	has := map[imprint.AuthorityID]bool{}
	for _, c := range append(all, own) {
		has[c.Authority] = true
	}
	return has, err
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
