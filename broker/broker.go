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
// takes, so a stuck subscriber slows nobody else: its own bounded buffer fills,
// QoS 0 messages to it are dropped and counted, and at a QoS 1 message that
// can't be kept its connection ends with SlowConsumer, traced and counted.
//
// Behaviour is AWS IoT Core's where that differs from the standard (developer
// guide, "MQTT"): QoS 0 and 1 only, refused MQTT 3.1.1 CONNECTs are closed
// without CONNACK, denied publishes and subscriptions close an MQTT 3.1.1
// connection, `a/#` doesn't match `a`.
//
// What it doesn't do yet, and says so to the device: sessions end with their
// connection (session present is 0, the session expiry interval in CONNACK is
// 0), retained messages and shared subscriptions are refused.
package broker

import (
	"context"
	"fmt"
	"log/slog"
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
	WriteTimeout   time.Duration // for one write to a device [30 s]
	MinKeepAlive   time.Duration // shorter ones are raised [30 s]
	MaxKeepAlive   time.Duration // longer ones, and 0, are lowered [1200 s]

	MaxPayload                int  // bytes of a PUBLISH's payload [128 KiB]
	MaxConnectPacket          int  // bytes of a CONNECT packet [64 KiB]
	MaxTopicBytes             int  // [256]
	MaxTopicSlashes           int  // [7]
	MaxClientIDBytes          int  // [128]
	MaxFiltersPerSubscribe    int  // [8]
	MaxSubscriptions          int  // of one connection [50]
	MaxInflight               int  // unacknowledged QoS 1 messages to a client [100]
	MaxTopicAliases           int  // [8]
	MaxQueuedBytes            int  // waiting to be sent to one client [1 MiB]
	MaxQueuedMessages         int  // QoS 1 messages waiting for the client's window [1000]
	StandardParentMatch       bool // `a/#` also matches `a`, as the standard says
	RefusedConnectGetsReason  bool // MQTT 3.1.1: CONNACK 5 instead of a plain close
	DeniedSubscribeGetsReason bool // MQTT 3.1.1: SUBACK 0x80 instead of a close

	Logger *slog.Logger // [slog.Default]
}

func (o Options) withDefaults() Options {
	setDuration(&o.ConnectTimeout, 10*time.Second)
	setDuration(&o.WriteTimeout, 30*time.Second)
	setDuration(&o.MinKeepAlive, 30*time.Second)
	setDuration(&o.MaxKeepAlive, 1200*time.Second)
	setInt(&o.MaxPayload, 128<<10)
	setInt(&o.MaxConnectPacket, 64<<10)
	setInt(&o.MaxTopicBytes, 256)
	setInt(&o.MaxTopicSlashes, 7)
	setInt(&o.MaxClientIDBytes, 128)
	setInt(&o.MaxFiltersPerSubscribe, 8)
	setInt(&o.MaxSubscriptions, 50)
	setInt(&o.MaxInflight, 100)
	setInt(&o.MaxTopicAliases, 8)
	setInt(&o.MaxQueuedBytes, 1<<20)
	setInt(&o.MaxQueuedMessages, 1000)
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
}

type counters struct {
	connected                                atomic.Int64
	connects, refused                        atomic.Uint64
	publishIn, publishOut, publishDropped    atomic.Uint64
	publishDenied, subscribeDenied           atomic.Uint64
	slowConsumers, takeovers, protocolErrors atomic.Uint64
}

// Broker keeps the sessions of all tenants. It is safe for use by many
// goroutines.
type Broker struct {
	opts       Options
	identities *identity.Resolver
	clock      imprint.Clock
	count      counters

	mu      sync.RWMutex
	realms  map[imprint.Tenant]*realm
	closing bool

	// rechecks are certificates that changed while devices are on with them.
	rechecks *recheckQueue
}

// New makes a broker. The resolver's change notices must reach
// CertificateChanged. Shutdown ends it.
func New(opts Options, identities *identity.Resolver, clock imprint.Clock) *Broker {
	b := &Broker{
		opts: opts.withDefaults(), identities: identities, clock: clock,
		realms: map[imprint.Tenant]*realm{},
	}
	b.rechecks = newRecheckQueue(b.recheck)
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
	}
}

// Admission decides who a peer is at its CONNECT packet. It gives an identity
// held once, or an *imprint.Error; what it found is recorded.
type Admission func(ctx context.Context, rec *trace.Recorder) (*identity.Identity, error)

// Shutdown tells every device that the server is going, ends its connection,
// and returns when all sessions are gone or the context ends. It may be called
// again, for example with a longer time.
func (b *Broker) Shutdown(ctx context.Context) error {
	b.mu.Lock()
	b.closing = true
	var all []*session
	for _, r := range b.realms {
		all = append(all, r.all()...)
	}
	b.mu.Unlock()
	for _, s := range all {
		s.kick(imprint.CodeServerShutdown)
	}
	b.rechecks.close()
	for _, s := range all {
		select {
		case <-s.gone:
		case <-ctx.Done():
			return fmt.Errorf("couldn't wait for the end of all sessions: %w", ctx.Err())
		}
	}
	return nil
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

// recheck looks at a changed certificate again and ends its sessions when it
// may not connect any more.
func (b *Broker) recheck(ctx context.Context, tenant imprint.Tenant, id imprint.CertificateID) error {
	var code imprint.Code
	who, err := b.identities.Acquire(ctx, tenant, id)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		code = imprint.CodeCertificateDeleted
	case err != nil:
		return err
	default:
		refusal := who.Certificate.Refusal(b.clock())
		b.identities.Release(who)
		if refusal == nil {
			return nil
		}
		code = refusal.Code
	}
	for _, s := range b.realm(tenant).with(id) {
		s.kick(code)
	}
	return nil
}
