package ca

import (
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

// withKeyPage is how many issuances of one key are read at once.
const withKeyPage = 100

// takeDevicesWithKey revokes each device's certificate of a key that others have, whichever
// authority of the account and region issued it: who renewed with his key, or got several
// certificates for it, could go on with the others.
func (e *Engine) takeDevicesWithKey(tx imprint.Tx, tenant imprint.Tenant, keyHash string) error {
	q := imprint.KeyQuery{KeyHash: keyHash}
	for {
		page, err := tx.IssuancesWithKey(tenant, q, withKeyPage)
		if err != nil {
			return fmt.Errorf("couldn't look for other certificates of the key: %w", err)
		}
		for _, twin := range page {
			_, err = e.markIssued(tx, twin, imprint.ReasonKeyCompromise, false)
			if err != nil {
				return fmt.Errorf("couldn't revoke certificate %s, which has the key, too: %w", twin.CertificateID, err)
			}
			// As it was read: with its new reason it comes once more, and nothing is left to do.
			q.AfterReason, q.AfterID = twin.Reason, twin.ID
		}
		if len(page) < withKeyPage {
			return nil
		}
	}
}

// takeShownKey revokes what was issued here for the key of a device's certificate that was
// made elsewhere.
func (e *Engine) takeShownKey(tx imprint.Tx, tenant imprint.Tenant, shown *pki.Issued) error {
	keyHash, err := pki.KeyHash(shown.Certificate.PublicKey)
	if err != nil {
		return err
	}
	return e.takeDevicesWithKey(tx, tenant, keyHash)
}
