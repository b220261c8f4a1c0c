package mqtt

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Subscription is one topic filter of a SUBSCRIBE with its options (MQTT 5.0
// section 3.8.3.1). MQTT 3.1.1 has the QoS only.
type Subscription struct {
	Filter            string
	QoS               QoS
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte // 0 send retained messages, 1 if new, 2 do not
}

// Subscribe is a SUBSCRIBE packet (section 3.8 of both specifications).
type Subscribe struct {
	PacketID   uint16
	Filters    []Subscription // at least one
	Properties Properties
}

// Decode refuses filters with misplaced wildcards. In MQTT 5 it also refuses a
// shared subscription whose share name or filter is not valid; MQTT 3.1.1 does
// not know shared subscriptions, so there a server that offers them calls
// ParseSharedFilter.
func (s *Subscribe) Decode(h FixedHeader, body []byte, v Version) error {
	*s = Subscribe{}
	err := h.check(TypeSubscribe, body, v)
	if err != nil {
		return err
	}
	r := reader{b: body, v: v}
	s.PacketID = r.packetID("MQTT-2.3.1-1", "MQTT-2.2.1-3")
	r.properties(&s.Properties, inSubscribe)
	if r.err == nil && r.rest() == 0 {
		r.fail(ProtocolError, pick(v, "MQTT-3.8.3-3", "MQTT-3.8.3-2"), "there is no topic filter")
	}
	for r.err == nil && r.rest() > 0 {
		sub := Subscription{Filter: r.filter()}
		options := r.uint8()
		if r.err == nil {
			r.err = sub.setOptions(options, v)
		}
		s.Filters = append(s.Filters, sub)
	}
	return r.err
}

func (s *Subscription) setOptions(options byte, v Version) error {
	if v != V5 {
		if options > 2 {
			return malformed("MQTT-3.8.3-4", "the requested QoS is not 0, 1 or 2")
		}
		s.QoS = QoS(options)
		return nil
	}
	s.QoS = QoS(options & 0x03)
	s.NoLocal = options&0x04 != 0
	s.RetainAsPublished = options&0x08 != 0
	s.RetainHandling = options >> 4 & 0x03
	_, _, shared, err := ParseSharedFilter(s.Filter)
	switch {
	case options&0xc0 != 0:
		return malformed("MQTT-3.8.3-5", "reserved bits of the subscription options are set")
	case s.QoS > QoS2:
		return protocolError("MQTT 5.0 section 3.8.3.1", "the maximum QoS is 3")
	case s.RetainHandling == 3:
		return protocolError("MQTT 5.0 section 3.8.3.1", "the Retain Handling is 3")
	case err != nil:
		return err
	case shared && s.NoLocal:
		return protocolError("MQTT-3.8.3-4", "No Local is set on a shared subscription")
	}
	return nil
}

func (s *Subscription) options(v Version) byte {
	o := byte(s.QoS)
	if v != V5 {
		return o
	}
	if s.NoLocal {
		o |= 0x04
	}
	if s.RetainAsPublished {
		o |= 0x08
	}
	return o | s.RetainHandling<<4
}

// Append adds the packet to dst.
func (s *Subscribe) Append(dst []byte, v Version) []byte {
	dst, body := open(dst, TypeSubscribe, 0x02)
	dst = binary.BigEndian.AppendUint16(dst, s.PacketID)
	if v == V5 {
		dst = s.Properties.append(dst)
	}
	for i := range s.Filters {
		dst = appendString(dst, s.Filters[i].Filter)
		dst = append(dst, s.Filters[i].options(v))
	}
	return seal(dst, body)
}

// Detail shows each filter with its QoS.
func (s *Subscribe) Detail() string {
	var b strings.Builder
	fmt.Fprintf(&b, "SUBSCRIBE id=%d", s.PacketID)
	for i := range s.Filters {
		fmt.Fprintf(&b, " %q qos=%d", s.Filters[i].Filter, s.Filters[i].QoS)
	}
	b.WriteString(s.Properties.detail())
	return b.String()
}

// Suback is a SUBACK packet (section 3.9 of both specifications).
type Suback struct {
	PacketID uint16
	// Codes has one code for each filter, in their order. MQTT 3.1.1 knows
	// Success (granted QoS 0), GrantedQoS1, GrantedQoS2 and UnspecifiedError.
	Codes      []ReasonCode
	Properties Properties
}

// Decode reads a SUBACK.
func (s *Suback) Decode(h FixedHeader, body []byte, v Version) error {
	*s = Suback{}
	err := h.check(TypeSuback, body, v)
	if err != nil {
		return err
	}
	r := reader{b: body, v: v}
	s.PacketID = r.packetID("MQTT-2.3.1-7", "MQTT-2.2.1-6")
	r.properties(&s.Properties, inSuback)
	if r.err == nil && r.rest() == 0 {
		r.fail(ProtocolError, pick(v, "MQTT-3.8.4-5", "MQTT-3.8.4-6"), "there is no reason code")
	}
	s.Codes = r.reasons(TypeSuback, "MQTT-3.9.3-2")
	return r.err
}

// reasons reads reason codes up to the end of the packet.
func (r *reader) reasons(t PacketType, rule string) []ReasonCode {
	if r.err != nil {
		return nil
	}
	codes := make([]ReasonCode, 0, r.rest())
	for r.err == nil && r.rest() > 0 {
		c := r.reason(t, rule)
		if r.v != V5 && c > GrantedQoS2 && c != UnspecifiedError {
			r.fail(ProtocolError, rule, "a return code is reserved")
		}
		codes = append(codes, c)
	}
	return codes
}

// Append adds the packet to dst. For MQTT 3.1.1 every failure is written as
// 0x80, the only one that it has.
func (s *Suback) Append(dst []byte, v Version) []byte {
	dst, body := open(dst, TypeSuback, 0)
	dst = binary.BigEndian.AppendUint16(dst, s.PacketID)
	if v == V5 {
		dst = s.Properties.append(dst)
	}
	for _, c := range s.Codes {
		if v != V5 && c.Failure() {
			c = UnspecifiedError
		}
		dst = append(dst, byte(c))
	}
	return seal(dst, body)
}

// Detail shows the codes in hexadecimal.
func (s *Suback) Detail() string {
	return fmt.Sprintf("SUBACK id=%d codes=% X%s", s.PacketID, s.Codes, s.Properties.detail())
}
