package audit

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/revoked"
)

// distrusted is a CA that was revoked, or that is below one that was.
type distrusted struct {
	ca   imprint.CACertificate
	cert *x509.Certificate
	why  string // a sentence without its stop
}

// distrust notes such a CA: the first reason counts.
func (w *walk) distrust(ca imprint.CACertificate, cert *x509.Certificate, why string) {
	_, known := w.distrusted[ca.ID]
	if !known {
		d := distrusted{ca, cert, why}
		w.distrusted[ca.ID] = d
		w.distrustedNames[string(cert.RawSubject)] = append(w.distrustedNames[string(cert.RawSubject)], d)
	}
}

// signer gives the distrusted CA that signed a certificate, by which the certificate needn't
// be registered.
func (w *walk) signer(cert *x509.Certificate) (distrusted, bool) {
	for _, d := range w.distrustedNames[string(cert.RawIssuer)] {
		if d.cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil {
			return d, true
		}
	}
	return distrusted{}, false
}

// distrustBelow notes the CAs below those that are distrusted, on all levels.
func (w *walk) distrustBelow() error {
	for before := 0; before < len(w.distrusted); {
		before = len(w.distrusted)
		err := w.pages(func(tx imprint.ReadTx, p imprint.Page) (string, error) {
			page, next, err := tx.CAs(w.tenant, "", p)
			for _, ca := range page {
				cert, unread := pki.ParseCertificatePEM(ca.PEM)
				if unread != nil {
					continue // CA_CERTIFICATE_KEY_QUALITY_CHECK says so
				}
				above, below := w.signer(cert)
				if below {
					w.distrust(ca, cert, fmt.Sprintf("%s was signed by %s: %s", ca.Subject, above.ca.Subject, above.why))
				}
			}
			return next, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// revokedCA asks whether a CA could be registered today.
func (w *walk) revokedCA(tx imprint.ReadTx, ca imprint.CACertificate) error {
	cert, err := pki.ParseCertificatePEM(ca.PEM)
	if err != nil {
		return nil // CA_CERTIFICATE_KEY_QUALITY_CHECK says so
	}
	err = revoked.Refusal(tx, w.tenant, cert)
	if err == nil {
		err = w.listed(tx, cert)
	}
	if revoked.Is(err) {
		w.distrust(ca, cert, ca.Subject+": "+imprint.MessageOf(err))
		return nil
	}
	return err
}

// listed asks the imported lists. One that is past its time may lack a certificate: the
// checks say so.
func (w *walk) listed(tx imprint.ReadTx, cert *x509.Certificate) error {
	warning, err := revoked.ByLists(tx, w.tenant, cert, w.now)
	if imprint.CodeOf(err) == imprint.CodeRevocationListStale {
		warning, err = imprint.MessageOf(err), nil
	}
	if warning != "" {
		for _, check := range revocationChecks {
			w.note(check, "Not all is known: "+warning+".")
		}
	}
	return err
}

// takenBack finds a device's certificate that couldn't be registered any more: that an
// authority of this server revoked, or an imported list has, or that is below a CA which
// was revoked.
func (w *walk) takenBack(tx imprint.ReadTx, c *imprint.Certificate) error {
	if !w.wants(RevokedDeviceCertificate) && !w.wants(RevokedIntermediate) {
		return nil
	}
	w.seen(RevokedIntermediate)
	cert, err := pki.ParseCertificatePEM(c.PEM)
	if err != nil {
		return nil // DEVICE_CERTIFICATE_KEY_QUALITY_CHECK says so
	}
	r, err := revoked.Against(tx, w.tenant, cert)
	if err != nil {
		return err
	}
	above, below := w.distrusted[c.CAID]
	if !below {
		above, below = w.signer(cert)
	}
	switch {
	case below:
		w.belowRevoked(c, above.why, caCertificate(above.ca))
	case r != nil && !r.Own:
		w.belowRevoked(c, fmt.Sprintf("Certificate authority %s, or one above it, was revoked at %s (%s)", r.Authority, stamp(r.RevokedAt), r.Reason))
	}
	why := ""
	if r != nil && r.Own {
		why = fmt.Sprintf("Its CA revoked the certificate at %s (%s)", stamp(r.RevokedAt), r.Reason)
	} else {
		err = w.listed(tx, cert)
		if revoked.Is(err) {
			why, err = c.Subject+": "+imprint.MessageOf(err), nil
		}
	}
	if why != "" {
		w.find(RevokedDeviceCertificate, flaw{
			resource: described(*c), code: "CERTIFICATE_REVOKED_BY_ISSUER", reason: fmt.Sprintf("%s, and it is %s here.", why, c.Status), mitigation: revoke(c.ID),
		})
	}
	return err
}

func (w *walk) belowRevoked(c *imprint.Certificate, why string, related ...imprint.AuditResource) {
	w.find(RevokedIntermediate, flaw{
		resource: described(*c), related: related, code: "INTERMEDIATE_CA_REVOKED_BY_ISSUER",
		reason:     fmt.Sprintf("%s, and the certificate is %s here.", why, c.Status),
		mitigation: "Give the device a certificate of another CA. Then: " + revoke(c.ID),
	})
}

// revoke is what takes a device's certificate back.
func revoke(id imprint.CertificateID) string {
	return "aws iot update-certificate --certificate-id " + string(id) + " --new-status REVOKED"
}

// revokedAuthorities finds the distrusted CAs that register devices, or whose devices may
// still come.
func (w *walk) revokedAuthorities() error {
	if !w.wants(RevokedCACertificate) {
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(w.distrusted)) {
		err := w.revokedAuthority(w.distrusted[id])
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) revokedAuthority(d distrusted) error {
	var devices []imprint.AuditResource
	more := ""
	err := w.pages(func(tx imprint.ReadTx, p imprint.Page) (string, error) {
		before := len(devices)
		page, next, err := tx.Certificates(w.tenant, d.ca.ID, p)
		for _, c := range page {
			if usable(c) {
				devices = append(devices, deviceCertificate(c.ID))
			}
		}
		if err != nil {
			devices = devices[:before]
		}
		if len(devices) > maxRelated {
			devices, more, next = devices[:maxRelated], "at least ", ""
		}
		return next, err
	})
	if err != nil || d.ca.Status != imprint.CAActive && len(devices) == 0 {
		return err
	}
	mitigation := fmt.Sprintf("aws iot update-ca-certificate --certificate-id %s --new-status INACTIVE. Then revoke each of aws iot list-certificates-by-ca --ca-certificate-id %s: aws iot update-certificate --new-status REVOKED --certificate-id ID",
		d.ca.ID, d.ca.ID)
	err = w.view(func(tx imprint.ReadTx) error {
		own, err := tx.AuthorityOf(w.tenant, d.ca.ID)
		if err == nil {
			mitigation = fmt.Sprintf("imprint ca revoke %s --below takes all that it signed.", own.ID)
		}
		return ignoreMissing(err)
	})
	w.find(RevokedCACertificate, flaw{
		resource: caCertificate(d.ca), related: devices, code: "CERTIFICATE_REVOKED_BY_ISSUER", mitigation: mitigation,
		reason: fmt.Sprintf("%s; here it is %s, and of the certificates that it signed %s%d are ACTIVE.", d.why, d.ca.Status, more, len(devices)),
	})
	return err
}
