package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/est"
)

// ESTConfig are the settings of `imprint serve` for enrolment over EST and for renewal.
type ESTConfig struct {
	// ESTAddress is where EST (RFC 7030) is served over TLS. Empty: nowhere.
	ESTAddress string `koanf:"est-address"`
	// ESTRate is how many EST requests a second one address may send; twice as many may
	// come at once. Default 10; 0: no bound.
	ESTRate int `koanf:"est-rate"`
	// RenewalWindow is when certificates may be renewed for which nothing else is said:
	// always, the last part of their life such as 1/3, or a time before their end such as
	// 30d. Default 1/3.
	RenewalWindow string `koanf:"renewal-window"`
	// RenewalGrace is how long an old certificate stays ACTIVE after a connection with the
	// one that renews it. Default 24h.
	RenewalGrace time.Duration `koanf:"renewal-grace"`
	// ExpiryWarning is how long before its end a certificate counts as expiring, in metrics
	// and in the trace of its connections. Default 720h (30 days).
	ExpiryWarning time.Duration `koanf:"expiry-warning"`
}

func addESTFlags(f *pflag.FlagSet) {
	f.String("est-address", "", "where devices enrol and renew by EST (RFC 7030) over TLS, such as :8085; empty: nowhere")
	f.Int("est-rate", 10, "EST requests per second of one address (0: no bound)")
	f.Duration("renewal-grace", 24*time.Hour, "how long an old certificate stays ACTIVE after the one that renews it has connected")
	f.Duration("expiry-warning", 720*time.Hour, "how long before its end a certificate counts as expiring")
	f.String("renewal-window", "1/3", "when certificates may be renewed: always, the last part of their life, or a time before their end (30d)")
}

func (c ESTConfig) check() error {
	_, err := imprint.ParseRenewalWindow(c.RenewalWindow)
	if err != nil {
		return usageError{err}
	}
	if c.RenewalGrace < time.Second || c.ExpiryWarning < time.Second {
		return usageError{fmt.Errorf("renewal-grace is %s and expiry-warning %s, and both must be at least a second", c.RenewalGrace, c.ExpiryWarning)}
	}
	if c.ESTRate < 0 {
		return usageError{fmt.Errorf("est-rate is %d, and must be at least 0", c.ESTRate)}
	}
	return nil
}

// listenEST opens the door for enrolment, when there is one.
func (s *server) listenEST(ctx context.Context, lc net.ListenConfig) error {
	if s.config.ESTAddress == "" {
		return nil
	}
	window, err := imprint.ParseRenewalWindow(s.config.RenewalWindow)
	if err != nil {
		return err
	}
	ln, err := lc.Listen(ctx, "tcp", s.config.ESTAddress)
	if err != nil {
		return listenError("--est-address", s.config.ESTAddress, err)
	}
	door := est.New(est.Options{
		Store: s.store, Engine: s.authorities, Clock: s.clock, Trace: s.trace, Anchors: s.anchors, Window: window, Rate: orNoBound(s.config.ESTRate), Logger: s.logger,
	})
	s.estDoor, s.estLn = door, est.Listen(ln, door.TLS(s.certificates.Get), door)
	s.closeLater(func() { _ = s.estLn.Close() })
	s.est = &http.Server{
		Handler: door, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 15 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	s.metrics.registry.MustRegister(estRequests{door})
	return nil
}

// serveEST serves until closeEST, and tells of what else ends it.
func (s *server) serveEST(ctx context.Context, failed chan<- error) {
	if s.est == nil {
		return
	}
	go func() {
		err := s.est.Serve(s.estLn)
		if !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("couldn't go on serving EST: %w", err)
		}
	}()
	go s.estDoor.Run(ctx)
}

// closeEST lets requests end that are under way, beside what else ends; wait returns when
// they have.
func (s *server) closeEST(ctx context.Context) (wait func()) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if s.est == nil {
			return
		}
		err := s.est.Shutdown(ctx)
		if err != nil {
			s.logger.Error("couldn't end the EST requests that were under way", "error", err)
		}
	}()
	return func() { <-closed }
}

// anchors are the roots by which devices verify this server.
func (s *server) anchors() []*x509.Certificate {
	if s.files == nil {
		s.renewing.Lock()
		defer s.renewing.Unlock()
		return []*x509.Certificate{s.identity.Root, s.identity.RSARoot}
	}
	if s.config.TLSRoots == "" {
		return nil
	}
	text, err := os.ReadFile(s.config.TLSRoots)
	if err != nil {
		s.logger.Error("couldn't read the roots of the server's certificates for devices that enrol", "error", err)
		return nil
	}
	var all []*x509.Certificate
	for block, rest := pem.Decode(bytes.TrimSpace(text)); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err == nil {
			all = append(all, cert)
		}
	}
	return all
}

// estRequests shows what became of requests and handshakes at the door for enrolment.
type estRequests struct{ door *est.Door }

var (
	estRequestsTotal   = prometheus.NewDesc("imprint_est_requests_total", "EST requests by operation and HTTP status.", []string{"operation", "status"}, nil)
	estHandshakesTotal = prometheus.NewDesc("imprint_est_handshakes_refused_total", "TLS handshakes on the port of EST that failed, or that there was no room for.", []string{"why"}, nil)
)

// Describe implements prometheus.Collector.
func (r estRequests) Describe(to chan<- *prometheus.Desc) {
	to <- estRequestsTotal
	to <- estHandshakesTotal
}

// Collect implements prometheus.Collector.
func (r estRequests) Collect(to chan<- prometheus.Metric) {
	for what, n := range r.door.Counts() {
		to <- prometheus.MustNewConstMetric(estRequestsTotal, prometheus.CounterValue, float64(n), what.Operation, strconv.Itoa(what.Status))
	}
	failed, refused := r.door.Handshakes()
	to <- prometheus.MustNewConstMetric(estHandshakesTotal, prometheus.CounterValue, float64(failed), "failed")
	to <- prometheus.MustNewConstMetric(estHandshakesTotal, prometheus.CounterValue, float64(refused), "no room")
}
