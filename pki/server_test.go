package pki_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

func names(t testing.TB, list ...string) pki.Names {
	t.Helper()
	n, err := pki.NewNames(list...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func ensure(t testing.TB, dir string, n pki.Names, now time.Time) *pki.ServerIdentity {
	t.Helper()
	s, err := pki.EnsureServer(t.Context(), dir, sealer(t, 1), n, at(now))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFirstStartMakesAServerThatOpenSSLVerifies(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data", "keys")
	s := ensure(t, dir, names(t, "*.iot.us-east-1.example.com", "Imprint.Example.com.", "192.0.2.7"), start)
	if s.RootPath != filepath.Join(dir, "server-root.pem") || !strings.HasPrefix(s.Root.Subject.CommonName, "Imprint server root ") {
		t.Errorf("root: got %s at %s", s.Root.Subject, s.RootPath)
	}
	if got, want := s.Root.NotAfter, start.AddDate(20, 0, 0); !got.Equal(want) {
		t.Errorf("root's end: got %v, want %v", got, want)
	}
	for _, c := range s.Certificates() {
		leaf := c.Leaf
		if got := leaf.NotAfter.Sub(leaf.NotBefore); got > 397*24*time.Hour || !leaf.NotBefore.Before(start) {
			t.Errorf("lifetime: got %v from %v, want at most 397 days from before %v", got, leaf.NotBefore, start)
		}
		want := []string{"*.iot.us-east-1.example.com", "imprint.example.com", "localhost"}
		if diff := cmp.Diff(leaf.DNSNames, want); diff != "" {
			t.Errorf("host names (-got +want):\n%s", diff)
		}
		if diff := cmp.Diff(fmt.Sprint(leaf.IPAddresses), "[127.0.0.1 192.0.2.7 ::1]"); diff != "" {
			t.Errorf("addresses (-got +want):\n%s", diff)
		}
		if len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
			t.Errorf("extended key usage: got %v, want serverAuth", leaf.ExtKeyUsage)
		}
	}
	if _, ok := s.ECDSA.PrivateKey.(*ecdsa.PrivateKey); !ok {
		t.Errorf("ECDSA key: got %T", s.ECDSA.PrivateKey)
	}
	if k, ok := s.RSA.PrivateKey.(*rsa.PrivateKey); !ok || k.N.BitLen() != 2048 {
		t.Errorf("RSA key: got %T", s.RSA.PrivateKey)
	}
	tmp := t.TempDir()
	put(t, tmp, "e.pem", pki.EncodeCertificatePEM(s.ECDSA.Leaf.Raw))
	put(t, tmp, "r.pem", pki.EncodeCertificatePEM(s.RSA.Leaf.Raw))
	for _, name := range []string{"localhost", "abc-ats.iot.us-east-1.example.com", "imprint.example.com"} {
		openssl(t, tmp, "verify", "-x509_strict", "-purpose", "sslserver", "-attime", "1772366400", "-verify_hostname", name, "-CAfile", s.RootPath, "e.pem", "r.pem")
	}
	openssl(t, tmp, "verify", "-attime", "1772366400", "-verify_ip", "::1", "-CAfile", s.RootPath, "e.pem", "r.pem")
}

func TestFilesHoldNoKeyInTheClear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ensure(t, dir, names(t), start)
	for name, mode := range map[string]fs.FileMode{"server-root.sealed": 0o600, "server-ecdsa.sealed": 0o600, "server-rsa.sealed": 0o600, "server-root.pem": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != mode {
			t.Errorf("%s: got mode %v, want %v", name, got, mode)
		}
		if strings.Contains(get(t, dir, name), "PRIVATE") {
			t.Errorf("%s shows a private key", name)
		}
	}
}

func TestBothCertificatesServeTLS(t *testing.T) {
	t.Parallel()
	s := ensure(t, t.TempDir(), names(t), start)
	roots := x509.NewCertPool()
	roots.AddCert(s.Root)
	tests := map[string]uint16{"ECDSA": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "RSA": tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for name, suite := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := net.Pipe()
			defer func() { _ = near.Close() }()
			server := tls.Server(far, &tls.Config{Certificates: s.Certificates(), Time: at(start)})
			go func() { _ = server.Handshake() }()
			client := tls.Client(near, &tls.Config{RootCAs: roots, ServerName: "localhost", MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}, Time: at(start)})
			err := client.HandshakeContext(t.Context())
			if err != nil {
				t.Errorf("handshake: %v", err)
			}
		})
	}
}

func TestCertificatesAreKeptUntilTheyMustChange(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	plain := names(t, "a.example.com", "b.example.com")
	tests := []struct {
		name  string
		names pki.Names
		now   time.Time
		kept  bool
	}{
		{"at the next start", plain, start, true},
		{"names in another order", names(t, "B.example.com", "a.example.com", "localhost", "::1"), start.Add(day), true},
		{"with more than a third left", plain, start.Add(263 * day), true},
		{"with the clock before the root", plain, start.Add(-100 * day), true},
		{"with less than a third left", plain, start.Add(265 * day), false},
		{"after the end", plain, start.Add(400 * day), false},
		{"one name more", names(t, "a.example.com", "b.example.com", "c.example.com"), start, false},
		{"one name less", names(t, "a.example.com"), start, false},
		{"one address more", names(t, "a.example.com", "b.example.com", "192.0.2.1"), start, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			first := ensure(t, dir, plain, start)
			second := ensure(t, dir, tt.names, tt.now)
			if !first.Root.Equal(second.Root) {
				t.Error("the root changed")
			}
			if got := first.ECDSA.Leaf.Equal(second.ECDSA.Leaf) && first.RSA.Leaf.Equal(second.RSA.Leaf); got != tt.kept {
				t.Errorf("kept: got %v, want %v", got, tt.kept)
			}
			if !tt.kept && !second.RenewAt.After(tt.now) {
				t.Errorf("RenewAt: got %v, want after %v", second.RenewAt, tt.now)
			}
			third := ensure(t, dir, tt.names, tt.now)
			if !third.ECDSA.Leaf.Equal(second.ECDSA.Leaf) {
				t.Error("a third call changed the certificate again")
			}
		})
	}
}

func TestServerRefusalsHaveHints(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		damage func(dir string) error
		fill   byte
		now    time.Time
		hint   string
	}{
		{"other master key", func(string) error { return nil }, 2, start, "master key that belongs"},
		{"root's key gone", func(dir string) error { return os.Remove(filepath.Join(dir, "server-root.sealed")) }, 1, start, "Restore"},
		{"root's key damaged", func(dir string) error {
			return os.Truncate(filepath.Join(dir, "server-root.sealed"), 200)
		}, 1, start, "backup"},
		{"another's file over the root", func(dir string) error {
			return os.Rename(filepath.Join(dir, "server-rsa.sealed"), filepath.Join(dir, "server-root.sealed"))
		}, 1, start, "from one place to another"},
		{"root expired", func(string) error { return nil }, 1, start.AddDate(21, 0, 0), "Check the server's clock"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			ensure(t, dir, names(t), start)
			err := tt.damage(dir)
			if err != nil {
				t.Fatal(err)
			}
			_, err = pki.EnsureServer(t.Context(), dir, sealer(t, tt.fill), names(t), at(tt.now))
			if got := imprint.HintOf(err); err == nil || !strings.Contains(got, tt.hint) {
				t.Errorf("got %v with hint %q, want %q in it", err, got, tt.hint)
			}
		})
	}
}

func TestDamagedServerCertificateIsMadeAnew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := ensure(t, dir, names(t), start)
	put(t, dir, "server-ecdsa.sealed", "nonsense")
	put(t, dir, "server-root.pem", "nonsense")
	second := ensure(t, dir, names(t), start)
	if !first.Root.Equal(second.Root) || !first.RSA.Leaf.Equal(second.RSA.Leaf) {
		t.Error("more changed than what was damaged")
	}
	if first.ECDSA.Leaf.Equal(second.ECDSA.Leaf) {
		t.Error("the damaged certificate is still there")
	}
	if got, want := get(t, dir, "server-root.pem"), pki.EncodeCertificatePEM(first.Root.Raw); got != want {
		t.Errorf("server-root.pem: got %q, want the root", got)
	}
}

// Every write, at which the process dies: before anything is written, or after
// the file is in place. The next start must continue, with the root that was
// there, and the one after must change nothing.
func TestEnsureServerSurvivesDeathAtEveryWrite(t *testing.T) {
	t.Parallel()
	died := errors.New("killed")
	for _, persisted := range []bool{false, true} {
		for step := 1; ; step++ {
			if survived := dieAt(t, died, step, persisted); survived {
				if want := 5; step != want {
					t.Errorf("persisted %v: got %d writes, want %d", persisted, step-1, want-1)
				}
				break
			}
		}
	}
}

func dieAt(t *testing.T, died error, step int, persisted bool) (survived bool) {
	t.Helper()
	dir := t.TempDir()
	write, create := pki.DurableWrites()
	count := 0
	killing := func(next pki.WriteFunc) pki.WriteFunc {
		return func(path string, data []byte, perm fs.FileMode) error {
			count++
			if count == step && persisted {
				return errors.Join(died, next(path, data, perm))
			}
			if count >= step {
				return died
			}
			return next(path, data, perm)
		}
	}
	_, err := pki.EnsureServerWith(t.Context(), dir, sealer(t, 1), names(t), at(start), killing(write), killing(create))
	if err == nil {
		return true
	}
	if !errors.Is(err, died) {
		t.Fatalf("step %d: got %v, want %v", step, err, died)
	}
	root, rootErr := os.ReadFile(filepath.Join(dir, "server-root.pem"))
	again := ensure(t, dir, names(t), start)
	if rootErr == nil && string(root) != pki.EncodeCertificatePEM(again.Root.Raw) {
		t.Errorf("step %d, persisted %v: a published root was replaced", step, persisted)
	}
	third := ensure(t, dir, names(t), start)
	if !third.ECDSA.Leaf.Equal(again.ECDSA.Leaf) || !third.RSA.Leaf.Equal(again.RSA.Leaf) || !third.Root.Equal(again.Root) {
		t.Errorf("step %d, persisted %v: the start after changed something", step, persisted)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(entries), 4; got != want {
		t.Errorf("step %d, persisted %v: got %d files, want %d", step, persisted, got, want)
	}
	return false
}

func TestDeviceAuthoritySurvivesDeathAtEveryWrite(t *testing.T) {
	t.Parallel()
	died := errors.New("killed")
	write, create := pki.DurableWrites()
	for _, persisted := range []bool{false, true} {
		for step := 1; step <= 2; step++ {
			dir := t.TempDir()
			count := 0
			killing := func(next pki.WriteFunc) pki.WriteFunc {
				return func(path string, data []byte, perm fs.FileMode) error {
					count++
					if count != step {
						return next(path, data, perm)
					}
					if persisted {
						return errors.Join(died, next(path, data, perm))
					}
					return died
				}
			}
			config := pki.AuthorityConfig{Sealer: sealer(t, 1), Journal: &memory{}, Clock: at(start), Key: pki.KeyP256}
			_, err := pki.OpenAuthorityWith(t.Context(), dir, config, killing(write), killing(create))
			if !errors.Is(err, died) {
				t.Fatalf("step %d: got %v, want %v", step, err, died)
			}
			sealed, _ := os.ReadFile(filepath.Join(dir, "device-ca.sealed"))
			a, err := pki.OpenAuthority(t.Context(), dir, config)
			if err != nil {
				t.Fatal(err)
			}
			if len(sealed) > 0 && string(sealed) != get(t, dir, "device-ca.sealed") {
				t.Errorf("step %d, persisted %v: the CA was replaced", step, persisted)
			}
			if got, want := get(t, dir, "device-ca.pem"), pki.EncodeCertificatePEM(a.Certificate().Raw); got != want {
				t.Errorf("step %d, persisted %v: device-ca.pem isn't the CA", step, persisted)
			}
		}
	}
}

// Of two processes that start at once, the second finds the first's CA.
func TestASecondStarterTakesTheFirstOnesRoot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write, create := pki.DurableWrites()
	var first *pki.ServerIdentity
	late := func(path string, data []byte, perm fs.FileMode) error {
		if first == nil {
			first = ensure(t, dir, names(t), start)
		}
		return create(path, data, perm)
	}
	second, err := pki.EnsureServerWith(t.Context(), dir, sealer(t, 1), names(t), at(start), write, late)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Root.Raw, second.Root.Raw) {
		t.Error("the two have different roots")
	}
}

func TestEnsureServerStopsWhenAsked(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := pki.EnsureServer(ctx, t.TempDir(), sealer(t, 1), names(t), at(start))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestNewNamesRefuses(t *testing.T) {
	t.Parallel()
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("h%d.example.com", i))
	}
	tests := map[string][]string{
		"empty": {""}, "wildcard alone": {"*"}, "wildcard inside": {"a.*.example.com"}, "half a wildcard": {"a*.example.com"},
		"space": {"a b"}, "URL": {"https://example.com"}, "port": {"example.com:8883"}, "hyphen first": {"-a.example.com"},
		"empty label": {"a..example.com"}, "long label": {strings.Repeat("a", 64)}, "long name": {strings.Repeat("a.", 127) + "com"},
		"not ASCII": {"köln.example.com"}, "zone": {"fe80::1%eth0"}, "too many": many,
	}
	for name, list := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := pki.NewNames(list...)
			if got, want := imprint.CodeOf(err), imprint.CodeInvalidRequest; got != want {
				t.Errorf("got %q (%v), want %q", got, err, want)
			}
		})
	}
}
