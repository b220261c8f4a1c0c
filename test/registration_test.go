package test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/google/go-cmp/cmp"
)

func jsonOf(t *testing.T, value any) string {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// describedCA is what aws iot describe-ca-certificate prints.
type describedCA struct {
	Description struct {
		ID               string `json:"certificateId"`
		Status           string `json:"status"`
		AutoRegistration string `json:"autoRegistrationStatus"`
		PEM              string `json:"certificatePem"`
	} `json:"certificateDescription"`
	Registration struct {
		Name string `json:"templateName"`
		Body string `json:"templateBody"`
	} `json:"registrationConfig"`
}

func (s *server) describeCA(t *testing.T, dir, id string) describedCA {
	t.Helper()
	var described describedCA
	err := json.Unmarshal([]byte(s.aws(t, dir, "iot describe-ca-certificate --certificate-id "+id)), &described)
	if err != nil {
		t.Fatal(err)
	}
	return described
}

func TestCLIRegistersCAsWithInlineTemplateAndByTemplateName(t *testing.T) {
	need(t, "bash", "aws", "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	template := jitpTemplate("devices", "")
	writeFile(t, filepath.Join(dir, "policy.json"), devicePolicy)
	writeFile(t, filepath.Join(dir, "template.json"), template)
	writeFile(t, filepath.Join(dir, "inline.json"), jsonOf(t, map[string]string{"templateBody": template, "roleArn": role}))
	writeFile(t, filepath.Join(dir, "named.json"), jsonOf(t, map[string]string{"templateName": "line-template"}))
	registrationCode := s.aws(t, dir, "iot get-registration-code --query registrationCode --output text")
	s.aws(t, dir, "iot create-policy --policy-name devices --policy-document file://policy.json")
	s.aws(t, dir, "iot create-provisioning-template --template-name line-template --type JITP --enabled --template-body file://template.json --provisioning-role-arn "+role)
	if got := s.aws(t, dir, "iot get-policy --policy-name devices --query policyDocument --output text"); got != devicePolicy {
		t.Errorf("policy document: got %s, want it as it was sent", got)
	}
	for name, registration := range map[string]string{"inline": "inline.json", "named": "named.json"} {
		f := newFactory(t, "Factory "+name, "P-256")
		verification := f.verification(t, registrationCode)
		caID := s.aws(t, dir, "iot register-ca-certificate --ca-certificate file://"+f.cert+" --verification-certificate file://"+verification+
			" --set-as-active --allow-auto-registration --registration-config file://"+registration+" --query certificateId --output text")
		described := s.describeCA(t, dir, caID)
		got := described.Description
		if got.ID != certificateID(t, readFile(t, f.cert)) || got.Status != "ACTIVE" || got.AutoRegistration != "ENABLE" || got.PEM != readFile(t, f.cert) {
			t.Errorf("%s CA: got %+v", name, got)
		}
		switch registration := described.Registration; name {
		case "inline":
			if registration.Body != template {
				t.Errorf("inline template: got %+v, want it as it was sent", registration)
			}
		case "named":
			if registration.Name != "line-template" || registration.Body != "" {
				t.Errorf("named template: got %+v, want the name line-template alone", registration)
			}
		}
		d := f.device(t, "cli-"+name, "P-256")
		s.join(t, d)
		thing := s.aws(t, dir, "iot describe-thing --thing-name cli-"+name+" --query attributes")
		var attributes map[string]string
		err := json.Unmarshal([]byte(thing), &attributes)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"serial": "SN-cli-" + name, "origin": "template"}, attributes); diff != "" {
			t.Errorf("attributes of the thing (-want +got):\n%s", diff)
		}
	}
}

func TestSDKRegistersACAWithTemplateNameAndItsDevicesJoin(t *testing.T) {
	need(t, "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	api := s.sdk(t)
	s.createPolicy(t, "devices", devicePolicy)
	must(api.CreateProvisioningTemplate(t.Context(), &iot.CreateProvisioningTemplateInput{
		TemplateName: aws.String("by-sdk"), Type: types.TemplateTypeJitp, Enabled: aws.Bool(true),
		TemplateBody: aws.String(jitpTemplate("devices", "")), ProvisioningRoleArn: aws.String(role),
	}))(t)
	f := newFactory(t, "Factory SDK", "P-256")
	caID := s.registerCA(t, f, func(in *iot.RegisterCACertificateInput) {
		in.RegistrationConfig = &types.RegistrationConfig{TemplateName: aws.String("by-sdk")}
	})
	d := f.device(t, "by-sdk-1", "P-256")
	before := s.registry(t)
	s.join(t, d)
	id := d.id(t)
	want := []string{
		"+ cert/" + id + " ACTIVE", "+ cert/" + id + " policy devices", `+ thing by-sdk-1 has cert/` + id,
		`+ thing by-sdk-1 version 1 {"origin":"template","serial":"SN-by-sdk-1"}`,
	}
	if diff := cmp.Diff(want, changes(before, s.registry(t))); diff != "" {
		t.Errorf("what the device's first connection changed (-want +got):\n%s", diff)
	}
	described := must(api.DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: aws.String(id)}))(t)
	if got := aws.ToString(described.CertificateDescription.CaCertificateId); got != caID {
		t.Errorf("the certificate's CA: got %s, want %s", got, caID)
	}
	byCA := must(api.ListCertificatesByCA(t.Context(), &iot.ListCertificatesByCAInput{CaCertificateId: aws.String(caID)}))(t)
	if len(byCA.Certificates) != 1 || aws.ToString(byCA.Certificates[0].CertificateId) != id {
		t.Errorf("certificates of the CA: got %+v, want %s alone", byCA.Certificates, id)
	}
}

func TestACAWithoutProofOfItsKeyIsRefused(t *testing.T) {
	need(t, "openssl", "bash", "aws")
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	f, other := newFactory(t, "Proof", "P-256"), newFactory(t, "Proof", "P-256")
	registrationCode := aws.ToString(must(s.sdk(t).GetRegistrationCode(t.Context(), &iot.GetRegistrationCodeInput{}))(t).RegistrationCode)
	for _, tt := range []struct{ name, verification, want string }{
		{"another code", f.verification(t, strings.Repeat("0", 64)), "RegistrationCodeValidationException"},
		{"another key of the same name", other.verification(t, registrationCode), "CertificateValidationException"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run := s.shell(t, dir, "aws iot register-ca-certificate --ca-certificate file://"+f.cert+" --verification-certificate file://"+tt.verification)
			if run.exit == 0 || !strings.Contains(run.stderr, tt.want) {
				t.Errorf("got exit code %d, want %s\n%s", run.exit, tt.want, run.all())
			}
		})
	}
	if cas := s.registry(t); len(cas) != 0 {
		t.Errorf("the registry: got %q, want nothing", cas)
	}
}
