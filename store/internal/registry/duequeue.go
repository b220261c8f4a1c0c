package registry

import "github.com/imprint-iot/imprint"

// dueQueues lists tenants and queues of a table of owed work, each by one step
// over an index on tenant, queue, due_at and id: what it costs depends on how many
// there are, and not on how much waits in them.
type dueQueues struct {
	firstTenant, nextTenant, firstQueue, nextQueue string
}

func newDueQueues(table, queue string) dueQueues {
	tenants, ofTenant := "SELECT tenant FROM "+table, "SELECT "+queue+", due_at FROM "+table+" WHERE tenant = $1"
	tenantOrder, queueOrder := " ORDER BY tenant LIMIT 1", " ORDER BY "+queue+", due_at, id LIMIT 1"
	return dueQueues{
		firstTenant: tenants + tenantOrder, nextTenant: tenants + " WHERE tenant > $1" + tenantOrder,
		firstQueue: ofTenant + queueOrder, nextQueue: ofTenant + " AND " + queue + " > $2" + queueOrder,
	}
}

func (d *dueQueues) tenants(t *Tx) ([]imprint.Tenant, error) {
	var list []imprint.Tenant
	scan := func(_ *Tx, r Rows, text *string) error { return r.Scan(text) }
	text, found, err := first(t, scan, d.firstTenant)
	for found && err == nil {
		list = append(list, t.readTenant(text))
		text, found, err = first(t, scan, d.nextTenant, text)
	}
	return list, err
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
