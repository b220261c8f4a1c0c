package broker

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// durable is what a session has that outlives its connection. Its QoS 1 messages
// are in the store before they are sent, numbered in the order of delivery, and
// leave it when the client has acknowledged them; memory holds those in flight
// and the next few.
//
// A message is sent with DUP when its number isn't above the one that may have
// been sent before. That number is in the store before a message is sent: while
// the client is connected, some more than needed, so that it is seldom written.
type durable struct {
	queue     queue
	createdAt time.Time
	deleting  chan struct{} // closed when the ledger has its deletion

	// Guarded by the session's mu.
	absence
	before    *absence // what the session had until its connection, which the store doesn't know yet; nil: it does
	live      *will    // of the connection; nil: it has none
	entered   int64    // since of the connection that came last
	accepted  int64    // since of the one that came last of those that weren't refused
	committed int64    // last number in the store
	loaded    int64    // last number in memory, or beyond
	sent      int64    // last number sent, to this connection or one before
	resend    int64    // last number sent before this connection
	settled   []int64
	settling  bool // the ledger will take settled
	saving    bool // the ledger will save the session
	unsaved   bool // something has changed since it was asked to

	// Guarded by the mu of the timers: the entry there, nil without one, and that
	// there is to be none any more.
	due       *dueSession
	forgotten bool

	// reserved: the store knows that messages up to this number may have been
	// sent. Written by the ledger alone.
	reserved atomic.Int64
}

// absence is what becomes of a session without a connection. A connection that resumes it
// decides that anew, unless it is refused.
type absence struct {
	expiry    time.Duration // after the end of the connection
	expiresAt time.Time     // zero while connected
	will      *will         // that waits for willAt; nil: none
	willAt    time.Time
}

// queue numbers the messages of one session or share group and counts them. The
// ledger's mu guards all but key.
type queue struct {
	key      int64 // constant
	last     int64 // number given last
	messages int
	bytes    int64
	dropped  uint64 // for want of room, since the client was told
}

// reserveAhead is how many numbers are reserved at once.
const reserveAhead = 256

// Bounds of what is read from a queue at once, and held in memory for it.
const (
	loadMessages = 128
	loadBytes    = 512 << 10
)

// packetIDOf gives the packet id of a queued message. It follows from the number
// so that a message keeps its id over reconnects and restarts [MQTT-4.4.0-1].
func packetIDOf(seq int64) uint16 { return uint16((seq-1)%math.MaxUint16) + 1 }

// row is the session as the store has it.
func (s *session) row(sentThrough int64) imprint.Session {
	d := s.durable
	row := imprint.Session{
		Tenant: s.realm.tenant, ClientID: s.clientID, Key: d.queue.key, Level: int(s.version),
		Expiry: d.expiry, ExpiresAt: d.expiresAt, SentThrough: sentThrough, CreatedAt: d.createdAt,
	}
	if d.will != nil {
		row.Will, row.WillAt, row.WillDelay = d.will.encode(), d.willAt, d.will.delay
	} else if d.live != nil {
		row.Will, row.WillDelay = d.live.encode(), d.live.delay
	}
	return row
}

// save writes the session's row as it is when the ledger comes to it. It runs on
// the ledger's goroutine.
func (s *session) save(tx imprint.Tx) error {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return nil
	}
	through := s.durable.sent
	if s.conn.Load() != nil {
		through = max(through, s.durable.reserved.Load(), s.broker.ledger.reserving[s])
	} else {
		s.broker.ledger.reserving[s] = through
	}
	row := s.row(through)
	s.mu.Unlock()
	return tx.PutSession(row)
}

// saveSoon has the ledger save the session; nobody waits for that. While the store
// takes nothing, one change waits, however often its client comes and goes.
func (s *session) saveSoon() {
	d := s.durable
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.saving {
		d.unsaved = true
		return
	}
	d.saving, d.unsaved = true, false
	s.broker.ledger.add(change{
		insist: true,
		write: func(tx imprint.Tx) error {
			s.mu.Lock()
			d.unsaved = false
			s.mu.Unlock()
			return s.save(tx)
		},
		done: func(error) {
			s.mu.Lock()
			d.saving = false
			more := d.unsaved
			s.mu.Unlock()
			if more {
				s.saveSoon()
			}
		},
	})
}

// reserve makes the store know that messages up to a number may be sent, when it
// doesn't yet. It runs on the ledger's goroutine.
func (s *session) reserve(tx imprint.Tx, seq int64) error {
	l := s.broker.ledger
	if seq <= max(s.durable.reserved.Load(), l.reserving[s]) {
		return nil
	}
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return nil
	}
	through := seq + reserveAhead
	row := s.row(through)
	s.mu.Unlock()
	l.reserving[s] = through
	return tx.PutSession(row)
}

// stored tells the session that a message is in its queue.
func (s *session) stored(seq int64, p *parcel, t *target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.durable
	before := d.committed
	d.committed = seq
	c := s.conn.Load()
	if c == nil || c.out.closing || s.over {
		return
	}
	if seq <= d.loaded {
		return // read between its commit and now
	}
	// Who may receive it was decided for one connection; another one reads its
	// queue and decides anew.
	inOrder := d.loaded >= before && !c.loading && c == t.decided
	if !inOrder || seq > d.reserved.Load() || s.waiting.len() >= loadMessages || s.waitingBytes >= loadBytes {
		if s.waiting.len() == 0 {
			s.loadMore(c)
		}
		return
	}
	d.loaded = seq
	s.hold(c, p.held(c, held{retain: t.retain, until: p.expires, seq: seq, stored: len(p.raw), passed: t.shared != nil, bound: t.bound}))
	s.pump(c, nil)
}

// unsure hears of a message that may be in the queue or not: its writing failed.
// It is looked for before what comes after it.
func (s *session) unsure(seq int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.durable.committed = seq
	c := s.conn.Load()
	if c != nil && s.waiting.len() == 0 {
		s.loadMore(c)
	}
}

// hold adds a stored message to those that wait, unless the client takes none of
// its size. The lock is held.
func (s *session) hold(c *connection, h held) {
	if c.maxPacket > 0 && h.size > c.maxPacket {
		if h.passed {
			s.passOn(h.seq, h.stored)
			return
		}
		s.broker.count.publishDropped.Add(1)
		s.settled(h.seq, h.stored, nil)
		return
	}
	s.waiting.push(h)
	s.waitingBytes += h.size
}

// loadMore begins to read the next messages of the queue when there are some
// that memory doesn't hold. The lock is held.
func (s *session) loadMore(c *connection) {
	d := s.durable
	if d == nil || c.loading || c.out.corked || c.out.closing || s.over || d.loaded >= d.committed {
		return
	}
	c.loading = true
	after, committed := d.loaded, d.committed
	s.broker.background.Go(func() { s.load(c, after, committed) })
}

// loadTimeout bounds one reading of a queue.
const loadTimeout = 10 * time.Second

// load reads the next messages of the queue for a connection. Committed is the
// number that was stored last when it was asked to.
func (s *session) load(c *connection, after, committed int64) {
	ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	next, through, err := s.read(ctx, c, after)
	if err != nil {
		c.stop(end(imprint.CodeUnavailable, "couldn't read the session's queue: %w", err))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.Load() != c || c.out.closing || s.over {
		return
	}
	c.loading = false
	d := s.durable
	d.loaded = through
	if through == after {
		// What was announced is gone, for example with an earlier connection.
		d.loaded = committed
	}
	for _, h := range next {
		h.dup = h.seq <= d.resend
		s.hold(c, h)
	}
	s.pump(c, nil)
}

// read gives the next messages of the queue that the client may have, and the
// number that was read through. The store knows then that they may be sent.
func (s *session) read(ctx context.Context, c *connection, after int64) ([]held, int64, error) {
	var rows []imprint.QueuedMessage
	err := s.broker.store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := tx.Queued(s.durable.queue.key, after, loadMessages, loadBytes)
		rows = found
		return err
	})
	if err != nil || len(rows) == 0 {
		return nil, after, err
	}
	through := rows[len(rows)-1].Seq
	if through > s.durable.reserved.Load() {
		err = s.broker.ledger.wait(ctx, change{write: func(tx imprint.Tx) error { return s.reserve(tx, through) }})
		if err != nil {
			return nil, after, err
		}
	}
	now := s.broker.clock()
	next := make([]held, 0, len(rows))
	var unwanted, passed []imprint.QueuedMessage
	for _, row := range rows {
		packet, err := decodeQueued(row.Packet)
		if err != nil {
			s.broker.opts.Logger.Error("a message of a session's queue is dropped", "tenant", s.realm.tenant.String(), "client", string(s.clientID), "number", row.Seq, "error", err)
			unwanted = append(unwanted, row)
			continue
		}
		topic := string(packet.Topic)
		if !row.ExpiresAt.IsZero() && !row.ExpiresAt.After(now) {
			unwanted = append(unwanted, row)
			continue
		}
		bound := c.bound.Load()
		if !c.mayReceive(ctx, s.realm, topic, now) {
			if row.Group != 0 {
				passed = append(passed, row)
			} else {
				unwanted = append(unwanted, row)
			}
			continue
		}
		h := held{retain: packet.Retain, size: packet.Size(s.version), until: row.ExpiresAt, seq: row.Seq, stored: len(row.Packet), passed: row.Group != 0, bound: bound}
		if s.version == mqtt.V5 && c.aliasMaximum == 0 && row.ExpiresAt.IsZero() {
			h.raw, h.idAt = row.Packet, packetIDAt(row.Packet, len(topic))
		} else {
			h.packet = packet
		}
		next = append(next, h)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.Load() != c || c.out.closing {
		return nil, after, nil // it is no longer this connection that decides
	}
	for _, row := range unwanted {
		s.broker.count.publishDropped.Add(1)
		s.forgetQueued(row.Seq, len(row.Packet))
	}
	for _, row := range passed {
		s.passOn(row.Seq, len(row.Packet))
	}
	return next, through, nil
}

// decodeStored reads a message out of the store.
func decodeStored(raw []byte) (*mqtt.Publish, error) {
	header, ok, err := mqtt.ParseFixedHeader(raw)
	if err == nil && (!ok || header.Size+header.Remaining != len(raw)) {
		err = imprint.Errorf(imprint.CodeInternal, "it has %d bytes", len(raw))
	}
	packet := &mqtt.Publish{}
	if err == nil {
		err = packet.Decode(header, raw[header.Size:], mqtt.V5)
	}
	if err == nil && (packet.QoS > 1 || len(packet.Topic) == 0 || packet.Properties.Has(mqtt.PropTopicAlias)) {
		err = imprint.Errorf(imprint.CodeInternal, "it isn't one that the broker has stored")
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't read a stored message: %w", err)
	}
	return packet, nil
}

// decodeQueued reads a message out of a queue.
func decodeQueued(raw []byte) (*mqtt.Publish, error) {
	packet, err := decodeStored(raw)
	if err == nil && packet.QoS != 1 {
		err = imprint.Errorf(imprint.CodeInternal, "a message in a queue has QoS %d", packet.QoS)
	}
	return packet, err
}

// passOn moves a message that the client may not receive, or can't, to the queue of the shared
// subscription that it came by. The lock is held.
func (s *session) passOn(seq int64, size int) {
	b := s.broker
	if b.ledger.release(b, &s.durable.queue, size) {
		b.background.Go(s.wakeGroups)
	}
	left := inheritance{broker: b, realm: s.realm, from: s.durable.queue.key}
	b.ledger.add(change{
		insist: true, size: size,
		write: func(tx imprint.Tx) error { return left.writeOne(tx, seq) },
		done:  left.done,
	})
}

// forgetQueued lets the ledger delete a message from the store. Nobody waits for
// that: a message that comes back is sent again with DUP. The lock is held.
func (s *session) forgetQueued(seq int64, size int) {
	d := s.durable
	if s.broker.ledger.release(s.broker, &d.queue, size) {
		// Shared subscriptions may have waited for the room.
		s.broker.background.Go(s.wakeGroups)
	}
	d.settled = append(d.settled, seq)
	if d.settling {
		return
	}
	// Also when the session is just ending: what was acknowledged before its
	// deletion goes to the ledger isn't inherited.
	d.settling = true
	var taken []int64
	s.broker.ledger.add(change{
		insist: true,
		write: func(tx imprint.Tx) error {
			s.mu.Lock()
			if taken == nil {
				taken, d.settled, d.settling = d.settled, nil, false
			}
			s.mu.Unlock()
			return tx.DeleteQueuedAll(d.queue.key, taken)
		},
		done: func(err error) {
			if err == nil {
				return
			}
			// They go with the next ones.
			s.mu.Lock()
			d.settled, d.settling = append(d.settled, taken...), false
			s.mu.Unlock()
		},
	})
}
