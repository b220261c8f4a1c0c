package pki_test

import (
	"crypto/x509/pkix"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// The order of extensions, their criticality, and the string types, as a
// foreign parser sees them.
func TestOpenSSLReadsAndVerifiesWhatWeIssue(t *testing.T) {
	t.Parallel()
	for _, kind := range []pki.KeyKind{pki.KeyRSA2048, pki.KeyP256} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			a, _ := authority(t, kind)
			dir := t.TempDir()
			issued := issue(t, a, profile(t, pki.ProfileConfig{}), pki.Request{PublicKey: p256(t).Public()})
			put(t, dir, "ca.pem", pki.EncodeCertificatePEM(a.Certificate().Raw))
			put(t, dir, "leaf.pem", issued.PEM)
			out := openssl(t, dir, "verify", "-x509_strict", "-attime", "1772366400", "-CAfile", "ca.pem", "leaf.pem")
			if got, want := strings.TrimSpace(out), "leaf.pem: OK"; got != want {
				t.Errorf("verify: got %q, want %q", got, want)
			}
			var order []string
			for _, m := range regexp.MustCompile(`OBJECT\s+:X509v3 (.*)`).FindAllStringSubmatch(openssl(t, dir, "asn1parse", "-in", "leaf.pem"), -1) {
				order = append(order, m[1])
			}
			if diff := cmp.Diff(order, []string{"Authority Key Identifier", "Subject Key Identifier", "Basic Constraints", "Key Usage"}); diff != "" {
				t.Errorf("order of extensions (-got +want):\n%s", diff)
			}
			text := openssl(t, dir, "x509", "-in", "leaf.pem", "-noout", "-text", "-nameopt", "RFC2253,show_type")
			for _, want := range []string{
				"Version: 3 (0x2)", "Subject: CN=UTF8STRING:AWS IoT Certificate",
				"X509v3 Basic Constraints: critical\n                CA:FALSE", "X509v3 Key Usage: critical\n                Digital Signature\n",
				"Not Before: Mar  1 11:58:00 2026 GMT", "Not After : Dec 31 23:59:59 2049 GMT",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("openssl x509 -text lacks %q:\n%s", want, text)
				}
			}
			if kind == pki.KeyRSA2048 && !strings.Contains(text, "Signature Algorithm: sha256WithRSAEncryption") {
				t.Errorf("openssl x509 -text lacks sha256WithRSAEncryption:\n%s", text)
			}
		})
	}
}

func TestSubjectOfAnOpenSSLRequestIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openssl(t, dir, "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "k.pem", "-out", "r.pem", "-utf8",
		"-subj", "/C=DE/ST=Hessen/L=Köln/O=Example/OU=Line 1/CN=sensor-17/emailAddress=a@example.com")
	csr, err := pki.ParseCSRPEM(get(t, dir, "r.pem"))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := authority(t, pki.KeyRSA2048)
	put(t, dir, "leaf.pem", issue(t, a, profile(t, pki.ProfileConfig{}), pki.Request{PublicKey: csr.PublicKey, RawSubject: csr.RawSubject}).PEM)
	got := openssl(t, dir, "x509", "-in", "leaf.pem", "-noout", "-subject", "-nameopt", "show_type,sep_comma_plus,utf8")
	want := openssl(t, dir, "req", "-in", "r.pem", "-noout", "-subject", "-nameopt", "show_type,sep_comma_plus,utf8")
	if got != want {
		t.Errorf("subject: got %q, want %q", got, want)
	}
	got = openssl(t, dir, "x509", "-in", "leaf.pem", "-noout", "-pubkey")
	want = openssl(t, dir, "pkey", "-in", "k.pem", "-pubout")
	if got != want {
		t.Errorf("key: got %q, want %q", got, want)
	}
}

// selfSigned makes key.pem and cert.pem with openssl.
func selfSigned(t *testing.T, dir string, keyArgs []string, extra ...string) {
	t.Helper()
	openssl(t, dir, append([]string{"genpkey", "-out", "key.pem"}, keyArgs...)...)
	args := []string{"req", "-x509", "-new", "-key", "key.pem", "-subj", "/CN=x", "-days", "3650", "-out", "cert.pem"}
	openssl(t, dir, append(args, extra...)...)
}

func TestKeysAndSignaturesThatOpenSSLMakes(t *testing.T) {
	t.Parallel()
	rsa2048 := []string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"}
	ec := func(curve string) []string {
		return []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:" + curve}
	}
	pss := []string{"-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32", "-sha256"}
	tests := []struct {
		name        string
		key, extra  []string
		devices     imprint.Code
		aws         imprint.Code
		hint        string
		notReadable bool
	}{
		{name: "RSA-2048 SHA-256", key: rsa2048},
		{name: "RSA-2048 SHA-512", key: rsa2048, extra: []string{"-sha512"}},
		{name: "RSA-2048 PSS", key: rsa2048, extra: pss},
		{name: "RSA-3072", key: []string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"}},
		{name: "P-256", key: ec("P-256")},
		{name: "P-384 SHA-384", key: ec("P-384"), extra: []string{"-sha384"}},
		{name: "P-521 SHA-512", key: ec("P-521"), extra: []string{"-sha512"}},
		{name: "Ed25519", key: []string{"-algorithm", "ED25519"}, aws: imprint.CodeCertificateWeak, hint: "P-256"},
		{name: "RSA-1024", key: []string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"}, devices: imprint.CodeCertificateWeak, aws: imprint.CodeCertificateWeak, hint: "openssl genrsa 2048"},
		{name: "P-224", key: ec("P-224"), devices: imprint.CodeCertificateWeak, aws: imprint.CodeCertificateWeak, hint: "P-256"},
		{name: "RSA SHA-1", key: rsa2048, extra: []string{"-sha1"}, devices: imprint.CodeCertificateWeak, aws: imprint.CodeCertificateWeak, hint: "-sha256"},
		{name: "ECDSA SHA-1", key: ec("P-256"), extra: []string{"-sha1"}, devices: imprint.CodeCertificateWeak, aws: imprint.CodeCertificateWeak, hint: "-sha256"},
		{name: "RSA MD5", key: rsa2048, extra: []string{"-md5"}, devices: imprint.CodeCertificateWeak, aws: imprint.CodeCertificateWeak, hint: "-sha256"},
		{name: "RSA key for PSS alone", key: []string{"-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"}, devices: imprint.CodeCertificateWeak, aws: imprint.CodeCertificateWeak, hint: "rsaEncryption"},
		{name: "Ed448", key: []string{"-algorithm", "ED448"}, devices: imprint.CodeCertificateWeak, aws: imprint.CodeCertificateWeak, hint: "P-256"},
		{name: "secp256k1", key: ec("secp256k1"), notReadable: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			selfSigned(t, dir, tt.key, tt.extra...)
			cert, err := pki.ParseCertificatePEM(get(t, dir, "cert.pem"))
			if tt.notReadable {
				if got, want := imprint.CodeOf(err), imprint.CodeCertificateValidation; got != want {
					t.Errorf("got %q (%v), want %q", got, err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for which, check := range map[string]struct {
				policy pki.Policy
				want   imprint.Code
			}{"devices": {pki.DevicePolicy(), tt.devices}, "AWS": {pki.Policy{}, tt.aws}} {
				refusal := check.policy.CheckKey(cert)
				var got imprint.Code
				if refusal != nil {
					got = refusal.Code
				}
				if got != check.want {
					t.Errorf("%s: got %q (%v), want %q", which, got, refusal, check.want)
				}
				if refusal != nil && !strings.Contains(refusal.Hint, tt.hint) {
					t.Errorf("%s: got hint %q, want %q in it", which, refusal.Hint, tt.hint)
				}
			}
			signed := pki.SignedBy(cert, cert)
			if (signed == nil) != (tt.devices == "") {
				t.Errorf("SignedBy: got %v, want success %v", signed, tt.devices == "")
			}
		})
	}
}

func TestRequestsThatOpenSSLMakes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		args []string
		want imprint.Code
	}{
		{"RSA-2048", []string{"-newkey", "rsa:2048"}, ""},
		{"RSA-2048 PSS", []string{"-newkey", "rsa:2048", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"}, ""},
		{"RSA-2048 PSS with a salt of another length", []string{"-newkey", "rsa:2048", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:20"}, imprint.CodeCertificateValidation},
		{"P-521", []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"}, ""},
		{"Ed25519", []string{"-newkey", "ed25519"}, ""},
		{"NEW CERTIFICATE REQUEST", []string{"-newkey", "rsa:2048", "-newhdr"}, ""},
		{"text before", []string{"-newkey", "rsa:2048", "-text"}, ""},
		{"RSA-1024", []string{"-newkey", "rsa:1024"}, imprint.CodeCertificateWeak},
		// The signature proves that the device has the key and goes no further.
		{"SHA-1", []string{"-newkey", "rsa:2048", "-sha1"}, ""},
		{"MD5", []string{"-newkey", "rsa:2048", "-md5"}, imprint.CodeCertificateValidation},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			openssl(t, dir, append([]string{"req", "-new", "-nodes", "-keyout", "k.pem", "-out", "r.pem", "-subj", "/CN=x"}, tt.args...)...)
			csr, err := pki.ParseCSRPEM(get(t, dir, "r.pem"))
			if got := imprint.CodeOf(err); got != tt.want {
				t.Fatalf("got %q (%v), want %q", got, err, tt.want)
			}
			if err == nil && csr.Subject.CommonName != "x" {
				t.Errorf("subject: got %s, want CN=x", csr.Subject)
			}
		})
	}
}

// v1 certificates are what openssl x509 -req makes without extensions: devices have
// them, CAs can't be them. The fixture is OpenSSL 3.0's, with text before the PEM;
// newer ones make version 3 of the same commands:
//
//	openssl req -new -newkey rsa:2048 -nodes -keyout k.pem -out r.pem -subj /CN=x
//	openssl x509 -req -in r.pem -signkey k.pem -days 3650 -text -out version1.pem
func TestVersion1CertificateIsGoodForADeviceAndNotForACA(t *testing.T) {
	t.Parallel()
	cert, err := pki.ParseCertificatePEM(get(t, "testdata", "version1.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := cert.Version, 1; got != want {
		t.Fatalf("version: got %d, want %d", got, want)
	}
	refusal := pki.CheckKey(cert)
	if refusal != nil {
		t.Errorf("device: got %v, want acceptance", refusal)
	}
	err = pki.CheckCARegistration(cert, nil, "", imprint.ModeSNIOnly, cert.NotBefore.Add(time.Hour))
	if got, want := imprint.HintOf(err), "without extensions"; imprint.CodeOf(err) != imprint.CodeCertificateValidation || !strings.Contains(got, want) {
		t.Errorf("CA: got %v with hint %q, want %q in it", err, got, want)
	}
}

// The way of the AWS IoT developer guide, commands and all.
func TestRegistrationAsTheDeveloperGuideSays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	code := strings.Repeat("0123456789abcdef", 4)
	openssl(t, dir, "genrsa", "-out", "root_CA_key.pem", "2048")
	put(t, dir, "root.conf", "[req]\ndistinguished_name=dn\nx509_extensions=v3_ca\nprompt=no\n[dn]\nCN=Example CA\n[v3_ca]\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid:always,issuer:always\nbasicConstraints=CA:true\n")
	openssl(t, dir, "req", "-x509", "-new", "-nodes", "-key", "root_CA_key.pem", "-sha256", "-days", "1024", "-out", "root_CA_cert.pem", "-config", "root.conf")
	openssl(t, dir, "genrsa", "-out", "v.key", "2048")
	openssl(t, dir, "req", "-new", "-key", "v.key", "-out", "v.csr", "-subj", "/C=US/O=Example/CN="+code)
	openssl(t, dir, "x509", "-req", "-in", "v.csr", "-CA", "root_CA_cert.pem", "-CAkey", "root_CA_key.pem", "-CAcreateserial", "-out", "v.crt", "-days", "500", "-sha256")
	ca, err := pki.ParseCertificatePEM(get(t, dir, "root_CA_cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	verification, err := pki.ParseCertificatePEM(get(t, dir, "v.crt"))
	if err != nil {
		t.Fatal(err)
	}
	err = pki.CheckCARegistration(ca, verification, strings.ToUpper(code), imprint.ModeDefault, ca.NotBefore.Add(time.Minute))
	if err != nil {
		t.Errorf("got %v, want acceptance", err)
	}
	if got := (pki.Policy{}).Mistakes(ca, pki.RoleCA, ca.NotBefore.Add(time.Minute)); len(got) != 0 {
		t.Errorf("mistakes: got %v, want none", got)
	}
}

func TestSubjectTextIsWhatOpenSSLPrints(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	selfSigned(t, dir, []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"}, "-subj", "/C=DE/O=Example, Inc./OU=a+b/CN=x")
	cert, err := pki.ParseCertificatePEM(get(t, dir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.TrimPrefix(strings.TrimSpace(openssl(t, dir, "x509", "-in", "cert.pem", "-noout", "-subject", "-nameopt", "RFC2253")), "subject=")
	if got := pki.SubjectText(cert.RawSubject); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	terminal := rawSubject(t, pkix.Name{CommonName: "a\x1b[2J\u202eb"})
	if got, want := pki.SubjectText(terminal), `CN=a\x1b[2J\xe2\x80\xaeb`; got != want {
		t.Errorf("control characters: got %q, want %q", got, want)
	}
	if got, want := pki.SubjectText([]byte("nonsense")), "#6e6f6e73656e7365"; got != want {
		t.Errorf("nonsense: got %q, want %q", got, want)
	}
	if got := len(pki.SubjectText(rawSubject(t, pkix.Name{CommonName: strings.Repeat("ä", 5000)}))); got > 1024 {
		t.Errorf("long subject: got %d bytes, want at most 1024", got)
	}
}
