package gateway

import (
	"container/list"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/imprint-iot/imprint/internal/tlsalert"
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
// without holding it, and takes all that has come: crypto/tls asks for one record
// after the other, and each would cost a system call and a turn. After the
// handshake it is the socket and nothing more, once what came too early is read.
type pacedConn struct {
	net.Conn
	turn *turn
	// ahead is the part of flight that was read and not asked for; both are nil
	// when there is nothing.
	ahead  []byte
	flight *flight
	// alert is the number of one that came in the clear while the turn was set, and sent
	// of one that went; 0: none.
	alert, sent uint8
}

// CloseWrite tells the device that nothing more comes, where the socket can.
func (c *pacedConn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return nil
	}
	return half.CloseWrite()
}

// Write notes an alert in the clear, which crypto/tls doesn't tell of.
func (c *pacedConn) Write(b []byte) (int, error) {
	if c.turn != nil {
		c.sent = tlsalert.Plain(b)
	}
	return c.Conn.Write(b)
}

// flight has room for what a device sends at once in a handshake: a hello with a
// post-quantum key share and a ticket, or a chain of a few certificates.
type flight [8 << 10]byte

var flights = sync.Pool{New: func() any { return new(flight) }}

func (c *pacedConn) Read(b []byte) (int, error) {
	if len(c.ahead) > 0 {
		return c.deliver(b), nil
	}
	t := c.turn
	if t == nil {
		return c.Conn.Read(b)
	}
	// Until the hello is complete nothing is computed: configure takes the turn
	// then.
	begun := t.begun
	if begun {
		t.leave()
	}
	c.flight = flights.Get().(*flight)
	n, err := c.Conn.Read(c.flight[:])
	c.ahead = c.flight[:n]
	c.alert = tlsalert.Plain(c.ahead)
	if err == nil && begun {
		err = t.take()
	}
	return c.deliver(b), err
}

// deliver gives what was read ahead, and the buffer back when that was all.
func (c *pacedConn) deliver(b []byte) int {
	n := copy(b, c.ahead)
	c.ahead = c.ahead[n:]
	if len(c.ahead) == 0 {
		flights.Put(c.flight)
		c.ahead, c.flight = nil, nil
	}
	return n
}
