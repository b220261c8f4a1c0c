package trace_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var instant = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func clock() time.Time { return instant }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// counting is a store whose updates can be counted and held up.
type counting struct {
	imprint.Store
	mu      sync.Mutex
	updates int
	gate    chan struct{} // when not nil, an update waits for it
	entered chan struct{} // when not nil, tells of an update
	fail    error
}

func (c *counting) Update(ctx context.Context, fn func(imprint.Tx) error) error {
	if c.entered != nil {
		c.entered <- struct{}{}
	}
	if c.gate != nil {
		<-c.gate
	}
	c.mu.Lock()
	c.updates++
	c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	return c.Store.Update(ctx, fn)
}

func flush(t *testing.T, l *trace.Log) {
	t.Helper()
	err := l.Flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
}

func attempt(t *testing.T, store imprint.Store, id string) (imprint.Attempt, bool) {
	t.Helper()
	var a imprint.Attempt
	err := store.View(context.Background(), func(tx imprint.ReadTx) error {
		var err error
		a, err = tx.Attempt(id)
		return err
	})
	if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
		t.Fatal(err)
	}
	return a, err == nil
}

func TestAttemptsCarryTheirStepsAndFixes(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet()})
	defer l.Close()
	rec := l.Begin("192.0.2.1:1")
	rec.Describe(func(a *imprint.Attempt) { a.SNI = "name" })
	rec.OK("one", "value %d", 7)
	rec.Info("two", "100%")
	rec.Fail("three", imprint.Errorf(imprint.CodeCAInactive, "it is off"))
	rec.Fail("four", fmt.Errorf("couldn't: %w", imprint.Errorf(imprint.CodeCAInactive, "off").WithHint("on")))
	rec.End(imprint.OutcomeRefused, imprint.CodeCAInactive)
	rec.End(imprint.OutcomeProvisioned, "")
	rec.OK("late", "isn't kept")
	flush(t, l)
	a, found := attempt(t, store, rec.ID())
	if !found || a.Outcome != imprint.OutcomeRefused || a.Code != imprint.CodeCAInactive || a.SNI != "name" || a.EndedAt.IsZero() || len(a.Steps) != 4 {
		t.Fatalf("got %+v, %t", a, found)
	}
	if a.Steps[0].Detail != "value 7" || a.Steps[1].Detail != "100%" || a.Steps[2].Fix != imprint.Describe(imprint.CodeCAInactive).Hint || a.Steps[3].Fix != "on" || a.Steps[3].Code != imprint.CodeCAInactive {
		t.Errorf("got steps %+v", a.Steps)
	}
}

// asked is an error that tells what a policy was asked.
type asked struct{}

func (asked) Error() string           { return "no" }
func (asked) Asked() (string, string) { return "iot:Publish", "arn:" + strings.Repeat("x", 10_000) }

// What policies were asked is kept with their decision; what is denied again and again is
// one step, and takes the place of nothing.
func TestDecisionsOfPoliciesAreKept(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet()})
	defer l.Close()
	few := l.Begin("192.0.2.1:1")
	few.Connected()
	few.Allowed("policy.publish", "iot:Publish", "arn:y")
	few.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	rec := l.Begin("192.0.2.1:1")
	rec.Connected()
	for range 63 {
		rec.Fail("publish", &imprint.Error{Code: imprint.CodePublishDenied, Err: asked{}})
	}
	for range 16 {
		rec.Allowed("policy.publish", "iot:Publish", "arn:y")
	}
	rec.Fail("session", imprint.Errorf(imprint.CodeConnectionLost, "gone"))
	rec.End(imprint.OutcomeClosed, imprint.CodeConnectionLost)
	flush(t, l)
	a, _ := attempt(t, store, few.ID())
	if len(a.Steps) != 1 || a.Steps[0].Verdict != imprint.VerdictOK || a.Steps[0].Action != "iot:Publish" || a.Steps[0].Resource != "arn:y" || a.Steps[0].Detail != "allowed" {
		t.Errorf("got steps %+v, want one that was allowed", a.Steps)
	}
	a, _ = attempt(t, store, rec.ID())
	allowed := 0
	for _, s := range a.Steps[1:] {
		if s.Verdict == imprint.VerdictOK {
			allowed++
		}
	}
	if s := a.Steps[0]; s.Repeats != 62 || s.Action != "iot:Publish" || len(s.Resource) < 2000 || len(s.Resource) > 2100 {
		t.Errorf("what was denied 63 times is %+v", s)
	}
	if allowed != 16 || a.Steps[len(a.Steps)-1].Name != "session" {
		t.Errorf("got %d allowed of %d steps, the last %+v", allowed, len(a.Steps), a.Steps[len(a.Steps)-1])
	}
}

func TestANilRecorderRecordsNothing(t *testing.T) {
	t.Parallel()
	var rec *trace.Recorder
	rec.OK("a", "b")
	rec.Allowed("a", "b", "c")
	rec.Info("a", "b")
	rec.Fail("a", errors.New("b"))
	rec.Describe(func(*imprint.Attempt) { t.Error("called") })
	rec.Connected()
	rec.End(imprint.OutcomeRefused, "")
	if rec.ID() != "" || !rec.Began().IsZero() {
		t.Error("a nil recorder has an id or a time")
	}
}

// A connection that ends soon is one row written once; one that ends later has
// its end added.
func TestEndingsJoinTheirAttempts(t *testing.T) {
	t.Parallel()
	inner := registrytest.New(t)
	store := &counting{Store: inner}
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), Linger: time.Hour, Batch: 1})
	short := l.Begin("192.0.2.1:1")
	short.OK("connected", "yes")
	short.Connected()
	short.Info("session", "over")
	short.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	flush(t, l)
	a, _ := attempt(t, inner, short.ID())
	if a.Outcome != imprint.OutcomeClosed || a.Code != imprint.CodeClientDisconnect || len(a.Steps) != 2 || a.EndedAt.IsZero() || store.updates != 1 {
		t.Errorf("got %+v after %d updates, want both parts after one", a, store.updates)
	}
	l.Close()
	l = trace.NewLog(store, clock, trace.Options{Logger: quiet(), Linger: time.Microsecond})
	defer l.Close()
	long := l.Begin("192.0.2.1:2")
	long.Connected()
	flush(t, l)
	a, _ = attempt(t, inner, long.ID())
	if a.Outcome != imprint.OutcomeConnected || !a.EndedAt.IsZero() {
		t.Errorf("while it lives, got %+v", a)
	}
	long.Fail("session", imprint.Errorf(imprint.CodeCertificateRevoked, "revoked"))
	long.End(imprint.OutcomeClosed, imprint.CodeCertificateRevoked)
	flush(t, l)
	a, _ = attempt(t, inner, long.ID())
	if a.Outcome != imprint.OutcomeClosed || a.Code != imprint.CodeCertificateRevoked || len(a.Steps) != 1 || a.EndedAt.IsZero() {
		t.Errorf("after its end, got %+v", a)
	}
}

func TestAttemptsAreWrittenInBatches(t *testing.T) {
	t.Parallel()
	store := &counting{Store: registrytest.New(t)}
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), Linger: time.Hour, Batch: 50})
	for range 100 {
		l.Begin("192.0.2.1:1").End(imprint.OutcomeRefused, imprint.CodeNotTLS)
	}
	l.Close()
	if got := l.Counters(); store.updates > 3 || got.Written != 100 {
		t.Errorf("wrote %d in %d updates, want 100 in 2 or 3", got.Written, store.updates)
	}
}

// Steps and details are bounded, and the last step stays.
func TestAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet()})
	defer l.Close()
	rec := l.Begin("192.0.2.1:1")
	for n := range 1000 {
		rec.OK("step", "%d %s", n, strings.Repeat("ü", 10_000))
	}
	rec.Fail("last", imprint.Errorf(imprint.CodeQuotaExceeded, "enough").WithHint("%s", strings.Repeat("x", 10_000)))
	rec.End(imprint.OutcomeRefused, imprint.CodeQuotaExceeded)
	flush(t, l)
	a, _ := attempt(t, store, rec.ID())
	if len(a.Steps) != 64 || a.Steps[63].Name != "last" || a.Steps[62].Name != "trace" || !strings.HasPrefix(a.Steps[62].Detail, "938 steps") {
		t.Fatalf("got %d steps, the last ones %s and %s %q", len(a.Steps), a.Steps[63].Name, a.Steps[62].Name, a.Steps[62].Detail)
	}
	for _, s := range a.Steps {
		if len(s.Detail) > 2100 || len(s.Fix) > 2100 || !utf8.ValidString(s.Detail) {
			t.Errorf("step %s has %d bytes of detail and %d of fix, valid %t", s.Name, len(s.Detail), len(s.Fix), utf8.ValidString(s.Detail))
		}
	}
}

// What a device is refused while it is on is in the store within a second, and told to
// those who listen, also where the attempt wasn't sampled, in few writes; its end
// completes it, and nothing is there twice.
func TestWhatFailsOnALiveConnectionIsToldMeanwhile(t *testing.T) {
	t.Parallel()
	for _, sampled := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			store := newKept()
			rate := -1
			if !sampled {
				rate = 1
			}
			l := trace.NewLog(store, time.Now, trace.Options{Logger: quiet(), SuccessRate: rate})
			defer l.Close()
			var told []imprint.Attempt
			l.Watch(func(list []imprint.Attempt) {
				for _, a := range list {
					a.Steps = slices.Clone(a.Steps)
					told = append(told, a)
				}
			})
			other := l.Begin("192.0.2.2:2") // as many as a rate of 1 keeps at once
			other.Connected()
			other.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
			rec := l.Begin("192.0.2.1:1")
			rec.Describe(func(a *imprint.Attempt) {
				a.Tenant, a.CertificateID, a.ClientID, a.Subject = home, "c", "sensor", "CN=a\x00b"
			})
			rec.OK("tls", "%s", "fine")
			rec.Connected()
			time.Sleep(time.Minute)
			synctest.Wait()
			before := store.written()
			for range 100 {
				rec.Fail("policy.subscribe", imprint.Errorf(imprint.CodeSubscribeDenied, "no"))
				time.Sleep(25 * time.Millisecond)
			}
			time.Sleep(1900 * time.Millisecond)
			synctest.Wait()
			if writes := store.written() - before; writes < 1 || writes > 5 {
				t.Errorf("sampled %t: %d writes in four seconds", sampled, writes)
			}
			live := store.attempt(rec.ID())
			if live.Outcome != imprint.OutcomeConnected || !live.EndedAt.IsZero() || live.ClientID != "sensor" || live.Subject != "CN=a\x00b" || live.Tenant != home || failures(live) < 90 {
				t.Errorf("sampled %t: while the device is on, its attempt is %+v", sampled, live)
			}
			if last := told[len(told)-1]; last.ID != rec.ID() || last.Outcome != imprint.OutcomeConnected || failures(last) != failures(live) {
				t.Errorf("sampled %t: those who listen heard %+v", sampled, last)
			}
			rec.Info("session", "over")
			rec.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
			a := store.attempt(rec.ID())
			if n := failures(a); a.Outcome != imprint.OutcomeClosed || a.EndedAt.IsZero() || n != 100 || a.Steps[len(a.Steps)-1].Name != "session" || len(a.Steps) != 3 {
				t.Errorf("sampled %t: after its end, its attempt is %+v", sampled, a)
			}
			want := "tls fine"
			if !sampled {
				want = "trace the steps before CONNACK weren't kept: many devices were let in at that time"
			}
			if got := a.Steps[0].Name + " " + a.Steps[0].Detail; got != want {
				t.Errorf("got first %q, want %q", got, want)
			}
		})
	}
}

func failures(a imprint.Attempt) int {
	n := 0
	for _, s := range a.Steps {
		if s.Verdict == imprint.VerdictFailed {
			n += 1 + s.Repeats
		}
	}
	return n
}

// TestStepsAreInTheOrderOfTime ensures that what a function says, which is heard of
// after or before what its connection says, stands where it happened.
func TestStepsAreInTheOrderOfTime(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	now := handsAt(instant)
	l := trace.NewLog(store, now.clock, trace.Options{Logger: quiet()})
	defer l.Close()
	at := func(ms int) time.Time { return instant.Add(time.Duration(ms) * time.Millisecond) }
	rec := l.Begin("192.0.2.1:1")
	rec.Connected()
	l.Append(rec.ID(), imprint.Step{At: at(20), Name: "hook"})
	flush(t, l)
	for _, ms := range []int{10, 30} {
		now.set(at(ms))
		rec.OK(fmt.Sprint("step", ms), "")
	}
	rec.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	l.Append(rec.ID(), imprint.Step{At: at(25), Name: "log"})
	flush(t, l)
	l.Append(rec.ID(), imprint.Step{At: at(5), Name: "first"})
	flush(t, l)
	a, _ := attempt(t, store, rec.ID())
	var names []string
	for _, s := range a.Steps {
		names = append(names, s.Name)
	}
	if want := []string{"first", "step10", "hook", "log", "step30"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

// TestDetailsAreAsTheyWere ensures that what a step tells is what was so when it was
// told, however late it is written down.
func TestDetailsAreAsTheyWere(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet()})
	defer l.Close()
	changing := []byte("before")
	names := map[string]int{"before": 1}
	rec := l.Begin("192.0.2.1:1")
	rec.OK("bytes", "%s %v", changing, names)
	rec.OK("plain", "no args, 100%")
	rec.OK("values", "%s %d %t %s %v %v", imprint.ClientID("c"), 7, true, time.Second, home, nil)
	copy(changing, "behind")
	names["behind"] = 2
	rec.End(imprint.OutcomeRefused, imprint.CodeNotTLS)
	flush(t, l)
	a, _ := attempt(t, store, rec.ID())
	var told []string
	for _, s := range a.Steps {
		told = append(told, s.Detail)
	}
	if want := []string{"before map[before:1]", "no args, 100%", "c 7 true 1s 000000000000/us-east-1 <nil>"}; !slices.Equal(told, want) {
		t.Errorf("got %q, want %q", told, want)
	}
}

func TestIDsSortByTimeAndDiffer(t *testing.T) {
	t.Parallel()
	var ids []string
	for n := range 100 {
		ids = append(ids, trace.NewID(instant.Add(time.Duration(n)*time.Millisecond)))
	}
	if !slices.IsSorted(ids) || len(slices.Compact(ids)) != 100 {
		t.Errorf("got %v", ids)
	}
	if a, b := trace.NewID(instant), trace.NewID(instant); a == b || len(a) != 32 {
		t.Errorf("got %s and %s", a, b)
	}
}

// What runs for an attempt adds to it before it is stored, while its device is
// connected, and after its end.
func TestOthersAddToAttempts(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet()})
	defer l.Close()
	step := func(detail string) imprint.Step { return imprint.Step{At: instant, Name: "function", Detail: detail} }
	rec := l.Begin("127.0.0.1:1")
	l.Append(rec.ID(), step("early"), step(strings.Repeat("x", 5000)))
	flush(t, l)
	if _, found := attempt(t, store, rec.ID()); found {
		t.Fatal("the attempt is stored already")
	}
	rec.OK("tls", "1.3")
	rec.Connected()
	l.Append(rec.ID(), step("in the same batch"))
	flush(t, l)
	l.Append(rec.ID(), step("connected"))
	flush(t, l)
	rec.OK("late", "")
	rec.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	flush(t, l)
	l.Append(rec.ID(), step("ended"))
	l.Append("unknown", step("nowhere"))
	l.Append("", step("nowhere"))
	flush(t, l)
	got, _ := attempt(t, store, rec.ID())
	var said []string
	for _, s := range got.Steps {
		said = append(said, s.Name+" "+s.Detail[:min(len(s.Detail), 20)])
		if len(s.Detail) > 2100 {
			t.Errorf("a detail has %d bytes", len(s.Detail))
		}
	}
	want := []string{"tls 1.3", "function early", "function " + strings.Repeat("x", 20), "function in the same batch", "function connected", "late ", "function ended"}
	if !slices.Equal(said, want) {
		t.Errorf("got %q, want %q", said, want)
	}
	for range 300 {
		l.Append(rec.ID(), step("more"))
	}
	flush(t, l)
	got, _ = attempt(t, store, rec.ID())
	if len(got.Steps) != 192 || got.Outcome != imprint.OutcomeClosed {
		t.Errorf("got %d steps, outcome %s; want 192", len(got.Steps), got.Outcome)
	}
}
