package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// Concerned gives the authorities that revoking a certificate is about: the one that
// issued it and, when it is an authority's, that one. A certificate that only looks like
// an issued one, by its issuer's name and its number, isn't it. Errors: CodeNotFound when
// no authority of the tenant issued it.
func (e *Engine) Concerned(ctx context.Context, tenant imprint.Tenant, der []byte) ([]imprint.CertificateAuthority, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("couldn't read the certificate: %w", err)
	}
	id := pki.CertificateID(der)
	var about []imprint.CertificateAuthority
	err = e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		about = nil
		all, _, err := tx.Authorities(tenant, imprint.Page{Limit: MaxAuthorities, Ascending: true})
		if err != nil {
			return err
		}
		for _, a := range all {
			if !bytes.Equal(a.Subject, cert.RawIssuer) {
				continue
			}
			issued, err := tx.IssuanceOf(tenant, a.ID, pki.SerialHex(cert.SerialNumber))
			if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && issued.CertificateID != id {
				continue
			}
			if err != nil {
				return err
			}
			about = append(about, a)
		}
		if len(about) == 0 {
			return imprint.Errorf(imprint.CodeNotFound, "no certificate authority of this account and region issued the certificate %s", id)
		}
		own, err := tx.AuthorityOf(tenant, id)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return nil
		}
		if err == nil && own.ID != about[0].ID {
			about = append(about, own)
		}
		return err
	})
	return about, err
}
