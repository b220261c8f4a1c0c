package broker

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// shareGroup is a shared subscription: of its members, a random one that is
// connected and may receive it gets each message. As long as the group has a member
// with a stored session, QoS 1 messages are in that one's queue or in the group's,
// from which the others get them (AWS IoT Core developer guide, "MQTT", shared
// subscriptions).
type shareGroup struct {
	broker *Broker
	realm  *realm
	filter string // with $share/NAME/
	number int64  // stands for filter in the queues of members

	// mu guards what follows. It is taken before a realm's and a session's lock,
	// never while one of them is held.
	mu       sync.Mutex
	members  []*subscription
	takers   int         // members with QoS 1
	keepers  int         // those of them with a stored session
	queue    *groupQueue // from the first keeper until there are no takers
	draining bool
	retrying bool               // it will be woken
	again    bool               // something came while it was drained
	unsure   map[int64]int      // sizes of messages that may have left the queue: a write failed
	out      map[int64]*session // numbers in the queue that members have now; nil: one is being chosen
	leased   map[*session]int   // how many of them a member has in memory
	lent     int                // the sum of leased; the others in out are moved to a member's queue
	// leftStore are numbers that left the store, or may have, since it was read.
	leftStore map[int64]struct{}
	// unread is the lowest number that may be in the store and with nobody; 0:
	// there is none.
	unread int64
	// skipped is the lowest number that none of the connected members might receive;
	// 0: there is none. They are tried again after pause, which grows.
	skipped int64 // also those whose members had no room, while others might not
	pause   time.Duration
	chosen  map[int64]*subscription // whom a number of the queue is for, if there is room
}

// join adds a member. The tree's lock is held.
func (g *shareGroup) join(sub *subscription) {
	g.mu.Lock()
	defer g.mu.Unlock()
	sub.place = len(g.members)
	g.members = append(g.members, sub)
	g.count(sub, 1)
	g.retrySkipped()
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
	if last > 0 {
		return false
	}
	g.realm.forgetGroup(g)
	return true
}

// current gives the group that has the filter now. One that has lost all its members
// is never joined again, but there may be messages on their way to it.
func (g *shareGroup) current() *shareGroup {
	if now := g.realm.group(g.number); now != nil {
		return now
	}
	return g
}

// count keeps the number of those who may have QoS 1 messages, and the queue: what
// is in it when the last keeper goes is for the others. The lock is held.
func (g *shareGroup) count(sub *subscription, n int) {
	if sub.qos == 0 {
		return
	}
	g.takers += n
	if sub.session.durable != nil {
		g.keepers += n
	}
	switch {
	case g.keepers > 0 && g.queue == nil:
		g.queue, g.unread = g.realm.groupQueue(g), 1
	case g.takers == 0 && g.queue != nil:
		q := g.queue
		if left := g.broker.ledger.waiting(&q.queue) - g.lent; left > 0 {
			g.broker.count.publishDropped.Add(uint64(left))
		}
		g.queue, g.out, g.leased, g.lent, g.leftStore, g.chosen, g.unsure, g.unread, g.skipped = nil, nil, nil, 0, nil, nil, nil, 0, 0
		q.deleted.Store(true)
		g.broker.ledger.add(change{insist: true, end: true, write: func(tx imprint.Tx) error { return tx.DeleteShareGroup(q.key) }})
	}
}

// stored gives the group's queue; nil when it has none.
func (g *shareGroup) stored() *groupQueue {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.queue
}

// outcome is what became of a message that was given to a group.
type outcome int

const (
	noRoom    outcome = iota // nobody is connected, or none of those has room
	forbidden                // no member that is connected may receive it
	crowded                  // some may not receive it, the others have no room
	tooLarge                 // none takes packets of its size
	handed                   // a member has it, or a queue will
)

// search is the way of a message through the members, in a circle from a random
// one on.
type search struct {
	first  uint32
	tried  int
	busy   bool // somebody has no room
	away   bool // somebody isn't connected
	denied bool
	tooBig bool
}

// free gives the next members that are connected and don't hold as many of the
// queue's messages as they may.
func (g *shareGroup) free(some []*subscription, way *search) []*subscription {
	g.mu.Lock()
	defer g.mu.Unlock()
	for ; way.tried < len(g.members) && len(some) < cap(some); way.tried++ {
		sub := g.members[(int(way.first)+way.tried)%len(g.members)]
		switch {
		case sub.session.conn.Load() == nil:
			way.away = true
		case g.lent > 0 && g.leased[sub.session] >= g.broker.opts.MaxSharedInflight:
			way.busy = true
		default:
			some = append(some, sub)
		}
	}
	return some
}

// gift is a message on its way to a member of a group.
type gift struct {
	message *outgoing
	topic   string
	qos     mqtt.QoS
	from    *lease // the queued message that it is; nil: it is new
	parcel  *parcel
	now     time.Time
	by      *connection
	first   uint32 // the member that is asked first
}

// give hands a message to a member, or puts it into the parcel for the store: of
// a group with a keeper, no QoS 1 message is in memory alone, as it is
// acknowledged to its publisher, unless the queue is full.
func (g *shareGroup) give(ctx context.Context, x *gift) (behind *connection, o outcome) {
	var few [4]*subscription
	way := search{first: x.first}
	for {
		some := g.free(few[:0], &way)
		if len(some) == 0 {
			break
		}
		for _, sub := range some {
			behind, o = g.offer(ctx, sub, x)
			if o == handed {
				return behind, o
			}
			way.busy = way.busy || o == noRoom
			way.denied = way.denied || o == forbidden
			way.tooBig = way.tooBig || o == tooLarge
		}
	}
	switch {
	case way.tooBig && !way.denied && !way.busy && !way.away:
		// "The Server MUST discard it" [MQTT-3.1.2-25].
		g.broker.count.publishDropped.Add(1)
		if x.from != nil {
			x.from.settle()
		}
		return nil, handed
	case x.from == nil && x.qos == 1 && g.store(x.parcel, nil):
		return nil, handed
	case !way.denied && !way.tooBig:
		return nil, noRoom
	case way.busy:
		return nil, crowded
	case way.denied:
		return nil, forbidden
	}
	return nil, tooLarge
}

// offer hands a message to one member, unless that may not receive it or has no
// room for it.
func (g *shareGroup) offer(ctx context.Context, sub *subscription, x *gift) (behind *connection, o outcome) {
	s := sub.session
	c := s.conn.Load()
	if c == nil || c.ended.Load() != nil {
		return nil, noRoom
	}
	bound := c.bound.Load()
	if !c.mayReceive(ctx, g.realm, x.topic, x.now) {
		return nil, forbidden
	}
	qos := min(x.qos, sub.qos)
	if c.maxPacket > 0 && len(x.message.form(s.version, qos).raw) > c.maxPacket {
		return nil, tooLarge
	}
	var l *lease
	switch {
	case qos == 1 && s.durable != nil:
		if !g.broker.ledger.fits(g.broker, &s.durable.queue, x.message.storedSize()) {
			return nil, noRoom
		}
		if x.from != nil {
			g.hold(x.from, nil)
		}
		x.parcel.targets = append(x.parcel.targets, target{session: s, shared: g, decided: c, bound: bound})
		return nil, handed
	case qos == 1 && x.from != nil:
		l = x.from
		g.hold(l, s)
	case qos == 1 && g.hasRoom(x.message.storedSize()) && g.store(x.parcel, sub):
		return nil, handed // it is handed out as soon as it is there
	case qos == 1:
		l = &lease{group: g, kept: x.message.keep(), expires: x.message.expires}
	}
	behind, taken := s.deliver(c, x.message, delivery{qos: qos, chosen: true, shared: l, by: x.by, bound: bound})
	if !taken {
		return behind, noRoom
	}
	if qos == 0 && x.from != nil {
		x.from.settle()
	}
	return behind, handed
}

// groupNumber is the positive number that stands for a group's filter.
func groupNumber(filter string) int64 {
	sum := sha256.Sum256([]byte(filter))
	return max(1, int64(binary.BigEndian.Uint64(sum[:])>>1))
}

// hasRoom tells whether the group's queue, if there is one, has room for a
// message.
func (g *shareGroup) hasRoom(size int) bool {
	q := g.stored()
	return q == nil || g.broker.ledger.fits(g.broker, &q.queue, size)
}

// store makes the group's queue a target of a parcel, if somebody keeps it. Chosen is
// the member that the message is for, if there is room then; nil: any.
func (g *shareGroup) store(p *parcel, chosen *subscription) bool {
	g.mu.Lock()
	q, kept := g.queue, g.keepers > 0
	g.mu.Unlock()
	if q == nil || !kept {
		return false
	}
	p.targets = append(p.targets, target{group: q, chosen: chosen})
	return true
}
