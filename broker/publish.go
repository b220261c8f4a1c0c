package broker

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/policy"
)

// handlePublish authorizes a PUBLISH, hands it to the subscribers, and then
// acknowledges it.
func (s *session) handlePublish(ctx context.Context, header mqtt.FixedHeader, body []byte) error {
	packet := &s.incoming
	err := packet.Decode(header, body, s.version)
	if err != nil {
		return err
	}
	s.broker.count.publishIn.Add(1)
	switch {
	case packet.QoS > 1:
		return end(imprint.CodeQoSNotSupported, "a PUBLISH has QoS %d", packet.QoS)
	case len(packet.Payload) > s.broker.opts.MaxPayload:
		return end(imprint.CodePacketTooLarge, "a PUBLISH has a payload of %d bytes, at most %d are allowed", len(packet.Payload), s.broker.opts.MaxPayload)
	case len(packet.Properties.SubscriptionIDs) > 0:
		return end(imprint.CodeProtocolViolation, "a client's PUBLISH has a Subscription Identifier [MQTT-3.3.4-6]")
	}
	topic, err := s.resolveTopic(packet)
	if err != nil {
		return err
	}
	err = s.mayPublish(ctx, topic, packet)
	if err != nil {
		return s.denyPublish(packet, err)
	}
	s.broker.route(ctx, s.realm, s, topic, packet, &s.route)
	if packet.QoS == 1 {
		s.acknowledge(packet.PacketID, mqtt.Success)
	}
	return nil
}

func (s *session) acknowledge(id uint16, reason mqtt.ReasonCode) {
	ack := mqtt.Ack{Type: mqtt.TypePuback, PacketID: id, Reason: reason}
	s.append(func(dst []byte) []byte { return ack.Append(dst, s.version) })
}

// resolveTopic gives the topic's name, through its alias where the client uses
// one (MQTT 5 section 3.3.2.3.4). It comes before any decision on the topic.
func (s *session) resolveTopic(packet *mqtt.Publish) (string, error) {
	if !packet.Properties.Has(mqtt.PropTopicAlias) {
		return s.intern(packet.Topic), nil
	}
	alias, most := int(packet.Properties.TopicAlias), s.broker.opts.MaxTopicAliases
	if alias == 0 || alias > most {
		return "", end(imprint.CodeProtocolViolation, "topic alias %d isn't one of 1 to %d [MQTT-3.3.2-9]", alias, most).telling(mqtt.TopicAliasInvalid)
	}
	if s.aliases == nil {
		s.aliases = make([]string, most)
	}
	if len(packet.Topic) == 0 {
		topic := s.aliases[alias-1]
		if topic == "" {
			return "", end(imprint.CodeProtocolViolation, "topic alias %d was never set", alias)
		}
		return topic, nil
	}
	topic := s.intern(packet.Topic)
	s.aliases[alias-1] = topic
	if len(topic) > s.broker.opts.MaxTopicBytes {
		// It is refused below; it isn't worth keeping.
		s.aliases[alias-1] = ""
	}
	return topic, nil
}

// intern spares the allocation of the topic's string while a client repeats it.
func (s *session) intern(topic []byte) string {
	if s.route.topic == string(topic) {
		return s.route.topic
	}
	return string(topic)
}

// mayPublish decides on a publish: topic, policy, retain.
func (s *session) mayPublish(ctx context.Context, topic string, packet *mqtt.Publish) error {
	err := s.checkTopic(topic)
	if err != nil {
		return err
	}
	bound := s.current(ctx)
	if bound == nil {
		return s.over()
	}
	request := policy.Request{
		Action: policy.Publish, ResourcePrefix: s.realm.topicARN, ResourceName: topic,
		Vars: bound.vars, Now: s.broker.clock(),
	}
	if bound.who.Policies.Decide(&request) != policy.Allowed {
		s.broker.count.publishDenied.Add(1)
		return s.explain(imprint.CodePublishDenied, bound, &request)
	}
	if strings.HasPrefix(topic, "$") {
		return imprint.Errorf(imprint.CodeReservedTopic, "topic %q begins with $ and is none that clients may publish to", topic)
	}
	if packet.Retain {
		return imprint.Errorf(imprint.CodeRetainNotOffered, "a PUBLISH to %q asks to be retained", topic)
	}
	return nil
}

// denyPublish answers a refused PUBLISH: MQTT 5 clients get a reason in PUBACK
// at QoS 1 and stay; otherwise the connection ends, as AWS IoT Core ends it.
func (s *session) denyPublish(packet *mqtt.Publish, refusal error) error {
	if s.version != mqtt.V5 || packet.QoS != 1 || s.ended.Load() != nil {
		return refusal
	}
	reason := reasonFor(imprint.CodeOf(refusal), mqtt.TypeDisconnect)
	if reason != mqtt.NotAuthorized && reason != mqtt.TopicNameInvalid {
		return refusal
	}
	s.peer.Rec.Fail("publish", refusal)
	s.acknowledge(packet.PacketID, reason)
	return nil
}

// route is what the last PUBLISH of a connection found, which mostly serves the
// next one too.
type route struct {
	topic   string
	version uint64
	subs    []*subscription
	valid   bool
}

// cachedRoute bounds how many subscriptions a publisher remembers: it keeps
// the sessions in memory, also those that have ended since.
const cachedRoute = 32

// lookup gives the subscriptions for a topic.
func (c *route) lookup(t *tree, topic string) []*subscription {
	if c.valid && c.topic == topic && c.version == t.version.Load() {
		return c.subs
	}
	found, version := t.match(topic, c.subs)
	// What the one before found and this one didn't is let go.
	clear(found[len(found):cap(found)])
	if len(found) > cachedRoute {
		*c = route{topic: topic}
		return found
	}
	*c = route{topic: topic, version: version, subs: found, valid: true}
	return found
}

// route hands a message to every live subscriber in the tenant that may receive
// it. From is the publishing session, nil for the service. Cache, when not nil,
// is what the publisher found last.
func (b *Broker) route(ctx context.Context, r *realm, from *session, topic string, packet *mqtt.Publish, cache *route) {
	if cache == nil {
		cache = &route{}
	}
	found := cache.lookup(&r.topics, topic)
	if len(found) == 0 {
		return
	}
	now := b.clock()
	message := forwarded(packet, topic, now)
	for _, sub := range found {
		if sub.noLocal && sub.session == from {
			continue
		}
		if !sub.session.mayReceive(ctx, r, topic, now) {
			continue
		}
		message.Retain = sub.retainAsPublished && packet.Retain
		sub.session.deliver(&message, min(packet.QoS, sub.qos))
	}
}

// mayReceive decides on iot:Receive. A refusal is silent, as on AWS IoT Core.
func (s *session) mayReceive(ctx context.Context, r *realm, topic string, now time.Time) bool {
	bound := s.current(ctx)
	if bound == nil {
		return false
	}
	request := policy.Request{
		Action: policy.Receive, ResourcePrefix: r.topicARN, ResourceName: topic,
		Vars: bound.vars, Now: now,
	}
	return bound.who.Policies.Decide(&request) == policy.Allowed
}

// The range of message expiry intervals (AWS IoT Core developer guide, "MQTT 5
// supported features"); others are moved into it.
const (
	minExpiry = 1
	maxExpiry = 604800
)

// forwarded is the message as subscribers get it: without what concerns the
// publisher's connection alone (alias, DUP), and the time when it expires.
func forwarded(packet *mqtt.Publish, topic string, now time.Time) outgoing {
	out := outgoing{Publish: *packet}
	out.Dup = false
	if len(out.Topic) == 0 {
		out.Topic = []byte(topic) // it came as an alias
	}
	p := &out.Properties
	p.TopicAlias = 0
	p.Present &^= 1 << mqtt.PropTopicAlias
	if !p.Has(mqtt.PropMessageExpiry) {
		return out
	}
	p.MessageExpiry = min(max(p.MessageExpiry, minExpiry), maxExpiry)
	out.expires = now.Add(time.Duration(p.MessageExpiry) * time.Second)
	return out
}

// refreshExpiry sets the time that a message has left; false when none.
func refreshExpiry(packet *mqtt.Publish, until, now time.Time) bool {
	left := until.Sub(now)
	if left <= 0 {
		return false
	}
	packet.Properties.MessageExpiry = max(1, uint32(left/time.Second))
	return true
}

// PublishEvent hands a message of the service to a tenant's subscribers with
// QoS 1, where they subscribed with it.
func (b *Broker) PublishEvent(event imprint.Event) {
	b.mu.RLock()
	r := b.realms[event.Tenant]
	b.mu.RUnlock()
	if r == nil {
		return // nobody of the tenant has ever connected
	}
	packet := mqtt.Publish{QoS: 1, Topic: []byte(event.Topic), Payload: event.Payload}
	b.route(context.Background(), r, nil, event.Topic, &packet, nil)
}

// will is a message that is due when the connection ends without a DISCONNECT.
type will struct {
	topic  string
	packet mqtt.Publish
}

func newWill(w *mqtt.Will) *will {
	packet := mqtt.Publish{QoS: w.QoS, Topic: []byte(w.Topic), Payload: bytes.Clone(w.Payload), Properties: w.Properties}
	packet.Properties.WillDelay = 0
	packet.Properties.Present &^= 1 << mqtt.PropWillDelay
	packet.Properties.CorrelationData = bytes.Clone(w.Properties.CorrelationData)
	return &will{topic: w.Topic, packet: packet}
}

// clonePublish copies a message out of the buffer that it was read into, with
// one allocation for its bytes. Strings are no part of that buffer.
func clonePublish(p *mqtt.Publish) *mqtt.Publish {
	out := *p
	kept := make([]byte, 0, len(p.Topic)+len(p.Payload)+len(p.Properties.CorrelationData))
	keep := func(b []byte) []byte {
		from := len(kept)
		kept = append(kept, b...)
		return kept[from:len(kept):len(kept)]
	}
	out.Topic, out.Payload = keep(p.Topic), keep(p.Payload)
	if p.Properties.CorrelationData != nil {
		out.Properties.CorrelationData = keep(p.Properties.CorrelationData)
	}
	return &out
}

// publishWill publishes the will. It was authorized at CONNECT. The session
// ends with its connection, so a will delay ends with it too (MQTT 5 section
// 3.1.3.2.2).
func (s *session) publishWill() {
	w := s.will
	s.will = nil
	s.broker.route(context.Background(), s.realm, s, w.topic, &w.packet, nil)
}
