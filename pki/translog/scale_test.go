//go:build unix

package translog_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
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
		ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, BasicConstraintsValid: true, IsCA: true, NotAfter: time.Now().Add(time.Hour)}
		ca.Raw, err = x509.CreateCertificate(rand.Reader, ca, ca, deviceKey.Public(), deviceKey)
		if err == nil {
			ca, err = x509.ParseCertificate(ca.Raw)
		}
		if err != nil {
			b.Fatal(err)
		}
		for from := 0; from < count; from += 1000 {
			err = w.store.Update(b.Context(), func(tx imprint.Tx) error {
				for n := from; n < min(from+1000, count); n++ {
					der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(int64(n + 2)), NotAfter: ca.NotAfter}, ca, deviceKey.Public(), deviceKey)
					if err != nil {
						return err
					}
					c, err := x509.ParseCertificate(der)
					if err != nil {
						return err
					}
					i := recordOnly(fmt.Sprintf("%08d", n))
					i.Certificate, i.CertificateID, i.Serial, i.TBSHash = der, idOf(der), pki.SerialHex(c.SerialNumber), string(idOf(c.RawTBSCertificate))
					err = tx.PutIssuance(i)
					if err == nil {
						err = tx.PutCertificate(registered(c))
					}
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
			audited, err := translog.Audit(b.Context(), translog.AuditConfig{Store: w.store, Source: w.source(), Verifier: verifier, DeviceCA: ca, Report: func(f translog.Finding) { b.Errorf("%+v", f) }})
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
