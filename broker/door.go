package broker

import (
	"context"
	"slices"
	"strings"
	"time"

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
	// Principal and SourceIP are the publisher's, for topic rules; they may be
	// empty.
	Principal, SourceIP string

	depth int // rules that republished it; 0: it is no rule's
}

// publishTime bounds a publication by Publish.
const publishTime = 30 * time.Second

// Publish hands a message to its subscribers and to topic rules. It returns when
// a QoS 1 message is in the queue of every persistent session that gets it and of
// the rules that want it, and when a retained one is stored. A session whose queue
// is full doesn't get it; that is counted, and no error. That the context ends is no
// reason to give the message up: who hangs up, or ends only the sending half, has
// published. Errors: CodeTopicInvalid, CodeReservedTopic, CodeQoSNotSupported,
// CodePacketTooLarge, CodeRetainedQuota, CodeRulesBusy, CodeUnavailable.
func (b *Broker) Publish(ctx context.Context, m Message) error {
	err := b.checkMessage(&m)
	if err != nil {
		return err
	}
	// What is on its way to the store would be retained all the same, and never routed.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTime)
	defer cancel()
	packet := mqtt.Publish{QoS: m.QoS, Retain: m.Retain, Topic: []byte(m.Topic), Payload: m.Payload, Properties: m.Properties}
	r := b.realm(m.Tenant)
	ingest := isIngest(m.Topic)
	if m.Retain && !ingest {
		err = b.roomToRetain(r, m.Topic, len(m.Payload))
		if err != nil {
			return err
		}
	}
	if r.rules != nil && !r.rules.Idle() {
		err = r.rules.Offer(ctx, &imprint.RuleMessage{
			Topic: m.Topic, Payload: m.Payload, QoS: byte(m.QoS), Properties: ruleProperties(&m.Properties),
			Principal: m.Principal, SourceIP: m.SourceIP, Depth: m.depth, Wait: m.QoS > 0 && m.depth == 0,
		})
		if err != nil && m.QoS > 0 {
			return err
		}
	}
	b.count.publishIn.Add(1)
	if ingest {
		return nil
	}
	var retained *turn
	if m.Retain {
		retained, err = b.retain(ctx, r, m.Topic, &packet)
		if err != nil {
			return err
		}
		defer retained.leave()
	}
	retained.begin()
	stored, _ := b.route(ctx, routing{realm: r, now: b.clock()}, m.Topic, &packet)
	if stored == nil {
		return nil
	}
	b.ledger.awaitRoom(ctx)
	result := make(chan error, 1)
	b.ledger.post(b, stored, func(err error) { result <- err })
	retained.leave()
	select {
	case err = <-result:
		return err
	case <-ctx.Done():
		return imprint.Errorf(imprint.CodeUnavailable, "couldn't wait for the store: %w", ctx.Err())
	}
}

func (b *Broker) checkMessage(m *Message) error {
	switch {
	case m.QoS > 1:
		return imprint.Errorf(imprint.CodeQoSNotSupported, "the message has QoS %d", m.QoS)
	case len(m.Payload) > b.opts.MaxPayload:
		return imprint.Errorf(imprint.CodePacketTooLarge, "the payload has %d bytes, at most %d are allowed", len(m.Payload), b.opts.MaxPayload)
	case m.depth > 0:
		err := imprint.CheckRepublished(m.Topic, true)
		if err != nil {
			return err
		}
	case isIngest(m.Topic) && b.opts.Rules != nil:
	case strings.HasPrefix(m.Topic, "$"):
		return reserved(imprint.Errorf(imprint.CodeReservedTopic, "topic %q begins with $ and is none that clients may publish to", m.Topic), m.Topic)
	}
	return b.checkTopic(m.Topic)
}

// Ending is how an operator ends a client's connection (DeleteConnection).
type Ending struct {
	CleanSession bool // also end the session, with its subscriptions and queue
	PreventWill  bool // don't publish the will
}

// Disconnect ends the connection of a client id, and returns when it is gone.
// Errors: CodeNotFound when the client has neither a connection nor a session.
func (b *Broker) Disconnect(ctx context.Context, tenant imprint.Tenant, id imprint.ClientID, how Ending) error {
	r := b.realm(tenant)
	r.mu.Lock()
	s := r.sessions[id]
	r.mu.Unlock()
	if s == nil {
		return imprint.Errorf(imprint.CodeNotFound, "client %q isn't connected and has no session", id)
	}
	c := s.conn.Load()
	if c == nil && !how.CleanSession {
		return imprint.Errorf(imprint.CodeNotFound, "client %q isn't connected", id)
	}
	for {
		if c != nil {
			err := c.dismiss(ctx, how.PreventWill)
			if err != nil {
				return err
			}
		}
		if !how.CleanSession || s.durable == nil || s.retire(how.PreventWill) {
			break
		}
		// The client has come back to the session in between.
		c = s.conn.Load()
	}
	r.mu.Lock()
	ending := slices.Clone(r.ending[id])
	r.mu.Unlock()
	err := b.awaitDeletion(ctx, ending)
	if err != nil {
		return err
	}
	return b.ledger.wait(ctx, change{write: func(imprint.Tx) error { return nil }})
}

// Sharing gives the clients of certificates that several connections of a tenant have
// at this moment, the clients of one certificate one after another: of at most a
// number of certificates, and of each at most as many clients.
func (b *Broker) Sharing(tenant imprint.Tenant, certificates, clients int) []imprint.LiveClient {
	b.mu.RLock()
	r := b.realms[tenant]
	b.mu.RUnlock()
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []imprint.LiveClient
	for id := range r.crowded {
		if certificates--; certificates < 0 {
			break
		}
		left := clients
		for _, c := range r.byCert[id] {
			if left--; left < 0 {
				break
			}
			all = append(all, imprint.LiveClient{
				ClientID: c.clientID, Certificate: id, Host: c.peer.Address.String(), Since: time.Unix(0, c.since), KeepAlive: c.keepAlive,
			})
		}
	}
	return all
}

// dismiss ends a connection for an operator and returns when it is gone.
func (c *connection) dismiss(ctx context.Context, preventWill bool) error {
	if preventWill {
		c.keepWill.Store(true)
	}
	c.kick(imprint.CodeAdministrative)
	select {
	case <-c.gone:
		return nil
	case <-ctx.Done():
		return imprint.Errorf(imprint.CodeUnavailable, "couldn't wait for the end of the connection: %w", ctx.Err())
	}
}

// retire ends a stored session unless it has a connection. A session must never
// end under one: the realm would no longer know who has the client id.
func (s *session) retire(preventWill bool) bool {
	r := s.realm
	r.mu.Lock()
	// Entering takes this lock: who enters after this finds no session.
	if s.conn.Load() != nil {
		r.mu.Unlock()
		return false
	}
	if r.sessions[s.clientID] == s {
		r.end(s)
	}
	r.mu.Unlock()
	if preventWill {
		s.mu.Lock()
		s.durable.will = nil
		s.mu.Unlock()
	}
	s.discard()
	return true
}
