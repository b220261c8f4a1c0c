package iot_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

// bulkBody is a template of RegisterThing whose certificate comes from source.
func bulkBody(source, policy string) string {
	return `{"Parameters":{"Name":{"Type":"String"},"Source":{"Type":"String"}},"Resources":{
	"device":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Name"},"AttributePayload":{"line":"3"}}},
	"identity":{"Type":"AWS::IoT::Certificate","Properties":{"` + source + `":{"Ref":"Source"},"Status":"ACTIVE"}},
	"rights":{"Type":"AWS::IoT::Policy","Properties":{` + policy + `}}}}`
}

const inlinePolicy = `"PolicyDocument":"{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"iot:Connect\",\"Resource\":\"*\"}]}"`

func TestRegisterThingMakesADeviceOfACSRAndFindsItAgainByItsID(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	tenant := server.NewTenant()
	client := server.Client(tenant)
	request := func(source, value, policy string) (*sdk.RegisterThingOutput, error) {
		return client.RegisterThing(t.Context(), &sdk.RegisterThingInput{
			TemplateBody: aws.String(bulkBody(source, policy)), Parameters: map[string]string{"Name": "unit-1", "Source": value},
		})
	}
	// A policy that is missing comes after the thing: nothing may stay behind.
	_, err := request("CertificateSigningRequest", iottest.NewCSR(t, iottest.NewKey(t), pkix.Name{CommonName: "unit-1"}), `"PolicyName":"absent"`)
	iottest.WantRefusal(t, err, "ResourceRegistrationFailureException", 400, "")
	_, err = client.DescribeThing(t.Context(), &sdk.DescribeThingInput{ThingName: aws.String("unit-1")})
	iottest.WantRefusal(t, err, "ResourceNotFoundException", 404, "")

	out, err := request("CertificateSigningRequest", iottest.NewCSR(t, iottest.NewKey(t), pkix.Name{CommonName: "unit-1"}), inlinePolicy)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := out.ResourceArns["device"], tenant.ThingARN("unit-1"); got != want {
		t.Errorf("ARN of the thing: got %q, want %q", got, want)
	}
	arn := out.ResourceArns["identity"]
	id := arn[strings.LastIndexByte(arn, '/')+1:]
	described, err := client.DescribeCertificate(t.Context(), &sdk.DescribeCertificateInput{CertificateId: aws.String(id)})
	if err != nil || described.CertificateDescription.Status != types.CertificateStatusActive ||
		aws.ToString(described.CertificateDescription.CertificatePem) != aws.ToString(out.CertificatePem) {
		t.Errorf("certificate: got %+v, %v", described, err)
	}
	if !strings.Contains(out.ResourceArns["rights"], ":policy/") {
		t.Errorf("ARNs: got %v", out.ResourceArns)
	}
	again, err := request("CertificateId", id, inlinePolicy)
	if err != nil || again.ResourceArns["identity"] != arn {
		t.Errorf("the same device by its certificate's id: got %+v, %v", again, err)
	}
	stranger := iottest.NewCA(t, "nobody registered it").LeafPEM(t, "unit-1")
	_, err = request("CertificatePem", stranger, inlinePolicy)
	iottest.WantRefusal(t, err, "ResourceRegistrationFailureException", 400, "")
	_, err = request("CertificateId", strings.Repeat("0", 64), inlinePolicy)
	iottest.WantRefusal(t, err, "ResourceRegistrationFailureException", 400, "")
	_, err = client.RegisterThing(t.Context(), &sdk.RegisterThingInput{TemplateBody: aws.String(bulkBody("CertificateId", inlinePolicy))})
	iottest.WantRefusal(t, err, "InvalidRequestException", 400, "")
	if !strings.Contains(err.Error(), "Invalid registration template. Cannot resolve reference value: {Ref=Name}") {
		t.Errorf("message: got %v", err)
	}
}

func TestAProvisioningClaimIsForAnEnabledFleetTemplate(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	tenant := server.NewTenant()
	client := server.Client(tenant)
	claim := func() (*sdk.CreateProvisioningClaimOutput, error) {
		return client.CreateProvisioningClaim(t.Context(), &sdk.CreateProvisioningClaimInput{TemplateName: aws.String("sensors")})
	}
	_, err := claim()
	iottest.WantRefusal(t, err, "ResourceNotFoundException", 404, "")
	server.Put(t, func(tx imprint.Tx) error {
		return tx.PutTemplate(imprint.ProvisioningTemplate{Tenant: tenant, Name: "sensors", Type: imprint.TemplateFleet})
	})
	_, err = claim()
	iottest.WantRefusal(t, err, "InvalidRequestException", 400, "")
	server.Put(t, func(tx imprint.Tx) error {
		return tx.PutTemplate(imprint.ProvisioningTemplate{Tenant: tenant, Name: "sensors", Type: imprint.TemplateFleet, Enabled: true})
	})
	out, err := claim()
	if err != nil {
		t.Fatal(err)
	}
	if got := out.Expiration.Sub(server.Clock.Now()); got > 5*time.Minute || got < 4*time.Minute || out.KeyPair == nil || aws.ToString(out.CertificatePem) == "" {
		t.Errorf("claim: got %+v, good for %s", out, got)
	}
	_, err = client.DescribeCertificate(t.Context(), &sdk.DescribeCertificateInput{CertificateId: out.CertificateId})
	iottest.WantRefusal(t, err, "ResourceNotFoundException", 404, "")
	server.View(t, func(tx imprint.ReadTx) error {
		made, err := tx.ProvisioningClaim(tenant, imprint.CertificateID(aws.ToString(out.CertificateId)))
		if !strings.HasPrefix(made.RequestedBy, "arn:aws:iam::"+string(tenant.Account)) {
			t.Errorf("who asked: got %q", made.RequestedBy)
		}
		return err
	})
}

func TestAnAccountHasOneCertificateProvider(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	tenant := server.NewTenant()
	client := server.Client(tenant)
	function := tenant.FunctionARN("signer")
	const foreign = "arn:aws:lambda:us-east-1:000000000000:function:signer"
	create := func(name, arn string) error {
		_, err := client.CreateCertificateProvider(t.Context(), &sdk.CreateCertificateProviderInput{
			CertificateProviderName: aws.String(name), LambdaFunctionArn: aws.String(arn),
			AccountDefaultForOperations: []types.CertificateProviderOperation{types.CertificateProviderOperationCreateCertificateFromCsr},
		})
		return err
	}
	iottest.WantRefusal(t, create("one", "arn:aws:iam::000000000000:role/x"), "InvalidRequestException", 400, "")
	iottest.WantRefusal(t, create("one", foreign), "InvalidRequestException", 400, "isn't one of account")
	if err := create("one", function); err != nil {
		t.Fatal(err)
	}
	iottest.WantRefusal(t, create("one", function), "ResourceAlreadyExistsException", 409, "")
	iottest.WantRefusal(t, create("two", function), "LimitExceededException", 410, "")
	_, err := client.UpdateCertificateProvider(t.Context(), &sdk.UpdateCertificateProviderInput{
		CertificateProviderName: aws.String("one"), LambdaFunctionArn: aws.String(foreign),
	})
	iottest.WantRefusal(t, err, "InvalidRequestException", 400, "isn't one of account")
	_, err = client.UpdateCertificateProvider(t.Context(), &sdk.UpdateCertificateProviderInput{
		CertificateProviderName: aws.String("one"), LambdaFunctionArn: aws.String(function + "-2"),
	})
	if err != nil {
		t.Fatal(err)
	}
	described, err := client.DescribeCertificateProvider(t.Context(), &sdk.DescribeCertificateProviderInput{CertificateProviderName: aws.String("one")})
	if err != nil || aws.ToString(described.LambdaFunctionArn) != function+"-2" || len(described.AccountDefaultForOperations) != 1 {
		t.Errorf("DescribeCertificateProvider: got %+v, %v", described, err)
	}
	listed, err := client.ListCertificateProviders(t.Context(), &sdk.ListCertificateProvidersInput{})
	if err != nil || len(listed.CertificateProviders) != 1 {
		t.Errorf("ListCertificateProviders: got %+v, %v", listed, err)
	}
	for _, want := range []bool{true, false} {
		_, err = client.DeleteCertificateProvider(t.Context(), &sdk.DeleteCertificateProviderInput{CertificateProviderName: aws.String("one")})
		if (err == nil) != want {
			t.Errorf("DeleteCertificateProvider: got %v, want success %t", err, want)
		}
	}
	iottest.WantRefusal(t, err, "ResourceNotFoundException", 404, "")
}

// TestRegisterThingThatIsRefusedLeavesNothing goes through the failures of
// docs/register-thing.md: each has its exception, and what was made before it is
// gone. What another account has under the same names changes none of them.
func TestRegisterThingThatIsRefusedLeavesNothing(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	tenant, other := server.NewTenant(), server.NewTenant()
	client := server.Client(tenant)
	// All that the templates name is there in the other account.
	server.Put(t, func(tx imprint.Tx) error {
		return errors.Join(
			tx.PutThing(imprint.Thing{Tenant: other, Name: "unit-1"}),
			tx.PutPolicy(imprint.Policy{Tenant: other, Name: "absent", DefaultVersion: 1, LastVersion: 1}),
			tx.PutThingType(imprint.ThingType{Tenant: other, Name: "absent"}),
			tx.PutThingGroup(imprint.ThingGroup{Tenant: other, Name: "absent"}))
	})
	body := func(thing, certificate, policy string) string {
		return `{"Resources":{"device":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"unit-1"` + thing + `},"OverrideSettings":{"AttributePayload":"FAIL"}},
 "identity":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateSigningRequest":` + certificate + `,"Status":"ACTIVE"}},
 "rights":{"Type":"AWS::IoT::Policy","Properties":{` + policy + `}}}}`
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	quoted := func(csr string) string { return strconv.Quote(csr) }
	good := quoted(iottest.NewCSR(t, iottest.NewKey(t), pkix.Name{CommonName: "unit-1"}))
	for name, c := range map[string]struct{ body, code, text string }{
		"no template":        {"no JSON", "InvalidRequestException", "Invalid registration template"},
		"a missing resource": {`{"Resources":{}}`, "InvalidRequestException", "Invalid registration template"},
		"no CSR":             {body("", `"nonsense"`, inlinePolicy), "InvalidRequestException", ""},
		"a weak key":         {body("", quoted(iottest.NewCSR(t, weak, pkix.Name{CommonName: "unit-1"})), inlinePolicy), "InvalidRequestException", ""},
		"no such policy":     {body("", good, `"PolicyName":"absent"`), "ResourceRegistrationFailureException", "absent"},
		"no such type":       {body(`,"ThingTypeName":"absent"`, good, inlinePolicy), "ResourceRegistrationFailureException", "absent"},
		"no such group":      {body(`,"ThingGroups":["absent"]`, good, inlinePolicy), "ResourceRegistrationFailureException", "absent"},
	} {
		_, err := client.RegisterThing(t.Context(), &sdk.RegisterThingInput{TemplateBody: aws.String(c.body)})
		iottest.WantRefusal(t, err, c.code, 400, "")
		if !strings.Contains(fmt.Sprint(err), c.text) {
			t.Errorf("%s: got %v, want it to have %q", name, err, c.text)
		}
		things, err := client.ListThings(t.Context(), &sdk.ListThingsInput{})
		if err != nil || len(things.Things) > 0 {
			t.Errorf("%s: things after it: got %v, %v", name, things, err)
		}
		certificates, err := client.ListCertificates(t.Context(), &sdk.ListCertificatesInput{})
		if err != nil || len(certificates.Certificates) > 0 {
			t.Errorf("%s: certificates after it: got %v, %v", name, certificates, err)
		}
	}
	// The other account's thing of the name is no conflict; this account's is one.
	conflicting := body(`,"AttributePayload":{"line":"3"}`, good, inlinePolicy)
	_, err = client.RegisterThing(t.Context(), &sdk.RegisterThingInput{TemplateBody: aws.String(conflicting)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.RegisterThing(t.Context(), &sdk.RegisterThingInput{TemplateBody: aws.String(conflicting)})
	iottest.WantRefusal(t, err, "ConflictingResourceUpdateException", 409, "")
}
