package registry

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/s2"

	"github.com/imprint-iot/imprint"
)

// attemptWords are the texts that attempts have in common, in the order in which bodyWriter
// writes them; its lines end for those who read it alone. They belong to what is stored: what
// was packed with them can't be read with others, so a better list is one more file, with a
// mark of its own.
//
//go:embed attemptwords.txt
var attemptWords []byte

var attemptDict = sync.OnceValue(func() *s2.Dict { return s2.MakeDict(bytes.ReplaceAll(attemptWords, []byte("\n"), nil), nil) })

// The first byte of a body. Bodies of before are JSON, which begins with a brace, or
// packedJSON and a block of S2. Now it is packedBody, the number of bytes of the numbers, the
// numbers, and the texts as a block of S2.
const (
	packedJSON = 1
	packedBody = 2
)

// maxBody bounds what a packed body is unpacked to, in bytes. The largest have some hundred
// steps of 2 KiB.
const maxBody = 16 << 20

// packBody appends a packed body: what an attempt costs goes by the pages that it fills.
func packBody(dst []byte, body *bodyWriter) []byte {
	dst = append(dst, packedBody)
	dst = binary.AppendUvarint(dst, uint64(len(body.numbers)))
	dst = append(dst, body.numbers...)
	dst = slices.Grow(dst, s2.MaxEncodedLen(len(body.texts)))
	return dst[:len(dst)+len(attemptDict().Encode(dst[len(dst):cap(dst)], body.texts))]
}

// readBody reads a stored body into an attempt, whose time is known.
func readBody(stored []byte, a *imprint.Attempt) error {
	if len(stored) == 0 || stored[0] != packedBody {
		return readJSON(stored, a)
	}
	n, length := binary.Uvarint(stored[1:])
	rest := stored[1+max(length, 0):]
	if length <= 0 || n > uint64(len(rest)) {
		return errCutBody
	}
	texts, err := unpack(attemptDict(), rest[n:])
	if err != nil {
		return err
	}
	r := bodyReader{numbers: rest[:n], texts: string(texts)}
	return r.read(a)
}

// unpack gives what was packed with the words of a dictionary.
func unpack(words *s2.Dict, block []byte) ([]byte, error) {
	n, err := s2.DecodedLen(block)
	if err != nil {
		return nil, fmt.Errorf("couldn't unpack: %w", err)
	}
	if n > maxBody {
		return nil, fmt.Errorf("couldn't unpack: it would have %d bytes", n)
	}
	unpacked, err := words.Decode(nil, block)
	if err != nil {
		return nil, fmt.Errorf("couldn't unpack: %w", err)
	}
	return unpacked, nil
}
