package pki_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// TestEveryBuiltinProfileIsTakenByVerifiers: openssl's and Go's, ZLint and our own lints, of
// the certificate as it is signed. A profile that is added is asked, too.
func TestEveryBuiltinProfileIsTakenByVerifiers(t *testing.T) {
	t.Parallel()
	all, err := pki.NewProfiles()
	if err != nil {
		t.Fatal(err)
	}
	root := newRootBy(t, "aws-root-ca")
	middle := root.below(t, pki.KeyP384, builtin(t, "aws-subordinate-ca-3"), "products")
	for _, name := range all.Names() {
		t.Run(name, func(t *testing.T) {
			p := builtin(t, name)
			if p.Kind() == pki.KindRoot {
				top := newRootBy(t, name)
				accepted(t, p, top.issued, top.issued, top.issued)
				return
			}
			request := pki.Request{PublicKey: newKey(t, pki.KeyP256).Public(), RawSubject: named(t, "C=DE", "O=Acme", "SN=0001", "CN=SN-0001")}
			if p.Config().Names.DNS {
				request.Names.DNS = []string{"sn-0001.example.com"}
			}
			if p.Kind() != pki.KindIntermediate {
				accepted(t, p, issue(t, middle.Authority, p, request), root.issued, middle.issued)
				return
			}
			below := root.below(t, pki.KeyP256, p, "line 7")
			accepted(t, p, below.issued, root.issued, root.issued)
			leaf := issue(t, below.Authority, builtin(t, "operational"), pki.Request{PublicKey: newKey(t, pki.KeyP256).Public(), RawSubject: named(t, "CN=SN-2")})
			accepted(t, builtin(t, "operational"), leaf, root.issued, below.issued)
		})
	}
}

// accepted asks openssl and Go's verifier whether a certificate is below a root, and all
// lints about it. The last of the chain signed it.
func accepted(t *testing.T, p *pki.Profile, issued, root *pki.Issued, chain ...*pki.Issued) {
	t.Helper()
	roots, middle, text := x509.NewCertPool(), x509.NewCertPool(), ""
	roots.AddCert(root.Certificate)
	for _, one := range chain {
		middle.AddCert(one.Certificate)
		text += one.PEM
	}
	_, err := issued.Certificate.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle, CurrentTime: start.Add(time.Minute), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		t.Errorf("Go's verifier: %v", err)
	}
	dir := t.TempDir()
	put(t, dir, "root.pem", root.PEM)
	put(t, dir, "chain.pem", text)
	put(t, dir, "leaf.pem", issued.PEM)
	out := openssl(t, dir, "verify", "-x509_strict", "-attime", unix(start.Add(time.Minute)), "-CAfile", "root.pem", "-untrusted", "chain.pem", "leaf.pem")
	if !strings.Contains(out, "leaf.pem: OK") {
		t.Errorf("openssl verify: %s", out)
	}
	err = pki.LintStrictly(issued.Certificate.Raw)
	if err != nil {
		t.Errorf("ZLint: %v", err)
	}
	for _, broken := range pki.LintDevice(issued.Certificate, chain[len(chain)-1].Certificate, p.Kind()) {
		t.Errorf("it breaks %s", broken.Name)
	}
}

// propertyWorld is what random requests are made of: keys of all kinds, and CAs with limits.
type propertyWorld struct {
	keys map[pki.KeyKind]crypto.PublicKey
	cube *rsa.PublicKey
	cas  map[string]*ca
}

func newPropertyWorld(t *testing.T) *propertyWorld {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey := newKey(t, pki.KeyRSA2048).Public().(*rsa.PublicKey)
	endless := newRootBy(t, "aws-root-ca")
	const days = 24 * time.Hour
	return &propertyWorld{
		keys: map[pki.KeyKind]crypto.PublicKey{pki.KeyP256: newKey(t, pki.KeyP256).Public(), pki.KeyP384: newKey(t, pki.KeyP384).Public(), pki.KeyRSA2048: rsaKey, pki.KeyEd25519: ed.Public()},
		cube: &rsa.PublicKey{N: rsaKey.N, E: 3},
		cas: map[string]*ca{
			"endless": endless,
			"a year":  endless.below(t, pki.KeyP256, profile(t, pki.ProfileConfig{Name: "year", Kind: pki.KindIntermediate, Lifetime: 365 * days, PathLength: 2}), "year"),
			"bound": endless.below(t, pki.KeyP256, profile(t, pki.ProfileConfig{Name: "bound", Kind: pki.KindIntermediate, Lifetime: 3650 * days, PathLength: 2,
				Constraints: pki.NameConstraints{PermittedDNS: []string{"acme.example"}, ExcludedIPs: []string{"10.0.0.0/8"}}}), "bound"),
			"directories": endless.below(t, pki.KeyP256, profile(t, pki.ProfileConfig{Name: "directories", Kind: pki.KindIntermediate, Lifetime: 3650 * days, PathLength: 2,
				Constraints: pki.NameConstraints{ExcludedDirectories: []string{"/O=Other"}}}), "directories"),
		},
	}
}

// anyProfile makes a profile that is one.
func anyProfile(t *rapid.T) pki.ProfileConfig {
	flag := func(name string) bool { return rapid.Bool().Draw(t, name) }
	kind := rapid.SampledFrom([]pki.ProfileKind{pki.KindAWSDevice, pki.KindOperational, pki.KindIDevID, pki.KindServer, pki.KindClaim, pki.KindIntermediate, pki.KindOCSP}).Draw(t, "kind")
	c := pki.ProfileConfig{Name: "any", Kind: kind, ShortenToCA: flag("shorten"), Backdate: time.Duration(rapid.IntRange(0, 48*60).Draw(t, "backdate")) * time.Minute}
	ends, longest := []string{"lifetime", "fixed", "none"}, 20*365*24*3600
	if kind == pki.KindOCSP {
		ends, longest = ends[:1], 31*24*3600 // no longer, because they can't be taken back
	}
	switch rapid.SampledFrom(ends).Draw(t, "end") {
	case "fixed":
		c.NotAfter = start.AddDate(0, 0, rapid.IntRange(1, 9000).Draw(t, "days")).Truncate(time.Second)
	case "none":
		c.Unlimited = kind != pki.KindClaim // our lint wants an end
	}
	if !c.Unlimited && c.NotAfter.IsZero() {
		c.Lifetime = time.Duration(rapid.IntRange(60, longest).Draw(t, "lifetime")) * time.Second
	}
	if flag("some keys") {
		c.Keys = []pki.KeyKind{pki.KeyP256}
		if flag("RSA, too") {
			c.Keys = append(c.Keys, pki.KeyRSA2048)
		}
	}
	if kind == pki.KindAWSDevice {
		return c
	}
	c.AllowKeyReuse = true // the journal of these tests doesn't look
	for _, name := range []string{"CN", "O", "OU"} {
		if flag(name + " required") {
			c.Subject.Required = append(c.Subject.Required, name)
		}
	}
	if flag("pattern") {
		c.Subject.Patterns = map[string]string{"CN": "SN-[0-9]{1,6}"}
	}
	if flag("fixed") {
		c.Subject.Fixed = map[string]string{"C": "DE"}
	}
	if flag("allowed") {
		c.Subject.Allowed = []string{"CN", "O", "OU", "SERIALNUMBER"}
	}
	if kind == pki.KindIntermediate {
		c.PathLength, c.ClientsOnly = rapid.IntRange(0, 1).Draw(t, "path length"), flag("clients only")
		return c
	}
	c.Names = pki.NameRules{DNS: true, URI: flag("uri"), IP: flag("ip"), Email: flag("email")}
	if flag("name pattern") {
		c.Names.Patterns = map[string]string{"dns": `[a-z0-9-]+\.acme\.example`}
	}
	return c
}

// good makes a request that follows a profile.
func (w *propertyWorld) good(t *rapid.T, c pki.ProfileConfig) pki.Request {
	kinds := c.Keys
	if len(kinds) == 0 {
		kinds = []pki.KeyKind{pki.KeyP256, pki.KeyP384, pki.KeyRSA2048}
		if c.Kind != pki.KindIDevID {
			kinds = append(kinds, pki.KeyEd25519)
		}
	}
	r := pki.Request{PublicKey: w.keys[rapid.SampledFrom(kinds).Draw(t, "key")]}
	r.RawSubject = nameOf(map[string]string{"O": "Acme", "OU": "Site 7", "SERIALNUMBER": "IMP-0001", "CN": fmt.Sprint("SN-", rapid.IntRange(0, 999999).Draw(t, "number"))})
	if c.Kind == pki.KindAWSDevice || c.Kind == pki.KindIntermediate {
		return r
	}
	r.Names.DNS = []string{fmt.Sprintf("sn-%d.acme.example", rapid.IntRange(0, 9).Draw(t, "host"))}
	if c.Names.IP && rapid.Bool().Draw(t, "with ip") {
		r.Names.IPs = []net.IP{net.IPv4(192, 0, 2, byte(rapid.IntRange(1, 250).Draw(t, "ip")))}
	}
	if c.Names.URI && rapid.Bool().Draw(t, "with uri") {
		r.Names.URIs = []*url.URL{{Scheme: "urn", Opaque: "acme:7"}}
	}
	if c.Names.Email && rapid.Bool().Draw(t, "with email") {
		r.Names.Emails = []string{"line@acme.example"}
	}
	return r
}

var attributeIDs = map[string]asn1.ObjectIdentifier{"C": {2, 5, 4, 6}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "CN": {2, 5, 4, 3}, "SERIALNUMBER": {2, 5, 4, 5}, "L": {2, 5, 4, 7}}

func nameOf(values map[string]string) []byte {
	var name pkix.RDNSequence
	for _, kind := range []string{"C", "O", "OU", "L", "SERIALNUMBER", "CN"} {
		value, has := values[kind]
		if !has {
			continue
		}
		tag := asn1.TagUTF8String
		if kind == "C" || kind == "SERIALNUMBER" {
			tag = asn1.TagPrintableString
		}
		name = append(name, pkix.RelativeDistinguishedNameSET{{Type: attributeIDs[kind], Value: asn1.RawValue{Tag: tag, Bytes: []byte(value)}}})
	}
	der, err := asn1.Marshal(name)
	if err != nil {
		panic(err)
	}
	return der
}

// fault breaks one rule of a request, if the profile or the CA has that rule.
type fault struct {
	name string
	do   func(w *propertyWorld, c *pki.ProfileConfig, p *pki.Profile, by *ca, r *pki.Request) bool
}

var faults = []fault{
	{"a kind of key", func(w *propertyWorld, c *pki.ProfileConfig, _ *pki.Profile, _ *ca, r *pki.Request) bool {
		r.PublicKey = w.keys[pki.KeyEd25519]
		return len(c.Keys) > 0
	}},
	{"a small exponent", func(w *propertyWorld, _ *pki.ProfileConfig, _ *pki.Profile, _ *ca, r *pki.Request) bool {
		r.PublicKey = w.cube
		return true
	}},
	{"the CA's own key", func(_ *propertyWorld, _ *pki.ProfileConfig, _ *pki.Profile, by *ca, r *pki.Request) bool {
		r.PublicKey = by.key.Public()
		return true
	}},
	{"a published key", func(_ *propertyWorld, _ *pki.ProfileConfig, _ *pki.Profile, _ *ca, r *pki.Request) bool {
		r.PublicKey = publicOf(rfc9500)
		return true
	}},
	{"a missing attribute", func(_ *propertyWorld, c *pki.ProfileConfig, _ *pki.Profile, _ *ca, r *pki.Request) bool {
		r.RawSubject = nameOf(map[string]string{"SERIALNUMBER": "IMP-0001"})
		return len(c.Subject.Required) > 0
	}},
	{"an attribute", func(_ *propertyWorld, c *pki.ProfileConfig, _ *pki.Profile, _ *ca, r *pki.Request) bool {
		r.RawSubject = nameOf(map[string]string{"O": "Acme", "OU": "x", "L": "Bonn", "SERIALNUMBER": "1", "CN": "SN-1"})
		return len(c.Subject.Allowed) > 0
	}},
	{"a pattern", func(_ *propertyWorld, c *pki.ProfileConfig, _ *pki.Profile, _ *ca, r *pki.Request) bool {
		r.RawSubject = nameOf(map[string]string{"O": "Acme", "OU": "x", "SERIALNUMBER": "1", "CN": "SN-1x"})
		return len(c.Subject.Patterns) > 0
	}},
	{"no IDevID's serial number", func(_ *propertyWorld, c *pki.ProfileConfig, _ *pki.Profile, _ *ca, r *pki.Request) bool {
		r.RawSubject = nameOf(map[string]string{"O": "Acme", "OU": "x", "CN": "SN-1"})
		return c.Kind == pki.KindIDevID
	}},
	{"a control character", func(_ *propertyWorld, _ *pki.ProfileConfig, _ *pki.Profile, _ *ca, r *pki.Request) bool {
		r.RawSubject = nameOf(map[string]string{"O": "Ac\x00me", "OU": "x", "SERIALNUMBER": "1", "CN": "SN-1"})
		return true
	}},
	{"a kind of name", func(_ *propertyWorld, c *pki.ProfileConfig, _ *pki.Profile, _ *ca, r *pki.Request) bool {
		r.Names.Emails = []string{"a@acme.example"}
		return c.Kind != pki.KindAWSDevice && !c.Names.Email
	}},
	{"a pattern of names", func(_ *propertyWorld, c *pki.ProfileConfig, _ *pki.Profile, _ *ca, r *pki.Request) bool {
		r.Names.DNS = []string{"a.b.acme.example"}
		return len(c.Names.Patterns) > 0
	}},
	{"a name twice", func(_ *propertyWorld, c *pki.ProfileConfig, _ *pki.Profile, _ *ca, r *pki.Request) bool {
		r.Names.DNS = append(r.Names.DNS, r.Names.DNS...)
		return len(r.Names.DNS) > 0 && c.Kind != pki.KindAWSDevice
	}},
	{"the CA's names", func(w *propertyWorld, c *pki.ProfileConfig, _ *pki.Profile, by *ca, r *pki.Request) bool {
		r.Names.DNS = []string{"sn-1.other.example"}
		return by == w.cas["bound"] && c.Names.DNS
	}},
	{"the CA's addresses", func(w *propertyWorld, c *pki.ProfileConfig, _ *pki.Profile, by *ca, r *pki.Request) bool {
		r.Names.IPs = []net.IP{net.IPv4(10, 1, 2, 3)}
		return by == w.cas["bound"] && c.Names.IP
	}},
	{"the CA's directories", func(w *propertyWorld, c *pki.ProfileConfig, _ *pki.Profile, by *ca, r *pki.Request) bool {
		r.RawSubject = nameOf(map[string]string{"O": "Other", "OU": "Site 7", "SERIALNUMBER": "1", "CN": "SN-1"})
		return by == w.cas["directories"] && len(c.Subject.Fixed) == 0
	}},
	{"the profile's end", func(_ *propertyWorld, _ *pki.ProfileConfig, p *pki.Profile, _ *ca, r *pki.Request) bool {
		r.NotAfter = p.End(start).Add(time.Second)
		return p.End(start).Before(pki.NoExpiry())
	}},
	{"an end that is over", func(_ *propertyWorld, _ *pki.ProfileConfig, _ *pki.Profile, _ *ca, r *pki.Request) bool {
		r.NotAfter = start
		return true
	}},
	{"the CA's end", func(_ *propertyWorld, c *pki.ProfileConfig, p *pki.Profile, by *ca, r *pki.Request) bool {
		r.NotAfter = time.Time{}
		return !c.ShortenToCA && p.End(start).After(by.Certificate().NotAfter)
	}},
	{"the beginning", func(_ *propertyWorld, _ *pki.ProfileConfig, p *pki.Profile, _ *ca, r *pki.Request) bool {
		r.NotBefore = start.Add(-p.Config().Backdate).Add(-time.Second)
		return true
	}},
	{"the path's length", func(_ *propertyWorld, c *pki.ProfileConfig, p *pki.Profile, by *ca, _ *pki.Request) bool {
		limit := pki.PathLimit(by.Certificate())
		return p.Kind() == pki.KindIntermediate && limit >= 0 && c.PathLength >= limit
	}},
}

func publicOf(text string) crypto.PublicKey {
	key, err := parseKey(text)
	if err != nil {
		panic(err)
	}
	return key.Public()
}

// TestWhatIsSignedFollowsItsProfile: random profiles, CAs and requests. One that follows the
// rules is signed, and what is signed holds to all of them and is taken by Go's verifier,
// ZLint and our lints; one that breaks a rule is refused, and nothing is recorded.
func TestWhatIsSignedFollowsItsProfile(t *testing.T) {
	t.Parallel()
	w := newPropertyWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		config := anyProfile(t)
		p, err := pki.NewProfile(config)
		if err != nil {
			t.Fatalf("a profile that is one: %v", err)
		}
		by := w.cas[rapid.SampledFrom([]string{"endless", "a year", "bound", "directories"}).Draw(t, "CA")]
		r := w.good(t, config)
		if by.Certificate().NotAfter.Before(p.End(start)) && !config.ShortenToCA {
			r.NotAfter = by.Certificate().NotAfter
		}
		if by == w.cas["bound"] && len(r.Names.URIs) > 0 {
			r.Names.URIs = nil
		}
		f := fault{name: "none"}
		if rapid.Bool().Draw(t, "broken") {
			f = rapid.SampledFrom(faults).Draw(t, "fault")
		}
		broken := f.do != nil && f.do(w, &config, p, by, &r)
		if !broken && f.do != nil {
			return // the rule isn't there, and the request was changed
		}
		before := len(by.journal.all)
		token, err := by.Prepare(t.Context(), tenant, p, r)
		if broken {
			if code := imprint.CodeOf(err); code != imprint.CodeCertificateValidation && code != imprint.CodeCertificateWeak || len(by.journal.all) != before {
				t.Fatalf("%s: got %v, and %d records", f.name, err, len(by.journal.all)-before)
			}
			return
		}
		if err != nil {
			t.Fatalf("a request that follows the rules: %v", err)
		}
		issued, err := by.Sign(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		w.follows(t, config, p, by, r, issued.Certificate)
		if len(by.journal.all) != before+2 {
			t.Errorf("there are %d records of it", len(by.journal.all)-before)
		}
	})
}

// follows compares a certificate with the config of its profile, as a reader of that would.
func (w *propertyWorld) follows(t *rapid.T, c pki.ProfileConfig, p *pki.Profile, by *ca, r pki.Request, cert *x509.Certificate) {
	ca := by.Certificate()
	begin := start.Add(-p.Config().Backdate)
	if begin.Before(ca.NotBefore) {
		begin = ca.NotBefore
	}
	if cert.NotBefore.Before(begin) || cert.NotAfter.After(ca.NotAfter) || cert.NotAfter.After(p.End(start)) || !r.NotAfter.IsZero() && cert.NotAfter.After(r.NotAfter) {
		t.Errorf("it is valid from %s until %s", cert.NotBefore, cert.NotAfter)
	}
	if len(c.Keys) > 0 && !slices.Contains(c.Keys, pki.KeyKindOf(cert.PublicKey)) {
		t.Errorf("its key is a %s key", pki.KeyKindOf(cert.PublicKey))
	}
	counts := map[string]int{}
	for _, a := range cert.Subject.Names {
		for name, id := range attributeIDs {
			if !id.Equal(a.Type) {
				continue
			}
			counts[name]++
			value := fmt.Sprint(a.Value)
			if pattern := c.Subject.Patterns[name]; pattern != "" && !regexp.MustCompile("^("+pattern+")$").MatchString(value) {
				t.Errorf("its %s is %q", name, value)
			}
			if fixed, is := c.Subject.Fixed[name]; is && fixed != value {
				t.Errorf("its %s is %q, not %q", name, value, fixed)
			}
			if _, is := c.Subject.Fixed[name]; !is && len(c.Subject.Allowed) > 0 && !slices.Contains(c.Subject.Allowed, name) {
				t.Errorf("it has %s", name)
			}
		}
	}
	for name := range c.Subject.Fixed {
		c.Subject.Required = append(c.Subject.Required, name)
	}
	for _, name := range c.Subject.Required {
		if counts[name] != 1 {
			t.Errorf("it has %s %d times", name, counts[name])
		}
	}
	if len(cert.IPAddresses) > 0 && !c.Names.IP || len(cert.URIs) > 0 && !c.Names.URI || len(cert.EmailAddresses) > 0 && !c.Names.Email || c.Kind == pki.KindAWSDevice && len(cert.DNSNames) > 0 {
		t.Errorf("it has names that aren't allowed: %q", cert.DNSNames)
	}
	if isCA := c.Kind == pki.KindIntermediate; cert.IsCA != isCA || isCA && cert.MaxPathLen != c.PathLength {
		t.Errorf("as a CA it is %t with %d", cert.IsCA, cert.MaxPathLen)
	}
	if cert.SerialNumber.BitLen() < 64 || cert.SerialNumber.BitLen() > 159 {
		t.Errorf("its serial number has %d bits", cert.SerialNumber.BitLen())
	}
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(w.cas["endless"].Certificate())
	middle.AddCert(ca)
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle, CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil && ca != w.cas["directories"].Certificate() { // Go's verifier takes nothing below those
		t.Errorf("Go's verifier: %v", err)
	}
	if c.Kind != pki.KindAWSDevice {
		err = pki.LintStrictly(cert.Raw)
		if err != nil {
			t.Errorf("ZLint: %v", err)
		}
	}
	for _, broken := range pki.LintDevice(cert, ca, c.Kind) {
		t.Errorf("it breaks %s", broken.Name)
	}
}

// TestNoCertificateBeginsBeforeItsCA: AWS's profile neither, below a CA that was made a moment
// ago.
func TestNoCertificateBeginsBeforeItsCA(t *testing.T) {
	t.Parallel()
	young := newRoot(t, pki.KeyP256).below(t, pki.KeyP256, builtin(t, "intermediate"), "young")
	p := profile(t, pki.ProfileConfig{Name: "device", Lifetime: time.Hour, Backdate: time.Hour})
	issued := issue(t, young.Authority, p, pki.Request{PublicKey: newKey(t, pki.KeyP256).Public()})
	if got, want := issued.Certificate.NotBefore, young.Certificate().NotBefore; !got.Equal(want) {
		t.Errorf("it begins at %s, its CA at %s", got, want)
	}
}

// TestAClockBehindTheCAsBeginningSignsNothing: it isn't the CA's time yet.
func TestAClockBehindTheCAsBeginningSignsNothing(t *testing.T) {
	t.Parallel()
	root := newRoot(t, pki.KeyP256)
	early, err := pki.NewAuthority(pki.IssuerConfig{ID: "root", Certificate: root.issued.Certificate, Signer: pki.NewSoftSigner(root.key), Journal: &memory{}, Clock: at(start.Add(-2 * time.Hour))})
	if err != nil {
		t.Fatal(err)
	}
	for _, config := range []pki.ProfileConfig{{}, {Name: "hour", Kind: pki.KindOperational, Lifetime: time.Hour}} {
		err = early.Check(profile(t, config), pki.Request{PublicKey: newKey(t, pki.KeyP256).Public(), RawSubject: named(t, "CN=x")})
		if imprint.CodeOf(err) != imprint.CodeCertificateValidation || !strings.Contains(err.Error(), "the CA and those above it are from") {
			t.Errorf("%s: got %v", config.Kind, err)
		}
	}
}

// TestNoCertificateIsOverWhenItIsMade, though it would begin before its end.
func TestNoCertificateIsOverWhenItIsMade(t *testing.T) {
	t.Parallel()
	root := newRoot(t, pki.KeyP256)
	key := newKey(t, pki.KeyP256).Public()
	for _, p := range []*pki.Profile{
		profile(t, pki.ProfileConfig{Name: "device", Lifetime: time.Hour, Backdate: time.Minute}),
		profile(t, pki.ProfileConfig{Name: "hour", Kind: pki.KindOperational, Lifetime: time.Hour, Backdate: time.Minute}),
	} {
		for end, fine := range map[time.Duration]bool{-30 * time.Second: false, 0: false, time.Second: true} {
			err := root.Check(p, pki.Request{PublicKey: key, RawSubject: named(t, "CN=x"), NotAfter: start.Add(end)})
			if fine && err != nil || !fine && (imprint.CodeOf(err) != imprint.CodeCertificateValidation || !strings.Contains(err.Error(), "and it is")) {
				t.Errorf("profile %s, until %s from now: got %v", p.Name(), end, err)
			}
		}
	}
}
