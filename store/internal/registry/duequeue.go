package registry

import "github.com/imprint-iot/imprint"

// tenantSteps lists the tenants of a table by one step over an index on tenant for each,
// however many rows one has.
type tenantSteps struct{ first, next string }

func newTenantSteps(table string) tenantSteps {
	tenants, order := "SELECT tenant FROM "+table, " ORDER BY tenant LIMIT 1"
	return tenantSteps{first: tenants + order, next: tenants + " WHERE tenant > $1" + order}
}

func (s *tenantSteps) list(t *Tx) ([]imprint.Tenant, error) {
	var list []imprint.Tenant
	scan := func(_ *Tx, r Rows, text *string) error { return r.Scan(text) }
	text, found, err := first(t, scan, s.first)
	for found && err == nil {
		list = append(list, t.readTenant(text))
		text, found, err = first(t, scan, s.next, text)
	}
	return list, err
}

// dueQueues lists tenants and queues of a table of owed work, each by one step
// over an index on tenant, queue, due_at and id: what it costs depends on how many
// there are, and not on how much waits in them.
type dueQueues struct {
	tenants               tenantSteps
	firstQueue, nextQueue string
}

func newDueQueues(table, queue string) dueQueues {
	ofTenant, order := "SELECT "+queue+", due_at FROM "+table+" WHERE tenant = $1", " ORDER BY "+queue+", due_at, id LIMIT 1"
	return dueQueues{
		tenants: newTenantSteps(table), firstQueue: ofTenant + order, nextQueue: ofTenant + " AND " + queue + " > $2" + order,
	}
}

// list gives the queues after a name; an empty one begins with the first, which
// may have no name.
func (d *dueQueues) list(t *Tx, tenant imprint.Tenant, after string, limit int) ([]imprint.DueQueue, error) {
	var list []imprint.DueQueue
	scan := func(_ *Tx, r Rows, q *imprint.DueQueue) error {
		var due int64
		err := r.Scan(&q.Name, &due)
		q.DueAt = readTime(due)
		return err
	}
	in := t.in(tenant)
	for begins := after == ""; len(list) < limit; begins = false {
		query, args := d.nextQueue, []any{in, after}
		if begins {
			query, args = d.firstQueue, []any{in}
		}
		q, found, err := first(t, scan, query, args...)
		if err != nil || !found {
			return list, err
		}
		list = append(list, q)
		after = q.Name
	}
	return list, nil
}
