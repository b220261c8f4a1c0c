package broker

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

// outgoing is a message on its way to its subscribers, one after the other.
type outgoing struct {
	mqtt.Publish
	expires time.Time // zero: doesn't expire
	// kept is a copy that outlives the publisher's buffer, made when the first
	// subscriber needs it, and shared by all that do. It isn't changed.
	kept *mqtt.Publish
	// forms are the message as bytes, by version and QoS, made when they are
	// needed, in the publisher's scratch memory.
	forms   [4]form
	scratch []byte
}

// form is a message as bytes for all subscribers of one version and QoS: each
// copies them and sets its packet id, RETAIN and DUP in its copy.
type form struct {
	raw  []byte
	idAt int    // where the packet id stands; 0 with QoS 0
	kept []byte // as raw, for those that have to wait
}

// storedSize is what the message takes in a queue of the store.
func (m *outgoing) storedSize() int {
	packet := m.Publish
	packet.QoS, packet.Retain, packet.Dup = 1, false, false
	return packet.Size(mqtt.V5)
}

// keep gives the copy that outlives the publisher's buffer.
func (m *outgoing) keep() *mqtt.Publish {
	if m.kept == nil {
		m.kept = clonePublish(&m.Publish)
	}
	return m.kept
}

// form gives the bytes for a version and QoS.
func (m *outgoing) form(v mqtt.Version, qos mqtt.QoS) *form {
	n := int(qos)
	if v == mqtt.V5 {
		n += 2
	}
	f := &m.forms[n]
	if f.raw != nil {
		return f
	}
	m.QoS, m.PacketID, m.Retain, m.Dup = qos, uint16(qos), false, false
	start := len(m.scratch)
	m.scratch = m.Append(m.scratch, v)
	f.raw = m.scratch[start:len(m.scratch):len(m.scratch)]
	if qos > 0 {
		f.idAt = packetIDAt(f.raw, len(m.Topic))
	}
	return f
}

func (f *form) keep() []byte {
	if f.kept == nil {
		f.kept = bytes.Clone(f.raw)
	}
	return f.kept
}

// packetIDAt is where the packet id of a PUBLISH stands: after the fixed header
// and the topic.
func packetIDAt(raw []byte, topic int) int {
	at := 1
	for raw[at] >= 0x80 {
		at++
	}
	return at + 1 + 2 + topic
}

// Bits of the first byte of a PUBLISH (MQTT 5 section 3.3.1).
const (
	retainBit = 0x01
	dupBit    = 0x08
)

// putForm copies a message into the pending buffer. By is the publisher, which
// starts the writer later; nil: it starts now. The lock is held.
func (c *connection) putForm(raw []byte, idAt int, id uint16, retain, dup bool, by *connection) {
	c.out.buffer(len(raw))
	start := len(c.out.pending)
	c.out.pending = append(c.out.pending, raw...)
	packet := c.out.pending[start:]
	if id != 0 {
		binary.BigEndian.PutUint16(packet[idAt:], id)
	}
	if retain {
		packet[0] |= retainBit
	}
	if dup {
		packet[0] |= dupBit
	}
	c.out.messages++
	c.wakeWriter(by)
}

// startAt is from how many bytes on a writer is started at once: the client may
// as well read while more is written.
const startAt = 16 << 10

// wakeWriter starts the writer, or leaves that to a publisher that has more to
// send. The lock is held.
func (c *connection) wakeWriter(by *connection) {
	if c.out.writing || c.out.corked {
		return
	}
	if by == nil || len(c.out.pending) >= startAt {
		c.startWriter()
		return
	}
	if c.out.owedBy != by {
		c.out.owedBy = by
		by.owed = append(by.owed, c)
	}
}

// payOwed starts the writers that this connection's messages need. It comes
// before anything for which its reader waits.
func (c *connection) payOwed() {
	if len(c.owed) == 0 {
		return
	}
	for n, other := range c.owed {
		c.owed[n] = nil
		other.session.mu.Lock()
		if other.out.owedBy == c {
			other.out.owedBy = nil
		}
		// What goes to its own client is written by flush.
		if other != c && len(other.out.pending) > 0 {
			other.startWriter()
		}
		other.session.mu.Unlock()
	}
	c.owed = c.owed[:0]
}

// flights are the QoS 1 messages that were sent and aren't acknowledged, in the
// order of sending. PUBACKs mostly come in that order.
type flights struct {
	all  []flight
	head int
}

func (f *flights) len() int { return len(f.all) - f.head }

func (f *flights) add(x flight) {
	if f.head > 0 && len(f.all) == cap(f.all) {
		n := copy(f.all, f.all[f.head:])
		clear(f.all[n:])
		f.all, f.head = f.all[:n], 0
	}
	f.all = append(f.all, x)
}

// take removes the message with a packet id.
func (f *flights) take(id uint16) (flight, bool) {
	for n := f.head; n < len(f.all); n++ {
		if f.all[n].id != id {
			continue
		}
		found := f.all[n]
		copy(f.all[f.head+1:n+1], f.all[f.head:n])
		f.all[f.head] = flight{}
		f.head++
		if f.head == len(f.all) {
			f.all, f.head = f.all[:0], 0
		}
		return found, true
	}
	return flight{}, false
}

func (f *flights) has(id uint16) bool {
	for n := f.head; n < len(f.all); n++ {
		if f.all[n].id == id {
			return true
		}
	}
	return false
}

// ordinal is the oldest message's number in the order of sending; 0 without any.
func (f *flights) ordinal() uint64 {
	if f.len() == 0 {
		return 0
	}
	return f.all[f.head].ordinal
}
