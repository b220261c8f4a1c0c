package pki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/pki"
)

// ownPair writes a self-signed server certificate and its key.
func ownPair(t *testing.T, dir, name string, key crypto.Signer, until time.Time) (certFile, keyFile string) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"*.example.com"},
		NotBefore: until.Add(-time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		err = os.WriteFile(path, pem.EncodeToMemory(block), 0o600)
		if err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func TestServerFilesThatCanBeUsedAndThoseThatCannot(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	newKey := func() crypto.Signer {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	soon := now.Add(30 * time.Minute)
	ec, ecKey := ownPair(t, dir, "ec", newKey(), soon)
	ec2, ec2Key := ownPair(t, dir, "ec2", newKey(), soon)
	rs, rsKey := ownPair(t, dir, "rsa", rsaKey, soon)
	ed, edFile := ownPair(t, dir, "ed", edKey, soon)
	old, oldKey := ownPair(t, dir, "old", newKey(), now.Add(-time.Minute))
	for _, row := range []struct {
		name        string
		certs, keys []string
		want        []string // subjects: ECDSA, RSA
		refusal     string
	}{
		{"both kinds", []string{ec, rs}, []string{ecKey, rsKey}, []string{"CN=ec", "CN=rsa"}, ""},
		{"both kinds, RSA first", []string{rs, ec}, []string{rsKey, ecKey}, []string{"CN=ec", "CN=rsa"}, ""},
		{"ECDSA for all", []string{ec}, []string{ecKey}, []string{"CN=ec", "CN=ec"}, ""},
		{"RSA for all", []string{rs}, []string{rsKey}, []string{"CN=rsa", "CN=rsa"}, ""},
		{"two of a kind", []string{ec, ec2}, []string{ecKey, ec2Key}, nil, "keys of one kind"},
		{"another's key", []string{ec}, []string{ec2Key}, nil, "private key does not match public key"},
		{"files the wrong way round", []string{ecKey}, []string{ec}, nil, "couldn't use"},
		{"no such file", []string{ec}, []string{filepath.Join(dir, "none")}, nil, "no such file"},
		{"expired", []string{old}, []string{oldKey}, nil, "is valid from"},
		{"a key that devices can't verify", []string{ed}, []string{edFile}, nil, "neither RSA nor ECDSA"},
	} {
		t.Run(row.name, func(t *testing.T) {
			files, err := pki.NewServerFiles(row.certs, row.keys, func() time.Time { return now })
			if err != nil {
				t.Fatal(err)
			}
			ecdsaPair, rsaPair, err := files.Load()
			if row.refusal != "" {
				if err == nil || !strings.Contains(err.Error(), row.refusal) {
					t.Errorf("got %v, want %q", err, row.refusal)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := []string{ecdsaPair.Leaf.Subject.String(), rsaPair.Leaf.Subject.String()}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			missing := pki.Missing(ecdsaPair.Leaf, []string{"a.example.com", "localhost"})
			if diff := cmp.Diff([]string{"localhost"}, missing); diff != "" {
				t.Errorf("missing names, -want +got:\n%s", diff)
			}
		})
	}
	for _, n := range []int{0, 3} {
		_, err = pki.NewServerFiles(make([]string, n), make([]string, n), time.Now)
		if err == nil {
			t.Errorf("%d pairs were taken", n)
		}
	}
	_, err = pki.NewServerFiles([]string{ec}, nil, time.Now)
	if err == nil {
		t.Error("a certificate without a key was taken")
	}
}
