package broker

import "time"

// A publisher may be quicker than a subscriber. While the subscriber's backlog
// is high, and it takes its messages at a fair pace, the publisher waits, so that
// none is lost and no connection ends only because both ends of it are busy. A
// subscriber that takes less than that, down to nothing at all, is waited for
// once, for paceWindow, and from then on slows nobody.
const (
	paceWindow = 50 * time.Millisecond
	paceBytes  = 64 << 10 // that the client must take in each paceWindow
)

// backlog is what waits for the client, as parts of 256 of what may wait. The
// lock is held.
func (c *connection) backlog() int {
	s, opts := c.session, &c.broker.opts
	waits := max((len(c.out.pending)+s.waitingBytes)*256/opts.MaxQueuedBytes, s.waiting.len()*256/opts.MaxQueuedMessages)
	if s.durable == nil {
		return waits
	}
	return max(waits, c.broker.ledger.fullness(c.broker, &s.durable.queue))
}

// lowBacklog is what backlog is below while nobody need wait for the client.
const lowBacklog = 128

// backlogHigh says that publishers should wait. The lock is held.
func (c *connection) backlogHigh() bool {
	return !c.out.behind && c.backlog() >= lowBacklog
}

// signalRoom wakes publishers, and shared subscriptions whose message had no room,
// when the backlog is low again or the connection ends. The lock is held.
func (c *connection) signalRoom() {
	if c.out.room == nil && !c.out.behind && !c.out.declined {
		return
	}
	if !c.out.closing && c.backlog() >= 64 {
		return
	}
	c.out.behind = false
	if c.out.declined {
		c.out.declined = false
		c.broker.background.Go(c.session.wakeGroups)
	}
	if c.out.room != nil {
		close(c.out.room)
		c.out.room = nil
	}
}

// paced is what a publisher waits for: a connection, or the queue of a share
// group.
type paced interface {
	// caughtUp waits until the backlog is low again, or the time is over, which late
	// says from then on.
	caughtUp(over <-chan time.Time, late *bool) bool
	// keepsPace decides, at the end of a window, whether it is waited for any longer.
	keepsPace() bool
}

// awaitRoom returns when the backlog of every one of them is low again or turns
// out to be one that isn't waited for, or, at the end of a window, when the
// publisher's own connection is to end. All of them are given the same time: many
// clients that take nothing hold a publisher up no longer than one.
func (c *connection) awaitRoom(behind []paced) {
	timer := time.NewTimer(paceWindow)
	defer timer.Stop()
	for {
		late := false
		for n, other := range behind {
			if other != nil && !other.caughtUp(timer.C, &late) {
				continue
			}
			behind[n] = nil
		}
		if !late || c.ended.Load() != nil {
			return
		}
		more := false
		for n, other := range behind {
			if other != nil && !other.keepsPace() {
				behind[n] = nil
			}
			more = more || behind[n] != nil
		}
		if !more {
			return
		}
		timer.Reset(paceWindow)
	}
}

// caughtUp waits until the backlog is low again, or the time is over, which late
// says from then on.
func (c *connection) caughtUp(over <-chan time.Time, late *bool) bool {
	c.session.mu.Lock()
	if c.out.closing || !c.backlogHigh() {
		c.session.mu.Unlock()
		return true
	}
	if *late {
		c.session.mu.Unlock()
		return false
	}
	if c.out.room == nil {
		c.out.room = make(chan struct{})
		c.out.paced = paceMark{time.Now(), c.out.written}
	}
	room := c.out.room
	c.session.mu.Unlock()
	select {
	case <-room:
		return true
	case <-over:
		*late = true
		return false
	}
}

// paceMark is where a window began. The publishers that wait for one client share
// it, however many come and go.
type paceMark struct {
	at    time.Time
	taken int64 // bytes, until then
}

// slow tells that too little was taken in a whole window, and begins the next one.
func (m *paceMark) slow(now time.Time, taken int64) bool {
	if now.Sub(m.at) < paceWindow*9/10 { // a timer may be a little early for the mark
		return false
	}
	slow := taken-m.taken < paceBytes
	*m = paceMark{now, taken}
	return slow
}

// keepsPace decides, at the end of a window, whether the client is waited for
// any longer.
func (c *connection) keepsPace() bool {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	c.out.behind = c.out.behind || c.out.paced.slow(time.Now(), c.out.written)
	return !c.out.behind
}

// bucket is a rate limit in one word (GCRA): when all that it let through would
// be paid for at the rate. The zero value is full.
type bucket struct{ paid time.Time }

// take takes one of rate per second, with a burst of one second's worth, or says
// that there is none.
func (b *bucket) take(now time.Time, rate int) bool {
	if b.paid.Before(now) {
		b.paid = now
	}
	next := b.paid.Add(time.Second / time.Duration(rate))
	if next.Sub(now) > time.Second {
		return false
	}
	b.paid = next
	return true
}

// charge takes n of rate per second and gives how long to wait until that is
// paid for, beyond a burst of one second's worth.
func (b *bucket) charge(now time.Time, n, rate int) time.Duration {
	if b.paid.Before(now) {
		b.paid = now
	}
	b.paid = b.paid.Add(time.Duration(n) * time.Second / time.Duration(rate))
	return max(0, b.paid.Sub(now)-time.Second)
}
