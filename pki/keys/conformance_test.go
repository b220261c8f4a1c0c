package keys_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/keys"
)

// place is a kind of store as the conformance suite sees it.
type place struct {
	store *keys.Store
	// uri gives a URI under which no key is yet.
	uri func(name string) keys.URI
	// all names the place where List finds the keys, the zero URI when it finds
	// none of them.
	all   keys.URI
	kinds []keys.Kind
	// software tells that keys can be taken out.
	software bool
	noPSS    bool
}

// conform checks what Signer and Store promise of every kind of store.
func conform(t *testing.T, p place) {
	for _, kind := range p.kinds {
		t.Run(string(kind), func(t *testing.T) {
			signer, uri := generate(t, p.store, p.uri("conform-"+string(kind)), kind)
			if got, known := keys.KindOf(signer.Public()); !known || got != kind {
				t.Fatalf("the key is %s (%T), want %s", got, signer.Public(), kind)
			}
			t.Run("signs", func(t *testing.T) { conformSigns(t, p, signer) })
			t.Run("makes what openssl verifies", func(t *testing.T) { conformOpenSSL(t, signer) })
			t.Run("is found again", func(t *testing.T) { conformFound(t, p, signer, uri, kind) })
			t.Run("serves many at once", func(t *testing.T) { conformConcurrent(t, signer) })
			t.Run("refuses", func(t *testing.T) { conformRefuses(t, p, signer, uri, kind) })
		})
	}
}

func digestOf(t testing.TB, hash crypto.Hash, text string) []byte {
	t.Helper()
	h := hash.New()
	_, err := h.Write([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return h.Sum(nil)
}

// verify checks a signature without this package.
func verify(public crypto.PublicKey, digest, signature []byte, opts crypto.SignerOpts) error {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(key, digest, signature) {
			return errors.New("the ECDSA signature is wrong")
		}
		return nil
	case *rsa.PublicKey:
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(key, opts.HashFunc(), digest, signature, &rsa.PSSOptions{SaltLength: pss.SaltLength})
		}
		return rsa.VerifyPKCS1v15(key, opts.HashFunc(), digest, signature)
	}
	return fmt.Errorf("a key of type %T", public)
}

// signOnce signs something and checks the signature.
func signOnce(ctx context.Context, signer keys.Signer, text string) error {
	hash := usual(signer.Public())
	h := hash.New()
	_, _ = h.Write([]byte(text)) // never fails
	digest := h.Sum(nil)
	signature, err := signer.Sign(ctx, digest, hash)
	if err != nil {
		return err
	}
	return verify(signer.Public(), digest, signature, hash)
}

// usual is the hash that goes with a key.
func usual(public crypto.PublicKey) crypto.Hash {
	if kind, _ := keys.KindOf(public); kind == keys.P384 {
		return crypto.SHA384
	}
	return crypto.SHA256
}

func conformSigns(t *testing.T, p place, signer keys.Signer) {
	_, isRSA := signer.Public().(*rsa.PublicKey)
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		options := []crypto.SignerOpts{hash}
		if isRSA && !p.noPSS {
			options = append(options, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash})
		}
		for _, opts := range options {
			digest := digestOf(t, hash, "to be signed")
			signature, err := signer.Sign(t.Context(), digest, opts)
			if err != nil {
				// KMS and TPMs bind curves and hashes together, or lack some.
				if imprint.CodeOf(err) == imprint.CodeKeyRefused && hash != usual(signer.Public()) {
					continue
				}
				t.Errorf("%v, %T: %v", hash, opts, err)
				continue
			}
			err = verify(signer.Public(), digest, signature, opts)
			if err != nil {
				t.Errorf("%v, %T: %v", hash, opts, err)
			}
		}
	}
}

// conformOpenSSL makes a CA, a leaf and a CRL through the adapter.
func conformOpenSSL(t *testing.T, signer keys.Signer) {
	dir := t.TempDir()
	now := time.Now()
	adapter := keys.CryptoSigner(t.Context(), signer, 30*time.Second)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "conformance"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1, 2, 3, 4},
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, signer.Public(), adapter)
	if err != nil {
		t.Fatal(err)
	}
	ca, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	device, err := keys.NewKey(keys.P256)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}, ca, device.Public(), adapter)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour)}, ca, adapter)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"ca": {Type: "CERTIFICATE", Bytes: der}, "leaf": {Type: "CERTIFICATE", Bytes: leaf}, "crl": {Type: "X509 CRL", Bytes: list}} {
		put(t, filepath.Join(dir, name), pem.EncodeToMemory(block))
	}
	out := sh(t, "openssl", "verify", "-crl_check", "-CAfile", filepath.Join(dir, "ca"), "-CRLfile", filepath.Join(dir, "crl"), filepath.Join(dir, "leaf"))
	if !strings.HasSuffix(strings.TrimSpace(out), "leaf: OK") {
		t.Errorf("openssl verify: got %q, want OK", out)
	}
}

func conformFound(t *testing.T, p place, signer keys.Signer, uri keys.URI, kind keys.Kind) {
	again := open(t, p.store, parse(t, uri.String()))
	public := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !public.Equal(again.Public()) {
		t.Error("opened again, it is another key")
	}
	err := signOnce(t.Context(), again, "found again")
	if err != nil {
		t.Error(err)
	}
	_, _, err = p.store.Generate(t.Context(), uri, kind)
	if code := imprint.CodeOf(err); code != imprint.CodeAlreadyExists && !(uri.Scheme() == "awskms" && code == imprint.CodeInvalidRequest) {
		t.Errorf("a second key of the same URI: got %v, want CodeAlreadyExists", err)
	}
	if p.all == (keys.URI{}) {
		return
	}
	list, err := p.store.List(t.Context(), p.all)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range list {
		if !public.Equal(info.Public) {
			continue
		}
		if info.Problem != "" || info.Kind != kind || info.Extractable != p.software {
			t.Errorf("listed as %+v, want kind %s, extractable %v, no problem", info, kind, p.software)
		}
		listed := open(t, p.store, info.URI)
		if !public.Equal(listed.Public()) {
			t.Errorf("%s, as listed, opens another key", info.URI)
		}
		return
	}
	t.Errorf("it isn't in the list: %+v", list)
}

func conformConcurrent(t *testing.T, signer keys.Signer) {
	errs := make([]error, 8)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() {
			for j := range 4 {
				errs[i] = errors.Join(errs[i], signOnce(t.Context(), signer, fmt.Sprint(i, j)))
			}
		})
	}
	group.Wait()
	err := errors.Join(errs...)
	if err != nil {
		t.Error(err)
	}
}

func conformRefuses(t *testing.T, p place, signer keys.Signer, uri keys.URI, kind keys.Kind) {
	digest := digestOf(t, crypto.SHA256, "x")
	for name, refused := range map[string]struct {
		digest []byte
		opts   crypto.SignerOpts
	}{
		"no hash":        {digest, nil},
		"no hash at all": {digest, crypto.Hash(0)},
		"SHA-1":          {digest[:20], crypto.SHA1},
		"a short digest": {digest[:31], crypto.SHA256},
		"a long digest":  {append(digest, 0), crypto.SHA256},
		"a salt of another length, or PSS without RSA": {digest, &rsa.PSSOptions{SaltLength: 20, Hash: crypto.SHA256}},
	} {
		_, err := signer.Sign(t.Context(), refused.digest, refused.opts)
		if imprint.CodeOf(err) != imprint.CodeInternal {
			t.Errorf("%s: got %v, want CodeInternal", name, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := signer.Sign(ended, digest, crypto.SHA256)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: got %v, want context.Canceled", err)
	}
	_, _, err = p.store.Generate(t.Context(), p.uri("no-kind"), "ed25519")
	expect(t, err, imprint.CodeInvalidRequest, "ed25519", string(kind))

	closed := open(t, p.store, uri)
	for range 2 {
		err = closed.Close()
		if err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	_, err = closed.Sign(t.Context(), digest, crypto.SHA256)
	expect(t, err, imprint.CodeInternal, "closed")
	if closed.Public() == nil {
		t.Error("a closed key has no public half")
	}
	err = signOnce(t.Context(), signer, "another Signer of the key was closed")
	if err != nil {
		t.Error(err)
	}
}

func TestSoftwareKeysConform(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conform(t, place{
		store: newStore(t), kinds: keys.Kinds(), software: true, all: parse(t, "file:"+dir+"/"),
		uri: func(name string) keys.URI { return parse(t, "file:"+dir+"/"+name+".sealed") },
	})
}

func TestTokensConform(t *testing.T) {
	t.Parallel()
	h := newHSM(t)
	conform(t, place{
		store: h.store(), kinds: keys.Kinds(), all: h.uri(""),
		uri: func(name string) keys.URI { return h.uri("object=" + name) },
	})
}

func TestTPMsConform(t *testing.T) {
	t.Parallel()
	p := newTPM(t)
	next := 0x81008000
	conform(t, place{
		store: newStore(t), kinds: []keys.Kind{keys.P256, keys.P384, keys.RSA2048, keys.RSA3072}, all: p.uri("", ""),
		uri: func(string) keys.URI {
			next++
			return p.uri(fmt.Sprintf("handle=0x%x", next), "")
		},
	})
}

func TestKeyFilesOfTPMsConform(t *testing.T) {
	t.Parallel()
	p := newTPM(t)
	dir := t.TempDir()
	put(t, filepath.Join(dir, "auth"), []byte("of the key\n"))
	conform(t, place{
		store: newStore(t), kinds: []keys.Kind{keys.P256, keys.RSA2048},
		uri: func(name string) keys.URI {
			return p.uri("file="+dir+"/"+name+".tss", "&auth-source=file:"+dir+"/auth")
		},
	})
}
