package tiles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// Damage is one thing in a log that isn't as its checkpoint says.
type Damage struct {
	// Path is the file.
	Path    string
	Problem string
}

// CheckOptions say what Check tells, and what the log must agree with.
type CheckOptions struct {
	// Remembered are checkpoints of the same log from before: it must begin with each of
	// them.
	Remembered []Checkpoint
	// Entry is called with each entry whose bundle can be read, in order; its error ends the
	// check. May be nil.
	Entry func(index int64, raw []byte) error
	// Damage is called with each thing that is wrong.
	Damage func(Damage)
}

// Check reads a whole log and compares it with a checkpoint: the root of all entries, every
// tile of hashes, and, where the source is a directory, partial tiles of earlier
// checkpoints that are still there. It needs the memory of a few bundles, whatever the
// log's size. What is wrong goes to CheckOptions.Damage; the error is one of reading, of
// the context or of CheckOptions.Entry.
func Check(ctx context.Context, source Source, checkpoint Checkpoint, options CheckOptions) error {
	c := &check{ctx: ctx, source: source, checkpoint: checkpoint, options: options}
	c.remembered = slices.Clone(options.Remembered)
	slices.SortFunc(c.remembered, func(a, b Checkpoint) int { return int(a.N - b.N) })
	for _, r := range c.remembered {
		if r.Origin != checkpoint.Origin {
			c.damaged(CheckpointPath, "it is of log %q, and the one that is remembered of %q", checkpoint.Origin, r.Origin)
		}
		if r.N > checkpoint.N {
			c.damaged(CheckpointPath, "the log has %d entries, and had %d: it was set back", checkpoint.N, r.N)
		}
	}
	for number := int64(0); number*Width < checkpoint.N; number++ {
		err := ctx.Err()
		if err == nil {
			err = c.bundle(number)
		}
		if err != nil {
			return err
		}
	}
	err := c.edge()
	if err != nil {
		return err
	}
	c.remember()
	if root := c.frontier.Root(); root != checkpoint.Hash {
		c.damaged(CheckpointPath, "the %d entries have root %s, and the checkpoint signs %s", checkpoint.N, root, checkpoint.Hash)
	}
	return nil
}

type check struct {
	ctx        context.Context
	source     Source
	checkpoint Checkpoint
	remembered []Checkpoint // what is still ahead, the smallest first
	options    CheckOptions
	frontier   Frontier
	// levels are the hashes of the tile on each level that isn't full yet.
	levels [][]byte
	// full is how many tiles of each level were full.
	full []int64
}

func (c *check) damaged(path, format string, args ...any) {
	c.options.Damage(Damage{Path: path, Problem: fmt.Sprintf(format, args...)})
}

// unreadable tells of a file that can't be used; the error is one that isn't the log's.
func (c *check) unreadable(path string, err error) error {
	if c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	if errors.Is(err, fs.ErrNotExist) {
		c.damaged(path, "it isn't there")
		return nil
	}
	if errors.Is(err, errContent) {
		c.damaged(path, "%v", errors.Unwrap(err))
		return nil
	}
	return fmt.Errorf("couldn't check %s: %w", path, err)
}

// errContent is that a file was read and isn't what it must be.
var errContent = errors.New("content")

type contentError struct{ error }

func (e contentError) Is(target error) bool { return target == errContent }

func (e contentError) Unwrap() error { return e.error }

// bundle checks the entries of one bundle and the tile of their hashes.
func (c *check) bundle(number int64) error {
	count := widthOf(number, c.checkpoint.N)
	bundle := tlog.Tile{H: height, L: entriesLevel, N: number, W: count}
	hashes := tlog.Tile{H: height, L: 0, N: number, W: count}
	raw, entries, err := c.entries(bundle)
	if err != nil {
		err = c.unreadable(pathOf(bundle), err)
		if err != nil {
			return err
		}
	}
	stored, err := c.hashes(hashes)
	if err != nil {
		err = c.unreadable(pathOf(hashes), err)
		if err != nil {
			return err
		}
	}
	leaves := make([]tlog.Hash, count)
	for i := range leaves {
		if entries != nil {
			leaves[i] = LeafHash(entries[i])
		} else if stored != nil {
			// The bundle was told of already; the rest of the tree can still be checked.
			copy(leaves[i][:], stored[i*tlog.HashSize:])
		}
	}
	computed := make([]byte, 0, count*tlog.HashSize)
	for _, leaf := range leaves {
		computed = append(computed, leaf[:]...)
	}
	if stored != nil && !bytes.Equal(computed, stored) {
		c.damaged(pathOf(hashes), "entry %d has another hash there than its bundle %s gives", number*Width+firstOther(computed, stored), pathOf(bundle))
	}
	err = c.stale(bundle, raw, func(width int) []byte { return prefixOfBundle(entries, width) })
	if err != nil {
		return err
	}
	for i, leaf := range leaves {
		if entries != nil && c.options.Entry != nil {
			err = c.options.Entry(number*Width+int64(i), entries[i])
			if err != nil {
				return err
			}
		}
		c.remember()
		c.frontier.Append(leaf)
		err = c.push(0, leaf)
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *check) entries(t tlog.Tile) ([]byte, [][]byte, error) {
	raw, width, err := readTile(c.ctx, c.source, t)
	if err != nil {
		return nil, nil, err
	}
	entries, err := splitBundle(raw, width)
	if err != nil {
		return nil, nil, contentError{err}
	}
	return raw, entries[:t.W], nil
}

func (c *check) hashes(t tlog.Tile) ([]byte, error) {
	raw, width, err := readTile(c.ctx, c.source, t)
	if err != nil {
		return nil, err
	}
	if len(raw) != width*tlog.HashSize {
		return nil, contentError{fmt.Errorf("it has %d bytes, not %d", len(raw), width*tlog.HashSize)}
	}
	return raw[:t.W*tlog.HashSize], nil
}

func firstOther(a, b []byte) int64 {
	for i := range a {
		if a[i] != b[i] {
			return int64(i / tlog.HashSize)
		}
	}
	return 0
}

func prefixOfBundle(entries [][]byte, width int) []byte {
	var b []byte
	for _, entry := range entries[:width] {
		b = append(b, byte(len(entry)>>8), byte(len(entry)))
		b = append(b, entry...)
	}
	return b
}

// remember compares the tree as far as it was read with the checkpoints of this size.
func (c *check) remember() {
	for len(c.remembered) > 0 && c.remembered[0].N <= c.frontier.Size() {
		r := c.remembered[0]
		c.remembered = c.remembered[1:]
		if r.N == c.frontier.Size() && r.Hash != c.frontier.Root() {
			c.damaged(CheckpointPath, "the first %d entries have root %s, and a remembered checkpoint signs %s: the log's history was changed", r.N, c.frontier.Root(), r.Hash)
		}
	}
}

// push adds a hash to a level; a tile that is full is compared, and its root goes a level up.
func (c *check) push(level int, hash tlog.Hash) error {
	if level == len(c.levels) {
		c.levels = append(c.levels, make([]byte, 0, Width*tlog.HashSize))
		c.full = append(c.full, 0)
	}
	c.levels[level] = append(c.levels[level], hash[:]...)
	if len(c.levels[level]) < Width*tlog.HashSize {
		return nil
	}
	err := c.tile(level)
	if err != nil {
		return err
	}
	root := subtree(c.levels[level])
	c.levels[level] = c.levels[level][:0]
	c.full[level]++
	return c.push(level+1, root)
}

// edge checks the tiles that aren't full.
func (c *check) edge() error {
	for level := range c.levels {
		if len(c.levels[level]) == 0 {
			continue
		}
		err := c.tile(level)
		if err != nil {
			return err
		}
	}
	return nil
}

// tile compares the tile on a level with the hashes that belong there.
func (c *check) tile(level int) error {
	want := c.levels[level]
	t := tlog.Tile{H: height, L: level, N: c.full[level], W: len(want) / tlog.HashSize}
	if level > 0 { // bundle compares those of level 0
		stored, err := c.hashes(t)
		if err != nil {
			return c.unreadable(pathOf(t), err)
		}
		if !bytes.Equal(stored, want) {
			c.damaged(pathOf(t), "it isn't the hashes of the tiles below it")
		}
	}
	return c.stale(t, want, func(width int) []byte { return want[:width*tlog.HashSize] })
}

// stale compares the partial tiles of earlier checkpoints beside a tile whose content is
// known. Ones that are ahead of the checkpoint aren't its.
func (c *check) stale(t tlog.Tile, content []byte, prefix func(width int) []byte) error {
	files, ok := c.source.(dir)
	if !ok || content == nil {
		return nil
	}
	full := t
	full.W = Width
	widths, err := files.partials(pathOf(full))
	if err != nil {
		return err
	}
	for _, width := range widths {
		if width >= t.W {
			continue
		}
		partial := t
		partial.W = width
		raw, err := files.Read(c.ctx, pathOf(partial))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since, as one that isn't needed any more
		}
		if err != nil {
			return fmt.Errorf("couldn't check %s: %w", pathOf(partial), err)
		}
		if !bytes.Equal(raw, prefix(width)) {
			c.damaged(pathOf(partial), "it isn't the beginning of %s", pathOf(t))
		}
	}
	return nil
}

// subtree is the root of a full tile.
func subtree(hashes []byte) tlog.Hash {
	if len(hashes) == tlog.HashSize {
		return tlog.Hash(hashes)
	}
	half := len(hashes) / 2
	return tlog.NodeHash(subtree(hashes[:half]), subtree(hashes[half:]))
}
