package broker

import (
	"context"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// Message is a message that comes through another door than MQTT. Whoever gives
// it has authorized it.
type Message struct {
	Tenant  imprint.Tenant
	Topic   string
	Payload []byte
	QoS     mqtt.QoS
	Retain  bool
	// Properties are those of a PUBLISH; a topic alias and subscription
	// identifiers have no meaning here.
	Properties mqtt.Properties
}

// Publish hands a message to its subscribers. It returns when a QoS 1 message
// is in the queue of every persistent session that gets it, and when a retained
// one is stored. Errors: CodeTopicInvalid, CodeReservedTopic,
// CodeQoSNotSupported, CodePacketTooLarge, CodeRetainedQuota, CodeUnavailable.
func (b *Broker) Publish(ctx context.Context, m Message) error {
	err := b.checkMessage(&m)
	if err != nil {
		return err
	}
	packet := mqtt.Publish{QoS: m.QoS, Topic: []byte(m.Topic), Payload: m.Payload, Properties: m.Properties}
	b.route(ctx, b.realm(m.Tenant), nil, m.Topic, &packet, nil)
	return nil
}

func (b *Broker) checkMessage(m *Message) error {
	switch {
	case m.QoS > 1:
		return imprint.Errorf(imprint.CodeQoSNotSupported, "the message has QoS %d", m.QoS)
	case len(m.Payload) > b.opts.MaxPayload:
		return imprint.Errorf(imprint.CodePacketTooLarge, "the payload has %d bytes, at most %d are allowed", len(m.Payload), b.opts.MaxPayload)
	case strings.HasPrefix(m.Topic, "$"):
		return imprint.Errorf(imprint.CodeReservedTopic, "topic %q begins with $ and is none that clients may publish to", m.Topic)
	}
	return (&session{broker: b}).checkTopic(m.Topic)
}

// Retained gives the retained message of a topic. Errors: CodeNotFound.
func (b *Broker) Retained(_ context.Context, tenant imprint.Tenant, topic string) (imprint.RetainedMessage, error) {
	return imprint.RetainedMessage{}, imprint.Errorf(imprint.CodeNotFound, "topic %q has no retained message in %s", topic, tenant)
}

// RetainedMessages lists a tenant's retained messages by topic, without their
// packets; the text is the cursor of the next page.
func (b *Broker) RetainedMessages(context.Context, imprint.Tenant, imprint.Page) ([]imprint.RetainedMessage, string, error) {
	return nil, "", nil
}

// Ending is how an operator ends a client's connection (DeleteConnection).
type Ending struct {
	CleanSession bool // also end the session, with its subscriptions and queue
	PreventWill  bool // don't publish the will
}

// Disconnect ends the connection of a client id, and returns when it is gone.
// Errors: CodeNotFound when the client has neither a connection nor a session.
func (b *Broker) Disconnect(_ context.Context, tenant imprint.Tenant, id imprint.ClientID, how Ending) error {
	r := b.realm(tenant)
	r.mu.Lock()
	s := r.sessions[id]
	r.mu.Unlock()
	if s == nil {
		return imprint.Errorf(imprint.CodeNotFound, "client %q isn't connected and has no session", id)
	}
	s.kick(imprint.CodeAdministrative)
	return nil
}
