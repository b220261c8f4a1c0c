package functions

import (
	"context"
	"slices"
	"sync"

	"github.com/imprint-iot/imprint"
)

// slots bound the runs under way of each function that runs elsewhere. Who finds
// none free waits in order.
type slots struct {
	mu      sync.Mutex
	held    map[functionKey]int
	waiting map[functionKey][]chan struct{} // each gets one close
}

func (s *slots) take(ctx context.Context, key functionKey, limit, maxWaiting int) error {
	s.mu.Lock()
	if limit == 0 {
		s.mu.Unlock()
		return imprint.Errorf(imprint.CodeFunctionThrottled, "the function's reserved concurrency is 0")
	}
	if s.held[key] < limit && len(s.waiting[key]) == 0 {
		s.held[key]++
		s.mu.Unlock()
		return nil
	}
	if len(s.waiting[key]) >= maxWaiting {
		s.mu.Unlock()
		return imprint.Errorf(imprint.CodeFunctionThrottled, "%d calls of function %s wait already", maxWaiting, key.name)
	}
	turn := make(chan struct{})
	s.waiting[key] = append(s.waiting[key], turn)
	s.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	i := slices.Index(s.waiting[key], turn)
	if i >= 0 {
		s.waiting[key] = slices.Delete(s.waiting[key], i, i+1)
	}
	s.mu.Unlock()
	if i < 0 {
		s.give(key) // the turn came at the last moment
	}
	return imprint.Errorf(imprint.CodeFunctionTimeout, "no place for a call of function %s was free in time", key.name)
}

// give hands a place on to who waits, or frees it.
func (s *slots) give(key functionKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if list := s.waiting[key]; len(list) > 0 {
		s.waiting[key] = list[1:]
		close(list[0])
		return
	}
	s.held[key]--
	if s.held[key] == 0 {
		delete(s.held, key)
		delete(s.waiting, key)
	}
}
