package iot_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

// TestRegisterCARefusals has a row for each check of RegisterCACertificate.
// Every refusal must leave the tenant without a CA.
func TestRegisterCARefusals(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	edited := func(edit func(*x509.Certificate)) func(*testing.T) *iottest.CA {
		return func(t *testing.T) *iottest.CA { return iottest.NewCA(t, "Factory", edit) }
	}
	config := func(config types.RegistrationConfig) func(*testing.T, identityEnv, *iottest.CA, *sdk.RegisterCACertificateInput) {
		return func(_ *testing.T, _ identityEnv, _ *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.RegistrationConfig = &config
		}
	}
	for _, row := range []struct {
		name   string
		ca     func(*testing.T) *iottest.CA
		edit   func(*testing.T, identityEnv, *iottest.CA, *sdk.RegisterCACertificateInput)
		code   string
		status int
		text   string
	}{
		{name: "the CA is no PEM", edit: func(_ *testing.T, _ identityEnv, _ *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.CaCertificate = new("hello")
		},
			code: "CertificateValidationException", status: 400, text: "caCertificate: "},
		{name: "the CA is two PEM blocks", edit: func(_ *testing.T, _ identityEnv, ca *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.CaCertificate = new(ca.PEM + ca.PEM)
		}, code: "CertificateValidationException", status: 400, text: "2 PEM blocks"},
		{name: "DEFAULT without verification certificate", edit: func(_ *testing.T, _ identityEnv, _ *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.VerificationCertificate = nil
		}, code: "InvalidRequestException", status: 400, text: "DEFAULT needs a verification certificate"},
		{name: "SNI_ONLY with verification certificate", edit: func(_ *testing.T, _ identityEnv, _ *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.CertificateMode = "SNI_ONLY"
		}, code: "InvalidRequestException", status: 400, text: "SNI_ONLY takes no verification certificate"},
		{name: "SNI_ONLY with a verification certificate that is none", edit: func(_ *testing.T, _ identityEnv, _ *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.CertificateMode, in.VerificationCertificate = "SNI_ONLY", new("hello")
		}, code: "InvalidRequestException", status: 400, text: "SNI_ONLY takes no verification certificate"},
		{name: "an unknown mode", edit: func(_ *testing.T, _ identityEnv, _ *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.CertificateMode = "OTHER"
		},
			code: "InvalidRequestException", status: 400, text: "certificateMode"},
		{name: "the verification certificate is no PEM", edit: func(_ *testing.T, _ identityEnv, _ *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.VerificationCertificate = new("hello")
		}, code: "CertificateValidationException", status: 400, text: "verificationCertificate: "},
		{name: "no basicConstraints CA:TRUE", ca: edited(func(c *x509.Certificate) { c.IsCA = false }),
			code: "CertificateValidationException", status: 400, text: "CA:TRUE"},
		{name: "expired", ca: edited(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
			code: "CertificateValidationException", status: 400, text: "valid until"},
		{name: "not yet valid", ca: edited(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }),
			code: "CertificateValidationException", status: 400, text: "valid from"},
		{name: "RSA of 1024 bits", ca: func(t *testing.T) *iottest.CA {
			key, err := rsa.GenerateKey(rand.Reader, 1024)
			if err != nil {
				t.Fatal(err)
			}
			return iottest.NewCAWithKey(t, key, "Factory")
		}, code: "CertificateValidationException", status: 400, text: "1024 bits"},
		{name: "the verification certificate is another CA's of the same name", edit: func(t *testing.T, e identityEnv, _ *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.VerificationCertificate = new(iottest.NewCA(t, "Factory").LeafPEM(t, e.code(t)))
		}, code: "CertificateValidationException", status: 400, text: "didn't sign the verification certificate"},
		{name: "the verification certificate is another CA's of another name", edit: func(t *testing.T, e identityEnv, _ *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.VerificationCertificate = new(iottest.NewCA(t, "Other").LeafPEM(t, e.code(t)))
		}, code: "CertificateValidationException", status: 400, text: "Other"},
		{name: "the common name isn't the code", edit: func(t *testing.T, _ identityEnv, ca *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.VerificationCertificate = new(ca.LeafPEM(t, "hello"))
		}, code: "RegistrationCodeValidationException", status: 400, text: `"hello"`},
		{name: "the common name is another account's code", edit: func(t *testing.T, e identityEnv, ca *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.VerificationCertificate = new(ca.LeafPEM(t, e.another().code(t)))
		}, code: "RegistrationCodeValidationException", status: 400, text: "not this tenant's registration code"},
		{name: "the code was deleted", edit: func(t *testing.T, e identityEnv, _ *iottest.CA, _ *sdk.RegisterCACertificateInput) {
			_, err := e.client.DeleteRegistrationCode(t.Context(), &sdk.DeleteRegistrationCodeInput{})
			if err != nil {
				t.Fatal(err)
			}
		}, code: "RegistrationCodeValidationException", status: 400, text: "no registration code yet"},
		{name: "a template that isn't there", edit: config(types.RegistrationConfig{TemplateName: new("missing")}),
			code: "ResourceNotFoundException", status: 404, text: "missing"},
		{name: "a fleet template", edit: func(t *testing.T, e identityEnv, _ *iottest.CA, in *sdk.RegisterCACertificateInput) {
			e.putTemplate(t, "fleet", imprint.TemplateFleet)
			in.RegistrationConfig = &types.RegistrationConfig{TemplateName: new("fleet")}
		}, code: "InvalidRequestException", status: 400, text: "FLEET_PROVISIONING"},
		{name: "template body and name", edit: config(types.RegistrationConfig{TemplateBody: new(jitpTemplate), RoleArn: new(testRole), TemplateName: new("jitp")}),
			code: "InvalidRequestException", status: 400, text: "both templateBody and templateName"},
		{name: "a template body without role", edit: config(types.RegistrationConfig{TemplateBody: new(jitpTemplate)}),
			code: "InvalidRequestException", status: 400, text: "without roleArn"},
		{name: "a role that is none", edit: config(types.RegistrationConfig{TemplateBody: new(jitpTemplate), RoleArn: new("arn:aws:s3:::bucket/provisioning")}),
			code: "InvalidRequestException", status: 400, text: "isn't the ARN of a role"},
		{name: "an empty config", edit: config(types.RegistrationConfig{}),
			code: "InvalidRequestException", status: 400, text: "neither templateBody nor templateName"},
		{name: "a template body that is no template, named by line, column and member", edit: config(types.RegistrationConfig{RoleArn: new(testRole),
			TemplateBody: new("{\"Parameters\": {},\n \"Resources\": {\"thing\": {\"Type\": \"AWS::IoT::Thing\", \"Properties\": {\"ThingName\": {\"Ref\": \"Nothing\"}}}}}")}),
			code: "InvalidRequestException", status: 400, text: "line 2, column "},
		{name: "a tag of AWS's own", edit: func(_ *testing.T, _ identityEnv, _ *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.Tags = tags("AWS:thing", "1")
		}, code: "InvalidRequestException", status: 400, text: "reserved"},
		{name: "a tag twice", edit: func(_ *testing.T, _ identityEnv, _ *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.Tags = tags("line", "1", "line", "2")
		}, code: "InvalidRequestException", status: 400, text: "twice"},
		{name: "51 tags", edit: func(_ *testing.T, _ identityEnv, _ *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.Tags = manyTags(51)
		},
			code: "LimitExceededException", status: 410, text: "51 tags"},
		{name: "a first-connection tag that is neither hold nor close", edit: func(_ *testing.T, _ identityEnv, _ *iottest.CA, in *sdk.RegisterCACertificateInput) {
			in.Tags = tags(imprint.FirstConnectionTag, "maybe")
		}, code: "InvalidRequestException", status: 400, text: "hold or close"},
	} {
		t.Run(row.name, func(t *testing.T) {
			tenant := server.NewTenant()
			e := identityEnv{Server: server, tenant: tenant, client: server.Client(tenant)}
			ca := iottest.NewCA(t, "Factory")
			if row.ca != nil {
				ca = row.ca(t)
			}
			in := e.registration(t, ca)
			if row.edit != nil {
				row.edit(t, e, ca, in)
			}
			_, err := e.client.RegisterCACertificate(t.Context(), in)
			iottest.WantRefusal(t, err, row.code, row.status, row.text)
			if got := e.listCAs(t, sdk.ListCACertificatesInput{}); len(got) != 0 {
				t.Errorf("got CAs %q after the refusal, want none", got)
			}
		})
	}
}

func TestRegisterCABesideOthers(t *testing.T) {
	t.Parallel()
	checkIdentityRules(t, []identityRule{
		{"the registration code counts in either case", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			e.register(t, ca, func(in *sdk.RegisterCACertificateInput) {
				in.VerificationCertificate = new(ca.LeafPEM(t, strings.ToUpper(e.code(t))))
			})
		}},
		{"the same CA twice names the first", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			id := e.register(t, ca)
			for _, mode := range []func(*sdk.RegisterCACertificateInput){active, sniOnly} {
				in := e.registration(t, ca)
				mode(in)
				_, err := e.client.RegisterCACertificate(t.Context(), in)
				wantExisting(t, err, id, e.tenant.CACertificateARN(imprint.CertificateID(id)))
			}
		}},
		{"mode DEFAULT is for one account of a region", func(t *testing.T, e identityEnv) {
			ca, other := iottest.NewCA(t, "Factory"), e.another()
			id := e.register(t, ca)
			_, err := other.client.RegisterCACertificate(t.Context(), other.registration(t, ca))
			wantExisting(t, err, id, "")
			if strings.Contains(err.Error(), string(e.tenant.Account)) {
				t.Errorf("the refusal %q names the other account", err)
			}
		}},
		{"mode DEFAULT is for each region", func(t *testing.T, e identityEnv) {
			ca, elsewhere := iottest.NewCA(t, "Factory"), e.tenant
			elsewhere.Region = "eu-west-1"
			e.register(t, ca)
			identityEnv{Server: e.Server, tenant: elsewhere, client: e.Client(elsewhere)}.register(t, ca)
		}},
		{"mode SNI_ONLY is for any number of accounts, beside one in DEFAULT", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			e.another().register(t, ca, sniOnly)
			e.register(t, ca)
			id := e.another().register(t, ca, sniOnly)
			third := e.another()
			third.register(t, ca, sniOnly)
			if got := third.describeCA(t, id).CertificateDescription.CertificateMode; got != "SNI_ONLY" {
				t.Errorf("got mode %s, want SNI_ONLY", got)
			}
		}},
		{"SNI_ONLY needs no registration code", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			_, err := e.client.RegisterCACertificate(t.Context(), &sdk.RegisterCACertificateInput{CaCertificate: &ca.PEM, CertificateMode: "SNI_ONLY"})
			iottest.WantRefusal(t, err, "", 0, "")
		}},
		{"ten of one subject and not more", func(t *testing.T, e identityEnv) {
			for range imprint.MaxCAsPerSubject {
				e.register(t, iottest.NewCA(t, "Factory"), sniOnly)
			}
			_, err := e.client.RegisterCACertificate(t.Context(), e.registration(t, iottest.NewCA(t, "Factory")))
			iottest.WantRefusal(t, err, "LimitExceededException", 410, "10 CA certificates")
			e.register(t, iottest.NewCA(t, "Factory 2"))
			e.another().register(t, iottest.NewCA(t, "Factory"))
		}},
		{"an intermediate CA is accepted", func(t *testing.T, e identityEnv) {
			root := iottest.NewCA(t, "Root")
			key := iottest.NewKey(t)
			cert, text := root.LeafOf(t, key.Public(), "Intermediate", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign })
			e.register(t, &iottest.CA{Certificate: cert, PEM: text, Key: key})
		}},
		{"a named template is kept", func(t *testing.T, e identityEnv) {
			e.putTemplate(t, "jitp", imprint.TemplateJITP)
			id := e.register(t, iottest.NewCA(t, "Factory"), func(in *sdk.RegisterCACertificateInput) {
				in.RegistrationConfig = &types.RegistrationConfig{TemplateName: new("jitp")}
			})
			e.wantConfig(t, id, &types.RegistrationConfig{TemplateName: new("jitp")})
		}},
		{"fifty tags are kept", func(t *testing.T, e identityEnv) {
			id := e.register(t, iottest.NewCA(t, "Factory"), func(in *sdk.RegisterCACertificateInput) { in.Tags = manyTags(50) })
			e.wantTags(t, e.tenant.CACertificateARN(imprint.CertificateID(id)), manyTags(50)...)
		}},
	})
}

// wantExisting wants a refusal that names the resource that is there.
func wantExisting(t *testing.T, err error, id, arn string) {
	t.Helper()
	iottest.WantRefusal(t, err, "ResourceAlreadyExistsException", 409, "already")
	var exists *types.ResourceAlreadyExistsException
	if !errors.As(err, &exists) {
		t.Fatalf("got %v, want a ResourceAlreadyExistsException", err)
	}
	deref := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	if deref(exists.ResourceId) != id || deref(exists.ResourceArn) != arn {
		t.Errorf("got resource %q, %q, want %q, %q", deref(exists.ResourceId), deref(exists.ResourceArn), id, arn)
	}
}

// tags makes tags of keys and values in turn.
func tags(pairs ...string) []types.Tag {
	var out []types.Tag
	for i := 0; i+1 < len(pairs); i += 2 {
		out = append(out, types.Tag{Key: &pairs[i], Value: &pairs[i+1]})
	}
	return out
}

func manyTags(n int) []types.Tag {
	var out []types.Tag
	for i := range n {
		out = append(out, tags(fmt.Sprintf("key-%02d", i), "value")...)
	}
	return out
}
