package broker

import (
	"context"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// setExpiry changes how long a session is kept after its connection, as a
// DISCONNECT asks. One that was to end with it can't be kept (MQTT 5 section
// 3.14.2.2.2).
func (s *session) setExpiry(c *connection, expiry time.Duration) error {
	if s.durable == nil {
		if expiry == 0 {
			return nil
		}
		return end(imprint.CodeProtocolViolation, "DISCONNECT sets a session expiry interval and CONNECT set none (MQTT 5 section 3.14.2.2.2)")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.Load() != c {
		return end(imprint.CodeTakenOver, "the session has gone on to another connection")
	}
	if s.durable.expiry == 0 && expiry > 0 {
		return end(imprint.CodeProtocolViolation, "DISCONNECT sets a session expiry interval and CONNECT set none (MQTT 5 section 3.14.2.2.2)")
	}
	s.durable.expiry = expiry
	return nil
}

// adopt puts a connection's new subscriptions into force, durably for a stored
// session, and gives those that retained messages are sent for.
func (s *session) adopt(ctx context.Context, c *connection, fresh []*subscription, asked []mqtt.Subscription) ([]*subscription, error) {
	if len(fresh) == 0 {
		return nil, nil
	}
	replaced, err := s.install(c, fresh)
	if err != nil {
		return nil, err
	}
	if s.durable != nil {
		err = s.broker.ledger.wait(ctx, change{write: func(tx imprint.Tx) error { return s.saveSubscriptions(tx, fresh) }})
		if err != nil {
			return nil, err
		}
	}
	var retained []*subscription
	for n, sub := range fresh {
		if sub.group != nil {
			sub.group.arrived()
			continue
		}
		if wantsRetained(asked, sub.filter, replaced[n] != nil) {
			retained = append(retained, sub)
		}
	}
	return retained, nil
}

// wantsRetained applies the retain handling option of a filter (MQTT 5 section
// 3.8.3.1).
func wantsRetained(asked []mqtt.Subscription, filter string, existed bool) bool {
	for n := len(asked) - 1; n >= 0; n-- {
		if asked[n].Filter != filter {
			continue
		}
		switch asked[n].RetainHandling {
		case 1:
			return !existed
		case 2:
			return false
		}
		return true
	}
	return false
}

// install enters subscriptions into the session and the realm's topics, and gives
// those that they replace. Within one packet, a filter's later subscription replaces its earlier
// one.
func (s *session) install(c *connection, fresh []*subscription) ([]*subscription, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	replaced, err := s.enter(c, fresh)
	if err != nil {
		return nil, err
	}
	for n, sub := range fresh {
		s.realm.subscribe(s.broker, sub, replaced[n])
	}
	return replaced, nil
}

func (s *session) enter(c *connection, fresh []*subscription) ([]*subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.Load() != c || s.over {
		return nil, end(imprint.CodeTakenOver, "the session has gone on to another connection")
	}
	if s.subscriptions == nil {
		s.subscriptions = make(map[string]*subscription, len(fresh))
	}
	replaced := make([]*subscription, len(fresh))
	for n, sub := range fresh {
		replaced[n] = s.subscriptions[sub.filter]
		s.subscriptions[sub.filter] = sub
	}
	return replaced, nil
}

// local gives the subscription by which a session gets a message of its own client
// when its best one for the topic has No Local set: each subscription's options
// hold for itself (MQTT 5 section 3.3.4). Nil: there is none.
func (s *session) local(topic string) *subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	var best *subscription
	for _, sub := range s.subscriptions {
		if sub.noLocal || sub.share != "" || !s.broker.match(sub.inner, topic) {
			continue
		}
		if best == nil || sub.qos > best.qos {
			best = sub
		}
	}
	return best
}

// roomFor says whether there is room for a filter beside the session's
// subscriptions and those that are about to come.
func (s *session) roomFor(filter string, fresh []*subscription) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subscriptions[filter] != nil {
		return nil
	}
	n := len(s.subscriptions)
	for i, sub := range fresh {
		if sub.filter == filter {
			return nil
		}
		again := slices.ContainsFunc(fresh[:i], func(other *subscription) bool { return other.filter == sub.filter })
		if s.subscriptions[sub.filter] == nil && !again {
			n++
		}
	}
	if n >= s.broker.opts.MaxSubscriptions {
		return imprint.Errorf(imprint.CodeQuotaExceeded, "the connection has %d subscriptions, as many as allowed", n)
	}
	return nil
}

// The bits of imprint.SessionSubscription.Options.
const (
	optionNoLocal           = 0x04
	optionRetainAsPublished = 0x08
)

// saveSubscriptions writes the session, which may be new, and subscriptions of
// it. It runs on the ledger's goroutine.
func (s *session) saveSubscriptions(tx imprint.Tx, subscriptions []*subscription) error {
	err := s.save(tx)
	if err != nil {
		return err
	}
	for _, sub := range subscriptions {
		s.mu.Lock()
		present := !s.over && s.subscriptions[sub.filter] == sub
		s.mu.Unlock()
		if !present {
			continue
		}
		row := imprint.SessionSubscription{Session: s.durable.queue.key, Filter: sub.filter, QoS: byte(sub.qos)}
		if sub.noLocal {
			row.Options |= optionNoLocal
		}
		if sub.retainAsPublished {
			row.Options |= optionRetainAsPublished
		}
		err = tx.PutSessionSubscription(row)
		if err != nil {
			return err
		}
		if sub.group == nil {
			continue
		}
		q := sub.group.stored()
		if q == nil {
			continue
		}
		err = tx.PutShareGroup(q.row())
		if err != nil {
			return err
		}
	}
	return nil
}

// drop ends subscriptions of a connection's client, durably for a stored session,
// and gives the filters of those that there were.
func (s *session) drop(ctx context.Context, c *connection, filters []string) ([]string, error) {
	removed, err := s.remove(c, filters)
	if err != nil || s.durable == nil {
		return removed, err
	}
	// Those that memory doesn't have are deleted, too: the store may have them
	// from an UNSUBSCRIBE that failed.
	key := s.durable.queue.key
	err = s.broker.ledger.wait(ctx, change{write: func(tx imprint.Tx) error {
		for _, filter := range filters {
			if s.subscribed(filter) {
				continue // again, by the next connection
			}
			err := tx.DeleteSessionSubscription(key, filter)
			if err != nil {
				return err
			}
		}
		return nil
	}})
	return removed, err
}

// remove takes subscriptions out of the session and the realm's topics.
func (s *session) remove(c *connection, filters []string) ([]string, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	if s.conn.Load() != c || s.over {
		s.mu.Unlock()
		return nil, end(imprint.CodeTakenOver, "the session has gone on to another connection")
	}
	var removed []string
	var gone []*subscription
	for _, filter := range filters {
		if sub := s.subscriptions[filter]; sub != nil {
			delete(s.subscriptions, filter)
			sub.ended = true
			removed, gone = append(removed, filter), append(gone, sub)
		}
	}
	s.mu.Unlock()
	for _, sub := range gone {
		s.realm.unsubscribe(sub)
	}
	return removed, nil
}

func (s *session) subscribed(filter string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.subscriptions[filter] != nil
}

// groupQueues gives the queues of the session's shared subscriptions.
func (s *session) groupQueues() []*groupQueue {
	var queues []*groupQueue
	for _, g := range s.groups() {
		if q := g.stored(); q != nil {
			queues = append(queues, q)
		}
	}
	return queues
}

// groups gives the session's shared subscriptions.
func (s *session) groups() []*shareGroup {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var groups []*shareGroup
	for _, sub := range s.subscriptions {
		if sub.group != nil {
			groups = append(groups, sub.group)
		}
	}
	return groups
}

// wakeGroups tells the shared subscriptions of a session that it has room again.
func (s *session) wakeGroups() {
	for _, g := range s.groups() {
		g.wake()
	}
}

// joinGroups tells the shared subscriptions of a session that it is back.
func (s *session) joinGroups() {
	for _, g := range s.groups() {
		g.arrived()
	}
}
