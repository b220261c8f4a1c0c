package provisioning

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/template"
)

// maxCachedSubjects bounds the cache of CAs; at the bound it begins anew.
const maxCachedSubjects = 4096

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

func (e *Engine) committed(changes []imprint.Change) {
	for _, c := range changes {
		if c.Kind != imprint.ChangeCA && c.Kind != imprint.ChangeTemplate {
			continue
		}
		e.mu.Lock()
		e.generation++
		clear(e.cas)
		e.mu.Unlock()
		return
	}
}

// issuers gives the tenant's registered CAs whose subject is the leaf's issuer.
func (e *Engine) issuers(ctx context.Context, tenant imprint.Tenant, leaf *x509.Certificate) ([]*issuer, error) {
	key := caKey{tenant, pki.SubjectKey(leaf.RawIssuer)}
	e.mu.RLock()
	cached, found := e.cas[key]
	generation := e.generation
	e.mu.RUnlock()
	if found {
		return cached, nil
	}
	var loaded []*issuer
	err := e.store.View(ctx, func(tx imprint.ReadTx) error {
		cas, err := tx.CAsBySubject(tenant, key.subject)
		if err != nil {
			return fmt.Errorf("couldn't look up CAs by subject: %w", err)
		}
		loaded = loaded[:0]
		for _, ca := range cas {
			one, err := loadIssuer(tx, ca)
			if err != nil {
				return err
			}
			loaded = append(loaded, one)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	// Unknown issuers aren't cached: anybody can invent as many as they like.
	if len(loaded) == 0 {
		return nil, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.generation == generation {
		if len(e.cas) >= maxCachedSubjects {
			clear(e.cas)
		}
		e.cas[key] = loaded
	}
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
		if imprint.CodeOf(err) == imprint.CodeInternal {
			return nil, err
		}
		one.unusable = err
		return one, nil
	}
	one.source = source
	one.tmpl, err = template.Parse([]byte(body), template.JITP)
	if err != nil {
		one.unusable = imprint.Errorf(imprint.CodeTemplateInvalid, "%s isn't valid: %w", source, err)
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
		return "", "", imprint.Errorf(imprint.CodeTemplateMissing, "template %q, which CA %s names, doesn't exist", name, ca.ID)
	}
	if err != nil {
		return "", "", fmt.Errorf("couldn't read template %s: %w", name, err)
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

// findIssuer picks the CA that signed the leaf, by its signature.
func (e *Engine) findIssuer(ctx context.Context, tenant imprint.Tenant, leaf *x509.Certificate) (*issuer, error) {
	candidates, err := e.issuers(ctx, tenant, leaf)
	if err != nil {
		return nil, err
	}
	if len(candidates) == 0 {
		return nil, imprint.Errorf(imprint.CodeCANotRegistered,
			"no CA registered in %s has the certificate's issuer %q as its subject", tenant, leaf.Issuer)
	}
	for _, one := range candidates {
		if pki.SignedBy(leaf, one.cert) == nil {
			return one, nil
		}
	}
	return nil, imprint.Errorf(imprint.CodeCASignature,
		"%d registered CA(s) have the issuer's name %q, but none of their keys made this signature", len(candidates), leaf.Issuer)
}

// mayRegister says whether a CA lets unknown certificates in now.
func (one *issuer) mayRegister(now time.Time) error {
	switch {
	case one.ca.Status != imprint.CAActive:
		return imprint.Errorf(imprint.CodeCAInactive, "CA %s is %s", one.ca.ID, one.ca.Status).
			WithHint("aws iot update-ca-certificate --new-status ACTIVE --certificate-id %s", one.ca.ID)
	case !one.ca.AutoRegistration:
		return imprint.Errorf(imprint.CodeAutoRegistrationOff, "CA %s has auto-registration DISABLEd", one.ca.ID).
			WithHint("aws iot update-ca-certificate --new-auto-registration-status ENABLE --certificate-id %s", one.ca.ID)
	case imprint.ValidityRefusal(one.ca.NotBefore, one.ca.NotAfter, now) != nil:
		return imprint.Errorf(imprint.CodeCAExpired, "CA %s is valid from %s until %s", one.ca.ID,
			one.ca.NotBefore.UTC().Format(time.RFC3339), one.ca.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}
