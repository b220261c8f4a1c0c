package keys

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
)

// Signer is a private key of a CA, in whatever store. It is safe for concurrent use.
type Signer interface {
	// Public gives the public key: *ecdsa.PublicKey or *rsa.PublicKey. It asks
	// nobody and works after Close.
	Public() crypto.PublicKey
	// Sign signs a digest of SHA-256, SHA-384 or SHA-512, which opts names. An
	// ECDSA signature is DER; an RSA one is PKCS#1 v1.5, or PSS with a salt as long
	// as the digest where opts is *rsa.PSSOptions.
	//
	// Errors: CodeKeyUnavailable when the key's store doesn't answer in time, is
	// gone, or answers what isn't a signature; CodeKeyRefused when it refuses (a
	// wrong PIN, a key that may not sign); the context's error when the context
	// ended first; CodeInternal for a digest or opts that can't be.
	Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error)
	// Close gives up the key: Sign fails from then on. A software key is
	// overwritten, after signatures that are under way.
	Close() error
}

// CryptoSigner makes a crypto.Signer of a Signer, for crypto/x509, crypto/tls and
// others that know no context. Each signature ends with ctx or after timeout,
// whichever is first; a timeout of 0 means 10 seconds.
func CryptoSigner(ctx context.Context, signer Signer, timeout time.Duration) crypto.Signer {
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	return cryptoSigner{ctx: ctx, signer: signer, timeout: timeout}
}

type cryptoSigner struct {
	// ctx stands in a struct because crypto.Signer takes none.
	ctx     context.Context
	signer  Signer
	timeout time.Duration
}

func (c cryptoSigner) Public() crypto.PublicKey { return c.signer.Public() }

// Sign ignores the source of randomness: each store has its own.
func (c cryptoSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.timeout)
	defer cancel()
	return c.signer.Sign(ctx, digest, opts)
}

// scheme is how a digest becomes a signature.
type scheme int

const (
	schemeECDSA scheme = iota
	schemePKCS1
	schemePSS // with a salt as long as the digest
)

// job is a checked request for a signature.
type job struct {
	digest []byte
	hash   crypto.Hash
	scheme scheme
}

func newJob(public crypto.PublicKey, digest []byte, opts crypto.SignerOpts) (job, error) {
	if opts == nil {
		return job{}, imprint.Errorf(imprint.CodeInternal, "couldn't sign: no hash is named")
	}
	j := job{digest: digest, hash: opts.HashFunc()}
	switch j.hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
	default:
		return job{}, imprint.Errorf(imprint.CodeInternal, "couldn't sign: the hash must be SHA-256, SHA-384 or SHA-512, not %v", j.hash)
	}
	if len(digest) != j.hash.Size() {
		return job{}, imprint.Errorf(imprint.CodeInternal, "couldn't sign: a digest of %v has %d bytes, not %d", j.hash, j.hash.Size(), len(digest))
	}
	pss, isPSS := opts.(*rsa.PSSOptions)
	_, isRSA := public.(*rsa.PublicKey)
	switch {
	case isPSS && !isRSA:
		return job{}, imprint.Errorf(imprint.CodeInternal, "couldn't sign: RSA-PSS is asked of a key that isn't RSA")
	case isPSS && pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != j.hash.Size():
		return job{}, imprint.Errorf(imprint.CodeInternal, "couldn't sign: the salt of RSA-PSS must be as long as the digest")
	case isPSS:
		j.scheme = schemePSS
	case isRSA:
		j.scheme = schemePKCS1
	default:
		j.scheme = schemeECDSA
	}
	return j, nil
}

// options gives crypto.SignerOpts for the job.
func (j job) options() crypto.SignerOpts {
	if j.scheme == schemePSS {
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: j.hash}
	}
	return j.hash
}

// verify says whether a signature is one for the job.
func (j job) verify(public crypto.PublicKey, signature []byte) error {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(key, j.digest, signature) {
			return errors.New("ECDSA verification fails")
		}
		return nil
	case *rsa.PublicKey:
		if j.scheme == schemePSS {
			return rsa.VerifyPSS(key, j.hash, j.digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
		return rsa.VerifyPKCS1v15(key, j.hash, j.digest, signature)
	}
	return fmt.Errorf("it is for a %T", public)
}

// remote is a key outside this process. Its errors have a code already, or are
// the context's.
type remote interface {
	sign(ctx context.Context, j job) ([]byte, error)
	close() error
}

// remoteSigner is the Signer of a remote key: what is the same for all of them.
type remoteSigner struct {
	uri     URI
	public  crypto.PublicKey
	timeout time.Duration
	key     remote
	closed  atomic.Bool
}

func (s *remoteSigner) Public() crypto.PublicKey { return s.public }

func (s *remoteSigner) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	j, err := newJob(s.public, digest, opts)
	if err != nil {
		return nil, err
	}
	if s.closed.Load() {
		return nil, errClosed(s.uri)
	}
	ctx, cancel := withTimeout(ctx, s.timeout)
	defer cancel()
	signature, err := s.key.sign(ctx, j)
	if err != nil {
		return nil, fmt.Errorf("couldn't sign with %s: %w", s.uri, deadline(ctx, err))
	}
	err = j.verify(s.public, signature)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeKeyUnavailable, "couldn't sign with %s: it gave a signature that its public key doesn't verify: %w", s.uri, err).
			WithHint("The key store has a fault, or another key has taken the place of this one since it was opened: compare its public key with the CA's certificate.")
	}
	return signature, nil
}

func (s *remoteSigner) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return s.key.close()
}

func errClosed(uri URI) error {
	return imprint.Errorf(imprint.CodeInternal, "couldn't sign with %s: it was closed", uri)
}

// errTimeout is the cause of a context that ended because Config.Timeout was over,
// and not because the caller had less patience.
var errTimeout = errors.New("it didn't answer in time")

func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, timeout, errTimeout)
}

// deadline gives the end of a context the code that a person should see: a store
// that lets a deadline pass, whoever set it, is unavailable. A caller that went
// away is no fault of the store's.
func deadline(ctx context.Context, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var known *imprint.Error
	if errors.As(err, &known) {
		return err
	}
	return imprint.Errorf(imprint.CodeKeyUnavailable, "%w: %w", errTimeout, context.Cause(ctx))
}
