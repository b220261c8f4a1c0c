package broker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/policy"
)

// run handles packets until the connection ends; the error says why.
func (r *reader) run(ctx context.Context) error {
	c := r.connection
	limit := c.broker.opts.maxPacket()
	// AWS IoT Core drops a client after one and a half times the keep-alive.
	keepAlive := c.keepAlive + c.keepAlive/2
	for {
		idle, err := c.lifetime(keepAlive)
		if err != nil {
			return err
		}
		header, body, err := r.next(ctx, limit, idle)
		if err != nil && isTimeout(err) && idle < keepAlive && c.ended.Load() == nil {
			return c.expired()
		}
		if err != nil {
			return err
		}
		// What a session that was taken over, or whose certificate is no good
		// any more, still had under way isn't heard.
		if c.ended.Load() != nil {
			return c.over()
		}
		err = c.handle(ctx, header, body)
		if err != nil {
			return err
		}
	}
}

// lifetime bounds a wait by the end of the connection's credentials.
func (c *connection) lifetime(idle time.Duration) (time.Duration, error) {
	if c.peer.Until.IsZero() {
		return idle, nil
	}
	left := c.peer.Until.Sub(c.broker.clock())
	if left <= 0 {
		return 0, c.expired()
	}
	return min(idle, left), nil
}

func (c *connection) expired() error {
	return end(imprint.CodeConnectionExpired, "the connection may live until %s", c.peer.Until.UTC().Format(time.RFC3339))
}

// handle does what one packet asks for. An error ends the connection.
func (c *connection) handle(ctx context.Context, header mqtt.FixedHeader, body []byte) error {
	switch header.Type {
	case mqtt.TypePublish:
		return c.handlePublish(ctx, header, body)
	case mqtt.TypePuback:
		if id, plain := mqtt.PlainPuback(header, body); plain {
			c.session.acknowledged(c, id)
			return nil
		}
		var ack mqtt.Ack
		err := ack.Decode(header, body, c.version)
		if err != nil {
			return err
		}
		c.session.acknowledged(c, ack.PacketID)
		return nil
	case mqtt.TypeSubscribe:
		return c.handleSubscribe(ctx, header, body)
	case mqtt.TypeUnsubscribe:
		return c.handleUnsubscribe(ctx, header, body)
	case mqtt.TypePingreq:
		err := (&mqtt.Pingreq{}).Decode(header, body, c.version)
		if err != nil {
			return err
		}
		c.append(func(dst []byte) []byte { return (&mqtt.Pingresp{}).Append(dst, c.version) })
		return nil
	case mqtt.TypeDisconnect:
		return c.handleDisconnect(header, body)
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
func (c *connection) handleDisconnect(header mqtt.FixedHeader, body []byte) error {
	var packet mqtt.Disconnect
	err := packet.Decode(header, body, c.version)
	if err != nil {
		return err
	}
	switch {
	case packet.Reason.FromServerOnly():
		return end(imprint.CodeProtocolViolation, "a client's DISCONNECT has the reason %s, which only a server may give (MQTT 5 section 3.14.2.1)", packet.Reason)
	case packet.Properties.Has(mqtt.PropServerReference):
		return end(imprint.CodeProtocolViolation, "a client's DISCONNECT has a Server Reference (MQTT 5 section 3.14.2.2.5)")
	}
	if packet.Properties.Has(mqtt.PropSessionExpiry) {
		err = c.session.setExpiry(c, min(time.Duration(packet.Properties.SessionExpiry)*time.Second, c.broker.opts.MaxSessionExpiry))
		if err != nil {
			return err
		}
	}
	if packet.Reason == mqtt.Success {
		c.will = nil
		return end(imprint.CodeClientDisconnect, "the client disconnected")
	}
	why := end(imprint.CodeClientDisconnect, "the client disconnected with reason %s", packet.Reason)
	why.heard = packet.Reason
	return why
}

// topicLimits gives the most bytes and slashes of a topic name or filter. The
// service's own topics may be longer and deeper than those of clients, as they hold
// client ids; they are bounded all the same, because each level of a filter costs
// memory.
func (b *Broker) topicLimits(topic string) (size, slashes int) {
	opts := &b.opts
	if strings.HasPrefix(topic, "$aws/") {
		return max(opts.MaxTopicBytes, opts.MaxServiceTopicBytes), max(opts.MaxTopicSlashes, opts.MaxServiceTopicSlashes)
	}
	return opts.MaxTopicBytes, opts.MaxTopicSlashes
}

// tooLong tells that a topic name has more bytes than any may have.
func (b *Broker) tooLong(topic string) bool {
	part := counted(topic)
	size, _ := b.topicLimits(part)
	return len(part) > size || len(topic)-len(part) > maxIngestPrefix
}

// checkTopic applies AWS IoT Core's limits on topic names.
func (b *Broker) checkTopic(topic string) error {
	part := counted(topic)
	size, slashes := b.topicLimits(part)
	switch {
	case b.tooLong(topic):
		return imprint.Errorf(imprint.CodeTopicInvalid, "the topic name is %d bytes long, at most %d are allowed", len(topic), size)
	case !mqtt.ValidTopicName(topic):
		return imprint.Errorf(imprint.CodeTopicInvalid, "topic name %q is not valid", topic)
	case strings.Count(part, "/") > slashes:
		return imprint.Errorf(imprint.CodeTopicInvalid, "topic name %q has more than %d slashes", topic, slashes)
	}
	return nil
}

// handleSubscribe grants or denies each filter of a SUBSCRIBE.
func (c *connection) handleSubscribe(ctx context.Context, header mqtt.FixedHeader, body []byte) error {
	var packet mqtt.Subscribe
	err := packet.Decode(header, body, c.version)
	if err != nil {
		return err
	}
	if len(packet.Properties.SubscriptionIDs) > 0 {
		return end(imprint.CodeProtocolViolation, "a SUBSCRIBE has a Subscription Identifier, which CONNACK said isn't available").
			telling(mqtt.SubscriptionIdentifiersNotSupported)
	}
	if len(packet.Filters) > c.broker.opts.MaxFiltersPerSubscribe {
		return end(imprint.CodeQuotaExceeded, "a SUBSCRIBE has %d filters, at most %d are allowed", len(packet.Filters), c.broker.opts.MaxFiltersPerSubscribe)
	}
	bound := c.current(ctx)
	if bound == nil {
		return c.over()
	}
	var fresh []*subscription
	suback := mqtt.Suback{PacketID: packet.PacketID}
	for _, f := range packet.Filters {
		sub, reason, err := c.subscribe(bound, f, fresh)
		var refused *refusedFilter
		switch {
		case errors.As(err, &refused):
			c.tell(&suback.Properties, refused.why)
			reason = refused.reason
		case err != nil:
			return err
		}
		if sub != nil {
			fresh = append(fresh, sub)
		}
		suback.Codes = append(suback.Codes, reason)
	}
	c.payOwed()
	retained, err := c.session.adopt(ctx, c, fresh, packet.Filters)
	if err != nil {
		return err
	}
	c.append(func(dst []byte) []byte { return suback.Append(dst, c.version) })
	if len(fresh) == 0 {
		return nil
	}
	for _, sub := range retained {
		err = c.sendRetained(ctx, sub)
		if err != nil {
			return err
		}
	}
	granted := make([]string, len(fresh))
	for n, sub := range fresh {
		granted[n] = sub.filter
	}
	c.announceSubscriptions("subscribed", granted)
	return nil
}

// refusedFilter is a refusal that SUBACK tells; other errors of subscribe end the
// connection.
type refusedFilter struct {
	reason mqtt.ReasonCode
	why    error
}

func (e *refusedFilter) Error() string { return e.why.Error() }

// subscribe decides on one filter.
func (c *connection) subscribe(bound *binding, f mqtt.Subscription, fresh []*subscription) (*subscription, mqtt.ReasonCode, error) {
	if f.QoS > 1 {
		return nil, 0, end(imprint.CodeQoSNotSupported, "a SUBSCRIBE asks for QoS %d on %q", f.QoS, f.Filter)
	}
	share, inner, err := c.broker.checkFilter(f.Filter)
	if err != nil {
		return c.denySubscribe("mqtt.subscribe", err)
	}
	if share != "" && f.NoLocal {
		return nil, 0, end(imprint.CodeProtocolViolation, "a shared subscription has No Local set [MQTT-3.8.3-4]")
	}
	request := policy.Request{
		Action: policy.Subscribe, ResourcePrefix: c.realm.filterARN, ResourceName: f.Filter,
		Vars: bound.vars, Now: c.broker.clock(),
	}
	if bound.policies.Decide(&request) != policy.Allowed {
		c.broker.count.subscribeDenied.Add(1)
		return c.denySubscribe("policy.subscribe", c.explain(imprint.CodeSubscribeDenied, bound, &request))
	}
	c.uses.note(useSubscribe, f.Filter)
	err = c.session.roomFor(f.Filter, fresh)
	if err != nil {
		return c.denySubscribe("mqtt.subscribe", err)
	}
	sub := &subscription{
		session: c.session, filter: f.Filter, qos: f.QoS, noLocal: f.NoLocal, retainAsPublished: f.RetainAsPublished, share: share, inner: inner,
	}
	return sub, mqtt.ReasonCode(f.QoS), nil
}

// denySubscribe answers a refused filter: a reason code for MQTT 5; for 3.1.1
// the connection ends, as AWS IoT Core ends it, unless the server is set to
// answer 0x80.
func (c *connection) denySubscribe(step string, err error) (*subscription, mqtt.ReasonCode, error) {
	if c.version != mqtt.V5 && !c.broker.opts.DeniedSubscribeGetsReason {
		c.unanswered = mqtt.TypeSuback
		return nil, 0, err
	}
	reason := reasonFor(imprint.CodeOf(err), mqtt.TypeSuback)
	c.refusedWith(step, err, sent(mqtt.TypeSuback, c.version, reason))
	return nil, 0, &refusedFilter{reason, err}
}

// serviceFilters are the trees of reserved topics that clients may subscribe to
// (AWS IoT Core developer guide, "Reserved topics"), and Imprint's own. The policy
// decides too.
var serviceFilters = []string{"$aws/events/", "$aws/certificates/", "$aws/provisioning-templates/", "$imprint/"}

// checkFilter applies AWS IoT Core's limits on topic filters, and gives a shared
// subscription's name and the filter that topics are matched with.
func (b *Broker) checkFilter(filter string) (share, inner string, err error) {
	share, inner, _, err = mqtt.ParseSharedFilter(filter)
	if err != nil {
		return "", "", imprint.Errorf(imprint.CodeFilterInvalid, "topic filter %q is not valid: %w", imprint.Excerpt(filter), err)
	}
	if len(share) > b.opts.MaxShareNameBytes {
		return "", "", imprint.Errorf(imprint.CodeFilterInvalid, "the share name is %d bytes long, at most %d are allowed", len(share), b.opts.MaxShareNameBytes)
	}
	size, slashes := b.topicLimits(inner)
	switch {
	case len(inner) > size:
		return "", "", imprint.Errorf(imprint.CodeFilterInvalid, "the topic filter is %d bytes long, at most %d are allowed", len(inner), size)
	case strings.Count(inner, "/") > slashes:
		return "", "", imprint.Errorf(imprint.CodeFilterInvalid, "topic filter %q has more than %d slashes", inner, slashes)
	case !strings.HasPrefix(inner, "$"):
		return share, inner, nil
	}
	for _, prefix := range serviceFilters {
		if strings.HasPrefix(inner, prefix) {
			return share, inner, nil
		}
	}
	return "", "", reserved(imprint.Errorf(imprint.CodeReservedTopic, "topic filter %q begins with $ and is none of the service's", inner), inner)
}

// reserved adds what to do about a reserved topic to a refusal, where that is more than to
// take another.
func reserved(refusal *imprint.Error, topic string) *imprint.Error {
	switch {
	case strings.HasPrefix(topic, "$aws/certificates/"), strings.HasPrefix(topic, "$aws/provisioning-templates/"):
		return refusal.WithHint("Correct the topic: requests of fleet provisioning go to $aws/certificates/create/json, $aws/certificates/create-from-csr/json and $aws/provisioning-templates/TEMPLATE/provision/json, or to /cbor in place of /json.")
	case strings.HasPrefix(topic, "$aws/things/"):
		return refusal.WithHint("This server has no device shadows and no jobs (docs/compatibility.md): let the firmware do without, or use a topic that doesn't begin with $.")
	}
	return refusal
}

func (c *connection) handleUnsubscribe(ctx context.Context, header mqtt.FixedHeader, body []byte) error {
	var packet mqtt.Unsubscribe
	err := packet.Decode(header, body, c.version)
	if err != nil {
		return err
	}
	if len(packet.Filters) > c.broker.opts.MaxFiltersPerSubscribe {
		return end(imprint.CodeQuotaExceeded, "an UNSUBSCRIBE has %d filters, at most %d are allowed", len(packet.Filters), c.broker.opts.MaxFiltersPerSubscribe)
	}
	c.payOwed()
	removed, err := c.session.drop(ctx, c, packet.Filters)
	if err != nil {
		return err
	}
	unsuback := mqtt.Unsuback{PacketID: packet.PacketID}
	for _, filter := range packet.Filters {
		reason := mqtt.NoSubscriptionExisted
		if slices.Contains(removed, filter) {
			reason = mqtt.Success
		}
		unsuback.Codes = append(unsuback.Codes, reason)
	}
	c.append(func(dst []byte) []byte { return unsuback.Append(dst, c.version) })
	if len(removed) > 0 {
		c.announceSubscriptions("unsubscribed", removed)
	}
	return nil
}
