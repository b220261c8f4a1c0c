package broker_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// lateStore holds up whoever has read a retained message, once it is armed.
type lateStore struct {
	imprint.Store
	armed     atomic.Bool
	read, let chan struct{}
}

type lateTx struct {
	imprint.ReadTx
	retained bool
}

func (tx *lateTx) Retained(tenant imprint.Tenant, topic string) (imprint.RetainedMessage, error) {
	tx.retained = true
	return tx.ReadTx.Retained(tenant, topic)
}

func (s *lateStore) View(ctx context.Context, fn func(imprint.ReadTx) error) error {
	var seen lateTx
	err := s.Store.View(ctx, func(tx imprint.ReadTx) error {
		seen.ReadTx = tx
		return fn(&seen)
	})
	if seen.retained && s.armed.Swap(false) {
		s.read <- struct{}{}
		<-s.let
	}
	return err
}

// TestNoOlderRetainedMessageComesAfterANewerOne subscribes, and has the topic's retained
// message replaced, or deleted, when it is read and not yet sent: the new one comes, and
// the old one doesn't come after it. A message that isn't retained leaves it what it is.
func TestNoOlderRetainedMessageComesAfterANewerOne(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		for _, qos := range []mqtt.QoS{0, 1} {
			for _, stored := range []bool{false, true} {
				for _, filter := range []string{"%s/x", "%s/+"} {
					t.Run(fmt.Sprintf("%s, QoS %d, stored %t, %s", v, qos, stored, filter), func(t *testing.T) {
						t.Parallel()
						retainedAsItIsReplaced(t, v, qos, stored, filter)
					})
				}
			}
		}
	}
}

func retainedAsItIsReplaced(t *testing.T, v mqtt.Version, qos mqtt.QoS, stored bool, filter string) {
	store := &lateStore{
		Store: openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{}),
		read:  make(chan struct{}), let: make(chan struct{}),
	}
	h := newHouseOn(t, broker.Options{StandardRetainedMatch: true}, store)
	id := h.register(first, allowAll)
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	publish := func(topic, payload string, retain bool) {
		t.Helper()
		pub.answer(&mqtt.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: 1, PacketID: 7, Retain: retain}, mqtt.Success)
	}
	connect := connectAs("sub")
	if stored {
		connect = lasting(v, "sub", 1000)
	}
	sub := h.on(first, id, v, connect)
	for _, row := range []struct {
		name, newer string
		retain      bool
		want        []string // payload and RETAIN
	}{
		{"replaced", "new", true, []string{"new false"}},
		{"deleted", "", true, []string{" false"}},
		{"passed", "new", false, []string{"new false", "old true"}},
	} {
		topic := row.name + "/x"
		publish(topic, "old", true)
		publish("last/x", "last", true)
		store.armed.Store(true)
		sub.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: fmt.Sprintf(filter, row.name), QoS: qos}}})
		<-store.read
		publish(topic, row.newer, row.retain)
		store.let <- struct{}{}
		// It comes after whatever is sent for the one before.
		sub.send(&mqtt.Subscribe{PacketID: 2, Filters: []mqtt.Subscription{{Filter: fmt.Sprintf(filter, "last"), QoS: qos}}})
		got := sub.until("last/x")
		want := row.want
		if row.name == "replaced" && qos == 0 {
			// It may be dropped on its way, and comes as the retained one, too.
			want = append(want, "new true")
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", row.name, got, want)
		}
		sub.send(&mqtt.Unsubscribe{PacketID: 3, Filters: []string{fmt.Sprintf(filter, row.name), fmt.Sprintf(filter, "last")}})
		expect[*mqtt.Unsuback](sub)
	}
}

// until acknowledges messages up to the first one on a topic, and gives those before it,
// with their RETAIN.
func (c *client) until(topic string) (got []string) {
	c.Helper()
	for {
		p, err := c.receive()
		if err != nil {
			c.Fatalf("after %q: %v", got, err)
		}
		m, ok := p.(*mqtt.Publish)
		if !ok {
			continue
		}
		if m.QoS == 1 {
			c.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: m.PacketID})
		}
		if string(m.Topic) == topic {
			return got
		}
		got = append(got, fmt.Sprintf("%s %t", m.Payload, m.Retain))
	}
}

// TestWhoSubscribesWhileATopicChangesSeesItGoOn has a topic's retained message replaced
// all the time while clients subscribe: none sees an older one after a newer one.
func TestWhoSubscribesWhileATopicChangesSeesItGoOn(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	var over atomic.Bool
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for n := 1; !over.Load(); n++ {
			pub.send(&mqtt.Publish{Topic: []byte("goes/on"), Payload: fmt.Append(nil, n), QoS: 1, PacketID: 1, Retain: true})
			if p, err := pub.receive(); err != nil {
				t.Errorf("PUBLISH %d: got %v, %v", n, p, err)
				return
			}
		}
	})
	defer publishing.Wait()
	defer over.Store(true)
	sub := h.on(first, id, mqtt.V5, lasting(mqtt.V5, "sub", 1000))
	for round := range 150 {
		sub.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "goes/on", QoS: mqtt.QoS(round % 2)}}})
		newest := 0
		for got, unsubscribed := 0, false; !unsubscribed; {
			p, err := sub.receive()
			h.must(err)
			switch p := p.(type) {
			case *mqtt.Unsuback:
				unsubscribed = true
			case *mqtt.Publish:
				if p.QoS == 1 {
					sub.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: p.PacketID})
				}
				n, err := strconv.Atoi(string(p.Payload))
				h.must(err)
				if n < newest {
					t.Fatalf("round %d: %d, retained %t, came after %d", round, n, p.Retain, newest)
				}
				newest = n
				if got++; got == 3 {
					sub.send(&mqtt.Unsubscribe{PacketID: 2, Filters: []string{"goes/on"}})
				}
			}
		}
	}
}
