package registry

import (
	"strings"

	"github.com/imprint-iot/imprint"
)

const rolloverColumns = "tenant, from_ca, to_ca, devices, certificates, last_end, renew_from, renew_until, started_at, started_by"

// sightingStep is by how many milliseconds a sighting must be later than the last one to
// be written: a device that comes again and again costs no write each time.
const sightingStep = "3600000"

var (
	putRollover = upsert("rollovers", 2, strings.Split(rolloverColumns, ", ")...)
	putSighting = "INSERT INTO sightings (tenant, certificate_id, first_at, last_at) VALUES ($1, $2, $3, $4) " +
		"ON CONFLICT (tenant, certificate_id) DO UPDATE SET last_at = excluded.last_at WHERE excluded.last_at >= sightings.last_at + " + sightingStep
	deleteSightings = "DELETE FROM sightings WHERE tenant = $1 AND certificate_id IN (SELECT certificate_id FROM sightings WHERE tenant = $1 ORDER BY certificate_id LIMIT $2)"

	rollovers = newList("xs", rolloverColumns, "rollovers WHERE tenant = $1", 1, []string{"from_ca"}, scanRollover,
		func(r *imprint.Rollover) []any { return []any{string(r.From)} })
)

func scanRollover(t *Tx, rows Rows, r *imprint.Rollover) error {
	var tenant string
	var end, from, until, started int64
	err := rows.Scan(&tenant, (*string)(&r.From), (*string)(&r.To), &r.Devices, &r.Certificates, &end, &from, &until, &started, &r.StartedBy)
	r.Tenant = t.readTenant(tenant)
	r.LastEnd, r.RenewFrom, r.RenewUntil, r.StartedAt = readTime(end), readTime(from), readTime(until), readTime(started)
	return err
}

func scanSighting(t *Tx, rows Rows, s *imprint.Sighting) error {
	var tenant string
	var firstAt, lastAt int64
	err := rows.Scan(&tenant, (*string)(&s.Certificate), &firstAt, &lastAt)
	s.Tenant, s.FirstAt, s.LastAt = t.readTenant(tenant), readTime(firstAt), readTime(lastAt)
	return err
}

// Rollover implements imprint.RolloverReader.
func (t *Tx) Rollover(tenant imprint.Tenant, from imprint.CertificateID) (imprint.Rollover, error) {
	r, found, err := first(t, scanRollover, "SELECT "+rolloverColumns+" FROM rollovers WHERE tenant = $1 AND from_ca = $2", t.in(tenant), string(from))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "CA certificate %s has no rollover", imprint.Excerpt(string(from))).
			WithHint("imprint ca rollover --start plans one.")
	}
	return r, err
}

// Rollovers implements imprint.RolloverReader.
func (t *Tx) Rollovers(tenant imprint.Tenant, p imprint.Page) ([]imprint.Rollover, string, error) {
	return rollovers.page(t, p, nil, t.in(tenant))
}

// RolloverTenants implements imprint.RolloverReader.
func (t *Tx) RolloverTenants() ([]imprint.Tenant, error) {
	return all(t, func(t *Tx, r Rows, tenant *imprint.Tenant) error {
		var text string
		err := r.Scan(&text)
		*tenant = t.readTenant(text)
		return err
	}, "SELECT DISTINCT tenant FROM rollovers ORDER BY tenant LIMIT $1", int64(maxPage))
}

// Sighting implements imprint.RolloverReader.
func (t *Tx) Sighting(tenant imprint.Tenant, id imprint.CertificateID) (imprint.Sighting, error) {
	s, found, err := first(t, scanSighting, "SELECT tenant, certificate_id, first_at, last_at FROM sightings WHERE tenant = $1 AND certificate_id = $2", t.in(tenant), string(id))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "certificate %s wasn't seen in %s", imprint.Excerpt(string(id)), tenant)
	}
	return s, err
}

// PutRollover implements imprint.RolloverWriter.
func (t *Tx) PutRollover(r imprint.Rollover) error {
	_, err := t.exec(putRollover, t.in(r.Tenant), string(r.From), string(r.To), r.Devices, r.Certificates, millis(r.LastEnd), millis(r.RenewFrom),
		millis(r.RenewUntil), millis(r.StartedAt), r.StartedBy)
	if err == nil {
		t.changed(imprint.ChangeRollover, r.Tenant, string(r.From))
	}
	return err
}

// DeleteRollover implements imprint.RolloverWriter.
func (t *Tx) DeleteRollover(tenant imprint.Tenant, from imprint.CertificateID) error {
	return t.remove(imprint.ChangeRollover, tenant, string(from), "DELETE FROM rollovers WHERE tenant = $1 AND from_ca = $2", t.in(tenant), string(from))
}

// PutSighting implements imprint.RolloverWriter.
func (t *Tx) PutSighting(s imprint.Sighting) error {
	_, err := t.exec(putSighting, t.in(s.Tenant), string(s.Certificate), millis(s.FirstAt), millis(s.LastAt))
	return err
}

// DeleteSightings implements imprint.RolloverWriter.
func (t *Tx) DeleteSightings(tenant imprint.Tenant, limit int) (int, error) {
	if limit < 1 {
		return 0, nil
	}
	n, err := t.exec(deleteSightings, t.in(tenant), int64(min(limit, maxPage)))
	return int(n), err
}
