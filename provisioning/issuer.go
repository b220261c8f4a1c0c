package provisioning

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/template"
)

// maxCachedSubjects bounds the cache of CAs.
const maxCachedSubjects = 4096

// caKey names a subject by its DER, so that no look-up needs a hash of it.
type caKey struct {
	tenant  imprint.Tenant
	subject string
}

// issuer is a registered CA, ready to check device certificates against.
type issuer struct {
	ca   imprint.CACertificate
	cert *x509.Certificate
	// tmpl is the template of its registration, and source says where that
	// came from. When the template can't be used, unusable says why.
	tmpl     *template.Template
	source   string
	unusable error
}

// issuers are the CAs of one subject. They are what the registry holds until their
// basis has moved.
type issuers struct {
	all   []*issuer
	certs []*x509.Certificate // of all
	basis basis
}

// issuersOf gives the tenant's registered CAs whose subject is the leaf's
// issuer.
func (e *Engine) issuersOf(ctx context.Context, tenant imprint.Tenant, leaf *x509.Certificate) (*issuers, error) {
	key := caKey{tenant, string(leaf.RawIssuer)}
	e.mu.RLock()
	cached, _ := e.cas.Known(tenant.Account, key)
	e.mu.RUnlock()
	if cached != nil && !e.moved(cached.basis) {
		return cached, nil
	}
	on := e.basisOf(tenant)
	on.cas = true
	var loaded *issuers
	err := e.store.View(ctx, func(tx imprint.ReadTx) error {
		loaded = &issuers{basis: on}
		cas, err := tx.CAsBySubject(tenant, pki.SubjectKey(leaf.RawIssuer))
		if err != nil {
			return fmt.Errorf("couldn't look up CAs by subject: %w", err)
		}
		for _, ca := range cas {
			one, err := loadIssuer(tx, ca)
			if err != nil {
				return err
			}
			loaded.all = append(loaded.all, one)
			loaded.certs = append(loaded.certs, one.cert)
			if ca.Registration != nil && ca.Registration.TemplateName != "" {
				loaded.basis.templates = append(loaded.basis.templates, ca.Registration.TemplateName)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	// Unknown issuers aren't cached: anybody can invent as many as they like.
	if len(loaded.all) == 0 {
		return loaded, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cas.Keep(tenant.Account, key, loaded)
	return loaded, nil
}

func loadIssuer(tx imprint.ReadTx, ca imprint.CACertificate) (*issuer, error) {
	cert, err := pki.ParseCertificatePEM(ca.PEM)
	if err != nil {
		return nil, fmt.Errorf("couldn't read the stored CA %s: %w", ca.ID, err)
	}
	one := &issuer{ca: ca, cert: cert}
	if ca.Registration == nil {
		return one, nil
	}
	body, source, err := registrationTemplate(tx, ca)
	if err != nil {
		switch imprint.CodeOf(err) {
		case imprint.CodeTemplateMissing, imprint.CodeTemplateDisabled:
			one.unusable = err
			return one, nil
		}
		return nil, err
	}
	one.source = source
	one.tmpl, err = template.Parse([]byte(body), template.JITP)
	if err != nil {
		refusal := imprint.Errorf(imprint.CodeTemplateInvalid, "%s isn't valid: %w", source, err)
		var te *template.Error
		if errors.As(err, &te) && te.Hint != "" {
			refusal.Hint = te.Hint
		}
		one.unusable = refusal
	}
	return one, nil
}

// registrationTemplate finds the body that a CA's registrationConfig names.
func registrationTemplate(tx imprint.ReadTx, ca imprint.CACertificate) (body, source string, err error) {
	if ca.Registration.TemplateName == "" {
		return ca.Registration.TemplateBody, "the CA's inline template", nil
	}
	name := ca.Registration.TemplateName
	tmpl, err := tx.Template(ca.Tenant, name)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return "", "", imprint.Errorf(imprint.CodeTemplateMissing, "template %q, which CA %s names, doesn't exist", name, ca.ID).
			WithHint("aws iot create-provisioning-template --template-name %s --type JITP --enabled --provisioning-role-arn ROLE --template-body file://template.json", name)
	}
	if err != nil {
		return "", "", fmt.Errorf("couldn't read template %s: %w", name, err)
	}
	if tmpl.Type != imprint.TemplateJITP {
		return "", "", imprint.Errorf(imprint.CodeTemplateMissing, "template %q, which CA %s names, is of type %s, not JITP", name, ca.ID, tmpl.Type).
			WithHint("Create a template with --type JITP, and name it in the CA's registrationConfig.")
	}
	if !tmpl.Enabled {
		return "", "", imprint.Errorf(imprint.CodeTemplateDisabled, "template %q, which CA %s names, is disabled", name, ca.ID).
			WithHint("aws iot update-provisioning-template --template-name %s --enabled", name)
	}
	version, err := tx.TemplateVersion(ca.Tenant, name, tmpl.DefaultVersion)
	if err != nil {
		return "", "", fmt.Errorf("couldn't read version %d of template %s: %w", tmpl.DefaultVersion, name, err)
	}
	return version.Body, fmt.Sprintf("template %s, version %d", name, version.Version), nil
}

// find picks the CA that signed the visit's certificate, by its signature.
// Several registered CAs may have one name and one key, as when a CA was
// renewed: one that lets the certificate in goes before one that doesn't.
func (is *issuers) find(v *visit) (*issuer, error) {
	open := make([]*x509.Certificate, len(is.certs))
	first := -1
	var refusals []error
	for i, one := range is.all {
		refusal := one.mayRegister(v)
		refusals = append(refusals, refusal)
		if refusal == nil {
			open[i] = one.cert // the closed ones stay nil, which PickIssuer skips
			first = i
		}
	}
	if first >= 0 {
		i, err := pki.PickIssuer(v.Leaf, open)
		if err == nil {
			return is.all[i], nil
		}
	}
	i, err := pki.PickIssuer(v.Leaf, is.certs)
	switch imprint.CodeOf(err) {
	case "":
		return nil, refusals[i]
	case imprint.CodeCANotRegistered:
		return nil, unknownIssuer(v)
	}
	return nil, err
}

// unknownIssuer refuses a certificate that no registered CA can have signed. Only the
// CA that signed it counts, be it an intermediate one: what the device sends behind
// its certificate isn't looked at.
func unknownIssuer(v *visit) error {
	refusal := imprint.Errorf(imprint.CodeCANotRegistered,
		"no CA registered in %s has the certificate's issuer %q as its subject", v.Tenant, pki.SubjectText(v.Leaf.RawIssuer))
	if bytes.Equal(v.Leaf.RawIssuer, v.Leaf.RawSubject) {
		return refusal.WithHint("It signed itself, so register it alone: aws iot register-certificate-without-ca --status ACTIVE --certificate-pem file://device.pem")
	}
	return refusal.WithHint("Register the CA with that subject, not one above it: " +
		"aws iot register-ca-certificate --ca-certificate file://ca.pem --certificate-mode SNI_ONLY --set-as-active --allow-auto-registration; " +
		"or the device's certificate alone: aws iot register-certificate-without-ca --status ACTIVE --certificate-pem file://device.pem")
}

// mayRegister says whether a CA lets the visit's certificate in now.
func (one *issuer) mayRegister(v *visit) error {
	switch {
	case one.ca.Status != imprint.CAActive:
		return imprint.Errorf(imprint.CodeCAInactive, "CA %s is %s", one.ca.ID, one.ca.Status).
			WithHint("aws iot update-ca-certificate --new-status ACTIVE --certificate-id %s", one.ca.ID)
	case !one.ca.AutoRegistration:
		return imprint.Errorf(imprint.CodeAutoRegistrationOff, "CA %s has auto-registration DISABLEd", one.ca.ID).
			WithHint("aws iot update-ca-certificate --new-auto-registration-status ENABLE --certificate-id %s", one.ca.ID)
	case imprint.ValidityRefusal(one.ca.NotBefore, one.ca.NotAfter, v.now) != nil:
		return imprint.Errorf(imprint.CodeCAExpired, "CA %s is valid from %s until %s, the clock says %s", one.ca.ID,
			one.ca.NotBefore.UTC().Format(time.RFC3339), one.ca.NotAfter.UTC().Format(time.RFC3339), v.now.UTC().Format(time.RFC3339))
	case one.ca.Mode == imprint.ModeSNIOnly && v.NoServerName:
		return imprint.Errorf(imprint.CodeSNIRequired, "CA %s is registered SNI_ONLY and the hello carried no server name", one.ca.ID)
	}
	return nil
}
