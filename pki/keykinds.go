package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"slices"
	"strings"
)

// knownKeyKinds are all kinds that a profile may name.
var knownKeyKinds = []KeyKind{KeyP256, KeyP384, KeyP521, KeyRSA2048, KeyRSA3072, KeyRSA4096, KeyEd25519}

func knownKind(kind KeyKind) bool { return slices.Contains(knownKeyKinds, kind) }

// KeyKindOf gives the kind of a public key; of an RSA key the largest that it reaches.
// It is empty for what no kind fits.
func KeyKindOf(key crypto.PublicKey) KeyKind {
	switch pub := key.(type) {
	case *rsa.PublicKey:
		switch bits := pub.N.BitLen(); {
		case bits >= 4096:
			return KeyRSA4096
		case bits >= 3072:
			return KeyRSA3072
		case bits >= 2048:
			return KeyRSA2048
		}
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256():
			return KeyP256
		case elliptic.P384():
			return KeyP384
		case elliptic.P521():
			return KeyP521
		}
	case ed25519.PublicKey:
		return KeyEd25519
	}
	return ""
}

func joinKinds(kinds []KeyKind) string {
	texts := make([]string, len(kinds))
	for n, kind := range kinds {
		texts[n] = string(kind)
	}
	return strings.Join(texts, ", ")
}
