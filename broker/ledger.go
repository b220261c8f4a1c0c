package broker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// change is something of the sessions that the store is to keep.
type change struct {
	// write makes the change, perhaps more than once.
	write func(tx imprint.Tx) error
	// done, when not nil, hears whether it is durable.
	done func(err error)
	size int // bytes of messages, about; add counts what the change itself takes
	// insist: while the store takes nothing, the change is tried again, with those
	// that come after it or after a pause. What was ended, also a will that was taken
	// back, must not come back after a restart.
	insist bool
	// end: it is insisted on beyond maxAgain, too. There are no more of them than of
	// sessions, and of those maxEndings has a bound.
	end bool
}

// ledger writes the changes of all sessions, in the order in which they came,
// many of them in one transaction. Both functions of a change run on its
// goroutine; it never waits for a client.
type ledger struct {
	store  imprint.Store
	logger *slog.Logger
	done   chan struct{}

	// reserving are the numbers that the present transaction reserves. It is the
	// goroutine's own.
	reserving map[*session]int64
	// again are changes to insist on that failed; the goroutine's own, too.
	again []change

	// mu guards what follows, and the numbers of all queues. It may be taken
	// while a session's lock is held, never the reverse.
	mu      sync.Mutex
	pending []change
	size    int
	room    chan struct{} // closed when size is small again; nil when nobody waits
	wake    chan struct{}
	closed  bool
}

const (
	// maxChanges and maxChangeBytes bound one transaction.
	maxChanges     = 512
	maxChangeBytes = 4 << 20
	// maxLedgerBytes is from where on publishers wait for the store.
	maxLedgerBytes = 32 << 20
	// changeSize and targetSize are about what a change, and each queue that a
	// message goes into, take beside the bytes of messages.
	changeSize = 256
	targetSize = 128
	// maxAgain bounds the changes that are tried again, but for ends.
	maxAgain = 16384
	// ledgerTimeout bounds one transaction.
	ledgerTimeout = 30 * time.Second
	// ledgerRetry is the pause before changes are tried again.
	ledgerRetry = time.Second
)

func newLedger(store imprint.Store, logger *slog.Logger) *ledger {
	l := &ledger{store: store, logger: logger, done: make(chan struct{}), wake: make(chan struct{}, 1), reserving: map[*session]int64{}}
	go l.run()
	return l
}

// add takes a change. Done isn't called when the ledger is closed.
func (l *ledger) add(c change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addLocked(c)
}

func (l *ledger) addLocked(c change) bool {
	if l.closed {
		return false
	}
	c.size += changeSize
	l.pending = append(l.pending, c)
	l.size += c.size
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true
}

// wait takes a change and returns when it is durable.
func (l *ledger) wait(ctx context.Context, c change) error {
	result := make(chan error, 1)
	then := c.done
	c.done = func(err error) {
		if then != nil {
			then(err)
		}
		result <- err
	}
	l.mu.Lock()
	taken := l.addLocked(c)
	l.mu.Unlock()
	if !taken {
		return errShutdown()
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return imprint.Errorf(imprint.CodeUnavailable, "couldn't wait for the store: %w", ctx.Err())
	}
}

func errShutdown() error {
	return imprint.Errorf(imprint.CodeServerShutdown, "the server is shutting down")
}

// full tells that publishers should wait.
func (l *ledger) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size >= maxLedgerBytes
}

// awaitRoom returns when the store has caught up so far that more may come.
func (l *ledger) awaitRoom(ctx context.Context) {
	for {
		l.mu.Lock()
		if l.size < maxLedgerBytes || l.closed {
			l.mu.Unlock()
			return
		}
		if l.room == nil {
			l.room = make(chan struct{})
		}
		room := l.room
		l.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return
		}
	}
}

// close writes what waits and ends the ledger.
func (l *ledger) close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.wake)
	}
	l.mu.Unlock()
	<-l.done
}

func (l *ledger) run() {
	defer close(l.done)
	for more := true; more; {
		select {
		case _, more = <-l.wake:
		case <-l.retry():
			l.commitAll(nil)
		}
		for batch := l.take(); len(batch) > 0; batch = l.take() {
			l.commitAll(batch)
		}
	}
	l.commitAll(nil)
}

// retry fires when it is time to try again what failed, though nothing comes after
// it.
func (l *ledger) retry() <-chan time.Time {
	if len(l.again) == 0 {
		return nil
	}
	return time.After(ledgerRetry)
}

// commitAll writes what failed before, and then a batch. What comes after something
// that the store doesn't take now isn't written either: it may build on it.
func (l *ledger) commitAll(batch []change) {
	all := append(l.again, batch...)
	l.again = nil
	for len(all) > 0 {
		n := min(len(all), maxChanges)
		err := l.commit(all[:n])
		all = all[n:]
		if err != nil {
			l.conclude(all, err)
			return
		}
	}
}

// take gives the next changes for one transaction.
func (l *ledger) take() []change {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, size := 0, 0
	for n < len(l.pending) && n < maxChanges && size < maxChangeBytes {
		size += l.pending[n].size
		n++
	}
	batch := l.pending[:n:n]
	l.pending = l.pending[n:]
	if len(l.pending) == 0 {
		l.pending = nil
	}
	l.size -= size
	if l.room != nil && l.size < maxLedgerBytes/2 {
		close(l.room)
		l.room = nil
	}
	return batch
}

// commit writes changes together. When that fails for a reason of one of them,
// each is tried alone. The error says that the store takes nothing now.
func (l *ledger) commit(batch []change) error {
	err := l.update(batch)
	own := err != nil && imprint.CodeOf(err) == imprint.CodeInternal
	if own && len(batch) > 1 {
		for n := range batch {
			err = l.commit(batch[n : n+1])
			if err != nil {
				l.conclude(batch[n+1:], err)
				return err
			}
		}
		return nil
	}
	l.conclude(batch, err)
	if own {
		return nil
	}
	return err
}

// conclude tells of changes that were written, or that weren't, unless those are to be
// tried again.
func (l *ledger) conclude(batch []change, err error) {
	if len(batch) == 0 {
		return
	}
	told := err
	if err != nil {
		l.logger.Error("couldn't store changes of MQTT sessions", "changes", len(batch), "error", err)
		told = &imprint.Error{Code: imprint.CodeUnavailable, Op: "couldn't store a change of the session", Err: err}
		clear(l.reserving)
	}
	for s, through := range l.reserving {
		s.durable.reserved.Store(through)
	}
	clear(l.reserving)
	for n := range batch {
		again := batch[n].insist && (batch[n].end || len(l.again) < maxAgain)
		if err != nil && again && imprint.CodeOf(err) != imprint.CodeInternal {
			l.again = append(l.again, batch[n])
			continue
		}
		if batch[n].done != nil {
			batch[n].done(told)
		}
	}
}

func (l *ledger) update(batch []change) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), ledgerTimeout)
	defer cancel()
	return l.store.Update(ctx, func(tx imprint.Tx) error {
		clear(l.reserving)
		for n := range batch {
			err := batch[n].write(tx)
			if err != nil {
				return fmt.Errorf("couldn't write a change: %w", err)
			}
		}
		return nil
	})
}

// parcel is a message for sessions and groups whose queues are in the store.
type parcel struct {
	kept    *mqtt.Publish
	raw     []byte // as an MQTT 5 PUBLISH packet with QoS 1, without RETAIN
	raw311  []byte // as one of MQTT 3.1.1, made when the first client needs it
	expires time.Time
	targets []target
	moved   *lease // not nil: it leaves a group's queue for a member's
	arrived bool   // moved is in the member's queue, once that is durable
	// behind are connected clients, and share groups, whose queue is long, for the
	// publisher to wait for.
	behind []paced
}

// target is one queue that a parcel goes into.
type target struct {
	session *session    // nil: it is the group's
	group   *groupQueue // nil: it is the session's
	retain  bool
	seq     int64         // its number there; 0: there was no room
	shared  *shareGroup   // that chose the session; nil: none
	decided *connection   // that may receive it; nil: nobody was asked
	bound   *binding      // as far as is known, by this: what is newer decides anew
	chosen  *subscription // whom a message in a group's queue is for; nil: any
	stray   bool          // the chosen session has no room, or it or the group's queue was gone before the message was stored
}

func (t *target) queue() *queue {
	if t.session != nil {
		return &t.session.durable.queue
	}
	return &t.group.queue
}

// post puts a parcel into its queues. Done hears when it is durable.
func (l *ledger) post(b *Broker, p *parcel, done func(error)) {
	packet := *p.kept
	packet.QoS, packet.PacketID, packet.Retain, packet.Dup = 1, 1, false, false
	p.kept, p.raw = &packet, packet.Append(nil, mqtt.V5)
	l.mu.Lock()
	for n := range p.targets {
		l.number(b, p, &p.targets[n])
	}
	taken := l.addLocked(change{
		write: p.write, size: (len(p.raw) + targetSize) * len(p.targets),
		done: func(err error) {
			p.written(b, err)
			if strays := p.strays(b, err); strays != nil {
				l.post(b, strays, done)
				return
			}
			if done != nil {
				done(err)
			}
		},
	})
	l.mu.Unlock()
	if !taken && done != nil {
		done(errShutdown())
	}
}

// number gives a message its place in a target's queue, unless that is full. The
// lock is held.
func (l *ledger) number(b *Broker, p *parcel, t *target) {
	q := t.queue()
	if t.shared != nil && !q.fits(b, len(p.raw)) {
		return // what was meant for one member of a group goes to another, or waits
	}
	seq, ok := q.place(b, len(p.raw))
	if !ok {
		return
	}
	t.seq = seq
	if q.low(b) {
		return
	}
	if t.session == nil {
		p.behind = append(p.behind, t.group)
		return
	}
	if c := t.session.conn.Load(); c != nil {
		p.behind = append(p.behind, c)
	}
}

// place gives a message its number in a queue, unless that is full.
func (l *ledger) place(b *Broker, q *queue, size int) (int64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return q.place(b, size)
}

func (q *queue) place(b *Broker, size int) (int64, bool) {
	if !q.fits(b, size) {
		q.dropped++
		b.count.queueFull.Add(1)
		return 0, false
	}
	q.last++
	q.messages++
	q.bytes += int64(size)
	return q.last, true
}

// fullness tells how full a queue is, in parts of 256.
func (l *ledger) fullness(b *Broker, q *queue) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(q.messages*256/b.opts.MaxSessionMessages, int(q.bytes*256/int64(b.opts.MaxSessionBytes)))
}

// release takes a message off the count of a queue. It reports whether the queue
// has just become one with much room.
func (l *ledger) release(b *Broker, q *queue, size int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return q.remove(b, size)
}

func (q *queue) remove(b *Broker, size int) bool {
	before := q.low(b)
	q.messages--
	q.bytes = max(0, q.bytes-int64(size))
	if q.messages <= 0 {
		q.messages, q.bytes = 0, 0
	}
	return !before && q.low(b)
}

// releaseShared is release for the queue of a group. Publishers that wait for it
// go on when it is low.
func (l *ledger) releaseShared(b *Broker, q *groupQueue, size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q.remove(b, size)
	q.released += int64(size)
	if !q.low(b) {
		return
	}
	q.behind = false
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}

// waiting gives the number of messages in a queue.
func (l *ledger) waiting(q *queue) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return q.messages
}

// fits tells whether a queue has room for a message.
func (l *ledger) fits(b *Broker, q *queue, size int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return q.fits(b, size)
}

func (q *queue) fits(b *Broker, size int) bool {
	return q.messages < b.opts.MaxSessionMessages && q.bytes+int64(size) <= int64(b.opts.MaxSessionBytes)
}

// low tells that a queue isn't half full.
func (q *queue) low(b *Broker) bool {
	return q.messages <= b.opts.MaxSessionMessages/2 && q.bytes <= int64(b.opts.MaxSessionBytes/2)
}

// tellDropped gives how many messages a queue had no room for since the last
// call.
func (l *ledger) tellDropped(q *queue) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := q.dropped
	q.dropped = 0
	return n
}

// held completes a message for a connection. It runs on the ledger's goroutine.
func (p *parcel) held(c *connection, h held) held {
	if c.aliasMaximum > 0 || !p.expires.IsZero() {
		h.packet, h.size = p.kept, p.kept.Size(c.version)
		return h
	}
	h.raw = p.raw
	if c.version != mqtt.V5 {
		if p.raw311 == nil {
			packet := *p.kept
			packet.QoS, packet.PacketID, packet.Retain, packet.Dup = 1, 1, false, false
			p.raw311 = packet.Append(nil, c.version)
		}
		h.raw = p.raw311
	}
	h.size, h.idAt = len(h.raw), packetIDAt(h.raw, len(p.kept.Topic))
	return h
}

// write puts the message into each queue that has given it a number and that
// still exists.
func (p *parcel) write(tx imprint.Tx) error {
	p.arrived = false
	for n := range p.targets {
		t := &p.targets[n]
		missed := t.seq == 0 || t.gone()
		t.stray = missed && p.moved == nil && (t.shared != nil || t.group != nil && t.seq > 0)
		if missed {
			continue
		}
		p.arrived = p.moved != nil
		raw := p.raw
		if t.retain {
			raw = append([]byte{raw[0] | retainBit}, raw[1:]...)
		}
		err := tx.PutQueued(imprint.QueuedMessage{Session: t.queue().key, Seq: t.seq, Packet: raw, ExpiresAt: p.expires, Group: t.chooser()})
		if err != nil {
			return err
		}
		if t.session == nil || t.session.conn.Load() == nil {
			continue
		}
		err = t.session.reserve(tx, t.seq)
		if err != nil {
			return err
		}
	}
	if p.arrived {
		return tx.DeleteQueued(p.moved.queue.key, p.moved.seq)
	}
	return nil
}

// chooser is the number of the group that has chosen the session; 0: none has.
func (t *target) chooser() int64 {
	if t.shared == nil {
		return 0
	}
	return t.shared.number
}

func (t *target) gone() bool {
	if t.group != nil {
		return t.group.deleted.Load()
	}
	t.session.mu.Lock()
	defer t.session.mu.Unlock()
	return t.session.over
}

// written tells each queue's owner.
func (p *parcel) written(b *Broker, err error) {
	if p.moved != nil {
		defer p.moved.movedOn(err, p.arrived, &p.targets[0])
	}
	for n := range p.targets {
		t := &p.targets[n]
		switch {
		case t.seq == 0:
		case err != nil:
			// The store may have it nevertheless.
			if t.group != nil {
				b.ledger.releaseShared(b, t.group, len(p.raw))
				t.group.storedMessage(t.seq, nil)
			} else {
				b.ledger.release(b, t.queue(), len(p.raw))
				t.session.unsure(t.seq)
			}
		case t.group != nil:
			t.group.storedMessage(t.seq, t.chosen)
		default:
			t.session.stored(t.seq, p, t)
		}
	}
}

// strays gives the message as one for the queues of the groups whose chosen
// member can't have it any more; nil when there is none. Where a group keeps
// nothing, whoever is left gets it from memory.
func (p *parcel) strays(b *Broker, err error) *parcel {
	if err != nil {
		return nil
	}
	var again []target
	for n := range p.targets {
		t := &p.targets[n]
		if !t.stray {
			continue
		}
		g := t.shared
		if g == nil {
			g = t.group.group
		}
		g = g.current()
		q := g.stored()
		if q == nil {
			l := &lease{group: g, kept: p.kept, expires: p.expires}
			b.background.Go(l.giveBack)
			continue
		}
		again = append(again, target{group: q})
	}
	if len(again) == 0 {
		return nil
	}
	return &parcel{kept: p.kept, expires: p.expires, targets: again}
}
