package ca

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// Revoke takes a certificate's validity back, by its serial number. When the registry has
// it, it is REVOKED there, too: who is connected with it is off within a second. When it
// is an authority's, that signs nothing more, and nothing below it does; RevokeBelow takes
// the certificates below it. Revoking again changes nothing, but a certificate that was
// revoked without a reason may get one. Errors: CodeNotFound, CodeInvalidRequest for a
// reason that isn't one.
func (e *Engine) Revoke(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, serial string, reason imprint.RevocationReason) (imprint.Issuance, error) {
	var done imprint.Issuance
	if reason == "" {
		reason = imprint.ReasonUnspecified
	}
	_, known := reason.Code()
	if !known {
		return done, imprint.Errorf(imprint.CodeInvalidRequest, "reason %q isn't one", imprint.Excerpt(string(reason))).
			WithHint("Reasons: UNSPECIFIED, KEY_COMPROMISE, CERTIFICATE_AUTHORITY_COMPROMISE, AFFILIATION_CHANGED, SUPERSEDED, CESSATION_OF_OPERATION, PRIVILEGE_WITHDRAWN, A_A_COMPROMISE.")
	}
	now := e.opts.Clock()
	err := e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		found, err := tx.IssuanceOf(tenant, id, NormalSerial(serial))
		if err != nil {
			return err
		}
		if found.CertificateID == "" {
			return imprint.Errorf(imprint.CodeNotFound, "serial number %s was never given to a certificate", found.Serial)
		}
		done, err = revoke(tx, found, reason, now)
		return err
	})
	return done, err
}

// revoke marks an issuance, its row in the registry and its authority.
func revoke(tx imprint.Tx, i imprint.Issuance, reason imprint.RevocationReason, now time.Time) (imprint.Issuance, error) {
	first := i.RevokedAt.IsZero()
	if !first && i.Reason != imprint.ReasonUnspecified {
		return i, nil
	}
	if first {
		i.RevokedAt = now
	}
	i.Reason = reason
	err := tx.PutIssuance(i)
	if err != nil {
		return i, err
	}
	err = listDue(tx, &i, now)
	if err != nil {
		return i, err
	}
	below, err := tx.AuthorityOf(i.Tenant, i.CertificateID)
	switch {
	case err == nil:
		below.RevokedAt, below.RevocationReason, below.ChangedAt = i.RevokedAt, reason, now
		err = tx.PutAuthority(below)
		if err != nil {
			return i, err
		}
		err = closeRegistration(tx, i.Tenant, i.CertificateID, now)
		if err != nil {
			return i, err
		}
	case imprint.CodeOf(err) != imprint.CodeNotFound:
		return i, err
	}
	return i, revokeRegistered(tx, i.Tenant, i.CertificateID, now)
}

// closeRegistration keeps devices of a revoked CA from being registered.
func closeRegistration(tx imprint.Tx, tenant imprint.Tenant, id imprint.CertificateID, now time.Time) error {
	registered, err := tx.CA(tenant, id)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	registered.Status = imprint.CAInactive
	return tx.PutCA(registered.Changed(now, uuid.NewString()))
}

// revokeRegistered makes a device certificate REVOKED in the registry, if it is there and
// its status lets it.
func revokeRegistered(tx imprint.Tx, tenant imprint.Tenant, id imprint.CertificateID, now time.Time) error {
	device, err := tx.Certificate(tenant, id)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if device.Status == imprint.CertificateRevoked || device.Status == imprint.CertificatePendingTransfer {
		return nil
	}
	device, err = device.ChangeStatus(imprint.CertificateRevoked, now, uuid.NewString())
	if err != nil {
		return err
	}
	return tx.PutCertificate(device)
}

// belowPage is how many certificates one transaction of RevokeBelow takes.
const belowPage = 200

// RevokeBelow revokes in the registry all that a revoked authority issued, and all that
// was registered because it had signed: page by page, so that others are served between.
// It may be called again after a crash, and gives how many certificates it changed. Those
// of other authorities are left alone. Errors: CodeAuthorityState when the authority isn't
// revoked.
func (e *Engine) RevokeBelow(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID) (int, error) {
	a, err := e.Authority(ctx, tenant, id)
	if err != nil {
		return 0, err
	}
	if a.RevokedAt.IsZero() {
		return 0, imprint.Errorf(imprint.CodeAuthorityState, "certificate authority %s isn't revoked", called(&a)).WithHint("Revoke its certificate first: imprint ca revoke")
	}
	issued, err := e.everyPage(ctx, func(tx imprint.Tx, p imprint.Page, now time.Time) (int, string, error) {
		all, next, err := tx.IssuancesBy(tenant, id, p)
		changed := 0
		for _, i := range all {
			if err != nil {
				break
			}
			if i.CertificateID != "" && i.RevokedAt.IsZero() && i.CertificateID != a.CertificateID {
				_, err = revoke(tx, i, imprint.ReasonCACompromise, now)
				changed++
			}
		}
		return changed, next, err
	})
	if err != nil {
		return issued, err
	}
	registered, err := e.everyPage(ctx, func(tx imprint.Tx, p imprint.Page, now time.Time) (int, string, error) {
		all, next, err := tx.Certificates(tenant, a.CertificateID, p)
		changed := 0
		for _, c := range all {
			if err != nil {
				break
			}
			if c.Status != imprint.CertificateRevoked {
				err = revokeRegistered(tx, tenant, c.ID, now)
				changed++
			}
		}
		return changed, next, err
	})
	return issued + registered, err
}

func (e *Engine) everyPage(ctx context.Context, fn func(imprint.Tx, imprint.Page, time.Time) (int, string, error)) (int, error) {
	total, cursor := 0, ""
	for {
		changed, next := 0, ""
		err := e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
			var err error
			changed, next, err = fn(tx, imprint.Page{Limit: belowPage, Cursor: cursor, Ascending: true}, e.opts.Clock())
			return err
		})
		if err != nil {
			return total, err
		}
		total += changed
		if next == "" {
			return total, nil
		}
		cursor = next
	}
}

// RevokeCertificate is Revoke by the certificate alone: its issuer is looked for among the
// tenant's authorities.
func (e *Engine) RevokeCertificate(ctx context.Context, tenant imprint.Tenant, der []byte, reason imprint.RevocationReason) (imprint.Issuance, error) {
	issued, err := pki.ParseIssued(der)
	if err != nil {
		return imprint.Issuance{}, err
	}
	cursor := ""
	for {
		var all []imprint.CertificateAuthority
		err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
			var err error
			all, cursor, err = tx.Authorities(tenant, imprint.Page{Limit: 100, Cursor: cursor, Ascending: true})
			return err
		})
		if err != nil {
			return imprint.Issuance{}, err
		}
		for _, a := range all {
			if pki.SubjectText(a.Subject) != pki.SubjectText(issued.Certificate.RawIssuer) {
				continue
			}
			done, err := e.Revoke(ctx, tenant, a.ID, pki.SerialHex(issued.Certificate.SerialNumber), reason)
			if imprint.CodeOf(err) != imprint.CodeNotFound {
				return done, err
			}
		}
		if cursor == "" {
			return imprint.Issuance{}, imprint.Errorf(imprint.CodeNotFound, "no certificate authority of this account and region issued the certificate %s", issued.ID)
		}
	}
}
