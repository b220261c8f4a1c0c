// Package iottest starts the control plane for tests as the server does: the
// real functions behind the real Mux, signatures checked, over TLS, on a fresh
// SQLite store in a directory of the test.
//
//	server := iottest.Start(t)
//	tenant := server.NewTenant()
//	client := server.Client(tenant)
//	out, err := client.GetRegistrationCode(t.Context(), &sdk.GetRegistrationCodeInput{})
//
// Tenants share nothing, so the rows of a table can run in parallel on one
// server when each takes a tenant of its own. Every account has an access key,
// which [Server.Key] gives.
//
// What it does not do: it has no devices' door, and every caller may do
// everything.
package iottest

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/iot"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/iot"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/renewal"
)

// Domain is what the endpoints of a Server's tenants end with.
const Domain = "example.com"

// Server is a control plane under test.
type Server struct {
	URL       string // https://127.0.0.1:port
	CAFile    string // PEM of the certificate that the URL answers with
	Store     imprint.Store
	Clock     *Clock
	Authority *pki.Authority
	Service   *iot.Service
	Mux       *awsapi.Mux

	http     *httptest.Server
	accounts atomic.Int64

	mu   sync.Mutex // guards made
	made []imprint.TenantSettings
}

// Option changes what a Server is made of.
type Option func(*iot.Rooms)

// WithStore puts a store in front of the server's own, such as one that fails.
func WithStore(wrap func(imprint.Store) imprint.Store) Option {
	return func(rooms *iot.Rooms) { rooms.Store = wrap(rooms.Store) }
}

// Start starts a server that ends with the test.
func Start(t testing.TB, options ...Option) *Server {
	t.Helper()
	dir := t.TempDir()
	s := &Server{Clock: NewClock(time.Now())}
	store := registrytest.New(t)
	s.Store = store
	var err error
	s.Authority, err = pki.OpenAuthority(t.Context(), filepath.Join(dir, "pki"),
		pki.AuthorityConfig{Sealer: newSealer(t), Journal: issuelog.New(store), Clock: s.Clock.Now})
	if err != nil {
		t.Fatalf("couldn't open the authority: %v", err)
	}
	profile, keys := newProfile(t), newKeys(t)
	rooms := iot.Rooms{Store: store, Clock: s.Clock.Now, Authority: s.Authority, Profile: profile, Keys: keys, Claims: newClaims(t, s, profile, keys),
		Endpoint: endpoint, TenantMade: s.tenantMade, Audit: newAuditor(t, s)}
	for _, option := range options {
		option(&rooms)
	}
	s.Service = iot.NewService(rooms)
	s.listen(t, dir)
	return s
}

// listen serves the service's routes over TLS.
func (s *Server) listen(t testing.TB, dir string) {
	t.Helper()
	verifier, err := sigv4.New(sigv4.Config{Keys: keySource{}, Services: []string{"iot", "execute-api"}})
	if err != nil {
		t.Fatalf("couldn't make the verifier: %v", err)
	}
	s.Mux, err = awsapi.NewMux(awsapi.Config{Verifier: verifier, Translate: iot.Translate, Observe: func(access awsapi.Access) {
		if access.Status >= 500 {
			t.Logf("%s %s (%s): %d %s: %v", access.Method, access.Path, access.Operation, access.Status, access.Code, access.Err)
		}
	}}, iot.Operations(), s.Service.Routes())
	if err != nil {
		t.Fatalf("couldn't make the API: %v", err)
	}
	s.http = httptest.NewTLSServer(s.Mux)
	t.Cleanup(s.http.Close)
	s.URL = s.http.URL
	s.CAFile = filepath.Join(dir, "server.pem")
	err = os.WriteFile(s.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.http.Certificate().Raw}), 0o600)
	if err != nil {
		t.Fatalf("couldn't write the server's certificate: %v", err)
	}
}

// NewTenant gives a tenant in us-east-1 of an account that no other call gave.
func (s *Server) NewTenant() imprint.Tenant {
	account := imprint.AccountID(fmt.Sprintf("%012d", 111_000_000_000+s.accounts.Add(1)))
	return imprint.Tenant{Account: account, Region: "us-east-1"}
}

// Client gives an SDK client that asks for a tenant. It doesn't retry.
func (s *Server) Client(tenant imprint.Tenant) *sdk.Client {
	id, secret := s.Key(tenant.Account)
	return sdk.New(sdk.Options{
		Region:           string(tenant.Region),
		BaseEndpoint:     aws.String(s.URL),
		HTTPClient:       s.http.Client(),
		RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}, nil
		}),
	})
}

// Key gives the access key of an account.
func (s *Server) Key(account imprint.AccountID) (id, secret string) {
	return keyPrefix + string(account), secretOf(string(account))
}

// Made lists the tenants that the service told of, in order.
func (s *Server) Made() []imprint.TenantSettings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]imprint.TenantSettings(nil), s.made...)
}

func (s *Server) tenantMade(settings imprint.TenantSettings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = append(s.made, settings)
}

// Put runs an update against the store that must succeed, for what a test
// can't reach through the API.
func (s *Server) Put(t testing.TB, fn func(imprint.Tx) error) {
	t.Helper()
	err := s.Store.Update(t.Context(), fn)
	if err != nil {
		t.Fatalf("couldn't update the store: %v", err)
	}
}

// View runs a read against the store that must succeed.
func (s *Server) View(t testing.TB, fn func(imprint.ReadTx) error) {
	t.Helper()
	err := s.Store.View(t.Context(), fn)
	if err != nil {
		t.Fatalf("couldn't read the store: %v", err)
	}
}

// endpoint is the naming scheme of AWS IoT Core under another domain.
func endpoint(settings imprint.TenantSettings, kind string) (string, error) {
	rest := ".iot." + string(settings.Tenant.Region) + "." + Domain
	switch kind {
	case "iot:Data-ATS":
		return settings.EndpointPrefix + "-ats" + rest, nil
	case "iot:Data":
		return settings.EndpointPrefix + rest, nil
	case "iot:CredentialProvider":
		return settings.EndpointPrefix + ".credentials" + rest, nil
	case "iot:Jobs":
		return settings.EndpointPrefix + ".jobs" + rest, nil
	}
	return "", fmt.Errorf("endpoint type %q has no name", kind)
}

func newSealer(t testing.TB) imprint.Sealer {
	t.Helper()
	key, err := seal.ParseMasterKey(base64.StdEncoding.EncodeToString(make([]byte, seal.KeySize)))
	if err != nil {
		t.Fatalf("couldn't make a master key: %v", err)
	}
	return seal.New(key)
}

func newProfile(t testing.TB) *pki.Profile {
	t.Helper()
	profile, err := pki.NewProfile(pki.ProfileConfig{Name: "device"})
	if err != nil {
		t.Fatalf("couldn't make a profile: %v", err)
	}
	return profile
}

func newClaims(t testing.TB, s *Server, profile *pki.Profile, keys *pki.KeyPool) *provisioning.Claims {
	t.Helper()
	engine := provisioning.NewEngine(s.Store, s.Clock.Now, provisioning.Options{})
	t.Cleanup(engine.Close)
	claims, err := provisioning.NewClaims(provisioning.ClaimRooms{Engine: engine, Authority: s.Authority, Profile: profile, Keys: keys, Along: renewal.Along}, provisioning.ClaimOptions{})
	if err != nil {
		t.Fatalf("couldn't make claims: %v", err)
	}
	t.Cleanup(claims.Close)
	return claims
}

func newAuditor(t testing.TB, s *Server) *audit.Auditor {
	t.Helper()
	auditor, err := audit.New(t.Context(), s.Store, s.Clock.Now, audit.Options{})
	if err != nil {
		t.Fatalf("couldn't make an auditor: %v", err)
	}
	t.Cleanup(auditor.Close)
	return auditor
}

func newKeys(t testing.TB) *pki.KeyPool {
	t.Helper()
	keys, err := pki.NewKeyPool(pki.KeyPoolConfig{Size: 1})
	if err != nil {
		t.Fatalf("couldn't make keys: %v", err)
	}
	t.Cleanup(keys.Close)
	return keys
}
