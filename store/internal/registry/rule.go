package registry

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
)

const (
	ruleColumns        = "tenant, name, statement, sql_version, filter, description, disabled, actions, revision, created_at, modified_at"
	destinationColumns = "tenant, id, url, status, status_reason, token_hash, created_at, modified_at"
	deliveryColumns    = "id, tenant, rule, kind, queue, attempt_id, failures, due_at, created_at"
)

var (
	putRule = upsert("topic_rules", 2, "tenant", "name", "statement", "sql_version", "filter", "description", "disabled", "actions",
		"revision", "created_at", "modified_at")
	putDestination = upsert("rule_destinations", 2, "tenant", "id", "url", "status", "status_reason", "token_hash", "created_at", "modified_at")
	putDelivery    = upsert("rule_deliveries", 1, "id", "tenant", "rule", "kind", "queue", "attempt_id", "failures", "due_at", "created_at",
		"request", "origin")

	deliveryQueues = newDueQueues("rule_deliveries", "queue")

	topicRules = newList("ys", ruleColumns, "topic_rules WHERE tenant = $1", 1, []string{"name"}, scanRule,
		func(r *imprint.TopicRule) []any { return []any{string(r.Name)} })
	ruleDestinations = newList("ds", destinationColumns, "rule_destinations WHERE tenant = $1", 1, []string{"id"}, scanDestination,
		func(d *imprint.RuleDestination) []any { return []any{d.ID} })
)

// ruleActions is the JSON of a rule's actions.
type ruleActions struct {
	Actions []imprint.RuleAction `json:"actions,omitempty"`
	Error   *imprint.RuleAction  `json:"error,omitempty"`
}

func scanRule(t *Tx, r Rows, rule *imprint.TopicRule) error {
	var tenant string
	var disabled, created, modified int64
	var actions []byte
	err := r.Scan(&tenant, (*string)(&rule.Name), &rule.SQL, &rule.SQLVersion, &rule.Filter, &rule.Description, &disabled, &actions,
		&rule.Revision, &created, &modified)
	if err != nil {
		return err
	}
	var parsed ruleActions
	err = json.Unmarshal(actions, &parsed)
	if err != nil {
		return fmt.Errorf("couldn't read the actions of rule %s: %w", rule.Name, err)
	}
	rule.Tenant, rule.Disabled = t.readTenant(tenant), disabled != 0
	rule.Actions, rule.ErrorAction = parsed.Actions, parsed.Error
	rule.CreatedAt, rule.ModifiedAt = readTime(created), readTime(modified)
	return nil
}

func scanDestination(t *Tx, r Rows, d *imprint.RuleDestination) error {
	var tenant string
	var created, modified int64
	err := r.Scan(&tenant, &d.ID, &d.URL, (*string)(&d.Status), &d.StatusReason, &d.TokenHash, &created, &modified)
	d.Tenant = t.readTenant(tenant)
	d.CreatedAt, d.ModifiedAt = readTime(created), readTime(modified)
	return err
}

func scanDelivery(t *Tx, r Rows, d *imprint.RuleDelivery) error { return scanDeliveryAnd(t, r, d) }

func scanWholeDelivery(t *Tx, r Rows, d *imprint.RuleDelivery) error {
	var sealed []byte
	err := scanDeliveryAnd(t, r, d, &sealed, &d.Origin)
	if err != nil || len(sealed) == 0 {
		return err
	}
	d.Request, err = t.sealer.Open(sealed, deliveryContext(d.Tenant, d.ID))
	if err != nil {
		return fmt.Errorf("couldn't open the request of delivery %s: %w", d.ID, err)
	}
	return nil
}

func scanDeliveryAnd(t *Tx, r Rows, d *imprint.RuleDelivery, more ...any) error {
	var tenant string
	var due, created int64
	err := r.Scan(append([]any{&d.ID, &tenant, (*string)(&d.Rule), &d.Kind, &d.Queue, &d.AttemptID, &d.Failures, &due, &created}, more...)...)
	d.Tenant = t.readTenant(tenant)
	d.DueAt, d.CreatedAt = readTime(due), readTime(created)
	return err
}

// deliveryContext binds a sealed request to its row.
func deliveryContext(t imprint.Tenant, id string) []byte {
	return []byte("ruledelivery:" + t.String() + ":" + id)
}

// TopicRule implements imprint.TopicRuleReader.
func (t *Tx) TopicRule(tenant imprint.Tenant, name imprint.RuleName) (imprint.TopicRule, error) {
	rule, found, err := first(t, scanRule, "SELECT "+ruleColumns+" FROM topic_rules WHERE tenant = $1 AND name = $2", t.in(tenant), string(name))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "rule %s doesn't exist in %s", name, tenant)
	}
	return rule, err
}

// TopicRules implements imprint.TopicRuleReader.
func (t *Tx) TopicRules(tenant imprint.Tenant, keep func(*imprint.TopicRule) bool, p imprint.Page) ([]imprint.TopicRule, string, error) {
	return topicRules.page(t, p, keep, t.in(tenant))
}

// RuleDestination implements imprint.TopicRuleReader.
func (t *Tx) RuleDestination(tenant imprint.Tenant, id string) (imprint.RuleDestination, error) {
	d, found, err := first(t, scanDestination, "SELECT "+destinationColumns+" FROM rule_destinations WHERE tenant = $1 AND id = $2", t.in(tenant), id)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "destination %s doesn't exist in %s", imprint.Excerpt(id), tenant)
	}
	return d, err
}

// RuleDestinations implements imprint.TopicRuleReader.
func (t *Tx) RuleDestinations(tenant imprint.Tenant, p imprint.Page) ([]imprint.RuleDestination, string, error) {
	return ruleDestinations.page(t, p, nil, t.in(tenant))
}

// RuleDestinationByToken implements imprint.TopicRuleReader.
func (t *Tx) RuleDestinationByToken(hash string) (imprint.RuleDestination, error) {
	d, found, err := first(t, scanDestination, "SELECT "+destinationColumns+" FROM rule_destinations WHERE token_hash = $1 LIMIT 1", hash)
	if err == nil && (!found || hash == "") {
		d, err = imprint.RuleDestination{}, imprint.Errorf(imprint.CodeNotFound, "no destination waits for this token")
	}
	return d, err
}

// RuleDeliveries implements imprint.TopicRuleReader.
func (t *Tx) RuleDeliveries(tenant imprint.Tenant, queue string, due time.Time, limit int) ([]imprint.RuleDelivery, error) {
	return some(t, limit, scanDelivery, "SELECT "+deliveryColumns+" FROM rule_deliveries WHERE tenant = $1 AND queue = $2 AND due_at <= $3"+
		" ORDER BY due_at, id LIMIT $4", t.in(tenant), queue, millis(due))
}

// DeliveryTenants implements imprint.TopicRuleReader.
func (t *Tx) DeliveryTenants() ([]imprint.Tenant, error) { return deliveryQueues.tenants.list(t) }

// DeliveryQueues implements imprint.TopicRuleReader.
func (t *Tx) DeliveryQueues(tenant imprint.Tenant, after string, limit int) ([]imprint.DueQueue, error) {
	return deliveryQueues.list(t, tenant, after, limit)
}

// RuleDelivery implements imprint.TopicRuleReader.
func (t *Tx) RuleDelivery(id string) (imprint.RuleDelivery, error) {
	d, found, err := first(t, scanWholeDelivery, "SELECT "+deliveryColumns+", request, origin FROM rule_deliveries WHERE id = $1", id)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "no delivery %q waits", imprint.Excerpt(id))
	}
	return d, err
}

// NextRuleDelivery implements imprint.TopicRuleReader.
func (t *Tx) NextRuleDelivery(after time.Time) (time.Time, error) {
	due, found, err := first(t, func(_ *Tx, r Rows, n *int64) error { return r.Scan(n) },
		"SELECT due_at FROM rule_deliveries WHERE due_at > $1 ORDER BY due_at, id LIMIT 1", millis(after))
	if err != nil || !found {
		return time.Time{}, err
	}
	return readTime(due), nil
}

// RuleDeliveryUnits implements imprint.TopicRuleReader.
func (t *Tx) RuleDeliveryUnits(tenant imprint.Tenant) (int, error) {
	n, _, err := first(t, func(_ *Tx, r Rows, n *int) error { return r.Scan(n) },
		"SELECT COALESCE(SUM(1 + (LENGTH(request) + LENGTH(origin)) / $2), 0) FROM rule_deliveries WHERE tenant = $1 AND rule <> ''", t.in(tenant), int64(imprint.OwedUnit))
	return n, err
}

// PutTopicRule implements imprint.TopicRuleWriter.
func (t *Tx) PutTopicRule(r imprint.TopicRule) error {
	actions, err := json.Marshal(ruleActions{Actions: r.Actions, Error: r.ErrorAction})
	if err != nil {
		return fmt.Errorf("couldn't encode the actions of rule %s: %w", r.Name, err)
	}
	_, err = t.exec(putRule, t.in(r.Tenant), string(r.Name), r.SQL, r.SQLVersion, r.Filter, r.Description, flag(r.Disabled), actions,
		r.Revision, millis(r.CreatedAt), millis(r.ModifiedAt))
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeTopicRule, r.Tenant, string(r.Name))
	return nil
}

// DeleteTopicRule implements imprint.TopicRuleWriter.
func (t *Tx) DeleteTopicRule(tenant imprint.Tenant, name imprint.RuleName) error {
	return t.remove(imprint.ChangeTopicRule, tenant, string(name), "DELETE FROM topic_rules WHERE tenant = $1 AND name = $2", t.in(tenant), string(name))
}

// PutRuleDestination implements imprint.TopicRuleWriter.
func (t *Tx) PutRuleDestination(d imprint.RuleDestination) error {
	_, err := t.exec(putDestination, t.in(d.Tenant), d.ID, d.URL, string(d.Status), d.StatusReason, d.TokenHash, millis(d.CreatedAt), millis(d.ModifiedAt))
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeTopicRule, d.Tenant, d.ID)
	return nil
}

// DeleteRuleDestination implements imprint.TopicRuleWriter.
func (t *Tx) DeleteRuleDestination(tenant imprint.Tenant, id string) error {
	return t.remove(imprint.ChangeTopicRule, tenant, id, "DELETE FROM rule_destinations WHERE tenant = $1 AND id = $2", t.in(tenant), id)
}

// PutRuleDelivery implements imprint.TopicRuleWriter. Who puts one wakes whoever
// delivers: watchers hear nothing of it.
func (t *Tx) PutRuleDelivery(d imprint.RuleDelivery) error {
	sealed := []byte{}
	if len(d.Request) > 0 {
		var err error
		sealed, err = t.sealer.Seal(d.Request, deliveryContext(d.Tenant, d.ID))
		if err != nil {
			return fmt.Errorf("couldn't seal the request of delivery %s: %w", d.ID, err)
		}
	}
	_, err := t.exec(putDelivery, d.ID, t.in(d.Tenant), string(d.Rule), d.Kind, d.Queue, d.AttemptID, int64(d.Failures), millis(d.DueAt),
		millis(d.CreatedAt), sealed, blob(d.Origin))
	return err
}

// DeleteRuleDelivery implements imprint.TopicRuleWriter.
func (t *Tx) DeleteRuleDelivery(id string) error {
	_, err := t.exec("DELETE FROM rule_deliveries WHERE id = $1", id)
	return err
}
