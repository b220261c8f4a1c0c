package broker_test

import (
	"path/filepath"
	"testing"

	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// TestRetainedMessagesThatTheStoreHasNeverthelessAreKnown has the store fail a retained
// message, or the deletion of one, whether it has it nevertheless or not: the server
// knows what there is, as it would after a restart.
func TestRetainedMessagesThatTheStoreHasNeverthelessAreKnown(t *testing.T) {
	t.Parallel()
	for mode, name := range failModes {
		if mode == 0 {
			continue
		}
		persisted := mode == 3
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var broken failingStore
			h := newHouseOn(t, broker.Options{MaxRetained: 1}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), broken.faults()))
			id := h.register(first, allowAll)
			pub := h.on(first, id, mqtt.V5, connectAs("pub"))
			retain := func(topic, payload string) mqtt.ReasonCode {
				t.Helper()
				pub.send(&mqtt.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: 1, PacketID: 1, Retain: true})
				return expect[*mqtt.Ack](pub).Reason
			}
			fails := func(topic, payload string) {
				t.Helper()
				broken.mode.Store(int32(mode))
				if got := retain(topic, payload); got < mqtt.UnspecifiedError {
					t.Fatalf("PUBLISH %q: got %s, want no success", payload, got)
				}
				broken.mode.Store(0)
				h.broker.AwaitLedger()
			}
			got := func() string {
				t.Helper()
				late := h.on(first, id, mqtt.V5, connectAs("late"))
				defer late.goodbye()
				late.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "state"}}}, &mqtt.Pingreq{})
				expect[*mqtt.Suback](late)
				p, err := late.receive()
				h.must(err)
				if p, ok := p.(*mqtt.Publish); ok {
					expect[*mqtt.Pingresp](late)
					return string(p.Payload)
				}
				return ""
			}
			fails("state", "on")
			if on := got() == "on"; on != persisted {
				t.Errorf("the message is sent: %t, want %t", on, persisted)
			}
			if persisted != (retain("other", "x") == mqtt.QuotaExceeded) {
				t.Errorf("the message takes a place: %t, want %t", !persisted, persisted)
			}
			retain("other", "")
			if reason := retain("state", "off"); reason != mqtt.Success {
				t.Fatalf("got %s", reason)
			}
			fails("state", "")
			if off := got() == "off"; off == persisted {
				t.Errorf("the message is sent: %t, want %t", off, !persisted)
			}
			if persisted == (retain("other", "x") == mqtt.QuotaExceeded) {
				t.Errorf("the message takes a place: %t, want %t", persisted, !persisted)
			}
		})
	}
}
