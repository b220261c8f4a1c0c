package gateway

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"

	"github.com/imprint-iot/imprint"
)

// peer counts the connections of one address, or of one /64 network of IPv6. The
// open ones are counted only while there is a bound for them: otherwise a
// device that is on would cost an entry for nothing.
type peer struct{ pending, open int }

// rates bound how fast one address begins connections.
type rates struct{ buckets map[netip.Addr]*rate.Limiter }

// maxRates bounds the memory of the rates; beyond it any one begins anew.
const maxRates = 100_000

func (r *rates) take(network netip.Addr, perSecond int) bool {
	if perSecond <= 0 {
		return true
	}
	bucket := r.buckets[network]
	if bucket == nil {
		if r.buckets == nil {
			r.buckets = map[netip.Addr]*rate.Limiter{}
		}
		if len(r.buckets) >= maxRates {
			for old := range r.buckets {
				delete(r.buckets, old)
				break
			}
		}
		bucket = rate.NewLimiter(rate.Limit(perSecond), 2*perSecond)
		r.buckets[network] = bucket
	}
	return bucket.Allow()
}

// arrival is a socket that was counted in.
type arrival struct {
	gateway          *Gateway
	conn             net.Conn
	address, network netip.Addr
	admission, end   sync.Once
}

// admit counts a socket in; a refusal at a limit is counted, and now and then
// traced.
func (g *Gateway) admit(conn net.Conn) (*arrival, error) {
	address := addressOf(conn)
	a := &arrival{gateway: g, conn: conn, address: address, network: networkOf(address)}
	err := g.enter(conn, a.network)
	if err == nil {
		return a, nil
	}
	if imprint.CodeOf(err) == imprint.CodeServerShutdown {
		return nil, err
	}
	g.overloaded.Add(1)
	if g.overloadTrace.Allow() {
		rec := g.rooms.Trace.Begin(conn.RemoteAddr().String())
		rec.Fail("admission", err)
		rec.End(imprint.OutcomeRefused, imprint.CodeOf(err))
	}
	return nil, err
}

// admitted ends its time as pending.
func (a *arrival) admitted() {
	a.admission.Do(func() { a.gateway.admitted(a.network) })
}

// leave closes the socket and counts it out.
func (a *arrival) leave() {
	a.end.Do(func() {
		_ = a.conn.Close()
		a.admitted()
		a.gateway.leave(a.conn, a.network)
	})
}

// enter counts a connection in, or says which limit it meets.
func (g *Gateway) enter(conn net.Conn, network netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.peers[network]
	if p == nil {
		p = &peer{}
	}
	err := g.limit(p, network)
	if err != nil {
		return err
	}
	g.conns[conn] = struct{}{}
	if g.opts.MaxPerAddress > 0 {
		p.open++
	}
	p.pending++
	g.peers[network] = p
	g.pending++
	g.finished.Add(1)
	return nil
}

// limit says which limit one more connection of a peer would meet. The caller
// holds mu.
func (g *Gateway) limit(p *peer, network netip.Addr) error {
	switch {
	case g.closing:
		return imprint.Errorf(imprint.CodeServerShutdown, "the server is shutting down")
	case !g.rates.take(network, g.opts.RatePerAddress):
		return imprint.Errorf(imprint.CodeOverloaded, "%s begins more than %d connections a second", network, g.opts.RatePerAddress).
			WithHint("Devices behind one gateway share its address: --connection-rate-per-address raises the bound.")
	case len(g.conns) >= g.opts.MaxConnections:
		return imprint.Errorf(imprint.CodeOverloaded, "%d connections are open, as many as allowed", len(g.conns)).
			WithHint("--max-connections raises the bound.")
	case g.opts.MaxPerAddress > 0 && p.open >= g.opts.MaxPerAddress:
		return imprint.Errorf(imprint.CodeOverloaded, "%d connections from %s are open, as many as one address may have", p.open, network).
			WithHint("Devices behind one gateway share its address: --max-connections-per-address raises the bound.")
	case g.pending >= g.opts.MaxHandshakes:
		return imprint.Errorf(imprint.CodeOverloaded, "%d handshakes are under way, as many as allowed", g.opts.MaxHandshakes)
	case p.pending >= g.opts.MaxPending:
		return imprint.Errorf(imprint.CodeOverloaded, "%d handshakes from %s are under way, as many as one address may have", g.opts.MaxPending, network).
			WithHint("Devices behind one gateway share its address: --max-pending-per-address raises the bound.")
	}
	return nil
}

// admitted ends a connection's time as pending.
func (g *Gateway) admitted(network netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pending--
	p := g.peers[network]
	p.pending--
	g.forget(p, network)
}

// forget drops a peer without connections. The caller holds mu.
func (g *Gateway) forget(p *peer, network netip.Addr) {
	if *p == (peer{}) {
		delete(g.peers, network)
	}
}

func (g *Gateway) leave(conn net.Conn, network netip.Addr) {
	g.mu.Lock()
	delete(g.conns, conn)
	if g.opts.MaxPerAddress > 0 {
		p := g.peers[network]
		p.open--
		g.forget(p, network)
	}
	g.mu.Unlock()
	g.finished.Done()
}

func addressOf(conn net.Conn) netip.Addr {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap()
}

// networkOf is what one party is counted by: a host with IPv6 has a whole /64 to
// itself.
func networkOf(address netip.Addr) netip.Addr {
	if !address.Is6() {
		return address
	}
	prefix, err := address.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return prefix.Addr()
}
