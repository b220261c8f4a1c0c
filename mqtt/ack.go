package mqtt

import (
	"encoding/binary"
	"fmt"
)

// Ack is a PUBACK, PUBREC, PUBREL or PUBCOMP packet (sections 3.4 to 3.7 of both
// specifications).
type Ack struct {
	Type       PacketType // TypePuback, TypePubrec, TypePubrel or TypePubcomp
	PacketID   uint16
	Reason     ReasonCode // MQTT 5; always Success in MQTT 3.1.1
	Properties Properties // MQTT 5
}

// Decode takes the type from h. A body without reason code means Success, one
// without property length no properties (MQTT 5.0 section 3.4.2.1).
func (a *Ack) Decode(h FixedHeader, body []byte, v Version) error {
	if h.Type < TypePuback || h.Type > TypePubcomp {
		return protocolError(closeRule(v), "the packet is not an acknowledgement")
	}
	err := h.check(h.Type, body, v)
	if err != nil {
		return err
	}
	*a = Ack{Type: h.Type}
	r := reader{b: body, v: v}
	a.PacketID = r.packetID("MQTT-2.3.1-6", "MQTT-2.2.1-5")
	if v == V5 && r.rest() > 0 {
		a.Reason = r.reason(h.Type, ackReasonRule(h.Type))
	}
	if v == V5 && r.rest() > 0 {
		r.properties(&a.Properties, 1<<h.Type)
	}
	return r.end()
}

// PlainPuback reads a PUBACK of two bytes, as both versions have it for Success
// without properties, without an allocation; false for every other packet, which
// Decode judges.
func PlainPuback(h FixedHeader, body []byte) (id uint16, ok bool) {
	if h.Type != TypePuback || h.Flags != 0 || h.Remaining != 2 || h.Size != 2 || len(body) != 2 {
		return 0, false
	}
	id = binary.BigEndian.Uint16(body)
	return id, id != 0
}

func ackReasonRule(t PacketType) string {
	switch t {
	case TypePuback:
		return "MQTT-3.4.2-1"
	case TypePubrec:
		return "MQTT-3.5.2-1"
	case TypePubrel:
		return "MQTT-3.6.2-1"
	}
	return "MQTT-3.7.2-1"
}

// Append adds the packet in its shortest form. It allocates nothing when dst
// has room.
func (a *Ack) Append(dst []byte, v Version) []byte {
	var flags byte
	if a.Type == TypePubrel {
		flags = 0x02
	}
	dst, body := open(dst, a.Type, flags)
	dst = binary.BigEndian.AppendUint16(dst, a.PacketID)
	if v == V5 {
		dst = appendOutcome(dst, a.Reason, &a.Properties)
	}
	return seal(dst, body)
}

// appendOutcome adds a reason code and properties, without what may be left out
// at the end of a packet.
func appendOutcome(dst []byte, c ReasonCode, p *Properties) []byte {
	if p.Empty() {
		if c == Success {
			return dst
		}
		return append(dst, byte(c))
	}
	return p.append(append(dst, byte(c)))
}

// Detail shows the packet identifier and the reason.
func (a *Ack) Detail() string {
	return fmt.Sprintf("%s id=%d 0x%02X %s%s", a.Type, a.PacketID, byte(a.Reason), a.Reason, a.Properties.detail())
}
