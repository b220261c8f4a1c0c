package tiles

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/imprint-iot/imprint"
)

// ErrNotInLog is that the log has no entry for a certificate.
var ErrNotInLog = errors.New("the log has no entry for this certificate")

// Proof is that a log has an entry, good without the log.
type Proof struct {
	Index      int64
	Hashes     tlog.RecordProof
	Checkpoint []byte // signed
}

const proofHeader = "c2sp.org/tlog-proof@v1\n"

// maxHashes is how many hashes a proof in a tree of 2^63 entries has.
const maxHashes = 63

// Marshal gives the proof as text, in the form of C2SP's tlog-proof.
func (p Proof) Marshal() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%sindex %d\n", proofHeader, p.Index)
	for _, hash := range p.Hashes {
		fmt.Fprintln(&b, hash)
	}
	b.WriteByte('\n')
	b.Write(p.Checkpoint)
	return b.Bytes()
}

// ParseProof reads the text of a proof.
func ParseProof(raw []byte) (Proof, error) {
	var p Proof
	head, checkpoint, ok := bytes.Cut(raw, []byte("\n\n"))
	text, versioned := strings.CutPrefix(string(head)+"\n", proofHeader)
	if !ok || !versioned {
		return p, errors.New("couldn't read the proof: it doesn't begin with " + strings.TrimSpace(proofHeader))
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	number, ok := strings.CutPrefix(lines[0], "index ")
	index, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || index < 0 || strconv.FormatInt(index, 10) != number {
		return p, fmt.Errorf("couldn't read the proof: %q isn't an index", imprint.Excerpt(lines[0]))
	}
	if len(lines)-1 > maxHashes {
		return p, fmt.Errorf("couldn't read the proof: it has %d hashes, more than %d", len(lines)-1, maxHashes)
	}
	p.Index, p.Checkpoint = index, bytes.Clone(checkpoint)
	for _, line := range lines[1:] {
		raw, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(raw) != tlog.HashSize {
			return p, fmt.Errorf("couldn't read the proof: %q isn't a hash", imprint.Excerpt(line))
		}
		p.Hashes = append(p.Hashes, tlog.Hash(raw))
	}
	return p, nil
}

// ProveInclusion proves that the log of a checkpoint has an entry at an index.
func ProveInclusion(ctx context.Context, source Source, checkpoint Checkpoint, index int64) (Proof, error) {
	if index < 0 || index >= checkpoint.N {
		return Proof{}, fmt.Errorf("couldn't prove entry %d: the checkpoint has %d entries", index, checkpoint.N)
	}
	hashes, err := tlog.ProveRecord(checkpoint.N, index, reader(ctx, source, checkpoint))
	if err != nil {
		return Proof{}, fmt.Errorf("couldn't prove entry %d: %w", index, err)
	}
	return Proof{Index: index, Hashes: hashes, Checkpoint: checkpoint.Raw}, nil
}

// VerifyProof verifies that the log has an entry, given its encoding. The checkpoint is the
// proof's.
func (v *Verifier) VerifyProof(proof Proof, entry []byte) (Checkpoint, error) {
	checkpoint, err := v.Checkpoint(proof.Checkpoint)
	if err != nil {
		return checkpoint, err
	}
	if proof.Index < 0 || proof.Index >= checkpoint.N {
		return checkpoint, fmt.Errorf("the proof is of entry %d in a log of %d", proof.Index, checkpoint.N)
	}
	err = tlog.CheckRecord(proof.Hashes, checkpoint.N, checkpoint.Hash, proof.Index, LeafHash(entry))
	if err != nil {
		return checkpoint, fmt.Errorf("entry %d isn't in the log of checkpoint %d: %w", proof.Index, checkpoint.N, err)
	}
	return checkpoint, nil
}

// ProveConsistency proves that the log of a newer checkpoint begins with that of an older
// one, and verifies it.
func ProveConsistency(ctx context.Context, source Source, older, newer Checkpoint) (tlog.TreeProof, error) {
	switch {
	case older.Origin != newer.Origin:
		return nil, fmt.Errorf("the checkpoints are of two logs, %q and %q", older.Origin, newer.Origin)
	case older.N > newer.N:
		return nil, fmt.Errorf("the log had %d entries, and has %d: it was set back", older.N, newer.N)
	case older.N == 0 || older.N == newer.N && older.Hash == newer.Hash:
		return nil, nil
	}
	proof, err := tlog.ProveTree(newer.N, older.N, reader(ctx, source, newer))
	if err != nil {
		return nil, fmt.Errorf("couldn't prove that the log of %d entries begins with that of %d: %w", newer.N, older.N, err)
	}
	return proof, VerifyConsistency(proof, older, newer)
}

// VerifyConsistency verifies such a proof.
func VerifyConsistency(proof tlog.TreeProof, older, newer Checkpoint) error {
	if older.N == 0 && len(proof) == 0 {
		return nil
	}
	if older.N == newer.N && older.Hash == newer.Hash {
		return nil
	}
	err := tlog.CheckTree(proof, newer.N, newer.Hash, older.N, older.Hash)
	if err != nil {
		return fmt.Errorf("the log of %d entries doesn't begin with the %d that it had: %w", newer.N, older.N, err)
	}
	return nil
}

// ReadEntry reads one entry of a checkpoint's log and verifies that it is that.
func ReadEntry(ctx context.Context, source Source, checkpoint Checkpoint, index int64) ([]byte, error) {
	if index < 0 || index >= checkpoint.N {
		return nil, fmt.Errorf("couldn't read entry %d: the checkpoint has %d entries", index, checkpoint.N)
	}
	entries, err := readBundle(ctx, source, index/Width, widthOf(index/Width, checkpoint.N))
	if err != nil {
		return nil, fmt.Errorf("couldn't read entry %d: %w", index, err)
	}
	raw := entries[index%Width]
	hashes, err := reader(ctx, source, checkpoint).ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
	if err != nil {
		return nil, fmt.Errorf("couldn't read the hash of entry %d: %w", index, err)
	}
	if hashes[0] != LeafHash(raw) {
		return nil, fmt.Errorf("entry %d isn't the one that the checkpoint signs", index)
	}
	return raw, nil
}

// Entries calls yield with the encoded entries from one index up to another one, in order,
// as they stand in the bundles: unverified.
func Entries(ctx context.Context, source Source, from, to int64, yield func(index int64, raw []byte) error) error {
	for index := from; index < to; {
		number := index / Width
		entries, err := readBundle(ctx, source, number, widthOf(number, to))
		if err != nil {
			return fmt.Errorf("couldn't read the entries from %d on: %w", index, err)
		}
		for _, raw := range entries[index-number*Width:] {
			err = yield(index, raw)
			if err != nil {
				return err
			}
			index++
		}
	}
	return nil
}

// Found is a certificate's entry, verified.
type Found struct {
	Entry      Entry
	Raw        []byte // the encoded entry
	Proof      Proof
	Checkpoint Checkpoint
}

// VerifyCertificate verifies that a certificate is in a log, by the log's latest
// checkpoint. It reads the log's entries from its end on, until it finds it; VerifyAt is
// for who knows the index. Errors: ErrNotInLog.
func VerifyCertificate(ctx context.Context, source Source, verifier *Verifier, der []byte) (Found, error) {
	checkpoint, err := verifier.Latest(ctx, source)
	if err != nil {
		return Found{}, err
	}
	id := certificateID(der)
	for number := (checkpoint.N - 1) / Width; number >= 0 && checkpoint.N > 0; number-- {
		entries, err := readBundle(ctx, source, number, widthOf(number, checkpoint.N))
		if err != nil {
			return Found{}, fmt.Errorf("couldn't look for the certificate: %w", err)
		}
		for i, raw := range entries {
			entry, err := ParseEntry(raw)
			if err == nil && entry.Certificate == id {
				return verifyAt(ctx, source, verifier, checkpoint, id, number*Width+int64(i))
			}
		}
	}
	return Found{}, fmt.Errorf("%w, whose id is %s, among the %d of its checkpoint", ErrNotInLog, id, checkpoint.N)
}

// VerifyAt is VerifyCertificate for a certificate whose index is known.
func VerifyAt(ctx context.Context, source Source, verifier *Verifier, der []byte, index int64) (Found, error) {
	checkpoint, err := verifier.Latest(ctx, source)
	if err != nil {
		return Found{}, err
	}
	return verifyAt(ctx, source, verifier, checkpoint, certificateID(der), index)
}

func verifyAt(ctx context.Context, source Source, verifier *Verifier, checkpoint Checkpoint, id imprint.CertificateID, index int64) (Found, error) {
	found := Found{Checkpoint: checkpoint}
	var err error
	found.Raw, err = ReadEntry(ctx, source, checkpoint, index)
	if err != nil {
		return found, err
	}
	found.Entry, err = ParseEntry(found.Raw)
	if err != nil {
		return found, fmt.Errorf("couldn't read entry %d: %w", index, err)
	}
	if found.Entry.Certificate != id {
		return found, fmt.Errorf("entry %d is of certificate %s: %w", index, found.Entry.Certificate, ErrNotInLog)
	}
	found.Proof, err = ProveInclusion(ctx, source, checkpoint, index)
	if err != nil {
		return found, err
	}
	_, err = verifier.VerifyProof(found.Proof, found.Raw)
	return found, err
}
