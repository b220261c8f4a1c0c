package trace_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/trace"
)

// failsFor tells what failed for a device that has gone.
func failsFor(l *trace.Log, at time.Time, id, step string) {
	l.Append(id, imprint.Step{
		At: at, Name: step, Verdict: imprint.VerdictFailed, Code: imprint.CodeUnavailable, Detail: "it can't be reached", Fix: "start it",
	}, imprint.Step{At: at, Name: step + ".log", Verdict: imprint.VerdictInfo, Detail: "a line"})
}

// tells says whether the entries that a word finds have a failed step of a name.
func tells(t *testing.T, store imprint.Store, word, step string) bool {
	t.Helper()
	return slices.ContainsFunc(found(t, store, imprint.AttemptFilter{Tenant: home, Match: word, FailedOnly: true}), func(a imprint.Attempt) bool {
		return slices.ContainsFunc(a.Steps, func(s imprint.Step) bool {
			return s.Name == step && s.Verdict == imprint.VerdictFailed && s.Fix != ""
		})
	})
}

// counted gives how many failed steps of a name the entries count, and how many entries do.
func counted(t *testing.T, store imprint.Store, step string) (times, rows int) {
	t.Helper()
	for _, a := range everything(t, store) {
		if slices.ContainsFunc(a.Steps, func(s imprint.Step) bool { return s.Name == step && s.Verdict == imprint.VerdictFailed }) {
			rows++
			times += 1 + a.Repeats
		}
	}
	return times, rows
}

// TestWhatFailsForACountedDeviceIsTold ensures that what a function fails to do for a device
// whose attempt is counted in another entry is told, also where that entry was the device's
// own for a moment, and that the failures of a fleet's functions are counted in few entries.
func TestWhatFailsForACountedDeviceIsTold(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	now := handsAt(instant)
	l := trace.NewLog(store, now.clock, trace.Options{Logger: quiet(), Linger: time.Microsecond})
	defer l.Close()
	comes := func(n int) string {
		rec := l.Begin("192.0.2.1:1")
		name := fmt.Sprintf("d%d", n)
		rec.Describe(func(a *imprint.Attempt) {
			a.Tenant, a.CertificateID, a.Serial = home, imprint.CertificateID("c"+name), "SN-"+name
		})
		id := rec.ID() // its function knows it
		rec.Fail("certificate", imprint.Errorf(imprint.CodeCertificatePending, "certificate c%s is PENDING_ACTIVATION", name))
		rec.End(imprint.OutcomeRefused, imprint.CodeCertificatePending)
		return id
	}
	const devices = 1000
	ids := make([]string, devices)
	for n := range ids {
		ids[n] = comes(n)
	}
	flush(t, l)
	now.set(instant.Add(5 * time.Second))
	failsFor(l, now.clock(), ids[80], "function")
	flush(t, l)
	for _, word := range []string{ids[80], "cd80", "SN-d80"} {
		if !tells(t, store, word, "function") {
			t.Errorf("%s finds nothing that tells of the function's failure", word)
		}
	}
	a, _ := attempt(t, store, ids[80])
	if a.Outcome != imprint.OutcomeRefused || a.Code != imprint.CodeCertificatePending || !a.At.Equal(instant) || a.EndedAt.IsZero() || len(a.Steps) != 3 || a.Steps[0].Name != "trace" || a.CertificateID != "cd80" {
		t.Errorf("what is kept of it is %+v", a)
	}

	// That of the last device is the entry of all, until another one comes.
	failsFor(l, now.clock(), ids[devices-1], "function")
	flush(t, l)
	failsFor(l, now.clock(), ids[devices-1], "function")
	comes(devices)
	flush(t, l)
	for _, word := range []string{ids[devices-1], "cd999"} {
		if !tells(t, store, word, "function") {
			t.Errorf("%s finds nothing that tells of the function's failure once another device came", word)
		}
	}
	for n, id := range ids {
		if n != 80 && n != devices-1 {
			failsFor(l, now.clock(), id, "function")
		}
	}
	flush(t, l)
	times, rows := counted(t, store, "function")
	if times < devices || rows > 200 {
		t.Errorf("the failures of %d functions are %d entries that count %d", devices, rows, times)
	}
	if got := l.Counters().Dropped; got != 0 {
		t.Errorf("%d were dropped", got)
	}
	once := 0
	for _, a := range everything(t, store) {
		once += 1 + a.Repeats
		if a.Devices > 1+a.Repeats {
			t.Errorf("entry %s has %d attempts of %d devices", a.ID, 1+a.Repeats, a.Devices)
		}
	}
	if once != devices+1 {
		t.Errorf("%d attempts are counted, want each of %d once", once, devices+1)
	}
}

// TestWhatFailsAfterAnUnsampledConnectionIsTold ensures that what a rule fails to do for a
// device that came and went while many did, and of which nothing was kept, is told.
func TestWhatFailsAfterAnUnsampledConnectionIsTold(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	now := handsAt(instant)
	l := trace.NewLog(store, now.clock, trace.Options{Logger: quiet(), Linger: time.Microsecond, SuccessRate: 1})
	defer l.Close()
	const devices = 1000
	var ids []string
	for n := range devices {
		rec := letIn(l, fmt.Sprintf("d%d", n))
		ids = append(ids, rec.ID()) // its rule's action knows it
		rec.Info("session", "over")
		rec.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	}
	flush(t, l)
	now.set(instant.Add(5 * time.Second))
	failsFor(l, now.clock(), ids[7], "rule")
	l.Append(ids[8], imprint.Step{At: now.clock(), Name: "rule", Verdict: imprint.VerdictOK})
	flush(t, l)
	for _, word := range []string{ids[7], "cd7", "d7"} {
		if !tells(t, store, word, "rule") {
			t.Errorf("%s finds nothing that tells of the rule's failure", word)
		}
	}
	a, _ := attempt(t, store, ids[7])
	if a.Outcome != imprint.OutcomeClosed || a.Code != imprint.CodeClientDisconnect || !a.EndedAt.Equal(instant) || len(a.Steps) != 3 || a.Steps[0].Name != "trace" {
		t.Errorf("what is kept of it is %+v", a)
	}
	if a, is := attempt(t, store, ids[8]); is {
		t.Errorf("a connection for which all went well is kept: %+v", a)
	}
	for n, id := range ids[1:] {
		if n != 6 {
			failsFor(l, now.clock(), id, "rule")
		}
	}
	flush(t, l)
	times, rows := counted(t, store, "rule")
	if times != devices-1 || rows > 200 {
		t.Errorf("the failures of %d rules are %d entries that count %d", devices-1, rows, times)
	}
	if !tells(t, store, ids[500], "rule") || l.Counters().Dropped != 0 {
		t.Errorf("%d were dropped, or the id of device 500 finds nothing", l.Counters().Dropped)
	}
}

// TestWhatFailsWhileAnotherAttemptTakesTheRowIsTold ensures that what a function fails to do
// for a device is told that is heard of with the attempt which takes the place of the
// device's.
func TestWhatFailsWhileAnotherAttemptTakesTheRowIsTold(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), Linger: time.Hour})
	defer l.Close()
	var id string
	for range 3 {
		id = refusal(l, "c", "192.0.2.1:1", "certificate", imprint.CodeCertificatePending)
		flush(t, l)
	}
	refusal(l, "c", "192.0.2.1:1", "certificate", imprint.CodeCertificatePending)
	failsFor(l, instant, id, "function")
	flush(t, l)
	if !tells(t, store, id, "function") || !tells(t, store, "c", "function") {
		t.Errorf("the failure isn't told; what is stored is %+v", everything(t, store))
	}
}

// TestWhatGoesWellTakesNoRoomFromFailures ensures that what functions did for thousands of
// devices of which nothing is kept doesn't push out what failed for one that is still on its
// way into the trace, and doesn't count as dropped.
func TestWhatGoesWellTakesNoRoomFromFailures(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), Linger: time.Microsecond})
	rec := l.Begin("192.0.2.1:1")
	rec.Describe(func(a *imprint.Attempt) { a.Tenant, a.CertificateID = home, "c" })
	failsFor(l, instant, rec.ID(), "function")
	for range 3 {
		for n := range 1000 {
			l.Append(fmt.Sprint("unsampled-", n), imprint.Step{At: instant, Name: "function", Verdict: imprint.VerdictOK})
		}
		flush(t, l)
	}
	rec.End(imprint.OutcomeRefused, imprint.CodeCertificatePending)
	l.Close()
	if !tells(t, store, "c", "function") || l.Counters().Dropped != 0 {
		t.Errorf("the failure isn't told, or %d were dropped", l.Counters().Dropped)
	}
}

// TestALateFailureForgetsNoStorm ensures that what failed for a device that went minutes ago
// doesn't make what is known of a storm forgotten.
func TestALateFailureForgetsNoStorm(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	now := handsAt(instant)
	l := trace.NewLog(store, now.clock, trace.Options{Logger: quiet(), FoldAfter: 1, SuccessRate: 1})
	letIn(l, "sampled")
	rec := letIn(l, "sensor")
	id := rec.ID()
	rec.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	now.set(instant.Add(8 * time.Minute))
	refuse := func() {
		for range 5 {
			refusal(l, "c", "192.0.2.1:1", "ca", imprint.CodeCAInactive)
			flush(t, l)
		}
	}
	refuse()
	failsFor(l, now.clock(), id, "rule")
	flush(t, l)
	refuse()
	l.Close()
	if got := l.Counters().Folded; got != 9 || !tells(t, store, "sensor", "rule") {
		t.Errorf("%d of ten alike were folded, want all but the first; or the late failure isn't told", got)
	}
}

// TestThosePastAreBounded ensures that what is remembered of connections that are over is
// bounded in number and in time.
func TestThosePastAreBounded(t *testing.T) {
	t.Parallel()
	now := handsAt(instant)
	l := trace.NewLog(newKept(), now.clock, trace.Options{Logger: quiet(), SuccessRate: 1})
	defer l.Close()
	visit := func() {
		rec := letIn(l, "sensor")
		rec.ID()
		rec.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	}
	letIn(l, "sampled")
	for range 20_000 {
		visit()
	}
	if got := l.Past(); got < 8_192 || got > 2*8_192 {
		t.Errorf("of 20,000 connections %d are remembered", got)
	}
	for range 3 {
		now.set(now.clock().Add(10 * time.Minute))
		letIn(l, "sampled")
		visit()
	}
	if got := l.Past(); got > 2 {
		t.Errorf("after half an hour %d are remembered", got)
	}
}
