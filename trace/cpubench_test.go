//go:build unix

package trace_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/trace"
)

// spent is the processor time of this process.
func spent(b *testing.B) time.Duration {
	var used syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// BenchmarkAFirstConnection tells what the trace of a device that is provisioned by JITP
// costs, on disk: processor time, as the disk's own isn't the server's.
func BenchmarkAFirstConnection(b *testing.B) {
	l := trace.NewLog(registrytest.New(b), time.Now, trace.Options{Logger: quiet()})
	n := 0
	visit := func() {
		n++
		id := fmt.Sprintf("%016x%048x", uint64(n)*0x9e3779b97f4a7c15, n)
		serial := fmt.Sprintf("SN%07d", n)
		rec := l.Begin("192.0.2.1:40000")
		rec.OK("tls.hello", "server name %s, tenant %s", "localhost", home)
		rec.OK("tls", "%s, %s, client key %s, %s", "TLS 1.3", "TLS_AES_128_GCM_SHA256", "P-256", "1 certificate(s) sent")
		rec.Describe(func(a *imprint.Attempt) {
			a.Tenant, a.SNI, a.TLSVersion, a.CertificateID, a.Serial, a.Subject = home, "localhost", "TLS 1.3", imprint.CertificateID(id), id[:32], "CN=device,SERIALNUMBER="+serial
		})
		rec.OK("mqtt.connect", "%s, client id %q, keep-alive %d s, clean start %t", "MQTT 3.1.1", serial, 600, true)
		rec.Info("certificate", "%s", id+" isn't registered; issuer \"CN=Line 7,O=Example\", valid from 2026-01-01 to 2036-01-01")
		rec.OK("ca", "signed by registered CA %s (%s)", id, "CN=Line 7,O=Example")
		rec.OK("template", "%s", "template of the CA's registration configuration")
		for _, name := range []string{"AWS::IoT::Certificate::CommonName", "AWS::IoT::Certificate::SerialNumber", "AWS::IoT::Certificate::Country"} {
			rec.OK("template.parameter", "%s = %q (%s)", name, serial, "the certificate's subject")
		}
		rec.OK("register", "certificate registered")
		rec.OK("thing", "thing %s %s%s", serial, "created", ", certificate attached")
		rec.Describe(func(a *imprint.Attempt) { a.Thing, a.ClientID = imprint.ThingName(serial), imprint.ClientID(serial) })
		rec.OK("policy", "policy %s attached", "sensors")
		rec.OK("activate", "certificate is ACTIVE")
		rec.OK("close", "closed as AWS IoT Core closes a first connection; the device's next one is let in")
		rec.End(imprint.OutcomeProvisioned, imprint.CodeProvisioned)
	}
	before := spent(b)
	b.ReportAllocs()
	for b.Loop() {
		visit()
	}
	l.Close()
	b.ReportMetric(float64((spent(b)-before).Microseconds())/float64(n), "cpu-µs/attempt")
}
