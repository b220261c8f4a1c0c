package translog

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"golang.org/x/mod/sumdb/note"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/durable"
)

// Files beside the log.
const (
	signerFile   = "signer.sealed"
	verifierFile = "verifier.txt"
	tilesDir     = "log"
)

// signerContext binds the sealed key to its use.
var signerContext = []byte("imprint/issuance-log-signer")

// key signs checkpoints.
type key struct {
	signer   note.Signer
	verifier string // the public key, as signed-note writes it
}

// loadOrCreateKey reads the sealed key of a log, or makes it when there is none and may be
// made: for a log that has begun, it never is.
func loadOrCreateKey(dir string, sealer imprint.Sealer, origin string, begun bool) (*key, error) {
	path := filepath.Join(dir, signerFile)
	k, err := loadKey(path, sealer)
	if errors.Is(err, fs.ErrNotExist) {
		if begun {
			return nil, imprint.Errorf(imprint.CodeUnavailable, "the key %s of the issuance log is missing, and the log is there: %w", path, err).
				WithHint("Put the file back from where you keep it. With another key nobody could verify the log's past.")
		}
		k, err = createKey(path, sealer, origin)
	}
	if err != nil {
		return nil, err
	}
	if origin != "" && k.signer.Name() != origin {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the issuance log is called %q, not %q", k.signer.Name(), origin).
			WithHint("A log keeps its origin for life: verifiers know it by that. Configure the one that it has.")
	}
	// In the clear, for those who verify; written again when a crash or a person lost it.
	public := filepath.Join(dir, verifierFile)
	present, err := os.ReadFile(public)
	if err == nil && string(present) == k.verifier+"\n" {
		return k, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("couldn't read the log's public key: %w", err)
	}
	return k, durable.WriteFile(public, []byte(k.verifier+"\n"), 0o600)
}

func loadKey(path string, sealer imprint.Sealer) (*key, error) {
	sealed, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("couldn't read the log's key: %w", err)
	}
	text, err := sealer.Open(sealed, signerContext)
	if err != nil {
		return nil, fmt.Errorf("couldn't open the log's key %s: %w", path, err)
	}
	defer clear(text)
	k, err := parseKey(string(text))
	if err != nil {
		return nil, fmt.Errorf("couldn't read the log's key %s: %w", path, err)
	}
	return k, nil
}

func createKey(path string, sealer imprint.Sealer, origin string) (*key, error) {
	if origin == "" {
		var unique [8]byte
		_, _ = rand.Read(unique[:]) // never fails; crypto/rand ends the program instead
		origin = "imprint.invalid/issuance-log/" + hex.EncodeToString(unique[:])
	}
	if strings.ContainsFunc(origin, unicode.IsSpace) || strings.Contains(origin, "+") {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "%q can't be the origin of a log", imprint.Excerpt(origin)).
			WithHint("It is a URL without its scheme, such as example.com/imprint, without spaces and plus signs.")
	}
	text, _, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return nil, fmt.Errorf("couldn't make the log's key: %w", err)
	}
	k, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("couldn't use the log's key: %w", err)
	}
	sealed, err := sealer.Seal([]byte(text), signerContext)
	if err != nil {
		return nil, fmt.Errorf("couldn't seal the log's key: %w", err)
	}
	return k, durable.CreateFile(path, sealed, 0o600)
}

// parseKey reads a private key as signed-note writes it:
// PRIVATE+KEY+name+hash+base64(1, seed). Its errors don't quote it.
func parseKey(text string) (*key, error) {
	signer, err := note.NewSigner(text)
	if err != nil {
		return nil, errors.New("it isn't a private key of a signed note")
	}
	parts := strings.SplitN(text, "+", 5) // base64 may have a plus, too
	secret, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(secret) != 1+ed25519.SeedSize {
		return nil, errors.New("it isn't an Ed25519 key")
	}
	public := ed25519.NewKeyFromSeed(secret[1:]).Public().(ed25519.PublicKey)
	clear(secret)
	verifier, err := note.NewEd25519VerifierKey(signer.Name(), public)
	if err != nil {
		return nil, fmt.Errorf("couldn't write the log's public key: %w", err)
	}
	return &key{signer: signer, verifier: verifier}, nil
}
