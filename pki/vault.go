package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/durable"
)

// maxSealedFile bounds what is read of a sealed file. The largest, an RSA key
// with a certificate of 100 names, takes some 30 KiB.
const maxSealedFile = 128 << 10

// fileWrites are the two ways in which files come to be: replacing, and only
// where nothing is (fs.ErrExist).
type fileWrites struct {
	write, create func(path string, data []byte, perm fs.FileMode) error
}

func durableWrites() fileWrites {
	return fileWrites{write: durable.WriteFile, create: durable.CreateFile}
}

// vault keeps pairs of certificate and private key in a directory. A pair is one
// sealed file, so no crash can leave a key without its certificate or beside
// another's.
type vault struct {
	dir    string
	sealer imprint.Sealer
	files  fileWrites
}

// pair is a certificate and its private key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func openVault(dir string, sealer imprint.Sealer, files fileWrites) (vault, error) {
	err := os.MkdirAll(dir, 0o700)
	if err != nil {
		return vault{}, fmt.Errorf("couldn't make the directory of keys: %w", err)
	}
	// The directory may be new, and what a killed predecessor put into it may
	// not be on disk by name yet. Nothing is built on either before it is.
	err = errors.Join(durable.SyncDir(filepath.Dir(dir)), durable.SyncDir(dir))
	if err != nil {
		return vault{}, err
	}
	return vault{dir: dir, sealer: sealer, files: files}, nil
}

func (v vault) sealedPath(name string) string { return filepath.Join(v.dir, name+".sealed") }
func (v vault) pemPath(name string) string    { return filepath.Join(v.dir, name+".pem") }

// context keeps one sealed file from being copied over another.
func sealContext(name string) []byte { return []byte("imprint/pki/" + name) }

// load opens the pair of a name; fs.ErrNotExist when there is none.
func (v vault) load(name string) (*pair, error) {
	path := v.sealedPath(name)
	sealed, err := readBounded(path)
	if err != nil {
		return nil, fmt.Errorf("couldn't read %s: %w", path, err)
	}
	plain, err := v.sealer.Open(sealed, sealContext(name))
	if err != nil {
		return nil, fmt.Errorf("couldn't open %s: %w", path, err)
	}
	defer clear(plain)
	p, err := decodePair(plain)
	if err != nil {
		return nil, fmt.Errorf("couldn't understand %s: %w", path, err)
	}
	return p, nil
}

// seal gives the file content of a pair.
func (v vault) seal(name string, p *pair) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return nil, fmt.Errorf("couldn't encode the key of %s: %w", name, err)
	}
	defer clear(der)
	plain := append(pem.EncodeToMemory(&pem.Block{Type: typeCertificate, Bytes: p.cert.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	defer clear(plain)
	sealed, err := v.sealer.Seal(plain, sealContext(name))
	if err != nil {
		return nil, fmt.Errorf("couldn't seal the key of %s: %w", name, err)
	}
	return sealed, nil
}

// loadOrCreate gives the pair of a CA, made by create where there is none. Of
// several processes that start at once all get the same one. Its certificate
// also stands in the clear, for people and clients, as name.pem.
func (v vault) loadOrCreate(name string, create func() (*pair, error)) (*pair, error) {
	p, err := v.load(name)
	if errors.Is(err, fs.ErrNotExist) {
		p, err = v.first(name, create)
	}
	if err != nil {
		return nil, err
	}
	return p, v.publish(name, p.cert)
}

func (v vault) first(name string, create func() (*pair, error)) (*pair, error) {
	_, err := os.Lstat(v.pemPath(name))
	if err == nil {
		return nil, imprint.Errorf(imprint.CodeInternal, "%s is there, but its key %s is gone", v.pemPath(name), v.sealedPath(name)).
			WithHint("Restore %s from a backup. Only if nothing trusts this certificate yet, delete %s, and the next start makes a new one.", v.sealedPath(name), v.pemPath(name))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("couldn't look for %s: %w", v.pemPath(name), err)
	}
	p, err := create()
	if err != nil {
		return nil, err
	}
	sealed, err := v.seal(name, p)
	if err != nil {
		return nil, err
	}
	err = v.files.create(v.sealedPath(name), sealed, 0o600)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("couldn't keep the key of %s: %w", name, err)
	}
	// What counts is the file, also when another process was faster.
	return v.load(name)
}

// replace stores a pair in place of the present one.
func (v vault) replace(name string, p *pair) error {
	sealed, err := v.seal(name, p)
	if err != nil {
		return err
	}
	err = v.files.write(v.sealedPath(name), sealed, 0o600)
	if err != nil {
		return fmt.Errorf("couldn't keep the key of %s: %w", name, err)
	}
	return nil
}

// publish writes certificates in the clear, in this order, unless just they
// stand there already.
func (v vault) publish(name string, certs ...*x509.Certificate) error {
	var want []byte
	for _, cert := range certs {
		want = append(want, EncodeCertificatePEM(cert.Raw)...)
	}
	present, err := readBounded(v.pemPath(name))
	if err == nil && bytes.Equal(present, want) {
		return nil
	}
	err = v.files.write(v.pemPath(name), want, 0o644)
	if err != nil {
		return fmt.Errorf("couldn't publish %s: %w", name, err)
	}
	return nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSealedFile+1))
	err = errors.Join(err, f.Close())
	if err != nil {
		return nil, err
	}
	if len(data) > maxSealedFile {
		return nil, fmt.Errorf("it is longer than %d bytes", maxSealedFile)
	}
	return data, nil
}

func decodePair(plain []byte) (*pair, error) {
	certBlock, rest := pem.Decode(plain)
	if certBlock == nil {
		return nil, errors.New("it holds no certificate")
	}
	keyBlock, _ := pem.Decode(rest)
	if keyBlock == nil {
		return nil, errors.New("it holds no key")
	}
	defer clear(keyBlock.Bytes)
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("couldn't read its certificate: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("couldn't read its key: %w", err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("its key is a %T, which can't sign", parsed)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(cert.PublicKey) {
		return nil, errors.New("its key isn't that of its certificate")
	}
	return &pair{cert: cert, key: key}, nil
}

// KeyKind is a kind of key that Imprint makes for its own certificates.
type KeyKind string

// The kinds of keys.
const (
	KeyRSA2048 KeyKind = "rsa2048"
	KeyRSA3072 KeyKind = "rsa3072"
	KeyRSA4096 KeyKind = "rsa4096"
	KeyP256    KeyKind = "p256"
	KeyP384    KeyKind = "p384"
	// KeyP521 and KeyEd25519 are for the keys of others.
	KeyP521    KeyKind = "p521"
	KeyEd25519 KeyKind = "ed25519"
)

// NewKey makes a key in memory. Errors: CodeInvalidRequest for kinds that CAs have not.
func NewKey(kind KeyKind) (crypto.Signer, error) { return newKey(kind) }

func newKey(kind KeyKind) (crypto.Signer, error) {
	var key crypto.Signer
	var err error
	switch kind {
	case KeyRSA2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case KeyRSA3072:
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	case KeyRSA4096:
		key, err = rsa.GenerateKey(rand.Reader, 4096)
	case KeyP256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case KeyP384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "keys of the kind %q can't be made here", imprint.Excerpt(string(kind))).
			WithHint("Kinds: %s.", joinKinds([]KeyKind{KeyP256, KeyP384, KeyRSA2048, KeyRSA3072, KeyRSA4096}))
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't make a %s key: %w", kind, err)
	}
	return key, nil
}
