package broker

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/policy"
)

// handlePublish authorizes a PUBLISH, hands it to the subscribers, and then
// acknowledges it.
func (s *session) handlePublish(ctx context.Context, header mqtt.FixedHeader, body []byte) error {
	var packet mqtt.Publish
	err := packet.Decode(header, body, s.version)
	if err != nil {
		return err
	}
	s.broker.count.publishIn.Add(1)
	if packet.QoS > 1 {
		return end(imprint.CodeQoSNotSupported, "a PUBLISH has QoS %d", packet.QoS)
	}
	if len(packet.Payload) > s.broker.opts.MaxPayload {
		return end(imprint.CodePacketTooLarge, "a PUBLISH has a payload of %d bytes, at most %d are allowed", len(packet.Payload), s.broker.opts.MaxPayload)
	}
	topic, err := s.resolveTopic(&packet)
	if err != nil {
		return err
	}
	refusal := s.mayPublish(ctx, topic, &packet)
	if refusal != nil {
		return s.denyPublish(&packet, refusal)
	}
	packet.Topic = []byte(topic)
	s.broker.route(ctx, s.realm, s, topic, &packet, &s.route)
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
	alias := int(packet.Properties.TopicAlias)
	if !packet.Properties.Has(mqtt.PropTopicAlias) {
		return s.intern(packet.Topic), nil
	}
	if alias == 0 || alias > len(s.aliases) {
		return "", &mqtt.Error{Code: mqtt.TopicAliasInvalid, Rule: "MQTT-3.3.2-9", Msg: "the topic alias is 0 or over the server's maximum"}
	}
	if len(packet.Topic) > 0 {
		s.aliases[alias-1] = string(packet.Topic)
	}
	topic := s.aliases[alias-1]
	if topic == "" {
		return "", end(imprint.CodeProtocolViolation, "topic alias %d was never set [MQTT-3.3.2-8]", alias)
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

// mayPublish decides on a publish: topic, retain, policy.
func (s *session) mayPublish(ctx context.Context, topic string, packet *mqtt.Publish) *imprint.Error {
	err := s.checkTopic(topic)
	if err != nil {
		return err.(*imprint.Error)
	}
	bound := s.current(ctx)
	if bound == nil {
		return imprint.Errorf(imprint.CodeOf(s.over()), "the connection is over")
	}
	request := policy.Request{
		Action: policy.Publish, ResourcePrefix: s.realm.topicARN, ResourceName: topic,
		Vars: bound.vars, Now: s.broker.clock(),
	}
	if bound.who.Policies.Decide(&request) != policy.Allowed {
		s.broker.count.publishDenied.Add(1)
		return denied(imprint.CodePublishDenied, bound.who.Policies.Explain(&request))
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
func (s *session) denyPublish(packet *mqtt.Publish, refusal *imprint.Error) error {
	reason := mqtt.ReasonCode(imprint.Describe(refusal.Code).Reason)
	if s.version == mqtt.V5 && packet.QoS == 1 && (reason == mqtt.NotAuthorized || reason == mqtt.TopicNameInvalid) {
		s.peer.Rec.Fail("publish", refusal)
		s.acknowledge(packet.PacketID, reason)
		return nil
	}
	return &endError{code: refusal.Code, err: refusal}
}

// route hands a message to every live subscriber in the tenant that may receive
// it. From is the publishing session, nil for the service. Cache, when not nil,
// is what the publisher found last.
func (b *Broker) route(ctx context.Context, r *realm, from *session, topic string, packet *mqtt.Publish, cache *route) {
	var found []*subscription
	if cache != nil && cache.valid && cache.topic == topic && cache.version == r.topics.version.Load() {
		found = cache.subs
	} else {
		var version uint64
		if cache == nil {
			found, version = r.topics.match(topic, nil)
		} else {
			found, version = r.topics.match(topic, cache.subs)
			*cache = route{topic: topic, version: version, subs: found, valid: true}
		}
	}
	if len(found) == 0 {
		return
	}
	now := b.clock()
	outgoing, expires := forwarded(packet, now)
	for _, sub := range found {
		if sub.noLocal && sub.session == from {
			continue
		}
		if !sub.session.mayReceive(ctx, r, topic, now) {
			continue
		}
		outgoing.Retain = sub.retainAsPublished && packet.Retain
		sub.session.deliver(&outgoing, min(packet.QoS, sub.qos), expires)
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

// forwarded is the message as subscribers get it: without what concerns the
// publisher's connection alone (alias, DUP), and the time when it expires.
func forwarded(packet *mqtt.Publish, now time.Time) (mqtt.Publish, time.Time) {
	out := *packet
	out.Dup = false
	out.Properties.TopicAlias = 0
	out.Properties.Present &^= 1 << mqtt.PropTopicAlias
	if !out.Properties.Has(mqtt.PropMessageExpiry) {
		return out, time.Time{}
	}
	return out, now.Add(time.Duration(out.Properties.MessageExpiry) * time.Second)
}

// refreshExpiry sets the time that a message has left; false when none.
func refreshExpiry(packet *mqtt.Publish, until, now time.Time) bool {
	left := until.Sub(now)
	if left <= 0 {
		return false
	}
	packet.Properties.MessageExpiry = uint32(left / time.Second)
	return true
}

// PublishEvent hands a message of the service to a tenant's subscribers with
// QoS 1, where they subscribed with it.
func (b *Broker) PublishEvent(event imprint.Event) {
	r := b.realm(event.Tenant)
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

// clonePublish copies a message out of the buffer that it was read into.
func clonePublish(p *mqtt.Publish) mqtt.Publish {
	out := *p
	out.Topic = bytes.Clone(p.Topic)
	out.Payload = bytes.Clone(p.Payload)
	out.Properties.CorrelationData = bytes.Clone(p.Properties.CorrelationData)
	out.Properties.User = slices.Clone(p.Properties.User)
	return out
}

// publishWill publishes the will. It was authorized at CONNECT. The session
// ends with its connection, so a will delay ends with it too (MQTT 5 section
// 3.1.3.2.2).
func (s *session) publishWill() {
	w := s.will
	s.will = nil
	s.broker.route(context.Background(), s.realm, s, w.topic, &w.packet, nil)
}
