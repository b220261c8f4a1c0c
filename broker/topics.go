package broker

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/imprint-iot/imprint/mqtt"
)

// subscription is one filter of one session.
type subscription struct {
	session *session
	filter  string // as the client gave it
	qos     mqtt.QoS
	noLocal bool
	// retainAsPublished keeps the RETAIN flag of forwarded messages.
	retainAsPublished bool
	// ended: the client has unsubscribed. The session's lock guards it.
	ended bool
	// place is its index in the subscriptions of its level, or in the members of
	// its group, guarded by the tree.
	place int
	// share and inner are the parts of a shared subscription's filter, group is
	// what it is a member of; else share is empty, and inner is the filter.
	share, inner string
	group        *shareGroup
}

// matches are what a topic finds: subscriptions, each session once, and groups.
type matches struct {
	subs   []*subscription
	groups []*shareGroup
}

func (m *matches) len() int { return len(m.subs) + len(m.groups) }

// match tells whether a filter matches a topic, by the server's setting.
func (b *Broker) match(filter, topic string) bool {
	if b.opts.StandardParentMatch {
		return mqtt.MatchStandard(filter, topic)
	}
	return mqtt.Match(filter, topic)
}

// tree finds the subscriptions that match a topic, for one tenant. Filters are
// kept level by level.
//
// As on AWS IoT Core, and unlike the MQTT standard, `a/#` doesn't match `a`
// unless parents is set.
type tree struct {
	parents bool
	// version counts changes, so that publishers can keep what they found.
	version atomic.Uint64

	mu   sync.RWMutex
	root level
}

type level struct {
	children map[string]*level
	subs     []*subscription
	groups   []*shareGroup // of shared subscriptions, one a name
}

const (
	anyLevel  = "+"
	anySuffix = "#"
)

// add puts a subscription in. Replaced, when not nil, is the session's one for
// the same filter, whose place it takes. NewGroup makes the group of the first
// member of a shared subscription.
func (t *tree) add(sub, replaced *subscription, newGroup func() *shareGroup) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := &t.root
	for rest, more := sub.inner, true; more; {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		next := at.children[name]
		if next == nil {
			next = &level{}
			if at.children == nil {
				at.children = make(map[string]*level, 1)
			}
			at.children[name] = next
		}
		at = next
	}
	// Publishers copy what they find while they hold the lock, so the slice may
	// change in place.
	switch {
	case sub.share != "":
		at.join(sub, replaced, newGroup)
	case replaced != nil:
		sub.place = replaced.place
		at.subs[sub.place] = sub
	default:
		sub.place = len(at.subs)
		at.subs = append(at.subs, sub)
	}
	t.version.Add(1)
}

// join makes a subscription a member of its group.
func (l *level) join(sub, replaced *subscription, newGroup func() *shareGroup) {
	if replaced != nil {
		sub.group = replaced.group
		sub.group.replace(replaced, sub)
		return
	}
	at := slices.IndexFunc(l.groups, func(g *shareGroup) bool { return g.filter == sub.filter })
	if at < 0 {
		at = len(l.groups)
		l.groups = append(l.groups, newGroup())
	}
	sub.group = l.groups[at]
	sub.group.join(sub)
}

// remove takes a subscription out that add put in.
func (t *tree) remove(sub *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.root.remove(sub, sub.inner)
	t.version.Add(1)
}

// remove descends to the filter's level and drops levels that became empty.
// Filters have few levels: checkFilter bounds them.
func (l *level) remove(sub *subscription, rest string) {
	name, rest, more := strings.Cut(rest, "/")
	child := l.children[name]
	if child == nil {
		return
	}
	switch {
	case more:
		child.remove(sub, rest)
	case sub.group != nil:
		if sub.group.part(sub) {
			child.groups = slices.DeleteFunc(child.groups, func(g *shareGroup) bool { return g == sub.group })
		}
	default:
		child.drop(sub)
	}
	if len(child.children) == 0 && len(child.subs) == 0 && len(child.groups) == 0 {
		delete(l.children, name)
	}
}

// drop puts the last subscription into the place of the one that goes.
func (l *level) drop(sub *subscription) {
	last := len(l.subs) - 1
	if sub.place > last || l.subs[sub.place] != sub {
		return
	}
	moved := l.subs[last]
	l.subs[sub.place] = moved
	moved.place = sub.place
	l.subs[last] = nil
	l.subs = l.subs[:last]
	if cap(l.subs) > 64 && last < cap(l.subs)/4 {
		l.subs = append(make([]*subscription, 0, 2*last), l.subs...)
	}
}

// match gives the subscriptions that match a topic, each session once with the
// highest QoS of its matching filters, and the groups, in the memory of found
// where that is enough. It also gives the tree's version that the answer belongs to.
func (t *tree) match(topic string, found matches) (matches, uint64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	m := matching{parents: t.parents, matches: matches{found.subs[:0], found.groups[:0]}}
	if strings.HasPrefix(topic, "$") {
		// Wildcards at the first level don't reach the service's topics.
		name, rest, more := strings.Cut(topic, "/")
		if child := t.root.children[name]; child != nil {
			m.step(child, rest, more)
		}
	} else {
		m.below(&t.root, topic)
	}
	if m.levels > 1 {
		m.subs = distinct(m.subs)
	}
	return m.matches, t.version.Load()
}

// matching is one walk through the tree.
type matching struct {
	parents bool
	levels  int // that gave subscriptions
	matches
}

// below matches the rest of a topic with what stands below a level.
func (m *matching) below(l *level, topic string) {
	if rest := l.children[anySuffix]; rest != nil {
		m.take(rest)
	}
	name, rest, more := strings.Cut(topic, "/")
	if child := l.children[name]; child != nil {
		m.step(child, rest, more)
	}
	if child := l.children[anyLevel]; child != nil {
		m.step(child, rest, more)
	}
}

// step goes on at a level that matched the topic so far.
func (m *matching) step(l *level, rest string, more bool) {
	if more {
		m.below(l, rest)
		return
	}
	m.take(l)
	if !m.parents {
		return
	}
	if suffix := l.children[anySuffix]; suffix != nil {
		m.take(suffix)
	}
}

func (m *matching) take(l *level) {
	if len(l.subs) > 0 {
		m.subs = append(m.subs, l.subs...)
		m.levels++
	}
	m.groups = append(m.groups, l.groups...)
}

// fewSubscriptions is up to where comparing each with each is quicker than a
// map.
const fewSubscriptions = 16

// distinct keeps one subscription of each session, the one with the highest
// QoS; of two such, one without No Local, so that the session's own messages
// come as that subscription wants them.
func distinct(found []*subscription) []*subscription {
	kept := found[:0]
	var index map[*session]int
	if len(found) > fewSubscriptions {
		index = make(map[*session]int, len(found))
	}
	for _, sub := range found {
		at, seen := 0, false
		if index != nil {
			at, seen = index[sub.session]
		} else {
			at = slices.IndexFunc(kept, func(other *subscription) bool { return other.session == sub.session })
			seen = at >= 0
		}
		switch {
		case !seen:
			if index != nil {
				index[sub.session] = len(kept)
			}
			kept = append(kept, sub)
		case sub.betterThan(kept[at]):
			kept[at] = sub
		}
	}
	clear(found[len(kept):])
	return kept
}

func (sub *subscription) betterThan(other *subscription) bool {
	if sub.qos != other.qos {
		return sub.qos > other.qos
	}
	return other.noLocal && !sub.noLocal
}
