package iot_test

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

const (
	testRole     = "arn:aws:iam::123456789012:role/provisioning"
	jitpTemplate = `{"Parameters": {"AWS::IoT::Certificate::CommonName": {"Type": "String"}},
 "Resources": {"thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"}}},
  "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}}}}`
)

func (e identityEnv) putTemplate(t *testing.T, name imprint.TemplateName, kind imprint.TemplateType) {
	t.Helper()
	now := e.Clock.Now()
	e.Put(t, func(tx imprint.Tx) error {
		return tx.PutTemplate(imprint.ProvisioningTemplate{Tenant: e.tenant, Name: name, Type: kind, Enabled: true, RoleARN: testRole,
			DefaultVersion: 1, LastVersion: 1, CreatedAt: now, ModifiedAt: now})
	})
}

func TestRegistrationCode(t *testing.T) {
	t.Parallel()
	hex := regexp.MustCompile(`^[0-9a-f]{64}$`)
	checkIdentityRules(t, []identityRule{
		{"it is 64 lower-case hex digits and stays", func(t *testing.T, e identityEnv) {
			first, second := e.code(t), e.code(t)
			if !hex.MatchString(first) || first != second {
				t.Errorf("got %q, then %q", first, second)
			}
		}},
		{"each tenant has its own", func(t *testing.T, e identityEnv) {
			elsewhere := e.tenant
			elsewhere.Region = "eu-west-1"
			other := identityEnv{Server: e.Server, tenant: elsewhere, client: e.Client(elsewhere)}
			codes := map[string]bool{e.code(t): true, e.another().code(t): true, other.code(t): true}
			if len(codes) != 3 {
				t.Errorf("got %d different codes, want 3", len(codes))
			}
		}},
		{"after deletion the next one is another", func(t *testing.T, e identityEnv) {
			first := e.code(t)
			_, err := e.client.DeleteRegistrationCode(t.Context(), &sdk.DeleteRegistrationCodeInput{})
			if err != nil {
				t.Fatalf("DeleteRegistrationCode: %v", err)
			}
			if second := e.code(t); second == first {
				t.Errorf("got %q again", second)
			}
		}},
		{"deleting one that isn't there is refused and makes no tenant", func(t *testing.T, e identityEnv) {
			_, err := e.client.DeleteRegistrationCode(t.Context(), &sdk.DeleteRegistrationCodeInput{})
			iottest.WantRefusal(t, err, "ResourceNotFoundException", 404, "no registration code")
			e.View(t, func(tx imprint.ReadTx) error {
				_, err := tx.TenantSettings(e.tenant)
				if imprint.CodeOf(err) != imprint.CodeNotFound {
					t.Errorf("got settings with %v, want none", err)
				}
				return nil
			})
		}},
		{"making the code keeps the endpoint", func(t *testing.T, e identityEnv) {
			before, err := e.client.DescribeEndpoint(t.Context(), &sdk.DescribeEndpointInput{})
			if err != nil {
				t.Fatalf("DescribeEndpoint: %v", err)
			}
			e.code(t)
			after, err := e.client.DescribeEndpoint(t.Context(), &sdk.DescribeEndpointInput{})
			if err != nil || *after.EndpointAddress != *before.EndpointAddress {
				t.Errorf("got %v, %v, want %s", after, err, *before.EndpointAddress)
			}
		}},
	})
}

func TestRegisteredCA(t *testing.T) {
	t.Parallel()
	checkIdentityRules(t, []identityRule{
		{"it is INACTIVE, without auto-registration, DEFAULT, and described in full", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			id := e.register(t, ca)
			got := e.describeCA(t, id)
			now := e.Clock.Now()
			want := &types.CACertificateDescription{
				CertificateArn: new(e.tenant.CACertificateARN(imprint.CertificateID(id))), CertificateId: &id, CertificatePem: &ca.PEM,
				Status: "INACTIVE", AutoRegistrationStatus: "DISABLE", CertificateMode: "DEFAULT", OwnedBy: new(string(e.tenant.Account)),
				CreationDate: &now, LastModifiedDate: &now, CustomerVersion: new(int32(1)), GenerationId: got.CertificateDescription.GenerationId,
				Validity: &types.CertificateValidity{NotBefore: &ca.Certificate.NotBefore, NotAfter: &ca.Certificate.NotAfter},
			}
			if diff := cmp.Diff(want, got.CertificateDescription, cmp.AllowUnexported(types.CACertificateDescription{}, types.CertificateValidity{})); diff != "" {
				t.Errorf("description differs (-want +got):\n%s", diff)
			}
			if got.RegistrationConfig != nil || len(*got.CertificateDescription.GenerationId) == 0 {
				t.Errorf("got config %+v and generation %q, want none and one", got.RegistrationConfig, *got.CertificateDescription.GenerationId)
			}
		}},
		{"setAsActive and allowAutoRegistration count", func(t *testing.T, e identityEnv) {
			id := e.register(t, iottest.NewCA(t, "Factory"), active, func(in *sdk.RegisterCACertificateInput) { in.AllowAutoRegistration = true })
			got := e.describeCA(t, id).CertificateDescription
			if got.Status != "ACTIVE" || got.AutoRegistrationStatus != "ENABLE" {
				t.Errorf("got %s, %s, want ACTIVE, ENABLE", got.Status, got.AutoRegistrationStatus)
			}
		}},
		{"it is found by an id in upper case", func(t *testing.T, e identityEnv) {
			id := e.register(t, iottest.NewCA(t, "Factory"))
			if got := *e.describeCA(t, upper(id)).CertificateDescription.CertificateId; got != id {
				t.Errorf("got %s, want %s", got, id)
			}
		}},
		{"an unknown one isn't found", func(t *testing.T, e identityEnv) {
			_, err := e.client.DescribeCACertificate(t.Context(), &sdk.DescribeCACertificateInput{CertificateId: new(unknownID)})
			iottest.WantRefusal(t, err, "ResourceNotFoundException", 404, unknownID)
		}},
		{"another account doesn't see it", func(t *testing.T, e identityEnv) {
			id := e.register(t, iottest.NewCA(t, "Factory"))
			_, err := e.another().client.DescribeCACertificate(t.Context(), &sdk.DescribeCACertificateInput{CertificateId: &id})
			iottest.WantRefusal(t, err, "ResourceNotFoundException", 404, id)
		}},
		{"an ACTIVE one isn't deleted, an INACTIVE one is, once", func(t *testing.T, e identityEnv) {
			id := e.register(t, iottest.NewCA(t, "Factory"), active)
			_, err := e.client.DeleteCACertificate(t.Context(), &sdk.DeleteCACertificateInput{CertificateId: &id})
			iottest.WantRefusal(t, err, "CertificateStateException", 406, id)
			e.updateCA(t, id, func(in *sdk.UpdateCACertificateInput) { in.NewStatus = "INACTIVE" })
			_, err = e.client.DeleteCACertificate(t.Context(), &sdk.DeleteCACertificateInput{CertificateId: &id})
			iottest.WantRefusal(t, err, "", 0, "")
			_, err = e.client.DeleteCACertificate(t.Context(), &sdk.DeleteCACertificateInput{CertificateId: &id})
			iottest.WantRefusal(t, err, "ResourceNotFoundException", 404, id)
		}},
		{"its tags go with it", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			id := e.register(t, ca, func(in *sdk.RegisterCACertificateInput) { in.Tags = tags("line", "7") })
			_, err := e.client.DeleteCACertificate(t.Context(), &sdk.DeleteCACertificateInput{CertificateId: &id})
			iottest.WantRefusal(t, err, "", 0, "")
			e.register(t, ca)
			e.wantTags(t, e.tenant.CACertificateARN(imprint.CertificateID(id)))
		}},
	})
}

func TestUpdateCA(t *testing.T) {
	t.Parallel()
	checkIdentityRules(t, []identityRule{
		{"status and auto-registration change apart from each other", func(t *testing.T, e identityEnv) {
			id := e.register(t, iottest.NewCA(t, "Factory"))
			later := e.Clock.Advance(time.Minute)
			e.updateCA(t, id, func(in *sdk.UpdateCACertificateInput) { in.NewStatus = "ACTIVE" })
			got := e.describeCA(t, id).CertificateDescription
			if got.Status != "ACTIVE" || got.AutoRegistrationStatus != "DISABLE" || *got.CustomerVersion != 2 || !got.LastModifiedDate.Equal(later) {
				t.Errorf("got %+v, want ACTIVE, DISABLE, version 2 at %s", got, later)
			}
			e.updateCA(t, id, func(in *sdk.UpdateCACertificateInput) { in.NewAutoRegistrationStatus = "ENABLE" })
			got = e.describeCA(t, id).CertificateDescription
			if got.Status != "ACTIVE" || got.AutoRegistrationStatus != "ENABLE" || *got.CustomerVersion != 3 {
				t.Errorf("got %+v, want ACTIVE, ENABLE, version 3", got)
			}
		}},
		{"asking for what is so changes nothing", func(t *testing.T, e identityEnv) {
			id := e.register(t, iottest.NewCA(t, "Factory"))
			before := e.describeCA(t, id).CertificateDescription
			e.updateCA(t, id, func(in *sdk.UpdateCACertificateInput) {
				in.NewStatus, in.NewAutoRegistrationStatus = "INACTIVE", "DISABLE"
			})
			e.updateCA(t, id)
			if after := e.describeCA(t, id).CertificateDescription; *after.GenerationId != *before.GenerationId || *after.CustomerVersion != 1 {
				t.Errorf("got %+v, want generation %s", after, *before.GenerationId)
			}
		}},
		{"registrationConfig is replaced and removed, auto-registration stays", func(t *testing.T, e identityEnv) {
			e.putTemplate(t, "jitp", imprint.TemplateJITP)
			id := e.register(t, iottest.NewCA(t, "Factory"), func(in *sdk.RegisterCACertificateInput) {
				in.AllowAutoRegistration = true
				in.RegistrationConfig = &types.RegistrationConfig{TemplateBody: new(jitpTemplate), RoleArn: new(testRole)}
			})
			e.wantConfig(t, id, &types.RegistrationConfig{TemplateBody: new(jitpTemplate), RoleArn: new(testRole)})
			e.updateCA(t, id, func(in *sdk.UpdateCACertificateInput) {
				in.RegistrationConfig = &types.RegistrationConfig{TemplateName: new("jitp")}
			})
			e.wantConfig(t, id, &types.RegistrationConfig{TemplateName: new("jitp")})
			e.updateCA(t, id, func(in *sdk.UpdateCACertificateInput) { in.RemoveAutoRegistration = true })
			e.wantConfig(t, id, nil)
			if got := e.describeCA(t, id).CertificateDescription.AutoRegistrationStatus; got != "ENABLE" {
				t.Errorf("got auto-registration %s, want ENABLE", got)
			}
		}},
		{"an unknown CA isn't found", func(t *testing.T, e identityEnv) {
			_, err := e.client.UpdateCACertificate(t.Context(), &sdk.UpdateCACertificateInput{CertificateId: new(unknownID), NewStatus: "ACTIVE"})
			iottest.WantRefusal(t, err, "ResourceNotFoundException", 404, unknownID)
		}},
		{"an unknown status is refused", func(t *testing.T, e identityEnv) {
			id := e.register(t, iottest.NewCA(t, "Factory"))
			_, err := e.client.UpdateCACertificate(t.Context(), &sdk.UpdateCACertificateInput{CertificateId: &id, NewStatus: "REVOKED"})
			iottest.WantRefusal(t, err, "InvalidRequestException", 400, "newStatus")
		}},
		{"a bad config changes nothing, not even the status beside it", func(t *testing.T, e identityEnv) {
			id := e.register(t, iottest.NewCA(t, "Factory"))
			_, err := e.client.UpdateCACertificate(t.Context(), &sdk.UpdateCACertificateInput{CertificateId: &id, NewStatus: "ACTIVE",
				RegistrationConfig: &types.RegistrationConfig{TemplateName: new("missing")}})
			iottest.WantRefusal(t, err, "ResourceNotFoundException", 404, "missing")
			if got := e.describeCA(t, id).CertificateDescription.Status; got != "INACTIVE" {
				t.Errorf("got %s, want INACTIVE", got)
			}
		}},
		{"replacing and removing the config at once is refused", func(t *testing.T, e identityEnv) {
			id := e.register(t, iottest.NewCA(t, "Factory"))
			_, err := e.client.UpdateCACertificate(t.Context(), &sdk.UpdateCACertificateInput{CertificateId: &id, RemoveAutoRegistration: true,
				RegistrationConfig: &types.RegistrationConfig{TemplateBody: new(jitpTemplate), RoleArn: new(testRole)}})
			iottest.WantRefusal(t, err, "InvalidRequestException", 400, "removeAutoRegistration")
		}},
	})
}

func TestListCAs(t *testing.T) {
	t.Parallel()
	checkIdentityRules(t, []identityRule{
		{"newest first in pages, or oldest first", func(t *testing.T, e identityEnv) {
			var want []string
			for i := range 5 {
				e.Clock.Advance(time.Second)
				want = append(want, e.register(t, iottest.NewCA(t, fmt.Sprintf("Factory %d", i))))
			}
			for _, ascending := range []bool{true, false} {
				if got := e.listCAs(t, sdk.ListCACertificatesInput{PageSize: new(int32(2)), AscendingOrder: ascending}); !cmp.Equal(got, ordered(want, ascending)) {
					t.Errorf("ascending %t: got %q, want %q", ascending, got, ordered(want, ascending))
				}
			}
		}},
		{"by template", func(t *testing.T, e identityEnv) {
			e.putTemplate(t, "jitp", imprint.TemplateJITP)
			e.register(t, iottest.NewCA(t, "Plain"))
			id := e.register(t, iottest.NewCA(t, "With template"), func(in *sdk.RegisterCACertificateInput) {
				in.RegistrationConfig = &types.RegistrationConfig{TemplateName: new("jitp")}
			})
			if got := e.listCAs(t, sdk.ListCACertificatesInput{TemplateName: new("jitp")}); !cmp.Equal(got, []string{id}) {
				t.Errorf("got %q, want %q", got, id)
			}
			if got := e.listCAs(t, sdk.ListCACertificatesInput{TemplateName: new("other")}); len(got) != 0 {
				t.Errorf("got %q, want none", got)
			}
		}},
		{"a marker that no list gave is refused", func(t *testing.T, e identityEnv) {
			_, err := e.client.ListCACertificates(t.Context(), &sdk.ListCACertificatesInput{Marker: new("bm9uc2Vuc2U=")})
			iottest.WantRefusal(t, err, "InvalidRequestException", 400, "")
		}},
		{"a page of 0 or 251 is refused", func(t *testing.T, e identityEnv) {
			for _, size := range []int32{0, 251} {
				_, err := e.client.ListCACertificates(t.Context(), &sdk.ListCACertificatesInput{PageSize: &size})
				iottest.WantRefusal(t, err, "InvalidRequestException", 400, "pageSize")
			}
		}},
	})
}

func (e identityEnv) updateCA(t *testing.T, id string, edits ...func(*sdk.UpdateCACertificateInput)) {
	t.Helper()
	in := &sdk.UpdateCACertificateInput{CertificateId: &id}
	for _, edit := range edits {
		edit(in)
	}
	_, err := e.client.UpdateCACertificate(t.Context(), in)
	if err != nil {
		t.Fatalf("UpdateCACertificate: %v", err)
	}
}

func (e identityEnv) wantConfig(t *testing.T, id string, want *types.RegistrationConfig) {
	t.Helper()
	got := e.describeCA(t, id).RegistrationConfig
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(types.RegistrationConfig{})); diff != "" {
		t.Errorf("registrationConfig differs (-want +got):\n%s", diff)
	}
}

func (e identityEnv) listCAs(t *testing.T, in sdk.ListCACertificatesInput) []string {
	t.Helper()
	ids := []string{}
	pages := sdk.NewListCACertificatesPaginator(e.client, &in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatalf("ListCACertificates: %v", err)
		}
		for _, ca := range page.Certificates {
			ids = append(ids, *ca.CertificateId)
		}
	}
	return ids
}
