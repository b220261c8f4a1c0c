package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

func authorityID(n int) imprint.AuthorityID {
	return imprint.AuthorityID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n))
}

// testRevocations ensures that what speaks against a certificate is found, by its id, its
// serial number, its issuer's name, and whatever stands above that.
func testRevocations(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	root, middle, line, sound := authorityID(1), authorityID(2), authorityID(3), authorityID(4)
	update(t, store, func(tx imprint.Tx) error {
		for _, a := range []imprint.CertificateAuthority{
			{Tenant: here, ID: root, Subject: []byte("root"), RevokedAt: instant, RevocationReason: imprint.ReasonKeyCompromise},
			{Tenant: here, ID: middle, Subject: []byte("middle"), Parent: root},
			{Tenant: here, ID: line, Subject: []byte("line"), Parent: middle},
			{Tenant: here, ID: sound, Subject: []byte("sound")},
			{Tenant: there, ID: root, Subject: []byte("root")},
			{Tenant: there, ID: middle, Subject: []byte("line"), Parent: root},
		} {
			err := tx.PutAuthority(a)
			if err != nil {
				return err
			}
		}
		for n, i := range []imprint.Issuance{
			{ID: "a", Tenant: there, Authority: sound, Serial: "01", CertificateID: certID(1), RevokedAt: instant, Reason: imprint.ReasonSuperseded},
			{ID: "b", Tenant: here, Authority: sound, Serial: "02", CertificateID: certID(2)},
		} {
			err := tx.PutIssuance(i)
			if err != nil {
				return fmt.Errorf("issuance %d: %w", n, err)
			}
		}
		for n := range 10_000 {
			err := tx.PutAdoptedRevocation(imprint.AdoptedRevocation{Tenant: there, Authority: authorityID(100 + n), Serial: "06", RevokedAt: instant})
			if err != nil {
				return err
			}
		}
		return tx.PutAdoptedRevocation(imprint.AdoptedRevocation{Tenant: here, Authority: sound, Serial: "03", RevokedAt: instant})
	})
	view(t, store, func(tx imprint.ReadTx) error {
		for _, c := range []struct {
			name, serial, issuer string
			id                   imprint.CertificateID
			want                 []imprint.Revocation
		}{
			{"what was issued and revoked", "01", "sound", certID(1), []imprint.Revocation{{Tenant: there, Authority: sound, Own: true, CertificateID: certID(1), RevokedAt: instant, Reason: imprint.ReasonSuperseded}}},
			{"what wasn't revoked", "02", "sound", certID(2), nil},
			{"what was revoked elsewhere", "03", "sound", certID(3), []imprint.Revocation{{Tenant: here, Authority: sound, Own: true, RevokedAt: instant}}},
			{"what is two below a revoked one", "04", "line", certID(4), []imprint.Revocation{{Tenant: here, Authority: line, RevokedAt: instant, Reason: imprint.ReasonKeyCompromise}}},
			{"what nobody knows", "05", "nobody", certID(5), nil},
		} {
			got, err := tx.Revocations(c.id, c.serial, []byte(c.issuer))
			if err != nil {
				return err
			}
			same(t, c.name, got, c.want)
		}
		// A serial number may be one that many CAs gave: they hide no authority above.
		got, err := tx.Revocations(certID(6), "06", []byte("line"))
		if err != nil {
			return err
		}
		same(t, "what is below a revoked one, with everybody's serial number", got[:1], []imprint.Revocation{{Tenant: here, Authority: line, RevokedAt: instant, Reason: imprint.ReasonKeyCompromise}})
		return nil
	})
}

// testRevocationLists ensures that authorities with lists that are due are told once, and
// those of retired lists never.
func testRevocationLists(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	update(t, store, func(tx imprint.Tx) error {
		for _, l := range []imprint.RevocationList{
			{Tenant: here, Authority: authorityID(1), Shard: 0, DueAt: instant, DER: []byte("x")},
			{Tenant: here, Authority: authorityID(1), Shard: 1, DueAt: instant},
			{Tenant: there, Authority: authorityID(1), Shard: imprint.WholeList, DueAt: instant.Add(1)},
			{Tenant: here, Authority: authorityID(2), Shard: 0, DueAt: instant.Add(time.Hour)},
			{Tenant: here, Authority: authorityID(3), Shard: 0, DueAt: instant, Retired: true},
		} {
			err := tx.PutRevocationList(l)
			if err != nil {
				return err
			}
		}
		return nil
	})
	view(t, store, func(tx imprint.ReadTx) error {
		due, err := tx.RevocationListsDue(instant, 10)
		same(t, "what is due", fmt.Sprint(len(due), err), fmt.Sprint(2, nil))
		due, err = tx.RevocationListsDue(instant, 1)
		same(t, "the first that is due", fmt.Sprint(len(due), err), fmt.Sprint(1, nil))
		all, err := tx.RevocationLists(here, authorityID(1))
		same(t, "those of one", fmt.Sprint(len(all), all[0].DER == nil, err), fmt.Sprint(2, true, nil))
		return err
	})
	update(t, store, func(tx imprint.Tx) error {
		return errors.Join(tx.WantRevocationList(here, authorityID(1), 0, instant.Add(time.Hour)), tx.WantRevocationList(here, authorityID(2), 0, instant),
			tx.WantRevocationList(here, authorityID(4), 5, instant), tx.DelayRevocationList(here, authorityID(1), 1, instant.Add(time.Minute)))
	})
	view(t, store, func(tx imprint.ReadTx) error {
		for _, c := range []struct {
			name   string
			a      imprint.AuthorityID
			shard  int
			due    time.Time
			wanted int64
			der    string
		}{
			{"one that is due already", authorityID(1), 0, instant, 1, "x"},
			{"one that would be due later", authorityID(2), 0, instant, 1, ""},
			{"one that wasn't there", authorityID(4), 5, instant, 1, ""},
			{"one that is delayed", authorityID(1), 1, instant.Add(time.Minute), 0, ""},
		} {
			l, err := tx.RevocationList(here, c.a, c.shard)
			same(t, c.name, fmt.Sprint(l.DueAt.Equal(c.due), l.Wanted, string(l.DER), err), fmt.Sprint(true, c.wanted, c.der, nil))
		}
		return nil
	})
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
				if err == nil {
					err = tx.PutAuthorityCertificate(imprint.AuthorityCertificate{Tenant: tenant, ID: a.CertificateID, Authority: a.ID})
				}
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
	issue(9, func(i *imprint.Issuance) { i.KeyHash, i.Renews = "renewed", certID(102) })
	issue(10, func(i *imprint.Issuance) { i.KeyHash, i.Renews = "renewed", certID(102) })
	issue(11, func(i *imprint.Issuance) { i.KeyHash, i.Renews, i.CertificateID = "renewed", certID(102), "" })
	issue(12, func(i *imprint.Issuance) { i.KeyHash, i.Renews, i.Tenant = "renewed", certID(102), there })
	issue(13, func(i *imprint.Issuance) { i.Tenant, i.KeyHash = there, "" })
	issue(14, func(i *imprint.Issuance) { i.CertificateID, i.KeyHash = "", "" })
	lose := func(key string, isCA bool, reason imprint.RevocationReason) func(*imprint.Issuance) {
		return func(i *imprint.Issuance) {
			i.Tenant, i.KeyHash, i.CA, i.RevokedAt, i.Reason = there, key, isCA, instant, reason
		}
	}
	issue(15, lose("lost there", false, imprint.ReasonKeyCompromise))
	issue(16, lose("lost CA", true, imprint.ReasonCACompromise))
	issue(17, lose("sound", false, imprint.ReasonCACompromise))
	issue(6, func(i *imprint.Issuance) { i.Serial, i.Authority, i.KeyHash = "02", one, "other" })
	update(t, store, func(tx imprint.Tx) error {
		// A former certificate, and one that it made for a CA elsewhere.
		err := tx.PutAuthorityCertificate(imprint.AuthorityCertificate{Tenant: here, ID: certID(20), Authority: two, Issuer: one, KeyHash: "k"})
		if err == nil {
			err = tx.PutAuthorityCertificate(imprint.AuthorityCertificate{Tenant: here, ID: certID(21), Issuer: two, KeyHash: "other"})
		}
		return errors.Join(err, tx.PutAdoptedRevocation(imprint.AdoptedRevocation{Tenant: here, Authority: two, Serial: "0a", RevokedAt: instant, KeyHash: "kept"}),
			tx.PutAdoptedRevocation(imprint.AdoptedRevocation{Tenant: here, Authority: two, Serial: "0b", RevokedAt: instant, NotAfter: instant.Add(-time.Hour), KeyHash: "lost", Reason: imprint.ReasonKeyCompromise}))
	})
	view(t, store, func(tx imprint.ReadTx) error {
		former, err := tx.AuthorityOf(here, certID(20))
		same(t, "the one that had a certificate", fmt.Sprint(former.ID, err), fmt.Sprint(two, nil))
		_, err = tx.AuthorityOf(here, certID(21))
		same(t, "that of a CA elsewhere", imprint.CodeOf(err), imprint.CodeNotFound)
		one20, err := tx.AuthorityCertificate(here, certID(20))
		same(t, "a former certificate", fmt.Sprint(one20.KeyHash, one20.Issuer, err), fmt.Sprint("k", one, nil))
		_, err = tx.AuthorityCertificate(there, certID(20))
		same(t, "another tenant's certificate", imprint.CodeOf(err), imprint.CodeNotFound)
		of, err := tx.AuthorityCertificates(here, two)
		same(t, "its certificates", fmt.Sprint(len(of), err), fmt.Sprint(2, nil))
		by, err := tx.AuthorityCertificatesBy(here, one)
		same(t, "what it signed", fmt.Sprint(len(by), err), fmt.Sprint(1, nil))
		by, err = tx.AuthorityCertificatesBy(here, "")
		same(t, "what nobody signed", fmt.Sprint(len(by), err), fmt.Sprint(0, nil))
		with, err := tx.AuthorityCertificatesWithKey(there.Account, "k")
		same(t, "those with its key", fmt.Sprint(len(with), err), fmt.Sprint(1, nil))
		with, err = tx.AuthorityCertificatesWithKey(here.Account, "")
		same(t, "those whose key isn't known", fmt.Sprint(len(with), err), fmt.Sprint(0, nil))
		return err
	})
	for _, use := range []struct {
		tenant  imprint.Tenant
		of      imprint.AuthorityID
		profile string
	}{{here, one, "a"}, {here, one, "a"}, {here, one, "b"}, {here, two, "a"}, {there, one, "a"}} {
		update(t, store, func(tx imprint.Tx) error { return tx.CountProfileUse(use.tenant, use.of, use.profile) })
	}
	view(t, store, func(tx imprint.ReadTx) error {
		for profile, want := range map[string]int64{"a": 2, "b": 1, "c": 0} {
			uses, err := tx.ProfileUses(here, one, profile)
			same(t, "uses of profile "+profile, fmt.Sprint(uses, err), fmt.Sprint(want, nil))
		}
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
			{"a key, behind one", imprint.KeyQuery{KeyHash: "key", AfterID: "i02"}, 100, "i03 i01 "},
			{"a key, behind a revoked one", imprint.KeyQuery{KeyHash: "key", AfterReason: imprint.ReasonSuperseded, AfterID: "i01"}, 100, ""},
			{"a key of a CA", imprint.KeyQuery{KeyHash: "key", CA: true}, 100, "i08 "},
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
		for _, c := range []struct {
			old   imprint.CertificateID
			after string
			limit int
			want  string
		}{{certID(102), "", 100, "i09 i10 "}, {certID(102), "", 1, "i09 "}, {certID(102), "i09", 100, "i10 "}, {certID(103), "", 100, ""}, {"", "", 100, ""}} {
			renewed, err := tx.IssuancesRenewing(here, c.old, c.after, c.limit)
			if err != nil {
				return err
			}
			found := ""
			for _, one := range renewed {
				found += one.ID + " "
			}
			same(t, "what renewed a certificate", found, c.want)
		}
		without := ""
		for after, more := "", true; more; {
			page, err := tx.IssuancesWithoutKey(after, 1)
			if err != nil {
				return err
			}
			more = len(page) == 1
			for _, one := range page {
				without, after = without+one.ID+" ", one.ID
			}
		}
		same(t, "those without a key", without, "i05 i13 ")
		for _, c := range []struct {
			tenant imprint.Tenant
			key    string
			want   bool
		}{{here, "key", true}, {here, "other", true}, {there, "other", false}, {here, "nobody's", false}, {here, "", false}, {here, "kept", true}, {there, "kept", true}, {other, "kept", false}, {here, "lost there", true}, {other, "lost there", false}} {
			issued, err := tx.KeyIssued(c.tenant, c.key)
			same(t, "issued for key "+c.key, fmt.Sprint(issued, err), fmt.Sprint(c.want, nil))
		}
		for _, key := range []string{"kept", "key", "sound", "nobody's", ""} {
			_, err = tx.LostKey(here.Account, key)
			same(t, "lost key "+key, imprint.CodeOf(err), imprint.CodeNotFound)
		}
		for key, serial := range map[string]string{"lost": "0b", "lost there": "0f", "lost CA": "10"} {
			_, err = tx.LostKey(other.Account, key)
			same(t, "another account's lost key "+key, imprint.CodeOf(err), imprint.CodeNotFound)
			lost, err := tx.LostKey(here.Account, key)
			same(t, "the revocation of lost key "+key, fmt.Sprint(lost.Serial, lost.RevokedAt.Equal(instant), lost.Reason.OfKey(), err), fmt.Sprint(serial, true, true, nil))
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
		same(t, "what is revoked and hasn't ended", revoked, []imprint.RevokedSerial{{Serial: "01", RevokedAt: instant, Reason: imprint.ReasonSuperseded}, {Serial: "0a", RevokedAt: instant}})
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
