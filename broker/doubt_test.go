package broker_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// readStore tells of every reading of a queue that has found messages, before the
// reader hears of it.
type readStore struct {
	imprint.Store
	read func(rows []imprint.QueuedMessage)
}

type readTx struct {
	imprint.ReadTx
	rows []imprint.QueuedMessage
}

func (tx *readTx) Queued(session, after int64, limit int, maxBytes int64) ([]imprint.QueuedMessage, error) {
	rows, err := tx.ReadTx.Queued(session, after, limit, maxBytes)
	tx.rows = append(tx.rows, rows...)
	return rows, err
}

func (s *readStore) View(ctx context.Context, fn func(imprint.ReadTx) error) error {
	var found readTx
	err := s.Store.View(ctx, func(tx imprint.ReadTx) error {
		found.ReadTx = tx
		return fn(&found)
	})
	if len(found.rows) > 0 {
		s.read(found.rows)
	}
	return err
}

// TestAMessageWhoseMoveIsUnclearIsReadAgain has a group's queue read while one of its
// messages is being moved to a member's queue, by a commit that is reported to fail:
// what was read before that isn't handed out a second time.
func TestAMessageWhoseMoveIsUnclearIsReadAgain(t *testing.T) {
	t.Parallel()
	const large = "large enough to be too large for the small member, which takes packets of sixty bytes"
	var armed atomic.Bool
	committing, commit := make(chan struct{}), make(chan struct{})
	faults := sqlite.Faults{
		BeforeCommit: func() error {
			if armed.Load() {
				close(committing)
				<-commit
			}
			return nil
		},
		AfterCommit: func() error {
			if armed.CompareAndSwap(true, false) {
				return errors.New("the disk is away for a moment")
			}
			return nil
		},
	}
	var asked, moving, blocked atomic.Bool
	var h *house
	again, goOn := make(chan struct{}), make(chan struct{})
	letGo := sync.OnceFunc(func() { close(goOn) })
	store := &readStore{Store: openStore(t, filepath.Join(t.TempDir(), "registry.db"), faults)}
	store.read = func(rows []imprint.QueuedMessage) {
		switch {
		case len(rows) == 2 && moving.Load() && blocked.CompareAndSwap(false, true):
			close(again)
			<-goOn
		case len(rows[len(rows)-1].Packet) < len(large):
		case h.broker.Counters().Connects < 4:
			asked.Store(true)
		case moving.CompareAndSwap(false, true): // the stored member is back and gets it
			_ = h.log.Flush(context.Background())
			armed.Store(true)
		}
	}
	h = newHouseOn(t, broker.Options{}, store)
	t.Cleanup(letGo)
	id := h.register(first, allowAll)
	h.keeper(id, mqtt.V5, "t")
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	pub.published("t", "small")
	connect := connectAs("small")
	connect.Properties.MaximumPacketSize = 60
	connect.Properties.Mark(mqtt.PropMaximumPacketSize)
	small := h.on(first, id, mqtt.V5, connect)
	small.subscribe(1, sharedMessage+"t")
	expect[*mqtt.Publish](small)
	pub.published("t", large)
	h.eventually("the small member was asked", asked.Load)

	keeper := h.back(first, id, mqtt.V5, lasting(mqtt.V5, "keepert", 1000))
	<-committing
	_ = small.conn.Close() // its message goes back to the group
	<-again
	close(commit)
	got := map[string]int{}
	take := func() {
		p := expect[*mqtt.Publish](keeper)
		got[string(p.Payload)]++
		keeper.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: p.PacketID})
	}
	take()
	letGo()
	take()
	h.eventually("nothing is counted", func() bool { n, _ := h.broker.Groups(first); return n == 0 })
	keeper.silent()
	if want := fmt.Sprint(map[string]int{"small": 1, large: 1}); fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestAWillThatWasTakenBackStaysSo has the store fail while a client with a stored
// session and a will disconnects: the will isn't there when the server starts again.
func TestAWillThatWasTakenBackStaysSo(t *testing.T) {
	t.Parallel()
	fails := &failingStore{}
	store := openStore(t, filepath.Join(t.TempDir(), "registry.db"), fails.faults())
	h := newHouseOn(t, broker.Options{}, store)
	id := h.register(first, allowAll)
	c := h.on(first, id, mqtt.V5, willed("dev", "w", 60, 1000))
	c.subscribe(1, "a")
	other := h.on(first, id, mqtt.V5, lasting(mqtt.V5, "other", 1000))
	h.must(h.log.Flush(t.Context()))
	fails.mode.Store(1)
	c.goodbye()
	h.eventually("the client is gone", func() bool { return h.broker.Counters().Connected == 1 })
	other.send(&mqtt.Subscribe{PacketID: 3, Filters: []mqtt.Subscription{{Filter: "new", QoS: 1}}})
	other.fails() // and what came before it
	fails.mode.Store(0)
	h.must(h.broker.Shutdown(t.Context()))
	h.must(store.View(t.Context(), func(tx imprint.ReadTx) error {
		rows, err := tx.Sessions(0, 10)
		for _, row := range rows {
			if row.ClientID == "dev" && (len(row.Will) > 0 || row.ExpiresAt.IsZero()) {
				t.Errorf("the store has a will of %d bytes, and the end of the session at %s", len(row.Will), row.ExpiresAt)
			}
		}
		return err
	}))
}
