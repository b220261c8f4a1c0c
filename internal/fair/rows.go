package fair

import (
	"context"
	"sync"

	"github.com/imprint-iot/imprint"
)

// Rows bounds how many rows each tenant has in a queue of the store, without counting
// them for each. It is safe for many goroutines.
type Rows struct {
	most  int
	count func(context.Context, imprint.Tenant) (int, error)

	mu      sync.Mutex
	counted map[imprint.Tenant]int // as far as they were
}

// NewRows makes a bound; count counts the rows that a tenant has, the first time that
// it wants another.
func NewRows(most int, count func(context.Context, imprint.Tenant) (int, error)) *Rows {
	return &Rows{most: most, count: count, counted: map[imprint.Tenant]int{}}
}

// Reserve counts a row that will be put. Not ok: the tenant has as many as it may.
// Errors: those of counting.
func (r *Rows) Reserve(ctx context.Context, tenant imprint.Tenant) (ok bool, err error) {
	r.mu.Lock()
	_, known := r.counted[tenant]
	r.mu.Unlock()
	found := 0
	if !known {
		found, err = r.count(ctx, tenant)
		if err != nil {
			return false, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known = r.counted[tenant]; !known {
		r.counted[tenant] = found
	}
	if r.counted[tenant] >= r.most {
		return false, nil
	}
	r.counted[tenant]++
	return true, nil
}

// Left tells that a row is gone, or wasn't put after all.
func (r *Rows) Left(tenant imprint.Tenant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counted[tenant] > 0 {
		r.counted[tenant]--
	}
}

// Forget counts a tenant's rows anew, as many went at once.
func (r *Rows) Forget(tenant imprint.Tenant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.counted, tenant)
}
