package broker_test

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// narrow makes the kernel keep little for a client that doesn't read.
func (c *client) narrow() {
	c.Helper()
	c.must(c.conn.(*net.TCPConn).SetReadBuffer(4 << 10))
}

// TestStuckSubscriberSlowsNobody has a subscriber that stops reading, beside one
// that reads: with QoS 0 its messages are dropped, with QoS 1 it is ended.
func TestStuckSubscriberSlowsNobody(t *testing.T) {
	t.Parallel()
	for qos := range mqtt.QoS(2) {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, broker.Options{MaxQueuedBytes: 256 << 10, MaxInflight: 10000})
			id := h.register(first, allowAll)
			stuck := h.on(first, id, mqtt.V5, connectAs("stuck"))
			stuck.narrow()
			stuck.subscribe(qos, "a")
			well := h.on(first, id, mqtt.V5, connectAs("well"))
			well.subscribe(1, "a")
			pub := h.on(first, id, mqtt.V5, connectAs("pub"))
			payload := strings.Repeat("x", 64<<10)
			// As much as the sockets' buffers may hold, and more.
			for range 200 {
				pub.published("a", payload)
				well.gets("a", payload, 1)
			}
			got := h.broker.Counters()
			if got.PublishDropped == 0 {
				t.Errorf("nothing was dropped: %+v", got)
			}
			if qos == 0 {
				if got.SlowConsumers != 0 || got.Connected != 3 {
					t.Errorf("got %+v, want the subscriber kept at QoS 0", got)
				}
				return
			}
			h.eventually("the stuck subscriber is ended", func() bool { return h.broker.Counters().Connected == 2 })
			if got := h.broker.Counters().SlowConsumers; got != 1 {
				t.Errorf("slow consumers: got %d, want 1", got)
			}
			stuck.ended(imprint.CodeSlowConsumer)
		})
	}
}

func TestClientsThatNeverAcknowledgeAreEndedAtTheBound(t *testing.T) {
	bothVersions(t, broker.Options{MaxInflight: 2, MaxQueuedMessages: 5}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		sub := h.on(first, id, v, connectAs("sub"))
		sub.subscribe(1, "a")
		pub := h.on(first, id, v, connectAs("pub"))
		for range 8 {
			pub.published("a", "x")
		}
		expect[*mqtt.Publish](sub)
		expect[*mqtt.Publish](sub)
		sub.told(mqtt.QuotaExceeded)
		sub.ended(imprint.CodeSlowConsumer)
		if got := h.broker.Counters(); got.SlowConsumers != 1 || got.PublishDropped != 1 {
			h.Errorf("got %+v, want one slow consumer, one dropped", got)
		}
	})
}

func TestWaitingMessagesAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{MaxInflight: 1, MaxQueuedBytes: 100 << 10})
	id := h.register(first, allowAll)
	sub := h.on(first, id, mqtt.V5, connectAs("sub"))
	sub.subscribe(1, "a")
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	for range 5 {
		pub.published("a", strings.Repeat("x", 40<<10))
	}
	sub.ended(imprint.CodeSlowConsumer)
}

// TestAnswersThatNobodyReadsAreBounded floods the server with pings while a
// writer is stuck in the client's socket.
func TestAnswersThatNobodyReadsAreBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{MaxQueuedBytes: 4 << 10})
	id := h.register(first, allowAll)
	c := h.on(first, id, mqtt.V5, connectAs("flood"))
	c.narrow()
	c.subscribe(0, "a")
	pub := h.on(first, id, mqtt.V5, connectAs("pub"))
	for range 200 { // fills the sockets' buffers
		pub.published("a", strings.Repeat("x", 64<<10))
	}
	var pings []byte
	for range 32 << 10 {
		pings = (&mqtt.Pingreq{}).Append(pings, mqtt.V5)
	}
	for range 4 {
		c.write(pings)
	}
	c.ended(imprint.CodeSlowConsumer)
}

func TestIdleSessionsAreOneGoroutineAndLittleMemory(t *testing.T) {
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	const sessions = 200
	before := runtime.NumGoroutine()
	var start, end runtime.MemStats
	runtime.GC()
	runtime.GC() // pools forget what they hold at the second
	runtime.ReadMemStats(&start)
	clients := make([]*client, sessions)
	for i := range clients {
		clients[i] = h.on(first, id, versions[i%2], connectAs(fmt.Sprint("dev", i)))
		clients[i].subscribe(1, fmt.Sprint("a/", i))
		clients[i].published1(fmt.Sprint("a/", i), strings.Repeat("x", 20<<10))
		clients[i].gets(fmt.Sprint("a/", i), strings.Repeat("x", 20<<10), 1)
		clients[i].silent()
		clients[i].in = nil
	}
	h.must(h.log.Flush(t.Context()))
	h.eventually("writers are gone", func() bool { return runtime.NumGoroutine() <= before+sessions })
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&end)
	each := (int64(end.HeapAlloc) - int64(start.HeapAlloc)) / sessions
	t.Logf("%d bytes of heap per idle session, with the test's own client", each)
	// A kept read or write buffer alone would be 16 KiB or more.
	if each > 16<<10 {
		t.Errorf("an idle session and its client cost %d bytes of heap, want at most 16 KiB", each)
	}
}

// TestTakeoverOfAStuckConnection ends a connection whose writer is blocked in
// the client's socket, without the new one having to wait for it.
func TestTakeoverOfAStuckConnection(t *testing.T) {
	bothVersions(t, broker.Options{MaxQueuedBytes: 64 << 10}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		stuck := h.on(first, id, v, connectAs("same"))
		stuck.narrow()
		stuck.subscribe(0, "a")
		pub := h.on(first, id, v, connectAs("pub"))
		for range 200 {
			pub.published("a", strings.Repeat("x", 64<<10))
		}
		if h.broker.Counters().PublishDropped == 0 {
			h.Fatal("the connection isn't stuck")
		}
		fresh := h.on(first, id, v, connectAs("same"))
		fresh.subscribe(1, "a")
		pub.published("a", "still here")
		fresh.gets("a", "still here", 1)
		stuck.ended(imprint.CodeTakenOver)
	})
}

func TestAcknowledgementsComeInOrder(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		c := h.on(first, h.register(first, allowAll), v, connectAs("dev"))
		var all []mqtt.Packet
		for i := range 100 {
			all = append(all, &mqtt.Publish{Topic: []byte("a"), QoS: 1, PacketID: uint16(i*7 + 1), Payload: make([]byte, i*10)})
		}
		c.send(all...)
		for i := range 100 {
			if got := expect[*mqtt.Ack](c).PacketID; got != uint16(i*7+1) {
				h.Fatalf("PUBACK %d: got id %d, want %d", i, got, i*7+1)
			}
		}
	})
}
