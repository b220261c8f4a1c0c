package mqtt

// MaxRemaining is the largest Remaining Length that four bytes can express
// (MQTT 5.0 section 1.5.5).
const MaxRemaining = 268_435_455

// FixedHeader is the start of every packet (MQTT 5.0 section 2.1.1).
type FixedHeader struct {
	Type      PacketType
	Flags     byte // the low four bits of the first byte
	Remaining int  // bytes of the packet after the fixed header
	Size      int  // bytes of the fixed header itself, 2 to 5
}

// ParseFixedHeader reads the fixed header at the start of b. It reports false
// without an error when b is too short to tell. It refuses type 0, flags that
// the type does not allow, and a Remaining Length of more than four bytes; each
// as soon as it can be seen. It does not know the version, so it lets AUTH
// pass, and a Remaining Length with needless leading bytes, which MQTT 3.1.1
// does not forbid; Decode refuses that for MQTT 5.
func ParseFixedHeader(b []byte) (FixedHeader, bool, error) {
	if len(b) == 0 {
		return FixedHeader{}, false, nil
	}
	h := FixedHeader{Type: PacketType(b[0] >> 4), Flags: b[0] & 0x0f}
	err := h.checkFlags()
	if err != nil {
		return FixedHeader{}, false, err
	}
	for i := 1; i <= 4; i++ {
		if i >= len(b) {
			return FixedHeader{}, false, nil
		}
		h.Remaining |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i] < 0x80 {
			h.Size = i + 1
			return h, true, nil
		}
	}
	return FixedHeader{}, false, malformed("MQTT-1.5.5-1", "the Remaining Length has more than four bytes")
}

// checkFlags holds the flags against the type: MQTT 5.0 section 2.1.3.
func (h FixedHeader) checkFlags() error {
	var want byte
	rule := "MQTT-2.1.3-1"
	switch h.Type {
	case TypePublish:
		return checkPublishFlags(h.Flags)
	case TypePubrel:
		want, rule = 0x02, "MQTT-3.6.1-1"
	case TypeSubscribe:
		want, rule = 0x02, "MQTT-3.8.1-1"
	case TypeUnsubscribe:
		want, rule = 0x02, "MQTT-3.10.1-1"
	case TypeDisconnect:
		rule = "MQTT-3.14.1-1"
	case TypeAuth:
		rule = "MQTT-3.15.1-1"
	case 0:
		return malformed("MQTT 5.0 section 2.1.2", "packet type 0 is forbidden")
	}
	if h.Flags != want {
		return malformed(rule, "the flags of the fixed header have a reserved value")
	}
	return nil
}

func checkPublishFlags(flags byte) error {
	switch flags & 0x0e {
	case 0x06, 0x0e:
		return malformed("MQTT-3.3.1-4", "both QoS bits are set")
	case 0x08:
		return malformed("MQTT-3.3.1-2", "DUP is set in a QoS 0 message")
	}
	return nil
}

// check makes sure that h announces type t with this body, so that a Decode
// does not depend on where its header came from.
func (h FixedHeader) check(t PacketType, body []byte, v Version) error {
	if h.Type != t {
		return protocolError(closeRule(v), "the packet is of another type than its decoder")
	}
	if h.Remaining != len(body) {
		return malformed(closeRule(v), "the body does not have the announced length")
	}
	if v == V5 && h.Size > 1+varintLen(h.Remaining) {
		return malformed("MQTT-1.5.5-1", "the Remaining Length has needless bytes")
	}
	return h.checkFlags()
}
