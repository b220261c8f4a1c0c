package broker_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// TestTheRetainedMessageIsTheOneThatSubscribersGotLast has several clients retain
// on one topic at once: who is subscribed and who comes later must end with the
// same message.
func TestTheRetainedMessageIsTheOneThatSubscribersGotLast(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	live := h.on(first, id, mqtt.V5, connectAs("live"))
	live.subscribe(1, "state")
	const publishers, rounds = 4, 100
	var pubs []*client
	for n := range publishers {
		pubs = append(pubs, h.on(first, id, mqtt.V5, connectAs(fmt.Sprint("pub", n))))
	}
	differ := 0
	for round := range rounds {
		var sending sync.WaitGroup
		for n, pub := range pubs {
			sending.Go(func() {
				pub.send(&mqtt.Publish{Topic: []byte("state"), Payload: fmt.Appendf(nil, "%d:%d", round, n), QoS: 1, PacketID: 1, Retain: true})
				expect[*mqtt.Ack](pub)
			})
		}
		sending.Wait()
		last := ""
		for range publishers {
			got := expect[*mqtt.Publish](live)
			last = string(got.Payload)
			live.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: got.PacketID})
		}
		late := h.on(first, id, mqtt.V5, connectAs("late"))
		late.subscribe(0, "state")
		if got := expect[*mqtt.Publish](late); string(got.Payload) != last {
			differ++
		}
		late.goodbye()
	}
	if differ > 0 {
		t.Errorf("in %d of %d rounds the retained message isn't the one that came last", differ, rounds)
	}
}
