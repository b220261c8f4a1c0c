package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/issuances"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
	"github.com/imprint-iot/imprint/pki/translog"
)

// IssuanceLogConfig are the settings of `imprint serve` for the log of issuances.
type IssuanceLogConfig struct {
	// IssuanceLog is whether every certificate that a CA of the server signs goes into the
	// tamper-evident log. Without it they wait in the registry, and are logged when it is
	// on again. Default true.
	IssuanceLog bool `koanf:"issuance-log"`
	// IssuanceLogOrigin is the log's name, for life: a URL without its scheme that no other
	// log has, such as example.com/imprint. Empty: the one that it has, or a random one.
	IssuanceLogOrigin string `koanf:"issuance-log-origin"`
	// IssuanceLogPublic serves the log at --pki-address, below /issuance-log/, to everybody:
	// who reads it reads every certificate in it. Default false.
	IssuanceLogPublic bool `koanf:"issuance-log-public"`
}

func addIssuanceLogFlags(f *pflag.FlagSet) {
	f.Bool("issuance-log", true, "log every certificate that is signed in a tamper-evident log")
	f.String("issuance-log-origin", "", "the log's name for life, such as example.com/imprint (default: one with a random end)")
	f.Bool("issuance-log-public", false, "serve the log, with every certificate in it, at --pki-address below /issuance-log/")
}

func (c IssuanceLogConfig) check(pkiAddress string) error {
	if c.IssuanceLogPublic && (pkiAddress == "" || !c.IssuanceLog) {
		return usageError{errors.New("issuance-log-public serves the log at pki-address, and needs that and issuance-log")}
	}
	return nil
}

// openIssuanceLog opens the log, or begins it. A log that can't be gone on with keeps the
// server from nothing but logging: devices connect and certificates are issued, which wait in
// the registry.
func (s *server) openIssuanceLog(ctx context.Context) error {
	if !s.config.IssuanceLog {
		s.logger.Warn("issued certificates aren't logged; they wait in the registry (--issuance-log)")
		s.logFailure = imprint.Errorf(imprint.CodeNotOffered, "this server runs without an issuance log").WithHint("Start it with --issuance-log=true.")
		return nil
	}
	log, err := translog.Open(ctx, translog.Config{
		Dir: filepath.Join(s.config.Data, issuanceLog), Store: s.store, Sealer: s.sealer, Clock: s.clock, Origin: s.config.IssuanceLogOrigin, Logger: s.logger,
	})
	switch {
	case imprint.CodeOf(err) == imprint.CodeInvalidRequest, err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		s.logger.Error("Issued certificates aren't logged; they wait in the registry.", "error", err, "hint", imprint.HintOf(err))
		s.logFailure = imprint.Errorf(imprint.CodeUnavailable, "the issuance log can't be used: %w", err).WithHint("%s", imprint.HintOf(err))
		return nil
	}
	s.issuanceLog = log
	s.closeLater(func() {
		// What it can't publish now it publishes after the next start.
		grace, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		err := log.Close(grace)
		if err != nil {
			s.logger.Error("couldn't close the issuance log", "error", err)
		}
	})
	return nil
}

// journal makes the record of signatures, which refuses new ones when too many wait for the
// log.
func (s *server) journal() *issuelog.Log {
	log := issuelog.New(s.store)
	if s.issuanceLog == nil {
		return log
	}
	return log.Within(s.issuanceLog.Room)
}

// loggedTo gives the log, or why there is none.
func (s *server) loggedTo() (*translog.Log, error) {
	if s.issuanceLog == nil {
		return nil, s.logFailure
	}
	return s.issuanceLog, nil
}

// issuanceReader answers for the log on the port of the control plane.
func (s *server) issuanceReader() issuances.Reader {
	auditor := translog.NewAuditor(s.clock, func() (translog.AuditConfig, error) {
		log, err := s.loggedTo()
		if err != nil {
			return translog.AuditConfig{}, err
		}
		check, err := translog.Recheck(context.Background(), s.store)
		if err != nil {
			return translog.AuditConfig{}, err
		}
		return translog.AuditConfig{
			Store: s.store, Source: log.Source(), Verifier: log.Verifier(), DeviceCA: s.authority.Certificate(), Check: check, Clock: s.clock,
		}, nil
	})
	s.closeLater(auditor.Close)
	return issuances.Reader{Log: s.loggedTo, Store: s.store, Auditor: auditor, Home: s.home.Account}
}

// recordProfiles records the rules of all profiles that the server signs by, where they changed:
// what is issued is checked again by those.
func (s *server) recordProfiles(ctx context.Context) error {
	used := map[string]*pki.Profile{}
	for _, p := range []*pki.Profile{s.profile, s.claims.Profile()} {
		used[translog.RulesOf("", p.Name())] = p
	}
	profiles := s.authorities.Profiles()
	for _, name := range profiles.Names() {
		p, err := profiles.Profile(name)
		if err != nil {
			return err
		}
		used[name] = p
	}
	now := s.clock()
	return s.store.Update(ctx, func(tx imprint.Tx) error {
		recorded, err := tx.ProfileRules()
		if err != nil {
			return err
		}
		newest := map[string]string{}
		for _, r := range recorded {
			newest[r.Name] = r.Rules
		}
		for name, p := range used {
			rules, err := json.Marshal(p.Config())
			if err != nil {
				return fmt.Errorf("couldn't encode the rules of profile %s: %w", name, err)
			}
			if newest[name] == string(rules) {
				continue
			}
			err = tx.PutProfileRules(imprint.ProfileRules{Name: name, From: now, Rules: string(rules)})
			if err != nil {
				return fmt.Errorf("couldn't record the rules of profile %s: %w", name, err)
			}
		}
		return nil
	})
}

// publicLog is where the log is at the door for relying parties.
const publicLog = "/issuance-log/"

// withPublicLog serves the log beside what that door has.
func (s *server) withPublicLog(rest http.Handler) http.Handler {
	if !s.config.IssuanceLogPublic || s.issuanceLog == nil {
		return rest
	}
	log := http.StripPrefix(strings.TrimSuffix(publicLog, "/"), s.issuanceLog.Handler())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, publicLog) {
			log.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

// watchIssuanceLog exposes how far the log is. Without one that can be gone on with it is
// broken, unless it was switched off.
func (m *metrics) watchIssuanceLog(log *translog.Log, failed bool) {
	counters := func() translog.Counters {
		if log == nil {
			return translog.Counters{Broken: failed}
		}
		return log.Counters()
	}
	for _, one := range []struct {
		name, help string
		read       func(translog.Counters) float64
	}{
		{"imprint_issuance_log_entries", "Certificates in the issuance log.", func(c translog.Counters) float64 { return float64(c.Size) }},
		{"imprint_issuance_log_published", "Of those, how many the published checkpoint covers.", func(c translog.Counters) float64 { return float64(c.Published) }},
		{"imprint_issuance_log_waiting", "Certificates that wait for the issuance log.", func(c translog.Counters) float64 { return float64(c.Waiting) }},
		{"imprint_issuance_log_lag_seconds", "How long the first of those waits.", func(c translog.Counters) float64 { return c.Lag.Seconds() }},
		{"imprint_issuance_log_broken", "1 when nothing more can be added to the issuance log.", func(c translog.Counters) float64 {
			if c.Broken {
				return 1
			}
			return 0
		}},
	} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: one.name, Help: one.help}, func() float64 { return one.read(counters()) }))
	}
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "imprint_issuance_log_failures_total", Help: "Times that adding to the issuance log failed; it is tried again.",
	}, func() float64 { return float64(counters().Failures) }))
}
