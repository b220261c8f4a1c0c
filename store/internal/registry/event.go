package registry

import (
	"github.com/imprint-iot/imprint"
)

var putEvent = upsert("events", 1, "id", "tenant", "topic", "payload", "at", "attempt_id")

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
func (t *Tx) Events(limit int) ([]imprint.Event, error) {
	if limit < 1 {
		return nil, nil
	}
	return all(t, scanEvent, "SELECT id, tenant, topic, payload, at, attempt_id FROM events ORDER BY id LIMIT $1",
		int64(min(limit, maxPage)))
}

// PutEvent implements imprint.TraceWriter.
func (t *Tx) PutEvent(e imprint.Event) error {
	_, err := t.exec(putEvent, e.ID, t.in(e.Tenant), e.Topic, string(e.Payload), millis(e.At), e.AttemptID)
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeEvent, e.Tenant, e.ID)
	return nil
}

// DeleteEvents implements imprint.TraceWriter. Nothing waits any more, so
// watchers hear nothing of it.
func (t *Tx) DeleteEvents(ids []string) error {
	for _, id := range ids {
		_, err := t.exec("DELETE FROM events WHERE id = $1", id)
		if err != nil {
			return err
		}
	}
	return nil
}
