package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

// maxPacket bounds one packet of the server: AWS IoT Core's payloads have at most
// 128 KiB.
const maxPacket = 320 << 10

// keepAlive is what CONNECT asks for, in seconds: the least that AWS IoT Core
// takes.
const keepAlive = 30

// session is one MQTT connection.
type session struct {
	conn    net.Conn // over TLS
	in      *bufio.Reader
	version mqtt.Version
	timeout time.Duration
	connack *mqtt.Connack
	// unwatch lets the end of the context leave the connection alone.
	unwatch func() bool
	// inbox holds what came while something else was waited for.
	inbox []heard
}

// heard is a message that came.
type heard struct{ topic string }

// maxInbox bounds inbox; messages beyond it aren't the one that is waited for.
const maxInbox = 64

// endedError says that the server ended the connection with words.
type endedError struct{ packet *mqtt.Disconnect }

func (e *endedError) Error() string {
	text := fmt.Sprintf("the server sent DISCONNECT 0x%02X %s", byte(e.packet.Reason), e.packet.Reason)
	if e.packet.Properties.Has(mqtt.PropReasonString) {
		text += fmt.Sprintf(" (%q)", shown(e.packet.Properties.ReasonString))
	}
	return text
}

// open shakes hands as the device and sends CONNECT. The error tells why no
// CONNACK came; o is the handshake.
func (x *examination) open(ctx context.Context, version mqtt.Version, clientID string, clean bool) (*session, *outcome, error) {
	o := x.handshake(ctx, x.address, x.asDevice())
	if o.err != nil {
		return nil, o, o.err
	}
	s := &session{conn: o.conn, in: bufio.NewReader(o.conn), version: version, timeout: x.opts.Timeout}
	s.unwatch = context.AfterFunc(ctx, func() { _ = o.conn.NetConn().Close() })
	connect := &mqtt.Connect{CleanStart: clean, KeepAlive: keepAlive, ClientID: clientID}
	if version == mqtt.V5 && !clean {
		// What is stored is left to live as long as the server lets it; the device's
		// next CONNECT says its own.
		connect.Properties.SessionExpiry = 0xffffffff
		connect.Properties.Mark(mqtt.PropSessionExpiry)
	}
	x.lastConnect[clientID] = time.Now()
	s.connack = &mqtt.Connack{}
	// Also after a failed write: an alert may wait that says why.
	unsent := s.send(connect)
	err := s.await(mqtt.TypeConnack, s.connack)
	if err == nil {
		err = unsent
	}
	if err != nil {
		s.cut()
		return nil, o, err
	}
	return s, o, nil
}

func (s *session) send(p mqtt.Packet) error {
	_ = s.conn.SetDeadline(time.Now().Add(s.timeout))
	_, err := s.conn.Write(p.Append(nil, s.version))
	return err
}

// await reads until a packet of a type comes and decodes it into packet. It has
// the session's timeout in all.
func (s *session) await(want mqtt.PacketType, packet mqtt.Packet) error {
	_ = s.conn.SetDeadline(time.Now().Add(s.timeout))
	for {
		header, body, err := s.read()
		if err != nil {
			return err
		}
		switch header.Type {
		case want:
			err = packet.Decode(header, body, s.version)
			if err != nil {
				return &notMQTTError{err}
			}
			return nil
		case mqtt.TypePublish:
			if want == mqtt.TypeConnack {
				return &notMQTTError{errors.New("a PUBLISH came before CONNACK")}
			}
			err = s.keep(header, body)
		case mqtt.TypeDisconnect:
			gone := &mqtt.Disconnect{}
			err = gone.Decode(header, body, s.version)
			if err == nil {
				return &endedError{gone}
			}
		default:
			if want == mqtt.TypeConnack {
				return &notMQTTError{fmt.Errorf("%s came instead of CONNACK", header.Type)}
			}
		}
		if err != nil {
			return &notMQTTError{err}
		}
	}
}

// keep remembers a message. It isn't acknowledged: it is the device's.
func (s *session) keep(header mqtt.FixedHeader, body []byte) error {
	var p mqtt.Publish
	err := p.Decode(header, body, s.version)
	if err != nil {
		return err
	}
	if len(s.inbox) < maxInbox {
		s.inbox = append(s.inbox, heard{topic: string(p.Topic)})
	}
	return nil
}

// errHTTP says that a server answers as one of HTTP does.
var errHTTP = errors.New("the server answers with HTTP")

// notMQTTError says that what came isn't MQTT, or breaks its rules.
type notMQTTError struct{ err error }

func (e *notMQTTError) Error() string { return e.err.Error() }
func (e *notMQTTError) Unwrap() error { return e.err }

// read reads one packet.
func (s *session) read() (mqtt.FixedHeader, []byte, error) {
	var start []byte
	for {
		b, err := s.in.ReadByte()
		if err != nil {
			return mqtt.FixedHeader{}, nil, err
		}
		start = append(start, b)
		header, whole, err := mqtt.ParseFixedHeader(start)
		if err != nil && b == 'H' {
			more, _ := s.in.Peek(4)
			if string(more) == "TTP/" {
				return header, nil, &notMQTTError{errHTTP}
			}
		}
		if err != nil {
			return header, nil, &notMQTTError{fmt.Errorf("the first byte(s) are %x: %w", start, err)}
		}
		if !whole {
			continue
		}
		if header.Remaining > maxPacket {
			return header, nil, &notMQTTError{fmt.Errorf("a packet of %d bytes is announced", header.Remaining)}
		}
		body := make([]byte, header.Remaining)
		_, err = io.ReadFull(s.in, body)
		return header, body, err
	}
}

// partingPatience is how long is waited for a server to close after DISCONNECT.
const partingPatience = 2 * time.Second

// close says goodbye and waits until the server has closed, too: the doctor's next
// connection has the same client id, and a server that reads it first would end this one
// as taken over, which is a failure of the device there. Forget ends a session that this
// connection began (MQTT 5).
func (s *session) close(forget bool) {
	bye := &mqtt.Disconnect{}
	if forget && s.version == mqtt.V5 {
		bye.Properties.SessionExpiry = 0
		bye.Properties.Mark(mqtt.PropSessionExpiry)
	}
	err := s.send(bye)
	if err == nil {
		_ = s.conn.SetReadDeadline(time.Now().Add(min(partingPatience, s.timeout)))
		_, _ = io.Copy(io.Discard, s.in)
	}
	s.cut()
}

func (s *session) cut() {
	s.unwatch()
	_ = s.conn.Close()
}
