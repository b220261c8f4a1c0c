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
// Whatever a connection dies of is a step of its trace. At a limit (handshakes
// in flight, connections from one address, connections in all) a connection is
// closed at once and counted.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/policy"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/trace"
)

// Options tune a Gateway. Zero values give the defaults in brackets.
type Options struct {
	HandshakeTimeout time.Duration // for the whole TLS handshake [10 s]
	// MaxHandshakes bounds connections that haven't sent their CONNECT yet
	// [2048]; MaxPending bounds those from one address [512].
	MaxHandshakes int
	MaxPending    int
	// MaxConnections bounds all connections of this door [1,000,000].
	MaxConnections int
	Logger         *slog.Logger // [slog.Default]
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
}

// Counters are what the door has done since it was made.
type Counters struct {
	Accepted, HandshakesOK, HandshakesFailed, Overloaded uint64
	Pending, Open                                        int64
}

// Gateway accepts devices.
type Gateway struct {
	opts  Options
	rooms Rooms

	accepted, handshakesOK, handshakesFailed, overloaded atomic.Uint64
	pending, open                                        atomic.Int64

	// overloadTrace bounds how many refusals for overload leave a trace of
	// their own; all are counted.
	overloadTrace *rate.Limiter

	mu       sync.Mutex
	peers    map[netip.Addr]int // pending connections by address
	conns    map[net.Conn]struct{}
	closing  bool
	finished sync.WaitGroup
}

// New makes a gateway. Serve runs it.
func New(opts Options, rooms Rooms) *Gateway {
	return &Gateway{
		opts: opts.withDefaults(), rooms: rooms,
		overloadTrace: rate.NewLimiter(10, 10),
		peers:         map[netip.Addr]int{},
		conns:         map[net.Conn]struct{}{},
	}
}

// Counters gives the present counts.
func (g *Gateway) Counters() Counters {
	return Counters{
		Accepted: g.accepted.Load(), HandshakesOK: g.handshakesOK.Load(), HandshakesFailed: g.handshakesFailed.Load(),
		Overloaded: g.overloaded.Load(), Pending: g.pending.Load(), Open: g.open.Load(),
	}
}

// Serve accepts connections until the listener is closed.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener) error {
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Out of descriptors, most likely: the backlog holds the others.
			g.opts.Logger.Error("couldn't accept a device's connection", "error", err)
			timer := time.NewTimer(50 * time.Millisecond)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case <-timer.C:
			}
			continue
		}
		g.accepted.Add(1)
		g.start(ctx, conn)
	}
}

// start admits a socket and runs it on a goroutine of its own.
func (g *Gateway) start(ctx context.Context, conn net.Conn) {
	address := addressOf(conn)
	err := g.enter(conn, address)
	if err != nil {
		g.overloaded.Add(1)
		if g.overloadTrace.Allow() {
			rec := g.rooms.Trace.Begin(conn.RemoteAddr().String())
			rec.Fail("admission", err)
			rec.End(imprint.OutcomeRefused, imprint.CodeOverloaded)
		}
		_ = conn.Close()
		return
	}
	go g.serve(ctx, conn, address)
}

// enter counts a connection in, or says which limit it meets.
func (g *Gateway) enter(conn net.Conn, address netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closing:
		return imprint.Errorf(imprint.CodeOverloaded, "the server is shutting down")
	case len(g.conns) >= g.opts.MaxConnections:
		return imprint.Errorf(imprint.CodeOverloaded, "%d connections are open, as many as allowed", len(g.conns))
	case g.pending.Load() >= int64(g.opts.MaxHandshakes):
		return imprint.Errorf(imprint.CodeOverloaded, "%d handshakes are under way, as many as allowed", g.opts.MaxHandshakes)
	case g.peers[address] >= g.opts.MaxPending:
		return imprint.Errorf(imprint.CodeOverloaded, "%d handshakes from %s are under way, as many as one address may have", g.opts.MaxPending, address)
	}
	g.conns[conn] = struct{}{}
	g.peers[address]++
	g.pending.Add(1)
	g.open.Add(1)
	g.finished.Add(1)
	return nil
}

// admitted ends a connection's time as pending.
func (g *Gateway) admitted(address netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pending.Add(-1)
	g.peers[address]--
	if g.peers[address] == 0 {
		delete(g.peers, address)
	}
}

func (g *Gateway) leave(conn net.Conn) {
	g.mu.Lock()
	delete(g.conns, conn)
	g.mu.Unlock()
	g.open.Add(-1)
	g.finished.Done()
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

func addressOf(conn net.Conn) netip.Addr {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap()
}

// serve takes one socket through its life.
func (g *Gateway) serve(ctx context.Context, conn net.Conn, address netip.Addr) {
	defer g.leave(conn)
	defer func() { _ = conn.Close() }()
	var once sync.Once
	admitted := func() { once.Do(func() { g.admitted(address) }) }
	defer admitted()

	rec := g.rooms.Trace.Begin(conn.RemoteAddr().String())
	h := &handshake{gateway: g, rec: rec}
	tlsConn, err := h.run(ctx, conn)
	if err != nil {
		g.handshakesFailed.Add(1)
		rec.End(imprint.OutcomeRefused, imprint.CodeOf(err))
		return
	}
	g.handshakesOK.Add(1)
	leaf := tlsConn.ConnectionState().PeerCertificates[0]
	v := &visitor{gateway: g, tenant: h.tenant, serverName: h.serverName, leaf: leaf}
	certificate := policy.NewCertificateVariables(leaf)
	g.rooms.Broker.Serve(ctx, tlsConn, broker.Peer{
		Address: address, Rec: rec, Admit: v.admit, Admitted: admitted,
		Variables: func(who *identity.Identity, client imprint.ClientID) *policy.Variables {
			return who.Variables(identity.Connection{
				ClientID: client, Address: address, ServerName: h.serverName, Certificate: certificate,
			})
		},
	})
}
