package keys_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/keys"
)

type journal struct{}

func (journal) Record(context.Context, imprint.Issuance) error { return nil }
func (journal) Put(imprint.Tx, imprint.Issuance) error         { return nil }

// The sealed file of a CA that package pki made is a key like any other.
func TestTheDeviceCAOpensByItsURI(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := pki.OpenAuthority(t.Context(), dir, pki.AuthorityConfig{Sealer: sealer(t, 1), Journal: journal{}, Clock: time.Now, Key: keys.P384})
	if err != nil {
		t.Fatal(err)
	}
	signer := open(t, newStore(t), parse(t, "file:"+dir+"/device-ca.sealed"))
	if !ca.Certificate().PublicKey.(*ecdsa.PublicKey).Equal(signer.Public()) {
		t.Error("it is another key than the CA's")
	}
	err = signOnce(t.Context(), signer, "x")
	if err != nil {
		t.Error(err)
	}
}

// A file under another name, damaged, of another master key or without a key is refused.
func TestSealedFilesThatAreNotRightAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newStore(t)
	at := func(name string) keys.URI { return parse(t, "file:"+filepath.Join(dir, name)) }
	generate(t, s, at("a.sealed"), keys.P256)
	sealed, err := os.ReadFile(filepath.Join(dir, "a.sealed"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "a.sealed"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v, %v, want 0600", info.Mode(), err)
	}
	put(t, filepath.Join(dir, "copied.sealed"), sealed)
	put(t, filepath.Join(dir, "cut.sealed"), sealed[:len(sealed)-1])
	put(t, filepath.Join(dir, "long.sealed"), make([]byte, 200<<10))
	for name, plain := range map[string]string{"empty": "", "certless": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "keyless": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "other": "-----BEGIN X-----\nAAAA\n-----END X-----\n"} {
		content, err := sealer(t, 1).Seal([]byte(plain), []byte("imprint/pki/"+name))
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, name+".sealed"), content)
	}
	for name, words := range map[string][]string{
		"copied": {"damaged or belongs elsewhere"}, "cut": {"damaged"}, "long": {"longer"}, "empty": {"holds no key"}, "certless": {"certificate"}, "keyless": {"couldn't read its key"}, "other": {"type"},
	} {
		_, err = s.Open(t.Context(), at(name+".sealed"))
		expect(t, err, imprint.CodeInternal, words...)
	}
	_, err = s.Open(t.Context(), at("nothing.sealed"))
	expect(t, err, imprint.CodeNotFound, "isn't there", "backup")
	_, err = s.Open(t.Context(), parse(t, "file:"+dir+"/"))
	expect(t, err, imprint.CodeInvalidRequest, "directory")
	_, _, err = s.Generate(t.Context(), parse(t, "file:"+dir+"/"), keys.P256)
	expect(t, err, imprint.CodeInvalidRequest, "directory")
	_, _, err = s.Generate(t.Context(), parse(t, "file:"+dir+"/no/such/dir/a.sealed"), keys.P256)
	expect(t, err, imprint.CodeInternal, "couldn't keep the key")
	other := newStore(t, func(c *keys.Config) { c.Sealer = sealer(t, 2) })
	_, err = other.Open(t.Context(), at("a.sealed"))
	expect(t, err, imprint.CodeInternal, "master key that belongs to this data directory")
	none := newStore(t, func(c *keys.Config) { c.Sealer = nil })
	_, err = none.Open(t.Context(), at("a.sealed"))
	expect(t, err, imprint.CodeInternal, "master key")
	list, err := s.List(t.Context(), parse(t, "file:"+dir+"/"))
	if err != nil || len(list) != 8 {
		t.Fatalf("listed %d, %v, want 8", len(list), err)
	}
	for _, one := range list {
		if (one.Problem == "") != (one.Label == "a") {
			t.Errorf("%s is listed with the problem %q", one.Label, one.Problem)
		}
	}
}

// words gives the memory that a number has, up to what it was made with.
func words(n *big.Int) []big.Word {
	all := n.Bits()
	return all[:cap(all)]
}

// Close overwrites the numbers of a key where they are, and waits for signatures that
// are under way.
func TestCloseOverwritesSoftwareKeys(t *testing.T) {
	t.Parallel()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 It is where the secret is.
	ecSecret := ec.D
	secrets := map[string][]big.Word{
		"ecdsa D": words(ecSecret), "rsa D": words(rsaKey.D), "rsa P": words(rsaKey.Primes[0]), "rsa Q": words(rsaKey.Primes[1]),
		"rsa Dp": words(rsaKey.Precomputed.Dp), "rsa Dq": words(rsaKey.Precomputed.Dq), "rsa Qinv": words(rsaKey.Precomputed.Qinv),
	}
	for name, secret := range secrets {
		if !holds(secret) {
			t.Fatalf("%s is zero from the start", name)
		}
	}
	for _, key := range []crypto.Signer{ec, rsaKey} {
		signer, err := keys.NewSoftware(key)
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for {
					err := signOnce(t.Context(), signer, "x")
					if err != nil {
						expect(t, err, imprint.CodeInternal, "closed")
						return
					}
				}
			})
		}
		err = signOnce(t.Context(), signer, "x")
		if err != nil {
			t.Error(err)
		}
		err = signer.Close()
		if err != nil {
			t.Error(err)
		}
		group.Wait()
	}
	for name, secret := range secrets {
		if holds(secret) {
			t.Errorf("%s is still in memory", name)
		}
	}
}

func holds(secret []big.Word) bool {
	for _, word := range secret {
		if word != 0 {
			return true
		}
	}
	return false
}

// Keys of kinds that aren't known can't be taken into use.
func TestKeysOfOtherKindsAreRefused(t *testing.T) {
	t.Parallel()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{ed, p521} {
		_, err = keys.NewSoftware(key)
		expect(t, err, imprint.CodeKeyRefused, "P-256")
	}
	for _, kind := range keys.Kinds() {
		got, err := keys.ParseKind(string(kind))
		if err != nil || got != kind {
			t.Errorf("ParseKind(%s) = %s, %v", kind, got, err)
		}
	}
}

// A build without AWS KMS says which build has it; the zero URI names nothing.
func TestWhatThisBuildLacksIsSaid(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if !withKMS {
		uri := parse(t, "awskms:key-id=alias/x;region=r")
		_, err := s.Open(t.Context(), uri)
		expect(t, err, imprint.CodeNotOffered, "-tags awskms")
		_, _, err = s.Generate(t.Context(), uri, keys.P256)
		expect(t, err, imprint.CodeNotOffered, "-tags awskms")
		_, err = s.List(t.Context(), uri)
		expect(t, err, imprint.CodeNotOffered, "-tags awskms")
	}
	_, err := s.Open(t.Context(), keys.URI{})
	expect(t, err, imprint.CodeInternal, "zero URI")
}

// What stands in a file is the key sealed, not the key.
func TestSealedFilesHideTheKey(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	content, err := keys.Seal(sealer(t, 1), "a", keys.Sealed{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(content, secret) || strings.Contains(string(content), "PRIVATE") {
		t.Error("the key stands in the clear")
	}
}
