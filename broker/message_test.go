package broker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

func TestMessagesReachSubscribersOfBothVersions(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		pub := h.on(first, id, v, connectAs("pub"))
		for _, other := range versions {
			sub := h.on(first, id, other, connectAs("sub"))
			sub.subscribe(1, "s/+/t")
			pub.published("s/1/t", "one")
			sub.gets("s/1/t", "one", 1)
			pub.publish(0, 0, "s/2/t", "nought")
			sub.gets("s/2/t", "nought", 0)
			sub.send(&mqtt.Unsubscribe{PacketID: 9, Filters: []string{"s/+/t", "none"}})
			got := expect[*mqtt.Unsuback](sub)
			if other == mqtt.V5 {
				want := []mqtt.ReasonCode{mqtt.Success, mqtt.NoSubscriptionExisted}
				if diff := cmp.Diff(want, got.Codes); diff != "" {
					h.Errorf("UNSUBACK (-want +got)\n%s", diff)
				}
			}
			pub.published("s/1/t", "nobody hears")
			sub.silent()
			_ = sub.conn.Close()
		}
	})
}

func TestOverlappingFiltersDeliverOnceAtTheHigherQoS(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		c := h.on(first, h.register(first, allowAll), v, connectAs("dev"))
		c.subscribe(0, "a/+", "#")
		c.subscribe(1, "a/b")
		c.published1("a/b", "x")
		c.gets("a/b", "x", 1)
		c.subscribe(0, "a/b") // replaces, with a lower QoS
		c.published1("a/b", "y")
		c.gets("a/b", "y", 0)
		c.silent()
	})
}

// published1 publishes with QoS 1 to a subscription of its own: the message
// and the PUBACK come in the order of handing over, before acknowledging.
func (c *client) published1(topic, payload string) {
	c.Helper()
	c.publish(1, 11, topic, payload)
	p, err := c.receive()
	c.must(err)
	ack, isAck := p.(*mqtt.Ack)
	if isAck {
		c.Fatalf("got %s before the message, want the message handed over first", ack.Detail())
	}
	message := p.(*mqtt.Publish)
	if got := expect[*mqtt.Ack](c); got.PacketID != 11 {
		c.Fatalf("got %s, want PUBACK 11", got.Detail())
	}
	// Put the message back for gets.
	body := message.Append(nil, c.version)
	rest := c.in
	c.in = newReader(body, rest)
}

func TestParentLevelAndDollarTopics(t *testing.T) {
	t.Parallel()
	for _, standard := range []bool{false, true} {
		h := newHouse(t, broker.Options{StandardParentMatch: standard})
		id := h.register(first, allowAll)
		sub := h.on(first, id, mqtt.V5, connectAs("sub"))
		sub.subscribe(0, "a/#", "+/+/+/+/+")
		pub := h.on(first, id, mqtt.V5, connectAs("pub"))
		pub.published("a", "parent")
		done := make(chan error, 1)
		h.broker.PublishEvent(t.Context(), imprint.Event{Tenant: first, Topic: "$aws/events/x/y/z", Payload: []byte("{}")}, func(err error) { done <- err })
		h.must(<-done)
		pub.published("a/", "child")
		if standard {
			sub.gets("a", "parent", 0)
		}
		sub.gets("a/", "child", 0)
		sub.silent()
	}
}

func TestReservedAndForbiddenFilters(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{DeniedSubscribeGetsReason: true})
	strict := newHouse(t, broker.Options{})
	id, strictID := h.register(first, allowAll), strict.register(first, allowAll)
	for filter, want := range map[string]mqtt.ReasonCode{
		"$SYS/#":          mqtt.TopicFilterInvalid,
		"$aws/things/x":   mqtt.TopicFilterInvalid,
		"$share/g/$aws/x": mqtt.TopicFilterInvalid,
		"$share/" + strings.Repeat("g", 129) + "/a": mqtt.TopicFilterInvalid,
		"a/b/c/d/e/f/g/h/i":                         mqtt.TopicFilterInvalid,
		strings.Repeat("x", 257):                    mqtt.TopicFilterInvalid,
		"$aws/events/" + strings.Repeat("/", 100):   mqtt.TopicFilterInvalid,
		"$aws/events/" + strings.Repeat("x", 1000):  mqtt.TopicFilterInvalid,
	} {
		for _, v := range versions {
			c := h.on(first, id, v, connectAs("dev"))
			c.send(&mqtt.Subscribe{PacketID: 3, Filters: []mqtt.Subscription{{Filter: filter}, {Filter: "fine", QoS: 1}}})
			code := want
			if v == mqtt.V311 {
				code = mqtt.UnspecifiedError
			}
			got := expect[*mqtt.Suback](c)
			if diff := cmp.Diff([]mqtt.ReasonCode{code, mqtt.GrantedQoS1}, got.Codes); diff != "" || got.PacketID != 3 {
				t.Errorf("%s %.20q: SUBACK %d (-want +got)\n%s", v, filter, got.PacketID, diff)
			}
		}
		c := strict.on(first, strictID, mqtt.V311, connectAs("dev"))
		c.send(&mqtt.Subscribe{PacketID: 3, Filters: []mqtt.Subscription{{Filter: filter}}})
		c.closed()
	}
}

func TestSubscriptionsOfOneConnectionAreBounded(t *testing.T) {
	bothVersions(t, broker.Options{MaxSubscriptions: 2, DeniedSubscribeGetsReason: true}, func(h *house, v mqtt.Version) {
		c := h.on(first, h.register(first, allowAll), v, connectAs("dev"))
		c.subscribe(0, "a", "b")
		c.subscribe(1, "b") // replacing is no new one
		c.send(&mqtt.Subscribe{PacketID: 2, Filters: []mqtt.Subscription{{Filter: "c"}}})
		want := mqtt.UnspecifiedError
		if v == mqtt.V5 {
			want = mqtt.QuotaExceeded
		}
		if got := expect[*mqtt.Suback](c).Codes[0]; got != want {
			h.Errorf("got %s, want %s", got, want)
		}
	})
}

func TestDeniedPublish(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, noPublish)
		c := h.on(first, id, v, connectAs("dev"))
		c.publish(1, 5, "a", "x")
		if v == mqtt.V5 {
			if got := expect[*mqtt.Ack](c); got.PacketID != 5 || got.Reason != mqtt.NotAuthorized {
				h.Errorf("got %s, want not authorized for 5", got.Detail())
			}
			c.silent()
			c.publish(0, 0, "a", "x")
		}
		c.told(mqtt.NotAuthorized)
		c.ended(imprint.CodePublishDenied)
		if h.broker.Counters().PublishDenied == 0 {
			h.Error("denied publishes aren't counted")
		}
	})
}

func TestDeniedSubscribe(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		c := h.on(first, h.register(first, noSubscribe), v, connectAs("dev"))
		c.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "a"}}})
		if v == mqtt.V5 {
			if got := expect[*mqtt.Suback](c).Codes[0]; got != mqtt.NotAuthorized {
				h.Errorf("got %s, want not authorized", got)
			}
			c.silent()
			return
		}
		c.closed()
		c.ended(imprint.CodeSubscribeDenied)
	})
}

func TestDeniedReceiveIsSilent(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		sub := h.on(first, h.register(first, noReceive), v, connectAs("sub"))
		sub.subscribe(1, "a")
		pub := h.on(first, h.register(first, allowAll), v, connectAs("pub"))
		pub.published("a", "secret")
		sub.silent()
	})
}

func TestPolicyChangesHoldForTheNextPacket(t *testing.T) {
	bothVersions(t, broker.Options{DeniedSubscribeGetsReason: true}, func(h *house, v mqtt.Version) {
		subID, pubID := h.register(first, allowAll), h.register(first, allowAll)
		sub := h.on(first, subID, v, connectAs("sub"))
		sub.subscribe(1, "a")
		pub := h.on(first, pubID, v, connectAs("pub"))
		pub.published("a", "1")
		sub.gets("a", "1", 1)
		h.setPolicy(first, subID, noReceive) // the receiver's
		pub.published("a", "2")
		sub.silent()
		h.setPolicy(first, subID, noSubscribe)
		sub.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "b"}}})
		if got := expect[*mqtt.Suback](sub).Codes[0]; !got.Failure() {
			h.Errorf("subscribe under the new policy: got %s, want a failure", got)
		}
		h.setPolicy(first, subID, allowAll)
		pub.published("a", "3")
		sub.gets("a", "3", 1)
		h.setPolicy(first, pubID, noPublish) // the publisher's
		pub.publish(0, 0, "a", "4")
		pub.told(mqtt.NotAuthorized)
		sub.silent()
	})
}

func TestTenantsNeverMeet(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		here := h.on(first, h.register(first, allowAll), v, connectAs("same"))
		there := h.on(second, h.register(second, allowAll), v, connectAs("same"))
		here.subscribe(0, "#")
		there.subscribe(0, "#")
		here.publish(0, 0, "a", "here")
		here.gets("a", "here", 0)
		there.silent()
		if got := h.broker.Counters().Takeovers; got != 0 {
			h.Errorf("takeovers: got %d, want 0", got)
		}
	})
}

func TestNoLocalKeepsOwnMessagesAway(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	c := h.on(first, id, mqtt.V5, connectAs("dev"))
	c.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "a", QoS: 1, NoLocal: true}}})
	expect[*mqtt.Suback](c)
	c.published("a", "own")
	h.on(first, id, mqtt.V5, connectAs("other")).published("a", "other")
	c.gets("a", "other", 1)
	c.silent()
}

func TestTopicAliasesAreResolvedBeforeTheDecision(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	const onlyA = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Connect","iot:Subscribe","iot:Receive"],"Resource":"*"},
		{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:us-east-1:000000000000:topic/a"}]}`
	c := h.on(first, h.register(first, onlyA), mqtt.V5, connectAs("dev"))
	sub := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("sub"))
	sub.subscribe(0, "#")
	send := func(topic string, alias, id uint16) mqtt.ReasonCode {
		p := &mqtt.Publish{Topic: []byte(topic), Payload: []byte(fmt.Sprint(id)), QoS: 1, PacketID: id}
		p.Properties.TopicAlias = alias
		p.Properties.Mark(mqtt.PropTopicAlias)
		c.send(p)
		return expect[*mqtt.Ack](c).Reason
	}
	for i, row := range []struct {
		topic string
		alias uint16
		want  mqtt.ReasonCode
	}{
		{"a", 1, mqtt.Success}, {"", 1, mqtt.Success}, {"b", 2, mqtt.NotAuthorized}, {"", 2, mqtt.NotAuthorized},
		{"b", 1, mqtt.NotAuthorized}, {"", 1, mqtt.NotAuthorized}, {"a", 8, mqtt.Success}, {"", 8, mqtt.Success},
	} {
		if got := send(row.topic, row.alias, uint16(i+1)); got != row.want {
			t.Errorf("%q as %d: got %s, want %s", row.topic, row.alias, got, row.want)
		}
	}
	for _, n := range []string{"1", "2", "7", "8"} {
		if got := sub.gets("a", n, 0); got.Properties.Has(mqtt.PropTopicAlias) {
			t.Errorf("message %s: the publisher's alias reached the subscriber", n)
		}
	}
	sub.silent()
}

func TestWindowAndWaitingQueueKeepOrder(t *testing.T) {
	bothVersions(t, broker.Options{MaxInflight: 3}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		connect := connectAs("sub")
		window := 3
		if v == mqtt.V5 {
			window = 2
			connect.Properties.ReceiveMaximum = 2
			connect.Properties.Mark(mqtt.PropReceiveMaximum)
		}
		sub := h.on(first, id, v, connect)
		sub.subscribe(1, "a")
		pub := h.on(first, id, v, connectAs("pub"))
		for i := range 20 {
			pub.published("a", fmt.Sprint(i))
		}
		var held []*mqtt.Publish
		for range window {
			held = append(held, expect[*mqtt.Publish](sub))
		}
		sub.silent()                                              // nothing beyond the window
		sub.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: 999}) // nobody's
		sub.silent()
		for i := range 20 {
			next := held[0]
			if string(next.Payload) != fmt.Sprint(i) {
				h.Fatalf("message %d: got %q", i, next.Payload)
			}
			sub.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: next.PacketID})
			held = held[1:]
			if i+window < 20 {
				held = append(held, expect[*mqtt.Publish](sub))
			}
		}
		sub.silent()
	})
}

func TestExpiredMessagesAreNotSentAndOthersTellWhatIsLeft(t *testing.T) {
	bothVersions(t, broker.Options{MaxInflight: 1}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		sub := h.on(first, id, v, connectAs("sub"))
		sub.subscribe(1, "a")
		pub := h.on(first, id, mqtt.V5, connectAs("pub"))
		send := func(payload string, seconds uint32) {
			p := &mqtt.Publish{Topic: []byte("a"), Payload: []byte(payload), QoS: 1, PacketID: 1}
			p.Properties.MessageExpiry = seconds
			p.Properties.Mark(mqtt.PropMessageExpiry)
			pub.send(p)
			expect[*mqtt.Ack](pub)
		}
		send("0", 1e9)
		send("1", 10)
		send("2", 1000)
		got := expect[*mqtt.Publish](sub)
		if v == mqtt.V5 && got.Properties.MessageExpiry != 604800 {
			h.Errorf("expiry: got %d, want the longest, 604800", got.Properties.MessageExpiry)
		}
		h.ahead.Add(int64(100 * time.Second))
		sub.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: got.PacketID})
		got = expect[*mqtt.Publish](sub)
		left := got.Properties.MessageExpiry
		if string(got.Payload) != "2" || v == mqtt.V5 && (left < 880 || left > 900) {
			h.Errorf("got %s %q, want 2 with at most 900 s", got.Detail(), got.Payload)
		}
	})
}

func TestMessagesOverTheClientsMaximumAreNotSent(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	connect := connectAs("sub")
	connect.Properties.MaximumPacketSize = 200
	connect.Properties.Mark(mqtt.PropMaximumPacketSize)
	sub := h.on(first, id, mqtt.V5, connect)
	sub.subscribe(1, "a")
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	exact := strings.Repeat("x", 200-9) // fixed header 3, topic 3, packet id 2, property length 1
	pub.published("a", exact+"x")
	pub.published("a", exact)
	sub.gets("a", exact, 1)
	sub.silent()
}

func TestPropertiesReachSubscribers(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{MaxInflight: 1})
	id := h.register(first, allowAll)
	sub := h.on(first, id, mqtt.V5, connectAs("sub"))
	sub.subscribe(1, "a")
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	p := &mqtt.Publish{Topic: []byte("a"), Payload: []byte("x"), QoS: 1, PacketID: 1}
	p.Properties.ContentType, p.Properties.ResponseTopic = "text/plain", "answers"
	p.Properties.CorrelationData = []byte{1, 2}
	p.Properties.User = []mqtt.UserProperty{{Key: "k", Value: "1"}, {Key: "k", Value: "2"}}
	p.Properties.Mark(mqtt.PropContentType, mqtt.PropResponseTopic, mqtt.PropCorrelationData)
	want := p.Properties
	pub.send(p, p) // the second waits for the window
	expect[*mqtt.Ack](pub)
	expect[*mqtt.Ack](pub)
	pub.published("b", strings.Repeat("overwrites the reader's buffer", 8))
	for range 2 {
		if diff := cmp.Diff(want, sub.gets("a", "x", 1).Properties); diff != "" {
			t.Errorf("properties (-want +got)\n%s", diff)
		}
	}
}

// TestRulesRepublishOnlyWhereSomebodyTakesIt ensures that a rule's message to a topic of
// a service that isn't here is refused, also when only the message tells the topic.
func TestRulesRepublishOnlyWhereSomebodyTakesIt(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	for topic, want := range map[string]imprint.Code{
		"a/b": "", "$aws/events/x": "", "$aws/rules/other/a": "", "$imprint/x": "",
		"$aws/things/x/shadow/update": imprint.CodeReservedTopic, "$aws/certificates/create/json": imprint.CodeReservedTopic, "$SYS/x": imprint.CodeReservedTopic,
	} {
		err := h.broker.Republish(t.Context(), first, imprint.RuleMessage{Topic: topic, Payload: []byte("{}"), Depth: 1})
		if got := imprint.CodeOf(err); got != want {
			t.Errorf("%s: got %q (%v), want %q", topic, got, err, want)
		}
	}
}
