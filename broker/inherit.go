package broker

import (
	"maps"
	"slices"

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
	// Messages that had no place then, as their group has no members or a full queue.
	lost, full int
	// loose are messages of groups that have no queue, as none of their members has a
	// stored session, by number. The writes before the last one are among them: what
	// one of them has seen may have left the store by it.
	loose map[int64]*lease
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

// hand gives one message to the group that it came by, if that still has members,
// and room.
func (i *inheritance) hand(tx imprint.Tx, row imprint.QueuedMessage) error {
	delete(i.loose, row.Seq)
	g := i.realm.group(row.Group)
	if g == nil {
		i.lost++
		return nil
	}
	q := g.stored()
	if q == nil {
		i.loosen(g, row)
		return nil
	}
	if !i.broker.ledger.fits(i.broker, &q.queue, len(row.Packet)) {
		i.full++
		return nil
	}
	seq, ok := i.broker.ledger.place(i.broker, &q.queue, len(row.Packet))
	if !ok {
		return nil // somebody was quicker; it is counted
	}
	i.given = append(i.given, inherited{q, seq, len(row.Packet)})
	return tx.PutQueued(imprint.QueuedMessage{Session: q.key, Seq: seq, Packet: row.Packet, ExpiresAt: row.ExpiresAt})
}

// loosen keeps a message in memory, as its group does, until it has left the store.
func (i *inheritance) loosen(g *shareGroup, row imprint.QueuedMessage) {
	packet, err := decodeQueued(row.Packet)
	if err != nil {
		i.broker.opts.Logger.Error("a message of a shared subscription is dropped", "tenant", i.realm.tenant.String(), "filter", g.filter, "number", row.Seq, "error", err)
		i.lost++
		return
	}
	if i.loose == nil {
		i.loose = map[int64]*lease{}
	}
	i.loose[row.Seq] = &lease{group: g, kept: packet, expires: row.ExpiresAt}
}

// takeBack undoes the counts of a write that wasn't kept, as far as anybody knows:
// the groups look whether it was.
func (i *inheritance) takeBack() {
	for _, g := range i.given {
		i.broker.ledger.releaseShared(i.broker, g.queue, g.size)
	}
	i.tell()
	i.given, i.lost, i.full = nil, 0, 0
}

// done hands out what the groups have inherited.
func (i *inheritance) done(err error) {
	if err != nil {
		i.takeBack()
		return
	}
	i.tell()
	i.broker.count.publishDropped.Add(uint64(i.lost))
	i.broker.count.queueFull.Add(uint64(i.full))
	if len(i.loose) == 0 {
		return
	}
	i.broker.background.Go(func() {
		for _, seq := range slices.Sorted(maps.Keys(i.loose)) {
			i.loose[seq].giveBack()
		}
	})
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
