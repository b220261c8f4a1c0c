package broker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/policy"
)

// handlePublish authorizes a PUBLISH, hands it to the subscribers, and
// acknowledges it once whatever of it must be in the store is there.
func (c *connection) handlePublish(ctx context.Context, header mqtt.FixedHeader, body []byte) error {
	p := c.beginPublishing()
	packet := &p.packet
	err := packet.Decode(header, body, c.version)
	if err != nil {
		return err
	}
	c.arrived++
	switch {
	case packet.QoS > 1:
		return end(imprint.CodeQoSNotSupported, "a PUBLISH has QoS %d", packet.QoS)
	case len(packet.Payload) > c.broker.opts.MaxPayload:
		return end(imprint.CodePacketTooLarge, "a PUBLISH has a payload of %d bytes, at most %d are allowed", len(packet.Payload), c.broker.opts.MaxPayload)
	case len(packet.Properties.SubscriptionIDs) > 0:
		return end(imprint.CodeProtocolViolation, "a client's PUBLISH has a Subscription Identifier [MQTT-3.3.4-6]")
	}
	topic, err := c.resolveTopic(packet)
	if err != nil {
		return err
	}
	if packet.QoS == 1 {
		fresh, err := c.admitID(packet.PacketID)
		if err != nil || !fresh {
			return err
		}
	}
	if !c.withinRate(c.now) {
		return c.overRate(packet)
	}
	bound, err := c.mayPublish(ctx, topic, packet)
	ingest := isIngest(topic)
	if err == nil && !ingest && strings.HasPrefix(topic, "$") {
		c.request(ctx, topic, packet)
		return nil
	}
	// What is refused leaves no trace: rules come first, as they may have no room, and the
	// quota of retained messages before them.
	retains := packet.Retain && !ingest
	if err == nil && retains {
		err = c.broker.roomToRetain(c.realm, topic, len(packet.Payload))
	}
	if err == nil {
		err = c.offer(ctx, topic, packet)
	}
	var retained *turn
	if err == nil && retains {
		c.payOwed()
		retained, err = c.broker.retain(ctx, c.realm, topic, packet)
		defer retained.leave()
	}
	if err != nil {
		return c.denyPublish(packet, err)
	}
	if ingest {
		c.ingested(topic, packet, bound)
		return nil
	}
	if p.scratch == nil {
		p.scratch = takeBuffer()
	}
	p.scratch = p.scratch[:0]
	retained.begin()
	stored, behind := c.broker.route(ctx, routing{realm: c.realm, from: c, now: c.now, cache: &p.route}, topic, packet)
	if bound.policies.Timeless() {
		p.route.publisher = bound
	}
	switch {
	case stored != nil:
		behind = append(behind, c.post(ctx, stored, packet)...)
	case packet.QoS == 1:
		c.acknowledge(packet.PacketID, mqtt.Success, nil)
	}
	retained.leave()
	behind = slices.DeleteFunc(behind, func(other paced) bool { return other == c })
	if len(behind) > 0 {
		c.payOwed()
		c.awaitRoom(behind)
	}
	return nil
}

// post gives a message to the store and acknowledges it when it is durable. It
// gives those whose queues there are long.
func (c *connection) post(ctx context.Context, p *parcel, packet *mqtt.Publish) []paced {
	ledger := c.broker.ledger
	if ledger.full() {
		c.payOwed()
		ledger.awaitRoom(ctx)
	}
	id := packet.PacketID // only QoS 1 messages are stored
	c.awaitStore(id)
	ledger.post(c.broker, p, func(err error) { c.answerStored(id, err) })
	return p.behind
}

// resolveTopic gives the topic's name, through its alias where the client uses
// one (MQTT 5 section 3.3.2.3.4). It comes before any decision on the topic.
func (c *connection) resolveTopic(packet *mqtt.Publish) (string, error) {
	if !packet.Properties.Has(mqtt.PropTopicAlias) {
		return c.intern(packet.Topic), nil
	}
	alias, most := int(packet.Properties.TopicAlias), c.broker.opts.MaxTopicAliases
	if alias == 0 || alias > most {
		return "", end(imprint.CodeProtocolViolation, "topic alias %d isn't one of 1 to %d [MQTT-3.3.2-9]", alias, most).telling(mqtt.TopicAliasInvalid)
	}
	aliases := c.publishing.aliases
	if aliases == nil {
		aliases = make([]string, most)
		c.publishing.aliases = aliases
	}
	if len(packet.Topic) == 0 {
		topic := aliases[alias-1]
		if topic == "" {
			return "", end(imprint.CodeProtocolViolation, "topic alias %d was never set", alias)
		}
		return topic, nil
	}
	topic := c.intern(packet.Topic)
	aliases[alias-1] = topic
	if c.broker.tooLong(topic) {
		// It is refused below; it isn't worth keeping.
		aliases[alias-1] = ""
	}
	return topic, nil
}

// intern spares the allocation of the topic's string while a client repeats it.
func (c *connection) intern(topic []byte) string {
	known := c.publishing.route.topic
	if known == string(topic) {
		return known
	}
	return string(topic)
}

// mayPublish decides on a publish: topic, policy, retain. What was decided for
// the topic before holds as long as nothing behind the decision has changed.
func (c *connection) mayPublish(ctx context.Context, topic string, packet *mqtt.Publish) (*binding, error) {
	bound := c.current(ctx)
	if bound == nil {
		return nil, c.over()
	}
	known := &c.publishing.route
	if known.publisher == bound && known.topic == topic && !packet.Retain {
		return bound, nil
	}
	err := c.broker.checkTopic(topic)
	if err != nil {
		return nil, err
	}
	request := policy.Request{
		Action: policy.Publish, ResourcePrefix: c.realm.topicARN, ResourceName: topic,
		Vars: bound.vars, Now: c.now,
	}
	if bound.policies.Decide(&request) != policy.Allowed {
		c.broker.count.publishDenied.Add(1)
		return nil, c.explain(imprint.CodePublishDenied, bound, &request)
	}
	c.uses.note(usePublish, topic)
	if c.broker.answers(topic) {
		return bound, nil
	}
	if strings.HasPrefix(topic, "$") && !(isIngest(topic) && c.realm.rules != nil) {
		return nil, reserved(imprint.Errorf(imprint.CodeReservedTopic, "topic %q begins with $ and is none that clients may publish to", topic), topic)
	}
	if !packet.Retain {
		return bound, nil
	}
	request.Action = policy.RetainPublish
	if bound.policies.Decide(&request) != policy.Allowed {
		c.broker.count.publishDenied.Add(1)
		return nil, c.explain(imprint.CodeRetainDenied, bound, &request)
	}
	c.uses.note(useRetain, topic)
	return bound, nil
}

// denyPublish answers a refused PUBLISH: MQTT 5 clients get a reason in PUBACK
// at QoS 1 and stay; otherwise the connection ends, as AWS IoT Core ends it.
func (c *connection) denyPublish(packet *mqtt.Publish, refusal error) error {
	if c.version != mqtt.V5 || packet.QoS != 1 || c.ended.Load() != nil {
		if packet.QoS == 1 {
			c.unanswered = mqtt.TypePuback
		}
		return refusal
	}
	reason := reasonFor(imprint.CodeOf(refusal), mqtt.TypePuback)
	if reason == 0 || reason == mqtt.UnspecifiedError && imprint.CodeOf(refusal) != imprint.CodeUnavailable {
		return refusal
	}
	c.refusedWith("publish", refusal, sent(mqtt.TypePuback, c.version, reason))
	c.acknowledge(packet.PacketID, reason, refusal)
	return nil
}

// route is what the last PUBLISH of a connection found and what was decided,
// which mostly serves the next one too.
type route struct {
	topic   string
	version uint64
	found   matches
	valid   bool
	// publisher may publish on the topic; nil: not known. Receivers are, in the
	// order of the subscriptions, with what each connection was found to receive
	// it; nil: not known. Neither is kept where a policy looks at the time.
	publisher *binding
	receivers []*binding
}

// cachedRoute bounds how many subscriptions a publisher remembers: it keeps
// the sessions in memory, also those that have ended since.
const cachedRoute = 256

// lookup gives the subscriptions for a topic.
func (c *route) lookup(t *tree, topic string) matches {
	if c.valid && c.topic == topic && c.version == t.version.Load() {
		return c.found
	}
	found, version := t.match(topic, c.found)
	// What the one before found and this one didn't is let go.
	clear(found.subs[len(found.subs):cap(found.subs)])
	clear(found.groups[len(found.groups):cap(found.groups)])
	publisher, receivers := c.publisher, c.receivers
	if c.topic != topic {
		publisher = nil
	}
	if found.len() > cachedRoute {
		*c = route{topic: topic, publisher: publisher}
		return found
	}
	clear(receivers[:cap(receivers)])
	receivers = slices.Grow(receivers[:0], len(found.subs))[:len(found.subs)]
	*c = route{topic: topic, version: version, found: found, valid: true, publisher: publisher, receivers: receivers}
	return found
}

// routing is where a message comes from.
type routing struct {
	realm *realm
	from  *connection // publishing; nil: the service
	now   time.Time
	// waited is how much of the message's expiry has gone.
	waited time.Duration
	// cache is what the publisher found last; nil: it keeps nothing.
	cache *route
}

// route hands a message to every subscriber in the tenant that may receive it.
// The parcel is the message for those whose queues are in the store, nil where
// there are none: the caller posts it. Behind are subscribers that a publisher
// should wait for.
func (b *Broker) route(ctx context.Context, from routing, topic string, packet *mqtt.Publish) (stored *parcel, behind []paced) {
	r, cache := from.realm, from.cache
	if cache == nil {
		cache = &route{}
	}
	found := cache.lookup(&r.topics, topic)
	if found.len() == 0 {
		return nil, nil
	}
	message := b.forwarded(packet, topic, from.now, from.waited)
	if from.from != nil {
		message.scratch = from.from.publishing.scratch
	}
	var p parcel
	for n, sub := range found.subs {
		s := sub.session
		c := s.conn.Load()
		var bound *binding // before the decision: what comes after it decides anew
		if c != nil {
			bound = c.bound.Load()
		}
		if sub.noLocal && c != nil && c == from.from {
			sub = s.local(topic)
			if sub == nil {
				continue
			}
		}
		retain, qos := sub.retainAsPublished && packet.Retain, min(packet.QoS, sub.qos)
		if s.durable != nil && qos == 1 {
			if c == nil || c.mayQueue(ctx, r, topic, from.now) {
				p.targets = append(p.targets, target{session: s, retain: retain, decided: c, bound: bound})
			}
			continue
		}
		if c == nil || !c.receivesCached(ctx, cache, n, topic, from) {
			continue
		}
		slow, _ := s.deliver(c, &message, delivery{qos: qos, retain: retain, by: from.from, bound: bound})
		if slow != nil {
			behind = append(behind, slow)
		}
	}
	if len(found.groups) > 0 {
		// Copies, so that only what goes to a group is on the heap.
		shared, targets := message, parcel{targets: p.targets}
		gift := gift{message: &shared, topic: topic, qos: packet.QoS, parcel: &targets, now: from.now, by: from.from, first: anyMember()}
		behind = b.share(ctx, found.groups, &gift, behind)
		message, p.targets = shared, targets.targets
	}
	if from.from != nil {
		from.from.publishing.scratch = message.scratch
	}
	if len(p.targets) == 0 {
		return nil, behind
	}
	// A copy on the heap only for those that need one.
	stored = &parcel{kept: message.keep(), expires: message.expires, targets: p.targets}
	return stored, behind
}

// share gives a message to one member of each group, and adds to those that are
// behind.
func (b *Broker) share(ctx context.Context, groups []*shareGroup, x *gift, behind []paced) []paced {
	for _, g := range groups {
		slow, o := g.give(ctx, x)
		if o != handed {
			b.count.publishDropped.Add(1)
		}
		if slow != nil {
			behind = append(behind, slow)
		}
	}
	return behind
}

// receivesCached decides on iot:Receive for the n-th subscription of a route.
func (c *connection) receivesCached(ctx context.Context, cache *route, n int, topic string, from routing) bool {
	bound := c.bound.Load()
	known := n < len(cache.receivers)
	if known && bound != nil && cache.receivers[n] == bound && !bound.who.Stale() {
		return true
	}
	bound = c.current(ctx)
	if bound == nil || !c.receives(bound, from.realm, topic, from.now) {
		return false
	}
	if known && bound.policies.Timeless() {
		cache.receivers[n] = bound
	}
	return true
}

// mayReceive decides on iot:Receive. A refusal is silent to the client, as on AWS IoT
// Core; the trace tells the first ones.
func (c *connection) mayReceive(ctx context.Context, r *realm, topic string, now time.Time) bool {
	bound := c.current(ctx)
	return bound != nil && c.receives(bound, r, topic, now)
}

// mayQueue decides whether a message is put into the queue of a session that is
// connected. One whose certificate has just stopped counting as a connection is
// treated like an absent one.
func (c *connection) mayQueue(ctx context.Context, r *realm, topic string, now time.Time) bool {
	bound := c.current(ctx)
	return bound == nil || c.receives(bound, r, topic, now)
}

func (c *connection) receives(bound *binding, r *realm, topic string, now time.Time) bool {
	request := policy.Request{
		Action: policy.Receive, ResourcePrefix: r.topicARN, ResourceName: topic,
		Vars: bound.vars, Now: now,
	}
	if bound.policies.Decide(&request) == policy.Allowed {
		return true
	}
	c.noteKept(bound, &request)
	return false
}

// minExpiry is the shortest message expiry interval (AWS IoT Core developer guide, "MQTT
// 5 supported features"), as MaxMessageExpiry is the longest; others are moved between
// them.
const minExpiry = time.Second

// forwarded is the message as subscribers get it: without what concerns the
// publisher's connection alone (alias, DUP), and the time when it expires, of which some
// may have gone.
func (b *Broker) forwarded(packet *mqtt.Publish, topic string, now time.Time, waited time.Duration) outgoing {
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
	expiry := b.expiryOf(p)
	out.expires = now.Add(expiry - waited)
	p.MessageExpiry = uint32(max(0, expiry/time.Second-waited/time.Second))
	return out
}

// expiryOf gives the message expiry interval that a message is given.
func (b *Broker) expiryOf(p *mqtt.Properties) time.Duration {
	return min(max(time.Duration(p.MessageExpiry)*time.Second, minExpiry), b.opts.MaxMessageExpiry)
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

// PublishEvent hands a message of the service to its tenant's subscribers with
// QoS 1, where they subscribed with it. Done hears once, also during the call, when it is
// in the queue of every persistent session that gets it, and what topic rules do with it
// is durable. Nothing here waits for a tenant: rules that have no room now are an error,
// before any subscriber has the message. Errors: CodeUnavailable, CodeRulesBusy; after
// others than the last it may have been handed over in part.
func (b *Broker) PublishEvent(ctx context.Context, event imprint.Event, done func(error)) {
	h := &handover{left: 2, done: done}
	err := offerEvent(ctx, b.rulesOf(event.Tenant), event, h.ended)
	if err != nil {
		done(err)
		return
	}
	p := b.routeEvent(ctx, event)
	if p == nil {
		h.ended(nil)
		return
	}
	b.ledger.awaitRoom(ctx)
	b.ledger.post(b, p, h.ended)
}

// handover is an event on its way to topic rules and to subscribers.
type handover struct {
	mu     sync.Mutex
	left   int
	failed error
	done   func(error)
}

func (h *handover) ended(err error) {
	h.mu.Lock()
	h.failed = errors.Join(h.failed, err)
	h.left--
	last, failed := h.left == 0, h.failed
	h.mu.Unlock()
	if last {
		h.done(failed)
	}
}

// Heard says whether a subscriber, or a topic rule, of the tenant would get a message
// of the service on a topic.
func (b *Broker) Heard(tenant imprint.Tenant, topic string) bool {
	b.mu.RLock()
	r := b.realms[tenant]
	b.mu.RUnlock()
	return r != nil && r.heard(topic)
}

func (r *realm) heard(topic string) bool {
	found, _ := r.topics.match(topic, matches{})
	return found.len() > 0 || r.rules != nil && !r.rules.Idle()
}

func (b *Broker) routeEvent(ctx context.Context, event imprint.Event) *parcel {
	b.mu.RLock()
	r := b.realms[event.Tenant]
	b.mu.RUnlock()
	if r == nil {
		return nil // nobody of the tenant has ever connected
	}
	packet := mqtt.Publish{QoS: 1, Topic: []byte(event.Topic), Payload: event.Payload}
	p, _ := b.route(ctx, routing{realm: r, now: b.clock()}, event.Topic, &packet)
	return p
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
