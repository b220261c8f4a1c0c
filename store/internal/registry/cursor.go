package registry

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"github.com/imprint-iot/imprint"
)

// keyKind says which list a cursor is of and what its key columns are: a
// letter of its own, then i for each integer and s for each text.
type keyKind string

// maxCursor bounds a cursor's text. The longest key is a target of 2048 bytes.
const maxCursor = 4096

// cursorText is standard base64: the pattern that the AWS API sets for page
// markers allows nothing else.
var cursorText = base64.StdEncoding.Strict()

// writeCursor gives the opaque text of a key.
func writeCursor(kind keyKind, key []any) string {
	raw := append(make([]byte, 0, 64), kind[0])
	for _, part := range key {
		switch v := part.(type) {
		case int64:
			raw = binary.BigEndian.AppendUint64(raw, uint64(v))
		case string:
			raw = binary.AppendUvarint(raw, uint64(len(v)))
			raw = append(raw, v...)
		}
	}
	return cursorText.EncodeToString(raw)
}

// readCursor is the inverse of writeCursor. Errors: CodeInvalidRequest for
// everything that writeCursor doesn't give for a list of this kind.
func readCursor(kind keyKind, text string) ([]any, error) {
	if len(text) > maxCursor {
		return nil, errCursor()
	}
	raw, err := cursorText.DecodeString(text)
	if err != nil || len(raw) == 0 || raw[0] != kind[0] {
		return nil, errCursor()
	}
	raw = raw[1:]
	key := make([]any, 0, len(kind)-1)
	for _, column := range kind[1:] {
		if column == 'i' {
			if len(raw) < 8 {
				return nil, errCursor()
			}
			key = append(key, int64(binary.BigEndian.Uint64(raw)))
			raw = raw[8:]
			continue
		}
		size, n := binary.Uvarint(raw)
		if n <= 0 || size > uint64(len(raw)-n) || n > 1 && raw[n-1] == 0 {
			// The last case is a length that is written longer than it must be.
			return nil, errCursor()
		}
		part := string(raw[n : n+int(size)])
		if !utf8.ValidString(part) || strings.ContainsRune(part, 0) {
			return nil, errCursor()
		}
		key = append(key, part)
		raw = raw[n+int(size):]
	}
	if len(raw) != 0 {
		return nil, errCursor()
	}
	return key, nil
}

func errCursor() error {
	return imprint.Errorf(imprint.CodeInvalidRequest, "the page marker isn't one that this list gave").
		WithHint("Begin again without a marker, and send markers back unchanged.")
}
