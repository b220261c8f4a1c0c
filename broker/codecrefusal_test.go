package broker_test

import (
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// TestConnectsThatCannotBeReadAreToldTheirAttempt ensures that a CONNECT that is refused
// before anything of it is judged gets words, too, if its client wants some.
func TestConnectsThatCannotBeReadAreToldTheirAttempt(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	longer := func(packet []byte) []byte { // by a byte that belongs to nothing
		packet[1]++ // the remaining length, which has one byte here
		return append(packet, 0)
	}
	for _, row := range []struct {
		name   string
		spoil  func(*mqtt.Connect)
		change func([]byte) []byte
		want   mqtt.ReasonCode
	}{
		{"Receive Maximum 0", func(c *mqtt.Connect) { c.Properties.Mark(mqtt.PropReceiveMaximum) }, nil, mqtt.ProtocolError},
		{"a byte too much", func(*mqtt.Connect) {}, longer, mqtt.MalformedPacket},
		{"a will on a filter", func(c *mqtt.Connect) { c.Will = &mqtt.Will{Topic: "a/+"} }, nil, mqtt.TopicNameInvalid},
	} {
		for _, wish := range []struct {
			name string
			with func(*mqtt.Properties)
			told bool
		}{
			{"asks for nothing", func(*mqtt.Properties) {}, true},
			{"asks for none", func(p *mqtt.Properties) { p.Mark(mqtt.PropRequestProblemInfo) }, false},
			{"takes small packets only", func(p *mqtt.Properties) {
				p.MaximumPacketSize = 1000
				p.Mark(mqtt.PropMaximumPacketSize)
			}, false},
		} {
			if row.name == "Receive Maximum 0" && !wish.told {
				continue // what comes after a property that can't be read isn't known
			}
			connect := connectAs("dev")
			wish.with(&connect.Properties)
			row.spoil(connect)
			for _, v := range versions {
				c := h.door(first, id, v)
				bytes := connect.Append(nil, v)
				if row.change != nil {
					bytes = row.change(bytes)
				}
				if v != mqtt.V5 {
					if row.name != "Receive Maximum 0" { // MQTT 3.1.1 has no properties
						c.write(bytes)
						c.closed()
					}
					continue
				}
				c.write(bytes)
				got := expect[*mqtt.Connack](c)
				told := got.Properties.Has(mqtt.PropReasonString) && strings.Contains(got.Properties.ReasonString, c.attempt)
				if got.Reason != row.want || told != wish.told {
					t.Errorf("%s, a client that %s: got %s, want %s with the attempt %s: %t", row.name, wish.name, got.Detail(), row.want, c.attempt, wish.told)
				}
				c.closed()
			}
		}
	}
}
