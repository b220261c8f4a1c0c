package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/rules"
)

// RuleConfig are the settings of `imprint serve` about topic rules.
type RuleConfig struct {
	// RuleSinks are what firehose actions may name, each NAME=URL, with a file,
	// nats, tls, postgres or kafka URL as docs/rules.md describes them.
	RuleSinks []string `koanf:"rule-sink"`
	// RuleRoots is a PEM file of roots that verify the servers of http actions.
	// Empty: the system's.
	RuleRoots string `koanf:"rule-roots"`
	// RuleQueue bounds the messages that wait for topic rules, of all tenants.
	// Default 50000.
	RuleQueue int `koanf:"rule-queue"`
	// RuleWorkers is how many messages are evaluated at once. Default 64.
	RuleWorkers int `koanf:"rule-workers"`
	// RuleDeliveries bounds the deliveries of http, firehose and kafka actions of
	// one account that wait. Default 100000.
	RuleDeliveries int `koanf:"rule-deliveries"`
	// RuleDeliveryAge is how long such a delivery is tried. Default 6h.
	RuleDeliveryAge time.Duration `koanf:"rule-delivery-age"`
}

func addRuleFlags(f *pflag.FlagSet) {
	f.StringSlice("rule-sink", nil, "a sink of firehose actions, NAME=URL: file, nats, tls, postgres or kafka (docs/rules.md)")
	f.String("rule-roots", "", "PEM file of roots that verify the servers of http actions (default: the system's)")
	f.Int("rule-queue", 50_000, "bound of the messages that wait for topic rules")
	f.Int("rule-workers", 64, "messages that topic rules evaluate at once")
	f.Int("rule-deliveries", 100_000, "bound of the deliveries of one account's rules that wait")
	f.Duration("rule-delivery-age", 6*time.Hour, "how long a delivery of a topic rule is tried")
}

func (c RuleConfig) check() error {
	for _, n := range []struct {
		name  string
		value int
	}{{"rule-queue", c.RuleQueue}, {"rule-workers", c.RuleWorkers}, {"rule-deliveries", c.RuleDeliveries}} {
		if n.value < 1 {
			return usageError{fmt.Errorf("%s is %d, and must be at least 1", n.name, n.value)}
		}
	}
	if c.RuleDeliveryAge <= 0 {
		return usageError{fmt.Errorf("rule-delivery-age is %s, and must be more than nothing", c.RuleDeliveryAge)}
	}
	return nil
}

// openRules makes the room of topic rules.
func (s *server) openRules(context.Context) error {
	sinks, err := rules.OpenSinks(s.config.RuleSinks)
	if err != nil {
		return usageError{err}
	}
	options := rules.Options{
		Functions: s.functions, Attempts: s.trace, Sinks: sinks, ConfirmURL: s.confirmURL,
		Workers: s.config.RuleWorkers, MaxQueued: s.config.RuleQueue, MaxDeliveries: s.config.RuleDeliveries,
		DeliveryAge: s.config.RuleDeliveryAge, PrivateAccount: s.privateAccount(), Logger: s.logger,
	}
	if s.config.RuleRoots != "" {
		pem, err := os.ReadFile(s.config.RuleRoots)
		if err != nil {
			return fmt.Errorf("couldn't read the roots of http actions: %w", err)
		}
		options.Roots = x509.NewCertPool()
		if !options.Roots.AppendCertsFromPEM(pem) {
			return usageError{fmt.Errorf("%s (--rule-roots) has no PEM certificate", s.config.RuleRoots)}
		}
	}
	s.rules = rules.New(s.store, s.clock, options)
	s.closeLater(func() {
		err := s.rules.Close()
		if err != nil {
			s.logger.Error("couldn't close the sinks of topic rules", "error", err)
		}
	})
	return nil
}

// confirmPrefix begins the path of the URLs that enable destinations, which their
// owners open without a signature.
const confirmPrefix = "/confirmdestination/"

func (s *server) confirmURL() string {
	return s.linkURL() + strings.TrimSuffix(confirmPrefix, "/")
}

// opensConfirmation says whether a request is one for an enableUrl, and not the
// signed operation of the same path.
func opensConfirmation(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, confirmPrefix) && r.Header.Get("Authorization") == "" &&
		!r.URL.Query().Has("X-Amz-Signature")
}

// confirmDestination answers a request for an enableUrl.
func (s *server) confirmDestination(w http.ResponseWriter, r *http.Request) {
	token, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), confirmPrefix))
	const longest = 2048 // ConfirmationToken of the API model
	if err != nil || len(token) > longest {
		respond(w, http.StatusBadRequest, map[string]string{"message": "the confirmation token isn't valid"})
		return
	}
	err = s.service.ConfirmDestination(r.Context(), token)
	if err != nil {
		row := imprint.Describe(imprint.CodeOf(err))
		status := row.Status
		if status == 0 {
			status = http.StatusInternalServerError
		}
		if status >= http.StatusInternalServerError {
			s.logger.Error("couldn't confirm a destination of topic rules", "error", err)
		}
		w.Header().Set("X-Amzn-Errortype", row.Exception)
		respond(w, status, map[string]string{"message": imprint.MessageOf(err)})
		return
	}
	respond(w, http.StatusOK, map[string]string{})
}

// ruleMetrics are the counters of topic rules that have labels.
type ruleMetrics struct{ engine *rules.Engine }

var ruleActionsTotal = prometheus.NewDesc("imprint_rule_actions_total",
	"Actions of topic rules by kind and outcome: done, retried, failed.", []string{"action", "outcome"}, nil)

// Describe implements prometheus.Collector.
func (r ruleMetrics) Describe(to chan<- *prometheus.Desc) { to <- ruleActionsTotal }

// Collect implements prometheus.Collector.
func (r ruleMetrics) Collect(to chan<- prometheus.Metric) {
	counts := r.engine.Counters().Actions
	for _, kind := range rules.ActionKinds() {
		c := counts[kind]
		for _, one := range []struct {
			outcome string
			count   uint64
		}{{"done", c.Done}, {"retried", c.Retried}, {"failed", c.Failed}} {
			to <- prometheus.MustNewConstMetric(ruleActionsTotal, prometheus.CounterValue, float64(one.count), string(kind), one.outcome)
		}
	}
}

// watchRules adds the counters of topic rules.
func (m *metrics) watchRules(engine *rules.Engine) {
	m.registry.MustRegister(ruleMetrics{engine})
	for _, c := range []struct {
		name, help string
		read       func(rules.Counters) uint64
	}{
		{"imprint_rule_matches_total", "Messages that the FROM of a topic rule took, once for each rule.", func(c rules.Counters) uint64 { return c.Matched }},
		{"imprint_rule_selected_total", "Messages that a topic rule's WHERE held for.", func(c rules.Counters) uint64 { return c.Selected }},
		{"imprint_rule_errors_total", "Messages that were too much for a topic rule's statement.", func(c rules.Counters) uint64 { return c.Errors }},
		{"imprint_rule_problems_total", "Expressions of topic rules that were Undefined because something failed.", func(c rules.Counters) uint64 { return c.Problems }},
		{"imprint_rule_dropped_total", "Messages that the queue of topic rules had no room for.", func(c rules.Counters) uint64 { return c.Dropped }},
		{"imprint_rule_not_found_total", "Basic Ingest messages for a topic rule that doesn't exist or is disabled.", func(c rules.Counters) uint64 { return c.Missing }},
		{"imprint_rule_loops_total", "Messages that topic rules republished too often.", func(c rules.Counters) uint64 { return c.Looped }},
		{"imprint_rule_unlogged_total", "Failures of topic rules that weren't logged because the rule had many.", func(c rules.Counters) uint64 { return c.Unlogged }},
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: c.name, Help: c.help},
			func() float64 { return float64(c.read(engine.Counters())) }))
	}
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "imprint_rule_waiting", Help: "Messages that wait for topic rules."},
		func() float64 { return float64(engine.Counters().Waiting) }))
}
