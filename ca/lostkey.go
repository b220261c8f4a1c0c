package ca

import (
	"context"
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// keyHashOf gives the key of an issuance, also of one whose record doesn't name it: versions
// of before did that for some profiles alone.
func keyHashOf(tx imprint.ReadTx, i imprint.Issuance) (string, error) {
	if i.KeyHash != "" {
		return i.KeyHash, nil
	}
	der := i.Certificate
	if len(der) == 0 { // the built-in CA's: the registry has it, unless it was deleted
		registered, err := tx.Certificate(i.Tenant, i.CertificateID)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		cert, err := pki.ParseCertificatePEM(registered.PEM)
		if err != nil {
			return "", fmt.Errorf("couldn't read certificate %s of the registry: %w", i.CertificateID, err)
		}
		return pki.KeyHash(cert.PublicKey)
	}
	made, err := pki.ParseIssued(der)
	if err != nil {
		return "", fmt.Errorf("couldn't read certificate %s of the record: %w", i.CertificateID, err)
	}
	return pki.KeyHash(made.Certificate.PublicKey)
}

// NameKeys names the keys of what was issued by versions that named those of some profiles
// alone, so that one that is lost, or used again, is known. It may take a while where much was issued,
// and is done once: what has a name isn't looked at again. What can't be read is told and left.
func (e *Engine) NameKeys(ctx context.Context) error {
	named, after := 0, ""
	for more := true; more; {
		var page []string
		err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
			without, err := tx.IssuancesWithoutKey(after, lostPage)
			page = nil
			for _, i := range without {
				page = append(page, i.ID)
			}
			return err
		})
		if err == nil && len(page) > 0 {
			more, after = len(page) == lostPage, page[len(page)-1]
			var done int
			done, err = e.nameKeys(ctx, page)
			named += done
		} else {
			more = false
		}
		if err != nil {
			return fmt.Errorf("couldn't name the keys of what was issued: %w", err)
		}
	}
	if named > 0 {
		e.opts.Logger.Info("the keys of certificates that an earlier version issued are known now", "certificates", named)
	}
	return nil
}

func (e *Engine) nameKeys(ctx context.Context, issuances []string) (int, error) {
	named := 0
	err := e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		named = 0
		for _, id := range issuances {
			i, err := tx.Issuance(id)
			if err != nil {
				return err
			}
			i.KeyHash, err = keyHashOf(tx, i)
			if err != nil {
				e.opts.Logger.Warn("couldn't find out the key of a certificate", "issuance", id, "error", err)
				continue
			}
			if i.KeyHash == "" {
				continue // its certificate is gone
			}
			err = tx.PutIssuance(i)
			if err != nil {
				return err
			}
			named++
		}
		return nil
	})
	return named, err
}

// lostPage is how many issuances are read at once.
const lostPage = 100

// takeLost revokes what a lost key reaches, from a device's certificate of that key. Of:
// empty, it isn't one that was issued here.
func (e *Engine) takeLost(tx imprint.Tx, tenant imprint.Tenant, keyHash string, of imprint.CertificateID) error {
	return reach(tx, tenant, keyHash, of, func(i imprint.Issuance, reason imprint.RevocationReason) error {
		_, err := e.markIssued(tx, i, reason, false)
		if err != nil {
			return fmt.Errorf("couldn't revoke certificate %s, which the lost key reaches, too: %w", i.CertificateID, err)
		}
		return nil
	})
}

// reach tells of all that a lost key reaches, and for which reason it is taken: each
// device's certificate of the key, whichever authority of the account and region issued it,
// because who renewed with his key, or got several certificates for it, could go on with the
// others; and what came of these by renewal, whoever's key that has: who had the lost one
// could renew, and his renewals look like the device's. The new keys may be the device's
// own: nothing is said against them.
func reach(tx imprint.ReadTx, tenant imprint.Tenant, keyHash string, of imprint.CertificateID, tell func(imprint.Issuance, imprint.RevocationReason) error) error {
	var reached []imprint.CertificateID
	if of != "" {
		reached = append(reached, of)
	}
	q := imprint.KeyQuery{KeyHash: keyHash}
	for more := true; more; {
		page, err := tx.IssuancesWithKey(tenant, q, lostPage)
		if err != nil {
			return fmt.Errorf("couldn't look for other certificates of the key: %w", err)
		}
		for _, twin := range page {
			err = tell(twin, imprint.ReasonKeyCompromise)
			if err != nil {
				return err
			}
			reached = append(reached, twin.CertificateID)
			// As it was read: with its new reason it comes once more, and nothing is left to do.
			q.AfterReason, q.AfterID = twin.Reason, twin.ID
		}
		more = len(page) == lostPage
	}
	seen := map[imprint.CertificateID]bool{}
	for ; len(reached) > 0; reached = reached[1:] {
		if seen[reached[0]] {
			continue
		}
		seen[reached[0]] = true
		renewed, err := renewedFrom(tx, tenant, reached[0], tell)
		if err != nil {
			return err
		}
		reached = append(reached, renewed...)
	}
	return nil
}

// renewedFrom tells of what renewed a certificate, and gives that.
func renewedFrom(tx imprint.ReadTx, tenant imprint.Tenant, old imprint.CertificateID, tell func(imprint.Issuance, imprint.RevocationReason) error) ([]imprint.CertificateID, error) {
	var renewed []imprint.CertificateID
	after := ""
	for {
		page, err := tx.IssuancesRenewing(tenant, old, after, lostPage)
		if err != nil {
			return nil, fmt.Errorf("couldn't look for what renewed certificate %s: %w", old, err)
		}
		for _, made := range page {
			err = tell(made, imprint.ReasonPrivilegeWithdrawn)
			if err != nil {
				return nil, err
			}
			renewed = append(renewed, made.CertificateID)
			after = made.ID
		}
		if len(page) < lostPage {
			return renewed, nil
		}
	}
}
