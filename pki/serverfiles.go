package pki

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
)

// ServerFiles are server certificates that somebody else makes: files with a
// certificate chain each, leaf first, and files with their private keys, all in
// PEM. There is one pair, or an ECDSA and an RSA pair, in any order.
type ServerFiles struct {
	certificates, keys []string
	clock              imprint.Clock
}

// NewServerFiles pairs the first certificate with the first key, and so on.
func NewServerFiles(certificates, keys []string, clock imprint.Clock) (*ServerFiles, error) {
	if len(certificates) != len(keys) {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "%d certificate file(s) and %d key file(s) make no pairs", len(certificates), len(keys)).
			WithHint("Give one --tls-key for each --tls-certificate, in the same order.")
	}
	if len(certificates) < 1 || len(certificates) > 2 {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "%d server certificates were given, one or two can be used", len(certificates)).
			WithHint("Give one certificate, or an ECDSA and an RSA certificate.")
	}
	return &ServerFiles{certificates: certificates, keys: keys, clock: clock}, nil
}

// Paths lists all files.
func (s *ServerFiles) Paths() []string {
	return append(append([]string(nil), s.certificates...), s.keys...)
}

// Load reads the files anew. A single pair is given as both. What clients
// couldn't use is refused: a file that can't be read, a key that doesn't belong
// to its certificate, a certificate that is out of its time, two of one kind.
func (s *ServerFiles) Load() (ecdsaPair, rsaPair tls.Certificate, err error) {
	var loaded []tls.Certificate
	for n := range s.certificates {
		pair, err := s.load(s.certificates[n], s.keys[n])
		if err != nil {
			return tls.Certificate{}, tls.Certificate{}, err
		}
		loaded = append(loaded, pair)
	}
	if len(loaded) == 1 {
		return loaded[0], loaded[0], nil
	}
	first, second := isRSA(loaded[0]), isRSA(loaded[1])
	switch {
	case first == second:
		return tls.Certificate{}, tls.Certificate{}, imprint.Errorf(imprint.CodeInvalidRequest, "%s and %s have keys of one kind", s.certificates[0], s.certificates[1]).
			WithHint("Of two server certificates one must be ECDSA and the other RSA.")
	case first:
		return loaded[1], loaded[0], nil
	default:
		return loaded[0], loaded[1], nil
	}
}

func isRSA(c tls.Certificate) bool {
	_, ok := c.PrivateKey.(*rsa.PrivateKey)
	return ok
}

func (s *ServerFiles) load(certificate, key string) (tls.Certificate, error) {
	chain, err := readBounded(certificate)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("couldn't read the server certificate %s: %w", certificate, err)
	}
	private, err := readBounded(key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("couldn't read the server's key %s: %w", key, err)
	}
	defer clear(private)
	pair, err := tls.X509KeyPair(chain, private)
	if err != nil {
		return tls.Certificate{}, imprint.Errorf(imprint.CodeInvalidRequest, "couldn't use %s with %s: %w", certificate, key, err).
			WithHint("Both must be PEM, the certificate first in its file, and the key its own: compare openssl x509 -pubkey with openssl pkey -pubout.")
	}
	switch pair.PrivateKey.(type) {
	case *rsa.PrivateKey, *ecdsa.PrivateKey:
	default:
		return tls.Certificate{}, imprint.Errorf(imprint.CodeInvalidRequest, "%s has a key that is neither RSA nor ECDSA", certificate).
			WithHint("Devices can't verify it; make a P-256 or an RSA key.")
	}
	now := s.clock()
	if now.After(pair.Leaf.NotAfter) || now.Before(pair.Leaf.NotBefore) {
		return tls.Certificate{}, imprint.Errorf(imprint.CodeInvalidRequest, "%s is valid from %s to %s, and it is %s", certificate,
			pair.Leaf.NotBefore.UTC().Format(time.RFC3339), pair.Leaf.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)).
			WithHint("Renew it, or look at the clock.")
	}
	return pair, nil
}

// Missing lists the names that a server certificate doesn't stand for.
func Missing(leaf *x509.Certificate, names []string) []string {
	var missing []string
	for _, name := range names {
		if leaf.VerifyHostname(name) != nil {
			missing = append(missing, name)
		}
	}
	return missing
}
