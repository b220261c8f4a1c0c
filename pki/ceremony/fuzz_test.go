package ceremony

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/imprint-iot/imprint/pki"
)

// FuzzParseShare: whatever is typed is a share, or an error that repeats none of it.
func FuzzParseShare(f *testing.F) {
	whole := share{set: [setSize]byte{1, 2, 3, 4}, threshold: 3, number: 2, value: bytes.Repeat([]byte{7}, 32)}.encode()
	f.Add(whole)
	f.Add(bytes.ToLower(whole))
	f.Add([]byte("IMPS-"))
	f.Add([]byte("imps oil0 1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		one, err := parseShare(text)
		if err != nil {
			return
		}
		again, err := parseShare(one.encode())
		if err != nil || again.set != one.set || again.number != one.number || again.threshold != one.threshold || !bytes.Equal(again.value, one.value) {
			t.Errorf("%q is %+v, and again %+v, %v", text, one, again, err)
		}
	})
}

// FuzzVerify: nothing that isn't a record verifies, or ends the program.
func FuzzVerify(f *testing.F) {
	f.Add([]byte("{}\n"))
	f.Add([]byte("{\"n\":1,\"step\":\"begin\",\"recorder\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"} AAAA\n"))
	f.Fuzz(func(t *testing.T, record []byte) {
		_, err := Verify(record, nil)
		if err == nil {
			t.Errorf("%q verifies", record)
		}
	})
}

// FuzzReadScript: a script is one, or has a fault.
func FuzzReadScript(f *testing.F) {
	profiles, err := pki.NewProfiles()
	if err != nil {
		f.Fatal(err)
	}
	f.Add("title = \"x\"\ndate = 2026-12-01\nperson = [{name = \"a\", role = \"b\"}, {name = \"c\", role = \"d\"}]\n[keys]\nshares = 2\nthreshold = 2\nholders = [\"a\", \"b\"]\n[[ca]]\nname = \"root\"\nsubject = \"/CN=x\"\nkey-kind = \"p256\"\n")
	f.Add("[[ca]]\n[[ca.revoked]]\nserial = 1\n")
	f.Add("ca = [{name = \"x\"}]\n")
	f.Add("a.b.c = {d = [1, {e = 2}]}")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "root.toml")
		err := os.WriteFile(path, []byte(text), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = ReadScript(path, profiles) // that it returns is what is tested
	})
}
