package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

func authorityID(n int) imprint.AuthorityID {
	return imprint.AuthorityID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n))
}

// testAuthorities ensures that authorities and what they issued are found in every way
// that signing and revoking need, and in their own tenant alone.
func testAuthorities(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	one, two := authorityID(1), authorityID(2)
	update(t, store, func(tx imprint.Tx) error {
		for n, tenant := range []imprint.Tenant{here, there} {
			for _, a := range []imprint.CertificateAuthority{
				{Tenant: tenant, ID: one, Name: "line", Status: imprint.AuthorityDeleted, CertificateID: certID(1), KeyHash: "line key"},
				{Tenant: tenant, ID: two, Name: "line", Status: imprint.AuthorityActive, CertificateID: certID(2 + 10*n)},
			} {
				err := tx.PutAuthority(a)
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	issue := func(n int, change func(*imprint.Issuance)) {
		i := imprint.Issuance{ID: fmt.Sprintf("i%02d", n), Tenant: here, Authority: two, Serial: fmt.Sprintf("%02x", n), KeyHash: "key", CertificateID: certID(100 + n), NotAfter: instant.Add(time.Hour)}
		change(&i)
		update(t, store, func(tx imprint.Tx) error { return tx.PutIssuance(i) })
	}
	issue(1, func(i *imprint.Issuance) { i.RevokedAt, i.Reason = instant, imprint.ReasonSuperseded })
	issue(2, func(i *imprint.Issuance) { i.RequestToken = "again" })
	issue(3, func(i *imprint.Issuance) { i.RevokedAt, i.NotAfter = instant, instant.Add(-time.Hour) })
	issue(4, func(i *imprint.Issuance) { i.Tenant, i.RevokedAt = there, instant })
	issue(5, func(i *imprint.Issuance) { i.Authority, i.RevokedAt, i.KeyHash = "", instant, "" })
	issue(7, func(i *imprint.Issuance) { i.CertificateID = "" })
	issue(8, func(i *imprint.Issuance) { i.CA = true })
	issue(6, func(i *imprint.Issuance) { i.Serial, i.Authority, i.KeyHash = "02", one, "other" })
	view(t, store, func(tx imprint.ReadTx) error {
		a, err := tx.AuthorityNamed(here, "line")
		same(t, "the one of a name", fmt.Sprint(a.ID, err), fmt.Sprint(two, nil))
		_, err = tx.AuthorityNamed(here, "")
		same(t, "the one without a name", imprint.CodeOf(err), imprint.CodeNotFound)
		a, err = tx.AuthorityOf(there, certID(12))
		same(t, "the one of a certificate", fmt.Sprint(a.ID, a.Tenant, err), fmt.Sprint(two, there, nil))
		_, err = tx.AuthorityOf(here, certID(12))
		same(t, "another tenant's", imprint.CodeOf(err), imprint.CodeNotFound)
		i, err := tx.IssuanceOf(here, two, "02")
		same(t, "a serial number", fmt.Sprint(i.ID, err), fmt.Sprint("i02", nil))
		_, err = tx.IssuanceOf(here, "", "05")
		same(t, "a serial number of the built-in CA", imprint.CodeOf(err), imprint.CodeNotFound)
		i, err = tx.IssuanceRequested(here, two, "again")
		same(t, "a request", fmt.Sprint(i.ID, err), fmt.Sprint("i02", nil))
		_, err = tx.IssuanceRequested(here, two, "")
		same(t, "no request", imprint.CodeOf(err), imprint.CodeNotFound)
		for _, c := range []struct {
			name  string
			query imprint.KeyQuery
			limit int
			want  string
		}{
			{"a key, without the intent", imprint.KeyQuery{KeyHash: "key"}, 100, "i02 i03 i01 "},
			{"a key, one", imprint.KeyQuery{KeyHash: "key"}, 1, "i02 "},
			{"a key of a CA", imprint.KeyQuery{KeyHash: "key", CA: true}, 100, "i08 "},
			{"a key that was revoked for a reason", imprint.KeyQuery{KeyHash: "key", Reason: imprint.ReasonSuperseded}, 100, "i01 "},
			{"no key", imprint.KeyQuery{}, 100, ""},
		} {
			withKey, err := tx.IssuancesWithKey(here, c.query, c.limit)
			if err != nil {
				return err
			}
			found := ""
			for _, one := range withKey {
				found += one.ID + " "
			}
			same(t, "those with "+c.name, found, c.want)
		}
		i, err = tx.IssuanceOfCertificate(here, certID(102))
		same(t, "the one that made a certificate", fmt.Sprint(i.ID, err), fmt.Sprint("i02", nil))
		_, err = tx.IssuanceOfCertificate(there, certID(102))
		same(t, "another tenant's certificate", imprint.CodeOf(err), imprint.CodeNotFound)
		_, err = tx.IssuanceOfCertificate(here, "")
		same(t, "no certificate", imprint.CodeOf(err), imprint.CodeNotFound)
		a, err = tx.AuthorityOfKey(here, "line key")
		same(t, "the authority of a key", fmt.Sprint(a.ID, err), fmt.Sprint(one, nil))
		_, err = tx.AuthorityOfKey(here, "")
		same(t, "the authority of no key", imprint.CodeOf(err), imprint.CodeNotFound)
		_, err = tx.AuthorityOfKey(there, "another")
		same(t, "the authority of another tenant's key", imprint.CodeOf(err), imprint.CodeNotFound)
		var revoked []imprint.RevokedSerial
		err = tx.RevokedBy(here, two, instant, func(s imprint.RevokedSerial) bool {
			revoked = append(revoked, s)
			return true
		})
		same(t, "what is revoked and hasn't ended", revoked, []imprint.RevokedSerial{{Serial: "01", RevokedAt: instant, Reason: imprint.ReasonSuperseded}})
		tenants, tenantsErr := tx.AuthorityTenants()
		same(t, "tenants with authorities", fmt.Sprint(len(tenants), tenantsErr), fmt.Sprint(2, nil))
		return err
	})
	listed := imprint.RevocationList{Tenant: here, Authority: two, Shard: 1, Number: 9, ThisUpdate: instant, NextUpdate: instant.Add(time.Hour), DueAt: instant.Add(time.Minute)}
	update(t, store, func(tx imprint.Tx) error {
		with := listed
		with.DER = []byte("0\x00\xff")
		err := tx.PutRevocationList(with)
		if err == nil {
			err = tx.PutRevocationList(imprint.RevocationList{Tenant: here, Authority: two})
		}
		return err
	})
	view(t, store, func(tx imprint.ReadTx) error {
		l, size, err := tx.RevocationListSize(here, two, 1)
		same(t, "a list without its DER", l, listed)
		same(t, "the size of a list", fmt.Sprint(size, err), fmt.Sprint(3, nil))
		_, size, err = tx.RevocationListSize(here, two, 0)
		same(t, "the size of one that isn't signed", fmt.Sprint(size, err), fmt.Sprint(0, nil))
		_, _, err = tx.RevocationListSize(there, two, 1)
		same(t, "another tenant's list", imprint.CodeOf(err), imprint.CodeNotFound)
		return nil
	})
	err := store.Update(t.Context(), func(tx imprint.Tx) error {
		return tx.PutIssuance(imprint.Issuance{ID: "again", Tenant: here, Authority: two, Serial: "01"})
	})
	if err == nil {
		t.Error("one serial number was issued twice")
	}
}
