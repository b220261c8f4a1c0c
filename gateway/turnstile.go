package gateway

import (
	"container/list"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
)

// turnstile lets a bounded number of handshakes compute at once, so that a storm
// of them leaves the processor to the devices that are on. The others wait in
// the order in which they came; those that have answered a hello already go
// before those that haven't, because what is begun is wasted when its time runs
// out. Whoever waits for the peer holds no turn.
type turnstile struct {
	mu     sync.Mutex
	free   int
	begun  list.List // of *turn
	hellos list.List // of *turn

	waited uint64
	wait   time.Duration
}

func newTurnstile(places int) *turnstile { return &turnstile{free: places} }

// turn is one handshake's use of the turnstile, by one goroutine.
type turn struct {
	turnstile *turnstile
	deadline  time.Time
	begun     bool // a hello was answered
	held      bool
	granted   chan struct{}
}

// take waits for a turn until the deadline; os.ErrDeadlineExceeded says that it
// passed.
func (t *turn) take() error {
	if t.held {
		return nil
	}
	s := t.turnstile
	queue := &s.hellos
	if t.begun {
		queue = &s.begun
	}
	t.begun = true
	s.mu.Lock()
	if s.free > 0 {
		s.free--
		t.held = true
		s.mu.Unlock()
		return nil
	}
	began := time.Now()
	t.granted = make(chan struct{})
	place := queue.PushBack(t)
	s.waited++
	s.mu.Unlock()
	timer := time.NewTimer(t.deadline.Sub(began))
	defer timer.Stop()
	select {
	case <-t.granted:
	case <-timer.C:
	}
	s.mu.Lock()
	s.wait += time.Since(began)
	held := t.held
	if !held {
		queue.Remove(place)
	}
	s.mu.Unlock()
	if !held {
		return os.ErrDeadlineExceeded
	}
	// Whoever is handed a turn would run before the goroutines that were ready
	// earlier, devices' among them; this puts it behind them.
	runtime.Gosched()
	return nil
}

// leave gives the turn to the next, if one is held.
func (t *turn) leave() {
	if !t.held {
		return
	}
	s := t.turnstile
	s.mu.Lock()
	defer s.mu.Unlock()
	t.held = false
	for _, queue := range []*list.List{&s.begun, &s.hellos} {
		first := queue.Front()
		if first == nil {
			continue
		}
		next := queue.Remove(first).(*turn)
		next.held = true
		close(next.granted)
		return
	}
	s.free++
}

// counts gives how many wait, how many had to, and for how long in all.
func (s *turnstile) counts() (waiting int, waited uint64, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun.Len() + s.hellos.Len(), s.waited, s.wait
}

// pacedConn is the socket under a tls.Conn. While its turn is set, a Read is made
// without holding it; after the handshake it is the socket and nothing more.
type pacedConn struct {
	net.Conn
	turn *turn
}

func (c *pacedConn) Read(b []byte) (int, error) {
	t := c.turn
	// Until the hello is complete nothing is computed: configure takes the turn
	// then.
	if t == nil || !t.begun {
		return c.Conn.Read(b)
	}
	t.leave()
	n, err := c.Conn.Read(b)
	if err != nil {
		return n, err
	}
	return n, t.take()
}
