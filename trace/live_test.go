package trace_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/trace"
)

// letIn begins the attempt of a device that is let in.
func letIn(l *trace.Log, name string) *trace.Recorder {
	rec := l.Begin("192.0.2.1:1")
	rec.Describe(func(a *imprint.Attempt) {
		a.Tenant, a.CertificateID, a.ClientID = home, imprint.CertificateID("c"+name), imprint.ClientID(name)
	})
	rec.OK("connected", "CONNACK 0 sent; keep-alive 1m0s")
	rec.Connected()
	return rec
}

// deny fails a publication as the broker does.
func deny(rec *trace.Recorder, topic string) {
	rec.Fail("publish", imprint.Errorf(imprint.CodePublishDenied, "iot:Publish on topic/%s is denied", topic).WithHint("allow topic/%s", topic))
}

// TestOneFailureHidesNoOther ensures that what a device is refused again and again, or in
// many ways, is counted, in few steps and few writes, and that another refusal is told at
// once all the same.
func TestOneFailureHidesNoOther(t *testing.T) {
	t.Parallel()
	for name, topic := range map[string]func(n int) string{
		"the same": func(int) string { return "a" },
		"two":      func(n int) string { return fmt.Sprint(n % 2) },
		"many":     func(n int) string { return fmt.Sprintf("a/%d", n) },
	} {
		synctest.Test(t, func(t *testing.T) {
			store := newKept()
			l := trace.NewLog(store, time.Now, trace.Options{Logger: quiet()})
			defer l.Close()
			rec := letIn(l, "sensor")
			const times = 1000
			for n := range times {
				time.Sleep(time.Second)
				deny(rec, topic(n))
				for range 2 { // what goes well has bounds of its own
					rec.OK("claim.request", "fine")
				}
			}
			synctest.Wait()
			before := store.written()
			rec.Fail("policy.subscribe", imprint.Errorf(imprint.CodeSubscribeDenied, "b is denied").WithHint("allow b"))
			time.Sleep(2 * time.Second)
			synctest.Wait()
			live := store.attempt(rec.ID())
			if s := live.Failure(); s.Code != imprint.CodeSubscribeDenied || s.Fix != "allow b" || store.written() == before {
				t.Errorf("%s: two seconds after another refusal the failure is %+v", name, s)
			}
			deny(rec, topic(times))
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			live = store.attempt(rec.ID())
			if s := live.Failure(); s.Code != imprint.CodePublishDenied || s.Fix != "allow topic/"+topic(times) {
				t.Errorf("%s: the failure is %+v, want the last one", name, s)
			}
			if n := failures(live); n != times+2 || len(live.Steps) > 1+64+2+40 {
				t.Errorf("%s: %d steps count %d failures, want %d", name, len(live.Steps), n, times+2)
			}
			// The many have words that change each time.
			if store.written() > 200 && name != "many" {
				t.Errorf("%s: it took %d writes", name, store.written())
			}
			rec.Info("session", "over")
			rec.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			a := store.attempt(rec.ID())
			last := a.Steps[len(a.Steps)-1]
			if n := failures(a); n != times+2 || last.Name != "session" || a.Outcome != imprint.OutcomeClosed {
				t.Errorf("%s: after the end %d failures are counted, and the last step is %+v", name, n, last)
			}
		})
	}
}

// TestTheSameFailureIsWrittenOnceAMinute ensures that a fleet of devices that are refused
// something each second doesn't keep the disk busy, and that each is seen to fail still.
func TestTheSameFailureIsWrittenOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newKept()
		l := trace.NewLog(store, time.Now, trace.Options{Logger: quiet()})
		defer l.Close()
		rec := letIn(l, "sensor")
		second := func() {
			deny(rec, "a")
			time.Sleep(time.Second)
			synctest.Wait()
		}
		for range 200 {
			second()
		}
		before := store.written()
		for range 600 {
			second()
			if a := store.attempt(rec.ID()); time.Since(a.ChangedAt()) > 65*time.Second {
				t.Fatalf("the device failed last at %s, says its attempt at %s", a.ChangedAt(), time.Now())
			}
		}
		// Each minute what is too old is trimmed, too.
		if writes := store.written() - before - 10; writes < 9 || writes > 11 {
			t.Errorf("%d writes in ten minutes, want one a minute", writes)
		}
	})
}

// TestStormsOfLiveConnectionsAreFolded ensures that a device that comes, is refused
// something after seconds and goes, again and again, costs as few rows as one that isn't
// let in, that all are counted, and that each id still finds its entry.
func TestStormsOfLiveConnectionsAreFolded(t *testing.T) {
	t.Parallel()
	for _, devices := range []int{1, 100} {
		store := registrytest.New(t)
		now := handsAt(instant)
		l := trace.NewLog(store, now.clock, trace.Options{Logger: quiet(), Linger: time.Microsecond})
		const times = 20
		var ids []string
		for range times {
			var all []*trace.Recorder
			for n := range devices {
				all = append(all, letIn(l, fmt.Sprintf("device-%d", n)))
			}
			flush(t, l)
			now.set(now.clock().Add(5 * time.Second))
			for n, rec := range all {
				rec.Fail("session", imprint.Errorf(imprint.CodePublishDenied, "iot:Publish on topic/device-%d is denied", n))
				if n == 0 {
					ids = append(ids, rec.ID())
				}
			}
			flush(t, l)
			for _, rec := range all {
				rec.End(imprint.OutcomeClosed, imprint.CodePublishDenied)
			}
			flush(t, l)
		}
		all := everything(t, store)
		counted := 0
		for _, a := range all {
			counted += 1 + a.Repeats
			if a.Outcome != imprint.OutcomeClosed || a.EndedAt.IsZero() || failures(a) != 1 {
				t.Errorf("an entry is %+v", a)
			}
		}
		if most := min(devices, 64)*3 + 1; len(all) > most || counted != devices*times {
			t.Errorf("%d devices: %d connections are %d entries, which count %d; want at most %d", devices, devices*times, len(all), counted, most)
		}
		if devices == 1 && (len(all) != 3 || all[2].Repeats != times-3) {
			t.Errorf("got %d entries, the last counts %d before it", len(all), all[len(all)-1].Repeats)
		}
		for n, id := range ids {
			if list := found(t, store, imprint.AttemptFilter{Tenant: home, Match: id}); len(list) != 1 || list[0].ClientID != "device-0" {
				t.Errorf("the id of connection %d finds %d entries", n, len(list))
			}
		}
		l.Close()
	}
}

// TestFailuresOutliveTheRowOfTheirConnection ensures that what a device is refused is
// kept when its attempt was trimmed while it was on, and what ends well isn't made anew.
func TestFailuresOutliveTheRowOfTheirConnection(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), FoldAfter: 1})
	defer l.Close()
	trimmed := func(name string) *trace.Recorder {
		rec := letIn(l, name)
		flush(t, l)
		err := store.Update(t.Context(), func(tx imprint.Tx) error { return tx.DeleteAttempt(rec.ID()) })
		if err != nil {
			t.Fatal(err)
		}
		return rec
	}
	fine, on, over := trimmed("fine"), trimmed("on"), trimmed("over")
	fine.Info("session", "over")
	fine.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	deny(on, "a")
	deny(over, "a")
	over.End(imprint.OutcomeClosed, imprint.CodePublishDenied)
	flush(t, l)
	if a, is := attempt(t, store, fine.ID()); is {
		t.Errorf("what ended well is there again: %+v", a)
	}
	for rec, outcome := range map[*trace.Recorder]imprint.Outcome{on: imprint.OutcomeConnected, over: imprint.OutcomeClosed} {
		a, _ := attempt(t, store, rec.ID())
		if a.Outcome != outcome || failures(a) != 1 || a.Tenant != home || a.ClientID == "" || len(a.Steps) != 2 || a.Steps[0].Name != "trace" {
			t.Errorf("the attempt is %+v, want one that is %s with a failure", a, outcome)
		}
	}
}

// TestWhatFailsForADeviceHasItsAttemptKept ensures that what a function or a rule fails to
// do for a device that is on is told with its attempt, also where that wasn't sampled.
func TestWhatFailsForADeviceHasItsAttemptKept(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), SuccessRate: 1})
	defer l.Close()
	letIn(l, "sampled")
	step := func(name string, verdict imprint.Verdict) imprint.Step {
		return imprint.Step{At: instant, Name: name, Verdict: verdict}
	}
	before := l.Begin("192.0.2.1:1")
	l.Append(before.ID(), step("function", imprint.VerdictFailed))
	before.Connected()
	on, fine := letIn(l, "on"), letIn(l, "fine")
	l.Append(on.ID(), step("function", imprint.VerdictFailed), step("function.log", imprint.VerdictInfo))
	l.Append(fine.ID(), step("function", imprint.VerdictOK))
	flush(t, l)
	for rec, want := range map[*trace.Recorder][]string{before: {"function"}, on: {"trace", "function", "function.log"}} {
		a, _ := attempt(t, store, rec.ID())
		var names []string
		for _, s := range a.Steps {
			names = append(names, s.Name)
		}
		if !slices.Equal(names, want) || a.Outcome != imprint.OutcomeConnected {
			t.Errorf("got %s with the steps %q, want %q", a.Outcome, names, want)
		}
	}
	if a, is := attempt(t, store, fine.ID()); is {
		t.Errorf("an attempt in which all went well is kept: %+v", a)
	}
	if got := l.Counters().Dropped; got != 0 {
		t.Errorf("%d were dropped", got)
	}
	on.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	l.Append(on.ID(), step("late", imprint.VerdictFailed))
	flush(t, l)
	if a, _ := attempt(t, store, on.ID()); len(a.Steps) != 4 || a.Outcome != imprint.OutcomeClosed {
		t.Errorf("after its end the attempt is %+v", a)
	}
}

// TestAKilledServersConnectionsAreEnded ensures that attempts of devices that were on when
// a server was killed don't stay connected for ever, and that those of devices that come
// to the next one do.
func TestAKilledServersConnectionsAreEnded(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	now := handsAt(instant)
	options := trace.Options{Logger: quiet(), SuccessRate: -1}
	killed := trace.NewLog(store, now.clock, options)
	var on []*trace.Recorder
	for n := range 1100 { // more than a page
		on = append(on, letIn(killed, fmt.Sprintf("device-%d", n)))
	}
	deny(on[0], "a")
	over := letIn(killed, "over")
	flush(t, killed)
	over.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	killed.Close() // as if it were killed: nothing ends
	later := handsAt(instant.Add(time.Hour))
	l := trace.NewLog(store, later.clock, options)
	defer l.Close()
	fresh := letIn(l, "fresh")
	flush(t, l)
	ended := func(rec *trace.Recorder) imprint.Attempt {
		a, _ := attempt(t, store, rec.ID())
		return a
	}
	patience := time.Now().Add(2 * time.Minute)
	for _, rec := range on {
		for ended(rec).Outcome != imprint.OutcomeClosed {
			if time.Now().After(patience) {
				t.Fatal("an attempt is connected still")
			}
			runtime.Gosched()
		}
	}
	first := ended(on[0])
	if first.Code != imprint.CodeServerStopped || !first.EndedAt.Equal(later.clock()) || failures(first) != 1 || first.Steps[len(first.Steps)-1].Name != "session" {
		t.Errorf("the attempt of a device that was on is %+v", first)
	}
	if trace.NextOf(&first) == "" {
		t.Error("it isn't said what comes next")
	}
	if a := ended(over); a.Code != imprint.CodeClientDisconnect {
		t.Errorf("what had ended is %+v", a)
	}
	if a := ended(fresh); a.Outcome != imprint.OutcomeConnected {
		t.Errorf("the attempt of a device that is on is %+v", a)
	}
}
