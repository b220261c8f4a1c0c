package registry

import (
	"time"

	"github.com/imprint-iot/imprint"
)

const listColumns = "tenant, authority, shard, number, this_update, next_update, signed_at, due_at, wanted, retired"

var putRevocationList = upsert("revocation_lists", 3, "tenant", "authority", "shard", "number", "this_update", "next_update", "signed_at", "due_at", "wanted", "retired", "der")

func scanRevocationList(t *Tx, r Rows, l *imprint.RevocationList, more ...any) error {
	var tenant string
	var shard, this, next, signed, due, retired int64
	err := r.Scan(append([]any{&tenant, (*string)(&l.Authority), &shard, &l.Number, &this, &next, &signed, &due, &l.Wanted, &retired}, more...)...)
	l.Tenant, l.Shard, l.Retired = t.readTenant(tenant), int(shard), retired != 0
	l.ThisUpdate, l.NextUpdate, l.SignedAt, l.DueAt = readTime(this), readTime(next), readTime(signed), readTime(due)
	return err
}

// RevocationList implements imprint.AuthorityReader.
func (t *Tx) RevocationList(tenant imprint.Tenant, a imprint.AuthorityID, shard int) (imprint.RevocationList, error) {
	l, found, err := first(t, func(t *Tx, r Rows, l *imprint.RevocationList) error {
		err := scanRevocationList(t, r, l, &l.DER)
		if len(l.DER) == 0 {
			l.DER = nil
		}
		return err
	}, "SELECT "+listColumns+", der FROM revocation_lists WHERE tenant = $1 AND authority = $2 AND shard = $3", t.in(tenant), string(a), int64(shard))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "certificate authority %s has no revocation list %d", a, shard)
	}
	return l, err
}

// maxLists bounds the lists of one authority that are listed.
const maxLists = 10_000

// RevocationListSize implements imprint.AuthorityReader.
func (t *Tx) RevocationListSize(tenant imprint.Tenant, a imprint.AuthorityID, shard int) (imprint.RevocationList, int64, error) {
	var size int64
	l, found, err := first(t, func(t *Tx, r Rows, l *imprint.RevocationList) error { return scanRevocationList(t, r, l, &size) },
		"SELECT "+listColumns+", LENGTH(der) FROM revocation_lists WHERE tenant = $1 AND authority = $2 AND shard = $3", t.in(tenant), string(a), int64(shard))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "certificate authority %s has no revocation list %d", a, shard)
	}
	return l, size, err
}

// RevocationLists implements imprint.AuthorityReader.
func (t *Tx) RevocationLists(tenant imprint.Tenant, a imprint.AuthorityID) ([]imprint.RevocationList, error) {
	return all(t, func(t *Tx, r Rows, l *imprint.RevocationList) error { return scanRevocationList(t, r, l) },
		"SELECT "+listColumns+" FROM revocation_lists WHERE tenant = $1 AND authority = $2 ORDER BY shard LIMIT $3", t.in(tenant), string(a), int64(maxLists))
}

// RevocationListsDue implements imprint.AuthorityReader.
func (t *Tx) RevocationListsDue(by time.Time, limit int) ([]imprint.AuthorityPlace, error) {
	return all(t, func(t *Tx, r Rows, p *imprint.AuthorityPlace) error {
		var tenant string
		err := r.Scan(&tenant, (*string)(&p.Authority))
		p.Tenant = t.readTenant(tenant)
		return err
	}, "SELECT DISTINCT tenant, authority FROM revocation_lists WHERE retired = 0 AND due_at <= $1 LIMIT $2", millis(by), int64(limit))
}

// PutRevocationList implements imprint.AuthorityWriter.
func (t *Tx) PutRevocationList(l imprint.RevocationList) error {
	retired := int64(0)
	if l.Retired {
		retired = 1
	}
	_, err := t.exec(putRevocationList, t.in(l.Tenant), string(l.Authority), int64(l.Shard), l.Number, millis(l.ThisUpdate), millis(l.NextUpdate), millis(l.SignedAt),
		millis(l.DueAt), l.Wanted, retired, blob(l.DER))
	return err
}

// WantRevocationList implements imprint.AuthorityWriter. It leaves the list itself alone, which
// may have megabytes.
func (t *Tx) WantRevocationList(tenant imprint.Tenant, a imprint.AuthorityID, shard int, by time.Time) error {
	n, err := t.exec("UPDATE revocation_lists SET wanted = wanted + 1, due_at = CASE WHEN due_at < $4 THEN due_at ELSE $4 END "+
		"WHERE tenant = $1 AND authority = $2 AND shard = $3", t.in(tenant), string(a), int64(shard), millis(by))
	if err == nil && n == 0 {
		err = t.PutRevocationList(imprint.RevocationList{Tenant: tenant, Authority: a, Shard: shard, DueAt: by, Wanted: 1})
	}
	return err
}

// DelayRevocationList implements imprint.AuthorityWriter.
func (t *Tx) DelayRevocationList(tenant imprint.Tenant, a imprint.AuthorityID, shard int, until time.Time) error {
	_, err := t.exec("UPDATE revocation_lists SET due_at = $4 WHERE tenant = $1 AND authority = $2 AND shard = $3", t.in(tenant), string(a), int64(shard), millis(until))
	return err
}

var putAdoptedRevocation = upsert("adopted_revocations", 3, "tenant", "authority", "serial", "certificate_id", "not_after", "revoked_at", "reason", "key_hash")

// AdoptedRevocation implements imprint.AuthorityReader.
func (t *Tx) AdoptedRevocation(tenant imprint.Tenant, a imprint.AuthorityID, serial string) (imprint.AdoptedRevocation, error) {
	v, found, err := first(t, scanAdoptedRevocation, adoptedRevocations+"authority = $2 AND serial = $3", t.in(tenant), string(a), serial)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "certificate authority %s has no adopted revocation of serial number %q", a, imprint.Excerpt(serial))
	}
	return v, err
}

// LostKey implements imprint.IssuanceReader.
func (t *Tx) LostKey(account imprint.AccountID, keyHash string) (imprint.AdoptedRevocation, error) {
	const ofKey = " WHERE key_hash = $1 AND key_hash <> '' AND tenant > $2 AND tenant < $3 AND "
	from, to := regionsOf(account)
	v, found, err := first(t, scanAdoptedRevocation, "SELECT "+revocationColumns+" FROM issuances"+ofKey+"revoked_at > 0 AND certificate_id <> '' AND (reason = $4 OR ca = 1 AND reason = $5) "+
		"UNION ALL SELECT "+revocationColumns+" FROM adopted_revocations"+ofKey+"reason = $4 LIMIT 1", keyHash, from, to, string(imprint.ReasonKeyCompromise), string(imprint.ReasonCACompromise))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "no revocation is of the lost key %q", imprint.Excerpt(keyHash))
	}
	return v, err
}

const revocationColumns = "tenant, authority, serial, certificate_id, not_after, revoked_at, reason, key_hash"

const adoptedRevocations = "SELECT " + revocationColumns + " FROM adopted_revocations WHERE tenant = $1 AND "

func scanAdoptedRevocation(t *Tx, r Rows, v *imprint.AdoptedRevocation) error {
	var text string
	var ends, revoked int64
	err := r.Scan(&text, (*string)(&v.Authority), &v.Serial, (*string)(&v.CertificateID), &ends, &revoked, (*string)(&v.Reason), &v.KeyHash)
	v.Tenant, v.NotAfter, v.RevokedAt = t.readTenant(text), readTime(ends), readTime(revoked)
	return err
}

// PutAdoptedRevocation implements imprint.AuthorityWriter.
func (t *Tx) PutAdoptedRevocation(v imprint.AdoptedRevocation) error {
	_, err := t.exec(putAdoptedRevocation, t.in(v.Tenant), string(v.Authority), v.Serial, string(v.CertificateID), millis(v.NotAfter), millis(v.RevokedAt), string(v.Reason), v.KeyHash)
	return err
}

// revocations is one statement, as every first connection asks it. Ten authorities above one
// are more than package ca signs below.
const revocations = "WITH RECURSIVE part_above (tenant, below, parent, revoked_at, reason, depth) AS (" +
	"SELECT tenant, id, parent, revoked_at, revocation_reason, 0 FROM authorities WHERE subject = $3 " +
	"UNION ALL SELECT up.tenant, part_above.below, up.parent, up.revoked_at, up.revocation_reason, part_above.depth + 1 FROM part_above " +
	"JOIN authorities AS up ON up.tenant = part_above.tenant AND up.id = part_above.parent WHERE part_above.depth < 10) " +
	"SELECT 0, tenant, below, '', revoked_at, reason FROM part_above WHERE revoked_at > 0 " +
	"UNION ALL SELECT 1, tenant, authority, certificate_id, revoked_at, reason FROM issuances WHERE certificate_id = $1 AND revoked_at > 0 " +
	"UNION ALL SELECT 1, tenant, authority, certificate_id, revoked_at, reason FROM adopted_revocations WHERE serial = $2 LIMIT $4"

// maxRevocations bounds what is told of one certificate: serial numbers may be small ones
// that many CAs gave. What is above it comes first, and is never cut off.
const maxRevocations = 10_000

// Revocations implements imprint.AuthorityReader.
func (t *Tx) Revocations(id imprint.CertificateID, serial string, issuer []byte) ([]imprint.Revocation, error) {
	return all(t, func(t *Tx, r Rows, v *imprint.Revocation) error {
		var tenant string
		var own, revoked int64
		err := r.Scan(&own, &tenant, (*string)(&v.Authority), (*string)(&v.CertificateID), &revoked, (*string)(&v.Reason))
		v.Tenant, v.Own, v.RevokedAt = t.readTenant(tenant), own != 0, readTime(revoked)
		return err
	}, revocations, string(id), serial, blob(issuer), int64(maxRevocations))
}
