//go:build unix

package translog_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/translog"
)

// BenchmarkLog logs entries of issuances that wait in the store, 100,000 unless
// IMPRINT_BENCH_ENTRIES says otherwise, and audits them: entries a second, and the heap in
// use at its highest, which mustn't grow with them.
func BenchmarkLog(b *testing.B) {
	count := 100_000
	if text := os.Getenv("IMPRINT_BENCH_ENTRIES"); text != "" {
		var err error
		count, err = strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
	}
	for range b.N {
		b.StopTimer()
		w, err := openWorld(b.Context(), b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		der := w.ca.Certificate().Raw
		for from := 0; from < count; from += 1000 {
			err = w.store.Update(b.Context(), func(tx imprint.Tx) error {
				for n := from; n < min(from+1000, count); n++ {
					i := recordOnly(fmt.Sprintf("%08d", n))
					i.Certificate = append(der[:len(der):len(der)], i.ID...)
					i.CertificateID = idOf(i.Certificate)
					err := tx.PutIssuance(i)
					if err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		b.StartTimer()
		start := time.Now()
		log, err := translog.Open(b.Context(), w.config())
		if err != nil {
			b.Fatal(err)
		}
		highest := uint64(0)
		for look := time.NewTicker(20 * time.Millisecond); log.Counters().Published < int64(count); <-look.C {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			highest = max(highest, m.HeapInuse)
			if log.Counters().Broken {
				b.Fatal("the log is broken")
			}
		}
		b.ReportMetric(float64(count)/time.Since(start).Seconds(), "entries/s")
		b.ReportMetric(float64(highest)/(1<<20), "MiB-heap-logging")
		verifier := log.Verifier()
		err = log.Close(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		start = time.Now()
		done := make(chan translog.Audited)
		go func() {
			audited, err := translog.Audit(b.Context(), translog.AuditConfig{Store: w.store, Source: w.source(), Verifier: verifier, DeviceCA: w.ca.Certificate()})
			if err != nil {
				b.Error(err)
			}
			done <- audited
		}()
		highest = 0
		var audited translog.Audited
		for running := true; running; {
			select {
			case audited = <-done:
				running = false
			case <-time.After(20 * time.Millisecond):
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				highest = max(highest, m.HeapInuse)
			}
		}
		b.ReportMetric(float64(audited.Entries)/time.Since(start).Seconds(), "audited/s")
		b.ReportMetric(float64(highest)/(1<<20), "MiB-heap-audit")
		if audited.Entries != int64(count) {
			b.Errorf("audited %d entries of %d", audited.Entries, count)
		}
		err = w.store.Close()
		if err != nil {
			b.Fatal(err)
		}
	}
}
