package iot_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
	"github.com/imprint-iot/imprint/pki"
)

func TestCreateKeysAndCertificate(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	tenant := server.NewTenant()
	e := identityEnv{Server: server, tenant: tenant, client: server.Client(tenant)}
	for _, row := range []struct {
		active bool
		want   types.CertificateStatus
	}{{false, "INACTIVE"}, {true, "ACTIVE"}} {
		t.Run(fmt.Sprintf("with setAsActive %t it is %s, and its key is in the answer alone", row.active, row.want), func(t *testing.T) {
			out, err := e.client.CreateKeysAndCertificate(t.Context(), &sdk.CreateKeysAndCertificateInput{SetAsActive: row.active})
			if err != nil {
				t.Fatal(err)
			}
			cert, err := pki.ParseCertificatePEM(*out.CertificatePem)
			if err != nil {
				t.Fatal(err)
			}
			block, rest := pem.Decode([]byte(*out.KeyPair.PrivateKey))
			if block == nil || block.Type != "RSA PRIVATE KEY" || len(rest) != 0 {
				t.Fatalf("got a private key of the form %+v, want one block RSA PRIVATE KEY", block)
			}
			key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
			if err != nil || key.N.BitLen() != 2048 || !key.PublicKey.Equal(cert.PublicKey) {
				t.Errorf("got a key of %v, %v, want the certificate's, of 2048 bits", key, err)
			}
			public, _ := pem.Decode([]byte(*out.KeyPair.PublicKey))
			if public == nil || public.Type != "PUBLIC KEY" || string(public.Bytes) != string(cert.RawSubjectPublicKeyInfo) {
				t.Errorf("got public key %q, want the certificate's as PUBLIC KEY", *out.KeyPair.PublicKey)
			}
			if err := cert.CheckSignatureFrom(server.Authority.Certificate()); err != nil {
				t.Errorf("the certificate isn't the authority's: %v", err)
			}
			got := e.describe(t, *out.CertificateId).CertificateDescription
			if got.Status != row.want || got.CertificateMode != "DEFAULT" || got.CaCertificateId != nil || *got.CertificatePem != *out.CertificatePem ||
				*got.CertificateArn != *out.CertificateArn || *got.OwnedBy != string(tenant.Account) || *got.CustomerVersion != 1 ||
				!got.Validity.NotAfter.Equal(cert.NotAfter) || !got.Validity.NotBefore.Equal(cert.NotBefore) {
				t.Errorf("got description %+v, want %s, DEFAULT, without CA, the same PEM", got, row.want)
			}
			if *out.CertificateId != string(pki.CertificateID(cert.Raw)) {
				t.Errorf("got id %s, want %s", *out.CertificateId, pki.CertificateID(cert.Raw))
			}
		})
	}
}

func TestCreateCertificateFromCSR(t *testing.T) {
	t.Parallel()
	create := func(t *testing.T, e identityEnv, csr string) (*sdk.CreateCertificateFromCsrOutput, error) {
		t.Helper()
		return e.client.CreateCertificateFromCsr(t.Context(), &sdk.CreateCertificateFromCsrInput{CertificateSigningRequest: &csr})
	}
	checkIdentityRules(t, []identityRule{
		{"the subject and the key are the request's, the certificate INACTIVE", func(t *testing.T, e identityEnv) {
			key := iottest.NewKey(t)
			out, err := create(t, e, iottest.NewCSR(t, key, pkix.Name{Country: []string{"DE"}, Organization: []string{"Example"}, CommonName: "sensor-17"}))
			if err != nil {
				t.Fatal(err)
			}
			cert, err := pki.ParseCertificatePEM(*out.CertificatePem)
			if err != nil || !key.PublicKey.Equal(cert.PublicKey) || pki.SubjectText(cert.RawSubject) != "CN=sensor-17,O=Example,C=DE" {
				t.Errorf("got %v, %v, want the request's key and subject", cert, err)
			}
			if got := e.describe(t, *out.CertificateId).CertificateDescription; got.Status != "INACTIVE" || got.CertificateMode != "DEFAULT" {
				t.Errorf("got %s, %s, want INACTIVE, DEFAULT", got.Status, got.CertificateMode)
			}
		}},
		{"setAsActive counts", func(t *testing.T, e identityEnv) {
			out, err := e.client.CreateCertificateFromCsr(t.Context(), &sdk.CreateCertificateFromCsrInput{SetAsActive: true,
				CertificateSigningRequest: new(iottest.NewCSR(t, iottest.NewKey(t), pkix.Name{CommonName: "sensor"}))})
			if err != nil {
				t.Fatal(err)
			}
			if got := e.describe(t, *out.CertificateId).CertificateDescription.Status; got != "ACTIVE" {
				t.Errorf("got %s, want ACTIVE", got)
			}
		}},
		{"one request twice gives two certificates", func(t *testing.T, e identityEnv) {
			csr := iottest.NewCSR(t, iottest.NewKey(t), pkix.Name{CommonName: "sensor"})
			first, err := create(t, e, csr)
			second, again := create(t, e, csr)
			if err != nil || again != nil || *first.CertificateId == *second.CertificateId {
				t.Errorf("got %v, %v and %v, %v, want two ids", first, err, second, again)
			}
		}},
		{"without a subject the profile's stands in", func(t *testing.T, e identityEnv) {
			out, err := create(t, e, iottest.NewCSR(t, iottest.NewKey(t), pkix.Name{}))
			if err != nil {
				t.Fatal(err)
			}
			cert, err := pki.ParseCertificatePEM(*out.CertificatePem)
			if err != nil || pki.SubjectText(cert.RawSubject) != "CN="+pki.DefaultCommonName {
				t.Errorf("got %v, %v, want CN=%s", cert, err, pki.DefaultCommonName)
			}
		}},
		{"what is no request is refused", func(t *testing.T, e identityEnv) {
			key := iottest.NewKey(t)
			good := iottest.NewCSR(t, key, pkix.Name{CommonName: "sensor"})
			block, _ := pem.Decode([]byte(good))
			block.Bytes[len(block.Bytes)-1] ^= 1
			for name, csr := range map[string]string{
				"no PEM": "hello", "a bad signature": string(pem.EncodeToMemory(block)), "a certificate": iottest.NewCA(t, "x").PEM, "two": good + good,
			} {
				_, err := create(t, e, csr)
				if got := iottest.RefusalOf(t, err); got.Code != "InvalidRequestException" || got.Status != 400 {
					t.Errorf("%s: got %+v, want InvalidRequestException", name, got)
				}
			}
			e.wantNoCertificates(t)
		}},
		{"a weak or unknown key is refused", func(t *testing.T, e identityEnv) {
			short, err := rsa.GenerateKey(rand.Reader, 1024)
			if err != nil {
				t.Fatal(err)
			}
			curve, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			_, err = create(t, e, iottest.NewCSR(t, short, pkix.Name{CommonName: "sensor"}))
			iottest.WantRefusal(t, err, "InvalidRequestException", 400, "1024 bits")
			_, err = create(t, e, iottest.NewCSR(t, curve, pkix.Name{CommonName: "sensor"}))
			iottest.WantRefusal(t, err, "InvalidRequestException", 400, "P-224")
			e.wantNoCertificates(t)
		}},
	})
}

func (e identityEnv) wantNoCertificates(t *testing.T) {
	t.Helper()
	if got := e.list(t, sdk.ListCertificatesInput{}); len(got) != 0 {
		t.Errorf("got certificates %q, want none", got)
	}
}

// lossyStore is a store whose updates are done and then reported as failed, or
// fail without being done.
type lossyStore struct {
	imprint.Store
	done bool
}

var errLost = &imprint.Error{Code: imprint.CodeUnavailable, Err: errors.New("the commit's outcome is unknown")}

// Update implements imprint.Store.
func (s lossyStore) Update(ctx context.Context, fn func(imprint.Tx) error) error {
	if !s.done {
		return errLost
	}
	err := s.Store.Update(ctx, fn)
	if err != nil {
		return err
	}
	return errLost
}

func TestWhatIsNotStoredIsNotTold(t *testing.T) {
	t.Parallel()
	for _, done := range []bool{false, true} {
		t.Run(fmt.Sprintf("update done %t", done), func(t *testing.T) {
			server := iottest.Start(t, iottest.WithStore(func(s imprint.Store) imprint.Store { return lossyStore{s, done} }))
			tenant := server.NewTenant()
			client := server.Client(tenant)
			_, err := client.DescribeEndpoint(t.Context(), &sdk.DescribeEndpointInput{})
			iottest.WantRefusal(t, err, "ServiceUnavailableException", 503, "outcome is unknown")
			if made := server.Made(); len(made) != map[bool]int{false: 0, true: 1}[done] {
				t.Errorf("got tenants %+v told of, want those that are stored", made)
			}
			_, err = client.CreateKeysAndCertificate(t.Context(), &sdk.CreateKeysAndCertificateInput{})
			iottest.WantRefusal(t, err, "ServiceUnavailableException", 503, "outcome is unknown")
			if err != nil && strings.Contains(err.Error(), "PRIVATE") {
				t.Errorf("the refusal %v holds a key", err)
			}
		})
	}
}
