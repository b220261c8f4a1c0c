package iot_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
	"github.com/imprint-iot/imprint/pki"
)

func TestRegisterCertificate(t *testing.T) {
	t.Parallel()
	register := func(t *testing.T, e identityEnv, text string, edits ...func(*sdk.RegisterCertificateInput)) (*sdk.RegisterCertificateOutput, error) {
		t.Helper()
		in := &sdk.RegisterCertificateInput{CertificatePem: &text}
		for _, edit := range edits {
			edit(in)
		}
		return e.client.RegisterCertificate(t.Context(), in)
	}
	naming := func(ca *iottest.CA) func(*sdk.RegisterCertificateInput) {
		return func(in *sdk.RegisterCertificateInput) { in.CaCertificatePem = &ca.PEM }
	}
	checkIdentityRules(t, []identityRule{
		{"status wins over setAsActive, and INACTIVE is the default", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			caID := e.register(t, ca, active)
			for _, row := range []struct {
				status types.CertificateStatus
				active bool
				want   types.CertificateStatus
			}{
				{"", false, "INACTIVE"}, {"", true, "ACTIVE"}, {"ACTIVE", false, "ACTIVE"}, {"INACTIVE", true, "INACTIVE"},
				{"REVOKED", false, "REVOKED"}, {"REVOKED", true, "REVOKED"},
			} {
				cert, text := ca.Leaf(t, "device")
				out, err := register(t, e, text, func(in *sdk.RegisterCertificateInput) {
					//lint:ignore SA1019 clients still send the deprecated member
					in.Status, in.SetAsActive = row.status, &row.active
				})
				if err != nil {
					t.Fatalf("%+v: %v", row, err)
				}
				got := e.describe(t, *out.CertificateId).CertificateDescription
				if got.Status != row.want || *got.CaCertificateId != caID || got.CertificateMode != "DEFAULT" || *got.CertificatePem != text ||
					!got.Validity.NotAfter.Equal(cert.NotAfter) || *got.CertificateArn != *out.CertificateArn {
					t.Errorf("%+v: got %+v", row, got)
				}
			}
		}},
		{"states of its own making are refused", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			e.register(t, ca, active)
			for _, status := range []types.CertificateStatus{"PENDING_TRANSFER", "PENDING_ACTIVATION", "REGISTER_INACTIVE", "OTHER"} {
				_, err := register(t, e, ca.LeafPEM(t, "device"), func(in *sdk.RegisterCertificateInput) { in.Status = status })
				iottest.WantRefusal(t, err, "InvalidRequestException", 400, string(status))
			}
			e.wantNoCertificates(t)
		}},
		{"the mode is the CA's", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			e.register(t, ca, active, sniOnly)
			if got := e.describe(t, e.signed(t, ca, "ACTIVE")).CertificateDescription.CertificateMode; got != "SNI_ONLY" {
				t.Errorf("got %s, want SNI_ONLY", got)
			}
		}},
		{"a signer that isn't registered is refused", func(t *testing.T, e identityEnv) {
			e.register(t, iottest.NewCA(t, "Factory"), active)
			_, err := register(t, e, iottest.NewCA(t, "Other").LeafPEM(t, "device"))
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, "no CA has the certificate's issuer")
		}},
		{"a signer of the same name and another key is refused", func(t *testing.T, e identityEnv) {
			e.register(t, iottest.NewCA(t, "Factory"), active)
			_, err := register(t, e, iottest.NewCA(t, "Factory").LeafPEM(t, "device"))
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, "none of their keys made this signature")
		}},
		{"a signer of another account is refused", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			e.another().register(t, ca, active)
			_, err := register(t, e, ca.LeafPEM(t, "device"))
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, "no CA")
		}},
		{"an INACTIVE signer is refused", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			id := e.register(t, ca)
			_, err := register(t, e, ca.LeafPEM(t, "device"))
			iottest.WantRefusal(t, err, "CertificateStateException", 406, id)
			_, err = register(t, e, ca.LeafPEM(t, "device"), naming(ca))
			iottest.WantRefusal(t, err, "CertificateStateException", 406, id)
			e.wantNoCertificates(t)
		}},
		{"no PEM, an expired one and a weak key are refused", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			e.register(t, ca, active)
			_, err := register(t, e, "hello")
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, "certificatePem: ")
			_, old := ca.Leaf(t, "device", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
			_, err = register(t, e, old)
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, "valid until")
			key, err := rsa.GenerateKey(rand.Reader, 1024)
			if err != nil {
				t.Fatal(err)
			}
			_, weak := ca.LeafOf(t, key.Public(), "device")
			_, err = register(t, e, weak)
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, "1024 bits")
			e.wantNoCertificates(t)
		}},
		{"an expired CA signs no more registrations", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			id := e.register(t, ca, active)
			e.Put(t, func(tx imprint.Tx) error {
				stored, err := tx.CA(e.tenant, imprint.CertificateID(id))
				if err != nil {
					return err
				}
				stored.NotAfter = e.Clock.Now().Add(-time.Minute)
				return tx.PutCA(stored)
			})
			_, err := register(t, e, ca.LeafPEM(t, "device"))
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, id)
		}},
		{"the same certificate twice names the first", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			e.register(t, ca, active)
			text := ca.LeafPEM(t, "device")
			out, err := register(t, e, text)
			if err != nil {
				t.Fatal(err)
			}
			_, err = register(t, e, text)
			wantExisting(t, err, *out.CertificateId, *out.CertificateArn)
			if got := iottest.RefusalOf(t, err).Message; got != "The certificate is already provisioned or registered" {
				t.Errorf("got message %q", got)
			}
			_, err = e.client.RegisterCertificateWithoutCA(t.Context(), &sdk.RegisterCertificateWithoutCAInput{CertificatePem: &text})
			wantExisting(t, err, *out.CertificateId, *out.CertificateArn)
		}},
		{"among CAs of one name the key decides", func(t *testing.T, e identityEnv) {
			first, second := iottest.NewCA(t, "Factory"), iottest.NewCA(t, "Factory")
			e.register(t, first, active)
			want := e.register(t, second, active)
			if got := *e.describe(t, e.signed(t, second, "ACTIVE")).CertificateDescription.CaCertificateId; got != want {
				t.Errorf("got CA %s, want %s", got, want)
			}
		}},
		{"CAs of one name and one key are told apart by caCertificatePem alone", func(t *testing.T, e identityEnv) {
			first := iottest.NewCA(t, "Factory")
			renewed := iottest.NewCAWithKey(t, first.Key, "Factory")
			e.register(t, first, active)
			want := e.register(t, renewed, active)
			text := first.LeafPEM(t, "device")
			_, err := register(t, e, text)
			iottest.WantRefusal(t, err, "CertificateConflictException", 409, want)
			e.wantNoCertificates(t)
			out, err := register(t, e, text, naming(renewed))
			if err != nil {
				t.Fatal(err)
			}
			if got := *e.describe(t, *out.CertificateId).CertificateDescription.CaCertificateId; got != want {
				t.Errorf("got CA %s, want %s", got, want)
			}
		}},
		{"a registered CA is none of its devices", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			id := e.register(t, ca, active)
			_, err := register(t, e, ca.PEM)
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, id)
			e.wantNoCertificates(t)
		}},
		{"caCertificatePem must be the signer, registered and a certificate", func(t *testing.T, e identityEnv) {
			ca, other, unregistered := iottest.NewCA(t, "Factory"), iottest.NewCA(t, "Other"), iottest.NewCA(t, "Unregistered")
			e.register(t, ca, active)
			e.register(t, other, active)
			text := ca.LeafPEM(t, "device")
			_, err := register(t, e, text, naming(other))
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, "issuer")
			_, err = register(t, e, unregistered.LeafPEM(t, "device"), naming(unregistered))
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, "isn't registered")
			_, err = register(t, e, text, naming(&iottest.CA{PEM: "hello"}))
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, "caCertificatePem: ")
			e.wantNoCertificates(t)
		}},
		{"in mode DEFAULT it lives in one account of a region", func(t *testing.T, e identityEnv) {
			ca, other := iottest.NewCA(t, "Factory"), e.another()
			e.register(t, ca, active)
			other.register(t, ca, active, sniOnly)
			text := ca.LeafPEM(t, "device")
			out, err := register(t, e, text)
			if err != nil {
				t.Fatal(err)
			}
			_, err = register(t, other, text)
			wantExisting(t, err, *out.CertificateId, "")
			_, err = other.client.RegisterCertificateWithoutCA(t.Context(), &sdk.RegisterCertificateWithoutCAInput{CertificatePem: &text})
			wantExisting(t, err, *out.CertificateId, "")
			elsewhere := e.tenant
			elsewhere.Region = "eu-west-1"
			_, err = e.Client(elsewhere).RegisterCertificateWithoutCA(t.Context(), &sdk.RegisterCertificateWithoutCAInput{CertificatePem: &text})
			iottest.WantRefusal(t, err, "", 0, "")
		}},
		{"in mode SNI_ONLY it lives in any number of accounts, and then in none as DEFAULT", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			text := ca.LeafPEM(t, "device")
			for range 2 {
				other := e.another()
				other.register(t, ca, active, sniOnly)
				_, err := register(t, other, text)
				iottest.WantRefusal(t, err, "", 0, "")
			}
			e.register(t, ca, active)
			_, err := register(t, e, text)
			iottest.WantRefusal(t, err, "ResourceAlreadyExistsException", 409, "another account")
		}},
	})
}

func TestRegisterCertificateWithoutCA(t *testing.T) {
	t.Parallel()
	register := func(t *testing.T, e identityEnv, text string, status types.CertificateStatus) (*sdk.RegisterCertificateWithoutCAOutput, error) {
		t.Helper()
		return e.client.RegisterCertificateWithoutCA(t.Context(), &sdk.RegisterCertificateWithoutCAInput{CertificatePem: &text, Status: status})
	}
	checkIdentityRules(t, []identityRule{
		{"it is SNI_ONLY, INACTIVE, without a CA even if that is registered", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			e.register(t, ca, active)
			out, err := register(t, e, ca.LeafPEM(t, "device"), "")
			if err != nil {
				t.Fatal(err)
			}
			got := e.describe(t, *out.CertificateId).CertificateDescription
			if got.Status != "INACTIVE" || got.CertificateMode != "SNI_ONLY" || got.CaCertificateId != nil {
				t.Errorf("got %+v, want INACTIVE, SNI_ONLY, no CA", got)
			}
		}},
		{"ACTIVE, INACTIVE and REVOKED can be asked for, others can't", func(t *testing.T, e identityEnv) {
			for _, status := range []types.CertificateStatus{"ACTIVE", "INACTIVE", "REVOKED"} {
				if got := e.describe(t, e.without(t, status)).CertificateDescription.Status; got != status {
					t.Errorf("got %s, want %s", got, status)
				}
			}
			_, err := register(t, e, iottest.NewCA(t, "x").LeafPEM(t, "device"), "PENDING_ACTIVATION")
			iottest.WantRefusal(t, err, "InvalidRequestException", 400, "PENDING_ACTIVATION")
		}},
		{"a trusted user's claim is no device, in the tenant that has it", func(t *testing.T, e identityEnv) {
			leaf, text := iottest.NewCA(t, "x").Leaf(t, "claim")
			claim := imprint.ProvisioningClaim{Tenant: e.tenant, Certificate: pki.CertificateID(leaf.Raw), Template: "fleet", CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute)}
			e.Put(t, func(tx imprint.Tx) error { return tx.PutProvisioningClaim(claim) })
			_, err := register(t, e, text, "")
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, "claim")
			e.wantNoCertificates(t)
			_, err = register(t, e.another(), text, "")
			iottest.WantRefusal(t, err, "", 0, "")
		}},
		{"its validity isn't asked, its key is", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "x")
			_, old := ca.Leaf(t, "device", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
			_, err := register(t, e, old, "")
			iottest.WantRefusal(t, err, "", 0, "")
			key, err := rsa.GenerateKey(rand.Reader, 1024)
			if err != nil {
				t.Fatal(err)
			}
			_, weak := ca.LeafOf(t, key.Public(), "device")
			_, err = register(t, e, weak, "")
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, "1024 bits")
			_, err = register(t, e, "hello", "")
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, "certificatePem: ")
		}},
		{"twice in an account is refused, in another one it isn't", func(t *testing.T, e identityEnv) {
			text := iottest.NewCA(t, "x").LeafPEM(t, "device")
			out, err := register(t, e, text, "ACTIVE")
			if err != nil {
				t.Fatal(err)
			}
			_, err = register(t, e, text, "ACTIVE")
			wantExisting(t, err, *out.CertificateId, *out.CertificateArn)
			other := e.another()
			_, err = register(t, other, text, "REVOKED")
			iottest.WantRefusal(t, err, "", 0, "")
			if got := e.describe(t, *out.CertificateId).CertificateDescription; got.Status != "ACTIVE" || *got.OwnedBy != string(e.tenant.Account) {
				t.Errorf("got %s of %s, want ACTIVE of %s", got.Status, *got.OwnedBy, e.tenant.Account)
			}
		}},
	})
}
