package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/durable"
	"github.com/imprint-iot/imprint/pki/keys"
)

// maxPublished bounds what is read of a certificate in the clear.
const maxPublished = 128 << 10

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

// load opens the pair of a name; fs.ErrNotExist when there is none.
func (v vault) load(name string) (*pair, error) {
	path := v.sealedPath(name)
	content, err := keys.ReadSealed(v.sealer, path)
	if err != nil {
		return nil, err
	}
	p, err := pairOf(content)
	if err != nil {
		return nil, fmt.Errorf("couldn't understand %s: %w", path, err)
	}
	return p, nil
}

// seal gives the file content of a pair.
func (v vault) seal(name string, p *pair) ([]byte, error) {
	return keys.Seal(v.sealer, name, keys.Sealed{Key: p.key, Certificates: []*x509.Certificate{p.cert}})
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
	data, err := io.ReadAll(io.LimitReader(f, maxPublished+1))
	err = errors.Join(err, f.Close())
	if err != nil {
		return nil, err
	}
	if len(data) > maxPublished {
		return nil, fmt.Errorf("it is longer than %d bytes", maxPublished)
	}
	return data, nil
}

func pairOf(content keys.Sealed) (*pair, error) {
	if len(content.Certificates) != 1 {
		return nil, fmt.Errorf("it holds %d certificates, not one", len(content.Certificates))
	}
	p := &pair{cert: content.Certificates[0], key: content.Key}
	public, ok := p.key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(p.cert.PublicKey) {
		return nil, errors.New("its key isn't that of its certificate")
	}
	return p, nil
}

// KeyKind is a kind of key that Imprint makes for its own certificates.
type KeyKind = keys.Kind

// The kinds of keys.
const (
	KeyRSA2048 = keys.RSA2048
	KeyRSA3072 = keys.RSA3072
	KeyRSA4096 = keys.RSA4096
	KeyP256    = keys.P256
	KeyP384    = keys.P384
	// KeyP521 and KeyEd25519 are for the keys of others.
	KeyP521    KeyKind = "p521"
	KeyEd25519 KeyKind = "ed25519"
)

// NewKey makes a key in memory. Errors: CodeInvalidRequest for kinds that CAs have not.
func NewKey(kind KeyKind) (crypto.Signer, error) { return keys.NewKey(kind) }
