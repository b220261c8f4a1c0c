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
	"regexp"
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

// copied gives another directory with the same files: making RSA keys takes time.
func copied(t *testing.T, dir string) string {
	t.Helper()
	other := t.TempDir()
	err := os.CopyFS(other, os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	return other
}

func TestFirstStartMakesAServerThatOpenSSLVerifies(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data", "keys")
	s := ensure(t, dir, names(t, "*.iot.us-east-1.example.com", "Imprint.Example.com.", "192.0.2.7"), start)
	if got, want := s.RootPath, filepath.Join(dir, "server-roots.pem"); got != want {
		t.Errorf("roots: got %s, want %s", got, want)
	}
	for _, root := range []*x509.Certificate{s.Root, s.RSARoot} {
		if got, want := root.NotAfter, start.AddDate(20, 0, 0); !got.Equal(want) {
			t.Errorf("end of %s: got %v, want %v", root.Subject, got, want)
		}
	}
	if got := s.Root.Subject.CommonName; !regexp.MustCompile("^Imprint server root [0-9a-f]{8}$").MatchString(got) {
		t.Errorf("name of the P-256 root: got %q", got)
	}
	if got := s.RSARoot.Subject.CommonName; !regexp.MustCompile("^Imprint server root RSA [0-9a-f]{8}$").MatchString(got) {
		t.Errorf("name of the RSA root: got %q", got)
	}
	if k, ok := s.RSARoot.PublicKey.(*rsa.PublicKey); !ok || k.N.BitLen() != 2048 {
		t.Errorf("key of the RSA root: got %T", s.RSARoot.PublicKey)
	}
	checkServer(t, dir, s)
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
	// The one root that fits is enough.
	openssl(t, tmp, "verify", "-x509_strict", "-attime", "1772366400", "-CAfile", filepath.Join(dir, "server-root.pem"), "e.pem")
	openssl(t, tmp, "verify", "-x509_strict", "-attime", "1772366400", "-CAfile", filepath.Join(dir, "server-root-rsa.pem"), "r.pem")
}

// checkServer says what holds after every start: each certificate is signed by
// the root of its own kind, and the files in the clear hold just these roots.
func checkServer(t *testing.T, dir string, s *pki.ServerIdentity) {
	t.Helper()
	if got, want := s.ECDSA.Leaf.SignatureAlgorithm, x509.ECDSAWithSHA256; got != want {
		t.Errorf("signature on the ECDSA certificate: got %v, want %v", got, want)
	}
	if got, want := s.RSA.Leaf.SignatureAlgorithm, x509.SHA256WithRSA; got != want {
		t.Errorf("signature on the RSA certificate: got %v, want %v", got, want)
	}
	err := errors.Join(s.ECDSA.Leaf.CheckSignatureFrom(s.Root), s.RSA.Leaf.CheckSignatureFrom(s.RSARoot))
	if err != nil {
		t.Error(err)
	}
	root, rsaRoot := pki.EncodeCertificatePEM(s.Root.Raw), pki.EncodeCertificatePEM(s.RSARoot.Raw)
	for name, want := range map[string]string{"server-root.pem": root, "server-root-rsa.pem": rsaRoot, "server-roots.pem": root + rsaRoot} {
		if diff := cmp.Diff(get(t, dir, name), want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", name, diff)
		}
	}
}

func TestFilesHoldNoKeyInTheClear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ensure(t, dir, names(t), start)
	for name, mode := range map[string]fs.FileMode{
		"server-root.sealed": 0o600, "server-root-rsa.sealed": 0o600, "server-ecdsa.sealed": 0o600, "server-rsa.sealed": 0o600,
		"server-root.pem": 0o644, "server-root-rsa.pem": 0o644, "server-roots.pem": 0o644,
	} {
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
	tests := []struct {
		name  string
		suite uint16
		trust []*x509.Certificate
	}{
		{"ECDSA with the P-256 root", tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, []*x509.Certificate{s.Root}},
		{"RSA with the RSA root", tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, []*x509.Certificate{s.RSARoot}},
		{"ECDSA with both", tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, []*x509.Certificate{s.Root, s.RSARoot}},
		{"RSA with both", tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, []*x509.Certificate{s.Root, s.RSARoot}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			roots := x509.NewCertPool()
			for _, root := range tt.trust {
				roots.AddCert(root)
			}
			near, far := net.Pipe()
			defer func() { _ = near.Close() }()
			server := tls.Server(far, &tls.Config{Certificates: s.Certificates(), Time: at(start)})
			go func() { _ = server.Handshake() }()
			client := tls.Client(near, &tls.Config{RootCAs: roots, ServerName: "localhost", MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tt.suite}, Time: at(start)})
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
	made := t.TempDir()
	first := ensure(t, made, plain, start)
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
			dir := copied(t, made)
			second := ensure(t, dir, tt.names, tt.now)
			if !first.Root.Equal(second.Root) || !first.RSARoot.Equal(second.RSARoot) {
				t.Error("a root changed")
			}
			if got := first.ECDSA.Leaf.Equal(second.ECDSA.Leaf) && first.RSA.Leaf.Equal(second.RSA.Leaf); got != tt.kept {
				t.Errorf("kept: got %v, want %v", got, tt.kept)
			}
			if !tt.kept && !second.RenewAt.After(tt.now) {
				t.Errorf("RenewAt: got %v, want after %v", second.RenewAt, tt.now)
			}
			third := ensure(t, dir, tt.names, tt.now)
			if !third.ECDSA.Leaf.Equal(second.ECDSA.Leaf) || !third.RSA.Leaf.Equal(second.RSA.Leaf) {
				t.Error("a third call changed a certificate again")
			}
		})
	}
}

func TestServerRefusalsHaveHints(t *testing.T) {
	t.Parallel()
	made := t.TempDir()
	ensure(t, made, names(t), start)
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
		{"RSA root's key gone", func(dir string) error { return os.Remove(filepath.Join(dir, "server-root-rsa.sealed")) }, 1, start, "Restore"},
		{"RSA root's key damaged", func(dir string) error {
			return os.Truncate(filepath.Join(dir, "server-root-rsa.sealed"), 200)
		}, 1, start, "backup"},
		{"another's file over the RSA root", func(dir string) error {
			return os.Rename(filepath.Join(dir, "server-root.sealed"), filepath.Join(dir, "server-root-rsa.sealed"))
		}, 1, start, "Restore"},
		{"a leaf's file over the RSA root", func(dir string) error {
			return os.Rename(filepath.Join(dir, "server-rsa.sealed"), filepath.Join(dir, "server-root-rsa.sealed"))
		}, 1, start, "from one place to another"},
		{"RSA root alone expired", func(dir string) error {
			for _, name := range []string{"server-root.sealed", "server-root.pem"} {
				err := os.Remove(filepath.Join(dir, name))
				if err != nil {
					return err
				}
			}
			return nil
		}, 1, start.AddDate(21, 0, 0), "server-root-rsa.pem"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := copied(t, made)
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
	checkServer(t, dir, second)
}

func TestRootFilesThatAreWrongAreWrittenAnewAndNoOther(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := ensure(t, dir, names(t), start)
	root, rsaRoot := pki.EncodeCertificatePEM(first.Root.Raw), pki.EncodeCertificatePEM(first.RSARoot.Raw)
	tests := []struct {
		name, file string
		content    string // empty: the file is missing
		want       []string
	}{
		{"all as it was left", "server-roots.pem", root + rsaRoot, nil},
		{"bundle missing", "server-roots.pem", "", []string{"server-roots.pem"}},
		{"bundle with the P-256 root alone", "server-roots.pem", root, []string{"server-roots.pem"}},
		{"bundle in the wrong order", "server-roots.pem", rsaRoot + root, []string{"server-roots.pem"}},
		{"bundle cut off", "server-roots.pem", root + rsaRoot[:len(rsaRoot)-1], []string{"server-roots.pem"}},
		{"bundle with something behind", "server-roots.pem", root + rsaRoot + root, []string{"server-roots.pem"}},
		{"P-256 root missing", "server-root.pem", "", []string{"server-root.pem"}},
		{"RSA root missing", "server-root-rsa.pem", "", []string{"server-root-rsa.pem"}},
		{"RSA root's file with the other root", "server-root-rsa.pem", root, []string{"server-root-rsa.pem"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			put(t, dir, tt.file, tt.content)
			if tt.content == "" {
				err := os.Remove(filepath.Join(dir, tt.file))
				if err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			write, create := pki.DurableWrites()
			noting := func(next pki.WriteFunc) pki.WriteFunc {
				return func(path string, data []byte, perm fs.FileMode) error {
					got = append(got, filepath.Base(path))
					return next(path, data, perm)
				}
			}
			s, err := pki.EnsureServerWith(t.Context(), dir, sealer(t, 1), names(t), at(start), noting(write), noting(create))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("files written (-got +want):\n%s", diff)
			}
			checkServer(t, dir, s)
		})
	}
}

// oneRoot gives a directory from when the P-256 root signed both certificates,
// and its files by name.
func oneRoot(t *testing.T) (dir string, files map[string]string) {
	t.Helper()
	dir = t.TempDir()
	err := pki.WriteServerOfOneRoot(dir, sealer(t, 1), names(t), start)
	if err != nil {
		t.Fatal(err)
	}
	files = make(map[string]string)
	for _, name := range []string{"server-root.sealed", "server-root.pem", "server-ecdsa.sealed", "server-rsa.sealed"} {
		files[name] = get(t, dir, name)
	}
	return dir, files
}

func TestADirectoryOfOneRootGetsTheSecondAndKeepsTheFirst(t *testing.T) {
	t.Parallel()
	dir, before := oneRoot(t)
	s := ensure(t, dir, names(t), start.Add(24*time.Hour))
	checkServer(t, dir, s)
	for name, text := range before {
		if got, want := get(t, dir, name) == text, name != "server-rsa.sealed"; got != want {
			t.Errorf("%s kept: got %v, want %v", name, got, want)
		}
	}
	again := ensure(t, dir, names(t), start.Add(24*time.Hour))
	if !again.RSA.Leaf.Equal(s.RSA.Leaf) || !again.RSARoot.Equal(s.RSARoot) {
		t.Error("the start after changed something")
	}
}

// Every write, at which the process dies: before anything is written, or after
// the file is in place. The next start must continue, with the roots that were
// there, and the one after must change nothing. The first start is one such run,
// and so is the one that finds the files of a time with one root.
func TestEnsureServerSurvivesDeathAtEveryWrite(t *testing.T) {
	t.Parallel()
	_, old := oneRoot(t)
	tests := []struct {
		name   string
		before map[string]string
		writes int
	}{
		{"first start", nil, 7},
		{"upgrade from one root", old, 4},
	}
	for _, tt := range tests {
		for _, persisted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, persisted %v", tt.name, persisted), func(t *testing.T) {
				t.Parallel()
				step := 1
				for !dieAt(t, tt.before, step, persisted) {
					step++
				}
				if got := step - 1; got != tt.writes {
					t.Errorf("got %d writes, want %d", got, tt.writes)
				}
			})
		}
	}
}

func dieAt(t *testing.T, before map[string]string, step int, persisted bool) (survived bool) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range before {
		put(t, dir, name, text)
	}
	died := errors.New("killed")
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
	// What others may rely on from the moment that it is there.
	kept := make(map[string][]byte)
	for _, name := range []string{"server-root.sealed", "server-root.pem", "server-root-rsa.sealed", "server-root-rsa.pem", "server-roots.pem", "server-ecdsa.sealed"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			kept[name] = text
		}
	}
	leaf, err := os.ReadFile(filepath.Join(dir, "server-rsa.sealed"))
	if err == nil && string(leaf) != before["server-rsa.sealed"] && kept["server-roots.pem"] == nil {
		t.Errorf("step %d: the RSA certificate is there before the bundle with its root", step)
	}
	again := ensure(t, dir, names(t), start)
	for name, text := range kept {
		if get(t, dir, name) != string(text) {
			t.Errorf("step %d: %s was replaced", step, name)
		}
	}
	checkServer(t, dir, again)
	third := ensure(t, dir, names(t), start)
	if !third.ECDSA.Leaf.Equal(again.ECDSA.Leaf) || !third.RSA.Leaf.Equal(again.RSA.Leaf) || !third.Root.Equal(again.Root) || !third.RSARoot.Equal(again.RSARoot) {
		t.Errorf("step %d: the start after changed something", step)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(entries), 7; got != want {
		t.Errorf("step %d: got %d files, want %d", step, got, want)
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
	if !bytes.Equal(first.Root.Raw, second.Root.Raw) || !bytes.Equal(first.RSARoot.Raw, second.RSARoot.Raw) {
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
