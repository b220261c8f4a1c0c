package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/pki"
)

func ocspRequest(t *testing.T, of, issuer *x509.Certificate, hash crypto.Hash) []byte {
	t.Helper()
	request, err := ocsp.CreateRequest(of, issuer, &ocsp.RequestOptions{Hash: hash})
	if err != nil {
		t.Fatal(err)
	}
	return request
}

// ask gives the verified answer about a certificate.
func (o *office) ask(by imprint.CertificateAuthority, of *x509.Certificate) (*ocsp.Response, error) {
	o.t.Helper()
	issuer := parse(o.t, by.Certificate)
	der, _, err := o.Respond(o.t.Context(), home, by.ID, ocspRequest(o.t, of, issuer, crypto.SHA1))
	if err != nil {
		return nil, err
	}
	return ocsp.ParseResponseForCert(der, of, issuer)
}

// responders counts the certificates of responders that an authority made.
func (o *office) responders(by imprint.AuthorityID) int {
	o.t.Helper()
	n := 0
	err := o.store.View(o.t.Context(), func(tx imprint.ReadTx) error {
		all, _, err := tx.IssuancesBy(home, by, imprint.Page{Limit: 1000})
		n = 0
		for _, i := range all {
			if i.Profile == "ocsp" {
				n++
			}
		}
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return n
}

// relying is a directory and an address by which openssl asks about certificates.
type relying struct {
	t   *testing.T
	dir string
	url string
}

func (o *office) relying(root, by imprint.CertificateAuthority, certs map[string]ca.Issued) *relying {
	o.t.Helper()
	server := httptest.NewServer(o.Handler())
	o.t.Cleanup(server.Close)
	r := &relying{t: o.t, dir: o.t.TempDir(), url: server.URL + "/ocsp/" + string(home.Account) + "/" + string(home.Region) + "/" + string(by.ID)}
	put(o.t, r.dir, "root.pem", []byte(root.Certificate))
	put(o.t, r.dir, "issuer.pem", []byte(by.Certificate))
	for name, cert := range certs {
		put(o.t, r.dir, name+".pem", []byte(cert.PEM))
	}
	return r
}

// wants asks with openssl over POST and expects a verified status.
func (r *relying) wants(what, name, status string) {
	r.t.Helper()
	out, err := openssl(r.t, r.dir, "ocsp", "-issuer", "issuer.pem", "-cert", name+".pem", "-url", r.url, "-CAfile", "root.pem", "-no_nonce")
	if err != nil || !strings.Contains(out, "Response verify OK") || !strings.Contains(out, name+".pem: "+status) {
		r.t.Errorf("%s: want %s, got %v: %s", what, status, err, out)
	}
}

// TestOCSPGoesOnAfterTheEndOfSigning: an authority signs devices for a year or two and
// answers for them for ten, by responders that are made until its own end.
func TestOCSPGoesOnAfterTheEndOfSigning(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.at = time.Now().UTC()
	root := o.root("root")
	line := o.with(root.ID, "line", "policy-ca", imprint.RevocationConfiguration{OCSP: true})
	good, bad := o.issue(line.ID, "good"), o.issue(line.ID, "bad")
	o.revoke(line.ID, bad, imprint.ReasonKeyCompromise)
	ended := o.at.Add(-time.Minute)
	_, err := o.Update(t.Context(), home, line.ID, ca.Edit{SigningEnds: &ended})
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Issue(t.Context(), home, line.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "late")})
	refused(t, "a device after the end", err, imprint.CodeCAExpired, "signs nothing more")
	r := o.relying(root, line, map[string]ca.Issued{"good": good, "bad": bad})
	r.wants("after the end of signing", "good", "good")
	r.wants("after the end of signing", "bad", "revoked")
	for year := 1; year <= 9; year++ {
		o.later(365 * 24 * time.Hour)
		answer, err := o.ask(line, bad.Certificate)
		if err != nil || answer.Status != ocsp.Revoked || answer.Certificate == nil || answer.Certificate.NotAfter.Before(answer.NextUpdate) {
			t.Fatalf("after %d years: %+v, %v", year, answer, err)
		}
	}
	if n := o.responders(line.ID); n != 10 {
		t.Errorf("made %d responders, want one for each time", n)
	}
}

// TestAnAuthorityThatMakesNoCertificatesStillTellsWhatItRevoked, and makes none at a
// stranger's request.
func TestAnAuthorityThatMakesNoCertificatesStillTellsWhatItRevoked(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(o *office, root, line imprint.CertificateAuthority) error{
		"disabled": func(o *office, _, line imprint.CertificateAuthority) error {
			_, err := o.Update(o.t.Context(), home, line.ID, ca.Edit{Status: imprint.AuthorityDisabled})
			return err
		},
		"deleted": func(o *office, _, line imprint.CertificateAuthority) error {
			_, err := o.Update(o.t.Context(), home, line.ID, ca.Edit{Status: imprint.AuthorityDisabled})
			if err == nil {
				_, err = o.Delete(o.t.Context(), home, line.ID, 7)
			}
			return err
		},
		"revoked": func(o *office, root, line imprint.CertificateAuthority) error {
			_, err := o.Revoke(o.t.Context(), home, root.ID, line.Serial, imprint.ReasonKeyCompromise)
			return err
		},
		"below a revoked one": func(o *office, root, line imprint.CertificateAuthority) error {
			above, err := o.Authority(o.t.Context(), home, line.Parent)
			if err == nil {
				_, err = o.Revoke(o.t.Context(), home, root.ID, above.Serial, imprint.ReasonSuperseded)
			}
			return err
		},
	} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, asked before: %t", name, before), func(t *testing.T) {
				t.Parallel()
				o := newOffice(t)
				o.at = time.Now().UTC()
				root := o.root("root")
				parent := root
				if name == "below a revoked one" {
					var err error
					parent, err = o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthoritySubordinate, RawSubject: subject(t, "middle"), Parent: root.ID, Profile: "policy-ca"})
					if err != nil {
						t.Fatal(err)
					}
				}
				profile := "policy-ca"
				if parent.ID != root.ID {
					profile = "aws-subordinate-ca-0"
				}
				line, err := o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthoritySubordinate, RawSubject: subject(t, "line"), Parent: parent.ID, Profile: profile,
					NotAfter: o.at.AddDate(5, 0, 0), Revocation: imprint.RevocationConfiguration{OCSP: true}})
				if err != nil {
					t.Fatal(err)
				}
				good, bad := o.issue(line.ID, "good"), o.issue(line.ID, "bad")
				o.revoke(line.ID, bad, imprint.ReasonSuperseded)
				want := 0
				if before {
					_, err := o.ask(line, good.Certificate)
					if err != nil {
						t.Fatal(err)
					}
					want = 1
				}
				err = change(o, root, line)
				if err != nil {
					t.Fatal(err)
				}
				o.later(time.Second)
				if profile == "policy-ca" {
					r := o.relying(root, line, map[string]ca.Issued{"good": good, "bad": bad})
					r.wants(name, "good", "good")
					r.wants(name, "bad", "revoked")
				} else if answer, err := o.ask(line, bad.Certificate); err != nil || answer.Status != ocsp.Revoked {
					t.Errorf("got %+v, %v", answer, err)
				}
				o.later(20 * 24 * time.Hour) // the former responder has ended
				answer, err := o.ask(line, bad.Certificate)
				if name == "deleted" {
					refused(t, "an authority that is gone", err, imprint.CodeNotFound, "doesn't exist")
				} else if err != nil || answer.Status != ocsp.Revoked || answer.Certificate != nil {
					t.Errorf("20 days later: %+v, %v; want revoked, by the authority's own key", answer, err)
				}
				if n := o.responders(line.ID); n != want {
					t.Errorf("made %d responders, want %d", n, want)
				}
			})
		}
	}
}

// TestAnExpiredAuthorityIsAskedInVain, and its key isn't touched.
func TestAnExpiredAuthorityIsAskedInVain(t *testing.T) {
	t.Parallel()
	o, m := newOffice(t), &modules{}
	o.withModules(m, io.Discard)
	_, line := o.inModules("line")
	device := o.issue(line.ID, "SN-1")
	o.later(line.NotAfter.Sub(o.clock()) + time.Second)
	opened, signs := m.opened.Load(), m.signs.Load()
	der, _, err := o.Respond(t.Context(), home, line.ID, ocspRequest(t, device.Certificate, parse(t, line.Certificate), crypto.SHA1))
	refused(t, "an expired authority", err, imprint.CodeNotFound, "answers no OCSP")
	if !bytes.Equal(der, ocsp.UnauthorizedErrorResponse) {
		t.Errorf("got the response %x, want unauthorized", der)
	}
	if m.opened.Load() != opened || m.signs.Load() != signs {
		t.Errorf("the key was opened %d times and signed %d times", m.opened.Load()-opened, m.signs.Load()-signs)
	}
}

// TestOCSPNeedsAKey: an authority whose key is elsewhere can't be given a responder.
func TestOCSPNeedsAKey(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	elsewhere := newOffice(t)
	foreign := elsewhere.root("foreign")
	_, err := o.Adopt(t.Context(), home, ca.Spec{Revocation: imprint.RevocationConfiguration{OCSP: true}}, foreign.Certificate, "", nil)
	refused(t, "adopting without key, with OCSP", err, imprint.CodeInvalidRequest, "nothing can sign OCSP responses")
	adopted, err := o.Adopt(t.Context(), home, ca.Spec{}, foreign.Certificate, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	on := ca.Edit{Revocation: &imprint.RevocationConfiguration{OCSP: true}}
	_, err = o.Update(t.Context(), home, adopted.ID, on)
	refused(t, "OCSP without key", err, imprint.CodeInvalidRequest, "nothing can sign OCSP responses")
	_, err = o.Update(t.Context(), home, root.ID, on)
	if err != nil {
		t.Error(err)
	}
}

// TestOpensslsRequestsByPOSTAndGET get the same verified answer, also where the base64 of
// one has two slashes in a row, escaped or not.
func TestOpensslsRequestsByPOSTAndGET(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.at = time.Now().UTC()
	root := o.root("root")
	line := o.with(root.ID, "line", "policy-ca", imprint.RevocationConfiguration{OCSP: true})
	good, bad := o.issue(line.ID, "good"), o.issue(line.ID, "bad")
	o.revoke(line.ID, bad, imprint.ReasonKeyCompromise)
	r := o.relying(root, line, map[string]ca.Issued{"good": good, "bad": bad})
	r.wants("POST", "good", "good")
	r.wants("POST", "bad", "revoked")
	out, err := openssl(t, r.dir, "ocsp", "-sha1", "-issuer", "issuer.pem", "-cert", "bad.pem", "-nonce", "-reqout", "request.der")
	if err != nil {
		t.Fatalf("openssl ocsp: %v: %s", err, out)
	}
	request, err := os.ReadFile(filepath.Join(r.dir, "request.der"))
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for !strings.Contains(text, "//") { // its end is the nonce: another one does as well
		_, _ = rand.Read(request[len(request)-16:])
		text = base64.StdEncoding.EncodeToString(request)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for name, path := range map[string]string{"as it is": text, "escaped": url.QueryEscape(text), "slashes escaped": strings.ReplaceAll(text, "/", "%2F")} {
		response, err := client.Get(r.url + "/" + path)
		if err != nil {
			t.Fatal(err)
		}
		der, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/ocsp-response" {
			t.Errorf("%s: %s, %v", name, response.Status, err)
			continue
		}
		put(t, r.dir, "response.der", der)
		out, err := openssl(t, r.dir, "ocsp", "-sha1", "-respin", "response.der", "-issuer", "issuer.pem", "-cert", "bad.pem", "-CAfile", "root.pem", "-no_nonce")
		if err != nil || !strings.Contains(out, "Response verify OK") || !strings.Contains(out, "bad.pem: revoked") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{http.MethodPut, "", http.StatusMethodNotAllowed}, {http.MethodGet, "", http.StatusMethodNotAllowed}, {http.MethodPost, "/" + text, http.StatusMethodNotAllowed},
		{http.MethodGet, "/*", http.StatusBadRequest}, {http.MethodGet, "/" + strings.Repeat("A", 3*ca.MaxOCSPRequest), http.StatusNotFound},
	} {
		ask, err := http.NewRequestWithContext(t.Context(), c.method, r.url+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(ask)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != c.want {
			t.Errorf("%s %.20s: got %s, want %d", c.method, c.path, response.Status, c.want)
		}
	}
}

// TestAnAnswersTimesAreTheEngines, and allow for clocks that are behind.
func TestAnAnswersTimesAreTheEngines(t *testing.T) {
	t.Parallel()
	for _, profile := range []string{"policy-ca", "intermediate"} {
		o := newOffice(t)
		line := o.with(o.root("root").ID, "line", profile, imprint.RevocationConfiguration{OCSP: true})
		device := o.issue(line.ID, "SN-1")
		o.later(30 * 24 * time.Hour)
		at := o.clock()
		answer, err := o.ask(line, device.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if !answer.ProducedAt.Equal(at) || !answer.ThisUpdate.Equal(at.Add(-10*time.Minute)) || !answer.NextUpdate.Equal(at.Add(time.Hour)) {
			t.Errorf("%s: made at %s, counts from %s until %s", profile, answer.ProducedAt, answer.ThisUpdate, answer.NextUpdate)
		}
		if answer.Certificate != nil && answer.Certificate.NotBefore.After(answer.ThisUpdate) {
			t.Errorf("the responder's certificate begins at %s, after the answer", answer.Certificate.NotBefore)
		}
		// Who is asked for SHA-384 would have to sign twice as often.
		der, _, err := o.Respond(t.Context(), home, line.ID, ocspRequest(t, device.Certificate, parse(t, line.Certificate), crypto.SHA384))
		refused(t, "a request with SHA-384", err, imprint.CodeNotFound, "another issuer")
		if !bytes.Equal(der, ocsp.UnauthorizedErrorResponse) {
			t.Errorf("SHA-384: %x", der)
		}
	}
}

// TestNearTheEndOfAnAuthorityOneResponderIsEnough.
func TestNearTheEndOfAnAuthorityOneResponderIsEnough(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	line, err := o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthoritySubordinate, RawSubject: subject(t, "line"), Parent: root.ID, Profile: "policy-ca",
		NotAfter: now.Add(24 * time.Hour), Revocation: imprint.RevocationConfiguration{OCSP: true}})
	if err != nil {
		t.Fatal(err)
	}
	var devices []ca.Issued
	for n := range 8 {
		devices = append(devices, o.issue(line.ID, fmt.Sprint("SN-", n)))
	}
	o.later(24*time.Hour - 40*time.Second)
	for _, device := range devices {
		answer, err := o.ask(line, device.Certificate)
		if err != nil || answer.NextUpdate.After(line.NotAfter) {
			t.Fatalf("got %+v, %v", answer, err)
		}
		o.later(time.Second)
	}
	if n := o.responders(line.ID); n != 1 {
		t.Errorf("made %d responders, want 1", n)
	}
}

// TestNoKeyStaysWhenItsAuthorityIsGone, in memory either.
func TestNoKeyStaysWhenItsAuthorityIsGone(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	for _, profile := range []string{"intermediate", "policy-ca"} {
		line := o.with(root.ID, profile, profile, imprint.RevocationConfiguration{OCSP: true})
		device := o.issue(line.ID, "SN-1")
		_, err := o.ask(line, device.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		_, err = o.Update(t.Context(), home, line.ID, ca.Edit{Status: imprint.AuthorityDisabled})
		if err == nil {
			_, err = o.Delete(t.Context(), home, line.ID, 7)
		}
		if err == nil {
			o.later(time.Hour)                       // what was answered isn't kept so long
			_, err = o.ask(line, device.Certificate) // until it is gone
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if keys, _, _ := o.Held(); keys == 0 {
		t.Fatal("no key was opened")
	}
	o.later(7*24*time.Hour + time.Second)
	gone, err := o.Purge(t.Context())
	if err != nil || gone != 2 {
		t.Fatalf("purged %d, %v", gone, err)
	}
	if keys, responders, _ := o.Held(); keys != 0 || responders != 0 {
		t.Errorf("%d keys of authorities and %d of responders are in memory", keys, responders)
	}
}

// TestACertificateNamesThePlacesOfTheMomentItIsMade: when they change while it is signed,
// it isn't given out.
func TestACertificateNamesThePlacesOfTheMomentItIsMade(t *testing.T) {
	t.Parallel()
	o, m := newOffice(t), &modules{}
	o.withModules(m, io.Discard)
	_, line := o.inModules("line")
	m.onSign(func(ctx context.Context, uri string) error {
		m.onSign(nil)
		_, err := o.Update(ctx, home, line.ID, ca.Edit{Revocation: &imprint.RevocationConfiguration{CRL: true}})
		return err
	})
	request := pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN-1")}
	_, err := o.Issue(t.Context(), home, line.ID, "hour", request)
	refused(t, "a certificate with the former places", err, imprint.CodeConflictingUpdate, "was changed while it signed")
	issued, err := o.Issue(t.Context(), home, line.ID, "hour", request)
	if err != nil || len(issued.Certificate.CRLDistributionPoints) != 1 || len(issued.Certificate.OCSPServer) != 0 {
		t.Errorf("asked again: %v", err)
	}
}

// TestCAsMaySignOCSPResponses: their keyUsage says so.
func TestCAsMaySignOCSPResponses(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	const want = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	for _, a := range []imprint.CertificateAuthority{root, o.below(root.ID, "line"), o.below2(root.ID, "policy")} {
		cert := parse(t, a.Certificate)
		if cert.KeyUsage != want || !slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool { return bytes.Equal(e.Value, []byte{0x03, 0x02, 0x01, 0x86}) }) {
			t.Errorf("%s: key usage %x, want %x", a.Name, cert.KeyUsage, want)
		}
	}
}
