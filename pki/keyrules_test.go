package pki_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // of Debian's lists
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/foreign"
	"github.com/imprint-iot/imprint/pki"
)

// TestSmallExponentsAreRefused unless the profile lets them be.
func TestSmallExponentsAreRefused(t *testing.T) {
	t.Parallel()
	root := newRoot(t, pki.KeyP256)
	modulus := newKey(t, pki.KeyRSA2048).Public().(*rsa.PublicKey).N
	strict := profile(t, pki.ProfileConfig{Name: "strict", Kind: pki.KindOperational, Lifetime: time.Hour})
	loose := profile(t, pki.ProfileConfig{Name: "loose", Kind: pki.KindOperational, Lifetime: time.Hour, AllowSmallExponent: true})
	for _, e := range []int{3, 17, 257, 65535} {
		request := pki.Request{PublicKey: &rsa.PublicKey{N: modulus, E: e}, RawSubject: named(t, "CN=x")}
		_, err := root.Prepare(t.Context(), tenant, strict, request)
		if imprint.CodeOf(err) != imprint.CodeCertificateWeak || !strings.Contains(err.Error(), "exponent") {
			t.Errorf("exponent %d: got %v", e, err)
		}
		_, err = root.Prepare(t.Context(), tenant, loose, request)
		if err != nil {
			t.Errorf("exponent %d by a profile that allows it: %v", e, err)
		}
	}
	_, err := root.Prepare(t.Context(), tenant, loose, pki.Request{PublicKey: &rsa.PublicKey{N: modulus, E: 65538}, RawSubject: named(t, "CN=x")})
	if imprint.CodeOf(err) != imprint.CodeCertificateWeak {
		t.Errorf("an even exponent: got %v", err)
	}
}

// rfc9500 is the P-256 key that RFC 9500 section 2.3 gives for tests.
const rfc9500 = `-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIObLW92AqkWunJXowVR2Z5/+yVPBaFHnEedDk5WJxk/BoAoGCCqGSM49
AwEHoUQDQgAEQiVI+I+3gv+17KN0RFLHKh5Vj71vc75eSOkyMsxFxbFsTNEMTLjV
uKFxOelIgsiZJXKZNCX0FBmrfpCkKklCcg==
-----END EC PRIVATE KEY-----`

func parseKey(text string) (crypto.Signer, error) {
	block, _ := pem.Decode([]byte(text))
	return x509.ParseECPrivateKey(block.Bytes)
}

func publishedKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := parseKey(rfc9500)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestPublishedKeysAreRefused without any list: in requests, and in certificates that others
// made.
func TestPublishedKeysAreRefused(t *testing.T) {
	t.Parallel()
	root := newRoot(t, pki.KeyP256)
	key := publishedKey(t)
	_, err := root.Prepare(t.Context(), tenant, builtin(t, "operational"), pki.Request{PublicKey: key.Public(), RawSubject: named(t, "CN=x")})
	if imprint.CodeOf(err) != imprint.CodeCertificateWeak || !strings.Contains(err.Error(), "RFC 9500") {
		t.Errorf("a request: got %v", err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: start, NotAfter: start.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if refusal := pki.CheckKey(cert); imprint.CodeOf(refusal) != imprint.CodeCertificateWeak {
		t.Errorf("a certificate: got %v", refusal)
	}
}

// TestTheListOfPublishedKeysIsSound: each line is as --known-keys takes it, and says where
// the key was published.
func TestTheListOfPublishedKeysIsSound(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("publishedkeys.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, err = pki.NewKnownKeys(string(text))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		hash, words, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if raw, err := hex.DecodeString(hash); err != nil || len(raw) != sha256.Size || seen[hash] || words == "" {
			t.Errorf("the line %q isn't a new hash and where it is from", line)
		}
		seen[hash] = true
	}
	if len(seen) < 40 {
		t.Errorf("there are %d keys", len(seen))
	}
}

// TestKeysOfDebiansListsAreRefused: --known-keys takes the files of openssl-blacklist and of who
// writes such ones.
func TestKeysOfDebiansListsAreRefused(t *testing.T) {
	t.Parallel()
	key := newKey(t, pki.KeyRSA2048)
	path := filepath.Join(t.TempDir(), "key.pem")
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err == nil {
		err = os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	printed, err := exec.CommandContext(t.Context(), foreign.Program(t, "openssl"), "rsa", "-noout", "-modulus", "-in", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(printed)
	known, err := pki.NewKnownKeys("# blacklist.RSA-2048\n00000aa3b1a0c1e2d3f4\n" + hex.EncodeToString(sum[10:]) + "\n")
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		key  crypto.PublicKey
		weak bool
	}{"the listed one": {key.Public(), true}, "another one": {newKey(t, pki.KeyRSA2048).Public(), false}, "one of another kind": {newKey(t, pki.KeyP256).Public(), false}} {
		spki, err := x509.MarshalPKIXPublicKey(c.key)
		if err != nil {
			t.Fatal(err)
		}
		if refusal := known.Refusal(spki); (refusal != nil) != c.weak {
			t.Errorf("%s: got %v", what, refusal)
		}
	}
}

// TestKnownKeysMayStandBeforeATab, as the documentation says of white space.
func TestKnownKeysMayStandBeforeATab(t *testing.T) {
	t.Parallel()
	key := newKey(t, pki.KeyP256).Public()
	hash, err := pki.KeyHash(key)
	if err != nil {
		t.Fatal(err)
	}
	known, err := pki.NewKnownKeys(hash + "\ta board's\n")
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if refusal := known.Refusal(spki); refusal == nil || !strings.Contains(refusal.Error(), "(a board's)") {
		t.Errorf("got %v", refusal)
	}
}

// TestTheDeviceCATakesNoKnownKeys either.
func TestTheDeviceCATakesNoKnownKeys(t *testing.T) {
	t.Parallel()
	key := newKey(t, pki.KeyP256).Public()
	hash, err := pki.KeyHash(key)
	if err != nil {
		t.Fatal(err)
	}
	known, err := pki.NewKnownKeys(hash)
	if err != nil {
		t.Fatal(err)
	}
	a, err := pki.OpenAuthority(t.Context(), t.TempDir(), pki.AuthorityConfig{Sealer: sealer(t, 1), Journal: &memory{}, Clock: at(start), Key: pki.KeyP256, Known: known})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Prepare(t.Context(), tenant, profile(t, pki.ProfileConfig{}), pki.Request{PublicKey: key})
	if imprint.CodeOf(err) != imprint.CodeCertificateWeak || !strings.Contains(err.Error(), "known to others") {
		t.Errorf("got %v", err)
	}
}

// TestRulesThatCouldBeGotAroundAreRefused when profiles are read, not at the first request.
func TestRulesThatCouldBeGotAroundAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*pki.ProfileConfig)
		words  string
	}{
		"a pattern that gets around its anchors": {func(c *pki.ProfileConfig) { c.Subject.Patterns = map[string]string{"CN": "a)|(?:b"} }, "regular expression"},
		"such a pattern of names": {func(c *pki.ProfileConfig) {
			c.Names = pki.NameRules{DNS: true, Patterns: map[string]string{"dns": "a)|(?:b"}}
		}, "regular expression"},
		"two patterns of one attribute":        {func(c *pki.ProfileConfig) { c.Subject.Patterns = map[string]string{"CN": "a", "2.5.4.3": "b"} }, "two patterns of CN"},
		"two cases of one attribute":           {func(c *pki.ProfileConfig) { c.Subject.Patterns = map[string]string{"CN": "a", "cn": "b"} }, "two patterns of CN"},
		"two fixed values":                     {func(c *pki.ProfileConfig) { c.Subject.Fixed = map[string]string{"O": "a", "2.5.4.10": "b"} }, "O has two fixed values"},
		"a serial number that isn't printable": {func(c *pki.ProfileConfig) { c.Subject.Fixed = map[string]string{"SERIALNUMBER": "a_b"} }, "can't have"},
		"a country of three letters":           {func(c *pki.ProfileConfig) { c.Subject.Fixed = map[string]string{"C": "DEU"} }, "two capital letters"},
	} {
		config := pki.ProfileConfig{Name: "x", Kind: pki.KindOperational, Lifetime: time.Hour}
		c.change(&config)
		_, err := pki.NewProfile(config)
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: got %v, want %q", name, err, c.words)
		}
	}
	for name, config := range map[string]pki.ProfileConfig{
		"of another kind":    {Name: "ocsp", Kind: pki.KindOperational, Lifetime: time.Hour},
		"without P-256 keys": {Name: "ocsp", Kind: pki.KindOCSP, Lifetime: time.Hour, CommonName: "x", Keys: []pki.KeyKind{pki.KeyRSA2048}},
		"without a subject":  {Name: "ocsp", Kind: pki.KindOCSP, Lifetime: time.Hour},
		"with needed names":  {Name: "ocsp", Kind: pki.KindOCSP, Lifetime: time.Hour, CommonName: "x", Names: pki.NameRules{DNS: true, Required: true}},
	} {
		_, err := pki.NewProfiles(config)
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest || !strings.Contains(err.Error(), "profile ocsp") {
			t.Errorf("a profile ocsp %s: got %v", name, err)
		}
	}
	_, err := pki.NewProfiles(pki.ProfileConfig{Name: "ocsp", Kind: pki.KindOCSP, Lifetime: time.Hour, CommonName: "Acme responder"})
	if err != nil {
		t.Errorf("a profile ocsp that fits: %v", err)
	}
}

// TestNamesThatCantBeTakenAreRefused, not dropped: whoever asks for them counts on them.
func TestNamesThatCantBeTakenAreRefused(t *testing.T) {
	t.Parallel()
	root := newRoot(t, pki.KeyP256)
	plain := profile(t, pki.ProfileConfig{Name: "plain", Kind: pki.KindOperational, Lifetime: time.Hour, Names: pki.NameRules{DNS: true}})
	hardware := profile(t, pki.ProfileConfig{Name: "hw", Kind: pki.KindIDevID, Lifetime: time.Hour, Names: pki.NameRules{HardwareType: "1.3.6.1.4.1.32473.1.7"}})
	key := newKey(t, pki.KeyP256)
	ask := func(p *pki.Profile, san []byte) error {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: named(t, "CN=x", "SN=IMP-0001"),
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}}}, key)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		return root.Check(p, pki.RequestOf(csr))
	}
	directory := append([]byte{0x30, 0x11, 0xa4, 0x0f}, named(t, "CN=Ab")...)
	directory[1], directory[3] = byte(len(directory)-2), byte(len(directory)-4)
	module := []byte("\x30\x26\xa0\x24\x06\x08\x2b\x06\x01\x05\x05\x07\x08\x04\xa0\x18\x30\x16\x06\x0a\x2b\x06\x01\x04\x01\x81\xfd\x59\x01\x07\x04\x08IMP-0001")
	for _, c := range []struct {
		name    string
		profile *pki.Profile
		san     []byte
		words   string
	}{
		{"a directory", plain, directory, "directoryName"},
		{"a hardware module", plain, module, "hardwareModuleName"},
		{"a registered id", plain, []byte{0x30, 0x05, 0x88, 0x03, 0x2a, 0x03, 0x04}, "registeredID"},
		{"another name", hardware, []byte("\x30\x0d\xa0\x0b\x06\x03\x2a\x03\x04\xa0\x04\x04\x02ab"), "otherName 1.2.3.4"},
		{"the hardware module that the profile makes itself", hardware, module, ""},
		{"a DNS name", plain, []byte("\x30\x03\x82\x01a"), ""},
	} {
		err := ask(c.profile, c.san)
		if c.words == "" && err != nil || c.words != "" && (imprint.CodeOf(err) != imprint.CodeCertificateValidation || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.words)
		}
	}
}
