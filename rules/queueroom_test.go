package rules_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/rules"
)

// lookedAt is a context that counts how often who waits looks whether it has ended: once
// before it waits, and once more each time that it is woken and waits on.
type lookedAt struct {
	context.Context
	looks atomic.Int64
	first func() // is called at the first look
}

func (c *lookedAt) Done() <-chan struct{} {
	if c.looks.Add(1) == 1 {
		c.first()
	}
	return c.Context.Done()
}

// publisher waits for room for a message.
type publisher struct {
	ctx    *lookedAt
	cancel context.CancelFunc
	result chan error
}

// waits begins to publish a message for which there is no room.
func (h *house) waits(tenant imprint.Tenant, size int) *publisher {
	h.t.Helper()
	waits := make(chan struct{})
	p := &publisher{ctx: &lookedAt{first: func() { close(waits) }}, result: make(chan error, 1)}
	p.ctx.Context, p.cancel = context.WithCancel(h.t.Context())
	go func() {
		p.result <- h.Tenant(tenant).Offer(p.ctx, &imprint.RuleMessage{Topic: "in", Payload: make([]byte, size), Wait: true})
	}()
	select {
	case <-waits:
	case err := <-p.result:
		h.t.Fatalf("a message too many: got %v at once, want it to wait", err)
	}
	return p
}

func (p *publisher) answered(t *testing.T, want imprint.Code) {
	t.Helper()
	select {
	case err := <-p.result:
		if got := imprint.CodeOf(err); (err != nil || want != "") && got != want {
			t.Errorf("who waits: got %v, want %q", err, want)
		}
	case <-time.After(patience):
		t.Fatal("who waits isn't answered")
	}
}

// stillWaits says that none was woken since it waits.
func stillWaits(t *testing.T, list ...*publisher) {
	t.Helper()
	for n, p := range list {
		if got := p.ctx.looks.Load(); got != 1 || len(p.result) > 0 {
			t.Errorf("publisher %d was woken %d times and has %d results, though there is no room for it", n, got-1, len(p.result))
		}
	}
}

// fullHouse has an account, home, whose rule hangs: one of its messages runs, and it has
// all the places that it may have. The other account's is quick.
func fullHouse(t *testing.T, places, workers, maxBytes int) (h *house, hang *slowFunctions) {
	t.Helper()
	hang = &slowFunctions{entered: make(chan struct{}, 100), release: make(chan struct{})}
	h = open(t, func(o *rules.Options) {
		o.Functions, o.Workers, o.MaxQueued, o.MaxQueuedBytes, o.RoomPatience = hang, workers, places, maxBytes, 2*patience
	})
	t.Cleanup(func() { close(hang.release) })
	h.put(home, "call", "SELECT * FROM 'in'", nil, invoke("f"))
	h.put(other, "say", "SELECT * FROM 'in'", nil, republishTo("x"))
	h.offer(home, "in", `{}`)
	<-hang.entered
	for range places / 2 {
		h.offer(home, "in", `{}`)
	}
	return h, hang
}

// next lets the message end that hangs, and waits for the next.
func (s *slowFunctions) next() {
	s.release <- struct{}{}
	<-s.entered
}

// TestAFullAccountsPublishersSleepWhileOthersGoOn ensures that those who wait for room of a
// full account aren't woken by another account's messages, and that each place of its own
// that becomes free wakes one, who came first.
func TestAFullAccountsPublishersSleepWhileOthersGoOn(t *testing.T) {
	h, hang := fullHouse(t, 8, 2, 0)
	first, second, third := h.waits(home, 0), h.waits(home, 0), h.waits(home, 0)
	for n := range 200 {
		h.offer(other, "in", `{}`)
		h.await(t, "a message of the other account", func() bool { return len(h.on("x")) == n+1 })
	}
	stillWaits(t, first, second, third)
	hang.next()
	first.answered(t, "")
	stillWaits(t, second, third)
	hang.next()
	second.answered(t, "")
	stillWaits(t, third)
	if got := h.Counters(); got.Waiting != 4 || got.Dropped != 0 {
		t.Errorf("got %d waiting, %d dropped; want 4, 0", got.Waiting, got.Dropped)
	}
}

// TestRoomOfOneAccountIsAnothers ensures that a place that one account frees, and may not
// have again, wakes one who waits of another.
func TestRoomOfOneAccountIsAnothers(t *testing.T) {
	h, hang := fullHouse(t, 16, 1, 0)
	for range 4 {
		h.offer(other, "in", `{}`)
	}
	slow := h.waits(home, 0)
	first, second := h.waits(other, 0), h.waits(other, 0)
	hang.next()
	first.answered(t, "")
	stillWaits(t, slow, second)
	if got := h.Counters().Waiting; got != 7+5 {
		t.Errorf("got %d waiting, want 12", got)
	}
}

// TestWhoStopsWaitingTakesNoPlace ensures that the place that becomes free is the next one's,
// also when who came first was too large for it, and that the end of the server is told.
func TestWhoStopsWaitingTakesNoPlace(t *testing.T) {
	h, hang := fullHouse(t, 8, 1, 10_000)
	gone, large, second, third := h.waits(home, 0), h.waits(home, 9_000), h.waits(home, 0), h.waits(home, 0)
	gone.cancel()
	gone.answered(t, imprint.CodeRulesBusy)
	hang.next()
	stillWaits(t, large, second, third)
	large.cancel()
	large.answered(t, imprint.CodeRulesBusy)
	second.answered(t, "")
	stillWaits(t, third)
	if got := h.Counters(); got.Waiting != 4 || got.Dropped != 2 {
		t.Errorf("got %d waiting, %d dropped; want 4, 2", got.Waiting, got.Dropped)
	}
	third.cancel()
	third.answered(t, imprint.CodeRulesBusy)
}

// TestWhoLeavesAsRoomComesIsToldSo ensures that a publisher whose message came in just
// when it gave up isn't refused: the message runs.
func TestWhoLeavesAsRoomComesIsToldSo(t *testing.T) {
	h, hang := fullHouse(t, 8, 1, 0)
	for range 20 { // which of both is seen first is a matter of luck
		ctx := &lookedAt{}
		with, cancel := context.WithCancel(t.Context())
		ctx.Context, ctx.first = with, func() {
			hang.next()
			cancel()
		}
		err := h.Tenant(home).Offer(ctx, &imprint.RuleMessage{Topic: "in", Wait: true})
		if err != nil {
			t.Fatalf("a message that came in: got %v", err)
		}
	}
}

// TestWhatIsTakenRuns ensures that publishers who leave while there is room for them are
// told the truth: each message that was taken runs, and none that was refused. None waits
// for ever.
func TestWhatIsTakenRuns(t *testing.T) {
	h := open(t, func(o *rules.Options) { o.Workers, o.MaxQueued, o.RoomPatience = 2, 8, 2*patience })
	tenants, _ := fourTenants()
	for _, tenant := range tenants {
		h.put(tenant, "say", "SELECT * FROM 'in'", nil, republishTo("x"))
		h.offer(tenant, "in", `{}`) // rules are read: no error but for want of room is left
	}
	const each = 100
	var taken, refused atomic.Int64
	var all sync.WaitGroup
	for _, tenant := range tenants {
		for n := range each {
			ctx, cancel := context.WithCancel(t.Context())
			all.Go(func() {
				err := h.Tenant(tenant).Offer(ctx, &imprint.RuleMessage{Topic: "in", Payload: []byte(`{}`), Wait: true})
				switch {
				case err == nil:
					taken.Add(1)
				case imprint.CodeOf(err) == imprint.CodeRulesBusy && n%3 == 0:
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
			if n%3 == 0 {
				all.Go(cancel)
			} else {
				t.Cleanup(cancel)
			}
		}
	}
	all.Wait()
	want := int(taken.Load()) + len(tenants)
	h.await(t, "what was taken", func() bool { return len(h.on("x")) >= want })
	h.end()
	h.mu.Lock()
	defer h.mu.Unlock()
	if got := h.Counters(); len(h.on("x")) != want || got.Waiting != 0 || got.Dropped != uint64(refused.Load()) {
		t.Errorf("%d ran, %d wait, %d dropped; want %d, 0, %d", len(h.on("x")), got.Waiting, got.Dropped, want, refused.Load())
	}
}

// TestWhoWaitsHearsOfTheEnd ensures that publishers who wait when the server ends are told so.
func TestWhoWaitsHearsOfTheEnd(t *testing.T) {
	h := open(t, func(o *rules.Options) { o.MaxQueued, o.RoomPatience = 1, 2*patience })
	h.end()
	h.Engine = rules.New(h.store, time.Now, h.opts) // not started: everything waits
	h.put(home, "say", "SELECT * FROM 'in'", nil, republishTo("x"))
	h.offer(home, "in", `{}`)
	p := h.waits(home, 0)
	h.end()
	p.answered(t, imprint.CodeUnavailable)
}
