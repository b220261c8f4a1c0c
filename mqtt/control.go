package mqtt

import "fmt"

// Pingreq is a PINGREQ packet (section 3.12). It has no content.
type Pingreq struct{}

// Decode refuses any content.
func (*Pingreq) Decode(h FixedHeader, body []byte, v Version) error {
	return decodeEmpty(TypePingreq, h, body, v)
}

// Append adds the two bytes of the packet to dst.
func (*Pingreq) Append(dst []byte, _ Version) []byte {
	return append(dst, byte(TypePingreq)<<4, 0)
}

// Detail is the name of the packet.
func (*Pingreq) Detail() string { return TypePingreq.String() }

// Pingresp is a PINGRESP packet (section 3.13). It has no content.
type Pingresp struct{}

// Decode refuses any content.
func (*Pingresp) Decode(h FixedHeader, body []byte, v Version) error {
	return decodeEmpty(TypePingresp, h, body, v)
}

// Append adds the two bytes of the packet to dst.
func (*Pingresp) Append(dst []byte, _ Version) []byte {
	return append(dst, byte(TypePingresp)<<4, 0)
}

// Detail is the name of the packet.
func (*Pingresp) Detail() string { return TypePingresp.String() }

func decodeEmpty(t PacketType, h FixedHeader, body []byte, v Version) error {
	err := h.check(t, body, v)
	if err != nil {
		return err
	}
	r := reader{b: body, v: v}
	return r.end()
}

// Disconnect is a DISCONNECT packet (section 3.14 of both specifications).
type Disconnect struct {
	Reason     ReasonCode // MQTT 5; 0 means Normal disconnection
	Properties Properties // MQTT 5
}

// Decode takes an empty body for reason 0, and one byte for a reason without
// properties (MQTT 5.0 section 3.14.2).
func (d *Disconnect) Decode(h FixedHeader, body []byte, v Version) error {
	*d = Disconnect{}
	err := h.check(TypeDisconnect, body, v)
	if err != nil {
		return err
	}
	r := reader{b: body, v: v}
	if v == V5 && r.rest() > 0 {
		d.Reason = r.reason(TypeDisconnect, "MQTT-3.14.2-1")
	}
	if v == V5 && r.rest() > 0 {
		r.properties(&d.Properties, inDisconnect)
	}
	return r.end()
}

// Append adds the packet in its shortest form.
func (d *Disconnect) Append(dst []byte, v Version) []byte {
	dst, body := open(dst, TypeDisconnect, 0)
	if v == V5 {
		dst = appendOutcome(dst, d.Reason, &d.Properties)
	}
	return seal(dst, body)
}

// Detail shows the reason.
func (d *Disconnect) Detail() string {
	reason := d.Reason.String()
	if d.Reason == Success {
		reason = "Normal disconnection"
	}
	return fmt.Sprintf("DISCONNECT 0x%02X %s%s", byte(d.Reason), reason, d.Properties.detail())
}

// Auth is an AUTH packet (MQTT 5.0 section 3.15).
type Auth struct {
	Reason     ReasonCode // Success, ContinueAuthentication or Reauthenticate
	Properties Properties // with an Authentication Method, unless the packet is empty
}

// Decode takes an empty body for Success without properties (MQTT 5.0 section
// 3.15.2.1). MQTT 3.1.1 has no such packet.
func (a *Auth) Decode(h FixedHeader, body []byte, v Version) error {
	*a = Auth{}
	if v != V5 {
		return protocolError("MQTT 3.1.1 section 2.2.1", "there is no AUTH packet in MQTT 3.1.1")
	}
	err := h.check(TypeAuth, body, v)
	if err != nil || len(body) == 0 {
		return err
	}
	r := reader{b: body, v: v}
	a.Reason = r.reason(TypeAuth, "MQTT-3.15.2-1")
	r.properties(&a.Properties, inAuth)
	if r.err == nil && !a.Properties.Has(PropAuthMethod) {
		r.fail(ProtocolError, "MQTT 5.0 section 3.15.2.2.2", "there is no Authentication Method")
	}
	return r.end()
}

// Append adds the packet to dst, for MQTT 5 whatever the version.
func (a *Auth) Append(dst []byte, _ Version) []byte {
	dst, body := open(dst, TypeAuth, 0)
	if a.Reason != Success || !a.Properties.Empty() {
		dst = a.Properties.append(append(dst, byte(a.Reason)))
	}
	return seal(dst, body)
}

// Detail shows the reason and the method, not the data.
func (a *Auth) Detail() string {
	return fmt.Sprintf("AUTH 0x%02X %s method=%q%s", byte(a.Reason), a.Reason, a.Properties.AuthMethod, a.Properties.detail())
}
