package authorities_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/apitest"
	"github.com/imprint-iot/imprint/awsapi/authorities"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
)

const account, region = "000000000000", "us-east-1"

var home = imprint.Tenant{Account: account, Region: region}

// office is the API on a real engine, where a caller may do what allowed says.
type office struct {
	*ca.Engine
	*apitest.Server
	allowed func(resource string) bool
}

func newOffice(t *testing.T) *office {
	t.Helper()
	dir := t.TempDir()
	key, err := seal.LoadOrCreateMasterKey(filepath.Join(dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	profiles, err := pki.NewProfiles()
	if err != nil {
		t.Fatal(err)
	}
	store := registrytest.Open(t, filepath.Join(dir, "registry.db"))
	o := &office{allowed: func(string) bool { return true }}
	o.Engine = ca.New(ca.Options{Store: store, Sealer: seal.New(key), Journal: issuelog.New(store), Clock: time.Now, Profiles: profiles, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(o.Close)
	o.Server = apitest.Serve(t, nil, awsapi.Config{Authorize: func(_ context.Context, _ awsapi.Caller, action, resource string) error {
		if o.allowed(resource) {
			return nil
		}
		return imprint.Errorf(imprint.CodeAccessDenied, "not authorized to perform %s on %s", action, resource)
	}}, authorities.Operations(), authorities.Office{Engine: o.Engine, Clock: time.Now}.Routes())
	return o
}

func request(t *testing.T, cn string, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// TestARenewalIsAboutBothAuthorities: who may sign with one CA takes no certificate of
// another one's place.
func TestARenewalIsAboutBothAuthorities(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	subject, err := pki.ParseSubject("/CN=root")
	if err != nil {
		t.Fatal(err)
	}
	var roots [2]imprint.CertificateAuthority
	for n := range roots {
		roots[n], err = o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject, Profile: "root"})
		if err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	caller := apitest.KeyOf(account, "anna")
	var issued struct{ CertificateID string }
	ask := func(by int, renews string) error {
		body := map[string]any{"csr": request(t, "SN-1", key), "profile": "operational"}
		if renews != "" {
			body["renews"] = renews
		}
		return o.Call(t, caller, region, "POST", authorities.Path+"/"+string(roots[by].ID)+"/certificates", body, &issued)
	}
	err = ask(0, "")
	if err != nil {
		t.Fatal(err)
	}
	first := issued.CertificateID
	o.allowed = func(resource string) bool { return resource == roots[1].ARN() }
	apitest.WantRefusal(t, "a renewal of another authority's certificate", ask(1, first), 403, "AccessDeniedException", roots[0].ARN())
	o.allowed = func(resource string) bool { return resource == roots[0].ARN() || resource == roots[1].ARN() }
	err = ask(1, first)
	if err != nil {
		t.Errorf("a renewal by who may sign with both: %v", err)
	}
	second := issued.CertificateID
	o.allowed = func(resource string) bool { return resource == roots[1].ARN() }
	err = ask(1, second)
	if err != nil {
		t.Errorf("a renewal of the authority's own certificate: %v", err)
	}
	apitest.WantRefusal(t, "a renewal of what nobody issued", ask(1, first[:60]+"0000"), 400, "CertificateValidationException", "can't be renewed")
}
