package broker_test

import (
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// TestDisconnectReasonsOfEndsThatTheServerBringsAbout looks at those that no
// misuse of the client's leads to; test/abuse_test.go has the others.
func TestDisconnectReasonsOfEndsThatTheServerBringsAbout(t *testing.T) {
	bothVersions(t, broker.Options{MaxInflight: 1, MaxQueuedMessages: 1}, func(h *house, v mqtt.Version) {
		operator := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("operator"))
		operator.subscribe(0, "$aws/events/presence/disconnected/dev")
		for want, bring := range map[string]func(*client, imprint.CertificateID){
			"AUTH_ERROR": func(_ *client, id imprint.CertificateID) {
				h.setStatus(first, id, imprint.CertificateInactive)
			},
			"API_INITIATED_DISCONNECT": func(*client, imprint.CertificateID) {
				h.must(h.broker.Disconnect(t.Context(), first, "dev", broker.Ending{}))
			},
			"THROTTLED": func(c *client, _ imprint.CertificateID) {
				c.subscribe(1, "flood")
				for range 3 {
					operator.published("flood", "x")
				}
			},
		} {
			id := h.register(first, allowAll)
			c := h.on(first, id, v, connectAs("dev"))
			bring(c, id)
			got := operator.event("$aws/events/presence/disconnected/dev")
			if got["disconnectReason"] != want || got["clientInitiatedDisconnect"] != false {
				h.Errorf("got %v, want %s, not initiated by the client", got, want)
			}
		}
		mute := h.on(first, h.register(first, noPublish), v, connectAs("dev"))
		mute.publish(0, 0, "a", "x")
		if got := operator.event("$aws/events/presence/disconnected/dev"); got["disconnectReason"] != "AUTH_ERROR" {
			h.Errorf("a denied publish: got %v, want AUTH_ERROR", got["disconnectReason"])
		}
	})
}

// TestWhatTopicRulesHaveNoRoomForThrottlesItsPublisher: with MQTT 3.1.1 nothing but the end
// of the connection tells of it.
func TestWhatTopicRulesHaveNoRoomForThrottlesItsPublisher(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{Rules: busyRules{}})
	id := h.register(first, allowAll)
	operator := h.on(first, id, mqtt.V5, connectAs("operator"))
	operator.subscribe(0, "$aws/events/presence/disconnected/dev")
	dev := h.on(first, id, mqtt.V311, connectAs("dev"))
	dev.publish(1, 1, "a", "x")
	dev.closed()
	got := operator.event("$aws/events/presence/disconnected/dev")
	if got["disconnectReason"] != "THROTTLED" || got["clientInitiatedDisconnect"] != false {
		t.Errorf("got %v, want THROTTLED, not initiated by the client", got)
	}
	dev.ended(imprint.CodeRulesBusy)
}
