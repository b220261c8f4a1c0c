package events_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/events"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	home  = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	other = imprint.Tenant{Account: "111111111111", Region: "us-east-1"}
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func put(t *testing.T, store imprint.Store, ids ...string) {
	t.Helper()
	putOf(t, store, home, ids...)
}

func putOf(t *testing.T, store imprint.Store, tenant imprint.Tenant, ids ...string) {
	t.Helper()
	err := store.Update(t.Context(), func(tx imprint.Tx) error {
		for _, id := range ids {
			err := tx.PutEvent(imprint.Event{ID: id, Tenant: tenant, Topic: "t", Payload: []byte("{}"), AttemptID: "of " + id})
			if err != nil {
				return err
			}
			err = tx.PutThing(imprint.Thing{Tenant: tenant, Name: imprint.ThingName(id)})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// patience bounds every wait for what must happen.
const patience = 2 * time.Minute

// subscriber collects what is published.
type subscriber struct {
	got   chan imprint.Event
	check func(imprint.Event)
	// answer, when not nil, takes the event's result.
	answer func(imprint.Event, func(error))
}

func newSubscriber() *subscriber { return &subscriber{got: make(chan imprint.Event, 10_000)} }

func (s *subscriber) PublishEvent(_ context.Context, e imprint.Event, done func(error)) {
	if s.check != nil {
		s.check(e)
	}
	s.got <- e
	if s.answer != nil {
		s.answer(e, done)
		return
	}
	done(nil)
}

func (s *subscriber) next(t *testing.T) imprint.Event {
	t.Helper()
	select {
	case e := <-s.got:
		return e
	case <-time.After(patience):
		t.Fatal("no event came")
		return imprint.Event{}
	}
}

func waiting(t *testing.T, store imprint.Store) int {
	t.Helper()
	return waitingOf(t, store, home)
}

func waitingOf(t *testing.T, store imprint.Store, tenant imprint.Tenant) int {
	t.Helper()
	n := 0
	err := store.View(context.Background(), func(tx imprint.ReadTx) error {
		list, err := tx.Events(tenant, 10_000)
		n = len(list)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Each event comes, after the change of its transaction can be read, and is
// removed; what was put before the start comes too.
func TestEventsComeAfterTheirChange(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	put(t, store, "before")
	s := newSubscriber()
	s.check = func(e imprint.Event) {
		err := store.View(context.Background(), func(tx imprint.ReadTx) error {
			_, err := tx.Thing(home, imprint.ThingName(e.ID))
			return err
		})
		if err != nil {
			t.Errorf("event %s came before its change: %v", e.ID, err)
		}
	}
	d := events.NewDispatcher(store, s, time.Now, events.Options{Logger: quiet()})
	var writers sync.WaitGroup
	const each = 60
	for w := range 4 {
		writers.Go(func() {
			for n := range each {
				put(t, store, fmt.Sprintf("%d-%d", w, n))
			}
		})
	}
	writers.Wait()
	seen := map[string]bool{}
	for len(seen) < 4*each+1 {
		seen[s.next(t).ID] = true
	}
	d.Close()
	d.Close()
	if got := d.Published(); got < 4*each+1 {
		t.Errorf("published %d, want at least %d", got, 4*each+1)
	}
	err := store.Close()
	if err != nil {
		t.Error(err)
	}
}

func TestARolledBackChangeSendsNothing(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	s := newSubscriber()
	d := events.NewDispatcher(store, s, time.Now, events.Options{Logger: quiet()})
	refused := errors.New("refused")
	err := store.Update(t.Context(), func(tx imprint.Tx) error {
		err := tx.PutEvent(imprint.Event{ID: "never", Tenant: home, Topic: "t"})
		return errors.Join(err, refused)
	})
	if !errors.Is(err, refused) {
		t.Fatal(err)
	}
	put(t, store, "next")
	if got := s.next(t).ID; got != "next" {
		t.Errorf("got %s, want next alone", got)
	}
	d.Close()
	err = store.Close()
	if err != nil {
		t.Error(err)
	}
}

// A server that dies between publishing and removing publishes again after its
// next start: at least once.
func TestEventsSurviveARestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registry.db")
	var broken sync.Mutex
	failing := false
	store := registrytest.Open(t, path, func(o *sqlite.Options) {
		o.Faults.BeforeCommit = func() error {
			broken.Lock()
			defer broken.Unlock()
			if failing {
				return errors.New("the disk broke")
			}
			return nil
		}
	})
	put(t, store, "one", "two")
	broken.Lock()
	failing = true
	broken.Unlock()
	s := newSubscriber()
	d := events.NewDispatcher(store, s, time.Now, events.Options{Logger: quiet()})
	first, second := s.next(t).ID, s.next(t).ID
	d.Close()
	err := store.Close()
	if err != nil {
		t.Fatal(err)
	}
	store = registrytest.Open(t, path)
	if got := waiting(t, store); got != 2 {
		t.Errorf("%d events wait after the restart, want 2", got)
	}
	s = newSubscriber() // the first run may have published them more than once
	d = events.NewDispatcher(store, s, time.Now, events.Options{Logger: quiet()})
	if a, b := s.next(t).ID, s.next(t).ID; a != first || b != second {
		t.Errorf("got %s and %s again, want %s and %s", a, b, first, second)
	}
	gone(t, store, home) // the removal follows the publication
	d.Close()
	err = store.Close()
	if err != nil {
		t.Error(err)
	}
}

func many(prefix string, count int) []string {
	ids := make([]string, count)
	for n := range ids {
		ids[n] = fmt.Sprintf("%s%04d", prefix, n)
	}
	return ids
}

// gone waits until the events of a tenant are removed.
func gone(t *testing.T, store imprint.Store, tenant imprint.Tenant) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		left := false
		err := store.View(t.Context(), func(tx imprint.ReadTx) error {
			list, err := tx.Events(tenant, 1)
			left = len(list) > 0
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if !left {
			return
		}
		select {
		case <-ticker.C:
		case <-timer.C:
			t.Fatalf("%d events of %s are left", waitingOf(t, store, tenant), tenant)
		}
	}
}

// hung has the events that don't end until they are released: all but those of the tenant
// other.
type hung struct {
	mu       sync.Mutex
	under    []func(error)
	released bool
}

func (h *hung) answer(e imprint.Event, done func(error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.Tenant == other || h.released {
		done(nil)
		return
	}
	h.under = append(h.under, done)
}

// release ends those that are under way, which it counts, and all to come.
func (h *hung) release() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.released = true
	for _, done := range h.under {
		done(nil)
	}
	return len(h.under)
}

// TestEventsThatHangHoldUpNoOtherAccount ensures that an account whose rules don't end has
// a bounded number of events under way, in however many regions, that another's event comes
// and goes meanwhile, and that each of the first comes once when they end.
func TestEventsThatHangHoldUpNoOtherAccount(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	west := imprint.Tenant{Account: home.Account, Region: "us-west-2"}
	const each, window = 700, 1024
	putOf(t, store, home, many("a", each)...)
	putOf(t, store, west, many("w", each)...)
	s := newSubscriber()
	hanging := &hung{}
	s.answer = hanging.answer
	d := events.NewDispatcher(store, s, time.Now, events.Options{Logger: quiet()})
	putOf(t, store, other, "b")
	times := map[string]int{}
	for times["b"] == 0 {
		times[s.next(t).ID]++
	}
	gone(t, store, other)
	if got := hanging.release(); got >= window {
		t.Errorf("%d events of an account are under way, want less than %d", got, window)
	}
	gone(t, store, home)
	gone(t, store, west)
	d.Close()
	close(s.got)
	for e := range s.got {
		times[e.ID]++
	}
	if len(times) != 2*each+1 {
		t.Errorf("%d events came, want %d", len(times), 2*each+1)
	}
	for id, n := range times {
		if n != 1 {
			t.Errorf("event %s came %d times, want once", id, n)
		}
	}
	err := store.Close()
	if err != nil {
		t.Error(err)
	}
}

// TestAnEventThatFailsMakesNoOtherComeAgain ensures that the events of an account whose
// rules have no room come again until they have, and nobody else's do.
func TestAnEventThatFailsMakesNoOtherComeAgain(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	s := newSubscriber()
	var busy sync.Map // tenants without room
	busy.Store(home, true)
	s.answer = func(e imprint.Event, done func(error)) {
		if _, full := busy.Load(e.Tenant); full {
			done(imprint.Errorf(imprint.CodeRulesBusy, "no room"))
			return
		}
		done(nil)
	}
	put(t, store, "a1", "a2")
	putOf(t, store, other, "b1", "b2")
	d := events.NewDispatcher(store, s, time.Now, events.Options{Logger: quiet()})
	times := map[string]int{}
	for times["a1"] < 2 || times["b1"] == 0 || times["b2"] == 0 { // the accounts don't wait for each other
		times[s.next(t).ID]++
	}
	gone(t, store, other)
	if times["b1"] != 1 || times["b2"] != 1 || times["a2"] != 0 {
		t.Errorf("got %v; want b1 and b2 once, and a2 not while a1 finds no room", times)
	}
	busy.Delete(home)
	for times["a2"] == 0 {
		times[s.next(t).ID]++
	}
	gone(t, store, home)
	d.Close()
	if d.Published() != 4 {
		t.Errorf("published %d, want 4", d.Published())
	}
	err := store.Close()
	if err != nil {
		t.Error(err)
	}
}

// dropped collects what attempts are told.
type dropped struct {
	mu    sync.Mutex
	steps map[string][]imprint.Step
}

func (d *dropped) Append(attemptID string, steps ...imprint.Step) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.steps[attemptID] = append(d.steps[attemptID], steps...)
}

// TestWhatWaitsOfAnAccountIsBounded ensures that an account whose events nobody takes keeps
// a bounded number of them, in all its regions, that each of the rest is dropped, the
// oldest, which is counted and told, and that all the others come once.
func TestWhatWaitsOfAnAccountIsBounded(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	west := imprint.Tenant{Account: home.Account, Region: "us-west-2"}
	const each, most = 700, 1000
	putOf(t, store, home, many("a", each)...)
	putOf(t, store, west, many("w", each)...)
	s := newSubscriber()
	hanging := &hung{}
	s.answer = hanging.answer
	told := &dropped{steps: map[string][]imprint.Step{}}
	d := events.NewDispatcher(store, s, time.Now, events.Options{MaxStored: most, Attempts: told, Logger: quiet()})
	await := func(what string, is func() bool) {
		t.Helper()
		deadline := time.Now().Add(patience)
		for !is() {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d and %d events wait, %d were dropped", what, waitingOf(t, store, home), waitingOf(t, store, west), d.Dropped())
			}
			time.Sleep(time.Millisecond)
		}
	}
	await("at the start", func() bool { return d.Dropped() == 2*each-most })
	putOf(t, store, west, many("x", each)...)
	await("later", func() bool { return d.Dropped() == 3*each-most })
	if got := waitingOf(t, store, home) + waitingOf(t, store, west); got != most {
		t.Errorf("%d events wait, want %d", got, most)
	}
	putOf(t, store, other, "b")
	gone(t, store, other)
	hanging.release()
	gone(t, store, home)
	gone(t, store, west)
	d.Close()
	close(s.got)
	times := map[string]int{}
	for e := range s.got {
		times[e.ID]++
		if len(told.steps["of "+e.ID]) > 0 {
			t.Errorf("event %s came although it was dropped", e.ID)
		}
	}
	for id, n := range times {
		if n != 1 {
			t.Errorf("event %s came %d times, want once", id, n)
		}
	}
	if len(times) != most+1 || times["x0699"] != 1 || len(told.steps) != 3*each-most {
		t.Errorf("%d events came, the newest %d times, and %d attempts were told of another; want %d, once and %d",
			len(times), times["x0699"], len(told.steps), most+1, 3*each-most)
	}
	for _, steps := range told.steps {
		if len(steps) != 1 || steps[0].Code != imprint.CodeEventDropped || steps[0].Fix == "" {
			t.Fatalf("an attempt was told %v", steps)
		}
	}
	err := store.Close()
	if err != nil {
		t.Error(err)
	}
}

// TestLargeEventsCountAsSeveral ensures that the bound of what waits of an account is one of
// bytes, too.
func TestLargeEventsCountAsSeveral(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	const most, each, units = 100, 20, 9
	putLarge := func(ids ...string) {
		t.Helper()
		err := store.Update(t.Context(), func(tx imprint.Tx) error {
			for _, id := range ids {
				err := tx.PutEvent(imprint.Event{ID: id, Tenant: home, Topic: "t", Payload: bytes.Repeat([]byte(" "), (units-1)*imprint.OwedUnit)})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	s := newSubscriber()
	s.answer = func(imprint.Event, func(error)) {} // all hang
	putLarge(many("a", each)...)
	d := events.NewDispatcher(store, s, time.Now, events.Options{MaxStored: most, Logger: quiet()})
	await := func(dropped uint64) {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		for d.Dropped() != dropped {
			if time.Now().After(deadline) {
				t.Fatalf("%d events wait and %d were dropped, want %d", waitingOf(t, store, home), d.Dropped(), dropped)
			}
			time.Sleep(time.Millisecond)
		}
		if got, want := waitingOf(t, store, home), most/units; got != want {
			t.Errorf("%d events wait, want %d", got, want)
		}
	}
	await(each - most/units)
	putLarge(many("b", each)...)
	await(2*each - most/units)
	d.Close()
	err := store.Close()
	if err != nil {
		t.Error(err)
	}
}
