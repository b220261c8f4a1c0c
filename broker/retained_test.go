package broker_test

import (
	"fmt"
	"testing"

	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// TestUnsubscribeStopsRetainedMessages ensures that an UNSUBSCRIBE holds for the
// retained messages that are still to be sent, too [MQTT-3.10.4-2]. Those of another
// filter come after them and tell that there is no more.
func TestUnsubscribeStopsRetainedMessages(t *testing.T) {
	const many, room = 600, 40
	for qos := range mqtt.QoS(2) {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, broker.Options{StandardRetainedMatch: true, MaxSessionMessages: room})
			id := h.register(first, allowAll)
			pub := h.on(first, id, mqtt.V5, connectAs("pub"))
			topics := []string{"last/0", "last/1"}
			for n := range many {
				topics = append(topics, fmt.Sprint("ru/", n))
			}
			for _, topic := range topics {
				pub.send(&mqtt.Publish{Topic: []byte(topic), Payload: []byte(topic), QoS: 1, Retain: true, PacketID: 1})
				expect[*mqtt.Ack](pub)
			}
			connect := connectAs("sub")
			if qos == 1 {
				connect = lasting(mqtt.V5, "sub", 1000)
			}
			sub := h.on(first, id, mqtt.V5, connect)
			sub.send(
				&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "ru/+", QoS: qos}}},
				&mqtt.Unsubscribe{PacketID: 2, Filters: []string{"ru/+"}},
				&mqtt.Subscribe{PacketID: 3, Filters: []mqtt.Subscription{{Filter: "last/+", QoS: qos}}},
			)
			got, after, unsubscribed := 0, 0, false
			for last := 0; last < 2; {
				p, err := sub.receive()
				if err != nil {
					t.Fatalf("after %d messages: %v", got, err)
				}
				switch p := p.(type) {
				case *mqtt.Unsuback:
					unsubscribed = true
				case *mqtt.Publish:
					if p.QoS == 1 {
						sub.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: p.PacketID})
					}
					if string(p.Topic[:2]) != "ru" {
						last++
						continue
					}
					got++
					if unsubscribed {
						after++
					}
				}
			}
			// Of QoS 1 messages, those that are in the session's queue by then still come.
			if qos == 0 && after > 0 || got > room {
				t.Errorf("got %d of %d messages, %d of them after UNSUBACK", got, many, after)
			}
		})
	}
}
