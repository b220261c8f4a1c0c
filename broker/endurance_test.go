package broker_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// TestPublishersWaitForABusyStoredSession ensures that a connected client that
// takes its messages at a fair pace loses none of them, although its publisher is
// quicker than it and its queue is short.
func TestPublishersWaitForABusyStoredSession(t *testing.T) {
	bothVersions(t, broker.Options{MaxSessionMessages: 400, MaxInflight: 100}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		sub := h.on(first, id, v, lasting(v, fmt.Sprint("busy", v), 100))
		sub.subscribe(1, "a")
		h.keepsPace(id, sub)
	})
}

// TestPublishersWaitForABusySharedSubscription ensures the same of the queue of a
// group, which a member without a stored session takes its messages from.
func TestPublishersWaitForABusySharedSubscription(t *testing.T) {
	bothVersions(t, broker.Options{MaxSessionMessages: 400, MaxInflight: 100}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		keeper := h.on(first, id, v, lasting(v, fmt.Sprint("keeper", v), 100))
		keeper.subscribe(1, "$share/g/a")
		keeper.cut()
		sub := h.on(first, id, v, connectAs("sub"))
		sub.subscribe(1, "$share/g/a")
		h.keepsPace(id, sub)
	})
}

// keepsPace publishes to a client as fast as is let in.
func (h *house) keepsPace(id imprint.CertificateID, sub *client) {
	h.Helper()
	const many = 3000
	payload := make([]byte, 4000)
	drained := make(chan error, 2)
	go func() { drained <- drain(sub.conn, many, mqtt.TypePublish) }()
	v := sub.version
	pub := h.on(first, id, v, connectAs("pub"))
	go func() {
		// Publishes as fast as it is read, with at most MaxInflight open.
		one := &mqtt.Publish{Topic: []byte("a"), Payload: payload, QoS: 1}
		for n := 0; n < many; {
			for range 50 {
				one.PacketID = uint16(n%60000) + 1
				_, err := pub.conn.Write(one.Append(nil, v))
				if err != nil {
					drained <- err
					return
				}
				n++
			}
			for range 50 {
				p, err := pub.receive()
				if err != nil {
					drained <- err
					return
				}
				if ack, ok := p.(*mqtt.Ack); !ok || ack.Reason != mqtt.Success {
					drained <- fmt.Errorf("got %s", p.Detail())
					return
				}
			}
		}
		drained <- nil
	}()
	for range 2 {
		h.must(<-drained)
	}
	if got := h.broker.Counters().QueueFull; got != 0 {
		h.Errorf("messages without room: got %d, want 0", got)
	}
}

// TestManyStuckSubscribersHoldAPublisherUpNoLongerThanOne ensures that clients
// that read nothing cost a publisher one window of waiting together, not one each.
func TestManyStuckSubscribersHoldAPublisherUpNoLongerThanOne(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{MaxQueuedBytes: 64 << 10})
	id := h.register(first, allowAll)
	const stuck = 60
	for n := range stuck {
		c := h.on(first, id, mqtt.V311, connectAs(fmt.Sprint("stuck", n)))
		c.subscribe(0, "a")
	}
	healthy := h.on(first, id, mqtt.V311, connectAs("healthy"))
	healthy.subscribe(0, "a")
	pub := h.on(first, id, mqtt.V311, connectAs("pub"))
	payload := string(make([]byte, 16<<10))
	var longest time.Duration
	for range 300 {
		began := time.Now()
		pub.published("a", payload)
		longest = max(longest, time.Since(began))
		expect[*mqtt.Publish](healthy)
	}
	// One after the other they would take three seconds at least.
	if longest > stuck*50*time.Millisecond/2 {
		t.Errorf("longest PUBACK: got %s, which is more than one window for all", longest)
	}
	if h.broker.Counters().PublishDropped == 0 {
		t.Error("nothing was dropped: the subscribers weren't stuck")
	}
}

// TestAliasesDontMakePacketsTooLarge ensures that a topic alias isn't added to a
// packet that the client takes only without [MQTT-3.1.2-24].
func TestAliasesDontMakePacketsTooLarge(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	const most = 100
	connect := connectAs("sub")
	connect.Properties.MaximumPacketSize, connect.Properties.TopicAliasMaximum = most, 4
	connect.Properties.Mark(mqtt.PropMaximumPacketSize, mqtt.PropTopicAliasMaximum)
	sub := h.on(first, id, mqtt.V5, connect)
	sub.subscribe(0, "topic/a")
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	for size := 60; size < 100; size++ {
		packet := mqtt.Publish{Topic: []byte("topic/a"), Payload: make([]byte, size)}
		pub.published("topic/a", string(packet.Payload))
		if packet.Size(mqtt.V5) > most {
			continue
		}
		if got := expect[*mqtt.Publish](sub); len(got.Append(nil, mqtt.V5)) > most || len(got.Payload) != size {
			t.Errorf("payload of %d bytes: got a packet of %d, at most %d may come", size, len(got.Append(nil, mqtt.V5)), most)
		}
	}
	sub.silent()
}

// TestSharedMessagesOutliveTheMemberThatHadThem ensures that what a shared
// subscription had handed to a stored session goes to another member when that
// session ends.
func TestSharedMessagesOutliveTheMemberThatHadThem(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		topic := fmt.Sprint("inherit", byte(v))
		leaver := h.on(first, id, v, lasting(v, "leaver"+topic, 50))
		leaver.subscribe(1, "$share/g/"+topic, "own/"+topic)
		pub := h.on(first, id, v, connectAs("pub"))
		for n := range 6 {
			pub.published(topic, fmt.Sprint(n))
		}
		for range 6 {
			expect[*mqtt.Publish](leaver) // and acknowledges none
		}
		leaver.cut()
		pub.published("own/"+topic, "dies with it")
		heir := h.on(first, id, v, lasting(v, "heir"+topic, 5000))
		heir.subscribe(1, "$share/g/"+topic)
		if v == mqtt.V5 {
			h.ahead.Add(int64(51 * time.Second)) // it expires
		} else {
			h.on(first, id, v, connectAs("leaver"+topic)) // it begins anew
		}
		for n := range 6 {
			heir.gets(topic, fmt.Sprint(n), 1)
		}
		heir.silent()
		h.on(first, id, v, connectAs("heir"+topic))
	})
}

// crashImage copies what a kill would leave of a store that is open.
func crashImage(t *testing.T, path string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image.db")
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err == nil {
		_, err = db.ExecContext(t.Context(), "VACUUM INTO ?", image)
	}
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		t.Fatalf("couldn't copy the store: %v", err)
	}
	return image
}

// TestWillsOfStoredSessionsSurviveTheServer ensures that the will of a client
// that was connected when the server was killed is published by the next one.
func TestWillsOfStoredSessionsSurviveTheServer(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registry.db")
	store := openStore(t, path, sqlite.Faults{})
	killed := newHouseOn(t, broker.Options{}, store)
	id := killed.register(first, allowAll)
	connect := lasting(mqtt.V5, "dies", 1000)
	connect.Will = &mqtt.Will{Topic: "gone", Payload: []byte("bye"), QoS: 1}
	connect.Will.Properties.WillDelay = 60
	connect.Will.Properties.Mark(mqtt.PropWillDelay)
	c := killed.on(first, id, mqtt.V5, connect)
	c.subscribe(1, "x") // durable: so is the session
	watch := killed.on(first, id, mqtt.V5, lasting(mqtt.V5, "watch", 1000))
	watch.subscribe(1, "gone")

	// What the store has now is what a kill leaves.
	rules := offers{make(chan imprint.RuleMessage, 1)}
	after := newHouseOn(t, broker.Options{Rules: rules}, openStore(t, crashImage(t, path), sqlite.Faults{}))
	watch = after.back(first, id, mqtt.V5, lasting(mqtt.V5, "watch", 1000))
	watch.silent()
	after.ahead.Add(int64(61 * time.Second))
	watch.gets("gone", "bye", 1)
	if got := <-rules.made; got.ClientID != "dies" {
		t.Errorf("topic rules are offered the will of client %q, want dies", got.ClientID)
	}
	// The client that comes back has no other one's will to fear.
	after.back(first, id, mqtt.V5, lasting(mqtt.V5, "dies", 1000)).cut()
	watch.silent()
}

// offers are topic rules that give the messages of devices as they are offered.
type offers struct{ made chan imprint.RuleMessage }

func (o offers) Tenant(imprint.Tenant) imprint.TenantRules { return o }
func (o offers) Idle() bool                                { return false }
func (o offers) Offer(_ context.Context, m *imprint.RuleMessage) error {
	if m.MQTT {
		o.made <- *m
	}
	return nil
}

// TestLargeWillsAreTaken ensures that a will may be as large as any message.
func TestLargeWillsAreTaken(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		watch := h.on(first, id, v, connectAs("watch"))
		watch.subscribe(1, "w")
		connect := connectAs("large")
		connect.Will = &mqtt.Will{Topic: "w", Payload: make([]byte, 64<<10-1), QoS: 1}
		c := h.on(first, id, v, connect)
		_ = c.conn.Close()
		if got := expect[*mqtt.Publish](watch); len(got.Payload) != 64<<10-1 {
			h.Errorf("payload: got %d bytes", len(got.Payload))
		}
		c.ended(imprint.CodeConnectionLost)
	})
}

// TestAMessageThatWasReadBeforeItWasAnnouncedComesOnce has a session read its
// queue between a message's commit and the moment in which it hears of it.
func TestAMessageThatWasReadBeforeItWasAnnouncedComesOnce(t *testing.T) {
	t.Parallel()
	var armed atomic.Bool
	committed, read := make(chan struct{}), make(chan struct{})
	goOn := sync.OnceFunc(func() { close(read) })
	faults := sqlite.Faults{AfterCommit: func() error {
		if armed.CompareAndSwap(true, false) {
			close(committed)
			<-read
		}
		return nil
	}}
	h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), faults))
	id := h.register(first, allowAll)
	sub := h.on(first, id, mqtt.V5, lasting(mqtt.V5, "reads", 1000))
	t.Cleanup(goOn)
	sub.subscribe(1, "q")
	sub.cut()
	const more = 140 // than are read at once
	h.fill(id, "q", more)
	sub = h.back(first, id, mqtt.V5, lasting(mqtt.V5, "reads", 1000))
	next := expect[*mqtt.Publish](sub)
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	armed.Store(true)
	pub.publish(1, 1, "q", fmt.Sprint(more))
	<-committed
	for n := range more + 1 {
		if string(next.Payload) != fmt.Sprint(n) {
			t.Errorf("got %q, want %d", next.Payload, n)
		}
		sub.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: next.PacketID})
		if n < more {
			next = expect[*mqtt.Publish](sub)
		}
	}
	goOn()
	expect[*mqtt.Ack](pub)
	sub.silent()
}
