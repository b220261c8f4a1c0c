package functions_test

import (
	"slices"
	"testing"
	"time"
)

// BenchmarkWarmFunction measures what a call of a function that does nothing
// takes when its process is warm, in Go and through the runtime clients of Node
// and Python.
func BenchmarkWarmFunction(b *testing.B) {
	h := open(b, nil)
	h.put("go", nil)
	h.putZip("node", zipOf(b, file{"index.js", nodeCode, 0o644}), node)
	h.putZip("python", say(b, "1"), python)
	for _, name := range []string{"go", "node", "python"} {
		b.Run(name, func(b *testing.B) {
			event := do("echo", "x")
			h.must(name, event)
			var took []time.Duration
			for b.Loop() {
				took = append(took, h.must(name, event).Duration)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "median-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}
