package pki_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

var code = strings.Repeat("0123456789abcdef", 4)

// made makes a certificate valid for a day around start, changed by the
// functions, signed by the parent's key, or self-signed.
func made(t testing.TB, cn string, parent *x509.Certificate, key, signer crypto.Signer, change ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn},
		NotBefore: start.Add(-12 * time.Hour), NotAfter: start.Add(12 * time.Hour), BasicConstraintsValid: true,
	}
	for _, f := range change {
		f(template)
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func asCA(c *x509.Certificate) { c.IsCA = true }

func TestCheckCARegistrationToleratesNothing(t *testing.T) {
	t.Parallel()
	key, otherKey := p256(t), p256(t)
	ca := made(t, "Example CA", nil, key, key, asCA)
	verification := func(cn string) *x509.Certificate { return made(t, cn, ca, p256(t), key) }
	good := verification(code)
	sameName := made(t, "Example CA", nil, otherKey, otherKey, asCA)
	ed := edKey(t)
	twoNames := made(t, "", ca, p256(t), key, func(c *x509.Certificate) {
		c.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "other"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: code},
		}}
	})
	validation, request, registration := imprint.CodeCertificateValidation, imprint.CodeInvalidRequest, imprint.CodeRegistrationCode
	defaultMode, sniOnly := imprint.ModeDefault, imprint.ModeSNIOnly
	tests := []struct {
		name             string
		ca, verification *x509.Certificate
		code             string
		mode             imprint.CertificateMode
		now              time.Time
		want             imprint.Code
	}{
		{"DEFAULT with a good verification", ca, good, code, defaultMode, start, ""},
		{"code in upper case", ca, verification(strings.ToUpper(code)), code, defaultMode, start, ""},
		{"SNI_ONLY without verification", ca, nil, "", sniOnly, start, ""},
		{"CA that is signed by another", made(t, "Intermediate", ca, otherKey, key, asCA), nil, "", sniOnly, start, ""},
		{"2: DEFAULT without verification", ca, nil, code, defaultMode, start, request},
		{"2: SNI_ONLY with verification", ca, good, code, sniOnly, start, request},
		{"2: no mode", ca, good, code, "", start, request},
		{"2: unknown mode", ca, good, code, "default", start, request},
		{"2 comes before 3", made(t, "x", nil, key, key), nil, code, defaultMode, start, request},
		{"3: not a CA", made(t, "x", nil, key, key), nil, "", sniOnly, start, validation},
		{"3: no basicConstraints", made(t, "x", nil, key, key, func(c *x509.Certificate) { c.BasicConstraintsValid = false }), nil, "", sniOnly, start, validation},
		{"4: expired", ca, good, code, defaultMode, start.Add(13 * time.Hour), validation},
		{"4: not yet valid", ca, good, code, defaultMode, start.Add(-13 * time.Hour), validation},
		{"5: Ed25519", made(t, "x", nil, ed, ed, asCA), nil, "", sniOnly, start, validation},
		{"5: signed with Ed25519", made(t, "x", made(t, "ed", nil, ed, ed, asCA), key, ed, asCA), nil, "", sniOnly, start, validation},
		{"6: signed by another CA of this name", ca, made(t, code, sameName, p256(t), otherKey), code, defaultMode, start, validation},
		{"6: issued by another CA", ca, made(t, code, made(t, "Other CA", nil, otherKey, otherKey, asCA), p256(t), otherKey), code, defaultMode, start, validation},
		{"6: issued under another name by this key", ca, made(t, code, made(t, "Other CA", nil, key, key, asCA), p256(t), key), code, defaultMode, start, validation},
		{"6: the CA itself", ca, ca, code, defaultMode, start, registration},
		{"7: another code", ca, verification(strings.Repeat("f", 64)), code, defaultMode, start, registration},
		{"7: half the code", ca, verification(code[:32]), code, defaultMode, start, registration},
		{"7: space behind the code", ca, verification(code + " "), code, defaultMode, start, registration},
		{"7: no common name", ca, verification(""), code, defaultMode, start, registration},
		{"7: two common names", ca, twoNames, code, defaultMode, start, registration},
		{"7: the tenant has no code", ca, verification(""), "", defaultMode, start, registration},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := pki.CheckCARegistration(tt.ca, tt.verification, tt.code, tt.mode, tt.now)
			if got := imprint.CodeOf(err); got != tt.want {
				t.Errorf("got %q (%v), want %q", got, err, tt.want)
			}
			if err != nil && imprint.HintOf(err) == "" {
				t.Errorf("%v has no hint", err)
			}
		})
	}
}

func TestPickIssuerFindsTheSignerAmongCAsOfOneName(t *testing.T) {
	t.Parallel()
	var keys []crypto.Signer
	var cas []*x509.Certificate
	for i := range 10 {
		key := p256(t)
		keys = append(keys, key)
		cas = append(cas, made(t, "Example CA", nil, key, key, asCA, func(c *x509.Certificate) {
			if i%2 == 0 {
				c.SubjectKeyId = []byte{byte(i)}
			}
		}))
	}
	cas = append([]*x509.Certificate{nil, made(t, "Other CA", nil, keys[3], keys[3], asCA)}, cas...)
	for i, key := range keys {
		leaf := made(t, "sensor", cas[i+2], p256(t), key)
		got, err := pki.PickIssuer(leaf, cas)
		if err != nil || got != i+2 {
			t.Errorf("signer %d: got %d, %v", i+2, got, err)
		}
	}
	// An authority key identifier that lies costs a signature, no more.
	lying := made(t, "sensor", cas[2], p256(t), keys[0])
	confused := append([]*x509.Certificate{}, cas...)
	wrong := p256(t)
	confused[4] = made(t, "Example CA", nil, wrong, wrong, asCA, func(c *x509.Certificate) { c.SubjectKeyId = lying.AuthorityKeyId })
	got, err := pki.PickIssuer(lying, confused)
	if err != nil || got != 2 {
		t.Errorf("lying identifier: got %d, %v, want 2", got, err)
	}
}

func TestPickIssuerRefuses(t *testing.T) {
	t.Parallel()
	key, other, ed := p256(t), p256(t), edKey(t)
	ca := made(t, "Example CA", nil, key, key, asCA)
	impostor := made(t, "Example CA", nil, other, other, asCA)
	leaf := made(t, "sensor", impostor, p256(t), other)
	unknownAlgorithm := *leaf
	unknownAlgorithm.SignatureAlgorithm = x509.SHA1WithRSA
	tests := []struct {
		name       string
		leaf       *x509.Certificate
		candidates []*x509.Certificate
		want       imprint.Code
	}{
		{"no candidates", leaf, nil, imprint.CodeCANotRegistered},
		{"candidates of other names", leaf, []*x509.Certificate{made(t, "Other", nil, key, key, asCA)}, imprint.CodeCANotRegistered},
		{"same key under another name", leaf, []*x509.Certificate{made(t, "Other", nil, other, other, asCA)}, imprint.CodeCANotRegistered},
		{"right name, other key", leaf, []*x509.Certificate{ca}, imprint.CodeCASignature},
		{"right name, other kind of key", leaf, []*x509.Certificate{made(t, "Example CA", nil, ed, ed, asCA)}, imprint.CodeCASignature},
		{"SHA-1", &unknownAlgorithm, []*x509.Certificate{ca}, imprint.CodeCertificateWeak},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := pki.PickIssuer(tt.leaf, tt.candidates)
			if code := imprint.CodeOf(err); code != tt.want || got != -1 {
				t.Errorf("got %d, %q (%v), want -1, %q", got, code, err, tt.want)
			}
		})
	}
	err := pki.SignedBy(leaf, ca)
	if got, want := imprint.CodeOf(err), imprint.CodeCASignature; got != want {
		t.Errorf("SignedBy: got %q, want %q", got, want)
	}
	err = pki.SignedBy(leaf, impostor)
	if err != nil {
		t.Errorf("SignedBy the signer: got %v, want nil", err)
	}
}

func TestMistakesNamesEachOnce(t *testing.T) {
	t.Parallel()
	key := p256(t)
	tests := []struct {
		name   string
		cert   *x509.Certificate
		role   pki.Role
		now    time.Time
		inText []string
	}{
		{"good device", made(t, "x", nil, key, key), pki.RoleDevice, start, nil},
		{"device with a CA certificate", made(t, "x", nil, key, key, asCA), pki.RoleDevice, start, []string{"is a CA certificate"}},
		{"expired", made(t, "x", nil, key, key), pki.RoleDevice, start.AddDate(1, 0, 0), []string{"was valid until"}},
		{"server certificate", made(t, "x", nil, key, key, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			c.KeyUsage = x509.KeyUsageKeyAgreement
		}), pki.RoleDevice, start, []string{"digitalSignature", "clientAuth"}},
		{"client and server certificate", made(t, "x", nil, key, key, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		}), pki.RoleDevice, start, nil},
		{"serial number zero", made(t, "x", nil, key, key, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(0) }), pki.RoleDevice, start, []string{"isn't positive"}},
		{"good CA", made(t, "x", nil, key, key, asCA), pki.RoleCA, start, nil},
		{"CA that isn't one", made(t, "x", nil, key, key), pki.RoleCA, start, []string{"isn't a CA", "subjectKeyIdentifier"}},
		{"CA that may not sign", made(t, "x", nil, key, key, asCA, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), pki.RoleCA, start, []string{"keyCertSign"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.cert.SerialNumber.Sign() == 0 && tt.name != "serial number zero" {
				t.Fatal("unexpected serial number")
			}
			got := pki.DevicePolicy().Mistakes(tt.cert, tt.role, tt.now)
			if len(got) != len(tt.inText) {
				t.Fatalf("got %v, want %v", got, tt.inText)
			}
			for i, e := range got {
				if !strings.Contains(e.Error(), tt.inText[i]) || imprint.HintOf(e) == "" {
					t.Errorf("got %q with hint %q, want %q", e, imprint.HintOf(e), tt.inText[i])
				}
			}
		})
	}
}

func TestNamesOfCertificates(t *testing.T) {
	t.Parallel()
	sum := "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-4, "abc"
	if got := string(pki.CertificateID([]byte("abc"))); got != sum {
		t.Errorf("CertificateID: got %s, want %s", got, sum)
	}
	if got := pki.SubjectKey([]byte("abc")); got != sum {
		t.Errorf("SubjectKey: got %s, want %s", got, sum)
	}
	for n, want := range map[string]string{"00": "0", "0abc": "abc", "ff00": "ff00"} {
		raw, err := hex.DecodeString(n)
		if err != nil {
			t.Fatal(err)
		}
		if got := pki.SerialHex(new(big.Int).SetBytes(raw)); got != want {
			t.Errorf("SerialHex %s: got %s, want %s", n, got, want)
		}
	}
	if got := pki.SerialHex(nil); got != "0" {
		t.Errorf("SerialHex of nothing: got %s, want 0", got)
	}
	if bytes.Equal([]byte(pki.SubjectKey(nil)), []byte(pki.SubjectKey([]byte{0x30, 0}))) {
		t.Error("no subject and an empty one have one key")
	}
}
