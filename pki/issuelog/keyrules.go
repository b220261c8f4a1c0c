package issuelog

import (
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
)

// maxWithKey bounds the certificates of one key that are looked through.
const maxWithKey = 100

// allowed says whether an issuance may have its key. It is asked for the intent, so that no
// CA key signs, and again in the transaction that makes the certificate one: of two requests
// that come at once with one key, one gets it. An intent without a certificate is no reason
// to refuse the next attempt.
//
// Whatever the profile says, a key that was lost gets nothing, and the key of a CA and that
// of a device are never one.
func allowed(tx imprint.ReadTx, i imprint.Issuance) error {
	err := renewable(tx, i)
	if err != nil || i.KeyHash == "" {
		return err
	}
	// A CA that was made elsewhere has no issuance for its key.
	err = lostAuthority(tx, i)
	if err != nil {
		return err
	}
	// Nearly every key is new: one look tells what the five of the checks would.
	issued, err := tx.KeyIssued(i.Tenant, i.KeyHash)
	if err != nil {
		return fmt.Errorf("couldn't look for the key's certificates: %w", err)
	}
	if !issued {
		return ofAuthority(tx, i)
	}
	for _, check := range []func(imprint.ReadTx, imprint.Issuance) error{lost, otherKind, reused} {
		err = check(tx, i)
		if err != nil {
			return err
		}
	}
	return nil
}

// lost refuses a key whose private half others may have, in whatever region of the account that
// was said. CERTIFICATE_AUTHORITY_COMPROMISE
// says so of a CA's own key alone: a device below that CA keeps its key.
func lost(tx imprint.ReadTx, i imprint.Issuance) error {
	found, err := tx.LostKey(i.Tenant.Account, i.KeyHash)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		return nil
	case err != nil:
		return fmt.Errorf("couldn't look for revocations of the key: %w", err)
	case found.CertificateID == "": // it stood on a list
		return keyLost("number "+found.Serial, found.RevokedAt, found.Reason)
	}
	return keyLost(string(found.CertificateID), found.RevokedAt, found.Reason)
}

// lostAuthority refuses the key of a CA that was lost, also of one that was made elsewhere,
// or whose issuance doesn't name its key: its authority was revoked, or its certificate stands
// on the list that its issuer brought along.
func lostAuthority(tx imprint.ReadTx, i imprint.Issuance) error {
	failed := func(err error) error { return fmt.Errorf("couldn't look for the key's CAs: %w", err) }
	certs, err := tx.AuthorityCertificatesWithKey(i.Tenant.Account, i.KeyHash)
	if err != nil {
		return failed(err)
	}
	for _, c := range certs {
		if c.Authority != "" {
			owner, err := tx.Authority(c.Tenant, c.Authority)
			if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
				return failed(err)
			}
			if !owner.RevokedAt.IsZero() && owner.RevocationReason.OfKey() {
				return keyLost(string(c.ID), owner.RevokedAt, owner.RevocationReason)
			}
		}
		if c.Issuer == "" {
			continue
		}
		listed, err := tx.AdoptedRevocation(c.Tenant, c.Issuer, c.Serial)
		if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
			return failed(err)
		}
		if (listed.CertificateID == "" || listed.CertificateID == c.ID) && listed.Reason.OfKey() {
			return keyLost(string(c.ID), listed.RevokedAt, listed.Reason)
		}
	}
	return nil
}

func keyLost(certificate string, at time.Time, reason imprint.RevocationReason) error {
	return imprint.Errorf(imprint.CodeCertificateWeak, "the request's key is that of certificate %s, which was revoked at %s for %s", certificate, at.UTC().Format(time.RFC3339), reason).
		WithHint("Make a new key: whoever has the old one would have the new certificate, too.")
}

// otherKind keeps the keys of CAs and of devices apart: a CA's request is public, and what
// its key signs must never count as a device's word.
func otherKind(tx imprint.ReadTx, i imprint.Issuance) error {
	found, err := with(tx, i, imprint.KeyQuery{KeyHash: i.KeyHash, CA: !i.CA}, 1)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		other := found[0]
		whose, asked := "a CA's certificate", "a device"
		if i.CA {
			whose, asked = "a device's certificate", "a CA"
		}
		return imprint.Errorf(imprint.CodeKeyReused, "the request's key is that of %s, %s with serial number %s, subject %s", whose, other.CertificateID, other.Serial, other.Subject).
			WithHint("Make a key for %s alone.", asked)
	}
	return ofAuthority(tx, i)
}

// ofAuthority refuses a device the key of a CA, also of one that has no certificate yet.
func ofAuthority(tx imprint.ReadTx, i imprint.Issuance) error {
	if i.CA {
		return nil
	}
	owner, err := tx.AuthorityOfKey(i.Tenant, i.KeyHash)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("couldn't look for the key's authority: %w", err)
	}
	return imprint.Errorf(imprint.CodeKeyReused, "the request's key is that of certificate authority %s", owner.ID).WithHint("Make a key for the device.")
}

// reused says which certificate has the key already that an issuance is for.
func reused(tx imprint.ReadTx, i imprint.Issuance) error {
	if i.KeyReusable {
		return nil
	}
	others, err := with(tx, i, imprint.KeyQuery{KeyHash: i.KeyHash, CA: i.CA}, maxWithKey)
	if err != nil {
		return err
	}
	// A key that renewed its certificate before has those, too, whose places were taken.
	renews := make(map[imprint.CertificateID]imprint.CertificateID, len(others))
	for _, other := range others {
		renews[other.CertificateID] = other.Renews
	}
	replaced := map[imprint.CertificateID]bool{}
	for at := i.Renews; at != "" && !replaced[at]; at = renews[at] {
		replaced[at] = true
	}
	for _, other := range others {
		if other.ID == i.ID || replaced[other.CertificateID] && len(others) < maxWithKey {
			continue
		}
		return imprint.Errorf(imprint.CodeKeyReused, "the request's key is that of certificate %s with serial number %s, subject %s", other.CertificateID, other.Serial, other.Subject).
			WithHint("Make a new key on the device, or renew that certificate: imprint ca issue --renews %s", other.CertificateID)
	}
	return nil
}

func with(tx imprint.ReadTx, i imprint.Issuance, q imprint.KeyQuery, limit int) ([]imprint.Issuance, error) {
	found, err := tx.IssuancesWithKey(i.Tenant, q, limit)
	if err != nil {
		return nil, fmt.Errorf("couldn't look for the key's certificates: %w", err)
	}
	return found, nil
}

// renewable refuses to put a certificate in the place of one that isn't there, isn't the
// same device's, or doesn't count any more: a renewal must give nobody what he hasn't got.
func renewable(tx imprint.ReadTx, i imprint.Issuance) error {
	if i.Renews == "" {
		return nil
	}
	refused := func(format string, args ...any) error {
		return imprint.Errorf(imprint.CodeCertificateValidation, "certificate %s can't be renewed: "+format, append([]any{imprint.Excerpt(string(i.Renews))}, args...)...).
			WithHint("Renew the certificate that the device has now, or make a new key and ask for a new certificate.")
	}
	old, err := tx.IssuanceOfCertificate(i.Tenant, i.Renews)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		return refused("no certificate authority of this account and region issued it")
	case err != nil:
		return fmt.Errorf("couldn't look for the certificate to be renewed: %w", err)
	case !old.RevokedAt.IsZero():
		return refused("it was revoked at %s", old.RevokedAt.UTC().Format(time.RFC3339))
	case !old.NotAfter.IsZero() && old.NotAfter.Before(i.At):
		return refused("it ended at %s", old.NotAfter.UTC().Format(time.RFC3339))
	case old.Subject != i.Subject:
		return refused("its subject is %s, that of the request %s", old.Subject, i.Subject)
	case old.CA != i.CA:
		return refused("one of both is a CA's certificate, the other isn't")
	}
	_, err = tx.ClaimGuard(i.Tenant, i.Renews)
	if err == nil {
		return refused("it is a claim with a guard, whose bounds a new certificate wouldn't have")
	}
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		return fmt.Errorf("couldn't look for the guard of the certificate to be renewed: %w", err)
	}
	registered, err := tx.Certificate(i.Tenant, i.Renews)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("couldn't look for the certificate to be renewed: %w", err)
	}
	if registered.Status != imprint.CertificateActive {
		return refused("it is %s in the registry", registered.Status)
	}
	return nil
}
