package rules

import "strings"

// level is one level of the tree that finds the rules for a topic by their FROM.
// It is built once and never changes.
type level struct {
	children map[string]*level
	rules    []*rule
}

func (l *level) add(filter string, r *rule) {
	at := l
	for rest, more := filter, true; more; {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		next := at.children[name]
		if next == nil {
			next = &level{}
			if at.children == nil {
				at.children = map[string]*level{}
			}
			at.children[name] = next
		}
		at = next
	}
	at.rules = append(at.rules, r)
}

// match gives the rules whose filter takes a topic. As for subscriptions, a/#
// doesn't take a, and a wildcard at the start takes no topic of the service.
func (l *level) match(topic string) []*rule {
	if !strings.HasPrefix(topic, "$") {
		return l.below(topic, nil)
	}
	name, rest, more := strings.Cut(topic, "/")
	child := l.children[name]
	if child == nil {
		return nil
	}
	return child.step(rest, more, nil)
}

func (l *level) below(topic string, found []*rule) []*rule {
	if rest := l.children["#"]; rest != nil {
		found = append(found, rest.rules...)
	}
	name, rest, more := strings.Cut(topic, "/")
	if child := l.children[name]; child != nil {
		found = child.step(rest, more, found)
	}
	if child := l.children["+"]; child != nil {
		found = child.step(rest, more, found)
	}
	return found
}

func (l *level) step(rest string, more bool, found []*rule) []*rule {
	if more {
		return l.below(rest, found)
	}
	return append(found, l.rules...)
}
