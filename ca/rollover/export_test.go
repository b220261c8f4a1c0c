package rollover

import "context"

// Flush writes what was seen, as the Planner does every second.
func (p *Planner) Flush(ctx context.Context) error { return p.flush(ctx) }
