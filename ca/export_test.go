package ca

// Held counts what an Engine has in memory: authorities with their keys, responders with
// theirs, and bytes of CRLs.
func (e *Engine) Held() (authorities, responders int, lists int64) {
	e.mu.Lock()
	authorities = len(e.open)
	e.mu.Unlock()
	e.responders.mu.Lock()
	responders = len(e.responders.open)
	e.responders.mu.Unlock()
	e.shelf.mu.Lock()
	defer e.shelf.mu.Unlock()
	return authorities, responders, e.shelf.bytes
}
