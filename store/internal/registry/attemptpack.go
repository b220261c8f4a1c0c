package registry

import (
	_ "embed"
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"
)

// attemptWords are the words that bodies of attempts have in common. They belong to what is
// stored: bodies that were packed with them can't be read with others, so a better list
// is one more file with a mark of its own.
//
//go:embed attemptwords.txt
var attemptWords []byte

// packedBody is the first byte of a body that is packed with attemptWords: a block of S2
// follows. Bodies of before are JSON, which begins with a brace.
const packedBody = 1

// maxBody bounds what a packed body is unpacked to, in bytes. The largest have some hundred
// steps of 2 KiB.
const maxBody = 16 << 20

var attemptDict = sync.OnceValue(func() *s2.Dict { return s2.MakeDict(attemptWords, nil) })

// packBody appends a packed body: it is a quarter as long, and what an attempt costs goes
// by the pages that it fills.
func packBody(dst, body []byte) []byte {
	start := len(dst) + 1
	need := start + s2.MaxEncodedLen(len(body))
	if cap(dst) < need {
		grown := make([]byte, len(dst), need)
		copy(grown, dst)
		dst = grown
	}
	dst = append(dst, packedBody)
	return dst[:start+len(attemptDict().Encode(dst[start:need], body))]
}

// unpackBody gives the JSON of a stored body.
func unpackBody(stored []byte) ([]byte, error) {
	if len(stored) == 0 || stored[0] != packedBody {
		return stored, nil
	}
	n, err := s2.DecodedLen(stored[1:])
	if err != nil {
		return nil, fmt.Errorf("couldn't unpack: %w", err)
	}
	if n > maxBody {
		return nil, fmt.Errorf("couldn't unpack: it would have %d bytes", n)
	}
	body, err := attemptDict().Decode(nil, stored[1:])
	if err != nil {
		return nil, fmt.Errorf("couldn't unpack: %w", err)
	}
	return body, nil
}
