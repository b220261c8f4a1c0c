package broker_test

import (
	"context"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// busyRules have no room, but for messages whose payload is "kept".
type busyRules struct{}

func (r busyRules) Tenant(imprint.Tenant) imprint.TenantRules { return r }
func (busyRules) Idle() bool                                  { return false }
func (busyRules) Offer(_ context.Context, m *imprint.RuleMessage) error {
	if string(m.Payload) == "kept" {
		return nil
	}
	return imprint.Errorf(imprint.CodeRulesBusy, "as many messages as allowed wait")
}

// TestAMessageThatRulesHaveNoRoomForIsNotRetained, whichever door it comes by: who
// subscribes later gets the one before, as those got it who were subscribed.
func TestAMessageThatRulesHaveNoRoomForIsNotRetained(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{Rules: busyRules{}})
	pub := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("pub"))
	publish := func(payload string, want mqtt.ReasonCode) {
		t.Helper()
		pub.answer(&mqtt.Publish{Topic: []byte("state"), Payload: []byte(payload), QoS: 1, PacketID: 1, Retain: true}, want)
	}
	publish("kept", mqtt.Success)
	publish("refused", mqtt.QuotaExceeded)
	err := h.broker.Publish(t.Context(), broker.Message{Tenant: first, Topic: "state", Payload: []byte("refused"), QoS: 1, Retain: true})
	if imprint.CodeOf(err) != imprint.CodeRulesBusy {
		t.Errorf("by the other door: got %v, want %s", err, imprint.CodeRulesBusy)
	}
	publish("", mqtt.QuotaExceeded) // a deletion, too
	late := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("late"))
	late.subscribe(0, "state")
	if got := expect[*mqtt.Publish](late); string(got.Payload) != "kept" {
		t.Errorf("who comes later gets %q", got.Payload)
	}
}

// TestWhoGivesUpHasPublished, also a retained message: what the store is given is routed.
func TestWhoGivesUpHasPublished(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	live := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("live"))
	live.subscribe(0, "state")
	gone, giveUp := context.WithCancel(t.Context())
	giveUp()
	h.must(h.broker.Publish(gone, broker.Message{Tenant: first, Topic: "state", Payload: []byte("on"), QoS: 1, Retain: true}))
	if got := expect[*mqtt.Publish](live); string(got.Payload) != "on" {
		t.Errorf("who is subscribed gets %q", got.Payload)
	}
}

// secondRules have room for what a client offers for the second time, and for all else.
type secondRules struct{ offered chan imprint.RuleMessage }

func (r secondRules) Tenant(imprint.Tenant) imprint.TenantRules { return r }
func (secondRules) Idle() bool                                  { return false }
func (r secondRules) Offer(_ context.Context, m *imprint.RuleMessage) error {
	if m.MQTT {
		r.offered <- *m
	}
	if m.Wait || !m.MQTT {
		return nil
	}
	return imprint.Errorf(imprint.CodeRulesBusy, "as many messages as allowed wait")
}

// TestRulesAreToldWhatIsOfferedAgain ensures that they can tell what is lost from the first
// try of a QoS 1 message, which they needn't count.
func TestRulesAreToldWhatIsOfferedAgain(t *testing.T) {
	t.Parallel()
	r := secondRules{make(chan imprint.RuleMessage, 10)}
	h := newHouse(t, broker.Options{Rules: r})
	pub := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("pub"))
	pub.answer(&mqtt.Publish{Topic: []byte("a"), Payload: []byte("x"), QoS: 1, PacketID: 1}, mqtt.Success)
	if one, two := <-r.offered, <-r.offered; !one.Again || one.Wait || two.Again || !two.Wait {
		t.Errorf("QoS 1: got %+v and %+v, want one that comes again and one that waits", one, two)
	}
	pub.send(&mqtt.Publish{Topic: []byte("a"), Payload: []byte("x")})
	if one := <-r.offered; one.Again || one.Wait {
		t.Errorf("QoS 0: got %+v, want one that neither waits nor comes again", one)
	}
}
