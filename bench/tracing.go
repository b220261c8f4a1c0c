package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// tracedGoal is how much of the speed without the trace must be left with it.
const tracedGoal = 0.95

// tracedRounds is in how many turns the two servers are measured, so that what else
// the machine does slows both.
const tracedRounds = 12

// Tracing measures what the trace costs: JITP and full reconnects of two servers in
// turns, one that records attempts and one that doesn't.
func Tracing(ctx context.Context, target Target, opts Options) ([]Figure, error) {
	traced, err := newStand(ctx, target, opts)
	if err != nil {
		return nil, err
	}
	silent := opts
	silent.ServerFlags = append(slices.Clone(opts.ServerFlags), "--trace=false")
	untraced, err := newStand(ctx, target, silent)
	if err != nil {
		return nil, errors.Join(err, traced.close())
	}
	figures, err := compareTracing(ctx, traced, untraced)
	if err != nil {
		err = traced.explain(ctx, err)
	}
	return figures, errors.Join(err, untraced.close(), traced.close())
}

func compareTracing(ctx context.Context, traced, untraced *stand) ([]Figure, error) {
	both := []*stand{traced, untraced}
	for _, s := range both {
		_, err := eachDevice(ctx, s.warmers, s.opts.Concurrency, s.onboard)
		if err != nil {
			return nil, fmt.Errorf("couldn't warm up: %w", err)
		}
	}
	var figures []Figure
	for _, part := range []struct {
		name, unit string
		visit      func(*stand, context.Context, *device) (time.Duration, error)
	}{
		{"devices onboarded by JITP, traced, against untraced", deviceUnit, (*stand).onboard},
		{fullReconnects + ", traced, against untraced", reconnectUnit, func(s *stand, ctx context.Context, d *device) (time.Duration, error) {
			return s.door.reconnect(ctx, d)
		}},
	} {
		var cpu [2]time.Duration
		for round := range tracedRounds {
			for turn := range both {
				// Who goes first changes, as the clock of a processor does.
				n := (turn + round) % len(both)
				s := both[n]
				from, to := round*len(s.devices)/tracedRounds, (round+1)*len(s.devices)/tracedRounds
				used, _, err := s.timed(ctx, func(ctx context.Context) error {
					_, err := eachDevice(ctx, s.devices[from:to], s.opts.Concurrency, func(ctx context.Context, d *device) (time.Duration, error) { return part.visit(s, ctx, d) })
					return err
				})
				if err != nil {
					return nil, err
				}
				cpu[n] += used
			}
		}
		rate := func(n int) float64 { return perSecond(len(both[n].devices), cpu[n]) }
		figures = append(figures, AtLeast(part.name, rate(0), part.unit, rate(1), tracedGoal))
	}
	return figures, nil
}
