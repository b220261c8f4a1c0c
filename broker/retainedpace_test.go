package broker_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// TestRetainedMessagesComeAtTheClientsPace has a client subscribe to many topics, each by
// its name, whose retained messages are more than may wait for it, and read later: it
// gets all of them. Small ones are among them that leave no room for a large one.
func TestRetainedMessagesComeAtTheClientsPace(t *testing.T) {
	t.Parallel()
	const topics, each = 48, 8
	for _, v := range versions {
		for qos := range mqtt.QoS(2) {
			t.Run(fmt.Sprintf("%s, QoS %d", v, qos), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t, broker.Options{MaxQueuedBytes: 160 << 10})
				id := h.register(first, allowAll)
				pub := h.on(first, id, mqtt.V5, connectAs("pub"))
				sizes := map[string]int{}
				for n := range topics {
					topic := fmt.Sprintf("pace/%s/%d/%d", v, qos, n)
					sizes[topic] = 131_000 - n%2*71_000
					pub.answer(&mqtt.Publish{Topic: []byte(topic), Payload: []byte(strings.Repeat("x", sizes[topic])), QoS: 1, PacketID: 7, Retain: true}, mqtt.Success)
				}
				name := fmt.Sprintf("sub%d%d", v, qos)
				watch := h.on(first, id, mqtt.V5, connectAs("watch"))
				watch.subscribe(0, "$aws/events/subscriptions/subscribed/"+name)
				sub := h.on(first, id, v, connectAs(name))
				h.must(sub.conn.(*net.TCPConn).SetReadBuffer(64 << 10))
				for from := 0; from < topics; from += each {
					packet := &mqtt.Subscribe{PacketID: 1}
					for n := range each {
						packet.Filters = append(packet.Filters, mqtt.Subscription{Filter: fmt.Sprintf("pace/%s/%d/%d", v, qos, from+n), QoS: qos})
					}
					sub.send(packet)
				}
				for range topics / each {
					expect[*mqtt.Publish](watch)
				}
				for len(sizes) > 0 {
					p, err := sub.receive()
					if err != nil {
						t.Fatalf("%d messages are missing: %v", len(sizes), err)
					}
					m, ok := p.(*mqtt.Publish)
					if !ok {
						continue
					}
					if want := sizes[string(m.Topic)]; len(m.Payload) != want || !m.Retain {
						t.Errorf("got %s, want %d bytes, retained, and once", m.Detail(), want)
					}
					delete(sizes, string(m.Topic))
					if m.QoS == 1 {
						sub.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: m.PacketID})
					}
				}
				if n := h.broker.Counters().PublishDropped; n > 0 {
					t.Errorf("%d messages were dropped, want none", n)
				}
			})
		}
	}
}
