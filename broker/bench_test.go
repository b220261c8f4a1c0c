package broker_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// BenchmarkPublish sends from one client to others over TCP on the loopback,
// policies enforced, with as many messages under way as the clients' windows
// allow.
func BenchmarkPublish(b *testing.B) {
	for _, qos := range []mqtt.QoS{0, 1} {
		for _, subscribers := range []int{1, 10} {
			b.Run(fmt.Sprintf("QoS=%d/1to%d", qos, subscribers), func(b *testing.B) { benchmark(b, qos, subscribers) })
		}
	}
}

func benchmark(b *testing.B, qos mqtt.QoS, subscribers int) {
	h := newHouse(b, broker.Options{MaxQueuedBytes: 64 << 20, MaxQueuedMessages: 1 << 20})
	id := h.register(first, allowAll)
	drained := make(chan error, subscribers+1)
	payload := make([]byte, 128)
	topic := "bench/topic"
	for i := range subscribers {
		sub := h.on(first, id, mqtt.V311, connectAs(fmt.Sprint("sub", i)))
		sub.subscribe(qos, topic)
		go func() { drained <- drain(sub.conn, b.N, mqtt.TypePublish) }()
	}
	pub := h.on(first, id, mqtt.V311, connectAs("pub"))
	message := &mqtt.Publish{Topic: []byte(topic), Payload: payload, QoS: qos, PacketID: 1}
	one := message.Append(nil, mqtt.V311)
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	b.ResetTimer()
	wanted := subscribers
	if qos == 1 {
		wanted++
		go func() { drained <- drain(pub.conn, b.N, mqtt.TypePuback) }()
	}
	out := bufio.NewWriterSize(pub.conn, 16<<10)
	for range b.N {
		_, err := out.Write(one)
		h.must(err)
	}
	h.must(out.Flush())
	for range wanted {
		h.must(<-drained)
	}
	b.StopTimer()
	if got := h.broker.Counters().PublishDropped; got != 0 {
		b.Errorf("%d messages were dropped", got)
	}
}

// A message on the heap would be the larger part of what one costs at QoS 0.
func TestAMessageOfQoS0CostsNoAllocation(t *testing.T) {
	result := testing.Benchmark(func(b *testing.B) { benchmark(b, 0, 1) })
	if result.N == 0 || result.AllocsPerOp() > raced {
		t.Errorf("%d messages took %d allocations each, want %d: %v", result.N, result.AllocsPerOp(), raced, result.MemString())
	}
}

// drain reads n packets of a type and acknowledges messages of QoS 1.
func drain(conn net.Conn, n int, t mqtt.PacketType) error {
	_ = conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
	in := bufio.NewReaderSize(conn, 64<<10)
	var acks []byte
	var body []byte
	for n > 0 {
		head, err := in.Peek(2)
		if err == nil && head[1] >= 0x80 {
			head, err = in.Peek(3)
		}
		if err != nil {
			return err
		}
		h, ok, err := mqtt.ParseFixedHeader(head)
		if err != nil || !ok {
			return fmt.Errorf("header %x: %w", head, err)
		}
		_, _ = in.Discard(h.Size)
		body = append(body[:0], make([]byte, h.Remaining)...)
		_, err = io.ReadFull(in, body)
		if err != nil {
			return err
		}
		if h.Type == t {
			n--
		}
		if h.Type == mqtt.TypePublish && h.Flags&0x06 != 0 {
			at := 2 + int(body[0])<<8 + int(body[1])
			acks = append(acks, 0x40, 2, body[at], body[at+1])
		}
		if len(acks) > 0 && (in.Buffered() == 0 || len(acks) > 8<<10) {
			_, err = conn.Write(acks)
			if err != nil {
				return err
			}
			acks = acks[:0]
		}
	}
	return nil
}
