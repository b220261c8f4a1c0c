package translog

import (
	"fmt"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

// signer signs the checkpoints of trees whose root was computed here, from what was added,
// and no others: whatever happens to the files, the log's key doesn't sign it.
type signer struct {
	key    note.Signer
	broken func(error)

	mu sync.Mutex
	// base is the tree as far as it is known to be written; leaves is what is being added.
	base   *tiles.Frontier
	leaves []tlog.Hash
	// past are the last trees before base, as one of those may still be signed.
	past []tlog.Tree
}

// pastKept is how many past trees are kept.
const pastKept = 64

func newSigner(key note.Signer, base *tiles.Frontier, broken func(error)) *signer {
	return &signer{key: key, broken: broken, base: base}
}

// expect says what is added next, behind all that was expected before.
func (s *signer) expect(from int64, leaves []tlog.Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moveTo(s.base.Size() + int64(len(s.leaves)))
	if s.base.Size() != from {
		return fmt.Errorf("couldn't add entry %d: the log has %d", from, s.base.Size())
	}
	s.leaves = leaves
	return nil
}

// settle says how much of what was expected is written.
func (s *signer) settle(size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size < s.base.Size() || size > s.base.Size()+int64(len(s.leaves)) {
		return fmt.Errorf("the log has %d entries; %d to %d were added", size, s.base.Size(), s.base.Size()+int64(len(s.leaves)))
	}
	s.moveTo(size)
	return nil
}

// moveTo makes base the tree of a size that is expected; mu is held.
func (s *signer) moveTo(size int64) {
	s.past = append(s.past, tlog.Tree{N: s.base.Size(), Hash: s.base.Root()})
	s.past = s.past[max(0, len(s.past)-pastKept):]
	for _, leaf := range s.leaves[:size-s.base.Size()] {
		s.base.Append(leaf)
	}
	s.leaves = nil
}

// root gives the root of a tree that may be signed. One that isn't known may be an old one.
func (s *signer) root(size int64) (root tlog.Hash, known, old bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size < s.base.Size() {
		for _, tree := range s.past {
			if tree.N == size {
				return tree.Hash, true, true
			}
		}
		return tlog.Hash{}, false, true
	}
	ahead := size - s.base.Size()
	if ahead > int64(len(s.leaves)) {
		return tlog.Hash{}, false, false
	}
	tree := s.base.Clone()
	for _, leaf := range s.leaves[:ahead] {
		tree.Append(leaf)
	}
	return tree.Root(), true, false
}

// Name implements note.Signer.
func (s *signer) Name() string { return s.key.Name() }

// KeyHash implements note.Signer.
func (s *signer) KeyHash() uint32 { return s.key.KeyHash() }

// Sign implements note.Signer.
func (s *signer) Sign(text []byte) ([]byte, error) {
	origin, tree, err := tiles.ParseUnsigned(string(text))
	if err == nil && (origin != s.key.Name() || strings.Count(string(text), "\n") != 3) {
		err = fmt.Errorf("%q isn't a checkpoint of this log", text)
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't sign a checkpoint: %w", err)
	}
	root, known, old := s.root(tree.N)
	switch {
	case known && root == tree.Hash:
		return s.key.Sign(text)
	case known:
		err = fmt.Errorf("couldn't sign a checkpoint of %d entries with root %s: what was added has root %s", tree.N, tree.Hash, root)
	case old:
		// The library was slow to sign, and will sign a newer one.
		return nil, fmt.Errorf("couldn't sign a checkpoint of %d entries: there are newer ones", tree.N)
	default:
		err = fmt.Errorf("couldn't sign a checkpoint of %d entries: so many weren't added", tree.N)
	}
	s.broken(err)
	return nil, err
}
