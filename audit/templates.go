package audit

import (
	"fmt"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/template"
)

// sampled is how many certificates of a CA, the newest, are held against its template.
const sampled = 50

// templates finds parameters of provisioning templates that no device can have a value
// for: in the templates of a name, then in those of CA certificates, whose devices'
// subjects are known.
func (w *walk) templates() error {
	err := w.pages(func(tx imprint.ReadTx, p imprint.Page) (string, error) {
		page, next, err := tx.Templates(w.tenant, p)
		for i := range page {
			if err == nil {
				err = w.namedTemplate(tx, page[i])
			}
		}
		return next, err
	})
	if err != nil {
		return err
	}
	return w.pages(func(tx imprint.ReadTx, p imprint.Page) (string, error) {
		page, next, err := tx.CAs(w.tenant, "", p)
		for i := range page {
			if err == nil && page[i].Registration != nil {
				err = w.templateOf(tx, page[i])
			}
		}
		return next, err
	})
}

func (w *walk) namedTemplate(tx imprint.ReadTx, t imprint.ProvisioningTemplate) error {
	w.seen(TemplateParameterUnresolved)
	parsed, err := w.defaultVersion(tx, t)
	if err != nil || parsed == nil {
		return err
	}
	w.unresolved(templateResource(t), parsed)
	return nil
}

// defaultVersion reads the body that devices get; nil: there is none that could be
// used, of which the trace of each device tells.
func (w *walk) defaultVersion(tx imprint.ReadTx, t imprint.ProvisioningTemplate) (*template.Template, error) {
	version, err := tx.TemplateVersion(w.tenant, t.Name, t.DefaultVersion)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	kind := template.Fleet
	if t.Type == imprint.TemplateJITP {
		kind = template.JITP
	}
	return readTemplate(version.Body, kind), nil
}

func readTemplate(body string, kind template.Kind) *template.Template {
	parsed, err := template.Parse([]byte(body), kind)
	if err != nil {
		return nil
	}
	return parsed
}

func templateResource(t imprint.ProvisioningTemplate) imprint.AuditResource {
	return imprint.AuditResource{Kind: imprint.AuditTemplate, ID: string(t.Name), Info: map[string]string{"templateArn": t.ARN()}}
}

// unresolved finds what the template's text alone shows.
func (w *walk) unresolved(resource imprint.AuditResource, t *template.Template) {
	var wrong, names []string
	for _, f := range t.Lint() {
		if f.Rule == template.RuleResourceReference || f.Rule == template.RuleParameterNotGiven {
			wrong = append(wrong, fmt.Sprintf("line %d, column %d: %s", f.Line, f.Column, f.Msg))
			names = append(names, f.Parameter)
		}
	}
	if len(wrong) > 0 {
		w.find(TemplateParameterUnresolved, flaw{resource: resource, code: "TEMPLATE_PARAMETER_NEVER_GIVEN",
			reason:     "The template has values that no device gets: " + strings.Join(wrong[:min(len(wrong), 5)], "; ") + ".",
			mitigation: fmt.Sprintf("Give %s a Default, or take a parameter that devices send; imprint template lint shows more. Then: %s", strings.Join(names[:min(len(names), 5)], ", "), storeAnew(resource))})
	}
}

// storeAnew is how a changed template is stored.
func storeAnew(resource imprint.AuditResource) string {
	if resource.Kind == imprint.AuditCACertificate {
		return "aws iot update-ca-certificate --certificate-id " + resource.ID + " --registration-config file://registration.json"
	}
	return "aws iot create-provisioning-template-version --template-name " + resource.ID + " --set-as-default --template-body file://template.json"
}

// templateOf holds the template of a CA against the certificates that it signed.
func (w *walk) templateOf(tx imprint.ReadTx, ca imprint.CACertificate) error {
	resource := caCertificate(ca)
	var parsed *template.Template
	if ca.Registration.TemplateName != "" {
		named, err := tx.Template(w.tenant, ca.Registration.TemplateName)
		if err != nil {
			return ignoreMissing(err)
		}
		resource = templateResource(named)
		parsed, err = w.defaultVersion(tx, named)
		if err != nil {
			return err
		}
	} else {
		w.seen(TemplateParameterUnresolved)
		parsed = readTemplate(ca.Registration.TemplateBody, template.JITP)
		if parsed != nil {
			w.unresolved(resource, parsed)
		}
	}
	if parsed == nil || parsed.Kind() != template.JITP {
		return nil
	}
	certs, _, err := tx.Certificates(w.tenant, ca.ID, imprint.Page{Limit: sampled})
	if err != nil || len(certs) == 0 {
		return err
	}
	lacking := absent(parsed, certs)
	if len(lacking) == 0 {
		return nil
	}
	f := flaw{
		resource: resource, related: []imprint.AuditResource{described(certs[0])}, code: "TEMPLATE_PARAMETER_NOT_IN_CERTIFICATES",
		reason: fmt.Sprintf("None of the newest %d certificates of CA %s has what the template takes %s from: their devices are refused.", len(certs), ca.ID, strings.Join(lacking, ", ")),
		mitigation: fmt.Sprintf("Issue certificates with that in their subject, or give the parameter a Default (imprint template lint --ca-id %s): %s",
			ca.ID, storeAnew(resource)),
	}
	if resource.Kind != imprint.AuditCACertificate {
		f.related = append(f.related, caCertificate(ca))
	}
	w.find(TemplateParameterUnresolved, f)
	return nil
}

// absent lists the parameters without a default that no certificate has a value for.
func absent(t *template.Template, certs []imprint.Certificate) []string {
	missing := map[string]bool{}
	for _, p := range t.Parameters() {
		if !p.HasDefault {
			missing[p.Name] = true
		}
	}
	for _, c := range certs {
		cert, err := pki.ParseCertificatePEM(c.PEM)
		if err != nil {
			continue
		}
		for name := range template.SubjectParameters(cert, string(c.ID)) {
			delete(missing, name)
		}
	}
	var names []string
	for _, p := range t.Parameters() {
		if missing[p.Name] {
			names = append(names, p.Name)
		}
	}
	return names
}
