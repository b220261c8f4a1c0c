package registry

import (
	"encoding/json"
	"fmt"

	"github.com/imprint-iot/imprint"
)

const authorityColumns = "tenant, id, name, type, status, key_uri, sealed_key, key_algorithm, signing_algorithm, subject, csr, certificate, chain, " +
	"certificate_id, serial, subject_key_id, not_before, not_after, parent, profiles, signing_ends, revocation, short_lived, tags, idempotency_token, " +
	"created_at, changed_at, restorable_until, revoked_at, revocation_reason, key_hash, crls"

var (
	putAuthority = upsert("authorities", 2, "tenant", "id", "name", "type", "status", "key_uri", "sealed_key", "key_algorithm", "signing_algorithm",
		"subject", "csr", "certificate", "chain", "certificate_id", "serial", "subject_key_id", "not_before", "not_after", "parent", "profiles",
		"signing_ends", "revocation", "short_lived", "tags", "idempotency_token", "created_at", "changed_at", "restorable_until", "revoked_at",
		"revocation_reason", "key_hash", "crls")

	authorities = newList("Ps", authorityColumns, "authorities WHERE tenant = $1", 1, []string{"id"}, scanAuthority,
		func(a *imprint.CertificateAuthority) []any { return []any{string(a.ID)} })
)

func scanAuthority(t *Tx, r Rows, a *imprint.CertificateAuthority) error {
	var tenant, profiles, revocation, tags, crls string
	var notBefore, notAfter, signingEnds, created, changed, restorable, revoked, short int64
	err := r.Scan(&tenant, (*string)(&a.ID), &a.Name, (*string)(&a.Type), (*string)(&a.Status), &a.Key, &a.SealedKey, &a.KeyAlgorithm, &a.SigningAlgorithm,
		&a.Subject, &a.CSR, &a.Certificate, &a.Chain, (*string)(&a.CertificateID), &a.Serial, &a.SubjectKeyID, &notBefore, &notAfter, (*string)(&a.Parent),
		&profiles, &signingEnds, &revocation, &short, &tags, &a.IdempotencyToken, &created, &changed, &restorable, &revoked,
		(*string)(&a.RevocationReason), &a.KeyHash, &crls)
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
	}{{profiles, &a.Profiles}, {revocation, &a.Revocation}, {tags, &a.Tags}, {crls, &a.CRLs}} {
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
	a, found, err := first(t, scanAuthority, "SELECT "+authorityColumns+" FROM authorities WHERE tenant = $1 AND id = "+
		"(SELECT authority FROM authority_certificates WHERE tenant = $1 AND certificate_id = $2 AND authority <> '')", t.in(tenant), string(id))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "no certificate authority of this account and region has or had the certificate %s", imprint.Excerpt(string(id)))
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
	var parts [4]string
	for n, part := range []any{a.Profiles, a.Revocation, a.Tags, a.CRLs} {
		text, err := json.Marshal(part)
		if err != nil {
			return fmt.Errorf("couldn't encode certificate authority %s: %w", a.ID, err)
		}
		parts[n] = string(text)
	}
	_, err := t.exec(putAuthority, t.in(a.Tenant), string(a.ID), a.Name, string(a.Type), string(a.Status), a.Key, blob(a.SealedKey), a.KeyAlgorithm,
		a.SigningAlgorithm, blob(a.Subject), a.CSR, a.Certificate, a.Chain, string(a.CertificateID), a.Serial, a.SubjectKeyID, millis(a.NotBefore),
		millis(a.NotAfter), string(a.Parent), parts[0], millis(a.SigningEnds), parts[1], flag(a.ShortLived), parts[2], a.IdempotencyToken, millis(a.CreatedAt),
		millis(a.ChangedAt), millis(a.RestorableUntil), millis(a.RevokedAt), string(a.RevocationReason), a.KeyHash, parts[3])
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeAuthority, a.Tenant, string(a.ID))
	return nil
}

// DeleteAuthority implements imprint.AuthorityWriter.
func (t *Tx) DeleteAuthority(tenant imprint.Tenant, id imprint.AuthorityID) error {
	return t.remove(imprint.ChangeAuthority, tenant, string(id), "DELETE FROM authorities WHERE tenant = $1 AND id = $2", t.in(tenant), string(id))
}

const authorityCertificateColumns = "tenant, certificate_id, authority, issuer, serial, key_hash"

var putAuthorityCertificate = upsert("authority_certificates", 2, "tenant", "certificate_id", "authority", "issuer", "serial", "key_hash")

func scanAuthorityCertificate(t *Tx, r Rows, c *imprint.AuthorityCertificate) error {
	var tenant string
	err := r.Scan(&tenant, (*string)(&c.ID), (*string)(&c.Authority), (*string)(&c.Issuer), &c.Serial, &c.KeyHash)
	c.Tenant = t.readTenant(tenant)
	return err
}

// AuthorityCertificate implements imprint.AuthorityReader.
func (t *Tx) AuthorityCertificate(tenant imprint.Tenant, id imprint.CertificateID) (imprint.AuthorityCertificate, error) {
	c, found, err := first(t, scanAuthorityCertificate, "SELECT "+authorityCertificateColumns+" FROM authority_certificates WHERE tenant = $1 AND certificate_id = $2",
		t.in(tenant), string(id))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "certificate %s is no certificate authority's of this account and region", imprint.Excerpt(string(id)))
	}
	return c, err
}

// maxAuthorityCertificates bounds those of one authority or key that are listed.
const maxAuthorityCertificates = 1000

// AuthorityCertificates implements imprint.AuthorityReader.
func (t *Tx) AuthorityCertificates(tenant imprint.Tenant, a imprint.AuthorityID) ([]imprint.AuthorityCertificate, error) {
	return all(t, scanAuthorityCertificate, "SELECT "+authorityCertificateColumns+" FROM authority_certificates "+
		"WHERE tenant = $1 AND authority = $2 AND authority <> '' ORDER BY certificate_id LIMIT $3", t.in(tenant), string(a), int64(maxAuthorityCertificates))
}

// AuthorityCertificatesBy implements imprint.AuthorityReader.
func (t *Tx) AuthorityCertificatesBy(tenant imprint.Tenant, issuer imprint.AuthorityID) ([]imprint.AuthorityCertificate, error) {
	return all(t, scanAuthorityCertificate, "SELECT "+authorityCertificateColumns+" FROM authority_certificates "+
		"WHERE tenant = $1 AND issuer = $2 AND issuer <> '' ORDER BY certificate_id LIMIT $3", t.in(tenant), string(issuer), int64(maxAuthorityCertificates))
}

// AuthorityCertificatesWithKey implements imprint.AuthorityReader.
func (t *Tx) AuthorityCertificatesWithKey(account imprint.AccountID, keyHash string) ([]imprint.AuthorityCertificate, error) {
	from, to := regionsOf(account)
	return all(t, scanAuthorityCertificate, "SELECT "+authorityCertificateColumns+" FROM authority_certificates "+
		"WHERE key_hash = $1 AND key_hash <> '' AND tenant > $2 AND tenant < $3 ORDER BY tenant, certificate_id LIMIT $4", keyHash, from, to, int64(maxAuthorityCertificates))
}

// PutAuthorityCertificate implements imprint.AuthorityWriter.
func (t *Tx) PutAuthorityCertificate(c imprint.AuthorityCertificate) error {
	_, err := t.exec(putAuthorityCertificate, t.in(c.Tenant), string(c.ID), string(c.Authority), string(c.Issuer), c.Serial, c.KeyHash)
	return err
}
