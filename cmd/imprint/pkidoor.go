package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"
)

// The bounds of the door for relying parties, which is open to strangers, for all of them
// together; --pki-connections-per-address and --pki-rate-per-address bound each. What is
// served is signed, and held in memory once for all who are sent it.
const (
	maxPKIConnections = 512
	maxPKIRequests    = 1000 // a second
)

// newPKIDoor makes the server of CRLs, OCSP responses and CA certificates. It speaks plain
// HTTP: who checks a certificate must not need another one for it (RFC 5280 section 8). Of
// one address it takes perAddress requests a second; 0: no bound.
func newPKIDoor(inner http.Handler, perAddress int) *http.Server {
	limit, each := rate.NewLimiter(maxPKIRequests, maxPKIRequests), newAddressLimit(perAddress)
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// Who asks too often takes nothing from what all have together.
			if !each.take(network(r.RemoteAddr)) || !limit.Allow() {
				w.Header().Set("Retry-After", "1")
				http.Error(w, "too many requests", http.StatusTooManyRequests)
				return
			}
			inner.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
	}
}

// listenPKI opens the door for relying parties, when there is one.
func (s *server) listenPKI(ctx context.Context, lc net.ListenConfig) error {
	if s.config.PKIAddress == "" {
		return nil
	}
	ln, err := lc.Listen(ctx, "tcp", s.config.PKIAddress)
	if err != nil {
		return listenError("--pki-address", s.config.PKIAddress, err)
	}
	s.closeLater(func() { _ = ln.Close() })
	bounded := &perAddressListener{Listener: ln, most: s.config.PKIConnectionsPerAddress, open: map[string]int{}}
	s.pkiLn, s.pki = netutil.LimitListener(bounded, maxPKIConnections), newPKIDoor(s.withPublicLog(s.authorities.Handler()), s.config.PKIRatePerAddress)
	return nil
}

// network is what one party has: an IPv4 address, or the /64 of an IPv6 one.
func network(remote string) string {
	address, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	ip := address.Addr().Unmap()
	if ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return remote
	}
	return prefix.String()
}

// perAddressListener closes connections of an address that has as many as it may.
type perAddressListener struct {
	net.Listener
	most int // 0: no bound

	mu   sync.Mutex
	open map[string]int
}

// Accept gives the next connection that is within the bound.
func (l *perAddressListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || l.most <= 0 {
			return conn, err
		}
		from := network(conn.RemoteAddr().String())
		if l.enter(from) {
			return &countedConn{Conn: conn, left: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		_ = conn.Close()
	}
}

func (l *perAddressListener) enter(from string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[from] >= l.most {
		return false
	}
	l.open[from]++
	return true
}

func (l *perAddressListener) leave(from string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[from]--
	if l.open[from] == 0 {
		delete(l.open, from)
	}
}

type countedConn struct {
	net.Conn
	left func()
}

func (c *countedConn) Close() error {
	defer c.left()
	return c.Conn.Close()
}

// pkiGrace is how long strangers may go on to load a list when the server stops.
const pkiGrace = 2 * time.Second

// endPKI stops the door for relying parties, when there is one.
func (s *server) endPKI(ctx context.Context) error {
	if s.pki == nil {
		return nil
	}
	return endPKIDoor(ctx, s.pki)
}

// endPKIDoor stops the door: answers that are under way get a moment, whoever is slow is
// cut off.
func endPKIDoor(ctx context.Context, door *http.Server) error {
	limited, cancel := context.WithTimeout(ctx, pkiGrace)
	defer cancel()
	err := door.Shutdown(limited)
	if errors.Is(err, context.DeadlineExceeded) {
		return door.Close()
	}
	return err
}

// endBeside ends things one after the other, and one beside them that strangers may make
// slow: it must take none of the time that the others share.
func endBeside(ctx context.Context, beside func(context.Context) error, others ...func(context.Context) error) error {
	ended := make(chan error, 1)
	go func() { ended <- beside(ctx) }()
	var errs []error
	for _, end := range others {
		errs = append(errs, end(ctx))
	}
	return errors.Join(append(errs, <-ended)...)
}
