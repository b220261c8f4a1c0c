package ceremony

import (
	"crypto/rand"
	"errors"
)

// Shamir's secret sharing (How to Share a Secret, 1979), byte by byte over GF(2^8) with
// the polynomial of AES, x^8 + x^4 + x^3 + x + 1. A polynomial of degree threshold-1 has
// the secret at 0; share x is its value at x. No table is looked into and no branch taken
// that depends on a secret.

// mul multiplies in the field.
func mul(a, b byte) byte {
	var product byte
	for range 8 {
		product ^= a & -(b & 1)
		carry := -(a >> 7)
		a = a<<1 ^ carry&0x1b
		b >>= 1
	}
	return product
}

// inverse gives a^254, which is 1/a, and 0 for 0.
func inverse(a byte) byte {
	result := byte(1)
	// 254 is 11111110 in binary.
	for range 7 {
		a = mul(a, a)
		result = mul(result, a)
	}
	return result
}

// split gives shares 1 to total of a secret, any threshold of which give it back.
func split(secret []byte, threshold, total int) ([][]byte, error) {
	if threshold < 2 || total < threshold || total > 255 || len(secret) == 0 {
		return nil, errors.New("couldn't split the key: at least 2 and at most all of 255 shares must be needed")
	}
	shares := make([][]byte, total)
	for x := range shares {
		shares[x] = make([]byte, len(secret))
	}
	coefficients := make([]byte, threshold)
	defer clear(coefficients)
	for at := range secret {
		_, _ = rand.Read(coefficients) // never fails
		coefficients[0] = secret[at]
		for x := range shares {
			var y byte
			for n := threshold - 1; n >= 0; n-- {
				y = mul(y, byte(x+1)) ^ coefficients[n]
			}
			shares[x][at] = y
		}
	}
	return shares, nil
}

// combine gives the secret from shares by their numbers: the polynomial's value at 0
// (Lagrange). With too few, or others' shares, it gives something else.
func combine(shares map[byte][]byte) []byte {
	var secret []byte
	for x, share := range shares {
		weight := byte(1)
		for other := range shares {
			if other != x {
				weight = mul(weight, mul(other, inverse(other^x)))
			}
		}
		if secret == nil {
			secret = make([]byte, len(share))
		}
		for at := range min(len(secret), len(share)) {
			secret[at] ^= mul(share[at], weight)
		}
	}
	return secret
}
