package fair

import (
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
)

const (
	// stepsOfTenant bounds the queues of a tenant that one round looks at.
	stepsOfTenant = 1000
	// pageOfQueues is how many of them are read at a time.
	pageOfQueues = 64
)

// Source is where work is owed.
type Source[T any] interface {
	Tenants() ([]imprint.Tenant, error)
	// Queues lists by name the queues of a tenant after a name; "" begins with the
	// first.
	Queues(t imprint.Tenant, after string, limit int) ([]imprint.DueQueue, error)
	// Due lists what is due in a queue, the most overdue first.
	Due(q Queue, limit int) ([]T, error)
}

// Work is one piece of it.
type Work[T any] struct {
	Queue Queue
	Item  T
}

// Rounds look at what is due, each where the last one stopped. It is for one
// goroutine.
type Rounds[T any] struct {
	places *Places
	turn   int                       // whose tenant is first
	after  map[imprint.Tenant]string // the queue that a tenant's round ended with
}

// NewRounds makes the rounds that fill places.
func NewRounds[T any](places *Places) *Rounds[T] {
	return &Rounds[T]{places: places, after: map[imprint.Tenant]string{}}
}

// Next gives what is due and may get a place, in turns of tenants, and within one
// of its queues. All is false when a tenant has more queues than were looked at.
func (r *Rounds[T]) Next(from Source[T], now time.Time) (list []Work[T], all bool, err error) {
	tenants, err := from.Tenants()
	if err != nil || len(tenants) == 0 {
		clear(r.after)
		return nil, true, err
	}
	r.turn = (r.turn + 1) % len(tenants)
	tenants = append(slices.Clone(tenants[r.turn:]), tenants[:r.turn]...)
	after := map[imprint.Tenant]string{}
	all = true
	var ofTenants [][]Work[T]
	for _, tenant := range tenants {
		after[tenant] = r.after[tenant]
		if !r.places.roomForAccount(tenant.Account) {
			continue
		}
		w := walk[T]{places: r.places, from: from, tenant: tenant, after: after[tenant], now: now}
		whole, err := w.run()
		if err != nil {
			return nil, false, err
		}
		all = all && whole
		after[tenant] = w.after
		ofTenants = append(ofTenants, inTurns(w.found))
	}
	r.after = after
	return inTurns(ofTenants), all, nil
}

// Waiting counts the queues with something due that gets no place because
// the queue or its account has as many as it may. Of a tenant it looks at as many queues
// as a round.
func Waiting[T any](places *Places, from Source[T], now time.Time) (int, error) {
	if places.Held() == 0 {
		return 0, nil
	}
	tenants, err := from.Tenants()
	if err != nil {
		return 0, err
	}
	count := 0
	for _, tenant := range tenants {
		after := ""
		for range stepsOfTenant / pageOfQueues {
			page, err := from.Queues(tenant, after, pageOfQueues)
			if err != nil {
				return 0, err
			}
			for _, q := range page {
				after = q.Name
				waits, err := waits(places, from, Queue{tenant, q.Name}, q.DueAt.After(now))
				if err != nil {
					return 0, err
				}
				if waits {
					count++
				}
			}
			if len(page) < pageOfQueues {
				break
			}
		}
	}
	return count, nil
}

// waits says whether a queue has more due than is under way, and no room for it.
func waits[T any](places *Places, from Source[T], q Queue, later bool) (bool, error) {
	if later || places.roomForQueue(q) {
		return false, nil
	}
	held := places.heldBy(q)
	due, err := from.Due(q, held+1)
	return len(due) > held, err
}

// walk goes through the queues of one tenant.
type walk[T any] struct {
	places *Places
	from   Source[T]
	tenant imprint.Tenant
	after  string
	now    time.Time
	found  [][]Work[T]
}

// run goes once around, from the queue where the last round ended, until all
// places could be filled. False: it stopped at the bound of steps.
func (w *walk[T]) run() (bool, error) {
	begin, wrapped := w.after, w.after == ""
	for steps := 0; steps < stepsOfTenant; {
		page, err := w.from.Queues(w.tenant, w.after, pageOfQueues)
		if err != nil {
			return false, err
		}
		for _, q := range page {
			if wrapped && begin != "" && q.Name > begin {
				return true, nil
			}
			steps++
			w.after = q.Name
			err = w.look(q)
			if err != nil || len(w.found) >= w.places.count {
				return true, err
			}
		}
		if len(page) == pageOfQueues {
			continue
		}
		if wrapped {
			return true, nil
		}
		w.after, wrapped = "", true
	}
	return false, nil
}

// look reads what is due in a queue. Work under way is due still, so that as much
// is read as there are places.
func (w *walk[T]) look(q imprint.DueQueue) error {
	queue := Queue{w.tenant, q.Name}
	if q.DueAt.After(w.now) || !w.places.roomForQueue(queue) {
		return nil
	}
	due, err := w.from.Due(queue, w.places.count)
	if err != nil || len(due) == 0 {
		return err
	}
	works := make([]Work[T], len(due))
	for i, item := range due {
		works[i] = Work[T]{queue, item}
	}
	w.found = append(w.found, works)
	return nil
}

// inTurns merges lists: the first of each, then the second of each, and so on.
func inTurns[T any](lists [][]T) []T {
	var merged []T
	for i := 0; len(lists) > 0; i++ {
		lists = slices.DeleteFunc(lists, func(list []T) bool { return i >= len(list) })
		for _, list := range lists {
			merged = append(merged, list[i])
		}
	}
	return merged
}
