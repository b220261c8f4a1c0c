package mqtt

import (
	"encoding/binary"
	"math/bits"
)

// propertyRule is cited for identifiers that are unknown, not allowed in the
// packet, or repeated; most of these rules have no statement id.
const propertyRule = "MQTT 5.0 section 2.2.2.2"

// properties reads a property length and the properties, for MQTT 5 only. The
// receiver p must be empty.
func (r *reader) properties(p *Properties, in packetMask) {
	if r.v != V5 {
		return
	}
	n := r.varint()
	if n == 0 {
		return
	}
	block := r.take(n)
	if r.err == nil {
		r.err = p.decode(block, in)
	}
}

func (p *Properties) decode(block []byte, in packetMask) error {
	d := propertyDecoder{reader: reader{b: block, v: V5}, p: p}
	for d.err == nil && d.rest() > 0 {
		// Identifiers are variable byte integers, but none needs a second byte.
		id := PropertyID(d.uint8())
		info, ok := id.info()
		switch {
		case !ok:
			d.malformed(propertyRule, "a property has an unknown identifier")
		case info.in&in == 0:
			d.malformed(propertyRule, "the packet may not carry "+info.name)
		case p.Has(id) && !repeatable(id, in):
			d.fail(ProtocolError, propertyRule, info.name+" is repeated")
		default:
			d.value(id, info)
		}
	}
	if d.err == nil && p.Has(PropAuthData) && !p.Has(PropAuthMethod) {
		d.fail(ProtocolError, "MQTT 5.0 section 3.1.2.11.10", "Authentication Data comes without an Authentication Method")
	}
	return d.err
}

// repeatable: a PUBLISH to a client names each subscription that it matched
// [MQTT-3.3.4-4]; user properties repeat everywhere.
func repeatable(id PropertyID, in packetMask) bool {
	return id == PropUser || id == PropSubscriptionID && in == inPublish
}

type propertyDecoder struct {
	reader
	p      *Properties
	copied string // the block, copied once when the first string is met
}

// value reads the value of one property and marks it.
func (d *propertyDecoder) value(id PropertyID, info propertyInfo) {
	p := d.p
	switch info.kind {
	case kindFlag:
		*p.flag(id) = d.flag(info.name)
	case kindUint16:
		n := d.uint16()
		*p.short(id) = n
		d.checkZero(id, uint32(n), info.name)
	case kindUint32:
		n := d.uint32()
		*p.long(id) = n
		d.checkZero(id, n, info.name)
	case kindVarint:
		n := uint32(d.varint())
		p.SubscriptionIDs = append(p.SubscriptionIDs, n)
		d.checkZero(id, n, info.name)
		return
	case kindString:
		s := d.string()
		*p.text(id) = s
		if id == PropResponseTopic && d.err == nil {
			d.err = checkResponseTopic(s)
		}
	case kindBinary:
		*p.data(id) = d.binary()
	case kindPair:
		if p.User == nil {
			p.User = make([]UserProperty, 0, 4)
		}
		key := d.string()
		p.User = append(p.User, UserProperty{Key: key, Value: d.string()})
		return
	}
	p.Present |= 1 << id
}

func (d *propertyDecoder) flag(name string) byte {
	n := d.uint8()
	if n > 1 {
		d.fail(ProtocolError, propertyRule, name+" is neither 0 nor 1")
	}
	return n
}

// checkZero refuses zero where the specification does.
func (d *propertyDecoder) checkZero(id PropertyID, n uint32, name string) {
	if n != 0 || d.err != nil {
		return
	}
	switch id {
	case PropTopicAlias:
		d.fail(TopicAliasInvalid, "MQTT-3.3.2-8", "Topic Alias is zero")
	case PropReceiveMaximum:
		d.fail(ProtocolError, "MQTT 5.0 section 3.1.2.11.3", name+" is zero")
	case PropMaximumPacketSize:
		d.fail(ProtocolError, "MQTT 5.0 section 3.1.2.11.4", name+" is zero")
	case PropSubscriptionID:
		d.fail(ProtocolError, "MQTT 5.0 section 3.8.2.1.2", name+" is zero")
	}
}

// string returns the next string as a part of one copy of the whole block, so
// that a packet with many strings costs one allocation for their bytes.
func (d *propertyDecoder) string() string {
	b := d.text()
	if len(b) == 0 {
		return ""
	}
	if d.copied == "" {
		d.copied = string(d.b)
	}
	return d.copied[d.off-len(b) : d.off]
}

func checkResponseTopic(s string) error {
	if s == "" {
		return protocolError("MQTT-4.7.3-1", "the Response Topic is empty")
	}
	if hasWildcard(s) {
		return protocolError("MQTT-3.3.2-14", "the Response Topic contains a wildcard")
	}
	return nil
}

// size is the number of bytes of the properties without their length.
func (p *Properties) size() int {
	n := 0
	for set := p.Present; set != 0; set &= set - 1 {
		id := PropertyID(bits.TrailingZeros64(uint64(set)))
		info, _ := id.info()
		switch info.kind {
		case kindFlag:
			n += 2
		case kindUint16:
			n += 3
		case kindUint32:
			n += 5
		case kindString:
			n += 3 + len(*p.text(id))
		case kindBinary:
			n += 3 + len(*p.data(id))
		}
	}
	for _, id := range p.SubscriptionIDs {
		n += 1 + varintLen(int(id))
	}
	for i := range p.User {
		n += 5 + len(p.User[i].Key) + len(p.User[i].Value)
	}
	return n
}

// append adds the property length and the properties, in the order of their
// identifiers, subscription identifiers and user properties last.
func (p *Properties) append(dst []byte) []byte {
	if p.Empty() {
		return append(dst, 0)
	}
	dst = appendVarint(dst, p.size())
	for set := p.Present; set != 0; set &= set - 1 {
		id := PropertyID(bits.TrailingZeros64(uint64(set)))
		info, _ := id.info()
		switch info.kind {
		case kindFlag:
			dst = append(dst, byte(id), *p.flag(id))
		case kindUint16:
			dst = binary.BigEndian.AppendUint16(append(dst, byte(id)), *p.short(id))
		case kindUint32:
			dst = binary.BigEndian.AppendUint32(append(dst, byte(id)), *p.long(id))
		case kindString:
			dst = appendString(append(dst, byte(id)), *p.text(id))
		case kindBinary:
			dst = appendBinary(append(dst, byte(id)), *p.data(id))
		}
	}
	for _, id := range p.SubscriptionIDs {
		dst = appendVarint(append(dst, byte(PropSubscriptionID)), int(id))
	}
	for i := range p.User {
		dst = appendString(append(dst, byte(PropUser)), p.User[i].Key)
		dst = appendString(dst, p.User[i].Value)
	}
	return dst
}
