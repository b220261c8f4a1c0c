package sqlite_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// benchVisit is that of a device that came, was let in and went.
func benchVisit(n int) imprint.Attempt {
	at := time.UnixMilli(1_700_000_000_000 + int64(n)*10)
	a := imprint.Attempt{
		ID: fmt.Sprintf("%012x%020x", at.UnixMilli(), n), Tenant: tenant, At: at, EndedAt: at.Add(time.Second), Address: "192.0.2.1:40000",
		SNI: "localhost", TLSVersion: "TLS 1.3", CertificateID: imprint.CertificateID(fmt.Sprintf("%016x", uint64(n)*0x9e3779b97f4a7c15) + strings.Repeat("0123456789abcdef", 3)),
		Serial: fmt.Sprintf("%032x", uint64(n)*0x9e3779b97f4a7c15), Subject: "SERIALNUMBER=SN0000001,CN=device-0000001,O=Example,C=DE",
		Thing: imprint.ThingName(fmt.Sprintf("Example-SN%07d", n)), ClientID: imprint.ClientID(fmt.Sprintf("Example-SN%07d", n)),
		Outcome: imprint.OutcomeClosed, Code: imprint.CodeClientDisconnect,
	}
	for i, step := range [][2]string{
		{"tls.hello", "server name localhost, tenant 000000000000/us-east-1"},
		{"tls", "TLS 1.3, TLS_AES_128_GCM_SHA256, client key P-256, 1 certificate(s) sent"},
		{"mqtt.connect", `MQTT 3.1.1, client id "Example-SN0000001", keep-alive 600 s, clean start true`},
		{"certificate", string(a.CertificateID) + " is ACTIVE, 1 thing(s) attached"},
		{"policy.connect", "iot:Connect on client/Example-SN0000001 is allowed"},
		{"connected", "CONNACK sent; keep-alive 10m0s"},
		{"session", "the device said goodbye"},
	} {
		a.Steps = append(a.Steps, imprint.Step{At: at.Add(time.Duration(i+1) * 123456), Name: step[0], Verdict: imprint.VerdictOK, Detail: step[1]})
	}
	return a
}

// BenchmarkAttempts tells what an attempt costs when 128 are put in one Update.
func BenchmarkAttempts(b *testing.B) {
	store := benchStore(b, 0)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		from := n
		err := store.Update(context.Background(), func(tx imprint.Tx) error {
			for n = from; n < from+128; n++ {
				err := tx.PutAttempt(benchVisit(n))
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
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "µs/attempt")
}
