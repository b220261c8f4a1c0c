package trace_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/trace"
)

// kept is a store of which attempts are asked, in memory, so that time can be made to
// pass.
type kept struct {
	imprint.Store
	mu       sync.Mutex
	attempts map[string]imprint.Attempt
	updates  int
}

func newKept() *kept { return &kept{attempts: map[string]imprint.Attempt{}} }

func (k *kept) Update(_ context.Context, fn func(imprint.Tx) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.updates++
	return fn(keptTx{kept: k})
}

func (k *kept) View(_ context.Context, fn func(imprint.ReadTx) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return fn(keptTx{kept: k})
}

// attempt gives what is stored of one, and written how often something was.
func (k *kept) attempt(id string) imprint.Attempt {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := k.attempts[id]
	a.Steps = slices.Clone(a.Steps)
	return a
}

func (k *kept) written() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.updates
}

type keptTx struct {
	imprint.Tx
	kept *kept
}

func (tx keptTx) PutAttempt(a imprint.Attempt) error {
	a.Steps = slices.Clone(a.Steps)
	tx.kept.attempts[a.ID] = a
	return nil
}

func (tx keptTx) Attempt(id string) (imprint.Attempt, error) {
	a, found := tx.kept.attempts[id]
	if !found {
		return a, imprint.Errorf(imprint.CodeNotFound, "no")
	}
	a.Steps = slices.Clone(a.Steps)
	return a, nil
}

func (tx keptTx) DeleteAttempt(id string) error {
	delete(tx.kept.attempts, id)
	return nil
}

func (tx keptTx) PutAttemptAlias(imprint.AttemptAlias) error { return nil }

func (tx keptTx) LiveAttempts(after string, limit int) ([]string, error) {
	var ids []string
	for id, a := range tx.kept.attempts {
		if id > after && a.Outcome == imprint.OutcomeConnected {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids[:min(len(ids), limit)], nil
}

func (tx keptTx) TrimAttempts(time.Time, int, int) (int, error) { return 0, nil }

func (tx keptTx) TrimAttemptAliases(int, int) (int, error) { return 0, nil }

// While the store stands still, successes and overload are dropped and counted;
// refusals, and ends with a failed step, wait.
func TestOverloadDropsSuccessesButNoRefusal(t *testing.T) {
	t.Parallel()
	inner := registrytest.New(t)
	store := &counting{Store: inner, gate: make(chan struct{}), entered: make(chan struct{}, 100)}
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), Linger: time.Nanosecond, Queue: 2, Batch: 1, FoldAfter: -1})
	begin := func() *trace.Recorder { return l.Begin("192.0.2.1:1") }
	begin().End(imprint.OutcomeProvisioned, "")
	<-store.entered // the writer holds one and stands still
	late := begin()
	late.Connected()
	for range 2 {
		begin().End(imprint.OutcomeProvisioned, "") // the queue is full
	}
	success := begin()
	success.Connected()
	success.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	begin().End(imprint.OutcomeRefused, imprint.CodeOverloaded)
	if got := l.Counters().Dropped; got != 2 {
		t.Errorf("dropped %d, want 2", got)
	}
	var waiting sync.WaitGroup
	var ids []string
	for range 5 {
		rec := begin()
		ids = append(ids, rec.ID())
		waiting.Go(func() { rec.End(imprint.OutcomeRefused, imprint.CodeNotTLS) })
	}
	waiting.Go(func() {
		late.Fail("session", imprint.Errorf(imprint.CodePublishDenied, "no"))
		late.End(imprint.OutcomeClosed, imprint.CodePublishDenied)
	})
	close(store.gate)
	waiting.Wait()
	l.Close()
	for _, id := range ids {
		if _, found := attempt(t, inner, id); !found {
			t.Errorf("refused attempt %s was lost", id)
		}
	}
	if a, _ := attempt(t, inner, late.ID()); a.Code != imprint.CodePublishDenied {
		t.Errorf("the end of a connection was lost: %+v", a)
	}
	if got := l.Counters().Dropped; got != 2 {
		t.Errorf("dropped %d, want 2", got)
	}
}

// TestAnEndThatWaitsHoldsUpNobodyElse has an attempt end while there is no room for it:
// who has a step to add, such as a publisher whose message the device may not receive,
// doesn't wait for the store.
func TestAnEndThatWaitsHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	store := &counting{Store: registrytest.New(t), gate: make(chan struct{}), entered: make(chan struct{}, 100)}
	var looked atomic.Pointer[func()] // at the clock
	l := trace.NewLog(store, func() time.Time {
		if fn := looked.Load(); fn != nil {
			(*fn)()
		}
		return instant
	}, trace.Options{Logger: quiet(), Linger: time.Nanosecond, Queue: 1, Batch: 1, FoldAfter: -1})
	l.Begin("192.0.2.1:1").End(imprint.OutcomeProvisioned, "")
	<-store.entered // the writer holds one and stands still
	l.Begin("192.0.2.1:1").End(imprint.OutcomeProvisioned, "")
	rec := l.Begin("192.0.2.1:1")
	ending := make(chan struct{})
	told := sync.OnceFunc(func() { close(ending) })
	looked.Store(&told)
	var waiting sync.WaitGroup
	waiting.Go(func() { rec.End(imprint.OutcomeRefused, imprint.CodeNotTLS) })
	<-ending
	looked.Store(nil)
	added := make(chan struct{})
	waiting.Go(func() {
		rec.Info("late", "a step")
		close(added)
	})
	select {
	case <-added:
	case <-time.After(2 * time.Minute):
		t.Error("a step waits until there is room for the end of its attempt")
	}
	close(store.gate)
	waiting.Wait()
	l.Close()
}

func TestAStoreThatFailsIsCounted(t *testing.T) {
	t.Parallel()
	store := &counting{Store: registrytest.New(t), fail: errors.New("the disk broke")}
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet()})
	l.Begin("192.0.2.1:1").End(imprint.OutcomeRefused, imprint.CodeNotTLS)
	l.Close()
	if got := l.Counters(); got.Failed != 1 || got.Written != 0 {
		t.Errorf("got %+v, want one failed", got)
	}
}

func TestAClosedLogNeverBlocks(t *testing.T) {
	t.Parallel()
	l := trace.NewLog(registrytest.New(t), clock, trace.Options{Logger: quiet(), Queue: 1})
	l.Close()
	l.Close()
	for range 10 {
		l.Begin("192.0.2.1:1").End(imprint.OutcomeRefused, imprint.CodeNotTLS)
	}
	flush(t, l)
}

func TestFlushEndsWithItsContext(t *testing.T) {
	t.Parallel()
	store := &counting{Store: registrytest.New(t), gate: make(chan struct{}), entered: make(chan struct{}, 100)}
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), Linger: time.Nanosecond})
	l.Begin("192.0.2.1:1").End(imprint.OutcomeRefused, imprint.CodeNotTLS)
	<-store.entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := l.Flush(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	close(store.gate)
	l.Close()
}

// trimmed is a store of which only trimming is asked.
type trimmed struct {
	imprint.Store
	calls []trimCall
	// aliases sums up how many were to be kept.
	aliases int
	left    int
}

type trimCall struct {
	before time.Time
	keep   int
}

type trimTx struct {
	imprint.Tx
	store *trimmed
}

func (t *trimmed) Update(_ context.Context, fn func(imprint.Tx) error) error {
	return fn(trimTx{store: t})
}

func (t *trimmed) View(_ context.Context, fn func(imprint.ReadTx) error) error {
	return fn(trimTx{store: t})
}

func (tx trimTx) LiveAttempts(string, int) ([]string, error) { return nil, nil }

func (tx trimTx) TrimAttemptAliases(keep, limit int) (int, error) {
	tx.store.aliases += keep
	return 0, nil
}

func (tx trimTx) TrimAttempts(before time.Time, keep, limit int) (int, error) {
	tx.store.calls = append(tx.store.calls, trimCall{before, keep})
	n := min(limit, tx.store.left)
	tx.store.left -= n
	return n, nil
}

// Each minute what is too old goes, in steps, until nothing is left to trim.
func TestRetentionIsEnforcedEachMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &trimmed{left: 4500}
		l := trace.NewLog(store, time.Now, trace.Options{Logger: quiet(), Retention: time.Hour, Keep: 7})
		time.Sleep(61 * time.Second)
		synctest.Wait()
		l.Close()
		want := trimCall{time.Now().Add(-time.Hour - time.Second), 7}
		if len(store.calls) != 3 || store.aliases != 3*7 || store.calls[0] != want || l.Counters().Trimmed != 4500 {
			t.Errorf("got calls %v and %d trimmed, want three like %v and 4500", store.calls, l.Counters().Trimmed, want)
		}
	})
}

// TestHandingOverWaitsForNobody ensures that what a device that is on is refused is told
// without a wait for room, as others wait for its recorder, and is kept until there is.
func TestHandingOverWaitsForNobody(t *testing.T) {
	t.Parallel()
	store := &counting{Store: registrytest.New(t), gate: make(chan struct{}), entered: make(chan struct{}, 100)}
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), Linger: time.Nanosecond, Queue: 1, Batch: 1, FoldAfter: -1, SuccessRate: -1})
	on, fresh := l.Begin("192.0.2.1:1"), l.Begin("192.0.2.2:1")
	on.Connected()
	l.HandOver() // its attempt is what the writer stands still with
	<-store.entered
	l.Begin("192.0.2.3:1").End(imprint.OutcomeProvisioned, "") // the queue is full
	denied := imprint.Errorf(imprint.CodeSubscribeDenied, "denied")
	on.Fail("policy.subscribe", denied)
	fresh.Connected()
	fresh.Fail("policy.subscribe", denied)
	handed := make(chan struct{})
	go func() {
		l.HandOver()
		on.Info("late", "a step")
		fresh.Info("late", "a step")
		close(handed)
	}()
	select {
	case <-handed:
	case <-time.After(2 * time.Minute):
		t.Error("a recorder waits until there is room for its steps, and whoever adds one waits for it")
	}
	close(store.gate)
	<-handed
	flush(t, l)
	for _, rec := range []*trace.Recorder{on, fresh} {
		a, found := attempt(t, store.Store, rec.ID())
		if !found {
			t.Fatal("the attempt isn't kept")
		}
		names := []string{}
		for _, s := range a.Steps {
			names = append(names, s.Name)
		}
		if !slices.Equal(names, []string{"policy.subscribe", "late"}) {
			t.Errorf("the attempt from %s has the steps %q", a.Address, names)
		}
	}
	l.Close()
}

// TestWhatFailedBeforeADeviceIsLetInWaitsForRoom ensures that a connection that is let in
// though a step failed, as that of a device whose queue overflowed while it was away, is kept
// however full the trace is.
func TestWhatFailedBeforeADeviceIsLetInWaitsForRoom(t *testing.T) {
	t.Parallel()
	store := &counting{Store: registrytest.New(t), gate: make(chan struct{}), entered: make(chan struct{}, 100)}
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), Linger: time.Nanosecond, Queue: 1, Batch: 1, SuccessRate: -1})
	defer l.Close()
	refusal(l, "a", "192.0.2.2:1", "ca", imprint.CodeCAInactive) // the writer stands still with it
	<-store.entered
	refusal(l, "b", "192.0.2.3:1", "ca", imprint.CodeCAInactive) // the queue is full
	rec := l.Begin("192.0.2.1:1")
	rec.Fail("session", imprint.Errorf(imprint.CodeQueueFull, "messages were dropped"))
	rec.Connected()
	l.HandOver()
	close(store.gate)
	flush(t, l)
	if a, _ := attempt(t, store.Store, rec.ID()); len(a.Steps) != 1 || l.Counters().Dropped != 0 {
		t.Errorf("%d were dropped, and what is kept is %+v", l.Counters().Dropped, a)
	}
}

// TestAShortConnectionIsWrittenOnce ensures that who is let in and goes before a whole round
// has passed is one entry, however the rounds fall, and that who stays is written meanwhile.
func TestAShortConnectionIsWrittenOnce(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), FoldAfter: -1, SuccessRate: -1})
	defer l.Close()
	for rounds, want := range []uint64{1, 1, 2, 2} {
		before := l.Counters().Written
		rec := l.Begin("192.0.2.1:1")
		rec.Connected()
		rec.Provisioned("unit")
		for range rounds {
			l.HandOverLate()
		}
		rec.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
		flush(t, l)
		if got := l.Counters().Written - before; got != want {
			t.Errorf("a connection of %d rounds: got %d entries, want %d", rounds, got, want)
		}
		a, found := attempt(t, store, rec.ID())
		if !found || a.Outcome != imprint.OutcomeClosed || a.Thing != "unit" {
			t.Errorf("got %s with thing %q, found %t; want closed, with unit", a.Outcome, a.Thing, found)
		}
	}
}

// TestWhatWaitsForRoomIsCounted ensures that a device that is refused the same thing while
// the queue is full, between rounds that find no room, has it in one step.
func TestWhatWaitsForRoomIsCounted(t *testing.T) {
	t.Parallel()
	store := &counting{Store: registrytest.New(t), gate: make(chan struct{}), entered: make(chan struct{}, 100)}
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), Linger: time.Nanosecond, Queue: 1, Batch: 1, SuccessRate: -1})
	defer l.Close()
	refusal(l, "a", "192.0.2.2:1", "ca", imprint.CodeCAInactive) // the writer stands still with it
	<-store.entered
	refusal(l, "b", "192.0.2.3:1", "ca", imprint.CodeCAInactive) // the queue is full
	rec := letIn(l, "sensor")
	const times = 100
	for range times {
		deny(rec, "a")
		l.HandOver()
	}
	close(store.gate)
	flush(t, l)
	a, _ := attempt(t, store.Store, rec.ID())
	if len(a.Steps) != 2 || a.Steps[1].Repeats != times-1 {
		t.Errorf("%d equal denials are %d steps, the last %+v", times, len(a.Steps), a.Steps[len(a.Steps)-1])
	}
}
