package doctor_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/doctor"
)

// authority is a CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate; parent nil: it signs itself.
func issue(t *testing.T, template *x509.Certificate, public crypto.PublicKey, parent *authority, own *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial
	if template.NotBefore.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(365*24*time.Hour)
	}
	by, key := template, own
	if parent != nil {
		by, key = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key := newKey(t)
	cert := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true}, key.Public(), nil, key)
	return &authority{cert: cert, key: key}
}

func certPEM(certs ...*x509.Certificate) string {
	var b strings.Builder
	for _, c := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.String()
}

func keyPEM(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// file writes a file into a directory of its own, as tests run at once, and gives
// its path.
func (a *authority) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	err := os.WriteFile(path, []byte(text), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// person is a device's key and certificate.
type person struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	options doctor.Options // with its files and the authority's
}

func (a *authority) device(t *testing.T, template *x509.Certificate) *person {
	t.Helper()
	key := newKey(t)
	if template == nil {
		template = &x509.Certificate{}
	}
	if template.Subject.CommonName == "" {
		template.Subject.CommonName = "sensor-17"
	}
	cert := issue(t, template, key.Public(), a, nil)
	return &person{cert: cert, key: key, options: doctor.Options{
		Certificate: a.file(t, "device.pem", certPEM(cert)), Key: a.file(t, "device.key", keyPEM(t, key)), CA: a.file(t, "ca.pem", certPEM(a.cert)),
		Endpoint: "127.0.0.1:1", Timeout: 2 * time.Second, Pace: time.Millisecond,
	}}
}

// server gives a TLS configuration with a certificate for localhost.
func (a *authority) server(t *testing.T, template *x509.Certificate) *tls.Config {
	t.Helper()
	key := newKey(t)
	if template == nil {
		template = &x509.Certificate{}
	}
	template.Subject.CommonName = "a server"
	template.DNSNames = []string{"localhost"}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	cert := issue(t, template, key.Public(), a, nil)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
}

// listen serves each connection on a port of its own, and gives it as
// localhost:port.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				serve(conn)
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return "localhost:" + port
}

// examine makes all checks, and looks at what holds for every report.
func examine(t *testing.T, opts doctor.Options) *doctor.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	told := 0
	opts.Tell = func(doctor.Check) { told++ }
	report, err := doctor.Examine(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	checkReport(t, opts, report)
	if told != len(report.Checks) {
		t.Errorf("checks that were told: got %d, want %d", told, len(report.Checks))
	}
	return report
}

func checkReport(t *testing.T, opts doctor.Options, report *doctor.Report) {
	t.Helper()
	var want, got []string
	for _, name := range doctor.Names() {
		want = append(want, name[0])
	}
	known := map[doctor.Code]bool{}
	for _, d := range doctor.Codes() {
		known[d.Code] = true
	}
	key, _ := os.ReadFile(opts.Key)
	for _, c := range report.Checks {
		got = append(got, c.Name)
		bad := c.Verdict == doctor.Failed || c.Verdict == doctor.Warning
		if bad && (c.Fix == "" || c.Code == "") || c.Detail == "" || c.Code != "" && !known[c.Code] {
			t.Errorf("got %+v, want a code of the list, a detail and a fix", c)
		}
		for line := range strings.Lines(string(key)) {
			line = strings.TrimSpace(line)
			if len(line) > 20 && !strings.Contains(line, "-----") && strings.Contains(string(key), "PRIVATE KEY") && strings.Contains(c.Detail+c.Fix, line) {
				t.Errorf("check %s shows a line of the key: %+v", c.Name, c)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("checks: got %q, want %q", got, want)
	}
	if report.Healthy != (report.Count(doctor.Failed) == 0) {
		t.Errorf("healthy: got %t with %d failed", report.Healthy, report.Count(doctor.Failed))
	}
}

// named gives one check of a report.
func named(t *testing.T, report *doctor.Report, name string) doctor.Check {
	t.Helper()
	for _, c := range report.Checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("there is no check %s in %+v", name, report.Checks)
	return doctor.Check{}
}

// expect compares one check.
func expect(t *testing.T, report *doctor.Report, name string, verdict doctor.Verdict, code doctor.Code, words ...string) {
	t.Helper()
	c := named(t, report, name)
	if c.Verdict != verdict || c.Code != code {
		t.Errorf("%s: got %+v, want %s %s\nall: %+v", name, c, verdict, code, report.Checks)
		return
	}
	for _, word := range words {
		if !strings.Contains(c.Detail+"\n"+c.Fix, word) {
			t.Errorf("%s: got %+v, want %q in detail or fix", name, c, word)
		}
	}
}
