package broker

import (
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

	// mu guards what follows. It is held for map operations only.
	mu sync.Mutex
	// sessions has the one live session of each client id; byCert has those
	// too that were taken over and haven't ended yet.
	sessions map[imprint.ClientID]*session
	byCert   map[imprint.CertificateID]map[*session]struct{}
	presence map[imprint.ClientID]*presence
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
		sessions: map[imprint.ClientID]*session{},
		byCert:   map[imprint.CertificateID]map[*session]struct{}{},
		presence: map[imprint.ClientID]*presence{},
	}
	r.topics.parents = b.opts.StandardParentMatch
	b.realms[t] = r
	return r
}

// enter makes a session the one of its client id, counts the connection for
// its lifecycle events, and gives the session before it, which the caller
// ends. It fails while the broker shuts down.
//
// One lock covers all of it, so that of several connections with one client id
// the last to enter lives, is the one that the realm knows, and has the highest
// version number.
func (b *Broker) enter(s *session) (old *session, ok bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closing {
		return nil, false
	}
	r := s.realm
	now := b.clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	old = r.sessions[s.clientID]
	r.sessions[s.clientID] = s
	id := s.certificate
	if r.byCert[id] == nil {
		r.byCert[id] = make(map[*session]struct{}, 1)
	}
	r.byCert[id][s] = struct{}{}
	s.presenceVersion = r.nextVersion(s.clientID, now)
	b.count.connected.Add(1)
	return old, true
}

// nextVersion gives the version number of a new connection's lifecycle events.
// The caller holds mu.
func (r *realm) nextVersion(id imprint.ClientID, now time.Time) int64 {
	swept := 0
	for other, p := range r.presence {
		if swept++; swept > presenceSweep {
			break
		}
		if p.forgotten(now) {
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

func (b *Broker) leave(s *session) {
	r := s.realm
	now := b.clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions[s.clientID] == s {
		delete(r.sessions, s.clientID)
		if p := r.presence[s.clientID]; p != nil {
			p.idleSince = now
		}
	}
	delete(r.byCert[s.certificate], s)
	if len(r.byCert[s.certificate]) == 0 {
		delete(r.byCert, s.certificate)
	}
	b.count.connected.Add(-1)
}

// with gives the sessions of a certificate, also those about to end.
func (r *realm) with(id imprint.CertificateID) []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	sessions := make([]*session, 0, len(r.byCert[id]))
	for s := range r.byCert[id] {
		sessions = append(sessions, s)
	}
	return sessions
}

// all gives every session, also those about to end.
func (r *realm) all() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	sessions := make([]*session, 0, len(r.sessions))
	for _, some := range r.byCert {
		for s := range some {
			sessions = append(sessions, s)
		}
	}
	return sessions
}
