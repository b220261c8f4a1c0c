package est

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/tlsalert"
)

// handshakeTimeout bounds a TLS handshake.
const handshakeTimeout = 10 * time.Second

// TLS gives the settings of the door's TLS: any client certificate is asked for and none
// demanded, because the label decides, which stands in the request. Sessions aren't
// resumed: each connection proves its key, and has a tls-unique value of its own. Records
// are as long as what is written: strongSwan's client reads an answer in two records at most.
func (d *Door) TLS(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: certificate, ClientAuth: tls.RequestClientCert, NextProtos: []string{"http/1.1"},
		SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
	}
}

// Listener gives connections whose handshake is complete. Those of one address and of all
// are bounded, handshakes among them; handshakes that fail are attempts in the trace.
type Listener struct {
	net.Listener
	door   *Door
	config *tls.Config
	ready  chan net.Conn
	done   context.Context
	end    context.CancelFunc
	failed error // of Accept; set before done

	mu    sync.Mutex
	peers map[string]int
	all   int
}

// Listen makes a Listener, which ends with Close.
func Listen(inner net.Listener, config *tls.Config, door *Door) *Listener {
	l := &Listener{Listener: inner, door: door, config: config, ready: make(chan net.Conn), peers: map[string]int{}}
	l.done, l.end = context.WithCancel(context.Background())
	go l.run()
	return l
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.done.Done():
		return nil, l.failed
	}
}

func (l *Listener) run() {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			var temporary net.Error
			if errors.As(err, &temporary) && temporary.Timeout() {
				continue
			}
			l.failed = err
			l.end()
			return
		}
		held := l.hold(conn)
		if held == nil {
			l.door.refused.Add(1)
			_ = conn.Close()
			continue
		}
		go l.handshake(held)
	}
}

// heldConn counts as one of its address until it is closed.
type heldConn struct {
	net.Conn
	free func()
}

func (c *heldConn) Close() error {
	c.free()
	return c.Conn.Close()
}

// hold counts a connection; nil: there are too many.
func (l *Listener) hold(conn net.Conn) net.Conn {
	key := networkOf(conn.RemoteAddr().String())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.door.opts.MaxConnections || l.peers[key] >= l.door.opts.MaxPerAddress {
		return nil
	}
	l.all++
	l.peers[key]++
	return &heldConn{Conn: conn, free: sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all--
		l.peers[key]--
		if l.peers[key] == 0 {
			delete(l.peers, key)
		}
	})}
}

// alertConn is the socket under a handshake.
type alertConn struct {
	net.Conn
	alert uint8 // that came in the clear; 0: none
}

// Read notes an alert in the clear, which crypto/tls doesn't tell of.
func (c *alertConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.alert = tlsalert.Plain(b[:n])
	return n, err
}

func (l *Listener) handshake(conn net.Conn) {
	socket := &alertConn{Conn: conn}
	secured := tls.Server(socket, l.config)
	limited, cancel := context.WithTimeout(l.done, handshakeTimeout)
	defer cancel()
	err := secured.HandshakeContext(limited)
	if err != nil {
		_ = conn.Close()
		if l.done.Err() == nil {
			l.refuse(socket, err)
		}
		return
	}
	select {
	case l.ready <- secured:
	case <-l.done.Done():
		_ = conn.Close()
	}
}

// refuse tells the trace of a handshake that died.
func (l *Listener) refuse(socket *alertConn, err error) {
	l.door.failed.Add(1)
	rec := l.door.opts.Trace.Begin(socket.RemoteAddr().String())
	alert, wire := tlsalert.Received(err), ""
	if alert == 0 {
		alert = socket.alert
	}
	why := explainHandshake(err)
	if alert != 0 {
		wire = "received " + tlsalert.Text(alert)
		why = refusedByClient(alert)
	}
	rec.FailWith("tls", why, wire)
	rec.End(imprint.OutcomeRefused, why.Code)
}

// refusedByClient puts the alert of a client that won't talk to this server into words.
func refusedByClient(alert uint8) *imprint.Error {
	text := tlsalert.Text(alert)
	switch alert {
	case 48:
		return imprint.Errorf(imprint.CodeServerNotTrusted, "the client doesn't trust the server's root on the port of EST: it sent %s", text)
	case 42, 43, 44, 46:
		return imprint.Errorf(imprint.CodeServerCertRefused, "the client doesn't accept the server's certificate on the port of EST: it sent %s", text)
	case 45:
		return imprint.Errorf(imprint.CodeDeviceClock, "the client takes the server's certificate on the port of EST for one outside its validity: it sent %s", text)
	}
	return imprint.Errorf(imprint.CodeHandshakeFailed, "the client ended the handshake on the port of EST: it sent %s", text)
}

func explainHandshake(err error) *imprint.Error {
	var header tls.RecordHeaderError
	text := err.Error()
	code := imprint.CodeHandshakeFailed
	switch {
	case errors.As(err, &header):
		return imprint.Errorf(imprint.CodeNotTLS, "the first bytes on the port of EST weren't a TLS hello: %w", err).WithHint("EST is spoken over HTTPS alone.")
	case strings.Contains(text, "client offered only unsupported versions"):
		code = imprint.CodeTLSVersion
	case strings.Contains(text, "invalid signature by the client certificate"):
		code = imprint.CodeClientKey
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		code = imprint.CodeHandshakeTimeout
	case errors.Is(err, io.EOF):
		code = imprint.CodeClosedInHandshake
	}
	return imprint.Errorf(code, "the TLS handshake on the port of EST failed: %w", err)
}
