package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1" // of Debian's lists
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"unicode"

	_ "embed" // for publishedkeys.txt

	"github.com/imprint-iot/imprint"
)

// rocaPrimes are the primes whose product divides that of the vulnerable generator,
// whatever the key's length: the moduli are powers of 65537 modulo each of them
// (Nemec and others, "The Return of Coppersmith's Attack", section 3.1).
var rocaPrimes = []uint64{3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167}

// rocaResidues has, for each prime, the residues that a vulnerable modulus may have.
var rocaResidues = sync.OnceValue(func() []map[uint64]bool {
	all := make([]map[uint64]bool, len(rocaPrimes))
	for i, p := range rocaPrimes {
		all[i] = map[uint64]bool{}
		for r := uint64(1); !all[i][r]; r = r * 65537 % p {
			all[i][r] = true
		}
	}
	return all
})

// ROCA says whether a key has the fingerprint of CVE-2017-15361. One key in 2^27
// that isn't vulnerable has it by chance.
func ROCA(key crypto.PublicKey) bool {
	pub, isRSA := key.(*rsa.PublicKey)
	if !isRSA {
		return false
	}
	modulus := pub.N.Bytes()
	for i, p := range rocaPrimes {
		rest := uint64(0)
		for _, word := range modulus {
			rest = (rest<<8 | uint64(word)) % p
		}
		if !rocaResidues()[i][rest] {
			return false
		}
	}
	return true
}

// fermatRounds is how many steps of Fermat's method are tried: enough for primes that a
// broken generator took from one neighbourhood (CVE-2022-26320), and some microseconds.
const fermatRounds = 100

// closePrimes says whether the two primes of a modulus are so close that Fermat's
// method finds them at once.
func closePrimes(n *big.Int) bool {
	a := new(big.Int).Sqrt(n)
	one := big.NewInt(1)
	if new(big.Int).Mul(a, a).Cmp(n) < 0 {
		a.Add(a, one)
	}
	square, root := new(big.Int), new(big.Int)
	for range fermatRounds {
		square.Mul(a, a)
		square.Sub(square, n)
		root.Sqrt(square)
		if root.Mul(root, root).Cmp(square) == 0 {
			return true
		}
		a.Add(a, one)
	}
	return false
}

// smallPrimes is the product of the primes below 752, as CAs must divide by (NIST SP
// 800-89 section 5.3.3).
var smallPrimes = sync.OnceValue(func() *big.Int {
	product := big.NewInt(1)
	for n := int64(2); n < 752; n++ {
		if big.NewInt(n).ProbablyPrime(0) {
			product.Mul(product, big.NewInt(n))
		}
	}
	return product
})

// KnownKeys is a list of keys that nobody may use, because their private halves are
// public: by the SHA-256 of their SubjectPublicKeyInfo. Each knows the built-in ones, from
// RFCs and the test data of TLS libraries; so does a nil one.
type KnownKeys struct {
	hashes map[[sha256.Size]byte]string
	// moduli are RSA keys as openssl-vulnkey lists them.
	moduli map[modulusSum]string
}

// modulusSum is what the lists of Debian's openssl-blacklist have of an RSA key: the last ten
// octets of the SHA-1 of what `openssl rsa -noout -modulus` prints, "Modulus=", the modulus in
// capital hexadecimal, and a line feed.
type modulusSum [10]byte

func sumOfModulus(key *rsa.PublicKey) modulusSum {
	sum := sha1.Sum(fmt.Appendf(nil, "Modulus=%X\n", key.N))
	return modulusSum(sum[len(sum)-len(modulusSum{}):])
}

//go:embed publishedkeys.txt
var publishedText string

// published are the built-in ones. That the list can be read, a test ensures.
var published = sync.OnceValue(func() *KnownKeys {
	k, err := NewKnownKeys(publishedText)
	if err != nil {
		panic(err)
	}
	return k
})

// NewKnownKeys reads a list: a line each of the lowercase hex SHA-256 of a
// SubjectPublicKeyInfo, or a modulusSum, and, after white space, words about it. Empty lines
// and those that begin with # don't count. Errors: CodeInvalidRequest, with the line.
func NewKnownKeys(text string) (*KnownKeys, error) {
	k := &KnownKeys{hashes: map[[sha256.Size]byte]string{}, moduli: map[modulusSum]string{}}
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		hash, words := line, ""
		if at := strings.IndexFunc(line, unicode.IsSpace); at >= 0 {
			hash, words = line[:at], line[at:]
		}
		words = strings.TrimSpace(words)
		raw, err := hex.DecodeString(hash)
		switch {
		case err == nil && len(raw) == sha256.Size:
			k.hashes[[sha256.Size]byte(raw)] = words
		case err == nil && len(raw) == len(modulusSum{}):
			k.moduli[modulusSum(raw)] = words
		default:
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "line %d of the list of known keys doesn't begin with a SHA-256 in hexadecimal, or with 20 digits of openssl-vulnkey's", n+1).
				WithHint("openssl pkey -pubin -in key.pem -outform der | sha256sum")
		}
	}
	return k, nil
}

// Refusal says why a key isn't accepted; nil when it isn't on the list.
func (k *KnownKeys) Refusal(spki []byte) *imprint.Error {
	hash := sha256.Sum256(spki)
	words, found := published().hashes[hash]
	if !found && k != nil {
		words, found = k.hashes[hash]
	}
	if !found && k != nil && len(k.moduli) > 0 {
		public, err := x509.ParsePKIXPublicKey(spki)
		if key, isRSA := public.(*rsa.PublicKey); err == nil && isRSA {
			words, found = k.moduli[sumOfModulus(key)]
		}
	}
	if !found {
		return nil
	}
	if words != "" {
		words = " (" + imprint.Excerpt(words) + ")"
	}
	return weak("the key's private half is known to others%s", words).WithHint("Make a new key on the device, and find out who gave it this one.")
}

// WeakKey says why nobody should trust a key whose kind and size are right; nil when
// nothing is known against it. Code: CodeCertificateWeak.
func WeakKey(key crypto.PublicKey) *imprint.Error {
	switch pub := key.(type) {
	case *rsa.PublicKey:
		return weakRSA(pub)
	case *ecdsa.PublicKey:
		// Reading a key checks that its point is on the curve; one that was made in
		// memory may not be.
		_, err := pub.ECDH()
		if err != nil {
			return weak("the key isn't a point of its curve").WithHint("Make a new key: openssl ecparam -genkey -name prime256v1 -noout")
		}
	case ed25519.PublicKey:
		if len(pub) != ed25519.PublicKeySize || bytes.Equal(pub, make([]byte, len(pub))) {
			return weak("the Ed25519 key isn't one").WithHint("Make a new key: openssl genpkey -algorithm ed25519")
		}
	}
	return nil
}

func weakRSA(key *rsa.PublicKey) *imprint.Error {
	fix := "Make a new key with another program: openssl genrsa 2048"
	switch {
	case ROCA(key):
		return weak("the RSA key was made by a library of Infineon's whose private keys can be computed from the public ones (CVE-2017-15361)").
			WithHint("Update the chip's firmware, or make keys outside of it. One sound key in 2^27 looks like this by chance: make another one.")
	case new(big.Int).GCD(nil, nil, key.N, smallPrimes()).Cmp(big.NewInt(1)) != 0:
		return weak("a prime below 752 divides the RSA key's modulus").WithHint("%s", fix)
	case closePrimes(key.N):
		return weak("the RSA key's primes are so close that they can be computed (CVE-2022-26320)").WithHint("%s", fix)
	}
	return nil
}

// KeyHash names a public key: the lowercase hex SHA-256 of its SubjectPublicKeyInfo.
func KeyHash(key crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", invalid("couldn't encode the public key: %w", err)
	}
	return hashOf(spki), nil
}

func hashOf(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}
