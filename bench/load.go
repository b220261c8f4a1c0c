package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// each runs do for the numbers below n, so many at a time, and gives what do
// gave in their order. It ends at the first error.
func each(ctx context.Context, n, concurrency int, do func(context.Context, int) (time.Duration, error)) ([]time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	took := make([]time.Duration, n)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(concurrency, n) {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return
				}
				spent, err := do(ctx, i)
				if err != nil {
					cancel(err)
					return
				}
				took[i] = spent
			}
		})
	}
	workers.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return took, nil
}

// eachDevice is each over devices; an error names its device.
func eachDevice(ctx context.Context, devices []*device, concurrency int, do func(context.Context, *device) (time.Duration, error)) ([]time.Duration, error) {
	return each(ctx, len(devices), concurrency, func(ctx context.Context, i int) (time.Duration, error) {
		spent, err := do(ctx, devices[i])
		if err != nil {
			return 0, fmt.Errorf("device %s: %w", devices[i].thing, err)
		}
		return spent, nil
	})
}
