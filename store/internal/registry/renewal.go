package registry

import (
	"time"

	"github.com/imprint-iot/imprint"
)

const renewalColumns = "tenant, certificate, renews, state, created_at, proven_at, due_at, ended_at, reason"

// ending are certificates that the index by their end has: its condition must stand in
// each statement, word by word.
const ending = "certificates WHERE tenant = $1 AND not_after < 2524607999000 AND not_after > $2 AND not_after <= $3 AND status = 'ACTIVE'"

var (
	putRenewal = upsert("renewals", 2, "tenant", "certificate", "renews", "state", "created_at", "proven_at", "due_at", "ended_at", "reason")

	expiring = slowly(newList("Zis", certificateColumns, ending, 3, []string{"not_after", "id"}, scanCertificate,
		func(c *imprint.Certificate) []any { return []any{millis(c.NotAfter), string(c.ID)} }))
)

func scanRenewal(t *Tx, r Rows, v *imprint.Renewal) error {
	var tenant string
	var created, proven, due, ended int64
	err := r.Scan(&tenant, (*string)(&v.Certificate), (*string)(&v.Renews), (*string)(&v.State), &created, &proven, &due, &ended, &v.Reason)
	v.Tenant = t.readTenant(tenant)
	v.CreatedAt, v.ProvenAt, v.DueAt, v.EndedAt = readTime(created), readTime(proven), readTime(due), readTime(ended)
	return err
}

// Renewal implements imprint.RenewalReader.
func (t *Tx) Renewal(tenant imprint.Tenant, made imprint.CertificateID) (imprint.Renewal, error) {
	r, found, err := first(t, scanRenewal, "SELECT "+renewalColumns+" FROM renewals WHERE tenant = $1 AND certificate = $2", t.in(tenant), string(made))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "certificate %s isn't one that took the place of another", imprint.Excerpt(string(made)))
	}
	return r, err
}

// RenewalsOf implements imprint.RenewalReader.
func (t *Tx) RenewalsOf(tenant imprint.Tenant, old imprint.CertificateID) ([]imprint.Renewal, error) {
	return all(t, scanRenewal, "SELECT "+renewalColumns+" FROM renewals WHERE tenant = $1 AND renews = $2 ORDER BY created_at, certificate LIMIT $3",
		t.in(tenant), string(old), int64(maxPlain))
}

// DueRenewals implements imprint.RenewalReader.
func (t *Tx) DueRenewals(by time.Time, limit int) ([]imprint.Renewal, error) {
	return some(t, limit, scanRenewal, "SELECT "+renewalColumns+" FROM renewals WHERE state = 'PROVEN' AND due_at <= $1 ORDER BY due_at, tenant, certificate LIMIT $2", millis(by))
}

// OpenRenewals implements imprint.RenewalReader.
func (t *Tx) OpenRenewals(tenant imprint.Tenant, made imprint.CertificateID, limit int) ([]imprint.Renewal, error) {
	behind := ""
	if tenant != (imprint.Tenant{}) {
		behind = t.in(tenant)
	}
	return some(t, limit, scanRenewal, "SELECT "+renewalColumns+" FROM renewals WHERE state IN ('PENDING', 'PROVEN') AND (tenant, certificate) > ($1, $2) "+
		"ORDER BY tenant, certificate LIMIT $3", behind, string(made))
}

// ExpiringCertificates implements imprint.RenewalReader.
func (t *Tx) ExpiringCertificates(tenant imprint.Tenant, after, before time.Time, p imprint.Page) ([]imprint.Certificate, string, error) {
	p.Ascending = true
	return expiring.page(t, p, nil, t.in(tenant), millis(after), millis(before))
}

// CountExpiring implements imprint.RenewalReader.
func (t *Tx) CountExpiring(tenant imprint.Tenant, after, before time.Time) (imprint.Expiring, error) {
	var n imprint.Expiring
	err := each(t, true, func(_ *Tx, r Rows, n *imprint.Expiring) error { return r.Scan(&n.All, &n.Alone) }, func(found imprint.Expiring) bool {
		n = found
		return true
	}, "SELECT COUNT(*), COALESCE(SUM(CASE WHEN EXISTS (SELECT 1 FROM renewals WHERE renewals.tenant = certificates.tenant AND renews = certificates.id "+
		"AND state IN ('PENDING', 'PROVEN')) THEN 0 ELSE 1 END), 0) FROM "+ending, t.in(tenant), millis(after), millis(before))
	return n, err
}

// PutRenewal implements imprint.RenewalWriter.
func (t *Tx) PutRenewal(r imprint.Renewal) error {
	_, err := t.exec(putRenewal, t.in(r.Tenant), string(r.Certificate), string(r.Renews), string(r.State), millis(r.CreatedAt), millis(r.ProvenAt),
		millis(r.DueAt), millis(r.EndedAt), r.Reason)
	if err == nil {
		t.changed(imprint.ChangeRenewal, r.Tenant, string(r.Certificate)+"/"+string(r.Renews))
	}
	return err
}

// TrimRenewals implements imprint.RenewalWriter.
func (t *Tx) TrimRenewals(before time.Time, limit int) (int, error) {
	n, err := t.exec("DELETE FROM renewals WHERE (tenant, certificate) IN (SELECT tenant, certificate FROM renewals WHERE ended_at > 0 AND ended_at < $1 "+
		"ORDER BY ended_at, tenant, certificate LIMIT $2)", millis(before), int64(limit))
	return int(n), err
}
