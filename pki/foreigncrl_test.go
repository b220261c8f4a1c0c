package pki_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// foreignCA is a CA that openssl runs, in a directory.
type foreignCA struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
}

const foreignConfig = `
[ca]
default_ca = own
[own]
database = index.txt
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_crl_days = 7
crl_extensions = plain
%s
[plain]
authorityKeyIdentifier = keyid:always
[delta]
authorityKeyIdentifier = keyid:always
2.5.29.27 = critical,DER:02:01:01
[indirect]
issuingDistributionPoint = critical,@indirect_point
[indirect_point]
indirectCRL = TRUE
[reasons]
issuingDistributionPoint = critical,@reasons_point
[reasons_point]
onlysomereasons = keyCompromise
[cas]
issuingDistributionPoint = critical,@cas_point
[cas_point]
onlyCA = TRUE
[users]
issuingDistributionPoint = critical,@users_point
[users_point]
onlyuser = TRUE
fullname = URI:http://pki.example.com/1.crl
[critical]
1.2.3.4 = critical,DER:05:00
`

func newForeignCA(t *testing.T) *foreignCA {
	t.Helper()
	c := &foreignCA{t: t, dir: t.TempDir()}
	openssl(t, c.dir, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/O=Maker/CN=Foreign CA", "-days", "3650",
		"-keyout", "ca.key", "-out", "ca.pem", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
	put(t, c.dir, "ca.cnf", fmt.Sprintf(foreignConfig, "crlnumber = crlnumber"))
	put(t, c.dir, "numberless.cnf", fmt.Sprintf(foreignConfig, ""))
	put(t, c.dir, "crlnumber", "07\n")
	put(t, c.dir, "index.txt", "R\t491231235959Z\t260101000000Z,keyCompromise\t0A0B\tunknown\t/CN=one\nR\t491231235959Z\t260102000000Z\t0C\tunknown\t/CN=two\nV\t491231235959Z\t\t0D\tunknown\t/CN=three\n")
	cert, err := pki.ParseCertificatePEM(get(t, c.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	c.cert = cert
	return c
}

// list signs a list and gives its PEM.
func (c *foreignCA) list(config string, more ...string) []byte {
	c.t.Helper()
	openssl(c.t, c.dir, append([]string{"ca", "-gencrl", "-config", config, "-out", "list.pem"}, more...)...)
	return []byte(get(c.t, c.dir, "list.pem"))
}

// Lists as openssl signs them are taken when they are complete and this CA's, and refused
// with what is wrong else.
func TestAForeignListIsBelievedOnlyWhenItIsCompleteAndTheCAsOwn(t *testing.T) {
	t.Parallel()
	c := newForeignCA(t)
	other := newForeignCA(t)
	now := time.Now()
	good := c.list("ca.cnf")
	block, _ := pem.Decode(good)
	for _, data := range [][]byte{good, block.Bytes, append([]byte("text before\n"), good...)} {
		list, err := pki.ParseForeignCRL(data, c.cert, now)
		if err != nil {
			t.Fatal(err)
		}
		var entries []string
		for e := range list.Entries {
			entries = append(entries, fmt.Sprint(e.Serial, " ", e.Reason))
		}
		if got, want := fmt.Sprint(list.Number, list.Len(), entries, len(list.Scope)), "7 2 [c 0 a0b 1] 0"; got != want {
			t.Errorf("number, entries, scope: got %s, want %s", got, want)
		}
		if list.NextUpdate.Sub(list.ThisUpdate) != 7*24*time.Hour {
			t.Errorf("from %s to %s, want a week", list.ThisUpdate, list.NextUpdate)
		}
	}
	users, err := pki.ParseForeignCRL(c.list("ca.cnf", "-crlexts", "users"), c.cert, now)
	if err != nil || !slices.Equal(users.Scope, []string{"http://pki.example.com/1.crl"}) {
		t.Errorf("a part of a divided list: got %+v, %v", users, err)
	}
	bent := slices.Clone(block.Bytes)
	bent[len(bent)-5] ^= 1
	for name, tt := range map[string]struct {
		data []byte
		at   time.Time
		want string
	}{
		"nothing":                 {nil, now, "no revocation list"},
		"garbage":                 {[]byte("garbage"), now, "no revocation list"},
		"a certificate":           {[]byte(get(t, c.dir, "ca.pem")), now, "no PEM block X509 CRL"},
		"two lists":               {append(slices.Clone(good), good...), now, "several lists"},
		"too much":                {make([]byte, pki.MaxForeignCRL+1), now, "at most"},
		"a bent signature":        {bent, now, "isn't of this CA's key"},
		"of a CA of equal name":   {other.list("ca.cnf"), now, "isn't of this CA's key"},
		"a delta":                 {c.list("ca.cnf", "-crlexts", "delta"), now, "delta list"},
		"an indirect one":         {c.list("ca.cnf", "-crlexts", "indirect"), now, "indirect"},
		"about some reasons":      {c.list("ca.cnf", "-crlexts", "reasons"), now, "some reasons"},
		"about CAs":               {c.list("ca.cnf", "-crlexts", "cas"), now, "CAs alone"},
		"with a strange demand":   {c.list("ca.cnf", "-crlexts", "critical"), now, "1.2.3.4"},
		"without a number":        {c.list("numberless.cnf", "-crlexts", "plain"), now, "no CRL number"},
		"of the future":           {good, now.Add(-time.Hour), "in the future"},
		"another CA's altogether": {good, now, "its issuer is"},
	} {
		ca := c.cert
		if name == "another CA's altogether" {
			a, _ := authority(t, pki.KeyP256)
			ca = a.Certificate()
		}
		_, err := pki.ParseForeignCRL(tt.data, ca, tt.at)
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want words %q", name, err, tt.want)
		}
	}
	_, err = pki.ParseForeignCRL(good, c.cert, now.Add(30*24*time.Hour))
	if err != nil {
		t.Errorf("a list past its next update tells what was revoked until then: got %v", err)
	}
}

func FuzzForeignCRL(f *testing.F) {
	signed := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	a, _ := authority(f, pki.KeyP256)
	der, err := a.SignCRL(f.Context(), pki.CRL{Number: 1, ThisUpdate: signed, NextUpdate: signed.Add(time.Hour), Entries: []imprint.RevokedSerial{{Serial: "0a", RevokedAt: signed}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := pki.ParseForeignCRL(data, a.Certificate(), signed)
		if err == nil && (list.Number == nil || list.NextUpdate.IsZero() || list.Len() != 1) {
			t.Errorf("got %+v of a list that nobody signed", list)
		}
	})
}
