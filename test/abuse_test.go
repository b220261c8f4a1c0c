package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/mqtt"
)

// abuse is what a device that is on does wrong, and how it is answered.
type abuse struct {
	name     string
	versions []mqtt.Version // nil: both
	bytes    func(v mqtt.Version) []byte
	code     string
	reason   mqtt.ReasonCode // of the MQTT 5 DISCONNECT
	event    string          // disconnectReason; empty: CLIENT_ERROR
	// stays: an MQTT 5 client is answered with the reason in an
	// acknowledgement and stays on.
	stays bool
	// counted by imprint_protocol_errors_total.
	counted bool
}

// raw is bytes whatever the version.
func raw(text string) func(mqtt.Version) []byte {
	return func(mqtt.Version) []byte { return []byte(text) }
}

func packet(p mqtt.Packet) func(mqtt.Version) []byte {
	return func(v mqtt.Version) []byte { return p.Append(nil, v) }
}

func publishing(topic string, qos mqtt.QoS) *mqtt.Publish {
	p := &mqtt.Publish{Topic: []byte(topic), Payload: []byte("x"), QoS: qos}
	if qos > 0 {
		p.PacketID = 1
	}
	return p
}

func filters(n int) *mqtt.Subscribe {
	p := &mqtt.Subscribe{PacketID: 1}
	for i := range n {
		p.Filters = append(p.Filters, at1(fmt.Sprintf("abuse/%d", i)))
	}
	return p
}

func aliased(topic string, alias uint16) *mqtt.Publish {
	p := publishing(topic, 0)
	p.Properties.TopicAlias = alias
	p.Properties.Mark(mqtt.PropTopicAlias)
	return p
}

var only5 = []mqtt.Version{mqtt.V5}

func abuses() []abuse {
	deep, long := "abuse"+strings.Repeat("/x", 8), "abuse/"+strings.Repeat("x", 300)
	withID := filters(1)
	withID.Properties.SubscriptionIDs = []uint32{7}
	giant := publishing("abuse/a", 0)
	giant.Payload = make([]byte, 128<<10+1)
	broken := func(name, bytes string, reason mqtt.ReasonCode) abuse {
		return abuse{name: name, bytes: raw(bytes), code: "ProtocolViolation", reason: reason, counted: true}
	}
	return []abuse{
		{name: "second CONNECT", bytes: packet(&mqtt.Connect{ClientID: "again", CleanStart: true, KeepAlive: 60}), code: "ProtocolViolation", reason: mqtt.ProtocolError, counted: true},
		broken("packet type 0", "\x00\x00", mqtt.MalformedPacket),
		broken("SUBSCRIBE with wrong flags", "\x80\x06\x00\x01\x00\x01a\x01", mqtt.MalformedPacket),
		broken("remaining length of five bytes", "\x30\xff\xff\xff\xff\x01", mqtt.MalformedPacket),
		broken("PINGREQ with a body", "\xc0\x01\x00", mqtt.MalformedPacket),
		broken("PUBLISH with QoS 3", "\x36\x06\x00\x01a\x00\x01x", mqtt.MalformedPacket),
		broken("PUBLISH shorter than its topic", "\x30\x03\x00\xffa", mqtt.MalformedPacket),
		broken("topic that isn't UTF-8", "\x30\x05\x00\x02\xc3\x28\x00", mqtt.MalformedPacket),
		broken("CONNACK from a client", "\x20\x03\x00\x00\x00", mqtt.ProtocolError),
		broken("PINGRESP from a client", "\xd0\x00", mqtt.ProtocolError),
		{name: "PUBREL", bytes: packet(&mqtt.Ack{Type: mqtt.TypePubrel, PacketID: 1}), code: "QoSNotSupported", reason: mqtt.QoSNotSupported, counted: true},
		{name: "PUBLISH with QoS 2", bytes: packet(publishing("abuse/a", 2)), code: "QoSNotSupported", reason: mqtt.QoSNotSupported, counted: true},
		{name: "wildcard in a topic", bytes: packet(publishing("abuse/+", 0)), code: "TopicInvalid", reason: mqtt.TopicNameInvalid, counted: true},
		{name: "topic too long, QoS 0", bytes: packet(publishing(long, 0)), code: "TopicInvalid", reason: mqtt.TopicNameInvalid, counted: true},
		{name: "topic too long, QoS 1", bytes: packet(publishing(long, 1)), code: "TopicInvalid", reason: mqtt.TopicNameInvalid, stays: true},
		{name: "too many levels, QoS 0", bytes: packet(publishing(deep, 0)), code: "TopicInvalid", reason: mqtt.TopicNameInvalid, counted: true},
		{name: "too many levels, QoS 1", bytes: packet(publishing(deep, 1)), code: "TopicInvalid", reason: mqtt.TopicNameInvalid, stays: true},
		{name: "$SYS topic", bytes: packet(publishing("$SYS/a", 0)), code: "ReservedTopic", reason: mqtt.TopicNameInvalid},
		{name: "a topic that the service publishes on", bytes: packet(publishing(presence+"connected/abuse", 1)), code: "ReservedTopic", reason: mqtt.TopicNameInvalid, stays: true},
		{name: "$SYS filter", bytes: packet(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{at1("$SYS/#")}}), code: "ReservedTopic", reason: mqtt.TopicFilterInvalid, stays: true},
		{name: "filter too long", bytes: packet(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{at1(long)}}), code: "TopicFilterInvalid", reason: mqtt.TopicFilterInvalid, stays: true},
		{name: "filter too deep", bytes: packet(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{at1(deep)}}), code: "TopicFilterInvalid", reason: mqtt.TopicFilterInvalid, stays: true},
		{name: "nine filters in one SUBSCRIBE", bytes: packet(filters(9)), code: "QuotaExceeded", reason: mqtt.QuotaExceeded, event: "THROTTLED"},
		{name: "more subscriptions than allowed", code: "QuotaExceeded", reason: mqtt.QuotaExceeded, event: "THROTTLED", stays: true,
			bytes: func(v mqtt.Version) []byte {
				var all []byte
				for n := range 51 {
					one := &mqtt.Subscribe{PacketID: uint16(n + 1), Filters: []mqtt.Subscription{at1(fmt.Sprintf("abuse/%d", n))}}
					all = one.Append(all, v)
				}
				return all
			}},
		{name: "SUBSCRIBE with QoS 2", bytes: packet(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "abuse/a", QoS: 2}}}), code: "QoSNotSupported", reason: mqtt.QoSNotSupported, counted: true},
		{name: "subscription identifier", versions: only5, bytes: packet(withID), code: "ProtocolViolation", reason: mqtt.SubscriptionIdentifiersNotSupported, counted: true},
		{name: "topic alias 0", versions: only5, bytes: packet(aliased("abuse/a", 0)), code: "ProtocolViolation", reason: mqtt.TopicAliasInvalid, counted: true},
		{name: "topic alias over the maximum", versions: only5, bytes: packet(aliased("abuse/a", 9)), code: "ProtocolViolation", reason: mqtt.TopicAliasInvalid, counted: true},
		{name: "topic alias that was never set", versions: only5, bytes: packet(aliased("", 1)), code: "ProtocolViolation", reason: mqtt.ProtocolError, counted: true},
		{name: "AUTH", versions: only5, bytes: raw("\xf0\x00"), code: "ProtocolViolation", reason: mqtt.ProtocolError, counted: true},
		{name: "payload over 128 KiB", bytes: packet(giant), code: "PacketTooLarge", reason: mqtt.PacketTooLarge, counted: true},
		{name: "packet over all limits, announced", bytes: raw("\x30\xff\xff\xff\x7f"), code: "PacketTooLarge", reason: mqtt.PacketTooLarge, counted: true},
	}
}

func TestEveryAbuseIsAnsweredTracedAndCountedAndHurtsNobodyElse(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	b := &bystander{stage: s, one: s.one.open(t, mqtt.Connect{ClientID: "bystander", CleanStart: true}, mqtt.V5),
		two: s.two.open(t, mqtt.Connect{ClientID: "abuser", CleanStart: true}, mqtt.V5)}
	b.one.subscribe(at1("by/#"), at1(presence+"disconnected/+"))
	b.two.subscribe(at1("#"), at1(presence+"+/+"))
	for _, tt := range abuses() {
		versions := tt.versions
		if versions == nil {
			versions = bothVersions
		}
		for _, version := range versions {
			t.Run(tt.name+", "+version.String(), func(t *testing.T) { b.endure(t, tt, version) })
		}
	}
	b.two.expectNothing()
	b.checkTraces(t)
}

// bystander is a client that notices nothing of others' abuses, in the same
// tenant and in the other, where it has the abuser's client id.
type bystander struct {
	stage    *stage
	one, two *wire
	number   int
	traces   []func(*testing.T, map[string]attempt)
}

// checkTraces looks at the attempts of all abusers at once.
func (b *bystander) checkTraces(t *testing.T) {
	attempts := map[string]attempt{}
	until(t, "all attempts to be written", func() bool {
		ended := 0
		for _, a := range b.stage.attempts(t, 10*b.number) {
			attempts[a.ClientID] = a
			if strings.HasPrefix(a.ClientID, "abuser-") && a.Ended > 0 {
				ended++
			}
		}
		return ended == b.number
	})
	for _, check := range b.traces {
		check(t, attempts)
	}
}

func (b *bystander) endure(t *testing.T, tt abuse, version mqtt.Version) {
	b.number++
	id := fmt.Sprintf("abuser-%d", b.number)
	errors := b.stage.metric(t, "imprint_protocol_errors_total")
	counter := fmt.Sprintf("imprint_refusals_total{code=%q}", tt.code)
	refused := b.stage.metric(t, counter)
	w := b.stage.one.open(t, mqtt.Connect{ClientID: id, CleanStart: true}, version)
	w.sendBytes(tt.bytes(version))
	if tt.stays && version == mqtt.V5 {
		checkStays(t, w, tt.reason)
		w.close()
		b.traces = append(b.traces, func(t *testing.T, all map[string]attempt) {
			explained := func(s traceStep) bool {
				return s.Verdict == "failed" && s.Code == tt.code && s.Detail != "" && s.Fix != ""
			}
			if !slices.ContainsFunc(all[id].Steps, explained) {
				t.Errorf("%s, %s: got no failed step with code %s, a detail and a fix in %+v", tt.name, version, tt.code, all[id].Steps)
			}
		})
	} else {
		goodbye := w.ended()
		switch {
		case version == mqtt.V311 && goodbye != nil:
			t.Errorf("MQTT 3.1.1 client: got DISCONNECT %s, want a plain close", goodbye.Detail())
		case version == mqtt.V5 && (goodbye == nil || goodbye.Reason != tt.reason):
			t.Errorf("DISCONNECT: got %+v, want %s", goodbye, tt.reason)
		}
		b.traces = append(b.traces, func(t *testing.T, all map[string]attempt) { checkEnded(t, []attempt{all[id]}, tt.code) })
		event := tt.event
		if event == "" {
			event = "CLIENT_ERROR"
		}
		checkPresence(t, b.presence(id), "disconnected", id, event)
		if got := b.stage.metric(t, "imprint_protocol_errors_total"); tt.counted && got != errors+1 {
			t.Errorf("imprint_protocol_errors_total: got %v more, want 1", got-errors)
		}
	}
	if got := b.stage.metric(t, counter); got <= refused {
		t.Errorf("%s: got %v, want more than before", counter, got)
	}
	b.one.say("by/"+id, id)
	for {
		if m := b.one.receive(); bytes.Equal(m.Payload, []byte(id)) {
			break
		}
	}
}

// presence waits for the end of a client.
func (b *bystander) presence(id string) *mqtt.Publish {
	for {
		m := b.one.receive()
		var event struct {
			ClientID string `json:"clientId"`
		}
		if json.Unmarshal(m.Payload, &event) == nil && event.ClientID == id {
			return m
		}
	}
}

// checkStays reads acknowledgements until one has the reason, and says whether
// the client is still on.
func checkStays(t *testing.T, w *wire, reason mqtt.ReasonCode) {
	t.Helper()
	for {
		packet, err := w.tryNext(patience)
		if err != nil {
			t.Fatalf("waited for an acknowledgement with %s: %v", reason, err)
		}
		var codes []mqtt.ReasonCode
		switch p := packet.(type) {
		case *mqtt.Ack:
			codes = []mqtt.ReasonCode{p.Reason}
		case *mqtt.Suback:
			codes = p.Codes
		default:
			t.Fatalf("answer: got %T %s, want an acknowledgement with %s", packet, packet.Detail(), reason)
		}
		if slices.Contains(codes, reason) {
			break
		}
		if codes[0] >= mqtt.UnspecifiedError {
			t.Fatalf("acknowledgement: got %s, want %s", codes[0], reason)
		}
	}
	w.ping()
}

func TestASubscriberThatDoesNotReadSlowsNobodyDown(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	slow := s.one.open(t, mqtt.Connect{ClientID: "slow", CleanStart: true}, mqtt.V5)
	quick := s.one.open(t, mqtt.Connect{ClientID: "quick", CleanStart: true}, mqtt.V5)
	for _, w := range []*wire{slow, quick} {
		w.subscribe(at1("flood/#"))
	}
	from := s.one.open(t, mqtt.Connect{ClientID: "flood-from", CleanStart: true}, mqtt.V311)
	payload := bytes.Repeat([]byte("x"), 100<<10)
	before := s.metric(t, "imprint_slow_consumers_total")
	// Much more than the sockets' buffers and the session's own hold.
	const sent = 200
	for n := range sent {
		from.publish(mqtt.Publish{Topic: []byte("flood/a"), Payload: append(fmt.Appendf(nil, "%d ", n), payload...), QoS: 1})
		m := quick.receive()
		if !bytes.HasPrefix(m.Payload, fmt.Appendf(nil, "%d ", n)) {
			t.Fatalf("message %d to a quick subscriber: got %.10q", n, m.Payload)
		}
	}
	list := s.awaitExplained(t, "slow", 1)
	checkEnded(t, list, "SlowConsumer")
	if got := s.metric(t, "imprint_slow_consumers_total"); got != before+1 {
		t.Errorf("imprint_slow_consumers_total: got %v more, want 1", got-before)
	}
}
