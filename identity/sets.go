package identity

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/policy"
)

// setKey is the hash of names and documents: a set is shared by whoever has
// the same ones.
type setKey [sha256.Size]byte

func keyOf(documents []document) setKey {
	h := sha256.New()
	var size [8]byte
	write := func(s string) {
		binary.BigEndian.PutUint64(size[:], uint64(len(s)))
		_, _ = h.Write(size[:]) // a hash never fails
		_, _ = h.Write([]byte(s))
	}
	for _, d := range documents {
		write(string(d.name))
		write(d.text)
	}
	var key setKey
	h.Sum(key[:0])
	return key
}

// setCache holds compiled policies.
type setCache struct {
	mu   sync.Mutex
	sets map[setKey]*policy.Set
}

func (c *setCache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sets)
}

// compiled gives the set of the documents.
func (c *setCache) compiled(documents []document) (*policy.Set, error) {
	key := keyOf(documents)
	c.mu.Lock()
	set := c.sets[key]
	c.mu.Unlock()
	if set != nil {
		return set, nil
	}
	named := make([]policy.Named, 0, len(documents))
	for _, d := range documents {
		parsed, err := policy.Parse([]byte(d.text))
		if err != nil {
			return nil, imprint.Errorf(imprint.CodeInternal, "stored policy %s isn't valid: %w", d.name, err)
		}
		named = append(named, policy.Named{Name: string(d.name), Doc: parsed, Instead: d.instead})
	}
	set = policy.Compile(named...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if quicker := c.sets[key]; quicker != nil {
		return quicker, nil
	}
	if len(c.sets) >= maxSets {
		for old := range c.sets {
			delete(c.sets, old)
			break
		}
	}
	c.sets[key] = set
	return set, nil
}
