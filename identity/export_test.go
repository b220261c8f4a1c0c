package identity

// Awaited counts the changes that foreseen identities wait for.
func (r *Resolver) Awaited() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.awaited)
}
