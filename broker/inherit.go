package broker

import (
	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// inheritance is what a stored session leaves to the shared subscriptions that it
// was a member of: the messages that they had handed to it and that it hasn't
// acknowledged go to other members (MQTT 5 section 4.8.2). A message that one of
// the session's plain filters matches, too, isn't told apart from its own: it ends
// with the session.
type inheritance struct {
	session *session
	shared  []*subscription
	plain   []string
	given   []inherited // by the last write
}

// inherited is a message that has its place in a group's queue.
type inherited struct {
	queue *groupQueue
	seq   int64
	size  int
}

// newInheritance looks at the session's subscriptions. Its lock is held.
func newInheritance(s *session) *inheritance {
	i := &inheritance{session: s}
	for _, sub := range s.subscriptions {
		if sub.share != "" && sub.qos > 0 {
			i.shared = append(i.shared, sub)
		} else {
			i.plain = append(i.plain, sub.inner)
		}
	}
	return i
}

// write moves the messages to the groups' queues. It runs on the ledger's
// goroutine, perhaps more than once.
func (i *inheritance) write(tx imprint.Tx) error {
	i.takeBack()
	if len(i.shared) == 0 {
		return nil
	}
	for after := int64(0); ; {
		rows, err := tx.Queued(i.session.durable.queue.key, after, loadMessages, loadBytes)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			err = i.hand(tx, row)
			if err != nil {
				return err
			}
		}
		after = rows[len(rows)-1].Seq
	}
}

// hand gives one message to the group that it came by, if that has a queue with
// room.
func (i *inheritance) hand(tx imprint.Tx, row imprint.QueuedMessage) error {
	packet, err := decodeStored(row.Packet)
	if err != nil {
		return nil // whoever would have read it would have dropped it, too
	}
	q := i.heir(string(packet.Topic))
	if q == nil {
		return nil
	}
	b := i.session.broker
	seq, ok := b.ledger.place(b, &q.queue, len(row.Packet))
	if !ok {
		return nil
	}
	i.given = append(i.given, inherited{q, seq, len(row.Packet)})
	return tx.PutQueued(imprint.QueuedMessage{Session: q.key, Seq: seq, Packet: row.Packet, ExpiresAt: row.ExpiresAt})
}

// heir is the queue of the group that a message on a topic came by; nil when it
// may have come by a plain filter, or nobody keeps the group's messages.
func (i *inheritance) heir(topic string) *groupQueue {
	match := mqtt.Match
	if i.session.broker.opts.StandardParentMatch {
		match = mqtt.MatchStandard
	}
	for _, filter := range i.plain {
		if match(filter, topic) {
			return nil
		}
	}
	for _, sub := range i.shared {
		if !match(sub.inner, topic) {
			continue
		}
		if q := sub.group.stored(); q != nil && !q.gone.Load() {
			return q
		}
	}
	return nil
}

// takeBack undoes the counts of a write that wasn't kept.
func (i *inheritance) takeBack() {
	b := i.session.broker
	for _, g := range i.given {
		b.ledger.releaseShared(b, g.queue, g.size)
	}
	i.given = nil
}

// done hands out what the groups have inherited.
func (i *inheritance) done(err error) {
	if err != nil {
		i.takeBack()
		return
	}
	for n, g := range i.given {
		if n == 0 || g.queue != i.given[n-1].queue {
			g.queue.storedMessage(g.seq)
		}
	}
}
