package broker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// session is what MQTT calls the session state of one client id: its
// subscriptions, and the QoS 1 messages that it hasn't acknowledged. One that
// ends with its connection is part of it; one with a durable part outlives it.
type session struct {
	broker   *Broker
	realm    *realm
	clientID imprint.ClientID
	version  mqtt.Version
	durable  *durable // nil: the session ends with its connection

	// conn is the live connection, nil while the client is absent. It changes
	// under mu.
	conn atomic.Pointer[connection]

	// changing orders changes of the subscriptions, here and in the realm's topics:
	// a connection that was taken over, the one after it, and who ends the session
	// may change them in the same moment. No other lock is held when it is taken.
	changing sync.Mutex

	// mu guards what follows, the output of conn and the fields of durable that
	// say so. It is never held while a socket is written or the store is used.
	mu            sync.Mutex
	over          bool // nothing is delivered or stored any more
	subscriptions map[string]*subscription

	// QoS 1 messages to the client: in flight in the order of sending, and those
	// that wait for the client's receive maximum.
	nextID       uint16
	ordinal      uint64 // of the last message sent
	inflight     flights
	waiting      heldQueue
	waitingBytes int
}

// flight is a QoS 1 message that was sent and isn't acknowledged.
type flight struct {
	id      uint16
	size    int32 // in the session's queue
	ordinal uint64
	seq     int64  // in the session's queue; 0: it isn't stored
	shared  *lease // not nil: it came by a shared subscription
}

// held is a QoS 1 message that waits for room in the client's window.
type held struct {
	// raw is the message as bytes, with a place for its packet id, when they stay
	// as they are until it is sent; else packet is the message. Neither is changed:
	// others may hold it, too.
	raw    []byte
	idAt   int
	packet *mqtt.Publish
	size   int       // for the client
	stored int       // in the session's queue, which has MQTT 5 packets
	until  time.Time // zero: doesn't expire
	seq    int64     // as in flight
	shared *lease
	bound  *binding // by which the client may receive it
	retain bool
	dup    bool // it may have been sent before
	passed bool // a shared subscription has put it there
}

// delivery is how a message goes to a client.
type delivery struct {
	qos    mqtt.QoS
	retain bool
	// chosen: a shared subscription has chosen the client, and chooses another one,
	// or waits, when there is no room.
	chosen bool
	shared *lease        // not nil: what the client has of a shared subscription then
	only   *subscription // not nil: it is sent as long as that one holds
	by     *connection   // whose writer is started later; nil: it starts now
	bound  *binding      // by which the client may receive it, as in held
}

// deliver sends a message to the session's client, if it is still on with the
// connection that may receive it, or keeps it in memory until the client's window
// has room. It never blocks on the client. Behind is a connection whose backlog is
// high, for the publisher to wait for; taken is false when nobody is connected, or a
// message of a shared subscription has no room.
func (s *session) deliver(to *connection, m *outgoing, d delivery) (behind *connection, taken bool) {
	f := m.form(s.version, d.qos)
	size := len(f.raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.conn.Load()
	if c == nil || c != to || c.out.closing || d.only != nil && d.only.ended {
		return nil, false
	}
	if c.maxPacket > 0 && size > c.maxPacket {
		// "The Server MUST discard it and then behave as if it had completed
		// sending" [MQTT-3.1.2-25].
		s.broker.count.publishDropped.Add(1)
		return nil, true
	}
	queued := len(c.out.pending) + s.waitingBytes
	full := queued > 0 && queued+size > s.broker.opts.MaxQueuedBytes
	if d.chosen && (full || d.qos > 0 && s.waiting.len() >= s.broker.opts.MaxQueuedMessages) {
		c.out.declined = true
		return nil, false
	}
	if full {
		s.broker.count.publishDropped.Add(1)
		if d.qos > 0 {
			c.tooSlow("%d bytes of messages wait for the client", queued)
		}
		return nil, d.qos == 0
	}
	switch {
	case d.qos == 0:
		s.put(c, m, f, flight{}, d.retain, d.by)
	case s.inflight.len() < c.window && s.waiting.len() == 0:
		s.put(c, m, f, s.takeOff(size, d.shared), d.retain, d.by)
	case s.waiting.len() >= s.broker.opts.MaxQueuedMessages:
		s.broker.count.publishDropped.Add(1)
		c.tooSlow("%d messages wait for the client's acknowledgements", s.waiting.len())
		return nil, false
	default:
		s.wait(c, m, f, &d)
	}
	if c.backlogHigh() {
		return c, true
	}
	return nil, true
}

// takeOff makes a place in flight for a message that isn't stored. The lock is
// held.
func (s *session) takeOff(size int, shared *lease) flight {
	s.ordinal++
	x := flight{id: s.takeID(), size: int32(size), ordinal: s.ordinal, shared: shared}
	s.inflight.add(x)
	return x
}

// put sends a message, whose place in flight is made. The lock is held.
func (s *session) put(c *connection, m *outgoing, f *form, x flight, retain bool, by *connection) {
	if c.aliasMaximum > 0 {
		packet := m.Publish
		packet.PacketID, packet.Retain, packet.Dup = x.id, retain, false
		packet.QoS = 0
		if x.id > 0 {
			packet.QoS = 1
		}
		c.putAliased(&packet)
		c.wakeWriter(by)
		return
	}
	c.putForm(f.raw, f.idAt, x.id, retain, false, by)
}

// wait keeps a message until the client's window has room. The lock is held.
func (s *session) wait(c *connection, m *outgoing, f *form, d *delivery) {
	h := held{retain: d.retain, size: len(f.raw), until: m.expires, shared: d.shared, bound: d.bound}
	if c.aliasMaximum > 0 || !m.expires.IsZero() {
		h.packet = m.keep()
	} else {
		h.raw, h.idAt = f.keep(), f.idAt
	}
	s.waiting.push(h)
	s.waitingBytes += h.size
}

// wrapNear is how many messages after the oldest in flight packet ids may come
// round to it.
const wrapNear = 65_000

// takeID finds a free packet id for a message that isn't stored. The window is
// smaller than the id space, so there is one near.
func (s *session) takeID() uint16 {
	for {
		s.nextID++
		if s.nextID == 0 {
			continue
		}
		oldest := s.inflight.ordinal()
		// In a stored session other ids follow from the numbers of its messages.
		near := s.durable == nil && (oldest == 0 || s.ordinal-oldest < wrapNear)
		if near || !s.inflight.has(s.nextID) {
			return s.nextID
		}
	}
}

// acknowledged takes a PUBACK of a connection's client and sends what waited for
// it. An id that isn't in flight is of no consequence.
func (s *session) acknowledged(c *connection, id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.Load() != c {
		return // the session has gone on to another connection
	}
	done, found := s.inflight.take(id)
	if !found {
		return
	}
	s.settled(done.seq, int(done.size), done.shared)
	if !c.out.closing {
		s.pump(c, c)
	}
}

// settled lets go of a message that is acknowledged, or that the client is never
// to get. The lock is held.
func (s *session) settled(seq int64, size int, shared *lease) {
	if shared != nil {
		shared.settle()
	}
	if seq > 0 {
		s.forgetQueued(seq, size)
	}
}

// pump sends what waits while the client's window and the buffer have room. By
// starts the writer later; nil: it starts now. The lock is held, and the
// connection isn't closing.
func (s *session) pump(c *connection, by *connection) {
	if s.waiting.len() > 0 && s.renew(c) {
		return
	}
	for s.waiting.len() > 0 && s.inflight.len() < c.window && len(c.out.pending) <= s.broker.opts.MaxQueuedBytes/2 && !c.out.corked {
		next := s.waiting.front()
		if !s.sendHeld(c, next, by) {
			break
		}
		s.waitingBytes -= next.size
		s.waiting.pop()
	}
	if s.waiting.len() == 0 {
		s.loadMore(c)
	}
	c.signalRoom()
}

// renew looks the identity up again when something behind it has changed since the
// last decision, and then goes on: a change holds for the next packet, also for one
// that has waited for the client's window. The lock is held.
func (s *session) renew(c *connection) bool {
	bound := c.bound.Load()
	if bound == nil || !bound.who.Stale() {
		return false
	}
	if c.renewing {
		return true
	}
	c.renewing = true
	s.broker.background.Go(func() {
		c.current(context.Background())
		s.mu.Lock()
		defer s.mu.Unlock()
		c.renewing = false
		if s.conn.Load() == c && !c.out.closing {
			s.pump(c, nil)
		}
	})
	return true
}

// mayStill decides anew on a message that waited while policies changed.
func (s *session) mayStill(c *connection, h *held) bool {
	bound := c.bound.Load()
	return bound == nil || bound == h.bound || c.receives(bound, s.realm, h.topic(), s.broker.clock())
}

// refuseHeld lets go of a message that the client may not receive any more. One of
// a shared subscription goes to another member.
func (s *session) refuseHeld(h *held) {
	if h.shared != nil {
		s.broker.background.Go(h.shared.giveBack)
		return
	}
	if h.passed {
		s.passOn(h.seq, h.stored)
		return
	}
	s.broker.count.publishDropped.Add(1)
	s.settled(h.seq, h.stored, nil)
}

// topic reads the message's topic.
func (h *held) topic() string {
	if h.packet != nil {
		return string(h.packet.Topic)
	}
	header, _, _ := mqtt.ParseFixedHeader(h.raw) // it is one of our own
	return string(h.raw[header.Size+2 : h.idAt])
}

// sendHeld sends a message that waited, or lets it go when it has expired or may
// not be received any more. It reports false when the message has to go on waiting.
func (s *session) sendHeld(c *connection, h *held, by *connection) bool {
	if !s.mayStill(c, h) {
		s.refuseHeld(h)
		return true
	}
	var packet mqtt.Publish
	if h.packet != nil {
		packet = *h.packet
		packet.QoS, packet.Retain, packet.Dup = 1, h.retain, h.dup
		if !h.until.IsZero() && !refreshExpiry(&packet, h.until, s.broker.clock()) {
			s.broker.count.publishDropped.Add(1)
			s.settled(h.seq, h.stored, h.shared)
			return true
		}
	}
	s.ordinal++
	x := flight{size: int32(h.stored), ordinal: s.ordinal, seq: h.seq, shared: h.shared}
	if h.seq > 0 {
		x.id = packetIDOf(h.seq)
		if s.inflight.has(x.id) {
			return false // 65535 messages later: the one before comes first
		}
		s.durable.sent = max(s.durable.sent, h.seq)
	} else {
		x.id = s.takeID()
	}
	s.inflight.add(x)
	if h.packet == nil {
		c.putForm(h.raw, h.idAt, x.id, h.retain, h.dup, by)
		return true
	}
	packet.PacketID = x.id
	c.putAliased(&packet)
	c.wakeWriter(by)
	return true
}

// leases gives what the session was handed by shared subscriptions and hasn't
// acknowledged. The lock is held.
func (s *session) leases() []*lease {
	var back []*lease
	for _, f := range s.inflight.all[s.inflight.head:] {
		if f.shared != nil {
			back = append(back, f.shared)
		}
	}
	for h := range s.waiting.all() {
		if h.shared != nil {
			back = append(back, h.shared)
		}
	}
	return back
}

// dropOutput forgets what is under way to the client. The lock is held.
func (s *session) dropOutput() {
	s.waiting.drop()
	s.inflight, s.waitingBytes = flights{}, 0
}

// unsubscribeAll takes the session out of the topics, once, and ends it for good.
// What shared subscriptions had handed to it goes to other members.
func (s *session) unsubscribeAll() {
	s.changing.Lock()
	s.mu.Lock()
	s.over = true
	subscriptions, back := s.subscriptions, s.leases()
	s.subscriptions = nil
	s.dropOutput()
	s.mu.Unlock()
	for _, sub := range subscriptions {
		s.realm.unsubscribe(sub)
	}
	s.changing.Unlock()
	for _, l := range back {
		l.giveBack()
	}
}
