package mqtt

import (
	"encoding/binary"
	"fmt"
)

// Publish is a PUBLISH packet (section 3.3 of both specifications).
type Publish struct {
	Topic      []byte // aliases the body; empty only in MQTT 5, with a topic alias
	Payload    []byte // aliases the body
	PacketID   uint16 // 0 exactly for QoS 0
	QoS        QoS
	Dup        bool
	Retain     bool
	Properties Properties
}

// Decode allocates nothing unless there are string properties or subscription
// identifiers.
func (p *Publish) Decode(h FixedHeader, body []byte, v Version) error {
	err := h.check(TypePublish, body, v)
	if err != nil {
		return err
	}
	p.Dup = h.Flags&0x08 != 0
	p.QoS = QoS(h.Flags >> 1 & 0x03)
	p.Retain = h.Flags&0x01 != 0
	p.PacketID = 0
	// Clearing costs more than looking, and most messages have no properties.
	if !p.Properties.Empty() {
		p.Properties = Properties{}
	}

	r := reader{b: body, v: v}
	p.Topic = r.topic("MQTT-3.3.2-2")
	if p.QoS > QoS0 {
		p.PacketID = r.packetID("MQTT-2.3.1-1", "MQTT-2.2.1-3")
	}
	r.properties(&p.Properties, inPublish)
	p.Payload = r.take(r.rest())
	if len(p.Topic) == 0 && r.err == nil {
		r.err = checkEmptyTopic(p.Properties.Present, v)
	}
	return r.err
}

// checkEmptyTopic allows an empty topic name where an alias stands for it.
func checkEmptyTopic(present PropertySet, v Version) error {
	if v != V5 {
		return &Error{Code: TopicNameInvalid, Rule: "MQTT-4.7.3-1", Msg: "the topic name is empty"}
	}
	if !present.Has(PropTopicAlias) {
		return protocolError("MQTT 5.0 section 3.3.2.1", "the topic name is empty and there is no topic alias")
	}
	return nil
}

// Append adds the packet to dst.
func (p *Publish) Append(dst []byte, v Version) []byte {
	dst = p.AppendHeader(dst, v, len(p.Payload))
	return append(dst, p.Payload...)
}

// AppendHeader adds everything before the payload, for a payload of payloadLen
// bytes that the caller writes itself. It does not look at p.Payload.
func (p *Publish) AppendHeader(dst []byte, v Version, payloadLen int) []byte {
	propertyLen := 0
	n := 2 + len(p.Topic) + payloadLen
	if p.QoS > QoS0 {
		n += 2
	}
	if v == V5 {
		propertyLen = p.propertyLen()
		n += varintLen(propertyLen) + propertyLen
	}
	first := byte(TypePublish)<<4 | byte(p.QoS)<<1
	if p.Dup {
		first |= 0x08
	}
	if p.Retain {
		first |= 0x01
	}
	dst = appendVarint(append(dst, first), n)
	dst = appendBinary(dst, p.Topic)
	if p.QoS > QoS0 {
		dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
	}
	if v != V5 {
		return dst
	}
	return p.Properties.append(dst)
}

// Size is the number of bytes that Append adds, for a receiver's Maximum Packet
// Size.
func (p *Publish) Size(v Version) int {
	n := 2 + len(p.Topic) + len(p.Payload)
	if p.QoS > QoS0 {
		n += 2
	}
	if v == V5 {
		propertyLen := p.propertyLen()
		n += varintLen(propertyLen) + propertyLen
	}
	return 1 + varintLen(n) + n
}

func (p *Publish) propertyLen() int {
	if p.Properties.Empty() {
		return 0
	}
	return p.Properties.size()
}

// Detail shows the topic and the size of the payload.
func (p *Publish) Detail() string {
	return fmt.Sprintf("PUBLISH topic=%q qos=%d id=%d retain=%t dup=%t payload=%d bytes%s",
		p.Topic, p.QoS, p.PacketID, p.Retain, p.Dup, len(p.Payload), p.Properties.detail())
}
