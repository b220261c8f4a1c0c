package broker_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// tryOn is a connection that may be taken over before its CONNACK; nil then. It never
// ends the test, so that any goroutine may call it.
func (h *house) tryOn(id imprint.CertificateID, v mqtt.Version, connect *mqtt.Connect) *client {
	c, err := h.tryDoor(first, id, v, func() {})
	if err != nil {
		h.Errorf("couldn't connect: %v", err)
		return nil
	}
	c.send(connect)
	p, err := c.receive()
	if ack, ok := p.(*mqtt.Connack); err != nil || !ok || ack.Reason != mqtt.Success {
		_ = c.conn.Close()
		return nil
	}
	return c
}

// goodbye disconnects in order: what the client has sent is heard before.
func (c *client) goodbye() {
	c.send(&mqtt.Disconnect{})
	for {
		_, err := c.receive()
		if err != nil {
			_ = c.conn.Close()
			return
		}
	}
}

// TestTakeoversWhileMessagesFlow has connections of one client id chase each
// other while others publish to its session.
func TestTakeoversWhileMessagesFlow(t *testing.T) {
	bothVersions(t, broker.Options{MaxInflight: 5}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		name := fmt.Sprint("storm", v)
		begin := h.on(first, id, v, lasting(v, name, 1000))
		begin.subscribe(1, "a")
		const publishers, many, rivals = 2, 120, 3
		var mu sync.Mutex
		got := map[string]bool{}
		var publishing, chasing sync.WaitGroup
		var stop atomic.Bool
		for n := range publishers {
			pub := h.on(first, id, v, connectAs(fmt.Sprint("pub", n)))
			publishing.Go(func() {
				for i := 0; i < many && pub.tryPublish("a", fmt.Sprintf("%d:%d", n, i)); i++ {
				}
			})
		}
		for range rivals {
			chasing.Go(func() {
				for !stop.Load() && !h.Failed() {
					c := h.tryOn(id, v, lasting(v, name, 1000))
					if c == nil {
						continue
					}
					for range 10 {
						p, err := c.receive()
						if err != nil {
							break
						}
						m, ok := p.(*mqtt.Publish)
						if !ok {
							continue
						}
						mu.Lock()
						got[string(m.Payload)] = true
						mu.Unlock()
						_, _ = c.conn.Write((&mqtt.Ack{Type: mqtt.TypePuback, PacketID: m.PacketID}).Append(nil, v))
					}
					_ = c.conn.Close()
				}
			})
		}
		publishing.Wait()
		stop.Store(true)
		// Whoever still waits for a message is taken over.
		over := make(chan struct{})
		h.serving.Go(func() { chasing.Wait(); close(over) })
		for done := false; !done; {
			h.tryOn(id, v, lasting(v, name, 1000))
			select {
			case <-over:
				done = true
			default:
			}
		}
		last := h.back(first, id, v, lasting(v, name, 1000))
		h.on(first, id, v, connectAs("end")).published("a", "end")
		latest := map[byte]int{}
		for {
			m := expect[*mqtt.Publish](last)
			last.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: m.PacketID})
			payload := string(m.Payload)
			if payload == "end" {
				break
			}
			i, _ := strconv.Atoi(payload[2:])
			if before, some := latest[payload[0]]; some && i <= before {
				h.Errorf("got %s after %d", payload, before)
			}
			latest[payload[0]] = i
			if got[payload] && !m.Dup {
				h.Errorf("%s came again without DUP", payload)
			}
			got[payload] = true
		}
		if len(got) != publishers*many {
			h.Errorf("messages: got %d, want %d", len(got), publishers*many)
		}
	})
}

// TestSubscriptionsAmidTakeovers has connections of one client id subscribe,
// unsubscribe, begin anew and vanish at the same time. Another client's
// subscription for the same filter stays, and nothing is left of theirs.
func TestSubscriptionsAmidTakeovers(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		name := fmt.Sprint("chaos", v)
		by := h.on(first, id, v, connectAs("bystander"))
		by.subscribe(1, "f/0", "f/1")
		var all sync.WaitGroup
		for n := range 4 {
			all.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(n)))
				for range 60 {
					connect := lasting(v, name, 1000)
					connect.CleanStart = random.IntN(2) == 0
					c := h.tryOn(id, v, connect)
					if c == nil {
						continue
					}
					var out []byte
					for i := range 6 {
						filter := fmt.Sprint([]string{"f/", "$share/g/f/"}[random.IntN(2)], random.IntN(2))
						if random.IntN(3) == 0 {
							out = (&mqtt.Unsubscribe{PacketID: uint16(i + 1), Filters: []string{filter}}).Append(out, v)
							continue
						}
						out = (&mqtt.Subscribe{PacketID: uint16(i + 1), Filters: []mqtt.Subscription{{Filter: filter, QoS: 1}}}).Append(out, v)
					}
					_, _ = c.conn.Write(out)
					for range random.IntN(8) {
						_, err := c.receive()
						if err != nil {
							break
						}
					}
					_ = c.conn.Close()
				}
			})
		}
		all.Wait()
		h.on(first, id, v, connectAs(name)).goodbye()
		h.eventually("the session is gone", func() bool { c := h.broker.Counters(); return c.Connected == 1 && c.Stored == 0 })
		pub := h.on(first, id, v, connectAs("pub"))
		for n := range 2 {
			topic := fmt.Sprint("f/", n)
			pub.published(topic, "x")
			by.gets(topic, "x", 1)
		}
		by.silent()
		by.goodbye()
		pub.goodbye()
		h.eventually("no subscription is left", func() bool { return h.broker.NoSubscriptions(first) })
	})
}

// TestSharedSubscriptionsAmidComingsAndGoings ensures that exactly one member
// acknowledges each message, and that none is lost, while members come and go.
func TestSharedSubscriptionsAmidComingsAndGoings(t *testing.T) {
	bothVersions(t, broker.Options{MaxInflight: 4}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		topic := fmt.Sprint("s", byte(v))
		filter := "$share/g/" + topic
		const many = 250
		var mu sync.Mutex
		acked := map[string]int{}
		left := many
		var members, publishing sync.WaitGroup
		var stop atomic.Bool
		// take acknowledges some messages and leaves others to the next.
		take := func(c *client, random *rand.Rand) {
			c.hasty = 300 * time.Millisecond
			for n := random.IntN(30) + 1; n > 0 && !stop.Load(); n-- {
				p, err := c.receive()
				m, ok := p.(*mqtt.Publish)
				if err != nil || !ok || random.IntN(8) == 0 {
					break
				}
				mu.Lock()
				acked[string(m.Payload)]++
				if acked[string(m.Payload)] == 1 {
					left--
				}
				stop.Store(left == 0)
				mu.Unlock()
				c.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: m.PacketID})
			}
			c.hasty = 0
			c.goodbye()
		}
		join := func(name string, connect *mqtt.Connect) *client {
			c := h.tryOn(id, v, connect)
			if c == nil {
				h.Errorf("%s isn't let in", name)
				return nil
			}
			c.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: filter, QoS: 1}}})
			return c
		}
		keeper := lasting(v, "keeper"+topic, 1000)
		c := h.on(first, id, v, keeper)
		c.subscribe(1, filter)
		c.cut()
		for n := range 3 {
			members.Go(func() {
				random := rand.New(rand.NewPCG(2, uint64(n)))
				name := fmt.Sprint("member", n, topic)
				for !stop.Load() && !h.Failed() {
					var c *client
					switch n {
					case 0:
						c = h.tryOn(id, v, keeper)
					case 1: // its session ends with messages that others are to get
						c = join(name, lasting(v, name, 1000))
					default:
						c = join(name, connectAs(name))
					}
					if c == nil {
						return
					}
					if n > 0 {
						_, _ = c.receive()
					}
					take(c, random)
					if n == 1 {
						if c := h.tryOn(id, v, connectAs(name)); c != nil {
							c.goodbye()
						}
					}
				}
			})
		}
		for n := range 2 {
			pub := h.on(first, id, v, connectAs(fmt.Sprint("pub", n)))
			publishing.Go(func() {
				for i := 0; i < many/2 && pub.tryPublish(topic, fmt.Sprintf("%d:%d", n, i)); i++ {
				}
			})
		}
		publishing.Wait()
		h.eventually("every message is acknowledged", stop.Load)
		members.Wait()
		for payload, n := range acked {
			if n != 1 {
				h.Errorf("%s was acknowledged %d times", payload, n)
			}
		}
	})
}

// TestDeleteConnectionAmidReconnects ensures that a client id never has two
// connections, and that nothing of it is left in the end.
func TestDeleteConnectionAmidReconnects(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		name := imprint.ClientID(fmt.Sprint("dev", v))
		var all sync.WaitGroup
		var stop atomic.Bool
		for range 2 {
			all.Go(func() {
				for !stop.Load() {
					if c := h.tryOn(id, v, lasting(v, string(name), 1000)); c != nil {
						_, _ = c.conn.Write((&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "x", QoS: 1}}}).Append(nil, v))
						_, _ = c.receive()
						_ = c.conn.Close()
					}
				}
			})
		}
		ctx, cancel := context.WithTimeout(t0(h), patience)
		defer cancel()
		for n := range 60 {
			err := h.broker.Disconnect(ctx, first, name, broker.Ending{CleanSession: n%2 == 0, PreventWill: n%3 == 0})
			if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
				h.Fatal(err)
			}
		}
		stop.Store(true)
		all.Wait()
		h.tryOn(id, v, lasting(v, string(name), 1000))
		h.eventually("one connection is left", func() bool { return h.broker.Counters().Connected == 1 })
		h.must(h.broker.Disconnect(ctx, first, name, broker.Ending{CleanSession: true}))
		h.eventually("nothing is left", func() bool {
			c := h.broker.Counters()
			return c.Connected == 0 && c.Stored == 0 && h.broker.Timers() == 0 && h.broker.NoSubscriptions(first)
		})
	})
}

func t0(h *house) context.Context {
	if t, ok := h.TB.(*testing.T); ok {
		return t.Context()
	}
	return context.Background()
}

// TestShutdownUnderLoad ensures that nothing that was acknowledged is lost by a
// shutdown in the middle of everything.
func TestShutdownUnderLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registry.db")
	var id imprint.CertificateID
	acked := map[string]bool{}
	t.Run("before", func(t *testing.T) {
		h := newHouseOn(t, broker.Options{}, openStore(t, path, sqlite.Faults{}))
		id = h.register(first, allowAll)
		sub := h.on(first, id, mqtt.V5, lasting(mqtt.V5, "sub", 1000))
		sub.subscribe(1, "a")
		var all sync.WaitGroup
		var mu sync.Mutex
		for n := range 4 {
			pub := h.on(first, id, versions[n%2], connectAs(fmt.Sprint("pub", n)))
			all.Go(func() {
				for i := range 100_000 {
					payload := fmt.Sprintf("%d:%d", n, i)
					pub.publish(1, 1, "a", payload)
					p, err := pub.receive()
					ack, ok := p.(*mqtt.Ack)
					if err != nil || !ok || ack.Reason != mqtt.Success {
						return
					}
					mu.Lock()
					acked[payload] = true
					mu.Unlock()
				}
			})
		}
		for range 20 {
			expect[*mqtt.Publish](sub)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		h.must(h.broker.Shutdown(ctx))
		all.Wait()
	})
	t.Run("after", func(t *testing.T) {
		h := newHouseOn(t, broker.Options{}, openStore(t, path, sqlite.Faults{}))
		sub := h.back(first, id, mqtt.V5, lasting(mqtt.V5, "sub", 1000))
		h.on(first, id, mqtt.V5, connectAs("pub")).published("a", "end")
		for {
			m := expect[*mqtt.Publish](sub)
			if string(m.Payload) == "end" {
				break
			}
			delete(acked, string(m.Payload))
			sub.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: m.PacketID})
		}
		if len(acked) > 0 {
			t.Errorf("%d messages are lost", len(acked))
		}
	})
}

func TestSessionsThatEndWhileTheySubscribeLeaveNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	filters := make([]string, 200)
	for n := range filters {
		filters[n] = fmt.Sprint("x/", n)
	}
	for range 500 {
		h.broker.EndWhileSubscribing(first, filters...)
	}
	if !h.broker.NoSubscriptions(first) {
		t.Error("subscriptions of sessions that ended are left")
	}
}

// TestQueuedSharesAreHandedOutOnce has members acknowledge messages while their
// group's queue is read again and again.
func TestQueuedSharesAreHandedOutOnce(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		topic := fmt.Sprint("q", byte(v))
		filter := "$share/g/" + topic
		const many, members = 500, 3
		keeper := h.on(first, id, v, lasting(v, "keeper"+topic, 1000))
		keeper.subscribe(1, filter)
		keeper.goodbye()
		h.fill(id, topic, many)
		var mu sync.Mutex
		got := map[string]int{}
		left := many
		var all sync.WaitGroup
		for n := range members {
			c := h.on(first, id, v, connectAs(fmt.Sprint("member", n, topic)))
			all.Go(func() {
				c.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: filter, QoS: 1}}})
				for {
					p, err := c.receive()
					if err != nil {
						return
					}
					m, ok := p.(*mqtt.Publish)
					if !ok {
						continue
					}
					_, _ = c.conn.Write((&mqtt.Ack{Type: mqtt.TypePuback, PacketID: m.PacketID}).Append(nil, v))
					mu.Lock()
					got[string(m.Payload)]++
					if got[string(m.Payload)] == 1 {
						left--
					}
					mu.Unlock()
				}
			})
		}
		h.eventually("all have come", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return left == 0
		})
		h.on(first, id, v, connectAs("keeper"+topic)).goodbye()
		h.must(h.broker.Shutdown(t0(h)))
		all.Wait()
		for payload, n := range got {
			if n != 1 {
				h.Errorf("%s came %d times", payload, n)
			}
		}
	})
}

// TestAMemberThatAcknowledgesNothingHoldsUpNoOther ensures that a member keeps no
// more than its share of the group's messages waiting.
func TestAMemberThatAcknowledgesNothingHoldsUpNoOther(t *testing.T) {
	t.Run("100 by default", func(t *testing.T) { heldByAMember(t, broker.Options{}, 100) })
	t.Run("as set", func(t *testing.T) { heldByAMember(t, broker.Options{MaxSharedInflight: 7}, 7) })
}

func heldByAMember(t *testing.T, opts broker.Options, held int) {
	bothVersions(t, opts, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		topic := fmt.Sprint("held", held, "/", byte(v))
		filter := "$share/g/" + topic
		keeper := h.on(first, id, v, lasting(v, "keeper"+topic, 1000))
		keeper.subscribe(1, filter)
		keeper.goodbye()
		stuck := h.on(first, id, v, connectAs("stuck"+topic))
		stuck.subscribe(1, filter)
		const many = 500
		h.fill(id, topic, held)
		got := map[string]bool{}
		for range held {
			got[string(expect[*mqtt.Publish](stuck).Payload)] = true
		}
		other := h.on(first, id, v, connectAs("other"+topic))
		other.subscribe(1, filter)
		h.fill(id, topic, many)
		for range many {
			p := expect[*mqtt.Publish](other)
			other.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: p.PacketID})
		}
		stuck.cut() // what it has goes to the other one
		for range held {
			p := expect[*mqtt.Publish](other)
			other.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: p.PacketID})
			delete(got, string(p.Payload))
		}
		if len(got) > 0 {
			h.Errorf("%d messages of the member that went away are lost", len(got))
		}
		h.on(first, id, v, connectAs("keeper"+topic))
	})
}

// fill publishes many messages, several at once.
func (h *house) fill(id imprint.CertificateID, topic string, many int) {
	h.Helper()
	pub := h.on(first, id, mqtt.V5, connectAs("fill"+topic))
	for n := range many {
		pub.publish(1, uint16(n+1), topic, fmt.Sprint(n))
		if n%50 == 49 || n == many-1 {
			for range n%50 + 1 {
				expect[*mqtt.Ack](pub)
			}
		}
	}
	pub.goodbye()
}
