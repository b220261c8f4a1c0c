package gateway_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/gateway"
)

// Devices that wait for the only turn all get through when it is free again, in both
// versions, and the queue is empty afterwards.
func TestHandshakesWaitForTheirTurnAndAllGetOne(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version uint16) {
		w := newWorld(t, settings{options: gateway.Options{ConcurrentHandshakes: 1, HandshakeTimeout: patience}, tickets: openTickets(t, gateway.TicketOptions{})})
		const devices = 64
		leave, err := gateway.HoldTurn(w.gateway)
		if err != nil {
			t.Fatal(err)
		}
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
		eventually(t, "all wait", func() bool { return w.gateway.Counters().HandshakesWaiting == devices })
		leave()
		all.Wait()
		eventually(t, "all are through", func() bool { return w.gateway.Counters().HandshakesOK == devices })
		c := w.gateway.Counters()
		if c.HandshakesOK != devices || c.HandshakesWaited < devices || c.HandshakeWait == 0 || c.HandshakesWaiting != 0 {
			t.Errorf("got %+v, want %d handshakes, all of which waited", c, devices)
		}
	})
}

// A device that says nothing holds no turn, neither before its hello nor after
// the server's answer.
func TestSilentDevicesHoldNoTurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{options: gateway.Options{ConcurrentHandshakes: 1, HandshakeTimeout: patience}})
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

// However a device's bytes come, one by one or its CONNECT together with the end
// of its handshake, none is lost and the connection works on.
func TestHandshakesDontDependOnHowBytesArePacked(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version uint16) {
		for _, size := range []int{1, 1 << 20} {
			w := newWorld(t, settings{tickets: openTickets(t, gateway.TicketOptions{})})
			cert := selfSigned(ecdsaKey(), "device")
			w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
			config := resuming("localhost", version, cert)
			for range 2 {
				conn := tls.Client(&packedConn{Conn: w.dial(t), size: size}, config)
				err := conn.Handshake()
				if err != nil {
					t.Fatalf("pieces of %d: couldn't shake hands: %v", size, err)
				}
				for _, exchange := range []struct{ send, want []byte }{{connectPacket, []byte{0x20, 2, 0, 0}}, {[]byte{0xc0, 0}, []byte{0xd0, 0}}} {
					_, err = conn.Write(exchange.send)
					if err != nil {
						t.Fatalf("pieces of %d: couldn't send: %v", size, err)
					}
					got := make([]byte, len(exchange.want))
					_, err = io.ReadFull(conn, got)
					if err != nil || !bytes.Equal(got, exchange.want) {
						t.Fatalf("pieces of %d: got %x, %v, want %x", size, got, err, exchange.want)
					}
				}
				err = conn.Close()
				if err != nil {
					t.Errorf("pieces of %d: couldn't close: %v", size, err)
				}
			}
		}
	})
}

// packedConn sends what was written since the last Read in pieces of a size.
type packedConn struct {
	net.Conn
	size int
	out  []byte
}

func (c *packedConn) Write(b []byte) (int, error) {
	c.out = append(c.out, b...)
	return len(b), nil
}

func (c *packedConn) Read(b []byte) (int, error) {
	for len(c.out) > 0 {
		n, err := c.Conn.Write(c.out[:min(c.size, len(c.out))])
		if err != nil {
			return 0, err
		}
		c.out = c.out[n:]
	}
	return c.Conn.Read(b)
}
