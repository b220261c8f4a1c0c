package rules

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/rulesql"
)

// tenant is one tenant's part of the engine. It implements imprint.TenantRules.
type tenant struct {
	engine *Engine
	name   imprint.Tenant

	// now is the tenant's rules as they are; nil: they must be read.
	now atomic.Pointer[snapshot]
	// changing guards generation, which counts the changes, and what is put into now.
	changing   sync.Mutex
	generation uint64
	last       *snapshot // that was in force before a change
	// reading lets one reader of the store through.
	reading sync.Mutex

	waiting []work // guarded by the queue
}

// snapshot is a state of a tenant's rules. It never changes.
type snapshot struct {
	byName       map[imprint.RuleName]*rule // that aren't disabled
	tree         level
	destinations []imprint.RuleDestination // enabled ones
}

// Idle implements imprint.TenantRules.
func (t *tenant) Idle() bool {
	s := t.now.Load()
	return s != nil && len(s.byName) == 0
}

// forget makes the next message read the rules. It is called between commits.
func (t *tenant) forget() {
	t.changing.Lock()
	defer t.changing.Unlock()
	t.generation++
	if s := t.now.Swap(nil); s != nil {
		t.last = s
	}
}

// current gives the rules as the store has them. Errors: CodeUnavailable.
func (t *tenant) current(ctx context.Context) (*snapshot, error) {
	if s := t.now.Load(); s != nil {
		return s, nil
	}
	t.reading.Lock()
	defer t.reading.Unlock()
	for {
		if s := t.now.Load(); s != nil {
			return s, nil
		}
		t.changing.Lock()
		generation, last := t.generation, t.last
		t.changing.Unlock()
		s, err := t.read(ctx, last)
		if err != nil {
			return nil, err
		}
		t.changing.Lock()
		if t.generation == generation {
			t.now.Store(s)
			t.last = nil
		}
		t.changing.Unlock()
	}
}

// read compiles the tenant's rules, but for those that are as they were.
func (t *tenant) read(ctx context.Context, last *snapshot) (*snapshot, error) {
	var records []imprint.TopicRule
	var destinations []imprint.RuleDestination
	err := t.engine.store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		records, _, err = tx.TopicRules(t.name, func(r *imprint.TopicRule) bool { return !r.Disabled }, imprint.Page{Limit: imprint.MaxRules, Ascending: true})
		if err != nil {
			return err
		}
		destinations, _, err = tx.RuleDestinations(t.name, imprint.Page{Limit: imprint.MaxRuleDestinations, Ascending: true})
		return err
	})
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeUnavailable, "couldn't read the topic rules of %s: %w", t.name, err)
	}
	s := &snapshot{byName: map[imprint.RuleName]*rule{}}
	for _, record := range records {
		var compiled *rule
		if last != nil {
			compiled = last.byName[record.Name]
		}
		if compiled == nil || compiled.record.Revision != record.Revision {
			compiled, err = compile(record, t.engine.offered)
			if err != nil {
				t.engine.opts.Logger.Error("a stored topic rule can't run here", "tenant", t.name.String(), "rule", record.Name, "error", err, "fix", imprint.HintOf(err))
				continue
			}
		}
		s.byName[record.Name] = compiled
		if filter, ok := compiled.statement.Filter(); ok {
			s.tree.add(filter, compiled)
		}
	}
	s.destinations = slices.DeleteFunc(destinations, func(d imprint.RuleDestination) bool { return d.Status != imprint.RuleDestinationEnabled })
	return s, nil
}

// Offer implements imprint.TenantRules.
func (t *tenant) Offer(ctx context.Context, m *imprint.RuleMessage) error {
	s, err := t.current(ctx)
	if err != nil {
		t.engine.drop(m)
		return err
	}
	name, rest, ingest := rulesql.BasicIngest(m.Topic)
	var found []*rule
	topic := m.Topic
	switch {
	case ingest:
		topic = rest
		one := s.byName[imprint.RuleName(name)]
		if one == nil {
			t.engine.count.missing.Add(1)
			t.engine.opts.Logger.Warn("a Basic Ingest message names a rule that doesn't exist or is disabled",
				"code", "RuleNotFound", "tenant", t.name.String(), "rule", imprint.Excerpt(name), "client", m.ClientID)
			break
		}
		found = []*rule{one}
	default:
		found = s.tree.match(m.Topic)
	}
	if len(found) == 0 {
		if m.Done != nil {
			m.Done(nil)
		}
		return nil
	}
	if m.Depth > t.engine.opts.MaxDepth {
		t.engine.count.looped.Add(1)
		return imprint.Errorf(imprint.CodeRuleAction, "a message on %q went through %d rules: they republish to each other", imprint.Excerpt(m.Topic), m.Depth).
			WithHint("Let the rules' FROM not match the topics that they republish to.")
	}
	kept := *m
	kept.Topic = strings.Clone(topic)
	kept.Payload = bytes.Clone(m.Payload)
	kept.Properties.Correlation = bytes.Clone(m.Properties.Correlation)
	return t.engine.queue.push(ctx, t, work{message: &kept, rules: found, snapshot: s})
}
