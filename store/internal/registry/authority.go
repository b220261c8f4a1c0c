package registry

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
)

const authorityColumns = "tenant, id, name, type, status, key_uri, sealed_key, key_algorithm, signing_algorithm, subject, csr, certificate, chain, " +
	"certificate_id, serial, subject_key_id, not_before, not_after, parent, profiles, signing_ends, revocation, short_lived, tags, idempotency_token, " +
	"created_at, changed_at, restorable_until, revoked_at, revocation_reason, key_hash"

var (
	putAuthority = upsert("authorities", 2, "tenant", "id", "name", "type", "status", "key_uri", "sealed_key", "key_algorithm", "signing_algorithm",
		"subject", "csr", "certificate", "chain", "certificate_id", "serial", "subject_key_id", "not_before", "not_after", "parent", "profiles",
		"signing_ends", "revocation", "short_lived", "tags", "idempotency_token", "created_at", "changed_at", "restorable_until", "revoked_at",
		"revocation_reason", "key_hash")

	authorities = newList("Ps", authorityColumns, "authorities WHERE tenant = $1", 1, []string{"id"}, scanAuthority,
		func(a *imprint.CertificateAuthority) []any { return []any{string(a.ID)} })
)

func scanAuthority(t *Tx, r Rows, a *imprint.CertificateAuthority) error {
	var tenant, profiles, revocation, tags string
	var notBefore, notAfter, signingEnds, created, changed, restorable, revoked, short int64
	err := r.Scan(&tenant, (*string)(&a.ID), &a.Name, (*string)(&a.Type), (*string)(&a.Status), &a.Key, &a.SealedKey, &a.KeyAlgorithm, &a.SigningAlgorithm,
		&a.Subject, &a.CSR, &a.Certificate, &a.Chain, (*string)(&a.CertificateID), &a.Serial, &a.SubjectKeyID, &notBefore, &notAfter, (*string)(&a.Parent),
		&profiles, &signingEnds, &revocation, &short, &tags, &a.IdempotencyToken, &created, &changed, &restorable, &revoked,
		(*string)(&a.RevocationReason), &a.KeyHash)
	if err != nil {
		return err
	}
	a.Tenant, a.ShortLived = t.readTenant(tenant), short != 0
	a.NotBefore, a.NotAfter, a.SigningEnds = readTime(notBefore), readTime(notAfter), readTime(signingEnds)
	a.CreatedAt, a.ChangedAt, a.RestorableUntil, a.RevokedAt = readTime(created), readTime(changed), readTime(restorable), readTime(revoked)
	if len(a.SealedKey) == 0 {
		a.SealedKey = nil
	}
	if len(a.Subject) == 0 {
		a.Subject = nil
	}
	for _, part := range []struct {
		text string
		into any
	}{{profiles, &a.Profiles}, {revocation, &a.Revocation}, {tags, &a.Tags}} {
		err = json.Unmarshal([]byte(part.text), part.into)
		if err != nil {
			return fmt.Errorf("couldn't read certificate authority %s: %w", a.ID, err)
		}
	}
	return nil
}

// Authority implements imprint.AuthorityReader.
func (t *Tx) Authority(tenant imprint.Tenant, id imprint.AuthorityID) (imprint.CertificateAuthority, error) {
	a, found, err := first(t, scanAuthority, "SELECT "+authorityColumns+" FROM authorities WHERE tenant = $1 AND id = $2", t.in(tenant), string(id))
	if err == nil && !found {
		err = imprint.NotFoundAuthority(id)
	}
	return a, err
}

// AuthorityNamed implements imprint.AuthorityReader.
func (t *Tx) AuthorityNamed(tenant imprint.Tenant, name string) (imprint.CertificateAuthority, error) {
	a, found, err := first(t, scanAuthority, "SELECT "+authorityColumns+" FROM authorities WHERE tenant = $1 AND name = $2 AND name <> '' AND status <> 'DELETED'",
		t.in(tenant), name)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "no certificate authority is called %q in this account and region", imprint.Excerpt(name)).
			WithHint("imprint ca list shows them.")
	}
	return a, err
}

// AuthorityOf implements imprint.AuthorityReader.
func (t *Tx) AuthorityOf(tenant imprint.Tenant, id imprint.CertificateID) (imprint.CertificateAuthority, error) {
	a, found, err := first(t, scanAuthority, "SELECT "+authorityColumns+" FROM authorities WHERE tenant = $1 AND certificate_id = $2 AND certificate_id <> ''",
		t.in(tenant), string(id))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "no certificate authority of this account and region has the certificate %s", imprint.Excerpt(string(id)))
	}
	return a, err
}

// AuthorityOfKey implements imprint.AuthorityReader.
func (t *Tx) AuthorityOfKey(tenant imprint.Tenant, keyHash string) (imprint.CertificateAuthority, error) {
	a, found, err := first(t, scanAuthority, "SELECT "+authorityColumns+" FROM authorities WHERE tenant = $1 AND key_hash = $2 AND key_hash <> ''", t.in(tenant), keyHash)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "no certificate authority of this account and region has the key %s", imprint.Excerpt(keyHash))
	}
	return a, err
}

// Authorities implements imprint.AuthorityReader.
func (t *Tx) Authorities(tenant imprint.Tenant, p imprint.Page) ([]imprint.CertificateAuthority, string, error) {
	return authorities.page(t, p, nil, t.in(tenant))
}

// AuthorityTenants implements imprint.AuthorityReader.
func (t *Tx) AuthorityTenants() ([]imprint.Tenant, error) {
	return all(t, func(t *Tx, r Rows, tenant *imprint.Tenant) error {
		var text string
		err := r.Scan(&text)
		*tenant = t.readTenant(text)
		return err
	}, "SELECT DISTINCT tenant FROM authorities ORDER BY tenant LIMIT $1", int64(10_000))
}

// PutAuthority implements imprint.AuthorityWriter.
func (t *Tx) PutAuthority(a imprint.CertificateAuthority) error {
	var parts [3]string
	for n, part := range []any{a.Profiles, a.Revocation, a.Tags} {
		text, err := json.Marshal(part)
		if err != nil {
			return fmt.Errorf("couldn't encode certificate authority %s: %w", a.ID, err)
		}
		parts[n] = string(text)
	}
	_, err := t.exec(putAuthority, t.in(a.Tenant), string(a.ID), a.Name, string(a.Type), string(a.Status), a.Key, blob(a.SealedKey), a.KeyAlgorithm,
		a.SigningAlgorithm, blob(a.Subject), a.CSR, a.Certificate, a.Chain, string(a.CertificateID), a.Serial, a.SubjectKeyID, millis(a.NotBefore),
		millis(a.NotAfter), string(a.Parent), parts[0], millis(a.SigningEnds), parts[1], flag(a.ShortLived), parts[2], a.IdempotencyToken, millis(a.CreatedAt),
		millis(a.ChangedAt), millis(a.RestorableUntil), millis(a.RevokedAt), string(a.RevocationReason), a.KeyHash)
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeAuthority, a.Tenant, string(a.ID))
	return nil
}

// DeleteAuthority implements imprint.AuthorityWriter.
func (t *Tx) DeleteAuthority(tenant imprint.Tenant, id imprint.AuthorityID) error {
	err := t.DeleteRevocationLists(tenant, id, 0)
	if err != nil {
		return err
	}
	return t.remove(imprint.ChangeAuthority, tenant, string(id), "DELETE FROM authorities WHERE tenant = $1 AND id = $2", t.in(tenant), string(id))
}

const listColumns = "tenant, authority, shard, number, this_update, next_update, due_at"

var putRevocationList = upsert("revocation_lists", 3, "tenant", "authority", "shard", "number", "this_update", "next_update", "due_at", "der")

func scanRevocationList(t *Tx, r Rows, l *imprint.RevocationList, more ...any) error {
	var tenant string
	var shard, this, next, due int64
	err := r.Scan(append([]any{&tenant, (*string)(&l.Authority), &shard, &l.Number, &this, &next, &due}, more...)...)
	l.Tenant, l.Shard = t.readTenant(tenant), int(shard)
	l.ThisUpdate, l.NextUpdate, l.DueAt = readTime(this), readTime(next), readTime(due)
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

// DueRevocationLists implements imprint.AuthorityReader.
func (t *Tx) DueRevocationLists(by time.Time, limit int) ([]imprint.RevocationList, error) {
	return some(t, limit, func(t *Tx, r Rows, l *imprint.RevocationList) error { return scanRevocationList(t, r, l) },
		"SELECT "+listColumns+" FROM revocation_lists WHERE due_at <= $1 ORDER BY due_at, tenant, authority, shard LIMIT $2", millis(by))
}

// PutRevocationList implements imprint.AuthorityWriter.
func (t *Tx) PutRevocationList(l imprint.RevocationList) error {
	_, err := t.exec(putRevocationList, t.in(l.Tenant), string(l.Authority), int64(l.Shard), l.Number, millis(l.ThisUpdate), millis(l.NextUpdate), millis(l.DueAt), blob(l.DER))
	return err
}

// DeleteRevocationLists implements imprint.AuthorityWriter.
func (t *Tx) DeleteRevocationLists(tenant imprint.Tenant, a imprint.AuthorityID, from int) error {
	_, err := t.exec("DELETE FROM revocation_lists WHERE tenant = $1 AND authority = $2 AND shard >= $3", t.in(tenant), string(a), int64(from))
	return err
}
