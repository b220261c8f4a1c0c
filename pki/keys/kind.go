package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strings"

	"github.com/imprint-iot/imprint"
)

// Kind is a kind of key.
type Kind string

// The kinds of keys that are made and opened. P-521 and Ed25519 aren't among them,
// because few devices and few tokens know them.
const (
	P256    Kind = "p256"
	P384    Kind = "p384"
	RSA2048 Kind = "rsa2048"
	RSA3072 Kind = "rsa3072"
	RSA4096 Kind = "rsa4096"
)

// Kinds lists all kinds.
func Kinds() []Kind { return []Kind{P256, P384, RSA2048, RSA3072, RSA4096} }

// ParseKind reads the name of a kind.
func ParseKind(text string) (Kind, error) {
	var names []string
	for _, kind := range Kinds() {
		if text == string(kind) {
			return kind, nil
		}
		names = append(names, string(kind))
	}
	return "", imprint.Errorf(imprint.CodeInvalidRequest, "key kind %q isn't one of %s", imprint.Excerpt(text), strings.Join(names, ", "))
}

// KindOf gives the kind of a public key; false for one that has none.
func KindOf(public crypto.PublicKey) (Kind, bool) {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return P256, true
		case elliptic.P384():
			return P384, true
		}
	case *rsa.PublicKey:
		switch key.N.BitLen() {
		case 2048:
			return RSA2048, true
		case 3072:
			return RSA3072, true
		case 4096:
			return RSA4096, true
		}
	}
	return "", false
}

// bits is the length of an RSA modulus, 0 for other kinds.
func (k Kind) bits() int {
	switch k {
	case RSA2048:
		return 2048
	case RSA3072:
		return 3072
	case RSA4096:
		return 4096
	}
	return 0
}

// NewKey makes a key in this process's memory.
func NewKey(kind Kind) (crypto.Signer, error) {
	_, err := ParseKind(string(kind))
	if err != nil {
		return nil, err
	}
	var key crypto.Signer
	switch {
	case kind == P256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case kind == P384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		key, err = rsa.GenerateKey(rand.Reader, kind.bits())
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't make a %s key: %w", kind, err)
	}
	return key, nil
}

// samePublic says whether two public keys are one.
func samePublic(a, b crypto.PublicKey) bool {
	comparable, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(b)
}
