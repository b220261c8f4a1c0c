// Package rules runs topic rules: it matches each message with the FROM of the
// tenant's rules, evaluates their statements and hands what they select to their
// actions.
//
//	engine := rules.New(store, clock, rules.Options{Functions: functions})
//	b := broker.New(broker.Options{Rules: engine}, ...)
//	engine.Start(b)
//	defer engine.Close()
//
// What it promises: a tenant without rules costs a publisher one atomic load.
// Rules are compiled once, and a change holds for every message that is published
// after its commit was acknowledged. Messages wait in a bounded queue in memory,
// which accounts share fairly; a message that finds no room is refused, not lost
// silently. What actions owe to functions, URLs and sinks is durable once it is
// handed over, and is tried again over restarts until it is delivered or given up.
// What fails goes to the rule's error action, the log and the counters.
//
// What it does not do: keep an order between messages, and deliver once only. A
// server that is killed loses the messages that wait in the queue, as they were
// acknowledged when the rules had them; service events aren't among them: they
// stay stored until their rules have run.
//
// Sources: AWS IoT Core developer guide, "Rules for AWS IoT" with its pages on
// actions, error handling, HTTP destinations and Basic Ingest. docs/rules.md has
// what differs.
package rules

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
)

// servicePrincipal is who invokes functions for rules.
const servicePrincipal = "iot.amazonaws.com"

// Attempts keep what rules say about the attempt that caused a message.
type Attempts interface {
	Append(attemptID string, steps ...imprint.Step)
}

// Options tune an Engine. Zero values give the defaults in brackets.
type Options struct {
	// Functions run what lambda actions and aws_lambda() name. Required.
	Functions imprint.Functions
	// Attempts get what rules did for first connections; nil: nobody does.
	Attempts Attempts
	// Sinks are what firehose actions may name.
	Sinks map[string]Sink
	// ConfirmURL gives the address that enables destinations, to which a slash and
	// the token are added; empty: the owner confirms by the API.
	ConfirmURL func() string
	// PrivateAccount is the only one whose http actions may reach this machine and private
	// networks; empty: those of all accounts may.
	PrivateAccount imprint.AccountID
	// Roots verify the servers of http actions; nil: the system's.
	Roots *x509.CertPool

	Workers        int           // messages that are evaluated at once [64]
	MaxQueued      int           // messages that wait, of all tenants [50,000]
	MaxQueuedBytes int           // bytes of theirs [256 MiB]
	RoomPatience   time.Duration // how long a publisher waits for room [5 s]
	MaxDepth       int           // rules that may republish a message, one after another [8]
	MaxDeliveries  int           // deliveries of one account that wait [100,000]
	// DeliveryWorkers are the deliveries under way: of one account never more than
	// are left to others, half at most, to one of its destinations a third [48].
	DeliveryWorkers int
	DeliveryAge     time.Duration // how long one is tried [6 h]
	HTTPTimeout     time.Duration // of one request [3 s, as AWS]
	Logger          *slog.Logger  // [slog.Default]
}

func (o Options) withDefaults() Options {
	for _, n := range []struct {
		value    *int
		fallback int
	}{
		{&o.Workers, 64}, {&o.MaxQueued, 50_000}, {&o.MaxQueuedBytes, 256 << 20}, {&o.MaxDepth, 8},
		{&o.MaxDeliveries, 100_000}, {&o.DeliveryWorkers, 48},
	} {
		if *n.value <= 0 {
			*n.value = n.fallback
		}
	}
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{{&o.RoomPatience, 5 * time.Second}, {&o.DeliveryAge, 6 * time.Hour}, {&o.HTTPTimeout, 3 * time.Second}} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// Engine runs the topic rules of all tenants. It implements imprint.Rules.
type Engine struct {
	store   imprint.Store
	clock   imprint.Clock
	opts    Options
	offered Offered

	republisher imprint.Republisher
	queue       *queue
	outbox      *outbox
	zones       zones
	count       counters

	mu      sync.RWMutex
	tenants map[imprint.Tenant]*tenant

	stopWatch func()
	closing   sync.Once
}

var _ imprint.Rules = (*Engine)(nil)

// New makes an engine. Messages wait until Start.
func New(store imprint.Store, clock imprint.Clock, opts Options) *Engine {
	e := &Engine{store: store, clock: clock, opts: opts.withDefaults(), tenants: map[imprint.Tenant]*tenant{}}
	for _, name := range slices.Sorted(maps.Keys(opts.Sinks)) {
		e.offered.Sinks = append(e.offered.Sinks, name)
		if kafka, ok := opts.Sinks[name].(producer); ok {
			if e.offered.Kafka == nil {
				e.offered.Kafka = map[string][]string{}
			}
			e.offered.Kafka[name] = kafka.brokers()
		}
	}
	e.queue = newQueue(e)
	e.outbox = newOutbox(e)
	e.stopWatch = store.Watch(e.committed)
	return e
}

// Start begins to run rules and to deliver what earlier runs left.
func (e *Engine) Start(republisher imprint.Republisher) {
	e.republisher = republisher
	e.queue.start()
	e.outbox.crew.Start()
}

// Offered gives the actions that this server offers.
func (e *Engine) Offered() Offered { return e.offered }

// closePatience bounds how long Close goes on with messages that wait.
const closePatience = 5 * time.Second

// Close runs what waits, for a bounded time, and ends. What is owed stays in the
// store.
func (e *Engine) Close() error {
	var failed error
	e.closing.Do(func() {
		e.stopWatch()
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		lost := e.queue.close(ctx)
		if lost > 0 {
			e.opts.Logger.Warn("messages waited for topic rules when the server ended, and are lost", "messages", lost)
		}
		e.outbox.close()
		for _, sink := range e.opts.Sinks {
			failed = errors.Join(failed, sink.Close())
		}
	})
	return failed
}

// Tenant implements imprint.Rules.
func (e *Engine) Tenant(t imprint.Tenant) imprint.TenantRules { return e.tenant(t) }

func (e *Engine) tenant(t imprint.Tenant) *tenant {
	e.mu.RLock()
	found := e.tenants[t]
	e.mu.RUnlock()
	if found != nil {
		return found
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	found = e.tenants[t]
	if found == nil {
		found = &tenant{engine: e, name: t}
		e.tenants[t] = found
	}
	return found
}

// committed forgets the rules of tenants that changed theirs. What a commit owes,
// such as a confirmation, is looked at.
func (e *Engine) committed(changes []imprint.Change) {
	for _, c := range changes {
		if c.Kind != imprint.ChangeTopicRule {
			continue
		}
		e.mu.RLock()
		t := e.tenants[c.Tenant]
		e.mu.RUnlock()
		if t != nil {
			t.forget()
		}
		e.outbox.crew.Poke()
	}
}

// ActionKind is one of the kinds of actions.
type ActionKind string

// The kinds of actions that this server has.
const (
	ActionLambda    ActionKind = "lambda"
	ActionRepublish ActionKind = "republish"
	ActionHTTP      ActionKind = "http"
	ActionFirehose  ActionKind = "firehose"
	ActionKafka     ActionKind = "kafka"
)

// ActionKinds lists them.
func ActionKinds() []ActionKind {
	return []ActionKind{ActionLambda, ActionRepublish, ActionHTTP, ActionFirehose, ActionKafka}
}

// ActionCounters are what became of one kind of action.
type ActionCounters struct {
	// Done were delivered, for lambda taken by the functions' queue; Retried were put
	// off; Failed went to the error action, if the rule has one.
	Done, Retried, Failed uint64
}

// Counters are what an Engine has done since it began.
type Counters struct {
	// Matched counts pairs of message and rule, Selected those whose WHERE held.
	Matched, Selected uint64
	// Errors are statements that needed too much, Problems what in them was
	// Undefined because something failed.
	Errors, Problems uint64
	// Dropped messages found no room in the queue, Missing ones named a rule that
	// doesn't exist or is disabled, Looped were republished too often.
	Dropped, Missing, Looped uint64
	// Unlogged failures weren't logged because a rule had many.
	Unlogged uint64
	Waiting  int // messages in the queue, now
	Owed     int // deliveries under way, now
	Actions  map[ActionKind]ActionCounters
}

type counters struct {
	matched, selected, errors, problems, dropped, missing, looped, unlogged atomic.Uint64

	actions [5]struct{ done, retried, failed atomic.Uint64 }
}

func (c *counters) of(kind ActionKind) *struct{ done, retried, failed atomic.Uint64 } {
	for n, known := range ActionKinds() {
		if known == kind {
			return &c.actions[n]
		}
	}
	return &c.actions[0]
}

// Waits counts the destinations and sinks whose deliveries wait for their
// account's share of what is under way.
func (e *Engine) Waits(ctx context.Context) (int, error) {
	return e.outbox.crew.Waiting(ctx)
}

// Counters gives the present counts.
func (e *Engine) Counters() Counters {
	c := &e.count
	out := Counters{
		Matched: c.matched.Load(), Selected: c.selected.Load(), Errors: c.errors.Load(), Problems: c.problems.Load(),
		Dropped: c.dropped.Load(), Missing: c.missing.Load(), Looped: c.looped.Load(), Unlogged: c.unlogged.Load(),
		Waiting: e.queue.waiting(), Owed: e.outbox.crew.UnderWay(), Actions: map[ActionKind]ActionCounters{},
	}
	for _, kind := range ActionKinds() {
		a := c.of(kind)
		out.Actions[kind] = ActionCounters{Done: a.done.Load(), Retried: a.retried.Load(), Failed: a.failed.Load()}
	}
	return out
}
