package broker

import (
	"context"
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
	// Admitted is called when the connection needs no admission slot any more: its
	// CONNECT was accepted, or refused and answered. It may be nil.
	Admitted func()
	// Until is when the connection ends at the latest, because its credentials
	// do; zero: never.
	Until time.Time
}

// binding is an identity with what decides for one connection: its policies and
// the values of their variables.
type binding struct {
	who      *identity.Identity
	policies *policy.Set
	vars     *policy.Variables
}

// bind makes what decides for this connection out of an identity.
func (c *connection) bind(who *identity.Identity) *binding {
	return &binding{who: who, policies: who.PoliciesFor(c.clientID), vars: c.peer.Variables(who, c.clientID)}
}

// connection is one client's network connection, from its first packet on.
type connection struct {
	broker *Broker
	conn   net.Conn
	peer   Peer
	gone   chan struct{} // closed at the very end

	// Set at CONNECT, constant after. Before it enters the realm, a connection has
	// its own session, which knows nobody.
	session         *session
	realm           *realm
	version         mqtt.Version
	reasons         bool // the client wants reason strings
	clientID        imprint.ClientID
	certificate     imprint.CertificateID
	principal       string        // what lifecycle events call who it is
	keepAlive       time.Duration // 0 before CONNECT
	window          int           // QoS 1 messages that the client takes at once
	maxPacket       int           // largest packet that the client takes; 0: any
	aliasMaximum    int32         // topic aliases that the client takes
	place           int32         // in the realm's byCert, guarded by the realm's lock
	id              string        // session identifier of the lifecycle events
	presenceVersion int64
	since           int64 // when it entered the realm, in nanoseconds of Unix time; later in a session is more

	// own is the session that ends with this connection, unless session is a
	// stored one.
	own session

	// bound is replaced when the identity changed; rebinding guards that. It is
	// nil before CONNECT and after the end.
	bound     atomic.Pointer[binding]
	rebinding sync.Mutex

	// ended is why the connection ends, once that is known. The first reason
	// stays.
	ended atomic.Pointer[endError]

	// armed is when the deadline of writes was set last, since the broker began; 0:
	// never. It is the writer's.
	armed time.Duration
	// keepWill is set by who ends the connection without its will.
	keepWill atomic.Bool

	// publishing is set by the reader, under the session's lock; nil: it never
	// published.
	publishing *publishing

	// Owned by the reader.
	will       *will
	now        time.Time     // when the bytes came that are handled now
	owed       []*connection // whose writers it will start
	arrived    uint64        // messages that aren't in the broker's count
	wakeAt     time.Duration // the socket's read deadline, since the broker began; 0: none
	throughput bucket
	uses       uses            // what the trace is told at the end that it was allowed
	explained  *explained      // nil: nothing was denied
	entered    bool            // known to the realm
	withdrawn  bool            // out of the topics and the realm
	unanswered mqtt.PacketType // the packet that a refused one of MQTT 3.1.1 isn't answered by; 0: none
	small      [256]byte
	requests   *requests // under way; nil: it never made one

	// kept are topics of messages that its policy keeps from it; nil: none.
	kept atomic.Pointer[kept]

	// Guarded by the session's lock.
	out             outbound
	loading         bool            // the session's queue is read for it
	renewing        bool            // the identity is looked up for what waits
	sendingRetained bool            // retainedFor is worked on
	retainedFor     []*subscription // are to have retained messages
}

// publishing is what a connection needs from its first PUBLISH on. Most idle
// connections only listen, and a fleet holds very many of those.
type publishing struct {
	packet    mqtt.Publish // the one that is handled now
	route     route
	aliases   []string
	scratch   []byte // for the forms of its messages
	rate      bucket
	throttled bool // the trace knows that it publishes too often

	// Guarded by the session's lock.
	answers  []answer      // PUBACKs that aren't sent
	answered chan struct{} // closed when one is sent; nil when nobody waits
}

// beginPublishing gives what a PUBLISH needs.
func (c *connection) beginPublishing() *publishing {
	if c.publishing == nil {
		c.session.mu.Lock()
		c.publishing = &publishing{}
		c.session.mu.Unlock()
	}
	return c.publishing
}

// Serve runs one connection until it has ended. The door closes the socket
// after. The context serves look-ups in the registry; Shutdown is what ends
// connections.
func (b *Broker) Serve(ctx context.Context, conn net.Conn, peer Peer) {
	c := &connection{broker: b, conn: conn, peer: peer, gone: make(chan struct{})}
	c.session = &c.own
	c.own.broker = b
	defer close(c.gone)
	in := &reader{connection: c}
	defer in.release()
	// Whoever recovers from a panic of this goroutine keeps the server; nothing
	// of the connection may stay behind then.
	defer c.forget()
	defer c.payOwed()
	if !c.begin(ctx, in) {
		return
	}
	c.conclude(in.run(ctx))
}

// begin takes a connection through its CONNECT, and reports whether it is accepted.
// It is apart from Serve, as conclude is, so that what they need is off the stack while
// the connection waits for packets: the collector halves a stack of 16 KiB only as long
// as less than 3.2 KiB of it are in use, and a fleet has a stack a device.
func (c *connection) begin(ctx context.Context, in *reader) bool {
	if in.goodbyeFirst(ctx) {
		c.broker.count.visits.Add(1)
		c.peer.Rec.Info("mqtt.connect", "the client said DISCONNECT instead of CONNECT: it came to look at the handshake alone, as imprint doctor does")
		c.peer.Rec.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
		return false
	}
	err := c.connect(ctx, in)
	if err != nil {
		c.broker.count.refused.Add(1)
		c.refuse(c.ending(err))
		return false
	}
	if c.peer.Admitted != nil {
		c.peer.Admitted()
	}
	return true
}

// conclude ends a connection that was accepted; err says why.
func (c *connection) conclude(err error) {
	// Before anything that takes time: others wait for what came last.
	c.payOwed()
	c.countArrived()
	if saidGoodbye(err) {
		c.will = nil
	}
	c.finish(c.ending(err))
}

// current gives the binding to decide with, renewed when something behind it
// changed. It returns nil when the certificate may not be connected any more;
// the session has been told to end then.
func (c *connection) current(ctx context.Context) *binding {
	b := c.bound.Load()
	if b != nil && !b.who.Stale() {
		return b
	}
	b, why := c.rebind(ctx)
	if why != nil {
		c.stop(why)
	}
	return b
}

// rebindTimeout bounds the look-up of an identity that changed.
const rebindTimeout = 5 * time.Second

// rebind is current that ends nothing: it says why the connection is to end, or that the
// look-up failed.
func (c *connection) rebind(ctx context.Context) (*binding, *endError) {
	c.rebinding.Lock()
	defer c.rebinding.Unlock()
	old := c.bound.Load()
	if old == nil {
		return nil, nil // the session is over
	}
	if !old.who.Stale() {
		return old, nil
	}
	// The look-up is this session's, but may run for another one's message,
	// whose end is no reason to end this one.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rebindTimeout)
	defer cancel()
	identities := c.broker.identities
	who, operator, err := old.who.Renewed(ctx)
	if !operator {
		who, err = identities.Acquire(ctx, c.realm.tenant, c.certificate)
	}
	if err != nil {
		code := imprint.CodeOf(err)
		if code == imprint.CodeNotFound {
			code = imprint.CodeCertificateDeleted
		}
		return nil, end(code, "couldn't decide for %s: %w", old.who.Principal(), err)
	}
	refusal := who.Refusal(c.broker.clock())
	if refusal != nil {
		identities.Release(who)
		return nil, &endError{code: refusal.Code, err: refusal}
	}
	fresh := c.bind(who)
	c.bound.Store(fresh)
	identities.Release(old.who)
	return fresh, nil
}

// unbind gives the identity back.
func (c *connection) unbind() {
	c.rebinding.Lock()
	defer c.rebinding.Unlock()
	old := c.bound.Swap(nil)
	if old != nil {
		c.broker.identities.Release(old.who)
	}
}

// over is the error of a session that was ended by another goroutine.
func (c *connection) over() *endError {
	why := c.ended.Load()
	if why == nil {
		return end(imprint.CodeConnectionLost, "the connection is over")
	}
	return why
}

// finish takes an accepted connection out of the world and tells of it.
func (c *connection) finish(why *endError) {
	c.stop(why)
	why = c.over()
	c.endRequests()
	c.recordUses()
	c.recordEnd(why)
	c.withdraw()
	c.announceDisconnected(why.code)
	c.unbind()
	c.peer.Rec.End(imprint.OutcomeClosed, why.code)
	c.awaitGoodbye()
}

// withdraw takes the connection from its session and out of the realm, once. Its
// will is published, unless it waits for the session.
func (c *connection) withdraw() {
	if c.withdrawn || !c.entered {
		return
	}
	c.withdrawn = true
	w := c.will
	if c.keepWill.Load() {
		w = nil
	}
	// A publisher that found this connection may keep it a while: what it holds
	// must not keep others.
	c.will, c.owed = nil, nil
	if c.publishing != nil {
		c.publishing.route, c.publishing.aliases, c.publishing.scratch = route{}, nil, nil
	}
	c.session.detach(c, w)
	c.broker.leave(c)
}

// forget leaves nothing of a connection behind; after finish there is nothing.
func (c *connection) forget() {
	c.endRequests()
	c.withdraw()
	c.unbind()
}

func (c *connection) recordEnd(why *endError) {
	if misuse(why.code) {
		c.broker.count.protocolErrors.Add(1)
	}
	if why.code == imprint.CodeClientDisconnect || why.code == imprint.CodeServerShutdown {
		c.peer.Rec.InfoWith("session", c.goodbye(why), "%s", why.Error())
		return
	}
	c.refusedWith("session", why.err, c.farewell(why))
}

// awaitGoodbye lets a writer that is sending the last packets finish, and the client
// read the reason, for a second.
func (c *connection) awaitGoodbye() {
	c.session.mu.Lock()
	wait := c.out.writing || c.out.told
	c.session.mu.Unlock()
	if wait {
		// Where the writer closes the socket when it is done, reading notices that.
		farewell(c.conn)
	}
}
