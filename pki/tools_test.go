package pki_test

import (
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

type bigInt = big.Int

func newBig(n int64) *big.Int { return big.NewInt(n) }

func csrPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// openssl runs the tool in a directory and gives its output. Without the tool
// the test is skipped, except under CI, where it fails.
func openssl(t *testing.T, dir string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("CI") == "true" || os.Getenv("IMPRINT_CI") == "1" {
			t.Fatal("openssl isn't installed")
		}
		t.Skip("openssl isn't installed")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
	if err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
