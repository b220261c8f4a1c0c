package mqtt

import "strconv"

// Version is the protocol level of a CONNECT packet (MQTT 3.1.1 and 5.0,
// section 3.1.2.2). Functions that take a Version treat every value but V5 as
// V311.
type Version byte

// The protocol levels that this package speaks.
const (
	V311 Version = 4
	V5   Version = 5
)

// String gives "MQTT 3.1.1", "MQTT 5", or the level in decimal.
func (v Version) String() string {
	switch v {
	case V311:
		return "MQTT 3.1.1"
	case V5:
		return "MQTT 5"
	}
	return "MQTT level " + strconv.Itoa(int(v))
}

// QoS is a quality of service level: 0, 1 or 2 (section 4.3).
type QoS byte

// The quality of service levels.
const (
	QoS0 QoS = 0 // at most once
	QoS1 QoS = 1 // at least once
	QoS2 QoS = 2 // exactly once
)

// PacketType is the control packet type in the first byte of a packet (MQTT
// 5.0 section 2.1.2). Type 0 is forbidden; TypeAuth exists in MQTT 5 only.
type PacketType byte

// The control packet types.
const (
	TypeConnect     PacketType = 1
	TypeConnack     PacketType = 2
	TypePublish     PacketType = 3
	TypePuback      PacketType = 4
	TypePubrec      PacketType = 5
	TypePubrel      PacketType = 6
	TypePubcomp     PacketType = 7
	TypeSubscribe   PacketType = 8
	TypeSuback      PacketType = 9
	TypeUnsubscribe PacketType = 10
	TypeUnsuback    PacketType = 11
	TypePingreq     PacketType = 12
	TypePingresp    PacketType = 13
	TypeDisconnect  PacketType = 14
	TypeAuth        PacketType = 15
)

// String gives the name in capitals, as the specification writes it.
func (t PacketType) String() string {
	names := [...]string{
		"RESERVED", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
		"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
	}
	if int(t) < len(names) {
		return names[t]
	}
	return "type " + strconv.Itoa(int(t))
}

// Packet is what every packet of this package can do. Each implementation is a
// pointer to a struct.
type Packet interface {
	// Decode reads the body of the packet that h announces. It overwrites the
	// receiver; after an error its content is unspecified, except for
	// Connect.Version.
	Decode(h FixedHeader, body []byte, v Version) error
	// Append adds the whole packet, fixed header included, to dst.
	Append(dst []byte, v Version) []byte
	// Detail is one line for a trace; it shows no payload and no password.
	Detail() string
}

// NewPacket returns an empty packet of type t, or nil if t is not a type.
func NewPacket(t PacketType) Packet {
	switch t {
	case TypeConnect:
		return new(Connect)
	case TypeConnack:
		return new(Connack)
	case TypePublish:
		return new(Publish)
	case TypePuback, TypePubrec, TypePubrel, TypePubcomp:
		return &Ack{Type: t}
	case TypeSubscribe:
		return new(Subscribe)
	case TypeSuback:
		return new(Suback)
	case TypeUnsubscribe:
		return new(Unsubscribe)
	case TypeUnsuback:
		return new(Unsuback)
	case TypePingreq:
		return new(Pingreq)
	case TypePingresp:
		return new(Pingresp)
	case TypeDisconnect:
		return new(Disconnect)
	case TypeAuth:
		return new(Auth)
	}
	return nil
}
