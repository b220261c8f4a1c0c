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

// count keeps the number of keepers, and the queue while there are some. The
// lock is held.
func (g *shareGroup) count(sub *subscription, n int) {
	if sub.session.durable == nil || sub.qos == 0 {
		return
	}
	g.keepers += n
	switch {
	case g.keepers > 0 && g.queue == nil:
		g.queue, g.unread = g.realm.groupQueue(g), 1
	case g.keepers == 0 && g.queue != nil:
		q := g.queue
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

// pick gives a random member that is connected, may receive a message on a topic
// and has room for it in its queue; nil when there is none.
func (g *shareGroup) pick(ctx context.Context, topic string, qos mqtt.QoS, size int, now time.Time) (*subscription, *connection) {
	var few [16]*subscription
	g.mu.Lock()
	members := few[:0]
	for _, sub := range g.members {
		if g.leased[sub.session] < maxLeased {
			members = append(members, sub)
		}
	}
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

// give hands a message to a member, or puts it into the parcel for the store: of
// a group with a queue, no QoS 1 message is in memory alone, as it is
// acknowledged to its publisher. From is the queued message that it is, nil for a
// new one.
func (g *shareGroup) give(ctx context.Context, m *outgoing, qos mqtt.QoS, from *lease, p *parcel, now time.Time, by *connection) (behind *connection, given bool) {
	topic, size := string(m.Topic), m.storedSize()
	for range maxPicks {
		sub, c := g.pick(ctx, topic, qos, size, now)
		if sub == nil {
			break
		}
		qos := min(qos, sub.qos)
		if qos == 1 && sub.session.durable != nil {
			if from != nil {
				g.hold(from, nil)
			}
			p.targets = append(p.targets, target{session: sub.session, shared: g, decided: c})
			return nil, true
		}
		var l *lease
		switch {
		case qos == 1 && from != nil:
			l = from
			g.hold(from, sub.session)
		case qos == 1 && g.store(p):
			return nil, true // it is handed out as soon as it is there
		case qos == 1:
			l = &lease{group: g, kept: m.keep(), expires: m.expires}
		}
		behind, taken := sub.session.deliver(c, m, qos, false, l, by)
		if taken {
			if qos == 0 && from != nil {
				from.settle()
			}
			return behind, true
		}
	}
	return nil, from == nil && qos == 1 && g.store(p)
}

// store makes the group's queue a target of a parcel, if the group has one.
func (g *shareGroup) store(p *parcel) bool {
	q := g.stored()
	if q != nil {
		p.targets = append(p.targets, target{group: q})
	}
	return q != nil
}
