package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// gate holds up the commits of a store.
type gate struct{ sync.RWMutex }

func (g *gate) faults() sqlite.Faults {
	return sqlite.Faults{BeforeCommit: func() error {
		g.RLock()
		defer g.RUnlock()
		return nil
	}}
}

// shut lets no commit through until open is called, or the test ends.
func (g *gate) shut(t testing.TB) (open func()) {
	g.Lock()
	open = sync.OnceFunc(g.Unlock)
	t.Cleanup(open)
	return open
}

// copyStore copies a store as a kill would leave it now.
func copyStore(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "image.db")
	for _, suffix := range []string{"-wal", ""} {
		err := copyFile(to+suffix, from+suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return to
}

// TestNobodyIsToldOfASessionsEndBeforeItIsOnDisk takes an image of the store as soon
// as a client was told that it has no session: none is there.
func TestNobodyIsToldOfASessionsEndBeforeItIsOnDisk(t *testing.T) {
	t.Parallel()
	vanish := func(h *house, c *client) {
		_ = c.conn.Close()
		h.eventually("the connection is gone", func() bool { return h.broker.Counters().Connected == 1 })
	}
	endings := []struct {
		name    string
		changes int // that wait for the disk then
		end     func(h *house, id imprint.CertificateID, c *client)
	}{
		{"by DISCONNECT", 1, func(_ *house, _ imprint.CertificateID, c *client) {
			bye := &mqtt.Disconnect{}
			bye.Properties.Mark(mqtt.PropSessionExpiry)
			c.send(bye)
		}},
		{"by a clean start that is taken over itself", 3, func(h *house, id imprint.CertificateID, c *client) {
			vanish(h, c)
			h.door(first, id, mqtt.V5).send(connectAs("dev"))
		}},
		{"by its expiry", 2, func(h *house, _ imprint.CertificateID, c *client) {
			vanish(h, c)
			h.ahead.Add(int64(time.Hour))
			h.broker.LookAtTheClock()
		}},
	}
	for _, e := range endings {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "registry.db")
			g := &gate{}
			h := newHouseOn(t, broker.Options{}, openStore(t, path, g.faults()))
			id := h.register(first, allowAll)
			c := h.on(first, id, mqtt.V5, lasting(mqtt.V5, "dev", 1000))
			c.subscribe(1, "a")
			open := g.shut(t)
			h.on(first, id, mqtt.V5, lasting(mqtt.V5, "busy", 10_000))
			h.eventually("the ledger waits for the disk", func() bool { return h.broker.Unwritten() == 0 })
			e.end(h, id, c)
			h.eventually("the session has ended", func() bool {
				return h.broker.Counters().Stored == 1 && h.broker.Unwritten() == e.changes
			})
			next := h.door(first, id, mqtt.V5)
			next.send(connectAs("dev"))
			told := make(chan error, 1)
			go func() {
				_, err := next.receive()
				told <- err
			}()
			h.eventually("CONNACK is there, or waits for the disk", func() bool {
				return len(told) > 0 || h.broker.Unwritten() > e.changes
			})
			if len(told) == 0 {
				open()
			}
			h.must(<-told)
			image := newHouseOn(t, broker.Options{}, openStore(t, copyStore(t, path), sqlite.Faults{}))
			image.on(first, id, mqtt.V5, lasting(mqtt.V5, "dev", 1000))
		})
	}
}

// slowRules take messages on topic "gone" when the test says so.
type slowRules struct {
	entered chan struct{}
	release chan struct{}
}

func newSlowRules() *slowRules {
	return &slowRules{entered: make(chan struct{}), release: make(chan struct{})}
}

func (r *slowRules) Tenant(imprint.Tenant) imprint.TenantRules { return r }
func (r *slowRules) Idle() bool                                { return false }
func (r *slowRules) Offer(_ context.Context, m *imprint.RuleMessage) error {
	if m.Topic == "gone" {
		r.entered <- struct{}{}
		<-r.release
	}
	return nil
}

// willed is a CONNECT of a session with a will.
func willed(name, topic string, delay, expiry uint32) *mqtt.Connect {
	c := lasting(mqtt.V5, name, expiry)
	c.Will = &mqtt.Will{Topic: topic, Payload: []byte("bye"), QoS: 1}
	c.Will.Properties.WillDelay = delay
	c.Will.Properties.Mark(mqtt.PropWillDelay)
	return c
}

// TestTimersForgetSessionsThatEndWhileTheirWillIsPublished ensures that whoever asks
// the timers late, as the will took its time, doesn't bring back a session that has
// ended meanwhile.
func TestTimersForgetSessionsThatEndWhileTheirWillIsPublished(t *testing.T) {
	t.Parallel()
	t.Run("with its connection", func(t *testing.T) {
		t.Parallel()
		rules := newSlowRules()
		h := newHouse(t, broker.Options{Rules: rules})
		id := h.register(first, allowAll)
		c := h.on(first, id, mqtt.V5, willed("dev", "gone", 0, 1000))
		_ = c.conn.Close()
		<-rules.entered
		h.on(first, id, mqtt.V5, connectAs("dev")) // ends the session
		close(rules.release)
		h.eventually("the first connection is gone", func() bool { return h.broker.Counters().Connected == 1 })
		if n := h.broker.Timers(); n != 0 {
			t.Errorf("sessions that the timers keep: got %d, want 0", n)
		}
	})
	t.Run("after its delay", func(t *testing.T) {
		t.Parallel()
		rules := newSlowRules()
		h := newHouse(t, broker.Options{Rules: rules})
		id := h.register(first, allowAll)
		watch := h.on(first, id, mqtt.V5, connectAs("watch"))
		watch.subscribe(1, "late")
		h.on(first, id, mqtt.V5, willed("dev", "gone", 60, 1000)).cut()
		h.on(first, id, mqtt.V5, willed("other", "late", 90, 90)).cut()
		h.ahead.Add(int64(61 * time.Second))
		h.broker.LookAtTheClock()
		<-rules.entered
		h.on(first, id, mqtt.V5, connectAs("dev"))
		h.ahead.Add(int64(30 * time.Second))
		close(rules.release)
		h.broker.LookAtTheClock()
		watch.gets("late", "bye", 1) // the timers have gone on to the next one
		if n := h.broker.Timers(); n != 0 {
			t.Errorf("sessions that the timers keep: got %d, want 0", n)
		}
	})
}

// TestWhatASessionAcknowledgesAsItEndsIsntInherited ensures that no other member of a
// group gets a message whose PUBACK came just before the deletion of the session.
func TestWhatASessionAcknowledgesAsItEndsIsntInherited(t *testing.T) {
	for _, v := range versions {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{}))
			id := h.register(first, allowAll)
			h.keeper(id, v, "a")
			c := h.on(first, id, v, lasting(v, "dev", 1000))
			c.subscribe(1, sharedMessage+"a")
			h.on(first, id, v, connectAs("pub")).published("a", "once")
			h.broker.AcknowledgeWhileEnding(first, "dev", expect[*mqtt.Publish](c).PacketID)
			var queues []imprint.QueueSize
			h.must(h.store.View(t.Context(), func(tx imprint.ReadTx) (err error) {
				queues, err = tx.QueueSizes(0, 10)
				return err
			}))
			if len(queues) > 0 {
				t.Errorf("queues with messages: got %s, want none", fmt.Sprint(queues))
			}
		})
	}
}

// TestAnArrivalWaitsForNoEndLongerThanItMay has a client come back while its session's
// end waits for the store, as there is no room for its will.
func TestAnArrivalWaitsForNoEndLongerThanItMay(t *testing.T) {
	t.Parallel()
	h, stall := stalled(t)
	id := h.register(first, allowAll)
	h.on(first, id, mqtt.V5, lasting(mqtt.V5, "sub", 1000)).subscribe(1, "will")
	h.on(first, id, mqtt.V5, willed("dev", "will", 60, 1000)).cut()
	open := stall()
	h.broker.FillLedger()
	h.door(first, id, mqtt.V5).send(connectAs("dev")) // ends the session
	h.eventually("the will waits for room", func() bool { _, awaited := h.broker.LedgerSize(); return awaited })
	var cancel context.CancelFunc
	h.ctx, cancel = context.WithCancel(t.Context())
	h.door(first, id, mqtt.V5).send(connectAs("dev"))
	h.eventually("both are there", func() bool { return h.broker.Counters().Connected == 3 })
	cancel()
	h.eventually("the second one is gone", func() bool { return h.broker.Counters().Connected == 2 })
	open()
}

// brokenStore is a store that can't delete sessions, for a reason of its own.
type brokenStore struct {
	imprint.Store
	broken atomic.Bool
}

type brokenTx struct {
	imprint.Tx
	store *brokenStore
}

func (tx brokenTx) DeleteSession(key int64) error {
	if tx.store.broken.Load() {
		return imprint.Errorf(imprint.CodeInternal, "the session can't be deleted")
	}
	return tx.Tx.DeleteSession(key)
}

func (s *brokenStore) Update(ctx context.Context, fn func(imprint.Tx) error) error {
	return s.Store.Update(ctx, func(tx imprint.Tx) error { return fn(brokenTx{tx, s}) })
}

// TestASessionThatCantBeDeletedIsDeletedLater ensures that no client is told of the end
// of a session that the store couldn't delete, and that the next one to come has it
// deleted.
func TestASessionThatCantBeDeletedIsDeletedLater(t *testing.T) {
	t.Parallel()
	store := &brokenStore{Store: openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{})}
	h := newHouseOn(t, broker.Options{}, store)
	id := h.register(first, allowAll)
	c := h.on(first, id, mqtt.V5, lasting(mqtt.V5, "dev", 1000))
	c.subscribe(1, "a")
	c.goodbye()
	store.broken.Store(true)
	for range 2 {
		c = h.door(first, id, mqtt.V5)
		c.send(connectAs("dev"))
		if got := expect[*mqtt.Connack](c); got.Reason == mqtt.Success {
			t.Errorf("got %s, want no success", got.Detail())
		}
	}
	store.broken.Store(false)
	h.on(first, id, mqtt.V5, connectAs("dev"))
	h.must(h.broker.Shutdown(t.Context()))
	h = newHouseOn(t, broker.Options{}, store)
	h.on(first, id, mqtt.V5, lasting(mqtt.V5, "dev", 1000))
}

// TestSessionsThatTheStoreCantDeleteAreBounded ensures that clients get no new stored
// sessions while too many that have ended are still in the store.
func TestSessionsThatTheStoreCantDeleteAreBounded(t *testing.T) {
	t.Parallel()
	h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{}))
	id := h.register(first, allowAll)
	h.on(first, id, mqtt.V5, lasting(mqtt.V5, "ends", 1000)).cut()
	h.on(first, id, mqtt.V5, connectAs("ends")) // it is deleted before this is answered
	h.broker.CountEndings(first, 1)
	h.on(first, id, mqtt.V5, lasting(mqtt.V5, "last", 1000)).cut()
	h.broker.CountEndings(first, 0)
	c := h.door(first, id, mqtt.V5)
	c.send(lasting(mqtt.V5, "more", 1000))
	if got := expect[*mqtt.Connack](c); got.Reason != mqtt.ServerUnavailable {
		t.Errorf("got %s, want the server unavailable", got.Detail())
	}
	h.back(first, id, mqtt.V5, lasting(mqtt.V5, "last", 1000))
	h.on(first, id, mqtt.V5, connectAs("clean"))
}
