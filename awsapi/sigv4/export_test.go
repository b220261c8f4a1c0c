package sigv4

// CacheLen gives the number of derived keys that a Verifier keeps.
func CacheLen(v *Verifier) int { return v.cache.len() }
