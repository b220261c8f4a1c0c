package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// fullAction has every kind of action, which no rule's has, to see that all of
// it comes back.
func fullAction() imprint.RuleAction {
	fields := []imprint.RuleField{{Key: "k", Value: unusual}}
	return imprint.RuleAction{
		Lambda: &imprint.LambdaRuleAction{FunctionARN: "arn"},
		Republish: &imprint.RepublishRuleAction{RoleARN: "role", Topic: unusual, QoS: 1, Headers: &imprint.RuleMessageFields{
			PayloadFormat: "UTF8_DATA", ContentType: "text/plain", ResponseTopic: "r", CorrelationData: "AA==", MessageExpiry: "1", UserProperties: fields}},
		HTTP:     &imprint.HTTPRuleAction{URL: "https://a.example.com", ConfirmationURL: "https://b.example.com", Headers: fields},
		Firehose: &imprint.FirehoseRuleAction{RoleARN: "role", Stream: "s", Separator: "\n", BatchMode: true},
		Kafka: &imprint.KafkaRuleAction{DestinationARN: "arn", Topic: "t", Key: "k", Partition: "1", Properties: map[string]string{"acks": "1"},
			Headers: fields},
	}
}

func ruleRows() []row {
	id := func(t imprint.Tenant) string { return "id " + t.String() }
	return []row{{
		name: "topic rule",
		full: func(t imprint.Tenant) any {
			second := fullAction()
			return imprint.TopicRule{Tenant: t, Name: "on_register", SQL: unusual, SQLVersion: "2016-03-23", Filter: "a/+", Description: unusual,
				Disabled: true, Actions: []imprint.RuleAction{fullAction(), second}, ErrorAction: &second, Revision: "r " + string(t.Region),
				CreatedAt: instant, ModifiedAt: instant.Add(time.Second)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.TopicRule{Tenant: t, Name: "on_register"} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutTopicRule(v.(imprint.TopicRule)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.TopicRule(t, "on_register") },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteTopicRule(t, "on_register") },
	}, {
		name: "rule destination",
		full: func(t imprint.Tenant) any {
			return imprint.RuleDestination{Tenant: t, ID: "d", URL: "https://example.com/" + string(t.Region), Status: imprint.RuleDestinationEnabled,
				StatusReason: unusual, TokenHash: "hash " + t.String(), CreatedAt: instant, ModifiedAt: instant.Add(time.Second)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.RuleDestination{Tenant: t, ID: "d"} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutRuleDestination(v.(imprint.RuleDestination)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.RuleDestination(t, "d") },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteRuleDestination(t, "d") },
	}, {
		name: "rule delivery",
		full: func(t imprint.Tenant) any {
			return imprint.RuleDelivery{ID: id(t), Tenant: t, Rule: "r", Kind: "http", Queue: unusual, AttemptID: "a", Failures: 3, DueAt: instant.Add(time.Minute),
				CreatedAt: instant, Request: []byte("\x00request of " + t.String()), Origin: []byte("\x00origin")}
		},
		bare:   func(t imprint.Tenant) any { return imprint.RuleDelivery{ID: id(t), Tenant: t} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutRuleDelivery(v.(imprint.RuleDelivery)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.RuleDelivery(id(t)) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteRuleDelivery(id(t)) },
	}}
}

func ruleLists() []pagedList {
	return []pagedList{
		{"topic rules", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutTopicRule(imprint.TopicRule{Tenant: t, Name: imprint.RuleName(name(n))})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.TopicRules(t, nil, p)
			return numbers(items, next, err, func(i imprint.TopicRule) string { return string(i.Name) })
		}},
		{"topic rules that are wanted", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			err := tx.PutTopicRule(imprint.TopicRule{Tenant: t, Name: imprint.RuleName("unwanted" + name(n)), Disabled: true})
			if err != nil {
				return err
			}
			return tx.PutTopicRule(imprint.TopicRule{Tenant: t, Name: imprint.RuleName("wanted" + name(n)), Filter: "wanted"})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.TopicRules(t, func(r *imprint.TopicRule) bool { return r.Filter == "wanted" }, p)
			return numbers(items, next, err, func(i imprint.TopicRule) string { return string(i.Name) })
		}},
		{"rule destinations", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutRuleDestination(imprint.RuleDestination{Tenant: t, ID: name(n)})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.RuleDestinations(t, p)
			return numbers(items, next, err, func(i imprint.RuleDestination) string { return i.ID })
		}},
	}
}

// wantQueues checks the tenants, which must be here and there, and the pages of
// the queues of here.
func wantQueues(t *testing.T, tenants []imprint.Tenant, list func(after string, limit int) ([]imprint.DueQueue, error), want []imprint.DueQueue) error {
	t.Helper()
	if len(tenants) != 2 || !slices.Contains(tenants, here) || !slices.Contains(tenants, there) {
		t.Errorf("the tenants: got %v, want %s and %s", tenants, here, there)
	}
	for _, test := range []struct {
		after string
		limit int
		want  []imprint.DueQueue
	}{{"", 10, want}, {"", 2, want[:2]}, {want[1].Name, 10, want[2:]}, {want[2].Name, 10, nil}, {"", 0, nil}} {
		got, err := list(test.after, test.limit)
		if err != nil {
			return err
		}
		same(t, "the queues after "+test.after, got, test.want)
	}
	return nil
}

func testRuleDeliveries(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	put := func(id string, tenant imprint.Tenant, queue string, due time.Duration) imprint.RuleDelivery {
		d := imprint.RuleDelivery{ID: id, Tenant: tenant, Rule: "r", Kind: "http", Queue: queue, DueAt: instant.Add(due), CreatedAt: instant,
			Request: []byte("request"), Origin: []byte("origin")}
		update(t, store, func(tx imprint.Tx) error { return tx.PutRuleDelivery(d) })
		d.Request, d.Origin = nil, nil
		return d
	}
	late, early, later := put("1", here, "q", time.Second), put("2", here, "q", 0), put("3", here, "q", time.Hour)
	put("4", there, "q", 0)
	put("5", here, "p", time.Hour)
	put("6", here, "", 0)
	update(t, store, func(tx imprint.Tx) error {
		return tx.PutRuleDelivery(imprint.RuleDelivery{ID: "7", Tenant: here, Kind: "confirm", DueAt: instant})
	})
	view(t, store, func(tx imprint.ReadTx) error {
		due, err := tx.RuleDeliveries(here, "q", instant.Add(time.Second), 10)
		same(t, "what is due", due, []imprint.RuleDelivery{early, late})
		if err != nil {
			return err
		}
		next, err := tx.NextRuleDelivery(instant.Add(time.Second))
		same(t, "when the next is due", next, later.DueAt)
		if err != nil {
			return err
		}
		none, err := tx.NextRuleDelivery(later.DueAt)
		same(t, "when none is due", none, time.Time{})
		if err != nil {
			return err
		}
		count, err := tx.RuleDeliveryUnits(here)
		same(t, "the count of a tenant", count, 5)
		if err != nil {
			return err
		}
		tenants, err := tx.DeliveryTenants()
		if err != nil {
			return err
		}
		return wantQueues(t, tenants, func(after string, limit int) ([]imprint.DueQueue, error) {
			return tx.DeliveryQueues(here, after, limit)
		},
			[]imprint.DueQueue{{Name: "", DueAt: instant}, {Name: "p", DueAt: instant.Add(time.Hour)}, {Name: "q", DueAt: instant}})
	})
	d := imprint.RuleDestination{Tenant: there, ID: "d", TokenHash: "h"}
	update(t, store, func(tx imprint.Tx) error { return tx.PutRuleDestination(d) })
	update(t, store, func(tx imprint.Tx) error {
		return tx.PutRuleDestination(imprint.RuleDestination{Tenant: there, ID: "e"})
	})
	view(t, store, func(tx imprint.ReadTx) error {
		found, err := tx.RuleDestinationByToken("h")
		same(t, "the destination of a token", found, imprint.RuleDestination{Tenant: there, ID: "d", TokenHash: "h", CreatedAt: found.CreatedAt, ModifiedAt: found.ModifiedAt})
		if err != nil {
			return err
		}
		_, err = tx.RuleDestinationByToken("")
		wantCode(t, err, imprint.CodeNotFound)
		return nil
	})
}
