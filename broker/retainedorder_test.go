package broker_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

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

// TestRulesAreOfferedRetainedMessagesSideBySide has several clients retain on one topic
// while topic rules have no room: none waits until the rules have taken, or refused, the
// message of another one.
func TestRulesAreOfferedRetainedMessagesSideBySide(t *testing.T) {
	t.Parallel()
	const devices = 3
	rules := &slowRules{entered: make(chan struct{}, devices+1), release: make(chan struct{})}
	h := newHouse(t, broker.Options{Rules: rules})
	id := h.register(first, allowAll)
	var pubs []*client
	for n := range devices {
		pubs = append(pubs, h.on(first, id, mqtt.V5, connectAs(fmt.Sprint("pub", n))))
		pubs[n].send(&mqtt.Publish{Topic: []byte("gone"), Payload: []byte("x"), QoS: 1, PacketID: 1, Retain: true})
	}
	http := make(chan error, 1)
	go func() {
		http <- h.broker.Publish(t.Context(), broker.Message{Tenant: first, Topic: "gone", Payload: []byte("x"), QoS: 1, Retain: true})
	}()
	defer close(rules.release)
	for n := range devices + 1 {
		select {
		case <-rules.entered:
		case <-time.After(patience):
			t.Fatalf("the rules were offered %d messages, want %d", n, devices+1)
		}
	}
	for range devices + 1 {
		rules.release <- struct{}{}
	}
	for _, pub := range pubs {
		expect[*mqtt.Ack](pub)
	}
	h.must(<-http)
}

// TestATurnIsLeftAsItComes has publishers give up in the moment in which their message
// is stored: whoever has the turn then keeps it, and the next one gets it.
func TestATurnIsLeftAsItComes(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	done := make(chan bool)
	go func() {
		defer close(done)
		for range 20 {
			if !h.broker.LeaveATurnAsItComes(first, "turns") {
				done <- false
				return
			}
		}
	}()
	select {
	case _, unclean := <-done:
		if unclean {
			t.Error("a turn is left over")
		}
	case <-time.After(patience):
		t.Error("a turn never comes to its end")
	}
}
