package storetest

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// sessionsOf is everything that a server lists when it starts, by pages of one
// size.
type sessionsOf struct {
	Sessions      []imprint.Session
	Subscriptions []imprint.SessionSubscription
	Groups        []imprint.ShareGroup
	Queues        []imprint.QueueSize
}

// rowsPage calls list until a page is short, each time from what next gives for
// the last row.
func rowsPage[T any](limit int, list func() ([]T, error), next func(T)) ([]T, error) {
	var rows []T
	for {
		page, err := list()
		rows = append(rows, page...)
		if err != nil || len(page) < limit {
			return rows, err
		}
		if len(page) > limit {
			return rows, fmt.Errorf("a page of %d has %d rows", limit, len(page))
		}
		next(page[len(page)-1])
	}
}

func readSessions(tx imprint.ReadTx, limit int) (sessionsOf, error) {
	var all sessionsOf
	var err error
	after, filter := int64(0), ""
	all.Sessions, err = rowsPage(limit, func() ([]imprint.Session, error) { return tx.Sessions(after, limit) },
		func(s imprint.Session) { after = s.Key })
	if err != nil {
		return all, err
	}
	after = 0
	all.Subscriptions, err = rowsPage(limit, func() ([]imprint.SessionSubscription, error) {
		return tx.SessionSubscriptions(after, filter, limit)
	}, func(s imprint.SessionSubscription) { after, filter = s.Session, s.Filter })
	if err != nil {
		return all, err
	}
	after = 0
	all.Groups, err = rowsPage(limit, func() ([]imprint.ShareGroup, error) { return tx.ShareGroups(after, limit) },
		func(g imprint.ShareGroup) { after = g.Key })
	if err != nil {
		return all, err
	}
	after = 0
	all.Queues, err = rowsPage(limit, func() ([]imprint.QueueSize, error) { return tx.QueueSizes(after, limit) },
		func(q imprint.QueueSize) { after = q.Session })
	return all, err
}

// checkSessions compares what is listed by pages of several sizes.
func checkSessions(t *testing.T, store imprint.Store, what string, want sessionsOf) {
	t.Helper()
	view(t, store, func(tx imprint.ReadTx) error {
		for _, limit := range []int{1, 2, 3, 100} {
			got, err := readSessions(tx, limit)
			if err != nil {
				return err
			}
			same(t, fmt.Sprintf("%s, by pages of %d,", what, limit), got, want)
		}
		return nil
	})
}

// Keys have all sizes; the order is of numbers.
const (
	firstKey  = int64(1)
	secondKey = int64(1) << 40
	lastKey   = int64(math.MaxInt64)
)

func fullSession(tenant imprint.Tenant, key int64) imprint.Session {
	return imprint.Session{Tenant: tenant, ClientID: unusual, Key: key, Level: 5, Expiry: (1<<32 - 2) * time.Second,
		ExpiresAt: instant.Add(time.Hour), SentThrough: 1 << 50, Will: allBytes(300), WillAt: instant.Add(time.Minute), WillDelay: 90 * time.Second, CreatedAt: instant}
}

// allBytes gives a packet with every byte in it.
func allBytes(size int) []byte {
	packet := make([]byte, size)
	for i := range packet {
		packet[i] = byte(i ^ i>>8)
	}
	return packet
}

func message(session, seq int64, size int) imprint.QueuedMessage {
	return imprint.QueuedMessage{Session: session, Seq: seq, Packet: append([]byte{byte(seq)}, allBytes(size)...)[:size]}
}

// testSessions puts sessions of one client id in two tenants, with what belongs
// to them, and lists all.
func testSessions(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	checkSessions(t, store, "nothing", sessionsOf{})
	bare := imprint.Session{Tenant: there, ClientID: unusual, Key: secondKey}
	want := sessionsOf{
		Sessions: []imprint.Session{fullSession(here, firstKey), bare, fullSession(other, lastKey)},
		Subscriptions: []imprint.SessionSubscription{
			{Session: firstKey, Filter: "#"}, {Session: firstKey, Filter: "a/+/" + unusual, QoS: 1, Options: 0x0c},
			{Session: secondKey, Filter: "#", QoS: 1}, {Session: lastKey, Filter: "$share/g/#", Options: 0x08}},
		Groups: []imprint.ShareGroup{
			{Tenant: here, Filter: "$share/g/#", Key: 2}, {Tenant: there, Filter: "$share/g/#", Key: secondKey + 1},
			{Tenant: here, Filter: "$share/" + unusual + "/+", Key: lastKey - 1}},
		Queues: []imprint.QueueSize{
			{Session: firstKey, Messages: 3, Bytes: 128<<10 + 200, LastSeq: 1 << 40}, {Session: 2, Messages: 1, Bytes: 1, LastSeq: 1},
			{Session: lastKey, Messages: 1, LastSeq: math.MaxInt64}},
	}
	update(t, store, func(tx imprint.Tx) error {
		err := putQueued(tx, []imprint.QueuedMessage{message(firstKey, 1<<40, 100), message(firstKey, 2, 128<<10),
			message(firstKey, 3, 100), message(2, 1, 1), {Session: lastKey, Seq: math.MaxInt64}})
		if err != nil {
			return err
		}
		return putSessions(tx, want)
	})
	checkSessions(t, store, "all", want)

	// Each put replaces the whole row.
	want.Sessions = []imprint.Session{{Tenant: here, ClientID: unusual, Key: firstKey}, fullSession(there, secondKey), fullSession(other, lastKey)}
	want.Sessions[1].Level, want.Sessions[1].ExpiresAt = 4, time.Time{}
	want.Subscriptions[0].QoS, want.Subscriptions[0].Options = 1, 0x04
	want.Subscriptions[1].QoS, want.Subscriptions[1].Options = 0, 0
	want.Groups[0].Tenant, want.Groups[0].Filter = other, "$share/h/a"
	update(t, store, func(tx imprint.Tx) error { return putSessions(tx, want) })
	checkSessions(t, store, "all after a second put", want)
	view(t, store, func(tx imprint.ReadTx) error {
		for _, limit := range []int{0, -1} {
			got, err := readSessionsOnce(tx, limit)
			same(t, fmt.Sprintf("pages of %d", limit), got, sessionsOf{})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func readSessionsOnce(tx imprint.ReadTx, limit int) (all sessionsOf, err error) {
	all.Sessions, err = tx.Sessions(0, limit)
	if err != nil {
		return all, err
	}
	all.Subscriptions, err = tx.SessionSubscriptions(0, "", limit)
	if err != nil {
		return all, err
	}
	all.Groups, err = tx.ShareGroups(0, limit)
	if err != nil {
		return all, err
	}
	all.Queues, err = tx.QueueSizes(0, limit)
	return all, err
}

// putSessions puts all but the queues, last rows first.
func putSessions(tx imprint.Tx, all sessionsOf) error {
	for _, s := range slices.Backward(all.Sessions) {
		err := tx.PutSession(s)
		if err != nil {
			return err
		}
	}
	for _, s := range slices.Backward(all.Subscriptions) {
		err := tx.PutSessionSubscription(s)
		if err != nil {
			return err
		}
	}
	for _, g := range slices.Backward(all.Groups) {
		err := tx.PutShareGroup(g)
		if err != nil {
			return err
		}
	}
	return nil
}

// testSessionDeletes ensures that what belongs to a key goes with it, and
// nothing of its neighbours.
func testSessionDeletes(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	var all sessionsOf
	for key := int64(1); key <= 6; key++ {
		if key%2 == 0 {
			all.Groups = append(all.Groups, imprint.ShareGroup{Tenant: here, Filter: "$share/g/a", Key: key})
		} else {
			all.Sessions = append(all.Sessions, imprint.Session{Tenant: here, ClientID: "c", Key: key, Level: 4})
			all.Subscriptions = append(all.Subscriptions, imprint.SessionSubscription{Session: key, Filter: "a"},
				imprint.SessionSubscription{Session: key, Filter: "b"})
		}
		all.Queues = append(all.Queues, imprint.QueueSize{Session: key, Messages: 2, Bytes: 20, LastSeq: 2})
	}
	update(t, store, func(tx imprint.Tx) error {
		for key := int64(1); key <= 6; key++ {
			err := putQueued(tx, []imprint.QueuedMessage{message(key, 1, 10), message(key, 2, 10)})
			if err != nil {
				return err
			}
		}
		return putSessions(tx, all)
	})
	for range 2 {
		update(t, store, steps(func(tx imprint.Tx) error { return tx.DeleteSession(3) },
			func(tx imprint.Tx) error { return tx.DeleteShareGroup(4) },
			func(tx imprint.Tx) error { return tx.DeleteSessionSubscription(5, "a") },
			func(tx imprint.Tx) error { return tx.DeleteSessionSubscription(5, "absent") },
			func(tx imprint.Tx) error { return tx.DeleteQueued(6, 2) },
			func(tx imprint.Tx) error { return tx.DeleteQueued(6, 3) }))
	}
	all.Sessions = slices.Delete(all.Sessions, 1, 2)
	all.Subscriptions = slices.Delete(all.Subscriptions, 2, 5)
	all.Groups = slices.Delete(all.Groups, 1, 2)
	all.Queues = slices.Delete(all.Queues, 2, 4)
	all.Queues[3] = imprint.QueueSize{Session: 6, Messages: 1, Bytes: 10, LastSeq: 1}
	checkSessions(t, store, "what is left", all)
}

// testQueues ensures the order, the bounds and the batches of a queue.
func testQueues(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	const key = secondKey
	var want, shared []imprint.QueuedMessage
	for n := range int64(9) {
		m := message(key, 1+n*n*1000, 10)
		if n == 4 {
			m = message(key, m.Seq, 128<<10)
		}
		if n%2 == 0 {
			m.ExpiresAt = instant.Add(time.Duration(n) * time.Hour)
		}
		if n%3 == 0 {
			m.Group = lastKey
			shared = append(shared, m)
		}
		want = append(want, m)
	}
	neighbours := []imprint.QueuedMessage{message(key-1, 1<<60, 10), message(key+1, 1, 10)}
	update(t, store, func(tx imprint.Tx) error {
		return putQueued(tx, slices.Concat(neighbours, want[5:], want[:5]))
	})
	for _, c := range []struct {
		name     string
		after    int64
		limit    int
		maxBytes int64
		want     []imprint.QueuedMessage
	}{
		{"all", 0, 100, 1 << 30, want},
		{"as many as there are", 0, 9, 1 << 30, want},
		{"a page", 0, 2, 1 << 30, want[:2]},
		{"from after a number", want[2].Seq, 2, 1 << 30, want[3:5]},
		{"from between two", want[2].Seq + 1, 1, 1 << 30, want[3:4]},
		{"from before one", want[2].Seq - 1, 1, 1 << 30, want[2:3]},
		{"from the last", want[8].Seq, 100, 1 << 30, nil},
		{"bytes of exactly two", 0, 100, 20, want[:2]},
		{"bytes that the third completes", 0, 100, 21, want[:3]},
		{"one that has more than the bytes", want[3].Seq, 100, 1, want[4:5]},
		{"no bytes give one", 0, 100, 0, want[:1]},
		{"no messages", 0, 0, 1 << 30, nil},
		{"fewer than none", 0, -1, 1 << 30, nil},
	} {
		same(t, c.name, queued(t, store, key, c.after, c.limit, c.maxBytes), c.want)
	}
	same(t, "what groups have chosen the session for", queuedShared(t, store, key, 0, 100, 1<<30), shared)
	same(t, "a page of that", queuedShared(t, store, key, shared[0].Seq, 1, 1<<30), shared[1:2])
	same(t, "bytes of that", queuedShared(t, store, key, 0, 100, 15), shared[:2])
	same(t, "none of that", queuedShared(t, store, key, 0, 0, 1<<30), []imprint.QueuedMessage(nil))
	same(t, "what no group has chosen", queuedShared(t, store, key+1, 0, 100, 1<<30), []imprint.QueuedMessage(nil))
	want[4].Packet, want[4].ExpiresAt = nil, time.Time{}
	want[5].Packet, want[5].ExpiresAt = allBytes(128<<10), instant
	update(t, store, func(tx imprint.Tx) error { return putQueued(tx, want[4:6]) })
	same(t, "all after a second put", queued(t, store, key, 0, 100, 1<<30), want)
	update(t, store, func(tx imprint.Tx) error { return tx.DeleteQueued(key, want[5].Seq) })
	same(t, "all after a delete", queued(t, store, key, 0, 100, 1<<30), slices.Delete(want, 5, 6))
	for _, m := range neighbours {
		same(t, "another queue", queued(t, store, m.Session, 0, 100, 1<<30), []imprint.QueuedMessage{m})
	}
}

func putQueued(tx imprint.Tx, messages []imprint.QueuedMessage) error {
	for _, m := range messages {
		err := tx.PutQueued(m)
		if err != nil {
			return err
		}
	}
	return nil
}

func queuedShared(t *testing.T, store imprint.Store, session, after int64, limit int, maxBytes int64) []imprint.QueuedMessage {
	t.Helper()
	var messages []imprint.QueuedMessage
	view(t, store, func(tx imprint.ReadTx) error {
		var err error
		messages, err = tx.QueuedShared(session, after, limit, maxBytes)
		return err
	})
	return messages
}

func queued(t *testing.T, store imprint.Store, session, after int64, limit int, maxBytes int64) []imprint.QueuedMessage {
	t.Helper()
	var messages []imprint.QueuedMessage
	view(t, store, func(tx imprint.ReadTx) error {
		var err error
		messages, err = tx.Queued(session, after, limit, maxBytes)
		return err
	})
	return messages
}

// testQueueBatches deletes batches of every size around those that an
// engine may have statements for.
func testQueueBatches(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	for _, count := range []int{0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 64, 65, 150, 1000} {
		key := int64(count + 1)
		var all, odd []imprint.QueuedMessage
		var even []int64
		for seq := range int64(count) {
			m := message(key, seq+1, int(seq%50))
			if len(m.Packet) == 0 {
				m.Packet = nil
			}
			all = append(all, m)
			if seq%2 == 0 {
				even = append(even, m.Seq)
			} else {
				odd = append(odd, m)
			}
		}
		backwards := slices.Clone(all)
		slices.Reverse(backwards)
		update(t, store, func(tx imprint.Tx) error { return putQueued(tx, backwards) })
		same(t, fmt.Sprintf("a batch of %d", count), queued(t, store, key, 0, 10_000, 1<<30), all)
		update(t, store, func(tx imprint.Tx) error { return tx.DeleteQueuedAll(key, append(even, 1<<40, 1)) })
		same(t, fmt.Sprintf("what is left of %d", count), queued(t, store, key, 0, 10_000, 1<<30), odd)
	}
	same(t, "the queue of another batch", len(queued(t, store, 1001, 0, 10_000, 1<<30)), 500)
}

// testRetained reads lists without packets and single messages with them.
func testRetained(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	topic := "a/" + unusual
	full := func(tenant imprint.Tenant) imprint.RetainedMessage {
		return imprint.RetainedMessage{Tenant: tenant, Topic: topic, QoS: 1, Packet: allBytes(128 << 10), PayloadSize: 128<<10 - 20,
			ModifiedAt: instant, ExpiresAt: instant.Add(time.Hour)}
	}
	update(t, store, steps(func(tx imprint.Tx) error { return tx.PutRetained(full(here)) },
		func(tx imprint.Tx) error { return tx.PutRetained(full(there)) }))
	view(t, store, func(tx imprint.ReadTx) error {
		listed, next, err := tx.RetainedMessages(here, imprint.Page{Limit: 10})
		want := full(here)
		want.Packet = nil
		same(t, "the list", listed, []imprint.RetainedMessage{want})
		same(t, "its cursor", next, "")
		if err != nil {
			return err
		}
		got, err := tx.Retained(there, topic)
		if !bytes.Equal(got.Packet, full(there).Packet) {
			t.Errorf("the packet of %d bytes came back with %d", len(full(there).Packet), len(got.Packet))
		}
		return err
	})
}

// sessionCalls are what a broker does in one transaction.
func sessionCalls() []call {
	session := imprint.Session{Tenant: here, ClientID: "c", Key: 1, Level: 5, CreatedAt: instant}
	group := imprint.ShareGroup{Tenant: here, Filter: "$share/g/#", Key: 2}
	batch := []imprint.QueuedMessage{message(1, 3, 128<<10), message(1, 4, 10), message(2, 1, 10), message(2, 2, 10), message(1, 5, 10)}
	subscribe := steps(func(tx imprint.Tx) error { return tx.PutSession(session) },
		func(tx imprint.Tx) error {
			return tx.PutSessionSubscription(imprint.SessionSubscription{Session: 1, Filter: "a"})
		},
		func(tx imprint.Tx) error { return tx.PutShareGroup(group) })
	enqueue := steps(func(tx imprint.Tx) error { return tx.PutQueued(message(1, 1, 10)) },
		func(tx imprint.Tx) error { return tx.PutQueued(message(1, 2, 10)) },
		func(tx imprint.Tx) error { return putQueued(tx, batch) })
	retain := func(qos byte) func(imprint.Tx) error {
		return func(tx imprint.Tx) error {
			return tx.PutRetained(imprint.RetainedMessage{Tenant: here, Topic: "t", QoS: qos, Packet: []byte{qos}, ModifiedAt: instant})
		}
	}
	everything := steps(subscribe, enqueue, retain(0))
	return []call{
		{"a session with a subscription and a group", func(imprint.Tx) error { return nil }, subscribe, sessionState, true},
		{"queueing messages", subscribe, enqueue, sessionState, true},
		{"acknowledged messages", everything, steps(
			func(tx imprint.Tx) error { return tx.DeleteQueued(1, 1) },
			func(tx imprint.Tx) error { return tx.DeleteQueuedAll(1, []int64{2, 3, 5}) },
			func(tx imprint.Tx) error {
				session := session
				session.SentThrough = 5
				return tx.PutSession(session)
			}), sessionState, true},
		{"a message from a group to a member", everything, steps(
			func(tx imprint.Tx) error { return tx.DeleteQueued(2, 1) },
			func(tx imprint.Tx) error { return tx.PutQueued(message(1, 6, 10)) }), sessionState, true},
		{"a retained message and its copies", everything, steps(retain(1),
			func(tx imprint.Tx) error { return tx.PutQueued(message(1, 6, 10)) }), sessionState, true},
		{"deleting a retained message", everything, func(tx imprint.Tx) error { return tx.DeleteRetained(here, "t") }, sessionState, true},
		{"deleting a session", everything, func(tx imprint.Tx) error { return tx.DeleteSession(1) }, sessionState, true},
		{"deleting a group", everything, steps(func(tx imprint.Tx) error { return tx.DeleteShareGroup(2) },
			func(tx imprint.Tx) error { return tx.DeleteSessionSubscription(1, "a") }), sessionState, true},
	}
}

func sessionState(tx imprint.ReadTx) string {
	all, err := readSessions(tx, 100)
	var seqs []int64
	for _, key := range []int64{1, 2} {
		messages, queuedErr := tx.Queued(key, 0, 100, 1<<30)
		for _, m := range messages {
			seqs = append(seqs, m.Seq, int64(len(m.Packet)))
		}
		if queuedErr != nil {
			err = queuedErr
		}
	}
	m, retainedErr := tx.Retained(here, "t")
	return fmt.Sprint(all, seqs, err, m, imprint.CodeOf(retainedErr))
}
