package broker

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// groupQueue is the queue of a group.
type groupQueue struct {
	queue
	group   *shareGroup
	deleted atomic.Bool // from the store, or about to be

	// The ledger's mu guards these, by which publishers wait for the members.
	room     chan struct{} // closed when the queue is low; nil: nobody waits
	released int64         // bytes that have left it
	paced    paceMark
	behind   bool // nobody waits until it is low again
}

// maxMoving bounds the messages that are on their way from a group's queue to
// members' queues.
const maxMoving = 100

// lease is a message that a group has handed to a member whose session ends with
// its connection, until the member acknowledges it.
type lease struct {
	group   *shareGroup
	kept    *mqtt.Publish
	expires time.Time
	queue   *groupQueue // nil: it isn't stored
	seq     int64
	size    int // in the queue
}

// row is the group as the store has it.
func (q *groupQueue) row() imprint.ShareGroup {
	return imprint.ShareGroup{Tenant: q.group.realm.tenant, Filter: q.group.filter, Key: q.key}
}

// settle lets go of a message that a member has acknowledged. The member's
// session may be locked.
func (l *lease) settle() {
	if l.queue == nil {
		return
	}
	g, q, seq := l.group, l.queue, l.seq
	g.broker.ledger.add(change{
		insist: true,
		write: func(tx imprint.Tx) error {
			if q.deleted.Load() {
				return nil
			}
			return tx.DeleteQueued(q.key, seq)
		},
		// It may be read again until it is gone from the store.
		done: func(err error) {
			if err != nil {
				g.unclear(q, seq, l.size)
				return
			}
			g.broker.ledger.releaseShared(g.broker, q, l.size)
			g.returned(q, seq, true)
			g.wake()
		},
	})
}

// returned makes a number of the queue free to be read again, or, when its
// message has left the store, not to be handed out by who has just read it.
func (g *shareGroup) returned(q *groupQueue, seq int64, left bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.queue != q {
		return
	}
	g.takeBack(seq)
	if left {
		g.outdate(seq)
	} else {
		g.readFrom(seq)
	}
}

// unclear is returned for a message whose leaving the queue failed: it may have left
// it nevertheless. The next reading tells; what was read before doesn't.
func (g *shareGroup) unclear(q *groupQueue, seq int64, size int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.queue != q {
		return
	}
	g.takeBack(seq)
	g.outdate(seq)
	g.readFrom(seq)
	if g.unsure == nil {
		g.unsure = map[int64]int{}
	}
	g.unsure[seq] = size
	g.retryLater()
}

// takeBack forgets which member was to have a message. The lock is held.
func (g *shareGroup) takeBack(seq int64) {
	g.unhold(seq)
	delete(g.out, seq)
	delete(g.chosen, seq)
}

// outdate keeps who has just read a message, if somebody has, from handing it out.
// The lock is held.
func (g *shareGroup) outdate(seq int64) {
	if !g.draining {
		return
	}
	if g.leftStore == nil {
		g.leftStore = map[int64]struct{}{}
	}
	g.leftStore[seq] = struct{}{}
}

// notTaken is returned for a message that was lent to nobody: who drains says when it
// is read again.
func (g *shareGroup) notTaken(q *groupQueue, seq int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.queue == q {
		g.unhold(seq)
		delete(g.out, seq)
	}
}

// readFrom has the queue read, from a number on. The lock is held.
func (g *shareGroup) readFrom(seq int64) {
	if g.unread == 0 || seq < g.unread {
		g.unread = seq
	}
}

// hold enters which member is to have a message of the queue in memory; nil: it
// is moved to a member's queue.
func (g *shareGroup) hold(l *lease, s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.queue != l.queue {
		return
	}
	g.unhold(l.seq)
	g.out[l.seq] = s
	if s == nil {
		return
	}
	if g.leased == nil {
		g.leased = map[*session]int{}
	}
	g.leased[s]++
	g.lent++
}

// unhold takes a message off the count of the member that had it. The lock is
// held.
func (g *shareGroup) unhold(seq int64) {
	s := g.out[seq]
	if s == nil {
		return
	}
	g.leased[s]--
	g.lent--
	if g.leased[s] == 0 {
		delete(g.leased, s)
	}
}

// movedOn tells whether the message is in the member's queue now. Where there was no
// room it is no use to try at once again, unless there is by now.
func (l *lease) movedOn(err error, arrived bool, to *target) {
	g := l.group
	if err != nil {
		g.unclear(l.queue, l.seq, l.size)
		return
	}
	if arrived {
		g.broker.ledger.releaseShared(g.broker, l.queue, l.size)
	}
	g.returned(l.queue, l.seq, arrived)
	if to.seq > 0 || g.broker.ledger.fits(g.broker, to.queue(), l.size) {
		g.wake()
	} else {
		g.wakeLater()
	}
}

// The pause after the store couldn't be read or written, or nobody took what is
// there; and what it grows to until somebody does, or comes.
const (
	drainRetry = 250 * time.Millisecond
	maxRetry   = 8 * time.Second
)

// wakeLater wakes the group after the pause, once however often it is called: also
// when nobody took what is there, as a policy may let somebody have it by then.
func (g *shareGroup) wakeLater() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.retryLater()
}

// retryLater is wakeLater for who holds the lock.
func (g *shareGroup) retryLater() {
	if g.retrying {
		return
	}
	g.retrying = true
	pause := max(g.pause, drainRetry)
	g.pause = min(2*pause, maxRetry)
	time.AfterFunc(pause, func() {
		g.mu.Lock()
		g.retrying = false
		g.readSkipped()
		g.mu.Unlock()
		g.wake()
	})
}

// readSkipped has those read again that nobody might receive. The lock is held.
func (g *shareGroup) readSkipped() {
	if g.skipped > 0 {
		g.readFrom(g.skipped)
		g.skipped = 0
	}
}

// retrySkipped is readSkipped for a member that may receive others than those that
// were there. The lock is held.
func (g *shareGroup) retrySkipped() {
	g.readSkipped()
	g.pause = 0
}

// arrived wakes the group for a member that has just come.
func (g *shareGroup) arrived() {
	g.mu.Lock()
	g.retrySkipped()
	g.mu.Unlock()
	g.wake()
}

// took shortens the pause: somebody takes what is there.
func (g *shareGroup) took() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pause = 0
}

// skip leaves a message that some members may not receive and the others have no
// room for: it isn't to hold up others.
func (g *shareGroup) skip(seq int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.skipped == 0 || seq < g.skipped {
		g.skipped = seq
	}
}

// giveBack hands the message of a member that went away to another one.
func (l *lease) giveBack() {
	g := l.group
	if l.queue != nil && !l.queue.deleted.Load() {
		g.returned(l.queue, l.seq, false)
		g.wake()
		return
	}
	g = g.current()
	now := g.broker.clock()
	m := outgoing{Publish: *l.kept, expires: l.expires, kept: l.kept}
	if !l.expires.IsZero() && !refreshExpiry(&m.Publish, l.expires, now) {
		g.broker.count.publishDropped.Add(1)
		return
	}
	p := &parcel{expires: l.expires}
	_, o := g.give(context.Background(), &gift{message: &m, topic: string(m.Topic), qos: 1, parcel: p, now: now, first: anyMember()})
	if o != handed {
		g.broker.count.publishDropped.Add(1)
		return
	}
	if len(p.targets) > 0 {
		p.kept = l.kept
		g.broker.ledger.post(g.broker, p, func(err error) {
			if err != nil {
				g.broker.count.publishDropped.Add(1)
			}
		})
	}
}

// maxChosen bounds how many messages of a queue remember whom they are for.
const maxChosen = 1024

// clearDoubt looks which of the doubtful messages between two numbers the queue
// doesn't have any more, and takes those off its count.
func (g *shareGroup) clearDoubt(q *groupQueue, after, through int64, rows []imprint.QueuedMessage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.queue != q {
		return
	}
	for seq, size := range g.unsure {
		_, since := g.leftStore[seq] // it became unclear after the reading had begun
		if since || seq <= after || seq > through {
			continue
		}
		delete(g.unsure, seq)
		if !slices.ContainsFunc(rows, func(row imprint.QueuedMessage) bool { return row.Seq == seq }) {
			g.broker.ledger.releaseShared(g.broker, q, size)
		}
	}
}

// firstFor gives the place of the member that a message of the queue is for, or
// any.
func (g *shareGroup) firstFor(seq int64) uint32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	sub := g.chosen[seq]
	delete(g.chosen, seq)
	if sub != nil && sub.place < len(g.members) && g.members[sub.place] == sub {
		return uint32(sub.place)
	}
	return anyMember()
}

// anyMember draws the member that is asked first.
func anyMember() uint32 { return rand.Uint32() >> 1 }

// storedMessage tells the group that a message may be in its queue, and whom it was
// drawn for when it came; nil: anybody.
func (q *groupQueue) storedMessage(seq int64, chosen *subscription) {
	g := q.group
	g.mu.Lock()
	if g.queue == q {
		g.readFrom(seq)
		if chosen != nil && len(g.chosen) < maxChosen {
			if g.chosen == nil {
				g.chosen = map[int64]*subscription{}
			}
			g.chosen[seq] = chosen
		}
	}
	g.mu.Unlock()
	g.wake()
}

// wake hands out what waits in the queue, if somebody may be there to take it.
func (g *shareGroup) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		// Whoever drains has taken unread, and may have asked before there was room.
		g.again = true
		return
	}
	if g.queue == nil || g.unread == 0 {
		return
	}
	if !slices.ContainsFunc(g.members, func(sub *subscription) bool { return sub.session.conn.Load() != nil }) {
		return
	}
	g.draining = true
	g.broker.background.Go(g.drain)
}

// drain hands out messages of the queue until none is left, nobody takes one, or
// the members have as many as they may.
func (g *shareGroup) drain() {
	for {
		err := g.drainOnce()
		if err != nil {
			g.broker.opts.Logger.Error("couldn't hand out a shared subscription's messages", "tenant", g.realm.tenant.String(), "error", err)
		}
		g.mu.Lock()
		if !g.again || err != nil {
			g.draining = false
			g.again = false
			left := g.unread > 0 || g.skipped > 0
			if !left {
				g.chosen = nil // of messages that were handed out before their draw was known
			}
			g.mu.Unlock()
			if err != nil || left {
				g.wakeLater()
			}
			return
		}
		g.again = false
		g.mu.Unlock()
	}
}

func (g *shareGroup) drainOnce() error {
	ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	q, after, page := g.start()
	if q == nil {
		return nil
	}
	for {
		rows, err := g.read(ctx, q, after, page)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			switch g.handOut(ctx, q, row) {
			case noRoom:
				g.mu.Lock()
				g.readFrom(row.Seq)
				g.mu.Unlock()
				return nil
			case forbidden, tooLarge, crowded:
				g.skip(row.Seq)
				page = loadMessages
			}
		}
		after = rows[len(rows)-1].Seq
	}
}

// start gives the queue, nil when it isn't to be read, the number after which it
// is, and how many messages the connected members have room for. What is stored or
// given back from now on is read the next time.
func (g *shareGroup) start() (q *groupQueue, after int64, room int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.queue == nil || g.unread == 0 {
		return nil, 0, 0
	}
	after = g.unread - 1
	g.unread = 0
	for _, sub := range g.members {
		switch {
		case sub.session.conn.Load() == nil:
		case sub.qos > 0 && sub.session.durable == nil:
			room += g.broker.opts.MaxSharedInflight - g.leased[sub.session]
		default:
			room += loadMessages
		}
		if room >= loadMessages {
			break
		}
	}
	return g.queue, after, min(max(room, 1), loadMessages)
}

// read gives the next messages of the queue.
func (g *shareGroup) read(ctx context.Context, q *groupQueue, after int64, limit int) ([]imprint.QueuedMessage, error) {
	g.mu.Lock()
	g.leftStore = nil
	g.mu.Unlock()
	var rows []imprint.QueuedMessage
	err := g.broker.store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := tx.Queued(q.key, after, limit, loadBytes)
		rows = found
		return err
	})
	if err != nil {
		g.mu.Lock()
		g.readFrom(after + 1)
		g.mu.Unlock()
		return nil, err
	}
	through := int64(math.MaxInt64)
	if len(rows) > 0 {
		through = rows[len(rows)-1].Seq
	}
	g.clearDoubt(q, after, through, rows)
	return rows, nil
}

// lend enters that a member is to have a message of the queue. Lent is false when
// one has it, or had it, already; more is false when too many are on their way.
func (g *shareGroup) lend(q *groupQueue, seq int64) (lent, more bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, taken := g.out[seq]
	_, outdated := g.leftStore[seq]
	switch {
	case g.queue != q:
		return false, false
	case taken || outdated:
		return false, true
	case len(g.out)-g.lent >= maxMoving:
		return false, false
	}
	if g.out == nil {
		g.out = map[int64]*session{}
	}
	g.out[seq] = nil
	return true, true
}

// handOut gives one queued message to a member. With noRoom it is no use to try the
// next ones.
func (g *shareGroup) handOut(ctx context.Context, q *groupQueue, row imprint.QueuedMessage) outcome {
	lent, more := g.lend(q, row.Seq)
	switch {
	case !more:
		return noRoom
	case !lent:
		return handed
	}
	l := &lease{group: g, expires: row.ExpiresAt, queue: q, seq: row.Seq, size: len(row.Packet)}
	packet, err := decodeQueued(row.Packet)
	if err != nil {
		g.broker.opts.Logger.Error("a message of a shared subscription's queue is dropped", "tenant", g.realm.tenant.String(), "filter", g.filter, "number", row.Seq, "error", err)
		l.settle()
		return handed
	}
	l.kept = packet
	now := g.broker.clock()
	m := outgoing{Publish: *packet, expires: row.ExpiresAt, kept: packet}
	if !row.ExpiresAt.IsZero() && !refreshExpiry(&m.Publish, row.ExpiresAt, now) {
		g.broker.count.publishDropped.Add(1)
		l.settle()
		return handed
	}
	p := &parcel{kept: packet, expires: row.ExpiresAt, moved: l}
	_, o := g.give(ctx, &gift{message: &m, topic: string(m.Topic), qos: 1, from: l, parcel: p, now: now, first: g.firstFor(row.Seq)})
	if o != handed {
		g.notTaken(q, row.Seq)
		return o
	}
	g.took()
	if len(p.targets) > 0 {
		g.broker.ledger.awaitRoom(ctx)
		g.broker.ledger.post(g.broker, p, nil)
	}
	return o
}

// caughtUp waits until the queue is low, or the time is over, which late says from
// then on.
func (q *groupQueue) caughtUp(over <-chan time.Time, late *bool) bool {
	b := q.group.broker
	b.ledger.mu.Lock()
	if q.behind || q.low(b) {
		b.ledger.mu.Unlock()
		return true
	}
	if *late {
		b.ledger.mu.Unlock()
		return false
	}
	if q.room == nil {
		q.room, q.paced = make(chan struct{}), paceMark{time.Now(), q.released}
	}
	room := q.room
	b.ledger.mu.Unlock()
	select {
	case <-room:
		return true
	case <-over:
		*late = true
		return false
	}
}

// keepsPace decides, at the end of a window, whether the members are waited for
// any longer.
func (q *groupQueue) keepsPace() bool {
	l := q.group.broker.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	q.behind = q.behind || q.paced.slow(time.Now(), q.released)
	return !q.behind
}
