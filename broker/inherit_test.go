package broker_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// all is what many messages of fill say.
func all(many int) map[string]int {
	want := map[string]int{}
	for n := range many {
		want[fmt.Sprint(n)] = 1
	}
	return want
}

// takesExactly reads and acknowledges messages until each has come as often as it
// is to.
func (c *client) takesExactly(want map[string]int) {
	c.Helper()
	left := 0
	for _, n := range want {
		left += n
	}
	got := map[string]int{}
	for range left {
		p := expect[*mqtt.Publish](c)
		got[string(p.Payload)]++
		c.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: p.PacketID})
	}
	for payload, n := range want {
		if got[payload] != n {
			c.Errorf("got %q %d times, want %d", payload, got[payload], n)
		}
	}
}

// leaver is a member with a stored session that gets one message and acknowledges
// none.
func (h *house) leaver(id imprint.CertificateID, v mqtt.Version, topic string, filters ...string) *client {
	h.Helper()
	connect := lasting(v, "leaver"+topic, 50)
	if v == mqtt.V5 {
		connect.Properties.ReceiveMaximum = 1
		connect.Properties.Mark(mqtt.PropReceiveMaximum)
	}
	c := h.on(first, id, v, connect)
	c.subscribe(1, filters...)
	return c
}

// TestWhatAMemberLeavesGoesToTheOthersHoweverItLeaves ensures that only the group
// that a message came by inherits it, whatever other filters the member has by then.
func TestWhatAMemberLeavesGoesToTheOthersHoweverItLeaves(t *testing.T) {
	const many = 20
	for name, test := range map[string]struct {
		also  string // a plain filter
		leave func(h *house, id imprint.CertificateID, c *client)
	}{
		"it unsubscribes before its session ends": {leave: func(h *house, _ imprint.CertificateID, c *client) {
			c.send(&mqtt.Unsubscribe{PacketID: 9, Filters: []string{sharedMessage + "t"}})
			expect[*mqtt.Unsuback](c)
			c.cut()
			h.ahead.Add(int64(51 * time.Second))
		}},
		"a plain filter matches, too": {also: "+", leave: func(h *house, _ imprint.CertificateID, c *client) {
			c.cut()
			h.ahead.Add(int64(51 * time.Second))
		}},
		"its client begins anew": {leave: func(h *house, id imprint.CertificateID, c *client) {
			c.cut()
			h.on(first, id, mqtt.V5, connectAs("leavert"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{}))
			id := h.register(first, allowAll)
			filters := []string{sharedMessage + "t"}
			if test.also != "" {
				filters = append(filters, test.also)
			}
			leaver := h.leaver(id, mqtt.V5, "t", filters...)
			h.fill(id, "t", many)
			expect[*mqtt.Publish](leaver)
			heir := h.member(id, mqtt.V5, "heir", "t", 1)
			expect[*mqtt.Suback](heir)
			test.leave(h, id, leaver)
			heir.takesExactly(all(many))
			heir.silent()
		})
	}
}

// TestEachGroupInheritsItsOwn ensures that of two groups that one session is a
// member of, each gets its messages once.
func TestEachGroupInheritsItsOwn(t *testing.T) {
	t.Parallel()
	const many = 4
	h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{}))
	id := h.register(first, allowAll)
	leaver := h.leaver(id, mqtt.V5, "t", "$share/a/t", "$share/b/t")
	h.fill(id, "t", many)
	expect[*mqtt.Publish](leaver)
	heirs := map[string]*client{}
	for _, group := range []string{"a", "b"} {
		heirs[group] = h.on(first, id, mqtt.V5, connectAs("heir of "+group))
		heirs[group].subscribe(1, "$share/"+group+"/t")
	}
	leaver.cut()
	h.ahead.Add(int64(51 * time.Second))
	for _, heir := range heirs {
		heir.takesExactly(all(many))
		heir.silent()
	}
}

// TestWhatExpiresWhileTheServerIsDownIsInherited ensures that a member whose session
// ends between two servers leaves its messages as it would with one.
func TestWhatExpiresWhileTheServerIsDownIsInherited(t *testing.T) {
	t.Parallel()
	const many = 5
	store := openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{})
	h := newHouseOn(t, broker.Options{}, store)
	id := h.register(first, allowAll)
	leaver := h.leaver(id, mqtt.V5, "t", sharedMessage+"t")
	h.fill(id, "t", many)
	expect[*mqtt.Publish](leaver)
	leaver.cut()
	heir := h.on(first, id, mqtt.V5, lasting(mqtt.V5, "heir", 5000))
	heir.subscribe(1, sharedMessage+"t")
	heir.goodbye()
	h.must(h.broker.Shutdown(context.Background()))
	h = newHouseAt(t, broker.Options{}, store, time.Now().Add(51*time.Second))
	heir = h.back(first, id, mqtt.V5, lasting(mqtt.V5, "heir", 5000))
	heir.takesExactly(all(many))
	heir.silent()
	if n := h.broker.Counters().Stored; n != 1 {
		t.Errorf("%d sessions are stored, want one", n)
	}
}

// TestAnInheritanceOfUnknownOutcomeIsFound ensures that messages that reached the
// group's queue by a commit that was reported to fail are handed out.
func TestAnInheritanceOfUnknownOutcomeIsFound(t *testing.T) {
	t.Parallel()
	const many = 5
	var armed atomic.Bool
	faults := sqlite.Faults{AfterCommit: func() error {
		if armed.CompareAndSwap(true, false) {
			return errors.New("the disk is away for a moment")
		}
		return nil
	}}
	store := openStore(t, filepath.Join(t.TempDir(), "registry.db"), faults)
	h := newHouseOn(t, broker.Options{}, store)
	id := h.register(first, allowAll)
	leaver := h.leaver(id, mqtt.V5, "t", sharedMessage+"t")
	h.fill(id, "t", many)
	expect[*mqtt.Publish](leaver)
	heir := h.member(id, mqtt.V5, "heir", "t", 1)
	expect[*mqtt.Suback](heir)
	leaver.cut()
	// What the ledger has before this is on disk then, and nothing else is to be
	// written.
	h.on(first, id, mqtt.V5, lasting(mqtt.V5, "probe", 1000)).subscribe(1, "elsewhere")
	h.must(h.log.Flush(t.Context()))
	armed.Store(true)
	h.ahead.Add(int64(51 * time.Second))
	heir.takesExactly(all(many))
	if armed.Load() {
		t.Error("no commit was reported to fail")
	}
	h.eventually("the group's queue is empty", func() bool { counted, _ := h.broker.Groups(first); return counted == 0 })
}

// TestAMessageThatNobodyMayReceiveHoldsUpNoOther has a member that may not receive
// the first message of the queue.
func TestAMessageThatNobodyMayReceiveHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{}))
	id, deaf := h.register(first, allowAll), h.register(first, deafToB)
	keeper := h.on(first, id, mqtt.V5, lasting(mqtt.V5, "keeper", 1000))
	keeper.subscribe(1, "$share/g/+")
	keeper.goodbye()
	m := h.on(first, deaf, mqtt.V5, connectAs("m"))
	m.subscribe(1, "$share/g/+")
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	pub.published("b", "secret")
	pub.published("a", "open")
	m.takesExactly(map[string]int{"open": 1})
	m.silent()
	h.setPolicy(first, deaf, allowAll)
	m.takesExactly(map[string]int{"secret": 1})
	pub.published("a", "after")
	m.takesExactly(map[string]int{"after": 1})
}

// TestAMemberThatMayNotReceivePassesItOn ensures that a message in the queue of a
// stored member that comes back with another certificate goes to another member.
func TestAMemberThatMayNotReceivePassesItOn(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id, deaf := h.register(first, allowAll), h.register(first, noReceive)
		topic := fmt.Sprint("pass", byte(v))
		leaver := h.leaver(id, v, topic, sharedMessage+topic)
		h.fill(id, topic, 5)
		expect[*mqtt.Publish](leaver)
		other := h.member(id, v, "other", topic, 1)
		expect[*mqtt.Suback](other)
		leaver.cut()
		h.back(first, deaf, v, lasting(v, "leaver"+topic, 50)).silent()
		other.takesExactly(all(5))
		other.silent()
		h.on(first, id, v, connectAs("leaver"+topic))
	})
}

// TestAMessageGoesToAMemberThatTakesItsSize ensures that a member with a small
// maximum packet size swallows nothing.
func TestAMessageGoesToAMemberThatTakesItsSize(t *testing.T) {
	for _, stored := range []bool{false, true} {
		t.Run(fmt.Sprint("stored ", stored), func(t *testing.T) {
			t.Parallel()
			h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{}))
			id := h.register(first, allowAll)
			connect := connectAs("small")
			if stored {
				connect = lasting(mqtt.V5, "small", 1000)
			}
			connect.Properties.MaximumPacketSize = 64
			connect.Properties.Mark(mqtt.PropMaximumPacketSize)
			small := h.on(first, id, mqtt.V5, connect)
			small.subscribe(1, "$share/g/t")
			large := h.member(id, mqtt.V5, "large", "t", 1)
			expect[*mqtt.Suback](large)
			pub := h.on(first, id, mqtt.V5, connectAs("pub"))
			const many = 20
			for n := range many {
				pub.published("t", fmt.Sprintf("%200d", n))
			}
			large.takes(many)
			small.silent()
			large.goodbye()
			// With nobody left who could take it, it is discarded.
			pub.published("t", fmt.Sprintf("%200d", many))
			h.eventually("the message is discarded", func() bool { return h.broker.Counters().PublishDropped == 1 })
		})
	}
}

// TestAMemberThatComesBackSmallPassesOn ensures that what waits in the queue of a
// stored member that takes its size no longer goes to another one.
func TestAMemberThatComesBackSmallPassesOn(t *testing.T) {
	t.Parallel()
	h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{}))
	id := h.register(first, allowAll)
	leaver := h.leaver(id, mqtt.V5, "t", sharedMessage+"t")
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	large := fmt.Sprintf("%200d", 1)
	pub.published("t", large)
	expect[*mqtt.Publish](leaver)
	leaver.cut()
	other := h.member(id, mqtt.V5, "other", "t", 1)
	expect[*mqtt.Suback](other)
	connect := lasting(mqtt.V5, "leavert", 50)
	connect.Properties.MaximumPacketSize = 64
	connect.Properties.Mark(mqtt.PropMaximumPacketSize)
	h.back(first, id, mqtt.V5, connect).silent()
	other.takesExactly(map[string]int{large: 1})
}

// TestABusyMemberHoldsUpNoOther has a member with as many messages as it may hold,
// and one that may not receive those that come next.
func TestABusyMemberHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{}))
	id, deaf := h.register(first, allowAll), h.register(first, deafToB)
	keeper := h.on(first, id, mqtt.V5, lasting(mqtt.V5, "keeper", 1000))
	keeper.subscribe(1, "$share/g/+")
	keeper.goodbye()
	busy := h.on(first, id, mqtt.V5, connectAs("busy"))
	busy.subscribe(1, "$share/g/+")
	const held = 100
	h.fill(id, "b", held)
	var ids []uint16
	for range held {
		ids = append(ids, expect[*mqtt.Publish](busy).PacketID)
	}
	other := h.on(first, deaf, mqtt.V5, connectAs("other"))
	other.subscribe(1, "$share/g/+")
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	pub.published("b", "secret")
	for n := range 5 {
		pub.published("a", fmt.Sprint(n))
	}
	other.takesExactly(all(5))
	for _, id := range ids {
		busy.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: id})
	}
	busy.takesExactly(map[string]int{"secret": 1})
	h.eventually("nothing waits or is remembered", func() bool {
		counted, chosen := h.broker.Groups(first)
		return counted == 0 && chosen == 0
	})
}

// TestALostGroupIsFoundAgain ensures that the messages of a sole member that
// unsubscribes and subscribes again go to others when its session ends.
func TestALostGroupIsFoundAgain(t *testing.T) {
	t.Parallel()
	const many = 5
	h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{}))
	id := h.register(first, allowAll)
	leaver := h.leaver(id, mqtt.V5, "t", sharedMessage+"t")
	h.fill(id, "t", many)
	expect[*mqtt.Publish](leaver)
	leaver.send(&mqtt.Unsubscribe{PacketID: 9, Filters: []string{sharedMessage + "t"}})
	expect[*mqtt.Unsuback](leaver)
	leaver.subscribe(1, sharedMessage+"t")
	heir := h.member(id, mqtt.V5, "heir", "t", 1)
	expect[*mqtt.Suback](heir)
	leaver.cut()
	h.ahead.Add(int64(51 * time.Second))
	heir.takesExactly(all(many))
}

// TestACountSurvivesACommitOfUnknownOutcome ensures that a group's queue is counted
// as empty when its messages have left it by a commit that was reported to fail.
func TestACountSurvivesACommitOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	var armed atomic.Bool
	faults := sqlite.Faults{AfterCommit: func() error {
		if armed.CompareAndSwap(true, false) {
			return errors.New("the disk is away for a moment")
		}
		return nil
	}}
	h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), faults))
	id, deaf := h.register(first, allowAll), h.register(first, noReceive)
	m := h.on(first, deaf, mqtt.V5, lasting(mqtt.V5, "m", 1000))
	m.subscribe(1, sharedMessage+"t")
	h.fill(id, "t", 3) // which nobody may receive
	counted := func() int { n, _ := h.broker.Groups(first); return n }
	if n := counted(); n != 3 {
		t.Fatalf("%d messages wait for the group, want 3", n)
	}
	h.must(h.log.Flush(t.Context()))
	h.setPolicy(first, deaf, allowAll)
	armed.Store(true) // the group tries again after a pause
	m.takesExactly(all(3))
	if armed.Load() {
		t.Error("no commit was reported to fail")
	}
	h.eventually("nothing is counted", func() bool { return counted() == 0 })
}

// TestMembersGetTheirPart ensures that a stored member gets no larger part than one
// whose session ends with its connection.
func TestMembersGetTheirPart(t *testing.T) {
	t.Parallel()
	h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{}))
	id := h.register(first, allowAll)
	stored := h.on(first, id, mqtt.V5, lasting(mqtt.V5, "stored", 1000))
	stored.subscribe(1, "$share/g/t")
	clean := h.member(id, mqtt.V5, "clean", "t", 1)
	expect[*mqtt.Suback](clean)
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	const many = 400
	got := make(chan string, many)
	for name, c := range map[string]*client{"stored": stored, "clean": clean} {
		go func() {
			for {
				p, err := c.receive()
				if err != nil {
					return
				}
				if p, ok := p.(*mqtt.Publish); ok {
					c.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: p.PacketID})
					got <- name
				}
			}
		}()
	}
	count := map[string]int{}
	for range many {
		pub.published("t", "x")
		count[<-got]++
	}
	// Six standard deviations: one run in a billion.
	if n := count["stored"]; n < many/2-60 || n > many/2+60 {
		t.Errorf("the stored member got %d of %d messages, want about half", n, many)
	}
}
