package registry

import "github.com/imprint-iot/imprint"

const billingColumns = "tenant, name, group_id, description, version, created_at, modified_at"

var (
	putBillingGroup = upsert("billing_groups", 2, "tenant", "name", "group_id", "description", "version", "created_at", "modified_at")

	billingGroups = newRange("bs", billingColumns, "billing_groups WHERE tenant = $1", 1, "name", scanBillingGroup,
		func(g *imprint.BillingGroup) []any { return []any{string(g.Name)} })
	billingGroupThings = newList("cs", thingColumns, "things WHERE tenant = $1 AND billing_group = $2 AND billing_group <> ''", 2,
		[]string{"name"}, scanThing, thingKey)
)

func scanBillingGroup(t *Tx, r Rows, g *imprint.BillingGroup) error {
	var tenant string
	var created, modified int64
	err := r.Scan(&tenant, (*string)(&g.Name), &g.ID, &g.Description, &g.Version, &created, &modified)
	g.Tenant = t.readTenant(tenant)
	g.CreatedAt, g.ModifiedAt = readTime(created), readTime(modified)
	return err
}

// BillingGroup implements imprint.BillingGroupReader.
func (t *Tx) BillingGroup(tenant imprint.Tenant, name imprint.BillingGroupName) (imprint.BillingGroup, error) {
	g, found, err := first(t, scanBillingGroup, "SELECT "+billingColumns+" FROM billing_groups WHERE tenant = $1 AND name = $2",
		t.in(tenant), string(name))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "billing group %s doesn't exist in %s", name, tenant)
	}
	return g, err
}

// BillingGroups implements imprint.BillingGroupReader.
func (t *Tx) BillingGroups(tenant imprint.Tenant, prefix string, p imprint.Page) ([]imprint.BillingGroup, string, error) {
	return billingGroups.page(t, p, nil, beforePrefix(prefix), prefix+afterNames, t.in(tenant))
}

// BillingGroupThings implements imprint.BillingGroupReader.
func (t *Tx) BillingGroupThings(tenant imprint.Tenant, name imprint.BillingGroupName, p imprint.Page) ([]imprint.Thing, string, error) {
	return billingGroupThings.page(t, p, nil, t.in(tenant), string(name))
}

// PutBillingGroup implements imprint.BillingGroupWriter.
func (t *Tx) PutBillingGroup(g imprint.BillingGroup) error {
	_, err := t.exec(putBillingGroup, t.in(g.Tenant), string(g.Name), g.ID, g.Description, g.Version,
		millis(g.CreatedAt), millis(g.ModifiedAt))
	return err
}

// DeleteBillingGroup implements imprint.BillingGroupWriter.
func (t *Tx) DeleteBillingGroup(tenant imprint.Tenant, name imprint.BillingGroupName) error {
	_, err := t.exec("DELETE FROM billing_groups WHERE tenant = $1 AND name = $2", t.in(tenant), string(name))
	return err
}
