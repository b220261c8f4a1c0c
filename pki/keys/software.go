package keys

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"strings"
	"sync"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/durable"
)

// software is a key in this process's memory.
type software struct {
	public crypto.PublicKey
	name   string

	mu  sync.RWMutex  // Close waits for signatures
	key crypto.Signer // nil after Close
}

// NewSoftware makes a Signer of a key in memory, an *ecdsa.PrivateKey or an
// *rsa.PrivateKey, and takes it over: Close overwrites it.
func NewSoftware(key crypto.Signer) (Signer, error) {
	return newSoftware(key, "a key in memory")
}

func newSoftware(key crypto.Signer, name string) (Signer, error) {
	_, known := KindOf(key.Public())
	switch key.(type) {
	case *ecdsa.PrivateKey, *rsa.PrivateKey:
	default:
		known = false
	}
	if !known {
		return nil, imprint.Errorf(imprint.CodeKeyRefused, "couldn't use %s: its kind isn't P-256, P-384 or RSA with 2048, 3072 or 4096 bits", name)
	}
	return &software{public: key.Public(), name: name, key: key}, nil
}

func (s *software) Public() crypto.PublicKey { return s.public }

// Sign takes no longer than computing does, so the context only keeps it from
// starting.
func (s *software) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	err := ctx.Err()
	if err != nil {
		return nil, err
	}
	j, err := newJob(s.public, digest, opts)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.key == nil {
		return nil, imprint.Errorf(imprint.CodeInternal, "couldn't sign with %s: it was closed", s.name)
	}
	signature, err := s.key.Sign(rand.Reader, digest, j.options())
	if err != nil {
		return nil, fmt.Errorf("couldn't sign with %s: %w", s.name, err)
	}
	return signature, nil
}

func (s *software) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	erase(s.key)
	s.key = nil
	return nil
}

// erase overwrites the secret numbers of a key that this package can reach.
func erase(key crypto.Signer) {
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		//lint:ignore SA1019 It is where the secret is, and nobody uses the key any more.
		eraseNumber(key.D)
	case *rsa.PrivateKey:
		eraseNumber(key.D)
		for _, prime := range key.Primes {
			eraseNumber(prime)
		}
		eraseNumber(key.Precomputed.Dp)
		eraseNumber(key.Precomputed.Dq)
		eraseNumber(key.Precomputed.Qinv)
		// This one holds copies in a form that isn't reachable.
		key.Precomputed = rsa.PrecomputedValues{}
	}
}

func eraseNumber(n *big.Int) {
	if n == nil {
		return
	}
	words := n.Bits()
	clear(words[:cap(words)])
	n.SetInt64(0)
}

func errNoSealer() error {
	return imprint.Errorf(imprint.CodeInternal, "a file: key needs the master key, and none was given")
}

func openSoftware(uri URI, sealer imprint.Sealer) (Signer, error) {
	if sealer == nil {
		return nil, errNoSealer()
	}
	if strings.HasSuffix(uri.file, "/") {
		return nil, errDirectory()
	}
	content, err := ReadSealed(sealer, uri.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, imprint.Errorf(imprint.CodeNotFound, "%s isn't there", uri.file).
			WithHint("Make the key first, or restore the file from a backup.")
	}
	if err != nil {
		return nil, err
	}
	return newSoftware(content.Key, uri.String())
}

func errDirectory() error {
	return imprint.Errorf(imprint.CodeInvalidRequest, "the URI names a directory").WithHint("Write file:/PATH/NAME%s.", sealedSuffix)
}

func generateSoftware(uri URI, kind Kind, sealer imprint.Sealer) (Signer, error) {
	if sealer == nil {
		return nil, errNoSealer()
	}
	if strings.HasSuffix(uri.file, "/") {
		return nil, errDirectory()
	}
	// The present file is never looked into: its key may be anything.
	_, err := os.Lstat(uri.file)
	if err == nil {
		return nil, errFileThere(uri.file)
	}
	key, err := NewKey(kind)
	if err != nil {
		return nil, err
	}
	sealed, err := Seal(sealer, sealName(uri.file), Sealed{Key: key})
	if err != nil {
		return nil, err
	}
	err = durable.CreateFile(uri.file, sealed, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, errFileThere(uri.file)
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't keep the key: %w", err)
	}
	return newSoftware(key, uri.String())
}

func errFileThere(path string) error {
	return imprint.Errorf(imprint.CodeAlreadyExists, "%s is there already", path).
		WithHint("Keys are never overwritten: choose another name.")
}

func listSoftware(uri URI, sealer imprint.Sealer) ([]Info, error) {
	if sealer == nil {
		return nil, errNoSealer()
	}
	paths, err := filesOf(uri, sealedSuffix)
	if err != nil {
		return nil, err
	}
	var list []Info
	for _, path := range paths {
		// The file's own name may hold what no URI can.
		info := Info{URI: URI{scheme: schemeFile, file: path}, Label: sealName(path), Extractable: true}
		content, err := ReadSealed(sealer, path)
		if err != nil {
			info.Problem = err.Error()
		} else {
			info.Public = content.Key.Public()
			info.Kind, _ = KindOf(info.Public)
			if info.Kind == "" {
				info.Problem = "its kind isn't known"
			}
			erase(content.Key)
		}
		list = append(list, info)
	}
	return list, nil
}
