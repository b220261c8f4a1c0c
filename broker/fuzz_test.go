package broker_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// fuzzPackets are what the seeds are made of: plays of a session, of retained
// messages, and of shared subscriptions.
func fuzzPackets() [][]mqtt.Packet {
	publish := func(topic, payload string, id uint16, retain bool) *mqtt.Publish {
		p := &mqtt.Publish{Topic: []byte(topic), Payload: []byte(payload), PacketID: id, Retain: retain}
		p.QoS = mqtt.QoS(min(id, 1))
		return p
	}
	subscribe := func(filters ...mqtt.Subscription) *mqtt.Subscribe {
		return &mqtt.Subscribe{PacketID: 1, Filters: filters}
	}
	ack := func(id uint16) *mqtt.Ack { return &mqtt.Ack{Type: mqtt.TypePuback, PacketID: id} }
	return [][]mqtt.Packet{
		{
			subscribe(mqtt.Subscription{Filter: "a/+", QoS: 1}, mqtt.Subscription{Filter: "$aws/events/#"}), publish("a/b", "x", 2, false), ack(1),
			&mqtt.Unsubscribe{PacketID: 3, Filters: []string{"a/+"}}, &mqtt.Pingreq{}, &mqtt.Disconnect{},
		},
		{
			subscribe(mqtt.Subscription{Filter: "a", QoS: 1}, mqtt.Subscription{Filter: "#"}), publish("a", "1", 1, false), publish("a", "2", 2, false),
			publish("a", "3", 0, false), ack(2), ack(1), ack(7), &mqtt.Unsubscribe{PacketID: 3, Filters: []string{"a", "none"}},
		},
		{
			publish("r", "kept", 1, true), subscribe(mqtt.Subscription{Filter: "r", QoS: 1}), publish("r", "again", 0, true), ack(1),
			publish("r", "", 2, true), subscribe(mqtt.Subscription{Filter: "r"}, mqtt.Subscription{Filter: "+", QoS: 1}),
		},
		{
			subscribe(mqtt.Subscription{Filter: "$share/g/s", QoS: 1}, mqtt.Subscription{Filter: "$share/h/+"}), publish("s", "1", 1, false),
			publish("s", "2", 0, false), ack(1), subscribe(mqtt.Subscription{Filter: "$share/g/s"}), &mqtt.Unsubscribe{PacketID: 4, Filters: []string{"$share/g/s"}},
			publish("s", "3", 3, false),
		},
	}
}

// FuzzConnection sends any bytes after CONNECT. Whatever they are, the
// connection ends when the client hangs up; a stored session is there then, or has
// ended as it was asked to, and nothing else is kept of it.
func FuzzConnection(f *testing.F) {
	for _, v := range versions {
		for _, play := range fuzzPackets() {
			var all []byte
			for _, p := range play {
				all = p.Append(all, v)
				f.Add(p.Append(nil, v), v == mqtt.V5, false)
			}
			f.Add(all, v == mqtt.V5, false)
			f.Add(all, v == mqtt.V5, true)
		}
	}
	f.Add([]byte{0x30, 0xff, 0xff, 0x07, 0, 1}, true, false)
	h := newHouse(f, broker.Options{})
	id := h.register(first, allowAll)
	f.Fuzz(func(t *testing.T, data []byte, five, stored bool) {
		v := mqtt.V311
		if five {
			v = mqtt.V5
		}
		h.TB = t // inputs run one after the other
		defer func() { h.TB = f }()
		connect := connectAs("dev")
		if stored {
			connect = lasting(v, "dev", 100)
		}
		h.on(first, id, v, connect).hangUp(data)
		if !stored {
			return
		}
		present := h.broker.Counters().Stored == 1
		h.onWith(first, id, v, connect, present).hangUp((&mqtt.Pingreq{}).Append(nil, v))
		h.on(first, id, v, connectAs("dev")).hangUp(nil)
		if got := h.broker.Counters().Stored; got != 0 {
			t.Errorf("stored sessions: got %d, want none", got)
		}
	})
}

// hangUp sends bytes, reads all that comes, and waits for the end.
func (c *client) hangUp(data []byte) {
	c.Helper()
	c.write(data)
	_ = c.conn.(*net.TCPConn).CloseWrite()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, c.in)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.Fatalf("the connection lives on after %x", data)
	}
	_ = c.conn.Close()
	c.eventually("the connection is gone", func() bool { return c.broker.Counters().Connected == 0 })
}

// FuzzRestore has a store with any rows beside those of a session that is well.
// That session is restored, whatever the others are, and clients can work.
func FuzzRestore(f *testing.F) {
	good := (&mqtt.Publish{Topic: []byte("a"), Payload: []byte("x"), QoS: 1, PacketID: 1}).Append(nil, mqtt.V5)
	now := time.Now().UnixMilli()
	f.Add(good, "a", int64(5), int64(100_000), now+100_000, int64(0), int64(1), byte(1), byte(0), good, int64(3))
	f.Add(good, "$share/g/a", int64(4), int64(1<<62), int64(0), int64(1<<62), int64(1<<63-1), byte(1), byte(12), []byte{}, int64(3))
	f.Add(good[:5], "a/#/b", int64(77), int64(-1), int64(1<<63-1), int64(-1), int64(-1), byte(2), byte(255), good[:4], int64(-3))
	f.Add([]byte{0x30, 3, 0, 1, 'a'}, "", int64(261), int64(1), now, int64(1<<63-1), int64(0), byte(1), byte(0), []byte{0x34, 0xff}, int64(1<<63-1))
	f.Add([]byte{0x32, 5, 0, 0, 0, 1, 0}, "#", int64(5), int64(1000), now+1000, int64(5), int64(5), byte(1), byte(4), []byte{0x31, 4, 0, 1, '$', 0}, int64(3))
	store, err := sqlite.Open(f.Context(), sqlite.Options{Path: f.TempDir() + "/registry.db", Sealer: sealer{}, Logger: quiet()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = store.Close() })
	begin := newHouseOn(f, broker.Options{}, store)
	begin.update(func(tx imprint.Tx) error { return tx.PutTenantSettings(imprint.TenantSettings{Tenant: first}) })
	id := begin.register(first, allowAll)
	f.Fuzz(func(t *testing.T, packet []byte, filter string, level, expiry, expires, sent, seq int64, qos, options byte, will []byte, key int64) {
		if key == wellKey || key == groupKey {
			key++
		}
		begin.TB = t
		defer func() { begin.TB = f }()
		begin.empty()
		begin.update(func(tx imprint.Tx) error {
			return errors.Join(well(tx, good),
				tx.PutSession(imprint.Session{
					Tenant: first, ClientID: "dev", Key: key, Level: int(level), Expiry: time.Duration(expiry), ExpiresAt: time.UnixMilli(expires),
					SentThrough: sent, Will: will, WillAt: time.UnixMilli(expires), CreatedAt: time.UnixMilli(sent),
				}),
				tx.PutSessionSubscription(imprint.SessionSubscription{Session: key, Filter: filter, QoS: qos, Options: options}),
				tx.PutQueued(imprint.QueuedMessage{Session: key, Seq: seq, Packet: packet}),
				tx.PutQueued(imprint.QueuedMessage{Session: groupKey, Seq: seq, Packet: packet}),
				tx.PutQueued(imprint.QueuedMessage{Session: key + 20, Seq: seq, Packet: packet, ExpiresAt: time.UnixMilli(expires)}),
				tx.PutRetained(imprint.RetainedMessage{Tenant: first, Topic: filter, QoS: qos, Packet: packet}))
		})
		h := newHouseOn(t, broker.Options{}, store)
		for _, v := range versions {
			c := h.door(first, id, v)
			c.send(lasting(v, "dev", 100), &mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: filter, QoS: 1}}})
			c.publish(1, 1, "a", "new")
			c.hangUp(nil)
		}
		c := h.back(first, id, mqtt.V5, lasting(mqtt.V5, "well", 100))
		for {
			got := expect[*mqtt.Publish](c)
			if string(got.Payload) == "x" && string(got.Topic) == "a" {
				break // the group's may come before
			}
		}
		c.hangUp(nil)
	})
}

const wellKey, groupKey = 7, 8

// well is a session with a message, a subscription and a share.
func well(tx imprint.Tx, packet []byte) error {
	return errors.Join(
		tx.PutSession(imprint.Session{Tenant: first, ClientID: "well", Key: wellKey, Level: 5, Expiry: time.Hour}),
		tx.PutSessionSubscription(imprint.SessionSubscription{Session: wellKey, Filter: "a", QoS: 1}),
		tx.PutSessionSubscription(imprint.SessionSubscription{Session: wellKey, Filter: "$share/g/a", QoS: 1}),
		tx.PutShareGroup(imprint.ShareGroup{Tenant: first, Filter: "$share/g/a", Key: groupKey}),
		tx.PutQueued(imprint.QueuedMessage{Session: wellKey, Seq: 1, Packet: packet}))
}

// empty deletes all rows of the broker.
func (h *house) empty() {
	h.Helper()
	h.update(func(tx imprint.Tx) error {
		const lowest = -1 << 63
		sessions, err := tx.Sessions(lowest, 1000)
		queues, err2 := tx.QueueSizes(lowest, 1000)
		groups, err3 := tx.ShareGroups(lowest, 1000)
		subscriptions, err4 := tx.SessionSubscriptions(lowest, "", 1000)
		err = errors.Join(err, err2, err3, err4)
		for _, s := range sessions {
			err = errors.Join(err, tx.DeleteSession(s.Key))
		}
		for _, q := range queues {
			err = errors.Join(err, tx.DeleteSession(q.Session))
		}
		for _, s := range subscriptions {
			err = errors.Join(err, tx.DeleteSession(s.Session))
		}
		for _, g := range groups {
			err = errors.Join(err, tx.DeleteShareGroup(g.Key))
		}
		retained, _, err5 := tx.RetainedMessages(first, imprint.Page{Limit: 1000, Ascending: true})
		for _, m := range retained {
			err = errors.Join(err, tx.DeleteRetained(first, m.Topic))
		}
		return errors.Join(err, err5)
	})
}
