package broker

import (
	"container/heap"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
)

// timers wake absent sessions when they expire or their will is due, whichever
// is first. Each session has one entry at most, however often its client comes
// and goes.
type timers struct {
	clock imprint.Clock
	done  chan struct{}

	// mu guards what follows, and the entry of each session. No other lock is taken
	// while it is held.
	mu     sync.Mutex
	due    dueHeap
	wake   chan struct{}
	closed bool
}

// dueSession is the entry of one session.
type dueSession struct {
	at      time.Time
	session *session
	place   int // in the heap
}

type dueHeap []*dueSession

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}
func (h *dueHeap) Push(x any) {
	entry := x.(*dueSession)
	entry.place = len(*h)
	entry.session.durable.due = entry
	*h = append(*h, entry)
}
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	entry := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	entry.session.durable.due = nil
	return entry
}

// lookAgain is how long the timers trust the clock: it may be set, or be
// another one than that of the machine.
const lookAgain = time.Second

func newTimers(clock imprint.Clock) *timers {
	t := &timers{clock: clock, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	go t.run()
	return t
}

// add asks for a session's tick at a time, or at the one that was asked for
// before when that is earlier. One that has ended gets none: whoever asks may be
// late.
func (t *timers) add(at time.Time, s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	entry := s.durable.due
	switch {
	case t.closed || s.durable.forgotten:
		return
	case entry == nil:
		heap.Push(&t.due, &dueSession{at: at, session: s})
	case at.Before(entry.at):
		entry.at = at
		heap.Fix(&t.due, entry.place)
	}
	if t.due[0].session == s {
		t.poke()
	}
}

// forget takes back what was asked, or will be, for a session that has ended.
func (t *timers) forget(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.durable.forgotten = true
	if entry := s.durable.due; entry != nil {
		heap.Remove(&t.due, entry.place)
	}
}

func (t *timers) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// close ends the timers. A will that waits for the store may hold them up.
func (t *timers) close(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	t.poke()
	t.mu.Unlock()
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("couldn't wait for the wills of absent sessions: %w", ctx.Err())
	}
}

func (t *timers) run() {
	defer close(t.done)
	timer := time.NewTimer(lookAgain)
	defer timer.Stop()
	for {
		wait, more := t.round()
		if !more {
			return
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-t.wake:
		}
	}
}

// round ticks the sessions whose time has come and gives how long to wait for the
// next.
func (t *timers) round() (time.Duration, bool) {
	for {
		now := t.clock()
		t.mu.Lock()
		if t.closed {
			t.mu.Unlock()
			return 0, false
		}
		if len(t.due) == 0 {
			t.mu.Unlock()
			return time.Hour, true
		}
		next := t.due[0]
		if next.at.After(now) {
			wait := next.at.Sub(now)
			t.mu.Unlock()
			return min(wait, lookAgain), true
		}
		heap.Pop(&t.due)
		t.mu.Unlock()
		again := next.session.tick(now)
		if !again.IsZero() {
			t.add(again, next.session)
		}
	}
}
