package bench

import (
	"context"
	"fmt"
	"time"
)

// reconnects is what reconnects of devices took: before and after full ones the reference
// was probed.
type reconnects struct {
	measured
	each []time.Duration
}

func (r reconnects) rate() float64 { return perSecond(len(r.each), r.cpu) }

// full are the full reconnects of devices that weren't on since they were provisioned, whose
// identities the server reads from its store, and then of the same, which it remembers.
type full struct{ read, remembered reconnects }

// reconnectAll measures two full reconnects of each device; the profile is that of the first.
func (s *stand) reconnectAll(ctx context.Context, devices []*device, profile string) (f full, err error) {
	f.read, err = s.reconnectEach(ctx, devices, profile)
	if err == nil {
		f.remembered, err = s.reconnectEach(ctx, devices, "")
	}
	return f, err
}

func (s *stand) reconnectEach(ctx context.Context, devices []*device, profile string) (reconnects, error) {
	var r reconnects
	var err error
	r.measured, err = s.measure(ctx, devices, profile, func(ctx context.Context) error {
		var err error
		r.each, err = eachDevice(ctx, devices, s.opts.Concurrency, s.door.reconnect)
		return err
	})
	return r, err
}

// resumeAll measures one reconnect of each device that resumes the TLS session
// of the connection before.
func (s *stand) resumeAll(ctx context.Context, devices []*device, profile string) (reconnects, error) {
	sessions := sessionsOf(devices)
	_, err := eachDevice(ctx, devices, s.opts.Concurrency, func(ctx context.Context, d *device) (time.Duration, error) {
		took, _, err := s.door.visit(ctx, d, approach{sessions: sessions[d]})
		return took, err
	})
	if err != nil {
		return reconnects{}, fmt.Errorf("couldn't begin the TLS sessions: %w", err)
	}
	var r reconnects
	err = s.profiled(ctx, profile, func() error {
		r.cpu, r.wall, err = s.timed(ctx, func(ctx context.Context) error {
			r.each, err = eachDevice(ctx, devices, s.opts.Concurrency, func(ctx context.Context, d *device) (time.Duration, error) {
				return s.door.resumed(ctx, d, sessions[d])
			})
			return err
		})
		return err
	})
	return r, err
}

// figures of reconnects, full or resumed.
func (r reconnects) figures(kind string, rate Figure) []Figure {
	return []Figure{
		rate,
		Plain(kind+", by the clock", perSecond(len(r.each), r.wall), "reconnects/s"),
		Plain(kind+", begin to CONNACK, p50", milliseconds(percentile(r.each, 50)), "ms"),
		Plain(kind+", begin to CONNACK, p99", milliseconds(percentile(r.each, 99)), "ms"),
	}
}

const (
	fullReconnects       = "reconnects of known devices, full handshake"
	rememberedReconnects = "the same of devices that were on before"
	resumedReconnects    = "reconnects of known devices, TLS session resumed"
)

func (f full) figures() []Figure {
	figures := f.read.fullFigures(fullReconnects)
	return append(figures, f.remembered.fullFigures(rememberedReconnects)...)
}

func (r reconnects) fullFigures(kind string) []Figure {
	return append(r.probes(), r.figures(kind, AtLeast(kind, r.rate(), reconnectUnit, r.reference(), reconnectGoal))...)
}

// resumedFigures compares with the server's own full reconnects.
func (r reconnects) resumedFigures(full float64) []Figure {
	return r.figures(resumedReconnects, AtLeast(resumedReconnects, r.rate(), reconnectUnit, full, resumeGoal))
}

// connect measures full reconnects, Imprint's against the bare server and, for
// information, mosquitto's.
func (a *arena) connect(ctx context.Context) ([]Figure, error) {
	devices := a.devices[:min(len(a.devices), MaxReconnects)]
	both, err := a.reconnectAll(ctx, devices, a.profile("connect"))
	if err != nil {
		return nil, err
	}
	figures := both.figures()
	if a.rival == nil {
		return figures, nil
	}
	used, err := a.rival.child.cpu()
	if err != nil {
		return nil, err
	}
	_, err = eachDevice(ctx, devices, a.opts.Concurrency, a.rival.door.reconnect)
	if err != nil {
		return nil, fmt.Errorf("couldn't connect to mosquitto: %w", err)
	}
	now, err := a.rival.child.cpu()
	if err != nil {
		return nil, err
	}
	return append(figures, Plain("mosquitto: connections, full handshake", perSecond(len(devices), now-used), reconnectUnit)), nil
}

// resume measures resumed reconnects against full ones of the same devices.
func (a *arena) resume(ctx context.Context) ([]Figure, error) {
	devices := a.devices[:min(len(a.devices), MaxReconnects)]
	full, _, err := a.timed(ctx, func(ctx context.Context) error {
		_, err := eachDevice(ctx, devices, a.opts.Concurrency, a.door.reconnect)
		return err
	})
	if err != nil {
		return nil, err
	}
	r, err := a.resumeAll(ctx, devices, a.profile("resume"))
	if err != nil {
		return nil, err
	}
	return r.resumedFigures(perSecond(len(devices), full)), nil
}

// checkResumption says whether the server resumes a TLS session.
func (d door) checkResumption(ctx context.Context, who *device) error {
	sessions := sessionsOf([]*device{who})
	_, _, err := d.visit(ctx, who, approach{sessions: sessions[who]})
	if err != nil {
		return err
	}
	_, err = d.resumed(ctx, who, sessions[who])
	return err
}
