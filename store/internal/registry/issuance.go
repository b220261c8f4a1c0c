package registry

import (
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
)

const issuanceColumns = "id, tenant, authority, profile, serial, subject, tbs_hash, key_hash, requested_by, request_token, renews, at, not_before, not_after, " +
	"certificate_id, certificate, revoked_at, reason, ca, key_reusable, request_hash"

var (
	putIssuance = upsert("issuances", 1, "id", "tenant", "authority", "profile", "serial", "subject", "tbs_hash", "key_hash", "requested_by",
		"request_token", "renews", "at", "not_before", "not_after", "certificate_id", "certificate", "revoked_at", "reason", "ca", "key_reusable", "request_hash")

	addIssuance = strings.Replace(putIssuance, putIssuance[strings.Index(putIssuance, " DO UPDATE"):], " DO NOTHING", 1)

	// completeIssuance leaves alone what indices hold, but for the log's list of what waits
	// for it: to write those again is most of the cost of a row.
	completeIssuance = "UPDATE issuances SET certificate_id = $5, certificate = $6 " +
		"WHERE id = $1 AND tenant = $2 AND serial = $3 AND tbs_hash = $4 AND certificate_id = ''"

	issuances = newList("Ms", issuanceColumns, "issuances WHERE tenant = $1", 1, []string{"id"}, scanIssuance,
		func(i *imprint.Issuance) []any { return []any{i.ID} })
	issuancesBy = newList("Ns", issuanceColumns, "issuances WHERE tenant = $1 AND authority = $2 AND authority <> ''", 2, []string{"id"}, scanIssuance,
		func(i *imprint.Issuance) []any { return []any{i.ID} })
)

func scanIssuance(t *Tx, r Rows, i *imprint.Issuance) error {
	var tenant string
	var at, notBefore, notAfter, revoked, ca, reusable int64
	err := r.Scan(&i.ID, &tenant, (*string)(&i.Authority), &i.Profile, &i.Serial, &i.Subject, &i.TBSHash, &i.KeyHash, &i.RequestedBy, &i.RequestToken, (*string)(&i.Renews),
		&at, &notBefore, &notAfter, (*string)(&i.CertificateID), &i.Certificate, &revoked, (*string)(&i.Reason), &ca, &reusable, &i.RequestHash)
	i.CA, i.KeyReusable = ca != 0, reusable != 0
	i.Tenant = t.readTenant(tenant)
	i.At, i.NotBefore, i.NotAfter, i.RevokedAt = readTime(at), readTime(notBefore), readTime(notAfter), readTime(revoked)
	if len(i.Certificate) == 0 {
		i.Certificate = nil
	}
	return err
}

// Issuance implements imprint.IssuanceReader.
func (t *Tx) Issuance(id string) (imprint.Issuance, error) {
	i, found, err := first(t, scanIssuance, "SELECT "+issuanceColumns+" FROM issuances WHERE id = $1", id)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "issuance %q doesn't exist", id)
	}
	return i, err
}

// Issuances implements imprint.IssuanceReader.
func (t *Tx) Issuances(tenant imprint.Tenant, p imprint.Page) ([]imprint.Issuance, string, error) {
	return issuances.page(t, p, nil, t.in(tenant))
}

// IssuancesBy implements imprint.IssuanceReader.
func (t *Tx) IssuancesBy(tenant imprint.Tenant, a imprint.AuthorityID, p imprint.Page) ([]imprint.Issuance, string, error) {
	if a == "" {
		return nil, "", nil
	}
	return issuancesBy.page(t, p, nil, t.in(tenant), string(a))
}

// IssuanceOf implements imprint.IssuanceReader.
func (t *Tx) IssuanceOf(tenant imprint.Tenant, a imprint.AuthorityID, serial string) (imprint.Issuance, error) {
	i, found, err := first(t, scanIssuance, "SELECT "+issuanceColumns+" FROM issuances WHERE tenant = $1 AND authority = $2 AND serial = $3 AND authority <> ''",
		t.in(tenant), string(a), serial)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "certificate authority %s issued nothing with serial number %q", a, imprint.Excerpt(serial)).
			WithHint("The serial number is hexadecimal, as openssl x509 -noout -serial shows it.")
	}
	return i, err
}

// KeyIssued implements imprint.IssuanceReader.
func (t *Tx) KeyIssued(tenant imprint.Tenant, keyHash string) (bool, error) {
	from, to := regionsOf(tenant.Account)
	_, found, err := first(t, func(_ *Tx, r Rows, one *int64) error { return r.Scan(one) },
		"SELECT 1 FROM issuances WHERE tenant = $1 AND key_hash = $2 AND key_hash <> '' AND certificate_id <> '' "+
			"UNION ALL SELECT 1 FROM issuances WHERE key_hash = $2 AND key_hash <> '' AND revoked_at > 0 AND tenant > $3 AND tenant < $4 "+
			"UNION ALL SELECT 1 FROM adopted_revocations WHERE key_hash = $2 AND key_hash <> '' AND tenant > $3 AND tenant < $4 LIMIT 1", t.in(tenant), keyHash, from, to)
	return found, err
}

// IssuancesWithKey implements imprint.IssuanceReader.
func (t *Tx) IssuancesWithKey(tenant imprint.Tenant, q imprint.KeyQuery, limit int) ([]imprint.Issuance, error) {
	if q.KeyHash == "" {
		return nil, nil
	}
	const query = "SELECT " + issuanceColumns + " FROM issuances WHERE tenant = $1 AND key_hash = $2 AND ca = $3 AND key_hash <> '' AND certificate_id <> ''"
	return some(t, limit, scanIssuance, query+" AND (reason, id) > ($4, $5) ORDER BY reason, id LIMIT $6", t.in(tenant), q.KeyHash, flag(q.CA), string(q.AfterReason), q.AfterID)
}

// IssuancesRenewing implements imprint.IssuanceReader.
func (t *Tx) IssuancesRenewing(tenant imprint.Tenant, old imprint.CertificateID, after string, limit int) ([]imprint.Issuance, error) {
	return some(t, limit, scanIssuance, "SELECT "+issuanceColumns+" FROM issuances WHERE tenant = $1 AND renews = $2 AND renews <> '' AND id > $3 AND certificate_id <> '' ORDER BY id LIMIT $4",
		t.in(tenant), string(old), after)
}

// IssuancesWithoutKey implements imprint.IssuanceReader.
func (t *Tx) IssuancesWithoutKey(after string, limit int) ([]imprint.Issuance, error) {
	return some(t, limit, scanIssuance, "SELECT "+issuanceColumns+" FROM issuances WHERE length(key_hash) = 0 AND certificate_id <> '' AND id > $1 ORDER BY id LIMIT $2", after)
}

// ProfileUses implements imprint.IssuanceReader.
func (t *Tx) ProfileUses(tenant imprint.Tenant, a imprint.AuthorityID, profile string) (int64, error) {
	uses, _, err := first(t, func(_ *Tx, r Rows, n *int64) error { return r.Scan(n) },
		"SELECT uses FROM profile_uses WHERE tenant = $1 AND authority = $2 AND profile = $3", t.in(tenant), string(a), profile)
	return uses, err
}

// CountProfileUse implements imprint.IssuanceWriter.
func (t *Tx) CountProfileUse(tenant imprint.Tenant, a imprint.AuthorityID, profile string) error {
	_, err := t.exec("INSERT INTO profile_uses (tenant, authority, profile, uses) VALUES ($1, $2, $3, 1) "+
		"ON CONFLICT (tenant, authority, profile) DO UPDATE SET uses = profile_uses.uses + 1", t.in(tenant), string(a), profile)
	return err
}

// IssuanceOfCertificate implements imprint.IssuanceReader.
func (t *Tx) IssuanceOfCertificate(tenant imprint.Tenant, id imprint.CertificateID) (imprint.Issuance, error) {
	i, found, err := first(t, scanIssuance, "SELECT "+issuanceColumns+" FROM issuances WHERE tenant = $1 AND certificate_id = $2 AND certificate_id <> ''",
		t.in(tenant), string(id))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "no certificate authority of this account and region issued the certificate %s", imprint.Excerpt(string(id)))
	}
	return i, err
}

// IssuanceRequested implements imprint.IssuanceReader.
func (t *Tx) IssuanceRequested(tenant imprint.Tenant, a imprint.AuthorityID, token string) (imprint.Issuance, error) {
	// Ordered by the id itself, SQLite walks the tenant's issuances, all of them, in that order.
	i, found, err := first(t, scanIssuance, "SELECT "+issuanceColumns+" FROM issuances WHERE tenant = $1 AND authority = $2 AND request_token = $3 AND request_token <> '' ORDER BY id || '' DESC LIMIT 1",
		t.in(tenant), string(a), token)
	if err == nil && (!found || token == "") {
		err = imprint.Errorf(imprint.CodeNotFound, "nothing was issued for request token %q", imprint.Excerpt(token))
	}
	return i, err
}

// RevokedBy implements imprint.IssuanceReader.
func (t *Tx) RevokedBy(tenant imprint.Tenant, a imprint.AuthorityID, after time.Time, yield func(imprint.RevokedSerial) bool) error {
	scan := func(_ *Tx, r Rows, s *imprint.RevokedSerial) error {
		var revoked int64
		err := r.Scan(&s.Serial, &revoked, (*string)(&s.Reason))
		s.RevokedAt = readTime(revoked)
		return err
	}
	return each(t, true, scan, yield, "SELECT serial, revoked_at, reason FROM issuances WHERE tenant = $1 AND authority = $2 AND revoked_at > 0 AND not_after >= $3 "+
		"UNION ALL SELECT serial, revoked_at, reason FROM adopted_revocations WHERE tenant = $1 AND authority = $2 AND (not_after >= $3 OR not_after = $4)",
		t.in(tenant), string(a), millis(after), millis(time.Time{}))
}

// PutIssuance implements imprint.IssuanceWriter.
func (t *Tx) PutIssuance(i imprint.Issuance) error {
	_, err := t.exec(putIssuance, t.issuanceValues(&i)...)
	return err
}

// AddIssuance implements imprint.IssuanceWriter.
func (t *Tx) AddIssuance(i imprint.Issuance) (bool, error) {
	n, err := t.exec(addIssuance, t.issuanceValues(&i)...)
	return n == 1, err
}

// CompleteIssuance implements imprint.IssuanceWriter.
func (t *Tx) CompleteIssuance(i imprint.Issuance) (bool, error) {
	n, err := t.exec(completeIssuance, i.ID, t.in(i.Tenant), i.Serial, i.TBSHash, string(i.CertificateID), blob(i.Certificate))
	return n == 1, err
}

func (t *Tx) issuanceValues(i *imprint.Issuance) []any {
	return []any{
		i.ID, t.in(i.Tenant), string(i.Authority), i.Profile, i.Serial, i.Subject, i.TBSHash, i.KeyHash, i.RequestedBy,
		i.RequestToken, string(i.Renews), millis(i.At), millis(i.NotBefore), millis(i.NotAfter), string(i.CertificateID), blob(i.Certificate), millis(i.RevokedAt), string(i.Reason), flag(i.CA), flag(i.KeyReusable),
		i.RequestHash,
	}
}
