package storetest

import (
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// testRenewals ensures that renewals are found by both certificates, by when they are due
// and while they are open, and certificates by their end.
func testRenewals(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	put := func(made, old int, state imprint.RenewalState, tenant imprint.Tenant, hours int) {
		r := imprint.Renewal{Tenant: tenant, Certificate: certID(made), Renews: certID(old), State: state, CreatedAt: instant.Add(time.Duration(made) * time.Second)}
		if state == imprint.RenewalProven {
			r.DueAt = instant.Add(time.Duration(hours) * time.Hour)
		}
		if !r.Open() {
			r.EndedAt = instant.Add(time.Duration(hours) * time.Hour)
		}
		update(t, store, func(tx imprint.Tx) error { return tx.PutRenewal(r) })
	}
	put(11, 1, imprint.RenewalPending, here, 0)
	put(12, 1, imprint.RenewalProven, here, 2)
	put(13, 2, imprint.RenewalProven, there, 1)
	put(14, 1, imprint.RenewalDone, here, 1)
	put(15, 3, imprint.RenewalAbandoned, here, 5)
	made := func(all []imprint.Renewal, err error) []imprint.CertificateID {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		ids := []imprint.CertificateID{}
		for _, r := range all {
			ids = append(ids, r.Certificate)
		}
		return ids
	}
	ids := func(numbers ...int) []imprint.CertificateID {
		all := []imprint.CertificateID{}
		for _, n := range numbers {
			all = append(all, certID(n))
		}
		return all
	}
	view(t, store, func(tx imprint.ReadTx) error {
		same(t, "those of an old one", made(tx.RenewalsOf(here, certID(1))), ids(11, 12, 14))
		same(t, "another tenant's", made(tx.RenewalsOf(there, certID(1))), ids())
		same(t, "those that are due", made(tx.DueRenewals(instant.Add(2*time.Hour), 10)), ids(13, 12))
		same(t, "the first that is due", made(tx.DueRenewals(instant.Add(2*time.Hour), 1)), ids(13))
		same(t, "those that are due early", made(tx.DueRenewals(instant, 10)), ids())
		// By account and region.
		same(t, "the open ones", made(tx.OpenRenewals(imprint.Tenant{}, "", 10)), ids(13, 11, 12))
		same(t, "the open ones behind one", made(tx.OpenRenewals(here, certID(11), 10)), ids(12))
		return nil
	})
	trim := func(want int) {
		var gone int
		update(t, store, func(tx imprint.Tx) error {
			var err error
			gone, err = tx.TrimRenewals(instant.Add(2*time.Hour), 10)
			return err
		})
		same(t, "renewals that are trimmed", gone, want)
	}
	trim(1)
	trim(0)

	for n, status := range []imprint.CertificateStatus{imprint.CertificateActive, imprint.CertificateInactive, imprint.CertificateActive, imprint.CertificateActive} {
		update(t, store, func(tx imprint.Tx) error {
			return tx.PutCertificate(imprint.Certificate{Tenant: here, ID: certID(n), Status: status, NotAfter: instant.Add(time.Duration(4-n) * time.Hour)})
		})
	}
	update(t, store, func(tx imprint.Tx) error {
		return tx.PutCertificate(imprint.Certificate{Tenant: here, ID: certID(9), Status: imprint.CertificateActive, NotAfter: time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC)})
	})
	forever := instant.AddDate(100, 0, 0)
	view(t, store, func(tx imprint.ReadTx) error {
		n, err := tx.CountExpiring(here, instant, forever)
		same(t, "how many end", n, imprint.Expiring{All: 3, Alone: 3})
		if err != nil {
			return err
		}
		var found []imprint.CertificateID
		p := imprint.Page{Limit: 2}
		for {
			part, next, err := tx.ExpiringCertificates(here, instant, instant.Add(4*time.Hour), p)
			if err != nil {
				return err
			}
			for _, c := range part {
				found = append(found, c.ID)
			}
			if next == "" {
				break
			}
			p.Cursor = next
		}
		same(t, "those that end, the earliest first", found, ids(3, 2, 0))
		part, _, err := tx.ExpiringCertificates(there, instant, forever, imprint.Page{Limit: 2})
		same(t, "those of another tenant", len(part), 0)
		return err
	})
	put(16, 0, imprint.RenewalPending, here, 0)
	put(17, 2, imprint.RenewalDone, here, 9)
	view(t, store, func(tx imprint.ReadTx) error {
		n, err := tx.CountExpiring(here, instant, forever)
		same(t, "how many end of which one is renewed", n, imprint.Expiring{All: 3, Alone: 2})
		return err
	})
}
