package tiles

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// Frontier is what of a tree is needed to append to it and to know its root: the roots of
// its largest full subtrees, from left to right. The zero value is the empty tree.
type Frontier struct {
	size  int64
	nodes []tlog.Hash // one for each bit that is set in size, the highest first
}

// Size is the number of leaves.
func (f *Frontier) Size() int64 { return f.size }

// Append adds a leaf.
func (f *Frontier) Append(leaf tlog.Hash) {
	for n := f.size; n&1 == 1; n >>= 1 {
		leaf = tlog.NodeHash(f.nodes[len(f.nodes)-1], leaf)
		f.nodes = f.nodes[:len(f.nodes)-1]
	}
	f.nodes = append(f.nodes, leaf)
	f.size++
}

// Root is the root of the tree (RFC 6962 section 2.1).
func (f *Frontier) Root() tlog.Hash {
	if len(f.nodes) == 0 {
		return sha256.Sum256(nil)
	}
	root := f.nodes[len(f.nodes)-1]
	for _, left := range slices.Backward(f.nodes[:len(f.nodes)-1]) {
		root = tlog.NodeHash(left, root)
	}
	return root
}

// Clone gives a copy that can be appended to apart.
func (f *Frontier) Clone() *Frontier {
	return &Frontier{size: f.size, nodes: slices.Clone(f.nodes)}
}

// ReadFrontier reads the frontier of a checkpoint's tree out of the log's tiles, and
// verifies it.
func ReadFrontier(ctx context.Context, source Source, checkpoint Checkpoint) (*Frontier, error) {
	f := &Frontier{size: checkpoint.N}
	if checkpoint.N > 0 {
		var indices []int64
		from := int64(0)
		for rest := checkpoint.N; rest > 0; {
			level := bits.Len64(uint64(rest)) - 1
			indices = append(indices, tlog.StoredHashIndex(level, from>>level))
			from += 1 << level
			rest -= 1 << level
		}
		var err error
		f.nodes, err = reader(ctx, source, checkpoint).ReadHashes(indices)
		if err != nil {
			return nil, fmt.Errorf("couldn't read the right edge of the tree: %w", err)
		}
	}
	if f.Root() != checkpoint.Hash {
		return nil, fmt.Errorf("the tree of %d entries has root %s, and its checkpoint says %s", checkpoint.N, f.Root(), checkpoint.Hash)
	}
	return f, nil
}
