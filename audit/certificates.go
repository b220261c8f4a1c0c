package audit

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// maxRelated bounds the resources that a finding names beside its own.
const maxRelated = 10

func deviceCertificate(id imprint.CertificateID) imprint.AuditResource {
	return imprint.AuditResource{Kind: imprint.AuditDeviceCertificate, ID: string(id)}
}

func caCertificate(c imprint.CACertificate) imprint.AuditResource {
	return imprint.AuditResource{Kind: imprint.AuditCACertificate, ID: string(c.ID), Info: map[string]string{"subject": c.Subject}}
}

// deactivate is what takes a device off.
func deactivate(id imprint.CertificateID) string {
	return "aws iot update-certificate --certificate-id " + string(id) + " --new-status INACTIVE"
}

// usable says that devices can come, or will, with a certificate.
func usable(c imprint.Certificate) bool {
	return c.Status == imprint.CertificateActive || c.Status == imprint.CertificatePendingTransfer
}

// certificates looks at all device certificates.
func (w *walk) certificates() error {
	if w.wants(RevokedDeviceCertificate) {
		err := w.flushTrace()
		if err != nil {
			return err
		}
	}
	return w.pages(func(tx imprint.ReadTx, p imprint.Page) (string, error) {
		page, next, err := tx.Certificates(w.tenant, "", p)
		for i := range page {
			if err == nil {
				err = w.certificate(tx, &page[i])
			}
		}
		return next, err
	})
}

func (w *walk) certificate(tx imprint.ReadTx, c *imprint.Certificate) error {
	w.seen(CertificatePending)
	if c.Status == imprint.CertificatePendingActivation && w.now.Sub(c.CreatedAt) > w.auditor.opts.Pending {
		w.find(CertificatePending, flaw{
			resource: described(*c), code: "CERTIFICATE_PENDING_FOR_LONG",
			reason:     fmt.Sprintf("The certificate was registered at %s and waits for its activation since; its device can't connect.", stamp(c.CreatedAt)),
			mitigation: fmt.Sprintf("imprint explain %s says what stopped it. Then: aws iot update-certificate --certificate-id %s --new-status ACTIVE, or aws iot delete-certificate --certificate-id %s", c.ID, c.ID, c.ID),
		})
	}
	if c.Status != imprint.CertificateRevoked && w.wants(DeviceCertificateKeyQuality) {
		w.seen(DeviceCertificateKeyQuality)
		w.quality(DeviceCertificateKeyQuality, described(*c), c.PEM, c.NotAfter, pki.DevicePolicy(),
			"Give the device a certificate with a new key. Then: "+deactivate(c.ID))
	}
	if c.Status == imprint.CertificateRevoked && w.wants(RevokedDeviceCertificate) {
		return w.stillUsed(tx, c)
	}
	if !usable(*c) {
		return nil
	}
	w.seen(DeviceCertificateExpiring)
	w.expiring(DeviceCertificateExpiring, described(*c), c.NotAfter, "Give the device a new certificate. Then: "+deactivate(c.ID))
	w.seen(DeviceCertificateAge)
	if age := w.now.Sub(c.NotBefore); w.wants(DeviceCertificateAge) && age > w.days(DeviceCertificateAge) {
		w.find(DeviceCertificateAge, flaw{
			resource: described(*c), code: "CERTIFICATE_PAST_AGE_THRESHOLD",
			reason:     fmt.Sprintf("The certificate is %d days old, valid from %s.", int(age.Hours()/24), stamp(c.NotBefore)),
			mitigation: "Give the device a new certificate. Then: " + deactivate(c.ID),
		})
	}
	err := w.revokedElsewhere(tx, c)
	if err == nil {
		err = w.takenBack(tx, c)
	}
	if err == nil {
		err = w.sharedByThings(tx, c)
	}
	return err
}

// described is the resource of a certificate with what a person knows it by.
func described(c imprint.Certificate) imprint.AuditResource {
	r := deviceCertificate(c.ID)
	r.Info = map[string]string{"subject": c.Subject, "serialNumber": c.Serial, "status": string(c.Status)}
	return r
}

func stamp(at time.Time) string { return at.UTC().Format("2006-01-02 15:04 MST") }

// expiring finds what has expired or soon will.
func (w *walk) expiring(check imprint.AuditCheck, resource imprint.AuditResource, notAfter time.Time, mitigation string) {
	f := flaw{resource: resource, mitigation: mitigation}
	switch {
	case w.now.After(notAfter):
		f.code, f.reason = "CERTIFICATE_PAST_EXPIRATION", fmt.Sprintf("The certificate expired at %s.", stamp(notAfter))
	case !notAfter.After(w.now.Add(w.days(check))):
		f.code, f.reason = "CERTIFICATE_APPROACHING_EXPIRATION", fmt.Sprintf("The certificate expires at %s.", stamp(notAfter))
	default:
		return
	}
	w.find(check, f)
}

// quality finds keys, signatures and certificates that nobody should trust.
func (w *walk) quality(check imprint.AuditCheck, resource imprint.AuditResource, text string, notAfter time.Time, policy pki.Policy, mitigation string) {
	f := flaw{resource: resource, mitigation: mitigation}
	cert, err := pki.ParseCertificatePEM(text)
	switch {
	case err != nil:
		f.code, f.reason = "CERTIFICATE_INVALID_FORMAT", "The certificate can't be read: "+imprint.MessageOf(err)
	case pki.ROCA(cert.PublicKey):
		f.code = "CERTIFICATE_KEY_VULNERABILITY_CVE-2017-15361"
		f.reason = "The RSA key was made by a library of Infineon's whose private keys can be computed from the public ones (ROCA)."
	default:
		refusal := policy.CheckKey(cert)
		switch {
		case refusal != nil:
			f.code, f.reason = "CERTIFICATE_KEY_TOO_WEAK", "The certificate isn't accepted any more: "+refusal.Error()+"."
		case w.now.After(notAfter):
			f.code, f.reason = "CERTIFICATE_PAST_EXPIRATION", fmt.Sprintf("The certificate expired at %s.", stamp(notAfter))
		default:
			return
		}
	}
	w.find(check, f)
}

// revokedElsewhere finds certificates that the account revoked in another region.
func (w *walk) revokedElsewhere(tx imprint.ReadTx, c *imprint.Certificate) error {
	if !w.wants(RevokedDeviceCertificate) {
		return nil
	}
	w.seen(RevokedDeviceCertificate)
	registered, err := tx.CertificateTenants(c.ID)
	if err != nil {
		return err
	}
	for _, other := range registered {
		if other.Tenant.Account != w.tenant.Account || other.Status != imprint.CertificateRevoked {
			continue
		}
		w.find(RevokedDeviceCertificate, flaw{
			resource: described(*c), code: "CERTIFICATE_REVOKED_IN_ANOTHER_REGION",
			reason:     fmt.Sprintf("The certificate is REVOKED in %s and %s here.", other.Tenant.Region, c.Status),
			mitigation: revoke(c.ID),
		})
		return nil
	}
	return nil
}

// sharedByThings finds certificates that several things have.
func (w *walk) sharedByThings(tx imprint.ReadTx, c *imprint.Certificate) error {
	if !w.wants(DeviceCertificateShared) {
		return nil
	}
	w.seen(DeviceCertificateShared)
	things, _, err := tx.CertificateThings(w.tenant, c.ID, imprint.Page{Limit: maxRelated + 1, Ascending: true})
	if err != nil || len(things) < 2 {
		return err
	}
	f := flaw{resource: described(*c), code: "CERTIFICATE_SHARED_BY_MULTIPLE_DEVICES"}
	var names []string
	for _, attached := range things[:min(len(things), maxRelated)] {
		f.related = append(f.related, thing(w.tenant, attached.Thing))
		names = append(names, string(attached.Thing))
	}
	more := ""
	if len(things) > maxRelated {
		more = " and more"
	}
	f.reason = "The certificate is attached to several things: " + strings.Join(names, ", ") + more + ". Who has one of these devices can pass for all."
	f.mitigation = "Give each device a certificate of its own. Then, for each thing but one: aws iot detach-thing-principal --principal " + c.ARN() + " --thing-name " + names[1]
	w.find(DeviceCertificateShared, f)
	return nil
}

// authorities looks at all CA certificates.
func (w *walk) authorities() error {
	return w.pages(func(tx imprint.ReadTx, p imprint.Page) (string, error) {
		page, next, err := tx.CAs(w.tenant, "", p)
		for _, ca := range page {
			mitigation := "Register the CA that replaces it. Then: aws iot update-ca-certificate --certificate-id " + string(ca.ID) + " --new-status INACTIVE"
			w.seen(RevokedCACertificate)
			if err == nil && slices.ContainsFunc(revocationChecks, w.wants) {
				err = w.revokedCA(tx, ca)
			}
			if ca.Status != imprint.CAActive {
				continue
			}
			w.seen(CACertificateExpiring)
			w.expiring(CACertificateExpiring, caCertificate(ca), ca.NotAfter, mitigation)
			if w.wants(CACertificateKeyQuality) {
				w.seen(CACertificateKeyQuality)
				w.quality(CACertificateKeyQuality, caCertificate(ca), ca.PEM, ca.NotAfter, pki.Policy{}, mitigation)
			}
		}
		return next, err
	})
}
