package pki_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// TestParseSubjectReadsWhatOpensslWrites, and refuses what isn't a subject.
func TestParseSubjectReadsWhatOpensslWrites(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"/C=DE/O=Acme/CN=Acme root":        "CN=Acme root,O=Acme,C=DE",
		`/O=Acme\/Sons/CN=a\\b`:            `CN=a\\b,O=Acme/Sons`,
		"/CN=x/serialNumber=SN-1":          "SERIALNUMBER=SN-1,CN=x",
		"/CN=x/emailAddress=a@example.com": "1.2.840.113549.1.9.1=#0c0d61406578616d706c652e636f6d,CN=x",
		"/CN=a=b":                          "CN=a=b",
	} {
		der, err := pki.ParseSubject(text)
		if err != nil || pki.SubjectText(der) != want {
			t.Errorf("%s: got %q, %v, want %q", text, pki.SubjectText(der), err, want)
		}
	}
	for _, text := range []string{"", "CN=x", "/", "/CN", "/CN=", "/nonsense=x", "/CN=a\x00b", "/CN=\xff", "//CN=x"} {
		der, err := pki.ParseSubject(text)
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
			t.Errorf("%q: got %x, %v", text, der, err)
		}
	}
}

// TestARequestStaysWithinItsProfile in when its certificate begins, and within its CA.
func TestARequestStaysWithinItsProfile(t *testing.T) {
	t.Parallel()
	root := newRoot(t, pki.KeyP256)
	p := profile(t, pki.ProfileConfig{Name: "minute", Kind: pki.KindOperational, Backdate: time.Minute, Unlimited: true})
	request := func(edit func(*pki.Request)) pki.Request {
		r := pki.Request{PublicKey: newKey(t, pki.KeyP256).Public(), RawSubject: named(t, "CN=x"), NotAfter: start.Add(time.Hour)}
		edit(&r)
		return r
	}
	for name, r := range map[string]pki.Request{
		"it begins before the backdate":    request(func(r *pki.Request) { r.NotBefore = start.Add(-90 * time.Second) }),
		"it outlives the CA":               request(func(r *pki.Request) { r.NotAfter = start.AddDate(31, 0, 0) }),
		"it ends before it begins":         request(func(r *pki.Request) { r.NotBefore = start.Add(2 * time.Hour) }),
		"it has no end and the CA has one": request(func(r *pki.Request) { r.NotAfter = pki.NoExpiry() }),
	} {
		_, err := root.Prepare(t.Context(), tenant, p, r)
		if imprint.CodeOf(err) != imprint.CodeCertificateValidation {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, err := root.Prepare(t.Context(), tenant, p, request(func(r *pki.Request) { r.Algorithm = x509.ECDSAWithSHA512 }))
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
		t.Errorf("another algorithm than the authority's: got %v", err)
	}
	if len(root.journal.all) != 2 {
		t.Errorf("%d intents are recorded, want those of the root alone, before and after it was signed", len(root.journal.all))
	}
}

// TestProfilesTellTheirRules with the defaults that hold.
func TestProfilesTellTheirRules(t *testing.T) {
	t.Parallel()
	device := builtin(t, "device").Config()
	if device.CommonName != pki.DefaultCommonName || device.Backdate != pki.DefaultBackdate || device.NotAfter.Year() != 2049 || !device.AllowKeyReuse {
		t.Errorf("device: got %+v", device)
	}
	server := builtin(t, "server").Config()
	if !server.Names.DNS || !server.Names.IP || !server.Names.Required {
		t.Errorf("server: got %+v", server.Names)
	}
	if got := builtin(t, "idevid").Config().Subject.Required; len(got) != 1 || got[0] != "SERIALNUMBER" {
		t.Errorf("idevid requires %q", got)
	}
	_, err := pki.NewProfile(pki.ProfileConfig{Name: "x", Kind: pki.KindIntermediate, Lifetime: time.Hour, NoPathLength: true})
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
		t.Errorf("an intermediate without path length: got %v", err)
	}
}
