package keys_test

import (
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/keys"
)

const query = "?module-path=/m.so"

// Valid URIs have one canonical form, in which nothing is lost.
func TestURIsAreReadAndWritten(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"file:/a/b.sealed":       "file:/a/b.sealed",
		"FILE:///a//b.sealed":    "file:/a/b.sealed",
		"file:/a/../c.sealed":    "file:/c.sealed",
		"file:/a%20b/c%3F/":      "file:/a%20b/c%3F/",
		"pkcs11:token=a" + query: "pkcs11:token=a?module-path=/m.so",
		"pkcs11:object=r%20s;id=%00%fF;token=My+Token;type=private?pin-source=/p%20n&module-path=/x/../m.so":      "pkcs11:token=My%2BToken;object=r%20s;id=%00%FF?module-path=/m.so&pin-source=file:/p%20n",
		"pkcs11:slot-id=007;serial=1;model=2;manufacturer=3;object=%C3%A4?module-path=/m.so&pin-source=file:///p": "pkcs11:manufacturer=3;model=2;serial=1;slot-id=7;object=%C3%A4?module-path=/m.so&pin-source=file:/p",
		"tpm:": "tpm:",
		"tpm:handle=0x81ABCDEF?device=/dev/tpmrm0":                    "",
		"tpm:handle=0x8100ABCD?device=/dev/tpmrm0":                    "tpm:handle=0x8100abcd",
		"tpm:file=/k.tss?device=unix:/run/s&auth-source=file:/a":      "tpm:file=/k.tss?device=unix:/run/s&auth-source=file:/a",
		"awskms:key-id=alias/x;region=eu-central-1":                   "awskms:key-id=alias/x;region=eu-central-1",
		"awskms:key-id=arn:aws:kms:eu-central-1:123456789012:key/1-2": "awskms:key-id=arn:aws:kms:eu-central-1:123456789012:key/1-2",
		"awskms:?endpoint=http://127.0.0.1:1":                         "awskms:?endpoint=http://127.0.0.1:1",
	} {
		uri, err := keys.ParseURI(text)
		if want == "" {
			expect(t, err, imprint.CodeInvalidRequest)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := uri.String(); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
		if uri.Scheme() != want[:strings.Index(want, ":")] {
			t.Errorf("%s: scheme %q", text, uri.Scheme())
		}
	}
}

// What is wrong with a URI is said, with a hint, and a PIN in it is refused and not
// repeated.
func TestGarbageURIsAreRefused(t *testing.T) {
	t.Parallel()
	for text, word := range map[string]string{
		"":                               "no scheme",
		"pkcs11":                         "no scheme",
		"vault:x":                        "scheme isn't",
		"file:a.sealed":                  "isn't absolute",
		"file:":                          "isn't absolute",
		"file://host/a.sealed":           "host",
		"file:/a.pem":                    ".sealed",
		"file:/.sealed":                  ".sealed",
		"file:/a%00.sealed":              "bytes",
		"file:/a%zz.sealed":              "percent-encoded",
		"file:/a.sealed?x=y":             "query",
		"file:/a b.sealed":               "printable",
		"file:/\u00e4.sealed":            "printable",
		"pkcs11:":                        "names no token",
		"pkcs11:object=x":                "names no token",
		"pkcs11:token=x":                 "module-path",
		"pkcs11:token=" + query:          "empty",
		"pkcs11:token" + query:           "no value",
		"pkcs11:token=a;token=b" + query: "twice",
		"pkcs11:token=a;;" + query:       "isn't known",
		"pkcs11:token=a;library-version=3" + query:                "library-version that isn't known",
		"pkcs11:token=a;type=cert" + query:                        "private",
		"pkcs11:token=a;slot-id=x" + query:                        "number",
		"pkcs11:token=a;slot-id=99999999999" + query:              "number",
		"pkcs11:token=" + strings.Repeat("a", 33) + query:         "longer than 32",
		"pkcs11:token=a%20" + query:                               "space",
		"pkcs11:token=a;object=%ff" + query:                       "UTF-8",
		"pkcs11:token=a;object=%" + query:                         "percent-encoded",
		"pkcs11:token=a;id=" + strings.Repeat("%01", 256) + query: "longer than 255",
		"pkcs11:token=a?module-path=m.so":                         "whole path",
		"pkcs11:token=a?module-path=/m/":                          "whole path",
		"pkcs11:token=a" + query + "&module-name=m":               "module-name that isn't known",
		"pkcs11:token=a" + query + "&pin-value=4711":              "it has a pin-value",
		"pkcs11:token=a;pin-value=4711" + query:                   "it has a pin-value",
		"pkcs11:token=a" + query + "&pin-value:4711":              "isn't known",
		"pkcs11:token=a" + query + "&pin=4711":                    "pin that isn't known",
		"pkcs11:token=a" + query + "&pin-source=|echo%204711":     "command",
		"pkcs11:token=a" + query + "&pin-source=4711":             "whole path",
		"tpm:handle=0x81000000;file=/x":                           "both",
		"tpm:handle=81000000":                                     "handle",
		"tpm:handle=0x80000000":                                   "handle",
		"tpm:handle=0x181000000":                                  "handle",
		"tpm:file=x":                                              "whole path",
		"tpm:?device=tcp:x":                                       "device",
		"tpm:?device=/":                                           "device",
		"tpm:?auth-source=x":                                      "auth-source",
		"awskms:key-id=a%20b":                                     "character",
		"awskms:?endpoint=http://example.com":                     "another machine",
		"awskms:?endpoint=ftp://example.com":                      "endpoint",
		"awskms:?endpoint=https://u:4711@example.com":             "endpoint",
		"awskms:?access-key=4711":                                 "access-key that isn't known",
		strings.Repeat("a", 5000):                                 "longer than",
	} {
		_, err := keys.ParseURI(text)
		expect(t, err, imprint.CodeInvalidRequest, word)
		if err == nil {
			t.Errorf("%q was accepted", text)
			continue
		}
		if all := err.Error() + imprint.HintOf(err); strings.Contains(all, "4711") {
			t.Errorf("%q: the error repeats the PIN: %s", text, all)
		}
		if imprint.HintOf(err) == "" {
			t.Errorf("%q: no hint", text)
		}
	}
}

// Whatever is accepted has a canonical form that reads back to the same URI.
func FuzzParseURI(f *testing.F) {
	for _, seed := range []string{
		"file:/a/b.sealed", "pkcs11:token=a;object=b;id=%01;type=private?module-path=/m.so&pin-source=file:/p", "tpm:handle=0x81008001?device=unix:/s",
		"tpm:file=/k?auth-source=/a", "awskms:key-id=alias/a;region=r?endpoint=https://h/p%25", "pkcs11:?pin-value=1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		uri, err := keys.ParseURI(text)
		if err != nil {
			if imprint.CodeOf(err) != imprint.CodeInvalidRequest || imprint.HintOf(err) == "" {
				t.Errorf("%q: got %v, want CodeInvalidRequest with a hint", text, err)
			}
			return
		}
		again, err := keys.ParseURI(uri.String())
		if err != nil || again != uri {
			t.Errorf("%q became %q, which reads as %q, %v", text, uri, again, err)
		}
		if uri == (keys.URI{}) {
			t.Errorf("%q is the zero URI", text)
		}
	})
}
