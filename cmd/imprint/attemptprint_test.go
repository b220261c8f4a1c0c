package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/imprint-iot/imprint/pki"
)

// TestListsOfAttemptsFitATerminal ensures that rows are no longer than 120 columns,
// whatever devices call themselves, and name their attempt.
func TestListsOfAttemptsFitATerminal(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 300)
	list := []attempt{
		{ID: "0190abcdef1234567890abcdef123456", Began: 1, Address: "[2001:db8:1234:5678:9abc:def0:1234:5678]:60000", ClientID: long, Outcome: "closed", Code: "ClientDisconnect",
			Reason: "PublishDenied at publish", Repeats: 123456},
		{ID: "0190abcdef1234567890abcdef123457", Began: 1, Outcome: "connected"},
	}
	var out bytes.Buffer
	err := printTable(&out, true, list...)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for _, line := range lines {
		if utf8.RuneCountInString(line) > narrowest {
			t.Errorf("%d columns: %s", utf8.RuneCountInString(line), line)
		}
	}
	if len(lines) != 3 || !strings.HasSuffix(lines[1], "  0190abcdef123456") || !strings.Contains(lines[1], "PublishDenied") {
		t.Errorf("got\n%s", out.String())
	}
	out.Reset()
	err = printGroups(&out, "reason", groups{Complete: true, Groups: []group{{Key: "CANotRegistered at ca", AttemptID: list[0].ID, Fix: long + " " + long}, {Key: "x", AttemptID: list[1].ID}}})
	for _, line := range strings.Split(out.String(), "\n") {
		if !strings.Contains(line, "é") && len(line) > narrowest {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
	if err != nil || !strings.Contains(out.String(), "CANotRegistered at ca  imprint explain 0190abcdef123456\n") {
		t.Errorf("got %v\n%s", err, out.String())
	}
	for _, text := range []string{strings.Repeat("word ", 100), "a\nb", "", strings.Repeat("x", 500)} {
		got := broken(text, 40)
		for _, line := range got {
			if len(line) > 40 && strings.Contains(line, " ") {
				t.Errorf("%q: got a line of %d", text, len(line))
			}
		}
		if strings.Join(got, "") == "" && text != "" || len(got) == 0 {
			t.Errorf("%q: got %q", text, got)
		}
	}
}

// TestOneIsNoMany ensures that what happened once isn't said in the plural.
func TestOneIsNoMany(t *testing.T) {
	t.Parallel()
	for n, want := range map[int][]string{
		1: {"in the same way once before", "and once more, until", "and another that differs, until", "One further attempt is in a group"},
		2: {"in the same way 2 times before", "and 2 times more, until", "and 2 others that differ, until", "2 further attempts are in groups"},
	} {
		var out bytes.Buffer
		err := printAttempt(&out, attempt{Repeats: n, Steps: []step{{Name: "publish", Repeats: n}, {Name: "publish", Repeats: n, Others: true}}})
		if err == nil {
			err = printGroups(&out, "reason", groups{Others: n})
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, words := range want {
			if !strings.Contains(out.String(), words) {
				t.Errorf("of %d, %q isn't in\n%s", n, words, out.String())
			}
		}
	}
}

// TestExplainTakesWhatAPersonHas ensures that a certificate is taken in PEM and in DER,
// also behind its CA, and that of what can't be explained is said what it is.
func TestExplainTakesWhatAPersonHas(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(name string, isCA bool) []byte {
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: isCA, BasicConstraintsValid: true,
		}, &x509.Certificate{Subject: pkix.Name{CommonName: name}}, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	leaf, ca := sign("device", false), sign("CA", true)
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "asked"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		err := os.WriteFile(path, data, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	id := string(pki.CertificateID(leaf))
	for _, row := range []struct{ word, want, fault string }{
		{file("leaf.pem", encode("CERTIFICATE", leaf)), id, ""},
		{file("leaf.der", leaf), id, ""},
		{file("chain.pem", append(encode("CERTIFICATE", ca), encode("CERTIFICATE", leaf)...)), id, ""},
		{file("both.pem", append(encode("PRIVATE KEY", private), encode("CERTIFICATE", leaf)...)), id, ""},
		{file("ca.pem", encode("CERTIFICATE", ca)), string(pki.CertificateID(ca)), ""},
		{file("request.csr", encode("CERTIFICATE REQUEST", request)), "", `signing request, subject "CN=asked"`},
		{file("request.der", request), "", "signing request"},
		{file("key.pem", encode("PRIVATE KEY", private)), "", "no certificate, but PRIVATE KEY"},
		{file("noise.crt", []byte("x")), "", "neither a certificate in PEM nor one in DER"},
		{file("noise", []byte("x")), "", "neither a certificate in PEM nor one in DER"},
		{filepath.Join(dir, "none.der"), "", "couldn't read"},
		{"", "", "nothing to explain"},
		{" ", "", "nothing to explain"},
		{"sensor-1", "sensor-1", ""},
		{"line1/sensor-7", "line1/sensor-7", ""},
		{filepath.Join(dir, "leaf.pem") + "/sensor-7", filepath.Join(dir, "leaf.pem") + "/sensor-7", ""},
		{dir, dir, ""}, // a client id that is a directory's name here
	} {
		got, err := matchOf(row.word)
		if got != row.want || (err == nil) != (row.fault == "") || err != nil && !strings.Contains(err.Error(), row.fault) {
			t.Errorf("%s: got %q, %v, want %q, %q", row.word, got, err, row.want, row.fault)
		}
	}
	noise := filepath.Join(dir, "noise")
	for word, notes := range map[string]int{noise: 1, "sensor-1": 0} {
		got, about, err := wordOf(nil, word)
		if got != word || len(about) != notes || err != nil {
			t.Errorf("of %s, with a file noise that is nobody's certificate, %q is looked for, %q is said, %v", word, got, about, err)
		}
	}
	for given, want := range map[string]string{
		string(encode("CERTIFICATE", leaf)): id, string(leaf): id, "serial=0A1B\n": "serial=0A1B", "": "", "two\nlines": "", string(encode("PRIVATE KEY", private)): "",
	} {
		got, _, err := wordOf(strings.NewReader(given), "-")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("of standard input %q: got %q, %v, want %q", given, got, err, want)
		}
	}
	for _, name := range []string{"noise.crt", "key.pem", "request.csr"} {
		_, _, err := wordOf(nil, filepath.Join(dir, name))
		var usage usageError
		if !errors.As(err, &usage) {
			t.Errorf("%s is looked for as a name: %v", name, err)
		}
	}
}
