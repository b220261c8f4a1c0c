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
			return s.protocolError(err)
		}
		err = s.handle(ctx, header, body)
		if err != nil {
			return s.protocolError(err)
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

// handleDisconnect ends the connection as the client asks.
func (s *session) handleDisconnect(header mqtt.FixedHeader, body []byte) error {
	var packet mqtt.Disconnect
	err := packet.Decode(header, body, s.version)
	if err != nil {
		return err
	}
	if packet.Reason == mqtt.DisconnectWithWill && s.will != nil {
		s.publishWill()
	}
	s.will = nil
	return end(imprint.CodeClientDisconnect, "the client disconnected with reason %s", packet.Reason)
}

// checkTopic applies AWS IoT Core's limits on topic names.
func (s *session) checkTopic(topic string) error {
	opts := &s.broker.opts
	switch {
	case !mqtt.ValidTopicName(topic):
		return imprint.Errorf(imprint.CodeTopicInvalid, "topic name %q is not valid", topic)
	case strings.HasPrefix(topic, "$aws/"):
		return nil // the service's own topics may be longer
	case len(topic) > opts.MaxTopicBytes:
		return imprint.Errorf(imprint.CodeTopicInvalid, "the topic name is %d bytes long, at most %d are allowed", len(topic), opts.MaxTopicBytes)
	case strings.Count(topic, "/") > opts.MaxTopicSlashes:
		return imprint.Errorf(imprint.CodeTopicInvalid, "topic name %q has more than %d slashes", topic, opts.MaxTopicSlashes)
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

// over is the error of a session that was kicked.
func (s *session) over() error {
	code := imprint.CodeConnectionLost
	if reason := s.reason.Load(); reason != nil {
		code = *reason
	}
	return end(code, "%s", imprint.Describe(code).Meaning)
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
		return s.denySubscribe("policy.subscribe", denied(imprint.CodeSubscribeDenied, bound.who.Policies.Explain(&request)))
	}
	_, replace := s.subscriptions[f.Filter]
	if !replace && len(s.subscriptions) >= s.broker.opts.MaxSubscriptions {
		return s.denySubscribe("mqtt.subscribe", imprint.Errorf(imprint.CodeQuotaExceeded, "the connection has %d subscriptions, as many as allowed", len(s.subscriptions)))
	}
	if s.subscriptions == nil {
		s.subscriptions = make(map[string]*subscription, 1)
	}
	sub := &subscription{session: s, filter: f.Filter, qos: f.QoS, noLocal: f.NoLocal, retainAsPublished: f.RetainAsPublished}
	s.subscriptions[f.Filter] = sub
	s.realm.topics.add(sub, replace)
	return mqtt.ReasonCode(f.QoS), nil
}

// denySubscribe answers a refused filter: a reason code for MQTT 5; for 3.1.1
// the connection ends, as AWS IoT Core ends it, unless the server is set to
// answer 0x80.
func (s *session) denySubscribe(step string, err error) (mqtt.ReasonCode, error) {
	code := imprint.CodeOf(err)
	if s.version == mqtt.V5 {
		s.peer.Rec.Fail(step, err)
		return mqtt.ReasonCode(imprint.Describe(code).Reason), nil
	}
	if s.broker.opts.DeniedSubscribeGetsReason {
		s.peer.Rec.Fail(step, err)
		return mqtt.UnspecifiedError, nil
	}
	return 0, &endError{code: code, err: err}
}

// serviceFilters are the trees of reserved topics that clients may subscribe to
// (AWS IoT Core developer guide, "Reserved topics"). The policy decides too.
var serviceFilters = []string{"$aws/events/"}

// checkFilter applies AWS IoT Core's limits on topic filters.
func (s *session) checkFilter(filter string) error {
	opts := &s.broker.opts
	switch {
	case !mqtt.ValidTopicFilter(filter):
		return imprint.Errorf(imprint.CodeFilterInvalid, "topic filter %q is not valid", filter)
	case strings.HasPrefix(filter, "$share/"):
		return imprint.Errorf(imprint.CodeSharedNotOffered, "%q is a shared subscription", filter)
	case strings.HasPrefix(filter, "$"):
		for _, prefix := range serviceFilters {
			if strings.HasPrefix(filter, prefix) {
				return nil
			}
		}
		return imprint.Errorf(imprint.CodeReservedTopic, "topic filter %q begins with $ and is none of the service's", filter)
	case len(filter) > opts.MaxTopicBytes:
		return imprint.Errorf(imprint.CodeFilterInvalid, "the topic filter is %d bytes long, at most %d are allowed", len(filter), opts.MaxTopicBytes)
	case strings.Count(filter, "/") > opts.MaxTopicSlashes:
		return imprint.Errorf(imprint.CodeFilterInvalid, "topic filter %q has more than %d slashes", filter, opts.MaxTopicSlashes)
	}
	return nil
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
	for _, filter := range packet.Filters {
		reason := mqtt.NoSubscriptionExisted
		if _, known := s.subscriptions[filter]; known {
			delete(s.subscriptions, filter)
			s.realm.topics.remove(s, filter)
			reason = mqtt.Success
		}
		unsuback.Codes = append(unsuback.Codes, reason)
	}
	s.append(func(dst []byte) []byte { return unsuback.Append(dst, s.version) })
	s.announceSubscriptions("unsubscribed", packet.Filters)
	return nil
}
