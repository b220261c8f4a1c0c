package main

import (
	"context"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"
)

// The bounds of the door for relying parties, which is open to strangers. What it serves
// is signed, small and mostly in memory.
const (
	maxPKIConnections = 512
	maxPKIRequests    = 1000 // a second
)

// newPKIDoor makes the server of CRLs, OCSP responses and CA certificates. It speaks plain
// HTTP: who checks a certificate must not need another one for it (RFC 5280 section 8).
func newPKIDoor(inner http.Handler) *http.Server {
	limit := rate.NewLimiter(maxPKIRequests, maxPKIRequests)
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !limit.Allow() {
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
	s.pkiLn, s.pki = netutil.LimitListener(ln, maxPKIConnections), newPKIDoor(s.withPublicLog(s.authorities.Handler()))
	return nil
}
