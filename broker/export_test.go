package broker

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/policy"
	"github.com/imprint-iot/imprint/trace"
)

// Tree lets the property test reach the topic tree: sessions are numbers there.
type Tree struct {
	tree     tree
	sessions map[int]*session
	subs     map[int]map[string]*subscription
}

func NewTree(parents bool) *Tree {
	return &Tree{tree: tree{parents: parents}, sessions: map[int]*session{}, subs: map[int]map[string]*subscription{}}
}

func (t *Tree) Add(who int, filter string, qos mqtt.QoS) {
	if t.sessions[who] == nil {
		t.sessions[who] = &session{}
		t.subs[who] = map[string]*subscription{}
	}
	sub := &subscription{session: t.sessions[who], filter: filter, qos: qos, inner: filter}
	t.tree.add(sub, t.subs[who][filter], nil)
	t.subs[who][filter] = sub
}

func (t *Tree) Remove(who int, filter string) {
	if sub := t.subs[who][filter]; sub != nil {
		t.tree.remove(sub)
		delete(t.subs[who], filter)
	}
}

// Match gives the QoS by session, and how many times sessions were found.
func (t *Tree) Match(topic string) (map[int]mqtt.QoS, int) {
	found, _ := t.tree.match(topic, matches{})
	got := map[int]mqtt.QoS{}
	for _, sub := range found.subs {
		for who, s := range t.sessions {
			if s == sub.session {
				got[who] = sub.qos
			}
		}
	}
	return got, len(found.subs)
}

// Empty tells that no level is left.
func (t *Tree) Empty() bool { return len(t.tree.root.children) == 0 && len(t.tree.root.subs) == 0 }

// LookAtTheClock makes the timers look at once; by themselves they do every second.
func (b *Broker) LookAtTheClock() { b.timers.poke() }

// Timers gives how many sessions the timers know.
func (b *Broker) Timers() int {
	b.timers.mu.Lock()
	defer b.timers.mu.Unlock()
	return len(b.timers.due)
}

// Groups tells what the shared subscriptions of a tenant remember: the messages
// that their queues count, and those that were drawn for a member.
func (b *Broker) Groups(t imprint.Tenant) (counted, chosen int) {
	r := b.realm(t)
	r.mu.Lock()
	groups := slices.Collect(maps.Values(r.groups))
	r.mu.Unlock()
	for _, g := range groups {
		g.mu.Lock()
		chosen += len(g.chosen)
		g.mu.Unlock()
		if q := g.stored(); q != nil {
			counted += b.ledger.waiting(&q.queue)
		}
	}
	return counted, chosen
}

// NoSubscriptions tells that nothing is left in a tenant's topics.
func (b *Broker) NoSubscriptions(t imprint.Tenant) bool {
	tree := &b.realm(t).topics
	tree.mu.RLock()
	defer tree.mu.RUnlock()
	return len(tree.root.children) == 0
}

// EndWhileSubscribing ends a session in the moment in which it subscribes.
func (b *Broker) EndWhileSubscribing(t imprint.Tenant, filters ...string) {
	c := &connection{broker: b}
	s := &session{broker: b, realm: b.realm(t)}
	s.conn.Store(c)
	var fresh []*subscription
	for _, filter := range filters {
		fresh = append(fresh, &subscription{session: s, filter: filter, inner: filter, qos: 1})
	}
	var both sync.WaitGroup
	both.Go(func() { _, _ = s.install(c, fresh) })
	both.Go(func() {
		for !s.subscribed(filters[0]) {
			runtime.Gosched()
		}
		s.unsubscribeAll()
	})
	both.Wait()
}

// Unwritten gives how many changes the ledger hasn't begun to write.
func (b *Broker) Unwritten() int {
	b.ledger.mu.Lock()
	defer b.ledger.mu.Unlock()
	return len(b.ledger.pending)
}

// AcknowledgeWhileEnding has a PUBACK come to a stored session that has just begun to
// end, and returns when its deletion is durable.
func (b *Broker) AcknowledgeWhileEnding(t imprint.Tenant, id imprint.ClientID, packet uint16) {
	r := b.realm(t)
	r.mu.Lock()
	s := r.sessions[id]
	r.mu.Unlock()
	ending := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.over
	}
	var discarding sync.WaitGroup
	b.timers.mu.Lock() // who ends a session needs it after its first step
	discarding.Go(s.discard)
	for !ending() {
		runtime.Gosched()
	}
	s.acknowledged(s.conn.Load(), packet)
	b.timers.mu.Unlock()
	discarding.Wait()
	_ = b.ledger.wait(context.Background(), change{write: func(imprint.Tx) error { return nil }})
}

// FillLedger gives the ledger a change that is as large as all that may wait there.
func (b *Broker) FillLedger() {
	b.ledger.add(change{size: maxLedgerBytes, write: func(tx imprint.Tx) error { return tx.DeleteSession(1) }})
}

// Insist gives the ledger changes that are tried until the store takes them.
func (b *Broker) Insist(many int, end bool, written, done func()) {
	for range many {
		b.ledger.add(change{
			insist: true, end: end,
			write: func(tx imprint.Tx) error {
				written()
				return tx.DeleteSession(1)
			},
			done: func(error) { done() },
		})
	}
}

// CountEndings has a tenant have so many ended sessions that the store hasn't deleted
// that there is room for a few more.
func (b *Broker) CountEndings(t imprint.Tenant, room int) {
	r := b.realm(t)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endings = maxEndings - room
}

// HoldLedger keeps the ledger, not the store, from going on until letGo is closed.
func (b *Broker) HoldLedger(letGo <-chan struct{}) {
	held := make(chan struct{})
	b.ledger.add(change{
		write: func(imprint.Tx) error { return nil },
		done: func(error) {
			close(held)
			<-letGo
		},
	})
	<-held
}

// TriedAgain gives how many changes the ledger will try again.
func (b *Broker) TriedAgain() int {
	n := 0
	_ = b.ledger.wait(context.Background(), change{
		write: func(imprint.Tx) error { return nil },
		done:  func(error) { n = len(b.ledger.again) },
	})
	return n
}

// LedgerSize gives the bytes that wait for the store, as the ledger counts them, and
// whether somebody waits for room.
func (b *Broker) LedgerSize() (bytes int, awaited bool) {
	b.ledger.mu.Lock()
	defer b.ledger.mu.Unlock()
	return b.ledger.size, b.ledger.room != nil
}

// RememberedClients has clients come and go in one moment, and gives how many of them
// are remembered for their lifecycle events.
func (b *Broker) RememberedClients(t imprint.Tenant, many int) int {
	r := b.realm(t)
	now := b.clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := range many {
		id := imprint.ClientID(strconv.Itoa(n))
		r.nextVersion(id, now)
		r.presence[id].idleSince = now
	}
	return len(r.presence)
}

// LeaveATurnAsItComes has two messages retained on one topic: the first one has its
// turn, and nobody waits any more for the second one in the moment in which it is
// stored. It returns when both are gone, and says whether nothing is left of them.
func (b *Broker) LeaveATurnAsItComes(t imprint.Tenant, topic string) (clean bool) {
	r := b.realm(t)
	take := func(t *turn) {
		r.mu.Lock()
		defer r.mu.Unlock()
		t.take()
	}
	early, late := &turn{realm: r, topic: topic}, &turn{realm: r, topic: topic}
	take(early)
	var both sync.WaitGroup
	// Both queue for a lock that they have missed once after a while: then it is
	// handed on in order.
	pause := func() {
		for began := time.Now(); time.Since(began) < 2*time.Millisecond; {
			runtime.Gosched()
		}
	}
	r.mu.Lock()
	both.Go(late.leave)
	pause()
	both.Go(func() { take(late) })
	pause()
	r.mu.Unlock()
	r.mu.Lock()
	pause()
	r.mu.Unlock()
	pause()
	early.leave()
	both.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lines[topic] == nil
}

// Keep has a policy that allows nothing keep messages of topics from a connection, one
// after the other.
func (b *Broker) Keep(c *Kept, topics ...string) {
	for _, topic := range topics {
		(*connection)(c).noteKept(&binding{policies: policy.Compile()}, &policy.Request{Action: policy.Receive, ResourceName: topic, Now: b.clock()})
	}
}

// Kept is a connection that messages are kept from.
type Kept connection

// NewKept is one that its record knows nothing else of.
func NewKept(rec *trace.Recorder) *Kept { return &Kept{peer: Peer{Rec: rec}} }

// Knows tells that a topic is among those that are kept from it, or that somebody is
// about to enter one.
func (c *Kept) Knows(topic string) bool {
	k := c.kept.Load()
	if !k.mu.TryLock() {
		return true
	}
	defer k.mu.Unlock()
	return slices.Contains(k.topics, topic)
}

// AwaitLedger returns when the ledger has written what it was given, and what came of that.
func (b *Broker) AwaitLedger() {
	for range 2 {
		_ = b.ledger.wait(context.Background(), change{write: func(imprint.Tx) error { return nil }})
	}
}

// LineIsAwaited says whether somebody who subscribes waits until all are routed that stand
// in the line of a topic.
func (b *Broker) LineIsAwaited(t imprint.Tenant, topic string) bool {
	r := b.realm(t)
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lines[topic]
	return l != nil && l.turns[len(l.turns)-1].over != nil
}

// StandInLine takes the last place in the line of a topic, for a message that isn't routed,
// and gives what leaves it, wherever it stands by then.
func (b *Broker) StandInLine(tenant imprint.Tenant, topic string) (leave func()) {
	r := b.realm(tenant)
	t := &turn{realm: r, topic: topic}
	t.beStored()
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		t.giveUp()
	}
}
