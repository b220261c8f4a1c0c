package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/renewal"
)

// openRenewals makes what follows renewed certificates.
func (s *server) openRenewals(ctx context.Context) error {
	window, err := imprint.ParseRenewalWindow(s.config.RenewalWindow)
	if err != nil {
		return err
	}
	s.renewals, err = renewal.New(ctx, renewal.Options{
		Store: s.store, Clock: s.clock, Grace: s.config.RenewalGrace, Window: window, Warning: s.config.ExpiryWarning, Logger: s.logger,
		InUse: func(tenant imprint.Tenant, id imprint.CertificateID) bool {
			return len(s.broker.Connected(tenant, "", id)) > 0
		},
	})
	if err != nil {
		return err
	}
	s.closeLater(s.renewals.Close)
	s.metrics.registry.MustRegister(renewalMetrics{s.renewals})
	return nil
}

// renewed puts a new certificate in the place of an old one, for the authorities, which are
// opened before.
func (s *server) renewed(tx imprint.Tx, tenant imprint.Tenant, old imprint.CertificateID, issued *pki.Issued, signer imprint.CertificateID) error {
	return s.renewals.Attach(tx, tenant, old, issued, signer)
}

// saw tells all who want to know of a connection that was let in.
func (s *server) saw(tenant imprint.Tenant, id imprint.CertificateID) {
	s.rollovers.Saw(tenant, id)
	s.renewals.Saw(tenant, id)
}

// renewalMetrics shows what became of renewals, and what needs one.
type renewalMetrics struct{ renewals *renewal.Engine }

var (
	renewalsTotal = prometheus.NewDesc("imprint_renewals_total", "What became of renewals: proven by a connection, fell back (the device came back with the old certificate), "+
		"retired (old certificates made INACTIVE), postponed, abandoned.", []string{"what"}, nil)
	expiringCertificates = prometheus.NewDesc("imprint_certificates_expiring",
		"ACTIVE certificates that end within --expiry-warning, counted each hour: all, and those without a renewal under way.", []string{"renewal"}, nil)
)

// Describe implements prometheus.Collector.
func (m renewalMetrics) Describe(to chan<- *prometheus.Desc) {
	to <- renewalsTotal
	to <- expiringCertificates
}

// Collect implements prometheus.Collector.
func (m renewalMetrics) Collect(to chan<- prometheus.Metric) {
	c := m.renewals.Counters()
	for what, n := range map[string]uint64{"proven": c.Proven, "fell back": c.FellBack, "retired": c.Retired, "postponed": c.Postponed, "abandoned": c.Abandoned} {
		to <- prometheus.MustNewConstMetric(renewalsTotal, prometheus.CounterValue, float64(n), what)
	}
	soon := m.renewals.Soon()
	to <- prometheus.MustNewConstMetric(expiringCertificates, prometheus.GaugeValue, float64(soon.All-soon.Alone), "under way")
	to <- prometheus.MustNewConstMetric(expiringCertificates, prometheus.GaugeValue, float64(soon.Alone), "none")
}
