package mqtt

import (
	"encoding/binary"
	"fmt"
)

// Unsubscribe is an UNSUBSCRIBE packet (section 3.10 of both specifications).
type Unsubscribe struct {
	PacketID   uint16
	Filters    []string // at least one
	Properties Properties
}

// Decode refuses filters with misplaced wildcards, and in MQTT 5 shared filters
// that are not valid.
func (u *Unsubscribe) Decode(h FixedHeader, body []byte, v Version) error {
	*u = Unsubscribe{}
	err := h.check(TypeUnsubscribe, body, v)
	if err != nil {
		return err
	}
	r := reader{b: body, v: v}
	u.PacketID = r.packetID("MQTT-2.3.1-1", "MQTT-2.2.1-3")
	r.properties(&u.Properties, inUnsubscribe)
	if r.err == nil && r.rest() == 0 {
		r.fail(ProtocolError, "MQTT-3.10.3-2", "there is no topic filter")
	}
	for r.err == nil && r.rest() > 0 {
		filter := r.filter()
		if v == V5 && r.err == nil {
			_, _, _, r.err = ParseSharedFilter(filter)
		}
		u.Filters = append(u.Filters, filter)
	}
	return r.err
}

// Append adds the packet to dst.
func (u *Unsubscribe) Append(dst []byte, v Version) []byte {
	dst, body := open(dst, TypeUnsubscribe, 0x02)
	dst = binary.BigEndian.AppendUint16(dst, u.PacketID)
	if v == V5 {
		dst = u.Properties.append(dst)
	}
	for _, f := range u.Filters {
		dst = appendString(dst, f)
	}
	return seal(dst, body)
}

// Detail shows the filters.
func (u *Unsubscribe) Detail() string {
	return fmt.Sprintf("UNSUBSCRIBE id=%d %q%s", u.PacketID, u.Filters, u.Properties.detail())
}

// Unsuback is an UNSUBACK packet (section 3.11 of both specifications).
type Unsuback struct {
	PacketID   uint16
	Codes      []ReasonCode // MQTT 5: one for each filter, in their order
	Properties Properties
}

// Decode reads an UNSUBACK.
func (u *Unsuback) Decode(h FixedHeader, body []byte, v Version) error {
	*u = Unsuback{}
	err := h.check(TypeUnsuback, body, v)
	if err != nil {
		return err
	}
	r := reader{b: body, v: v}
	u.PacketID = r.packetID("MQTT-2.3.1-7", "MQTT-2.2.1-6")
	if v != V5 {
		return r.end()
	}
	r.properties(&u.Properties, inUnsuback)
	if r.err == nil && r.rest() == 0 {
		r.fail(ProtocolError, "MQTT-3.11.3-2", "there is no reason code")
	}
	u.Codes = r.reasons(TypeUnsuback, "MQTT-3.11.3-2")
	return r.err
}

// Append adds the packet to dst; MQTT 3.1.1 has no codes.
func (u *Unsuback) Append(dst []byte, v Version) []byte {
	dst, body := open(dst, TypeUnsuback, 0)
	dst = binary.BigEndian.AppendUint16(dst, u.PacketID)
	if v == V5 {
		dst = u.Properties.append(dst)
		for _, c := range u.Codes {
			dst = append(dst, byte(c))
		}
	}
	return seal(dst, body)
}

// Detail shows the codes in hexadecimal.
func (u *Unsuback) Detail() string {
	return fmt.Sprintf("UNSUBACK id=%d codes=% X%s", u.PacketID, u.Codes, u.Properties.detail())
}
