package keys_test

import (
	"crypto"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/keys"
)

const account = imprint.AccountID("000000000000")

func named(t *testing.T, trouble keys.Trouble, places ...keys.Place) *keys.Named {
	t.Helper()
	n, err := keys.NewNamed(newStore(t), trouble, places...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := n.Close()
		if err != nil {
			t.Error(err)
		}
	})
	return n
}

// TestANameReachesNothingElse: a name stands for a key in a place that was named, whatever
// it looks like.
func TestANameReachesNothingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/"
	n := named(t, nil,
		keys.Place{Name: "disk", Account: account, URI: parse(t, "file:"+dir)},
		keys.Place{Name: "hsm", Account: account, URI: parse(t, "pkcs11:token=x?module-path=/x.so")},
		keys.Place{Name: "tpm", Account: account, URI: parse(t, "tpm:")},
		keys.Place{Name: "cloud", Account: account, URI: parse(t, "awskms:region=eu-central-1")},
		keys.Place{Name: "theirs", Account: "111111111111", URI: parse(t, "tpm:")},
	)
	for _, good := range []string{"disk:a", "disk:A b._-9", "hsm:a", "hsm:a;id=%01%ff", "hsm:a;id=ab", "tpm:0x81000001", "cloud:a", "cloud:key;id=arn:aws:kms:eu-central-1:0:key/a"} {
		err := n.Check(account, good)
		if err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, code := range map[string]imprint.Code{
		"": imprint.CodeInvalidRequest, "disk": imprint.CodeInvalidRequest, "disk:": imprint.CodeInvalidRequest, "disk:../a": imprint.CodeInvalidRequest,
		"disk:.a": imprint.CodeInvalidRequest, "disk:a/b": imprint.CodeInvalidRequest, "disk:a;id=b": imprint.CodeInvalidRequest, "disk:a%2fb": imprint.CodeInvalidRequest,
		"disk:a\x00": imprint.CodeInvalidRequest, "none:a": imprint.CodeInvalidRequest, "file:" + dir + "a.sealed": imprint.CodeInvalidRequest,
		"hsm:a;object=b": imprint.CodeInvalidRequest, "hsm:a;id=": imprint.CodeInvalidRequest, "hsm:a;id=%0": imprint.CodeInvalidRequest, "hsm:a?module-path=/y": imprint.CodeInvalidRequest,
		"tpm:a": imprint.CodeInvalidRequest, "tpm:0x80000001": imprint.CodeInvalidRequest, "cloud:a b": imprint.CodeInvalidRequest, "cloud:a;id=%0a": imprint.CodeInvalidRequest,
		"theirs:0x81000001": imprint.CodeAccessDenied,
	} {
		err := n.Check(account, bad)
		if imprint.CodeOf(err) != code {
			t.Errorf("%q: got %v, want code %s", bad, err, code)
		}
	}
	for what, place := range map[string]keys.Place{
		"a capital":        {Name: "Hsm", URI: parse(t, "tpm:")},
		"a name of ours":   {Name: "sealed", URI: parse(t, "tpm:")},
		"no URI":           {Name: "hsm"},
		"a file":           {Name: "hsm", URI: parse(t, "file:/a.sealed")},
		"an object":        {Name: "hsm", URI: parse(t, "pkcs11:token=x;object=y?module-path=/x.so")},
		"a handle":         {Name: "hsm", URI: parse(t, "tpm:handle=0x81000001")},
		"a TPM's key file": {Name: "hsm", URI: parse(t, "tpm:file=/a.tss")},
		"a key of KMS":     {Name: "hsm", URI: parse(t, "awskms:key-id=alias/a")},
	} {
		_, err := keys.NewNamed(nil, nil, place)
		expect(t, err, imprint.CodeInvalidRequest)
		if err == nil {
			t.Errorf("%s is taken for a place", what)
		}
	}
}

// TestANamedKeySignsAndTellsNoPaths.
func TestANamedKeySignsAndTellsNoPaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/"
	var heard []string
	n := named(t, func(key string, err error) { heard = append(heard, key+" "+err.Error()) }, keys.Place{Name: "disk", Account: account, URI: parse(t, "file:"+dir)})
	_, err := n.Open(t.Context(), "disk:line")
	expect(t, err, imprint.CodeNotFound, "disk:line isn't there")
	_, err = n.Open(t.Context(), "before:line")
	expect(t, err, imprint.CodeKeyUnavailable, "no such key store", "--ca-key-store")
	made, name, err := n.Generate(t.Context(), "disk:line", keys.P256)
	if err != nil || name != "disk:line" {
		t.Fatalf("got %s, %v", name, err)
	}
	_, _, err = n.Generate(t.Context(), "disk:line", keys.P256)
	expect(t, err, imprint.CodeAlreadyExists, "disk:line is there already")
	if strings.Contains(err.Error()+imprint.HintOf(err), dir) || len(heard) != 2 || !strings.Contains(heard[1], dir) {
		t.Errorf("the caller is told %v; the operator %q", err, heard)
	}
	again, err := n.Open(t.Context(), name)
	if err != nil || again != made {
		t.Fatalf("it is opened twice, or not: %v", err)
	}
	digest := sha256.Sum256([]byte("x"))
	_, err = again.Sign(t.Context(), digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	found, err := n.List(t.Context(), account, "disk")
	if err != nil || len(found) != 1 || found[0].Name != name {
		t.Errorf("got %+v, %v", found, err)
	}
	_, err = n.List(t.Context(), "111111111111", "disk")
	expect(t, err, imprint.CodeNotFound)
	put(t, filepath.Join(dir, "bad.sealed"), []byte("garbage"))
	found, err = n.List(t.Context(), account, "disk")
	if err != nil || len(found) != 2 || found[0].Name != "" || found[0].Problem == "" || strings.Contains(found[0].Problem, dir) {
		t.Errorf("got %+v, %v", found, err)
	}
}

// TestAPINFromTheEnvironment: only from variables that no module gets.
func TestAPINFromTheEnvironment(t *testing.T) {
	h := newHSM(t)
	t.Setenv("IMPRINT_TEST_PIN", h.pin)
	uri := parse(t, strings.Replace(h.text("object=line"), "file:"+h.pinFile(), "env:IMPRINT_TEST_PIN", 1))
	if !strings.HasSuffix(uri.String(), "pin-source=env:IMPRINT_TEST_PIN") {
		t.Errorf("it is written %s", uri)
	}
	s := h.store()
	_, _, err := s.Generate(t.Context(), uri, keys.P256)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{"env:HSM_PIN", "env:IMPRINT_pin", "env:", "env:IMPRINT_%3D"} {
		_, err = keys.ParseURI(strings.Replace(h.text("object=line"), "file:"+h.pinFile(), wrong, 1))
		expect(t, err, imprint.CodeInvalidRequest, "IMPRINT_")
	}
	err = os.Unsetenv("IMPRINT_TEST_PIN")
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.store().Open(t.Context(), uri)
	expect(t, err, imprint.CodeKeyUnavailable, "IMPRINT_TEST_PIN", "isn't set")
}
