package broker

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// will is a message that is due when the connection ends without a DISCONNECT. It
// was authorized at CONNECT.
type will struct {
	topic  string
	packet mqtt.Publish
	delay  time.Duration
}

func newWill(w *mqtt.Will) *will {
	packet := mqtt.Publish{QoS: w.QoS, Retain: w.Retain, Topic: []byte(w.Topic), Payload: bytes.Clone(w.Payload), Properties: w.Properties}
	packet.Properties.WillDelay = 0
	packet.Properties.Present &^= 1 << mqtt.PropWillDelay
	packet.Properties.CorrelationData = bytes.Clone(w.Properties.CorrelationData)
	return &will{topic: w.Topic, packet: packet, delay: time.Duration(w.Properties.WillDelay) * time.Second}
}

// encode gives the will as the store has it.
func (w *will) encode() []byte {
	packet := w.packet
	if packet.QoS > 0 {
		packet.PacketID = 1
	}
	return packet.Append(nil, mqtt.V5)
}

// decodeWill reads what encode gave.
func (b *Broker) decodeWill(raw []byte) (*will, error) {
	packet, err := decodeStored(raw)
	if err == nil {
		err = b.checkTopic(string(packet.Topic))
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't read a stored will: %w", err)
	}
	packet.PacketID = 0
	return &will{topic: string(packet.Topic), packet: *packet}, nil
}

// publishWill publishes a will; nobody waits for it.
func (b *Broker) publishWill(r *realm, w *will) {
	ctx := context.Background()
	packet := w.packet
	if packet.Retain {
		err := b.retain(ctx, r, w.topic, &packet)
		if err != nil {
			b.opts.Logger.Error("couldn't retain a will", "tenant", r.tenant.String(), "topic", w.topic, "code", imprint.CodeOf(err), "error", err)
		}
	}
	p, _ := b.route(ctx, routing{realm: r, now: b.clock()}, w.topic, &packet)
	if p != nil {
		b.ledger.post(b, p, nil)
	}
}
