//go:debug rsa1024min=0

package doctor_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/doctor"
)

// A file that a device is given wrongly is named, with a command that mends it.
func TestWhatIsWrongWithFilesIsNamed(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "Factory")
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "sensor-17"}}, a.key)
	if err != nil {
		t.Fatal(err)
	}
	request := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))
	type row struct {
		name  string
		spoil func(t *testing.T, d *person)
		check string
		want  doctor.Verdict
		code  doctor.Code
		words []string
	}
	cert := func(text func(t *testing.T, d *person) string) func(*testing.T, *person) {
		return func(t *testing.T, d *person) { d.options.Certificate = a.file(t, "spoilt.pem", text(t, d)) }
	}
	key := func(text func(t *testing.T, d *person) string) func(*testing.T, *person) {
		return func(t *testing.T, d *person) { d.options.Key = a.file(t, "spoilt.key", text(t, d)) }
	}
	good := func(d *person) string { return certPEM(d.cert) }
	rows := []row{
		{"nothing", func(*testing.T, *person) {}, "file.certificate", doctor.OK, "", nil},
		{"no such file", func(_ *testing.T, d *person) { d.options.Certificate += ".gone" }, "file.certificate", doctor.Failed, doctor.FileUnreadable, []string{"ls -l"}},
		{"a directory", func(_ *testing.T, d *person) { d.options.Key = os.TempDir() }, "file.key", doctor.Failed, doctor.FileUnreadable, []string{"directory"}},
		{"empty", cert(func(*testing.T, *person) string { return " \n" }), "file.certificate", doctor.Failed, doctor.FileEmpty, nil},
		{"far too large", key(func(*testing.T, *person) string { return strings.Repeat("x", 2<<20) }), "file.key", doctor.Failed, doctor.FileTooLarge, nil},
		{"DER", cert(func(_ *testing.T, d *person) string { return string(d.cert.Raw) }), "file.certificate", doctor.Failed, doctor.FileIsDER, []string{"openssl x509 -inform DER"}},
		{"a key in DER", key(func(t *testing.T, d *person) string { return string(der(t, keyPEM(t, d.key))) }), "file.key", doctor.Failed, doctor.FileIsDER, []string{"openssl pkey -inform DER"}},
		{"no PEM", cert(func(*testing.T, *person) string { return "hello\n" }), "file.certificate", doctor.Failed, doctor.FileNotPEM, nil},
		{"a byte order mark", cert(func(_ *testing.T, d *person) string { return "\ufeff" + good(d) }), "file.certificate", doctor.Failed, doctor.FileNotPEM, []string{"sed -i"}},
		{"UTF-16", cert(func(_ *testing.T, d *person) string { return wide(good(d)) }), "file.certificate", doctor.Failed, doctor.FileNotPEM, []string{"iconv"}},
		{"escaped line breaks", cert(func(_ *testing.T, d *person) string { return strings.ReplaceAll(good(d), "\n", `\n`) }), "file.certificate", doctor.Failed, doctor.PEMEscaped, []string{"printf"}},
		{"cut off", cert(func(_ *testing.T, d *person) string { return good(d)[:300] }), "file.certificate", doctor.Failed, doctor.PEMDamaged, nil},
		{"a damaged certificate", cert(func(_ *testing.T, d *person) string {
			return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.cert.Raw[:200]}))
		}), "file.certificate", doctor.Failed, doctor.CertificateUnreadable, nil},
		{"text around it", cert(func(_ *testing.T, d *person) string { return "Certificate:\n  Data:\n" + good(d) }), "file.certificate", doctor.Warning, doctor.PEMExtraText, []string{"openssl x509 -in"}},
		{"CR LF", cert(func(_ *testing.T, d *person) string { return strings.ReplaceAll(good(d), "\n", "\r\n") }), "file.certificate", doctor.Warning, doctor.PEMCRLF, []string{"tr -d"}},
		{"a signing request", cert(func(*testing.T, *person) string { return request }), "file.certificate", doctor.Failed, doctor.WrongFile, []string{"Let the CA sign it"}},
		{"a key for the certificate", cert(func(t *testing.T, d *person) string { return keyPEM(t, d.key) }), "file.certificate", doctor.Failed, doctor.WrongFile, []string{"exchanged"}},
		{"a certificate for the key", key(func(_ *testing.T, d *person) string { return good(d) }), "file.key", doctor.Failed, doctor.WrongFile, []string{"exchanged"}},
		{"a public key for the key", key(func(t *testing.T, d *person) string { return publicPEM(t, d) }), "file.key", doctor.Failed, doctor.WrongFile, []string{"public key"}},
		{"the key beside the certificate", cert(func(t *testing.T, d *person) string { return good(d) + keyPEM(t, d.key) }), "file.certificate", doctor.Warning, doctor.KeyInCertificateFile, nil},
		{"the key beside the certificate alone", func(t *testing.T, d *person) {
			d.options.Certificate = a.file(t, "both.pem", good(d)+keyPEM(t, d.key))
			d.options.Key = a.file(t, "none.key", good(d))
		}, "file.key", doctor.Failed, doctor.WrongFile, []string{"--key", "both.pem"}},
		{"an encrypted key", key(func(*testing.T, *person) string {
			return string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("sealed")}))
		}), "file.key", doctor.Failed, doctor.KeyEncrypted, []string{"openssl pkey -in"}},
		{"an encrypted key of old", key(func(*testing.T, *person) string {
			return "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n"
		}), "file.key", doctor.Failed, doctor.KeyEncrypted, nil},
		{"a damaged key", key(func(*testing.T, *person) string {
			return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("rubbish")}))
		}), "file.key", doctor.Failed, doctor.KeyUnreadable, nil},
		{"another's key", key(func(t *testing.T, _ *person) string { return keyPEM(t, newKey(t)) }), "certificate.key", doctor.Failed, doctor.KeyMismatch, []string{"openssl pkey -in"}},
		{"the CA first", cert(func(_ *testing.T, d *person) string { return certPEM(a.cert, d.cert) }), "certificate.chain", doctor.Failed, doctor.ChainOrder, []string{"awk"}},
		{"the chain", cert(func(_ *testing.T, d *person) string { return certPEM(d.cert, a.cert) }), "certificate.chain", doctor.OK, "", nil},
		{"a stranger's CA behind it", cert(func(t *testing.T, d *person) string { return certPEM(d.cert, newAuthority(t, "Stranger").cert) }), "certificate.chain", doctor.Warning, doctor.ChainBroken, nil},
		{"alone, and no server name", func(_ *testing.T, d *person) { d.options.NoServerName = true }, "certificate.chain", doctor.Warning, doctor.ChainWithoutCA, []string{"cat device.pem"}},
		{"an empty root file", func(t *testing.T, d *person) { d.options.CA = a.file(t, "empty.pem", "") }, "file.ca", doctor.Failed, doctor.FileEmpty, nil},
		{"no root among the roots", func(_ *testing.T, d *person) { d.options.CA = d.options.Certificate }, "file.ca", doctor.Warning, doctor.RootNotSelfSigned, nil},
		{"a client id that begins with $", func(_ *testing.T, d *person) { d.options.ClientID = "$x" }, "clientid", doctor.Failed, doctor.ClientIDInvalid, nil},
		{"a long client id", func(_ *testing.T, d *person) { d.options.ClientID = strings.Repeat("x", 129) }, "clientid", doctor.Failed, doctor.ClientIDInvalid, nil},
	}
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			d := a.device(t, nil)
			d.options.Endpoint = "localhost:1"
			tt.spoil(t, d)
			report := examine(t, d.options)
			expect(t, report, tt.check, tt.want, tt.code, tt.words...)
		})
	}
}

// What is wrong with a certificate itself is named.
func TestWhatIsWrongWithCertificatesIsNamed(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "Factory")
	now := time.Now()
	rows := []struct {
		name     string
		template x509.Certificate
		check    string
		want     doctor.Verdict
		code     doctor.Code
	}{
		{"expired", x509.Certificate{NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-24 * time.Hour)}, "certificate.validity", doctor.Failed, doctor.CertificateExpired},
		{"not yet valid", x509.Certificate{NotBefore: now.Add(24 * time.Hour), NotAfter: now.Add(48 * time.Hour)}, "certificate.validity", doctor.Failed, doctor.CertificateNotYet},
		{"about to expire", x509.Certificate{NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(48 * time.Hour)}, "certificate.validity", doctor.Warning, doctor.CertificateEndsSoon},
		{"a CA's", x509.Certificate{IsCA: true, BasicConstraintsValid: true}, "certificate.usage", doctor.Warning, doctor.CertificateIsCA},
		{"a server's", x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, "certificate.usage", doctor.Warning, doctor.UsageNoClientAuth},
		{"a client's", x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, "certificate.usage", doctor.OK, ""},
		{"for encipherment", x509.Certificate{KeyUsage: x509.KeyUsageKeyEncipherment}, "certificate.usage", doctor.Warning, doctor.UsageNoSignature},
	}
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			expect(t, examine(t, a.device(t, &tt.template).options), tt.check, tt.want, tt.code)
		})
	}
	t.Run("a weak key", func(t *testing.T) {
		weak, err := rsa.GenerateKey(rand.Reader, 1024)
		if err != nil {
			t.Fatal(err)
		}
		d := a.device(t, nil)
		cert := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "weak"}}, weak.Public(), a, nil)
		d.options.Certificate, d.options.Key = a.file(t, "weak.pem", certPEM(cert)), a.file(t, "weak.key", keyPEM(t, weak))
		expect(t, examine(t, d.options), "certificate.algorithm", doctor.Failed, doctor.KeyNotAccepted, "1024 bits", "openssl genrsa 2048")
	})
	t.Run("no common name", func(t *testing.T) {
		d := a.device(t, nil)
		nameless := issue(t, &x509.Certificate{Subject: pkix.Name{SerialNumber: "1"}}, d.key.Public(), a, nil)
		d.options.Certificate = a.file(t, "nameless.pem", certPEM(nameless))
		expect(t, examine(t, d.options), "clientid", doctor.Failed, doctor.ClientIDMissing)
	})
}

// The command that puts certificates in order does so.
func TestTheCommandThatMendsAChainMendsIt(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "Factory")
	d := a.device(t, nil)
	d.options.Certificate = a.file(t, "chain.pem", certPEM(a.cert, d.cert))
	fix := named(t, examine(t, d.options), "certificate.chain").Fix
	out, err := exec.Command("sh", "-c", fix).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", fix, err, out)
	}
	got, err := os.ReadFile(d.options.Certificate + ".ordered")
	if err != nil {
		t.Fatal(err)
	}
	if want := certPEM(d.cert, a.cert); string(got) != want {
		t.Errorf("after %s: got\n%s\nwant\n%s", fix, got, want)
	}
}

// der takes a PEM block off.
func der(t *testing.T, text string) []byte {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatal("no PEM block")
	}
	return block.Bytes
}

func publicPEM(t *testing.T, d *person) string {
	t.Helper()
	public, err := x509.MarshalPKIXPublicKey(d.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return "-----BEGIN PUBLIC KEY-----\n" + base64.StdEncoding.EncodeToString(public) + "\n-----END PUBLIC KEY-----\n"
}

// wide makes UTF-16 with a byte order mark.
func wide(text string) string {
	b := []byte{0xff, 0xfe}
	for _, c := range []byte(text) {
		b = append(b, c, 0)
	}
	return string(b)
}
