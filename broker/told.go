package broker

import (
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// What the trace says that clients were sent is worded as their own logs have it.

// sent names a packet that tells a refusal.
func sent(t mqtt.PacketType, version mqtt.Version, reason mqtt.ReasonCode) string {
	switch {
	case version == mqtt.V5:
	case t == mqtt.TypeConnack:
		code, _ := mqtt.ConnackReturnCode(reason)
		return fmt.Sprintf("sent %s %d (%s)", t, code, reason)
	case t == mqtt.TypeSuback:
		return "sent SUBACK 0x80 (Failure)" // MQTT 3.1.1 section 3.9.3 has no other
	}
	return fmt.Sprintf("sent %s %#x (%s)", t, byte(reason), reason)
}

// closedWithout is the end of a connection that had a packet to expect.
func closedWithout(t mqtt.PacketType) string { return "closed without " + t.String() }

// goodbye is how a connection ended that nobody has to mend.
func (c *connection) goodbye(why *endError) string {
	if why.code != imprint.CodeClientDisconnect {
		return c.farewell(why)
	}
	if why.heard == 0 {
		return ""
	}
	return fmt.Sprintf("received DISCONNECT %#x (%s)", byte(why.heard), why.heard)
}

// farewell is what the client was sent when its connection ended; empty where it had
// gone by itself.
func (c *connection) farewell(why *endError) string {
	reason := why.reason(mqtt.TypeDisconnect)
	switch {
	case reason == 0:
		return ""
	case c.version == mqtt.V5:
		return sent(mqtt.TypeDisconnect, mqtt.V5, reason)
	case c.unanswered != 0:
		return closedWithout(c.unanswered)
	}
	return "closed the connection" // MQTT 3.1.1 has no words for it
}
