package storetest

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

func claimRows() []row {
	id := certID(0xc1a)
	return []row{{
		name: "pending certificate",
		full: func(t imprint.Tenant) any {
			return imprint.PendingCertificate{Tenant: t, Certificate: id, Claim: certID(1), ClientID: unusual, TokenHash: "5b",
				CreatedAt: instant, ExpiresAt: instant.Add(time.Hour), Used: true}
		},
		bare:   func(t imprint.Tenant) any { return imprint.PendingCertificate{Tenant: t, Certificate: id} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutPendingCertificate(v.(imprint.PendingCertificate)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.PendingCertificate(t, id) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeletePendingCertificate(t, id) },
	}, {
		name: "provisioning claim",
		full: func(t imprint.Tenant) any {
			return imprint.ProvisioningClaim{Tenant: t, Certificate: id, Template: "line", RequestedBy: "arn:" + unusual,
				CreatedAt: instant, ExpiresAt: instant.Add(time.Minute), Device: certID(2), Thing: "t", Devices: 3}
		},
		bare:   func(t imprint.Tenant) any { return imprint.ProvisioningClaim{Tenant: t, Certificate: id} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutProvisioningClaim(v.(imprint.ProvisioningClaim)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.ProvisioningClaim(t, id) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteProvisioningClaim(t, id) },
	}, {
		name: "certificate provider",
		full: func(t imprint.Tenant) any {
			return imprint.CertificateProvider{Tenant: t, Name: "maker", FunctionARN: "arn:aws:lambda:x", Operations: []string{"A", "B"},
				CreatedAt: instant, ModifiedAt: instant.Add(time.Second)}
		},
		bare: func(t imprint.Tenant) any { return imprint.CertificateProvider{Tenant: t, Name: "maker"} },
		put:  func(tx imprint.Tx, v any) error { return tx.PutCertificateProvider(v.(imprint.CertificateProvider)) },
		get: func(tx imprint.ReadTx, t imprint.Tenant) (any, error) {
			list, err := tx.CertificateProviders(t)
			if err == nil && len(list) != 1 {
				err = imprint.Errorf(imprint.CodeNotFound, "there are %d providers", len(list))
			}
			if err != nil {
				return nil, err
			}
			return list[0], nil
		},
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteCertificateProvider(t, "maker") },
	}, {
		name: "claim guard",
		full: func(t imprint.Tenant) any {
			return imprint.ClaimGuard{Tenant: t, Claim: id, Quota: 1000, NotBefore: instant, NotAfter: instant.Add(time.Hour),
				Networks:        []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
				SerialParameter: unusual, SerialReuse: true, MaxRequests: 3, MaxRefusals: 4, Window: time.Minute, Devices: 5, Serials: 6,
				StoppedAt: instant.Add(time.Second), StopCode: imprint.CodeClaimQuota, StopReason: unusual, CreatedAt: instant, ModifiedAt: instant}
		},
		bare:   func(t imprint.Tenant) any { return imprint.ClaimGuard{Tenant: t, Claim: id} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutClaimGuard(v.(imprint.ClaimGuard)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.ClaimGuard(t, id) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteClaimGuard(t, id) },
	}, {
		name: "claim serial",
		full: func(t imprint.Tenant) any {
			return imprint.ClaimSerial{Tenant: t, Claim: id, Serial: unusual, Device: certID(3)}
		},
		bare: func(t imprint.Tenant) any { return imprint.ClaimSerial{Tenant: t, Claim: id, Serial: unusual} },
		put:  func(tx imprint.Tx, v any) error { return tx.PutClaimSerial(v.(imprint.ClaimSerial)) },
		get:  func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.ClaimSerial(t, id, unusual) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error {
			_, err := tx.DeleteClaimSerials(t, id, 10)
			return err
		},
	}}
}

func guardList() pagedList {
	return pagedList{"claim guards", func(tx imprint.Tx, t imprint.Tenant, n int) error {
		return tx.PutClaimGuard(imprint.ClaimGuard{Tenant: t, Claim: certID(n), Quota: n})
	}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
		guards, next, err := tx.ClaimGuards(t, p)
		var list []int
		for _, g := range guards {
			list = append(list, g.Quota)
		}
		return list, next, err
	}}
}

// testDue ensures that what has ended is listed over all tenants, the longest ago
// first.
func testDue(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	update(t, store, func(tx imprint.Tx) error {
		for n, tenant := range []imprint.Tenant{other, here, there, here} {
			at := instant.Add(time.Duration(3-n) * time.Minute)
			err := tx.PutPendingCertificate(imprint.PendingCertificate{Tenant: tenant, Certificate: certID(n), ExpiresAt: at})
			if err != nil {
				return err
			}
			err = tx.PutProvisioningClaim(imprint.ProvisioningClaim{Tenant: tenant, Certificate: certID(n), ExpiresAt: at})
			if err != nil {
				return err
			}
		}
		return nil
	})
	for _, c := range []struct {
		before time.Duration
		limit  int
		want   string
	}{{0, 10, "[]"}, {time.Millisecond, 10, "[3]"}, {2 * time.Minute, 10, "[3 2]"}, {time.Hour, 10, "[3 2 1 0]"}, {time.Hour, 3, "[3 2 1]"}, {time.Hour, 0, "[]"}} {
		view(t, store, func(tx imprint.ReadTx) error {
			pending, err := tx.PendingCertificatesDue(instant.Add(c.before), c.limit)
			if err != nil {
				return err
			}
			claims, err := tx.ProvisioningClaimsDue(instant.Add(c.before), c.limit)
			var gotPending, gotClaims []string
			for _, p := range pending {
				gotPending = append(gotPending, string(p.Certificate[63:]))
			}
			for _, p := range claims {
				gotClaims = append(gotClaims, string(p.Certificate[63:]))
			}
			same(t, fmt.Sprintf("pending before %s", c.before), fmt.Sprint(gotPending), c.want)
			same(t, fmt.Sprintf("claims before %s", c.before), fmt.Sprint(gotClaims), c.want)
			return err
		})
	}
}

// testSerials ensures that an allow list grows by what is new, and shrinks by
// parts.
func testSerials(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	add := func(tenant imprint.Tenant, claim imprint.CertificateID, want int, serials ...string) {
		t.Helper()
		update(t, store, func(tx imprint.Tx) error {
			got, err := tx.AddClaimSerials(tenant, claim, serials)
			same(t, "serials added", got, want)
			return err
		})
	}
	add(here, certID(1), 3, "a", "b", "c", "a")
	update(t, store, func(tx imprint.Tx) error {
		return tx.PutClaimSerial(imprint.ClaimSerial{Tenant: here, Claim: certID(1), Serial: "b", Device: certID(9)})
	})
	add(here, certID(1), 1, "b", "c", "d")
	add(here, certID(2), 1, "a")
	add(there, certID(1), 1, "a")
	view(t, store, func(tx imprint.ReadTx) error {
		got, err := tx.ClaimSerial(here, certID(1), "b")
		same(t, "a serial that was used, and added again", got.Device, certID(9))
		return err
	})
	for _, want := range []int{3, 1, 0} {
		update(t, store, func(tx imprint.Tx) error {
			got, err := tx.DeleteClaimSerials(here, certID(1), 3)
			same(t, "serials deleted", got, want)
			return err
		})
	}
	view(t, store, func(tx imprint.ReadTx) error {
		for _, kept := range []imprint.ClaimSerial{{Tenant: here, Claim: certID(2), Serial: "a"}, {Tenant: there, Claim: certID(1), Serial: "a"}} {
			got, err := tx.ClaimSerial(kept.Tenant, kept.Claim, kept.Serial)
			if err != nil {
				return err
			}
			same(t, "a serial of another list", got, kept)
		}
		return nil
	})
}
