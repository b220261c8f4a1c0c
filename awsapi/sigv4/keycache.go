package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"sync"
)

// deriveKey gives the signing key of a scope: four chained HMACs.
func deriveKey(secret string, a Authorization) [32]byte {
	key := mac([]byte("AWS4"+secret), a.Date)
	key = mac(key[:], a.Region)
	key = mac(key[:], a.Service)
	return mac(key[:], "aws4_request")
}

func mac(key []byte, data string) [32]byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(data))
	return [32]byte(h.Sum(nil))
}

type cacheKey struct{ keyID, date, region, service string }

type cacheEntry struct {
	secret string
	key    [32]byte
}

// keyCache keeps derived keys in two generations: when the young one is full it
// becomes the old one, and what is still asked for moves back. It holds at most
// twice its size, and only keys whose signature was good are added, so that
// strangers can't push entries out.
type keyCache struct {
	size int

	mu         sync.Mutex // guards young and old; held for map operations only
	young, old map[cacheKey]cacheEntry
}

func newKeyCache(size int) *keyCache {
	return &keyCache{size: size, young: make(map[cacheKey]cacheEntry)}
}

// get gives the derived key, and whether it came from the cache. An entry made
// from another secret doesn't count: a changed secret holds at once.
func (c *keyCache) get(secret string, a Authorization) ([32]byte, bool) {
	id := cacheKey{a.KeyID, a.Date, a.Region, a.Service}
	c.mu.Lock()
	entry, found := c.young[id]
	if !found {
		entry, found = c.old[id]
		if found {
			c.put(id, entry)
		}
	}
	c.mu.Unlock()
	if found && subtle.ConstantTimeCompare([]byte(entry.secret), []byte(secret)) == 1 {
		return entry.key, true
	}
	return deriveKey(secret, a), false
}

func (c *keyCache) add(secret string, a Authorization, key [32]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(cacheKey{a.KeyID, a.Date, a.Region, a.Service}, cacheEntry{secret, key})
}

// put needs mu held.
func (c *keyCache) put(id cacheKey, entry cacheEntry) {
	if _, there := c.young[id]; !there && len(c.young) >= c.size {
		c.old, c.young = c.young, make(map[cacheKey]cacheEntry)
	}
	c.young[id] = entry
}

func (c *keyCache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.young) + len(c.old)
}
