package pki_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

func edKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func testCSR(t testing.TB) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, p256(t))
	if err != nil {
		t.Fatal(err)
	}
	return csrPEM(der)
}

func TestParseCertificatePEMAccepts(t *testing.T) {
	t.Parallel()
	key := p256(t)
	cert := made(t, "x", nil, key, key)
	text := pki.EncodeCertificatePEM(cert.Raw)
	tests := map[string]string{
		"as encoded":           text,
		"no line break at end": strings.TrimSpace(text),
		"CRLF":                 strings.ReplaceAll(text, "\n", "\r\n"),
		"white space around":   " \n\t\n" + text + "\r\n \n",
		"openssl -text before": "Certificate:\n    Data:\n        Version: 3 (0x2)\n" + text,
		"bag attributes":       "Bag Attributes\n    friendlyName: x\nsubject=CN = x\n" + text,
		"one line of base64":   "-----BEGIN CERTIFICATE-----\n" + strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(text, "-----BEGIN CERTIFICATE-----\n"), "-----END CERTIFICATE-----\n"), "\n", "") + "\n-----END CERTIFICATE-----",
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := pki.ParseCertificatePEM(text)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Raw, cert.Raw) {
				t.Error("another certificate came out")
			}
		})
	}
}

func TestParseCertificatePEMRefusesWithAHint(t *testing.T) {
	t.Parallel()
	key := p256(t)
	der := made(t, "x", nil, key, key).Raw
	text := pki.EncodeCertificatePEM(der)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keyText := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	tests := []struct{ name, text, hint string }{
		{"empty", "", "file://"},
		{"white space", " \n", "file://"},
		{"file name", "file:/cert.pem", "not its content"},
		{"escaped line breaks", strings.ReplaceAll("x\n"+text, "\n", `\n`), "escaped"},
		{"DER", string(der), "-inform DER"},
		{"byte order mark", "\ufeff" + text, "BOM"},
		{"no PEM", "hello", "whole PEM file"},
		{"too long", strings.Repeat("x", pki.MaxPEM) + "\n" + text, "bundle"},
		{"two certificates", text + text, "alone"},
		{"key behind", text + keyText, "alone"},
		{"text behind", text + "hello", "END line"},
		{"second END line", text + "-----END CERTIFICATE-----\n", "END line"},
		{"no END line", text[:len(text)-30], "whole file"},
		{"broken base64", strings.Replace(text, "\nM", "\n!", 1), "whole file"},
		{"second BEGIN inside", strings.Replace(text, "\nM", "\n-----BEGIN CERTIFICATE-----\nM", 1), "alone"},
		{"headers", strings.Replace(text, "-----\nM", "-----\nProc-Type: 4,ENCRYPTED\n\nM", 1), "colon"},
		{"private key", keyText, "never send it"},
		{"request", testCSR(t), "CA sign it"},
		{"trusted certificate", string(pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: der})), "Convert"},
		{"public key", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), "type CERTIFICATE"},
		{"nonsense inside", pki.EncodeCertificatePEM([]byte("hello")), "openssl x509"},
		{"empty block", pki.EncodeCertificatePEM(nil), ""},
		{"something behind the DER", pki.EncodeCertificatePEM(append(bytes.Clone(der), 0)), "openssl x509"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cert, err := pki.ParseCertificatePEM(tt.text)
			if got, want := imprint.CodeOf(err), imprint.CodeCertificateValidation; got != want || cert != nil {
				t.Fatalf("got %v, %q (%v), want nil, %q", cert, got, err, want)
			}
			if got := imprint.HintOf(err); got == "" || !strings.Contains(got, tt.hint) {
				t.Errorf("%v: got hint %q, want %q in it", err, got, tt.hint)
			}
			if len(err.Error()) > 1000 {
				t.Errorf("the error is %d bytes long", len(err.Error()))
			}
		})
	}
}

func TestParseCSRPEMRefuses(t *testing.T) {
	t.Parallel()
	text := testCSR(t)
	block, _ := pem.Decode([]byte(text))
	forged := bytes.Clone(block.Bytes)
	forged[len(forged)-3] ^= 1
	ed, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, edKey(t))
	if err != nil {
		t.Fatal(err)
	}
	key := p256(t)
	tests := []struct {
		name, text, hint string
		policy           pki.Policy
		want             imprint.Code
	}{
		{"empty", "", "file://", pki.DevicePolicy(), imprint.CodeCertificateValidation},
		{"two", text + text, "alone", pki.DevicePolicy(), imprint.CodeCertificateValidation},
		{"certificate", pki.EncodeCertificatePEM(made(t, "x", nil, key, key).Raw), "openssl req -new", pki.DevicePolicy(), imprint.CodeCertificateValidation},
		{"nonsense inside", csrPEM([]byte("hello")), "openssl req -new", pki.DevicePolicy(), imprint.CodeCertificateValidation},
		{"forged signature", csrPEM(forged), "private key", pki.DevicePolicy(), imprint.CodeCertificateValidation},
		{"Ed25519 under AWS's list", csrPEM(ed), "P-256", pki.Policy{}, imprint.CodeCertificateWeak},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			csr, err := tt.policy.ParseCSRPEM(tt.text)
			if got := imprint.CodeOf(err); got != tt.want || csr != nil {
				t.Fatalf("got %v, %q (%v), want nil, %q", csr, got, err, tt.want)
			}
			if got := imprint.HintOf(err); !strings.Contains(got, tt.hint) {
				t.Errorf("got hint %q, want %q in it", got, tt.hint)
			}
		})
	}
}

func FuzzParseCertificatePEM(f *testing.F) {
	key := p256(f)
	cert := made(f, "x", nil, key, key)
	text := pki.EncodeCertificatePEM(cert.Raw)
	for _, seed := range []string{text, "x\n" + text, text + text, "", string(cert.Raw), strings.ReplaceAll(text, "\n", "\r\n"), testCSR(f)} {
		f.Add(seed)
	}
	// What is accepted is one certificate: encoding it anew gives a text that is
	// accepted as the same, whatever stood around the first. What is refused has
	// the code and a hint.
	f.Fuzz(func(t *testing.T, text string) {
		cert, err := pki.ParseCertificatePEM(text)
		if err != nil {
			if imprint.CodeOf(err) != imprint.CodeCertificateValidation || imprint.HintOf(err) == "" {
				t.Errorf("refused without code or hint: %v", err)
			}
			return
		}
		if strings.Count(text, "-----BEGIN ") != 1 || strings.Count(text, "-----END ") != 1 {
			t.Errorf("accepted several blocks: %q", text)
		}
		again, err := pki.ParseCertificatePEM(pki.EncodeCertificatePEM(cert.Raw))
		if err != nil || !bytes.Equal(again.Raw, cert.Raw) {
			t.Errorf("not stable: %v", err)
		}
		_ = pki.CheckKey(cert)
		_ = pki.DevicePolicy().Mistakes(cert, pki.RoleCA, start)
		_ = pki.CheckCARegistration(cert, cert, code, imprint.ModeDefault, start)
		if got := len(pki.SubjectText(cert.RawSubject)); got > 1024 {
			t.Errorf("subject of %d bytes", got)
		}
	})
}

func FuzzParseCSRPEM(f *testing.F) {
	text := testCSR(f)
	for _, seed := range []string{text, "x\n" + text, text + text, "", strings.ReplaceAll(text, "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")} {
		f.Add(seed)
	}
	// What is accepted proves possession of an accepted key, and stays so when
	// encoded anew.
	f.Fuzz(func(t *testing.T, text string) {
		csr, err := pki.ParseCSRPEM(text)
		if err != nil {
			return
		}
		if csr.CheckSignature() != nil {
			t.Error("accepted without possession of the key")
		}
		again, err := pki.ParseCSRPEM(csrPEM(csr.Raw))
		if err != nil || !bytes.Equal(again.Raw, csr.Raw) {
			t.Errorf("not stable: %v", err)
		}
	})
}

func FuzzSubjectText(f *testing.F) {
	f.Add([]byte{0x30, 0})
	f.Add(rawSubject(f, pkix.Name{CommonName: "a\x1b", Country: []string{"DE"}}))
	f.Add([]byte("nonsense"))
	f.Add(rawSubject(f, pkix.Name{CommonName: "device-1 a_b", SerialNumber: "SN:1.2/3=4", Organization: []string{"x", "y"}, Country: []string{"DE"}}))
	f.Add(rawSubject(f, pkix.Name{CommonName: " #,", Locality: []string{"", "ä"}, Province: []string{" a "}}))
	f.Add(rawSubject(f, pkix.Name{CommonName: strings.Repeat("a", 500), StreetAddress: []string{strings.Repeat("b", 500)}}))
	// What is plain reads as crypto/x509/pkix writes it.
	f.Fuzz(func(t *testing.T, raw []byte) {
		text := pki.SubjectText(raw)
		if len(text) > 1024 || strings.ContainsAny(text, "\x00\x1b\n\r") {
			t.Errorf("got %q", text)
		}
		var names pkix.RDNSequence
		rest, err := asn1.Unmarshal(raw, &names)
		if err != nil || len(rest) > 0 {
			if text != "" && text[0] != '#' {
				t.Errorf("got %q of what is no name", text)
			}
			return
		}
		want := names.String()
		if len(want) <= 1024 && !strings.ContainsFunc(want, func(r rune) bool { return r < ' ' || r > '~' }) && text != want {
			t.Errorf("got %q, want %q", text, want)
		}
	})
}
