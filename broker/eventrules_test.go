package broker_test

import (
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// TestAnEventThatRulesHaveNoRoomForGoesToNobodyYet ensures that an event which comes again
// until rules have room isn't with subscribers before, once each time.
func TestAnEventThatRulesHaveNoRoomForGoesToNobodyYet(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{Rules: busyRules{}})
	watch := h.on(first, h.register(first, allowAll), mqtt.V5, lasting(mqtt.V5, "watch", 1000))
	watch.subscribe(1, "$aws/events/thing/#")
	publish := func(payload string) chan error {
		done := make(chan error, 2)
		h.broker.PublishEvent(t.Context(), imprint.Event{Tenant: first, Topic: "$aws/events/thing/a/created", Payload: []byte(payload)}, func(err error) { done <- err })
		return done
	}
	if err := <-publish("busy"); imprint.CodeOf(err) != imprint.CodeRulesBusy {
		t.Errorf("got %v, want %s", err, imprint.CodeRulesBusy)
	}
	done := publish("kept") // these rules take it, and never end
	watch.gets("$aws/events/thing/a/created", "kept", 1)
	watch.silent()
	select {
	case err := <-done:
		t.Errorf("an event whose rules still run is done: %v", err)
	default:
	}
}
