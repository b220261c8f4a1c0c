// Package gateway is the devices' door: TCP and TLS listeners, the server name
// that selects the tenant, the certificate that becomes an identity, admission
// control, and the hand-over to the broker.
//
// TLS 1.2 and 1.3 are spoken, with an ECDSA and an RSA server certificate,
// chosen by what the client can verify. A client certificate is demanded, its
// key's possession is proven by the handshake, its chain is not looked at: a
// registered certificate is identified by the SHA-256 of its exact bytes, and
// an unknown one is decided on at the CONNECT packet, as AWS IoT Core decides
// (developer guide, "Transport security in AWS IoT").
//
// A second listener speaks HTTP too, chosen by the application protocols of the
// hello (see web.go): HTTPS publish with a client certificate, the data plane
// API, and MQTT over WebSocket for operators who sign with an access key.
//
// Sessions resume by ticket (TicketKeys). A ticket carries the client's
// certificate, under the server name that it was issued for, and nothing of what
// it may do: that is looked up at each CONNECT, so a resumed device is refused
// for the same reasons as any other.
//
// So many handshakes compute at once and no more; the others wait in order, so
// that a fleet that comes back doesn't starve the devices that are on.
//
// Whatever a connection dies of is a step of its trace. At a limit (handshakes
// in flight, connections from one address, their rate, connections in all) a connection is
// closed at once and counted; of those, some each second leave a trace. A panic
// in one connection ends that connection, traced, logged and counted.
package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/internal/pause"
	"github.com/imprint-iot/imprint/internal/stackroom"
	"github.com/imprint-iot/imprint/policy"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/trace"
)

// Options tune a Gateway. Zero values give the defaults in brackets.
type Options struct {
	HandshakeTimeout time.Duration // for the whole TLS handshake [10 s]
	// MaxHandshakes bounds connections that haven't sent their CONNECT yet
	// [2048]; MaxPending bounds those from one address, or one /64 network of
	// IPv6 [512].
	MaxHandshakes int
	MaxPending    int
	// MaxConnections bounds all connections of this door [1,000,000];
	// MaxPerAddress those from one address or /64 network [0: no bound].
	MaxConnections int
	MaxPerAddress  int
	// RatePerAddress bounds the connections that one address or /64 network may
	// begin in a second, twice as many at once [0: no bound].
	RatePerAddress int
	// ConcurrentHandshakes is how many handshakes compute at once; the others
	// wait in order [one less than GOMAXPROCS, at least 1: a processor stays with
	// the devices that are on, and with what follows a handshake].
	ConcurrentHandshakes int
	// SecurityPolicy says which TLS versions and cipher suites are spoken.
	SecurityPolicy SecurityPolicy
	// ExpiryWarning is how long before the end of a device's certificate the trace of its
	// connections says so [0: never].
	ExpiryWarning time.Duration
	HTTP          HTTPOptions
	Logger        *slog.Logger // [slog.Default]
}

func (o Options) withDefaults() Options {
	if o.HandshakeTimeout <= 0 {
		o.HandshakeTimeout = 10 * time.Second
	}
	if o.MaxHandshakes <= 0 {
		o.MaxHandshakes = 2048
	}
	if o.MaxPending <= 0 {
		o.MaxPending = 512
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = 1_000_000
	}
	if o.ConcurrentHandshakes <= 0 {
		o.ConcurrentHandshakes = max(1, runtime.GOMAXPROCS(0)-1)
	}
	o.HTTP = o.HTTP.withDefaults()
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// Rooms are what the gateway works with.
type Rooms struct {
	Store        imprint.Store
	Clock        imprint.Clock
	Endpoints    *Endpoints
	Identities   *identity.Resolver
	Provisioning *provisioning.Engine
	Broker       *broker.Broker
	Trace        *trace.Log
	Certificates *Certificates
	// Tickets seal session tickets; nil: none are issued.
	Tickets *TicketKeys
	// DataAPI answers signed requests of the HTTPS listener. Nil: they are
	// refused.
	DataAPI http.Handler
	// Operators tells who signed the request for a WebSocket. Nil: nobody may
	// open one.
	Operators func(*http.Request) (Operator, error)
}

// Counters are what the door has done since it was made.
type Counters struct {
	Accepted, HandshakesOK, HandshakesFailed, Overloaded, Panics uint64
	// Resumed is how many of HandshakesOK resumed a session.
	Resumed uint64
	// HandshakesWaiting wait for their turn; HandshakesWaited had to, HandshakeWait
	// in all.
	HandshakesWaiting int64
	HandshakesWaited  uint64
	HandshakeWait     time.Duration
	// Pending connections haven't had their CONNECT accepted; Open counts all.
	Pending, Open int64
	// Requests are the HTTP requests by outcome, and WebSockets those that were
	// opened.
	Requests   [httpOutcomes]uint64
	WebSockets uint64
}

// Gateway accepts devices.
type Gateway struct {
	opts  Options
	rooms Rooms

	// mqtt is the TLS of MQTT, https that of HTTP on the listener that speaks
	// both.
	mqtt, https *tlsProfile
	turnstile   *turnstile
	web         *web

	accepted, handshakesOK, handshakesFailed, resumed, overloaded, panics atomic.Uint64

	// overloadTrace bounds how many refusals for overload leave a trace of
	// their own; all are counted.
	overloadTrace *rate.Limiter

	mu       sync.Mutex
	pending  int
	peers    map[netip.Addr]*peer
	rates    rates
	conns    map[net.Conn]struct{}
	closing  bool
	finished sync.WaitGroup
}

// New makes a gateway. Serve runs it.
func New(opts Options, rooms Rooms) *Gateway {
	g := &Gateway{
		opts: opts.withDefaults(), rooms: rooms,
		overloadTrace: rate.NewLimiter(10, 10),
		peers:         map[netip.Addr]*peer{},
		conns:         map[net.Conn]struct{}{},
	}
	g.turnstile = newTurnstile(g.opts.ConcurrentHandshakes)
	g.mqtt = g.tlsProfile(tlsOptions{protocols: mqttProtocols, clientAuth: tls.RequireAnyClientCert})
	g.https = g.tlsProfile(tlsOptions{protocols: httpProtocols, clientAuth: tls.RequestClientCert, port443: true})
	g.web = newWeb(g)
	return g
}

// Counters gives the present counts.
func (g *Gateway) Counters() Counters {
	g.mu.Lock()
	pending, open := g.pending, len(g.conns)
	g.mu.Unlock()
	waiting, waited, wait := g.turnstile.counts()
	c := Counters{
		Resumed: g.resumed.Load(), HandshakesWaiting: int64(waiting), HandshakesWaited: waited, HandshakeWait: wait,
		Accepted: g.accepted.Load(), HandshakesOK: g.handshakesOK.Load(), HandshakesFailed: g.handshakesFailed.Load(),
		Overloaded: g.overloaded.Load(), Panics: g.panics.Load(), Pending: int64(pending), Open: int64(open),
		WebSockets: g.web.sockets.Load(),
	}
	for n := range c.Requests {
		c.Requests[n] = g.web.requests[n].Load()
	}
	return c
}

// Serve accepts MQTT connections until the listener is closed.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener) error {
	return g.accept(ctx, ln, false)
}

// ServeHTTPS accepts connections that speak HTTP or MQTT, as the application
// protocols of their hello say, until the listener is closed.
func (g *Gateway) ServeHTTPS(ctx context.Context, ln net.Listener) error {
	g.web.start(ctx)
	return g.accept(ctx, ln, true)
}

// accept runs an accept loop; both says that HTTP is spoken beside MQTT.
func (g *Gateway) accept(ctx context.Context, ln net.Listener, both bool) error {
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Out of descriptors, most likely: the backlog holds the others.
			g.opts.Logger.Error("couldn't accept a device's connection", "error", err)
			if !pause.For(ctx, 50*time.Millisecond) {
				return nil
			}
			continue
		}
		g.accepted.Add(1)
		g.start(ctx, conn, both)
	}
}

// start admits a socket and runs it on a goroutine of its own. It never waits.
func (g *Gateway) start(ctx context.Context, conn net.Conn, both bool) {
	a, err := g.admit(conn)
	if err == nil {
		go g.serve(ctx, a, both)
		return
	}
	_ = conn.Close()
}

// Shutdown refuses new connections, closes those that the broker doesn't know
// yet, and returns when all are gone or the context ends. The broker is shut
// down first, so that connected devices hear a reason.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.mu.Lock()
	g.closing = true
	g.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		g.web.stop(ctx)
		g.finished.Wait()
		close(gone)
	}()
	// Give devices that were told goodbye a moment to hang up by themselves.
	grace := time.NewTimer(time.Second)
	defer grace.Stop()
	select {
	case <-gone:
		return nil
	case <-grace.C:
	case <-ctx.Done():
	}
	g.mu.Lock()
	for conn := range g.conns {
		_ = conn.Close()
	}
	g.mu.Unlock()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("couldn't close all connections: %w", ctx.Err())
	}
}

// serve takes one socket through its life; one that speaks HTTP goes on to live
// with the HTTP server.
func (g *Gateway) serve(ctx context.Context, a *arrival, both bool) {
	stackroom.Reserve()
	kept := false
	defer func() {
		if !kept {
			a.leave()
		}
	}()
	rec := g.rooms.Trace.Begin(a.conn.RemoteAddr().String())
	defer g.survive(rec)
	conn, v, web := g.open(a, rec, both)
	if conn == nil {
		return
	}
	if web {
		kept = true
		g.web.take(&webConn{Conn: conn, arrival: a, visitor: v, rec: rec})
		return
	}
	g.rooms.Broker.Serve(ctx, conn, broker.Peer{
		Address: a.address, Rec: rec, Admit: v.admit, Admitted: a.admitted, Variables: variables(a.address, v.serverName, v.leaf),
	})
}

// open makes the TLS handshake; it returns no connection when that failed, and web for
// one that goes on with HTTP. It is apart from serve for the same
// reason as the broker's begin: the room that it needs on the stack is free while the
// connection waits.
func (g *Gateway) open(a *arrival, rec *trace.Recorder, both bool) (conn *tls.Conn, v *visitor, web bool) {
	h := &handshake{gateway: g, rec: rec, profile: g.mqtt}
	if both {
		h.https = g.https
	}
	conn, err := h.run(a.conn)
	if err != nil {
		g.handshakesFailed.Add(1)
		rec.End(imprint.OutcomeRefused, imprint.CodeOf(err))
		return nil, nil, false
	}
	g.handshakesOK.Add(1)
	acknowledgeNow(a.conn)
	v = newVisitor(g, h, conn.ConnectionState().PeerCertificates)
	// Now, and not at CONNECT, so that a device that never gets that far is
	// found by its certificate, too.
	rec.Describe(v.describe)
	return conn, v, h.profile == g.https
}

// variables binds the policy variables of one connection. The certificate's are
// read once, when the first identity is bound.
func variables(address netip.Addr, serverName string, leaf *x509.Certificate) func(*identity.Identity, imprint.ClientID) *policy.Variables {
	read := sync.OnceValue(func() *policy.CertificateVariables { return policy.NewCertificateVariables(leaf) })
	return func(who *identity.Identity, client imprint.ClientID) *policy.Variables {
		return who.Variables(identity.Connection{ClientID: client, Address: address, ServerName: serverName, Certificate: read()})
	}
}

// survive ends a connection that panicked, and it alone.
func (g *Gateway) survive(rec *trace.Recorder) {
	p := recover()
	if p == nil {
		return
	}
	g.panics.Add(1)
	g.opts.Logger.Error("a connection panicked", "attempt", rec.ID(), "panic", p, "stack", string(debug.Stack()))
	err := imprint.Errorf(imprint.CodeInternal, "the server failed while it handled this connection").
		WithHint("Look for attempt %s in the server's log, and report it.", rec.ID())
	rec.Fail("internal", err)
	rec.End(imprint.OutcomeRefused, imprint.CodeInternal)
}
