package broker_test

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// TestAClientThatIsRefusedTakesNothingFromItsSession has the store fail in the moment in
// which a client comes back to a session that it asks to end with the connection: as it
// hears no CONNACK, the session waits for as long as it would have, with its messages, and
// so does its will.
func TestAClientThatIsRefusedTakesNothingFromItsSession(t *testing.T) {
	t.Parallel()
	for mode, name := range failModes {
		if mode == 0 {
			continue
		}
		for _, live := range []bool{false, true} {
			was := "absent"
			if live {
				was = "connected"
			}
			t.Run(name+", "+was, func(t *testing.T) {
				t.Parallel()
				var broken failingStore
				var gate gate
				faults := broken.faults()
				faults.BeforeCommit = func() error { return errors.Join(gate.faults().BeforeCommit(), broken.hook(1)()) }
				path := filepath.Join(t.TempDir(), "registry.db")
				h := newHouseAt(t, broker.Options{}, openStore(t, path, faults), time.Now())
				id := h.register(first, allowAll)
				watch := h.on(first, id, mqtt.V5, connectAs("watch"))
				watch.subscribe(1, "gone")
				dev := h.on(first, id, mqtt.V5, willed("dev", "gone", 60, 1000))
				dev.subscribe(1, "m")
				if !live {
					dev.cut()
					watch.published("m", "kept")
				}
				h.must(h.log.Flush(t.Context()))
				h.ahead.Add(int64(30 * time.Second))
				began := 0 * time.Second // the absence
				if live {
					began = 30 * time.Second
				}

				open := gate.shut(t)
				again := h.door(first, id, mqtt.V5)
				again.send(lasting(mqtt.V5, "dev", 0))
				h.eventually("the session is taken up, and its connection gone", func() bool {
					n := h.broker.Counters()
					return n.Connected == 2 && (n.Takeovers == 1) == live
				})
				broken.mode.Store(int32(mode))
				open()
				again.fails()
				again.closed()
				broken.mode.Store(0)
				h.eventually("nobody but the watcher is connected", func() bool { return h.broker.Counters().Connected == 1 })
				h.broker.AwaitLedger()
				if live {
					watch.published("m", "kept")
				}
				image, at := copyStore(t, path), h.now()

				h.ahead.Store(int64(began + 59*time.Second))
				h.broker.LookAtTheClock()
				watch.silent()
				h.ahead.Store(int64(began + 61*time.Second))
				h.broker.LookAtTheClock()
				watch.gets("gone", "bye", 1)
				h.ahead.Store(int64(began + 999*time.Second))
				h.back(first, id, mqtt.V5, lasting(mqtt.V5, "dev", 1000)).gets("m", "kept", 1)

				next := newHouseAt(t, broker.Options{}, openStore(t, image, sqlite.Faults{}), at)
				next.ahead.Store(int64(began + 969*time.Second))
				next.back(first, id, mqtt.V5, lasting(mqtt.V5, "dev", 1000)).gets("m", "kept", 1)
			})
		}
	}
}

// TestWhoTakesOverARefusedClientTakesNothingFromTheSession has the store fail while one
// client waits for it that asks the session to end with its connection, and another one
// that has taken over from it: as neither hears a CONNACK, the session waits.
func TestWhoTakesOverARefusedClientTakesNothingFromTheSession(t *testing.T) {
	t.Parallel()
	var broken failingStore
	var gate gate
	faults := broken.faults()
	faults.BeforeCommit = func() error { return errors.Join(gate.faults().BeforeCommit(), broken.hook(1)()) }
	h := newHouseAt(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), faults), time.Now())
	id := h.register(first, allowAll)
	dev := h.on(first, id, mqtt.V5, lasting(mqtt.V5, "dev", 1000))
	dev.subscribe(1, "m")
	dev.cut()
	h.on(first, id, mqtt.V5, connectAs("pub")).published("m", "kept")
	h.must(h.log.Flush(t.Context()))

	open := gate.shut(t)
	ends, takesOver := h.door(first, id, mqtt.V5), h.door(first, id, mqtt.V5)
	ends.send(lasting(mqtt.V5, "dev", 0))
	h.eventually("the session is taken up", func() bool { return h.broker.Counters().Connected == 2 })
	takesOver.send(lasting(mqtt.V5, "dev", 1000))
	h.eventually("it is taken over", func() bool { return h.broker.Counters().Takeovers == 1 })
	broken.mode.Store(1)
	open()
	for _, c := range []*client{ends, takesOver} {
		c.fails()
		c.closed()
	}
	broken.mode.Store(0)
	h.eventually("nobody but the publisher is connected", func() bool { return h.broker.Counters().Connected == 1 })
	h.back(first, id, mqtt.V5, lasting(mqtt.V5, "dev", 1000)).gets("m", "kept", 1)
}

// TestARefusedClientMakesItsSessionLastNoLonger ensures that the time of a session that
// nobody took up goes on.
func TestARefusedClientMakesItsSessionLastNoLonger(t *testing.T) {
	t.Parallel()
	var broken failingStore
	h := newHouseAt(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), broken.faults()), time.Now())
	id := h.register(first, allowAll)
	h.on(first, id, mqtt.V5, lasting(mqtt.V5, "dev", 1000)).cut()
	h.must(h.log.Flush(t.Context()))
	h.ahead.Store(int64(900 * time.Second))
	broken.mode.Store(1)
	again := h.door(first, id, mqtt.V5)
	again.send(lasting(mqtt.V5, "dev", 5000))
	again.fails()
	broken.mode.Store(0)
	again.ended(imprint.CodeUnavailable)
	h.ahead.Store(int64(1001 * time.Second))
	h.on(first, id, mqtt.V5, lasting(mqtt.V5, "dev", 1000))
}

// TestARefusedClientThatBeginsAnewLeavesNoSession has the store fail as a client's session
// is replaced by a new one: the client hears of the new session when it has got one, and
// not when it comes again and looks for the old one.
func TestARefusedClientThatBeginsAnewLeavesNoSession(t *testing.T) {
	t.Parallel()
	anew := lasting(mqtt.V5, "dev", 3600)
	anew.CleanStart = true
	for name, test := range map[string]struct {
		before  mqtt.Version
		refused *mqtt.Connect
	}{
		"by a clean start":          {mqtt.V5, anew},
		"with another MQTT version": {mqtt.V311, lasting(mqtt.V5, "dev", 3600)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := &brokenStore{Store: openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{})}
			h := newHouseOn(t, broker.Options{}, store)
			id := h.register(first, allowAll)
			c := h.on(first, id, test.before, lasting(test.before, "dev", 3600))
			c.subscribe(1, "a")
			c.cut()
			store.broken.Store(true)
			for range 2 {
				c = h.door(first, id, mqtt.V5)
				c.send(test.refused)
				if got := expect[*mqtt.Connack](c); got.Reason == mqtt.Success {
					t.Errorf("got %s, want no success", got.Detail())
				}
				h.eventually("it is gone", func() bool { n := h.broker.Counters(); return n.Connected == 0 && n.Stored == 0 })
			}
			store.broken.Store(false)
			h.on(first, id, mqtt.V5, lasting(mqtt.V5, "dev", 3600)).cut()
			h.back(first, id, mqtt.V5, lasting(mqtt.V5, "dev", 3600))
		})
	}
}

// TestTheWillOfWhoWasTakenOverIsPublished has the store fail for whoever takes a session
// over from a device with a will that waits: as that one was the last to be connected, its
// will is due, also when its connection ends after those of the others, or when one of them
// begins anew.
func TestTheWillOfWhoWasTakenOverIsPublished(t *testing.T) {
	t.Parallel()
	t.Run("when it ends last", func(t *testing.T) {
		t.Parallel()
		var broken failingStore
		rules := &slowRules{entered: make(chan struct{}, 1), release: make(chan struct{})}
		path := filepath.Join(t.TempDir(), "registry.db")
		h := newHouseAt(t, broker.Options{Rules: rules}, openStore(t, path, broken.faults()), time.Now())
		release := sync.OnceFunc(func() { close(rules.release) })
		t.Cleanup(release)
		id := h.register(first, allowAll)
		watch := h.on(first, id, mqtt.V5, connectAs("watch"))
		watch.subscribe(1, "gone")
		dev := h.on(first, id, mqtt.V5, willed("dev", "gone", 60, 1000))
		h.broker.AwaitLedger()
		dev.send(&mqtt.Publish{Topic: []byte("gone"), Payload: []byte("x")})
		<-rules.entered

		broken.mode.Store(1)
		for range 2 {
			again := h.door(first, id, mqtt.V5)
			again.send(lasting(mqtt.V5, "dev", 500))
			again.fails()
			again.closed()
		}
		broken.mode.Store(0)
		h.eventually("those that were refused are gone", func() bool { return h.broker.Counters().Connected == 2 })
		release()
		h.eventually("nobody but the watcher is connected", func() bool { return h.broker.Counters().Connected == 1 })
		h.broker.AwaitLedger()
		watch.gets("gone", "x", 0)
		h.ahead.Store(int64(61 * time.Second))
		h.broker.LookAtTheClock()
		watch.gets("gone", "bye", 1)
	})
	t.Run("when another one begins anew", func(t *testing.T) {
		t.Parallel()
		var broken failingStore
		var gate gate
		faults := broken.faults()
		faults.BeforeCommit = func() error { return errors.Join(gate.faults().BeforeCommit(), broken.hook(1)()) }
		h := newHouseAt(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), faults), time.Now())
		id := h.register(first, allowAll)
		watch := h.on(first, id, mqtt.V5, connectAs("watch"))
		watch.subscribe(1, "gone")
		h.on(first, id, mqtt.V5, willed("dev", "gone", 60, 1000))
		h.broker.AwaitLedger()

		open := gate.shut(t)
		again, anew := h.door(first, id, mqtt.V5), h.door(first, id, mqtt.V5)
		again.send(lasting(mqtt.V5, "dev", 1000))
		h.eventually("the first one is gone", func() bool { n := h.broker.Counters(); return n.Takeovers == 1 && n.Connected == 2 })
		connect := lasting(mqtt.V5, "dev", 1000)
		connect.CleanStart = true
		anew.send(connect)
		h.eventually("it is taken over again", func() bool { return h.broker.Counters().Takeovers == 2 })
		broken.mode.Store(1)
		open()
		for _, c := range []*client{again, anew} {
			c.fails()
			c.closed()
		}
		broken.mode.Store(0)
		watch.gets("gone", "bye", 1)
	})
}
