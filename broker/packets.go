package broker

import (
	"context"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/policy"
)

// run handles packets until the connection ends; the error says why.
func (r *reader) run(ctx context.Context) error {
	s := r.session
	limit := s.broker.opts.maxPacket()
	// AWS IoT Core drops a client after one and a half times the keep-alive.
	idle := s.keepAlive + s.keepAlive/2
	for {
		header, body, err := r.next(limit, idle)
		if err != nil {
			return err
		}
		// What a session that was taken over, or whose certificate is no good
		// any more, still had under way isn't heard.
		if s.ended.Load() != nil {
			return s.over()
		}
		err = s.handle(ctx, header, body)
		if err != nil {
			return err
		}
	}
}

// handle does what one packet asks for. An error ends the connection.
func (s *session) handle(ctx context.Context, header mqtt.FixedHeader, body []byte) error {
	switch header.Type {
	case mqtt.TypePublish:
		return s.handlePublish(ctx, header, body)
	case mqtt.TypePuback:
		var ack mqtt.Ack
		err := ack.Decode(header, body, s.version)
		if err != nil {
			return err
		}
		s.acknowledged(ack.PacketID)
		return nil
	case mqtt.TypeSubscribe:
		return s.handleSubscribe(ctx, header, body)
	case mqtt.TypeUnsubscribe:
		return s.handleUnsubscribe(header, body)
	case mqtt.TypePingreq:
		err := (&mqtt.Pingreq{}).Decode(header, body, s.version)
		if err != nil {
			return err
		}
		s.append(func(dst []byte) []byte { return (&mqtt.Pingresp{}).Append(dst, s.version) })
		return nil
	case mqtt.TypeDisconnect:
		return s.handleDisconnect(header, body)
	case mqtt.TypeConnect:
		return end(imprint.CodeProtocolViolation, "a second CONNECT packet came [MQTT-3.1.0-2]")
	case mqtt.TypePubrec, mqtt.TypePubrel, mqtt.TypePubcomp:
		return end(imprint.CodeQoSNotSupported, "%s belongs to QoS 2", header.Type)
	default:
		return end(imprint.CodeProtocolViolation, "a client may not send %s", header.Type)
	}
}

// handleDisconnect ends the connection as the client asks. Only a normal
// disconnection takes the will back [MQTT-3.1.2-10].
func (s *session) handleDisconnect(header mqtt.FixedHeader, body []byte) error {
	var packet mqtt.Disconnect
	err := packet.Decode(header, body, s.version)
	if err != nil {
		return err
	}
	if packet.Properties.SessionExpiry > 0 && !s.expiring {
		return end(imprint.CodeProtocolViolation, "DISCONNECT sets a session expiry interval and CONNECT set none (MQTT 5 section 3.14.2.2.2)")
	}
	if packet.Reason == mqtt.Success {
		s.will = nil
		return end(imprint.CodeClientDisconnect, "the client disconnected")
	}
	return end(imprint.CodeClientDisconnect, "the client disconnected with reason %s", packet.Reason)
}

// The service's own topics may be longer and deeper than those of clients, as
// they hold client ids; they are bounded all the same, because each level of a
// filter costs memory.
const (
	maxReservedBytes   = 512
	maxReservedSlashes = 24
)

// topicLimits gives the most bytes and slashes of a topic name or filter.
func (s *session) topicLimits(topic string) (size, slashes int) {
	opts := &s.broker.opts
	if strings.HasPrefix(topic, "$aws/") {
		return max(opts.MaxTopicBytes, maxReservedBytes), max(opts.MaxTopicSlashes, maxReservedSlashes)
	}
	return opts.MaxTopicBytes, opts.MaxTopicSlashes
}

// checkTopic applies AWS IoT Core's limits on topic names.
func (s *session) checkTopic(topic string) error {
	size, slashes := s.topicLimits(topic)
	switch {
	case len(topic) > size:
		return imprint.Errorf(imprint.CodeTopicInvalid, "the topic name is %d bytes long, at most %d are allowed", len(topic), size)
	case !mqtt.ValidTopicName(topic):
		return imprint.Errorf(imprint.CodeTopicInvalid, "topic name %q is not valid", topic)
	case strings.Count(topic, "/") > slashes:
		return imprint.Errorf(imprint.CodeTopicInvalid, "topic name %q has more than %d slashes", topic, slashes)
	}
	return nil
}

// handleSubscribe grants or denies each filter of a SUBSCRIBE.
func (s *session) handleSubscribe(ctx context.Context, header mqtt.FixedHeader, body []byte) error {
	var packet mqtt.Subscribe
	err := packet.Decode(header, body, s.version)
	if err != nil {
		return err
	}
	if len(packet.Properties.SubscriptionIDs) > 0 {
		return end(imprint.CodeProtocolViolation, "a SUBSCRIBE has a Subscription Identifier, which CONNACK said isn't available").
			telling(mqtt.SubscriptionIdentifiersNotSupported)
	}
	if len(packet.Filters) > s.broker.opts.MaxFiltersPerSubscribe {
		return end(imprint.CodeQuotaExceeded, "a SUBSCRIBE has %d filters, at most %d are allowed", len(packet.Filters), s.broker.opts.MaxFiltersPerSubscribe)
	}
	bound := s.current(ctx)
	if bound == nil {
		return s.over()
	}
	suback := mqtt.Suback{PacketID: packet.PacketID}
	var granted []string
	for _, f := range packet.Filters {
		reason, err := s.subscribe(bound, f)
		if err != nil {
			return err
		}
		if reason < mqtt.UnspecifiedError {
			granted = append(granted, f.Filter)
		}
		suback.Codes = append(suback.Codes, reason)
	}
	s.append(func(dst []byte) []byte { return suback.Append(dst, s.version) })
	if len(granted) > 0 {
		s.announceSubscriptions("subscribed", granted)
	}
	return nil
}

// subscribe decides on one filter and puts it into force. The error ends the
// connection; a refusal that doesn't is a reason code.
func (s *session) subscribe(bound *binding, f mqtt.Subscription) (mqtt.ReasonCode, error) {
	if f.QoS > 1 {
		return 0, end(imprint.CodeQoSNotSupported, "a SUBSCRIBE asks for QoS %d on %q", f.QoS, f.Filter)
	}
	err := s.checkFilter(f.Filter)
	if err != nil {
		return s.denySubscribe("mqtt.subscribe", err)
	}
	request := policy.Request{
		Action: policy.Subscribe, ResourcePrefix: s.realm.filterARN, ResourceName: f.Filter,
		Vars: bound.vars, Now: s.broker.clock(),
	}
	if bound.who.Policies.Decide(&request) != policy.Allowed {
		s.broker.count.subscribeDenied.Add(1)
		return s.denySubscribe("policy.subscribe", s.explain(imprint.CodeSubscribeDenied, bound, &request))
	}
	replaced := s.subscriptions[f.Filter]
	if replaced == nil && len(s.subscriptions) >= s.broker.opts.MaxSubscriptions {
		return s.denySubscribe("mqtt.subscribe", imprint.Errorf(imprint.CodeQuotaExceeded, "the connection has %d subscriptions, as many as allowed", len(s.subscriptions)))
	}
	if s.subscriptions == nil {
		s.subscriptions = make(map[string]*subscription, 1)
	}
	sub := &subscription{session: s, filter: f.Filter, qos: f.QoS, noLocal: f.NoLocal, retainAsPublished: f.RetainAsPublished}
	s.subscriptions[f.Filter] = sub
	s.realm.topics.add(sub, replaced)
	return mqtt.ReasonCode(f.QoS), nil
}

// denySubscribe answers a refused filter: a reason code for MQTT 5; for 3.1.1
// the connection ends, as AWS IoT Core ends it, unless the server is set to
// answer 0x80.
func (s *session) denySubscribe(step string, err error) (mqtt.ReasonCode, error) {
	if s.version != mqtt.V5 && !s.broker.opts.DeniedSubscribeGetsReason {
		return 0, err
	}
	s.peer.Rec.Fail(step, err)
	return reasonFor(imprint.CodeOf(err), mqtt.TypeSuback), nil
}

// serviceFilters are the trees of reserved topics that clients may subscribe to
// (AWS IoT Core developer guide, "Reserved topics"). The policy decides too.
var serviceFilters = []string{"$aws/events/"}

// checkFilter applies AWS IoT Core's limits on topic filters.
func (s *session) checkFilter(filter string) error {
	size, slashes := s.topicLimits(filter)
	switch {
	case len(filter) > size:
		return imprint.Errorf(imprint.CodeFilterInvalid, "the topic filter is %d bytes long, at most %d are allowed", len(filter), size)
	case !mqtt.ValidTopicFilter(filter):
		return imprint.Errorf(imprint.CodeFilterInvalid, "topic filter %q is not valid", filter)
	case strings.HasPrefix(filter, "$share/"):
		return imprint.Errorf(imprint.CodeSharedNotOffered, "%q is a shared subscription", filter)
	case strings.Count(filter, "/") > slashes:
		return imprint.Errorf(imprint.CodeFilterInvalid, "topic filter %q has more than %d slashes", filter, slashes)
	case !strings.HasPrefix(filter, "$"):
		return nil
	}
	for _, prefix := range serviceFilters {
		if strings.HasPrefix(filter, prefix) {
			return nil
		}
	}
	return imprint.Errorf(imprint.CodeReservedTopic, "topic filter %q begins with $ and is none of the service's", filter)
}

func (s *session) handleUnsubscribe(header mqtt.FixedHeader, body []byte) error {
	var packet mqtt.Unsubscribe
	err := packet.Decode(header, body, s.version)
	if err != nil {
		return err
	}
	if len(packet.Filters) > s.broker.opts.MaxFiltersPerSubscribe {
		return end(imprint.CodeQuotaExceeded, "an UNSUBSCRIBE has %d filters, at most %d are allowed", len(packet.Filters), s.broker.opts.MaxFiltersPerSubscribe)
	}
	unsuback := mqtt.Unsuback{PacketID: packet.PacketID}
	var removed []string
	for _, filter := range packet.Filters {
		reason := mqtt.NoSubscriptionExisted
		if sub := s.subscriptions[filter]; sub != nil {
			delete(s.subscriptions, filter)
			s.realm.topics.remove(sub)
			removed = append(removed, filter)
			reason = mqtt.Success
		}
		unsuback.Codes = append(unsuback.Codes, reason)
	}
	s.append(func(dst []byte) []byte { return unsuback.Append(dst, s.version) })
	if len(removed) > 0 {
		s.announceSubscriptions("unsubscribed", removed)
	}
	return nil
}
