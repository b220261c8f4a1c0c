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
	// since is when the connection ended, of a will that waits: its message expiry
	// counts from then, as on AWS IoT Core. Zero: it is published at once.
	since time.Time
	// Who left it, as topic rules see it. Of a will that a server has restored the
	// principal isn't known.
	clientID  imprint.ClientID
	principal string
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

// decodeWill reads what encode gave for a client.
func (b *Broker) decodeWill(raw []byte, id imprint.ClientID) (*will, error) {
	packet, err := decodeStored(raw)
	if err == nil {
		err = b.checkTopic(string(packet.Topic))
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't read a stored will: %w", err)
	}
	packet.PacketID = 0
	return &will{topic: string(packet.Topic), packet: *packet, clientID: id}, nil
}

// waited is how long a will has waited.
func (w *will) waited(now time.Time) time.Duration {
	if w.since.IsZero() {
		return 0
	}
	return max(0, now.Sub(w.since))
}

// willExpired tells that a will has waited longer than its message lives.
func (b *Broker) willExpired(w *will, now time.Time) bool {
	p := &w.packet.Properties
	return p.Has(mqtt.PropMessageExpiry) && w.waited(now) >= b.expiryOf(p)
}

// publishWill publishes a will, unless it has expired; nobody waits for it. It is called
// with no lock held, as it may wait for the store to catch up.
func (b *Broker) publishWill(r *realm, w *will) {
	now := b.clock()
	if !w.packet.Retain || b.willExpired(w, now) {
		b.sendWill(r, w)
		return
	}
	c, t, err := b.retention(r, w.topic, &w.packet, w.waited(now))
	if err != nil {
		// It is only delivered. Whoever connects with such wills may do so for ever:
		// that is a figure, not a line in the log for each.
		b.count.refuse(imprint.CodeOf(err))
		b.opts.Logger.Debug("couldn't retain a will", "tenant", r.tenant.String(), "topic", w.topic, "code", imprint.CodeOf(err), "error", err)
		b.sendWill(r, w)
		return
	}
	kept := c.done
	c.done = func(err error) {
		kept(err)
		// Routing may read the registry, for which the ledger doesn't wait.
		started := b.background.Go(func() {
			if err == nil { // else what the store has stays the latest
				t.begin()
			}
			defer t.leave()
			b.sendWill(r, w)
		})
		if !started {
			// Who waits behind it is still answered; the ledger waits for nobody.
			go t.leave()
		}
	}
	b.ledger.awaitRoom(context.Background())
	b.ledger.add(c)
}

// sendWill hands a will to its subscribers, unless it has expired.
func (b *Broker) sendWill(r *realm, w *will) {
	packet, now := w.packet, b.clock()
	if b.willExpired(w, now) {
		b.count.publishDropped.Add(1)
		return
	}
	if r.rules != nil && !r.rules.Idle() {
		// Nobody waits for a will: rules that have no room for it count it.
		_ = r.rules.Offer(context.Background(), &imprint.RuleMessage{
			Topic: w.topic, Payload: packet.Payload, QoS: byte(packet.QoS), Properties: ruleProperties(&packet.Properties),
			ClientID: w.clientID, Principal: w.principal, MQTT: true,
		})
	}
	p, _ := b.route(context.Background(), routing{realm: r, now: now, waited: w.waited(now)}, w.topic, &packet)
	if p != nil {
		b.ledger.awaitRoom(context.Background())
		b.ledger.post(b, p, nil)
	}
}
