package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Goals of the design for the broker.
const (
	memoryGoal  = 1.25 // at most, against a bare connection
	resumeGoal  = 3.0  // resumed reconnects against full ones
	messageGoal = 6.0  // against mosquitto
	stuckGoal   = 0.9  // beside a stuck subscriber, against without
)

// BrokerOptions are what a person can choose for Broker.
type BrokerOptions struct {
	Connections int           // idle ones, and up to MaxReconnects of reconnects; 10 to MaxDevices
	Count       int           // most messages that one round sends; 0: as many as go
	Payload     int           // bytes of a message, MinPayload to MaxPayload
	Lasting     time.Duration // how long one round sends, up to MaxLasting
	Concurrency int           // connections made at a time, 1 to MaxConcurrency
	Only        []string      // names of BrokerParts; empty: all
	Mosquitto   string        // path of the program; empty: where it usually is
	NoMosquitto bool          // Imprint's figures alone
	KeepData    bool          // leave the servers' data directory for inspection
	CPUProfile  string        // file of Imprint's CPU profiles: x.prof makes x-PART.prof; empty: none
	Messages    io.Writer     // what goes on and what the children say, for people
}

// Bounds of BrokerOptions.
const (
	MinConnections = 10
	MaxReconnects  = 2000
	MinPayload     = stampSize
	MaxPayload     = 128 << 10
	MaxLasting     = 10 * time.Minute
)

// part is something that Broker measures.
type part struct {
	name string
	run  func(*arena, context.Context) ([]Figure, error)
}

func brokerParts() []part {
	return []part{
		{"memory", (*arena).memory},
		{"connect", (*arena).connect},
		{"resume", (*arena).resume},
		{"one-to-one", throughput(shape{"one-to-one", 1, 1})},
		{"many-to-one", throughput(shape{"many-to-one", 100, 1})},
		{"one-to-many", throughput(shape{"one-to-many", 1, 100})},
		{"latency", (*arena).latency},
		{"stuck", (*arena).stuck},
		{"persistent", (*arena).persistent},
	}
}

// flowDevices is how many devices the largest flow has.
const flowDevices = 101

// BrokerParts are the names that BrokerOptions.Only may hold, in the order of
// the run.
func BrokerParts() []string {
	var names []string
	for _, p := range brokerParts() {
		names = append(names, p.name)
	}
	return names
}

func (o BrokerOptions) check() error {
	switch {
	case o.Connections < MinConnections || o.Connections > MaxDevices:
		return fmt.Errorf("couldn't run with %d connections: %d to %d are possible", o.Connections, MinConnections, MaxDevices)
	case o.Count < 0:
		return fmt.Errorf("couldn't run with %d messages", o.Count)
	case o.Payload < MinPayload || o.Payload > MaxPayload:
		return fmt.Errorf("couldn't run with payloads of %d bytes: %d to %d are possible", o.Payload, MinPayload, MaxPayload)
	case o.Lasting <= 0 || o.Lasting > MaxLasting:
		return fmt.Errorf("couldn't run rounds of %s: up to %s are possible", o.Lasting, MaxLasting)
	}
	for _, name := range o.Only {
		if !slices.Contains(BrokerParts(), name) {
			return fmt.Errorf("couldn't measure %q: the parts are %s", name, strings.Join(BrokerParts(), ", "))
		}
	}
	return nil
}

func (o BrokerOptions) measures(name string) bool {
	return len(o.Only) == 0 || slices.Contains(o.Only, name)
}

// devices is how many devices the parts need.
func (o BrokerOptions) devices() int {
	switch {
	case o.measures("memory"):
		return max(o.Connections, flowDevices)
	case o.measures("connect") || o.measures("resume"):
		return max(min(o.Connections, MaxReconnects), flowDevices)
	}
	return flowDevices
}

// most is how many messages a round may send.
func (o BrokerOptions) most() uint64 {
	if o.Count == 0 {
		return 1 << 62
	}
	return uint64(o.Count)
}

// arena is a stand with a broker to compare with.
type arena struct {
	*stand
	opts  BrokerOptions
	ours  *contender
	rival *contender // nil: Imprint alone
}

// Broker measures the server as a broker: memory of idle connections, reconnects
// and messages, over TLS with policies enforced; beside a bare server and,
// for messages, beside mosquitto with the same devices and rules.
func Broker(ctx context.Context, target Target, opts BrokerOptions) ([]Figure, error) {
	err := opts.check()
	if err != nil {
		return nil, err
	}
	program := ""
	if !opts.NoMosquitto {
		program, err = findMosquitto(opts.Mosquitto)
		if err != nil {
			return nil, err
		}
	}
	// Besides the connections there are flows, listeners and the registry.
	err = allowFiles(opts.devices() + 1000)
	if err != nil {
		return nil, err
	}
	s, err := newStand(ctx, target, Options{
		Devices: opts.devices(), Concurrency: opts.Concurrency, KeepData: opts.KeepData, CPUProfile: opts.CPUProfile, Messages: opts.Messages,
	})
	if err != nil {
		return nil, err
	}
	a := &arena{stand: s, opts: opts, ours: &contender{name: "Imprint", child: s.server, door: s.door}}
	figures, err := a.run(ctx, program)
	if err != nil {
		err = s.explain(ctx, err)
	}
	if a.rival != nil {
		err = errors.Join(err, a.rival.child.stop())
	}
	return figures, errors.Join(err, s.close())
}

func (a *arena) run(ctx context.Context, program string) ([]Figure, error) {
	var err error
	if program != "" {
		a.rival, err = startMosquitto(ctx, program, filepath.Join(a.dir, "mosquitto"), a.ca, freeAddress, a.stand.opts.Messages)
		if err != nil {
			return nil, err
		}
	}
	_, err = eachDevice(ctx, slices.Concat(a.warmers, a.devices), a.opts.Concurrency, a.door.first)
	if err != nil {
		return nil, fmt.Errorf("couldn't onboard the devices: %w", err)
	}
	err = a.checkOffers(ctx)
	if err != nil {
		return nil, err
	}
	var figures []Figure
	for _, p := range brokerParts() {
		if !a.opts.measures(p.name) {
			continue
		}
		a.say("measuring %s", p.name)
		err = a.rest(ctx)
		if err != nil {
			return nil, err
		}
		more, err := p.run(a, ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		figures = append(figures, more...)
	}
	return figures, nil
}

func (a *arena) say(format string, args ...any) {
	_, _ = fmt.Fprintf(a.stand.opts.Messages, format+"\n", args...)
}

// contenders are Imprint and, if there is one, its rival.
func (a *arena) contenders() []*contender {
	if a.rival == nil {
		return []*contender{a.ours}
	}
	return []*contender{a.ours, a.rival}
}

// rest waits until no server has work left from what was before.
func (a *arena) rest(ctx context.Context) error {
	err := a.settle(ctx)
	if err != nil {
		return err
	}
	for _, c := range a.contenders() {
		err = c.child.idle(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}

// checkOffers fails early where the server doesn't offer what is to be measured.
func (a *arena) checkOffers(ctx context.Context) error {
	if a.opts.measures("resume") {
		err := a.door.checkResumption(ctx, a.warmers[0])
		if err != nil {
			return fmt.Errorf("couldn't measure resume (--only names what to measure instead): %w", err)
		}
	}
	if a.opts.measures("persistent") {
		err := a.ours.checkPersistence(ctx, a.warmers[0])
		if err != nil {
			return fmt.Errorf("couldn't measure persistent (--only names what to measure instead): %w", err)
		}
	}
	return nil
}

// profile is the file of a part's CPU profile.
func (a *arena) profile(part string) string {
	file := a.stand.opts.CPUProfile
	if file == "" {
		return ""
	}
	extension := filepath.Ext(file)
	return strings.TrimSuffix(file, extension) + "-" + part + extension
}

// beside gives a figure with the rival's, and with a goal where there is one.
func beside(name string, value float64, unit string, rival *float64, goal float64) Figure {
	switch {
	case rival == nil:
		return Plain(name, value, unit)
	case goal == 0:
		return Beside(name, value, unit, *rival)
	}
	return AtLeast(name, value, unit, *rival, goal)
}
