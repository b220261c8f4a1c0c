package registry

import (
	"github.com/imprint-iot/imprint"
)

var eventTenants = newTenantSteps("events")

var putEvent = upsert("events", 2, "tenant", "id", "topic", "payload", "at", "attempt_id")

func scanEvent(t *Tx, r Rows, e *imprint.Event) error {
	var tenant, payload string
	var at int64
	err := r.Scan(&e.ID, &tenant, &e.Topic, &payload, &at, &e.AttemptID)
	e.Tenant = t.readTenant(tenant)
	e.At = readTime(at)
	if payload != "" {
		e.Payload = []byte(payload)
	}
	return err
}

// Events implements imprint.TraceReader, by id, which sorts by time.
func (t *Tx) Events(tenant imprint.Tenant, limit int) ([]imprint.Event, error) {
	return some(t, limit, scanEvent, "SELECT id, tenant, topic, payload, at, attempt_id FROM events WHERE tenant = $1 ORDER BY id LIMIT $2", t.in(tenant))
}

// EventUnits implements imprint.TraceReader.
func (t *Tx) EventUnits(tenant imprint.Tenant) (int, error) {
	n, _, err := first(t, func(_ *Tx, r Rows, n *int) error { return r.Scan(n) },
		"SELECT COALESCE(SUM(1 + (OCTET_LENGTH(topic) + OCTET_LENGTH(payload)) / $2), 0) FROM events WHERE tenant = $1", t.in(tenant), int64(imprint.OwedUnit))
	return n, err
}

// EventTenants implements imprint.TraceReader.
func (t *Tx) EventTenants() ([]imprint.Tenant, error) { return eventTenants.list(t) }

// PutEvent implements imprint.TraceWriter.
func (t *Tx) PutEvent(e imprint.Event) error {
	_, err := t.exec(putEvent, t.in(e.Tenant), e.ID, e.Topic, string(e.Payload), millis(e.At), e.AttemptID)
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeEvent, e.Tenant, e.ID)
	return nil
}

// DeleteEvents implements imprint.TraceWriter. Nothing waits any more, so
// watchers hear nothing of it.
func (t *Tx) DeleteEvents(tenant imprint.Tenant, ids []string) error {
	for _, id := range ids {
		_, err := t.exec("DELETE FROM events WHERE tenant = $1 AND id = $2", t.in(tenant), id)
		if err != nil {
			return err
		}
	}
	return nil
}
