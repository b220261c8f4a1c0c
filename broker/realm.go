package broker

import (
	"slices"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
)

// realm is one tenant's part of the broker: client ids, topics and sessions of
// two tenants never meet.
type realm struct {
	tenant imprint.Tenant
	// ARN prefixes for policy decisions.
	clientARN, topicARN, filterARN string
	topics                         tree
	rules                          imprint.TenantRules // nil: there are none

	// mu guards what follows. It is held for map operations only.
	mu sync.Mutex
	// sessions has the one session of each client id, connected or stored; byCert
	// has the connections, also those that were taken over and haven't ended yet.
	sessions map[imprint.ClientID]*session
	// ending are stored sessions that have ended and whose deletion isn't durable.
	ending    map[imprint.ClientID][]*session
	endings   int // the number of those
	byCert    map[imprint.CertificateID][]*connection
	crowded   map[imprint.CertificateID]struct{} // certificates of byCert with several connections
	presence  map[imprint.ClientID]*presence
	stored    int                  // sessions that outlive their connections
	reviewing map[string]struct{}  // topics whose retained message is looked up after a failure
	retained  map[string]time.Time // topics with a retained message, and when it expires; zero: never
	// retainedUntil is not after the first of these expiries; zero: none expires.
	retainedUntil time.Time
	retaining     int                // more that are on their way to the store
	lines         map[string]*line   // who waits to route what was retained, by topic
	glances       map[string]*glance // topics whose retained message is being read
	connects      map[imprint.ClientID]bucket
	// restored are the queues of stored groups whose first member is still to
	// come, by filter.
	restored map[string]queue
	groups   map[int64]*shareGroup // shared subscriptions that have members, by their number
}

// presence is what the lifecycle events of one client id remember.
type presence struct {
	version int64
	// idleSince is when the last connection ended; zero while one lives.
	idleSince time.Time
}

// presenceMemory is how long a client id's version number survives without a
// connection (AWS IoT Core developer guide, "Lifecycle events": about an hour).
const presenceMemory = time.Hour

// presenceSweep bounds how many remembered client ids are looked at for each
// new one, so that memory of clients long gone is given back.
const presenceSweep = 4

// maxPresence is from how many client ids on those without a connection are
// forgotten before their time.
const maxPresence = 500_000

func (p *presence) forgotten(now time.Time) bool {
	return !p.idleSince.IsZero() && now.Sub(p.idleSince) > presenceMemory
}

func (b *Broker) realm(t imprint.Tenant) *realm {
	b.mu.RLock()
	r := b.realms[t]
	b.mu.RUnlock()
	if r != nil {
		return r
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if r = b.realms[t]; r != nil {
		return r
	}
	r = &realm{
		tenant: t, clientARN: t.ARN("client/"), topicARN: t.ARN("topic/"), filterARN: t.ARN("topicfilter/"),
		sessions: map[imprint.ClientID]*session{}, ending: map[imprint.ClientID][]*session{},
		byCert: map[imprint.CertificateID][]*connection{}, crowded: map[imprint.CertificateID]struct{}{},
		presence: map[imprint.ClientID]*presence{}, retained: map[string]time.Time{}, reviewing: map[string]struct{}{}, restored: map[string]queue{}, groups: map[int64]*shareGroup{},
	}
	r.topics.parents = b.opts.StandardParentMatch
	r.rules = b.rulesOf(t)
	b.realms[t] = r
	return r
}

// nextVersion gives the version number of a new connection's lifecycle events.
// The caller holds mu.
func (r *realm) nextVersion(id imprint.ClientID, now time.Time) int64 {
	swept := 0
	for other, p := range r.presence {
		if swept++; swept > presenceSweep {
			break
		}
		if p.forgotten(now) || len(r.presence) > maxPresence && !p.idleSince.IsZero() {
			delete(r.presence, other)
		}
	}
	p := r.presence[id]
	if p == nil || p.forgotten(now) {
		r.presence[id] = &presence{}
		return 0
	}
	p.version++
	p.idleSince = time.Time{}
	return p.version
}

// leave takes a connection out of its realm; a stored session stays.
func (b *Broker) leave(c *connection) {
	r := c.realm
	now := b.clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if found := r.sessions[c.clientID]; found == c.session {
		if found == &c.own {
			delete(r.sessions, c.clientID)
		}
		if p := r.presence[c.clientID]; p != nil && (found == &c.own || found.conn.Load() == nil) {
			p.idleSince = now
		}
	} else if p := r.presence[c.clientID]; found == nil && p != nil {
		p.idleSince = now // the session ended with the connection
	}
	// The last one takes its place.
	others := r.byCert[c.certificate]
	last := len(others) - 1
	others[c.place], others[last].place = others[last], c.place
	others[last] = nil
	switch last {
	case 0:
		delete(r.byCert, c.certificate)
	case 1:
		delete(r.crowded, c.certificate)
		fallthrough
	default:
		r.byCert[c.certificate] = others[:last]
	}
	b.count.connected.Add(-1)
}

// end takes a stored session out of the realm for good, and remembers it until the
// store has forgotten it: no client is told of its end before that. The caller
// holds mu.
func (r *realm) end(s *session) {
	if r.sessions[s.clientID] == s {
		delete(r.sessions, s.clientID)
	}
	if !slices.Contains(r.ending[s.clientID], s) {
		r.ending[s.clientID] = append(r.ending[s.clientID], s)
		r.endings++
	}
}

// deleted hears that the deletion of a session is durable.
func (r *realm) deleted(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.ending[s.clientID])
	others := slices.DeleteFunc(r.ending[s.clientID], func(other *session) bool { return other == s })
	r.endings -= before - len(others)
	if len(others) == 0 {
		delete(r.ending, s.clientID)
		return
	}
	r.ending[s.clientID] = others
}

// subscribe puts a subscription into force, in the place of an earlier one of
// the session for the same filter.
func (r *realm) subscribe(b *Broker, sub, replaced *subscription) {
	r.topics.add(sub, replaced, func() *shareGroup {
		g := &shareGroup{broker: b, realm: r, filter: sub.filter, number: groupNumber(sub.filter)}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.groups[g.number] = g
		return g
	})
}

func (r *realm) unsubscribe(sub *subscription) { r.topics.remove(sub) }

// groupQueue gives a group the queue that the store has for it, or a new one.
func (r *realm) groupQueue(g *shareGroup) *groupQueue {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := &groupQueue{group: g, queue: r.restored[g.filter]}
	delete(r.restored, g.filter)
	if q.key == 0 {
		q.key = newKey()
	}
	return q
}

// group gives a shared subscription; nil when it has no members.
func (r *realm) group(number int64) *shareGroup {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.groups[number]
}

// forgetGroup lets go of a shared subscription that has no members any more: the
// next one to subscribe makes another.
func (r *realm) forgetGroup(g *shareGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.groups[g.number] == g {
		delete(r.groups, g.number)
	}
}

// with gives the connections of a certificate, also those about to end.
func (r *realm) with(id imprint.CertificateID) []*connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.byCert[id])
}

// all gives every connection, also those about to end.
func (r *realm) all() []*connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	connections := make([]*connection, 0, len(r.sessions))
	for _, some := range r.byCert {
		connections = append(connections, some...)
	}
	return connections
}

// mayConnect counts a CONNECT of a client id against the rate of one client id.
func (r *realm) mayConnect(id imprint.ClientID, now time.Time, rate int) bool {
	if rate <= 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.connects == nil {
		r.connects = map[imprint.ClientID]bucket{}
	}
	b, known := r.connects[id]
	if !known && len(r.connects) >= maxConnectBuckets {
		for old := range r.connects { // which lets any one in too soon
			delete(r.connects, old)
			break
		}
	}
	ok := b.take(now, rate)
	r.connects[id] = b
	return ok
}

// maxConnectBuckets bounds the memory of the rate of each client id.
const maxConnectBuckets = 100_000
