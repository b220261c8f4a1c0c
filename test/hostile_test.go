package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/google/go-cmp/cmp"
)

// tcp opens a socket to the device port from an address of its own.
func (s *server) tcp(t *testing.T, address string) net.Conn {
	t.Helper()
	dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", s.device())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// raw is a TLS connection of a device that writes bytes of the test's choice.
func (s *server) raw(t *testing.T, d *device, address string) net.Conn {
	t.Helper()
	conn, _, err := s.dialTLS(soon(t), t, d, dialing{from: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// untilClosed reads until the peer closes and gives what came.
func untilClosed(t *testing.T, conn net.Conn, limit time.Duration) []byte {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(limit))
	got, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the server didn't close the connection within %s", limit)
	}
	return got
}

func TestGarbageIsRefusedAndNothingIsRegistered(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := startServer(t)
	// The device could be provisioned: only its bytes are wrong.
	f := s.line(t, "Garbage")
	tests := []struct {
		name, step, code string
		plain            bool // without TLS
		bytes            []byte
	}{
		{"plain garbage before TLS", "tls", "NotTLS", true, []byte("\x00\x01\x02 this is no TLS hello at all")},
		{"HTTP before TLS", "tls", "NotTLS", true, []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		{"HTTP after TLS", "mqtt.connect", "ProtocolViolation", false, []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		{"PUBLISH before CONNECT", "mqtt.connect", "ProtocolViolation", false, []byte("\x30\x05\x00\x01a\x00\x00")},
		{"a remaining length without end", "mqtt.connect", "ProtocolViolation", false, []byte("\x10\xff\xff\xff\xff\xff")},
		{"CONNECT cut into its middle by rubbish", "mqtt.connect", "ProtocolViolation", false, []byte("\x10\x0c\x00\x04MQTT\x05\x02\x00\x3c\xff\xff")},
		{"MQTT 3.1", "mqtt.connect", "UnsupportedProtocolVersion", false, []byte("\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a")},
		{"MQTT 6", "mqtt.connect", "UnsupportedProtocolVersion", false, []byte("\x10\x0d\x00\x04MQTT\x06\x02\x00\x3c\x00\x01a")},
		{"oversized CONNECT, announced", "mqtt.connect", "PacketTooLarge", false, []byte("\x10\x80\x80\x80\x7f")},
		{"oversized CONNECT, sent", "mqtt.connect", "PacketTooLarge", false, append([]byte("\x10\x80\xe2\x09"), make([]byte, 160_000)...)},
	}
	before := s.registry(t)
	for n, tt := range tests {
		address := fmt.Sprintf("127.0.3.%d", n+1)
		t.Run(tt.name, func(t *testing.T) {
			var conn net.Conn
			who := []string{address}
			if tt.plain {
				conn = s.tcp(t, address)
			} else {
				d := f.device(t, fmt.Sprintf("garbage-%d", n), "P-256")
				conn = s.raw(t, d, address)
				// The certificate is known since the handshake.
				who = append(who, d.cert)
			}
			// The server may close before all is written.
			_, _ = conn.Write(tt.bytes)
			untilClosed(t, conn, 8*time.Second)
			for _, word := range who {
				checkRefused(t, s.awaitExplained(t, word, 1), tt.step, tt.code)
			}
		})
	}
	if diff := cmp.Diff(before, s.registry(t)); diff != "" {
		t.Errorf("the registry changed (-before +after):\n%s", diff)
	}
}

func TestSlowPeersLoseTheirPlace(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	// Room for six peers that aren't let in yet: those that dawdle must go for
	// an honest device to get in.
	const timeout = 2 * time.Second
	s := startServer(t, "--handshake-timeout", timeout.String(), "--connect-timeout", timeout.String(), "--max-handshakes", "6")
	f := s.line(t, "Slow")
	d := f.device(t, "slow-1", "P-256")
	tests := []struct {
		name, step, code string
		plain            bool
		drip             []byte // a byte now and then, for ever
	}{
		{"TCP and nothing", "tls", "HandshakeTimeout", true, nil},
		{"half a TLS record", "tls", "HandshakeTimeout", true, []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")},
		{"TLS and no CONNECT", "mqtt.connect", "ConnectTimeout", false, nil},
		{"TLS and CONNECT byte by byte", "mqtt.connect", "ConnectTimeout", false, []byte("\x10\x2e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x20")},
	}
	var wg sync.WaitGroup
	before := s.registry(t)
	for n, tt := range tests {
		address := fmt.Sprintf("127.0.4.%d", n+1)
		wg.Go(func() {
			var conn net.Conn
			if tt.plain {
				conn = s.tcp(t, address)
			} else {
				conn = s.raw(t, d, address)
			}
			began := time.Now()
			stop := make(chan struct{})
			defer close(stop)
			go drip(conn, tt.drip, timeout/4, stop)
			_ = conn.SetReadDeadline(began.Add(patience))
			_, err := io.Copy(io.Discard, conn)
			took := time.Since(began)
			if errors.Is(err, os.ErrDeadlineExceeded) || took > 2*timeout {
				t.Errorf("%s: the connection lived %s, want about %s", tt.name, took.Round(time.Millisecond), timeout)
			}
		})
	}
	wg.Wait()
	for n, tt := range tests {
		who := []string{fmt.Sprintf("127.0.4.%d", n+1)}
		if !tt.plain {
			who = append(who, d.cert)
		}
		for _, word := range who {
			checkRefused(t, s.awaitExplained(t, word, 1), tt.step, tt.code)
		}
	}
	if diff := cmp.Diff(before, s.registry(t)); diff != "" {
		t.Errorf("the registry changed (-before +after):\n%s", diff)
	}
	s.join5(t, d, dialing{})
}

// drip writes one byte an interval until the bytes, which are repeated at the
// last one, or the connection end.
func drip(conn net.Conn, bytes []byte, every time.Duration, stop <-chan struct{}) {
	if len(bytes) == 0 {
		return
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for n := 0; ; n++ {
		_, err := conn.Write(bytes[min(n, len(bytes)-1):][:1])
		if err != nil {
			return
		}
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
	}
}

func TestQoS2EndsTheConnectionAsAWSEndsIt(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := startServer(t)
	d := s.line(t, "QoS 2").device(t, "exact-1", "P-256")
	s.join(t, d)
	t.Run("PUBLISH, MQTT 3.1.1", func(t *testing.T) {
		run := s.publish(t, d, d.name, "d/exact-1/x", "-q", "2")
		if run.exit == 0 || run.connack != 0 || strings.Contains(run.all(), "received PUBREC") {
			t.Errorf("got exit code %d, CONNACK %d; want a close instead of PUBREC\n%s", run.exit, run.connack, run.all())
		}
		checkEnded(t, s.awaitExplained(t, d.name, 1), "QoSNotSupported")
	})
	t.Run("SUBSCRIBE, MQTT 3.1.1", func(t *testing.T) {
		sub := s.trySubscribe(t, d, d.name, []string{"-q", "2"}, "d/exact-1/x")
		sub.said.wait(t, "SUBSCRIBE", func(text string) bool { return strings.Contains(text, "sending SUBSCRIBE") })
		checkEnded(t, s.awaitExplained(t, d.name, 1), "QoSNotSupported")
		sub.kill()
	})
	t.Run("PUBLISH, MQTT 5", func(t *testing.T) {
		c := s.connect(t, d, d.name, dialing{})
		if max := c.connack.Properties.MaximumQoS; max == nil || *max != 1 {
			t.Errorf("CONNACK, Maximum QoS: got %v, want 1", max)
		}
		// Paho itself keeps to Maximum QoS; its codec doesn't.
		publish := packets.NewControlPacket(packets.PUBLISH)
		publish.Content = &packets.Publish{Topic: "d/exact-1/x", QoS: 2, PacketID: 7, Properties: &packets.Properties{}}
		publish.Flags = 2 << 1
		// In one piece: the server may close as soon as it has seen enough.
		var wire bytes.Buffer
		_, err := publish.WriteTo(&wire)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.conn.Write(wire.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if got := c.goodbye(t); got != 0x9b {
			t.Errorf("DISCONNECT: got %#x, want 0x9b", got)
		}
		checkEnded(t, s.awaitExplained(t, d.name, 1), "QoSNotSupported")
	})
	t.Run("SUBSCRIBE, MQTT 5", func(t *testing.T) {
		c := s.connect(t, d, d.name, dialing{})
		go func() {
			// It gets no SUBACK.
			_, _ = c.Subscribe(soon(t), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "d/exact-1/x", QoS: 2}}})
		}()
		if got := c.goodbye(t); got != 0x9b {
			t.Errorf("DISCONNECT: got %#x, want 0x9b", got)
		}
		checkEnded(t, s.awaitExplained(t, d.name, 1), "QoSNotSupported")
	})
	t.Run("will, MQTT 5", func(t *testing.T) {
		if got := s.refused(t, d, d.name, dialing{will: &paho.WillMessage{Topic: "d/exact-1/x", QoS: 2}}); got != 0x9b {
			t.Errorf("CONNACK: got %#x, want 0x9b", got)
		}
		checkRefused(t, s.awaitExplained(t, d.cert, 1), "mqtt.will", "QoSNotSupported")
	})
}
