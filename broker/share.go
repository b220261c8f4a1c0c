package broker

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// shareGroup is a shared subscription: of its members, a random one that is
// connected and may receive it gets each message. While none is connected, QoS 1
// messages wait in the group's queue, as long as the group has a member with a
// stored session (AWS IoT Core developer guide, "MQTT", shared subscriptions).
type shareGroup struct {
	broker *Broker
	realm  *realm
	filter string // with $share/NAME/

	// mu guards what follows. It is taken before a realm's and a session's lock,
	// never while one of them is held.
	mu       sync.Mutex
	members  []*subscription
	keepers  int         // members with QoS 1 and a stored session
	queue    *groupQueue // nil while there are no keepers
	draining bool
	again    bool               // something came while it was drained
	out      map[int64]struct{} // numbers in the queue that members have now
	gone     map[int64]struct{} // numbers that left the store since it was read
	// mayHold: the queue may have messages. It is false only after a reading that
	// found none, as the store may have taken what it said it hasn't.
	mayHold bool
}

// groupQueue is the queue of a group while it has keepers.
type groupQueue struct {
	queue
	group *shareGroup
	gone  atomic.Bool // deleted from the store
}

// maxLeased bounds the queued messages that members hold at a time.
const maxLeased = 100

// lease is a message that a group has handed to a member whose session ends with
// its connection, until the member acknowledges it.
type lease struct {
	group   *shareGroup
	kept    *mqtt.Publish
	expires time.Time
	queue   *groupQueue // nil: it isn't stored
	seq     int64
	size    int // in the queue
}

// join adds a member. The tree's lock is held.
func (g *shareGroup) join(sub *subscription) {
	g.mu.Lock()
	defer g.mu.Unlock()
	sub.place = len(g.members)
	g.members = append(g.members, sub)
	g.count(sub, 1)
}

// replace puts a member's new subscription into the place of its old one. The
// tree's lock is held.
func (g *shareGroup) replace(old, sub *subscription) {
	g.mu.Lock()
	defer g.mu.Unlock()
	sub.place = old.place
	g.members[sub.place] = sub
	g.count(sub, 1)
	g.count(old, -1)
}

// part takes a member out and reports whether the group is empty. The tree's lock
// is held.
func (g *shareGroup) part(sub *subscription) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	last := len(g.members) - 1
	if sub.place > last || g.members[sub.place] != sub {
		return last < 0
	}
	g.members[sub.place] = g.members[last]
	g.members[sub.place].place = sub.place
	g.members[last] = nil
	g.members = g.members[:last]
	g.count(sub, -1)
	return last == 0
}

// count keeps the number of keepers, and the queue while there are some. The
// lock is held.
func (g *shareGroup) count(sub *subscription, n int) {
	if sub.session.durable == nil || sub.qos == 0 {
		return
	}
	g.keepers += n
	switch {
	case g.keepers > 0 && g.queue == nil:
		g.queue, g.mayHold = g.realm.groupQueue(g), true
	case g.keepers == 0 && g.queue != nil:
		q := g.queue
		g.queue, g.out, g.gone = nil, nil, nil
		q.gone.Store(true)
		g.broker.ledger.add(change{insist: true, write: func(tx imprint.Tx) error { return tx.DeleteShareGroup(q.key) }})
	}
}

// stored gives the group's queue; nil when it has none.
func (g *shareGroup) stored() *groupQueue {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.queue
}

// row is the group as the store has it.
func (q *groupQueue) row() imprint.ShareGroup {
	return imprint.ShareGroup{Tenant: q.group.realm.tenant, Filter: q.group.filter, Key: q.key}
}

// pick gives a random member that is connected, may receive a message on a topic
// and has room for it in its queue; nil when there is none.
func (g *shareGroup) pick(ctx context.Context, topic string, qos mqtt.QoS, size int, now time.Time) (*subscription, *connection) {
	var few [16]*subscription
	g.mu.Lock()
	members := append(few[:0], g.members...)
	g.mu.Unlock()
	if len(members) == 0 {
		return nil, nil
	}
	first := rand.IntN(len(members))
	for n := range members {
		sub := members[(first+n)%len(members)]
		c := sub.session.conn.Load()
		if c == nil || c.ended.Load() != nil || !c.mayReceive(ctx, g.realm, topic, now) {
			continue
		}
		if d := sub.session.durable; d == nil || min(qos, sub.qos) == 0 || g.broker.ledger.fits(g.broker, &d.queue, size) {
			return sub, c
		}
	}
	return nil, nil
}

// maxPicks bounds how often another member is tried when the chosen one went
// away in the same moment.
const maxPicks = 8

// give hands a message to a member, or puts it into the parcel for the store.
// From is the queued message that it is, nil for a new one.
func (g *shareGroup) give(ctx context.Context, m *outgoing, qos mqtt.QoS, from *lease, p *parcel, now time.Time, by *connection) (behind *connection, given bool) {
	topic, size := string(m.Topic), m.storedSize()
	for range maxPicks {
		sub, c := g.pick(ctx, topic, qos, size, now)
		if sub == nil {
			break
		}
		qos := min(qos, sub.qos)
		if qos == 1 && sub.session.durable != nil {
			p.targets = append(p.targets, target{session: sub.session, shared: g, decided: c})
			return nil, true
		}
		var l *lease
		if qos == 1 {
			l = from
			if l == nil {
				l = &lease{group: g, kept: m.keep(), expires: m.expires}
			}
		}
		behind, taken := sub.session.deliver(c, m, qos, false, l, by)
		if taken {
			if qos == 0 && from != nil {
				from.settle()
			}
			return behind, true
		}
	}
	q := g.stored()
	if from != nil || q == nil || qos == 0 {
		return nil, false
	}
	p.targets = append(p.targets, target{group: q})
	return nil, true
}

// settle lets go of a message that a member has acknowledged. The member's
// session may be locked.
func (l *lease) settle() {
	if l.queue == nil {
		return
	}
	g, q, seq := l.group, l.queue, l.seq
	g.broker.ledger.add(change{
		insist: true,
		write: func(tx imprint.Tx) error {
			if q.gone.Load() {
				return nil
			}
			return tx.DeleteQueued(q.key, seq)
		},
		// It may be read again until it is gone from the store.
		done: func(err error) {
			if err == nil {
				g.broker.ledger.release(g.broker, &q.queue, l.size)
			}
			g.returned(q, seq, err == nil)
			g.wake()
		},
	})
}

// returned makes a number of the queue free to be read again, or, when its
// message has left the store, not to be handed out by who has just read it.
func (g *shareGroup) returned(q *groupQueue, seq int64, gone bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.queue != q {
		return
	}
	delete(g.out, seq)
	if !gone || !g.draining {
		return
	}
	if g.gone == nil {
		g.gone = map[int64]struct{}{}
	}
	g.gone[seq] = struct{}{}
}

// movedOn tells whether the message is in a member's queue now, or could have
// been: where there was no room it is no use to try at once again.
func (l *lease) movedOn(err error, arrived, room bool) {
	g := l.group
	arrived = arrived && err == nil
	if arrived {
		g.broker.ledger.release(g.broker, &l.queue.queue, l.size)
	}
	g.returned(l.queue, l.seq, arrived)
	switch {
	case err != nil:
		g.wakeLater()
	case room:
		g.wake()
	}
}

// drainRetry is the pause after the store couldn't be read or written.
const drainRetry = time.Second

func (g *shareGroup) wakeLater() { time.AfterFunc(drainRetry, g.wake) }

// giveBack hands the message of a member that went away to another one.
func (l *lease) giveBack() {
	g := l.group
	if l.queue != nil {
		g.returned(l.queue, l.seq, false)
		g.wake()
		return
	}
	now := g.broker.clock()
	m := outgoing{Publish: *l.kept, expires: l.expires, kept: l.kept}
	if !l.expires.IsZero() && !refreshExpiry(&m.Publish, l.expires, now) {
		g.broker.count.publishDropped.Add(1)
		return
	}
	p := &parcel{expires: l.expires}
	_, given := g.give(context.Background(), &m, 1, nil, p, now, nil)
	if !given {
		g.broker.count.publishDropped.Add(1)
		return
	}
	if len(p.targets) > 0 {
		p.kept = l.kept
		g.broker.ledger.post(g.broker, p, nil)
	}
}

// storedMessage tells the group that a message may be in its queue.
func (q *groupQueue) storedMessage() {
	q.group.mu.Lock()
	q.group.mayHold = true
	q.group.mu.Unlock()
	q.group.wake()
}

// wake hands out what waits in the queue, if somebody may be there to take it.
func (g *shareGroup) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.queue == nil || !g.mayHold {
		return
	}
	if g.draining {
		g.again = true
		return
	}
	if !slices.ContainsFunc(g.members, func(sub *subscription) bool { return sub.session.conn.Load() != nil }) {
		return
	}
	g.draining = true
	g.broker.background.Go(g.drain)
}

// drain hands out messages of the queue until none is left, nobody takes one, or
// the members have as many as they may.
func (g *shareGroup) drain() {
	for {
		err := g.drainOnce()
		if err != nil {
			g.broker.opts.Logger.Error("couldn't hand out a shared subscription's messages", "tenant", g.realm.tenant.String(), "error", err)
		}
		g.mu.Lock()
		if !g.again || err != nil {
			g.draining = false
			g.again = false
			g.mu.Unlock()
			if err != nil {
				g.wakeLater()
			}
			return
		}
		g.again = false
		g.mu.Unlock()
	}
}

func (g *shareGroup) drainOnce() error {
	ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	q := g.stored()
	if q == nil {
		return nil
	}
	for after := int64(0); ; {
		rows, err := g.read(ctx, q, after)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			if !g.handOut(ctx, q, row) {
				return nil
			}
		}
		after = rows[len(rows)-1].Seq
	}
}

// read gives the next messages of the queue.
func (g *shareGroup) read(ctx context.Context, q *groupQueue, after int64) ([]imprint.QueuedMessage, error) {
	g.mu.Lock()
	g.gone = nil
	if after == 0 {
		g.mayHold = false
	}
	g.mu.Unlock()
	var rows []imprint.QueuedMessage
	err := g.broker.store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := tx.Queued(q.key, after, loadMessages, loadBytes)
		rows = found
		return err
	})
	if err != nil || len(rows) > 0 {
		g.mu.Lock()
		g.mayHold = true
		g.mu.Unlock()
	}
	return rows, err
}

// lend enters that a member is to have a message of the queue. Lent is false when
// one has it, or had it, already; more is false when the members have as many as
// they may.
func (g *shareGroup) lend(q *groupQueue, seq int64) (lent, more bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, taken := g.out[seq]
	_, gone := g.gone[seq]
	switch {
	case g.queue != q:
		return false, false
	case taken || gone:
		return false, true
	case len(g.out) >= maxLeased:
		return false, false
	}
	if g.out == nil {
		g.out = map[int64]struct{}{}
	}
	g.out[seq] = struct{}{}
	return true, true
}

// handOut gives one queued message to a member. It reports false when that is no
// use for the next ones either.
func (g *shareGroup) handOut(ctx context.Context, q *groupQueue, row imprint.QueuedMessage) bool {
	lent, more := g.lend(q, row.Seq)
	if !lent {
		return more
	}
	l := &lease{group: g, expires: row.ExpiresAt, queue: q, seq: row.Seq, size: len(row.Packet)}
	packet, err := decodeQueued(row.Packet)
	if err != nil {
		g.broker.opts.Logger.Error("a message of a shared subscription's queue is dropped", "tenant", g.realm.tenant.String(), "filter", g.filter, "number", row.Seq, "error", err)
		l.settle()
		return true
	}
	l.kept = packet
	now := g.broker.clock()
	m := outgoing{Publish: *packet, expires: row.ExpiresAt, kept: packet}
	if !row.ExpiresAt.IsZero() && !refreshExpiry(&m.Publish, row.ExpiresAt, now) {
		g.broker.count.publishDropped.Add(1)
		l.settle()
		return true
	}
	p := &parcel{kept: packet, expires: row.ExpiresAt, moved: l}
	_, given := g.give(ctx, &m, 1, l, p, now, nil)
	if !given {
		g.returned(q, row.Seq, false)
		return false
	}
	if len(p.targets) > 0 {
		g.broker.ledger.post(g.broker, p, nil)
	}
	return true
}
