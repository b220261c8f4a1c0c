package broker

import (
	"context"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// Retained messages are in the store; memory knows which topics have one, so that
// a subscription to a topic without one costs nothing.

// checkRetain says whether a message may be retained. It deletes what it
// replaces when its payload is empty, and that is always allowed. Fresh: it has a
// place of its own from now on.
func (b *Broker) checkRetain(r *realm, topic string, payload int) (fresh bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh, err = b.hasPlace(r, topic, payload)
	if fresh {
		r.retaining++
	}
	return fresh, err
}

// roomToRetain says whether a message may be retained now. Errors: CodeRetainedQuota.
func (b *Broker) roomToRetain(r *realm, topic string, payload int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := b.hasPlace(r, topic, payload)
	return err
}

// hasPlace is checkRetain without taking the place. The realm's lock is held.
func (b *Broker) hasPlace(r *realm, topic string, payload int) (fresh bool, err error) {
	_, replaces := r.retained[topic]
	if payload == 0 || replaces {
		return false, nil
	}
	if len(r.retained)+r.retaining >= b.opts.MaxRetained {
		b.sweepRetained(r)
	}
	if len(r.retained)+r.retaining >= b.opts.MaxRetained {
		return false, imprint.Errorf(imprint.CodeRetainedQuota, "the tenant has %d retained messages, as many as allowed", len(r.retained))
	}
	return true, nil
}

// sweepRetained lets go of the messages that have expired, so that they take
// nobody's place. Whoever is refused for the quota comes by here, so it looks at them only
// when one can have expired. The realm's lock is held.
func (b *Broker) sweepRetained(r *realm) {
	now := b.clock()
	if r.retainedUntil.IsZero() || r.retainedUntil.After(now) {
		return
	}
	r.retainedUntil = time.Time{}
	for topic, expires := range r.retained {
		if !expires.IsZero() && !expires.After(now) {
			delete(r.retained, topic)
			b.dropRetained(r, topic)
			continue
		}
		r.noteExpiry(expires)
	}
}

// setRetained notes that a topic has a retained message. The realm's lock is held.
func (r *realm) setRetained(topic string, expires time.Time) {
	r.retained[topic] = expires
	r.noteExpiry(expires)
}

func (r *realm) noteExpiry(expires time.Time) {
	if !expires.IsZero() && (r.retainedUntil.IsZero() || expires.Before(r.retainedUntil)) {
		r.retainedUntil = expires
	}
}

// retain stores the message of a topic, or deletes it when its payload is empty,
// and returns when that is durable. Who subscribes after that gets it; who subscribed
// before gets it as any other message, which the caller routes when it has awaited
// its turn, and before it leaves that. Nothing that takes its time comes in between:
// all that were stored on the topic later would wait for it, one after the other.
func (b *Broker) retain(ctx context.Context, r *realm, topic string, packet *mqtt.Publish) (*turn, error) {
	c, t, err := b.retention(r, topic, packet, 0)
	if err != nil {
		return nil, err
	}
	err = b.ledger.wait(ctx, c)
	if err != nil {
		t.leave()
		return nil, err
	}
	return t, nil
}

// retention is the change that retains a message, of whose expiry some may have gone, and
// its turn to be routed. Errors: CodeRetainedQuota.
func (b *Broker) retention(r *realm, topic string, packet *mqtt.Publish, waited time.Duration) (change, *turn, error) {
	fresh, err := b.checkRetain(r, topic, len(packet.Payload))
	if err != nil {
		return change{}, nil, err
	}
	t := &turn{realm: r, topic: topic}
	if len(packet.Payload) == 0 {
		return change{
			write: func(tx imprint.Tx) error {
				t.beStored()
				return tx.DeleteRetained(r.tenant, topic)
			},
			done: func(err error) {
				r.mu.Lock()
				defer r.mu.Unlock()
				if err != nil {
					t.giveUp()
					b.reviewRetained(r, topic)
					return
				}
				delete(r.retained, topic)
			},
		}, t, nil
	}
	now := b.clock()
	message := b.forwarded(packet, topic, now, waited)
	kept := clonePublish(&message.Publish)
	kept.Retain, kept.Dup, kept.PacketID = true, false, 0
	if kept.QoS > 0 {
		kept.PacketID = 1
	}
	row := imprint.RetainedMessage{
		Tenant: r.tenant, Topic: topic, QoS: byte(packet.QoS), Packet: kept.Append(nil, mqtt.V5), PayloadSize: len(packet.Payload),
		ModifiedAt: now, ExpiresAt: message.expires,
	}
	return change{
		write: func(tx imprint.Tx) error {
			t.beStored()
			return tx.PutRetained(row)
		},
		size: len(row.Packet),
		done: func(err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if fresh {
				r.retaining--
			}
			if err != nil {
				t.giveUp()
				b.reviewRetained(r, topic)
				return
			}
			r.setRetained(topic, row.ExpiresAt)
		},
	}, t, nil
}

// reviewRetained has memory know what the store has of a topic, after a change of that
// failed: it may be there nevertheless. One review of a topic is enough, as it comes after
// all changes before it; more would crowd out what others insist on. The realm's lock is
// held.
func (b *Broker) reviewRetained(r *realm, topic string) {
	if _, waits := r.reviewing[topic]; waits {
		return
	}
	r.reviewing[topic] = struct{}{}
	var row imprint.RetainedMessage
	found := false
	b.ledger.add(change{
		insist: true,
		write: func(tx imprint.Tx) (err error) {
			row, err = tx.Retained(r.tenant, topic)
			found = err == nil
			if imprint.CodeOf(err) == imprint.CodeNotFound {
				return nil
			}
			return err
		},
		done: func(err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.reviewing, topic)
			if err != nil {
				return
			}
			if found {
				r.setRetained(topic, row.ExpiresAt)
			} else {
				delete(r.retained, topic)
			}
		},
	})
}

func (r *realm) forgetRetained(topic string) {
	r.mu.Lock()
	delete(r.retained, topic)
	r.mu.Unlock()
}

// retainedTopics gives the topics with a retained message for a new subscription
// to a filter: the filter itself, as on AWS IoT Core, and, where the server is
// set to the standard's ways, those that its wildcards match.
func (b *Broker) retainedTopics(r *realm, filter string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, found := r.retained[filter]; found {
		return []string{filter}
	}
	if !b.opts.StandardRetainedMatch {
		return nil
	}
	var topics []string
	for topic := range r.retained {
		if b.match(filter, topic) {
			topics = append(topics, topic)
		}
	}
	return topics
}

// sendRetained gives a new subscription the retained message of its topic, or, where
// wildcards get them all, those of all that match. One goes at once, unless the client
// has much to read already; others are sent at its pace.
func (c *connection) sendRetained(ctx context.Context, sub *subscription) error {
	topics := c.broker.retainedTopics(c.realm, sub.filter)
	if len(topics) == 0 {
		return nil
	}
	if len(topics) == 1 && c.takesRetained() {
		lacking, err := c.sendRetainedOf(ctx, sub, topics[0])
		if err != nil || lacking == 0 {
			return err
		}
	}
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	c.retainedFor = append(slices.DeleteFunc(c.retainedFor, func(other *subscription) bool { return other.filter == sub.filter }), sub)
	if !c.sendingRetained {
		c.sendingRetained = true
		c.broker.background.Go(c.sendAllRetained)
	}
	return nil
}

// takesRetained tells that a retained message may go at once.
func (c *connection) takesRetained() bool {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	return !c.sendingRetained && c.backlog() < lowBacklog
}

// sendAllRetained sends all retained messages of the subscriptions that are to have
// them. The client's acknowledgements are read meanwhile.
func (c *connection) sendAllRetained() {
	ctx := context.Background()
	for {
		sub := c.nextRetained()
		if sub == nil {
			return
		}
		for _, topic := range c.broker.retainedTopics(c.realm, sub.filter) {
			more, err := c.sendRetainedInTime(ctx, sub, topic)
			if err != nil {
				c.stop(c.ending(err))
				return
			}
			if !more {
				break
			}
		}
	}
}

// sendRetainedInTime sends a retained message as soon as the client has room for it.
// It reports false when there is nothing more to send for the subscription.
func (c *connection) sendRetainedInTime(ctx context.Context, sub *subscription, topic string) (bool, error) {
	for lacking := 0; ; {
		if !c.awaitLow(lacking) || c.unsubscribed(sub) {
			return false, nil
		}
		var err error
		lacking, err = c.sendRetainedOf(ctx, sub, topic)
		if err != nil || lacking == 0 {
			return true, err
		}
	}
}

// unsubscribed tells that the client has ended a subscription.
func (c *connection) unsubscribed(sub *subscription) bool {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	return sub.ended
}

// nextRetained gives the next subscription that is to have retained messages; nil
// when none is left.
func (c *connection) nextRetained() *subscription {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	if len(c.retainedFor) == 0 {
		c.sendingRetained = false
		return nil
	}
	sub := c.retainedFor[0]
	c.retainedFor = c.retainedFor[1:]
	return sub
}

// awaitLow returns when the client's backlog isn't high and has room for so many bytes
// more, however long that takes. It reports false when the connection ends.
func (c *connection) awaitLow(bytes int) bool {
	for {
		c.session.mu.Lock()
		over := c.out.closing || c.session.conn.Load() != c
		if over || c.backlog() < lowBacklog && c.session.fits(c, bytes) {
			c.session.mu.Unlock()
			return !over
		}
		if c.out.room == nil {
			c.out.room, c.out.paced = make(chan struct{}), paceMark{time.Now(), c.out.written}
		}
		room := c.out.room
		c.session.mu.Unlock()
		<-room
	}
}

// retainedTries bounds how often the retained message of a topic may be overtaken while
// it is read.
const retainedTries = 3

// sendRetainedOf sends the retained message of a topic, if there is one. Lacking are the
// bytes that the client has no room for now; 0: it needn't be tried again.
//
// One that was overtaken is let go, as the newer one is on its way. At QoS 0 that may be
// dropped on its way, so it is read and sent, too; twice does no harm.
func (c *connection) sendRetainedOf(ctx context.Context, sub *subscription, topic string) (lacking int, err error) {
	g, routed := c.realm.look(topic)
	defer c.realm.lookAway(topic, g)
	overtaken := false
	for tries := 0; tries < retainedTries; {
		row, err := c.broker.Retained(ctx, c.realm.tenant, topic)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		if overtaken && row.QoS > 0 && sub.qos > 0 {
			return 0, nil
		}
		send := c.retainedMessage(ctx, sub, &row)
		if send == nil {
			return 0, nil
		}
		sent, lineEnds := c.realm.pass(topic, g, routed, func() { lacking = send() })
		if sent {
			return lacking, nil
		}
		if lineEnds != nil {
			select {
			case <-lineEnds:
			case <-ctx.Done():
				return 0, imprint.Errorf(imprint.CodeUnavailable, "couldn't wait for the messages that are being retained on topic %q: %w", topic, ctx.Err())
			}
		}
		// Who was refused by the store has overtaken nothing.
		if now := g.begun(); now != routed {
			overtaken, routed = true, now
			tries++
		}
	}
	return 0, nil
}

// retainedMessage prepares a retained message for a subscription: the function sends it
// without waiting for anything, and gives what sendRetainedOf does. Nil: the client
// doesn't get it.
func (c *connection) retainedMessage(ctx context.Context, sub *subscription, row *imprint.RetainedMessage) (send func() (lacking int)) {
	now := c.broker.clock()
	packet, err := decodeStored(row.Packet)
	if err != nil {
		c.broker.opts.Logger.Error("a retained message can't be sent", "tenant", c.realm.tenant.String(), "topic", imprint.Excerpt(row.Topic), "error", err)
		return nil
	}
	bound := c.bound.Load()
	if !c.mayReceive(ctx, c.realm, row.Topic, now) {
		return nil
	}
	if !row.ExpiresAt.IsZero() && !refreshExpiry(packet, row.ExpiresAt, now) {
		return nil
	}
	s := c.session
	qos := min(packet.QoS, sub.qos)
	if qos == 0 || s.durable == nil {
		m := outgoing{Publish: *packet, expires: row.ExpiresAt, kept: packet}
		size := len(m.form(s.version, qos).raw)
		return func() int {
			_, taken := s.deliver(c, &m, delivery{qos: qos, retain: true, patient: true, only: sub, bound: bound})
			if taken {
				return 0
			}
			return size
		}
	}
	p := &parcel{kept: packet, expires: row.ExpiresAt, targets: []target{{session: s, retain: true, decided: c, bound: bound}}}
	c.broker.ledger.awaitRoom(ctx)
	return func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !sub.ended {
			// Under the lock: nothing is added after UNSUBSCRIBE [MQTT-3.10.4-2].
			c.broker.ledger.post(c.broker, p, nil)
		}
		return 0
	}
}

// Retained gives the retained message of a topic. Errors: CodeNotFound.
func (b *Broker) Retained(ctx context.Context, tenant imprint.Tenant, topic string) (imprint.RetainedMessage, error) {
	var found imprint.RetainedMessage
	err := b.store.View(ctx, func(tx imprint.ReadTx) error {
		row, err := tx.Retained(tenant, topic)
		found = row
		return err
	})
	if err == nil && !found.ExpiresAt.IsZero() && !found.ExpiresAt.After(b.clock()) {
		b.dropRetained(b.realm(tenant), topic)
		err = imprint.Errorf(imprint.CodeNotFound, "the retained message of topic %q has expired", topic)
	}
	return found, err
}

// dropRetained deletes an expired message, unless it was replaced in the
// meantime. Nobody waits for it.
func (b *Broker) dropRetained(r *realm, topic string) {
	expired := false
	b.ledger.add(change{
		write: func(tx imprint.Tx) error {
			expired = false
			row, err := tx.Retained(r.tenant, topic)
			if imprint.CodeOf(err) == imprint.CodeNotFound {
				return nil
			}
			if err != nil {
				return err
			}
			if row.ExpiresAt.IsZero() || row.ExpiresAt.After(b.clock()) {
				return nil
			}
			expired = true
			return tx.DeleteRetained(r.tenant, topic)
		},
		done: func(err error) {
			if err == nil && expired {
				r.forgetRetained(topic)
			}
		},
	})
}

// RetainedMessages lists a tenant's retained messages by topic, without their
// packets; the text is the cursor of the next page. Expired ones may still be
// among them for a while.
func (b *Broker) RetainedMessages(ctx context.Context, tenant imprint.Tenant, p imprint.Page) ([]imprint.RetainedMessage, string, error) {
	var rows []imprint.RetainedMessage
	var next string
	err := b.store.View(ctx, func(tx imprint.ReadTx) error {
		found, cursor, err := tx.RetainedMessages(tenant, p)
		rows, next = found, cursor
		return err
	})
	if err != nil {
		return nil, "", err
	}
	now := b.clock()
	kept := rows[:0]
	for _, row := range rows {
		if row.ExpiresAt.IsZero() || row.ExpiresAt.After(now) {
			kept = append(kept, row)
			continue
		}
		b.dropRetained(b.realm(tenant), row.Topic)
	}
	return kept, next, nil
}
