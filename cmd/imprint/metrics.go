package main

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/access"
	"github.com/imprint-iot/imprint/awsapi/attempts"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/ca/foreign"
	"github.com/imprint-iot/imprint/ca/rollover"
	"github.com/imprint-iot/imprint/events"
	"github.com/imprint-iot/imprint/functions"
	"github.com/imprint-iot/imprint/gateway"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/rules"
	"github.com/imprint-iot/imprint/trace"
)

// metrics is what /metrics shows. There are no labels per device or tenant.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// metered are the rooms whose counters are read when /metrics is.
type metered struct {
	gateway      *gateway.Gateway
	broker       *broker.Broker
	announcer    *attempts.Announcer
	provisioning *provisioning.Engine
	claims       *provisioning.Claims
	trace        *trace.Log
	events       *events.Dispatcher
	identities   *identity.Resolver
	keys         *pki.KeyPool
	functions    *functions.Service
	logger       *slog.Logger
	rules        *rules.Engine
	certificates *gateway.Certificates
	reloads      *reloads
	guard        *access.Guard
	bulk         *provisioning.Bulk
	audit        *audit.Auditor
	authorities  *ca.Engine
	foreign      *foreign.Engine
	rollovers    *rollover.Planner
	store        imprint.Store
	clock        imprint.Clock
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "imprint_api_requests_total", Help: "Control-plane requests by operation, status and error code.",
		}, []string{"operation", "status", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "imprint_api_request_seconds", Help: "Duration of control-plane requests.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}, []string{"operation"}),
	}
	m.registry.MustRegister(m.requests, m.duration,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// refusals shows what clients of the broker were refused, by code.
type refusals struct{ broker *broker.Broker }

var refusalsTotal = prometheus.NewDesc("imprint_refusals_total", "What MQTT clients were refused, and connections that ended other than by their client's DISCONNECT, by code.", []string{"code"}, nil)

// Describe implements prometheus.Collector.
func (r refusals) Describe(to chan<- *prometheus.Desc) { to <- refusalsTotal }

// Collect implements prometheus.Collector.
func (r refusals) Collect(to chan<- prometheus.Metric) {
	counts := r.broker.Refusals()
	for _, d := range imprint.Descriptions() {
		to <- prometheus.MustNewConstMetric(refusalsTotal, prometheus.CounterValue, float64(counts[d.Code]), string(d.Code))
	}
}

// shares shows who waits for the share of workers that accounts have.
type shares struct {
	functions *functions.Service
	rules     *rules.Engine
	logger    *slog.Logger
}

// sharesPatience bounds what a scrape reads of the store for that.
const sharesPatience = 2 * time.Second

var shareWaiting = prometheus.NewDesc("imprint_share_waiting",
	"Functions, or destinations of topic rules, with work that waits because they or their account have as many workers as they may: of asynchronous calls, processes, deliveries.",
	[]string{"work"}, nil)

// Describe implements prometheus.Collector.
func (s shares) Describe(to chan<- *prometheus.Desc) { to <- shareWaiting }

// Collect implements prometheus.Collector.
func (s shares) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), sharesPatience)
	defer cancel()
	ofFunctions, err := s.functions.Waits(ctx)
	deliveries, rulesErr := s.rules.Waits(ctx)
	if err = errors.Join(err, rulesErr); err != nil {
		s.logger.Warn("metrics don't tell all of who waits for a share", "error", err)
	}
	for work, n := range map[string]int{"calls": ofFunctions.Calls, "processes": ofFunctions.Processes, "deliveries": deliveries} {
		to <- prometheus.MustNewConstMetric(shareWaiting, prometheus.GaugeValue, float64(n), work)
	}
}

// observe counts one control-plane request. Names that no operation has are
// folded, so that callers can't invent labels.
func (m *metrics) observe(a awsapi.Access) {
	operation := a.Operation
	if operation == "" {
		operation = "none"
	}
	m.requests.WithLabelValues(operation, strconv.Itoa(a.Status), a.Code).Inc()
	m.duration.WithLabelValues(operation).Observe(a.Duration.Seconds())
}

// watch adds the counters of the rooms.
func (m *metrics) watch(rooms metered) {
	counter := func(name, help string, read func() uint64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(read()) }))
	}
	gauge := func(name, help string, read func() int64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
			func() float64 { return float64(read()) }))
	}
	g, b, p, t := rooms.gateway.Counters, rooms.broker.Counters, rooms.provisioning.Counters, rooms.trace.Counters
	counter("imprint_connections_accepted_total", "Device sockets accepted.", func() uint64 { return g().Accepted })
	counter("imprint_connections_overloaded_total", "Device sockets closed at a limit.", func() uint64 { return g().Overloaded })
	counter("imprint_handshakes_total", "TLS handshakes completed.", func() uint64 { return g().HandshakesOK })
	counter("imprint_handshakes_failed_total", "TLS handshakes failed.", func() uint64 { return g().HandshakesFailed })
	counter("imprint_connection_panics_total", "Connections ended by a failure of the server's own.", func() uint64 { return g().Panics })
	counter("imprint_handshakes_resumed_total", "TLS handshakes completed that resumed a session.", func() uint64 { return g().Resumed })
	gauge("imprint_handshakes_waiting", "TLS handshakes that wait for their turn to compute.", func() int64 { return g().HandshakesWaiting })
	counter("imprint_handshakes_waited_total", "Times that a TLS handshake had to wait for its turn.", func() uint64 { return g().HandshakesWaited })
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "imprint_handshake_wait_seconds_total", Help: "Time that TLS handshakes waited for their turn, in all.",
	}, func() float64 { return g().HandshakeWait.Seconds() }))
	counter("imprint_access_denied_total", "Requests of users that no identity policy allows, or that one denies.", rooms.guard.Denied)
	m.watchAudits(rooms.audit)
	counter("imprint_bulk_registered_total", "Lines of bulk registrations whose device was registered.", func() uint64 { return rooms.bulk.Counters().Registered })
	counter("imprint_bulk_failed_total", "Lines of bulk registrations that failed.", func() uint64 { return rooms.bulk.Counters().Failed })
	counter("imprint_certificate_reloads_total", "Times that given server certificates were replaced.", rooms.reloads.done.Load)
	counter("imprint_certificate_reloads_failed_total", "Times that changed server certificates couldn't be used.", rooms.reloads.failed.Load)
	gauge("imprint_certificate_expiry_timestamp_seconds", "When the first of the server's certificates expires, in seconds since 1970.",
		func() int64 { return rooms.certificates.ExpiresAt().Unix() })
	gauge("imprint_connections_pending", "Connections that aren't admitted yet.", func() int64 { return g().Pending })
	gauge("imprint_connections_open", "Device sockets open.", func() int64 { return g().Open })

	for outcome := range g().Requests {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "imprint_https_requests_total", Help: "HTTP requests on the devices' door by outcome.",
			ConstLabels: prometheus.Labels{"outcome": gateway.HTTPOutcome(outcome).String()},
		}, func() float64 { return float64(g().Requests[outcome]) }))
	}
	counter("imprint_websockets_total", "WebSockets opened.", func() uint64 { return g().WebSockets })

	gauge("imprint_identities", "Certificates in the cache of the connection path.", func() int64 { return int64(rooms.identities.Counters().Identities) })
	gauge("imprint_sessions", "MQTT sessions connected.", func() int64 { return b().Connected })
	counter("imprint_connects_total", "CONNECT packets accepted.", func() uint64 { return b().Connects })
	counter("imprint_connects_refused_total", "Connections refused before or at CONNECT.", func() uint64 { return b().Refused })
	counter("imprint_visits_total", "Connections that said DISCONNECT in place of CONNECT: they came for the handshake alone.", func() uint64 { return b().Visits })
	counter("imprint_publish_received_total", "PUBLISH packets from devices.", func() uint64 { return b().PublishIn })
	counter("imprint_publish_sent_total", "PUBLISH packets to devices.", func() uint64 { return b().PublishOut })
	counter("imprint_publish_dropped_total", "Messages that a device was not sent: its buffer was full, or they had expired, were too large for it, or it may no longer receive them.", func() uint64 { return b().PublishDropped })
	counter("imprint_publish_denied_total", "PUBLISH packets that no policy allows.", func() uint64 { return b().PublishDenied })
	counter("imprint_subscribe_denied_total", "Subscriptions that no policy allows.", func() uint64 { return b().SubscribeDenied })
	counter("imprint_slow_consumers_total", "Connections ended because the device didn't keep up.", func() uint64 { return b().SlowConsumers })
	counter("imprint_takeovers_total", "Connections ended by another with the same client id.", func() uint64 { return b().Takeovers })
	counter("imprint_protocol_errors_total", "Connections that broke the MQTT protocol.", func() uint64 { return b().ProtocolErrors })

	m.registry.MustRegister(refusals{rooms.broker})
	counter("imprint_publish_throttled_total", "Messages discarded because a connection published too many a second.", func() uint64 { return b().PublishThrottled })
	counter("imprint_throughput_delayed_total", "Pauses of connections that sent too many bytes a second.", func() uint64 { return b().ThroughputDelayed })
	counter("imprint_session_queue_full_total", "Messages dropped because a persistent session's queue was full.", func() uint64 { return b().QueueFull })
	gauge("imprint_persistent_sessions", "MQTT sessions that outlive their connections.", func() int64 { return b().Stored })
	counter("imprint_persistent_sessions_expired_total", "Persistent sessions whose time ran out.", func() uint64 { return b().Expired })

	counter("imprint_provisioned_total", "Devices provisioned at their first connection.", func() uint64 { return p().Provisioned })
	counter("imprint_registered_pending_total", "Certificates left PENDING_ACTIVATION by a first connection.", func() uint64 { return p().Pending })
	counter("imprint_first_connections_refused_total", "First connections refused before registration.", func() uint64 { return p().Refused })

	counter("imprint_first_connections_unsure_total", "Certificates registered at a first connection although a revocation list of their CA is past its time.", func() uint64 { return p().Unsure })

	c := rooms.claims.Counters
	counter("imprint_claim_certificates_total", "Certificates given out by the fleet provisioning API.", func() uint64 { return c().Created })
	counter("imprint_claim_registered_total", "Devices registered by the fleet provisioning API.", func() uint64 { return c().Registered })
	counter("imprint_claim_rejected_total", "Requests that the fleet provisioning API rejected.", func() uint64 { return c().Rejected })
	counter("imprint_claim_throttled_total", "Of those, requests that came too quickly.", func() uint64 { return c().Throttled })
	counter("imprint_claim_expired_total", "Certificates deleted because nobody registered them in time.", func() uint64 { return c().Expired })
	counter("imprint_claim_stopped_total", "Claim certificates stopped by their guards.", func() uint64 { return c().Stopped })
	counter("imprint_provisioning_claims_total", "Claim certificates made for trusted users.", func() uint64 { return c().Claims })
	counter("imprint_requests_total", "Requests of devices to topics of the service.", func() uint64 { return b().Requests })
	counter("imprint_requests_throttled_total", "Such requests refused because too many were under way or came too quickly.", func() uint64 { return b().RequestsThrottled })

	counter("imprint_attempts_written_total", "Attempts written to the trace.", func() uint64 { return t().Written })
	counter("imprint_attempts_dropped_total", "Successful attempts that the trace had no room for.", func() uint64 { return t().Dropped })
	counter("imprint_attempts_folded_total", "Refused attempts that were counted with an earlier one that failed in the same way.", func() uint64 { return t().Folded })
	counter("imprint_attempts_unsampled_total", "Attempts of devices that were let in which weren't kept because many came at once.", func() uint64 { return t().Unsampled })
	counter("imprint_attempts_failed_total", "Attempts that couldn't be written.", func() uint64 { return t().Failed })
	counter("imprint_attempts_told_total", "Attempts published on $imprint/attempts/.", func() uint64 { told, _ := rooms.announcer.Counts(); return told })
	counter("imprint_attempts_untold_total", "Attempts that weren't published there because subscribers didn't keep up.", func() uint64 { _, untold := rooms.announcer.Counts(); return untold })
	counter("imprint_events_published_total", "Stored events published.", rooms.events.Published)
	counter("imprint_events_dropped_total", "Stored events dropped because as many of their account waited as may.", rooms.events.Dropped)
	m.watchRules(rooms.rules)
	m.registry.MustRegister(authorityMetrics{rooms.authorities, rooms.foreign, rooms.rollovers, rooms.store, rooms.clock, rooms.logger})
	m.registry.MustRegister(shares{rooms.functions, rooms.rules, rooms.logger})
	f := rooms.functions.Counters
	counter("imprint_function_invocations_total", "Runs of functions that ended, asynchronous ones too.", func() uint64 { return f().Invocations })
	counter("imprint_function_errors_total", "Runs of functions that failed, crashed or couldn't be done.", func() uint64 { return f().Errors })
	counter("imprint_function_timeouts_total", "Runs of functions that didn't end in time.", func() uint64 { return f().Timeouts })
	counter("imprint_function_throttles_total", "Calls of functions refused because too many wait.", func() uint64 { return f().Throttles })
	counter("imprint_function_denied_total", "Calls of functions that no permission allows.", func() uint64 { return f().Denied })
	counter("imprint_function_cold_starts_total", "Runs of functions for which a process was started.", func() uint64 { return f().ColdStarts })
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "imprint_function_seconds_total", Help: "Time that runs of functions took, in all.",
	}, func() float64 { return f().Duration.Seconds() }))
	counter("imprint_function_queued_total", "Asynchronous calls of functions taken.", func() uint64 { return f().Queued })
	counter("imprint_function_retries_total", "Times that an asynchronous call was put off to be tried again.", func() uint64 { return f().Retried })
	counter("imprint_function_given_up_total", "Asynchronous calls given up.", func() uint64 { return f().GivenUp })
	gauge("imprint_function_processes", "Processes of functions.", func() int64 { return int64(f().Processes) })
	gauge("imprint_function_waiting", "Calls of functions that wait for a process.", func() int64 { return int64(f().Waiting) })
	gauge("imprint_rsa_keys_ready", "RSA keys ready for CreateKeysAndCertificate.", func() int64 { return int64(rooms.keys.Ready()) })
}

// watchAudits exposes what audits did and found.
func (m *metrics) watchAudits(a *audit.Auditor) {
	tasks := func(outcome string, read func(audit.Counters) uint64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "imprint_audits_total", Help: "Audits that are over, by outcome.", ConstLabels: prometheus.Labels{"outcome": outcome},
		}, func() float64 { return float64(read(a.Counters())) }))
	}
	tasks("completed", func(c audit.Counters) uint64 { return c.Completed })
	tasks("failed", func(c audit.Counters) uint64 { return c.Failed })
	tasks("canceled", func(c audit.Counters) uint64 { return c.Canceled })
	for _, severity := range []imprint.AuditSeverity{imprint.AuditCritical, imprint.AuditHigh, imprint.AuditMedium, imprint.AuditLow} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "imprint_audit_findings_total", Help: "Resources that audits found, by the severity of the check.", ConstLabels: prometheus.Labels{"severity": string(severity)},
		}, func() float64 { return float64(a.Counters().Findings[severity]) }))
	}
	for _, check := range audit.Offered() {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "imprint_audit_noncompliant_resources", Help: "Resources that the last audit of each account found, by check.", ConstLabels: prometheus.Labels{"check": string(check)},
		}, func() float64 { return float64(a.Counters().NonCompliant[check]) }))
	}
}
