//go:build unix

package issuances_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/apitest"
	"github.com/imprint-iot/imprint/awsapi/issuances"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
	"github.com/imprint-iot/imprint/pki/translog"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

const region = "us-east-1"

var (
	home  = imprint.Tenant{Account: "000000000000", Region: region}
	other = imprint.Tenant{Account: "111111111111", Region: region}
)

// world is an API over a log with one certificate of each of two accounts.
type world struct {
	api   *apitest.Server
	log   *translog.Log
	certs map[imprint.Tenant]imprint.CertificateID
	gone  error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	store := registrytest.New(t)
	key, err := seal.LoadOrCreateMasterKey(filepath.Join(dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	sealer := seal.New(key)
	ca, err := pki.OpenAuthority(t.Context(), dir, pki.AuthorityConfig{Sealer: sealer, Journal: issuelog.New(store), Clock: time.Now, Key: pki.KeyP256})
	if err != nil {
		t.Fatal(err)
	}
	profile, err := pki.NewProfile(pki.ProfileConfig{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{certs: map[imprint.Tenant]imprint.CertificateID{}}
	for _, tenant := range []imprint.Tenant{home, other} {
		device, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		token, err := ca.Prepare(t.Context(), tenant, profile, pki.Request{PublicKey: device.Public()})
		if err != nil {
			t.Fatal(err)
		}
		issued, err := ca.Sign(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		w.certs[tenant] = issued.ID
	}
	w.log, err = translog.Open(t.Context(), translog.Config{Dir: filepath.Join(dir, "log"), Store: store, Sealer: sealer, Clock: time.Now, Interval: 5 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.log.Close(context.Background()) })
	auditor := translog.NewAuditor(time.Now, func() (translog.AuditConfig, error) {
		return translog.AuditConfig{Store: store, Source: w.log.Source(), Verifier: w.log.Verifier(), DeviceCA: ca.Certificate(), Clock: time.Now}, nil
	})
	t.Cleanup(auditor.Close)
	reader := issuances.Reader{Store: store, Auditor: auditor, Home: home.Account, Log: func() (*translog.Log, error) { return w.log, w.gone }}
	w.api = apitest.Serve(t, nil, awsapi.Config{}, issuances.Operations(), reader.Routes())
	return w
}

func (w *world) call(t *testing.T, tenant imprint.Tenant, method, path string, body, out any) error {
	t.Helper()
	return w.api.Call(t, apitest.KeyOf(tenant.Account, "anna"), region, method, issuances.Path+path, body, out)
}

// TestWhoOwnsACertificateGetsItsProof ensures that each account gets a proof that verifies of its
// own certificate, and none of another's.
func TestWhoOwnsACertificateGetsItsProof(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for tenant, id := range w.certs {
		var answer struct {
			Index        int64
			Entry, Proof string
		}
		err := w.call(t, tenant, "GET", "/certificates/"+string(id), nil, &answer)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(answer.Entry)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := tiles.ParseProof([]byte(answer.Proof))
		if err != nil {
			t.Fatal(err)
		}
		checkpoint, err := w.log.Verifier().VerifyProof(proof, raw)
		if err != nil || proof.Index != answer.Index || checkpoint.N < 1 {
			t.Errorf("the proof of %s: %v, index %d and %d", id, err, proof.Index, answer.Index)
		}
		entry, err := tiles.ParseEntry(raw)
		if err != nil || entry.Certificate != id || entry.Tenant != tenant || len(entry.DER) == 0 {
			t.Errorf("the entry: %+v, %v, want that of %s with its bytes", entry, err, id)
		}
	}
	err := w.call(t, home, "GET", "/certificates/"+string(w.certs[other]), nil, nil)
	apitest.WantRefusal(t, "another account's certificate", err, 404, "ResourceNotFoundException", "")
	var log struct {
		Origin, VerifierKey, Checkpoint string
		Entries, Published, Waiting     int64
		Broken                          bool
	}
	err = w.log.Settle(t.Context())
	if err == nil {
		err = w.call(t, other, "GET", "", nil, &log)
	}
	if err != nil || log.VerifierKey != w.log.VerifierKey() || log.Entries != 2 || log.Published != 2 || log.Waiting != 0 || log.Broken {
		t.Errorf("the log: %+v, %v", log, err)
	}
	w.gone = imprint.Errorf(imprint.CodeUnavailable, "the issuance log can't be used")
	err = w.call(t, home, "GET", "", nil, nil)
	apitest.WantRefusal(t, "without a log", err, 503, "ServiceUnavailableException", "")
}

// TestTheWholeLogIsForTheFirstAccount ensures that files and audits, which show all accounts,
// are given to callers of the first one alone, and nothing but files of the log.
func TestTheWholeLogIsForTheFirstAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	err := w.log.Settle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Content []byte }
	err = w.call(t, home, "GET", "/files?path=tile/entries/000.p/2", nil, &file)
	if err != nil || len(file.Content) < 500 {
		t.Errorf("a bundle of two entries: %d bytes, %v", len(file.Content), err)
	}
	for path, code := range map[string]string{"tile/0/000": "ResourceNotFoundException", "../signer.sealed": "InvalidRequestException", ".state/treeState": "InvalidRequestException", "tile/entries/../../x": "InvalidRequestException"} {
		err = w.call(t, home, "GET", "/files?path="+path, nil, nil)
		apitest.WantRefusal(t, path, err, map[string]int{"ResourceNotFoundException": 404, "InvalidRequestException": 400}[code], code, "")
	}
	for _, request := range [][2]string{{"GET", "/files?path=checkpoint"}, {"POST", "/audits"}, {"GET", "/audits/ABC"}} {
		var body any
		if request[0] == "POST" {
			body = map[string]any{}
		}
		err = w.call(t, other, request[0], request[1], body, nil)
		apitest.WantRefusal(t, request[0]+" "+request[1], err, 403, "AccessDeniedException", "")
	}
	err = w.call(t, home, "GET", "/audits/ABC", nil, nil)
	apitest.WantRefusal(t, "an audit that isn't", err, 404, "ResourceNotFoundException", "")
	err = w.call(t, home, "POST", "/audits", map[string]any{"checkpoints": []string{"example.com/other\n1\nx\n"}}, nil)
	apitest.WantRefusal(t, "a checkpoint of another log", err, 400, "InvalidRequestException", "")
	var started struct{ AuditID string }
	err = w.call(t, home, "POST", "/audits", map[string]any{"checkpoints": []string{string(w.log.Checkpoint().Raw)}}, &started)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var run struct {
		Status, Message, Checkpoint string
		Summary                     translog.Audited
		Findings                    []any
		Next                        int
	}
	for run.Status != "COMPLETED" && run.Status != "FAILED" && err == nil {
		err = errors.Join(ctx.Err(), w.call(t, home, "GET", "/audits/"+started.AuditID+"?from=0", nil, &run))
	}
	if err != nil || run.Summary.Entries != 2 || run.Summary.Findings != 0 || len(run.Findings) != 0 || run.Checkpoint == "" {
		t.Errorf("the audit: %s, %v", fmt.Sprint(run), err)
	}
}
