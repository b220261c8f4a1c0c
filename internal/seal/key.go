package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/durable"
)

// KeySize is the length of a master key in bytes.
const KeySize = 32

// maxKeyFile bounds what is read of a key file: the key itself takes 45 bytes.
const maxKeyFile = 256

// Key is a master key. It never prints itself.
type Key struct{ secret [KeySize]byte }

// String hides the key.
func (k *Key) String() string { return "seal.Key(hidden)" }

// GoString hides the key.
func (k *Key) GoString() string { return k.String() }

// Format hides the key, whatever the verb.
func (k *Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// MarshalText refuses: a master key goes to its own file alone.
func (k *Key) MarshalText() ([]byte, error) {
	return nil, errors.New("couldn't encode a master key: it is never written out")
}

// Destroy overwrites the key.
func (k *Key) Destroy() { clear(k.secret[:]) }

// ParseMasterKey reads a master key from its text: 32 bytes in standard base64,
// 44 characters, with surrounding white space. It is the form of the key file
// and of the environment variable. Errors: CodeInvalidRequest with a hint; they
// never quote the text.
func ParseMasterKey(text string) (*Key, error) { return parseKey([]byte(text)) }

func parseKey(text []byte) (*Key, error) {
	text = bytes.TrimSpace(text)
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	defer clear(raw)
	n, err := base64.StdEncoding.Strict().Decode(raw, text)
	if err != nil || n != KeySize || bytes.ContainsAny(text, "\r\n") {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the master key isn't %d bytes in base64", KeySize).
			WithHint("Make one with: openssl rand -base64 %d", KeySize)
	}
	key := &Key{}
	copy(key.secret[:], raw[:n])
	return key, nil
}

// LoadMasterKey reads the key file at path. It must be a regular file that
// nobody but its owner can read (mode 0600 or stricter). An absent file is
// fs.ErrNotExist; all else that is wrong with it is CodeInvalidRequest with a
// hint.
func LoadMasterKey(path string) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("couldn't open the master key: %w", err)
	}
	key, err := readKey(f)
	return key, errors.Join(err, f.Close())
}

func readKey(f *os.File) (*Key, error) {
	// Asked of the open file, so that nobody can swap it in between.
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("couldn't look at the master key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the master key %s isn't a regular file", f.Name()).
			WithHint("Name the file itself.")
	}
	if open := info.Mode().Perm() & 0o077; open != 0 {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the master key %s can be read or written by others than its owner (mode %04o)", f.Name(), info.Mode().Perm()).
			WithHint("chmod 600 %s, and if others had access to it, make a new data directory or seal it anew.", f.Name())
	}
	text := make([]byte, maxKeyFile+1)
	defer clear(text)
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("couldn't read the master key: %w", err)
	}
	key, err := parseKey(text[:n])
	if err != nil {
		return nil, fmt.Errorf("couldn't use the master key %s: %w", f.Name(), err)
	}
	return key, nil
}

// LoadOrCreateMasterKey reads the key file at path, or makes a random key and
// writes it there, mode 0600 and durably, when the file is absent. Of several
// processes that start at once, all get the same key. Errors as LoadMasterKey.
func LoadOrCreateMasterKey(path string) (*Key, error) {
	key, err := LoadMasterKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	var secret [KeySize]byte
	defer clear(secret[:])
	_, err = rand.Read(secret[:])
	if err != nil {
		return nil, fmt.Errorf("couldn't make a master key: %w", err)
	}
	text := make([]byte, base64.StdEncoding.EncodedLen(KeySize)+1)
	defer clear(text)
	base64.StdEncoding.Encode(text, secret[:])
	text[len(text)-1] = '\n'
	err = durable.CreateFile(path, text, 0o600)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("couldn't keep the master key: %w", err)
	}
	// Read back, also when this process made it: what counts is the file.
	return LoadMasterKey(path)
}
