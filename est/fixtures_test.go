package est_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/est"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
	"github.com/imprint-iot/imprint/renewal"
	"github.com/imprint-iot/imprint/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	home = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	now  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// line is a door with its rooms, a root and an intermediate.
type line struct {
	t        *testing.T
	dir      string
	store    imprint.Store
	engine   *ca.Engine
	renewals *renewal.Engine
	trace    *trace.Log
	door     *est.Door
	url      string
	root     imprint.CertificateAuthority
	seven    imprint.CertificateAuthority
	server   *x509.Certificate

	mu sync.Mutex
	at time.Time
}

func (l *line) clock() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at
}

func (l *line) later(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = l.at.Add(d)
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newLine opens a door on a loopback port.
func newLine(t *testing.T, edits ...func(*est.Options)) *line {
	t.Helper()
	dir := t.TempDir()
	l := &line{t: t, dir: dir, store: registrytest.Open(t, filepath.Join(dir, "registry.db")), at: now}
	master, err := seal.LoadOrCreateMasterKey(filepath.Join(dir, "master.key"))
	fatal(t, err)
	profiles, err := pki.NewProfiles(
		pki.ProfileConfig{Name: "year", Kind: pki.KindOperational, Lifetime: 300 * 24 * time.Hour, Names: pki.NameRules{DNS: true}, Keys: []pki.KeyKind{pki.KeyP256}},
		pki.ProfileConfig{Name: "patterned", Kind: pki.KindOperational, Lifetime: time.Hour, Names: pki.NameRules{DNS: true, Patterns: map[string]string{"dns": "site7.example.com"}}},
		pki.ProfileConfig{Name: "fenced", Kind: pki.KindIntermediate, Lifetime: 3650 * 24 * time.Hour, Constraints: pki.NameConstraints{PermittedDirectories: []string{"/O=Acme"}}},
		pki.ProfileConfig{Name: "fixed", Kind: pki.KindOperational, Lifetime: time.Hour, Subject: pki.SubjectRules{Required: []string{"CN"}, Fixed: map[string]string{"O": "Acme"}}})
	fatal(t, err)
	l.renewals, err = renewal.New(t.Context(), renewal.Options{Store: l.store, Clock: l.clock, Logger: slog.New(slog.DiscardHandler)})
	fatal(t, err)
	t.Cleanup(l.renewals.Close)
	l.engine = ca.New(ca.Options{Renewed: l.renewals.Attach, Store: l.store, Sealer: seal.New(master), Journal: issuelog.New(l.store), Clock: l.clock, Profiles: profiles, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(l.engine.Close)
	l.trace = trace.NewLog(l.store, l.clock, trace.Options{FoldAfter: -1, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(l.trace.Close)
	l.root, l.seven = l.authority("root", "", "root"), imprint.CertificateAuthority{}
	l.seven = l.authority("seven", l.root.ID, "intermediate")

	own := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, own.Public(), own)
	fatal(t, err)
	l.server, err = x509.ParseCertificate(der)
	fatal(t, err)
	options := est.Options{
		Store: l.store, Engine: l.engine, Clock: l.clock, Trace: l.trace, Rate: -1, WrongPasswords: 1000, Logger: slog.New(slog.DiscardHandler),
		Anchors: func() []*x509.Certificate { return []*x509.Certificate{l.server} },
	}
	for _, edit := range edits {
		edit(&options)
	}
	l.door = est.New(options)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	l.url = "https://localhost:" + ln.Addr().String()[strings.LastIndexByte(ln.Addr().String(), ':')+1:]
	listener := est.Listen(ln, l.door.TLS(func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: own}, nil
	}), l.door)
	server := &http.Server{Handler: l.door, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return l
}

func (l *line) authority(name string, parent imprint.AuthorityID, profile string) imprint.CertificateAuthority {
	l.t.Helper()
	kind := imprint.AuthorityRoot
	if parent != "" {
		kind = imprint.AuthoritySubordinate
	}
	subject, err := pki.ParseSubject("/O=Acme/CN=" + name)
	fatal(l.t, err)
	a, err := l.engine.Create(l.t.Context(), home, ca.Spec{Name: name, Type: kind, RawSubject: subject, Parent: parent, Profile: profile})
	fatal(l.t, err)
	return a
}

// label stores one for the authority seven.
func (l *line) label(name imprint.LabelName, edits ...func(*imprint.EnrolmentLabel)) {
	l.t.Helper()
	label := imprint.EnrolmentLabel{Tenant: home, Name: name, Authority: l.seven.ID, Profile: "year", CreatedAt: l.clock(), ChangedAt: l.clock()}
	for _, edit := range edits {
		edit(&label)
	}
	l.update(func(tx imprint.Tx) error { return tx.PutEnrolmentLabel(label) })
}

func (l *line) update(fn func(imprint.Tx) error) {
	l.t.Helper()
	fatal(l.t, l.store.Update(l.t.Context(), fn))
}

func withPasswords(label *imprint.EnrolmentLabel) { label.Passwords = true }

// password makes one for a label, good for an hour.
func (l *line) password(label imprint.LabelName, id, subject string) string {
	l.t.Helper()
	secret := "secret of " + id
	hash := sha256.Sum256([]byte(secret))
	l.update(func(tx imprint.Tx) error {
		return tx.PutEnrolmentPassword(imprint.EnrolmentPassword{ID: id, Tenant: home, Label: label, Hash: hash[:], Subject: subject, CreatedAt: l.clock(), ExpiresAt: l.clock().Add(time.Hour)})
	})
	return secret
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(t, err)
	return k
}

// csr makes a signing request in DER.
func csr(t *testing.T, key crypto.Signer, subject pkix.Name, dns ...string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject, DNSNames: dns}, key)
	fatal(t, err)
	return der
}

func name(cn string) pkix.Name { return pkix.Name{CommonName: cn} }

// caller is a client of the door.
type caller struct {
	*line
	certificate *tls.Certificate
	user, pass  string
	version     uint16
}

func (l *line) as(certificate *tls.Certificate) *caller {
	return &caller{line: l, certificate: certificate}
}

func (l *line) with(user, pass string) *caller { return &caller{line: l, user: user, pass: pass} }

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (c *caller) client() *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(c.server)
	config := &tls.Config{RootCAs: pool, MaxVersion: c.version, MinVersion: tls.VersionTLS12}
	if c.certificate != nil {
		config.Certificates = []tls.Certificate{*c.certificate}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, Timeout: 2 * time.Minute}
}

// send sends what is given, as it is.
func (c *caller) send(method, path, contentType string, body []byte) answer {
	c.t.Helper()
	c.later(time.Millisecond) // attempts sort by time
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, bytes.NewReader(body))
	fatal(c.t, err)
	r.Header.Set("Content-Type", contentType)
	if c.user != "" {
		r.SetBasicAuth(c.user, c.pass)
	}
	response, err := c.client().Do(r)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	fatal(c.t, err)
	return answer{response.StatusCode, response.Header, text}
}

// post sends a signing request to an operation of a label.
func (c *caller) post(label, operation string, der []byte) answer {
	c.t.Helper()
	return c.send("POST", "/.well-known/est/"+label+"/"+operation, "application/pkcs10", []byte(base64.StdEncoding.EncodeToString(der)))
}

// certificates reads a certs-only answer.
func (a answer) certificates(t *testing.T) []*x509.Certificate {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("got status %d: %s", a.status, a.body)
	}
	der, err := base64.StdEncoding.DecodeString(string(a.body))
	fatal(t, err)
	parsed, err := pkcs7.Parse(der)
	fatal(t, err)
	return parsed.Certificates
}

func (a answer) certificate(t *testing.T) *x509.Certificate {
	t.Helper()
	all := a.certificates(t)
	if len(all) != 1 {
		t.Fatalf("got %d certificates, want the one that was issued", len(all))
	}
	return all[0]
}

func (a answer) want(t *testing.T, status int, words string) {
	t.Helper()
	if a.status != status || !strings.Contains(string(a.body), words) {
		t.Errorf("got %d %s, want %d with %q", a.status, a.body, status, words)
	}
}

// pairOf is what a client shows.
func pairOf(key crypto.Signer, chain ...*x509.Certificate) *tls.Certificate {
	pair := &tls.Certificate{PrivateKey: key}
	for _, cert := range chain {
		pair.Certificate = append(pair.Certificate, cert.Raw)
	}
	return pair
}

// enrolled gives a device's certificate of seven, as a client shows it.
func (l *line) enrolled(cn string, dns ...string) (*tls.Certificate, *x509.Certificate) {
	l.t.Helper()
	key := newKey(l.t)
	parsed, err := x509.ParseCertificateRequest(csr(l.t, key, name(cn), dns...))
	fatal(l.t, err)
	issued, err := l.engine.Issue(l.t.Context(), home, l.seven.ID, "year", pki.RequestOf(parsed))
	fatal(l.t, err)
	return pairOf(key, issued.Certificate), issued.Certificate
}

// maker is a foreign CA, with what it signs.
type maker struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newMaker(t *testing.T, cn string) *maker {
	t.Helper()
	m := &maker{t: t, key: newKey(t)}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: name(cn), NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(20, 0, 0), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, m.key.Public(), m.key)
	fatal(t, err)
	m.cert, err = x509.ParseCertificate(der)
	fatal(t, err)
	m.pem = pki.EncodeCertificatePEM(der)
	return m
}

func (m *maker) device(subject pkix.Name, dns ...string) *tls.Certificate {
	m.t.Helper()
	key := newKey(m.t)
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: subject, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature, DNSNames: dns}
	der, err := x509.CreateCertificate(rand.Reader, template, m.cert, key.Public(), m.key)
	fatal(m.t, err)
	cert, err := x509.ParseCertificate(der)
	fatal(m.t, err)
	return pairOf(key, cert)
}

// attempt gives the latest attempt of the trace.
func (l *line) attempt() imprint.Attempt {
	l.t.Helper()
	fatal(l.t, l.trace.Flush(l.t.Context()))
	var found []imprint.Attempt
	fatal(l.t, l.store.View(l.t.Context(), func(tx imprint.ReadTx) error {
		var err error
		found, _, err = tx.Attempts(imprint.AttemptFilter{}, imprint.Page{Limit: 1})
		return err
	}))
	if len(found) == 0 {
		l.t.Fatal("the trace has no attempt")
	}
	return found[0]
}

// challenged makes a request with a challengePassword, which crypto/x509 can't.
func challenged(t *testing.T, key *ecdsa.PrivateKey, subject pkix.Name, password string) []byte {
	t.Helper()
	var outer struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	_, err := asn1.Unmarshal(csr(t, key, subject), &outer)
	fatal(t, err)
	type attribute struct {
		ID     asn1.ObjectIdentifier
		Values []asn1.RawValue `asn1:"set"`
	}
	var tbs struct {
		Version    int
		Subject    asn1.RawValue
		Key        asn1.RawValue
		Attributes []attribute `asn1:"tag:0,set"`
	}
	var plain struct {
		Version    int
		Subject    asn1.RawValue
		Key        asn1.RawValue
		Attributes asn1.RawValue
	}
	_, err = asn1.Unmarshal(outer.TBS.FullBytes, &plain)
	fatal(t, err)
	tbs.Subject, tbs.Key = plain.Subject, plain.Key
	tbs.Attributes = []attribute{{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}, []asn1.RawValue{{Tag: asn1.TagUTF8String, Bytes: []byte(password)}}}}
	der, err := asn1.Marshal(tbs)
	fatal(t, err)
	digest := sha256.Sum256(der)
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	fatal(t, err)
	outer.TBS = asn1.RawValue{FullBytes: der}
	outer.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	der, err = asn1.Marshal(outer)
	fatal(t, err)
	return der
}

func mustParseURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	fatal(t, err)
	return u
}
