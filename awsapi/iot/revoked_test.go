package iot_test

import (
	"crypto/x509"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
	"github.com/imprint-iot/imprint/pki"
)

// TestWhatItsIssuerRevokedIsNotRegistered, with a CA or without, but as REVOKED; and isn't
// made ACTIVE again, neither is a CA's.
func TestWhatItsIssuerRevokedIsNotRegistered(t *testing.T) {
	t.Parallel()
	const id imprint.AuthorityID = "00000000-0000-4000-8000-000000000001"
	revokes := func(t *testing.T, e identityEnv, leaf *x509.Certificate) {
		e.Put(t, func(tx imprint.Tx) error {
			return tx.PutIssuance(imprint.Issuance{ID: string(pki.CertificateID(leaf.Raw)), Tenant: e.tenant, Authority: id, Serial: pki.SerialHex(leaf.SerialNumber),
				CertificateID: pki.CertificateID(leaf.Raw), RevokedAt: time.Now(), Reason: imprint.ReasonSuperseded})
		})
	}
	revokeCA := func(t *testing.T, e identityEnv, ca *iottest.CA) {
		e.Put(t, func(tx imprint.Tx) error {
			own := pki.CertificateID(ca.Certificate.Raw)
			err := tx.PutAuthorityCertificate(imprint.AuthorityCertificate{Tenant: e.tenant, ID: own, Authority: id})
			if err != nil {
				return err
			}
			return tx.PutAuthority(imprint.CertificateAuthority{Tenant: e.tenant, ID: id, Subject: ca.Certificate.RawSubject, Certificate: pki.EncodeCertificatePEM(ca.Certificate.Raw),
				CertificateID: own, RevokedAt: time.Now(), RevocationReason: imprint.ReasonKeyCompromise})
		})
	}
	checkIdentityRules(t, []identityRule{
		{"a certificate", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			e.register(t, ca, active)
			leaf, text := ca.Leaf(t, "device")
			revokes(t, e, leaf)
			_, err := e.client.RegisterCertificate(t.Context(), &sdk.RegisterCertificateInput{CertificatePem: &text})
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, "revoked by its issuer")
			for _, status := range []types.CertificateStatus{"ACTIVE", "INACTIVE"} {
				_, err = e.client.RegisterCertificateWithoutCA(t.Context(), &sdk.RegisterCertificateWithoutCAInput{CertificatePem: &text, Status: status})
				iottest.WantRefusal(t, err, "CertificateValidationException", 400, "revoked by its issuer")
			}
			e.wantNoCertificates(t)
			_, err = e.client.RegisterCertificateWithoutCA(t.Context(), &sdk.RegisterCertificateWithoutCAInput{CertificatePem: &text, Status: "REVOKED"})
			iottest.WantRefusal(t, err, "", 0, "")
		}},
		{"a certificate of a revoked CA", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			revokeCA(t, e, ca)
			_, err := e.client.RegisterCertificateWithoutCA(t.Context(), &sdk.RegisterCertificateWithoutCAInput{CertificatePem: new(ca.LeafPEM(t, "device"))})
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, "was signed by certificate authority "+string(id))
		}},
		{"a certificate that is INACTIVE", func(t *testing.T, e identityEnv) {
			ca := iottest.NewCA(t, "Factory")
			leaf, text := ca.Leaf(t, "device")
			out, err := e.client.RegisterCertificateWithoutCA(t.Context(), &sdk.RegisterCertificateWithoutCAInput{CertificatePem: &text})
			iottest.WantRefusal(t, err, "", 0, "")
			revokes(t, e, leaf)
			iottest.WantRefusal(t, e.update(t, *out.CertificateId, "ACTIVE"), "CertificateStateException", 406, "revoked by its issuer")
		}},
		{"a CA", func(t *testing.T, e identityEnv) {
			ca, again := iottest.NewCA(t, "Factory"), iottest.NewCA(t, "Another")
			registered := e.register(t, again)
			revokeCA(t, e, ca)
			_, err := e.client.RegisterCACertificate(t.Context(), e.registration(t, ca))
			iottest.WantRefusal(t, err, "CertificateValidationException", 400, "revoked")
			revokeCA(t, e, again)
			_, err = e.client.UpdateCACertificate(t.Context(), &sdk.UpdateCACertificateInput{CertificateId: &registered, NewStatus: "ACTIVE"})
			iottest.WantRefusal(t, err, "InvalidRequestException", 400, "revoked")
		}},
	})
}
