package est_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/est"
	"github.com/imprint-iot/imprint/pki"
)

// cacerts gives the label's CA, those above it and the server's roots, to anybody.
func TestCACertsHasTheChainAndTheServersRoots(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.label("seven")
	l.label(imprint.DefaultLabel)
	for _, path := range []string{"/.well-known/est/seven/cacerts", "/.well-known/est/cacerts"} {
		got := l.as(nil).send("GET", path, "", nil)
		var names []string
		for _, cert := range got.certificates(t) {
			names = append(names, cert.Subject.CommonName)
		}
		if want := []string{"seven", "root", ""}; !slices.Equal(names, want) || got.header.Get("Content-Type") != "application/pkcs7-mime" {
			t.Errorf("%s: got certificates of %q as %s, want %q", path, names, got.header.Get("Content-Type"), want)
		}
	}
}

// A one-time password gives one certificate to one key. Who asks again with that key gets
// the same certificate, because the answer may have been lost; nobody else gets anything.
func TestAPasswordGivesOneCertificate(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.label("seven", withPasswords)
	l.label("other", withPasswords)
	secret := l.password("seven", "one", "")
	key := newKey(t)
	request := csr(t, key, name("sensor-17"), "sensor-17.example.com")
	cert := l.with("one", secret).post("seven", "simpleenroll", request).certificate(t)
	if cert.Subject.CommonName != "sensor-17" || !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(cert.PublicKey) || !slices.Equal(cert.DNSNames, []string{"sensor-17.example.com"}) {
		t.Errorf("got a certificate of %s for %q", cert.Subject, cert.DNSNames)
	}
	a := l.attempt()
	if a.Outcome != imprint.OutcomeEnrolled || a.Tenant != home || a.CertificateID != pki.CertificateID(cert.Raw) {
		t.Errorf("got an attempt %s of %s with certificate %s", a.Outcome, a.Tenant, a.CertificateID)
	}
	again := l.with("one", secret).post("seven", "simpleenroll", request).certificate(t)
	if !again.Equal(cert) {
		t.Errorf("the repetition got another certificate")
	}
	l.with("one", secret).post("seven", "simpleenroll", csr(t, newKey(t), name("sensor-18"))).want(t, 401, "was used")
	l.with("one", secret).post("seven", "serverkeygen", request).want(t, 401, "was used")
	l.with("keys", l.password("seven", "keys", "")).post("seven", "serverkeygen", request).want(t, 403, "makes no keys")
	for _, c := range []*caller{l.with("one", "wrong"), l.with("two", secret), l.with("one", "")} {
		got := c.post("seven", "simpleenroll", request)
		got.want(t, 401, "isn't right for label seven")
		if got.header.Get("WWW-Authenticate") != `Basic realm="est", charset="UTF-8"` {
			t.Errorf("got WWW-Authenticate %q", got.header.Get("WWW-Authenticate"))
		}
	}
	l.with("one", secret).post("other", "simpleenroll", request).want(t, 401, "isn't right for label other")
	late := l.password("seven", "late", "")
	l.later(time.Hour)
	l.with("late", late).post("seven", "simpleenroll", csr(t, newKey(t), name("late"))).want(t, 401, "ended at")
	fatal(t, l.store.View(t.Context(), func(tx imprint.ReadTx) error {
		p, err := tx.EnrolmentPassword("one")
		if p.Serial != pki.SerialHex(cert.SerialNumber) || p.UsedAt.IsZero() || p.Authority != l.seven.ID {
			t.Errorf("got password %+v, want it used for %s", p, pki.SerialHex(cert.SerialNumber))
		}
		return err
	}))
}

// A password that is bound is good for its device alone.
func TestABoundPasswordIsForItsDevice(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.label("seven", withPasswords)
	secret := l.password("seven", "bound", "SN-1")
	for _, subject := range []pkix.Name{name("SN-2"), {CommonName: "SN-1", SerialNumber: "SN-2"}, {Organization: []string{"SN-1"}}} {
		l.with("bound", secret).post("seven", "simpleenroll", csr(t, newKey(t), subject)).want(t, 403, `is for "SN-1"`)
	}
	// Templates take the first commonName, of whatever type it is.
	other := pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: asn1.RawValue{Tag: asn1.TagT61String, Bytes: []byte("s\xfcd")}}
	own := pkix.AttributeTypeAndValue{Type: other.Type, Value: "SN-1"}
	l.with("bound", secret).post("seven", "simpleenroll", csr(t, newKey(t), pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{other, own}})).want(t, 403, `is for "SN-1"`)
	l.with("bound", secret).post("seven", "simpleenroll", csr(t, newKey(t), pkix.Name{CommonName: "SN-1", SerialNumber: "SN-1"})).certificate(t)
}

// Devices of the CAs that a label names ask for themselves alone, stations for any; others
// are refused with the reason.
func TestDevicesAskForThemselvesAndStationsForAny(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	maker, stations, stranger := newMaker(t, "maker"), newMaker(t, "stations"), newMaker(t, "maker")
	l.label("seven", func(label *imprint.EnrolmentLabel) { label.DeviceCAs, label.StationCAs = maker.pem, stations.pem })
	device := maker.device(pkix.Name{CommonName: "model 5", SerialNumber: "SN-1"})
	station := stations.device(name("station-3"))
	cert := l.as(device).post("seven", "simpleenroll", csr(t, newKey(t), name("SN-1"))).certificate(t)
	if cert.Subject.CommonName != "SN-1" {
		t.Errorf("got %s", cert.Subject)
	}
	l.as(device).post("seven", "simpleenroll", csr(t, newKey(t), name("SN-2"))).want(t, 403, "asks for itself alone")
	l.as(device).post("seven", "simpleenroll", csr(t, newKey(t), pkix.Name{CommonName: "SN-1", SerialNumber: "SN-2"})).want(t, 403, "asks for itself alone")
	l.as(device).post("seven", "simpleenroll", csr(t, newKey(t), pkix.Name{Organization: []string{"Acme"}})).want(t, 403, "asks for itself alone")
	l.as(station).post("seven", "simpleenroll", csr(t, newKey(t), name("SN-9"))).certificate(t)
	l.as(station).post("seven", "simplereenroll", csr(t, newKey(t), name("station-3"))).want(t, 403, "a station's certificate isn't renewed")
	l.as(stranger.device(name("SN-1"))).post("seven", "simpleenroll", csr(t, newKey(t), name("SN-1"))).want(t, 403, "is of no CA that label seven names")
	l.as(nil).post("seven", "simpleenroll", csr(t, newKey(t), name("SN-1"))).want(t, 403, "takes no passwords")
	own, _ := l.enrolled("SN-4")
	l.as(own).post("seven", "simpleenroll", csr(t, newKey(t), name("SN-5"))).want(t, 403, "renew that alone")
	l.later(11 * 365 * 24 * time.Hour)
	l.as(device).post("seven", "simpleenroll", csr(t, newKey(t), name("SN-1"))).want(t, 403, "was valid until")
}

// A certificate is renewed for who shows it, in its window, with its subject and names and
// a new key; the record says what it renews.
func TestReenrollRenewsTheCertificateThatIsShown(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.label("seven")
	l.label("early", func(label *imprint.EnrolmentLabel) { label.Window, _ = imprint.ParseRenewalWindow("always") })
	pair, old := l.enrolled("SN-1", "sn-1.example.com")
	request := csr(t, newKey(t), name("SN-1"), "SN-1.example.com")
	l.as(pair).post("seven", "simplereenroll", request).want(t, 403, "may be renewed from 2026-09-17T")
	if a := l.attempt(); a.Code != imprint.CodeRenewalEarly || a.Outcome != imprint.OutcomeRefused {
		t.Errorf("got an attempt %s %s, want %s", a.Outcome, a.Code, imprint.CodeRenewalEarly)
	}
	for words, der := range map[string][]byte{
		"the request's subject is":        csr(t, newKey(t), name("SN-2")),
		"the request's subjectAltName is": csr(t, newKey(t), name("SN-1"), "sn-2.example.com"),
	} {
		l.as(pair).post("early", "simplereenroll", der).want(t, 403, words)
	}
	renewed := l.as(pair).post("early", "simplereenroll", csr(t, newKey(t), name("SN-1"))).certificate(t)
	if !bytes.Equal(renewed.RawSubject, old.RawSubject) || !slices.Equal(renewed.DNSNames, old.DNSNames) {
		t.Errorf("got %s with %q, want %s with %q", renewed.Subject, renewed.DNSNames, old.Subject, old.DNSNames)
	}
	fatal(t, l.store.View(t.Context(), func(tx imprint.ReadTx) error {
		i, err := tx.IssuanceOf(home, l.seven.ID, pki.SerialHex(renewed.SerialNumber))
		if i.Renews != pki.CertificateID(old.Raw) || !strings.HasPrefix(i.RequestedBy, "est/early certificate ") {
			t.Errorf("got an issuance that renews %q for %q", i.Renews, i.RequestedBy)
		}
		return err
	}))
	l.later(200*24*time.Hour + time.Minute)
	l.as(pair).post("seven", "simplereenroll", request).certificate(t)
	// The same key may be certified again by who has it.
	same := csr(t, pair.PrivateKey.(crypto.Signer), name("SN-1"))
	l.as(pair).post("seven", "simplereenroll", same).certificate(t)
	l.with("one", "two").post("seven", "simplereenroll", request).want(t, 403, "isn't right")
	_, err := l.engine.Revoke(t.Context(), home, l.seven.ID, pki.SerialHex(old.SerialNumber), imprint.ReasonKeyCompromise)
	fatal(t, err)
	l.as(pair).post("seven", "simplereenroll", csr(t, newKey(t), name("SN-1"))).want(t, 403, "was revoked")
	pair, old = l.enrolled("SN-3")
	l.update(func(tx imprint.Tx) error {
		return tx.PutCertificate(imprint.Certificate{Tenant: home, ID: pki.CertificateID(old.Raw), Status: imprint.CertificateInactive, NotAfter: old.NotAfter})
	})
	l.as(pair).post("early", "simplereenroll", csr(t, newKey(t), name("SN-3"))).want(t, 403, "is INACTIVE")
}

// A subject that a request writes in other string types is the same, and comes out as it
// was.
func TestReenrollKeepsTheSubjectOctetByOctet(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.label("seven", withPasswords, func(label *imprint.EnrolmentLabel) {
		label.Profile = "fixed"
		label.Window, _ = imprint.ParseRenewalWindow("always")
	})
	secret, key := l.password("seven", "one", ""), newKey(t)
	old := l.with("one", secret).post("seven", "simpleenroll", csr(t, key, name("SN-1"))).certificate(t)
	if old.Subject.String() != "CN=SN-1,O=Acme" {
		t.Fatalf("got %s", old.Subject)
	}
	// Go writes PrintableString, the profile UTF8String.
	renewed := l.as(pairOf(key, old)).post("seven", "simplereenroll", csr(t, newKey(t), pkix.Name{Organization: []string{"Acme"}, CommonName: "SN-1"})).certificate(t)
	if !bytes.Equal(renewed.RawSubject, old.RawSubject) {
		t.Errorf("got subject %x, want %x", renewed.RawSubject, old.RawSubject)
	}
}

// What can't be answered is refused with a status, a text and a step in the trace.
func TestRefusalsSayWhy(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.label("seven", withPasswords)
	l.label("gone", withPasswords, func(label *imprint.EnrolmentLabel) { label.Profile = "nothing" })
	spare := l.authority("spare", l.root.ID, "intermediate")
	l.label("spare", withPasswords, func(label *imprint.EnrolmentLabel) { label.Authority = spare.ID })
	key := newKey(t)
	request := csr(t, key, name("SN-1"))
	broken := bytes.Clone(request)
	broken[len(broken)-1] ^= 1
	text := func(der []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(der)) }
	used := l.password("seven", "first", "")
	l.with("first", used).post("seven", "simpleenroll", request).certificate(t)
	fatal(t, l.store.Update(t.Context(), func(tx imprint.Tx) error {
		a, err := tx.Authority(home, spare.ID)
		if err != nil {
			return err
		}
		a.Status = imprint.AuthorityDisabled
		return tx.PutAuthority(a)
	}))
	secret, other := l.password("seven", "one", ""), l.password("spare", "two", "")
	enrol := "/.well-known/est/seven/simpleenroll"
	for _, c := range []struct {
		what              string
		method, path      string
		contentType, body string
		user              string
		status            int
		words             string
		code              imprint.Code
	}{
		{"no such label", "POST", "/.well-known/est/eight/simpleenroll", "application/pkcs10", "", "", 404, `label "eight" doesn't exist`, imprint.CodeEnrolmentLabel},
		{"no such operation", "POST", "/.well-known/est/seven/enroll", "", "", "", 404, "OPERATION", imprint.CodeEnrolmentLabel},
		{"no such path", "GET", "/", "", "", "", 404, "/.well-known/est/LABEL", imprint.CodeEnrolmentLabel},
		{"another method", "GET", enrol, "", "", "", 405, "Use the method POST", imprint.CodeEnrolmentRequest},
		{"full CMC", "POST", "/.well-known/est/seven/fullcmc", "", "", "", 501, "Use simpleenroll", imprint.CodeNotOffered},
		{"a profile that is gone", "GET", "/.well-known/est/gone/cacerts", "", "", "", 503, "imprint est update gone --profile", imprint.CodeAuthorityState},
		{"nothing shown", "POST", enrol, "application/pkcs10", string(text(request)), "", 401, "without a client certificate or a password", imprint.CodeEnrolmentUnproven},
		{"another type", "POST", enrol, "application/json", "{}", "one", 415, "application/pkcs10", imprint.CodeEnrolmentRequest},
		{"too long", "POST", enrol, "application/pkcs10", strings.Repeat("A", 70_000), "one", 413, "longer than 65536 bytes", imprint.CodeEnrolmentRequest},
		{"empty", "POST", enrol, "application/pkcs10", "", "one", 400, "is empty", imprint.CodeEnrolmentRequest},
		{"no base64", "POST", enrol, "application/pkcs10", "M~~~", "one", 400, "isn't base64", imprint.CodeEnrolmentRequest},
		{"no request", "POST", enrol, "application/pkcs10", "MAA=", "one", 400, "couldn't read the certificate signing request", imprint.CodeCertificateValidation},
		{"a signature that is wrong", "POST", enrol, "application/pkcs10", string(text(broken)), "one", 400, "isn't signed by the key", imprint.CodeCertificateValidation},
		{"a key that has a certificate", "POST", enrol, "application/pkcs10", string(text(request)), "one", 400, "key is that of certificate", imprint.CodeKeyReused},
		{"names that the profile forbids", "POST", enrol, "application/pkcs10", string(text(withURI(t))), "one", 400, "doesn't allow", imprint.CodeCertificateValidation},
		{"a CA that is switched off", "POST", "/.well-known/est/spare/simpleenroll", "application/pkcs10", string(text(csr(t, newKey(t), name("SN-1")))), "two", 503, "is DISABLED", imprint.CodeAuthorityState},
	} {
		who := &caller{line: l, user: c.user, pass: map[string]string{"one": secret, "two": other}[c.user]}
		got := who.send(c.method, c.path, c.contentType, []byte(c.body))
		if got.status != c.status || !strings.Contains(string(got.body), c.words) {
			t.Errorf("%s: got %d %s, want %d with %q", c.what, got.status, got.body, c.status, c.words)
		}
		a := l.attempt()
		if a.Outcome != imprint.OutcomeRefused || a.Code != c.code || a.Failure().Fix == "" || !strings.Contains(string(got.body), a.ID) {
			t.Errorf("%s: got an attempt %s %s with fix %q, want code %s", c.what, a.Outcome, a.Code, a.Failure().Fix, c.code)
		}
		if c.status == 503 && got.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", c.what)
		}
	}
	// None of that used the password up.
	l.with("one", secret).post("seven", "simpleenroll", csr(t, newKey(t), name("SN-2"))).certificate(t)
	counts := l.door.Counts()
	if n := counts[est.Count{Operation: "simpleenroll", Status: 200}]; n != 2 {
		t.Errorf("counted %d enrolments, want 2; all: %v", n, counts)
	}
}

func withURI(t *testing.T) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: name("SN-1"), URIs: []*url.URL{mustParseURL(t, "urn:x")}}, newKey(t))
	fatal(t, err)
	return der
}

// Requests come as base64 with and without line breaks, as PEM and as DER.
func TestRequestsAreReadInEveryForm(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.label("seven", withPasswords)
	for n, form := range []func([]byte) []byte{
		func(der []byte) []byte { return der },
		func(der []byte) []byte {
			text := base64.StdEncoding.EncodeToString(der)
			return []byte("\r\n" + text[:10] + "\r\n " + text[10:77] + "\n\n" + text[77:] + "\n")
		},
		func(der []byte) []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
		},
	} {
		id := fmt.Sprint("form", n)
		l.with(id, l.password("seven", id, "")).send("POST", "/.well-known/est/seven/simpleenroll", "application/pkcs10; charset=us-ascii", form(csr(t, newKey(t), name(id)))).certificate(t)
	}
}

// TestDERThatEndsLikeTextIsReadWhole: each fortieth request or so ends with a byte of white space.
func TestDERThatEndsLikeTextIsReadWhole(t *testing.T) {
	t.Parallel()
	key, der := newKey(t), []byte(nil)
	for len(der) == 0 || len(bytes.TrimSpace(der)) == len(der) {
		der = csr(t, key, name("x"))
	}
	for _, end := range []string{"", "\r\n"} {
		_, err := est.Read(append(bytes.Clone(der), end...))
		if err != nil {
			t.Errorf("with %q behind it: %v", end, err)
		}
	}
}

// A key that the server makes is sent with its certificate and is nowhere in what the
// server keeps.
func TestAServerMadeKeyIsSentOnceAndKeptNowhere(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.label("seven", withPasswords, func(label *imprint.EnrolmentLabel) { label.ServerKeys = true })
	secret := l.password("seven", "one", "")
	request := csr(t, newKey(t), name("SN-1"))
	got := l.with("one", secret).post("seven", "serverkeygen", request)
	kind, params, err := mime.ParseMediaType(got.header.Get("Content-Type"))
	if err != nil || kind != "multipart/mixed" || got.status != 200 {
		t.Fatalf("got %d %q: %s", got.status, got.header.Get("Content-Type"), got.body)
	}
	var parts [][]byte
	var types []string
	for r := multipart.NewReader(bytes.NewReader(got.body), params["boundary"]); ; {
		part, err := r.NextPart()
		if err == io.EOF {
			break
		}
		fatal(t, err)
		text, err := io.ReadAll(part)
		fatal(t, err)
		der, err := base64.StdEncoding.DecodeString(string(text))
		fatal(t, err)
		parts, types = append(parts, der), append(types, part.Header.Get("Content-Type"))
	}
	if want := []string{"application/pkcs8", "application/pkcs7-mime; smime-type=certs-only"}; !slices.Equal(types, want) {
		t.Fatalf("got parts %q, want %q", types, want)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(parts[0])
	fatal(t, err)
	certs, err := pkcs7.Parse(parts[1])
	fatal(t, err)
	if !parsed.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(certs.Certificates[0].PublicKey) {
		t.Error("the certificate isn't of the key")
	}
	l.with("one", secret).post("seven", "serverkeygen", request).want(t, 401, "was used")
	l.with("one", secret).post("seven", "simpleenroll", request).want(t, 401, "was used")
	fatal(t, l.trace.Flush(t.Context()))
	private, err := parsed.(interface{ Bytes() ([]byte, error) }).Bytes()
	fatal(t, err)
	files, err := filepath.Glob(filepath.Join(l.dir, "*"))
	fatal(t, err)
	for _, file := range files {
		data, err := os.ReadFile(file)
		fatal(t, err)
		for _, form := range [][]byte{private, []byte(hex.EncodeToString(private)), []byte(base64.StdEncoding.EncodeToString(parts[0])), []byte(secret)} {
			if bytes.Contains(data, form) {
				t.Errorf("%s holds the key or the password", file)
			}
		}
	}
}

// A label may demand that a request has the value of its own connection: tls-unique in TLS
// 1.2, tls-exporter in TLS 1.3.
func TestRequestsAreTiedToTheirConnection(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.label("seven", withPasswords, func(label *imprint.EnrolmentLabel) { label.Binding = true })
	for n, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		id := fmt.Sprint("bind", n)
		secret := l.password("seven", id, "")
		c := l.with(id, secret)
		c.version = version
		c.post("seven", "simpleenroll", csr(t, newKey(t), name(id))).want(t, 400, "has no challengePassword")
		key := newKey(t)
		c.post("seven", "simpleenroll", challenged(t, key, name(id), base64.StdEncoding.EncodeToString(make([]byte, 12)))).want(t, 400, "isn't the base64 of this connection's")
		if a := l.attempt(); a.Code != imprint.CodeEnrolmentBinding {
			t.Errorf("got code %s", a.Code)
		}
		pool := x509.NewCertPool()
		pool.AddCert(l.server)
		conn, err := tls.Dial("tcp", mustParseURL(t, l.url).Host, &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: version, MaxVersion: version})
		fatal(t, err)
		state := conn.ConnectionState()
		value := state.TLSUnique
		if version == tls.VersionTLS13 {
			value, err = state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
			fatal(t, err)
		}
		r, err := http.NewRequest("POST", l.url+"/.well-known/est/seven/simpleenroll", strings.NewReader(base64.StdEncoding.EncodeToString(
			challenged(t, key, name(id), base64.StdEncoding.EncodeToString(value)))))
		fatal(t, err)
		r.SetBasicAuth(id, secret)
		r.Header.Set("Content-Type", "application/pkcs10")
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
		response, err := client.Do(r)
		fatal(t, err)
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		fatal(t, err)
		answer{status: response.StatusCode, body: text}.certificate(t)
	}
}

// csrattrs says which key the profile wants and that requests are to be tied; nothing
// where there is nothing to say.
func TestCSRAttributesTellWhatIsDemanded(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.label("seven", func(label *imprint.EnrolmentLabel) { label.Binding = true })
	l.label("any", func(label *imprint.EnrolmentLabel) { label.Profile = "fixed" })
	got := l.as(nil).send("GET", "/.well-known/est/seven/csrattrs", "", nil)
	der, err := base64.StdEncoding.DecodeString(string(got.body))
	fatal(t, err)
	// SEQUENCE { challengePassword, SEQUENCE { ecPublicKey, SET { prime256v1 } }, ecdsa-with-SHA256 }
	want := "302c" + "06092a864886f70d010907" + "3015" + "06072a8648ce3d0201" + "310a" + "06082a8648ce3d030107" + "06082a8648ce3d040302"
	if hex.EncodeToString(der) != want || got.header.Get("Content-Type") != "application/csrattrs" {
		t.Errorf("got %d %x, want %s", got.status, der, want)
	}
	if got = l.as(nil).send("GET", "/.well-known/est/any/csrattrs", "", nil); got.status != http.StatusNoContent || len(got.body) != 0 {
		t.Errorf("got %d %s, want 204 and nothing", got.status, got.body)
	}
}

// Requests and wrong passwords of one address are bounded, and whoever meets a bound is
// told when to come again.
func TestAddressesAreBounded(t *testing.T) {
	t.Parallel()
	l := newLine(t, func(o *est.Options) { o.Rate = 1 })
	l.label("seven")
	var statuses []int
	// However slowly they come, some come within one second.
	for deadline := time.Now().Add(2 * time.Minute); !slices.Contains(statuses, http.StatusTooManyRequests) && time.Now().Before(deadline); {
		got := l.as(nil).send("GET", "/.well-known/est/seven/cacerts", "", nil)
		statuses = append(statuses, got.status)
		if got.status == http.StatusTooManyRequests && got.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if !slices.Contains(statuses, http.StatusTooManyRequests) || statuses[0] != http.StatusOK {
		t.Errorf("got statuses %v of requests as fast as they came with a rate of 1", statuses)
	}
	l = newLine(t, func(o *est.Options) { o.WrongPasswords = 3 })
	l.label("seven", withPasswords)
	secret := l.password("seven", "one", "")
	request := csr(t, newKey(t), name("SN-1"))
	for n := range 5 {
		status := http.StatusUnauthorized
		if n >= 3 {
			status = http.StatusTooManyRequests
		}
		l.with("one", "guess").post("seven", "simpleenroll", request).want(t, status, "")
	}
	// The right one isn't even looked at now: the answer tells a guesser nothing.
	l.with("one", secret).post("seven", "simpleenroll", request).want(t, http.StatusTooManyRequests, "wrong passwords")
	if a := l.attempt(); a.Code != imprint.CodeEnrolmentRate {
		t.Errorf("got code %s", a.Code)
	}
}

// One address has so many connections and no more, and a handshake that fails is told.
func TestConnectionsAndHandshakes(t *testing.T) {
	t.Parallel()
	l := newLine(t, func(o *est.Options) { o.MaxPerAddress = 2 })
	l.label("seven")
	host := mustParseURL(t, l.url).Host
	var held []net.Conn
	for range 2 {
		conn, err := net.Dial("tcp", host)
		fatal(t, err)
		held = append(held, conn)
	}
	third, err := net.Dial("tcp", host)
	fatal(t, err)
	_, err = third.Read(make([]byte, 1))
	if err == nil {
		t.Error("a third connection of the address was served")
	}
	_ = third.Close()
	_, err = held[0].Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	fatal(t, err)
	_, err = io.Copy(io.Discard, held[0])
	if err != nil {
		t.Logf("reading the end: %v", err)
	}
	_ = held[0].Close()
	_ = held[1].Close()
	// Attempts end after they are counted.
	codes := map[imprint.Code]bool{}
	for deadline := time.Now().Add(2 * time.Minute); !codes[imprint.CodeNotTLS] || !codes[imprint.CodeClosedInHandshake]; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the trace has codes %v, want %s and %s", codes, imprint.CodeNotTLS, imprint.CodeClosedInHandshake)
		}
		fatal(t, l.trace.Flush(t.Context()))
		fatal(t, l.store.View(t.Context(), func(tx imprint.ReadTx) error {
			all, _, err := tx.Attempts(imprint.AttemptFilter{}, imprint.Page{Limit: 10})
			for _, a := range all {
				codes[a.Code] = true
			}
			return err
		}))
	}
	if failed, refused := l.door.Handshakes(); failed < 2 || refused != 1 {
		t.Errorf("counted %d failed and %d refused handshakes, want 2 and 1", failed, refused)
	}
	l.as(nil).send("GET", "/.well-known/est/seven/cacerts", "", nil).certificates(t)
}

// Who renews, loses the answer and asks again with the same request gets the certificate of
// then: a device whose answers are lost isn't refused for its key.
func TestALostRenewalIsSentAgain(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.label("seven", func(label *imprint.EnrolmentLabel) { label.Window, _ = imprint.ParseRenewalWindow("always") })
	pair, old := l.enrolled("SN-1")
	l.update(func(tx imprint.Tx) error {
		return tx.PutCertificate(imprint.Certificate{Tenant: home, ID: pki.CertificateID(old.Raw), Status: imprint.CertificateActive, NotBefore: old.NotBefore, NotAfter: old.NotAfter})
	})
	request := csr(t, newKey(t), name("SN-1"))
	first := l.as(pair).post("seven", "simplereenroll", request).certificate(t)
	second := l.as(pair).post("seven", "simplereenroll", request).certificate(t)
	if !first.Equal(second) {
		t.Error("the repetition got another certificate")
	}
	same := csr(t, pair.PrivateKey.(crypto.Signer), name("SN-1"))
	third := l.as(pair).post("seven", "simplereenroll", same).certificate(t)
	if again := l.as(pair).post("seven", "simplereenroll", same).certificate(t); !again.Equal(third) || third.Equal(first) {
		t.Error("the repetition with the old key got another certificate")
	}
	_, err := l.engine.Revoke(t.Context(), home, l.seven.ID, pki.SerialHex(first.SerialNumber), imprint.ReasonSuperseded)
	fatal(t, err)
	l.as(pair).post("seven", "simplereenroll", request).want(t, 400, "key is that of certificate")
}
