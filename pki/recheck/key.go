package recheck

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"slices"
	"strings"
)

// key checks the public key: its kind, its size, and what is known against it.
func (i *inspection) key() {
	parsed, err := x509.ParsePKIXPublicKey(i.c.spki)
	if err != nil {
		i.wrong("its key can't be read: %v", err)
		return
	}
	kind := ""
	switch key := parsed.(type) {
	case *rsa.PublicKey:
		kind = i.rsa(key)
	case *ecdsa.PublicKey:
		kind = i.ecdsa(key)
	case ed25519.PublicKey:
		kind = "ed25519"
		if i.rules.RefuseEd25519 {
			i.wrong("its key is an Ed25519 key, which profile %s refuses", i.rules.Name)
		}
	default:
		i.wrong("its key is a %T", parsed)
	}
	if len(i.rules.Keys) > 0 && kind != "" && !slices.Contains(i.rules.Keys, kind) {
		i.wrong("its key is of the kind %s, and profile %s takes %s", kind, i.rules.Name, strings.Join(i.rules.Keys, ", "))
	}
	if i.signer != nil && i.rules.Kind != kindRoot && string(i.signer.spki) == string(i.c.spki) {
		i.wrong("its key is its CA's own")
	}
}

// rocaPrimes: modulo each of them the moduli of CVE-2017-15361 are powers of 65537.
var rocaPrimes = []int64{3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167}

func roca(n *big.Int) bool {
	for _, p := range rocaPrimes {
		rest := new(big.Int).Mod(n, big.NewInt(p)).Int64()
		power, found := int64(1), false
		for range p {
			found = found || power == rest
			power = power * (65537 % p) % p
		}
		if !found {
			return false
		}
	}
	return true
}

func (i *inspection) rsa(key *rsa.PublicKey) string {
	bits := key.N.BitLen()
	if bits < 2048 || bits > 8192 || key.N.Bit(0) == 0 || key.E < 3 || key.E&1 == 0 {
		i.wrong("its RSA key has %d bits and the exponent %d", bits, key.E)
		return "" // what follows takes long with a key of a stranger's size
	}
	if roca(key.N) {
		i.wrong("its RSA key has the fingerprint of CVE-2017-15361")
	}
	for p := int64(3); p < 752; p += 2 {
		if new(big.Int).Mod(key.N, big.NewInt(p)).Sign() == 0 {
			i.wrong("%d divides the modulus of its RSA key", p)
			break
		}
	}
	// Fermat's method, for primes that are neighbours (CVE-2022-26320).
	a := new(big.Int).Sqrt(key.N)
	for range 100 {
		rest := new(big.Int).Mul(a, a)
		if rest.Sub(rest, key.N).Sign() >= 0 {
			root := new(big.Int).Sqrt(rest)
			if root.Mul(root, root).Cmp(rest) == 0 {
				i.wrong("the primes of its RSA key are neighbours")
				break
			}
		}
		a.Add(a, big.NewInt(1))
	}
	switch {
	case bits >= 4096:
		return "rsa4096"
	case bits >= 3072:
		return "rsa3072"
	}
	return "rsa2048"
}

func (i *inspection) ecdsa(key *ecdsa.PublicKey) string {
	kind, curve := "", ecdh.Curve(nil)
	switch key.Curve {
	case elliptic.P256():
		kind, curve = "p256", ecdh.P256()
	case elliptic.P384():
		kind, curve = "p384", ecdh.P384()
	case elliptic.P521():
		kind, curve = "p521", ecdh.P521()
	default:
		i.wrong("its key is on the curve %s", key.Curve.Params().Name)
		return ""
	}
	_, err := curve.NewPublicKey(i.c.keyBits)
	if err != nil {
		i.wrong("its key isn't a point of its curve: %v", err)
	}
	return kind
}
