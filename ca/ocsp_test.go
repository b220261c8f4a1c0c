package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
)

// modules are keys that can be watched: how often they are opened and sign, and what
// happens then.
type modules struct {
	mu            sync.Mutex
	keys          map[string]pki.Signer
	opened, signs atomic.Int64
	opening       func(uri string) error
	signing       func(ctx context.Context, uri string) error
}

type moduleKey struct {
	pki.Signer
	of  *modules
	uri string
}

func (m *modules) Generate(_ context.Context, uri string, kind pki.KeyKind) (string, pki.Signer, error) {
	key, err := pki.NewKey(kind)
	if err != nil {
		return "", nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys == nil {
		m.keys = map[string]pki.Signer{}
	}
	m.keys[uri] = pki.NewSoftSigner(key)
	return uri, moduleKey{m.keys[uri], m, uri}, nil
}

func (m *modules) Check(imprint.Tenant, string) error { return nil }

func (m *modules) Stores(imprint.Tenant) []ca.KeyStore { return nil }

func (m *modules) List(context.Context, imprint.Tenant, string) ([]ca.StoredKey, error) {
	return nil, nil
}

func (m *modules) Open(_ context.Context, uri string) (pki.Signer, error) {
	m.opened.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.opening != nil {
		err := m.opening(uri)
		if err != nil {
			return nil, err
		}
	}
	return moduleKey{m.keys[uri], m, uri}, nil
}

func (k moduleKey) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.of.signs.Add(1)
	k.of.mu.Lock()
	signing := k.of.signing
	k.of.mu.Unlock()
	if signing != nil {
		err := signing(ctx, k.uri)
		if err != nil {
			return nil, err
		}
	}
	return k.Signer.Sign(ctx, digest, opts)
}

func (m *modules) onOpen(fn func(string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opening = fn
}

func (m *modules) onSign(fn func(context.Context, string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.signing = fn
}

// withModules gives the office's engine keys in modules, and a log.
func (o *office) withModules(m *modules, log io.Writer) {
	o.t.Helper()
	profiles, err := pki.NewProfiles(pki.ProfileConfig{Name: "hour", Kind: pki.KindOperational, Lifetime: time.Hour})
	if err != nil {
		o.t.Fatal(err)
	}
	o.Engine = ca.New(ca.Options{Store: o.store, Journal: issuelog.New(o.store), Clock: o.clock, Profiles: profiles, Keys: m, BaseURL: "http://pki.example.com",
		Logger: slog.New(slog.NewTextHandler(log, nil))})
	o.t.Cleanup(o.Close)
}

// inModules makes a root with OCSP and below it an intermediate that answers OCSP itself.
func (o *office) inModules(name string) (root, line imprint.CertificateAuthority) {
	o.t.Helper()
	r := imprint.RevocationConfiguration{OCSP: true}
	root, err := o.Create(o.t.Context(), home, ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject(o.t, name+" root"), Profile: "root", KeyURI: "module:" + name + "-root", Revocation: r})
	if err == nil {
		line, err = o.Create(o.t.Context(), home, ca.Spec{Type: imprint.AuthoritySubordinate, RawSubject: subject(o.t, name), Parent: root.ID, Profile: "intermediate",
			KeyURI: "module:" + name, Revocation: r})
	}
	if err != nil {
		o.t.Fatal(err)
	}
	return root, line
}

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

// TestAFloodOfRequestsMakesAKeySignSoOftenAndNoMore: the same question once, others up to
// the bound of the authority.
func TestAFloodOfRequestsMakesAKeySignSoOftenAndNoMore(t *testing.T) {
	t.Parallel()
	o, m := newOffice(t), &modules{}
	o.withModules(m, io.Discard)
	_, line := o.inModules("line")
	issuer := parse(t, line.Certificate)
	device := o.issue(line.ID, "SN-1")
	begin, done := make(chan struct{}), make(chan error)
	before := m.signs.Load()
	const callers = 16
	request := ocspRequest(t, device.Certificate, issuer, crypto.SHA1)
	for range callers {
		go func() {
			<-begin
			_, _, err := o.Respond(t.Context(), home, line.ID, request)
			done <- err
		}()
	}
	close(begin)
	for range callers {
		err := <-done
		if err != nil {
			t.Error(err)
		}
	}
	if n := m.signs.Load() - before; n != 1 {
		t.Errorf("one question was signed %d times", n)
	}
	// As many numbers as it takes, each of a certificate: rows are enough.
	var requests [][]byte
	err := o.store.Update(t.Context(), func(tx imprint.Tx) error {
		requests = nil
		for n := range 300 {
			serial := fmt.Sprintf("7%038x", n)
			requests = append(requests, ocspRequest(t, withSerial(t, device.Certificate, serial), issuer, crypto.SHA1))
			err := tx.PutIssuance(imprint.Issuance{ID: fmt.Sprintf("%032x", n), Tenant: home, Authority: line.ID, Serial: serial, At: now, CertificateID: imprint.CertificateID(fmt.Sprintf("%064x", n))})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	before = m.signs.Load()
	busy := 0
	for _, one := range requests {
		der, _, err := o.Respond(t.Context(), home, line.ID, one)
		if imprint.CodeOf(err) == imprint.CodeThrottled && bytes.Equal(der, ocsp.TryLaterErrorResponse) {
			busy++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n := m.signs.Load() - before; n > 200 || busy < 90 {
		t.Errorf("%d signatures in a moment, %d requests put off", n, busy)
	}
	o.later(time.Minute)
	_, _, err = o.Respond(t.Context(), home, line.ID, requests[len(requests)-1])
	if err != nil {
		t.Errorf("a minute later: %v", err)
	}
}

func withSerial(t *testing.T, cert *x509.Certificate, serial string) *x509.Certificate {
	t.Helper()
	other := *cert
	n, ok := new(big.Int).SetString(serial, 16)
	if !ok {
		t.Fatalf("%q isn't a number", serial)
	}
	other.SerialNumber = n
	return &other
}

// TestAModuleThatDoesNotAnswerHoldsNobodyElse: requests for its authority end soon, and
// those for others are answered.
func TestAModuleThatDoesNotAnswerHoldsNobodyElse(t *testing.T) {
	t.Parallel()
	o, m := newOffice(t), &modules{}
	o.withModules(m, io.Discard)
	_, slow := o.inModules("slow")
	_, sound := o.inModules("sound")
	stuck, finish := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var devices []ca.Issued
	for n := range 60 {
		devices = append(devices, o.issue(slow.ID, fmt.Sprint("SN-", n)))
	}
	device := o.issue(sound.ID, "SN-x")
	m.onSign(func(ctx context.Context, uri string) error {
		if uri != "module:slow" {
			return nil
		}
		once.Do(func() { close(stuck) })
		<-finish // whatever its context says
		return ctx.Err()
	})
	results := make(chan error, len(devices))
	issuer := parse(t, slow.Certificate)
	ask := func(d ca.Issued) {
		_, _, err := o.Respond(t.Context(), home, slow.ID, ocspRequest(t, d.Certificate, issuer, crypto.SHA1))
		results <- err
	}
	go ask(devices[0])
	<-stuck
	for _, d := range devices[1:] {
		go ask(d)
	}
	// Beyond those that wait their turn the others are put off at once, though the key is
	// still held.
	for range len(devices) - 1 {
		err := <-results
		if imprint.CodeOf(err) != imprint.CodeThrottled {
			t.Fatalf("got %v, want one who is put off", err)
		}
	}
	answer, err := o.ask(sound, device.Certificate)
	if err != nil || answer.Status != ocsp.Good {
		t.Errorf("another authority: %+v, %v", answer, err)
	}
	close(finish)
	err = <-results
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the one who waited for the module: %v", err)
	}
}

// TestAKeyThatFailsIsTriedAgainAfterAWhile, not for each request, and the log says it once.
func TestAKeyThatFailsIsTriedAgainAfterAWhile(t *testing.T) {
	t.Parallel()
	o, m := newOffice(t), &modules{}
	var log bytes.Buffer
	o.withModules(m, &log)
	root, line := o.inModules("line")
	device, sub := o.issue(line.ID, "SN-1"), parse(t, line.Certificate)
	m.onOpen(func(string) error { return errors.New("unplugged") })
	// What is open is forgotten when its authority changes.
	for _, id := range []imprint.AuthorityID{root.ID, line.ID} {
		_, err := o.Update(t.Context(), home, id, ca.Edit{Tags: func(tags map[string]string) error { tags["a"] = "b"; return nil }})
		if err != nil {
			t.Fatal(err)
		}
	}
	before := m.opened.Load()
	for range 50 {
		_, err := o.ask(line, device.Certificate)
		if err == nil || !strings.Contains(err.Error(), "unplugged") {
			t.Fatalf("got %v", err)
		}
		_, err = o.ask(root, sub)
		if err == nil || !strings.Contains(err.Error(), "unplugged") {
			t.Fatalf("got %v", err)
		}
	}
	if n := m.opened.Load() - before; n != 2 {
		t.Errorf("two authorities' keys were opened %d times", n)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 2 {
		t.Errorf("the log has %d errors of two authorities:\n%s", n, &log)
	}
	m.onOpen(nil)
	_, err := o.ask(line, device.Certificate)
	if err == nil {
		t.Error("it was tried again at once")
	}
	o.later(5 * time.Second)
	for by, cert := range map[*imprint.CertificateAuthority]*x509.Certificate{&line: device.Certificate, &root: sub} {
		answer, err := o.ask(*by, cert)
		if err != nil || answer.Status != ocsp.Good {
			t.Errorf("five seconds later: %+v, %v", answer, err)
		}
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
