package functions_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/functions"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

func lines(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

func (h *house) queued(t *testing.T) int {
	t.Helper()
	n := 0
	err := h.store.View(t.Context(), func(tx imprint.ReadTx) error {
		count, err := tx.QueuedCallUnits(home)
		n = count
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAsynchronousCallsRun(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.put("f", nil)
	path := filepath.Join(outside(t), "lines")
	for range 20 {
		err := h.InvokeLater(t.Context(), call("f", do("append", path)))
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "twenty runs", func() bool { return lines(t, path) == 20 && h.queued(t) == 0 })
	if got := h.Counters(); got.Queued != 20 || got.Retried != 0 || got.GivenUp != 0 || got.Invocations != 20 {
		t.Errorf("got %+v", got)
	}
}

func TestFailedAsynchronousCallsAreTriedTwiceMore(t *testing.T) {
	t.Parallel()
	h := open(t, func(o *functions.Options) { o.RetryAfter = []time.Duration{time.Millisecond, 2 * time.Millisecond} })
	h.put("f", nil)
	path := filepath.Join(outside(t), "lines")
	err := h.InvokeLater(t.Context(), call("f", do("appendfail", path)))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the call to be given up", func() bool { return h.Counters().GivenUp == 1 && h.queued(t) == 0 })
	if got := h.Counters(); lines(t, path) != 3 || got.Retried != 2 || got.Errors != 3 {
		t.Errorf("got %d runs and %+v, want 3 runs", lines(t, path), got)
	}
}

// By default the second run comes a minute after the first has failed.
func TestRetriesWaitTheirTime(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.put("f", nil)
	path := filepath.Join(outside(t), "lines")
	before := time.Now()
	err := h.InvokeLater(t.Context(), call("f", do("appendfail", path)))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first failure", func() bool { return h.Counters().Retried == 1 })
	var next time.Time
	eventually(t, "its retry to be stored", func() bool {
		err := h.store.View(t.Context(), func(tx imprint.ReadTx) error {
			found, err := tx.NextCall(time.Now())
			next = found
			return err
		})
		return err == nil && !next.IsZero()
	})
	if wait := next.Sub(before); wait < time.Minute || wait > time.Minute+patience {
		t.Errorf("the next run comes after %s, want a minute", wait)
	}
}

// What can't be run, as the function is throttled, isn't a failure of it.
func TestThrottledAsynchronousCallsWait(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.put("f", nil)
	err := h.SetConcurrency(t.Context(), home, "f", 0)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(outside(t), "lines")
	err = h.InvokeLater(t.Context(), call("f", do("append", path)))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a refusal", func() bool { return h.Counters().Retried >= 1 })
	err = h.SetConcurrency(t.Context(), home, "f", -1)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the run", func() bool { return lines(t, path) == 1 && h.queued(t) == 0 })
}

func TestTheQueueIsBoundedAndOld(t *testing.T) {
	t.Parallel()
	clock := &movable{now: time.Now()}
	dir := t.TempDir()
	store := registrytest.Open(t, filepath.Join(dir, "registry.db"))
	defer func() { _ = store.Close() }()
	opts := functions.Options{CodeDir: filepath.Join(dir, "functions"), WorkDir: filepath.Join(dir, "work"), Logger: quiet(), MaxQueued: 2, InitTimeout: patience}
	s, err := functions.New(store, clock.Now, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := &house{Service: s, t: t, store: store, opts: opts}
	h.put("f", nil)
	path := filepath.Join(outside(t), "lines")
	for range 2 {
		err = h.InvokeLater(t.Context(), call("f", do("append", path)))
		if err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, h.InvokeLater(t.Context(), call("f", do("append", path))), imprint.CodeFunctionThrottled)
	// The account has no more of them in its other regions, and other accounts have theirs.
	elsewhere := call("f", do("append", path))
	elsewhere.Tenant.Region = "eu-west-1"
	wantCode(t, h.InvokeLater(t.Context(), elsewhere), imprint.CodeFunctionThrottled)
	elsewhere.Tenant.Account = "111111111111"
	wantCode(t, h.InvokeLater(t.Context(), elsewhere), imprint.CodeFunctionMissing)
	// A server that was down for longer than calls are kept gives them up.
	clock.move(6*time.Hour + time.Second)
	h.Start()
	eventually(t, "the calls to be given up", func() bool { return h.Counters().GivenUp == 2 && h.queued(t) == 0 })
	if got := lines(t, path); got != 0 {
		t.Errorf("got %d runs, want none", got)
	}
	err = h.InvokeLater(t.Context(), call("f", do("append", path)))
	if err != nil {
		t.Errorf("the queue has room again: %v", err)
	}
	eventually(t, "the run", func() bool { return lines(t, path) == 1 })
}

// movable is a clock that tests set.
type movable struct {
	mu  sync.Mutex
	now time.Time
}

func (m *movable) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

func (m *movable) move(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
}

func TestAsynchronousCallsSurviveARestart(t *testing.T) {
	t.Parallel()
	dir, shared := t.TempDir(), outside(t)
	path, running := filepath.Join(shared, "lines"), filepath.Join(shared, "go")
	start := func() *house {
		store := registrytest.Open(t, filepath.Join(dir, "registry.db"))
		opts := functions.Options{CodeDir: filepath.Join(dir, "functions"), WorkDir: filepath.Join(dir, "work"), Logger: quiet(), MaxConcurrency: 1, InitTimeout: patience}
		s, err := functions.New(store, time.Now, opts)
		if err != nil {
			t.Fatal(err)
		}
		return &house{Service: s, t: t, store: store, opts: opts}
	}
	h := start()
	h.Start()
	h.put("f", nil)
	for _, event := range []string{do("wait", running), do("append", path), do("append", path)} {
		err := h.InvokeLater(t.Context(), call("f", event))
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the first run", func() bool {
		found, _ := filepath.Glob(running + ".running.*")
		return len(found) == 1
	})
	h.Close()
	if got := h.queued(t); got != 3 {
		t.Errorf("got %d calls in the store, want 3", got)
	}
	err := h.store.Close()
	if err != nil {
		t.Fatal(err)
	}
	h = start()
	defer func() { _ = h.store.Close() }()
	defer h.Close()
	release(t, running)
	h.Start()
	eventually(t, "all runs", func() bool { return lines(t, path) == 2 && h.queued(t) == 0 })
}

func TestADeletedFunctionTakesItsCallsAlong(t *testing.T) {
	t.Parallel()
	h := open(t, func(o *functions.Options) { o.RetryAfter = []time.Duration{time.Hour} })
	h.put("f", nil)
	err := h.InvokeLater(t.Context(), call("f", do("fail", "")))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the failure", func() bool { return h.Counters().Retried == 1 })
	err = h.Delete(t.Context(), home, "f", "")
	if err != nil {
		t.Fatal(err)
	}
	if got := h.queued(t); got != 0 {
		t.Errorf("got %d calls, want none", got)
	}
	eventually(t, "the end of its processes", func() bool { return h.Counters().Processes == 0 })
	entries, err := os.ReadDir(h.opts.CodeDir)
	if err != nil || len(entries) != 0 {
		t.Errorf("its code is still there: %v, %v", entries, err)
	}
}

// told collects what runs say about attempts.
type told struct {
	mu    sync.Mutex
	steps map[string][]imprint.Step
}

func (l *told) Append(id string, steps ...imprint.Step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps[id] = append(l.steps[id], steps...)
}

func (l *told) of(id string) []imprint.Step {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.steps[id]
}

func TestRunsAreToldToTheirAttempts(t *testing.T) {
	t.Parallel()
	attempts := &told{steps: map[string][]imprint.Step{}}
	h := open(t, func(o *functions.Options) { o.Attempts, o.RetryAfter = attempts, []time.Duration{} })
	h.put("f", nil)
	run := func(id, event, principal string, invoke func(context.Context, imprint.FunctionCall) error) {
		c := call("f", event)
		c.AttemptID, c.Principal = id, principal
		_ = invoke(t.Context(), c)
	}
	now := func(ctx context.Context, c imprint.FunctionCall) error { _, err := h.Invoke(ctx, c); return err }
	run("good", do("log", "hello"), "", now)
	run("bad", do("fail", "no such device"), "", now)
	run("denied", do("echo", ""), "iot.amazonaws.com", now)
	run("denied later", do("echo", ""), "iot.amazonaws.com", h.InvokeLater)
	run("later", do("fail", "too late"), "", h.InvokeLater)
	eventually(t, "the asynchronous run", func() bool { return len(attempts.of("later")) == 2 })
	for _, test := range []struct {
		id          string
		verdict     imprint.Verdict
		code        imprint.Code
		detail, log string
	}{
		{"good", imprint.VerdictOK, "", "answered in", "to standard output: hello"},
		{"bad", imprint.VerdictFailed, imprint.CodeFunctionFailed, "no such device", "START RequestId"},
		{"denied", imprint.VerdictFailed, imprint.CodeFunctionDenied, "lets iot.amazonaws.com invoke it", ""},
		{"denied later", imprint.VerdictFailed, imprint.CodeFunctionDenied, "lets iot.amazonaws.com invoke it", ""},
		{"later", imprint.VerdictFailed, imprint.CodeFunctionFailed, "too late", "START RequestId"},
	} {
		steps := attempts.of(test.id)
		if len(steps) == 0 || steps[0].Name != "function" || steps[0].Verdict != test.verdict || steps[0].Code != test.code ||
			!strings.Contains(steps[0].Detail, test.detail) || (steps[0].Fix == "") != (test.code == "") {
			t.Errorf("%s: got %+v", test.id, steps)
			continue
		}
		if test.log == "" && len(steps) == 1 {
			continue
		}
		if len(steps) != 2 || steps[1].Name != "function.log" || !strings.Contains(steps[1].Detail, test.log) {
			t.Errorf("%s: got %+v", test.id, steps)
		}
	}
}

// TestLargeEventsCountAsSeveralCalls ensures that the bound of an account's queued calls is
// one of the disk, too, and that there is room again when a large one is done, also for
// a server that was started meanwhile.
func TestLargeEventsCountAsSeveralCalls(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	address, roots := hook(t, func(http.ResponseWriter, *http.Request) { <-release })
	h := open(t, func(o *functions.Options) { o.MaxQueued = 10 })
	h.webhook("f", address, roots, patience)
	large := call("f", `"`+strings.Repeat("x", 5*imprint.OwedUnit)+`"`)
	h.later(large) // six units
	wantCode(t, h.InvokeLater(t.Context(), large), imprint.CodeFunctionThrottled)
	for range 4 {
		h.later(call("f", "{}"))
	}
	wantCode(t, h.InvokeLater(t.Context(), call("f", "{}")), imprint.CodeFunctionThrottled)
	var units int
	err := h.store.View(t.Context(), func(tx imprint.ReadTx) error {
		var err error
		units, err = tx.QueuedCallUnits(home)
		return err
	})
	if err != nil || units != 10 {
		t.Errorf("the store counts %d units, %v; want 10", units, err)
	}
	close(release)
	eventually(t, "room again", func() bool { return h.InvokeLater(t.Context(), large) == nil })
}
