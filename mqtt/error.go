package mqtt

import "fmt"

// Error says why a packet, a topic name or a topic filter was refused.
type Error struct {
	// Code is what an MQTT 5 CONNACK or DISCONNECT would carry. For MQTT 3.1.1
	// it serves traces, and ConnackReturnCode.
	Code ReasonCode
	// Rule is the normative statement that was broken, such as "MQTT-3.1.2-3",
	// or the section when the statement has no id.
	Rule string
	// Msg says what is wrong, without bytes of the packet.
	Msg string
}

// Error gives message, reason code and rule in one line.
func (e *Error) Error() string {
	return fmt.Sprintf("couldn't accept MQTT data: %s (0x%02X %s, [%s])", e.Msg, byte(e.Code), e.Code, e.Rule)
}

func malformed(rule, msg string) error {
	return &Error{Code: MalformedPacket, Rule: rule, Msg: msg}
}

func protocolError(rule, msg string) error {
	return &Error{Code: ProtocolError, Rule: rule, Msg: msg}
}

// closeRule is the statement that makes a receiver close the connection on
// bytes that are no packet at all: too few, too many, of the wrong kind.
func closeRule(v Version) string {
	return pick(v, "MQTT-4.8.0-1", "MQTT-4.13.1-1")
}

// pick chooses between the numberings of the two specifications.
func pick(v Version, rule311, rule5 string) string {
	if v == V5 {
		return rule5
	}
	return rule311
}
