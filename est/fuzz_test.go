package est_test

import (
	"crypto/x509/pkix"
	"encoding/base64"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/est"
)

// FuzzRequest ensures that whatever comes as a body is read as a request whose signature is
// right, or refused with a code of its own.
func FuzzRequest(f *testing.F) {
	t := &testing.T{}
	key := newKey(t)
	der := csr(t, key, pkix.Name{CommonName: "x", SerialNumber: "1"}, "x.example.com")
	bound := challenged(t, key, name("x"), "secret")
	for _, seed := range [][]byte{der, bound, []byte(base64.StdEncoding.EncodeToString(der)), []byte("-----BEGIN CERTIFICATE REQUEST-----\n"), []byte("MA=="), {0x30}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		csr, err := est.Read(text)
		if err == nil && csr.CheckSignature() != nil {
			t.Error("a request with a wrong signature was read")
		}
		if imprint.CodeOf(err) == imprint.CodeInternal {
			t.Errorf("a refusal without a code: %v", err)
		}
	})
}
