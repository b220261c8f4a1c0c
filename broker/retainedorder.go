package broker

import (
	"slices"
	"sync"
)

// line is who waits to route what was retained on one topic, in the order of the
// store, so that subscribers get last what stays. It is the turn of the first one. The
// realm's lock guards it.
type line struct{ turns []*turn }

// turn is a message's place in the line of its topic. It has one from just before it is
// stored until it is left.
type turn struct {
	realm *realm
	topic string
	come  chan struct{} // closed when it is this one's turn; nil: not stored, or left
	gone  bool          // nobody waits for it any more
	over  chan struct{} // closed when it is left; nil: nobody waits for that
}

// beStored gives the place as the ledger comes to the message, perhaps more than once: who
// reads the message finds it in the line, or gone on from there.
func (t *turn) beStored() {
	t.realm.mu.Lock()
	defer t.realm.mu.Unlock()
	t.take()
}

// take gives the place. The realm's lock is held.
func (t *turn) take() {
	if t.gone || t.come != nil {
		return
	}
	l := t.realm.lines[t.topic]
	if l == nil {
		l = &line{}
		if t.realm.lines == nil {
			t.realm.lines = make(map[string]*line)
		}
		t.realm.lines[t.topic] = l
	}
	t.come = make(chan struct{})
	l.turns = append(l.turns, t)
	if len(l.turns) == 1 {
		close(t.come)
	}
}

// begin returns when all are gone that were stored before, and when whoever still has
// an older message of the topic in hand for a new subscription has either sent it or
// won't. The caller routes the message then. It may be called on nil.
func (t *turn) begin() {
	if t == nil {
		return
	}
	t.await()
	t.realm.mu.Lock()
	g := t.realm.glances[t.topic]
	t.realm.mu.Unlock()
	if g != nil {
		g.mu.Lock()
		g.routed++
		g.mu.Unlock()
	}
}

// await returns when all are gone that were stored before.
func (t *turn) await() {
	t.realm.mu.Lock()
	come := t.come
	t.realm.mu.Unlock()
	if come != nil {
		<-come
	}
}

// leave lets the next one go on. It may be called again, and on nil.
func (t *turn) leave() {
	for t != nil && !t.left() {
		t.await()
	}
}

// left is leave when it needn't wait; it reports false when it is another one's turn.
func (t *turn) left() bool {
	t.realm.mu.Lock()
	defer t.realm.mu.Unlock()
	if t.come == nil {
		t.gone = true
		return true
	}
	if t.realm.lines[t.topic].turns[0] != t {
		return false
	}
	t.giveUp()
	return true
}

// giveUp takes it out of the line, wherever it stands there. The realm's lock is held.
func (t *turn) giveUp() {
	t.gone = true
	if t.come == nil {
		return
	}
	t.come = nil
	if t.over != nil {
		close(t.over)
	}
	l := t.realm.lines[t.topic]
	at := slices.Index(l.turns, t)
	l.turns = slices.Delete(l.turns, at, at+1)
	switch {
	case len(l.turns) == 0:
		delete(t.realm.lines, t.topic)
	case at == 0:
		close(l.turns[0].come)
	}
}

// lineEnds gives what is closed when all are gone that stand in the line of a topic; nil:
// none does. The realm's lock is held.
func (r *realm) lineEnds(topic string) <-chan struct{} {
	l := r.lines[topic]
	if l == nil {
		return nil
	}
	last := l.turns[len(l.turns)-1]
	if last.over == nil {
		last.over = make(chan struct{})
	}
	return last.over
}

// glance is one topic whose retained message is being read for new subscriptions.
//
// Such a subscription is in the topic tree before its retained message is read. So a
// message that is routed after the reading began reaches it as any other message
// does, and what was read may be older: were that sent after it, the client would be
// left with the wrong state until the next publish, and with a ghost after a deletion.
// What was read is therefore sent only while nothing retained on the topic has begun to
// be routed since, and routing begins only when it is in the session, at its place
// before the newer one. Otherwise it is let go, as the newer one is on its way. Nor is it
// sent while any stands in the line: it may be older than what was read.
//
// Messages that aren't retained don't count: what is read outlives them, and who
// subscribes later gets just that.
type glance struct {
	readers int // guarded by the realm's lock
	mu      sync.RWMutex
	routed  uint64 // retained messages that began to be routed, since somebody looks
}

// look begins to read the retained message of a topic, and gives what decides
// whether it was overtaken.
func (r *realm) look(topic string) (g *glance, routed uint64) {
	r.mu.Lock()
	g = r.glances[topic]
	if g == nil {
		g = &glance{}
		if r.glances == nil {
			r.glances = make(map[string]*glance)
		}
		r.glances[topic] = g
	}
	g.readers++
	r.mu.Unlock()
	return g, g.begun()
}

// begun counts the retained messages that began to be routed.
func (g *glance) begun() uint64 {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.routed
}

// pass sends what was read of a topic, unless a retained message has begun to be routed
// since, or stands in the line: then it gives what is closed when the line is gone.
func (r *realm) pass(topic string, g *glance, routed uint64, send func()) (sent bool, lineEnds <-chan struct{}) {
	r.mu.Lock()
	lineEnds = r.lineEnds(topic)
	g.mu.RLock()
	defer g.mu.RUnlock()
	r.mu.Unlock()
	if lineEnds != nil || g.routed != routed {
		return false, lineEnds
	}
	send()
	return true, nil
}

// lookAway ends what look began.
func (r *realm) lookAway(topic string, g *glance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g.readers--
	if g.readers == 0 {
		delete(r.glances, topic)
	}
}
