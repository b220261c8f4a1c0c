package gateway_test

import (
	"crypto/tls"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint/mqtt"
)

// TestADeviceThatStillSendsHearsWhyItIsDisconnected has devices in the middle of sending a
// packet that is too large: each gets the DISCONNECT, and the end of TLS after it.
func TestADeviceThatStillSendsHearsWhyItIsDisconnected(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	device := w.device(t, home)
	packet := append([]byte("\x32\xc0\x84\x3d"), make([]byte, 1_000_000)...)
	for range 40 {
		conn := tls.Client(w.dial(t), client("localhost", device))
		_, err := conn.Write((&mqtt.Connect{ClientID: "device", CleanStart: true, KeepAlive: 600}).Append(nil, mqtt.V5))
		if err != nil {
			t.Fatal(err)
		}
		var sending sync.WaitGroup
		sending.Go(func() {
			_, err := conn.Write(packet)
			if err != nil {
				t.Errorf("couldn't send all of the packet: %v", err)
			}
		})
		rest, err := io.ReadAll(conn)
		sending.Wait()
		if err != nil {
			t.Errorf("got %v, want the end of TLS", err)
		}
		var got []mqtt.ReasonCode
		for len(rest) > 0 {
			header, _, err := mqtt.ParseFixedHeader(rest)
			if err != nil {
				t.Fatal(err)
			}
			p, body := mqtt.NewPacket(header.Type), rest[header.Size:header.Size+header.Remaining]
			rest = rest[header.Size+header.Remaining:]
			err = p.Decode(header, body, mqtt.V5)
			if err != nil {
				t.Fatal(err)
			}
			switch p := p.(type) {
			case *mqtt.Connack:
				got = append(got, p.Reason)
			case *mqtt.Disconnect:
				got = append(got, p.Reason)
			}
		}
		if !slices.Equal(got, []mqtt.ReasonCode{mqtt.Success, mqtt.PacketTooLarge}) {
			t.Errorf("got %v, want CONNACK, and a DISCONNECT as the packet is too large", got)
		}
		_ = conn.Close()
	}
}
