package heapfloor_test

import (
	"runtime/metrics"
	"testing"

	"github.com/imprint-iot/imprint/internal/heapfloor"
)

// While the floor is held, allocating less than it starts at most one cycle.
func TestHoldKeepsTheCollectorQuiet(t *testing.T) {
	const size = 256 << 20
	release := heapfloor.Hold(size)
	defer release()
	before := cycles(t)
	var kept [][]byte
	for range size / 4 / 4096 {
		kept = append(kept[:0], make([]byte, 4096))
	}
	if len(kept) != 1 {
		t.Fatalf("kept %d buffers, want 1", len(kept))
	}
	if got := cycles(t) - before; got > 1 {
		t.Errorf("%d collections while a quarter of the floor was allocated, want at most 1", got)
	}
}

func cycles(t *testing.T) uint64 {
	t.Helper()
	sample := []metrics.Sample{{Name: "/gc/cycles/automatic:gc-cycles"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
