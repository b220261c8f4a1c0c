package renewal

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// maxUnused is how many renewals of one certificate may be there that never connected. One
// more, and the oldest of them is taken back: its answer was lost, or the device would have
// come with it.
const maxUnused = 4

// maxThings bounds the things of one certificate that are looked at.
const maxThings = 10_000

// Attach puts a new certificate in the place of an old one, in the transaction that makes it
// a certificate: registered ACTIVE, with the old one's things and policies, if the old one
// is registered. Signer is the certificate of the CA that signed it. Errors:
// CodeCertificateState when the old one isn't ACTIVE.
func (e *Engine) Attach(tx imprint.Tx, tenant imprint.Tenant, old imprint.CertificateID, issued *pki.Issued, signer imprint.CertificateID) error {
	now := e.opts.Clock()
	registered, err := tx.Certificate(tenant, old)
	switch {
	case err == nil:
		err = e.register(tx, registered, issued, signer)
		if err != nil {
			return err
		}
	case imprint.CodeOf(err) != imprint.CodeNotFound:
		return err
	}
	err = e.takeBack(tx, tenant, old)
	if err != nil {
		return err
	}
	// Counted by who reads the store: this may run again.
	return tx.PutRenewal(imprint.Renewal{Tenant: tenant, Certificate: issued.ID, Renews: old, State: imprint.RenewalPending, CreatedAt: now})
}

// register makes the new certificate's row beside the old one's.
func (e *Engine) register(tx imprint.Tx, old imprint.Certificate, issued *pki.Issued, signer imprint.CertificateID) error {
	if old.Status != imprint.CertificateActive {
		return imprint.Errorf(imprint.CodeCertificateState, "certificate %s is %s: it can't be renewed", old.ID, old.Status).
			WithHint("aws iot update-certificate --new-status ACTIVE --certificate-id %s", old.ID)
	}
	_, err := tx.CA(old.Tenant, signer)
	switch imprint.CodeOf(err) {
	case "":
	case imprint.CodeNotFound:
		signer = "" // the registry knows only CAs that are registered
	default:
		return err
	}
	now, cert := e.opts.Clock(), issued.Certificate
	err = tx.PutCertificate(imprint.Certificate{
		Tenant: old.Tenant, ID: issued.ID, PEM: issued.PEM, Status: imprint.CertificateActive, Mode: old.Mode, CAID: signer, OwnedBy: old.OwnedBy,
		Serial: pki.SerialHex(cert.SerialNumber), Subject: pki.SubjectText(cert.RawSubject), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		CreatedAt: now, ModifiedAt: now, CustomerVersion: 1, GenerationID: uuid.NewString(),
	})
	if err != nil {
		return fmt.Errorf("couldn't register certificate %s: %w", issued.ID, err)
	}
	things, more, err := tx.CertificateThings(old.Tenant, old.ID, imprint.Page{Limit: maxThings, Ascending: true})
	if err != nil {
		return fmt.Errorf("couldn't read the things of certificate %s: %w", old.ID, err)
	}
	if more != "" {
		return imprint.Errorf(imprint.CodeLimitExceeded, "certificate %s has more than %d things", old.ID, maxThings)
	}
	for _, attachment := range things {
		attachment.Certificate = issued.ID
		err = tx.PutThingAttachment(attachment)
		if err != nil {
			return fmt.Errorf("couldn't attach thing %s: %w", attachment.Thing, err)
		}
	}
	policies, _, err := tx.TargetPolicies(old.Tenant, old.ARN(), imprint.Page{Limit: imprint.MaxPoliciesPerCertificate + 1, Ascending: true})
	if err != nil {
		return fmt.Errorf("couldn't read the policies of certificate %s: %w", old.ID, err)
	}
	for _, attachment := range policies {
		attachment.Target = old.Tenant.CertificateARN(issued.ID)
		err = tx.PutPolicyAttachment(attachment)
		if err != nil {
			return fmt.Errorf("couldn't attach policy %s: %w", attachment.Policy, err)
		}
	}
	return nil
}

// Along gives the registered certificates that are to take the place of one, by whatever
// number of renewals: what is attached to that or detached from it meanwhile concerns the
// device, and goes along in the same transaction. None: it isn't ACTIVE, so it serves the
// device no more, and who takes it down for good touches nothing else.
func Along(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID) ([]imprint.CertificateID, error) {
	old, err := tx.Certificate(tenant, id)
	if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && old.Status != imprint.CertificateActive {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var along []imprint.CertificateID
	seen := map[imprint.CertificateID]bool{id: true}
	for queue := []imprint.CertificateID{id}; len(queue) > 0 && len(along) < maxFamily; queue = queue[1:] {
		made, err := tx.RenewalsOf(tenant, queue[0])
		if err != nil {
			return nil, fmt.Errorf("couldn't read what renewed certificate %s: %w", queue[0], err)
		}
		for _, r := range made {
			if seen[r.Certificate] || r.State == imprint.RenewalAbandoned || queue[0] == id && !r.Open() {
				continue
			}
			seen[r.Certificate] = true
			queue = append(queue, r.Certificate)
			_, err = tx.Certificate(tenant, r.Certificate)
			switch imprint.CodeOf(err) {
			case "":
				along = append(along, r.Certificate)
			case imprint.CodeNotFound: // it was deleted
			default:
				return nil, err
			}
		}
	}
	return along, nil
}

// takeBack makes room for one more renewal.
func (e *Engine) takeBack(tx imprint.Tx, tenant imprint.Tenant, old imprint.CertificateID) error {
	all, err := tx.RenewalsOf(tenant, old)
	if err != nil {
		return err
	}
	unused := 0
	for _, r := range all {
		if r.State == imprint.RenewalPending && r.Reason == "" {
			unused++
		}
	}
	for _, r := range all {
		if unused < maxUnused {
			return nil
		}
		if r.State != imprint.RenewalPending || r.Reason != "" {
			continue
		}
		unused--
		_, err = e.deactivate(tx, tenant, r.Certificate)
		if err != nil {
			return err
		}
		r.State, r.EndedAt, r.Reason = imprint.RenewalAbandoned, e.opts.Clock(), "it was never used, and the device asked again and again"
		err = tx.PutRenewal(r)
		if err != nil {
			return err
		}
	}
	return nil
}

// deactivate makes a certificate INACTIVE that is ACTIVE, and says whether it was.
func (e *Engine) deactivate(tx imprint.Tx, tenant imprint.Tenant, id imprint.CertificateID) (bool, error) {
	cert, err := tx.Certificate(tenant, id)
	if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && cert.Status != imprint.CertificateActive {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	cert, err = cert.ChangeStatus(imprint.CertificateInactive, e.opts.Clock(), uuid.NewString())
	if err != nil {
		return false, err
	}
	return true, tx.PutCertificate(cert)
}
