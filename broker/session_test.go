package broker_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// openStore opens a registry of the test's own.
func openStore(t testing.TB, path string, faults sqlite.Faults) *sqlite.Store {
	t.Helper()
	return registrytest.Open(t, path, func(o *sqlite.Options) { o.Sealer, o.Logger, o.Faults = sealer{}, quiet(), faults })
}

func TestStoredSessionGetsWhatCameWhileItWasAway(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		name := fmt.Sprint("away", v)
		sub := h.on(first, id, v, lasting(v, name, 100))
		sub.subscribe(1, "a/+")
		sub.cut()
		pub := h.on(first, id, v, connectAs("pub"))
		for i := range 5 {
			pub.published("a/b", fmt.Sprint(i))
		}
		pub.publish(0, 0, "a/b", "QoS 0 isn't kept")
		pub.silent()

		sub = h.back(first, id, v, lasting(v, name, 100))
		for i := range 5 {
			if got := sub.gets("a/b", fmt.Sprint(i), 1); got.Dup {
				h.Errorf("message %d has DUP at its first delivery", i)
			}
		}
		pub.published("a/c", "live")
		sub.gets("a/c", "live", 1)
		sub.silent()
		sub.cut()

		sub = h.back(first, id, v, lasting(v, name, 100))
		sub.silent() // everything was acknowledged
		sub.cut()
		h.on(first, id, v, connectAs(name)) // a clean start forgets the session
		pub.published("a/b", "nobody")
		if got := h.broker.Counters().Stored; got != 0 {
			h.Errorf("stored sessions: got %d, want 0", got)
		}
	})
}

func TestUnacknowledgedMessagesComeAgainWithDup(t *testing.T) {
	bothVersions(t, broker.Options{MaxInflight: 3}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		name := fmt.Sprint("dup", v)
		sub := h.on(first, id, v, lasting(v, name, 100))
		sub.subscribe(1, "a")
		pub := h.on(first, id, v, connectAs("pub"))
		for i := range 6 {
			pub.published("a", fmt.Sprint(i))
		}
		ids := map[string]uint16{}
		for range 3 {
			got := expect[*mqtt.Publish](sub)
			ids[string(got.Payload)] = got.PacketID
		}
		sub.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: ids["1"]})
		fourth := expect[*mqtt.Publish](sub)
		ids[string(fourth.Payload)] = fourth.PacketID
		sub.cut()

		sub = h.back(first, id, v, lasting(v, name, 100))
		for _, want := range []struct {
			payload string
			dup     bool
		}{{"0", true}, {"2", true}, {"3", true}, {"4", false}, {"5", false}} {
			got := sub.gets("a", want.payload, 1)
			if got.Dup != want.dup {
				h.Errorf("message %s: got DUP %t, want %t", want.payload, got.Dup, want.dup)
			}
			if before, sent := ids[want.payload]; sent && got.PacketID != before {
				h.Errorf("message %s: got packet id %d, want %d as before", want.payload, got.PacketID, before)
			}
		}
		sub.silent()
	})
}

// TestBothDirectionsHavePacketIDsOfTheirOwn ensures that a client which uses the packet
// identifier of a message that it hasn't acknowledged is answered, and gets the message
// again.
func TestBothDirectionsHavePacketIDsOfTheirOwn(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		name := fmt.Sprint("ids", v)
		c := h.on(first, id, v, lasting(v, name, 100))
		c.subscribe(1, name)
		h.on(first, id, v, connectAs("pub")).published(name, "kept")
		held := expect[*mqtt.Publish](c).PacketID
		c.send(&mqtt.Subscribe{PacketID: held, Filters: []mqtt.Subscription{{Filter: "other", QoS: 1}}})
		if got := expect[*mqtt.Suback](c); got.PacketID != held || got.Codes[0] != mqtt.ReasonCode(1) {
			h.Errorf("got %s, want QoS 1 granted to %d", got.Detail(), held)
		}
		c.publish(1, held, "elsewhere", "x")
		if got := expect[*mqtt.Ack](c); got.PacketID != held || got.Reason != mqtt.Success {
			h.Errorf("got %s, want success for %d", got.Detail(), held)
		}
		c.send(&mqtt.Unsubscribe{PacketID: held, Filters: []string{"other"}})
		if got := expect[*mqtt.Unsuback](c).PacketID; got != held {
			h.Errorf("UNSUBACK: got packet id %d, want %d", got, held)
		}
		c.cut()
		c = h.back(first, id, v, lasting(v, name, 100))
		if got := c.gets(name, "kept", 1); !got.Dup || got.PacketID != held {
			h.Errorf("got %s, want it again with packet id %d", got.Detail(), held)
		}
	})
}

func TestSessionsOfOneVersionArentResumedByTheOther(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	for _, v := range versions {
		other := versions[0] + versions[1] - v
		sub := h.on(first, id, v, lasting(v, "switch", 100))
		sub.subscribe(1, "a")
		sub.cut()
		h.on(first, id, other, lasting(other, "switch", 100)).cut()
		c := h.on(first, id, v, lasting(v, "switch", 100))
		h.on(first, id, v, connectAs("pub")).published("a", "x")
		c.silent()
		h.on(first, id, v, connectAs("switch"))
	}
}

func TestSessionsExpire(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{SessionExpiry: time.Minute, MaxSessionExpiry: 2 * time.Minute})
	id := h.register(first, allowAll)
	for _, row := range []struct {
		name    string
		v       mqtt.Version
		seconds uint32
		kept    time.Duration
	}{
		{"by default", mqtt.V311, 0, time.Minute}, {"as asked", mqtt.V5, 30, 30 * time.Second}, {"at most", mqtt.V5, 3600, 2 * time.Minute},
	} {
		leaves := h.on(first, id, row.v, lasting(row.v, row.name, row.seconds))
		leaves.subscribe(1, "left/behind")
		leaves.cut()
		h.ahead.Add(int64(row.kept - 5*time.Second))
		h.back(first, id, row.v, lasting(row.v, row.name, row.seconds)).cut()
		h.ahead.Add(int64(row.kept + time.Second))
		h.broker.LookAtTheClock()
		h.eventually(row.name+": the session expires", func() bool { return h.broker.Counters().Stored == 0 })
		anew := h.on(first, id, row.v, connectAs(row.name))
		h.on(first, id, row.v, connectAs("pub")).published("left/behind", "x")
		anew.silent() // it has none of the other one's subscriptions
		anew.cut()
	}
}

func TestDisconnectChangesTheExpiry(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	bye := func(seconds uint32) *mqtt.Disconnect {
		p := &mqtt.Disconnect{}
		p.Properties.SessionExpiry = seconds
		p.Properties.Mark(mqtt.PropSessionExpiry)
		return p
	}
	c := h.on(first, id, mqtt.V5, lasting(mqtt.V5, "d", 100))
	c.send(bye(0))
	c.closed()
	c.ended(imprint.CodeClientDisconnect)
	c = h.on(first, id, mqtt.V5, lasting(mqtt.V5, "d", 100))
	c.send(bye(1000))
	c.closed()
	c.ended(imprint.CodeClientDisconnect)
	h.ahead.Add(int64(500 * time.Second))
	h.back(first, id, mqtt.V5, lasting(mqtt.V5, "d", 100)).send(bye(0))

	c = h.on(first, id, mqtt.V5, connectAs("clean"))
	c.send(bye(10))
	c.told(mqtt.ProtocolError)
	h.eventually("no session is left", func() bool { return h.broker.Counters().Stored == 0 })
}

func TestLongQueuesAreReadInOrderAsTheClientTakesThem(t *testing.T) {
	bothVersions(t, broker.Options{MaxInflight: 7}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		name := fmt.Sprint("long", v)
		sub := h.on(first, id, v, lasting(v, name, 100))
		sub.subscribe(1, "a")
		pub := h.on(first, id, v, connectAs("pub"))
		publish := func(from, to int) {
			for i := from; i < to; i++ {
				pub.publish(1, uint16(i%7+1), "a", fmt.Sprint(i))
				if i%7 == 6 {
					for range 7 {
						expect[*mqtt.Ack](pub)
					}
				}
			}
		}
		// Connected and not acknowledging; then away; then connected and reading.
		publish(0, 350)
		sub.cut()
		publish(350, 700)
		sub = h.back(first, id, v, lasting(v, name, 100))
		publish(700, 994)
		for i := range 994 {
			got := sub.gets("a", fmt.Sprint(i), 1)
			if got.Dup != (i < 7) {
				h.Fatalf("message %d: got DUP %t", i, got.Dup)
			}
		}
		sub.silent()
		sub.cut()
		sub = h.back(first, id, v, lasting(v, name, 100))
		sub.silent()
	})
}

func TestRestartKeepsSessionsQueuesAndRetainedMessages(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		path := filepath.Join(t.TempDir(), "registry.db")
		var id imprint.CertificateID
		t.Run("before "+v.String(), func(t *testing.T) {
			h := newHouseOn(t, broker.Options{MaxInflight: 2}, openStore(t, path, sqlite.Faults{}))
			h.update(func(tx imprint.Tx) error { return tx.PutTenantSettings(imprint.TenantSettings{Tenant: first}) })
			id = h.register(first, allowAll)
			sub := h.on(first, id, v, lasting(v, "sub", 100))
			sub.subscribe(1, "a", "$share/g/s")
			pub := h.on(first, id, v, connectAs("pub"))
			for i := range 4 {
				pub.published("a", fmt.Sprint(i))
			}
			for range 2 {
				expect[*mqtt.Publish](sub)
			}
			sub.cut()
			pub.published("a", "4")
			pub.published("s", "shared")
			pub.send(&mqtt.Publish{Topic: []byte("kept"), Payload: []byte("retained"), QoS: 1, PacketID: 9, Retain: true})
			expect[*mqtt.Ack](pub)
		})
		t.Run("after "+v.String(), func(t *testing.T) {
			h := newHouseOn(t, broker.Options{MaxInflight: 2}, openStore(t, path, sqlite.Faults{}))
			sub := h.back(first, id, v, lasting(v, "sub", 100))
			for i := range 5 {
				got := sub.gets("a", fmt.Sprint(i), 1)
				if got.Dup != (i < 2) {
					t.Errorf("message %d: got DUP %t", i, got.Dup)
				}
			}
			sub.gets("s", "shared", 1)
			h.on(first, id, v, connectAs("pub")).published("a", "new")
			sub.gets("a", "new", 1)
			sub.subscribe(1, "kept")
			if got := sub.gets("kept", "retained", 1); !got.Retain {
				t.Error("the retained message has no RETAIN")
			}
			sub.silent()
		})
	}
}

func TestFullQueuesDropCountAndTell(t *testing.T) {
	bothVersions(t, broker.Options{MaxSessionMessages: 3}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		name := fmt.Sprint("full", v)
		sub := h.on(first, id, v, lasting(v, name, 100))
		sub.subscribe(1, "a")
		sub.cut()
		pub := h.on(first, id, v, connectAs("pub"))
		// The publishers aren't to blame: a publish that fails is made again, and all
		// the others get it twice.
		for i := range 5 {
			pub.published("a", fmt.Sprint(i))
		}
		h.must(h.broker.Publish(t0(h), broker.Message{Tenant: first, Topic: "a", Payload: []byte("5"), QoS: 1}))
		if got := h.broker.Counters().QueueFull; got != 3 {
			h.Errorf("messages without room: got %d, want 3", got)
		}
		sub = h.back(first, id, v, lasting(v, name, 100))
		for i := range 3 {
			sub.gets("a", fmt.Sprint(i), 1)
		}
		sub.silent()
		sub.cut()
		told := false
		for _, step := range sub.ended(imprint.CodeConnectionLost).Steps {
			told = told || step.Code == imprint.CodeQueueFull
		}
		if !told {
			h.Error("the trace doesn't tell of the dropped messages")
		}
	})
}

func TestRetainedMessages(t *testing.T) {
	bothVersions(t, broker.Options{MaxRetained: 2}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		tag := fmt.Sprint(byte(v))
		retain := func(c *client, qos mqtt.QoS, topic, payload string) {
			c.send(&mqtt.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, PacketID: uint16(qos), Retain: true})
			if qos == 1 {
				expect[*mqtt.Ack](c)
			}
		}
		live := h.on(first, id, v, connectAs("live"))
		live.subscribe(1, "r"+tag+"/#")
		pub := h.on(first, id, v, connectAs("pub"))
		retain(pub, 1, "r"+tag+"/a", "one")
		if got := live.gets("r"+tag+"/a", "one", 1); got.Retain {
			h.Error("a live subscriber got RETAIN")
		}
		retain(pub, 1, "r"+tag+"/a", "two")
		live.gets("r"+tag+"/a", "two", 1)

		late := h.on(first, id, v, connectAs("late"))
		late.subscribe(0, "r"+tag+"/a")
		if got := late.gets("r"+tag+"/a", "two", 0); !got.Retain {
			h.Error("a late subscriber got no RETAIN")
		}
		late.subscribe(1, "r"+tag+"/+", "$share/g/r"+tag+"/a")
		late.silent() // wildcards and shared subscriptions get none
		retain(pub, 0, "r"+tag+"/b", "three")
		pub.silent()

		// The third topic is over the quota.
		pub.send(&mqtt.Publish{Topic: []byte("r" + tag + "/c"), Payload: []byte("x"), QoS: 1, PacketID: 4, Retain: true})
		if v == mqtt.V5 {
			if got := expect[*mqtt.Ack](pub).Reason; got != mqtt.QuotaExceeded {
				h.Errorf("over the quota: got %s", got)
			}
		} else {
			pub.closed()
			pub.ended(imprint.CodeRetainedQuota)
			pub = h.on(first, id, v, connectAs("pub"))
		}
		retain(pub, 1, "r"+tag+"/a", "")
		retain(pub, 1, "r"+tag+"/b", "")
		other := h.on(first, id, v, connectAs("other"))
		other.subscribe(1, "r"+tag+"/a", "r"+tag+"/b")
		other.silent()
	})
}

func TestSharedSubscriptions(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		tag := fmt.Sprint("s", byte(v))
		keeper := h.on(first, id, v, lasting(v, "keeper"+tag, 100))
		keeper.subscribe(1, "$share/g/"+tag)
		clean := h.on(first, id, v, connectAs("clean"))
		clean.subscribe(1, "$share/g/"+tag)
		plain := h.on(first, id, v, connectAs("plain"))
		plain.subscribe(1, tag)
		pub := h.on(first, id, v, connectAs("pub"))

		const many = 40
		for i := range many {
			pub.published(tag, fmt.Sprint(i))
			plain.gets(tag, fmt.Sprint(i), 1)
		}
		count := func(c *client) int {
			n := 0
			c.send(&mqtt.Pingreq{})
			for {
				p, err := c.receive()
				if err != nil {
					h.Fatal(err)
				}
				switch p := p.(type) {
				case *mqtt.Publish:
					n++
					c.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: p.PacketID})
				case *mqtt.Pingresp:
					return n
				}
			}
		}
		a, b := 0, 0
		h.eventually("all are handed out", func() bool {
			a, b = a+count(keeper), b+count(clean)
			return a+b >= many
		})
		if a+b != many || a == 0 || b == 0 {
			h.Errorf("shares: got %d and %d, want %d together", a, b, many)
		}

		// Nobody is there: messages wait for whoever comes first.
		keeper.cut()
		clean.cut()
		for i := range 3 {
			pub.published(tag, fmt.Sprint("wait", i))
			plain.gets(tag, fmt.Sprint("wait", i), 1)
		}
		clean = h.on(first, id, v, connectAs("clean"))
		clean.subscribe(1, "$share/g/"+tag)
		for i := range 3 {
			got := expect[*mqtt.Publish](clean)
			if string(got.Payload) != fmt.Sprint("wait", i) {
				h.Errorf("got %q, want wait%d", got.Payload, i)
			}
		}
		// It goes without acknowledging: another member gets them.
		clean.cut()
		keeper = h.back(first, id, v, lasting(v, "keeper"+tag, 100))
		for i := range 3 {
			keeper.gets(tag, fmt.Sprint("wait", i), 1)
		}
		keeper.silent()
		h.on(first, id, v, connectAs("keeper"+tag))
	})
}

func TestDelayedWills(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	watch := h.on(first, id, mqtt.V5, connectAs("watch"))
	watch.subscribe(1, "gone/+")
	// Taken back by coming again.
	h.on(first, id, mqtt.V5, willed("back", "gone/back", 60, 100)).cut()
	watch.silent()
	again := h.back(first, id, mqtt.V5, lasting(mqtt.V5, "back", 100))
	h.ahead.Add(int64(61 * time.Second))
	watch.silent()
	again.send(&mqtt.Disconnect{})
	again.ended(imprint.CodeClientDisconnect)
	// Due after its delay, or with the session's end, whichever is first.
	h.on(first, id, mqtt.V5, willed("late", "gone/late", 60, 100)).cut()
	watch.silent()
	h.ahead.Add(int64(61 * time.Second))
	watch.gets("gone/late", "bye", 1)
	h.on(first, id, mqtt.V5, willed("short", "gone/short", 60, 10)).cut()
	h.ahead.Add(int64(11 * time.Second))
	watch.gets("gone/short", "bye", 1)
	h.on(first, id, mqtt.V5, willed("anew", "gone/anew", 60, 100)).cut()
	h.on(first, id, mqtt.V5, connectAs("anew"))
	watch.gets("gone/anew", "bye", 1)
	// A session that ends with the connection takes no delay.
	h.on(first, id, mqtt.V5, willed("clean", "gone/clean", 60, 0)).cut()
	watch.gets("gone/clean", "bye", 1)
	watch.silent()
}

// TestPublishersWaitForTheStore ensures that no PUBACK comes before the message
// of a stored session is durable, and what a client sees that sends too much in
// the meantime.
func TestPublishersWaitForTheStore(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			gate := make(chan func(), 1)
			faults := sqlite.Faults{BeforeCommit: func() error {
				select {
				case wait := <-gate:
					wait()
				default:
				}
				return nil
			}}
			h := newHouseOn(t, broker.Options{MaxInflight: 2}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), faults))
			id := h.register(first, allowAll)
			sub := h.on(first, id, v, lasting(v, "sub", 100))
			sub.subscribe(1, "a")
			pub := h.on(first, id, v, connectAs("pub"))
			pub.published("b", "ready")
			h.must(h.log.Flush(t.Context()))

			entered, release := make(chan struct{}), make(chan struct{})
			letGo := sync.OnceFunc(func() { close(release) })
			t.Cleanup(letGo)
			gate <- func() {
				close(entered)
				<-release
			}
			pub.publish(1, 1, "a", "stored")
			pub.publish(1, 2, "b", "nobody") // its PUBACK waits for the one before
			<-entered
			pub.silent()
			if v == mqtt.V5 {
				pub.publish(1, 2, "b", "in use")
				pub.publish(1, 4, "b", "one too many")
				pub.told(mqtt.ReceiveMaximumExceeded)
				letGo()
				sub.gets("a", "stored", 1)
				return
			}
			pub.publish(1, 3, "b", "third") // read when there is room
			letGo()
			for want := range uint16(3) {
				if got := expect[*mqtt.Ack](pub).PacketID; got != want+1 {
					t.Errorf("PUBACK: got %d, want %d", got, want+1)
				}
			}
			sub.gets("a", "stored", 1)
		})
	}
}

// TestRetainedMessagesWaitForTheirSubscriber ensures that a subscription that gets
// more retained messages than the client's buffer holds loses none of them.
func TestRetainedMessagesWaitForTheirSubscriber(t *testing.T) {
	bothVersions(t, broker.Options{StandardRetainedMatch: true, MaxQueuedBytes: 64 << 10}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		tag := fmt.Sprint("many", byte(v))
		pub := h.on(first, id, v, connectAs("pub"))
		const many = 60
		for n := range many {
			pub.send(&mqtt.Publish{Topic: fmt.Appendf(nil, "%s/%d", tag, n), Payload: make([]byte, 8<<10), QoS: 1, PacketID: 1, Retain: true})
			expect[*mqtt.Ack](pub)
		}
		sub := h.on(first, id, v, connectAs("sub"))
		sub.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: tag + "/+"}}})
		got := map[string]bool{}
		for len(got) < many {
			p, err := sub.receive()
			if err != nil {
				h.Fatalf("got %d messages, want %d: %v", len(got), many, err)
			}
			if m, ok := p.(*mqtt.Publish); ok {
				got[string(m.Topic)] = true
			}
		}
	})
}
