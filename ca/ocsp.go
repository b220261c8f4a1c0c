package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

const (
	// ocspValid is how long a response counts, and ocspBackdate how long before it is
	// made it begins to, for clients whose clock is behind.
	ocspValid    = time.Hour
	ocspBackdate = 10 * time.Minute
	// ocspAgain is how long a failure is the answer to all requests of an authority.
	ocspAgain = 5 * time.Second
	// MaxOCSPRequest bounds a request, in bytes.
	MaxOCSPRequest = 4096
)

// Respond answers an OCSP request (RFC 6960) about a certificate of an authority, in DER,
// and says until when the answer counts. Of several certificates in one request it
// answers the first, as RFC 5019 section 2.1.1 has requests with one. A request that
// can't be read, or is about another issuer's certificate or one that was never issued, is
// answered by an unsigned error response (RFC 5019 section 2.2.3); err is then why.
//
// What is revoked is told for as long as the authority's certificate counts: also when
// it is disabled, deleted or revoked, and after its SigningEnds. Errors: CodeNotFound and
// CodeInvalidRequest as above, CodeThrottled when the authority's key has too much to
// sign, its own when it can't be used: then the response is tryLater.
func (e *Engine) Respond(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, request []byte) ([]byte, time.Time, error) {
	asked, err := ocsp.ParseRequest(request)
	if err != nil {
		return ocsp.MalformedRequestErrorResponse, time.Time{}, imprint.Errorf(imprint.CodeInvalidRequest, "the OCSP request can't be read: %w", err)
	}
	at, seen := place{tenant: tenant, id: id}, e.generation()
	row, err := e.Authority(ctx, tenant, id)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return ocsp.UnauthorizedErrorResponse, time.Time{}, err
	}
	if err != nil {
		return ocsp.TryLaterErrorResponse, time.Time{}, err
	}
	now := e.opts.Clock()
	if !responds(&row, now) {
		return ocsp.UnauthorizedErrorResponse, time.Time{}, imprint.Errorf(imprint.CodeNotFound, "certificate authority %s answers no OCSP requests", called(&row))
	}
	issuer, err := pki.ParseCertificatePEM(row.Certificate)
	if err != nil {
		return ocsp.InternalErrorErrorResponse, time.Time{}, err
	}
	about, err := isAbout(asked, issuer)
	if err != nil || !about {
		return ocsp.UnauthorizedErrorResponse, time.Time{}, imprint.Errorf(imprint.CodeNotFound, "the OCSP request is about a certificate of another issuer")
	}
	said, err := e.statusOf(ctx, tenant, id, asked)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return ocsp.UnauthorizedErrorResponse, time.Time{}, err
	}
	if err != nil {
		return ocsp.TryLaterErrorResponse, time.Time{}, err
	}
	q := question{
		place: at, serial: pki.SerialHex(asked.SerialNumber), hash: asked.HashAlgorithm, issuer: row.CertificateID,
		revokedAt: said.RevokedAt.Unix(), reason: said.Reason,
	}
	a, err := e.responders.answer(ctx, q, now, func(ctx context.Context) (answer, error) {
		return e.respond(ctx, &row, issuer, said, seen)
	})
	if err != nil {
		return ocsp.TryLaterErrorResponse, time.Time{}, err
	}
	return a.der, a.until, nil
}

// responds says whether an authority answers requests: not without its key, and not when
// its certificate has ended, because nothing that it signed counts then.
func responds(a *imprint.CertificateAuthority, now time.Time) bool {
	return a.Revocation.OCSP && a.Certificate != "" && a.Key != "" && !now.After(a.NotAfter)
}

// statusOf reads what a response says. Errors: CodeNotFound for a number that was never a
// certificate's.
func (e *Engine) statusOf(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, asked *ocsp.Request) (pki.OCSPAnswer, error) {
	said := pki.OCSPAnswer{Serial: asked.SerialNumber, Hash: asked.HashAlgorithm, NameHash: asked.IssuerNameHash, KeyHash: asked.IssuerKeyHash}
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := tx.IssuanceOf(tenant, id, pki.SerialHex(asked.SerialNumber))
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			// What it revoked elsewhere, before it came here, is all that is known of then.
			var adopted imprint.AdoptedRevocation
			adopted, err = tx.AdoptedRevocation(tenant, id, pki.SerialHex(asked.SerialNumber))
			found.CertificateID, found.RevokedAt, found.Reason = "adopted", adopted.RevokedAt, adopted.Reason
		}
		if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && found.CertificateID == "" {
			return imprint.Errorf(imprint.CodeNotFound, "the OCSP request is about a certificate that was never issued")
		}
		if err != nil {
			return err
		}
		said.RevokedAt, said.Reason = time.Time{}, 0
		if !found.RevokedAt.IsZero() {
			said.RevokedAt = found.RevokedAt
			said.Reason, _ = found.Reason.Code()
		}
		return nil
	})
	return said, err
}

// isAbout says whether a request is about a certificate of an issuer, by the hashes of its
// name and key: those by SHA-1 and SHA-256 (RFC 5019 section 2.1.1, RFC 9654), so that
// one certificate has two answers and no more.
func isAbout(asked *ocsp.Request, issuer *x509.Certificate) (bool, error) {
	if asked.HashAlgorithm != crypto.SHA1 && asked.HashAlgorithm != crypto.SHA256 {
		return false, nil
	}
	name, key, err := pki.IssuerHashes(issuer, asked.HashAlgorithm)
	return bytes.Equal(asked.IssuerNameHash, name) && bytes.Equal(asked.IssuerKeyHash, key), err
}
