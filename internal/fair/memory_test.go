package fair

import (
	"fmt"
	"slices"
	"testing"
)

// TestAnAccountsKeysMakeNoOthersBeForgotten ensures that at the bound the account with most
// keys loses those that it used least lately, and no other one any.
func TestAnAccountsKeysMakeNoOthersBeForgotten(t *testing.T) {
	m := NewMemory[int, *int](10)
	fresh := func() *int { return new(int) }
	*m.Of("1", 1, fresh) = 7
	*m.Of("1", 2, fresh) = 8
	*m.Of("2", 1, fresh) = 9
	for n := range 100 {
		*m.Of("2", 1, fresh)++
		m.Of("2", 100+n, fresh)
	}
	for _, c := range []struct {
		account string
		key     int
		want    int
	}{{"1", 1, 7}, {"1", 2, 8}, {"2", 1, 109}} {
		value, ok := m.Known(tenant(c.account).Account, c.key)
		if !ok || *value != c.want {
			t.Errorf("account %s has %v for %d, want %d", c.account, value, c.key, c.want)
		}
	}
	if _, ok := m.Known("2", 192); ok || m.count != 10 {
		t.Errorf("%d keys are kept, 192 among them %t; want 10 without it", m.count, ok)
	}
	m.Forget("1", 1)
	m.Forget("1", 1)
	m.Forget("1", 2)
	m.Forget("3", 1)
	if _, ok := m.Known("1", 1); ok || m.count != 8 || len(m.accounts) != 1 {
		t.Errorf("%d keys of %d accounts are left, want 8 of one", m.count, len(m.accounts))
	}
	m.Keep("1", 1, new(int))
	m.Keep("1", 1, &m.count)
	if value, _ := m.Known("1", 1); value != &m.count || m.count != 9 {
		t.Errorf("got another value than the one kept last, or %d keys, want 9", m.count)
	}
	m.ForgetAll("2")
	m.ForgetAll("2")
	if _, ok := m.Known("1", 1); !ok || m.count != 1 || len(m.accounts) != 1 {
		t.Errorf("%d keys of %d accounts are left, and the other account's %t; want that alone", m.count, len(m.accounts), ok)
	}
	one := NewMemory[int, *int](1)
	var dropped []int
	one.Dropped = func(value *int) { dropped = append(dropped, *value) }
	*one.Of("1", 1, fresh) = 1
	if value := one.Of("2", 1, fresh); *value != 0 || one.count != 1 {
		t.Errorf("got %d and %d keys, want a fresh value alone", *value, one.count)
	}
	if left := slices.Collect(one.Values()); len(left) != 1 || *left[0] != 0 || fmt.Sprint(dropped) != "[1]" {
		t.Errorf("%d values are left, and %v were dropped; want the fresh one, and 1", len(left), dropped)
	}
}
