package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

// connectionTimeout bounds one connection as a whole.
const connectionTimeout = 30 * time.Second

// device is a simulated device.
type device struct {
	certificate   tls.Certificate
	certificateID string // what the registry calls it: SHA-256 of the DER, in hex
	thing         string // the name that the template gives it; also its client id
}

// door is where devices connect: an address on loopback and who is trusted there.
type door struct {
	address string
	roots   *x509.CertPool
}

// approach is how a connection is made, where that matters.
type approach struct {
	source   net.IP                 // the device's address; nil: any
	sessions tls.ClientSessionCache // for a device's TLS sessions; nil: none are resumed
	bulk     bool                   // for much traffic: large TLS records, large reads
}

// open is dial for a connection that has a deadline for its whole life.
func (d door) open(ctx context.Context, who *device) (*tls.Conn, time.Time, error) {
	return d.dial(ctx, who, approach{})
}

// dial connects and completes the TLS handshake; it gives the moment of the
// hello, too. The connection has a deadline, which who keeps it removes.
func (d door) dial(ctx context.Context, who *device, how approach) (*tls.Conn, time.Time, error) {
	dialer := net.Dialer{Timeout: connectionTimeout}
	if how.source != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: how.source}
	}
	conn, err := dialer.DialContext(ctx, "tcp", d.address)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("couldn't connect: %w", err)
	}
	if how.bulk {
		conn = &readAhead{Conn: conn}
	}
	hello := time.Now()
	_ = conn.SetDeadline(hello.Add(connectionTimeout))
	secure := tls.Client(conn, &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: d.roots, ServerName: "localhost",
		Certificates: []tls.Certificate{who.certificate}, ClientSessionCache: how.sessions,
		DynamicRecordSizingDisabled: how.bulk,
	})
	err = secure.HandshakeContext(ctx)
	if err != nil {
		_ = conn.Close()
		return nil, time.Time{}, fmt.Errorf("couldn't complete the TLS handshake: %w", err)
	}
	return secure, hello, nil
}

// readAhead takes what a socket has in large pieces. The TLS package reads
// little more than a record at a time, which would make a system call of each
// message of a server that sends small records.
type readAhead struct {
	net.Conn
	buf        []byte
	start, end int
	// patient: after a small piece more is let come together before the next
	// read, which leaves the cores to a server that sends one by one.
	patient atomic.Bool
	last    int // bytes of the last read
}

const (
	readAheadSize = 64 << 10
	smallPiece    = 4 << 10
	linger        = 100 * time.Microsecond
)

// ahead is whether some of what comes next is here already.
func (r *readAhead) ahead() bool { return r.start < r.end }

func (r *readAhead) Read(p []byte) (int, error) {
	if !r.ahead() {
		if r.buf == nil {
			r.buf = make([]byte, readAheadSize)
		}
		if r.last < smallPiece && r.patient.Load() {
			pause(linger)
		}
		n, err := r.Conn.Read(r.buf)
		r.start, r.end, r.last = 0, n, n
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, r.buf[r.start:r.end])
	r.start += n
	return n, nil
}

// errAdmitted says that a first connection got a CONNACK.
var errAdmitted = errors.New("the first connection was answered instead of closed")

// first is a first connection: hello, CONNECT, and the close by which the
// server says that the device is provisioned. It gives the time from hello to
// close.
func (d door) first(ctx context.Context, who *device) (time.Duration, error) {
	conn, hello, err := d.open(ctx, who)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	err = sendConnect(conn, who)
	if err != nil {
		return 0, err
	}
	var answer [1]byte
	_, err = conn.Read(answer[:])
	switch {
	case err == nil:
		return 0, errAdmitted
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return time.Since(hello), nil
	default:
		return 0, fmt.Errorf("couldn't see the first connection close: %w", err)
	}
}

// reconnect is a connection of a known device: TCP, TLS, CONNECT, CONNACK, and
// a DISCONNECT. It gives the time from the begin to CONNACK.
func (d door) reconnect(ctx context.Context, who *device) (time.Duration, error) {
	took, _, err := d.visit(ctx, who, approach{})
	return took, err
}

// resumed is reconnect with a TLS session of the device's last connection,
// which the server must resume.
func (d door) resumed(ctx context.Context, who *device, sessions tls.ClientSessionCache) (time.Duration, error) {
	took, resumed, err := d.visit(ctx, who, approach{sessions: sessions})
	if err == nil && !resumed {
		return 0, errNotResumed
	}
	return took, err
}

// errNotResumed says that a server made a full handshake of a resumption.
var errNotResumed = errors.New("couldn't resume the TLS session: the server offers no session tickets, or didn't take its own")

// visit also tells whether the TLS session was resumed.
func (d door) visit(ctx context.Context, who *device, how approach) (time.Duration, bool, error) {
	began := time.Now()
	conn, _, err := d.dial(ctx, who, how)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = conn.Close() }()
	err = sendConnect(conn, who)
	if err != nil {
		return 0, false, err
	}
	err = readConnack(conn)
	if err != nil {
		return 0, false, err
	}
	took := time.Since(began)
	_, err = conn.Write((&mqtt.Disconnect{}).Append(nil, mqtt.V311))
	if err != nil {
		return 0, false, fmt.Errorf("couldn't send DISCONNECT: %w", err)
	}
	return took, conn.ConnectionState().DidResume, nil
}

func sendConnect(w io.Writer, who *device) error {
	packet := mqtt.Connect{CleanStart: true, KeepAlive: 60, ClientID: who.thing}
	_, err := w.Write(packet.Append(nil, mqtt.V311))
	if err != nil {
		return fmt.Errorf("couldn't send CONNECT: %w", err)
	}
	return nil
}

// readConnack reads one packet, which must be a CONNACK that accepts.
func readConnack(r io.Reader) error {
	var buf [64]byte // a CONNACK of MQTT 3.1.1 has 4 bytes
	filled := 0
	for {
		header, ok, err := mqtt.ParseFixedHeader(buf[:filled])
		if err != nil {
			return fmt.Errorf("couldn't read CONNACK: %w", err)
		}
		size := header.Size + header.Remaining
		if ok && size > len(buf) {
			return fmt.Errorf("couldn't read CONNACK: a %s of %d bytes came", header.Type, size)
		}
		if ok && filled >= size {
			return checkConnack(header, buf[header.Size:size])
		}
		n, err := r.Read(buf[filled:])
		filled += n
		if err != nil && n == 0 {
			return fmt.Errorf("couldn't read CONNACK: %w", err)
		}
	}
}

func checkConnack(header mqtt.FixedHeader, body []byte) error {
	if header.Type != mqtt.TypeConnack {
		return fmt.Errorf("couldn't read CONNACK: a %s came", header.Type)
	}
	var packet mqtt.Connack
	err := packet.Decode(header, body, mqtt.V311)
	if err != nil {
		return fmt.Errorf("couldn't read CONNACK: %w", err)
	}
	if packet.Reason != mqtt.Success {
		return fmt.Errorf("couldn't connect: CONNACK says %s", packet.Reason)
	}
	return nil
}
