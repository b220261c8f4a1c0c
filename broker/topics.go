package broker

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/imprint-iot/imprint/mqtt"
)

// subscription is one filter of one session.
type subscription struct {
	session *session
	filter  string
	qos     mqtt.QoS
	noLocal bool
	// retainAsPublished keeps the RETAIN flag of forwarded messages.
	retainAsPublished bool
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
}

const (
	anyLevel  = "+"
	anySuffix = "#"
)

// add puts a subscription in; replace says that the session has one for the
// same filter already, whose place it takes.
func (t *tree) add(sub *subscription, replace bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := &t.root
	for rest, more := sub.filter, true; more; {
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
	if replace {
		at.drop(sub.session)
	}
	at.subs = append(at.subs, sub)
	t.version.Add(1)
}

// remove takes a session's subscription to a filter out.
func (t *tree) remove(s *session, filter string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.root.remove(s, filter) {
		t.version.Add(1)
	}
}

// remove descends to the filter's level and drops levels that became empty.
func (l *level) remove(s *session, rest string) bool {
	name, rest, more := strings.Cut(rest, "/")
	child := l.children[name]
	if child == nil {
		return false
	}
	removed := false
	if more {
		removed = child.remove(s, rest)
	} else {
		removed = child.drop(s)
	}
	if removed && len(child.children) == 0 && len(child.subs) == 0 {
		delete(l.children, name)
	}
	return removed
}

func (l *level) drop(s *session) bool {
	for n, sub := range l.subs {
		if sub.session != s {
			continue
		}
		last := len(l.subs) - 1
		l.subs[n] = l.subs[last]
		l.subs[last] = nil
		l.subs = l.subs[:last]
		return true
	}
	return false
}

// match appends the subscriptions that match a topic, each session once with
// the highest QoS of its matching filters. It also gives the tree's version
// that the answer belongs to.
func (t *tree) match(topic string, found []*subscription) ([]*subscription, uint64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	found = found[:0]
	if strings.HasPrefix(topic, "$") {
		// Wildcards at the first level don't reach the service's topics.
		name, rest, more := strings.Cut(topic, "/")
		if child := t.root.children[name]; child != nil {
			found = child.step(rest, more, t.parents, found)
		}
		return found, t.version.Load()
	}
	return t.root.match(topic, t.parents, found), t.version.Load()
}

func (l *level) match(topic string, parents bool, found []*subscription) []*subscription {
	if rest := l.children[anySuffix]; rest != nil {
		found = merge(found, rest.subs)
	}
	name, rest, more := strings.Cut(topic, "/")
	if child := l.children[name]; child != nil {
		found = child.step(rest, more, parents, found)
	}
	if child := l.children[anyLevel]; child != nil {
		found = child.step(rest, more, parents, found)
	}
	return found
}

// step goes on below a level that matched the topic so far.
func (l *level) step(rest string, more, parents bool, found []*subscription) []*subscription {
	if more {
		return l.match(rest, parents, found)
	}
	found = merge(found, l.subs)
	if parents {
		if suffix := l.children[anySuffix]; suffix != nil {
			found = merge(found, suffix.subs)
		}
	}
	return found
}

// merge appends subscriptions of sessions that aren't there yet; of two of one
// session, the one with the higher QoS stays.
func merge(found, more []*subscription) []*subscription {
	if len(found) == 0 {
		return append(found, more...)
	}
	before := len(found)
	for _, sub := range more {
		at := -1
		for n := range before {
			if found[n].session == sub.session {
				at = n
				break
			}
		}
		switch {
		case at < 0:
			found = append(found, sub)
		case sub.qos > found[at].qos:
			found[at] = sub
		}
	}
	return found
}
