package broker

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// arrival is a connection that enters its realm.
type arrival struct {
	connection *connection
	cleanStart bool
	expiry     time.Duration // 0: the session ends with the connection
	connack    *mqtt.Connack
}

// departure is who had the client id before.
type departure struct {
	connection *connection // nil: nobody was connected
	session    *session    // nil, or a stored session that ends now
	ending     []*session  // stored sessions, session among them, that the store may still have
}

// enter makes a connection the one of its client id, in the session that it
// finds or in a new one, and counts it for its lifecycle events.
//
// One lock covers all of it, so that of several connections with one client id
// the last to enter lives, is the one that the realm knows, and has the highest
// version number. CONNACK stands in the buffer, corked, before anybody can find
// the connection, so that whoever ends it at once, or sends it a message, can't
// get ahead of it.
func (b *Broker) enter(a arrival) (before departure, err error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closing {
		return before, errShutdown()
	}
	c := a.connection
	r := c.realm
	now := b.clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	found := r.sessions[c.clientID]
	s := found
	if found == nil || found.durable == nil || a.cleanStart || found.version != c.version || found.expired(now) {
		if found != nil && found.durable != nil {
			before.session = found
		}
		s, err = b.newSession(c, a.expiry, before.session != nil, now)
		if err != nil {
			return departure{}, err
		}
	}
	before.connection = s.attach(c, a, s == found, now)
	if found != nil && s != found {
		before.connection = found.conn.Load()
	}
	if before.session != nil {
		r.end(before.session)
	}
	before.ending = slices.Clone(r.ending[c.clientID])
	r.sessions[c.clientID] = s
	c.presenceVersion = r.nextVersion(c.clientID, now)
	c.place = int32(len(r.byCert[c.certificate]))
	r.byCert[c.certificate] = append(r.byCert[c.certificate], c)
	if c.certificate != noCertificate && len(r.byCert[c.certificate]) == 2 {
		r.crowded[c.certificate] = struct{}{}
	}
	b.count.connected.Add(1)
	c.entered = true
	return before, nil
}

// maxEndings is from how many sessions on that have ended, and that the store couldn't
// delete, a tenant's clients get no new ones that are stored.
const maxEndings = 16384

// newSession makes the session of a client that begins anew, perhaps in the place
// of its stored one. The realm's lock is held.
func (b *Broker) newSession(c *connection, expiry time.Duration, replaces bool, now time.Time) (*session, error) {
	s := &c.own
	if expiry > 0 {
		if c.realm.endings >= maxEndings {
			return nil, imprint.Errorf(imprint.CodeUnavailable, "the store hasn't deleted %d sessions that have ended", c.realm.endings)
		}
		if c.realm.stored >= b.opts.MaxSessions && !replaces {
			return nil, imprint.Errorf(imprint.CodeQuotaExceeded, "the tenant has %d persistent sessions, as many as allowed", c.realm.stored).
				WithHint("Connect with a clean session, or raise --max-sessions.")
		}
		c.realm.stored++
		b.count.stored.Add(1)
		s = &session{durable: &durable{queue: queue{key: newKey()}, createdAt: now, deleting: make(chan struct{})}}
	}
	s.broker, s.realm, s.clientID, s.version = b, c.realm, c.clientID, c.version
	return s, nil
}

// newKey makes the key of a queue.
func newKey() int64 {
	var raw [8]byte
	// crypto/rand.Read never fails; it ends the program instead.
	_, _ = rand.Read(raw[:])
	return max(1, int64(binary.BigEndian.Uint64(raw[:])>>1))
}

// attach gives the session a connection, and the one that it had before. What
// was under way to that one comes again from the queue.
func (s *session) attach(c *connection, a arrival, present bool, now time.Time) (before *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.conn.Load()
	c.session, c.since = s, now.UnixNano()
	if d := s.durable; d != nil {
		c.since = max(c.since, d.entered+1)
		d.entered = c.since
		if !present {
			d.accepted = c.since
		}
		if present && d.before == nil {
			was := d.absence
			d.before = &was
		}
		d.absence, d.live = absence{expiry: a.expiry}, c.will
		d.loaded, d.resend = 0, d.sent
	}
	s.dropOutput()
	a.connack.SessionPresent = present
	c.out.buffer(controlPacket)
	c.out.pending = a.connack.Append(c.out.pending, c.version)
	c.out.corked = true
	s.conn.Store(c)
	return before
}

// expired tells whether a session's time is over for a connection that comes now.
// Without an expiry interval it ends with the connection that is taken over (MQTT
// 5 section 3.1.2.11.2). One that isn't accepted yet may be refused, so that both holds:
// what it asks for, and what was before.
func (s *session) expired(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.durable
	return s.over || d.absence.over(now) && (d.before == nil || d.before.over(now))
}

// over tells whether the session's time is over in this absence.
func (a *absence) over(now time.Time) bool {
	return a.expiry == 0 || !a.expiresAt.IsZero() && !a.expiresAt.After(now)
}

// settleArrival ends who was there before and makes durable what the client is
// about to be told.
func (b *Broker) settleArrival(ctx context.Context, a arrival, before departure) error {
	c := a.connection
	if before.connection != nil {
		b.count.takeovers.Add(1)
		c.peer.Rec.Info("takeover", "an earlier connection with this client id is ended")
		// For who operates the fleet, not for the device; beside the failure, whose words
		// tell how those of many devices are alike.
		before.connection.peer.Rec.Info("takeover", "another connection with this client id came from %s", c.peer.Address)
		before.connection.kick(imprint.CodeTakenOver)
	}
	if before.session != nil {
		before.session.discard()
	}
	// A session that the client was told is gone must not come back.
	err := b.awaitDeletion(ctx, before.ending)
	if err != nil {
		return err
	}
	s := c.session
	switch {
	case s.durable == nil:
	case a.connack.SessionPresent:
		err := b.ledger.wait(ctx, change{write: s.save})
		if err != nil {
			return err
		}
		s.resumed(c, a.expiry)
		if n := b.ledger.tellDropped(&s.durable.queue); n > 0 {
			c.peer.Rec.Fail("session", imprint.Errorf(imprint.CodeQueueFull, "%d messages were dropped while the device was away: its queue was full", n))
		}
	default:
		// Whoever is told of a new session is told that it is empty: it need not be
		// stored before something depends on it.
		b.ledger.add(change{write: s.save})
	}
	return nil
}

// resumed tells that the store knows a connection that took the session up.
func (s *session) resumed(c *connection, expiry time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.durable
	if c.since < d.accepted {
		return // so does it one that came later
	}
	d.accepted = c.since
	switch {
	case s.conn.Load() == c:
		d.before = nil
	case d.before != nil:
		// Another one has taken over, and may be refused.
		d.before = &absence{expiry: expiry}
	default:
		// Those that have taken over were refused, and left the session as it was before c.
		d.absence = absence{expiry: expiry}
	}
}

// discard ends a stored session for good: its subscriptions, its queue, and the
// will that waited for its end.
func (s *session) discard() {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return // who tells of its end waits for deleting
	}
	s.over = true
	w := s.durable.will
	s.durable.will = nil
	s.mu.Unlock()
	s.broker.timers.forget(s)
	s.unsubscribeAll()
	if w != nil {
		s.broker.publishWill(s.realm, w)
	}
	s.realm.mu.Lock()
	s.realm.stored--
	s.realm.end(s)
	s.realm.mu.Unlock()
	s.broker.ledger.add(s.deletion())
	close(s.durable.deleting)
	s.broker.count.stored.Add(-1)
}

// deletion is endOf for a session that memory knows.
func (s *session) deletion() change {
	end := s.broker.endOf(s.realm, s.durable.queue.key)
	handOver := end.done
	end.done = func(err error) {
		handOver(err)
		if err == nil {
			s.realm.deleted(s)
		}
	}
	return end
}

// awaitDeletion returns when sessions that have ended are out of the store for good.
func (b *Broker) awaitDeletion(ctx context.Context, ending []*session) error {
	if len(ending) == 0 {
		return nil
	}
	var ends []change
	for _, s := range ending {
		select {
		case <-s.durable.deleting:
		case <-ctx.Done():
			return imprint.Errorf(imprint.CodeUnavailable, "couldn't wait for the end of an earlier session: %w", ctx.Err())
		}
		ends = append(ends, s.deletion())
	}
	// The ledger has their deletions before this one, which mostly finds nothing left:
	// it is for those that failed for good.
	return b.ledger.wait(ctx, change{
		write: func(tx imprint.Tx) error {
			for _, end := range ends {
				err := end.write(tx)
				if err != nil {
					return err
				}
			}
			return nil
		},
		done: func(err error) {
			for _, end := range ends {
				end.done(err)
			}
		},
	})
}

// endOf is the deletion of a stored session. What shared subscriptions had handed to
// it goes to other members.
func (b *Broker) endOf(r *realm, key int64) change {
	left := inheritance{broker: b, realm: r, from: key}
	return change{insist: true, end: true, done: left.done, write: func(tx imprint.Tx) error {
		err := left.writeAll(tx)
		if err != nil {
			return err
		}
		return tx.DeleteSession(key)
	}}
}

// detach takes a connection that has ended from its session, unless the session
// has gone on to another one. It hasn't where those that came later were all refused.
func (s *session) detach(c *connection, w *will) {
	d := s.durable
	s.mu.Lock()
	now := s.broker.clock()
	last := d != nil && d.accepted == c.since
	if on := s.conn.Load(); on != c && (on != nil || !last) {
		waits := d != nil && w != nil && w.delay > 0
		if waits && last && d.before != nil {
			d.before.await(w, now)
		}
		s.mu.Unlock()
		if w != nil && !waits {
			// A will that waits is taken back by the new connection (MQTT 5 section
			// 3.1.3.2.2), once that is accepted.
			s.broker.publishWill(s.realm, w)
		}
		return
	}
	back := s.leases()
	s.dropOutput()
	s.conn.Store(nil)
	if d != nil && d.before != nil {
		// It was refused, so that the client knows of nothing that it changed.
		d.absence, d.before = *d.before, nil
	}
	if d == nil || d.expiry == 0 || s.over {
		var left *will
		if s.over && d != nil {
			// The session has ended in the meantime, without what was restored above.
			left, d.will = d.will, nil
		}
		s.mu.Unlock()
		s.endWith(w, back)
		if left != nil {
			s.broker.publishWill(s.realm, left)
		}
		return
	}
	d.live = nil
	if d.expiresAt.IsZero() {
		d.expiresAt = now.Add(d.expiry)
	}
	if w != nil && w.delay > 0 {
		d.await(w, now)
		w = nil
	}
	due := d.expiresAt
	if d.will != nil {
		due = earlier(due, d.willAt)
	}
	s.mu.Unlock()
	for _, l := range back {
		l.giveBack()
	}
	if w != nil {
		s.broker.publishWill(s.realm, w)
	}
	s.saveSoon()
	s.broker.timers.add(due, s)
}

// await has a will wait for its delay from now on.
func (a *absence) await(w *will, now time.Time) {
	w.since = now
	a.will, a.willAt = w, now.Add(w.delay)
}

// endWith ends a session whose connection was its last.
func (s *session) endWith(w *will, back []*lease) {
	if s.durable != nil {
		s.discard()
	} else {
		s.unsubscribeAll()
	}
	for _, l := range back {
		l.giveBack()
	}
	if w != nil {
		s.broker.publishWill(s.realm, w)
	}
}

// tick looks at an absent session whose time may have come, and gives when to
// look again; zero when there is nothing to wait for.
func (s *session) tick(now time.Time) time.Time {
	s.mu.Lock()
	d := s.durable
	if s.over || s.conn.Load() != nil || d.expiresAt.IsZero() {
		s.mu.Unlock()
		return time.Time{}
	}
	if !d.expiresAt.After(now) {
		s.mu.Unlock()
		s.expire(now)
		return time.Time{}
	}
	next := d.expiresAt
	var due *will
	switch {
	case d.will == nil:
	case d.willAt.After(now):
		next = earlier(next, d.willAt)
	default:
		due, d.will = d.will, nil
	}
	s.mu.Unlock()
	if due != nil {
		// The store forgets the will before or with its message's being published;
		// a server that is killed in between publishes it once more.
		s.broker.publishWill(s.realm, due)
		s.saveSoon()
	}
	return next
}

// expire discards the session unless the client has come back in this moment.
func (s *session) expire(now time.Time) {
	r := s.realm
	r.mu.Lock()
	// Entering takes this lock: who enters after this finds no session.
	over := r.sessions[s.clientID] == s && s.conn.Load() == nil && s.expired(now)
	if over {
		r.end(s)
	}
	r.mu.Unlock()
	if !over {
		return
	}
	s.broker.count.expired.Add(1)
	s.discard()
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
