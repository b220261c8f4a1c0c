package broker

import (
	"container/heap"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
)

// timers wake absent sessions when they expire or their will is due, whichever
// is first.
type timers struct {
	clock imprint.Clock
	done  chan struct{}

	mu     sync.Mutex
	due    dueHeap
	wake   chan struct{}
	closed bool
}

type dueSession struct {
	at      time.Time
	session *session
}

type dueHeap []dueSession

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(dueSession)) }
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = dueSession{}
	*h = (*h)[:last]
	return x
}

// lookAgain is how long the timers trust the clock: it may be set, or be
// another one than that of the machine.
const lookAgain = time.Second

func newTimers(clock imprint.Clock) *timers {
	t := &timers{clock: clock, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	go t.run()
	return t
}

// add asks for a session's tick at a time.
func (t *timers) add(at time.Time, s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	heap.Push(&t.due, dueSession{at, s})
	if t.due[0].session == s {
		t.poke()
	}
}

func (t *timers) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *timers) close() {
	t.mu.Lock()
	t.closed = true
	t.poke()
	t.mu.Unlock()
	<-t.done
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
			t.mu.Unlock()
			return min(next.at.Sub(now), lookAgain), true
		}
		heap.Pop(&t.due)
		t.mu.Unlock()
		again := next.session.tick(now)
		if !again.IsZero() {
			t.add(again, next.session)
		}
	}
}
