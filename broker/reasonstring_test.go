package broker_test

import (
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// TestRefusalsNameTheirAttemptToClientsThatWantIt reads the reason strings of
// CONNACK, PUBACK and DISCONNECT.
func TestRefusalsNameTheirAttemptToClientsThatWantIt(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	deaf, mute := h.register(first, noConnect), h.register(first, noPublish)
	for _, row := range []struct {
		name string
		with func(*mqtt.Properties)
		want bool
	}{
		{"asks for nothing", func(*mqtt.Properties) {}, true},
		{"asks for none", func(p *mqtt.Properties) { p.Mark(mqtt.PropRequestProblemInfo) }, false},
		{"takes small packets only", func(p *mqtt.Properties) {
			p.MaximumPacketSize = 1000
			p.Mark(mqtt.PropMaximumPacketSize)
		}, false},
	} {
		connect := connectAs("dev")
		row.with(&connect.Properties)
		check := func(c *client, packet string, p mqtt.Properties) {
			t.Helper()
			told := p.Has(mqtt.PropReasonString) && strings.Contains(p.ReasonString, c.attempt)
			if told != row.want || len(p.ReasonString) > 256 {
				t.Errorf("%s, %s: got reason string %q, want one with attempt %s: %t", row.name, packet, p.ReasonString, c.attempt, row.want)
			}
		}
		c := h.door(first, deaf, mqtt.V5)
		c.send(connect)
		check(c, "CONNACK", expect[*mqtt.Connack](c).Properties)
		c = h.door(first, "unknown", mqtt.V5)
		c.send(connect)
		check(c, "CONNACK to a certificate that isn't registered", expect[*mqtt.Connack](c).Properties)
		c = h.on(first, mute, mqtt.V5, connect)
		c.publish(1, 1, "a", "x")
		check(c, "PUBACK", expect[*mqtt.Ack](c).Properties)
		c.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "$SYS/a"}}})
		check(c, "SUBACK", expect[*mqtt.Suback](c).Properties)
		c.publish(0, 0, "a", "x")
		check(c, "DISCONNECT", expect[*mqtt.Disconnect](c).Properties)
	}
}
