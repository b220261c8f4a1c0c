package broker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// limited are options with every limit that a test can reach small.
var limited = broker.Options{
	MaxPayload: 100, MaxConnectPacket: 200, MaxTopicBytes: 20, MaxTopicSlashes: 3, MaxClientIDBytes: 10, MaxFiltersPerSubscribe: 2,
	MaxSubscriptions: 3, MaxShareNameBytes: 5, MaxTopicAliases: 2, MaxSessions: 2,
}

// refusedWith wants the refusal of a CONNECT: a reason for MQTT 5, a plain close
// for 3.1.1; and its code in the trace and in the counters.
func (c *client) refusedWith(reason mqtt.ReasonCode, code imprint.Code) {
	c.Helper()
	if c.version == mqtt.V5 {
		if got := expect[*mqtt.Connack](c).Reason; got != reason {
			c.Errorf("CONNACK: got %s, want %s", got, reason)
		}
	}
	c.closed()
	c.ended(code)
	if c.broker.Counters().Refused == 0 {
		c.Error("the refusal isn't counted")
	}
}

// hasStep wants the trace to tell of a code that didn't end the connection.
func (c *client) hasStep(end, code imprint.Code) {
	c.Helper()
	for _, step := range c.ended(end).Steps {
		if step.Code == code {
			return
		}
	}
	c.Errorf("the trace doesn't tell of %s", code)
}

func TestLimitsOfConnect(t *testing.T) {
	bothVersions(t, limited, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		h.on(first, id, v, connectAs(strings.Repeat("x", 10))).goodbye()
		c := h.door(first, id, v)
		c.send(connectAs(strings.Repeat("x", 11)))
		c.refusedWith(mqtt.ClientIdentifierNotValid, imprint.CodeClientIDInvalid)

		big := connectAs("big")
		fixed := len(big.Append(nil, v)) - 2 // the fixed header of a small packet
		big.Username, big.HasUsername = strings.Repeat("u", 200-fixed-2), true
		h.on(first, id, v, big).goodbye()
		big.Username += "u"
		c = h.door(first, id, v)
		c.send(big)
		c.closed()
		c.ended(imprint.CodePacketTooLarge)

		for _, name := range []string{"one", "two"} {
			h.on(first, id, v, lasting(v, name, 100)).cut()
		}
		c = h.door(first, id, v)
		c.send(lasting(v, "three", 100))
		c.refusedWith(mqtt.QuotaExceeded, imprint.CodeQuotaExceeded)
		h.on(first, id, v, connectAs("three")).goodbye()
		anew := lasting(v, "two", 100) // in its own place
		if v == mqtt.V5 {
			anew.CleanStart = true
			h.on(first, id, v, anew).cut()
		} else {
			h.back(first, id, v, anew).cut()
		}
		h.on(first, id, v, connectAs("one")).goodbye()
		h.on(first, id, v, lasting(v, "three", 100))
	})
}

func TestKeepAliveIsMovedIntoItsRange(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	for asked, want := range map[uint16]uint16{0: 1200, 1: 30, 29: 30, 30: 0, 31: 0, 1200: 0, 1201: 1200, 65535: 1200} {
		c := h.door(first, id, mqtt.V5)
		connect := connectAs("k")
		connect.KeepAlive = asked
		c.send(connect)
		got := expect[*mqtt.Connack](c).Properties
		if got.ServerKeepAlive != want || got.Has(mqtt.PropServerKeepAlive) != (want > 0) {
			t.Errorf("keep-alive %d: got %d, want %d", asked, got.ServerKeepAlive, want)
		}
		c.goodbye()
	}
}

func TestLimitsOfTopicsAndPayloads(t *testing.T) {
	bothVersions(t, limited, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		for _, row := range []struct {
			fine, beyond string
			payload      int
			reason, end  mqtt.ReasonCode
			code         imprint.Code
		}{
			{strings.Repeat("t", 20), strings.Repeat("t", 21), 0, mqtt.TopicNameInvalid, 0, imprint.CodeTopicInvalid},
			{"a/b/c/d", "a/b/c/d/e", 0, mqtt.TopicNameInvalid, 0, imprint.CodeTopicInvalid},
			{"p", "p", 1, 0, mqtt.PacketTooLarge, imprint.CodePacketTooLarge},
		} {
			c := h.on(first, id, v, connectAs("t"))
			payload := strings.Repeat("p", 100)
			c.published(row.fine, payload)
			c.publish(1, 2, row.beyond, payload+strings.Repeat("p", row.payload))
			if v != mqtt.V5 || row.end != 0 {
				c.told(row.end)
				c.ended(row.code)
				continue
			}
			if got := expect[*mqtt.Ack](c).Reason; got != row.reason {
				h.Errorf("%s: got %s, want %s", row.beyond, got, row.reason)
			}
			c.goodbye()
			c.hasStep(imprint.CodeClientDisconnect, row.code)
		}
	})
}

func TestLimitsOfSubscriptions(t *testing.T) {
	bothVersions(t, limited, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		for _, row := range []struct {
			fine, beyond string
			reason       mqtt.ReasonCode
			code         imprint.Code
		}{
			{strings.Repeat("t", 20), strings.Repeat("t", 21), mqtt.TopicFilterInvalid, imprint.CodeFilterInvalid},
			{"a/b/c/+", "a/b/c/d/+", mqtt.TopicFilterInvalid, imprint.CodeFilterInvalid},
			{"$share/12345/" + strings.Repeat("t", 20), "$share/123456/t", mqtt.TopicFilterInvalid, imprint.CodeFilterInvalid},
			{"$share/1/a/b/c/+", "$share/1/a/b/c/d/+", mqtt.TopicFilterInvalid, imprint.CodeFilterInvalid},
			{"third", "fourth", mqtt.QuotaExceeded, imprint.CodeQuotaExceeded},
		} {
			c := h.on(first, id, v, connectAs("s"))
			if row.fine == "third" {
				c.subscribe(1, "one", "two")
			}
			c.subscribe(1, row.fine)
			c.subscribe(0, row.fine) // it takes its own place
			c.send(&mqtt.Subscribe{PacketID: 2, Filters: []mqtt.Subscription{{Filter: row.beyond, QoS: 1}}})
			if v != mqtt.V5 {
				c.closed()
				c.ended(row.code)
				continue
			}
			if got := expect[*mqtt.Suback](c).Codes[0]; got != row.reason {
				h.Errorf("%s: got %s, want %s", row.beyond, got, row.reason)
			}
			c.goodbye()
			c.hasStep(imprint.CodeClientDisconnect, row.code)
		}
		for _, packet := range []mqtt.Packet{
			&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "a"}, {Filter: "b"}, {Filter: "c"}}},
			&mqtt.Unsubscribe{PacketID: 1, Filters: []string{"a", "b", "c"}},
		} {
			c := h.on(first, id, v, connectAs("s"))
			c.subscribe(1, "a", "b")
			c.send(packet)
			c.told(mqtt.QuotaExceeded)
			c.ended(imprint.CodeQuotaExceeded)
		}
	})
}

func TestLimitsOfTopicAliases(t *testing.T) {
	t.Parallel()
	h := newHouse(t, limited)
	id := h.register(first, allowAll)
	connect := connectAs("sub")
	connect.Properties.TopicAliasMaximum = 3
	connect.Properties.Mark(mqtt.PropTopicAliasMaximum)
	sub := h.on(first, id, mqtt.V5, connect)
	sub.subscribe(0, "+")
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	aliased := func(topic string, alias uint16) {
		p := &mqtt.Publish{Topic: []byte(topic), Payload: []byte("x")}
		p.Properties.TopicAlias = alias
		p.Properties.Mark(mqtt.PropTopicAlias)
		pub.send(p)
	}
	aliased("a", 1)
	aliased("b", 2)
	aliased("", 2)
	pub.publish(0, 0, "c", "x")
	for _, want := range []struct {
		topic string
		alias uint16
	}{{"a", 1}, {"b", 2}, {"", 2}, {"c", 0}} {
		got := expect[*mqtt.Publish](sub)
		if string(got.Topic) != want.topic || got.Properties.TopicAlias != want.alias {
			t.Errorf("got topic %q with alias %d, want %q with %d", got.Topic, got.Properties.TopicAlias, want.topic, want.alias)
		}
	}
	aliased("d", 3)
	pub.told(mqtt.TopicAliasInvalid)
	pub.ended(imprint.CodeProtocolViolation)
	if h.broker.Counters().ProtocolErrors != 1 {
		t.Error("the misuse isn't counted")
	}
}

// TestAliasesStandForEveryTopicThatIsTaken ensures that a client may use an alias also
// for topics that may be longer than its own: those of the service, and of Basic Ingest.
func TestAliasesStandForEveryTopicThatIsTaken(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{MaxTopicBytes: 8, MaxTopicAliases: 3, Rules: newSlowRules(), Reserved: &desk{}})
	c := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("dev"))
	aliased := func(topic string, alias uint16) *mqtt.Publish {
		p := &mqtt.Publish{Topic: []byte(topic), Payload: []byte("x"), QoS: 1, PacketID: 1}
		p.Properties.TopicAlias = alias
		p.Properties.Mark(mqtt.PropTopicAlias)
		return p
	}
	for n, topic := range []string{asking, "$aws/rules/store/a/b", "12345678"} {
		for _, named := range []string{topic, ""} {
			c.send(aliased(named, uint16(n+1)))
			if got := expect[*mqtt.Ack](c).Reason; got != mqtt.Success {
				t.Errorf("%s, sent as %q: got %s, want success", topic, named, got)
			}
		}
	}
	c.send(aliased("123456789", 1))
	if got := expect[*mqtt.Ack](c).Reason; got != mqtt.TopicNameInvalid {
		t.Errorf("too long a topic: got %s", got)
	}
	c.send(aliased("", 1))
	c.told(mqtt.ProtocolError)
}

func TestRatesFollowTheClock(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			h := newHouseAt(t, broker.Options{PublishRate: 5, ThroughputRate: -1, ConnectRate: 2}, registry, time.Now())
			id := h.register(first, allowAll)
			name := fmt.Sprint("rate", v)
			for range 2 {
				h.on(first, id, v, connectAs(name))
			}
			c := h.door(first, id, v)
			c.send(connectAs(name))
			c.refusedWith(mqtt.QuotaExceeded, imprint.CodeConnectRate)
			h.on(first, id, v, connectAs(name+"2")).goodbye()
			h.ahead.Add(int64(500 * time.Millisecond))
			c = h.on(first, id, v, connectAs(name))

			for range 5 {
				c.published("a", "fine")
			}
			c.publish(1, 9, "a", "too much")
			if v == mqtt.V5 {
				if got := expect[*mqtt.Ack](c).Reason; got != mqtt.QuotaExceeded {
					t.Errorf("got %s, want quota exceeded", got)
				}
			}
			c.silent()
			h.ahead.Add(int64(200 * time.Millisecond))
			c.published("a", "fine again")
			c.publish(0, 0, "a", "too much again")
			c.silent()
			if got := h.broker.Counters().PublishThrottled; got != 2 {
				t.Errorf("discarded: got %d, want 2", got)
			}
			c.goodbye()
			c.hasStep(imprint.CodeClientDisconnect, imprint.CodePublishRate)
		})
	}
}

func TestThroughputIsDelayedNotRefused(t *testing.T) {
	t.Parallel()
	const rate = 64 << 10
	h := newHouse(t, broker.Options{PublishRate: -1, ThroughputRate: rate})
	c := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("c"))
	began := time.Now()
	payload := strings.Repeat("x", 24<<10)
	for range 4 {
		c.published("a", payload)
	}
	c.silent()
	// 96 KiB less a second's burst of 64.
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("it took %s, want about half a second", took)
	}
	if h.broker.Counters().ThroughputDelayed == 0 {
		t.Error("the delay isn't counted")
	}
}

func TestQueuesAreBoundedInBytesAndTheRoomComesBack(t *testing.T) {
	bothVersions(t, broker.Options{MaxSessionBytes: 400}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		name := fmt.Sprint("bytes", v)
		sub := h.on(first, id, v, lasting(v, name, 100))
		sub.subscribe(1, "a", "$share/g/s")
		pub := h.on(first, id, v, connectAs("pub"))
		payload := strings.Repeat("x", 90) // about 100 bytes in the queue
		// The queue never becomes empty, and what is given back is what was taken.
		pub.published("a", payload)
		id0 := expect[*mqtt.Publish](sub).PacketID
		for range 50 {
			pub.published("a", payload)
			sub.gets("a", payload, 1)
			sub.silent()
		}
		if got := h.broker.Counters().QueueFull; got != 0 {
			h.Errorf("messages without room: got %d, want 0", got)
		}
		sub.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: id0})
		sub.cut()
		for range 6 {
			pub.published("a", payload)
		}
		full := h.broker.Counters().QueueFull
		if full < 2 || full > 3 {
			h.Errorf("messages without room: got %d, want 2 or 3", full)
		}
		// A full member's share waits in the group's queue until it has room.
		sub = h.back(first, id, v, lasting(v, name, 100))
		var open []uint16
		for range 6 - full {
			open = append(open, expect[*mqtt.Publish](sub).PacketID)
		}
		pub.published("s", payload)
		for _, id := range open {
			sub.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: id})
		}
		sub.gets("s", payload, 1)
		sub.goodbye()
		h.on(first, id, v, connectAs(name))
	})
}
