package ceremony

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/seal"
)

// A share is written as IMPS- and groups of four characters of Crockford's base 32, which
// has no I, L, O and U: version, set, threshold, number of the share, its bytes, and a
// check of four bytes, so that what was mistyped is told at once.
const (
	shareMark    = "IMPS"
	shareVersion = 1
	setSize      = 4
	checkSize    = 4
	shareSize    = 1 + setSize + 2 + seal.KeySize + checkSize
	// maxShareText bounds what is read as a share.
	maxShareText = 1024
)

var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// share is one holder's part of the key that seals the CA keys.
type share struct {
	set       [setSize]byte // which key it is a part of
	threshold byte
	number    byte
	value     []byte
}

func (s share) destroy() { clear(s.value) }

// setOf names a key without telling it: a hash of it, of which 2^224 keys have the same.
func setOf(key []byte) [setSize]byte {
	sum := sha256.Sum256(append([]byte("imprint/ceremony/set\x00"), key...))
	return [setSize]byte(sum[:setSize])
}

func (s share) encode() []byte {
	raw := append(make([]byte, 0, shareSize), shareVersion)
	raw = append(raw, s.set[:]...)
	raw = append(raw, s.threshold, s.number)
	raw = append(raw, s.value...)
	raw = append(raw, check(raw)...)
	defer clear(raw)
	text := make([]byte, crockford.EncodedLen(len(raw)))
	defer clear(text)
	crockford.Encode(text, raw)
	out := append(make([]byte, 0, 2*len(text)), shareMark...)
	for n, c := range text {
		if n%4 == 0 {
			out = append(out, '-')
		}
		out = append(out, c)
	}
	return out
}

func check(raw []byte) []byte {
	sum := sha256.Sum256(append([]byte("imprint/ceremony/share\x00"), raw...))
	return sum[:checkSize]
}

// parseShare reads what encode wrote, and what people make of it: lower case, spaces, O for
// 0, I and L for 1. Errors never repeat any of it.
func parseShare(text []byte) (share, error) {
	bad := func(format string, args ...any) (share, error) {
		return share{}, imprint.Errorf(imprint.CodeInvalidRequest, "that isn't a share: "+format, args...).
			WithHint("A share begins with %s- and has 18 groups of four letters and digits.", shareMark)
	}
	if len(text) > maxShareText {
		return bad("it is too long")
	}
	plain := make([]byte, 0, len(text))
	defer func() { clear(plain) }()
	for _, c := range bytes.ToUpper(text) {
		switch {
		case c == '-' || c == ' ' || c == '\t' || c == '\r' || c == '\n':
			continue
		case c == 'O' && len(plain) >= len(shareMark):
			c = '0'
		case (c == 'I' || c == 'L') && len(plain) >= len(shareMark):
			c = '1'
		}
		plain = append(plain, c)
	}
	body, found := bytes.CutPrefix(plain, []byte(shareMark))
	if !found {
		return bad("it doesn't begin with %s", shareMark)
	}
	if len(body) != crockford.EncodedLen(shareSize) {
		return bad("it has %d characters behind %s, not %d", len(body), shareMark, crockford.EncodedLen(shareSize))
	}
	raw := make([]byte, shareSize)
	defer clear(raw)
	_, err := crockford.Decode(raw, body)
	again := make([]byte, len(body))
	crockford.Encode(again, raw)
	defer clear(again)
	at := shareSize - checkSize
	if err != nil || !bytes.Equal(again, body) || !bytes.Equal(check(raw[:at]), raw[at:]) {
		return bad("a character of it is wrong")
	}
	if raw[0] != shareVersion || raw[1+setSize] < 2 || raw[2+setSize] == 0 {
		return bad("it is of another version of Imprint")
	}
	return share{
		set: [setSize]byte(raw[1:]), threshold: raw[1+setSize], number: raw[2+setSize], value: bytes.Clone(raw[3+setSize : at]),
	}, nil
}

// shares collects those that holders give, until there are enough.
type shares struct {
	set   *[setSize]byte // that they must be of; nil: that of the first
	given map[byte]share
}

// add takes one more. An error leaves the others as they are.
func (s *shares) add(one share) error {
	if s.given == nil {
		s.given = map[byte]share{}
	}
	if s.set != nil && one.set != *s.set {
		return imprint.Errorf(imprint.CodeInvalidRequest, "share %d is of another key: it belongs to set %X, and set %X is wanted", one.number, one.set, *s.set).
			WithHint("Look at the label of the share: each ceremony that makes shares makes a set of its own.")
	}
	for _, other := range s.given {
		if other.threshold != one.threshold {
			return imprint.Errorf(imprint.CodeInvalidRequest, "share %d says that %d are needed, the others say %d", one.number, one.threshold, other.threshold)
		}
	}
	if before, twice := s.given[one.number]; twice {
		if bytes.Equal(before.value, one.value) {
			return imprint.Errorf(imprint.CodeInvalidRequest, "share %d was given before", one.number).WithHint("Each of the %d must be another one.", one.threshold)
		}
		return imprint.Errorf(imprint.CodeInvalidRequest, "there are two different shares with the number %d", one.number).WithHint("One of both is forged.")
	}
	s.given[one.number] = one
	s.set = &one.set
	return nil
}

// missing is how many more are needed; 1 or more while there are none.
func (s *shares) missing() int {
	for _, one := range s.given {
		return int(one.threshold) - len(s.given)
	}
	return 1
}

// key gives the key. Errors: CodeInvalidRequest for too few, and for shares that don't
// belong together although they say so.
func (s *shares) key() ([]byte, error) {
	if n := s.missing(); n > 0 {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "%d share(s) were given, and %d more are needed", len(s.given), n)
	}
	values := map[byte][]byte{}
	for number, one := range s.given {
		values[number] = one.value
	}
	key := combine(values)
	if setOf(key) != *s.set {
		clear(key)
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the shares don't make the key of set %X: at least one of them is forged", *s.set).
			WithHint("Try other holders' shares.")
	}
	return key, nil
}

func (s *shares) destroy() {
	for _, one := range s.given {
		one.destroy()
	}
}

// numbers lists who gave shares.
func (s *shares) numbers() []int {
	var all []int
	for n := range 256 {
		if _, found := s.given[byte(n)]; found {
			all = append(all, n)
		}
	}
	return all
}

// Label is what is written on the outside of a share: it tells no secret.
func Label(text []byte) (string, error) {
	one, err := parseShare(text)
	if err != nil {
		return "", err
	}
	defer one.destroy()
	return fmt.Sprintf("share %d of set %X, of which %d are needed", one.number, one.set, one.threshold), nil
}

// Spoken gives a fingerprint as it is read aloud and compared: in groups of four digits,
// and below each line its digits as words.
func Spoken(sum []byte) string {
	const perLine = 8 // bytes
	var b strings.Builder
	for at := 0; at < len(sum); at += perLine {
		part := sum[at:min(at+perLine, len(sum))]
		var groups, words []string
		for n := 0; n < len(part); n += 2 {
			group := fmt.Sprintf("%x", part[n:min(n+2, len(part))])
			groups = append(groups, group)
			var said []string
			for _, c := range group {
				said = append(said, digitWords[c])
			}
			words = append(words, strings.Join(said, " "))
		}
		fmt.Fprintf(&b, "  %2d  %s\n      %s\n", at/perLine+1, strings.Join(groups, " "), strings.Join(words, ", "))
	}
	return b.String()
}

// digitWords are the digits as radio operators say them.
var digitWords = map[rune]string{
	'0': "zero", '1': "one", '2': "two", '3': "three", '4': "four", '5': "five", '6': "six", '7': "seven", '8': "eight", '9': "nine",
	'a': "alfa", 'b': "bravo", 'c': "charlie", 'd': "delta", 'e': "echo", 'f': "foxtrot",
}
