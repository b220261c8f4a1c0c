package tiles

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// CheckpointPath is where a log has its latest checkpoint.
const CheckpointPath = "checkpoint"

// maxCheckpoint bounds what is read of a checkpoint.
const maxCheckpoint = 64 << 10

// Verifier knows a log by its public key. It is safe for concurrent use.
type Verifier struct{ known note.Verifier }

// NewVerifier reads a public key in the form of signed-note: name+hash+key. The name is
// the log's origin.
func NewVerifier(key string) (*Verifier, error) {
	known, err := note.NewVerifier(strings.TrimSpace(key))
	if err != nil {
		return nil, fmt.Errorf("couldn't read the log's public key: %w", err)
	}
	return &Verifier{known: known}, nil
}

// Origin is the log's name.
func (v *Verifier) Origin() string { return v.known.Name() }

// Checkpoint is a tree head that its log signed: a Verifier alone makes one.
type Checkpoint struct {
	Origin string
	tlog.Tree
	// Raw is the signed note.
	Raw []byte
}

// Checkpoint verifies a signed tree head.
func (v *Verifier) Checkpoint(raw []byte) (Checkpoint, error) {
	c := Checkpoint{Raw: bytes.Clone(raw)}
	if len(raw) > maxCheckpoint {
		return c, fmt.Errorf("couldn't read the checkpoint: it has %d bytes, more than %d", len(raw), maxCheckpoint)
	}
	opened, err := note.Open(raw, note.VerifierList(v.known))
	if err != nil {
		return c, fmt.Errorf("couldn't verify the checkpoint: %w", err)
	}
	for _, s := range append(opened.Sigs, opened.UnverifiedSigs...) {
		// note reads several texts as one signature; here, a checkpoint has one text.
		_, err = base64.StdEncoding.Strict().DecodeString(s.Base64)
		if err != nil {
			return c, fmt.Errorf("couldn't verify the checkpoint: the signature of %s isn't canonical base64: %w", s.Name, err)
		}
	}
	c.Origin, c.Tree, err = parseTree(opened.Text)
	if err != nil {
		return c, fmt.Errorf("couldn't read the checkpoint: %w", err)
	}
	if c.Origin != v.Origin() {
		return c, fmt.Errorf("couldn't verify the checkpoint: it is of log %q, not of %q", c.Origin, v.Origin())
	}
	return c, nil
}

// parseTree reads the signed text of a checkpoint: origin, size and root, a line each.
// Lines behind them are extensions, of which none is known here.
func parseTree(text string) (string, tlog.Tree, error) {
	var tree tlog.Tree
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) < 4 || lines[0] == "" {
		return "", tree, fmt.Errorf("%q isn't origin, size and root, a line each", text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return "", tree, fmt.Errorf("%q isn't the size of a tree", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return "", tree, fmt.Errorf("%q isn't the root of a tree", lines[2])
	}
	tree.N = size
	copy(tree.Hash[:], root)
	return lines[0], tree, nil
}

// ParseUnsigned reads origin, size and root of the text that a checkpoint signs. It
// verifies nothing.
func ParseUnsigned(text string) (string, tlog.Tree, error) { return parseTree(text) }

// Latest reads and verifies the log's latest checkpoint.
func (v *Verifier) Latest(ctx context.Context, source Source) (Checkpoint, error) {
	raw, err := source.Read(ctx, CheckpointPath)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("couldn't read the log's checkpoint: %w", err)
	}
	return v.Checkpoint(raw)
}
