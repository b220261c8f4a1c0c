package broker_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// expiring is a message that is gone after some seconds.
func expiring(topic, payload string, seconds uint32) *mqtt.Publish {
	p := &mqtt.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: 1, PacketID: 7}
	p.Properties.MessageExpiry = seconds
	p.Properties.Mark(mqtt.PropMessageExpiry)
	return p
}

func (c *client) answer(p *mqtt.Publish, want mqtt.ReasonCode) {
	c.Helper()
	c.send(p)
	if got := expect[*mqtt.Ack](c); got.Reason != want {
		c.Fatalf("PUBLISH to %.20s: got %s, want %s", p.Topic, got.Detail(), want)
	}
}

// TestExpiredRetainedMessagesGiveTheirPlaceBack ensures that a tenant whose retained
// messages have expired may retain others, and that nobody gets the expired ones.
func TestExpiredRetainedMessagesGiveTheirPlaceBack(t *testing.T) {
	t.Parallel()
	h := newHouseAt(t, broker.Options{MaxRetained: 2}, registry, time.Now())
	pub := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("pub"))
	retain := func(n int, seconds uint32, want mqtt.ReasonCode) {
		t.Helper()
		p := expiring(fmt.Sprint("lapse/", n), "x", seconds)
		p.Retain = true
		pub.answer(p, want)
	}
	retain(1, 10, mqtt.Success)
	retain(2, 100, mqtt.Success)
	h.ahead.Store(int64(9 * time.Second))
	retain(3, 1000, mqtt.QuotaExceeded)
	h.ahead.Store(int64(10 * time.Second))
	retain(3, 1000, mqtt.Success)
	retain(4, 1000, mqtt.QuotaExceeded) // the second is still there
	h.ahead.Store(int64(100 * time.Second))
	retain(4, 1000, mqtt.Success)
	for n, want := range map[int]bool{1: false, 2: false, 3: true, 4: true} {
		_, err := h.broker.Retained(t.Context(), first, fmt.Sprint("lapse/", n))
		if want != (err == nil) || !want && imprint.CodeOf(err) != imprint.CodeNotFound {
			t.Errorf("retained message %d: got %v, want it there: %t", n, err, want)
		}
	}
}

// TestARetainedMessageThatHasExpiredIsNotFound ensures it before anything has deleted
// the message: whoever asks at the moment of its end.
func TestARetainedMessageThatHasExpiredIsNotFound(t *testing.T) {
	t.Parallel()
	h := newHouseAt(t, broker.Options{}, registry, time.Now())
	id := h.register(first, allowAll)
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	p := expiring("lapse/alone", "x", 10)
	p.Retain = true
	pub.answer(p, mqtt.Success)
	h.ahead.Store(int64(9 * time.Second))
	_, err := h.broker.Retained(t.Context(), first, "lapse/alone")
	h.must(err)
	h.ahead.Store(int64(10 * time.Second))
	_, err = h.broker.Retained(t.Context(), first, "lapse/alone")
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		t.Errorf("got %v, want that there is none", err)
	}
	h.eventually("the message is deleted", func() bool {
		err := h.store.View(t.Context(), func(tx imprint.ReadTx) error {
			_, err := tx.Retained(first, "lapse/alone")
			return err
		})
		return imprint.CodeOf(err) == imprint.CodeNotFound
	})
}

// TestAMessageExpiryIsMovedIntoItsRange ensures that the message is sent, and with
// what is left of what it was given.
func TestAMessageExpiryIsMovedIntoItsRange(t *testing.T) {
	t.Parallel()
	h := newHouseAt(t, broker.Options{MaxMessageExpiry: time.Minute}, registry, time.Now())
	id := h.register(first, allowAll)
	sub := h.on(first, id, mqtt.V5, connectAs("sub"))
	sub.subscribe(1, "a")
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	for asked, want := range map[uint32]uint32{0: 1, 1: 1, 2: 2, 60: 60, 61: 60, math.MaxUint32: 60} {
		pub.answer(expiring("a", fmt.Sprint(asked), asked), mqtt.Success)
		got := sub.gets("a", fmt.Sprint(asked), 1)
		if !got.Properties.Has(mqtt.PropMessageExpiry) || got.Properties.MessageExpiry != want {
			t.Errorf("expiry %d: got %d, want %d", asked, got.Properties.MessageExpiry, want)
		}
	}
}

// TestTopicsThatAreTooLongAreNotKeptAsAliases ensures that a refused topic leaves
// nothing behind under its alias, also of what was there before.
func TestTopicsThatAreTooLongAreNotKeptAsAliases(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	aliased := func(topic string) *mqtt.Publish {
		p := &mqtt.Publish{Topic: []byte(topic), Payload: []byte("x"), QoS: 1, PacketID: 7}
		p.Properties.TopicAlias = 1
		p.Properties.Mark(mqtt.PropTopicAlias)
		return p
	}
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	pub.answer(aliased("short"), mqtt.Success)
	pub.answer(aliased(""), mqtt.Success)
	// A topic that is refused for another reason stands, also one of the service's that
	// is longer than others may be.
	for _, refused := range []string{"a" + strings.Repeat("/x", 8), "$aws/" + strings.Repeat("x", 507)} {
		pub.answer(aliased(refused), mqtt.TopicNameInvalid)
		pub.answer(aliased(""), mqtt.TopicNameInvalid)
	}
	pub.answer(aliased(strings.Repeat("x", 257)), mqtt.TopicNameInvalid)
	pub.send(aliased(""))
	pub.told(mqtt.ProtocolError)
	pub.ended(imprint.CodeProtocolViolation)
}

// TestSessionsAreKeptForAnHourByDefault ensures what a server without settings does with
// the persistent sessions of MQTT 3.1.1, and that MQTT 5 ones last seven days at most.
func TestSessionsAreKeptForAnHourByDefault(t *testing.T) {
	t.Parallel()
	const forever = 0xFFFFFFFF
	for _, v := range versions {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			h := newHouseAt(t, broker.Options{}, registry, time.Now())
			id := h.register(first, allowAll)
			kept, name := time.Hour, fmt.Sprint("kept ", v)
			if v == mqtt.V5 {
				kept = 7 * 24 * time.Hour
			}
			h.on(first, id, v, lasting(v, name, forever)).cut()
			h.ahead.Add(int64(kept - time.Second))
			h.broker.LookAtTheClock()
			h.back(first, id, v, lasting(v, name, forever)).cut()
			h.ahead.Add(int64(kept))
			h.broker.LookAtTheClock()
			h.eventually("the session expires", func() bool { return h.broker.Counters().Stored == 0 })
			h.on(first, id, v, lasting(v, name, forever))
		})
	}
}

// TestLimitsOfTheServicesTopics ensures that topics below $aws/ have limits of their own,
// unless those of all topics are wider.
func TestLimitsOfTheServicesTopics(t *testing.T) {
	t.Parallel()
	const prefix = "$aws/events/" // 12 bytes, 2 slashes
	for name, opts := range map[string]broker.Options{
		"their own":     {MaxTopicBytes: 5, MaxTopicSlashes: 1, MaxServiceTopicBytes: 20, MaxServiceTopicSlashes: 4},
		"of all topics": {MaxTopicBytes: 20, MaxTopicSlashes: 4, MaxServiceTopicBytes: 5, MaxServiceTopicSlashes: 1},
		"by default":    {MaxTopicBytes: 5, MaxTopicSlashes: 1},
	} {
		long, deep := 20-len(prefix), 4-2
		if name == "by default" {
			long, deep = 512-len(prefix), 24-2
		}
		h := newHouse(t, opts)
		c := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("c"))
		for filter, want := range map[string]mqtt.ReasonCode{
			prefix + strings.Repeat("x", long):         mqtt.Success,
			prefix + strings.Repeat("x", long+1):       mqtt.TopicFilterInvalid,
			prefix + "x" + strings.Repeat("/", deep):   mqtt.Success,
			prefix + "x" + strings.Repeat("/", deep+1): mqtt.TopicFilterInvalid,
		} {
			c.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: filter}}})
			if got := expect[*mqtt.Suback](c).Codes[0]; got != want {
				t.Errorf("%s, %.40s with %d bytes: got %s, want %s", name, filter, len(filter), got, want)
			}
		}
	}
}
