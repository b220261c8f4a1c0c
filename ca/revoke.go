package ca

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// Revoke takes a certificate's validity back, by its serial number. It can't be registered
// from then on, and where the registry has it, in whatever region of the account, it is
// REVOKED there: who is connected with it is off within a second. When it is an authority's
// own, that signs nothing more, and nothing below it does; RevokeBelow takes the certificates
// below it. A reason that is about the key takes every certificate that the authority has of
// that key; a former certificate that is revoked for another reason takes nothing else along.
// KEY_COMPROMISE takes every certificate of a device's key, too, and what came of those by
// renewal.
// Revoking again changes nothing, but a certificate that was revoked without a reason may get
// one, and any the reason that its key is in other hands. Errors: CodeNotFound,
// CodeInvalidRequest for a reason that isn't one.
func (e *Engine) Revoke(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, serial string, reason imprint.RevocationReason) (imprint.Issuance, error) {
	var done imprint.Issuance
	reason, err := checkReason(reason)
	if err != nil {
		return done, err
	}
	err = e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		found, err := tx.IssuanceOf(tenant, id, NormalSerial(serial))
		if err != nil {
			return err
		}
		if found.CertificateID == "" {
			return imprint.Errorf(imprint.CodeNotFound, "serial number %s was never given to a certificate", found.Serial)
		}
		done, err = e.takeIssued(tx, found, reason, reason.OfKey())
		return err
	})
	return done, err
}

func checkReason(reason imprint.RevocationReason) (imprint.RevocationReason, error) {
	if reason == "" {
		return imprint.ReasonUnspecified, nil
	}
	_, known := reason.Code()
	if !known {
		return "", imprint.Errorf(imprint.CodeInvalidRequest, "reason %q isn't one", imprint.Excerpt(string(reason))).
			WithHint("Reasons: UNSPECIFIED, KEY_COMPROMISE, CERTIFICATE_AUTHORITY_COMPROMISE, AFFILIATION_CHANGED, SUPERSEDED, CESSATION_OF_OPERATION, PRIVILEGE_WITHDRAWN, A_A_COMPROMISE.")
	}
	return reason, nil
}

// worse says whether a reason may stand in the place of the one before.
func worse(before, reason imprint.RevocationReason) bool {
	if before == "" || before == imprint.ReasonUnspecified {
		return reason != imprint.ReasonUnspecified
	}
	return reason.OfKey() && !before.OfKey()
}

// takeIssued marks an issuance, its rows in the registry and its authority. OfKey: all that
// has its key, too.
func (e *Engine) takeIssued(tx imprint.Tx, i imprint.Issuance, reason imprint.RevocationReason, ofKey bool) (imprint.Issuance, error) {
	i, err := e.markIssued(tx, i, reason, ofKey)
	// CERTIFICATE_AUTHORITY_COMPROMISE is about a CA's key: devices below keep theirs.
	if err != nil || !ofKey || i.CA || reason != imprint.ReasonKeyCompromise {
		return i, err
	}
	keyHash, err := keyHashOf(tx, i)
	if err != nil {
		return i, err
	}
	return i, e.takeLost(tx, i.Tenant, keyHash, i.CertificateID)
}

// markIssued marks an issuance that isn't marked so yet, its rows in the registry and its
// authority.
func (e *Engine) markIssued(tx imprint.Tx, i imprint.Issuance, reason imprint.RevocationReason, ofKey bool) (imprint.Issuance, error) {
	now := e.opts.Clock()
	first := i.RevokedAt.IsZero()
	if !first && !worse(i.Reason, reason) {
		return i, nil
	}
	if first {
		i.RevokedAt = now
	}
	i.Reason = reason
	err := tx.PutIssuance(i)
	if err == nil {
		err = listDue(tx, i.Tenant, i.Authority, i.Serial, now)
	}
	if err == nil {
		err = e.takeCA(tx, i.Tenant, i.CertificateID, reason, ofKey)
	}
	if err == nil {
		err = e.revokeRegistered(tx, i.Tenant, i.CertificateID)
	}
	return i, err
}

// takeCA makes a CA whose certificate is revoked sign nothing more and register nobody. A
// device's certificate isn't one: nothing happens.
func (e *Engine) takeCA(tx imprint.Tx, tenant imprint.Tenant, id imprint.CertificateID, reason imprint.RevocationReason, ofKey bool) error {
	err := e.closeRegistration(tx, tenant, id)
	if err != nil {
		return err
	}
	row, err := tx.AuthorityCertificate(tenant, id)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	err = e.markRevoked(tx, row, reason, ofKey)
	if err != nil || !ofKey {
		return err
	}
	same, err := tx.AuthorityCertificatesWithKey(tenant.Account, row.KeyHash)
	for _, other := range same {
		if err != nil {
			return err
		}
		if other.ID == id || other.Tenant != tenant {
			continue
		}
		err = e.closeRegistration(tx, tenant, other.ID)
		if err == nil {
			err = e.markRevoked(tx, other, reason, true)
		}
		if err == nil {
			err = e.takeTwin(tx, other, reason)
		}
	}
	return err
}

// takeTwin revokes another certificate of a key, where an authority here signed it, whether
// that was here or elsewhere.
func (e *Engine) takeTwin(tx imprint.Tx, c imprint.AuthorityCertificate, reason imprint.RevocationReason) error {
	if c.Issuer == "" {
		return nil
	}
	issued, err := tx.IssuanceOf(c.Tenant, c.Issuer, c.Serial)
	if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
		return err
	}
	if err == nil && issued.CertificateID == c.ID {
		_, err = e.takeIssued(tx, issued, reason, false)
		return err
	}
	if c.Issuer == c.Authority {
		return nil // a root's own, which it signed elsewhere: no list says that of a root
	}
	return e.takeShown(tx, c.Issuer, imprint.AdoptedRevocation{Tenant: c.Tenant, Authority: c.Issuer, Serial: c.Serial, CertificateID: c.ID, Reason: reason}, false)
}

// markRevoked marks the authority of a certificate: when that is its present one, or the
// reason is about its key.
func (e *Engine) markRevoked(tx imprint.Tx, c imprint.AuthorityCertificate, reason imprint.RevocationReason, ofKey bool) error {
	if c.Authority == "" {
		return nil
	}
	a, err := tx.Authority(c.Tenant, c.Authority)
	if err != nil || a.CertificateID != c.ID && !ofKey {
		return err
	}
	if !a.RevokedAt.IsZero() && !worse(a.RevocationReason, reason) {
		return nil
	}
	now := e.opts.Clock()
	if a.RevokedAt.IsZero() {
		a.RevokedAt = now
	}
	a.RevocationReason, a.ChangedAt = reason, now
	return tx.PutAuthority(a)
}

// closeRegistration keeps devices of a revoked CA from being registered.
func (e *Engine) closeRegistration(tx imprint.Tx, tenant imprint.Tenant, id imprint.CertificateID) error {
	registered, err := tx.CA(tenant, id)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	if err != nil || registered.Status == imprint.CAInactive {
		return err
	}
	registered.Status = imprint.CAInactive
	return tx.PutCA(registered.Changed(e.opts.Clock(), uuid.NewString()))
}

// revokeRegistered makes a device certificate REVOKED in the registry of the account, in
// whatever region it is there. Other accounts that registered it decide for themselves.
func (e *Engine) revokeRegistered(tx imprint.Tx, tenant imprint.Tenant, id imprint.CertificateID) error {
	all, err := tx.CertificateTenants(id)
	for _, device := range all {
		if err != nil {
			return err
		}
		if device.Tenant.Account == tenant.Account {
			err = e.revokeRow(tx, device)
		}
	}
	return err
}

// revokeRow makes one row REVOKED, if its status lets it.
func (e *Engine) revokeRow(tx imprint.Tx, device imprint.Certificate) error {
	if device.Status == imprint.CertificateRevoked || device.Status == imprint.CertificatePendingTransfer {
		return nil
	}
	device, err := device.ChangeStatus(imprint.CertificateRevoked, e.opts.Clock(), uuid.NewString())
	if err != nil {
		return err
	}
	return tx.PutCertificate(device)
}

// RevokeAuthority revokes an authority, whoever signed its certificate: one that was signed
// here stands on its issuer's CRL then, one of a CA elsewhere is revoked as far as this
// server goes. It signs nothing more, nothing below it does, and its devices can't be
// registered. Errors: CodeNotFound, CodeInvalidRequest for the reason, CodeAuthorityState when
// it has no certificate.
func (e *Engine) RevokeAuthority(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, reason imprint.RevocationReason) (imprint.CertificateAuthority, error) {
	var a imprint.CertificateAuthority
	reason, err := checkReason(reason)
	if err != nil {
		return a, err
	}
	err = e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		found, err := e.authority(tx, tenant, id)
		if err != nil {
			return err
		}
		err = e.takeAuthority(tx, &found, reason, reason.OfKey())
		if err != nil {
			return err
		}
		a, err = tx.Authority(tenant, id)
		return err
	})
	return a, err
}

func (e *Engine) takeAuthority(tx imprint.Tx, a *imprint.CertificateAuthority, reason imprint.RevocationReason, ofKey bool) error {
	if a.Certificate == "" {
		return imprint.Errorf(imprint.CodeAuthorityState, "certificate authority %s has no certificate to revoke", called(a)).WithHint("Delete it: imprint ca delete")
	}
	row, err := tx.AuthorityCertificate(a.Tenant, a.CertificateID)
	if err != nil {
		return err
	}
	if row.Issuer != "" {
		issued, err := tx.IssuanceOf(a.Tenant, row.Issuer, row.Serial)
		if err == nil && issued.CertificateID == a.CertificateID {
			_, err = e.takeIssued(tx, issued, reason, ofKey)
			return err
		}
		if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
			return err
		}
	}
	if row.Issuer != "" && row.Issuer != a.ID {
		return e.takeShown(tx, row.Issuer, imprint.AdoptedRevocation{
			Tenant: a.Tenant, Authority: row.Issuer, Serial: row.Serial, CertificateID: a.CertificateID, NotAfter: a.NotAfter, Reason: reason,
		}, ofKey)
	}
	err = e.takeCA(tx, a.Tenant, a.CertificateID, reason, ofKey)
	if err != nil {
		return err
	}
	return e.revokeRegistered(tx, a.Tenant, a.CertificateID)
}

// takeShown marks a certificate of which there is no issuance.
func (e *Engine) takeShown(tx imprint.Tx, issuer imprint.AuthorityID, shown imprint.AdoptedRevocation, ofKey bool) error {
	now := e.opts.Clock()
	before, err := tx.AdoptedRevocation(shown.Tenant, issuer, shown.Serial)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		shown.RevokedAt = now
	case err != nil:
		return err
	default:
		shown.RevokedAt = before.RevokedAt
		if shown.KeyHash == "" {
			shown.KeyHash = before.KeyHash
		}
		if !worse(before.Reason, shown.Reason) {
			shown.Reason = before.Reason
		}
	}
	err = tx.PutAdoptedRevocation(shown)
	if err == nil {
		err = listDue(tx, shown.Tenant, issuer, shown.Serial, now)
	}
	if err == nil {
		err = e.takeCA(tx, shown.Tenant, shown.CertificateID, shown.Reason, ofKey)
	}
	if err == nil {
		err = e.revokeRegistered(tx, shown.Tenant, shown.CertificateID)
	}
	return err
}

// RevokeCertificate is Revoke by the certificate itself: its issuer is looked for among the
// tenant's authorities. One that an authority signed elsewhere, before it came here, is
// revoked as well: that the authority signed it is seen. Errors: CodeNotFound when none of
// them did.
func (e *Engine) RevokeCertificate(ctx context.Context, tenant imprint.Tenant, der []byte, reason imprint.RevocationReason) (imprint.Issuance, error) {
	shown, err := pki.ParseIssued(der)
	if err != nil {
		return imprint.Issuance{}, err
	}
	reason, err = checkReason(reason)
	if err != nil {
		return imprint.Issuance{}, err
	}
	var done imprint.Issuance
	err = e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		found := false
		err := each(tx, tenant, func(a *imprint.CertificateAuthority) error {
			if found {
				return nil
			}
			var err error
			done, found, err = e.takeCertificate(tx, a, shown, reason)
			return err
		})
		if err == nil && !found {
			done, found, err = e.takeForeignCA(tx, tenant, shown, reason)
		}
		if err == nil && !found {
			err = issuedByNobody(shown.ID)
		}
		return err
	})
	return done, err
}

// takeCertificate revokes a certificate if an authority signed it: by the record of its
// issuance, or where there is none, by its signature.
func (e *Engine) takeCertificate(tx imprint.Tx, a *imprint.CertificateAuthority, shown *pki.Issued, reason imprint.RevocationReason) (imprint.Issuance, bool, error) {
	cert := shown.Certificate
	serial := pki.SerialHex(cert.SerialNumber)
	by, err := issued(tx, a, shown)
	if !by || err != nil {
		return imprint.Issuance{}, false, err
	}
	record, err := tx.IssuanceOf(a.Tenant, a.ID, serial)
	if err == nil && record.CertificateID == shown.ID {
		record, err = e.takeIssued(tx, record, reason, reason.OfKey())
		return record, true, err
	}
	if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
		return record, false, err
	}
	if a.CertificateID == shown.ID { // a root's own, which it signed elsewhere
		return e.takeForeignCA(tx, a.Tenant, shown, reason)
	}
	keyHash, err := pki.KeyHash(cert.PublicKey)
	if err != nil {
		return record, false, err
	}
	err = e.takeShown(tx, a.ID, imprint.AdoptedRevocation{
		Tenant: a.Tenant, Authority: a.ID, Serial: serial, CertificateID: shown.ID, NotAfter: cert.NotAfter, Reason: reason, KeyHash: keyHash,
	}, reason.OfKey())
	if err == nil && reason == imprint.ReasonKeyCompromise {
		// What was issued here for its key, and what came of that.
		err = e.takeLost(tx, a.Tenant, keyHash, "")
	}
	if err != nil {
		return record, false, err
	}
	taken, err := tx.AdoptedRevocation(a.Tenant, a.ID, serial)
	return asIssuance(a.Tenant, a.ID, cert, taken.RevokedAt, taken.Reason), true, err
}

// takeForeignCA revokes an authority that a CA elsewhere signed, by its certificate.
func (e *Engine) takeForeignCA(tx imprint.Tx, tenant imprint.Tenant, shown *pki.Issued, reason imprint.RevocationReason) (imprint.Issuance, bool, error) {
	a, err := tx.AuthorityOf(tenant, shown.ID)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return imprint.Issuance{}, false, nil
	}
	if err == nil {
		err = e.takeCA(tx, tenant, shown.ID, reason, reason.OfKey())
	}
	if err == nil {
		err = e.revokeRegistered(tx, tenant, shown.ID)
	}
	if err == nil {
		a, err = tx.Authority(tenant, a.ID)
	}
	return asIssuance(tenant, "", shown.Certificate, a.RevokedAt, a.RevocationReason), true, err
}

// asIssuance describes a certificate that has no record of its issuance as if it had one.
func asIssuance(tenant imprint.Tenant, issuer imprint.AuthorityID, cert *x509.Certificate, at time.Time, reason imprint.RevocationReason) imprint.Issuance {
	return imprint.Issuance{
		Tenant: tenant, Authority: issuer, Serial: pki.SerialHex(cert.SerialNumber), Subject: pki.SubjectText(cert.RawSubject), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		CertificateID: pki.CertificateID(cert.Raw), Certificate: cert.Raw, RevokedAt: at, Reason: reason,
	}
}
