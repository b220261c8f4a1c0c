package rules

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/imprint-iot/imprint"
)

// bootstrapServers is the property of a kafka action that names brokers.
const bootstrapServers = "bootstrap.servers"

// production is the request of a kafka delivery.
type production struct {
	Sink      string              `json:"sink"`
	Topic     string              `json:"topic"`
	Key       string              `json:"key,omitempty"`
	Partition *int32              `json:"partition,omitempty"`
	Headers   []imprint.RuleField `json:"headers,omitempty"`
	Data      []byte              `json:"data,omitempty"`
}

// producer is a sink that kafka actions can name: by its brokers.
type producer interface {
	Sink
	brokers() []string
	produce(ctx context.Context, id string, p production) error
}

// kafkaSink finds the sink that an action's brokers are of.
func (o Offered) kafkaSink(a *imprint.KafkaRuleAction) (string, error) {
	if len(o.Kafka) == 0 {
		return "", imprint.Errorf(imprint.CodeInvalidRequest, "this server has no kafka action").
			WithHint("It offers lambda, republish, http and firehose, which names a sink of the server; with a kafka sink (docs/rules.md, Sinks), kafka too.")
	}
	asked := strings.Split(a.Properties[bootstrapServers], ",")
	for n := range asked {
		asked[n] = strings.TrimSpace(asked[n])
	}
	for _, name := range o.Sinks {
		brokers := o.Kafka[name]
		other := func(server string) bool { return !slices.Contains(brokers, server) }
		if len(brokers) > 0 && !slices.ContainsFunc(asked, other) {
			return name, nil
		}
	}
	return "", imprint.Errorf(imprint.CodeInvalidRequest, "no kafka sink of this server has the brokers of %s", bootstrapServers).
		WithHint("They must be among those of one --rule-sink with a kafka URL, written as there.")
}

// kafkaProperties are the client properties that an action may have. All but
// bootstrap.servers are the sink's own here, and are taken as far as they ask for
// what it does or for less.
var kafkaProperties = []string{
	bootstrapServers, "acks", "security.protocol", "key.serializer", "value.serializer", "compression.type", "batch.size", "linger.ms",
	"max.request.size", "buffer.memory", "request.timeout.ms", "ssl.truststore", "ssl.truststore.password", "ssl.keystore", "ssl.keystore.password",
	"ssl.key.password", "sasl.mechanism", "sasl.plain.username", "sasl.plain.password", "sasl.scram.username", "sasl.scram.password",
	"sasl.kerberos.keytab", "sasl.kerberos.service.name", "sasl.kerberos.krb5.kdc", "sasl.kerberos.krb5.realm", "sasl.kerberos.principal",
}

// kafkaFields checks a kafka action.
func kafkaFields(a *imprint.KafkaRuleAction, offered Offered) ([]imprint.RuleField, error) {
	_, err := offered.kafkaSink(a)
	if err != nil {
		return nil, err
	}
	for property := range a.Properties {
		if !slices.Contains(kafkaProperties, property) {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "a kafka action has no client property %q", imprint.Excerpt(property))
		}
	}
	if a.Topic == "" {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "a kafka action has no topic")
	}
	if len(a.Headers) > 100 {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "a kafka action has %d headers, at most 100 are allowed", len(a.Headers))
	}
	fields := []imprint.RuleField{{Key: fieldTopic, Value: a.Topic}}
	for _, field := range []imprint.RuleField{{Key: fieldKey, Value: a.Key}, {Key: fieldPartition, Value: a.Partition}} {
		if field.Value != "" {
			fields = append(fields, field)
		}
	}
	return append(fields, numbered(a.Headers)...), nil
}

// produceLater is the kafka action: the record is in the outbox when it returns.
func (e *Engine) produceLater(ctx context.Context, u *run, a *action) (string, error) {
	p, err := e.production(ctx, u, a)
	if err != nil {
		return a.record.Kafka.Topic, err
	}
	return p.Topic, e.outbox.owe(ctx, u, ActionKafka, p.Sink, p)
}

func (e *Engine) production(ctx context.Context, u *run, a *action) (production, error) {
	var p production
	sink, err := e.offered.kafkaSink(a.record.Kafka)
	if err != nil {
		return p, err
	}
	topic, err := u.text(ctx, a, fieldTopic)
	if err != nil {
		return p, err
	}
	const longest = 249 // Kafka's own
	if topic == "" || len(topic) > longest {
		return p, imprint.Errorf(imprint.CodeRuleAction, "the topic %q can't be one of Kafka", imprint.Excerpt(topic))
	}
	p = production{Sink: sink, Topic: topic, Data: u.payload}
	p.Key, err = u.text(ctx, a, fieldKey)
	if err != nil {
		return p, err
	}
	partition, err := u.text(ctx, a, fieldPartition)
	if err != nil {
		return p, err
	}
	if partition != "" {
		n, err := strconv.ParseUint(partition, 10, 31)
		if err != nil {
			return p, imprint.Errorf(imprint.CodeRuleAction, "the partition is %q, and must be a number", imprint.Excerpt(partition))
		}
		chosen := int32(n)
		p.Partition = &chosen
	}
	p.Headers, err = u.pairs(ctx, a, len(a.record.Kafka.Headers))
	return p, err
}

// produce tries a kafka delivery.
func (o *outbox) produce(ctx context.Context, d imprint.RuleDelivery) (string, error) {
	var p production
	err := json.Unmarshal(d.Request, &p)
	if err != nil {
		return "", permanent{fmt.Errorf("couldn't read the record: %w", err)}
	}
	sink, ok := o.engine.opts.Sinks[p.Sink].(producer)
	if !ok {
		return p.Topic, fmt.Errorf("this server has no kafka sink %q any more", imprint.Excerpt(p.Sink))
	}
	return p.Topic, sink.produce(ctx, d.ID, p)
}
