// Package fair shares workers between accounts. One account never has more of
// them than are left to others, and one queue of an account never more than half of
// that: whatever hangs, there is a worker for who has none yet.
//
// Alone, an account gets half of the workers and each of its queues a third. With
// others that want as much as they can get, each has the same part.
//
// A Crew does so what a queue of the store owes, such as asynchronous calls; Rows
// bounds how much of that an account can pile up, and a Memory what is remembered of it.
package fair

import (
	"sync"

	"github.com/imprint-iot/imprint"
)

// Queue is work that waits for one another: of a tenant, under a name.
type Queue struct {
	Tenant imprint.Tenant
	Name   string
}

// Places are workers, and who has them. It is safe for many goroutines.
type Places struct {
	count int // of all

	mu       sync.Mutex
	held     map[string]struct{} // the work under way
	accounts map[imprint.AccountID]int
	queues   map[Queue]int
}

// New makes places.
func New(count int) *Places {
	return &Places{count: count, held: map[string]struct{}{}, accounts: map[imprint.AccountID]int{}, queues: map[Queue]int{}}
}

// Held is how many places are taken.
func (p *Places) Held() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.held)
}

// Take takes a place for work that isn't under way. Limit bounds the queue's
// places, whatever is free; 0: nothing else does.
func (p *Places) Take(id string, q Queue, limit int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, under := p.held[id]
	if under || !p.room(q) || limit > 0 && p.queues[q] >= limit {
		return false
	}
	p.held[id] = struct{}{}
	p.accounts[q.Tenant.Account]++
	p.queues[q]++
	return true
}

// Give gives a place back.
func (p *Places) Give(id string, q Queue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.held, id)
	p.accounts[q.Tenant.Account]--
	if p.accounts[q.Tenant.Account] == 0 {
		delete(p.accounts, q.Tenant.Account)
	}
	p.queues[q]--
	if p.queues[q] == 0 {
		delete(p.queues, q)
	}
}

func (p *Places) roomForAccount(a imprint.AccountID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.roomOf(a)
}

func (p *Places) roomForQueue(q Queue) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.room(q)
}

// heldBy is how many places a queue has.
func (p *Places) heldBy(q Queue) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queues[q]
}

// roomOf says whether an account may have a place more.
func (p *Places) roomOf(a imprint.AccountID) bool {
	return MayTake(p.accounts[a], p.count-len(p.held))
}

func (p *Places) room(q Queue) bool {
	const ofFree = 2
	return p.roomOf(q.Tenant.Account) && MayTake(ofFree*p.queues[q], p.count-len(p.held))
}

// MayTake says whether who holds some places may have one more while as many are
// free: as long as it has fewer than it leaves.
func MayTake(held, free int) bool { return held < free }
