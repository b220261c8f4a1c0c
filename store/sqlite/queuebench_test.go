package sqlite_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// messageSize is of a packet with a small JSON payload.
const messageSize = 200

func benchMessage(session, seq int64, packet []byte) imprint.QueuedMessage {
	return imprint.QueuedMessage{Session: session, Seq: seq, Packet: packet}
}

// benchKeys gives session keys as the broker makes them: random.
func benchKeys(count int) []int64 {
	keys := make([]int64, count)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range keys {
		keys[i] = random.Int64()
	}
	return keys
}

func mustUpdate(b *testing.B, store imprint.Store, fn func(imprint.Tx) error) {
	b.Helper()
	err := store.Update(context.Background(), fn)
	if err != nil {
		b.Fatalf("Update: %v", err)
	}
}

func mustView(b *testing.B, store imprint.Store, fn func(imprint.ReadTx) error) {
	b.Helper()
	err := store.View(context.Background(), fn)
	if err != nil {
		b.Fatalf("View: %v", err)
	}
}

func perMessage(b *testing.B, messages int) {
	b.ReportMetric(float64(messages)/b.Elapsed().Seconds(), "messages/s")
}

// BenchmarkQueuePut puts batches, each in one Update, into the queues of
// several sessions in turn.
func BenchmarkQueuePut(b *testing.B) {
	for _, c := range []struct{ batch, sessions, size int }{
		{1, 1000, messageSize}, {256, 1, messageSize}, {256, 1000, messageSize}, {256, 100_000, messageSize}, {512, 1000, messageSize}, {4096, 1000, messageSize},
		{256, 1000, 4096}, {64, 1000, 128 << 10},
	} {
		b.Run(fmt.Sprintf("batch=%d/sessions=%d/bytes=%d", c.batch, c.sessions, c.size), func(b *testing.B) {
			store := benchStore(b, 0)
			keys, packet := benchKeys(c.sessions), make([]byte, c.size)
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				mustUpdate(b, store, func(tx imprint.Tx) error {
					for i := range c.batch {
						err := tx.PutQueued(benchMessage(keys[(n+i)%len(keys)], int64(n+i)+1, packet))
						if err != nil {
							return err
						}
					}
					return nil
				})
				n += c.batch
			}
			perMessage(b, n)
		})
	}
}

// fillQueues puts depth messages into each queue.
func fillQueues(b *testing.B, store imprint.Store, keys []int64, from, depth int64, size int) {
	b.Helper()
	packet := make([]byte, size)
	for start := 0; start < len(keys); start += 1000 {
		mustUpdate(b, store, func(tx imprint.Tx) error {
			for _, key := range keys[start:min(start+1000, len(keys))] {
				for seq := from; seq < from+depth; seq++ {
					err := tx.PutQueued(benchMessage(key, seq, packet))
					if err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
}

func seqs(from, count int64) []int64 {
	all := make([]int64, count)
	for i := range all {
		all[i] = from + int64(i)
	}
	return all
}

// BenchmarkQueueAck deletes what is acknowledged, 256 in one Update: of one
// session as a batch, of many one by one.
func BenchmarkQueueAck(b *testing.B) {
	for _, sessions := range []int{1, 1000} {
		b.Run(fmt.Sprintf("sessions=%d", sessions), func(b *testing.B) {
			store := benchStore(b, 0)
			keys := benchKeys(sessions)
			const filled = 1 << 18
			n, left := 0, 0
			for b.Loop() {
				if left == 0 {
					b.StopTimer()
					fillQueues(b, store, keys, int64(n/sessions)+1, int64(filled/sessions), messageSize)
					left = filled / sessions * sessions / 256
					b.StartTimer()
				}
				mustUpdate(b, store, func(tx imprint.Tx) error {
					if sessions == 1 {
						return tx.DeleteQueuedAll(keys[0], seqs(int64(n)+1, 256))
					}
					for i := range 256 {
						err := tx.DeleteQueued(keys[(n+i)%sessions], int64((n+i)/sessions)+1)
						if err != nil {
							return err
						}
					}
					return nil
				})
				n += 256
				left--
			}
			perMessage(b, n)
		})
	}
}

// BenchmarkQueueSteady puts 256 messages and deletes 256 older ones in one
// Update.
func BenchmarkQueueSteady(b *testing.B) {
	store := benchStore(b, 0)
	keys, packet := benchKeys(1000), make([]byte, messageSize)
	n := 0
	for b.Loop() {
		mustUpdate(b, store, func(tx imprint.Tx) error {
			for i := range 256 {
				err := tx.PutQueued(benchMessage(keys[(n+i)%len(keys)], int64(n+i)+1, packet))
				if err != nil {
					return err
				}
				err = tx.DeleteQueued(keys[(n+i)%len(keys)], int64(n+i)+1-10*int64(len(keys)))
				if err != nil {
					return err
				}
			}
			return nil
		})
		n += 256
	}
	perMessage(b, n)
}

// BenchmarkQueueClosures has 64 publishers with one message in one Update each.
func BenchmarkQueueClosures(b *testing.B) {
	keys, packet := benchKeys(1000), make([]byte, messageSize)
	parallel(b, benchStore(b, 0), func(tx imprint.Tx, n int64) error {
		return tx.PutQueued(benchMessage(keys[n%int64(len(keys))], n, packet))
	})
}

// BenchmarkQueueCompany has 64 writers with 512 messages in each Update: what
// a long closure costs in a transaction that others have begun.
func BenchmarkQueueCompany(b *testing.B) {
	keys, packet := benchKeys(1000), make([]byte, messageSize)
	parallel(b, benchStore(b, 0), func(tx imprint.Tx, n int64) error {
		for i := range int64(512) {
			err := tx.PutQueued(benchMessage(keys[i], n, packet))
			if err != nil {
				return err
			}
		}
		return nil
	})
	perMessage(b, 512*b.N)
}

// BenchmarkQueueDrain reads queues of 10,000 messages by pages of 100.
func BenchmarkQueueDrain(b *testing.B) {
	for _, size := range []int{messageSize, 4096} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			store := benchStore(b, 0)
			key := benchKeys(1)[0]
			const depth = 10_000
			fillQueues(b, store, []int64{key}, 1, depth, size)
			after, n := int64(0), 0
			b.ReportAllocs()
			for b.Loop() {
				mustView(b, store, func(tx imprint.ReadTx) error {
					messages, err := tx.Queued(key, after, 100, 1<<20)
					n += len(messages)
					after = (after + int64(len(messages))) % depth
					return err
				})
			}
			perMessage(b, n)
		})
	}
}

// BenchmarkSessionsAtStart lists all that a server reads when it starts.
func BenchmarkSessionsAtStart(b *testing.B) {
	const count = 100_000
	store := benchStore(b, 0)
	keys := benchKeys(count)
	fillSessions(b, store, keys)
	fillQueues(b, store, keys, 1, 1, messageSize)
	for _, part := range []struct {
		name string
		list func(imprint.ReadTx) (int, error)
	}{
		{"sessions", listSessions}, {"subscriptions", listSubscriptions}, {"queues", listQueues},
	} {
		b.Run(part.name, func(b *testing.B) {
			for b.Loop() {
				mustView(b, store, func(tx imprint.ReadTx) error {
					got, err := part.list(tx)
					if got != count {
						b.Fatalf("got %d of %d", got, count)
					}
					return err
				})
			}
		})
	}
}

func fillSessions(b *testing.B, store *sqlite.Store, keys []int64) {
	b.Helper()
	created := time.UnixMilli(1_700_000_000_000)
	for start := 0; start < len(keys); start += 1000 {
		mustUpdate(b, store, func(tx imprint.Tx) error {
			for i, key := range keys[start:min(start+1000, len(keys))] {
				err := tx.PutSession(imprint.Session{Tenant: tenant, ClientID: imprint.ClientID(fmt.Sprintf("device-%08d", start+i)),
					Key: key, Level: 5, Expiry: time.Hour, ExpiresAt: created, CreatedAt: created})
				if err != nil {
					return err
				}
				err = tx.PutSessionSubscription(imprint.SessionSubscription{Session: key,
					Filter: fmt.Sprintf("devices/device-%08d/commands/#", start+i), QoS: 1})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func listSessions(tx imprint.ReadTx) (int, error) {
	after, count := int64(0), 0
	for {
		page, err := tx.Sessions(after, 1000)
		count += len(page)
		if err != nil || len(page) == 0 {
			return count, err
		}
		after = page[len(page)-1].Key
	}
}

func listSubscriptions(tx imprint.ReadTx) (int, error) {
	session, filter, count := int64(0), "", 0
	for {
		page, err := tx.SessionSubscriptions(session, filter, 1000)
		count += len(page)
		if err != nil || len(page) == 0 {
			return count, err
		}
		session, filter = page[len(page)-1].Session, page[len(page)-1].Filter
	}
}

func listQueues(tx imprint.ReadTx) (int, error) {
	after, count := int64(0), 0
	for {
		page, err := tx.QueueSizes(after, 1000)
		count += len(page)
		if err != nil || len(page) == 0 {
			return count, err
		}
		after = page[len(page)-1].Session
	}
}
