package broker

import (
	"context"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// answer is a PUBACK that isn't sent, because the store is waited for, or the answer to a
// request, or because one before it is: PUBACKs go out in the order of their PUBLISH packets
// [MQTT-4.6.0-2].
type answer struct {
	id     uint16
	ready  bool
	reason mqtt.ReasonCode
}

// maxRepeated bounds the refusals of repeated packet ids that wait their turn.
const maxRepeated = 1000

// admitID decides whether a QoS 1 PUBLISH may come now: at most
// Options.MaxInflight may wait for their PUBACK. It reports false for one that
// was answered here.
func (c *connection) admitID(id uint16) (bool, error) {
	for {
		c.session.mu.Lock()
		p := c.publishing
		waiting := len(p.answers)
		used := slices.ContainsFunc(p.answers, func(a answer) bool { return a.id == id })
		if waiting < c.broker.opts.MaxInflight && !used {
			c.session.mu.Unlock()
			return true, nil
		}
		// A repeated id is answered, but not for ever: the answers wait, too.
		if c.version == mqtt.V5 && waiting >= c.broker.opts.MaxInflight && !(used && waiting < c.broker.opts.MaxInflight+maxRepeated) {
			c.session.mu.Unlock()
			return false, end(imprint.CodeReceiveMaximum, "%d QoS 1 messages wait for their PUBACK, as many as CONNACK allowed", waiting)
		}
		if c.version == mqtt.V5 {
			c.session.mu.Unlock()
			err := imprint.Errorf(imprint.CodePacketIDInUse, "packet identifier %d came again before its PUBACK", id)
			c.refusedWith("publish", err, sent(mqtt.TypePuback, c.version, mqtt.PacketIdentifierInUse))
			c.acknowledge(id, mqtt.PacketIdentifierInUse, err)
			return false, nil
		}
		if c.out.closing {
			c.session.mu.Unlock()
			return false, c.over()
		}
		// MQTT 3.1.1 has no receive maximum: the client is read more slowly.
		if p.answered == nil {
			p.answered = make(chan struct{})
		}
		answered := p.answered
		c.session.mu.Unlock()
		c.payOwed()
		<-answered
	}
}

// signalAcks wakes the reader when a PUBACK was sent or the connection ends. The
// lock is held.
func (c *connection) signalAcks() {
	p := c.publishing
	if p != nil && p.answered != nil {
		close(p.answered)
		p.answered = nil
	}
}

// awaitStore makes a place for a PUBACK that comes later.
func (c *connection) awaitStore(id uint16) {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	c.publishing.answers = append(c.publishing.answers, answer{id: id})
}

// answerStored answers a PUBLISH whose message is in the store, or couldn't be
// put there.
func (c *connection) answerStored(id uint16, err error) {
	if err != nil && c.version != mqtt.V5 {
		c.stop(&endError{code: imprint.CodeOf(err), err: err})
		return
	}
	reason := mqtt.Success
	if err != nil {
		reason = reasonFor(imprint.CodeOf(err), mqtt.TypePuback)
	}
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	p := c.publishing
	at := slices.IndexFunc(p.answers, func(a answer) bool { return a.id == id && !a.ready })
	if at < 0 {
		return
	}
	p.answers[at].ready, p.answers[at].reason = true, reason
	c.sendAnswers()
	if len(c.out.pending) > 0 && !c.out.closing {
		c.startWriter()
	}
}

// sendAnswers sends the PUBACKs whose turn it is. The lock is held.
func (c *connection) sendAnswers() {
	p, n := c.publishing, 0
	for n < len(p.answers) && p.answers[n].ready {
		ack := mqtt.Ack{Type: mqtt.TypePuback, PacketID: p.answers[n].id, Reason: p.answers[n].reason}
		c.appendLocked(func(dst []byte) []byte { return ack.Append(dst, c.version) })
		n++
	}
	if n == 0 {
		return
	}
	p.answers = slices.Delete(p.answers, 0, n)
	if len(p.answers) == 0 {
		p.answers = nil
	}
	c.signalAcks()
}

// acknowledge answers a PUBLISH, at once or when those before it are answered.
// Why are the words for a refusal; nil: it is none.
func (c *connection) acknowledge(id uint16, reason mqtt.ReasonCode, why error) {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	p := c.publishing
	if len(p.answers) > 0 {
		p.answers = append(p.answers, answer{id: id, ready: true, reason: reason})
		return
	}
	ack := mqtt.Ack{Type: mqtt.TypePuback, PacketID: id, Reason: reason}
	if why != nil {
		c.tell(&ack.Properties, why)
	}
	c.appendLocked(func(dst []byte) []byte { return ack.Append(dst, c.version) })
}

// withinRate counts a PUBLISH against the connection's rate.
func (c *connection) withinRate(now time.Time) bool {
	rate := c.broker.opts.PublishRate
	return rate <= 0 || c.publishing.rate.take(now, rate)
}

// overRate discards a PUBLISH above the rate, as AWS IoT Core does: an MQTT 5
// client is told at QoS 1; others keep the message unacknowledged.
func (c *connection) overRate(packet *mqtt.Publish) error {
	c.broker.count.publishThrottled.Add(1)
	err := imprint.Errorf(imprint.CodePublishRate, "a PUBLISH is more than the %d a second that one connection may send: it is discarded", c.broker.opts.PublishRate)
	c.broker.count.refuse(imprint.CodePublishRate)
	told := c.version == mqtt.V5 && packet.QoS == 1
	if !c.publishing.throttled {
		c.publishing.throttled = true
		wire := ""
		if told {
			wire = sent(mqtt.TypePuback, c.version, mqtt.QuotaExceeded)
		}
		c.peer.Rec.FailWith("publish", err, wire)
	}
	if told {
		c.acknowledge(packet.PacketID, mqtt.QuotaExceeded, err)
	}
	return nil
}

// payFor delays the reading of a connection that sends more bytes a second than
// it may.
func (c *connection) payFor(ctx context.Context, bytes int) {
	rate := c.broker.opts.ThroughputRate
	if rate <= 0 {
		return
	}
	wait := c.throughput.charge(time.Now(), bytes, rate)
	if wait <= 0 {
		return
	}
	c.broker.count.throughputDelayed.Add(1)
	// In parts, so that a connection that is ended isn't kept.
	const part = 100 * time.Millisecond
	timer := time.NewTimer(min(wait, part))
	defer timer.Stop()
	for c.ended.Load() == nil {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		wait -= part
		if wait <= 0 {
			return
		}
		timer.Reset(min(wait, part))
	}
}
