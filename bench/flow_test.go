package bench_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/bench"
	"github.com/imprint-iot/imprint/mqtt"
)

// relay is a broker between connected clients, every subscriber getting every
// message, which mangles what it hands on. Mangle is given the messages of all
// publishers, counted from 0, and gives the packets that go out for each.
type relay struct {
	mangle func(n int, p *mqtt.Publish) []mqtt.Publish
	noAck  bool // publishers get no PUBACK

	mu    sync.Mutex
	n     int
	to    []net.Conn
	ended sync.WaitGroup
}

// pair gives the two ends of a loopback connection.
func pair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	client, err = (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	return client, server
}

func (r *relay) start(t *testing.T, publishers, subscribers int) (from, to []net.Conn) {
	t.Helper()
	for range subscribers {
		client, server := pair(t)
		to = append(to, client)
		r.to = append(r.to, server)
		r.ended.Go(func() { _, _ = io.Copy(io.Discard, server) }) // PUBACKs
	}
	for range publishers {
		client, server := pair(t)
		from = append(from, client)
		r.ended.Go(func() { r.serve(server) })
	}
	t.Cleanup(func() {
		for _, conn := range append(from, to...) {
			_ = conn.Close()
		}
		r.ended.Wait()
	})
	return from, to
}

// serve ends with its connection.
func (r *relay) serve(conn net.Conn) {
	in := bufio.NewReader(conn)
	for {
		p, err := readPublish(in)
		if err != nil {
			return
		}
		r.forward(p)
		if p.QoS > 0 && !r.noAck {
			ack := mqtt.Ack{Type: mqtt.TypePuback, PacketID: p.PacketID}
			_, _ = conn.Write(ack.Append(nil, mqtt.V311))
		}
	}
}

func (r *relay) forward(p *mqtt.Publish) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []byte
	for _, each := range r.mangle(r.n, p) {
		out = each.Append(out, mqtt.V311)
	}
	r.n++
	for _, to := range r.to {
		_, _ = to.Write(out)
	}
}

func readPublish(in *bufio.Reader) (*mqtt.Publish, error) {
	var head []byte
	for {
		b, err := in.ReadByte()
		if err != nil {
			return nil, err
		}
		head = append(head, b)
		header, ok, err := mqtt.ParseFixedHeader(head)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		body := make([]byte, header.Remaining)
		_, err = io.ReadFull(in, body)
		if err != nil {
			return nil, err
		}
		p := &mqtt.Publish{}
		return p, p.Decode(header, body, mqtt.V311)
	}
}

func faithful(_ int, p *mqtt.Publish) []mqtt.Publish { return []mqtt.Publish{*p} }

const stall = 300 * time.Millisecond

func TestFloodsArriveWholeThroughAFaithfulRelay(t *testing.T) {
	t.Parallel()
	for _, qos := range []mqtt.QoS{0, 1} {
		for _, size := range []int{bench.MinPayload, 64, 40_000} {
			for _, many := range [][2]int{{1, 1}, {5, 1}, {1, 5}, {3, 4}} {
				r := &relay{mangle: faithful}
				from, to := r.start(t, many[0], many[1])
				const sent = 300
				got, err := bench.Flood(t.Context(), qos, size, from, to, sent, 10*time.Second)
				if err != nil || got != sent*uint64(many[1]) {
					t.Errorf("QoS %d, %d bytes, %v: got %d messages and %v, want %d", qos, size, many, got, err, sent*many[1])
				}
			}
		}
	}
}

func TestFloodsFailOnALossyRelay(t *testing.T) {
	t.Parallel()
	const last = 199
	var held []mqtt.Publish
	for name, test := range map[string]struct {
		mangle func(n int, p *mqtt.Publish) []mqtt.Publish
		want   string
	}{
		"one lost": {func(n int, p *mqtt.Publish) []mqtt.Publish {
			if n == 50 {
				return nil
			}
			return faithful(n, p)
		}, "1 were lost or overtaken"},
		"the last one lost": {func(n int, p *mqtt.Publish) []mqtt.Publish {
			if n == last {
				return nil
			}
			return faithful(n, p)
		}, "200 were sent to 1 subscribers, 199 came"},
		"one twice": {func(n int, p *mqtt.Publish) []mqtt.Publish {
			if n == 50 {
				return []mqtt.Publish{*p, *p}
			}
			return faithful(n, p)
		}, "came again, without DUP"},
		"two swapped": {func(n int, p *mqtt.Publish) []mqtt.Publish {
			switch n {
			case 50:
				held = []mqtt.Publish{*p}
				return nil
			case 51:
				return append([]mqtt.Publish{*p}, held...)
			}
			return faithful(n, p)
		}, "1 were lost or overtaken"},
		"one cut off": {func(n int, p *mqtt.Publish) []mqtt.Publish {
			p.Payload = p.Payload[:len(p.Payload)-n/50]
			return faithful(n, p)
		}, "its payload has 63 bytes, 64 were sent"},
		"one of a stranger": {func(n int, p *mqtt.Publish) []mqtt.Publish {
			if n == 50 {
				p.Payload = bytes.Repeat([]byte{0xff}, len(p.Payload))
			}
			return faithful(n, p)
		}, "publisher 4294967295"},
		"one with less QoS": {func(n int, p *mqtt.Publish) []mqtt.Publish {
			other := *p
			if n == 50 {
				other.QoS ^= 1
				other.PacketID = uint16(other.QoS)
			}
			return []mqtt.Publish{other}
		}, "one came with QoS"},
	} {
		for _, qos := range []mqtt.QoS{0, 1} {
			r := &relay{mangle: test.mangle}
			from, to := r.start(t, 1, 1)
			_, err := bench.Flood(t.Context(), qos, 64, from, to, last+1, stall)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s, QoS %d: got %v, want %q in it", name, qos, err, test.want)
			}
		}
	}
}

func TestFloodsTakeMarkedDuplicates(t *testing.T) {
	t.Parallel()
	r := &relay{mangle: func(_ int, p *mqtt.Publish) []mqtt.Publish {
		again := *p
		again.Dup = true
		return []mqtt.Publish{*p, again}
	}}
	from, to := r.start(t, 1, 1)
	got, err := bench.Flood(t.Context(), mqtt.QoS1, 64, from, to, 200, 10*time.Second)
	if err != nil || got != 200 {
		t.Errorf("got %d messages and %v, want 200", got, err)
	}
}

func TestFloodsFailWithoutAcknowledgements(t *testing.T) {
	t.Parallel()
	r := &relay{mangle: faithful, noAck: true}
	from, to := r.start(t, 1, 1)
	_, err := bench.Flood(t.Context(), mqtt.QoS1, 64, from, to, 100, stall)
	if err == nil || !strings.Contains(err.Error(), "0 were acknowledged") {
		t.Errorf("got %v, want that nothing was acknowledged", err)
	}
}

func TestFloodsEndWithTheirContextAndTheirServer(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	r := &relay{mangle: func(n int, p *mqtt.Publish) []mqtt.Publish {
		if n == 100 {
			cancel()
			return nil
		}
		return faithful(n, p)
	}}
	from, to := r.start(t, 1, 1)
	_, err := bench.Flood(ctx, mqtt.QoS0, 64, from, to, 1<<40, 10*time.Second)
	if err == nil || !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "lost or overtaken") {
		t.Errorf("cancelled: got %v, want the context's end", err)
	}
	r = &relay{}
	r.mangle = func(n int, p *mqtt.Publish) []mqtt.Publish {
		if n == 100 {
			_ = r.to[0].Close()
		}
		return faithful(n, p)
	}
	from, to = r.start(t, 1, 1)
	_, err = bench.Flood(t.Context(), mqtt.QoS0, 64, from, to, 1<<40, 10*time.Second)
	if err == nil || !strings.Contains(err.Error(), "a subscriber: couldn't read from the server") {
		t.Errorf("closed: got %v, want the subscriber's end", err)
	}
}

func TestPacedMessagesCountFromWhenTheyWereDue(t *testing.T) {
	t.Parallel()
	const delay = 50 * time.Millisecond
	r := &relay{mangle: func(n int, p *mqtt.Publish) []mqtt.Publish {
		if n == 10 {
			<-time.After(delay) // the server stands still
		}
		return faithful(n, p)
	}}
	from, to := r.start(t, 1, 1)
	took, err := bench.Pace(t.Context(), mqtt.QoS0, from[0], to[0], 1000, 100, 10*time.Second)
	if err != nil || len(took) != 100 {
		t.Fatalf("got %d samples and %v, want 100", len(took), err)
	}
	late := 0
	for n, d := range took {
		if d <= 0 {
			t.Errorf("message %d took %s, want more than nothing", n, d)
		}
		if d > delay/5 {
			late++
		}
	}
	// The message that met the halt, and those that were due during it.
	if late < 30 {
		t.Errorf("%d messages were late, want those that were due while the server stood still", late)
	}
}
