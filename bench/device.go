package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
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

// open connects and completes the TLS handshake; it gives the moment of the
// hello, too. The connection has a deadline for its whole life.
func (d door) open(ctx context.Context, who *device) (*tls.Conn, time.Time, error) {
	dialer := net.Dialer{Timeout: connectionTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", d.address)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("couldn't connect: %w", err)
	}
	hello := time.Now()
	_ = conn.SetDeadline(hello.Add(connectionTimeout))
	secure := tls.Client(conn, &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: d.roots, ServerName: "localhost",
		Certificates: []tls.Certificate{who.certificate},
	})
	err = secure.HandshakeContext(ctx)
	if err != nil {
		_ = conn.Close()
		return nil, time.Time{}, fmt.Errorf("couldn't complete the TLS handshake: %w", err)
	}
	return secure, hello, nil
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
	began := time.Now()
	conn, _, err := d.open(ctx, who)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	err = sendConnect(conn, who)
	if err != nil {
		return 0, err
	}
	err = readConnack(conn)
	if err != nil {
		return 0, err
	}
	took := time.Since(began)
	_, err = conn.Write((&mqtt.Disconnect{}).Append(nil, mqtt.V311))
	if err != nil {
		return 0, fmt.Errorf("couldn't send DISCONNECT: %w", err)
	}
	return took, nil
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
