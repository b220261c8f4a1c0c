package pki_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"github.com/imprint-iot/imprint/pki"
)

// The two first of each kind are to be compared: what issuing costs from a CSR,
// linted and recorded in memory, against a bare signature by the same key.
func BenchmarkIssue(b *testing.B) {
	for _, kind := range []pki.KeyKind{pki.KeyRSA2048, pki.KeyP256} {
		a, _ := authority(b, kind)
		prof := profile(b, pki.ProfileConfig{})
		csrKey := p256(b)
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "sensor-17"}}, csrKey)
		if err != nil {
			b.Fatal(err)
		}
		text := csrPEM(der)
		b.Run(string(kind)+"/prepare and sign", func(b *testing.B) {
			for b.Loop() {
				csr, err := pki.ParseCSRPEM(text)
				if err != nil {
					b.Fatal(err)
				}
				issue(b, a, prof, pki.Request{PublicKey: csr.PublicKey, RawSubject: csr.RawSubject})
			}
		})
		b.Run(string(kind)+"/bare CreateCertificate", func(b *testing.B) {
			template := &x509.Certificate{SerialNumber: newBig(1 << 60), RawSubject: rawSubject(b, pkix.Name{CommonName: "x"}), NotBefore: start, NotAfter: start.AddDate(1, 0, 0)}
			for b.Loop() {
				_, err := x509.CreateCertificate(rand.Reader, template, a.Certificate(), csrKey.Public(), a.Signer())
				if err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(string(kind)+"/lint alone", func(b *testing.B) {
			raw := issue(b, a, prof, pki.Request{PublicKey: csrKey.Public()}).Certificate.Raw
			for b.Loop() {
				err := a.Lint(raw)
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSubjectText(b *testing.B) {
	raw := rawSubject(b, pkix.Name{CommonName: "device-0000001", SerialNumber: "SN0000001", Organization: []string{"Example"}, Country: []string{"DE"}})
	b.ReportAllocs()
	for b.Loop() {
		_ = pki.SubjectText(raw)
	}
}
