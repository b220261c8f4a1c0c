package audit_test

import (
	"crypto/x509"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
)

// body is a template with parameters, whose thing's name is value.
func body(value string, parameters ...string) string {
	for n, p := range parameters {
		parameters[n] = `"` + p + `":{"Type":"String"}`
	}
	return `{"Parameters":{` + strings.Join(parameters, ",") + `},"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":` + value + `}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}},
 "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"p"}}}}`
}

func (h *house) template(name imprint.TemplateName, kind imprint.TemplateType, text string) {
	h.t.Helper()
	h.put(func(tx imprint.Tx) error {
		err := tx.PutTemplate(imprint.ProvisioningTemplate{Tenant: home, Name: name, Type: kind, Enabled: true, DefaultVersion: 1, LastVersion: 1})
		if err != nil {
			return err
		}
		return tx.PutTemplateVersion(imprint.TemplateVersion{Tenant: home, Template: name, Version: 1, Body: text})
	})
}

func TestTemplateParametersThatNeverResolveAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const id, name, country, serial = "AWS::IoT::Certificate::Id", "AWS::IoT::Certificate::CommonName", "AWS::IoT::Certificate::Country", "SerialNumber"
	ref := func(parameter string) string { return `{"Ref":"` + parameter + `"}` }
	h.template("fleet", imprint.TemplateFleet, body(ref(serial), serial, id))
	h.template("jitp", imprint.TemplateJITP, body(ref(name), name, id))
	h.template("french", imprint.TemplateJITP, body(ref(country), country, id))
	h.template("broken", imprint.TemplateJITP, "{}")
	named := func(t imprint.TemplateName) func(*imprint.CACertificate) {
		return func(c *imprint.CACertificate) { c.Registration = &imprint.RegistrationConfig{TemplateName: t} }
	}
	some, none, empty := newAuthority(t, "Some", nil), newAuthority(t, "None", nil), newAuthority(t, "Empty", nil)
	h.cas(with(some.row(), named("french")), with(empty.row(), named("french")), newAuthority(t, "Plain", nil).row())
	french := func(c *x509.Certificate) { c.Subject.Country = []string{"FR"} }
	h.certificates(some.leaf("a"), some.leaf("b", french))
	h.finds(audit.TemplateParameterUnresolved, 4)
	h.template("subject", imprint.TemplateFleet, body(ref(name), name, id))
	h.template("resource", imprint.TemplateJITP, body(`{"Ref":"policy"}`, id))
	h.cas(with(none.row(), named("french")))
	inline := newAuthority(t, "Inline", nil)
	h.cas(with(inline.row(), func(c *imprint.CACertificate) {
		c.Registration = &imprint.RegistrationConfig{TemplateBody: body(ref(country), country, id), RoleARN: "r"}
	}))
	lacking := none.leaf("c")
	h.certificates(lacking, inline.leaf("d"))
	found := h.finds(audit.TemplateParameterUnresolved, 7, "PROVISIONING_TEMPLATE/subject TEMPLATE_PARAMETER_NEVER_GIVEN", "PROVISIONING_TEMPLATE/resource TEMPLATE_PARAMETER_NEVER_GIVEN",
		"PROVISIONING_TEMPLATE/french TEMPLATE_PARAMETER_NOT_IN_CERTIFICATES", ca(inline.row(), "TEMPLATE_PARAMETER_NOT_IN_CERTIFICATES"))
	for _, f := range found {
		switch f.Resource.ID {
		case "french":
			if !strings.Contains(f.Reason, country) || len(f.Related) != 2 || f.Related[0].ID != string(lacking.ID) || f.Related[1].ID != string(none.row().ID) {
				t.Errorf("got %+v", f)
			}
		case "subject":
			if !strings.Contains(f.Reason, "line 1") || !strings.Contains(f.Mitigation, "create-provisioning-template-version --template-name subject") {
				t.Errorf("got %+v", f)
			}
		case string(inline.row().ID):
			if !strings.Contains(f.Mitigation, "update-ca-certificate --certificate-id "+f.Resource.ID) {
				t.Errorf("got %+v", f)
			}
		}
	}
}
