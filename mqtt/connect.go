package mqtt

import (
	"encoding/binary"
	"fmt"
)

// Connect is a CONNECT packet (section 3.1 of both specifications).
type Connect struct {
	// Version is the protocol level that Decode found, also when it is one that
	// this package does not know. Append does not look at it.
	Version    Version
	CleanStart bool   // Clean Session in MQTT 3.1.1
	KeepAlive  uint16 // seconds
	ClientID   string // may be empty

	Will        *Will // nil without a will
	HasUsername bool
	Username    string
	HasPassword bool
	Password    []byte // aliases the body

	Properties Properties
}

// Will is the message that a server publishes when the connection is lost.
type Will struct {
	Topic      string
	Payload    []byte // aliases the body
	QoS        QoS
	Retain     bool
	Properties Properties // MQTT 5, section 3.1.3.2
}

// The bits of the connect flags (section 3.1.2.3).
const (
	connectReserved = 0x01
	connectClean    = 0x02
	connectWill     = 0x04
	connectRetain   = 0x20
	connectPassword = 0x40
	connectUsername = 0x80
)

// Decode finds the version in the packet and ignores its argument. A protocol
// name or level that is not known gives an error with code 0x84, so that the
// caller can answer: return code 1 in the 3.1.1 form, or reason code 0x84.
func (c *Connect) Decode(h FixedHeader, body []byte, _ Version) error {
	*c = Connect{}
	err := h.check(TypeConnect, body, V311)
	if err != nil {
		return err
	}
	r := reader{b: body, v: V5}
	name := r.text()
	c.Version = Version(r.uint8())
	if r.err != nil {
		return r.err
	}
	if string(name) != "MQTT" {
		return &Error{Code: UnsupportedProtocolVersion, Rule: "MQTT-3.1.2-1", Msg: "the protocol name is not MQTT"}
	}
	if c.Version != V311 && c.Version != V5 {
		return &Error{Code: UnsupportedProtocolVersion, Rule: "MQTT-3.1.2-2", Msg: "the protocol level is not 4 or 5"}
	}
	err = h.check(TypeConnect, body, c.Version)
	if err != nil {
		return err
	}
	r.v = c.Version
	flags := r.uint8()
	c.KeepAlive = r.uint16()
	checkConnectFlags(&r, flags)
	r.properties(&c.Properties, inConnect)
	c.decodePayload(&r, flags)
	return r.end()
}

// checkConnectFlags: MQTT 5.0 and 3.1.1 sections 3.1.2.3 to 3.1.2.9.
func checkConnectFlags(r *reader, flags byte) {
	qos := flags >> 3 & 0x03
	switch {
	case flags&connectReserved != 0:
		r.malformed("MQTT-3.1.2-3", "the reserved connect flag is set")
	case qos == 3:
		r.malformed(pick(r.v, "MQTT-3.1.2-14", "MQTT-3.1.2-12"), "the will QoS is 3")
	case flags&connectWill == 0 && qos != 0:
		r.malformed(pick(r.v, "MQTT-3.1.2-13", "MQTT-3.1.2-11"), "there is a will QoS without a will")
	case flags&connectWill == 0 && flags&connectRetain != 0:
		r.malformed(pick(r.v, "MQTT-3.1.2-15", "MQTT-3.1.2-13"), "Will Retain is set without a will")
	case r.v != V5 && flags&connectPassword != 0 && flags&connectUsername == 0:
		r.malformed("MQTT-3.1.2-22", "there is a password without a user name")
	}
}

func (c *Connect) decodePayload(r *reader, flags byte) {
	c.CleanStart = flags&connectClean != 0
	c.ClientID = string(r.text())
	if r.v != V5 && c.ClientID == "" && !c.CleanStart {
		r.fail(ClientIdentifierNotValid, "MQTT-3.1.3-8", "the client id is empty without a clean session")
	}
	if flags&connectWill != 0 && r.err == nil {
		c.Will = &Will{QoS: QoS(flags >> 3 & 0x03), Retain: flags&connectRetain != 0}
		c.Will.decode(r)
	}
	if flags&connectUsername != 0 {
		c.HasUsername = true
		c.Username = string(r.text())
	}
	if flags&connectPassword != 0 {
		c.HasPassword = true
		c.Password = r.binary()
	}
}

func (w *Will) decode(r *reader) {
	r.properties(&w.Properties, inWill)
	w.Topic = string(r.topic(pick(r.v, "MQTT-4.7.1-1", "MQTT-4.7.0-1")))
	if r.err == nil && w.Topic == "" {
		r.fail(TopicNameInvalid, "MQTT-4.7.3-1", "the will topic is empty")
	}
	w.Payload = r.binary()
}

// Append writes the packet for protocol level v, whatever c.Version says.
func (c *Connect) Append(dst []byte, v Version) []byte {
	dst, body := open(dst, TypeConnect, 0)
	dst = appendString(dst, "MQTT")
	dst = append(dst, byte(v), c.flags())
	dst = binary.BigEndian.AppendUint16(dst, c.KeepAlive)
	if v == V5 {
		dst = c.Properties.append(dst)
	}
	dst = appendString(dst, c.ClientID)
	if c.Will != nil {
		if v == V5 {
			dst = c.Will.Properties.append(dst)
		}
		dst = appendString(dst, c.Will.Topic)
		dst = appendBinary(dst, c.Will.Payload)
	}
	if c.HasUsername {
		dst = appendString(dst, c.Username)
	}
	if c.HasPassword {
		dst = appendBinary(dst, c.Password)
	}
	return seal(dst, body)
}

func (c *Connect) flags() byte {
	var f byte
	if c.CleanStart {
		f |= connectClean
	}
	if c.Will != nil {
		f |= connectWill | byte(c.Will.QoS)<<3
		if c.Will.Retain {
			f |= connectRetain
		}
	}
	if c.HasUsername {
		f |= connectUsername
	}
	if c.HasPassword {
		f |= connectPassword
	}
	return f
}

// Detail shows neither the password nor the will's payload.
func (c *Connect) Detail() string {
	s := fmt.Sprintf("CONNECT %s client=%q clean=%t keepalive=%ds", c.Version, c.ClientID, c.CleanStart, c.KeepAlive)
	if c.HasUsername {
		s += fmt.Sprintf(" user=%q", c.Username)
	}
	if c.HasPassword {
		s += " password=yes"
	}
	s += c.Properties.detail()
	if c.Will != nil {
		s += fmt.Sprintf(" will=%q qos=%d retain=%t payload=%d bytes%s",
			c.Will.Topic, c.Will.QoS, c.Will.Retain, len(c.Will.Payload), c.Will.Properties.detail())
	}
	return s
}
