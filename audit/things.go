package audit

import (
	"fmt"

	"github.com/imprint-iot/imprint"
)

func thing(tenant imprint.Tenant, name imprint.ThingName) imprint.AuditResource {
	return imprint.AuditResource{Kind: imprint.AuditThing, ID: string(name), Info: map[string]string{"thingArn": tenant.ThingARN(name)}}
}

// things finds those without a certificate of their own.
func (w *walk) things() error {
	return w.pages(func(tx imprint.ReadTx, p imprint.Page) (string, error) {
		page, next, err := tx.Things(w.tenant, imprint.ThingFilter{}, p)
		for i := range page {
			if err == nil {
				err = w.thing(tx, page[i].Name)
			}
		}
		return next, err
	})
}

func (w *walk) thing(tx imprint.ReadTx, name imprint.ThingName) error {
	w.seen(ThingWithoutCertificate)
	attached, _, err := tx.ThingPrincipals(w.tenant, name, imprint.Page{Limit: maxRelated, Ascending: true})
	if err != nil {
		return err
	}
	f := flaw{resource: thing(w.tenant, name), code: "THING_WITHOUT_CERTIFICATE", severity: imprint.AuditLow,
		reason: "No certificate is attached to the thing: its device can't connect as it.",
		mitigation: fmt.Sprintf("aws iot attach-thing-principal --thing-name %s --principal CERTIFICATE-ARN, or, without a device: aws iot delete-thing --thing-name %s",
			name, name)}
	for _, a := range attached {
		if a.Exclusive {
			return nil
		}
		sharing, _, err := tx.CertificateThings(w.tenant, a.Certificate, imprint.Page{Limit: 2, Ascending: true})
		if err != nil || len(sharing) == 1 {
			return err
		}
		f.related = append(f.related, deviceCertificate(a.Certificate))
	}
	if len(attached) > 0 {
		f.code, f.severity = "THING_SHARES_ITS_CERTIFICATE", imprint.AuditMedium
		f.reason = fmt.Sprintf("All %d certificate(s) of the thing are attached to other things, too.", len(attached))
		f.mitigation = fmt.Sprintf("Give its device a certificate of its own: aws iot attach-thing-principal --thing-name %s --principal NEW-CERTIFICATE-ARN --thing-principal-type EXCLUSIVE_THING. Then: aws iot detach-thing-principal --thing-name %s --principal %s",
			name, name, w.tenant.CertificateARN(attached[0].Certificate))
	}
	w.find(ThingWithoutCertificate, f)
	return nil
}

// account looks at what the tenant has one of.
func (w *walk) account() error {
	w.seen(LoggingDisabled)
	if w.auditor.opts.Logging == nil {
		return nil
	}
	reason, mitigation := w.auditor.opts.Logging()
	if reason != "" {
		w.find(LoggingDisabled, flaw{
			resource: imprint.AuditResource{Kind: imprint.AuditAccountSettings, ID: string(w.tenant.Account)},
			code:     "LOGGING_DISABLED", reason: reason, mitigation: mitigation,
		})
	}
	return nil
}
