package iot_test

import (
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

// identityEnv is what a rule is checked in: a tenant of its own on a server that
// all rules of a test share.
type identityEnv struct {
	*iottest.Server
	tenant imprint.Tenant
	client *sdk.Client
}

// identityRule is one rule of the API and the check that it holds.
type identityRule struct {
	name  string
	check func(t *testing.T, e identityEnv)
}

func checkIdentityRules(t *testing.T, rules []identityRule) {
	t.Helper()
	server := iottest.Start(t)
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			tenant := server.NewTenant()
			rule.check(t, identityEnv{Server: server, tenant: tenant, client: server.Client(tenant)})
		})
	}
}

// another gives the environment of a second account in the region.
func (e identityEnv) another() identityEnv {
	tenant := e.NewTenant()
	return identityEnv{Server: e.Server, tenant: tenant, client: e.Client(tenant)}
}

// code gives the tenant's registration code.
func (e identityEnv) code(t *testing.T) string {
	t.Helper()
	out, err := e.client.GetRegistrationCode(t.Context(), &sdk.GetRegistrationCodeInput{})
	if err != nil {
		t.Fatalf("GetRegistrationCode: %v", err)
	}
	return *out.RegistrationCode
}

// registration is a request that registers a CA in mode DEFAULT and succeeds.
func (e identityEnv) registration(t *testing.T, ca *iottest.CA) *sdk.RegisterCACertificateInput {
	t.Helper()
	return &sdk.RegisterCACertificateInput{CaCertificate: &ca.PEM, VerificationCertificate: new(ca.LeafPEM(t, e.code(t)))}
}

// register registers a CA and gives its id.
func (e identityEnv) register(t *testing.T, ca *iottest.CA, edits ...func(*sdk.RegisterCACertificateInput)) string {
	t.Helper()
	in := e.registration(t, ca)
	for _, edit := range edits {
		edit(in)
	}
	out, err := e.client.RegisterCACertificate(t.Context(), in)
	if err != nil {
		t.Fatalf("RegisterCACertificate: %v", err)
	}
	return *out.CertificateId
}

func active(in *sdk.RegisterCACertificateInput) { in.SetAsActive = true }

func sniOnly(in *sdk.RegisterCACertificateInput) {
	in.CertificateMode, in.VerificationCertificate = "SNI_ONLY", nil
}

func (e identityEnv) describeCA(t *testing.T, id string) *sdk.DescribeCACertificateOutput {
	t.Helper()
	out, err := e.client.DescribeCACertificate(t.Context(), &sdk.DescribeCACertificateInput{CertificateId: &id})
	if err != nil {
		t.Fatalf("DescribeCACertificate: %v", err)
	}
	return out
}

func (e identityEnv) describe(t *testing.T, id string) *sdk.DescribeCertificateOutput {
	t.Helper()
	out, err := e.client.DescribeCertificate(t.Context(), &sdk.DescribeCertificateInput{CertificateId: &id})
	if err != nil {
		t.Fatalf("DescribeCertificate: %v", err)
	}
	return out
}

// unknownID is the id of no certificate.
const unknownID = "0000000000000000000000000000000000000000000000000000000000000001"

func upper(s string) string { return strings.ToUpper(s) }

// ordered gives ids that are oldest first in the order of a list.
func ordered(oldestFirst []string, ascending bool) []string {
	ids := slices.Clone(oldestFirst)
	if !ascending {
		slices.Reverse(ids)
	}
	return ids
}

// wantTags wants exactly these tags, given in the order of their keys.
func (e identityEnv) wantTags(t *testing.T, arn string, want ...types.Tag) {
	t.Helper()
	out, err := e.client.ListTagsForResource(t.Context(), &sdk.ListTagsForResourceInput{ResourceArn: &arn})
	if err != nil {
		t.Fatalf("ListTagsForResource: %v", err)
	}
	if diff := cmp.Diff(want, out.Tags, cmp.AllowUnexported(types.Tag{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("tags of %s differ (-want +got):\n%s", arn, diff)
	}
}
