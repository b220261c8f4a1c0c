package test

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy is the bad network between devices and the server: it forwards TCP
// bytes and does to them what the test says. What is said holds for links that
// are open and for new ones.
type proxy struct {
	listener net.Listener
	target   func() string
	done     sync.WaitGroup

	mu    sync.Mutex
	links map[*link]bool
	rules rules
	next  func(*link) // what the next link gets, once
}

// rules are how a network misbehaves. The zero value is a good one.
type rules struct {
	delay time.Duration // of each piece, in both directions
	piece int           // most bytes in one piece; 0: as they come
}

// link is one connection through the proxy.
type link struct {
	proxy        *proxy
	device, over *net.TCPConn

	mu sync.Mutex
	// left is how many more bytes of the device are forwarded before the link
	// is cut; negative: any number.
	left int
	// up and down are open while nothing is forwarded from and to the device.
	up, down chan struct{}
	ends     int // directions that are over
	gone     chan struct{}
	ending   sync.Once
}

// newProxy listens on a port of the loopback interface.
func newProxy(t *testing.T, target func() string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, target: target, links: map[*link]bool{}}
	p.done.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		p.cutAll()
		p.done.Wait()
	})
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		over, err := net.Dial("tcp", p.target())
		if err != nil {
			_ = conn.Close()
			continue
		}
		l := &link{proxy: p, device: conn.(*net.TCPConn), over: over.(*net.TCPConn), left: -1, gone: make(chan struct{})}
		p.mu.Lock()
		p.links[l] = true
		next := p.next
		p.next = nil
		p.mu.Unlock()
		if next != nil {
			next(l)
		}
		p.done.Go(func() { l.forward(l.over, l.device, true) })
		p.done.Go(func() { l.forward(l.device, l.over, false) })
	}
}

// behave changes the rules of all links.
func (p *proxy) behave(r rules) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = r
}

// cutNextAfter cuts the next link once it has forwarded n bytes of the device.
func (p *proxy) cutNextAfter(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = func(l *link) { l.cutAfter(n) }
}

// open gives the links that are open.
func (p *proxy) open() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*link
	for l := range p.links {
		list = append(list, l)
	}
	return list
}

// only gives the one link that is open.
func (p *proxy) only(t *testing.T) *link {
	t.Helper()
	list := p.open()
	if len(list) != 1 {
		t.Fatalf("links through the proxy: got %d, want 1", len(list))
	}
	return list[0]
}

// cutAll resets all connections, on both sides.
func (p *proxy) cutAll() {
	for _, l := range p.open() {
		l.cut()
	}
}

func (p *proxy) now() rules {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rules
}

// forward copies one direction until the link ends.
func (l *link) forward(to, from *net.TCPConn, up bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			piece := rest
			r := l.proxy.now()
			if r.piece > 0 {
				piece = rest[:min(r.piece, len(rest))]
			}
			rest = rest[len(piece):]
			if r.delay > 0 {
				l.wait(r.delay)
			}
			l.thaw(up)
			if up {
				piece, rest = l.allowed(piece, rest)
			}
			_, err := to.Write(piece)
			if err != nil {
				l.cut()
				return
			}
			if up && rest == nil {
				l.cut()
				return
			}
		}
		if errors.Is(err, io.EOF) {
			l.end(to)
			return
		}
		if err != nil {
			l.cut()
			return
		}
	}
}

// allowed shortens a piece to what may still pass; nothing is left then.
func (l *link) allowed(piece, rest []byte) ([]byte, []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left < 0 {
		return piece, rest
	}
	if len(piece) < l.left {
		l.left -= len(piece)
		return piece, rest
	}
	return piece[:l.left], nil
}

func (l *link) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.gone:
	}
}

// thaw waits while a direction is frozen.
func (l *link) thaw(up bool) {
	l.mu.Lock()
	frozen := l.down
	if up {
		frozen = l.up
	}
	l.mu.Unlock()
	if frozen == nil {
		return
	}
	select {
	case <-frozen:
	case <-l.gone:
	}
}

// freeze stops forwarding in both directions without telling anybody: a
// half-open connection.
func (l *link) freeze() {
	l.freezeDown()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up = make(chan struct{})
}

// freezeDown lets nothing through to the device any more.
func (l *link) freezeDown() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = make(chan struct{})
}

// cutAfter cuts the link once n more bytes of the device were forwarded.
func (l *link) cutAfter(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = n
}

// cut resets both connections.
func (l *link) cut() {
	l.ending.Do(func() {
		close(l.gone)
		l.proxy.mu.Lock()
		delete(l.proxy.links, l)
		l.proxy.mu.Unlock()
		for _, conn := range []*net.TCPConn{l.device, l.over} {
			_ = conn.SetLinger(0)
			_ = conn.Close()
		}
	})
}

// end hands on the end of one direction; both ends free the link.
func (l *link) end(to *net.TCPConn) {
	l.thaw(to == l.over)
	_ = to.CloseWrite()
	l.mu.Lock()
	l.ends++
	both := l.ends == 2
	l.mu.Unlock()
	if both {
		l.cut()
	}
}
