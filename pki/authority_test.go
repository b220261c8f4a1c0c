package pki_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki"
)

var (
	start  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tenant = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
)

func at(t time.Time) imprint.Clock { return func() time.Time { return t } }

func sealer(t testing.TB, fill byte) imprint.Sealer {
	t.Helper()
	k, err := seal.ParseMasterKey(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, seal.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	return seal.New(k)
}

// memory is a Journal that keeps records and fails when told to.
type memory struct {
	mu   sync.Mutex
	all  []imprint.Issuance
	fail error
}

func (m *memory) Record(_ context.Context, i imprint.Issuance) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.all = append(m.all, i)
	return nil
}

// Put needs no transaction: a memory is never rolled back.
func (m *memory) Put(_ imprint.Tx, i imprint.Issuance) error {
	return m.Record(context.Background(), i)
}

func authority(t testing.TB, kind pki.KeyKind) (*pki.Authority, *memory) {
	t.Helper()
	journal := &memory{}
	a, err := pki.OpenAuthority(t.Context(), t.TempDir(), pki.AuthorityConfig{Sealer: sealer(t, 1), Journal: journal, Clock: at(start), Key: kind})
	if err != nil {
		t.Fatal(err)
	}
	return a, journal
}

func profile(t testing.TB, config pki.ProfileConfig) *pki.Profile {
	t.Helper()
	p, err := pki.NewProfile(config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func p256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func issue(t testing.TB, a *pki.Authority, p *pki.Profile, r pki.Request) *pki.Issued {
	t.Helper()
	token, err := a.Prepare(t.Context(), tenant, p, r)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := a.Sign(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

func rawSubject(t testing.TB, name pkix.Name) []byte {
	t.Helper()
	der, err := asn1.Marshal(name.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestIssuedCertificateHasTheProfileFieldByField(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPublic, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.PublicKey{"RSA-2048": rsaKey.Public(), "P-256": p256(t).Public(), "P-521": p521.Public(), "Ed25519": edPublic}
	for _, kind := range []pki.KeyKind{pki.KeyRSA2048, pki.KeyP256} {
		a, _ := authority(t, kind)
		for name, key := range keys {
			t.Run(string(kind)+" signs "+name, func(t *testing.T) {
				t.Parallel()
				issued := issue(t, a, profile(t, pki.ProfileConfig{}), pki.Request{PublicKey: key})
				checkProfile(t, a, issued, key)
			})
		}
	}
}

func checkProfile(t *testing.T, a *pki.Authority, issued *pki.Issued, key crypto.PublicKey) {
	t.Helper()
	cert, ca := issued.Certificate, a.Certificate()
	if got := len(cert.SerialNumber.Bytes()); got != 20 || cert.SerialNumber.Sign() != 1 {
		t.Errorf("serial: got %d octets, sign %d, want 20, 1", got, cert.SerialNumber.Sign())
	}
	if got, want := cert.NotBefore, start.Add(-2*time.Minute); !got.Equal(want) {
		t.Errorf("notBefore: got %v, want %v", got, want)
	}
	if got, want := cert.NotAfter, time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC); !got.Equal(want) {
		t.Errorf("notAfter: got %v, want %v", got, want)
	}
	if !bytes.Equal(cert.RawIssuer, ca.RawSubject) {
		t.Errorf("issuer: got %s, want %s", cert.Issuer, ca.Subject)
	}
	wantSubject := append([]byte{0x30, 0x1e, 0x31, 0x1c, 0x30, 0x1a, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x13}, "AWS IoT Certificate"...)
	if !bytes.Equal(cert.RawSubject, wantSubject) {
		t.Errorf("subject: got %x, want %x", cert.RawSubject, wantSubject)
	}
	if diff := cmp.Diff(oids(cert), []string{"2.5.29.35", "2.5.29.14", "2.5.29.19!", "2.5.29.15!"}); diff != "" {
		t.Errorf("extensions (-got +want):\n%s", diff)
	}
	if !bytes.Equal(cert.Extensions[2].Value, []byte{0x30, 0}) || !bytes.Equal(cert.Extensions[3].Value, []byte{3, 2, 7, 0x80}) {
		t.Errorf("values: got %x and %x, want 3000 and 03020780", cert.Extensions[2].Value, cert.Extensions[3].Value)
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	_, err := asn1.Unmarshal(cert.RawSubjectPublicKeyInfo, &info)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(info.Key.Bytes)
	if !bytes.Equal(cert.SubjectKeyId, sum[:]) {
		t.Errorf("subjectKeyIdentifier: got %x, want %x", cert.SubjectKeyId, sum)
	}
	if !bytes.Equal(cert.AuthorityKeyId, ca.SubjectKeyId) {
		t.Errorf("authorityKeyIdentifier: got %x, want %x", cert.AuthorityKeyId, ca.SubjectKeyId)
	}
	if !key.(interface{ Equal(crypto.PublicKey) bool }).Equal(cert.PublicKey) {
		t.Error("the certificate holds another key")
	}
	if got, want := issued.ID, pki.CertificateID(cert.Raw); got != want {
		t.Errorf("id: got %s, want %s", got, want)
	}
	err = cert.CheckSignatureFrom(ca)
	if err != nil {
		t.Errorf("signature: %v", err)
	}
	parsed, err := pki.ParseCertificatePEM(issued.PEM)
	if err != nil || !bytes.Equal(parsed.Raw, cert.Raw) {
		t.Errorf("PEM doesn't hold the certificate: %v", err)
	}
}

func oids(cert *x509.Certificate) []string {
	var list []string
	for _, e := range cert.Extensions {
		s := e.Id.String()
		if e.Critical {
			s += "!"
		}
		list = append(list, s)
	}
	return list
}

// What is signed is written by hand; crypto/x509 says what it must be.
func TestBytesToBeSignedAreThoseOfCreateCertificate(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	long := rawSubject(t, pkix.Name{CommonName: "sensor-17", Organization: []string{strings.Repeat("o", 60)}, OrganizationalUnit: []string{strings.Repeat("ü", 100)}})
	profiles := []*pki.Profile{
		profile(t, pki.ProfileConfig{}), profile(t, pki.ProfileConfig{Lifetime: time.Hour}), profile(t, pki.ProfileConfig{NotAfter: start.AddDate(24, 6, 0)}),
	}
	for _, kind := range []pki.KeyKind{pki.KeyRSA2048, pki.KeyP256} {
		a, _ := authority(t, kind)
		for _, key := range []crypto.Signer{rsaKey, p256(t), p384, ed} {
			for n, prof := range profiles {
				for _, subject := range [][]byte{nil, long} {
					cert := issue(t, a, prof, pki.Request{PublicKey: key.Public(), RawSubject: subject}).Certificate
					template := &x509.Certificate{
						SerialNumber: cert.SerialNumber, RawSubject: cert.RawSubject, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
						ExtraExtensions: cert.Extensions,
					}
					der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate(), key.Public(), a.Signer())
					if err != nil {
						t.Fatal(err)
					}
					want, err := x509.ParseCertificate(der)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(cert.RawTBSCertificate, want.RawTBSCertificate) {
						t.Errorf("%s CA, %T, profile %d: got\n%x, want\n%x", kind, key, n, cert.RawTBSCertificate, want.RawTBSCertificate)
					}
				}
			}
		}
	}
}

// A draft is no certificate: nothing verifies what stands behind it.
func TestADraftIsSignedByNobody(t *testing.T) {
	t.Parallel()
	for _, kind := range []pki.KeyKind{pki.KeyRSA2048, pki.KeyP256} {
		a, _ := authority(t, kind)
		key := p256(t)
		draft := a.Draft(t, profile(t, pki.ProfileConfig{}), pki.Request{PublicKey: key.Public()})
		if got, want := draft.SignatureAlgorithm, a.Certificate().SignatureAlgorithm; got != want {
			t.Errorf("%s: algorithm: got %v, want %v", kind, got, want)
		}
		if a.Certificate().CheckSignature(draft.SignatureAlgorithm, draft.RawTBSCertificate, draft.Signature) == nil {
			t.Errorf("%s: the CA's key verifies the draft's signature", kind)
		}
	}
}

func TestSubjectOfTheRequestIsCopiedOctetForOctet(t *testing.T) {
	t.Parallel()
	a, journal := authority(t, pki.KeyP256)
	long := strings.Repeat("x", 100)
	latin := []byte{0x30, 0x0e, 0x31, 0x0c, 0x30, 0x0a, 0x06, 0x03, 0x55, 0x04, 0x03, 0x14, 0x03, 'a', 0xe4, 'b'} // T61String
	tests := []struct {
		name string
		raw  []byte
	}{
		{"order and string types", rawSubject(t, pkix.Name{Country: []string{"de"}, Organization: []string{"Example"}, CommonName: "sensor-17", SerialNumber: "17"})},
		{"longer than RFC 5280 allows", rawSubject(t, pkix.Name{CommonName: long})},
		{"spaces around", rawSubject(t, pkix.Name{CommonName: " x "})},
		{"T61String", latin},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			issued := issue(t, a, profile(t, pki.ProfileConfig{}), pki.Request{PublicKey: p256(t).Public(), RawSubject: tt.raw})
			if got := issued.Certificate.RawSubject; !bytes.Equal(got, tt.raw) {
				t.Errorf("subject: got %x, want %x", got, tt.raw)
			}
			last := journal.all[len(journal.all)-1]
			if got, want := last.Subject, pki.SubjectText(tt.raw); got != want {
				t.Errorf("recorded subject: got %q, want %q", got, want)
			}
		})
	}
	empty := issue(t, a, profile(t, pki.ProfileConfig{CommonName: "Imprint"}), pki.Request{PublicKey: p256(t).Public(), RawSubject: []byte{0x30, 0}})
	if got, want := empty.Certificate.Subject.String(), "CN=Imprint"; got != want {
		t.Errorf("empty subject: got %s, want %s", got, want)
	}
}

func TestPrepareRefuses(t *testing.T) {
	t.Parallel()
	a, journal := authority(t, pki.KeyP256)
	rsa1024, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPublic, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := p256(t).Public()
	tests := []struct {
		name    string
		profile pki.ProfileConfig
		request pki.Request
		want    imprint.Code
	}{
		{"no key", pki.ProfileConfig{}, pki.Request{}, imprint.CodeCertificateWeak},
		{"RSA-1024", pki.ProfileConfig{}, pki.Request{PublicKey: rsa1024.Public()}, imprint.CodeCertificateWeak},
		{"P-224", pki.ProfileConfig{}, pki.Request{PublicKey: p224.Public()}, imprint.CodeCertificateWeak},
		{"Ed25519 where the profile refuses it", pki.ProfileConfig{RefuseEd25519: true}, pki.Request{PublicKey: edPublic}, imprint.CodeCertificateWeak},
		{"the CA's own key", pki.ProfileConfig{}, pki.Request{PublicKey: a.Certificate().PublicKey}, imprint.CodeCertificateValidation},
		{"subject that is no name", pki.ProfileConfig{}, pki.Request{PublicKey: good, RawSubject: []byte("hello")}, imprint.CodeCertificateValidation},
		{"subject with something behind", pki.ProfileConfig{}, pki.Request{PublicKey: good, RawSubject: []byte{0x30, 0, 0}}, imprint.CodeCertificateValidation},
		{"subject of nonsense in a sequence", pki.ProfileConfig{}, pki.Request{PublicKey: good, RawSubject: []byte{0x30, 2, 5, 0}}, imprint.CodeCertificateValidation},
		{"subject over 4 KiB", pki.ProfileConfig{}, pki.Request{PublicKey: good, RawSubject: rawSubject(t, pkix.Name{CommonName: strings.Repeat("x", 5000)})}, imprint.CodeCertificateValidation},
		{"control characters in the subject", pki.ProfileConfig{}, pki.Request{PublicKey: good, RawSubject: rawSubject(t, pkix.Name{CommonName: "a\x07b"})}, imprint.CodeCertificateValidation},
		{"end after the CA's", pki.ProfileConfig{NotAfter: time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC)}, pki.Request{PublicKey: good}, imprint.CodeInternal},
		{"end in the past", pki.ProfileConfig{NotAfter: start.AddDate(-1, 0, 0)}, pki.Request{PublicKey: good}, imprint.CodeInternal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			token, err := a.Prepare(t.Context(), tenant, profile(t, tt.profile), tt.request)
			if got := imprint.CodeOf(err); got != tt.want {
				t.Errorf("got %q (%v), want %q", got, err, tt.want)
			}
			if token != nil {
				t.Error("a refused request got a token")
			}
		})
	}
	_, err = a.Prepare(t.Context(), imprint.Tenant{}, profile(t, pki.ProfileConfig{}), pki.Request{PublicKey: good})
	if err == nil {
		t.Error("no tenant: got nil, want an error")
	}
	_, err = a.Prepare(t.Context(), tenant, nil, pki.Request{PublicKey: good})
	if err == nil {
		t.Error("no profile: got nil, want an error")
	}
	if len(journal.all) != 0 {
		t.Errorf("refused requests were recorded: %v", journal.all)
	}
}

func TestFermatFactorableKeyIsRefusedByTheLinter(t *testing.T) {
	t.Parallel()
	a, _ := authority(t, pki.KeyP256)
	// From 1.5 * 2^1023, so that the product has all its 2048 bits.
	p := nextPrime(new(bigInt).Lsh(newBig(3), 1022))
	n := new(bigInt).Mul(p, nextPrime(p))
	if got, want := n.BitLen(), 2048; got != want {
		t.Fatalf("the product: got %d bits, want %d", got, want)
	}
	_, err := a.Prepare(t.Context(), tenant, profile(t, pki.ProfileConfig{}), pki.Request{PublicKey: &rsa.PublicKey{N: n, E: 65537}})
	if got, want := imprint.CodeOf(err), imprint.CodeCertificateWeak; got != want {
		t.Errorf("got %q (%v), want %q", got, err, want)
	}
}

// nextPrime is the first prime above n.
func nextPrime(n *bigInt) *bigInt {
	p := new(bigInt).Add(n, newBig(1))
	for !p.ProbablyPrime(20) {
		p.Add(p, newBig(1))
	}
	return p
}

func TestNewProfileRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]pki.ProfileConfig{
		"name with a space":        {Name: "a b"},
		"long name":                {Name: strings.Repeat("a", 65)},
		"long common name":         {CommonName: strings.Repeat("a", 65)},
		"common name of a space":   {CommonName: " "},
		"control character":        {CommonName: "a\nb"},
		"invalid UTF-8":            {CommonName: "\xff"},
		"negative backdate":        {Backdate: -time.Second},
		"long backdate":            {Backdate: 49 * time.Hour},
		"short lifetime":           {Lifetime: time.Second - 1},
		"negative lifetime":        {Lifetime: -time.Hour},
		"lifetime and fixed end":   {Lifetime: time.Hour, NotAfter: start},
		"end with a broken second": {NotAfter: start.Add(time.Millisecond)},
		"end after the year 9999":  {NotAfter: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
	}
	for name, config := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := pki.NewProfile(config)
			if got, want := imprint.CodeOf(err), imprint.CodeInvalidRequest; got != want {
				t.Errorf("got %q (%v), want %q", got, err, want)
			}
		})
	}
}

func TestAuthorityIsMadeOnceAndOpenedAfter(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "keys")
	config := pki.AuthorityConfig{Sealer: sealer(t, 1), Journal: &memory{}, Clock: at(start), Key: pki.KeyP256}
	first, err := pki.OpenAuthority(t.Context(), dir, config)
	if err != nil {
		t.Fatal(err)
	}
	ca := first.Certificate()
	if !strings.HasPrefix(ca.Subject.CommonName, "Imprint device CA ") || !ca.IsCA || !ca.MaxPathLenZero {
		t.Errorf("CA: got %s, CA %v, path length 0 %v", ca.Subject, ca.IsCA, ca.MaxPathLenZero)
	}
	text, err := os.ReadFile(filepath.Join(dir, "device-ca.pem"))
	if err != nil || string(text) != pki.EncodeCertificatePEM(ca.Raw) {
		t.Errorf("device-ca.pem isn't the CA: %v", err)
	}
	config.Key = pki.KeyRSA2048
	second, err := pki.OpenAuthority(t.Context(), dir, config)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(second.Certificate().Raw, ca.Raw) {
		t.Error("the second start has another CA")
	}
	config.Sealer = sealer(t, 2)
	_, err = pki.OpenAuthority(t.Context(), dir, config)
	if got, want := imprint.HintOf(err), "master key that belongs to this data directory"; !strings.Contains(got, want) {
		t.Errorf("other master key: got hint %q (%v), want %q in it", got, err, want)
	}
	err = os.Remove(filepath.Join(dir, "device-ca.sealed"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = pki.OpenAuthority(t.Context(), dir, config)
	if got, want := imprint.HintOf(err), "Restore"; !strings.HasPrefix(got, want) {
		t.Errorf("lost key: got hint %q (%v), want %q at its start", got, err, want)
	}
	_, err = pki.OpenAuthority(t.Context(), t.TempDir(), pki.AuthorityConfig{Sealer: sealer(t, 1), Journal: &memory{}, Clock: at(start), Key: "rsa512"})
	if got, want := imprint.CodeOf(err), imprint.CodeInvalidRequest; got != want {
		t.Errorf("unknown key kind: got %q, want %q", got, want)
	}
}

func TestLintsAreThoseDocumented(t *testing.T) {
	t.Parallel()
	a, _ := authority(t, pki.KeyP256)
	names := a.LintNames()
	if len(names) < 100 {
		t.Errorf("lints: got %d, want at least 100", len(names))
	}
	for _, left := range pki.SubjectLints() {
		if slices.Contains(names, left) {
			t.Errorf("%s runs though it is left out", left)
		}
	}
	for _, want := range []string{"e_serial_number_not_positive", "e_ext_authority_key_identifier_critical", "e_rsa_fermat_factorization", "e_subject_empty_without_san"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s doesn't run", want)
		}
	}
	// The CA's own certificate passes, too.
	err := a.Lint(a.Certificate().Raw)
	if err != nil {
		t.Errorf("the CA: %v", err)
	}
}
