package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
	"github.com/imprint-iot/imprint/pki/translog"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// makeLogged makes the data directory of a stopped server whose log has one certificate,
// and gives that as PEM.
func makeLogged(t *testing.T) (dir, text string) {
	t.Helper()
	dir = t.TempDir()
	ctx := t.Context()
	sealer, err := openSealer(dir, "", true)
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	store, err := sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(dir, registryFile), Sealer: sealer, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ca, err := pki.OpenAuthority(ctx, filepath.Join(dir, pkiDir), pki.AuthorityConfig{Sealer: sealer, Journal: issuelog.New(store), Clock: time.Now, Key: pki.KeyP256})
	if err != nil {
		t.Fatal(err)
	}
	profile, err := pki.NewProfile(pki.ProfileConfig{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tenant := imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	token, err := ca.Prepare(ctx, tenant, profile, pki.Request{PublicKey: key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := ca.SignInto(ctx, token, func(issued *pki.Issued, record func(imprint.Tx) error) error {
		return store.Update(ctx, func(tx imprint.Tx) error {
			return errors.Join(tx.PutTenantSettings(imprint.TenantSettings{Tenant: tenant}),
				tx.PutCertificate(imprint.Certificate{Tenant: tenant, ID: issued.ID, PEM: issued.PEM}), record(tx))
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	log, err := translog.Open(ctx, translog.Config{Dir: filepath.Join(dir, issuanceLog), Store: store, Sealer: sealer, Clock: time.Now, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	var id string
	err = store.View(ctx, func(tx imprint.ReadTx) error {
		all, _, err := tx.Issuances(tenant, imprint.Page{Limit: 1})
		id = all[0].ID
		return err
	})
	if err == nil {
		_, err = log.Wait(ctx, id)
	}
	if err != nil {
		t.Fatal(err)
	}
	err = log.Close(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return dir, issued.PEM
}

// TestCAAuditTellsByItsStatusWhetherAllAgree ensures that the status is 0 when they agree
// and 3 when a file, or a kept checkpoint, says otherwise.
func TestCAAuditTellsByItsStatusWhetherAllAgree(t *testing.T) {
	t.Parallel()
	dir, text := makeLogged(t)
	certificate := filepath.Join(dir, "certificate.pem")
	err := os.WriteFile(certificate, []byte(text), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) (string, error) {
		var out bytes.Buffer
		root := newRoot()
		root.SetOut(&out)
		root.SetArgs(append(args, "--data", dir))
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	checkpoint := filepath.Join(dir, issuanceLog, "log", "checkpoint")
	out, err := command("ca", "audit", "--checkpoint", checkpoint)
	if err != nil || !strings.Contains(out, "They agree.") {
		t.Errorf("got %q, %v, want that they agree", out, err)
	}
	proof := filepath.Join(dir, "proof.txt")
	out, err = command("ca", "logged", certificate, "--proof", proof)
	if err != nil || !strings.Contains(out, "is entry 0 of 1 in imprint.invalid/issuance-log/") {
		t.Errorf("got %q, %v, want the certificate's entry", out, err)
	}
	if raw, err := os.ReadFile(proof); err != nil || !strings.HasPrefix(string(raw), "c2sp.org/tlog-proof@v1\nindex 0\n\nimprint.invalid") {
		t.Errorf("the proof is %q (%v)", raw, err)
	}
	out, err = command("ca", "logged", filepath.Join(dir, pkiDir, "device-ca.pem"))
	if !errors.Is(err, exitNo) || !strings.Contains(out, "the log has no entry") {
		t.Errorf("got %q, %v, want that it isn't there", out, err)
	}
	bundle := filepath.Join(dir, issuanceLog, "log", "tile", "entries", "000.p", "1")
	raw, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1
	err = os.WriteFile(bundle, raw, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"--json=false", "--json"} {
		out, err = command("ca", "audit", format)
		if !errors.Is(err, exitNo) || !strings.Contains(out, "DAMAGED") {
			t.Errorf("%s: got %q, %v, want the damage and status 3", format, out, err)
		}
	}
}
