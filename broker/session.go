package broker

import (
	"slices"
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

	// mu guards what follows, the output of conn and the fields of durable that
	// say so. It is never held while a socket is written or the store is used.
	mu            sync.Mutex
	over          bool // nothing is delivered or stored any more
	subscriptions map[string]*subscription

	// QoS 1 messages to the client: in flight in the order of sending, and those
	// that wait for the client's receive maximum.
	nextID       uint16
	inflight     []flight
	waiting      []held
	waitingBytes int
}

// flight is a QoS 1 message that was sent and isn't acknowledged.
type flight struct {
	id     uint16
	size   int
	seq    int64  // in the session's queue; 0: it isn't stored
	shared *lease // not nil: it came by a shared subscription
}

// held is a QoS 1 message that waits for room in the client's window.
type held struct {
	packet *mqtt.Publish // not changed: others may hold it, too
	retain bool
	dup    bool // it may have been sent before
	size   int
	until  time.Time // zero: doesn't expire
	seq    int64     // as in flight
	shared *lease
}

// outgoing is a message on its way to its subscribers, one after the other. QoS,
// packet id and RETAIN are set for each.
type outgoing struct {
	mqtt.Publish
	expires time.Time // zero: doesn't expire
	// kept is a copy that outlives the publisher's buffer, made when the first
	// subscriber has to wait, and shared by all that do. It isn't changed.
	kept *mqtt.Publish
}

// keep gives the copy that outlives the publisher's buffer.
func (m *outgoing) keep() *mqtt.Publish {
	if m.kept == nil {
		m.kept = clonePublish(&m.Publish)
	}
	return m.kept
}

// deliver sends a message to the session's client, if it is connected, or keeps
// it in memory until the client's window has room. It never blocks on the
// client. Behind is a connection whose backlog is high, for the publisher to wait
// for; taken is false when nobody is connected.
func (s *session) deliver(m *outgoing, qos mqtt.QoS, shared *lease) (behind *connection, taken bool) {
	m.QoS, m.PacketID = qos, 0
	size := m.Size(s.version)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.conn.Load()
	if c == nil || c.out.closing {
		return nil, false
	}
	count := &s.broker.count
	if c.maxPacket > 0 && size > c.maxPacket {
		// "The Server MUST discard it and then behave as if it had completed
		// sending" [MQTT-3.1.2-25].
		count.publishDropped.Add(1)
		if shared != nil {
			shared.settle()
		}
		return nil, true
	}
	queued := len(c.out.pending) + s.waitingBytes
	if queued > 0 && queued+size > s.broker.opts.MaxQueuedBytes {
		count.publishDropped.Add(1)
		if qos > 0 {
			c.tooSlow("%d bytes of messages wait for the client", queued)
		}
		return nil, qos == 0
	}
	switch {
	case qos == 0:
		c.put(&m.Publish)
	case len(s.inflight) < c.window && len(s.waiting) == 0:
		m.PacketID = s.takeID()
		s.inflight = append(s.inflight, flight{id: m.PacketID, size: size, shared: shared})
		c.put(&m.Publish)
	case len(s.waiting) >= s.broker.opts.MaxQueuedMessages:
		count.publishDropped.Add(1)
		c.tooSlow("%d messages wait for the client's acknowledgements", len(s.waiting))
		return nil, false
	default:
		s.waiting = append(s.waiting, held{packet: m.keep(), retain: m.Retain, size: size, until: m.expires, shared: shared})
		s.waitingBytes += size
	}
	if c.backlogHigh() {
		return c, true
	}
	return nil, true
}

// takeID finds a free packet id of a session that isn't stored. The window is
// smaller than the id space, so there is one near.
func (s *session) takeID() uint16 {
	for {
		s.nextID++
		if s.nextID != 0 && !s.inFlight(s.nextID) {
			return s.nextID
		}
	}
}

func (s *session) inFlight(id uint16) bool {
	return slices.ContainsFunc(s.inflight, func(f flight) bool { return f.id == id })
}

// acknowledged takes a PUBACK of a connection's client and sends what waited for
// it. An id that isn't in flight is of no consequence.
func (s *session) acknowledged(c *connection, id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.Load() != c {
		return // the session has gone on to another connection
	}
	at := slices.IndexFunc(s.inflight, func(f flight) bool { return f.id == id })
	if at < 0 {
		return
	}
	done := s.inflight[at]
	s.inflight = slices.Delete(s.inflight, at, at+1)
	s.settled(done.seq, done.size, done.shared)
	if !c.out.closing {
		s.pump(c)
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

// pump sends what waits while the client's window and the buffer have room. The
// lock is held, and the connection isn't closing.
func (s *session) pump(c *connection) {
	for len(s.waiting) > 0 && len(s.inflight) < c.window && len(c.out.pending) <= s.broker.opts.MaxQueuedBytes/2 && !c.out.corked {
		next := &s.waiting[0]
		if !s.sendHeld(c, next) {
			break
		}
		s.waitingBytes -= next.size
		*next = held{}
		s.waiting = s.waiting[1:]
	}
	if len(s.waiting) == 0 {
		s.waiting = nil
		s.loadMore(c)
	}
	c.signalRoom()
}

// sendHeld sends a message that waited, or lets it go when it has expired. It
// reports false when the message has to go on waiting.
func (s *session) sendHeld(c *connection, h *held) bool {
	packet := *h.packet
	packet.QoS, packet.Retain, packet.Dup = 1, h.retain, h.dup
	if !h.until.IsZero() && !refreshExpiry(&packet, h.until, s.broker.clock()) {
		s.broker.count.publishDropped.Add(1)
		s.settled(h.seq, h.size, h.shared)
		return true
	}
	if h.seq > 0 {
		packet.PacketID = packetIDOf(h.seq)
		if s.inFlight(packet.PacketID) {
			return false // 65535 messages later: the one before comes first
		}
		s.durable.sent = max(s.durable.sent, h.seq)
	} else {
		packet.PacketID = s.takeID()
	}
	s.inflight = append(s.inflight, flight{id: packet.PacketID, size: h.size, seq: h.seq, shared: h.shared})
	c.put(&packet)
	return true
}

// leases gives what the session was handed by shared subscriptions and hasn't
// acknowledged, and forgets it. The lock is held.
func (s *session) leases() []*lease {
	var back []*lease
	for _, f := range s.inflight {
		if f.shared != nil {
			back = append(back, f.shared)
		}
	}
	for _, h := range s.waiting {
		if h.shared != nil {
			back = append(back, h.shared)
		}
	}
	return back
}

// dropOutput forgets what is under way to the client. The lock is held.
func (s *session) dropOutput() {
	s.inflight, s.waiting, s.waitingBytes = nil, nil, 0
}

// unsubscribeAll takes the session out of the topics, once, and ends it for good.
// What shared subscriptions had handed to it goes to other members.
func (s *session) unsubscribeAll() {
	s.mu.Lock()
	s.over = true
	subscriptions, back := s.subscriptions, s.leases()
	s.subscriptions = nil
	s.dropOutput()
	s.mu.Unlock()
	for _, sub := range subscriptions {
		s.realm.unsubscribe(sub)
	}
	for _, l := range back {
		l.giveBack()
	}
}
