package keys

import (
	"context"
	"crypto"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
)

const (
	// defaultTimeout bounds a signature. A network HSM that fails over needs a few
	// seconds.
	defaultTimeout = 10 * time.Second
	// generateTimeout bounds the making of a key: smart cards take a minute for
	// RSA-4096.
	generateTimeout = 3 * time.Minute
)

// Config is what a Store needs.
type Config struct {
	// Sealer opens and seals the keys of file: URIs; needed for those alone.
	Sealer imprint.Sealer
	// PKCS11Helper is the path of imprint-pkcs11. Empty: what the environment
	// variable IMPRINT_PKCS11_HELPER says, or else the file of that name beside
	// this program.
	PKCS11Helper string
	// Timeout bounds each signature and each opening, also where the context
	// allows more. A PKCS#11 module that is silent for so long is ended. 0: 10
	// seconds.
	Timeout time.Duration
}

// Store opens keys. It shares what keys have in common, such as a token's process. It
// is safe for concurrent use.
type Store struct {
	config Config
	tokens tokenPool
	tpms   tpmPool
}

// Info describes a key that is in a store.
type Info struct {
	// URI opens just this key in the Store that listed it.
	URI URI
	// Label is what people call it; may be empty.
	Label string
	// Public is its public key; nil when the store doesn't have it or the package
	// doesn't know its kind, and then Problem says so.
	Public crypto.PublicKey
	// Kind is empty where Public isn't of one.
	Kind Kind
	// Extractable tells that the key can leave its store in the clear or wrapped.
	Extractable bool
	// Problem says why the key can't be opened; empty when it can.
	Problem string
}

// NewStore makes a Store. Nothing is opened or started yet.
func NewStore(config Config) *Store {
	if config.Timeout <= 0 {
		config.Timeout = defaultTimeout
	}
	s := &Store{config: config}
	s.tokens.init(config)
	return s
}

// Open opens a key that exists. The Signer must be closed.
//
// Errors, all with a hint: CodeNotFound when there is no such key, CodeInvalidRequest
// when the URI doesn't name exactly one, CodeKeyRefused for a wrong PIN or a key that
// may not sign, CodeKeyUnavailable when the key store doesn't answer, CodeNotOffered
// when this build lacks the store; for files also those of the Sealer.
func (s *Store) Open(ctx context.Context, uri URI) (Signer, error) {
	ctx, cancel := withTimeout(ctx, s.config.Timeout)
	defer cancel()
	signer, err := s.open(ctx, uri)
	if err != nil {
		return nil, fmt.Errorf("couldn't open the key %s: %w", uri, deadline(ctx, err))
	}
	return signer, nil
}

func (s *Store) open(ctx context.Context, uri URI) (Signer, error) {
	switch uri.scheme {
	case schemeFile:
		return openSoftware(uri, s.config.Sealer)
	case schemePKCS11:
		return s.openPKCS11(ctx, uri)
	case schemeTPM:
		return s.openTPM(ctx, uri)
	case schemeAWSKMS:
		return openKMS(ctx, uri, s.config)
	}
	return nil, errNoURI()
}

// Generate makes a key where the URI says and opens it. It gives the URI that names
// just this key from now on: with the id that a token gave it, for example. In tokens
// and TPMs the key can't be extracted. An interrupted call may leave a key that
// nobody uses; List shows it.
//
// Errors: CodeAlreadyExists when the URI names something already, CodeKeyRefused when
// the store can't make this kind; otherwise those of Open.
func (s *Store) Generate(ctx context.Context, uri URI, kind Kind) (Signer, URI, error) {
	_, err := ParseKind(string(kind))
	if err != nil {
		return nil, URI{}, err
	}
	ctx, cancel := withTimeout(ctx, generateTimeout)
	defer cancel()
	signer, made, err := s.generate(ctx, uri, kind)
	if err != nil {
		return nil, URI{}, fmt.Errorf("couldn't make a %s key as %s: %w", kind, uri, deadline(ctx, err))
	}
	return signer, made, nil
}

func (s *Store) generate(ctx context.Context, uri URI, kind Kind) (Signer, URI, error) {
	switch uri.scheme {
	case schemeFile:
		signer, err := generateSoftware(uri, kind, s.config.Sealer)
		return signer, uri, err
	case schemePKCS11:
		return s.generatePKCS11(ctx, uri, kind)
	case schemeTPM:
		signer, err := s.generateTPM(ctx, uri, kind)
		return signer, uri, err
	case schemeAWSKMS:
		return generateKMS(ctx, uri, kind, s.config)
	}
	return nil, URI{}, errNoURI()
}

// List tells which keys are where the URI says: those in a directory for a file: URI
// that ends in a slash, those of a token for a pkcs11: URI, also only those of a label
// or id where it names one, the persistent ones of a TPM, those of an account and
// region of AWS KMS. At most 200 are listed.
func (s *Store) List(ctx context.Context, uri URI) ([]Info, error) {
	ctx, cancel := withTimeout(ctx, max(s.config.Timeout, time.Minute))
	defer cancel()
	list, err := s.list(ctx, uri)
	if err != nil {
		return nil, fmt.Errorf("couldn't list the keys of %s: %w", uri, deadline(ctx, err))
	}
	return list, nil
}

// maxListed bounds a list.
const maxListed = 200

func (s *Store) list(ctx context.Context, uri URI) ([]Info, error) {
	switch uri.scheme {
	case schemeFile:
		return listSoftware(uri, s.config.Sealer)
	case schemePKCS11:
		return s.listPKCS11(ctx, uri)
	case schemeTPM:
		return s.listTPM(ctx, uri)
	case schemeAWSKMS:
		return listKMS(ctx, uri, s.config)
	}
	return nil, errNoURI()
}

// filesOf gives the files of keys, by their suffix, in the directory that a URI names, or the one
// that it names.
func filesOf(uri URI, suffix string) ([]string, error) {
	if !strings.HasSuffix(uri.file, "/") {
		return []string{uri.file}, nil
	}
	entries, err := os.ReadDir(uri.file)
	if err != nil {
		return nil, fmt.Errorf("couldn't look for keys: %w", err)
	}
	var paths []string
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), suffix) && entry.Name() != suffix && len(paths) < maxListed {
			paths = append(paths, filepath.Join(uri.file, entry.Name()))
		}
	}
	return paths, nil
}

// Close ends the processes that the Store started. Signers of tokens that are still
// open fail from then on.
func (s *Store) Close() error {
	s.tokens.close()
	return nil
}

func errNoURI() error {
	return imprint.Errorf(imprint.CodeInternal, "the zero URI names no key")
}
