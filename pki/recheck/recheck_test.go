package recheck_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"go/parser"
	"go/token"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/recheck"
)

var (
	tenant = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	start  = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
)

// notes is a journal that keeps the last record.
type notes struct{ last imprint.Issuance }

func (n *notes) Record(_ context.Context, i imprint.Issuance) error { n.last = i; return nil }
func (n *notes) Put(_ imprint.Tx, i imprint.Issuance) error         { n.last = i; return nil }

func rulesOf(t *testing.T, config pki.ProfileConfig) (*pki.Profile, recheck.Rules) {
	t.Helper()
	profile, err := pki.NewProfile(config)
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := json.Marshal(profile.Config())
	if err != nil {
		t.Fatal(err)
	}
	rules, err := recheck.ParseRules(recorded)
	if err != nil {
		t.Fatal(err)
	}
	return profile, rules
}

func subject(t *testing.T, name pkix.Name) []byte {
	t.Helper()
	der, err := asn1.Marshal(name.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// root makes a self-signed CA of a kind of key, and checks it.
func root(t *testing.T, kind pki.KeyKind, journal *notes) *pki.Authority {
	t.Helper()
	key, err := pki.NewKey(kind)
	if err != nil {
		t.Fatal(err)
	}
	profile, rules := rulesOf(t, pki.ProfileConfig{Name: "root", Kind: pki.KindRoot, Unlimited: true, NoPathLength: true})
	config := pki.IssuerConfig{ID: "a", Signer: pki.NewSoftSigner(key), Journal: journal, Clock: func() time.Time { return start }}
	issued, err := pki.NewRoot(t.Context(), tenant, config, profile, pki.Request{RawSubject: subject(t, pkix.Name{Organization: []string{"Acme"}, CommonName: "root"})})
	if err != nil {
		t.Fatal(err)
	}
	if problems := recheck.Certificate(issued.Certificate.Raw, issued.Certificate.Raw, journal.last, rules); len(problems) > 0 {
		t.Errorf("a root with a key of the kind %s: %s", kind, problems)
	}
	config.Certificate = issued.Certificate
	a, err := pki.NewAuthority(config)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestWhatEveryProfileSignsPasses ensures that the two ways to say a rule agree: whatever a
// built-in profile signs, for every kind of key that it takes, has no problem.
func TestWhatEveryProfileSignsPasses(t *testing.T) {
	t.Parallel()
	keys := map[pki.KeyKind]crypto.Signer{}
	for _, kind := range []pki.KeyKind{pki.KeyP256, pki.KeyP384, pki.KeyRSA2048} {
		key, err := pki.NewKey(kind)
		if err != nil {
			t.Fatal(err)
		}
		keys[kind] = key
	}
	large, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys[pki.KeyP521], keys[pki.KeyEd25519] = large, edwards
	link, err := url.Parse("urn:acme:device")
	if err != nil {
		t.Fatal(err)
	}
	configs := append(pki.BuiltinProfiles(),
		pki.ProfileConfig{Name: "product", Kind: pki.KindOperational, Lifetime: time.Hour, Names: pki.NameRules{URI: true, DNS: true, IP: true, Email: true, Patterns: map[string]string{"uri": "urn:acme:.*"}},
			Subject: pki.SubjectRules{Required: []string{"CN"}, Allowed: []string{"O", "SERIALNUMBER"}, Patterns: map[string]string{"CN": "SN-[0-9]+"}, Fixed: map[string]string{"O": "Acme"}}},
		pki.ProfileConfig{Name: "birth", Kind: pki.KindIDevID, Names: pki.NameRules{HardwareType: "1.3.6.1.4.1.32473.1.7"}},
		pki.ProfileConfig{Name: "line", Kind: pki.KindIntermediate, Lifetime: 1000 * time.Hour, ClientsOnly: true, Constraints: pki.NameConstraints{PermittedDNS: []string{"acme.example"}}},
	)
	for _, caKind := range []pki.KeyKind{pki.KeyP256, pki.KeyRSA2048} {
		journal := &notes{}
		a := root(t, caKind, journal)
		for _, config := range configs {
			if config.Kind == pki.KindRoot {
				continue
			}
			profile, rules := rulesOf(t, config)
			for kind, key := range keys {
				request := pki.Request{PublicKey: key.Public(), RawSubject: subject(t, pkix.Name{CommonName: "SN-17", SerialNumber: "17"})}
				if rules.Names.DNS {
					request.Names.DNS = []string{"device.acme.example"}
				}
				if rules.Names.IP {
					request.Names.IPs = []net.IP{net.IPv4(192, 0, 2, 7)}
				}
				if rules.Names.URI {
					request.Names.URIs = []*url.URL{link}
				}
				token, err := a.Prepare(t.Context(), tenant, profile, request)
				if err != nil {
					// Not every profile takes every kind of key.
					if imprint.CodeOf(err) != imprint.CodeCertificateWeak && !strings.Contains(err.Error(), "e_imprint_idevid_key") {
						t.Errorf("profile %s, key %s: %v", config.Name, kind, err)
					}
					continue
				}
				issued, err := a.Sign(t.Context(), token)
				if err != nil {
					t.Fatal(err)
				}
				problems := recheck.Certificate(issued.Certificate.Raw, a.Certificate().Raw, journal.last, rules)
				if len(problems) > 0 {
					t.Errorf("profile %s, key %s, CA %s: %s", config.Name, kind, caKind, strings.Join(problems, "\n"))
				}
			}
		}
	}
}

// TestBothReadATeletexStringAlike: a pattern that it matched for who signed, it matches here.
func TestBothReadATeletexStringAlike(t *testing.T) {
	t.Parallel()
	journal := &notes{}
	a := root(t, pki.KeyP256, journal)
	profile, rules := rulesOf(t, pki.ProfileConfig{Name: "site", Kind: pki.KindOperational, Lifetime: time.Hour, Subject: pki.SubjectRules{Patterns: map[string]string{"CN": "süd-[0-9]"}}})
	key, err := pki.NewKey(pki.KeyP256)
	if err != nil {
		t.Fatal(err)
	}
	name := pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: []int{2, 5, 4, 3}, Value: asn1.RawValue{Tag: asn1.TagT61String, Bytes: []byte("s\xfcd-7")}}}}
	token, err := a.Prepare(t.Context(), tenant, profile, pki.Request{PublicKey: key.Public(), RawSubject: subject(t, name)})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := a.Sign(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range recheck.Certificate(issued.Certificate.Raw, a.Certificate().Raw, journal.last, rules) {
		t.Error(problem)
	}
}

// maker signs whatever it is told, as a signing path with a mistake would.
type maker struct {
	ca  *x509.Certificate
	key *ecdsa.PrivateKey
}

func newMaker(t *testing.T, extensions ...pkix.Extension) *maker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true,
		MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: identifier(t, key.Public()), ExtraExtensions: extensions,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &maker{ca, key}
}

func identifier(t *testing.T, key crypto.PublicKey) []byte {
	t.Helper()
	raw, err := key.(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(raw)
	return sum[:]
}

// make makes a certificate of profile operational with a mistake, and its record.
func (m *maker) make(t *testing.T, change func(*x509.Certificate)) ([]byte, imprint.Issuance) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial := make([]byte, 20)
	_, _ = rand.Read(serial)
	serial[0] = serial[0]&0x3f | 0x40
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{CommonName: "device"}, NotBefore: start.Add(-time.Minute), NotAfter: start.Add(100 * time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, SubjectKeyId: identifier(t, key.Public()),
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, m.ca, key.Public(), m.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return der, imprint.Issuance{Serial: c.SerialNumber.Text(16), At: start, NotBefore: c.NotBefore, NotAfter: c.NotAfter, KeyHash: hex.EncodeToString(sum[:])}
}

// TestMistakesAreFound ensures that a certificate that breaks a rule is found, whatever
// signed it.
func TestMistakesAreFound(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	_, rules := rulesOf(t, pki.ProfileConfig{Name: "operational", Kind: pki.KindOperational, Lifetime: 100 * time.Hour, Names: pki.NameRules{DNS: true, Patterns: map[string]string{"dns": `.*\.acme\.example`}},
		Subject: pki.SubjectRules{Required: []string{"CN"}, Allowed: []string{"CN", "OU"}, Patterns: map[string]string{"CN": "device.*"}}, Keys: []pki.KeyKind{pki.KeyP256}})
	for name, row := range map[string]struct {
		change func(*x509.Certificate)
		record func(*imprint.Issuance)
		rules  func(*recheck.Rules)
		want   string // empty: nothing is wrong
	}{
		"nothing":                         {},
		"a short serial number":           {change: func(c *x509.Certificate) { c.SerialNumber = big.NewInt(7) }, want: "serial number"},
		"another serial number":           {record: func(i *imprint.Issuance) { i.Serial = "ab" }, want: "the record says ab"},
		"another end":                     {record: func(i *imprint.Issuance) { i.NotAfter = i.NotAfter.Add(time.Second) }, want: "the record says"},
		"another key":                     {record: func(i *imprint.Issuance) { i.KeyHash = "ab" }, want: "the record says ab"},
		"an end after the profile's":      {change: func(c *x509.Certificate) { c.NotAfter = start.Add(101 * time.Hour) }, want: "lets none end after"},
		"an end after the CA's":           {change: func(c *x509.Certificate) { c.NotAfter = start.AddDate(11, 0, 0) }, want: "and its CA from"},
		"a beginning long ago":            {change: func(c *x509.Certificate) { c.NotBefore = start.AddDate(0, 0, -1) }, want: "it begins at"},
		"a subject that isn't allowed":    {change: func(c *x509.Certificate) { c.Subject.Locality = []string{"here"} }, want: "doesn't allow"},
		"a subject that doesn't match":    {change: func(c *x509.Certificate) { c.Subject.CommonName = "other" }, want: "doesn't match"},
		"a subject without what it needs": {change: func(c *x509.Certificate) { c.Subject = pkix.Name{OrganizationalUnit: []string{"x"}} }, want: "0 times"},
		"a name of a kind that isn't":     {change: func(c *x509.Certificate) { c.EmailAddresses = []string{"a@acme.example"} }, want: "doesn't allow"},
		"a name that doesn't match":       {change: func(c *x509.Certificate) { c.DNSNames = []string{"evil.example"} }, want: "doesn't match"},
		"a CA":                            {change: func(c *x509.Certificate) { c.IsCA = true }, want: "extension 2.5.29.19"},
		"another key usage":               {change: func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }, want: "extension 2.5.29.15"},
		"another extended key usage":      {change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }, want: "extended key usages"},
		"no extended key usage":           {change: func(c *x509.Certificate) { c.ExtKeyUsage = nil }, want: "2.5.29.37 is missing"},
		"another key identifier":          {change: func(c *x509.Certificate) { c.SubjectKeyId = make([]byte, 20) }, want: "extension 2.5.29.14"},
		"an extension that isn't one": {change: func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Value: []byte{5, 0}}}
		}, want: "extension 1.2.3"},
		"critical where it may not be": {change: func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 37}, Critical: true, Value: []byte{0x30, 0x0a, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2}}}
		}, want: "criticality"},
		"a claim without an end":           {change: func(c *x509.Certificate) { c.NotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }, rules: func(r *recheck.Rules) { r.Kind = "claim" }, want: "without an end"},
		"a variable in the subject":        {change: func(c *x509.Certificate) { c.Subject.CommonName = "device${a}" }, want: "a wildcard or a variable"},
		"more than a device reads":         {change: func(c *x509.Certificate) { c.DNSNames = []string{strings.Repeat("a", 5000) + ".acme.example"} }, want: "more than the 4096"},
		"a name twice":                     {change: func(c *x509.Certificate) { c.DNSNames = []string{"a.acme.example", "A.acme.example"} }, want: "a name twice"},
		"a list behind TLS":                {change: func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"https://acme.example/1.crl"} }, want: "plain HTTP"},
		"any usage":                        {change: func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageAny) }, want: "usages have any"},
		"a key of a kind that isn't taken": {rules: func(r *recheck.Rules) { r.Keys = []string{"rsa2048"} }, want: "its key is of the kind p256"},
		"a name that must be there":        {rules: func(r *recheck.Rules) { r.Names.Required = true }, want: "demands a name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			der, issuance := m.make(t, row.change)
			changed := rules
			if row.record != nil {
				row.record(&issuance)
			}
			if row.rules != nil {
				row.rules(&changed)
			}
			got := strings.Join(recheck.Certificate(der, m.ca.Raw, issuance, changed), "\n")
			if row.want == "" && got != "" || !strings.Contains(got, row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

// TestDirectoriesOfTheCAHold ensures that what stands below a CA whose name constraints are
// about directories, for which crypto/x509 refuses everything, is checked by them.
func TestDirectoriesOfTheCAHold(t *testing.T) {
	t.Parallel()
	_, rules := rulesOf(t, pki.ProfileConfig{Name: "operational", Kind: pki.KindOperational, Lifetime: 100 * time.Hour})
	acme, lab := subject(t, pkix.Name{Organization: []string{"Acme"}}), subject(t, pkix.Name{Organization: []string{"acme"}, OrganizationalUnit: []string{"Lab  1"}})
	tree := func(list, kind byte, name []byte) []byte {
		inner := append([]byte{kind, byte(len(name))}, name...)
		return append([]byte{list, byte(len(inner) + 2), 0x30, byte(len(inner))}, inner...)
	}
	constraints := func(trees ...[]byte) []byte {
		body := bytes.Join(trees, nil)
		return append([]byte{0x30, byte(len(body))}, body...)
	}
	for name, row := range map[string]struct {
		value  []byte
		lacks  bool // the subject is of nobody
		want   string
		within string
	}{
		"permitted":               {value: constraints(tree(0xa0, 0xa4, acme))},
		"not permitted":           {value: constraints(tree(0xa0, 0xa4, acme)), lacks: true, want: "its subject isn't in a directory"},
		"excluded":                {value: constraints(tree(0xa0, 0xa4, acme), tree(0xa1, 0xa4, lab)), within: "LAB 1", want: "its subject isn't in a directory"},
		"beside what is excluded": {value: constraints(tree(0xa0, 0xa4, acme), tree(0xa1, 0xa4, lab)), within: "Lab 2"},
		"another kind":            {value: constraints(tree(0xa0, 0x88, []byte{0x2a, 3, 4})), want: "names of another kind"},
	} {
		m := newMaker(t, pkix.Extension{Id: []int{2, 5, 29, 30}, Critical: true, Value: row.value})
		der, issuance := m.make(t, func(c *x509.Certificate) {
			if !row.lacks {
				c.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: []int{2, 5, 4, 10}, Value: "Acme"}}}
			}
			if row.within != "" {
				c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: []int{2, 5, 4, 11}, Value: row.within})
			}
		})
		got := strings.Join(recheck.Certificate(der, m.ca.Raw, issuance, rules), "\n")
		if row.want == "" && got != "" || !strings.Contains(got, row.want) {
			t.Errorf("%s: got %q, want %q", name, got, row.want)
		}
	}
}

// TestEveryFlippedByteOfACertificateIsFound flips a bit of each byte.
func TestEveryFlippedByteOfACertificateIsFound(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	_, rules := rulesOf(t, pki.ProfileConfig{Name: "operational", Kind: pki.KindOperational, Lifetime: 100 * time.Hour})
	der, issuance := m.make(t, nil)
	if problems := recheck.Certificate(der, m.ca.Raw, issuance, rules); len(problems) > 0 {
		t.Fatal(problems)
	}
	for at := range der {
		other := bytes.Clone(der)
		other[at] ^= 1 << (at % 8)
		if len(recheck.Certificate(other, m.ca.Raw, issuance, rules)) == 0 {
			t.Errorf("byte %d of %d was flipped, and nothing found", at, len(der))
		}
	}
}

// TestNothingIsSharedWithWhatSigns ensures that the package imports nothing of the project but
// its domain, which signs nothing.
func TestNothingIsSharedWithWhatSigns(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			if strings.HasPrefix(name, "github.com/imprint-iot/imprint/") {
				t.Errorf("%s imports %s", path, name)
			}
		}
	}
}

// FuzzCertificate ensures that nothing that is called a certificate ends the program.
func FuzzCertificate(f *testing.F) {
	f.Add([]byte{0x30, 0x00}, []byte{0x30, 0x00}, []byte(`{"kind":"operational"}`))
	f.Add([]byte("x"), []byte(nil), []byte(`{"kind":"root","subject":{"patterns":{"CN":"("}}}`))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, DNSNames: []string{"a"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der, der, []byte(`{"kind":"server","names":{"dns":true}}`))
	f.Fuzz(func(t *testing.T, der, signer, recorded []byte) {
		rules, err := recheck.ParseRules(recorded)
		if err != nil {
			return
		}
		if len(recheck.Certificate(der, signer, imprint.Issuance{}, rules)) == 0 {
			t.Error("nothing is wrong with a certificate without a record")
		}
	})
}
