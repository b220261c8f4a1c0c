package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

// linkKeepAlive is long enough for every run, so that no PINGREQ is needed.
const linkKeepAlive = 1200

// Sizes of a link's buffer: for a few packets in answer to its own, and for as
// many messages as a TLS record holds.
const (
	smallLink = 64
	largeLink = 32 << 10
)

// link is an accepted MQTT 3.1.1 connection of a device. Its bytes are cut into
// packets without an allocation.
type link struct {
	conn       net.Conn
	raw        *readAhead // below TLS; nil: none
	present    bool       // the server had a session of this device
	buf        []byte
	start, end int
}

// wish is what a device wants of its connection.
type wish struct {
	how    approach
	keep   bool   // the session outlives the connection
	filter string // to subscribe to; empty: none
	qos    mqtt.QoS
}

// link connects a device and subscribes. The link has no deadline any more.
func (d door) link(ctx context.Context, who *device, want wish) (*link, error) {
	conn, _, err := d.dial(ctx, who, want.how)
	if err != nil {
		return nil, err
	}
	l := newLink(conn, want.how.bulk)
	err = l.join(who, want)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("device %s: %w", who.thing, err), conn.Close())
	}
	err = conn.SetDeadline(time.Time{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("couldn't keep the connection: %w", err), conn.Close())
	}
	return l, nil
}

func newLink(conn net.Conn, bulk bool) *link {
	size := smallLink
	if bulk {
		size = largeLink
	}
	l := &link{conn: conn, buf: make([]byte, size)}
	if secure, ok := conn.(*tls.Conn); ok {
		l.raw, _ = secure.NetConn().(*readAhead)
	}
	return l
}

// ahead is whether more packets, or a part of one, are here already.
func (l *link) ahead() bool { return l.raw != nil && l.raw.ahead() }

// patient makes a link read as much at a time as it can, or at once.
func (l *link) patient(yes bool) {
	if l.raw != nil {
		l.raw.patient.Store(yes)
	}
}

// join sends CONNECT and SUBSCRIBE and waits for their answers.
func (l *link) join(who *device, want wish) error {
	packet := mqtt.Connect{CleanStart: !want.keep, KeepAlive: linkKeepAlive, ClientID: who.thing}
	_, err := l.conn.Write(packet.Append(nil, mqtt.V311))
	if err != nil {
		return fmt.Errorf("couldn't send CONNECT: %w", err)
	}
	header, body, err := l.next()
	if err != nil {
		return fmt.Errorf("couldn't read CONNACK: %w", err)
	}
	err = checkConnack(header, body)
	if err != nil {
		return err
	}
	l.present = body[0]&1 != 0
	if want.filter == "" {
		return nil
	}
	return l.subscribe(mqtt.Subscription{Filter: want.filter, QoS: want.qos})
}

// subscribe asks for filters and wants each with the QoS that was asked for.
func (l *link) subscribe(filters ...mqtt.Subscription) error {
	packet := mqtt.Subscribe{PacketID: 1, Filters: filters}
	_, err := l.conn.Write(packet.Append(nil, mqtt.V311))
	if err != nil {
		return fmt.Errorf("couldn't send SUBSCRIBE: %w", err)
	}
	header, body, err := l.next()
	if err != nil {
		return fmt.Errorf("couldn't read SUBACK: %w", err)
	}
	if header.Type != mqtt.TypeSuback {
		return fmt.Errorf("couldn't read SUBACK: a %s came", header.Type)
	}
	var answer mqtt.Suback
	err = answer.Decode(header, body, mqtt.V311)
	if err != nil {
		return fmt.Errorf("couldn't read SUBACK: %w", err)
	}
	granted := slices.EqualFunc(answer.Codes, filters, func(code mqtt.ReasonCode, asked mqtt.Subscription) bool { return code == mqtt.ReasonCode(asked.QoS) })
	if !granted {
		return fmt.Errorf("couldn't subscribe as asked, %+v: SUBACK says %v", filters, answer.Codes)
	}
	return nil
}

// next gives the next packet, which is valid until the call after.
func (l *link) next() (mqtt.FixedHeader, []byte, error) {
	for {
		header, body, ok, err := l.cut()
		if ok || err != nil {
			return header, body, err
		}
		err = l.fill()
		if err != nil {
			return header, nil, err
		}
	}
}

// cut gives the next packet if all of it is here.
func (l *link) cut() (header mqtt.FixedHeader, body []byte, ok bool, err error) {
	header, ok, err = mqtt.ParseFixedHeader(l.buf[l.start:l.end])
	if err != nil {
		return header, nil, false, fmt.Errorf("couldn't read a packet: %w", err)
	}
	size := header.Size + header.Remaining
	if ok && size > len(l.buf) {
		grown := make([]byte, size)
		l.end = copy(grown, l.buf[l.start:l.end])
		l.buf, l.start = grown, 0
	}
	if !ok || l.end-l.start < size {
		return header, nil, false, nil
	}
	body = l.buf[l.start+header.Size : l.start+size]
	l.start += size
	return header, body, true, nil
}

// fill waits for more bytes.
func (l *link) fill() error {
	if l.start > 0 {
		l.end = copy(l.buf, l.buf[l.start:l.end])
		l.start = 0
	}
	n, err := l.conn.Read(l.buf[l.end:])
	l.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return fmt.Errorf("couldn't read from the server: %w", err)
}

// leave disconnects cleanly.
func (l *link) leave() error {
	_, err := l.conn.Write((&mqtt.Disconnect{}).Append(nil, mqtt.V311))
	return errors.Join(err, l.conn.Close())
}

// quiet gives up the buffer of a link that only has to stay open.
func (l *link) quiet() { l.buf, l.start, l.end = nil, 0, 0 }

// sessionsOf gives each device a memory of its own for its TLS session.
func sessionsOf(devices []*device) map[*device]tls.ClientSessionCache {
	all := make(map[*device]tls.ClientSessionCache, len(devices))
	for _, d := range devices {
		all[d] = tls.NewLRUClientSessionCache(1)
	}
	return all
}
