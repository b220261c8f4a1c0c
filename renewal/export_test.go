package renewal

import "context"

// Settle looks at all that was seen.
func (e *Engine) Settle(ctx context.Context) error { return e.settle(ctx) }

// Watched counts the certificates whose connections are looked at.
func (e *Engine) Watched() int {
	_ = e.settle(context.Background())
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.families)
}
