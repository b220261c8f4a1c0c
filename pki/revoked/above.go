package revoked

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// maxAbove bounds how many CAs above a certificate are asked for.
const maxAbove = 10

// Listed is ByLists of a certificate and of the CAs above it, as far as these are registered
// in the tenant, or authorities there, or in the chain of one. Where several certificates of
// a CA's key could stand above, as after a renewal, one that is on no list is enough.
//
// In a tenant without imported lists it costs one look-up over an index.
func Listed(tx imprint.ReadTx, tenant imprint.Tenant, cert *x509.Certificate, now time.Time) (warning string, err error) {
	found, err := AnyLists(tx, tenant)
	if err != nil || !found {
		return "", err
	}
	warning, err = ByLists(tx, tenant, cert, now)
	chain := "" // of the last authority on the way up
	for n := 0; err == nil && n < maxAbove; n++ {
		var signers []*x509.Certificate
		signers, chain, err = signersOf(tx, tenant, cert, chain)
		if err != nil || len(signers) == 0 {
			break
		}
		said := ""
		for _, cert = range signers {
			said, err = ByLists(tx, tenant, cert, now)
			if !Is(err) {
				break
			}
		}
		if said != "" {
			warning = said
		}
	}
	return warning, err
}

// AnyLists says whether a tenant has imported lists.
func AnyLists(tx imprint.ReadTx, tenant imprint.Tenant) (bool, error) {
	lists, _, err := tx.ForeignLists(tenant, imprint.Page{Limit: 1})
	if err != nil {
		return false, fmt.Errorf("couldn't look for imported revocation lists: %w", err)
	}
	return len(lists) > 0, nil
}

// signersOf gives the certificates of a tenant's CAs, or of a chain, that signed one; and the
// chain of its authority, where it is that of one, or the same.
func signersOf(tx imprint.ReadTx, tenant imprint.Tenant, cert *x509.Certificate, chain string) ([]*x509.Certificate, string, error) {
	if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		return nil, chain, nil
	}
	id := pki.CertificateID(cert.Raw)
	registered, err := tx.CAsBySubject(tenant, pki.SubjectKey(cert.RawIssuer))
	if err != nil {
		return nil, chain, fmt.Errorf("couldn't look for the CA of certificate %s: %w", id, err)
	}
	var texts []string
	for _, ca := range registered {
		texts = append(texts, ca.PEM)
	}
	if cert.IsCA {
		own, err := tx.AuthorityOf(tenant, id)
		if err == nil && own.Parent != "" {
			var parent imprint.CertificateAuthority
			parent, err = tx.Authority(tenant, own.Parent)
			texts = append(texts, parent.Certificate)
		}
		if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
			return nil, chain, fmt.Errorf("couldn't look for the CA of certificate %s: %w", id, err)
		}
		if own.Chain != "" {
			chain = own.Chain
		}
	}
	var signers []*x509.Certificate
	for _, text := range append(texts, chain) {
		all, err := pki.ParseCertificatesPEM(text)
		if err != nil {
			continue // one that can't be read signed nothing that is judged here
		}
		for _, ca := range all {
			if bytes.Equal(ca.RawSubject, cert.RawIssuer) && ca.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil {
				signers = append(signers, ca)
			}
		}
	}
	return signers, chain, nil
}
