package ca_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/internal/foreign"
	"github.com/imprint-iot/imprint/pki"
)

func (o *office) with(parent imprint.AuthorityID, name, profile string, r imprint.RevocationConfiguration) imprint.CertificateAuthority {
	o.t.Helper()
	a, err := o.Create(o.t.Context(), home, ca.Spec{Name: name, Type: imprint.AuthoritySubordinate, RawSubject: subject(o.t, name), Parent: parent, Profile: profile, Revocation: r})
	if err != nil {
		o.t.Fatal(err)
	}
	return a
}

func (o *office) publish() int {
	o.t.Helper()
	n, err := o.SignDueLists(o.t.Context())
	if err != nil {
		o.t.Fatal(err)
	}
	return n
}

func (o *office) revoke(by imprint.AuthorityID, i ca.Issued, reason imprint.RevocationReason) {
	o.t.Helper()
	_, err := o.Revoke(o.t.Context(), home, by, pki.SerialHex(i.Certificate.SerialNumber), reason)
	if err != nil {
		o.t.Fatal(err)
	}
}

// list gives a CRL as a relying party gets it, with its signature checked.
func (o *office) list(server *httptest.Server, a imprint.CertificateAuthority, path string) *x509.RevocationList {
	o.t.Helper()
	der := fetch(o.t, server, "/crl/"+string(home.Account)+"/"+string(home.Region)+"/"+string(a.ID)+path, http.StatusOK)
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		o.t.Fatal(err)
	}
	issuer, err := pki.ParseCertificatePEM(a.Certificate)
	if err != nil {
		o.t.Fatal(err)
	}
	err = l.CheckSignatureFrom(issuer)
	if err != nil {
		o.t.Errorf("the list's signature: %v", err)
	}
	return l
}

func parseList(t *testing.T, der []byte) *x509.RevocationList {
	t.Helper()
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func fetch(t *testing.T, server *httptest.Server, path string, want int) []byte {
	t.Helper()
	response, err := server.Client().Get(server.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != want {
		t.Fatalf("%s: got %s, want %d", path, response.Status, want)
	}
	return body.Bytes()
}

func openssl(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), foreign.Program(t, "openssl"), args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func put(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	err := os.WriteFile(filepath.Join(dir, name), data, 0o600)
	if err != nil {
		t.Fatal(err)
	}
}

// TestOpensslSeesWhatIsRevokedInTheCRL: and verifies what isn't.
func TestOpensslSeesWhatIsRevokedInTheCRL(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	line := o.with(root.ID, "line", "intermediate", imprint.RevocationConfiguration{CRL: true, CRLDays: 7})
	server := httptest.NewServer(o.Handler())
	t.Cleanup(server.Close)
	good, bad := o.issue(line.ID, "good"), o.issue(line.ID, "bad")
	path := "/crl/" + string(home.Account) + "/" + string(home.Region) + "/" + string(line.ID) + ".crl"
	fetch(t, server, path, http.StatusServiceUnavailable)
	if n := o.publish(); n != 1 {
		t.Fatalf("signed %d lists, want 1", n)
	}
	first := o.list(server, line, ".crl")
	if len(first.RevokedCertificateEntries) != 0 || first.Number.Int64() != 1 || !first.NextUpdate.Equal(now.AddDate(0, 0, 7)) {
		t.Errorf("the first list: %d entries, number %s, until %s", len(first.RevokedCertificateEntries), first.Number, first.NextUpdate)
	}
	o.later(time.Minute)
	o.revoke(line.ID, bad, imprint.ReasonKeyCompromise)
	if n := o.publish(); n != 1 {
		t.Fatalf("signed %d lists after a revocation, want 1", n)
	}
	if n := o.publish(); n != 0 {
		t.Fatalf("signed %d lists though none was due", n)
	}
	second := o.list(server, line, ".crl")
	if len(second.RevokedCertificateEntries) != 1 || second.Number.Int64() != 2 || second.RevokedCertificateEntries[0].ReasonCode != 1 {
		t.Errorf("the second list: %+v, number %s", second.RevokedCertificateEntries, second.Number)
	}
	dir := t.TempDir()
	put(t, dir, "ca.pem", []byte(root.Certificate+line.Certificate))
	put(t, dir, "list.der", second.Raw)
	if out, err := openssl(t, dir, "crl", "-inform", "der", "-in", "list.der", "-out", "list.pem", "-CAfile", "ca.pem"); err != nil || !strings.Contains(out, "verify OK") {
		t.Errorf("openssl crl: %v: %s", err, out)
	}
	put(t, dir, "good.pem", []byte(good.PEM))
	put(t, dir, "bad.pem", []byte(bad.PEM))
	verify := func(file string) (string, error) {
		return openssl(t, dir, "verify", "-attime", fmt.Sprint(o.clock().Unix()), "-crl_check", "-CRLfile", "list.pem", "-CAfile", "ca.pem", file)
	}
	if out, err := verify("good.pem"); err != nil {
		t.Errorf("openssl verify of what isn't revoked: %s", out)
	}
	if out, err := verify("bad.pem"); err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("openssl verify of what is revoked: %v: %s", err, out)
	}
	o.later(4 * 24 * time.Hour) // more than half of its validity
	if n := o.publish(); n != 1 {
		t.Errorf("signed %d lists after half of the validity, want 1", n)
	}
	if third := o.list(server, line, ".crl"); third.Number.Int64() != 3 || !third.NextUpdate.After(second.NextUpdate) {
		t.Errorf("the third list: number %s, until %s", third.Number, third.NextUpdate)
	}
}

// TestShardedListsTellOfTheirOwnCertificates: each certificate names the list it is on, and
// that list names itself.
func TestShardedListsTellOfTheirOwnCertificates(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	line := o.with(o.root("root").ID, "line", "intermediate", imprint.RevocationConfiguration{CRL: true, CRLDays: 1, CRLShards: 4})
	server := httptest.NewServer(o.Handler())
	t.Cleanup(server.Close)
	o.publish()
	seen := map[string]int{}
	for n := range 12 {
		issued := o.issue(line.ID, fmt.Sprint("SN-", n))
		o.later(10 * time.Second)
		o.revoke(line.ID, issued, imprint.ReasonSuperseded)
		if signed := o.publish(); signed != 1 {
			t.Fatalf("one revocation made %d lists", signed)
		}
		url := issued.Certificate.CRLDistributionPoints[0]
		path := strings.TrimPrefix(url, "http://pki.example.com/crl/"+string(home.Account)+"/"+string(home.Region)+"/"+string(line.ID))
		seen[path]++
		l := o.list(server, line, path)
		if len(l.RevokedCertificateEntries) != seen[path] {
			t.Errorf("list %s has %d entries, want %d", path, len(l.RevokedCertificateEntries), seen[path])
		}
		if !bytes.Contains(l.Raw, []byte(url)) {
			t.Errorf("list %s doesn't name itself as %s", path, url)
		}
	}
	base := "/crl/" + string(home.Account) + "/" + string(home.Region) + "/" + string(line.ID)
	for _, path := range []string{base + "/4.crl", base + "/-1.crl", base + "/01.crl", base + "/x.crl", "/crl/1/x/y.crl", "/crl/" + string(other.Account) + "/us-east-1/" + string(line.ID) + "/0.crl"} {
		fetch(t, server, path, http.StatusNotFound)
	}
}

// TestOpensslAsksForTheStatus over HTTP, of an authority with a delegated responder and of
// one below which there can be none.
func TestOpensslAsksForTheStatus(t *testing.T) {
	t.Parallel()
	for _, profile := range []string{"policy-ca", "intermediate"} {
		t.Run(profile, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t)
			o.at = time.Now().UTC() // openssl has no other clock for responses
			root := o.root("root")
			line := o.with(root.ID, "line", profile, imprint.RevocationConfiguration{OCSP: true})
			server := httptest.NewServer(o.Handler())
			t.Cleanup(server.Close)
			good, bad := o.issue(line.ID, "good"), o.issue(line.ID, "bad")
			o.revoke(line.ID, bad, imprint.ReasonCessationOfOperation)
			dir := t.TempDir()
			put(t, dir, "root.pem", []byte(root.Certificate))
			put(t, dir, "line.pem", []byte(line.Certificate))
			put(t, dir, "good.pem", []byte(good.PEM))
			put(t, dir, "bad.pem", []byte(bad.PEM))
			url := server.URL + "/ocsp/" + string(home.Account) + "/" + string(home.Region) + "/" + string(line.ID)
			ask := func(file string, more ...string) string {
				out, err := openssl(t, dir, slices.Concat([]string{"ocsp"}, more, []string{"-issuer", "line.pem", "-cert", file, "-url", url, "-CAfile", "root.pem", "-no_nonce"})...)
				if err != nil {
					t.Errorf("openssl ocsp: %v: %s", err, out)
				}
				return out
			}
			for range 2 { // the second answer is the one that was kept
				if out := ask("good.pem"); !strings.Contains(out, "Response verify OK") || !strings.Contains(out, "good.pem: good") {
					t.Errorf("a good certificate: %s", out)
				}
			}
			if out := ask("bad.pem", "-sha256"); !strings.Contains(out, "Response verify OK") || !strings.Contains(out, "bad.pem: revoked") || !strings.Contains(out, "cessationOfOperation") {
				t.Errorf("a revoked certificate: %s", out)
			}
			// What was good a moment ago is revoked at once.
			o.revoke(line.ID, good, imprint.ReasonKeyCompromise)
			if out := ask("good.pem"); !strings.Contains(out, "good.pem: revoked") {
				t.Errorf("a certificate that was just revoked: %s", out)
			}
			stranger := o.issue(o.with(root.ID, "sister", profile, imprint.RevocationConfiguration{}).ID, "stranger")
			request, err := ocsp.CreateRequest(stranger.Certificate, parse(t, line.Certificate), nil)
			if err != nil {
				t.Fatal(err)
			}
			der, _, err := o.Respond(t.Context(), home, line.ID, request)
			refused(t, "a serial number that was never issued", err, imprint.CodeNotFound, "never issued")
			_, err = ocsp.ParseResponse(der, nil)
			var status ocsp.ResponseError
			if !errors.As(err, &status) || status.Status != ocsp.Unauthorized {
				t.Errorf("its response: %v, want unauthorized", err)
			}
			_, _, err = o.Respond(t.Context(), home, line.ID, []byte("nonsense"))
			refused(t, "no request at all", err, imprint.CodeInvalidRequest, "can't be read")
			request, err = ocsp.CreateRequest(good.Certificate, parse(t, root.Certificate), nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = o.Respond(t.Context(), home, line.ID, request)
			refused(t, "another issuer's certificate", err, imprint.CodeNotFound, "another issuer")
			_, _, err = o.Respond(t.Context(), other, line.ID, request)
			refused(t, "another tenant", err, imprint.CodeNotFound, "doesn't exist")
		})
	}
}

func parse(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	cert, err := pki.ParseCertificatePEM(text)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestAListThatCantBeSignedIsTriedAgain: the list before it is served meanwhile, and no
// other waits for it.
func TestAListThatCantBeSignedIsTriedAgain(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	crl := imprint.RevocationConfiguration{CRL: true, CRLDays: 7}
	broken, sound := o.with(root.ID, "broken", "intermediate", crl), o.with(root.ID, "sound", "intermediate", crl)
	o.publish()
	one, two := o.issue(broken.ID, "one"), o.issue(sound.ID, "two")
	change := func(key []byte) {
		t.Helper()
		err := o.store.Update(t.Context(), func(tx imprint.Tx) error {
			a, err := tx.Authority(home, broken.ID)
			if err != nil {
				return err
			}
			a.SealedKey = key
			return tx.PutAuthority(a)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	change([]byte("damaged"))
	o.later(time.Minute)
	o.revoke(broken.ID, one, imprint.ReasonSuperseded)
	o.revoke(sound.ID, two, imprint.ReasonSuperseded)
	if n := o.publish(); n != 1 {
		t.Errorf("signed %d lists, want that of the sound authority", n)
	}
	l, err := o.List(t.Context(), home, broken.ID, imprint.WholeList)
	if err != nil || l.Number != 1 {
		t.Errorf("the list before: number %d, %v", l.Number, err)
	}
	if n := o.publish(); n != 0 {
		t.Errorf("signed %d lists at once again", n)
	}
	change(broken.SealedKey)
	o.later(time.Minute)
	if n := o.publish(); n != 1 {
		t.Errorf("signed %d lists a minute later, want 1", n)
	}
}

// TestThePublisherSignsAndEnds with its context.
func TestThePublisherSignsAndEnds(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	line := o.with(o.root("root").ID, "line", "intermediate", imprint.RevocationConfiguration{CRL: true})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		o.PublishLists(ctx)
	}()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := o.List(t.Context(), home, line.ID, imprint.WholeList)
		if err == nil {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no list: %v", err)
		}
	}
	cancel()
	<-done
}
