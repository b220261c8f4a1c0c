package broker_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

const (
	hundredKB     = 100 << 10
	sharedMessage = "$share/g/"
)

// keeper makes an absent member with a stored session.
func (h *house) keeper(id imprint.CertificateID, v mqtt.Version, topic string) {
	h.Helper()
	c := h.on(first, id, v, lasting(v, "keeper"+topic, 1000))
	c.subscribe(1, sharedMessage+topic)
	c.goodbye()
}

// member joins a group.
func (h *house) member(id imprint.CertificateID, v mqtt.Version, name, topic string, qos mqtt.QoS) *client {
	h.Helper()
	c := h.on(first, id, v, connectAs(name+topic))
	c.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: sharedMessage + topic, QoS: qos}}})
	return c
}

// takes reads messages and acknowledges them.
func (c *client) takes(many int) {
	c.Helper()
	for got := 0; got < many; {
		p, err := c.receive()
		if err != nil {
			c.Fatalf("got %d messages, want %d: %v", got, many, err)
		}
		switch p := p.(type) {
		case *mqtt.Publish:
			got++
			if p.QoS > 0 {
				c.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: p.PacketID})
			}
		case *mqtt.Disconnect:
			c.Fatalf("got %s after %d messages, want %d", p.Detail(), got, many)
		}
	}
}

// TestTheLastKeeperLeavesItsMessagesToTheOthers ensures that what was promised for
// a group goes to its members when the session that kept it ends.
func TestTheLastKeeperLeavesItsMessagesToTheOthers(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		topic := fmt.Sprint("last", byte(v))
		h.keeper(id, v, topic)
		m := h.member(id, v, "m", topic, 1)
		h.fill(id, topic, 150) // of which it holds 100
		expect[*mqtt.Suback](m)
		next := expect[*mqtt.Publish](m)
		h.on(first, id, v, connectAs("keeper"+topic)).goodbye() // its session ends
		m.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: next.PacketID})
		m.takes(149)

		// What a member holds, and a stored session has, goes to the others, too.
		h.keeper(id, v, "b"+topic)
		m = h.member(id, v, "m", "b"+topic, 1)
		h.fill(id, "b"+topic, 5)
		expect[*mqtt.Suback](m)
		for range 5 {
			expect[*mqtt.Publish](m)
		}
		other := h.member(id, v, "other", "b"+topic, 1)
		expect[*mqtt.Suback](other)
		h.on(first, id, v, connectAs("keeperb"+topic)).goodbye()
		m.cut()
		other.takes(5)
		stored := h.on(first, id, v, lasting(v, "stored"+topic, 1000))
		stored.subscribe(1, sharedMessage+"c"+topic)
		h.fill(id, "c"+topic, 5)
		for range 5 {
			expect[*mqtt.Publish](stored)
		}
		other = h.member(id, v, "other", "c"+topic, 1)
		expect[*mqtt.Suback](other)
		h.on(first, id, v, connectAs("stored"+topic))
		other.takes(5)
	})
}

// TestABacklogEndsNoMember ensures that a group hands out no more than a member
// that takes its messages has room for.
func TestABacklogEndsNoMember(t *testing.T) {
	bothVersions(t, broker.Options{MaxQueuedBytes: 2 * hundredKB}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		topic := fmt.Sprint("large", byte(v))
		h.keeper(id, v, topic)
		pub := h.on(first, id, v, connectAs("pub"+topic))
		const many = 100
		for range many {
			pub.published(topic, string(make([]byte, hundredKB)))
		}
		sent := h.broker.Counters().PublishOut
		m := h.member(id, v, "m", topic, 1)
		h.eventually("the first message is handed out", func() bool { return h.broker.Counters().PublishOut > sent })
		m.takes(many)
		if n := h.broker.Counters().SlowConsumers; n > 0 {
			h.Errorf("%d connections were ended", n)
		}
		h.on(first, id, v, connectAs("keeper"+topic))
	})
}

// TestAMemberWithQoS0SwallowsNothing ensures that what one has no room for goes to
// another member, or waits.
func TestAMemberWithQoS0SwallowsNothing(t *testing.T) {
	bothVersions(t, broker.Options{MaxQueuedBytes: 64 << 10}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		topic := fmt.Sprint("zero", byte(v))
		h.keeper(id, v, topic)
		zero := h.member(id, v, "zero", topic, 0) // and reads nothing
		expect[*mqtt.Suback](zero)
		pub := h.on(first, id, v, connectAs("pub"+topic))
		for range 150 {
			pub.published(topic, string(make([]byte, hundredKB)))
		}
		if n := h.broker.Counters().PublishDropped; n > 0 {
			h.Errorf("%d acknowledged messages were dropped", n)
		}
		h.on(first, id, v, connectAs("keeper"+topic))
	})
}

// TestAPolicyThatAllowsReceiveLetsWaitingMessagesGo ensures that a group's messages
// go to a member that may have them since a policy changed.
func TestAPolicyThatAllowsReceiveLetsWaitingMessagesGo(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id, deaf := h.register(first, allowAll), h.register(first, noReceive)
		topic := fmt.Sprint("deaf", byte(v))
		h.keeper(id, v, topic)
		m := h.member(deaf, v, "m", topic, 1)
		expect[*mqtt.Suback](m)
		h.fill(id, topic, 1)
		m.silent()
		h.setPolicy(first, deaf, allowAll)
		m.takes(1)
		h.on(first, id, v, connectAs("keeper"+topic))
	})
}

// TestADenialHoldsForWhatWaits ensures that a message that has waited for the
// client's window isn't sent when iot:Receive is denied by then.
func TestADenialHoldsForWhatWaits(t *testing.T) {
	for _, stored := range []bool{false, true} {
		t.Run(fmt.Sprint("stored ", stored), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, broker.Options{})
			id, sub := h.register(first, allowAll), h.register(first, allowAll)
			connect := connectAs("denied")
			if stored {
				connect = lasting(mqtt.V5, "denied", 1000)
			}
			connect.Properties.ReceiveMaximum = 1
			connect.Properties.Mark(mqtt.PropReceiveMaximum)
			c := h.on(first, sub, mqtt.V5, connect)
			c.subscribe(1, "a")
			const waiting = 19
			h.fill(id, "a", 1+waiting)
			p := expect[*mqtt.Publish](c)
			h.setPolicy(first, sub, noReceive)
			c.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: p.PacketID})
			h.eventually("what waited is let go", func() bool { return h.broker.Counters().PublishDropped >= waiting })
			c.silent()
		})
	}
}

// TestADenialHoldsForWhatIsBeingStored ensures that a message on its way to a session's
// queue, or to that of a member of a group, isn't sent when iot:Receive is denied by the
// time it is there.
func TestADenialHoldsForWhatIsBeingStored(t *testing.T) {
	for _, filter := range []string{"a", sharedMessage + "a"} {
		t.Run(filter, func(t *testing.T) {
			t.Parallel()
			h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{}))
			id, sub := h.register(first, allowAll), h.register(first, allowAll)
			c := h.on(first, sub, mqtt.V5, lasting(mqtt.V5, "denied", 1000))
			c.subscribe(1, filter)
			pub := h.on(first, id, mqtt.V5, connectAs("pub"))
			pub.published("a", "allowed")
			c.gets("a", "allowed", 1)
			c.silent() // and its PUBACK is heard
			letGo := make(chan struct{})
			release := sync.OnceFunc(func() { close(letGo) })
			t.Cleanup(release)
			h.broker.HoldLedger(letGo)
			pub.publish(1, 1, "a", "decided before")
			h.eventually("the message is with the ledger", func() bool { return h.broker.Unwritten() > 0 })
			h.setPolicy(first, sub, noReceive)
			c.send(&mqtt.Subscribe{PacketID: 2, Filters: []mqtt.Subscription{{Filter: "$bad", QoS: 1}}})
			expect[*mqtt.Suback](c) // the connection knows the policy
			release()
			expect[*mqtt.Ack](pub)
			c.silent()
		})
	}
}

// TestAGroupThatAKillLeftWithoutARowKeepsItsQueue has a store as it is between the
// two halves of an UNSUBSCRIBE.
func TestAGroupThatAKillLeftWithoutARowKeepsItsQueue(t *testing.T) {
	t.Parallel()
	store := openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{})
	h := newHouseOn(t, broker.Options{}, store)
	id := h.register(first, allowAll)
	h.keeper(id, mqtt.V5, "a")
	h.must(h.broker.Shutdown(context.Background()))
	h.update(func(tx imprint.Tx) error {
		rows, err := tx.ShareGroups(0, 10)
		if err != nil || len(rows) != 1 {
			return fmt.Errorf("got %d groups, want one: %w", len(rows), err)
		}
		return tx.DeleteShareGroup(rows[0].Key)
	})
	h = newHouseOn(t, broker.Options{}, store)
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	pub.published("a", "promised")
	pub.goodbye()
	h.must(h.broker.Shutdown(context.Background()))
	h = newHouseOn(t, broker.Options{}, store)
	keeper := h.back(first, id, mqtt.V5, lasting(mqtt.V5, "keepera", 1000))
	keeper.gets("a", "promised", 1)
}

// TestManyRetainedMessagesComeAtTheClientsPace ensures that a subscription that gets
// more than fits into its buffers gets them all, with QoS 1, too.
func TestManyRetainedMessagesComeAtTheClientsPace(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{StandardRetainedMatch: true, MaxQueuedBytes: 64 << 10, MaxSessionMessages: 50})
	id := h.register(first, allowAll)
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	const many = 300
	for n := range many {
		pub.send(&mqtt.Publish{Topic: fmt.Appendf(nil, "r/%d", n), Payload: make([]byte, 2000), QoS: 1, Retain: true, PacketID: 1})
		expect[*mqtt.Ack](pub)
	}
	for _, connect := range []*mqtt.Connect{connectAs("clean"), lasting(mqtt.V5, "stored", 1000)} {
		sub := h.on(first, id, mqtt.V5, connect)
		sub.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "r/+", QoS: 1}}})
		sub.takes(many)
	}
	if n := h.broker.Counters().QueueFull; n > 0 {
		t.Errorf("%d messages had no room", n)
	}
}
