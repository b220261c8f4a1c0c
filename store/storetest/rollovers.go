package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

func rolloverRows() []row {
	return []row{{
		name: "rollover",
		full: func(t imprint.Tenant) any {
			return imprint.Rollover{Tenant: t, From: certID(1), To: certID(2), Devices: 1 << 40, Certificates: 1 << 41, LastEnd: instant.Add(time.Hour),
				RenewFrom: instant, RenewUntil: instant.Add(time.Minute), StartedAt: instant.Add(-time.Hour), StartedBy: unusual}
		},
		bare:   func(t imprint.Tenant) any { return imprint.Rollover{Tenant: t, From: certID(1)} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutRollover(v.(imprint.Rollover)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.Rollover(t, certID(1)) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteRollover(t, certID(1)) },
	}}
}

// testSightings ensures that a sighting keeps when it was first, that one soon after
// another changes nothing, and that they go by tenant.
func testSightings(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	see := func(tenant imprint.Tenant, n int, at time.Time) {
		t.Helper()
		update(t, store, func(tx imprint.Tx) error {
			return tx.PutSighting(imprint.Sighting{Tenant: tenant, Certificate: certID(n), FirstAt: at, LastAt: at})
		})
	}
	for _, tenant := range []imprint.Tenant{here, there} {
		see(tenant, 1, instant)
		see(tenant, 2, instant)
	}
	last := func(want time.Time) {
		t.Helper()
		view(t, store, func(tx imprint.ReadTx) error {
			s, err := tx.Sighting(here, certID(1))
			same(t, "the sighting", s, imprint.Sighting{Tenant: here, Certificate: certID(1), FirstAt: instant, LastAt: want})
			return err
		})
	}
	see(here, 1, instant.Add(time.Hour-time.Millisecond))
	last(instant)
	see(here, 1, instant.Add(time.Hour))
	last(instant.Add(time.Hour))
	see(here, 1, instant.Add(-time.Hour))
	last(instant.Add(time.Hour))
	for _, want := range []int{1, 1, 0} {
		update(t, store, func(tx imprint.Tx) error {
			n, err := tx.DeleteSightings(here, 1)
			same(t, "how many were deleted", n, want)
			return err
		})
	}
	view(t, store, func(tx imprint.ReadTx) error {
		_, err := tx.Sighting(here, certID(1))
		wantCode(t, err, imprint.CodeNotFound)
		_, err = tx.Sighting(there, certID(2))
		return err
	})
	update(t, store, func(tx imprint.Tx) error {
		err := tx.PutRollover(imprint.Rollover{Tenant: there, From: certID(1)})
		if err != nil {
			return err
		}
		return tx.PutRollover(imprint.Rollover{Tenant: there, From: certID(2)})
	})
	view(t, store, func(tx imprint.ReadTx) error {
		tenants, err := tx.RolloverTenants()
		same(t, "tenants with rollovers", fmt.Sprint(tenants), fmt.Sprint([]imprint.Tenant{there}))
		return err
	})
}
