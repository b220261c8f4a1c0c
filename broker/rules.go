package broker

import (
	"context"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// ingestPrefix begins the topics of Basic Ingest: a message goes to the rule that
// is named behind it, and to no subscriber (AWS IoT Core developer guide,
// "Reducing messaging costs with Basic Ingest").
const ingestPrefix = "$aws/rules/"

// maxIngestPrefix is the longest beginning of a Basic Ingest topic: the longest
// name of a rule has 128 characters.
const maxIngestPrefix = len(ingestPrefix) + 128 + 1

// isIngest says whether a topic is one of Basic Ingest: a rule is named.
func isIngest(topic string) bool {
	rule, ok := strings.CutPrefix(topic, ingestPrefix)
	return ok && rule != "" && rule[0] != '/'
}

// counted is the part of a topic that the limits of topics are for: what is
// before the third slash of a Basic Ingest topic doesn't count.
func counted(topic string) string {
	if !isIngest(topic) {
		return topic
	}
	_, rest, _ := strings.Cut(topic[len(ingestPrefix):], "/")
	return rest
}

// offer takes a client's message to the tenant's topic rules. A QoS 1 message
// waits for room there; one of QoS 0 is dropped, which the rules count.
func (c *connection) offer(ctx context.Context, topic string, packet *mqtt.Publish) error {
	rules := c.realm.rules
	if rules == nil || rules.Idle() {
		return nil
	}
	message := imprint.RuleMessage{
		Topic: topic, Payload: packet.Payload, QoS: byte(packet.QoS), Properties: ruleProperties(&packet.Properties),
		ClientID: c.clientID, Principal: c.principal, SourceIP: c.address(), MQTT: true, Again: packet.QoS > 0,
	}
	err := rules.Offer(ctx, &message)
	if packet.QoS == 0 {
		return nil
	}
	if imprint.CodeOf(err) == imprint.CodeRulesBusy {
		c.payOwed()
		message.Wait, message.Again = true, false
		err = rules.Offer(ctx, &message)
	}
	return err
}

// ingested ends a Basic Ingest message: no subscriber gets it.
func (c *connection) ingested(topic string, packet *mqtt.Publish, bound *binding) {
	p := c.publishing
	p.route = route{topic: topic}
	if bound.policies.Timeless() {
		p.route.publisher = bound
	}
	if packet.QoS == 1 {
		c.acknowledge(packet.PacketID, mqtt.Success, nil)
	}
}

func (b *Broker) rulesOf(t imprint.Tenant) imprint.TenantRules {
	if b.opts.Rules == nil {
		return nil
	}
	return b.opts.Rules.Tenant(t)
}

// offerEvent takes a message of the service to the tenant's rules, if they have room
// for it now. Done, which may be nil, hears of them once, unless there is an error.
func offerEvent(ctx context.Context, rules imprint.TenantRules, event imprint.Event, done func(error)) error {
	if rules == nil || rules.Idle() {
		if done != nil {
			done(nil)
		}
		return nil
	}
	return rules.Offer(ctx, &imprint.RuleMessage{
		Topic: event.Topic, Payload: event.Payload, AttemptID: event.AttemptID, QoS: 1, Done: done,
	})
}

// Republish implements imprint.Republisher.
func (b *Broker) Republish(ctx context.Context, t imprint.Tenant, m imprint.RuleMessage) error {
	return b.Publish(ctx, Message{
		Tenant: t, Topic: m.Topic, Payload: m.Payload, QoS: mqtt.QoS(m.QoS), Properties: mqttProperties(&m.Properties), depth: m.Depth,
	})
}

func ruleProperties(p *mqtt.Properties) imprint.RuleMessageProperties {
	if p.Empty() {
		return imprint.RuleMessageProperties{}
	}
	out := imprint.RuleMessageProperties{
		HasFormat: p.Has(mqtt.PropPayloadFormat), UTF8: p.PayloadFormat == 1, ContentType: p.ContentType, ResponseTopic: p.ResponseTopic,
		Correlation: p.CorrelationData, HasExpiry: p.Has(mqtt.PropMessageExpiry), Expiry: p.MessageExpiry,
	}
	for _, u := range p.User {
		out.User = append(out.User, imprint.RuleField{Key: u.Key, Value: u.Value})
	}
	return out
}

func mqttProperties(p *imprint.RuleMessageProperties) mqtt.Properties {
	var out mqtt.Properties
	if p.HasFormat {
		out.Mark(mqtt.PropPayloadFormat)
		if p.UTF8 {
			out.PayloadFormat = 1
		}
	}
	if p.ContentType != "" {
		out.ContentType = p.ContentType
		out.Mark(mqtt.PropContentType)
	}
	if p.ResponseTopic != "" {
		out.ResponseTopic = p.ResponseTopic
		out.Mark(mqtt.PropResponseTopic)
	}
	if len(p.Correlation) > 0 {
		out.CorrelationData = p.Correlation
		out.Mark(mqtt.PropCorrelationData)
	}
	if p.HasExpiry {
		out.MessageExpiry = p.Expiry
		out.Mark(mqtt.PropMessageExpiry)
	}
	for _, u := range p.User {
		out.User = append(out.User, mqtt.UserProperty{Key: u.Key, Value: u.Value})
	}
	return out
}
