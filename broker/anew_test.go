package broker_test

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// unsubscribe ends subscriptions.
func (c *client) unsubscribe(filters ...string) {
	c.Helper()
	c.send(&mqtt.Unsubscribe{PacketID: 9, Filters: filters})
	expect[*mqtt.Unsuback](c)
}

// TestAGroupThatBeganAnewGetsWhatTheOldOneLeft ensures that what a former member of a
// shared subscription hasn't acknowledged goes to those who are members by then, also
// when there were none for a while.
func TestAGroupThatBeganAnewGetsWhatTheOldOneLeft(t *testing.T) {
	const many = 5
	for name, test := range map[string]struct {
		stored bool
		leave  func(h *house)
	}{
		"a member without a session goes": {false, func(*house) {}},
		"a stored member's session expires": {true, func(h *house) {
			h.ahead.Add(int64(51 * time.Second))
			h.broker.LookAtTheClock()
		}},
		"a stored member may not receive them any more": {true, func(h *house) {
			h.back(first, h.register(first, noReceive), mqtt.V5, lasting(mqtt.V5, "leavert", 50)).silent()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{}))
			id := h.register(first, allowAll)
			var leaver *client
			if test.stored {
				leaver = h.leaver(id, mqtt.V5, "t", sharedMessage+"t")
				h.fill(id, "t", many)
				expect[*mqtt.Publish](leaver)
			} else {
				leaver = h.on(first, id, mqtt.V5, connectAs("leaver"))
				leaver.subscribe(1, sharedMessage+"t")
				h.fill(id, "t", many)
				for range many {
					expect[*mqtt.Publish](leaver)
				}
			}
			leaver.unsubscribe(sharedMessage + "t")
			heir := h.member(id, mqtt.V5, "heir", "t", 1)
			expect[*mqtt.Suback](heir)
			leaver.cut()
			test.leave(h)
			heir.takesExactly(all(many))
			heir.silent()
			if n := h.broker.Counters().PublishDropped; n > 0 {
				t.Errorf("%d messages were dropped", n)
			}
		})
	}
}

// TestWhatLeavesTheStoreByACommitOfUnknownOutcomeIsHandedOut ensures that messages of a
// group that keeps none in the store go to its members once they have left their former
// member's queue, also by a commit that was reported to fail.
func TestWhatLeavesTheStoreByACommitOfUnknownOutcomeIsHandedOut(t *testing.T) {
	t.Parallel()
	const many = 5
	var armed atomic.Bool
	faults := sqlite.Faults{AfterCommit: func() error {
		if armed.CompareAndSwap(true, false) {
			return errBroken
		}
		return nil
	}}
	h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), faults))
	id := h.register(first, allowAll)
	leaver := h.leaver(id, mqtt.V5, "t", sharedMessage+"t")
	h.fill(id, "t", many)
	expect[*mqtt.Publish](leaver)
	leaver.unsubscribe(sharedMessage + "t")
	heir := h.member(id, mqtt.V5, "heir", "t", 1)
	expect[*mqtt.Suback](heir)
	leaver.cut()
	h.on(first, id, mqtt.V5, lasting(mqtt.V5, "probe", 1000)).subscribe(1, "elsewhere")
	h.must(h.log.Flush(t.Context()))
	armed.Store(true)
	h.ahead.Add(int64(51 * time.Second))
	h.broker.LookAtTheClock()
	heir.takesExactly(all(many))
	heir.silent()
	if armed.Load() {
		t.Error("no commit was reported to fail")
	}
	if n := h.broker.Counters().PublishDropped; n > 0 {
		t.Errorf("%d messages were dropped", n)
	}
}
