package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/ca/foreign"
	"github.com/imprint-iot/imprint/ca/rollover"
)

// authorityMetrics shows what certificate authorities do, and how old their CRLs are.
type authorityMetrics struct {
	engine    *ca.Engine
	foreign   *foreign.Engine
	rollovers *rollover.Planner
	store     imprint.Store
	clock     imprint.Clock
	logger    *slog.Logger
}

const (
	// crlPatience bounds what a scrape reads of the store.
	crlPatience = 2 * time.Second
	// maxCRLSeries bounds the authorities and imported lists that a scrape shows.
	maxCRLSeries = 1000
	// crlPage is how many authorities one transaction reads.
	crlPage = 200
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("imprint_"+name, help, labels, nil)
}

var (
	caIssued      = describe("ca_issued_total", "Certificates that authorities issued.", "profile")
	caRefused     = describe("ca_refused_total", "Requests for certificates that were refused.", "profile", "code")
	caKeyFailures = describe("ca_key_failures_total", "Times that the key of an authority couldn't be used: its store was away, or refused.", "code")
	ocspResponses = describe("ocsp_responses_total", "Answers to OCSP requests.", "status")
	crlsSigned    = describe("crl_signed_total", "CRLs that were signed.")
	crlFailures   = describe("crl_failures_total", "Times that the CRLs of an authority couldn't be signed.")
	crlThis       = describe("crl_this_update_timestamp_seconds", "When the oldest of an authority's CRLs was made, in seconds since 1970.", "authority")
	crlNext       = describe("crl_next_update_timestamp_seconds", "When the first of an authority's CRLs must have been replaced, in seconds since 1970.", "authority")
	crlMissing    = describe("crl_missing", "CRLs of an authority that were never signed.", "authority")

	importedCRLs     = describe("imported_crls_total", "Lists of CAs elsewhere that were imported.")
	importRefused    = describe("imported_crls_refused_total", "Lists of CAs elsewhere that couldn't be believed.")
	importFailures   = describe("imported_crl_fetch_failures_total", "Lists of CAs elsewhere that couldn't be fetched.")
	importRevoked    = describe("imported_crl_revoked_total", "Registered certificates that became REVOKED, or INACTIVE on hold, because a list of their CA has them.")
	importedNext     = describe("imported_crl_next_update_timestamp_seconds", "When the first of a CA's imported CRLs must have been replaced, in seconds since 1970.", "ca")
	sightingsDropped = describe("rollover_sightings_dropped_total", "Connections during a rollover that there was no room to remember.")
)

// Describe implements prometheus.Collector.
func (m authorityMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		caIssued, caRefused, caKeyFailures, ocspResponses, crlsSigned, crlFailures, crlThis, crlNext, crlMissing,
		importedCRLs, importRefused, importFailures, importRevoked, importedNext, sightingsDropped,
	} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m authorityMetrics) Collect(to chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	c := m.engine.Counters()
	for profile, n := range c.Issued {
		count(caIssued, n, profile)
	}
	for by, n := range c.Refused {
		count(caRefused, n, by.Profile, string(by.Code))
	}
	for _, code := range []imprint.Code{imprint.CodeKeyUnavailable, imprint.CodeKeyRefused} {
		count(caKeyFailures, c.KeyFailures[code], string(code))
	}
	for _, status := range []string{"good", "revoked", "unauthorized", "malformed", "try_later", "internal_error"} {
		count(ocspResponses, c.OCSP[status], status)
	}
	count(crlsSigned, c.ListsSigned)
	count(crlFailures, c.ListsFailed)
	f := m.foreign.Counters()
	count(importedCRLs, f.Imported)
	count(importRefused, f.Refused)
	count(importFailures, f.Failed)
	count(importRevoked, f.Revoked)
	count(sightingsDropped, m.rollovers.Dropped())
	ctx, cancel := context.WithTimeout(context.Background(), crlPatience)
	defer cancel()
	err := m.lists(ctx, to)
	if err == nil {
		err = m.imported(ctx, to)
	}
	if err != nil {
		m.logger.Warn("metrics don't tell the age of all revocation lists", "error", err)
	}
}

// seriesOf shows seconds since 1970 under a label.
func seriesOf(d *prometheus.Desc, at time.Time, label string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(at.Unix()), label)
}

// lists shows the CRLs of our own authorities.
func (m authorityMetrics) lists(ctx context.Context, to chan<- prometheus.Metric) error {
	var tenants []imprint.Tenant
	err := m.store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		tenants, err = tx.AuthorityTenants()
		return err
	})
	shown := 0
	for _, tenant := range tenants {
		for cursor := ""; err == nil; {
			var ages []listAge
			err = m.store.View(ctx, func(tx imprint.ReadTx) error {
				var err error
				ages, cursor, err = m.ages(tx, tenant, cursor)
				return err
			})
			for _, a := range ages {
				if shown++; shown > maxCRLSeries {
					return nil
				}
				a.show(to)
			}
			if cursor == "" {
				break
			}
		}
	}
	return err
}

// listAge is how old an authority's CRLs are.
type listAge struct {
	authority  imprint.AuthorityID
	this, next time.Time // the earliest; zero: none is signed
	missing    int
}

func (a *listAge) show(to chan<- prometheus.Metric) {
	to <- prometheus.MustNewConstMetric(crlMissing, prometheus.GaugeValue, float64(a.missing), string(a.authority))
	if !a.next.IsZero() {
		to <- seriesOf(crlThis, a.this, string(a.authority))
		to <- seriesOf(crlNext, a.next, string(a.authority))
	}
}

// ages reads one page of authorities with CRLs. Those that have ended need none any more.
func (m authorityMetrics) ages(tx imprint.ReadTx, tenant imprint.Tenant, cursor string) ([]listAge, string, error) {
	page, next, err := tx.Authorities(tenant, imprint.Page{Limit: crlPage, Cursor: cursor, Ascending: true})
	if err != nil {
		return nil, "", err
	}
	var all []listAge
	for n := range page {
		a := &page[n]
		if !a.Revocation.CRL || a.Key == "" || a.Certificate == "" || m.clock().After(a.NotAfter) {
			continue
		}
		lists, err := tx.RevocationLists(tenant, a.ID)
		if err != nil {
			return nil, "", err
		}
		age := listAge{authority: a.ID}
		for _, l := range lists {
			switch {
			case l.Retired:
			case l.NextUpdate.IsZero():
				age.missing++
			default:
				age.this, age.next = earlier(age.this, l.ThisUpdate), earlier(age.next, l.NextUpdate)
			}
		}
		all = append(all, age)
	}
	return all, next, nil
}

// earlier gives the earlier of two times; a zero one is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// imported shows the lists of CAs elsewhere.
func (m authorityMetrics) imported(ctx context.Context, to chan<- prometheus.Metric) error {
	next := map[imprint.CertificateID]time.Time{}
	err := m.store.View(ctx, func(tx imprint.ReadTx) error {
		clear(next)
		all, err := tx.AllForeignLists(0, maxCRLSeries)
		for _, l := range all {
			next[l.CA] = earlier(next[l.CA], l.NextUpdate)
		}
		return err
	})
	for id, at := range next {
		to <- seriesOf(importedNext, at, string(id))
	}
	return err
}
