package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Goals of the design, as least ratios.
const (
	reconnectGoal = 0.85
	onboardGoal   = 0.8
)

const (
	handshakeUnit = "handshakes/CPU-s"
	reconnectUnit = "reconnects/CPU-s"
	deviceUnit    = "devices/CPU-s"
)

// Handshake measures reconnects of known devices: TCP, a full TLS handshake,
// CONNECT to CONNACK, DISCONNECT; each device once, against as many handshakes
// of the reference. Then each comes again with its TLS session, against the
// full ones, unless opts.FullOnly.
func Handshake(ctx context.Context, target Target, opts Options) ([]Figure, error) {
	return run(ctx, target, opts, (*stand).handshake)
}

// JITP measures first connections: each device connects, is provisioned and
// closed, connects again and gets its CONNACK; against half of the reference's
// handshakes, because it needs two. In the end every device must be in the
// registry and in the trace.
func JITP(ctx context.Context, target Target, opts Options) ([]Figure, error) {
	return run(ctx, target, opts, (*stand).jitp)
}

func run(ctx context.Context, target Target, opts Options, do func(*stand, context.Context) ([]Figure, error)) ([]Figure, error) {
	s, err := newStand(ctx, target, opts)
	if err != nil {
		return nil, err
	}
	figures, err := do(s, ctx)
	if err != nil {
		err = s.explain(ctx, err)
	}
	return figures, errors.Join(err, s.close())
}

func (s *stand) handshake(ctx context.Context) ([]Figure, error) {
	for _, devices := range [][]*device{s.warmers, s.devices} {
		_, err := eachDevice(ctx, devices, s.opts.Concurrency, s.door.first)
		if err != nil {
			return nil, fmt.Errorf("couldn't onboard the devices: %w", err)
		}
	}
	_, err := eachDevice(ctx, s.warmers, s.opts.Concurrency, s.door.reconnect)
	if err != nil {
		return nil, fmt.Errorf("couldn't warm up: %w", err)
	}
	if !s.opts.FullOnly {
		err = s.door.checkResumption(ctx, s.warmers[0])
	}
	if err != nil {
		return nil, fmt.Errorf("%w (--full-only measures full handshakes alone)", err)
	}
	full, err := s.reconnectAll(ctx, s.devices, s.opts.CPUProfile)
	if err != nil || s.opts.FullOnly {
		return full.figures(), err
	}
	resumed, err := s.resumeAll(ctx, s.devices, "")
	if err != nil {
		return nil, err
	}
	return append(full.figures(), resumed.resumedFigures(full.remembered.rate())...), nil
}

func (s *stand) jitp(ctx context.Context) ([]Figure, error) {
	_, err := eachDevice(ctx, s.warmers, s.opts.Concurrency, s.onboard)
	if err != nil {
		return nil, fmt.Errorf("couldn't warm up: %w", err)
	}
	var took []time.Duration
	m, err := s.measure(ctx, s.devices, s.opts.CPUProfile, func(ctx context.Context) error {
		var err error
		took, err = eachDevice(ctx, s.devices, s.opts.Concurrency, s.onboard)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = s.verify(ctx)
	if err != nil {
		return nil, err
	}
	return append(m.probes(),
		AtLeast("devices onboarded by JITP", perSecond(len(s.devices), m.cpu), deviceUnit, m.reference()/2, onboardGoal),
		Plain("devices onboarded, by the clock", perSecond(len(s.devices), m.wall), "devices/s"),
		Plain("first connection, hello to close, p50", milliseconds(percentile(took, 50)), "ms"),
		Plain("first connection, hello to close, p99", milliseconds(percentile(took, 99)), "ms"),
	), nil
}

// onboard gives the time of the first connection.
func (s *stand) onboard(ctx context.Context, d *device) (time.Duration, error) {
	took, err := s.door.first(ctx, d)
	if err != nil {
		return 0, err
	}
	_, err = s.door.reconnect(ctx, d)
	return took, err
}

// probes are the figures of the reference itself.
func (m measured) probes() []Figure {
	return []Figure{
		Plain("bare mutual-TLS handshakes, before", m.before, handshakeUnit),
		Plain("bare mutual-TLS handshakes, after", m.after, handshakeUnit),
		Plain("bare mutual-TLS handshakes, mean", m.reference(), handshakeUnit),
	}
}
