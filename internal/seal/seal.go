// Package seal protects secrets at rest with AES-256-GCM under one master key.
//
//	key, err := seal.LoadOrCreateMasterKey(filepath.Join(data, "master.key"))
//	...
//	sealer := seal.New(key)
//	sealed, err := sealer.Seal(secret, []byte("access-key/AKIAEXAMPLE"))
//	secret, err = sealer.Open(sealed, []byte("access-key/AKIAEXAMPLE"))
//
// A sealed secret is
//
//	"imp" | version 1 | key id (8) | nonce (12) | ciphertext | tag (16)
//
// The first twelve bytes and the caller's context are authenticated as
// additional data (NIST SP 800-38D), so a secret sealed for one row can't be
// opened as another's, nor relabelled to another version or key. The key id is
// a one-way derivation of the master key; it is what tells a wrong key from a
// damaged secret. Formats written by one release are read by all later ones.
//
// Nonces are random. Under one master key at most 2^32 secrets should be sealed
// (SP 800-38D section 8.3); a server seals a few for each operator and CA.
//
// What it does not do: it does not hide a secret's length, and it does not
// protect against somebody who reads this process's memory. Buffers are zeroed
// where Go lets us; the runtime may have copied them before.
package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"github.com/imprint-iot/imprint"
)

const (
	magic     = "imp"
	version   = 1
	keyIDSize = 8
	headSize  = len(magic) + 1 + keyIDSize
	nonceSize = 12
	tagSize   = 16

	// Overhead is how much longer a sealed secret is than the plain one.
	Overhead = headSize + nonceSize + tagSize
	// MaxPlain is the length of the longest secret that can be sealed.
	MaxPlain = 1 << 20
)

// sealer holds only what New derived from the key; it is never written to and
// safe for concurrent use.
type sealer struct {
	aead cipher.AEAD
	head [headSize]byte
}

// New makes a Sealer of a master key, safe for concurrent use. The key may be
// destroyed afterwards.
//
// Seal fails with CodeInvalidRequest for secrets over MaxPlain. Open fails with
// CodeInternal and a hint: for what isn't a sealed secret, for another version,
// for another master key, and for damage or another context, which can't be
// told apart.
func New(key *Key) imprint.Sealer {
	block, err := aes.NewCipher(key.secret[:])
	if err != nil {
		return refusing{fmt.Errorf("couldn't set up AES-256: %w", err)}
	}
	// The random-nonce AEAD makes and prepends the nonce itself, so no caller
	// can repeat one.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return refusing{fmt.Errorf("couldn't set up GCM: %w", err)}
	}
	s := &sealer{aead: aead}
	copy(s.head[:], magic)
	s.head[len(magic)] = version
	id := key.id()
	copy(s.head[len(magic)+1:], id[:])
	return s
}

// Seal encrypts plain for context.
func (s *sealer) Seal(plain, context []byte) ([]byte, error) {
	if len(plain) > MaxPlain {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "a secret of %d bytes is too long to be sealed, at most %d are allowed", len(plain), MaxPlain)
	}
	out := make([]byte, headSize, len(plain)+Overhead)
	copy(out, s.head[:])
	return s.aead.Seal(out, nil, plain, s.additional(context)), nil
}

// Open decrypts what Seal made for the same context.
func (s *sealer) Open(sealed, context []byte) ([]byte, error) {
	if len(sealed) < Overhead || string(sealed[:len(magic)]) != magic {
		return nil, imprint.Errorf(imprint.CodeInternal, "couldn't open a sealed secret: %d bytes aren't one", len(sealed)).
			WithHint("The file or row was overwritten or cut short: restore it from a backup.")
	}
	if len(sealed) > MaxPlain+Overhead {
		return nil, imprint.Errorf(imprint.CodeInternal, "couldn't open a sealed secret: it is longer than %d bytes", MaxPlain+Overhead)
	}
	if got := sealed[len(magic)]; got != version {
		return nil, imprint.Errorf(imprint.CodeInternal, "couldn't open a sealed secret: it has format version %d, this release reads %d", got, version).
			WithHint("A newer release of Imprint wrote it: run that release.")
	}
	if !bytes.Equal(sealed[:headSize], s.head[:]) {
		return nil, imprint.Errorf(imprint.CodeInternal, "couldn't open a sealed secret: it was sealed under master key %x, the present one is %x",
			sealed[len(magic)+1:headSize], s.head[len(magic)+1:]).
			WithHint("Give the server the master key that belongs to this data directory: the key file of its backup, or the environment variable of its first start.")
	}
	plain, err := s.aead.Open(nil, nil, sealed[headSize:], s.additional(context))
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeInternal, "couldn't open a sealed secret: it is damaged or belongs elsewhere: %w", err).
			WithHint("The master key is the right one. Restore the file or row from a backup, and don't copy sealed secrets from one place to another.")
	}
	return plain, nil
}

func (s *sealer) additional(context []byte) []byte {
	return append(s.head[:len(s.head):len(s.head)], context...)
}

// refusing is the Sealer of a platform where AES-GCM can't be had.
type refusing struct{ err error }

func (r refusing) Seal(_, _ []byte) ([]byte, error) { return nil, r.err }
func (r refusing) Open(_, _ []byte) ([]byte, error) { return nil, r.err }

func (k *Key) id() [keyIDSize]byte {
	mac := hmac.New(sha256.New, k.secret[:])
	mac.Write([]byte("imprint master key id"))
	var id [keyIDSize]byte
	copy(id[:], mac.Sum(nil))
	return id
}
