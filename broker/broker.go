// Package broker keeps the devices' MQTT sessions: subscriptions, routing, flow
// control, wills, takeover, presence and subscription events, with the policies
// of the certificate enforced at each step.
//
// A door calls Serve with a connection whose TLS handshake is complete; Serve
// reads the CONNECT packet, asks the peer's Admit for the identity, and returns
// when the connection has ended:
//
//	b.Serve(ctx, conn, broker.Peer{Address: addr, Rec: rec, Admit: admit})
//
// Shape: an idle connection is one goroutine with a small read buffer. A writer
// runs only while there is something to send; replies and deliveries are
// gathered into one write. No socket is written under a lock that routing
// takes, so a stuck subscriber slows nobody else, but for one short wait
// (pace.go): its own bounded buffer fills, QoS 0 messages to it are dropped and
// counted, and at a QoS 1 message that can't be kept its connection ends with
// SlowConsumer, traced and counted. Those of a stored session wait in the store.
//
// Behaviour is AWS IoT Core's where that differs from the standard (developer
// guide, "MQTT"): QoS 0 and 1 only, refused MQTT 3.1.1 CONNECTs are closed
// without CONNACK, denied publishes and subscriptions close an MQTT 3.1.1
// connection, `a/#` doesn't match `a`.
//
// Sessions that outlive their connections, retained messages and the queues of
// shared subscriptions are in the store; Restore takes them up at a start. What a
// client or a publisher is told of them is durable first: subscriptions before
// SUBACK, QoS 1 messages for a stored session before the publisher's PUBACK.
// Messages leave a queue when they are acknowledged, in the order in which they
// came, and come again with DUP when they may have been sent before. docs/mqtt.md
// has all of it, with the tests.
//
// Locks are taken in this order, and none is held while a socket is written or a
// client is waited for; only connection.rebinding is held while the store is
// read: connection.rebinding, session.changing, tree.mu, shareGroup.mu, Broker.mu,
// realm.mu, glance.mu, session.mu (one session's at a time), ledger.mu. Nothing else is taken
// under timers.mu, background.mu and recheckQueue.mu. The functions of a change run on the
// ledger's goroutine with none of them held.
//
// What it doesn't do: QoS 2, subscription identifiers, enhanced authentication
// and server redirection, which AWS IoT Core hasn't either.
package broker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/trace"
)

// Options tune a Broker. Zero values give the defaults in brackets; defaults of
// limits are those that AWS IoT Core documents.
type Options struct {
	ConnectTimeout time.Duration // from the end of the handshake to CONNECT [10 s]
	WriteTimeout   time.Duration // for one write to a device, of 16 KiB at most [30 s]
	MinKeepAlive   time.Duration // shorter ones are raised [30 s]
	MaxKeepAlive   time.Duration // longer ones, and 0, are lowered [1200 s]

	MaxPayload                int  // bytes of a PUBLISH's payload [128 KiB]
	MaxConnectPacket          int  // bytes of a CONNECT packet [that of a PUBLISH with MaxPayload]
	MaxTopicBytes             int  // [256]
	MaxTopicSlashes           int  // [7]
	MaxServiceTopicBytes      int  // of topics that begin with $aws/, unless MaxTopicBytes is more [512]
	MaxServiceTopicSlashes    int  // of those, unless MaxTopicSlashes is more [24]
	MaxClientIDBytes          int  // [128]
	MaxFiltersPerSubscribe    int  // [8]
	MaxSubscriptions          int  // of one connection [50]
	MaxInflight               int  // unacknowledged QoS 1 messages to a client [100]
	MaxShareNameBytes         int  // [128]
	MaxTopicAliases           int  // in each direction [8]
	MaxQueuedBytes            int  // waiting to be sent to one client [1 MiB]
	MaxQueuedMessages         int  // QoS 1 messages waiting for the client's window [10,000]
	StandardParentMatch       bool // `a/#` also matches `a`, as the standard says
	StandardRetainedMatch     bool // a filter with wildcards gets retained messages, too
	RefusedConnectGetsReason  bool // MQTT 3.1.1: CONNACK 5 instead of a plain close
	DeniedSubscribeGetsReason bool // MQTT 3.1.1: SUBACK 0x80 instead of a close

	SessionExpiry    time.Duration // of MQTT 3.1.1 sessions, after their connection [1 h]
	MaxSessionExpiry time.Duration // longer ones are lowered [7 days]
	MaxMessageExpiry time.Duration // longer ones are lowered [7 days]
	MaxSessions      int           // stored sessions of one tenant [500,000]
	// MaxSessionMessages and MaxSessionBytes bound the queue of one stored session
	// or shared subscription [10,000; 64 MiB]: what comes beyond is dropped,
	// counted, and told in the trace of the next connection.
	MaxSessionMessages, MaxSessionBytes int
	MaxRetained                         int // retained messages of one tenant [5000]
	// MaxSharedInflight bounds the messages of a shared subscription's queue that one
	// member without a stored session holds at a time: one that acknowledges none holds up
	// no more than these [100].
	MaxSharedInflight int

	// Rates; negative ones don't limit.
	PublishRate    int // messages a second from one connection; more are discarded [100]
	ThroughputRate int // bytes a second from one connection; more wait [512 KiB]
	ConnectRate    int // CONNECT packets a second of one client id [no limit]

	// Rules are the topic rules that messages are taken to; nil: there are none.
	Rules imprint.Rules
	// Seen is told of each connection that is taken in, and must not block; nil: nobody is.
	Seen func(imprint.Tenant, imprint.CertificateID)
	// Reserved answers requests on topics of the service; nil: there are none.
	Reserved Reserved
	// MaxRequests of all connections and MaxRequestsPerConnection may be under way, and
	// of one account as many as it leaves to others; more are refused [512; 4].
	MaxRequests, MaxRequestsPerConnection int
	// RequestPuback is how long the PUBACK of a request waits for its answer, to go with
	// it in one write [100 ms]. Most answers come in a few commits; a function of the
	// device maker may take seconds.
	RequestPuback time.Duration
	// RequestRate is how many requests a second one connection may make; negative:
	// no limit [20].
	RequestRate int

	Logger *slog.Logger // [slog.Default]
}

// DefaultOptions are the options of a broker that is given none.
func DefaultOptions() Options { return Options{}.withDefaults() }

func (o Options) withDefaults() Options {
	setDuration(&o.ConnectTimeout, 10*time.Second)
	setDuration(&o.WriteTimeout, 30*time.Second)
	setDuration(&o.MinKeepAlive, 30*time.Second)
	setDuration(&o.MaxKeepAlive, 1200*time.Second)
	setInt(&o.MaxPayload, 128<<10)
	setInt(&o.MaxConnectPacket, o.maxPacket())
	setInt(&o.MaxTopicBytes, 256)
	setInt(&o.MaxTopicSlashes, 7)
	setInt(&o.MaxServiceTopicBytes, 512)
	setInt(&o.MaxServiceTopicSlashes, 24)
	setInt(&o.MaxClientIDBytes, 128)
	setInt(&o.MaxFiltersPerSubscribe, 8)
	setInt(&o.MaxSubscriptions, 50)
	setInt(&o.MaxInflight, 100)
	setInt(&o.MaxTopicAliases, 8)
	setInt(&o.MaxQueuedBytes, 1<<20)
	setInt(&o.MaxQueuedMessages, 10_000)
	setInt(&o.MaxShareNameBytes, 128)
	setDuration(&o.SessionExpiry, time.Hour)
	setDuration(&o.MaxSessionExpiry, 7*24*time.Hour)
	setDuration(&o.MaxMessageExpiry, 7*24*time.Hour)
	o.SessionExpiry = min(o.SessionExpiry, o.MaxSessionExpiry)
	setInt(&o.MaxSessions, 500_000)
	setInt(&o.MaxSessionMessages, 10_000)
	setInt(&o.MaxSessionBytes, 64<<20)
	setInt(&o.MaxRetained, 5000)
	setInt(&o.MaxSharedInflight, 100)
	setInt(&o.MaxRequests, 512)
	setInt(&o.MaxRequestsPerConnection, 4)
	setDuration(&o.RequestPuback, 100*time.Millisecond)
	setRate(&o.RequestRate, 20)
	setRate(&o.PublishRate, 100)
	setRate(&o.ThroughputRate, 512<<10)
	o.MaxInflight = min(o.MaxInflight, maxUint16-1)
	o.MaxTopicAliases = min(o.MaxTopicAliases, maxUint16)
	o.MaxKeepAlive = min(o.MaxKeepAlive, maxKeepAliveOf)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// Limits that stand in 16-bit fields of MQTT 5 packets.
const (
	maxUint16      = 1<<16 - 1
	maxKeepAliveOf = maxUint16 * time.Second
)

func setDuration(d *time.Duration, fallback time.Duration) {
	if *d <= 0 {
		*d = fallback
	}
}

func setInt(n *int, fallback int) {
	if *n <= 0 {
		*n = fallback
	}
}

// setRate leaves a negative rate, which doesn't limit.
func setRate(n *int, fallback int) {
	if *n == 0 {
		*n = fallback
	}
}

// maxPacket is the largest packet that a client may send, its payload and the
// room for topic and properties.
func (o Options) maxPacket() int { return o.MaxPayload + 18432 }

// Counters are what the broker has done since it was made.
type Counters struct {
	Connected                                int64
	Connects, Refused                        uint64
	PublishIn, PublishOut, PublishDropped    uint64
	PublishDenied, SubscribeDenied           uint64
	SlowConsumers, Takeovers, ProtocolErrors uint64
	// PublishThrottled were discarded above PublishRate, ThroughputDelayed are the
	// pauses above ThroughputRate, QueueFull the messages that a full queue had no
	// room for.
	PublishThrottled, ThroughputDelayed, QueueFull uint64
	// Requests on topics of the service, and those refused because too many were
	// under way or came too quickly.
	Requests, RequestsThrottled uint64
	// Visits are the connections that said DISCONNECT in place of CONNECT.
	Visits uint64
	// Stored sessions outlive their connections; Expired ones have ended.
	Stored  int64
	Expired uint64
}

type counters struct {
	connected                                atomic.Int64
	connects, refused                        atomic.Uint64
	publishIn, publishOut, publishDropped    atomic.Uint64
	publishDenied, subscribeDenied           atomic.Uint64
	slowConsumers, takeovers, protocolErrors atomic.Uint64

	publishThrottled, throughputDelayed, queueFull, expired atomic.Uint64
	requests, requestsThrottled, visits                     atomic.Uint64
	stored                                                  atomic.Int64

	refusals sync.Map // imprint.Code to *atomic.Uint64
}

// Broker keeps the sessions of all tenants. It is safe for use by many
// goroutines.
type Broker struct {
	opts       Options
	store      imprint.Store
	identities *identity.Resolver
	clock      imprint.Clock
	count      counters
	requesting requesting

	mu      sync.RWMutex
	realms  map[imprint.Tenant]*realm
	closing bool
	began   time.Time // deadlines are kept as times since then: a third of the size

	// rechecks are certificates that changed while devices are on with them.
	rechecks *recheckQueue

	ledger     *ledger
	timers     *timers
	background background
}

// background runs what nobody waits for but who shuts down, until it is closed.
type background struct {
	running sync.WaitGroup
	mu      sync.Mutex
	closed  bool
}

// Go starts fn, unless all is over, and says whether it did.
func (g *background) Go(fn func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.running.Go(fn)
	}
	return !g.closed
}

func (g *background) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.running.Wait()
}

// New makes a broker whose sessions the store keeps. The resolver's change
// notices must reach CertificateChanged. Restore comes before the first
// connection, Shutdown ends it.
func New(opts Options, store imprint.Store, identities *identity.Resolver, clock imprint.Clock) *Broker {
	b := &Broker{
		opts: opts.withDefaults(), store: store, identities: identities, clock: clock,
		realms: map[imprint.Tenant]*realm{}, requesting: requesting{accounts: map[imprint.AccountID]int{}}, began: time.Now(),
	}
	b.rechecks = newRecheckQueue(b.recheck)
	b.ledger = newLedger(store, b.opts.Logger)
	b.timers = newTimers(clock)
	return b
}

// Counters gives the present counts.
func (b *Broker) Counters() Counters {
	c := &b.count
	return Counters{
		Connected: c.connected.Load(), Connects: c.connects.Load(), Refused: c.refused.Load(),
		PublishIn: c.publishIn.Load(), PublishOut: c.publishOut.Load(), PublishDropped: c.publishDropped.Load(),
		PublishDenied: c.publishDenied.Load(), SubscribeDenied: c.subscribeDenied.Load(),
		SlowConsumers: c.slowConsumers.Load(), Takeovers: c.takeovers.Load(), ProtocolErrors: c.protocolErrors.Load(),
		PublishThrottled: c.publishThrottled.Load(), ThroughputDelayed: c.throughputDelayed.Load(), QueueFull: c.queueFull.Load(),
		Requests: c.requests.Load(), RequestsThrottled: c.requestsThrottled.Load(), Visits: c.visits.Load(),
		Stored: c.stored.Load(), Expired: c.expired.Load(),
	}
}

// Admission decides who a peer is at its CONNECT packet. It gives an identity
// held once, or an *imprint.Error; what it found is recorded.
type Admission func(ctx context.Context, rec *trace.Recorder) (*identity.Identity, error)

// Shutdown tells every device that the server is going, ends its connection,
// and returns when all are gone and what they left is in the store, or the
// context ends. It may be called again, for example with a longer time.
func (b *Broker) Shutdown(ctx context.Context) error {
	b.mu.Lock()
	b.closing = true
	var all []*connection
	for _, r := range b.realms {
		all = append(all, r.all()...)
	}
	b.mu.Unlock()
	for _, c := range all {
		c.kick(imprint.CodeServerShutdown)
	}
	b.rechecks.close()
	for _, c := range all {
		select {
		case <-c.gone:
		case <-ctx.Done():
			return fmt.Errorf("couldn't wait for the end of all sessions: %w", ctx.Err())
		}
	}
	err := b.timers.close(ctx)
	if err != nil {
		return err
	}
	// What the ledger has may still start something in the background.
	err = b.ledger.wait(ctx, change{write: func(imprint.Tx) error { return nil }})
	if err != nil && imprint.CodeOf(err) != imprint.CodeServerShutdown {
		b.opts.Logger.Error("couldn't store what the last sessions left", "error", err)
	}
	stored := make(chan struct{})
	go func() {
		b.background.close()
		b.ledger.close()
		close(stored)
	}()
	select {
	case <-stored:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("couldn't wait for the store to have what the last sessions left: %w", ctx.Err())
	}
}

// CertificateChanged tells the broker that something about a certificate was
// committed. It doesn't block. Within a second, devices on with a certificate
// that may not connect any more are disconnected.
func (b *Broker) CertificateChanged(tenant imprint.Tenant, id imprint.CertificateID) {
	b.mu.RLock()
	r := b.realms[tenant]
	b.mu.RUnlock()
	if r == nil {
		return
	}
	r.mu.Lock()
	live := len(r.byCert[id]) > 0
	r.mu.Unlock()
	if live {
		b.rechecks.add(tenant, id)
	}
}

// OperatorsChanged tells the broker that a commit touched users or access keys. It doesn't
// block. Within a second, connections that were opened with a key that is gone are ended.
func (b *Broker) OperatorsChanged() {
	b.mu.RLock()
	tenants := slices.Collect(maps.Keys(b.realms))
	b.mu.RUnlock()
	for _, tenant := range tenants {
		b.CertificateChanged(tenant, noCertificate)
	}
}

// noCertificate is what the connections of operators have.
const noCertificate imprint.CertificateID = ""

// recheck looks at a changed certificate again and ends its sessions when it
// may not connect any more.
func (b *Broker) recheck(ctx context.Context, tenant imprint.Tenant, id imprint.CertificateID) error {
	if id == noCertificate {
		return b.recheckOperators(ctx, tenant)
	}
	var why *endError
	who, err := b.identities.Acquire(ctx, tenant, id)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		why = end(imprint.CodeCertificateDeleted, "certificate %s was deleted", id)
	case err != nil:
		return err
	default:
		refusal := who.Refusal(b.clock())
		b.identities.Release(who)
		if refusal == nil {
			return nil
		}
		why = &endError{code: refusal.Code, err: refusal}
	}
	for _, c := range b.realm(tenant).with(id) {
		c.stop(why)
	}
	return nil
}

// recheckOperators is recheck for operators, each of whom has an identity of its own.
func (b *Broker) recheckOperators(ctx context.Context, tenant imprint.Tenant) error {
	var failed error
	for _, c := range b.realm(tenant).with(noCertificate) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, why := c.rebind(ctx)
		switch {
		case why == nil:
		case why.code == imprint.CodeAccessDenied || why.code == imprint.CodeCertificateDeleted:
			c.stop(why)
		default:
			failed = why // the others are looked at nevertheless
		}
	}
	return failed
}
