package bench

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

// latencyRate is messages per second where latencies are measured: far less
// than any contender can do.
const latencyRate = 1000

// oneToOne is the flow of everything that isn't about the number of clients.
func oneToOne() shape { return shape{"one-to-one", 1, 1} }

// latency measures how long messages take at a steady rate, from the moment
// when each was due.
func (a *arena) latency(ctx context.Context) ([]Figure, error) {
	var figures []Figure
	for _, qos := range []mqtt.QoS{mqtt.QoS0, mqtt.QoS1} {
		_, flows, err := a.duel(ctx, a.profile(fmt.Sprintf("qos%d-latency", qos)), oneToOne(), qos, a.warmPace, a.sample)
		if err != nil {
			return nil, fmt.Errorf("QoS %d: %w", qos, err)
		}
		for _, p := range []float64{50, 99, 99.9} {
			var rival *float64
			if len(flows) > 1 {
				rival = new(milliseconds(percentile(flows[1].samples(), p)))
			}
			name := fmt.Sprintf("QoS %d latency at %d messages/s, p%v", qos, latencyRate, p)
			figures = append(figures, beside(name, milliseconds(percentile(flows[0].samples(), p)), "ms", rival, 0))
		}
	}
	return figures, nil
}

func (a *arena) warmPace(f *flow) error {
	return f.pace(latencyRate, min(warmUp, a.opts.Lasting), a.opts.most())
}

// sample paces a flow and keeps how long its messages took.
func (a *arena) sample(f *flow) error {
	only := f.subscribers[0]
	only.sampling.Store(true)
	err := f.pace(latencyRate, a.opts.Lasting, a.opts.most())
	only.sampling.Store(false)
	return err
}

// samples are all that were kept.
func (f *flow) samples() []time.Duration { return f.subscribers[0].samples }

// stuckRounds is how often stuck measures each, in turns: the 99th percentile of one
// round follows whatever else the machine does.
const stuckRounds = 5

// stuck measures a subscriber beside one of the same topic that doesn't read
// its socket, and alone, in turns. Its percentile is the median of the rounds'. The load is QoS 0: at QoS 1 a client that
// takes nothing is soon disconnected.
func (a *arena) stuck(ctx context.Context) ([]Figure, error) {
	f, err := a.openFlow(ctx, a.ours, oneToOne(), mqtt.QoS0, false)
	if err != nil {
		return nil, err
	}
	defer f.end()
	err = a.warmFlow(f)
	if err != nil {
		return nil, err
	}
	var alone, beside tally
	var aloneP99, besideP99 []time.Duration
	for range stuckRounds {
		took, err := a.stuckRound(f, &alone)
		if err != nil {
			return nil, fmt.Errorf("without the stuck subscriber: %w", err)
		}
		aloneP99 = append(aloneP99, percentile(took, 99))
		took, err = a.besideStuck(ctx, f, &beside)
		if err != nil {
			return nil, fmt.Errorf("beside the stuck subscriber: %w", err)
		}
		besideP99 = append(besideP99, percentile(took, 99))
	}
	median := func(all []time.Duration) float64 { return milliseconds(percentile(all, 50)) }
	return []Figure{
		AtLeast("QoS 0 beside a stuck subscriber, by the clock", beside.byClock(), "messages/s", alone.byClock(), stuckGoal),
		AtMost(fmt.Sprintf("QoS 0 beside a stuck subscriber, latency at %d messages/s, median p99", latencyRate), median(besideP99), "ms", median(aloneP99), 1/stuckGoal),
	}, nil
}

// stuckRound measures throughput and then latencies.
func (a *arena) stuckRound(f *flow, sum *tally) ([]time.Duration, error) {
	t, err := a.ours.round(f.arrived, func() error { return a.flood(f) })
	if err != nil {
		return nil, err
	}
	sum.add(t)
	only := f.subscribers[0]
	only.samples = only.samples[:0]
	err = a.sample(f)
	return append([]time.Duration(nil), only.samples...), err
}

// besideStuck is stuckRound while another subscriber doesn't read. The first
// messages fill its socket and its queue.
func (a *arena) besideStuck(ctx context.Context, f *flow, sum *tally) (took []time.Duration, err error) {
	l, err := a.door.link(ctx, a.devices[2], wish{filter: flowTopics + "+", qos: mqtt.QoS0})
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.conn.Close() }()
	err = shrinkReceiver(l.conn)
	if err != nil {
		return nil, err
	}
	err = a.warmFlow(f)
	if err != nil {
		return nil, err
	}
	return a.stuckRound(f, sum)
}

// shrinkReceiver lets the kernel take little for a client that doesn't read.
func shrinkReceiver(conn net.Conn) error {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	socket, ok := conn.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("couldn't shrink the receive buffer of a %T", conn)
	}
	err := socket.SetReadBuffer(4096)
	if err != nil {
		return fmt.Errorf("couldn't shrink the receive buffer: %w", err)
	}
	return nil
}
