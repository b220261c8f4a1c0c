package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/time/rate"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/acmpca"
	"github.com/imprint-iot/imprint/awsapi/attempts"
	"github.com/imprint-iot/imprint/awsapi/audits"
	"github.com/imprint-iot/imprint/awsapi/authorities"
	"github.com/imprint-iot/imprint/awsapi/claims"
	"github.com/imprint-iot/imprint/awsapi/enrolment"
	"github.com/imprint-iot/imprint/awsapi/explain"
	"github.com/imprint-iot/imprint/awsapi/iot"
	"github.com/imprint-iot/imprint/awsapi/iotdata"
	"github.com/imprint-iot/imprint/awsapi/issuances"
	"github.com/imprint-iot/imprint/awsapi/lambda"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
	"github.com/imprint-iot/imprint/awsapi/sts"
	"github.com/imprint-iot/imprint/awsapi/users"
)

// newAPI makes the HTTPS server of the control plane, with health and metrics
// beside it.
func (s *server) newAPI() (*http.Server, error) {
	verifier, err := sigv4.New(sigv4.Config{
		Keys: storeKeys{s.store}, Services: []string{"iot", "execute-api"}, Regions: s.config.Regions, Now: s.clock,
	})
	if err != nil {
		return nil, err
	}
	recorded := attempts.Recorded{Store: s.store, Flush: s.trace.Flush, Home: s.home, Clock: s.clock, Keeping: s.keeping, Connected: s.connected}
	explainer := explain.Explainer{Store: s.store, Identities: s.identities, Clock: s.clock, Flush: s.trace.Flush}
	guards := claims.Guards{Store: s.store, Clock: s.clock, Resumed: s.claims.Resume}
	mux, err := awsapi.NewMux(awsapi.Config{
		Verifier: verifier, Translate: iot.Translate, Observe: s.observe, Now: s.clock,
		Allow: s.callers.allow, Authorize: s.authorize, Bodies: s.bodies,
	}, slices.Concat(iot.Operations(), attempts.Operations(), claims.Operations(), audits.Operations(), users.Operations(), explain.Operations(), authorities.Operations(),
		authorities.RolloverOperations(), authorities.ForeignOperations(), issuances.Operations(), enrolment.Operations()),
		slices.Concat(s.service.Routes(), recorded.Routes(), guards.Routes(), audits.Starter{Auditor: s.audit}.Routes(), s.directory().Routes(), explainer.Routes(),
			authorities.Office{Engine: s.authorities, Clock: s.clock, MayRenew: s.renewals.MayRenew}.Routes(), authorities.Rollovers{Planner: s.rollovers}.Routes(),
			authorities.Foreign{Engine: s.foreign, Planner: s.rollovers, Clock: s.clock}.Routes(), s.issuanceReader().Routes(),
			enrolment.Office{FirstAccount: s.home.Account, Store: s.store, Engine: s.authorities, Renewals: s.renewals, Clock: s.clock,
				URL: func() string { return s.facts.ESTURL }}.Routes()))
	if err != nil {
		return nil, err
	}
	lambdas, err := s.newLambdaAPI()
	if err != nil {
		return nil, err
	}
	privateCA, err := s.newAuthorityAPI()
	if err != nil {
		return nil, err
	}
	identities, err := s.newIdentityAPI()
	if err != nil {
		return nil, err
	}
	return &http.Server{
		Handler:           s.routes(mux, lambdas, privateCA, identities),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second, // awsapi.Config.BodyTime, too
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}, nil
}

// newIdentityAPI makes AWS STS's API, which has the port of the control plane.
func (s *server) newIdentityAPI() (http.Handler, error) {
	verifier, err := sigv4.New(sigv4.Config{
		Keys: storeKeys{s.store}, Services: []string{"sts"}, Regions: s.config.Regions, Now: s.clock, MaxExpiry: sts.MaxExpiry,
	})
	if err != nil {
		return nil, err
	}
	return &sts.Service{Verifier: verifier, Allow: s.callers.allow, Observe: s.observe, Now: s.clock}, nil
}

// directory answers for users and accounts.
func (s *server) directory() *users.Directory {
	return &users.Directory{
		Store: s.store, Clock: s.clock, Home: s.home.Account, NewKey: newAccessKey,
		EnsureTenant: s.service.EnsureTenant, Endpoint: s.endpoints.Address,
	}
}

// authorize lets callers do what their policies allow, for every API of the
// server. A region that is asked for the first time becomes a tenant here.
func (s *server) authorize(ctx context.Context, caller awsapi.Caller, ask awsapi.Ask) error {
	err := s.guard.Authorize(ctx, caller, ask)
	if err != nil {
		return err
	}
	_, err = s.service.EnsureTenant(ctx, imprint.Tenant{Account: imprint.AccountID(caller.Account), Region: imprint.Region(caller.Region)})
	return err
}

// routes sends health and metrics to their handlers and everything else,
// untouched, to the control plane. It is no ServeMux: that would clean paths,
// which breaks signatures.
func (s *server) routes(api, lambdas, privateCA, identities http.Handler) http.Handler {
	exposition := promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{})
	webSocket := s.gateway.WebSocket()
	return s.perAddress(http.StatusBadRequest, func(w http.ResponseWriter, r *http.Request) {
		if iotdata.Owns(sigv4.EscapedPath(r)) {
			s.data.ServeHTTP(w, r)
			return
		}
		if lambda.Owns(sigv4.EscapedPath(r)) {
			lambdas.ServeHTTP(w, r)
			return
		}
		if acmpca.Owns(r) {
			privateCA.ServeHTTP(w, r)
			return
		}
		if sts.Owns(r) {
			identities.ServeHTTP(w, r)
			return
		}
		if opensConfirmation(r) {
			s.confirmDestination(w, r)
			return
		}
		if strings.HasPrefix(r.URL.Path, reportPath) {
			s.serveReport(w, r)
			return
		}
		switch r.URL.Path {
		case "/mqtt":
			webSocket.ServeHTTP(w, r)
		case "/healthz":
			respond(w, http.StatusOK, map[string]string{"status": "ok"})
		case "/readyz":
			s.ready(w, r)
		case "/metrics":
			exposition.ServeHTTP(w, r)
		default:
			api.ServeHTTP(w, r)
		}
	})
}

// perAddress bounds the requests of one address, on all listeners together.
func (s *server) perAddress(status int, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.addresses.allow(r.RemoteAddr) {
			next(w, r)
			return
		}
		w.Header().Set("Retry-After", "1")
		w.Header().Set("X-Amzn-Errortype", awsapi.CodeThrottling)
		http.Error(w, `{"message":"Too many requests from this address."}`, status)
	})
}

// ready answers whether this server should be sent devices now.
func (s *server) ready(w http.ResponseWriter, r *http.Request) {
	if s.stopping.Load() {
		respond(w, http.StatusServiceUnavailable, map[string]string{"status": "stopping"})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	err := s.store.Ready(ctx)
	if err != nil {
		s.logger.Error("not ready", "error", err)
		respond(w, http.StatusServiceUnavailable, map[string]string{"status": "the registry can't answer"})
		return
	}
	respond(w, http.StatusOK, map[string]string{"status": "ready"})
}

func respond(w http.ResponseWriter, status int, body map[string]string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client may be gone; nobody is left to tell.
	_ = json.NewEncoder(w).Encode(body)
}

// observe logs and counts one control-plane request.
func (s *server) observe(a awsapi.Access) {
	s.metrics.observe(a)
	s.refusedRequest(a)
	level := slog.LevelDebug
	hungUp := errors.Is(a.Err, context.Canceled) // the caller, such as imprint explain --follow at its end
	if a.Status >= http.StatusInternalServerError && a.Status != http.StatusNotImplemented && !hungUp {
		level = slog.LevelError
	}
	attributes := []slog.Attr{
		slog.String("request", a.RequestID), slog.String("operation", a.Operation), slog.Int("status", a.Status),
		slog.Duration("duration", a.Duration), slog.String("key", a.Caller.AccessKeyID), slog.String("from", a.Caller.SourceIP),
	}
	if a.Code != "" {
		attributes = append(attributes, slog.String("code", a.Code), slog.Any("error", a.Err))
	}
	s.logger.LogAttrs(context.Background(), level, "control plane", attributes...)
}

const (
	// addressFactor is how many access keys' worth of requests one address may
	// send.
	addressFactor = 10
	// maxLimiters bounds the memory of a limit; beyond it any one key begins anew.
	maxLimiters = 10_000
)

// limits holds one token bucket a key.
type limits struct {
	perSecond int // 0: no bound
	mu        sync.Mutex
	buckets   map[string]*rate.Limiter
}

func (l *limits) take(key string) bool {
	if l.perSecond <= 0 {
		return true
	}
	l.mu.Lock()
	bucket := l.buckets[key]
	if bucket == nil {
		if len(l.buckets) >= maxLimiters {
			for old := range l.buckets {
				delete(l.buckets, old)
				break
			}
		}
		bucket = rate.NewLimiter(rate.Limit(l.perSecond), 2*l.perSecond)
		l.buckets[key] = bucket
	}
	l.mu.Unlock()
	return bucket.Allow()
}

type callerLimit struct{ limits }

func newCallerLimit(perSecond int) *callerLimit {
	return &callerLimit{limits{perSecond: perSecond, buckets: map[string]*rate.Limiter{}}}
}

func (c *callerLimit) allow(caller awsapi.Caller, _ string) bool { return c.take(caller.AccessKeyID) }

type addressLimit struct{ limits }

func newAddressLimit(perSecond int) *addressLimit {
	return &addressLimit{limits{perSecond: perSecond, buckets: map[string]*rate.Limiter{}}}
}

func (a *addressLimit) allow(remote string) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	return a.take(host)
}

// keeping tells which attempts the trace keeps.
func (s *server) keeping() attempts.Keeping {
	return attempts.Keeping{Off: !s.config.Trace, SuccessRate: s.config.TraceSuccessRate, Unsampled: s.trace.Counters().Unsampled}
}

// connected gives the connections of a client id and of a certificate.
func (s *server) connected(tenant imprint.Tenant, client imprint.ClientID, certificate imprint.CertificateID) []attempts.Live {
	var live []attempts.Live
	for _, one := range s.broker.Connected(tenant, client, certificate) {
		live = append(live, attempts.Live{ClientID: one.ClientID, Certificate: one.Certificate, Address: one.Address})
	}
	return live
}
