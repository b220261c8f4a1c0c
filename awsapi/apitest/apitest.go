// Package apitest serves one of Imprint's own APIs for a test: its operations behind
// the real Mux, signatures checked, and asked by the real client.
//
//	api := apitest.Serve(t, nil, awsapi.Config{}, explain.Operations(), explainer.Routes())
//	err := api.Call(t, apitest.KeyOf("000000000000", "anna"), "us-east-1", "POST", explain.Path, body, &out)
//	apitest.WantRefusal(t, "a device of another account", err, 404, "ResourceNotFoundException", "")
//
// Package iottest does it for AWS's API, with AWS's clients.
package apitest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/client"
	"github.com/imprint-iot/imprint/awsapi/iot"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

// Server is an API under test.
type Server struct{ url string }

// Key is an access key as its holder has it.
type Key struct{ ID, Secret string }

// KeyOf is the access key of a user of an account for a Server without keys of its
// own. Whether there is such a user isn't its business.
func KeyOf(account imprint.AccountID, user imprint.UserName) Key {
	return Key{ID: string(account) + "-" + string(user), Secret: secret}
}

const secret = "secret"

// everyone has the keys of KeyOf.
type everyone struct{}

func (everyone) AccessKey(_ context.Context, id string) (sigv4.AccessKey, error) {
	account, user, found := strings.Cut(id, "-")
	if !found {
		return sigv4.AccessKey{}, fmt.Errorf("no access key %s: %w", id, sigv4.ErrUnknownKey)
	}
	return sigv4.AccessKey{ID: id, Secret: secret, Account: account, PrincipalARN: imprint.AccountID(account).UserARN(imprint.UserName(user))}, nil
}

// Serve serves routes until the test ends. Without keys those of KeyOf are taken; of
// the config, Verifier and Translate are set here.
func Serve(t testing.TB, keys sigv4.KeySource, config awsapi.Config, operations []awsapi.Operation, routes []awsapi.Route) *Server {
	t.Helper()
	if keys == nil {
		keys = everyone{}
	}
	verifier, err := sigv4.New(sigv4.Config{Keys: keys, Services: []string{"iot"}})
	if err != nil {
		t.Fatalf("couldn't make the verifier: %v", err)
	}
	config.Verifier, config.Translate = verifier, iot.Translate
	mux, err := awsapi.NewMux(config, operations, routes)
	if err != nil {
		t.Fatalf("couldn't make the API: %v", err)
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return &Server{url: server.URL}
}

// Call makes a request in a region and reads its answer into out; nil: there is none
// to read.
func (s *Server) Call(t testing.TB, key Key, region imprint.Region, method, path string, body, out any) error {
	t.Helper()
	return s.Client(t, key, region, http.DefaultClient).Call(t.Context(), method, path, body, out)
}

// Client makes a client of a region that asks by an HTTP client.
func (s *Server) Client(t testing.TB, key Key, region imprint.Region, by *http.Client) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Endpoint: s.url, KeyID: key.ID, Secret: key.Secret, Region: string(region), HTTPClient: by})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// WantRefusal fails the test unless err is a refusal with a status and a code, whose
// message has the text in it.
func WantRefusal(t testing.TB, what string, err error, status int, code, text string) {
	t.Helper()
	var refusal *client.Error
	if !errors.As(err, &refusal) || refusal.Status != status || refusal.Code != code || !strings.Contains(refusal.Message, text) {
		t.Errorf("%s: got %v, want %d %s with %q", what, err, status, code, text)
	}
}
