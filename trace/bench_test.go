package trace_test

import (
	"context"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/trace"
)

// nowhere is a store that keeps nothing.
type nowhere struct{ imprint.Store }

func (nowhere) View(context.Context, func(imprint.ReadTx) error) error { return nil }

func (nowhere) Update(context.Context, func(imprint.Tx) error) error { return nil }

// BenchmarkAnUnsampledConnection tells what the record of a device costs that is let in
// while so many come that it isn't kept.
func BenchmarkAnUnsampledConnection(b *testing.B) {
	l := trace.NewLog(nowhere{}, time.Now, trace.Options{Logger: quiet(), SuccessRate: 1})
	defer l.Close()
	const certificate = "0a3c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635"
	visit := func() {
		rec := l.Begin("192.0.2.1:40000")
		rec.OK("tls.hello", "server name %s, tenant %s", "localhost", home)
		rec.OK("tls", "%s, %s, client key %s, %s", "TLS 1.3", "TLS_AES_128_GCM_SHA256", "P-256", "1 certificate(s) sent")
		rec.Describe(func(a *imprint.Attempt) {
			a.Tenant, a.CertificateID, a.Serial, a.Subject = home, certificate, "0102", "CN=device"
		})
		rec.OK("mqtt.connect", "%s, client id %q, keep-alive %d s, clean start %t", "MQTT 3.1.1", "Example-SN0000001", 600, true)
		rec.OK("certificate", "%s is ACTIVE, %d thing(s) attached", imprint.CertificateID(certificate), 1)
		rec.OK("policy.connect", "iot:Connect on client/%s is allowed", imprint.ClientID("Example-SN0000001"))
		rec.OK("connected", "CONNACK sent; keep-alive %s", 10*time.Minute)
		rec.Connected()
		rec.Info("session", "%s", "the client disconnected")
		rec.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	}
	b.ReportAllocs()
	for b.Loop() {
		visit()
	}
}
