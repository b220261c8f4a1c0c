package broker_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// inOrderTo3 wants what has come for a subscription to be in the order of publication, up
// to "3", which may come twice.
func (c *client) inOrderTo3() {
	c.Helper()
	var got []string
	c.send(&mqtt.Pingreq{})
	for {
		p, err := c.receive()
		c.must(err)
		switch p := p.(type) {
		case *mqtt.Publish:
			got = append(got, string(p.Payload))
		case *mqtt.Pingresp:
			if !slices.IsSorted(got) || !slices.Contains(got, "2") || !slices.Contains(got, "3") {
				c.Errorf("got %q, want them in order up to 3", got)
			}
			return
		}
	}
}

// retain publishes without waiting for the answer, which retained does.
func (c *client) retain(topic, payload string, qos mqtt.QoS) {
	c.Helper()
	c.send(&mqtt.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, PacketID: uint16(qos), Retain: true})
}

func (c *client) retained(qos mqtt.QoS) {
	c.Helper()
	if qos > 0 {
		expect[*mqtt.Ack](c)
	}
	c.silent()
}

// TestNoOlderRetainedMessageComesWhileSeveralAreStored subscribes when two publishers'
// messages of the topic are on disk, and neither publisher knows.
func TestNoOlderRetainedMessageComesWhileSeveralAreStored(t *testing.T) {
	for _, qos := range []mqtt.QoS{0, 1} {
		t.Run(fmt.Sprint("QoS ", qos), func(t *testing.T) {
			t.Parallel()
			var holds, tells atomic.Bool
			held, goOn, committed, told := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
			letGo, tell := sync.OnceFunc(func() { close(goOn) }), sync.OnceFunc(func() { close(told) })
			var h *house
			h = newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{
				BeforeCommit: func() error {
					if holds.CompareAndSwap(true, false) {
						close(held)
						<-goOn
					}
					return nil
				},
				AfterCommit: func() error {
					if tells.Load() && h.broker.Unwritten() == 0 {
						tells.Store(false)
						close(committed)
						<-told
					}
					return nil
				},
			}))
			id := h.register(first, allowAll)
			sub, other := h.on(first, id, mqtt.V5, connectAs("sub")), h.on(first, id, mqtt.V5, connectAs("other"))
			second, third := h.on(first, id, mqtt.V5, connectAs("second")), h.on(first, id, mqtt.V5, connectAs("third"))
			other.retain("state", "1", 1)
			other.retained(1)
			defer tell()
			defer letGo()
			h.must(h.log.Flush(t.Context())) // nothing but what follows is written
			holds.Store(true)
			other.retain("else", "x", 1)
			<-held
			second.retain("state", "2", qos)
			h.eventually("the second one waits", func() bool { return h.broker.Unwritten() == 1 })
			third.retain("state", "3", qos)
			h.eventually("the third one waits", func() bool { return h.broker.Unwritten() == 2 })
			tells.Store(true)
			letGo()
			<-committed
			sub.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "state", QoS: qos}}})
			h.eventually("the subscriber waits, or has it", func() bool { return h.broker.LineIsAwaited(first, "state") || h.broker.Counters().PublishOut > 0 })
			tell()
			expect[*mqtt.Suback](sub)
			second.retained(qos)
			third.retained(qos)
			sub.inOrderTo3()
		})
	}
}

// willRules hold up the rules' look at one message.
type willRules struct{ entered, let chan struct{} }

func (r *willRules) Tenant(imprint.Tenant) imprint.TenantRules { return r }
func (r *willRules) Idle() bool                                { return false }
func (r *willRules) Offer(_ context.Context, m *imprint.RuleMessage) error {
	if string(m.Payload) == "1" {
		close(r.entered)
		<-r.let
	}
	return nil
}

// TestNoOlderRetainedMessageComesWhileOneIsRouted subscribes while a message, a will, is
// about to be routed, and newer ones are stored behind it.
func TestNoOlderRetainedMessageComesWhileOneIsRouted(t *testing.T) {
	for _, qos := range []mqtt.QoS{0, 1} {
		t.Run(fmt.Sprint("QoS ", qos), func(t *testing.T) {
			t.Parallel()
			rules := &willRules{make(chan struct{}), make(chan struct{})}
			h := newHouse(t, broker.Options{Rules: rules})
			id := h.register(first, allowAll)
			topic := fmt.Sprint("line/", qos)
			goes := connectAs("goes")
			goes.Will = &mqtt.Will{Topic: topic, Payload: []byte("1"), QoS: qos, Retain: true}
			h.on(first, id, mqtt.V5, goes).cut()
			<-rules.entered
			var pubs []*client
			for _, payload := range []string{"2", "3"} {
				pub := h.on(first, id, mqtt.V5, connectAs("pub"+payload))
				pub.retain(topic, payload, qos)
				h.eventually("it is stored", func() bool {
					row, err := h.broker.Retained(t.Context(), first, topic)
					return err == nil && row.PayloadSize == 1 && row.Packet[len(row.Packet)-1] == payload[0]
				})
				pubs = append(pubs, pub)
			}
			sub := h.on(first, id, mqtt.V5, connectAs("sub"))
			sub.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: topic, QoS: qos}}})
			h.eventually("the subscriber waits, or has it", func() bool { return h.broker.LineIsAwaited(first, topic) || h.broker.Counters().PublishOut > 0 })
			close(rules.let)
			expect[*mqtt.Suback](sub)
			for _, pub := range pubs {
				pub.retained(qos)
			}
			sub.inOrderTo3()
		})
	}
}

// TestMessagesThatTheStoreRefusesOvertakeNothing subscribes while one message of the topic
// has been routed and hasn't left the line, and the store refuses those behind it, one
// after the other: the client gets the message that is retained.
func TestMessagesThatTheStoreRefusesOvertakeNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	const topic = "line/refused"
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	pub.retain(topic, "1", 1)
	pub.retained(1)
	sub := h.on(first, id, mqtt.V5, connectAs("sub"))
	awaited := func() bool { return h.broker.LineIsAwaited(first, topic) }
	routed, refused := h.broker.StandInLine(first, topic), h.broker.StandInLine(first, topic)
	sub.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: topic, QoS: 1}}})
	for range 5 {
		h.eventually("the subscriber waits for the last one", awaited)
		next := h.broker.StandInLine(first, topic)
		refused()
		refused = next
	}
	h.eventually("the subscriber waits for the last one", awaited)
	refused()
	h.eventually("the subscriber waits for the first one", awaited)
	routed()
	expect[*mqtt.Suback](sub)
	sub.gets(topic, "1", 1)
}

// TestWhoWaitsForALineEndsWithTheServer ensures that a subscriber waits for the messages
// that are being retained on its topic no longer than its connection may last.
func TestWhoWaitsForALineEndsWithTheServer(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	const topic = "line/ends"
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	pub.retain(topic, "1", 1)
	pub.retained(1)
	leave := h.broker.StandInLine(first, topic)
	defer leave()
	var cancel context.CancelFunc
	h.ctx, cancel = context.WithCancel(t.Context())
	sub := h.on(first, id, mqtt.V5, connectAs("sub"))
	sub.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: topic, QoS: 1}}})
	h.eventually("the subscriber waits", func() bool { return h.broker.LineIsAwaited(first, topic) })
	cancel()
	sub.ended(imprint.CodeUnavailable)
}
