package ceremony

import (
	"bytes"
	"crypto/rand"
	"math/bits"
	"testing"
)

// slowMul is long multiplication and division of polynomials, to compare with.
func slowMul(a, b byte) byte {
	var product uint16
	for n := range 8 {
		if b>>n&1 == 1 {
			product ^= uint16(a) << n
		}
	}
	for bits.Len16(product) > 8 {
		product ^= 0x11b << (bits.Len16(product) - 9)
	}
	return byte(product)
}

// The field is that of AES: every product, and the examples of FIPS 197 section 4.2.
func TestTheFieldIsThatOfAES(t *testing.T) {
	t.Parallel()
	for _, v := range [][3]byte{{0x57, 0x83, 0xc1}, {0x57, 0x13, 0xfe}, {0x57, 0x02, 0xae}, {0x57, 0x10, 0x07}, {0x53, 0xca, 0x01}} {
		if got := mul(v[0], v[1]); got != v[2] {
			t.Errorf("%x times %x: got %x, want %x", v[0], v[1], got, v[2])
		}
	}
	for a := range 256 {
		for b := range 256 {
			if got, want := mul(byte(a), byte(b)), slowMul(byte(a), byte(b)); got != want {
				t.Fatalf("%x times %x: got %x, want %x", a, b, got, want)
			}
		}
		if a > 0 && mul(byte(a), inverse(byte(a))) != 1 {
			t.Errorf("the inverse of %x is wrong", a)
		}
	}
	// 5 + 3x: computed by hand.
	if got := combine(map[byte][]byte{1: {0x06}, 2: {0x03}}); got[0] != 5 {
		t.Errorf("got %x, want 5", got)
	}
	// 0x2a + 0x10x + 0x01x^2 at 1, 2, 3: 2a^10^01, 2a^20^04, 2a^30^05.
	if got := combine(map[byte][]byte{1: {0x3b}, 2: {0x0e}, 3: {0x1f}}); got[0] != 0x2a {
		t.Errorf("got %x, want 2a", got)
	}
}

// Any threshold of the shares give the secret, fewer give no hint of it: whatever the
// secret is, one share less fits each value as well.
func TestEnoughSharesGiveTheSecretAndFewerNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ threshold, total int }{{2, 2}, {2, 3}, {3, 5}, {5, 5}, {4, 7}, {2, 255}} {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret)
		all, err := split(secret, c.threshold, c.total)
		if err != nil {
			t.Fatal(err)
		}
		for trial := range 40 {
			chosen := map[byte][]byte{}
			for n := 0; len(chosen) < c.threshold; n++ {
				x := (trial*7 + n*(trial+1)) % c.total
				for chosen[byte(x+1)] != nil {
					x = (x + 1) % c.total
				}
				chosen[byte(x+1)] = all[x]
			}
			if !bytes.Equal(combine(chosen), secret) {
				t.Fatalf("%d of %d: %d shares don't give the secret", c.threshold, c.total, len(chosen))
			}
			for x := range chosen {
				delete(chosen, x)
				break
			}
			if bytes.Equal(combine(chosen), secret) {
				t.Fatalf("%d of %d: one less gives the secret", c.threshold, c.total)
			}
		}
	}
	// With one byte, what two of three shares leave open can be counted.
	shares, err := split([]byte{7}, 3, 3)
	if err != nil {
		t.Fatal(err)
	}
	possible := map[byte]bool{}
	for third := range 256 {
		possible[combine(map[byte][]byte{1: shares[0], 2: shares[1], 3: {byte(third)}})[0]] = true
	}
	if len(possible) != 256 {
		t.Errorf("two of three shares leave %d of 256 values", len(possible))
	}
	for _, c := range []struct{ threshold, total int }{{1, 3}, {4, 3}, {0, 0}, {2, 256}} {
		_, err = split([]byte{1}, c.threshold, c.total)
		if err == nil {
			t.Errorf("%d of %d is split", c.threshold, c.total)
		}
	}
}
