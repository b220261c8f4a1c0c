package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

// wire is a client without a mind of its own, for what no library can be made
// to do: it sends what it is told, acknowledges as it is told, reads when it is
// told, and is cut at any moment. What comes while it waits for something else
// is in its inbox.
//
// Methods fail the test; those that begin with try give an error.
type wire struct {
	t       testing.TB
	conn    net.Conn
	tcp     *net.TCPConn // below TLS; nil without it
	version mqtt.Version
	connack *mqtt.Connack

	in    []byte // read and not decoded yet
	ids   uint16
	inbox []*mqtt.Publish
	// withhold keeps back the PUBACKs; unacked are the ids that wait for them.
	// A message that letGo accepts is acknowledged all the same.
	withhold bool
	unacked  []uint16
	letGo    func(*mqtt.Publish) bool
	// goodbye is the server's DISCONNECT.
	goodbye *mqtt.Disconnect
}

// errUnexpected is a packet that shouldn't come.
var errUnexpected = errors.New("unexpected packet")

// open connects to a tenant with its certificate and must be let in.
func (s *side) open(t testing.TB, connect mqtt.Connect, version mqtt.Version) *wire {
	t.Helper()
	return s.openAt(t, "", connect, version)
}

// openAt is open through another address than the server's.
func (s *side) openAt(t testing.TB, address string, connect mqtt.Connect, version mqtt.Version) *wire {
	t.Helper()
	w, err := s.tryOpen(t, address, connect, version)
	if err != nil {
		t.Fatalf("%s couldn't connect: %v", connect.ClientID, err)
	}
	t.Cleanup(func() { _ = w.conn.Close() })
	return w
}

func (s *side) tryOpen(t testing.TB, address string, connect mqtt.Connect, version mqtt.Version) (*wire, error) {
	t.Helper()
	w, err := s.tryDial(t, address)
	if err != nil {
		return nil, err
	}
	err = w.tryConnect(connect, version)
	if err != nil {
		_ = w.conn.Close()
		return nil, err
	}
	return w, nil
}

// tryDial gives a client whose TLS handshake is done and that has sent nothing.
func (s *side) tryDial(t testing.TB, address string) (*wire, error) {
	t.Helper()
	conn, tcp, err := s.stage.dialSide(t, s, address, "")
	if err != nil {
		return nil, err
	}
	return &wire{t: t, conn: conn, tcp: tcp}, nil
}

func (w *wire) tryConnect(connect mqtt.Connect, version mqtt.Version) error {
	w.version = version
	if connect.KeepAlive == 0 {
		connect.KeepAlive = 60
	}
	err := w.trySend(&connect)
	if err != nil {
		return err
	}
	packet, err := w.tryRead(patience)
	if err != nil {
		return fmt.Errorf("no CONNACK came: %w", err)
	}
	connack, ok := packet.(*mqtt.Connack)
	if !ok {
		return fmt.Errorf("%w: %T instead of CONNACK", errUnexpected, packet)
	}
	w.connack = connack
	if connack.Reason != mqtt.Success {
		return fmt.Errorf("CONNACK says %s", connack.Reason)
	}
	return nil
}

func (w *wire) trySend(p mqtt.Packet) error {
	_ = w.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := w.conn.Write(p.Append(nil, w.version))
	return err
}

func (w *wire) send(p mqtt.Packet) {
	w.t.Helper()
	err := w.trySend(p)
	if err != nil {
		w.t.Fatalf("couldn't send %s: %v", p.Detail(), err)
	}
}

// sendBytes writes what may be no packet at all. The server may close before
// all is written.
func (w *wire) sendBytes(b []byte) {
	_ = w.conn.SetWriteDeadline(time.Now().Add(patience))
	_, _ = w.conn.Write(b)
}

// tryRead gives the next packet, whatever it is.
func (w *wire) tryRead(limit time.Duration) (mqtt.Packet, error) {
	_ = w.conn.SetReadDeadline(time.Now().Add(limit))
	for {
		header, ok, err := mqtt.ParseFixedHeader(w.in)
		if err != nil {
			return nil, err
		}
		if whole := header.Size + header.Remaining; ok && len(w.in) >= whole {
			packet := mqtt.NewPacket(header.Type)
			// The packet points into its own copy from here on.
			err = packet.Decode(header, bytes.Clone(w.in[header.Size:whole]), w.version)
			w.in = w.in[whole:]
			return packet, err
		}
		buf := make([]byte, 64<<10)
		n, err := w.conn.Read(buf)
		w.in = append(w.in, buf[:n]...)
		if n == 0 && err != nil {
			return nil, err
		}
	}
}

// tryNext handles the next packet: messages go to the inbox and are
// acknowledged, the server's DISCONNECT is noted; others are given back.
func (w *wire) tryNext(limit time.Duration) (mqtt.Packet, error) {
	packet, err := w.tryRead(limit)
	if err != nil {
		return nil, err
	}
	switch p := packet.(type) {
	case *mqtt.Publish:
		w.inbox = append(w.inbox, p)
		if p.QoS == 0 {
			return p, nil
		}
		if w.withhold && (w.letGo == nil || !w.letGo(p)) {
			w.unacked = append(w.unacked, p.PacketID)
			return p, nil
		}
		return p, w.trySend(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: p.PacketID})
	case *mqtt.Disconnect:
		w.goodbye = p
	}
	return packet, nil
}

// tryAwait reads on until a packet that want accepts comes.
func (w *wire) tryAwait(want func(mqtt.Packet) bool) (mqtt.Packet, error) {
	for {
		packet, err := w.tryNext(patience)
		if err != nil {
			return nil, err
		}
		if want(packet) {
			return packet, nil
		}
		switch packet.(type) {
		case *mqtt.Publish:
		case *mqtt.Disconnect:
			return nil, fmt.Errorf("%w: DISCONNECT %s", errUnexpected, packet.Detail())
		default:
			return nil, fmt.Errorf("%w: %T %s", errUnexpected, packet, packet.Detail())
		}
	}
}

func (w *wire) id() uint16 {
	w.ids++
	return w.ids
}

func (w *wire) tryPublish(p mqtt.Publish) (mqtt.ReasonCode, error) {
	if p.QoS > 0 && p.PacketID == 0 {
		p.PacketID = w.id()
	}
	err := w.trySend(&p)
	if err != nil || p.QoS == 0 {
		return 0, err
	}
	got, err := w.tryAwait(func(packet mqtt.Packet) bool {
		ack, ok := packet.(*mqtt.Ack)
		return ok && ack.Type == mqtt.TypePuback && ack.PacketID == p.PacketID
	})
	if err != nil {
		return 0, fmt.Errorf("no PUBACK came: %w", err)
	}
	return got.(*mqtt.Ack).Reason, nil
}

// publish sends a message and, at QoS 1, waits until it is acknowledged.
func (w *wire) publish(p mqtt.Publish) {
	w.t.Helper()
	reason, err := w.tryPublish(p)
	if err != nil || reason >= mqtt.UnspecifiedError {
		w.t.Fatalf("couldn't publish on %s: PUBACK %s, %v", p.Topic, reason, err)
	}
}

// say is publish with QoS 1 and nothing else.
func (w *wire) say(topic, payload string) {
	w.t.Helper()
	w.publish(mqtt.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: 1})
}

func (w *wire) trySubscribe(filters ...mqtt.Subscription) ([]mqtt.ReasonCode, error) {
	p := mqtt.Subscribe{PacketID: w.id(), Filters: filters}
	err := w.trySend(&p)
	if err != nil {
		return nil, err
	}
	got, err := w.tryAwait(func(packet mqtt.Packet) bool {
		ack, ok := packet.(*mqtt.Suback)
		return ok && ack.PacketID == p.PacketID
	})
	if err != nil {
		return nil, fmt.Errorf("no SUBACK came: %w", err)
	}
	return got.(*mqtt.Suback).Codes, nil
}

// subscribe must be granted all that it asks for.
func (w *wire) subscribe(filters ...mqtt.Subscription) {
	w.t.Helper()
	codes, err := w.trySubscribe(filters...)
	if err != nil {
		w.t.Fatalf("couldn't subscribe: %v", err)
	}
	for n, f := range filters {
		if codes[n] != mqtt.ReasonCode(f.QoS) {
			w.t.Fatalf("SUBACK of %s: got %s, want QoS %d", f.Filter, codes[n], f.QoS)
		}
	}
}

func (w *wire) tryUnsubscribe(filters ...string) error {
	p := mqtt.Unsubscribe{PacketID: w.id(), Filters: filters}
	err := w.trySend(&p)
	if err != nil {
		return err
	}
	_, err = w.tryAwait(func(packet mqtt.Packet) bool {
		ack, ok := packet.(*mqtt.Unsuback)
		return ok && ack.PacketID == p.PacketID
	})
	return err
}

func (w *wire) tryPing() error {
	err := w.trySend(&mqtt.Pingreq{})
	if err != nil {
		return err
	}
	_, err = w.tryAwait(func(packet mqtt.Packet) bool {
		_, ok := packet.(*mqtt.Pingresp)
		return ok
	})
	return err
}

// ping waits for the answer to a PINGREQ; what was sent before it is in the
// inbox then.
func (w *wire) ping() {
	w.t.Helper()
	err := w.tryPing()
	if err != nil {
		w.t.Fatalf("no PINGRESP came: %v", err)
	}
}

// receive gives the next message of the inbox, waiting for it.
func (w *wire) receive() *mqtt.Publish {
	w.t.Helper()
	for len(w.inbox) == 0 {
		packet, err := w.tryNext(patience)
		if err != nil {
			w.t.Fatalf("waited for a message: %v", err)
		}
		if _, ok := packet.(*mqtt.Publish); !ok {
			w.t.Fatalf("waited for a message: got %T %s", packet, packet.Detail())
		}
	}
	first := w.inbox[0]
	w.inbox = w.inbox[1:]
	return first
}

// expect receives messages with these payloads, in this order.
func (w *wire) expect(payloads ...string) []*mqtt.Publish {
	w.t.Helper()
	var list []*mqtt.Publish
	for _, want := range payloads {
		m := w.receive()
		if string(m.Payload) != want {
			w.t.Fatalf("message: got %q on %s, want %q", m.Payload, m.Topic, want)
		}
		list = append(list, m)
	}
	return list
}

// expectNothing says that no message is under way: all that was sent before the
// answer to a PINGREQ is there.
func (w *wire) expectNothing() {
	w.t.Helper()
	w.ping()
	for _, m := range w.inbox {
		w.t.Errorf("unexpected message on %s: %q", m.Topic, m.Payload)
	}
	w.inbox = nil
}

// acknowledge sends the PUBACKs that were withheld.
func (w *wire) tryAcknowledge() error {
	for _, id := range w.unacked {
		err := w.trySend(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: id})
		if err != nil {
			return err
		}
	}
	w.unacked = nil
	return nil
}

// ended waits for the close and gives the DISCONNECT before it, nil when none
// came.
func (w *wire) ended() *mqtt.Disconnect {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		_, err := w.tryNext(time.Until(deadline))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.t.Fatalf("the server didn't close the connection within %s", patience)
		}
		if err != nil {
			return w.goodbye
		}
	}
}

// close disconnects as a client should and waits for the server's close.
func (w *wire) close() {
	_ = w.trySend(&mqtt.Disconnect{})
	_ = w.conn.SetReadDeadline(time.Now().Add(patience))
	_, _ = io.Copy(io.Discard, w.conn)
	_ = w.conn.Close()
}

// cut breaks the connection as a device that loses its power does.
func (w *wire) cut() {
	if w.tcp != nil {
		_ = w.tcp.SetLinger(0)
		_ = w.tcp.Close()
	}
	_ = w.conn.Close()
}

// persistent is a CONNECT whose session is kept.
func persistent(id string, version mqtt.Version) mqtt.Connect {
	c := mqtt.Connect{ClientID: id}
	if version == mqtt.V5 {
		c.Properties.SessionExpiry = 3600
		c.Properties.Mark(mqtt.PropSessionExpiry)
	}
	return c
}

// at1 is a subscription with QoS 1.
func at1(filter string) mqtt.Subscription { return mqtt.Subscription{Filter: filter, QoS: 1} }
