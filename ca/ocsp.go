package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1" // RFC 6960 section 4.1.1: what clients name an issuer by
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

const (
	// ocspValid is how long a response counts.
	ocspValid = time.Hour
	// ocspRenew is how long before its end a responder's certificate is made anew.
	ocspRenew = 3 * 24 * time.Hour
	// maxResponders bounds the keys of responders in memory, and maxAnswers the responses.
	maxResponders = 1024
	maxAnswers    = 65_536
	// MaxOCSPRequest bounds a request, in bytes.
	MaxOCSPRequest = 4096
)

// responders are the certificates and keys by which OCSP responses are signed, one an
// authority, made when the first request comes and never stored: the authority's own key
// is used once in days, not for each request (RFC 6960 section 4.2.2.2).
//
// Answers are kept for half of their validity while they are true, so that no flood of
// requests makes a key sign more often than twice an hour a certificate. Serial numbers
// that nobody has get an unsigned answer.
type responders struct {
	mu      sync.Mutex
	open    map[place]*responder
	answers map[question]answer
}

type responder struct {
	issuer, cert *x509.Certificate
	key          crypto.Signer
	authority    *pki.Authority // signs itself, where cert is nil
}

// question is what an answer is about.
type question struct {
	place
	serial    string
	hash      crypto.Hash
	issuer    imprint.CertificateID
	status    int
	revokedAt int64
	reason    int
}

type answer struct {
	der  []byte
	from time.Time
}

func (r *responders) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.open)
	clear(r.answers)
}

func (r *responders) known(q question, now time.Time) ([]byte, time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, found := r.answers[q]
	age := now.Sub(a.from)
	return a.der, a.from.Add(ocspValid), found && age >= 0 && age < ocspValid/2
}

func (r *responders) keep(q question, a answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answers == nil || len(r.answers) >= maxAnswers {
		r.answers = map[question]answer{}
	}
	r.answers[q] = a
}

// Respond answers an OCSP request (RFC 6960) about a certificate of an authority, in DER.
// A request that can't be read, or is about another issuer's certificate or one that was
// never issued, is answered by an unsigned error response (RFC 5019 section 2.2.3); err is
// then why.
func (e *Engine) Respond(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, request []byte) ([]byte, time.Time, error) {
	asked, err := ocsp.ParseRequest(request)
	if err != nil {
		return ocsp.MalformedRequestErrorResponse, time.Time{}, imprint.Errorf(imprint.CodeInvalidRequest, "the OCSP request can't be read: %w", err)
	}
	row, err := e.Authority(ctx, tenant, id)
	if err != nil {
		return ocsp.UnauthorizedErrorResponse, time.Time{}, err
	}
	if !row.Revocation.OCSP || row.Certificate == "" {
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
	now := e.opts.Clock().UTC().Truncate(time.Second)
	said := ocsp.Response{SerialNumber: asked.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(ocspValid), IssuerHash: asked.HashAlgorithm}
	err = e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := tx.IssuanceOf(tenant, id, pki.SerialHex(asked.SerialNumber))
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			// What it revoked elsewhere, before it came here, is all that is known of then.
			var adopted imprint.AdoptedRevocation
			adopted, err = tx.AdoptedRevocation(tenant, id, pki.SerialHex(asked.SerialNumber))
			found.CertificateID, found.RevokedAt, found.Reason = "adopted", adopted.RevokedAt, adopted.Reason
		}
		if err != nil {
			return err
		}
		said.Status, said.RevokedAt, said.RevocationReason = ocsp.Good, time.Time{}, 0
		switch {
		case found.CertificateID == "":
			said.Status = ocsp.Unknown
		case !found.RevokedAt.IsZero():
			said.Status, said.RevokedAt = ocsp.Revoked, found.RevokedAt.UTC().Truncate(time.Second)
			said.RevocationReason, _ = found.Reason.Code()
		}
		return nil
	})
	if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && said.Status == ocsp.Unknown {
		return ocsp.UnauthorizedErrorResponse, time.Time{}, imprint.Errorf(imprint.CodeNotFound, "the OCSP request is about a certificate that was never issued")
	}
	if err != nil {
		return ocsp.TryLaterErrorResponse, time.Time{}, err
	}
	q := question{place: place{tenant: tenant, id: id}, serial: pki.SerialHex(asked.SerialNumber), hash: asked.HashAlgorithm, issuer: row.CertificateID,
		status: said.Status, revokedAt: said.RevokedAt.Unix(), reason: said.RevocationReason}
	known, until, found := e.responders.known(q, now)
	if found {
		return known, until, nil
	}
	der, err := e.sign(ctx, &row, issuer, said)
	if err != nil {
		return ocsp.TryLaterErrorResponse, time.Time{}, err
	}
	e.responders.keep(q, answer{der, now})
	return der, said.NextUpdate, nil
}

func (e *Engine) sign(ctx context.Context, row *imprint.CertificateAuthority, issuer *x509.Certificate, said ocsp.Response) ([]byte, error) {
	by, err := e.responder(ctx, row, issuer)
	if err != nil {
		return nil, fmt.Errorf("couldn't sign an OCSP response: %w", err)
	}
	if by.cert == nil {
		return by.authority.SignOCSP(ctx, said)
	}
	said.Certificate = by.cert
	der, err := ocsp.CreateResponse(issuer, by.cert, said, by.key)
	if err != nil {
		return nil, fmt.Errorf("couldn't sign an OCSP response: %w", err)
	}
	return der, nil
}

// isAbout says whether a request is about a certificate of an issuer, by the hashes of its
// name and key.
func isAbout(asked *ocsp.Request, issuer *x509.Certificate) (bool, error) {
	if !slices.Contains([]crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512}, asked.HashAlgorithm) {
		return false, nil
	}
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	_, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &info)
	if err != nil {
		return false, fmt.Errorf("couldn't read the issuer's key: %w", err)
	}
	sum := func(data []byte) []byte {
		if asked.HashAlgorithm == crypto.SHA1 {
			hash := sha1.Sum(data)
			return hash[:]
		}
		h := asked.HashAlgorithm.New()
		h.Write(data)
		return h.Sum(nil)
	}
	return bytes.Equal(asked.IssuerNameHash, sum(issuer.RawSubject)) && bytes.Equal(asked.IssuerKeyHash, sum(info.Key.RightAlign())), nil
}

// responder gives what signs responses for an authority.
func (e *Engine) responder(ctx context.Context, row *imprint.CertificateAuthority, issuer *x509.Certificate) (*responder, error) {
	at := place{tenant: row.Tenant, id: row.ID}
	// One at a time makes one: many may ask at once, and the CA key may be slow.
	defer e.tokens.hold("ocsp\x00" + row.Tenant.String() + "\x00" + string(row.ID))()
	e.responders.mu.Lock()
	found := e.responders.open[at]
	e.responders.mu.Unlock()
	now := e.opts.Clock()
	if found != nil && found.issuer.Equal(issuer) && found.lasts(now) {
		return found, nil
	}
	profile, err := e.opts.Profiles.Profile("ocsp")
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("couldn't make a responder's key: %w", err)
	}
	by, err := e.openRow(ctx, row, 0)
	if err != nil {
		return nil, err
	}
	if !by.signing.Delegates(profile) {
		return e.responders.add(at, &responder{issuer: issuer, authority: by.signing}), nil
	}
	token, err := by.signing.Prepare(ctx, row.Tenant, profile, pki.Request{PublicKey: key.Public(), By: "ocsp"})
	if err != nil {
		return nil, err
	}
	issued, err := by.signing.Sign(ctx, token)
	if err != nil {
		return nil, err
	}
	return e.responders.add(at, &responder{issuer: issuer, cert: issued.Certificate, key: key}), nil
}

// lasts says whether a responder's certificate is still good for a while.
func (r *responder) lasts(now time.Time) bool {
	if r.cert == nil {
		return true
	}
	return now.Before(r.cert.NotAfter.Add(-min(ocspRenew, r.cert.NotAfter.Sub(r.cert.NotBefore)/4)))
}

func (r *responders) add(at place, made *responder) *responder {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil || len(r.open) >= maxResponders {
		r.open = map[place]*responder{}
	}
	r.open[at] = made
	return made
}
