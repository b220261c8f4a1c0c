package trace_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/trace"
)

// TestStormsOfSuccessesAreSampled ensures that of many devices that are let in at once
// some are kept and all are counted, and that none is lost whose connection had a
// failed step before or after, or that was provisioned.
func TestStormsOfSuccessesAreSampled(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	now := handsAt(instant)
	l := trace.NewLog(store, now.clock, trace.Options{Logger: quiet(), SuccessRate: 10})
	open := func(name string) *trace.Recorder {
		rec := l.Begin("192.0.2.1:1")
		rec.Describe(func(a *imprint.Attempt) {
			a.Tenant, a.CertificateID, a.ClientID = home, imprint.CertificateID(name), imprint.ClientID(name)
		})
		rec.OK("tls", "fine")
		return rec
	}
	visit := func(name string) {
		rec := open(name)
		rec.Connected()
		rec.Info("session", "the client disconnected")
		rec.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	}
	for n := range 40 {
		visit(fmt.Sprintf("a%02d", n))
	}
	late := open("late")
	late.Connected()
	before := open("before")
	before.Fail("session", imprint.Errorf(imprint.CodeUnavailable, "it was lost"))
	before.Connected()
	before.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	made := open("claim")
	made.Connected()
	made.OK("claim.request", "RegisterThing")
	made.Provisioned("sensor")
	made.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	late.Fail("publish", imprint.Errorf(imprint.CodePublishDenied, "no"))
	late.End(imprint.OutcomeClosed, imprint.CodePublishDenied)
	l.Begin("192.0.2.1:1").End(imprint.OutcomeProvisioned, imprint.CodeProvisioned)
	refusal(l, "refused", "192.0.2.1:1", "ca", imprint.CodeCAInactive)
	now.set(instant.Add(time.Second))
	visit("later")
	l.Close()
	kept := map[string]imprint.Attempt{}
	whole := 0
	for _, a := range everything(t, store) {
		kept[string(a.CertificateID)] = a
		if len(a.CertificateID) == 3 {
			whole++
			if len(a.Steps) != 2 || a.Outcome != imprint.OutcomeClosed {
				t.Errorf("a sampled attempt is %+v", a)
			}
		}
	}
	if c := l.Counters(); whole != 10 || c.Unsampled != 30 || c.Dropped != 0 {
		t.Errorf("got %d kept, %+v; want 10 kept and 30 counted", whole, c)
	}
	steps := func(name string) []string {
		var all []string
		for _, s := range kept[name].Steps {
			all = append(all, s.Name)
		}
		return all
	}
	for name, want := range map[string][]string{
		"late": {"trace", "publish"}, "claim": {"trace", "claim.request"}, "before": {"tls", "session"}, "refused": {"ca"}, "later": {"tls", "session"},
	} {
		if diff := cmp.Diff(want, steps(name)); diff != "" {
			t.Errorf("the steps of %s differ:\n%s", name, diff)
		}
	}
	if a := kept["late"]; a.ClientID != "late" || a.Code != imprint.CodePublishDenied || a.EndedAt.IsZero() || kept["claim"].Thing != "sensor" {
		t.Errorf("got %+v and %+v", a, kept["claim"])
	}
}

// TestGoodbyesAreSampled ensures that health checks, which come for the handshake alone and
// say goodbye, take the room of no other attempts, and that one in which something failed is
// kept.
func TestGoodbyesAreSampled(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), SuccessRate: 50})
	goodbye := func(fail bool) {
		rec := l.Begin("192.0.2.1:1")
		rec.OK("tls", "TLS 1.3")
		if fail {
			rec.Fail("certificate.crl", imprint.Errorf(imprint.CodeUnavailable, "the list is past its time"))
		}
		rec.Info("mqtt.connect", "the client said DISCONNECT instead of CONNECT")
		rec.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	}
	for range 1000 {
		goodbye(false)
	}
	goodbye(true)
	l.Close()
	whole, failed := 0, 0
	for _, a := range everything(t, store) {
		whole++
		failed += failures(a)
	}
	if c := l.Counters(); whole != 51 || failed != 1 || c.Unsampled != 950 || c.Dropped != 0 {
		t.Errorf("%d rows with %d failures, %+v; want 50 and the one that failed", whole, failed, c)
	}
}
