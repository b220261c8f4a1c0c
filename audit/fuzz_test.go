package audit_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/imprint-iot/imprint/audit"
)

// Whatever a file holds, it has lists or is refused.
func FuzzRevocationListFiles(f *testing.F) {
	ca := newAuthority(f, "Line", nil)
	dir := f.TempDir()
	revoke(f, dir, "seed.pem", ca, true, nextSerial())
	revoke(f, dir, "seed.crl", ca, false)
	for _, name := range []string{"seed.pem", "seed.crl"} {
		seed, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Add([]byte("-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "list")
		err := os.WriteFile(file, data, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		n, err := audit.ReadLists(file)
		if n == 0 && err == nil {
			t.Error("a file without a list is taken")
		}
	})
}
