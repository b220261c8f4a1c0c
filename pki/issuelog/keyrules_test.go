package issuelog_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/pki/issuelog"
)

// record is a log on a real store, with what a test writes into it.
type record struct {
	*issuelog.Log
	t     *testing.T
	store imprint.Store
	count int
}

func newRecord(t *testing.T) *record {
	store := registrytest.New(t)
	return &record{Log: issuelog.New(store), t: t, store: store}
}

func (r *record) issuance(change func(*imprint.Issuance)) imprint.Issuance {
	r.count++
	i := imprint.Issuance{ID: fmt.Sprintf("i%04d", r.count), Tenant: tenant, Authority: "a", Serial: fmt.Sprintf("%x", r.count), Subject: "CN=SN-1", KeyHash: "key",
		TBSHash: fmt.Sprint(r.count), At: time.Unix(1000, 0), NotAfter: time.Unix(2000, 0)}
	if change != nil {
		change(&i)
	}
	return i
}

// issue records intent and certificate.
func (r *record) issue(change func(*imprint.Issuance)) (imprint.Issuance, error) {
	i := r.issuance(change)
	err := r.Record(r.t.Context(), i)
	if err != nil {
		return i, err
	}
	i.CertificateID = imprint.CertificateID(fmt.Sprintf("%064d", r.count))
	return i, r.Record(r.t.Context(), i)
}

func (r *record) must(change func(*imprint.Issuance)) imprint.Issuance {
	r.t.Helper()
	i, err := r.issue(change)
	if err != nil {
		r.t.Fatal(err)
	}
	return i
}

func (r *record) revoke(i imprint.Issuance, reason imprint.RevocationReason) {
	r.t.Helper()
	i.RevokedAt, i.Reason = time.Unix(1500, 0), reason
	err := r.store.Update(r.t.Context(), func(tx imprint.Tx) error { return tx.PutIssuance(i) })
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *record) refused(what string, code imprint.Code, words string, change func(*imprint.Issuance)) {
	r.t.Helper()
	_, err := r.issue(change)
	if imprint.CodeOf(err) != code || err == nil || !strings.Contains(err.Error(), words) {
		r.t.Errorf("%s: got %q (%v), want %s with %q", what, imprint.CodeOf(err), err, code, words)
	}
}

func reusable(i *imprint.Issuance) { i.KeyReusable = true }

// TestFailedIntentsHideNoCertificate: however many attempts with a key came to nothing.
func TestFailedIntentsHideNoCertificate(t *testing.T) {
	t.Parallel()
	r := newRecord(t)
	err := r.store.Update(t.Context(), func(tx imprint.Tx) error {
		for range 150 {
			err := r.Put(tx, r.issuance(nil))
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.must(nil)
	r.refused("the key again", imprint.CodeKeyReused, "serial number 97,", nil) // the 151st
}

// TestALostKeyGetsNothing, whatever the profile says and whatever is renewed.
func TestALostKeyGetsNothing(t *testing.T) {
	t.Parallel()
	r := newRecord(t)
	lost := r.must(reusable)
	for range 120 { // more than are looked through
		r.must(reusable)
	}
	r.revoke(lost, imprint.ReasonKeyCompromise)
	r.refused("the same profile", imprint.CodeCertificateWeak, "KEY_COMPROMISE", reusable)
	r.refused("a CA", imprint.CodeCertificateWeak, "KEY_COMPROMISE", func(i *imprint.Issuance) { i.CA = true })
	r.refused("a renewal", imprint.CodeCertificateValidation, "was revoked", func(i *imprint.Issuance) { i.Renews = lost.CertificateID })

	superseded := r.must(func(i *imprint.Issuance) { i.KeyHash, i.KeyReusable = "another", true })
	r.revoke(superseded, imprint.ReasonSuperseded)
	r.must(func(i *imprint.Issuance) { i.KeyHash, i.KeyReusable = "another", true })
	// Of a device below a CA that was lost, the key is its own still; the CA's isn't.
	below := r.must(func(i *imprint.Issuance) { i.KeyHash, i.KeyReusable = "below", true })
	r.revoke(below, imprint.ReasonCACompromise)
	r.must(func(i *imprint.Issuance) { i.KeyHash, i.KeyReusable = "below", true })
	authority := r.must(func(i *imprint.Issuance) { i.KeyHash, i.CA, i.KeyReusable = "ca", true, true })
	r.revoke(authority, imprint.ReasonCACompromise)
	r.refused("the lost CA", imprint.CodeCertificateWeak, "AUTHORITY_COMPROMISE", func(i *imprint.Issuance) { i.KeyHash, i.CA, i.KeyReusable = "ca", true, true })
}

// TestALostKeyGetsNothingInAnyRegion of its account, whether it was issued for here or elsewhere,
// a device's or a CA's.
func TestALostKeyGetsNothingInAnyRegion(t *testing.T) {
	t.Parallel()
	r := newRecord(t)
	there := imprint.Tenant{Account: tenant.Account, Region: "eu-west-1"}
	stranger := imprint.Tenant{Account: "999999999999", Region: tenant.Region}
	inRegion := func(of imprint.Tenant, key string) func(*imprint.Issuance) {
		return func(i *imprint.Issuance) { i.Tenant, i.KeyHash, i.KeyReusable = of, key, true }
	}
	r.revoke(r.must(inRegion(there, "issued")), imprint.ReasonKeyCompromise)
	r.revoke(r.must(inRegion(there, "superseded")), imprint.ReasonSuperseded)
	err := r.store.Update(t.Context(), func(tx imprint.Tx) error {
		err := tx.PutAdoptedRevocation(imprint.AdoptedRevocation{Tenant: there, Authority: "root", Serial: "aa", RevokedAt: time.Unix(1500, 0), Reason: imprint.ReasonKeyCompromise, KeyHash: "listed"})
		if err == nil {
			err = tx.PutAuthority(imprint.CertificateAuthority{Tenant: there, ID: "line", RevokedAt: time.Unix(1500, 0), RevocationReason: imprint.ReasonCACompromise})
		}
		if err == nil {
			err = tx.PutAuthorityCertificate(imprint.AuthorityCertificate{Tenant: there, ID: "line's", Authority: "line", KeyHash: "ca"})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"issued", "listed", "ca"} {
		r.refused(key, imprint.CodeCertificateWeak, "COMPROMISE", inRegion(tenant, key))
		r.must(inRegion(stranger, key))
	}
	r.must(inRegion(tenant, "superseded"))
}

// TestTheLostKeyOfACAMadeElsewhereGetsNothing: nothing was issued for it here.
func TestTheLostKeyOfACAMadeElsewhereGetsNothing(t *testing.T) {
	t.Parallel()
	r := newRecord(t)
	at := time.Unix(1500, 0)
	adopt := func(key string, a imprint.CertificateAuthority, shown imprint.AdoptedRevocation) func(*imprint.Issuance) {
		t.Helper()
		a.Tenant, a.ID = tenant, imprint.AuthorityID("of "+key)
		c := imprint.AuthorityCertificate{Tenant: tenant, ID: imprint.CertificateID("cert of " + key), Authority: a.ID, Issuer: "root", Serial: key, KeyHash: key}
		err := r.store.Update(t.Context(), func(tx imprint.Tx) error {
			err := tx.PutAuthority(a)
			if err == nil {
				err = tx.PutAuthorityCertificate(c)
			}
			if err == nil && shown.Reason != "" {
				shown.Tenant, shown.Authority, shown.Serial, shown.RevokedAt = tenant, "root", key, at
				err = tx.PutAdoptedRevocation(shown)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return func(i *imprint.Issuance) { i.KeyHash, i.CA, i.KeyReusable = key, true, true }
	}
	none := imprint.AdoptedRevocation{}
	for key, reason := range map[string]imprint.RevocationReason{"a1": imprint.ReasonKeyCompromise, "a2": imprint.ReasonCACompromise} {
		again := adopt(key, imprint.CertificateAuthority{RevokedAt: at, RevocationReason: reason}, none)
		r.refused("the key of a revoked CA", imprint.CodeCertificateWeak, string(reason), again)
		r.refused("a device with it", imprint.CodeCertificateWeak, string(reason), func(i *imprint.Issuance) { i.KeyHash = key })
	}
	listed := adopt("b1", imprint.CertificateAuthority{}, imprint.AdoptedRevocation{Reason: imprint.ReasonKeyCompromise})
	r.refused("that of one on its issuer's list", imprint.CodeCertificateWeak, "KEY_COMPROMISE", listed)
	shown := adopt("b2", imprint.CertificateAuthority{}, imprint.AdoptedRevocation{Reason: imprint.ReasonKeyCompromise, CertificateID: "cert of b2"})
	r.refused("that of one that was shown", imprint.CodeCertificateWeak, "KEY_COMPROMISE", shown)

	r.must(adopt("c1", imprint.CertificateAuthority{}, none))
	r.must(adopt("c2", imprint.CertificateAuthority{RevokedAt: at, RevocationReason: imprint.ReasonSuperseded}, none))
	r.must(adopt("c3", imprint.CertificateAuthority{}, imprint.AdoptedRevocation{Reason: imprint.ReasonKeyCompromise, CertificateID: "another with its number"}))
}

// TestAKeyIsACAsOrADevices: also when both profiles let keys be reused, and when the CA has
// no certificate yet.
func TestAKeyIsACAsOrADevices(t *testing.T) {
	t.Parallel()
	r := newRecord(t)
	r.must(func(i *imprint.Issuance) { i.KeyReusable, i.CA = true, true })
	r.refused("a device with a CA's key", imprint.CodeKeyReused, "a CA's certificate", reusable)
	r.must(func(i *imprint.Issuance) { i.KeyHash, i.KeyReusable = "device", true })
	r.refused("a CA with a device's key", imprint.CodeKeyReused, "a device's certificate", func(i *imprint.Issuance) { i.KeyHash, i.KeyReusable, i.CA = "device", true, true })
	err := r.store.Update(t.Context(), func(tx imprint.Tx) error {
		return tx.PutAuthority(imprint.CertificateAuthority{Tenant: tenant, ID: "pending", KeyHash: "pending"})
	})
	if err != nil {
		t.Fatal(err)
	}
	r.refused("a device with a waiting CA's key", imprint.CodeKeyReused, "authority pending", func(i *imprint.Issuance) { i.KeyHash, i.KeyReusable = "pending", true })
	r.must(func(i *imprint.Issuance) { i.KeyHash, i.CA = "pending", true })
}

// TestAKeyThatAReusingProfileCertifiedIsReused for those that don't let it.
func TestAKeyThatAReusingProfileCertifiedIsReused(t *testing.T) {
	t.Parallel()
	r := newRecord(t)
	first := r.must(reusable)
	r.refused("a profile that refuses reuse", imprint.CodeKeyReused, string(first.CertificateID), nil)
	r.must(reusable)
}

// TestOnlyWhatCountsIsRenewed: the new certificate takes the place of the device's present
// one, with its key as often as it likes, and of nothing else.
func TestOnlyWhatCountsIsRenewed(t *testing.T) {
	t.Parallel()
	r := newRecord(t)
	renewing := func(old imprint.Issuance, more ...func(*imprint.Issuance)) func(*imprint.Issuance) {
		return func(i *imprint.Issuance) {
			i.Renews = old.CertificateID
			for _, change := range more {
				change(i)
			}
		}
	}
	at := r.must(nil)
	for range 3 {
		at = r.must(renewing(at))
	}
	r.must(renewing(at, func(i *imprint.Issuance) { i.KeyHash = "a new key" }))

	other := func(name string, change func(*imprint.Issuance)) imprint.Issuance {
		return r.must(func(i *imprint.Issuance) {
			i.KeyHash = name
			if change != nil {
				change(i)
			}
		})
	}
	for _, c := range []struct {
		name, words string
		old         imprint.Issuance
		change      func(*imprint.Issuance)
	}{
		{"of another subject", "subject", other("subject", func(i *imprint.Issuance) { i.Subject = "CN=SN-2" }), nil},
		{"that ended", "ended", other("ended", func(i *imprint.Issuance) { i.NotAfter = time.Unix(999, 0) }), nil},
		{"of a CA", "isn't", other("a ca", func(i *imprint.Issuance) { i.CA = true }), nil},
		{"that nobody issued", "issued it", imprint.Issuance{CertificateID: "f00d"}, nil},
		{"of another account", "issued it", other("there", func(i *imprint.Issuance) { i.Tenant.Account = "111111111111" }), nil},
	} {
		r.refused("one "+c.name, imprint.CodeCertificateValidation, c.words, renewing(c.old, func(i *imprint.Issuance) { i.KeyHash = c.old.KeyHash }))
	}
	off := other("off", nil)
	err := r.store.Update(t.Context(), func(tx imprint.Tx) error {
		return tx.PutCertificate(imprint.Certificate{Tenant: tenant, ID: off.CertificateID, Status: imprint.CertificateInactive})
	})
	if err != nil {
		t.Fatal(err)
	}
	r.refused("one that is off in the registry", imprint.CodeCertificateValidation, "INACTIVE", renewing(off, func(i *imprint.Issuance) { i.KeyHash = "off" }))
	two := other("two", reusable)
	other("two", reusable)
	r.refused("one of two of a key", imprint.CodeKeyReused, "key", renewing(two, func(i *imprint.Issuance) { i.KeyHash = "two" }))
}

// TestARevocationOutlivesARepeatedRecord: whoever completes a record again doesn't know of it.
func TestARevocationOutlivesARepeatedRecord(t *testing.T) {
	t.Parallel()
	r := newRecord(t)
	i := r.must(nil)
	r.revoke(i, imprint.ReasonSuperseded)
	err := r.Record(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	err = r.store.View(t.Context(), func(tx imprint.ReadTx) error {
		found, err := tx.Issuance(i.ID)
		if found.RevokedAt.Unix() != 1500 || found.Reason != imprint.ReasonSuperseded {
			t.Errorf("after recording it again it is revoked at %s for %q", found.RevokedAt, found.Reason)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
