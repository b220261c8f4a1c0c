package broker

import (
	"context"
	"math/rand/v2"
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
	out      map[int64]*session // numbers in the queue that members have now; nil: one is being chosen
	leased   map[*session]int   // how many of them a member has in memory
	lent     int                // the sum of leased; the others in out are moved to a member's queue
	gone     map[int64]struct{} // numbers that left the store since it was read
	// unread is the lowest number that may be in the store and with nobody; 0:
	// there is none.
	unread int64
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
		g.queue, g.out, g.leased, g.lent, g.gone = nil, nil, nil, 0, nil
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

// free gives the next members in a circle that are connected and don't hold as many
// of the queue's messages as they may. Tried counts how many have been looked at.
func (g *shareGroup) free(some []*subscription, first uint32, tried *int) []*subscription {
	g.mu.Lock()
	defer g.mu.Unlock()
	for ; *tried < len(g.members) && len(some) < cap(some); *tried++ {
		sub := g.members[(int(first)+*tried)%len(g.members)]
		if sub.session.conn.Load() != nil && (g.lent == 0 || g.leased[sub.session] < maxLeased) {
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
}

// give hands a message to a member, or puts it into the parcel for the store: of
// a group with a keeper, no QoS 1 message is in memory alone, as it is
// acknowledged to its publisher. It begins with a random member.
func (g *shareGroup) give(ctx context.Context, x *gift) (behind *connection, given bool) {
	var few [4]*subscription
	first := rand.Uint32() >> 1
	for tried := 0; ; {
		some := g.free(few[:0], first, &tried)
		if len(some) == 0 {
			break
		}
		for _, sub := range some {
			behind, given = g.offer(ctx, sub, x)
			if given {
				return behind, true
			}
		}
	}
	return nil, x.from == nil && x.qos == 1 && g.store(x.parcel)
}

// offer hands a message to one member, unless that may not receive it or has no
// room for it.
func (g *shareGroup) offer(ctx context.Context, sub *subscription, x *gift) (behind *connection, given bool) {
	s := sub.session
	c := s.conn.Load()
	if c == nil || c.ended.Load() != nil || !c.mayReceive(ctx, g.realm, x.topic, x.now) {
		return nil, false
	}
	qos := min(x.qos, sub.qos)
	var l *lease
	switch {
	case qos == 1 && s.durable != nil:
		if !g.broker.ledger.fits(g.broker, &s.durable.queue, x.message.storedSize()) {
			return nil, false
		}
		if x.from != nil {
			g.hold(x.from, nil)
		}
		x.parcel.targets = append(x.parcel.targets, target{session: s, shared: g, decided: c})
		return nil, true
	case qos == 1 && x.from != nil:
		l = x.from
		g.hold(l, s)
	case qos == 1 && g.store(x.parcel):
		return nil, true // it is handed out as soon as it is there
	case qos == 1:
		l = &lease{group: g, kept: x.message.keep(), expires: x.message.expires}
	}
	behind, given = s.deliver(c, x.message, delivery{qos: qos, chosen: true, shared: l, by: x.by})
	if given && qos == 0 && x.from != nil {
		x.from.settle()
	}
	return behind, given
}

// store makes the group's queue a target of a parcel, if somebody keeps it.
func (g *shareGroup) store(p *parcel) bool {
	g.mu.Lock()
	q, kept := g.queue, g.keepers > 0
	g.mu.Unlock()
	if q == nil || !kept {
		return false
	}
	p.targets = append(p.targets, target{group: q})
	return true
}
