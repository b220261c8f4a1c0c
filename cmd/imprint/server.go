package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/access"
	"github.com/imprint-iot/imprint/awsapi/attempts"
	"github.com/imprint-iot/imprint/awsapi/iot"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/ca/foreign"
	"github.com/imprint-iot/imprint/ca/rollover"
	"github.com/imprint-iot/imprint/est"
	"github.com/imprint-iot/imprint/events"
	"github.com/imprint-iot/imprint/functions"
	"github.com/imprint-iot/imprint/gateway"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/internal/durable"
	"github.com/imprint-iot/imprint/internal/heapfloor"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/translog"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/renewal"
	"github.com/imprint-iot/imprint/rules"
	"github.com/imprint-iot/imprint/store/sqlite"
	"github.com/imprint-iot/imprint/trace"
)

// server is a running Imprint: every room, wired.
type server struct {
	config Config
	logger *slog.Logger
	home   imprint.Tenant
	clock  imprint.Clock

	sealer       imprint.Sealer
	store        imprint.Store
	issuanceLog  *translog.Log // nil: there is none, for the reason of logFailure
	logFailure   error
	authority    *pki.Authority
	authorities  *ca.Engine
	rollovers    *rollover.Planner
	renewals     *renewal.Engine
	foreign      *foreign.Engine
	toldRefusals toldRefusals
	profile      *pki.Profile
	keys         *pki.KeyPool
	known        *pki.KnownKeys // that nobody may use
	endpoints    *gateway.Endpoints
	certificates *gateway.Certificates
	identities   *identity.Resolver
	trace        *trace.Log
	functions    *functions.Service
	rules        *rules.Engine
	provisioning *provisioning.Engine
	claims       *provisioning.Claims
	bulk         *provisioning.Bulk
	audit        *audit.Auditor
	broker       *broker.Broker
	announcer    *attempts.Announcer
	events       *events.Dispatcher
	tickets      *gateway.TicketKeys // nil: none are issued
	gateway      *gateway.Gateway
	service      *iot.Service
	metrics      *metrics

	guard     *access.Guard
	callers   *callerLimit
	bodies    *awsapi.Bodies // of all APIs
	addresses *addressLimit
	data      http.Handler
	api       *http.Server
	apiLn     net.Listener
	pki       *http.Server // nil: nothing is served to relying parties
	pkiLn     net.Listener
	est       *http.Server // nil: nobody enrols by EST
	estDoor   *est.Door
	estLn     net.Listener
	mqttLn    net.Listener
	httpsLn   net.Listener // nil when it is switched off
	stopping  atomic.Bool
	facts     serverFacts
	reportKey [32]byte // signs the URLs of reports
	key       operatorKey

	// renewing guards server and the making of the server's certificates.
	renewing sync.Mutex
	identity *pki.ServerIdentity
	// files are given server certificates, in whose place the server makes none.
	files   *pki.ServerFiles
	reloads reloads
	wired   chan struct{} // closed when there is a broker
	cleanup []func()
}

// newServer opens the data directory, making what is missing, and listens. On
// an error everything is closed again.
func newServer(ctx context.Context, config Config, logger *slog.Logger) (*server, error) {
	s := &server{
		config: config, logger: logger, clock: time.Now, metrics: newMetrics(), wired: make(chan struct{}),
		home: imprint.Tenant{Account: imprint.AccountID(config.Account), Region: imprint.Region(config.Region)},
	}
	for _, step := range []func(context.Context) error{
		s.openData, s.openIssuanceLog, s.openPKI, s.openAuthorities, s.openRenewals, s.openRollovers, s.openTrace, s.openFunctions, s.openRules, s.openClaims, s.recordProfiles, s.openBulk, s.openAudit, s.openTenant, s.wire, s.listen,
		s.writeFacts,
	} {
		err := step(ctx)
		if err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

func (s *server) closeLater(fn func()) { s.cleanup = append(s.cleanup, fn) }

// close undoes what was opened, in reverse order.
func (s *server) close() {
	for n := len(s.cleanup) - 1; n >= 0; n-- {
		s.cleanup[n]()
	}
	s.cleanup = nil
}

func (s *server) openData(ctx context.Context) error {
	dir, err := filepath.Abs(s.config.Data)
	if err != nil {
		return fmt.Errorf("couldn't find the data directory: %w", err)
	}
	s.config.Data = dir
	err = os.MkdirAll(dir, 0o700)
	if err != nil {
		return fmt.Errorf("couldn't make the data directory: %w", err)
	}
	s.sealer, err = openSealer(dir, s.config.MasterKey, true)
	if err != nil {
		return err
	}
	store, err := sqlite.Open(ctx, sqlite.Options{
		Path: filepath.Join(dir, registryFile), Sealer: s.sealer, Clock: s.clock, Logger: s.logger,
	})
	if err != nil {
		return err
	}
	s.store = store
	s.closeLater(func() {
		err := store.Close()
		if err != nil {
			s.logger.Error("couldn't close the registry", "error", err)
		}
	})
	return nil
}

func (s *server) openPKI(ctx context.Context) error {
	dir := filepath.Join(s.config.Data, pkiDir)
	err := os.MkdirAll(dir, 0o700)
	if err != nil {
		return fmt.Errorf("couldn't make the directory of keys: %w", err)
	}
	s.known, err = readKnownKeys(s.config.KnownKeys)
	if err != nil {
		return err
	}
	s.authority, err = pki.OpenAuthority(ctx, dir, pki.AuthorityConfig{
		Sealer: s.sealer, Journal: s.journal(), Clock: s.clock, Key: deviceCAKeys[s.config.DeviceCAKey], Known: s.known,
	})
	if err != nil {
		return err
	}
	s.profile, err = pki.NewProfile(pki.ProfileConfig{})
	if err != nil {
		return err
	}
	s.keys, err = pki.NewKeyPool(pki.KeyPoolConfig{Size: s.config.RSAKeyPool})
	if err != nil {
		return err
	}
	s.closeLater(s.keys.Close)
	return nil
}

func (s *server) openTenant(ctx context.Context) error {
	key, err := ensureOperatorKey(ctx, s.config.Data, s.sealer, s.store, s.home.Account, s.clock)
	if err != nil {
		return err
	}
	s.key = key
	s.endpoints, err = gateway.NewEndpoints(ctx, s.store, s.config.Domain, s.home, s.config.Hosts)
	if err != nil {
		return err
	}
	s.service = iot.NewService(iot.Rooms{
		Store: s.store, Clock: s.clock, Authority: s.authority, Profile: s.profile, Keys: s.keys, Known: s.known,
		Claims: s.claims, Bulk: s.bulk, ReportURL: s.reportURL, Audit: s.audit, Endpoint: s.endpoints.Address, TenantMade: s.tenantMade, RuleActions: s.rules.Offered(), Logger: s.logger,
		ThingTypeDeletionDelay: orNoDelay(s.config.ThingTypeDeletionDelay),
	})
	settings, err := s.service.EnsureTenant(ctx, s.home)
	if err != nil {
		return err
	}
	s.endpoints.Add(settings)
	if len(s.config.TLSCertificates) > 0 {
		return s.openServerFiles()
	}
	return s.renewCertificates(ctx)
}

// tenantMade makes a new tenant's endpoint known to the door and gives the
// server a certificate for it.
func (s *server) tenantMade(settings imprint.TenantSettings) {
	s.endpoints.Add(settings)
	if s.certificates == nil || s.files != nil {
		return // the start goes on to make them, or they aren't ours to make
	}
	err := s.renewCertificates(context.Background())
	if err != nil {
		s.logger.Error("couldn't make a server certificate for a new tenant", "tenant", settings.Tenant.String(), "error", err)
	}
}

// renewCertificates makes the server's certificates fit the tenants' names and
// the time, and puts them into use without touching live connections.
func (s *server) renewCertificates(ctx context.Context) error {
	s.renewing.Lock()
	defer s.renewing.Unlock()
	names, err := pki.NewNames(s.endpoints.CertificateNames()...)
	if err != nil {
		return err
	}
	s.identity, err = pki.EnsureServer(ctx, filepath.Join(s.config.Data, pkiDir), s.sealer, names, s.clock)
	if err != nil {
		return err
	}
	if s.certificates == nil {
		s.certificates = gateway.NewCertificates(s.identity.ECDSA, s.identity.RSA)
		return nil
	}
	s.certificates.Replace(s.identity.ECDSA, s.identity.RSA)
	return nil
}

// openTrace makes what attempts are recorded in.
func (s *server) openTrace(context.Context) error {
	options := trace.Options{Off: !s.config.Trace, Retention: s.config.TraceRetention, Keep: s.config.TraceKeep, FoldAfter: s.config.TraceFoldAfter, Logger: s.logger}
	if options.Off {
		s.logger.Warn("attempts aren't recorded: nobody will be told why a device isn't connected (--trace)")
	}
	if options.FoldAfter == 0 {
		options.FoldAfter = -1
	}
	options.SuccessRate = orNoBound(s.config.TraceSuccessRate)
	s.trace = trace.NewLog(s.store, s.clock, options)
	s.closeLater(s.trace.Close)
	return nil
}

func (s *server) wire(ctx context.Context) error {
	guard, err := access.NewGuard(s.store, s.clock, s.logger)
	if err != nil {
		return err
	}
	s.guard = guard
	s.closeLater(guard.Close)
	s.callers, s.addresses = newCallerLimit(s.config.APIRate), newAddressLimit(s.config.APIRate*addressFactor)
	s.bodies = awsapi.NewBodies(awsapi.BodyLimits{})
	s.identities = identity.NewResolver(s.store, func(tenant imprint.Tenant, id imprint.CertificateID) {
		s.broker.CertificateChanged(tenant, id)
	})
	s.closeLater(s.identities.Close)
	options := s.config.MQTTConfig.options()
	options.Rules = s.rules
	options.ConnectTimeout, options.Logger = s.config.ConnectTimeout, s.logger
	options.Reserved, options.Seen = claimDoor{s.claims}, s.saw
	options.RefusedConnectGetsReason, options.DeniedSubscribeGetsReason = s.config.RefusalReasons, s.config.RefusalReasons
	s.broker = broker.New(options, s.store, s.identities, s.clock)
	guard.Tell(s.broker.OperatorsChanged)
	close(s.wired)
	s.closeLater(s.closeBroker)
	err = s.broker.Restore(ctx)
	if err != nil {
		return err
	}
	s.events = events.NewDispatcher(s.store, s.broker, s.clock, events.Options{MaxStored: s.config.StoredEvents, Attempts: s.trace, Logger: s.logger})
	s.closeLater(s.events.Close)
	s.announcer = attempts.NewAnnouncer(s.broker, s.home, s.logger)
	s.closeLater(s.announcer.Close)
	s.trace.Watch(s.announcer.Tell)
	s.closeLater(func() { s.trace.Watch(nil) })
	err = s.openGateway()
	if err != nil {
		return err
	}
	s.metrics.watchIssuanceLog(s.issuanceLog, s.config.IssuanceLog && s.logFailure != nil)
	s.metrics.watch(metered{
		announcer: s.announcer,
		gateway:   s.gateway, broker: s.broker, provisioning: s.provisioning, claims: s.claims, trace: s.trace, events: s.events, identities: s.identities, keys: s.keys,
		functions: s.functions, logger: s.logger, rules: s.rules, certificates: s.certificates, reloads: &s.reloads, guard: s.guard, bulk: s.bulk, audit: s.audit,
		authorities: s.authorities, foreign: s.foreign, rollovers: s.rollovers, store: s.store, clock: s.clock,
	})
	return nil
}

// openGateway makes the devices' door.
func (s *server) openGateway() error {
	policy, err := gateway.ParseSecurityPolicy(s.config.SecurityPolicy)
	if err != nil {
		return err
	}
	if s.config.SessionTickets {
		s.tickets, err = gateway.OpenTicketKeys(gateway.TicketOptions{
			Path: filepath.Join(s.config.Data, ticketsFile), Sealer: s.sealer, Clock: s.clock,
			Rotate: s.config.TicketKeyRotation, Keep: s.config.TicketKeyLifetime, Logger: s.logger,
		})
		if err != nil {
			return err
		}
	}
	err = s.newDataAPI()
	if err != nil {
		return err
	}
	operators, err := s.newOperators()
	if err != nil {
		return err
	}
	s.gateway = gateway.New(gateway.Options{
		HandshakeTimeout: s.config.HandshakeTimeout, MaxHandshakes: s.config.MaxHandshakes,
		MaxPending: s.config.MaxPendingPerAddress, MaxConnections: s.config.MaxConnections,
		MaxPerAddress: s.config.MaxConnectionsPerAddress, RatePerAddress: s.config.ConnectionRatePerAddress,
		ConcurrentHandshakes: s.config.ConcurrentHandshakes, SecurityPolicy: policy, ExpiryWarning: s.config.ExpiryWarning, Logger: s.logger,
		HTTP: gateway.HTTPOptions{HeaderTimeout: s.config.ConnectTimeout, PublishRate: orNoBound(s.config.HTTPSPublishRate), MaxPayload: s.config.MaxPayload},
	}, gateway.Rooms{
		Store: s.store, Clock: s.clock, Endpoints: s.endpoints, Identities: s.identities,
		Provisioning: s.provisioning, Broker: s.broker, Trace: s.trace, Certificates: s.certificates, Tickets: s.tickets,
		DataAPI: s.perAddress(http.StatusTooManyRequests, s.data.ServeHTTP), Operators: operators,
	})
	return nil
}

// orNoDelay turns the setting 0, which means no delay, into the service's.
func orNoDelay(delay time.Duration) time.Duration {
	if delay == 0 {
		return -1
	}
	return delay
}

// orNoBound turns the setting 0, which means no bound, into the gateway's.
func orNoBound(perSecond int) int {
	if perSecond == 0 {
		return -1
	}
	return perSecond
}

// closeBroker ends what the broker still does, before the store that it needs is
// closed.
func (s *server) closeBroker() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err := s.broker.Shutdown(ctx)
	if err != nil {
		s.logger.Error("couldn't end the MQTT sessions", "error", err)
	}
}

func (s *server) listen(ctx context.Context) error {
	// MQTT keeps alive by itself, and what comes before it has deadlines.
	lc := net.ListenConfig{KeepAlive: -1}
	mqttLn, err := lc.Listen(ctx, "tcp", s.config.MQTTAddress)
	if err != nil {
		return listenError("--mqtt-address", s.config.MQTTAddress, err)
	}
	s.mqttLn = mqttLn
	s.closeLater(func() { _ = mqttLn.Close() })
	if s.config.HTTPSAddress != "" {
		httpsLn, err := lc.Listen(ctx, "tcp", s.config.HTTPSAddress)
		if err != nil {
			return listenError("--https-address", s.config.HTTPSAddress, err)
		}
		s.httpsLn = httpsLn
		s.closeLater(func() { _ = httpsLn.Close() })
	}
	apiLn, err := lc.Listen(ctx, "tcp", s.config.APIAddress)
	if err != nil {
		return listenError("--api-address", s.config.APIAddress, err)
	}
	s.closeLater(func() { _ = apiLn.Close() })
	s.apiLn = tls.NewListener(apiLn, &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: s.certificates.Get, NextProtos: []string{"h2", "http/1.1"},
	})
	err = errors.Join(s.listenPKI(ctx, lc), s.listenEST(ctx, lc))
	if err != nil {
		return err
	}
	s.api, err = s.newAPI()
	return err
}

func listenError(flag, address string, err error) error {
	return imprint.Errorf(imprint.CodeUnavailable, "couldn't listen on %s: %w", address, err).
		WithHint("Another program may hold the port: choose one with %s.", flag)
}

// writeFacts tells the other subcommands where this server is.
func (s *server) writeFacts(ctx context.Context) error {
	settings, err := s.service.EnsureTenant(ctx, s.home)
	if err != nil {
		return err
	}
	device, err := s.endpoints.Address(settings, "iot:Data-ATS")
	if err != nil {
		return err
	}
	s.facts = serverFacts{
		Version: version(), PID: os.Getpid(), Account: string(s.home.Account), Region: string(s.home.Region), Domain: s.config.Domain,
		APIURL:      "https://" + net.JoinHostPort(s.apiHost(), portOf(s.apiLn.Addr())),
		MQTTAddress: net.JoinHostPort(device, portOf(s.mqttLn.Addr())), CABundle: s.rootsPath(),
	}
	if s.httpsLn != nil {
		s.facts.HTTPSAddress = net.JoinHostPort(device, portOf(s.httpsLn.Addr()))
	}
	if s.estLn != nil {
		s.facts.ESTURL = "https://" + net.JoinHostPort(device, portOf(s.estLn.Addr()))
	}
	data, err := json.MarshalIndent(s.facts, "", "  ")
	if err != nil {
		return fmt.Errorf("couldn't encode the server's facts: %w", err)
	}
	return durable.WriteFile(filepath.Join(s.config.Data, serverFile), append(data, '\n'), 0o600)
}

// rootsPath names the file that verifies the server; empty: the client's system
// does.
func (s *server) rootsPath() string {
	if s.files != nil {
		return s.config.TLSRoots
	}
	return s.identity.RootPath
}

// apiHost is the name by which operators on this machine reach the API: one that
// a given server certificate stands for, if it has one.
func (s *server) apiHost() string {
	host, _, err := net.SplitHostPort(s.config.APIAddress)
	if err == nil && host != "" && host != "0.0.0.0" && host != "::" {
		return host
	}
	if s.files != nil {
		return s.certificates.HostName()
	}
	return "localhost"
}

// shutdownTimeout bounds a graceful stop.
const shutdownTimeout = 10 * time.Second

// heapFloor is what may be allocated between two garbage collections at least.
const heapFloor = 64 << 20

// run serves until the context ends, then stops: readiness first, then the API,
// then the devices, who hear a reason.
func (s *server) run(ctx context.Context) error {
	defer s.close()
	defer heapfloor.Hold(heapFloor)()
	s.functions.Start()
	s.rules.Start(s.broker)
	failed := make(chan error, 5)
	go func() {
		err := s.api.Serve(s.apiLn)
		if !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("couldn't go on serving the control plane: %w", err)
		}
	}()
	// Connections outlive the context that ends the program: they are told.
	lifetime, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	go func() {
		err := s.gateway.Serve(lifetime, s.mqttLn)
		if err != nil {
			failed <- fmt.Errorf("couldn't go on serving devices: %w", err)
		}
	}()
	if s.httpsLn != nil {
		go func() {
			err := s.gateway.ServeHTTPS(lifetime, s.httpsLn)
			if err != nil {
				failed <- fmt.Errorf("couldn't go on serving devices over HTTPS: %w", err)
			}
		}()
	}
	if s.pki != nil {
		go func() {
			err := s.pki.Serve(s.pkiLn)
			if !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("couldn't go on serving CRLs and OCSP: %w", err)
			}
		}()
	}
	s.serveEST(lifetime, failed)
	go s.renewals.Run(lifetime)
	publishing := make(chan struct{})
	defer func() { <-publishing }()
	defer end()
	go func() {
		defer close(publishing)
		s.authorities.PublishLists(lifetime)
	}()
	fetching := make(chan struct{})
	defer func() { <-fetching }()
	defer end()
	go func() {
		defer close(fetching)
		s.foreign.Run(lifetime)
	}()
	go s.watchFiles(lifetime)
	go s.keepAuthorities(lifetime)
	if s.tickets != nil {
		go s.tickets.Run(lifetime)
	}
	if s.files == nil {
		go s.renew(lifetime)
	}
	var result error
	select {
	case <-ctx.Done():
		s.logger.Info("shutting down")
	case result = <-failed:
	}
	s.stopping.Store(true)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	_ = s.mqttLn.Close()
	if s.httpsLn != nil {
		_ = s.httpsLn.Close()
	}
	defer s.closeEST(grace)()
	return errors.Join(result, endBeside(grace, s.endPKI, s.api.Shutdown, s.broker.Shutdown, s.gateway.Shutdown))
}
