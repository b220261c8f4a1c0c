package fair

import (
	"container/list"
	"iter"

	"github.com/imprint-iot/imprint"
)

// Memory is a bounded number of values by keys of accounts. At the bound the account that
// has most of them loses the one that it used least lately: whoever brings keys without
// end has only its own forgotten. To ask whether a key is Known is no use of it: where nothing
// else is asked, the oldest goes. It is for one goroutine at a time, but that many may ask what
// is Known at once.
type Memory[K comparable, V any] struct {
	// Dropped hears of each value that gives way to another; nil: nobody does.
	Dropped func(V)

	most     int
	count    int
	accounts map[imprint.AccountID]*memories[K, V]
}

// memories are those of one account.
type memories[K comparable, V any] struct {
	byKey map[K]*list.Element
	used  list.List // of memory[K, V], what was used last in front
}

type memory[K comparable, V any] struct {
	key   K
	value V
}

// NewMemory makes one for a number of values, at least 1.
func NewMemory[K comparable, V any](most int) *Memory[K, V] {
	return &Memory[K, V]{most: most, accounts: map[imprint.AccountID]*memories[K, V]{}}
}

// Of gives the value of a key, which counts as used, or else keeps the one that fresh
// makes.
func (m *Memory[K, V]) Of(account imprint.AccountID, key K, fresh func() V) V {
	of := m.accounts[account]
	if of != nil && of.byKey[key] != nil {
		element := of.byKey[key]
		of.used.MoveToFront(element)
		return element.Value.(memory[K, V]).value
	}
	if m.count >= m.most {
		m.evict()
		of = m.accounts[account]
	}
	if of == nil {
		of = &memories[K, V]{byKey: map[K]*list.Element{}}
		m.accounts[account] = of
	}
	value := fresh()
	of.byKey[key] = of.used.PushFront(memory[K, V]{key, value})
	m.count++
	return value
}

// Keep keeps the value of a key, which counts as used, in place of the one before.
func (m *Memory[K, V]) Keep(account imprint.AccountID, key K, value V) {
	m.Forget(account, key)
	m.Of(account, key, func() V { return value })
}

// Known gives the value of a key, if there is one, without using it.
func (m *Memory[K, V]) Known(account imprint.AccountID, key K) (value V, ok bool) {
	of := m.accounts[account]
	if of == nil || of.byKey[key] == nil {
		return value, false
	}
	return of.byKey[key].Value.(memory[K, V]).value, true
}

// Forget removes a key.
func (m *Memory[K, V]) Forget(account imprint.AccountID, key K) {
	of := m.accounts[account]
	if of == nil || of.byKey[key] == nil {
		return
	}
	of.used.Remove(of.byKey[key])
	delete(of.byKey, key)
	m.count--
	if len(of.byKey) == 0 {
		delete(m.accounts, account)
	}
}

// Values gives all values.
func (m *Memory[K, V]) Values() iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, of := range m.accounts {
			for _, element := range of.byKey {
				if !yield(element.Value.(memory[K, V]).value) {
					return
				}
			}
		}
	}
}

// ForgetAll removes all keys of an account.
func (m *Memory[K, V]) ForgetAll(account imprint.AccountID) {
	of := m.accounts[account]
	if of != nil {
		m.count -= len(of.byKey)
		delete(m.accounts, account)
	}
}

func (m *Memory[K, V]) evict() {
	var most *memories[K, V]
	var account imprint.AccountID
	for id, of := range m.accounts {
		if most == nil || len(of.byKey) > len(most.byKey) {
			account, most = id, of
		}
	}
	least := most.used.Back().Value.(memory[K, V])
	m.Forget(account, least.key)
	if m.Dropped != nil {
		m.Dropped(least.value)
	}
}
