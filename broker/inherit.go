package broker

import (
	"github.com/imprint-iot/imprint"
)

// inheritance is what a stored session leaves to the shared subscriptions that its
// messages came by: those that it hasn't acknowledged, or may not receive any
// more, go to other members (MQTT 5 section 4.8.2).
type inheritance struct {
	broker *Broker
	realm  *realm
	from   int64       // key of the session's queue
	given  []inherited // by the last write
}

// inherited is a message that has its place in a group's queue.
type inherited struct {
	queue *groupQueue
	seq   int64
	size  int
}

// writeAll moves all of the session's messages that came by shared subscriptions.
// It runs on the ledger's goroutine, perhaps more than once.
func (i *inheritance) writeAll(tx imprint.Tx) error {
	i.takeBack()
	for after := int64(0); ; {
		rows, err := tx.QueuedShared(i.from, after, loadMessages, loadBytes)
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

// writeOne moves one message, as writeAll does.
func (i *inheritance) writeOne(tx imprint.Tx, seq int64) error {
	i.takeBack()
	rows, err := tx.QueuedShared(i.from, seq-1, 1, loadBytes)
	if err != nil {
		return err
	}
	if len(rows) == 1 && rows[0].Seq == seq {
		err = i.hand(tx, rows[0])
		if err != nil {
			return err
		}
	}
	return tx.DeleteQueued(i.from, seq)
}

// hand gives one message to the group that it came by, if that still has a queue,
// and room.
func (i *inheritance) hand(tx imprint.Tx, row imprint.QueuedMessage) error {
	q := i.realm.queueOf(row.Group)
	if q == nil || q.gone.Load() {
		return nil
	}
	seq, ok := i.broker.ledger.place(i.broker, &q.queue, len(row.Packet))
	if !ok {
		return nil
	}
	i.given = append(i.given, inherited{q, seq, len(row.Packet)})
	return tx.PutQueued(imprint.QueuedMessage{Session: q.key, Seq: seq, Packet: row.Packet, ExpiresAt: row.ExpiresAt})
}

// takeBack undoes the counts of a write that wasn't kept, as far as anybody knows:
// the groups look whether it was.
func (i *inheritance) takeBack() {
	for _, g := range i.given {
		i.broker.ledger.releaseShared(i.broker, g.queue, g.size)
	}
	i.tell()
	i.given = nil
}

// done hands out what the groups have inherited.
func (i *inheritance) done(err error) {
	if err != nil {
		i.takeBack()
		return
	}
	i.tell()
}

// tell makes each group look from its first message on.
func (i *inheritance) tell() {
	told := map[*groupQueue]bool{}
	for _, g := range i.given {
		if !told[g.queue] {
			told[g.queue] = true
			g.queue.storedMessage(g.seq, nil)
		}
	}
}
