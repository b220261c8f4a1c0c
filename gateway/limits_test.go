package gateway_test

import (
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/gateway"
)

// At a limit a connection is closed at once and counted; one that had its
// CONNECT accepted isn't pending any more.
func TestLimits(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		options gateway.Options
	}{
		{"handshakes", gateway.Options{MaxHandshakes: 2, HandshakeTimeout: patience}},
		{"handshakes from one address", gateway.Options{MaxPending: 2, HandshakeTimeout: patience}},
		{"connections", gateway.Options{MaxConnections: 3, HandshakeTimeout: patience}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{options: row.options})
			cert := selfSigned(ecdsaKey(), "device")
			w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
			live, accepted, err := w.connect(t, client("localhost", cert))
			if err != nil || !accepted {
				t.Fatalf("accepted %t, %v", accepted, err)
			}
			// The slot is given back just after CONNACK is sent.
			eventually(t, "none is pending", func() bool { return w.gateway.Counters().Pending == 0 })
			first, second := w.dial(t), w.dial(t) // stay silent
			refused := w.dial(t)
			_, err = refused.Read(make([]byte, 1))
			if err == nil {
				t.Error("the connection over the limit was kept")
			}
			wantRefused(t, w.attempt(t, refused), "admission", imprint.CodeOverloaded)
			if c := w.gateway.Counters(); c.Overloaded != 1 || c.Pending != 2 || c.Open != 3 || c.Accepted != 4 {
				t.Errorf("got %+v, want one overloaded, two pending, three open, four accepted", c)
			}
			_, err = live.Write([]byte{0xc0, 0})
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadFull(live, make([]byte, 2))
			if err != nil {
				t.Errorf("the live connection suffered: %v", err)
			}
			_ = first.Close()
			w.attempt(t, first) // ended: its place is free soon
			_ = second.Close()
			w.attempt(t, second)
		})
	}
}

// One address may have so many connections open, and begin so many in a second;
// those that are on stay, and a place that is given up can be taken.
func TestLimitsOfOneAddress(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		options gateway.Options
		allowed int64
		frees   bool // an ended connection makes room
	}{
		{"open connections", gateway.Options{MaxPerAddress: 3, HandshakeTimeout: patience}, 3, true},
		{"connections begun", gateway.Options{RatePerAddress: 1, HandshakeTimeout: patience}, 2, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{options: row.options})
			cert := selfSigned(ecdsaKey(), "device")
			w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
			live, accepted, err := w.connect(t, client("localhost", cert))
			if err != nil || !accepted {
				t.Fatalf("accepted %t, %v", accepted, err)
			}
			// However slowly they are begun, some come within one second.
			last, refused, open := live.NetConn(), net.Conn(nil), int64(1)
			for refused == nil {
				if open > 100 {
					t.Fatalf("%d connections were taken, one after the other", open)
				}
				next := w.dial(t)
				var c gateway.Counters
				eventually(t, "the connection is counted", func() bool {
					c = w.gateway.Counters()
					return c.Open+int64(c.Overloaded) != open
				})
				if c.Overloaded > 0 {
					refused = next
				} else {
					last, open = next, c.Open
				}
			}
			_, err = refused.Read(make([]byte, 1))
			if err == nil {
				t.Error("the connection over the limit was kept")
			}
			wantRefused(t, w.attempt(t, refused), "admission", imprint.CodeOverloaded)
			if c := w.gateway.Counters(); c.Overloaded != 1 || c.Open != open || open < row.allowed || row.frees && open > row.allowed {
				t.Errorf("got %+v, want one overloaded and %d open", c, row.allowed)
			}
			if !row.frees {
				return
			}
			_ = last.Close()
			eventually(t, "the place is given up", func() bool { return w.gateway.Counters().Open < open })
			conn := tls.Client(w.dial(t), client("localhost", cert))
			err = conn.Handshake()
			if err != nil {
				t.Errorf("the place that was given up can't be taken: %v", err)
			}
		})
	}
}

// A panic in one connection ends that one.
func TestAPanicEndsOneConnection(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	w := newWorld(t, settings{clock: func() time.Time {
		if broken.CompareAndSwap(true, false) {
			panic("the clock fell off the wall")
		}
		return time.Now()
	}})
	cert := selfSigned(ecdsaKey(), "device")
	w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
	conn := tls.Client(w.dial(t), client("localhost", cert))
	err := conn.Handshake()
	if err != nil {
		t.Fatal(err)
	}
	broken.Store(true) // for the next step of this connection
	_, _ = conn.Write(connectPacket)
	_, err = conn.Read(make([]byte, 1))
	if err == nil {
		t.Error("the connection goes on")
	}
	a := w.attempt(t, conn)
	wantRefused(t, a, "internal", imprint.CodeInternal)
	if got := w.gateway.Counters().Panics; got != 1 {
		t.Errorf("counted %d panics, want 1", got)
	}
	_, accepted, err := w.connect(t, client("localhost", cert))
	if !accepted || err != nil {
		t.Errorf("the next connection: accepted %t, %v", accepted, err)
	}
}
