package iot_test

import (
	"fmt"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

// without registers a fresh certificate without a CA and gives its id.
func (e identityEnv) without(t *testing.T, status types.CertificateStatus) string {
	t.Helper()
	out, err := e.client.RegisterCertificateWithoutCA(t.Context(), &sdk.RegisterCertificateWithoutCAInput{
		CertificatePem: new(iottest.NewCA(t, "Unregistered").LeafPEM(t, "device")), Status: status})
	if err != nil {
		t.Fatalf("RegisterCertificateWithoutCA: %v", err)
	}
	return *out.CertificateId
}

func (e identityEnv) update(t *testing.T, id string, status types.CertificateStatus) error {
	t.Helper()
	_, err := e.client.UpdateCertificate(t.Context(), &sdk.UpdateCertificateInput{CertificateId: &id, NewStatus: status})
	return err
}

// put changes a stored certificate, to states that the API doesn't lead to.
func (e identityEnv) put(t *testing.T, id string, change func(*imprint.Certificate)) {
	t.Helper()
	e.Put(t, func(tx imprint.Tx) error {
		cert, err := tx.Certificate(e.tenant, imprint.CertificateID(id))
		if err != nil {
			return err
		}
		change(&cert)
		return tx.PutCertificate(cert)
	})
}

func TestUpdateCertificate(t *testing.T) {
	t.Parallel()
	type status = types.CertificateStatus
	server := iottest.Start(t)
	for _, row := range []struct {
		from, to status
		code     string // empty: allowed
		http     int
	}{
		{"INACTIVE", "ACTIVE", "", 0},
		{"INACTIVE", "REVOKED", "", 0},
		{"INACTIVE", "INACTIVE", "", 0},
		{"ACTIVE", "INACTIVE", "", 0},
		{"ACTIVE", "REVOKED", "", 0},
		{"ACTIVE", "ACTIVE", "", 0},
		{"PENDING_ACTIVATION", "ACTIVE", "", 0},
		{"PENDING_ACTIVATION", "INACTIVE", "", 0},
		{"PENDING_ACTIVATION", "REVOKED", "", 0},
		{"REVOKED", "REVOKED", "", 0},
		{"REVOKED", "ACTIVE", "CertificateStateException", 406},
		{"REVOKED", "INACTIVE", "CertificateStateException", 406},
		{"PENDING_TRANSFER", "ACTIVE", "CertificateStateException", 406},
		{"ACTIVE", "PENDING_ACTIVATION", "InvalidRequestException", 400},
		{"PENDING_ACTIVATION", "PENDING_ACTIVATION", "InvalidRequestException", 400},
		{"ACTIVE", "PENDING_TRANSFER", "InvalidRequestException", 400},
		{"ACTIVE", "REGISTER_INACTIVE", "InvalidRequestException", 400},
		{"ACTIVE", "OTHER", "InvalidRequestException", 400},
	} {
		t.Run(fmt.Sprintf("%s to %s", row.from, row.to), func(t *testing.T) {
			tenant := server.NewTenant()
			e := identityEnv{Server: server, tenant: tenant, client: server.Client(tenant)}
			id := e.without(t, "INACTIVE")
			e.put(t, id, func(c *imprint.Certificate) { c.Status = imprint.CertificateStatus(row.from) })
			before := e.describe(t, id).CertificateDescription
			later := e.Clock.Advance(time.Minute)
			iottest.WantRefusal(t, e.update(t, id, row.to), row.code, row.http, "")
			after := e.describe(t, id).CertificateDescription
			if row.code != "" || row.from == row.to {
				if diff := cmp.Diff(before, after, cmp.AllowUnexported(types.CertificateDescription{}, types.CertificateValidity{})); diff != "" {
					t.Errorf("the certificate changed (-before +after):\n%s", diff)
				}
				return
			}
			if after.Status != row.to || *after.CustomerVersion != 2 || !after.LastModifiedDate.Equal(later) || *after.GenerationId == *before.GenerationId {
				t.Errorf("got %s, version %d at %s, want %s, version 2 at %s and another generation",
					after.Status, *after.CustomerVersion, after.LastModifiedDate, row.to, later)
			}
		})
	}
}

func TestUpdateCertificateBesideItsCA(t *testing.T) {
	t.Parallel()
	checkIdentityRules(t, []identityRule{
		{"an unknown one isn't found", func(t *testing.T, e identityEnv) {
			iottest.WantRefusal(t, e.update(t, unknownID, "ACTIVE"), "ResourceNotFoundException", 404, unknownID)
		}},
		{"it isn't activated while its CA is INACTIVE, and can be deactivated", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			caID := e.register(t, ca, active)
			id := e.signed(t, ca, "INACTIVE")
			other := e.signed(t, ca, "ACTIVE")
			e.updateCA(t, caID, func(in *sdk.UpdateCACertificateInput) { in.NewStatus = "INACTIVE" })
			iottest.WantRefusal(t, e.update(t, id, "ACTIVE"), "CertificateStateException", 406, caID)
			iottest.WantRefusal(t, e.update(t, other, "ACTIVE"), "", 0, "")
			iottest.WantRefusal(t, e.update(t, other, "INACTIVE"), "", 0, "")
		}},
		{"it is activated when its CA is gone", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			caID := e.register(t, ca, active)
			id := e.signed(t, ca, "INACTIVE")
			e.updateCA(t, caID, func(in *sdk.UpdateCACertificateInput) { in.NewStatus = "INACTIVE" })
			_, err := e.client.DeleteCACertificate(t.Context(), &sdk.DeleteCACertificateInput{CertificateId: &caID})
			iottest.WantRefusal(t, err, "", 0, "")
			iottest.WantRefusal(t, e.update(t, id, "ACTIVE"), "", 0, "")
			if got := e.describe(t, id).CertificateDescription; *got.CaCertificateId != caID || got.Status != "ACTIVE" {
				t.Errorf("got %+v, want ACTIVE with the CA that it had", got)
			}
		}},
	})
}

func TestDeleteCertificate(t *testing.T) {
	t.Parallel()
	remove := func(t *testing.T, e identityEnv, id string, force bool) error {
		t.Helper()
		_, err := e.client.DeleteCertificate(t.Context(), &sdk.DeleteCertificateInput{CertificateId: &id, ForceDelete: force})
		return err
	}
	// attach makes a thing and policies and attaches them.
	attach := func(t *testing.T, e identityEnv, id string, thing bool, policies int) {
		t.Helper()
		cert, now := imprint.CertificateID(id), e.Clock.Now()
		e.Put(t, func(tx imprint.Tx) error {
			if thing {
				err := tx.PutThing(imprint.Thing{Tenant: e.tenant, Name: "sensor", ID: "0", Version: 1, CreatedAt: now, ModifiedAt: now})
				if err != nil {
					return err
				}
				err = tx.PutThingAttachment(imprint.ThingAttachment{Tenant: e.tenant, Thing: "sensor", Certificate: cert})
				if err != nil {
					return err
				}
			}
			for i := range policies {
				name := imprint.PolicyName(fmt.Sprintf("policy-%d", i))
				err := tx.PutPolicy(imprint.Policy{Tenant: e.tenant, Name: name, DefaultVersion: 1, LastVersion: 1, CreatedAt: now, ModifiedAt: now})
				if err != nil {
					return err
				}
				err = tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: e.tenant, Policy: name, Target: e.tenant.CertificateARN(cert)})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	gone := func(t *testing.T, e identityEnv, id string) {
		t.Helper()
		_, err := e.client.DescribeCertificate(t.Context(), &sdk.DescribeCertificateInput{CertificateId: &id})
		iottest.WantRefusal(t, err, "ResourceNotFoundException", 404, id)
	}
	checkIdentityRules(t, []identityRule{
		{"an unknown one isn't found", func(t *testing.T, e identityEnv) {
			iottest.WantRefusal(t, remove(t, e, unknownID, false), "ResourceNotFoundException", 404, unknownID)
		}},
		{"first its status counts, then things, then policies", func(t *testing.T, e identityEnv) {
			id := e.without(t, "ACTIVE")
			arn := e.tenant.CertificateARN(imprint.CertificateID(id))
			attach(t, e, id, true, 2)
			iottest.WantRefusal(t, remove(t, e, id, true), "CertificateStateException", 406,
				"Certificate must be deactivated (not ACTIVE) before deletion. Id: "+id)
			iottest.WantRefusal(t, e.update(t, id, "INACTIVE"), "", 0, "")
			iottest.WantRefusal(t, remove(t, e, id, true), "DeleteConflictException", 409, "Things must be detached before deletion (arn: "+arn+")")
			e.Put(t, func(tx imprint.Tx) error {
				return tx.DeleteThingAttachment(e.tenant, "sensor", imprint.CertificateID(id))
			})
			iottest.WantRefusal(t, remove(t, e, id, false), "DeleteConflictException", 409, "Certificate policies must be detached before deletion (arn: "+arn+")")
			e.View(t, func(tx imprint.ReadTx) error {
				attached, _, err := tx.TargetPolicies(e.tenant, arn, imprint.Page{Limit: 10})
				if err != nil || len(attached) != 2 {
					t.Errorf("got %d policies, %v after refusals, want 2", len(attached), err)
				}
				return nil
			})
			iottest.WantRefusal(t, remove(t, e, id, true), "", 0, "")
			gone(t, e, id)
			e.View(t, func(tx imprint.ReadTx) error {
				attached, _, err := tx.TargetPolicies(e.tenant, arn, imprint.Page{Limit: 10})
				if err != nil || len(attached) != 0 {
					t.Errorf("got %d policies, %v after deletion, want none", len(attached), err)
				}
				return nil
			})
		}},
		{"forceDelete isn't needed where nothing is attached", func(t *testing.T, e identityEnv) {
			for _, status := range []types.CertificateStatus{"INACTIVE", "REVOKED"} {
				id := e.without(t, status)
				iottest.WantRefusal(t, remove(t, e, id, false), "", 0, "")
				gone(t, e, id)
			}
		}},
		{"PENDING_ACTIVATION can go, PENDING_TRANSFER can't", func(t *testing.T, e identityEnv) {
			pending, moving := e.without(t, "INACTIVE"), e.without(t, "INACTIVE")
			e.put(t, pending, func(c *imprint.Certificate) { c.Status = imprint.CertificatePendingActivation })
			e.put(t, moving, func(c *imprint.Certificate) { c.Status = imprint.CertificatePendingTransfer })
			iottest.WantRefusal(t, remove(t, e, pending, false), "", 0, "")
			iottest.WantRefusal(t, remove(t, e, moving, true), "CertificateStateException", 406, moving)
		}},
		{"another account can't", func(t *testing.T, e identityEnv) {
			id := e.without(t, "INACTIVE")
			iottest.WantRefusal(t, remove(t, e.another(), id, true), "ResourceNotFoundException", 404, id)
		}},
	})
}

func TestListCertificates(t *testing.T) {
	t.Parallel()
	checkIdentityRules(t, []identityRule{
		{"newest first in pages, or oldest first, with the members of a list", func(t *testing.T, e identityEnv) {
			var want []string
			for range 5 {
				e.Clock.Advance(time.Second)
				want = append(want, e.without(t, "ACTIVE"))
			}
			for _, ascending := range []bool{true, false} {
				got := e.list(t, sdk.ListCertificatesInput{PageSize: new(int32(2)), AscendingOrder: ascending})
				if !cmp.Equal(got, ordered(want, ascending)) {
					t.Errorf("ascending %t: got %q, want %q", ascending, got, ordered(want, ascending))
				}
			}
			out, err := e.client.ListCertificates(t.Context(), &sdk.ListCertificatesInput{PageSize: new(int32(1))})
			if err != nil {
				t.Fatal(err)
			}
			now, id := e.Clock.Now(), want[4]
			item := []types.Certificate{{CertificateArn: new(e.tenant.CertificateARN(imprint.CertificateID(id))), CertificateId: &id,
				CertificateMode: "SNI_ONLY", CreationDate: &now, Status: "ACTIVE"}}
			if diff := cmp.Diff(item, out.Certificates, cmp.AllowUnexported(types.Certificate{})); diff != "" {
				t.Errorf("item differs (-want +got):\n%s", diff)
			}
		}},
		{"those of one instant are listed once each", func(t *testing.T, e identityEnv) {
			want := map[string]bool{}
			for range 5 {
				want[e.without(t, "ACTIVE")] = true
			}
			for _, ascending := range []bool{true, false} {
				listed := e.list(t, sdk.ListCertificatesInput{PageSize: new(int32(1)), AscendingOrder: ascending})
				got := map[string]bool{}
				for _, id := range listed {
					got[id] = true
				}
				if len(listed) != len(want) || !cmp.Equal(got, want) {
					t.Errorf("ascending %t: got %q, want each of %v once", ascending, listed, want)
				}
			}
		}},
		{"25 on a page", func(t *testing.T, e identityEnv) {
			for range 26 {
				e.without(t, "ACTIVE")
			}
			out, err := e.client.ListCertificates(t.Context(), &sdk.ListCertificatesInput{})
			if err != nil || len(out.Certificates) != 25 || out.NextMarker == nil {
				t.Fatalf("got %+v, %v, want 25 and a marker", out, err)
			}
			out, err = e.client.ListCertificates(t.Context(), &sdk.ListCertificatesInput{Marker: out.NextMarker})
			if err != nil || len(out.Certificates) != 1 || out.NextMarker != nil {
				t.Errorf("got %+v, %v, want 1 and no marker", out, err)
			}
		}},
		{"an empty list, for an unknown CA too", func(t *testing.T, e identityEnv) {
			e.another().without(t, "ACTIVE")
			if got := e.list(t, sdk.ListCertificatesInput{}); len(got) != 0 {
				t.Errorf("got %q, want none", got)
			}
			out, err := e.client.ListCertificatesByCA(t.Context(), &sdk.ListCertificatesByCAInput{CaCertificateId: new(unknownID)})
			if err != nil || len(out.Certificates) != 0 {
				t.Errorf("got %+v, %v, want none", out, err)
			}
		}},
		{"by CA in pages", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			caID := e.register(t, ca, active)
			e.without(t, "ACTIVE")
			var want, got []string
			for range 3 {
				e.Clock.Advance(time.Second)
				want = append(want, e.signed(t, ca, "ACTIVE"))
			}
			pages := sdk.NewListCertificatesByCAPaginator(e.client, &sdk.ListCertificatesByCAInput{CaCertificateId: new(upper(caID)), PageSize: new(int32(2)), AscendingOrder: true})
			for pages.HasMorePages() {
				page, err := pages.NextPage(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, cert := range page.Certificates {
					got = append(got, *cert.CertificateId)
				}
			}
			if !cmp.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}},
		{"a marker that no list gave is refused", func(t *testing.T, e identityEnv) {
			_, err := e.client.ListCertificates(t.Context(), &sdk.ListCertificatesInput{Marker: new("bm9uc2Vuc2U=")})
			iottest.WantRefusal(t, err, "InvalidRequestException", 400, "")
		}},
	})
}

func (e identityEnv) list(t *testing.T, in sdk.ListCertificatesInput) []string {
	t.Helper()
	ids := []string{}
	pages := sdk.NewListCertificatesPaginator(e.client, &in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatalf("ListCertificates: %v", err)
		}
		for _, cert := range page.Certificates {
			ids = append(ids, *cert.CertificateId)
		}
	}
	return ids
}

// signed registers a fresh certificate of a registered CA and gives its id.
func (e identityEnv) signed(t *testing.T, ca *iottest.CA, status types.CertificateStatus) string {
	t.Helper()
	out, err := e.client.RegisterCertificate(t.Context(), &sdk.RegisterCertificateInput{CertificatePem: new(ca.LeafPEM(t, "device")), Status: status})
	if err != nil {
		t.Fatalf("RegisterCertificate: %v", err)
	}
	return *out.CertificateId
}
