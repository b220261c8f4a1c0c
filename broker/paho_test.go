package broker_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// foreign is a connected Eclipse Paho client.
func (h *house) foreign(id imprint.CertificateID, name string, config paho.ClientConfig) *paho.Client {
	h.Helper()
	config.Conn = packets.NewThreadSafeConn(h.door(first, id, mqtt.V5).conn)
	c := paho.NewClient(config)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ack, err := c.Connect(ctx, &paho.Connect{ClientID: name, CleanStart: true, KeepAlive: 60})
	h.must(err)
	if ack.ReasonCode != 0 || ack.SessionPresent {
		h.Fatalf("CONNACK: got %d, session %t", ack.ReasonCode, ack.SessionPresent)
	}
	return c
}

func TestPahoClientsExchangeMessages(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	const messages = 500
	got := make(chan string, messages)
	sub := h.foreign(id, "sub", paho.ClientConfig{OnPublishReceived: []func(paho.PublishReceived) (bool, error){
		func(p paho.PublishReceived) (bool, error) {
			got <- p.Packet.Topic + " " + string(p.Packet.Payload)
			return true, nil
		},
	}})
	pub := h.foreign(id, "pub", paho.ClientConfig{})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	suback, err := sub.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "a/+", QoS: 1}}})
	h.must(err)
	if suback.Reasons[0] != 1 {
		t.Fatalf("SUBACK: got %d, want 1", suback.Reasons[0])
	}
	for i := range messages {
		_, err := pub.Publish(ctx, &paho.Publish{Topic: "a/b", QoS: byte(i % 2), Payload: []byte(fmt.Sprint(i))})
		h.must(err)
	}
	// Messages of one QoS keep their order [MQTT-4.6.0-5]; those with QoS 0 don't
	// wait for the client's window.
	next := [2]int{0, 1}
	for i := range messages {
		select {
		case m := <-got:
			var n int
			_, err := fmt.Sscanf(m, "a/b %d", &n)
			if err != nil || n != next[n%2] {
				t.Fatalf("got %q, want one of %v (%v)", m, next, err)
			}
			next[n%2] += 2
		case <-ctx.Done():
			t.Fatalf("message %d didn't come", i)
		}
	}
	_, err = sub.Unsubscribe(ctx, &paho.Unsubscribe{Topics: []string{"a/+"}})
	h.must(err)
	h.must(sub.Disconnect(&paho.Disconnect{}))
	h.must(pub.Disconnect(&paho.Disconnect{}))
}

func TestPahoHearsOfTakeover(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	reasons := make(chan byte, 1)
	h.foreign(id, "same", paho.ClientConfig{
		OnServerDisconnect: func(d *paho.Disconnect) { reasons <- d.ReasonCode },
	})
	c := h.foreign(id, "same", paho.ClientConfig{})
	if got := <-reasons; got != byte(mqtt.SessionTakenOver) {
		t.Errorf("got reason %#x, want 0x8e", got)
	}
	h.must(c.Disconnect(&paho.Disconnect{}))
}
