package gateway_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// TestAPingWhileAMessageIsSentSlowlyIsAnsweredAfterIt has a client take nothing for
// longer than the WebSocket library waits with the answer to its ping, and less long than
// the broker lets it.
func TestAPingWhileAMessageIsSentSlowlyIsAnsweredAfterIt(t *testing.T) {
	t.Parallel()
	const messages, size, longer = 200, 120 << 10, 6 * time.Second
	w := newWorld(t, settings{operators: operators(t), broker: broker.Options{MaxQueuedBytes: 2 * messages * size, PublishRate: -1, ThroughputRate: -1}})
	ws, below, _, err := w.openSocket(t, presigned(t, "https://"+w.https), nil, "mqtt")
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(1 << 20)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn := websocket.NetConn(ctx, ws, websocket.MessageBinary)
	hello := (&mqtt.Connect{ClientID: "slow", CleanStart: true}).Append(nil, mqtt.V5)
	_, err = conn.Write((&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "much"}}}).Append(hello, mqtt.V5))
	if err != nil {
		t.Fatal(err)
	}
	readPacket(t, conn)
	readPacket(t, conn)
	publisher, accepted, err := w.connect(t, client("localhost", w.device(t, home)))
	if err != nil || !accepted {
		t.Fatalf("CONNECT: accepted %t, %v", accepted, err)
	}
	much := (&mqtt.Publish{Topic: []byte("much"), Payload: make([]byte, size)}).Append(nil, mqtt.V311)
	_, err = publisher.Write((&mqtt.Pingreq{}).Append(bytes.Repeat(much, messages), mqtt.V311))
	if err != nil {
		t.Fatal(err)
	}
	readPacket(t, publisher) // more waits for the subscriber than sockets take
	pings := make(chan error, 3)
	for range cap(pings) {
		go func() { pings <- ws.Ping(ctx) }()
	}
	select {
	case <-time.After(longer):
	case err := <-pings:
		t.Fatalf("a ping ended before anybody read: %v", err)
	}
	for n := range messages {
		if header, _ := readPacket(t, conn); header.Type != mqtt.TypePublish {
			t.Fatalf("message %d: got a %s", n, header.Type)
		}
	}
	// The last ping is answered; those before it needn't be.
	if err := <-pings; err != nil {
		t.Errorf("ping: %v", err)
	}
	if a := w.attempt(t, below); a.Outcome != imprint.OutcomeConnected {
		t.Errorf("the connection is over: %s, %+v", a.Code, a.Steps[len(a.Steps)-1])
	}
}

// TestAPingThatNeverEndsIsNoKeepAlive ensures that the trace doesn't take a part of a
// control frame for silence.
func TestAPingThatNeverEndsIsNoKeepAlive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{operators: operators(t)})
	conn, in := w.rawSocket(t)
	noMask := []byte{0, 0, 0, 0}
	frame := func(first byte, whole int, part []byte) []byte {
		return append(append([]byte{first, 0x80 | byte(whole)}, noMask...), part...)
	}
	_, err := conn.Write(append(frame(0x82, len(connectPacket), connectPacket), frame(0x89, 4, []byte("pin"))...))
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, in) // CONNACK, and the end
	if err != nil {
		t.Fatal(err)
	}
	a := w.attempt(t, conn)
	for a.EndedAt.IsZero() && t.Context().Err() == nil {
		a = w.attempt(t, conn)
	}
	if a.Code != imprint.CodeConnectionLost {
		t.Errorf("got %s, %+v", a.Code, a.Steps[len(a.Steps)-1])
	}
}

// TestEveryPingIsAnsweredAmongMessages ensures that none is forgotten that comes while, or
// just after, a message is sent.
func TestEveryPingIsAnsweredAmongMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{operators: operators(t), broker: broker.Options{PublishRate: -1, ThroughputRate: -1}})
	ws, _, _, err := w.openSocket(t, presigned(t, "https://"+w.https), nil, "mqtt")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn := websocket.NetConn(ctx, ws, websocket.MessageBinary)
	hello := (&mqtt.Connect{ClientID: "busy", CleanStart: true}).Append(nil, mqtt.V5)
	_, err = conn.Write((&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "much"}}}).Append(hello, mqtt.V5))
	if err != nil {
		t.Fatal(err)
	}
	readPacket(t, conn)
	readPacket(t, conn)
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	publisher, accepted, err := w.connect(t, client("localhost", w.device(t, home)))
	if err != nil || !accepted {
		t.Fatalf("CONNECT: accepted %t, %v", accepted, err)
	}
	message := (&mqtt.Publish{Topic: []byte("much"), Payload: []byte("x")}).Append(nil, mqtt.V311)
	for n := range 500 {
		_, err := publisher.Write(message)
		if err == nil {
			err = ws.Ping(ctx) // there is no later message that it could be sent with
		}
		if err != nil {
			t.Fatalf("ping %d isn't answered: %v", n, err)
		}
	}
}
