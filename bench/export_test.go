package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

// What the tests look into.
var (
	ParseStat        = parseStat
	ParseRollup      = parseRollup
	PerSecond        = perSecond
	Percentile       = percentile
	Compare          = compare
	ChildEnvironment = childEnvironment
	ReadConnack      = readConnack
	SourceOf         = sourceOf
	NewLedger        = newLedger
	ReadStamp        = readStamp
	ErrNoSession     = errNoSession
	ErrNotResumed    = errNotResumed
)

type Ledger = ledger

// Take enters message number n of a publisher.
func (l *ledger) Take(publisher uint32, n uint64, dup bool) error {
	return l.take(stamp{publisher: publisher, number: n}, dup)
}

func (l *ledger) Count(publisher int) uint64 { return l.count(publisher) }

// PutStamp gives a payload with a stamp.
func PutStamp(publisher uint32, number uint64, due time.Duration, size int) []byte {
	payload := make([]byte, size)
	stamp{publisher: publisher, number: number, due: due}.put(payload)
	return payload
}

func StampParts(payload []byte, size int) (uint32, uint64, time.Duration, error) {
	s, err := readStamp(payload, size)
	return s.publisher, s.number, s.due, err
}

// Flood runs a flow on connections that are subscribed already. It gives how
// many messages arrived.
func Flood(ctx context.Context, qos mqtt.QoS, payload int, publishers, subscribers []net.Conn, most uint64, stall time.Duration) (uint64, error) {
	f := testFlow(ctx, qos, payload, publishers, subscribers, stall)
	defer f.end()
	err := f.flood(time.Minute, most)
	return f.arrived(), err
}

// Pace is Flood at a steady rate; it gives how long the messages took.
func Pace(ctx context.Context, qos mqtt.QoS, publisher, subscriber net.Conn, rate int, most uint64, stall time.Duration) ([]time.Duration, error) {
	f := testFlow(ctx, qos, MinPayload, []net.Conn{publisher}, []net.Conn{subscriber}, stall)
	defer f.end()
	f.subscribers[0].sampling.Store(true)
	err := f.pace(rate, time.Minute, most)
	return f.samples(), err
}

func testFlow(ctx context.Context, qos mqtt.QoS, payload int, publishers, subscribers []net.Conn, stall time.Duration) *flow {
	f := newFlow(ctx, qos, payload)
	f.stall = stall
	for _, conn := range publishers {
		f.publish(newLink(conn, true), "flow/x")
	}
	f.begin()
	for _, conn := range subscribers {
		f.subscribe(newLink(conn, true))
	}
	return f
}

// Visitor is a device and the server that it visits.
type Visitor struct {
	device *device
	door   door
}

// NewVisitor makes a device for a server whose root is trusted.
func NewVisitor(address string, roots *x509.CertPool) (*Visitor, error) {
	ca, err := newAuthority("test CA", time.Now())
	if err != nil {
		return nil, err
	}
	d, err := ca.device(1, time.Now())
	return &Visitor{device: d, door: door{address: address, roots: roots}}, err
}

func (v *Visitor) CheckResumption(ctx context.Context) error {
	return v.door.checkResumption(ctx, v.device)
}

func (v *Visitor) CheckPersistence(ctx context.Context) error {
	c := contender{name: "test server", door: v.door}
	return c.checkPersistence(ctx, v.device)
}

// ServerCertificate gives a certificate for localhost and who signed it.
func ServerCertificate() (tls.Certificate, *x509.CertPool, error) {
	root, err := newAuthority("test root", time.Now())
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	certificate, err := root.serverCertificate(time.Now())
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	return certificate, roots, err
}

// Mosquitto is a mosquitto with devices that it knows.
type Mosquitto struct{ a *arena }

// StartMosquitto starts it on the first of some addresses that it can listen on, or else on
// a free one.
func StartMosquitto(ctx context.Context, program, dir string, first ...string) (*Mosquitto, error) {
	ca, err := newAuthority("test CA", time.Now())
	if err != nil {
		return nil, err
	}
	devices, err := ca.devices(ctx, 3, time.Now())
	if err != nil {
		return nil, err
	}
	path, err := findMosquitto(program)
	if err != nil {
		return nil, err
	}
	rival, err := startMosquitto(ctx, path, dir, ca, func(ctx context.Context) (string, error) {
		if len(first) == 0 {
			return freeAddress(ctx)
		}
		address := first[0]
		first = first[1:]
		return address, nil
	}, nil)
	if err != nil {
		return nil, err
	}
	return &Mosquitto{a: &arena{
		stand: &stand{devices: devices}, ours: rival,
		opts: BrokerOptions{Payload: 64, Lasting: time.Minute, Count: 500},
	}}, nil
}

func (m *Mosquitto) Stop() error { return m.a.ours.child.stop() }

func (m *Mosquitto) Address() string { return m.a.ours.door.address }

func (m *Mosquitto) Roots() *x509.CertPool { return m.a.ours.door.roots }

func (m *Mosquitto) CheckPersistence(ctx context.Context) error {
	return m.a.ours.checkPersistence(ctx, m.a.devices[0])
}

// ToAbsent gives how many messages were acknowledged and how many came after.
func (m *Mosquitto) ToAbsent(ctx context.Context) (sent, came uint64, err error) {
	sending, coming, err := m.a.toAbsent(ctx, m.a.ours)
	return sending.messages, coming.messages, err
}

// First has the second device publish to topics, in their order, and gives the
// topic of the first message that the first device gets, which subscribes to
// everything.
func (m *Mosquitto) First(ctx context.Context, topics ...string) (string, error) {
	l, err := m.a.ours.door.link(ctx, m.a.devices[0], wish{filter: "#", qos: mqtt.QoS1})
	if err != nil {
		return "", err
	}
	defer func() { _ = l.leave() }()
	for _, topic := range topics {
		err = m.publish(ctx, topic)
		if err != nil {
			return "", err
		}
	}
	err = l.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err != nil {
		return "", err
	}
	header, body, err := l.next()
	if err != nil {
		return "", err
	}
	var packet mqtt.Publish
	err = packet.Decode(header, body, mqtt.V311)
	return string(packet.Topic), err
}

// publish sends a message of the second device, on a connection of its own
// because mosquitto takes no more from one that did what it mustn't.
func (m *Mosquitto) publish(ctx context.Context, topic string) error {
	l, err := m.a.ours.door.link(ctx, m.a.devices[1], wish{})
	if err != nil {
		return err
	}
	packet := mqtt.Publish{Topic: []byte(topic), QoS: mqtt.QoS1, PacketID: 1}
	_, err = l.conn.Write(packet.Append(nil, mqtt.V311))
	if err != nil {
		return err
	}
	_, _, err = l.next() // PUBACK
	_ = l.conn.Close()   // mosquitto may have been first
	return err
}

func (m *Mosquitto) Things() (first, second string) {
	return m.a.devices[0].thing, m.a.devices[1].thing
}
