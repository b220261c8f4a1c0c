package fair

import (
	"context"
	"sync"

	"github.com/imprint-iot/imprint"
)

// Rows bounds how much each account has, in all its regions, in a queue of the store,
// without counting it for each row. It is safe for many goroutines.
type Rows struct {
	most  int
	count func(context.Context, imprint.AccountID) (int, error)

	mu      sync.Mutex
	counted map[imprint.AccountID]int // as far as they were
}

// NewRows makes a bound of so many units; count counts those that an account has, the
// first time that it wants more.
func NewRows(most int, count func(context.Context, imprint.AccountID) (int, error)) *Rows {
	return &Rows{most: most, count: count, counted: map[imprint.AccountID]int{}}
}

// Reserve counts a row of some units that will be put. Not ok: the account would have more
// than it may. Errors: those of counting.
func (r *Rows) Reserve(ctx context.Context, account imprint.AccountID, units int) (ok bool, err error) {
	r.mu.Lock()
	_, known := r.counted[account]
	r.mu.Unlock()
	found := 0
	if !known {
		found, err = r.count(ctx, account)
		if err != nil {
			return false, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known = r.counted[account]; !known {
		r.counted[account] = found
	}
	if r.counted[account]+units > r.most {
		return false, nil
	}
	r.counted[account] += units
	return true, nil
}

// Left tells that a row is gone, or wasn't put after all.
func (r *Rows) Left(account imprint.AccountID, units int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.counted[account]; known {
		r.counted[account] = max(0, r.counted[account]-units)
	}
}

// Forget counts an account's rows anew, as many went at once.
func (r *Rows) Forget(account imprint.AccountID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.counted, account)
}

// CountOf adds up what an account's tenants have, of all that have something.
func CountOf(account imprint.AccountID, tenants []imprint.Tenant, count func(imprint.Tenant) (int, error)) (int, error) {
	rows := 0
	for _, tenant := range tenants {
		if tenant.Account != account {
			continue
		}
		n, err := count(tenant)
		if err != nil {
			return 0, err
		}
		rows += n
	}
	return rows, nil
}
