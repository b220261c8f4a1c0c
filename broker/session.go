package broker

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/policy"
	"github.com/imprint-iot/imprint/trace"
)

// Peer is what a door knows of a connection that it hands over.
type Peer struct {
	Address netip.Addr
	Rec     *trace.Recorder
	// Admit decides who the peer is; called once, at CONNECT.
	Admit Admission
	// Variables binds the policy variables for an identity of this connection.
	// It is called at CONNECT and, from any goroutine, whenever the identity
	// changed.
	Variables func(who *identity.Identity, client imprint.ClientID) *policy.Variables
	// Admitted is called once when the connection needs no admission slot any
	// more: its CONNECT was accepted. It may be nil.
	Admitted func()
	// Until is when the connection ends at the latest, because its credentials
	// do; zero: never.
	Until time.Time
}

// binding is an identity with the policy variables of one connection.
type binding struct {
	who  *identity.Identity
	vars *policy.Variables
}

// session is one connection, from its CONNECT on.
type session struct {
	broker *Broker
	conn   net.Conn
	peer   Peer
	gone   chan struct{} // closed at the very end

	// Set at CONNECT, constant after.
	realm           *realm
	version         mqtt.Version
	clientID        imprint.ClientID
	certificate     imprint.CertificateID
	keepAlive       time.Duration // 0 before CONNECT
	window          int           // QoS 1 messages that the client takes at once
	maxPacket       int           // largest packet that the client takes; 0: any
	expiring        bool          // CONNECT asked for a session that outlives the connection
	id              string        // session identifier of the lifecycle events
	presenceVersion int64

	// bound is replaced when the identity changed; rebinding guards that. It is
	// nil before CONNECT and after the end.
	bound     atomic.Pointer[binding]
	rebinding sync.Mutex

	// ended is why the connection ends, once that is known. The first reason
	// stays.
	ended atomic.Pointer[endError]

	// Owned by the reader.
	will          *will
	subscriptions map[string]*subscription
	aliases       []string
	route         route
	incoming      mqtt.Publish
	explained     int  // denials that were put into words
	withdrawn     bool // out of the topics and the realm
	small         [256]byte

	out outbound
}

// Serve runs one connection until it has ended. The door closes the socket
// after. The context serves look-ups in the registry; Shutdown is what ends
// connections.
func (b *Broker) Serve(ctx context.Context, conn net.Conn, peer Peer) {
	s := &session{broker: b, conn: conn, peer: peer, gone: make(chan struct{})}
	defer close(s.gone)
	in := &reader{session: s}
	defer in.release()
	err := s.connect(ctx, in)
	if err != nil {
		b.count.refused.Add(1)
		s.refuse(s.ending(err))
		return
	}
	if peer.Admitted != nil {
		peer.Admitted()
	}
	// Whoever recovers from a panic of this goroutine keeps the server; nothing
	// of the session may stay behind then.
	defer s.forget()
	err = in.run(ctx)
	s.finish(s.ending(err))
}

// current gives the binding to decide with, renewed when something behind it
// changed. It returns nil when the certificate may not be connected any more;
// the session has been told to end then.
func (s *session) current(ctx context.Context) *binding {
	b := s.bound.Load()
	if b != nil && !b.who.Stale() {
		return b
	}
	return s.rebind(ctx)
}

// rebindTimeout bounds the look-up of an identity that changed.
const rebindTimeout = 5 * time.Second

func (s *session) rebind(ctx context.Context) *binding {
	s.rebinding.Lock()
	defer s.rebinding.Unlock()
	old := s.bound.Load()
	if old == nil {
		return nil // the session is over
	}
	if !old.who.Stale() {
		return old
	}
	// The look-up is this session's, but may run for another one's message,
	// whose end is no reason to end this one.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rebindTimeout)
	defer cancel()
	identities := s.broker.identities
	who, err := identities.Acquire(ctx, s.realm.tenant, s.certificate)
	if err != nil {
		code := imprint.CodeOf(err)
		if code == imprint.CodeNotFound {
			code = imprint.CodeCertificateDeleted
		}
		s.stop(end(code, "couldn't decide for certificate %s: %w", s.certificate, err))
		return nil
	}
	refusal := who.Certificate.Refusal(s.broker.clock())
	if refusal != nil {
		identities.Release(who)
		s.stop(&endError{code: refusal.Code, err: refusal})
		return nil
	}
	fresh := &binding{who: who, vars: s.peer.Variables(who, s.clientID)}
	s.bound.Store(fresh)
	identities.Release(old.who)
	return fresh
}

// unbind gives the identity back.
func (s *session) unbind() {
	s.rebinding.Lock()
	defer s.rebinding.Unlock()
	old := s.bound.Swap(nil)
	if old != nil {
		s.broker.identities.Release(old.who)
	}
}

// over is the error of a session that was ended by another goroutine.
func (s *session) over() *endError {
	why := s.ended.Load()
	if why == nil {
		return end(imprint.CodeConnectionLost, "the connection is over")
	}
	return why
}

// finish takes an accepted session out of the world and tells of it.
func (s *session) finish(why *endError) {
	s.stop(why)
	why = s.over()
	s.withdraw()
	s.recordEnd(why)
	if s.will != nil {
		s.publishWill()
	}
	s.announceDisconnected(why.code)
	s.awaitGoodbye()
	s.unbind()
	s.peer.Rec.End(imprint.OutcomeClosed, why.code)
}

// withdraw takes the session out of the topics and the realm, once.
func (s *session) withdraw() {
	if s.withdrawn {
		return
	}
	s.withdrawn = true
	for _, sub := range s.subscriptions {
		s.realm.topics.remove(sub)
	}
	// A publisher that found this session may keep it a while: what it holds
	// must not keep others.
	s.subscriptions, s.route, s.aliases = nil, route{}, nil
	s.broker.leave(s)
}

// forget leaves nothing of a session behind; after finish there is nothing.
func (s *session) forget() {
	s.withdraw()
	s.unbind()
}

func (s *session) recordEnd(why *endError) {
	if misuse(why.code) {
		s.broker.count.protocolErrors.Add(1)
	}
	if why.code == imprint.CodeClientDisconnect || why.code == imprint.CodeServerShutdown {
		s.peer.Rec.Info("session", "%s", why.Error())
		return
	}
	s.peer.Rec.Fail("session", why.err)
}

// awaitGoodbye lets a writer that is sending the reason finish, for a second.
func (s *session) awaitGoodbye() {
	s.out.mu.Lock()
	writing := s.out.writing
	s.out.mu.Unlock()
	if !writing {
		return
	}
	// The writer closes the socket when it is done; reading notices that.
	_ = s.conn.SetReadDeadline(time.Now().Add(goodbyeTimeout))
	_, _ = io.Copy(io.Discard, s.conn)
}
