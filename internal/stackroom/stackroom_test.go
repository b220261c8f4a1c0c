package stackroom_test

import (
	"runtime"
	"runtime/metrics"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint/internal/stackroom"
)

// TestReserveGrowsTheStack ensures that what is reserved is there when Reserve has
// returned.
func TestReserveGrowsTheStack(t *testing.T) {
	const goroutines, want = 1000, 16 << 10
	runtime.GC()
	before := stacks()
	var reserved, over sync.WaitGroup
	end := make(chan struct{})
	reserved.Add(goroutines)
	for range goroutines {
		over.Go(func() {
			stackroom.Reserve()
			reserved.Done()
			<-end
		})
	}
	reserved.Wait()
	got := (stacks() - before) / goroutines
	close(end)
	over.Wait()
	// Stacks that were free already aren't counted.
	if got < want*9/10 || got > want*3/2 {
		t.Errorf("stack of a goroutine: got %d bytes, want about %d", got, want)
	}
}

func stacks() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
