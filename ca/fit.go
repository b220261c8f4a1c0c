package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// mayBe refuses certificates that couldn't do what an authority is for: found out now,
// not with each certificate and each list that it is to sign later.
func (e *Engine) mayBe(ctx context.Context, a *imprint.CertificateAuthority, cert *x509.Certificate, above []*x509.Certificate) error {
	policy := pki.DevicePolicy()
	policy.Known = e.opts.Known
	refusal := policy.CheckAuthorityKey(cert, a.Key != "")
	if refusal != nil {
		return refusal
	}
	for _, one := range above {
		refusal = policy.CheckAuthorityKey(one, false)
		if refusal != nil {
			return fmt.Errorf("certificate %s of the chain can't be used: %w", pki.SubjectText(one.RawSubject), refusal)
		}
	}
	err := canList(a.Revocation, cert)
	if err != nil || a.Key == "" {
		return err
	}
	signer, err := e.openKey(ctx, a)
	if err != nil {
		return err
	}
	_, err = pki.NewAuthority(pki.IssuerConfig{
		ID: a.ID, Certificate: cert, Chain: above, Signer: signer, Algorithm: algorithms[a.SigningAlgorithm], Journal: e.opts.Journal, Clock: e.opts.Clock,
	})
	return err
}

// canList refuses CRLs of a CA whose certificate doesn't let it sign any (RFC 5280 section
// 4.2.1.3): verifiers would take none.
func canList(r imprint.RevocationConfiguration, cert *x509.Certificate) error {
	if r.CRL && cert.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return imprint.Errorf(imprint.CodeCertificateValidation, "the CA's certificate lacks keyUsage cRLSign, so it can't have CRLs").
			WithHint("Let it be signed again with keyUsage keyCertSign, cRLSign, or do without CRLs: --crl=false")
	}
	return nil
}

// follows checks that each certificate is signed by the next one, that each counts now, and
// that none has more CAs below it than it lets be.
func follows(cert *x509.Certificate, above []*x509.Certificate, now time.Time) error {
	below := cert
	for depth, next := range above {
		wrong := func(format string, args ...any) error {
			return imprint.Errorf(imprint.CodeCertificateValidation, "certificate %s of the chain "+format, append([]any{pki.SubjectText(next.RawSubject)}, args...)...).
				WithHint("Send the chain from the one that signed the certificate up to the root.")
		}
		err := below.CheckSignatureFrom(next)
		if err != nil {
			return wrong("didn't sign %s: %w", pki.SubjectText(below.RawSubject), err)
		}
		refusal := imprint.ValidityRefusal(next.NotBefore, next.NotAfter, now)
		if refusal != nil {
			return wrong("can't be used: %w", refusal)
		}
		// Those that are issued by themselves don't count (RFC 5280 section 4.2.1.9); here
		// none but the root is.
		if limit := pki.PathLimit(next); limit >= 0 && depth > limit {
			return wrong("lets %d CAs stand in a row below it, and there would be %d", limit, depth+1)
		}
		below = next
	}
	if len(above) == 0 && bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		err := cert.CheckSignatureFrom(cert)
		if err != nil {
			return imprint.Errorf(imprint.CodeCertificateValidation, "the root didn't sign itself: %w", err)
		}
	}
	return nil
}

// checkInstall refuses a certificate that an authority, which first reads or checks, can't have,
// and gives those above it, as upwards does. The key may be in a module: it isn't opened in a
// transaction.
func (e *Engine) checkInstall(ctx context.Context, a *imprint.CertificateAuthority, cert *x509.Certificate, given []*x509.Certificate, first func(imprint.ReadTx) error) (above []*x509.Certificate, err error) {
	err = e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		err := first(tx)
		if err == nil {
			err = fits(a, cert, e.opts.Clock())
		}
		if err == nil {
			above, err = upwards(tx, a, cert, given)
		}
		return err
	})
	if err == nil {
		err = follows(cert, above, e.opts.Clock())
	}
	if err == nil {
		err = e.mayBe(ctx, a, cert, above)
	}
	return above, err
}

// upwards gives the chain of an authority's certificate, as far as it was given, and what this server knows to stand above it:
// a CA may come here without its chain while its parent is here, and what that lets be holds
// for it, too.
func upwards(tx imprint.ReadTx, a *imprint.CertificateAuthority, cert *x509.Certificate, above []*x509.Certificate) ([]*x509.Certificate, error) {
	top := cert
	if len(above) > 0 {
		top = above[len(above)-1]
	}
	above = slices.Clone(above)
	for !selfSigned(top) && len(above) < maxChain {
		id, err := signerOf(tx, a, top)
		if err != nil || id == "" {
			return above, err
		}
		parent, err := tx.Authority(a.Tenant, id)
		if err != nil {
			return nil, err
		}
		top, err = pki.ParseCertificatePEM(parent.Certificate)
		if err != nil {
			return nil, fmt.Errorf("couldn't read the certificate of authority %s: %w", called(&parent), err)
		}
		above = append(above, top)
	}
	return above, nil
}

// wholeChain gives an authority's chain with what came here after it.
func wholeChain(tx imprint.ReadTx, a *imprint.CertificateAuthority) (string, error) {
	if a.Certificate == "" {
		return a.Chain, nil
	}
	cert, err := pki.ParseCertificatePEM(a.Certificate)
	if err != nil {
		return "", fmt.Errorf("couldn't read the certificate of authority %s: %w", called(a), err)
	}
	given, err := parseChain(a.Chain)
	if err != nil {
		return "", err
	}
	above, err := upwards(tx, a, cert, given)
	if err != nil {
		return "", err
	}
	return chainText(above), nil
}

func chainText(certs []*x509.Certificate) string {
	text := ""
	for _, one := range certs {
		text += pki.EncodeCertificatePEM(one.Raw)
	}
	return text
}

// replaces says whether a certificate may take the place of one that an authority has. Any
// CA can sign the request, which everybody can read; who may import must not be able to put
// limits of his own CA in the place of those that hold, or a parent that isn't revoked in
// the place of one that is. So the key that signed the old one must have signed the new one.
func replaces(tx imprint.ReadTx, a *imprint.CertificateAuthority, cert *x509.Certificate, above []*x509.Certificate) error {
	if a.Certificate == "" {
		return nil
	}
	old, err := pki.ParseCertificatePEM(a.Certificate)
	if err != nil {
		return fmt.Errorf("couldn't read the certificate of authority %s: %w", called(a), err)
	}
	if selfSigned(old) && selfSigned(cert) {
		return nil // fits has seen that it is of the same key
	}
	before, err := parseChain(a.Chain)
	if err != nil {
		return err
	}
	issuers := append(slices.Clone(above), before...)
	if a.Parent != "" {
		parent, err := tx.Authority(a.Tenant, a.Parent)
		if err == nil && parent.Certificate != "" {
			signer, err := pki.ParseCertificatePEM(parent.Certificate)
			if err != nil {
				return fmt.Errorf("couldn't read the certificate of authority %s: %w", called(&parent), err)
			}
			issuers = append(issuers, signer)
		} else if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
			return err
		}
	}
	for _, issuer := range issuers {
		if old.CheckSignatureFrom(issuer) == nil && cert.CheckSignatureFrom(issuer) == nil {
			return nil
		}
	}
	return imprint.Errorf(imprint.CodeCertificateValidation, "the key that signed the certificate of certificate authority %s, that of %s, isn't known to have signed this one, which is by %s", called(a),
		pki.SubjectText(old.RawIssuer), pki.SubjectText(cert.RawIssuer)).
		WithHint("Let its present issuer sign the request again, and send the chain. A CA below another one is another authority: imprint ca create --pending")
}

// nobodyElses refuses a certificate that another authority has: of two that come with one at
// the same time, one gets it.
func (e *Engine) nobodyElses(tx imprint.ReadTx, a *imprint.CertificateAuthority, cert *x509.Certificate) error {
	has, err := tx.AuthorityOf(a.Tenant, pki.CertificateID(cert.Raw))
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		return nil
	case err == nil && has.ID != a.ID && !e.gone(&has):
		return alreadyOf(&has)
	}
	return err
}

// selfSigned says whether a certificate's own key signed it: a CA of other people may have
// the same name.
func selfSigned(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, cert.RawSubject) && cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}
