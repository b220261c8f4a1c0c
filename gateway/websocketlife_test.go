package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/gateway"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/mqtt"
)

// A WebSocket lives for a day, or as long as the credentials of its signature if that is
// shorter, however busy it is.
func TestAWebSocketLivesForADayOrAsLongAsItsCredentials(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name              string
		credentials, life time.Duration // 0: credentials without an end
	}{
		{"credentials without an end", 0, 24 * time.Hour},
		{"credentials of an hour", time.Hour, time.Hour},
		{"credentials of two days", 48 * time.Hour, 24 * time.Hour},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			var ahead atomic.Int64
			clock := func() time.Time { return began.Add(time.Duration(ahead.Load())) }
			known := operators(t)
			w := newWorld(t, settings{clock: clock, operators: func(r *http.Request) (gateway.Operator, error) {
				operator, err := known(r)
				if row.credentials > 0 {
					operator.Until = began.Add(row.credentials)
				}
				return operator, err
			}})
			ws, _, _, err := w.openSocket(t, presigned(t, "https://"+w.https), nil, "mqtt")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			conn := websocket.NetConn(ctx, ws, websocket.MessageBinary)
			say := func(p mqtt.Packet) {
				t.Helper()
				_, err := conn.Write(p.Append(nil, mqtt.V5))
				if err != nil {
					t.Fatal(err)
				}
			}
			say(&mqtt.Connect{ClientID: "a", CleanStart: true})
			if header, body := readPacket(t, conn); header.Type != mqtt.TypeConnack || body[1] != 0 {
				t.Fatalf("got %s % x, want an accepting CONNACK", header.Type, body)
			}
			ahead.Store(int64(row.life - time.Second))
			for range 2 { // the second answer comes when the first look at the clock is over
				say(&mqtt.Pingreq{})
				if header, body := readPacket(t, conn); header.Type != mqtt.TypePingresp {
					t.Fatalf("a second before the end: got %s % x, want PINGRESP", header.Type, body)
				}
			}
			ahead.Store(int64(row.life))
			say(&mqtt.Pingreq{})
			header, body := readPacket(t, conn)
			if header.Type == mqtt.TypePingresp {
				header, body = readPacket(t, conn)
			}
			if header.Type != mqtt.TypeDisconnect || mqtt.ReasonCode(body[0]) != mqtt.MaximumConnectTime {
				t.Errorf("at the end: got %s % x, want a DISCONNECT for the maximum connect time", header.Type, body)
			}
		})
	}
}

// TestAnIdleWebSocketEndsWithItsKey ensures that one which neither sends nor gets anything
// ends when the access key that opened it is gone, with the reason of a refusal, and that
// one stays whose key is still there, or can't be read: that is tried again.
func TestAnIdleWebSocketEndsWithItsKey(t *testing.T) {
	t.Parallel()
	known := operators(t)
	var changes atomic.Uint64
	var gone, broken atomic.Bool
	tried := make(chan struct{}, 2)
	w := newWorld(t, settings{operators: func(r *http.Request) (gateway.Operator, error) {
		operator, err := known(r)
		operator.Changes, operator.Seen = &changes, changes.Load()
		operator.Renew = func(context.Context) (identity.Operator, error) {
			if broken.Load() {
				select {
				case tried <- struct{}{}:
				default:
				}
				return identity.Operator{}, imprint.Errorf(imprint.CodeUnavailable, "the registry can't be read")
			}
			if gone.Load() {
				return identity.Operator{}, imprint.Errorf(imprint.CodeAccessDenied, "the access key was deleted")
			}
			renewed := operator.Operator
			renewed.Seen = changes.Load()
			return renewed, nil
		}
		return operator, err
	}})
	events := w.subscribe(t, client("localhost", w.device(t, home)), "$aws/events/presence/disconnected/idle")
	ws, _, _, err := w.openSocket(t, presigned(t, "https://"+w.https), nil, "mqtt")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn := websocket.NetConn(ctx, ws, websocket.MessageBinary)
	say := func(p mqtt.Packet, want mqtt.PacketType) {
		t.Helper()
		_, err := conn.Write(p.Append(nil, mqtt.V5))
		if err != nil {
			t.Fatal(err)
		}
		if header, body := readPacket(t, conn); header.Type != want {
			t.Fatalf("got %s % x, want %s", header.Type, body, want)
		}
	}
	say(&mqtt.Connect{ClientID: "idle", CleanStart: true}, mqtt.TypeConnack)
	change := func() {
		changes.Add(1)
		w.broker.OperatorsChanged()
	}
	change()
	say(&mqtt.Pingreq{}, mqtt.TypePingresp)
	broken.Store(true)
	change()
	for range cap(tried) {
		select {
		case <-tried:
		case <-ctx.Done():
			t.Fatal("the key isn't looked up again")
		}
	}
	say(&mqtt.Pingreq{}, mqtt.TypePingresp)
	gone.Store(true)
	broken.Store(false)
	if header, body := readPacket(t, conn); header.Type != mqtt.TypeDisconnect || body[0] != byte(mqtt.NotAuthorized) {
		t.Errorf("got %s % x, want DISCONNECT, not authorized", header.Type, body)
	}
	if got := receive(t, events); !strings.Contains(got.Payload, `"disconnectReason":"AUTH_ERROR"`) {
		t.Errorf("got the event %s, want AUTH_ERROR", got.Payload)
	}
}

// TestWebSocketsShareNoCertificate ensures that operators, who have none, aren't taken for
// devices that have one together.
func TestWebSocketsShareNoCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{operators: operators(t)})
	for _, name := range []string{"one", "two"} {
		ws, _, _, err := w.openSocket(t, presigned(t, "https://"+w.https), nil, "mqtt")
		if err != nil {
			t.Fatal(err)
		}
		conn := websocket.NetConn(t.Context(), ws, websocket.MessageBinary)
		_, err = conn.Write((&mqtt.Connect{ClientID: name, CleanStart: true}).Append(nil, mqtt.V5))
		if err != nil {
			t.Fatal(err)
		}
		if header, body := readPacket(t, conn); header.Type != mqtt.TypeConnack || body[1] != 0 {
			t.Fatalf("got %s % x, want an accepting CONNACK", header.Type, body)
		}
	}
	if got := w.broker.Sharing(home, 10, 10); len(got) > 0 {
		t.Errorf("got %+v, want no clients that share a certificate", got)
	}
}
