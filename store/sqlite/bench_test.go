package sqlite_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/store/sqlite"
)

var tenant = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}

func benchThing(n int64) imprint.Thing {
	now := time.UnixMilli(1_700_000_000_000 + n)
	return imprint.Thing{Tenant: tenant, Name: imprint.ThingName(fmt.Sprintf("thing-%d", n)), ID: "0123456789abcdef0123456789abcdef0123",
		Version: 1, CreatedAt: now, ModifiedAt: now}
}

func benchCertificate(n int64) imprint.Certificate {
	now := time.UnixMilli(1_700_000_000_000 + n)
	id := imprint.CertificateID(fmt.Sprintf("%016x", uint64(n)*0x9e3779b97f4a7c15) + strings.Repeat("0123456789abcdef", 3))
	return imprint.Certificate{Tenant: tenant, ID: id, PEM: strings.Repeat("x", 900), Status: imprint.CertificatePendingActivation,
		Mode: imprint.ModeDefault, CAID: "ca", OwnedBy: tenant.Account, Serial: string(id[:32]), Subject: "CN=device", NotBefore: now,
		NotAfter: now, CreatedAt: now, ModifiedAt: now, CustomerVersion: 1, GenerationID: "0123456789abcdef0123456789abcdef0123"}
}

func benchStore(b *testing.B, maxBatch int) *sqlite.Store {
	opts := options(filepath.Join(b.TempDir(), "registry.db"))
	opts.MaxBatch = maxBatch
	return mustOpen(b, opts)
}

// parallel runs 64 writers.
func parallel(b *testing.B, store imprint.Store, change func(imprint.Tx, int64) error) {
	var n atomic.Int64
	b.SetParallelism(64 / 2)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			err := store.Update(context.Background(), func(tx imprint.Tx) error { return change(tx, i) })
			if err != nil {
				b.Errorf("Update: %v", err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}

func BenchmarkWrite(b *testing.B) {
	kinds := []struct {
		name   string
		change func(imprint.Tx, int64) error
	}{
		{"tag", func(tx imprint.Tx, n int64) error {
			return tx.PutTag(tenant, fmt.Sprintf("thing-%d", n), imprint.Tag{Key: "k", Value: "v"})
		}},
		{"thing", func(tx imprint.Tx, n int64) error { return tx.PutThing(benchThing(n)) }},
		{"certificate", func(tx imprint.Tx, n int64) error { return tx.PutCertificate(benchCertificate(n)) }},
		{"device", provisionOne},
		{"attempt", func(tx imprint.Tx, n int64) error { return tx.PutAttempt(benchAttempt(n)) }},
	}
	for _, kind := range kinds {
		b.Run(kind.name+"/groups", func(b *testing.B) { parallel(b, benchStore(b, 256), kind.change) })
		b.Run(kind.name+"/single", func(b *testing.B) { parallel(b, benchStore(b, 1), kind.change) })
	}
}

func benchAttempt(n int64) imprint.Attempt {
	c := benchCertificate(n)
	a := imprint.Attempt{ID: fmt.Sprintf("%032x", n), Tenant: tenant, At: c.CreatedAt, Address: fmt.Sprintf("192.0.2.1:%d", n%60000),
		SNI: "prefix-ats.iot.us-east-1.example.com", ALPN: "mqtt", TLSVersion: "1.3", CertificateID: c.ID, Serial: c.Serial,
		Subject: c.Subject, Thing: benchThing(n).Name, ClientID: imprint.ClientID(benchThing(n).Name), Outcome: imprint.OutcomeProvisioned}
	for range 8 {
		a.Steps = append(a.Steps, imprint.Step{At: c.CreatedAt, Name: "certificate", Verdict: imprint.VerdictOK, Detail: "the certificate is known"})
	}
	return a
}

// provisionOne makes the statements of a first connection.
func provisionOne(tx imprint.Tx, n int64) error {
	cert, device := benchCertificate(n), benchThing(n)
	_, err := tx.Certificate(tenant, cert.ID)
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		return fmt.Errorf("certificate %d is there: %w", n, err)
	}
	err = tx.PutCertificate(cert)
	if err != nil {
		return err
	}
	err = tx.PutEvent(imprint.Event{ID: string(cert.ID), Tenant: tenant, Topic: "$aws/events/certificates/registered/x", Payload: []byte(`{"a":1}`)})
	if err != nil {
		return err
	}
	_, err = tx.Thing(tenant, device.Name)
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		return fmt.Errorf("thing %d is there: %w", n, err)
	}
	err = tx.PutThing(device)
	if err != nil {
		return err
	}
	err = tx.PutThingAttachment(imprint.ThingAttachment{Tenant: tenant, Thing: device.Name, Certificate: cert.ID})
	if err != nil {
		return err
	}
	err = tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: tenant, Policy: "p", Target: cert.ARN()})
	if err != nil {
		return err
	}
	cert.Status = imprint.CertificateActive
	return tx.PutCertificate(cert)
}

func fillCertificates(b *testing.B, store imprint.Store, count int64) {
	const step = 1000
	for from := int64(0); from < count; from += step {
		err := store.Update(context.Background(), func(tx imprint.Tx) error {
			for n := from; n < from+step; n++ {
				err := tx.PutCertificate(benchCertificate(n))
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatalf("Update: %v", err)
		}
	}
}

func BenchmarkCertificate(b *testing.B) {
	for _, count := range []int64{1_000, 100_000} {
		store := benchStore(b, 0)
		fillCertificates(b, store, count)
		b.Run(fmt.Sprintf("rows=%d", count), func(b *testing.B) {
			b.ReportAllocs()
			var n int64
			for b.Loop() {
				n = (n*1103515245 + 12345) % count
				err := store.View(context.Background(), func(tx imprint.ReadTx) error {
					_, err := tx.Certificate(tenant, benchCertificate(n).ID)
					return err
				})
				if err != nil {
					b.Fatalf("View: %v", err)
				}
			}
		})
	}
}

// BenchmarkGlanceBesideCommits is what six look-ups and a commit cost that come in
// turns: each commit makes a reading connection read its pages anew.
func BenchmarkGlanceBesideCommits(b *testing.B) {
	const count = 10_000
	store := benchStore(b, 0)
	fillCertificates(b, store, count)
	var n int64
	for b.Loop() {
		n++
		err := store.Update(context.Background(), func(tx imprint.Tx) error { return tx.PutThing(benchThing(n)) })
		if err != nil {
			b.Fatalf("Update: %v", err)
		}
		for at := range int64(6) {
			err = store.Glance(context.Background(), func(tx imprint.ReadTx) error {
				_, err := tx.Certificate(tenant, benchCertificate((n*6+at)*7919%count).ID)
				return err
			})
			if err != nil {
				b.Fatalf("Glance: %v", err)
			}
		}
	}
}
