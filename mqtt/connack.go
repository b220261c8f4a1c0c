package mqtt

import "fmt"

// Connack is a CONNACK packet (section 3.2 of both specifications).
type Connack struct {
	SessionPresent bool
	// Reason is the MQTT 5 reason code in both versions: Append and Decode
	// translate it to and from the return codes of MQTT 3.1.1.
	Reason     ReasonCode
	Properties Properties
}

// ConnackReturnCode gives the return code of MQTT 3.1.1 (section 3.2.2.3, table
// 3.1) for a reason code. It reports false when no return code fits; then a
// server closes the connection without a CONNACK [MQTT-3.2.2-6].
func ConnackReturnCode(c ReasonCode) (byte, bool) {
	switch c {
	case Success:
		return 0, true
	case UnsupportedProtocolVersion:
		return 1, true
	case ClientIdentifierNotValid:
		return 2, true
	case ServerUnavailable:
		return 3, true
	case BadUserNameOrPassword:
		return 4, true
	case NotAuthorized:
		return 5, true
	}
	return 0, false
}

// connackReasons is the inverse of ConnackReturnCode. It is never written to.
var connackReasons = [...]ReasonCode{
	Success, UnsupportedProtocolVersion, ClientIdentifierNotValid,
	ServerUnavailable, BadUserNameOrPassword, NotAuthorized,
}

// Decode reads a CONNACK.
func (c *Connack) Decode(h FixedHeader, body []byte, v Version) error {
	*c = Connack{}
	err := h.check(TypeConnack, body, v)
	if err != nil {
		return err
	}
	r := reader{b: body, v: v}
	flags := r.uint8()
	if flags > 1 {
		r.malformed(pick(v, "MQTT 3.1.1 section 3.2.2.1", "MQTT-3.2.2-1"), "a reserved acknowledge flag is set")
	}
	c.SessionPresent = flags&1 != 0
	if v == V5 {
		c.Reason = r.reason(TypeConnack, "MQTT-3.2.2-8")
	} else {
		c.Reason = decodeReturnCode(&r)
	}
	if c.SessionPresent && c.Reason != Success {
		r.fail(ProtocolError, pick(v, "MQTT-3.2.2-4", "MQTT-3.2.2-6"), "a refused connection has a session")
	}
	r.properties(&c.Properties, inConnack)
	return r.end()
}

func decodeReturnCode(r *reader) ReasonCode {
	code := r.uint8()
	if int(code) >= len(connackReasons) {
		r.fail(ProtocolError, "MQTT 3.1.1 section 3.2.2.3", "the return code is reserved")
		return 0
	}
	return connackReasons[code]
}

// Append adds the packet to dst. For MQTT 3.1.1 a reason without a return code
// is written as 3, Server unavailable.
func (c *Connack) Append(dst []byte, v Version) []byte {
	var flags byte
	if c.SessionPresent {
		flags = 1
	}
	dst, body := open(dst, TypeConnack, 0)
	if v == V5 {
		dst = append(dst, flags, byte(c.Reason))
		return seal(c.Properties.append(dst), body)
	}
	code, ok := ConnackReturnCode(c.Reason)
	if !ok {
		code, _ = ConnackReturnCode(ServerUnavailable)
	}
	return seal(append(dst, flags, code), body)
}

// Detail shows the reason and the properties that are present.
func (c *Connack) Detail() string {
	return fmt.Sprintf("CONNACK 0x%02X %s session=%t%s", byte(c.Reason), c.Reason, c.SessionPresent, c.Properties.detail())
}
