package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
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
