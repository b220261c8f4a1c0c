package broker_test

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// lines is a log that can be looked at while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.buf.String(), text)
}

// TestRestoreGoesOnPastDamage ensures that rows that nobody can read are told and
// left out, and that all others are taken up.
func TestRestoreGoesOnPastDamage(t *testing.T) {
	t.Parallel()
	store := openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{})
	begin := newHouseOn(t, broker.Options{}, store)
	begin.update(func(tx imprint.Tx) error { return tx.PutTenantSettings(imprint.TenantSettings{Tenant: first}) })
	id := begin.register(first, allowAll)
	good := (&mqtt.Publish{Topic: []byte("a"), Payload: []byte("x"), QoS: 1, PacketID: 1}).Append(nil, mqtt.V5)
	session := func(name imprint.ClientID, key int64, level int, sent int64, will []byte, created time.Time) imprint.Session {
		return imprint.Session{Tenant: first, ClientID: name, Key: key, Level: level, Expiry: time.Hour, SentThrough: sent, Will: will, CreatedAt: created}
	}
	begin.update(func(tx imprint.Tx) error {
		now := begin.now()
		return errors.Join(well(tx, good),
			tx.PutQueued(imprint.QueuedMessage{Session: wellKey, Seq: 2, Packet: []byte{0x32, 1}}),
			tx.PutQueued(imprint.QueuedMessage{Session: wellKey, Seq: 3, Packet: []byte{0x30, 4, 0, 1, 'a', 0}}), // QoS 0
			tx.PutQueued(imprint.QueuedMessage{Session: wellKey, Seq: 4, Packet: good}),
			tx.PutQueued(imprint.QueuedMessage{Session: groupKey, Seq: 1, Packet: nil}),
			tx.PutQueued(imprint.QueuedMessage{Session: groupKey, Seq: 2, Packet: good}),
			tx.PutSessionSubscription(imprint.SessionSubscription{Session: wellKey, Filter: "b/#/c", QoS: 1}),
			tx.PutSession(session("level", 20, 3, 0, nil, now)),
			tx.PutSession(session("number", 21, 5, 1<<62, nil, now)),
			tx.PutSession(session("will", 22, 5, 0, []byte{1, 2, 3}, now)),
			tx.PutSession(session("twice", 23, 5, 0, nil, now)),
			tx.PutSession(session("twice", 24, 5, 0, nil, now.Add(-time.Minute))),
			tx.PutSessionSubscription(imprint.SessionSubscription{Session: 24, Filter: "old", QoS: 1}),
			tx.PutSessionSubscription(imprint.SessionSubscription{Session: 99, Filter: "nobody", QoS: 1}),
			tx.PutQueued(imprint.QueuedMessage{Session: 98, Seq: 1, Packet: good}),
			tx.PutRetained(imprint.RetainedMessage{Tenant: first, Topic: "bad", QoS: 1, Packet: []byte{9}, ModifiedAt: now}))
	})
	var log lines
	h := newHouseOn(t, broker.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, store)
	if got := h.broker.Counters().Stored; got != 3 {
		t.Errorf("sessions: got %d, want well, will and twice", got)
	}
	c := h.back(first, id, mqtt.V5, lasting(mqtt.V5, "well", 100))
	for range 3 { // two of its own, one of the group
		c.gets("a", "x", 1)
	}
	c.subscribe(1, "bad")
	c.silent()
	h.on(first, id, mqtt.V5, connectAs("pub")).published("old", "nobody's")
	h.back(first, id, mqtt.V5, lasting(mqtt.V5, "twice", 100)).silent()
	h.back(first, id, mqtt.V5, lasting(mqtt.V5, "will", 100))
	for _, name := range []imprint.ClientID{"level", "number"} {
		h.on(first, id, mqtt.V5, lasting(mqtt.V5, string(name), 100))
	}
	for _, want := range []string{
		"couldn't restore a session", "client=level", "client=number", "couldn't restore a will", "couldn't restore a subscription",
		"a message of a session's queue is dropped", "number=2", "number=3", "a message of a shared subscription's queue is dropped",
		"a retained message can't be sent",
	} {
		h.eventually("the log has "+want, func() bool { return log.has(want) })
	}
	h.must(store.View(t.Context(), func(tx imprint.ReadTx) error {
		rows, err := tx.SessionSubscriptions(20, "", 1000)
		queues, err2 := tx.QueueSizes(20, 1000)
		if len(rows)+len(queues) > 0 {
			t.Errorf("of nobody: got %v and %v, want nothing", rows, queues)
		}
		return errors.Join(err, err2)
	}))
}
