package bench

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

// shape is how many publish and how many subscribe to all that they publish.
type shape struct {
	name                    string
	publishers, subscribers int
}

// rounds is how often each contender is measured, in turns.
const rounds = 2

// warmUp is how long a flow runs before it is measured.
const warmUp = 200 * time.Millisecond

// Topics of flows. Each publisher has a topic of its own.
const flowTopics = "models/" + modelName + "/flow/"

// tally is what the rounds of one contender brought and took.
type tally struct {
	messages           uint64
	wall, server, load time.Duration
}

func (t *tally) add(other tally) {
	t.messages += other.messages
	t.wall += other.wall
	t.server += other.server
	t.load += other.load
}

func (t *tally) byClock() float64 { return perSecond(int(t.messages), t.wall) }

func (t *tally) byCPU() float64 { return perSecond(int(t.messages), t.server) }

// cores is how many cores something kept busy.
func (t *tally) cores(spent time.Duration) float64 {
	return spent.Seconds() / max(t.wall, tick).Seconds()
}

// openFlow connects the devices of a shape to a contender. Keep asks for
// subscribers' sessions that outlive their connections.
func (a *arena) openFlow(ctx context.Context, c *contender, sh shape, qos mqtt.QoS, keep bool) (*flow, error) {
	links := make([]*link, sh.publishers+sh.subscribers)
	_, err := each(ctx, len(links), a.opts.Concurrency, func(ctx context.Context, n int) (time.Duration, error) {
		want := wish{how: approach{bulk: true}}
		if n >= sh.publishers {
			want.keep, want.filter, want.qos = keep, flowTopics+"+", qos
		}
		var err error
		links[n], err = c.door.link(ctx, a.devices[n], want)
		return 0, err
	})
	if err != nil {
		for _, l := range links {
			if l != nil {
				_ = l.conn.Close()
			}
		}
		return nil, fmt.Errorf("couldn't connect to %s: %w", c.name, err)
	}
	f := newFlow(ctx, qos, a.opts.Payload)
	for n, l := range links[:sh.publishers] {
		f.publish(l, flowTopics+a.devices[n].thing)
	}
	f.begin()
	for _, l := range links[sh.publishers:] {
		f.subscribe(l)
	}
	return f, nil
}

// round measures one send of a flow, up to the arrival of its last message.
// Count gives how many messages there are so far.
func (c *contender) round(count func() uint64, send func() error) (tally, error) {
	server, err := c.child.cpu()
	if err != nil {
		return tally{}, err
	}
	load, err := cpuTime(os.Getpid())
	if err != nil {
		return tally{}, err
	}
	messages, began := count(), time.Now()
	err = send()
	if err != nil {
		return tally{}, fmt.Errorf("%s: %w", c.name, err)
	}
	t := tally{messages: count() - messages, wall: time.Since(began)}
	serverNow, err := c.child.cpu()
	if err != nil {
		return tally{}, err
	}
	loadNow, err := cpuTime(os.Getpid())
	t.server, t.load = serverNow-server, loadNow-load
	return t, err
}

// duel runs the same part of a flow on each contender in turns. Warm runs once
// on each before, unmeasured.
func (a *arena) duel(ctx context.Context, profile string, sh shape, qos mqtt.QoS, warm, send func(*flow) error) ([]tally, []*flow, error) {
	flows, err := a.openFlows(ctx, sh, qos, warm)
	if err != nil {
		return nil, nil, err
	}
	defer endFlows(flows)
	tallies := make([]tally, len(flows))
	for n := range rounds {
		for i, c := range a.contenders() {
			file := ""
			if n == rounds-1 && c == a.ours {
				file = profile
			}
			err = a.profiled(ctx, file, func() error {
				t, err := c.round(flows[i].arrived, func() error { return send(flows[i]) })
				tallies[i].add(t)
				return err
			})
			if err != nil {
				return nil, nil, err
			}
		}
	}
	return tallies, flows, nil
}

func (a *arena) openFlows(ctx context.Context, sh shape, qos mqtt.QoS, warm func(*flow) error) (flows []*flow, err error) {
	defer func() {
		if err != nil {
			endFlows(flows)
		}
	}()
	for _, c := range a.contenders() {
		f, err := a.openFlow(ctx, c, sh, qos, false)
		if err != nil {
			return flows, err
		}
		flows = append(flows, f)
		err = warm(f)
		if err != nil {
			return flows, fmt.Errorf("%s: couldn't warm up: %w", c.name, err)
		}
	}
	// What connecting made the servers do isn't part of the rounds.
	return flows, a.rest(ctx)
}

func endFlows(flows []*flow) {
	for _, f := range flows {
		f.end()
	}
}

// throughput measures messages of a shape as fast as they go.
func throughput(sh shape) func(*arena, context.Context) ([]Figure, error) {
	return func(a *arena, ctx context.Context) ([]Figure, error) {
		var figures []Figure
		for _, qos := range []mqtt.QoS{mqtt.QoS0, mqtt.QoS1} {
			name := fmt.Sprintf("QoS %d %s", qos, sh.name)
			profile := a.profile(fmt.Sprintf("qos%d-%s", qos, sh.name))
			tallies, _, err := a.duel(ctx, profile, sh, qos, a.warmFlow, a.flood)
			if err != nil {
				return nil, fmt.Errorf("QoS %d: %w", qos, err)
			}
			figures = append(figures, throughputFigures(name, tallies, messageGoal)...)
		}
		return figures, nil
	}
}

func (a *arena) warmFlow(f *flow) error { return f.flood(min(warmUp, a.opts.Lasting), a.opts.most()) }

func (a *arena) flood(f *flow) error { return f.flood(a.opts.Lasting, a.opts.most()) }

// throughputFigures are those of Imprint's tally, which comes first, beside the
// rival's.
func throughputFigures(name string, tallies []tally, goal float64) []Figure {
	rows := []struct {
		name, unit string
		goal       float64
		value      func(*tally) float64
	}{
		{name + ", by the clock", "messages/s", goal, (*tally).byClock},
		{name, "messages/CPU-s", goal, (*tally).byCPU},
		{name + ", the server", "cores", 0, func(t *tally) float64 { return t.cores(t.server) }},
		{name + ", the load generator", "cores", 0, func(t *tally) float64 { return t.cores(t.load) }},
	}
	var figures []Figure
	for _, row := range rows {
		var rival *float64
		if len(tallies) > 1 {
			rival = new(row.value(&tallies[1]))
		}
		figures = append(figures, beside(row.name, row.value(&tallies[0]), row.unit, rival, row.goal))
	}
	return figures
}
