package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// shortLife is the longest certificate of an authority in AWS Private CA's mode
// SHORT_LIVED_CERTIFICATE.
const shortLife = 7 * 24 * time.Hour

// Issued is a certificate with those above it.
type Issued struct {
	*pki.Issued
	Chain string // PEM
}

// Issue makes a certificate by a profile. A request with the Token of an earlier one of
// this authority, and for the same, gets that one's certificate, for the time of TokenFor. Errors: CodeAuthorityState, CodeNotFound,
// CodeKeyReused, CodeAccessDenied for a profile that isn't the authority's, those of
// pki.Authority.Prepare and Sign.
func (e *Engine) Issue(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, profile string, request pki.Request) (Issued, error) {
	return e.IssueInto(ctx, tenant, id, profile, request, nil)
}

// issueFor is IssueInto, uncounted.
func (e *Engine) issueFor(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, profile string, request pki.Request, also func(imprint.Tx, *pki.Issued) error) (Issued, error) {
	p, err := e.opts.Profiles.Profile(profile)
	if err != nil {
		return Issued{}, err
	}
	if request.Token != "" {
		// Two that come at once are one, too.
		defer e.tokens.hold("issue\x00" + tenant.String() + "\x00" + string(id) + "\x00" + request.Token)()
		again, found, err := e.requested(ctx, tenant, id, p, request)
		if err != nil || found {
			return again, err
		}
	}
	issued, chain, err := e.issue(ctx, tenant, id, p, request, false, also)
	return Issued{issued, chain}, err
}

// issue signs a request; ours is one for a key of the engine's.
func (e *Engine) issue(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, p *pki.Profile, request pki.Request, ours bool, also func(imprint.Tx, *pki.Issued) error) (*pki.Issued, string, error) {
	by, err := e.signing(ctx, tenant, id, request.Algorithm)
	if err != nil {
		return nil, "", err
	}
	request, err = e.mayIssue(by, p, request, ours)
	if err != nil {
		return nil, "", err
	}
	if request.Renews != "" || p.Config().MaxCertificates > 0 {
		err = e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
			err := e.keepsClaim(tx, tenant, p, request.Renews)
			if err != nil {
				return err
			}
			return withinOrder(tx, &by.row, p)
		})
		if err != nil {
			return nil, "", err
		}
	}
	token, err := by.signing.Prepare(ctx, tenant, p, request)
	if err != nil {
		return nil, "", err
	}
	// What was revoked or switched off since the authority was opened is seen in the
	// transaction that makes the certificate one: until then nobody has it.
	issued, err := by.signing.SignInto(ctx, token, func(made *pki.Issued, record func(imprint.Tx) error) error {
		return e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
			row, err := tx.Authority(tenant, id)
			if err != nil {
				return err
			}
			err = state(&row, e.opts.Clock())
			if err != nil {
				return err
			}
			if row.CertificateID != by.row.CertificateID || !slices.Equal(row.Profiles, by.row.Profiles) || !row.SigningEnds.Equal(by.row.SigningEnds) ||
				row.Revocation != by.row.Revocation || !sameHistory(&row.CRLs, &by.row.CRLs) {
				return imprint.Errorf(imprint.CodeConflictingUpdate, "certificate authority %s was changed while it signed", called(&row)).WithHint("Ask again.")
			}
			err = e.unbroken(tx, &row)
			if err != nil {
				return err
			}
			err = withinOrder(tx, &row, p)
			if err == nil {
				err = tx.CountProfileUse(tenant, id, p.Name())
			}
			if err != nil {
				return err
			}
			if made.Certificate.IsCA {
				err = tx.PutAuthorityCertificate(certificateOf(tenant, made.Certificate, "", id))
				if err != nil {
					return err
				}
			}
			err = record(tx)
			if err == nil && request.Renews != "" && e.opts.Renewed != nil && !made.Certificate.IsCA {
				err = e.opts.Renewed(tx, tenant, request.Renews, made, row.CertificateID)
			}
			if err != nil || also == nil {
				return err
			}
			return also(tx, made)
		})
	})
	if err != nil {
		return nil, "", err
	}
	e.tally.countIssued(p.Name())
	return issued, by.row.Certificate + by.row.Chain, nil
}

// keepsClaim refuses to renew a claim into anything but a claim of its profile: a whole batch
// of devices has it, and its successor would be one device's for longer, with the policies of
// the claim. The profile of what was issued never changes, so one look before signing does.
func (e *Engine) keepsClaim(tx imprint.ReadTx, tenant imprint.Tenant, p *pki.Profile, renews imprint.CertificateID) error {
	if renews == "" {
		return nil
	}
	old, err := tx.IssuanceOfCertificate(tenant, renews)
	if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && old.Profile == p.Name() {
		return nil // that there is none is said with the intent
	}
	if err != nil {
		return fmt.Errorf("couldn't look for the certificate to be renewed: %w", err)
	}
	was, err := e.opts.Profiles.Profile(old.Profile)
	if err != nil || was.Kind() != pki.KindClaim {
		return nil // a profile that is gone says nothing
	}
	return imprint.Errorf(imprint.CodeCertificateValidation, "certificate %s is a claim, of profile %s: it isn't renewed by profile %s", renews, old.Profile, p.Name()).
		WithHint("Issue a new certificate for the device instead, or let it be provisioned with its claim.")
}

// mayIssue refuses what an authority doesn't sign, whatever the request, and gives the
// request with the validity that a mode of the authority sets.
func (e *Engine) mayIssue(by *opened, p *pki.Profile, request pki.Request, ours bool) (pki.Request, error) {
	if p.Kind() == pki.KindRoot {
		return request, imprint.Errorf(imprint.CodeInvalidRequest, "profile %s is for what a root signs for itself", p.Name()).
			WithHint("Use a profile of the kind %s for a CA below %s.", pki.KindIntermediate, called(&by.row))
	}
	err := maySignBy(&by.row, p, ours)
	if err != nil {
		return request, err
	}
	if !by.row.ShortLived {
		return request, nil
	}
	now := e.opts.Clock()
	end := now.Add(shortLife)
	if !request.NotAfter.IsZero() && request.NotAfter.After(end) {
		return request, imprint.Errorf(imprint.CodeCertificateValidation, "certificate authority %s makes certificates of at most seven days", called(&by.row)).
			WithHint("Ask for a shorter validity.")
	}
	if request.NotAfter.IsZero() && p.End(now).After(end) {
		request.NotAfter = end
	}
	return request, nil
}

// withinOrder refuses one certificate more than the profile lets one authority sign.
func withinOrder(tx imprint.ReadTx, a *imprint.CertificateAuthority, p *pki.Profile) error {
	most := p.Config().MaxCertificates
	if most == 0 {
		return nil
	}
	uses, err := tx.ProfileUses(a.Tenant, a.ID, p.Name())
	if err != nil || uses < int64(most) {
		return err
	}
	return imprint.Errorf(imprint.CodeLimitExceeded, "certificate authority %s signed %d certificates by profile %s, as many as that lets one authority sign", called(a), uses, p.Name()).
		WithHint("Make an authority for the next order, imprint ca create, or raise maxCertificates in the profile.")
}

// sameHistory says whether certificates would name the same lists.
func sameHistory(a, b *imprint.CRLHistory) bool {
	return a.Base == b.Base && slices.Equal(a.Layouts, b.Layouts)
}

// certificateOf describes a CA's certificate: of an authority, where one has it, signed by
// another one, where that is here.
func certificateOf(tenant imprint.Tenant, cert *x509.Certificate, of, issuer imprint.AuthorityID) imprint.AuthorityCertificate {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return imprint.AuthorityCertificate{
		Tenant: tenant, ID: pki.CertificateID(cert.Raw), Authority: of, Issuer: issuer, Serial: pki.SerialHex(cert.SerialNumber), KeyHash: hex.EncodeToString(sum[:]),
	}
}

// requested gives what was issued for a token, when all of that request was the same. What
// doesn't count any more is given to nobody again.
func (e *Engine) requested(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, p *pki.Profile, request pki.Request) (Issued, bool, error) {
	var row imprint.CertificateAuthority
	var before imprint.Issuance
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		row, err = tx.Authority(tenant, id)
		if err != nil {
			return err
		}
		before, err = tx.IssuanceRequested(tenant, id, request.Token)
		return err
	})
	now := e.opts.Clock()
	late := request.TokenFor > 0 && now.Sub(before.At) > request.TokenFor
	if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && (before.CertificateID == "" || late) {
		return Issued{}, false, nil
	}
	if err != nil {
		return Issued{}, false, err
	}
	issued, err := pki.ParseIssued(before.Certificate)
	if err != nil {
		return Issued{}, false, err
	}
	own, comparable := issued.Certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	var wrong string
	switch {
	case !comparable || !own.Equal(request.PublicKey) || before.RequestHash != "" && before.RequestHash != request.Hash(p):
		wrong = "another request"
	case !before.RevokedAt.IsZero():
		wrong = "a certificate that was revoked at " + before.RevokedAt.UTC().Format(time.RFC3339)
	case issued.Certificate.NotAfter.Before(now):
		wrong = "a certificate that ended at " + issued.Certificate.NotAfter.UTC().Format(time.RFC3339)
	}
	if wrong != "" {
		return Issued{}, false, imprint.Errorf(imprint.CodeInvalidRequest, "the request token was used for %s", wrong).WithHint("Choose another token.")
	}
	return Issued{issued, row.Certificate + row.Chain}, true, nil
}

// IssuerOf gives the authority that issued a certificate; empty for the built-in device CA.
// Errors: CodeNotFound.
func (e *Engine) IssuerOf(ctx context.Context, tenant imprint.Tenant, id imprint.CertificateID) (imprint.AuthorityID, error) {
	var by imprint.AuthorityID
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := tx.IssuanceOfCertificate(tenant, id)
		by = found.Authority
		return err
	})
	return by, err
}

// Certificate gives what an authority issued, by serial number in hexadecimal.
func (e *Engine) Certificate(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, serial string) (imprint.Issuance, string, error) {
	var found imprint.Issuance
	var chain string
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		row, err := e.authority(tx, tenant, id)
		if err != nil {
			return err
		}
		chain = row.Certificate + row.Chain
		found, err = tx.IssuanceOf(tenant, id, NormalSerial(serial))
		return err
	})
	if err == nil && found.CertificateID != "" {
		issued, parseErr := pki.ParseIssued(found.Certificate)
		if parseErr != nil {
			return found, "", parseErr
		}
		if bytes.Equal(issued.Certificate.RawIssuer, issued.Certificate.RawSubject) {
			chain = "" // a root's own: nothing stands above it
		}
	}
	if err == nil && found.CertificateID == "" {
		err = imprint.Errorf(imprint.CodeNotFound, "serial number %s was never given to a certificate", found.Serial)
	}
	return found, chain, err
}

// NormalSerial gives a serial number as it is stored: from what openssl and AWS show, with
// colons, upper case, leading zeros or 0x.
func NormalSerial(text string) string {
	text = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(text), ":", ""))
	text = strings.TrimLeft(strings.TrimPrefix(text, "0x"), "0")
	if text == "" {
		return "0"
	}
	return text
}
