package broker_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// FuzzConnection sends any bytes after CONNECT. Whatever they are, the
// connection ends when the client hangs up, and nothing is kept of it.
func FuzzConnection(f *testing.F) {
	for _, v := range versions {
		var all []byte
		for _, p := range []mqtt.Packet{
			&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "a/+", QoS: 1}, {Filter: "$aws/events/#"}}},
			&mqtt.Publish{Topic: []byte("a/b"), QoS: 1, PacketID: 2, Payload: []byte("x")},
			&mqtt.Ack{Type: mqtt.TypePuback, PacketID: 1},
			&mqtt.Unsubscribe{PacketID: 3, Filters: []string{"a/+"}},
			&mqtt.Pingreq{}, &mqtt.Disconnect{},
		} {
			all = p.Append(all, v)
			f.Add(p.Append(nil, v), v == mqtt.V5)
		}
		f.Add(all, v == mqtt.V5)
	}
	f.Add([]byte{0x30, 0xff, 0xff, 0x07, 0, 1}, true)
	h := newHouse(f, broker.Options{})
	id := h.register(first, allowAll)
	f.Fuzz(func(t *testing.T, data []byte, five bool) {
		v := mqtt.V311
		if five {
			v = mqtt.V5
		}
		h.TB = t // inputs run one after the other
		defer func() { h.TB = f }()
		c := h.on(first, id, v, connectAs("dev"))
		c.write(data)
		_ = c.conn.(*net.TCPConn).CloseWrite()
		_ = c.conn.SetReadDeadline(time.Now().Add(patience))
		_, err := io.Copy(io.Discard, c.in)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the connection lives on after %x", data)
		}
		_ = c.conn.Close()
		h.eventually("the session is gone", func() bool { return h.broker.Counters().Connected == 0 })
	})
}
