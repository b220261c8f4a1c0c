package broker_test

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// stalled is a house whose store takes nothing until open is called; the ledger has
// begun to write already.
func stalled(t *testing.T) (h *house, stall func() (open func())) {
	g := &gate{}
	h = newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), g.faults()))
	return h, func() func() {
		open := g.shut(t)
		h.broker.FillLedger()
		h.eventually("the ledger waits for the disk", func() bool { return h.broker.Unwritten() == 0 })
		return open
	}
}

// TestSmallMessagesForManyCountWhatTheyTake ensures that what waits for the disk is
// counted with what each queue costs beside the bytes of the message.
func TestSmallMessagesForManyCountWhatTheyTake(t *testing.T) {
	t.Parallel()
	h, stall := stalled(t)
	id := h.register(first, allowAll)
	const many = 30
	for n := range many {
		c := h.on(first, id, mqtt.V5, lasting(mqtt.V5, fmt.Sprint("sub", n), 1000))
		c.subscribe(1, "a")
	}
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	open := stall()
	pub.publish(1, 7, "a", "x")
	h.eventually("the message is with the ledger", func() bool { return h.broker.Unwritten() == 1 })
	if got, _ := h.broker.LedgerSize(); got < many*128 {
		t.Errorf("bytes that wait: got %d, want %d or more", got, many*128)
	}
	open()
	expect[*mqtt.Ack](pub)
}

// TestMessagesOfTheServerWaitForTheStore ensures that messages that no client has sent
// wait, too, while as much as allowed waits for the disk.
func TestMessagesOfTheServerWaitForTheStore(t *testing.T) {
	t.Parallel()
	sources := []struct {
		name, topic string
		message     func(h *house, id imprint.CertificateID, c *client)
	}{
		{"a will", "will", func(_ *house, _ imprint.CertificateID, c *client) { _ = c.conn.Close() }},
		{"a retained will", "will", func(_ *house, _ imprint.CertificateID, c *client) { _ = c.conn.Close() }},
		{"an event", "$aws/events/presence/connected/other", func(h *house, id imprint.CertificateID, _ *client) {
			h.door(first, id, mqtt.V5).send(connectAs("other"))
		}},
	}
	for _, s := range sources {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			h, stall := stalled(t)
			id := h.register(first, allowAll)
			sub := h.on(first, id, mqtt.V5, lasting(mqtt.V5, "sub", 1000))
			sub.subscribe(1, s.topic)
			connect := willed("dev", "will", 0, 0)
			connect.Will.Retain = s.name == "a retained will"
			c := h.on(first, id, mqtt.V5, connect)
			open := stall()
			h.broker.FillLedger()
			s.message(h, id, c)
			h.eventually("it waits", func() bool { _, awaited := h.broker.LedgerSize(); return awaited })
			if n := h.broker.Unwritten(); n != 1 {
				t.Errorf("changes with the ledger: got %d, want 1", n)
			}
			open()
			if got := string(expect[*mqtt.Publish](sub).Topic); got != s.topic {
				t.Errorf("got a message on %s, want %s", got, s.topic)
			}
		})
	}
}

// TestWhatIsTriedAgainComesInPortions ensures that a store that was away for long isn't
// given all that it has missed in one transaction, which may not fit, and that who came
// after that is told nothing before it is there.
func TestWhatIsTriedAgainComesInPortions(t *testing.T) {
	t.Parallel()
	const many, most = 5000, 512
	var away atomic.Bool
	var written, largest atomic.Int64
	faults := sqlite.Faults{BeforeCommit: func() error {
		largest.Store(max(largest.Load(), written.Swap(0)))
		if away.Load() {
			return errBroken
		}
		return nil
	}}
	h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), faults))
	away.Store(true)
	var done atomic.Int64
	h.broker.Insist(many, false, func() { written.Add(1) }, func() { done.Add(1) })
	h.eventually("the ledger has tried them all", func() bool { return h.broker.Unwritten() == 0 })
	if n := done.Load(); n > 0 {
		t.Errorf("%d are done, want none", n)
	}
	away.Store(false)
	h.eventually("all are done", func() bool { return done.Load() == many })
	if n := largest.Load(); n > most {
		t.Errorf("a transaction had %d changes, want %d or less", n, most)
	}
}

// TestWhatMovesToMembersWaitsForTheStore ensures that messages of a shared
// subscription's queue aren't read into memory for its stored members while as much as
// allowed waits for the disk.
func TestWhatMovesToMembersWaitsForTheStore(t *testing.T) {
	t.Parallel()
	h, stall := stalled(t)
	id := h.register(first, allowAll)
	const many = 5
	h.keeper(id, mqtt.V5, "t")
	m := h.member(id, mqtt.V5, "m", "t", 1)
	expect[*mqtt.Suback](m)
	h.fill(id, "t", many)
	for range many {
		expect[*mqtt.Publish](m)
	}
	keeper := h.back(first, id, mqtt.V5, lasting(mqtt.V5, "keepert", 1000))
	open := stall()
	h.broker.FillLedger()
	_ = m.conn.Close() // what it has is for the keeper now
	h.eventually("they wait, or are with the ledger", func() bool {
		_, awaited := h.broker.LedgerSize()
		return awaited || h.broker.Unwritten() > 1
	})
	if n := h.broker.Unwritten(); n != 1 {
		t.Errorf("changes with the ledger: got %d, want 1", n)
	}
	open()
	keeper.takesExactly(all(many))
}

// TestWhatIsTriedAgainIsBounded ensures that a client that is refused again and again
// while the store fails leaves one change to be tried again, that acknowledgements take
// no more memory than allowed then, and that they make nobody forget what has ended.
func TestWhatIsTriedAgainIsBounded(t *testing.T) {
	t.Parallel()
	fails := &failingStore{}
	h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), fails.faults()))
	id := h.register(first, allowAll)
	h.on(first, id, mqtt.V5, lasting(mqtt.V5, "dev", 1000)).cut()
	fails.mode.Store(1)
	for range 10 {
		c := h.door(first, id, mqtt.V5)
		c.send(lasting(mqtt.V5, "dev", 1000))
		c.fails()
		h.eventually("it is gone", func() bool { return h.broker.Counters().Connected == 0 })
	}
	if n := h.broker.TriedAgain(); n != 1 {
		t.Errorf("changes to be tried again: got %d, want 1", n)
	}
	const acks, most, ends = 20_000, 16_384, 10
	var ended atomic.Int64
	h.broker.Insist(acks, false, func() {}, func() {})
	h.broker.Insist(ends, true, func() {}, func() { ended.Add(1) })
	if n := h.broker.TriedAgain(); n != most+ends || ended.Load() > 0 {
		t.Errorf("changes to be tried again: got %d, want %d; ends that were given up: got %d, want 0", n, most+ends, ended.Load())
	}
	fails.mode.Store(0)
	h.eventually("the ends are written", func() bool { return ended.Load() == ends })
}
