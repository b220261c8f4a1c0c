package gateway_test

import (
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/gateway"
)

// More devices than may compute at once all get through, in both versions, and
// the queue is empty afterwards.
func TestHandshakesWaitForTheirTurnAndAllGetOne(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version uint16) {
		w := newWorld(t, settings{options: gateway.Options{ConcurrentHandshakes: 1, HandshakeTimeout: time.Minute}, tickets: openTickets(t, gateway.TicketOptions{})})
		const devices = 64
		var all sync.WaitGroup
		for range devices {
			cert := selfSigned(ecdsaKey(), "device")
			w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
			all.Go(func() {
				conn := tls.Client(w.dial(t), resuming("localhost", version, cert))
				err := conn.Handshake()
				if err != nil {
					t.Errorf("couldn't shake hands: %v", err)
				}
			})
		}
		all.Wait()
		for w.gateway.Counters().HandshakesOK < devices && t.Context().Err() == nil {
			runtime.Gosched()
		}
		c := w.gateway.Counters()
		if c.HandshakesOK != devices || c.HandshakesWaited == 0 || c.HandshakeWait == 0 || c.HandshakesWaiting != 0 {
			t.Errorf("got %+v, want %d handshakes, some of which waited", c, devices)
		}
	})
}

// A device that says nothing holds no turn, neither before its hello nor after
// the server's answer.
func TestSilentDevicesHoldNoTurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{options: gateway.Options{ConcurrentHandshakes: 1, HandshakeTimeout: time.Minute}})
	cert := selfSigned(ecdsaKey(), "device")
	w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
	silent := w.dial(t)
	defer func() { _ = silent.Close() }()
	stuck := w.dial(t)
	defer func() { _ = stuck.Close() }()
	// Its hello goes out, and nothing after it; the server's answer comes.
	heard := &heardConn{Conn: stuck, heard: make(chan struct{})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = tls.Client(heard, client("localhost", cert)).Handshake()
	}()
	<-heard.heard
	_, accepted, err := w.connect(t, client("localhost", cert))
	if err != nil || !accepted {
		t.Errorf("accepted %t, %v, want true", accepted, err)
	}
	_ = stuck.Close()
	<-ended
}

// heardConn lets one flight out and says when an answer came.
type heardConn struct {
	net.Conn
	wrote bool
	heard chan struct{}
	once  sync.Once
}

func (c *heardConn) Write(b []byte) (int, error) {
	if c.wrote {
		return len(b), nil
	}
	c.wrote = true
	return c.Conn.Write(b)
}

func (c *heardConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.once.Do(func() { close(c.heard) })
	return n, err
}
