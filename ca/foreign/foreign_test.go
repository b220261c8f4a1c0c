package foreign_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca/foreign"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/revoked"
)

var (
	home    = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	instant = time.Date(2030, 3, 4, 5, 6, 7, 0, time.UTC)
)

const hour = time.Hour

// maker is a CA elsewhere, a registry, and an engine.
type maker struct {
	*foreign.Engine
	t     *testing.T
	store imprint.Store
	now   time.Time
	key   *ecdsa.PrivateKey
	cert  *x509.Certificate
}

func newMaker(t *testing.T) *maker {
	t.Helper()
	m := &maker{t: t, store: registrytest.New(t), now: instant, key: newKey(t)}
	m.cert = m.sign(1, true)
	m.Engine = foreign.New(foreign.Options{Store: m.store, Clock: func() time.Time { return m.now }, Logger: slog.New(slog.DiscardHandler)})
	return m
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign makes the CA's own certificate, or one of a device.
func (m *maker) sign(serial int64, isCA bool) *x509.Certificate {
	m.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprint("device ", serial)}, NotBefore: instant.Add(-hour), NotAfter: instant.Add(10000 * hour),
		BasicConstraintsValid: true, IsCA: isCA, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	parent, key := m.cert, newKey(m.t)
	if isCA {
		template.Subject.CommonName, template.KeyUsage, parent, key = "maker", x509.KeyUsageCertSign|x509.KeyUsageCRLSign, template, m.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), m.key)
	if err != nil {
		m.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		m.t.Fatal(err)
	}
	return cert
}

// list signs a list that revokes serial numbers; those below 0 are on hold.
func (m *maker) list(number int64, scope string, serials ...int64) []byte {
	m.t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: m.now, NextUpdate: m.now.Add(24 * hour)}
	for _, serial := range serials {
		entry := x509.RevocationListEntry{SerialNumber: big.NewInt(max(serial, -serial)), RevocationTime: m.now.Add(-hour), ReasonCode: 1}
		if serial < 0 {
			entry.ReasonCode = imprint.ReasonOnHold
		}
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, entry)
	}
	if scope != "" {
		name := append([]byte{0x86, byte(len(scope))}, scope...)
		value := append([]byte{0x30, byte(len(name) + 4), 0xa0, byte(len(name) + 2), 0xa0, byte(len(name))}, name...)
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: value}}
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, m.cert, m.key)
	if err != nil {
		m.t.Fatal(err)
	}
	return der
}

// register registers a device's certificate.
func (m *maker) register(serial int64, edit func(*imprint.Certificate)) imprint.CertificateID {
	m.t.Helper()
	cert := m.sign(serial, false)
	c := imprint.Certificate{Tenant: home, ID: pki.CertificateID(cert.Raw), PEM: pki.EncodeCertificatePEM(cert.Raw), Status: imprint.CertificateActive, Serial: pki.SerialHex(cert.SerialNumber)}
	if edit != nil {
		edit(&c)
	}
	err := m.store.Update(m.t.Context(), func(tx imprint.Tx) error { return tx.PutCertificate(c) })
	if err != nil {
		m.t.Fatal(err)
	}
	return c.ID
}

func (m *maker) statuses(ids ...imprint.CertificateID) string {
	m.t.Helper()
	var all []string
	err := m.store.View(m.t.Context(), func(tx imprint.ReadTx) error {
		for _, id := range ids {
			c, err := tx.Certificate(home, id)
			if err != nil {
				return err
			}
			all = append(all, string(c.Status))
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func (m *maker) take(r foreign.Request) imprint.ForeignList {
	m.t.Helper()
	r.CA = m.cert
	l, err := m.Import(m.t.Context(), home, r)
	if err != nil {
		m.t.Fatal(err)
	}
	return l
}

// newcomer says how a device with a serial number is judged at its first connection.
func (m *maker) newcomer(serial int64) string {
	m.t.Helper()
	var verdict string
	err := m.store.View(m.t.Context(), func(tx imprint.ReadTx) error {
		warning, err := revoked.ByLists(tx, home, m.sign(serial, false), m.now)
		switch {
		case revoked.Is(err):
			verdict = string(imprint.CodeOf(err))
			if imprint.HintOf(err) == "" && imprint.Describe(imprint.CodeOf(err)).Hint == "" {
				m.t.Error("the refusal says nothing of what to do")
			}
			return nil
		case warning != "":
			verdict = "warned"
		default:
			verdict = "fine"
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return verdict
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// Newcomers on a list are refused, registered ones become REVOKED, those on hold INACTIVE;
// others, also of a CA of the same name and with the same serial number, stay.
func TestAListRefusesNewcomersAndRevokesWhoIsHere(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	impostor := &maker{t: t, store: m.store, key: newKey(t)}
	impostor.cert = impostor.sign(1, true)
	a, b, c, d, e := m.register(10, nil), m.register(11, nil), m.register(12, nil), impostor.register(10, nil),
		m.register(13, func(c *imprint.Certificate) { c.Status = imprint.CertificatePendingTransfer })
	l := m.take(foreign.Request{Data: m.list(1, "", 10, -11, 13, 14)})
	want(t, "the list", fmt.Sprintf("%s %d %t", l.Number, l.Entries, l.Applied), "1 4 true")
	want(t, "on it, on hold, not on it, another's, in transfer", m.statuses(a, b, c, d, e), "REVOKED INACTIVE ACTIVE ACTIVE PENDING_TRANSFER")
	want(t, "a newcomer on it", m.newcomer(14), "OnRevocationList")
	want(t, "one on hold", m.newcomer(11), "OnRevocationList")
	want(t, "one that isn't", m.newcomer(15), "fine")
	want(t, "another's", impostor.newcomer(14), "fine")
	want(t, "revoked", m.Counters().Revoked, uint64(2))
	// A newer list takes its place: who left it may come, and REVOKED stays so.
	m.take(foreign.Request{Data: m.list(2, "", 12)})
	want(t, "after the next list", m.newcomer(14)+" "+m.statuses(a, c), "fine REVOKED REVOKED")
	m.take(foreign.Request{Data: m.list(3, "", 20), KeepRegistered: new(true)})
	f := m.register(30, nil)
	m.take(foreign.Request{Data: m.list(4, "", 30)})
	want(t, "who is registered, when that is left alone", m.statuses(f), "ACTIVE")
	_, err := m.Set(t.Context(), home, l.CA, foreign.Settings{KeepRegistered: new(false)})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "and when it isn't any more", m.statuses(f), "REVOKED")
	err = m.Forget(t.Context(), home, l.CA)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "once the list is forgotten", m.newcomer(30), "fine")
	want(t, "forgotten twice", imprint.CodeOf(m.Forget(t.Context(), home, l.CA)), imprint.CodeNotFound)
}

// Numbers don't go back, and one number is one list; the same list again is no harm.
func TestTheNumberOfAListNeverGoesBack(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	second := m.list(5, "", 10)
	m.take(foreign.Request{Data: second})
	for name, tt := range map[string]struct {
		list []byte
		want imprint.Code
	}{
		"an older one":       {m.list(4, ""), imprint.CodeInvalidRequest},
		"another of its own": {m.list(5, ""), imprint.CodeInvalidRequest},
		"the same again":     {second, ""},
	} {
		_, err := m.Import(t.Context(), home, foreign.Request{CA: m.cert, Data: tt.list})
		want(t, name, imprint.CodeOf(err), tt.want)
	}
	m.now = m.now.Add(-hour)
	_, err := m.Import(t.Context(), home, foreign.Request{CA: m.cert, Data: m.list(6, "")})
	want(t, "a higher number of an earlier time", imprint.CodeOf(err), imprint.CodeInvalidRequest)
	m.now = m.now.Add(hour)
	want(t, "who is on the list that stayed", m.newcomer(10), "OnRevocationList")
	want(t, "counted: imported, refused", fmt.Sprint(m.Counters().Imported, m.Counters().Refused), "1 3")
}

// Parts of a divided list stand beside each other.
func TestPartsOfADividedListStandBesideEachOther(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	m.take(foreign.Request{Data: m.list(9, "http://x/1", 10)})
	m.take(foreign.Request{Data: m.list(1, "http://x/2", 11)})
	want(t, "of both", m.newcomer(10)+" "+m.newcomer(11)+" "+m.newcomer(12), "OnRevocationList OnRevocationList fine")
	lists, _, err := m.Lists(t.Context(), home, imprint.Page{Limit: 10, Ascending: true})
	if err != nil || len(lists) != 2 {
		t.Errorf("got %d lists, %v; want 2", len(lists), err)
	}
}

// A list past its time warns or refuses, as its CA's setting says.
func TestAStaleListWarnsOrRefuses(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	l := m.take(foreign.Request{Data: m.list(1, "", 10)})
	m.now = m.now.Add(25 * hour)
	want(t, "by default", m.newcomer(11)+" "+m.newcomer(10), "warned OnRevocationList")
	set := func(refuse bool) {
		t.Helper()
		_, err := m.Set(t.Context(), home, l.CA, foreign.Settings{RefuseStale: &refuse})
		if err != nil {
			t.Fatal(err)
		}
	}
	set(true)
	want(t, "when that is refused", m.newcomer(11)+" "+m.newcomer(10), "RevocationListStale OnRevocationList")
	impostor := &maker{t: t, store: m.store, key: newKey(t), now: m.now}
	impostor.cert = impostor.sign(1, true)
	want(t, "a newcomer of another CA of the name", impostor.newcomer(11), "fine")
	m.take(foreign.Request{Data: m.list(2, "")})
	want(t, "with a current one", m.newcomer(11), "fine")
}

// A list is fetched on time; a place that fails is asked again, later and later, and what is
// there goes on to count.
func TestAListIsFetchedOnTime(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	var answer atomic.Pointer[func(http.ResponseWriter, *http.Request)]
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		(*answer.Load())(w, r)
	}))
	defer server.Close()
	serve := func(fn func(http.ResponseWriter, *http.Request)) { answer.Store(&fn) }
	give := func(list []byte) { serve(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(list) }) }
	due := func() {
		t.Helper()
		err := m.FetchDue(t.Context())
		if err != nil {
			t.Fatal(err)
		}
	}
	list := func() imprint.ForeignList {
		t.Helper()
		all, _, err := m.Lists(t.Context(), home, imprint.Page{Limit: 10, Ascending: true})
		if err != nil || len(all) != 1 {
			t.Fatalf("got %d lists, %v", len(all), err)
		}
		return all[0]
	}
	place := server.URL + "/maker.crl"
	give(m.list(1, place, 10))
	l := m.take(foreign.Request{URL: place})
	want(t, "the next time", l.FetchAt, instant.Add(12*hour))
	due()
	want(t, "fetched before its time", asked, 1)
	m.now = instant.Add(12 * hour)
	give(m.list(2, place, 11))
	due()
	want(t, "after half of its time", m.newcomer(11)+" "+list().Number, "OnRevocationList 2")
	for n, wait := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		m.now = list().FetchAt
		serve(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) })
		due()
		want(t, fmt.Sprint("failures ", n+1), list().Failures, n+1)
		want(t, "the pause", list().FetchAt.Sub(m.now), wait)
		if !strings.Contains(list().LastError, "502") {
			t.Errorf("the last error is %q", list().LastError)
		}
	}
	want(t, "meanwhile", m.newcomer(11), "OnRevocationList")
	m.now = list().FetchAt
	give(m.list(1, place)) // an old list is no better than none
	due()
	want(t, "failures, with an old list", list().Failures, 4)
	m.now = list().FetchAt
	give(m.list(3, place))
	due()
	want(t, "once it is there again", fmt.Sprintf("%d %q %s", list().Failures, list().LastError, m.newcomer(11)), `0 "" fine`)
	for name, fn := range map[string]func(http.ResponseWriter, *http.Request){
		"it is too long": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, pki.MaxForeignCRL+2)) },
		"it goes round": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
		},
		"it leads to a file": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		},
	} {
		serve(fn)
		_, err := m.Import(t.Context(), home, foreign.Request{CA: m.cert, URL: place})
		want(t, name, imprint.CodeOf(err), imprint.CodeInvalidRequest)
	}
	give(m.list(9, "http://elsewhere/1.crl"))
	_, err := m.Import(t.Context(), home, foreign.Request{CA: m.cert, URL: place})
	want(t, "the list of another place", imprint.CodeOf(err), imprint.CodeInvalidRequest)
	for _, bad := range []string{"ftp://x/y", "http://u:p@x/", "http:///x", "http://x/#y", "\x00"} {
		_, err := m.Import(t.Context(), home, foreign.Request{CA: m.cert, URL: bad})
		want(t, bad, imprint.CodeOf(err), imprint.CodeInvalidRequest)
	}
	_, err = m.Set(t.Context(), home, l.CA, foreign.Settings{URL: new("")})
	if err != nil {
		t.Fatal(err)
	}
	asked = 0
	m.now = m.now.Add(1000 * hour)
	due()
	want(t, "fetched although it is brought now", asked, 0)
}

// What a crash left undone is done at the next start: entries of a list that never came to
// be are gone, and one that took its place revokes who is registered.
func TestACrashInAnImportLeavesOneListOrTheOther(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	l := m.take(foreign.Request{Data: m.list(1, "", 10)})
	a := m.register(11, nil)
	err := m.store.Update(context.Background(), func(tx imprint.Tx) error {
		// As the next import leaves it before the list takes its place, ...
		return tx.PutForeignRevocation(l.ID, l.Generation+1, imprint.ForeignRevocation{Serial: "e"})
	})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "an entry of a list that isn't there yet", m.newcomer(14), "fine")
	l = m.take(foreign.Request{Data: m.list(2, "", 12)})
	want(t, "after the import came again", m.newcomer(14)+" "+m.newcomer(12), "fine OnRevocationList")
	err = m.store.Update(context.Background(), func(tx imprint.Tx) error {
		// ... and after that, before anybody is revoked.
		err := tx.PutForeignRevocation(l.ID, l.Generation, imprint.ForeignRevocation{Serial: "b", Reason: 1})
		if err != nil {
			return err
		}
		l.Applied = false
		return tx.PutForeignList(l)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = m.FetchDue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want(t, "who was registered", m.statuses(a), "REVOKED")
}

// TestOnlyPublicAddressesAreAsked for other accounts than the first: neither by name nor by
// number is anything of the server's own network.
func TestOnlyPublicAddressesAreAsked(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		_, _ = w.Write(m.list(1, ""))
	}))
	defer server.Close()
	guarded := foreign.New(foreign.Options{Store: m.store, Clock: func() time.Time { return m.now }, PrivateAccount: "999999999999", Logger: slog.New(slog.DiscardHandler)})
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "10.0.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "[::1]", "[fd00::1]", "[fe80::1]", "[64:ff9b::7f00:1]"} {
		_, err := guarded.Import(t.Context(), home, foreign.Request{CA: m.cert, URL: "http://" + host + ":" + port + "/maker.crl"})
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest || !strings.Contains(err.Error(), "--private-addresses") {
			t.Errorf("%s: got %v", host, err)
		}
	}
	if asked > 0 {
		t.Errorf("the server was asked %d times", asked)
	}
	m.take(foreign.Request{URL: server.URL + "/maker.crl"})
}

// held is a store whose first look waits.
type held struct {
	imprint.Store
	seen          atomic.Bool
	waits, goesOn chan struct{}
}

func (h *held) View(ctx context.Context, fn func(imprint.ReadTx) error) error {
	if h.seen.CompareAndSwap(false, true) {
		close(h.waits)
		<-h.goesOn
	}
	return h.Store.View(ctx, fn)
}

// TestALongListKeepsNoOtherTenantWaiting while it takes the place of the one before.
func TestALongListKeepsNoOtherTenantWaiting(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	store := &held{Store: m.store, waits: make(chan struct{}), goesOn: make(chan struct{})}
	engine := foreign.New(foreign.Options{Store: store, Clock: func() time.Time { return m.now }, Logger: slog.New(slog.DiscardHandler)})
	list, done := m.list(1, ""), make(chan error)
	take := func(tenant imprint.Tenant) error {
		_, err := engine.Import(t.Context(), tenant, foreign.Request{CA: m.cert, Data: list})
		return err
	}
	go func() { done <- take(home) }()
	<-store.waits
	go func() { done <- take(imprint.Tenant{Account: "111111111111", Region: home.Region}) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2 * time.Minute):
		t.Error("another tenant's list waits")
	}
	close(store.goesOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
