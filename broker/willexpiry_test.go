package broker_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// dying is a CONNECT with a will that waits, and whose message expires.
func dying(name string, delay, session, expiry uint32) *mqtt.Connect {
	c := willed(name, "gone/"+name, delay, session)
	c.Will.Properties.MessageExpiry = expiry
	c.Will.Properties.Mark(mqtt.PropMessageExpiry)
	return c
}

// TestWillsExpireFromTheEndOfTheirConnection ensures that the time that a will waits is
// taken off its message's expiry, whatever makes it due.
func TestWillsExpireFromTheEndOfTheirConnection(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name                   string
		delay, session, expiry uint32
		after                  time.Duration
		comesBack              bool // with a clean start
		want                   int  // seconds left; -1: it isn't sent
	}{
		{"in-time", 1, 100, 5, time.Second, false, 4},
		{"late", 2, 100, 1, 2 * time.Second, false, -1},
		{"just-late", 2, 100, 2, 2 * time.Second, false, -1},
		{"at-once", 0, 100, 1, 0, false, 1},
		{"part-of-a-second", 1, 100, 2, 1500 * time.Millisecond, false, 1},
		{"end-of-session", 60, 10, 15, 10 * time.Second, false, 5},
		{"late-end-of-session", 60, 10, 10, 10 * time.Second, false, -1},
		{"clean-start", 60, 100, 5, 3 * time.Second, true, 2},
		{"late-clean-start", 60, 100, 3, 3 * time.Second, true, -1},
	} {
		for _, retain := range []bool{false, true} {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				h := newHouseAt(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{}), time.Now())
				id := h.register(first, allowAll)
				watch := h.on(first, id, mqtt.V5, connectAs("watch"))
				watch.subscribe(1, "gone/+")
				connect := dying(row.name, row.delay, row.session, row.expiry)
				connect.Will.Retain = retain
				ended := h.now()
				h.on(first, id, mqtt.V5, connect).cut()
				h.ahead.Store(int64(row.after))
				h.broker.LookAtTheClock()
				if row.comesBack {
					h.on(first, id, mqtt.V5, connectAs(row.name))
				}
				if row.want < 0 {
					h.eventually("the will is dropped", func() bool { return h.broker.Counters().PublishDropped == 1 })
					watch.silent()
					if retain {
						_, err := h.broker.Retained(t.Context(), first, "gone/"+row.name)
						if imprint.CodeOf(err) != imprint.CodeNotFound {
							t.Errorf("the retained message: got %v, want that there is none", err)
						}
					}
					return
				}
				got := watch.gets("gone/"+row.name, "bye", 1).Properties.MessageExpiry
				if got != uint32(row.want) {
					t.Errorf("message expiry: got %d s, want %d s", got, row.want)
				}
				if !retain {
					return
				}
				kept, err := h.broker.Retained(t.Context(), first, "gone/"+row.name)
				h.must(err)
				if want := ended.Add(time.Duration(row.expiry) * time.Second); kept.ExpiresAt.Sub(want).Abs() > time.Millisecond {
					t.Errorf("the retained message expires at %s, want %s", kept.ExpiresAt, want)
				}
			})
		}
	}
}

// TestAWaitingWillsExpiryGoesOnWhileTheServerIsDown ensures that it counts from the end of
// the connection also after a restart, and from the restart when that ended it.
func TestAWaitingWillsExpiryGoesOnWhileTheServerIsDown(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registry.db")
	began := time.Now().Truncate(time.Millisecond) // as the store keeps times
	before := newHouseAt(t, broker.Options{}, openStore(t, path, sqlite.Faults{}), began)
	id := before.register(first, allowAll)
	watch := before.on(first, id, mqtt.V5, lasting(mqtt.V5, "watch", 1000))
	watch.subscribe(1, "gone/+")
	before.on(first, id, mqtt.V5, dying("waits", 60, 1000, 100)).cut()
	before.on(first, id, mqtt.V5, dying("late", 60, 1000, 70)).cut()
	before.on(first, id, mqtt.V5, dying("on", 60, 1000, 61)).subscribe(1, "x") // on disk then

	after := newHouseAt(t, broker.Options{}, openStore(t, crashImage(t, path), sqlite.Faults{}), began.Add(75*time.Second))
	watch = after.back(first, id, mqtt.V5, lasting(mqtt.V5, "watch", 1000))
	if got := watch.gets("gone/waits", "bye", 1).Properties.MessageExpiry; got != 25 {
		t.Errorf("message expiry: got %d s, want 25 s", got)
	}
	watch.silent()
	after.ahead.Store(int64(60 * time.Second))
	after.broker.LookAtTheClock()
	if got := watch.gets("gone/on", "bye", 1).Properties.MessageExpiry; got != 1 {
		t.Errorf("message expiry: got %d s, want 1 s", got)
	}
	watch.silent()
}
