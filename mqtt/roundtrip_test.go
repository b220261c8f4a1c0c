package mqtt_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint/mqtt"
)

// The generators below draw packets that the specification allows, so every one
// of them must survive Append, ParseFixedHeader and Decode unchanged.

func TestEveryValidPacketSurvivesItsRoundTrip(t *testing.T) {
	t.Parallel()
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		for typ := mqtt.TypeConnect; typ <= mqtt.TypeAuth; typ++ {
			if typ == mqtt.TypeAuth && v != mqtt.V5 {
				continue
			}
			t.Run(v.String()+" "+typ.String(), func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, func(t *rapid.T) { roundTrip(t, v, typ) })
			})
		}
	}
}

func roundTrip(t *rapid.T, v mqtt.Version, typ mqtt.PacketType) {
	want := drawPacket(t, v, typ)
	raw := want.Append(nil, v)
	h, ok, err := mqtt.ParseFixedHeader(append(raw, 0xff))
	if err != nil || !ok || h.Size+h.Remaining != len(raw) || h.Type != typ {
		t.Fatalf("header: got %+v, %t, %v, want %s of %d bytes", h, ok, err, typ, len(raw))
	}
	got, err := decode(raw, v)
	if err != nil {
		t.Fatalf("got error %v, want none for %x", err, raw)
	}
	if diff := same(want, got); diff != "" {
		t.Errorf("value (-want +got):\n%s", diff)
	}
	p, isPublish := want.(*mqtt.Publish)
	if isPublish {
		split := append(p.AppendHeader(nil, v, len(p.Payload)), p.Payload...)
		if string(split) != string(raw) || p.Size(v) != len(raw) {
			t.Errorf("got header and payload %x and size %d, want %x", split, p.Size(v), raw)
		}
	}
}

func drawPacket(t *rapid.T, v mqtt.Version, typ mqtt.PacketType) mqtt.Packet {
	switch typ {
	case mqtt.TypeConnect:
		return drawConnect(t, v)
	case mqtt.TypeConnack:
		return drawConnack(t, v)
	case mqtt.TypePublish:
		return drawPublish(t, v)
	case mqtt.TypePuback, mqtt.TypePubrec, mqtt.TypePubrel, mqtt.TypePubcomp:
		a := &mqtt.Ack{Type: typ, PacketID: drawID(t)}
		if v == mqtt.V5 {
			a.Reason = drawReason(t, typ)
			a.Properties = drawProperties(t, v, mqtt.PropReasonString, mqtt.PropUser)
		}
		return a
	case mqtt.TypeSubscribe:
		return drawSubscribe(t, v)
	case mqtt.TypeSuback:
		codes := rapid.SampledFrom([]mqtt.ReasonCode{0, 1, 2, 0x80})
		if v == mqtt.V5 {
			codes = reasonsOf(typ)
		}
		return &mqtt.Suback{PacketID: drawID(t), Codes: rapid.SliceOfN(codes, 1, 10).Draw(t, "codes"),
			Properties: drawProperties(t, v, mqtt.PropReasonString, mqtt.PropUser)}
	case mqtt.TypeUnsubscribe:
		return &mqtt.Unsubscribe{PacketID: drawID(t), Properties: drawProperties(t, v, mqtt.PropUser),
			Filters: rapid.SliceOfN(rapid.Custom(drawFilter), 1, 5).Draw(t, "filters")}
	case mqtt.TypeUnsuback:
		u := &mqtt.Unsuback{PacketID: drawID(t), Properties: drawProperties(t, v, mqtt.PropReasonString, mqtt.PropUser)}
		if v == mqtt.V5 {
			u.Codes = rapid.SliceOfN(reasonsOf(typ), 1, 10).Draw(t, "codes")
		}
		return u
	case mqtt.TypePingreq:
		return &mqtt.Pingreq{}
	case mqtt.TypePingresp:
		return &mqtt.Pingresp{}
	case mqtt.TypeDisconnect:
		d := &mqtt.Disconnect{}
		if v == mqtt.V5 {
			d.Reason = drawReason(t, typ)
			d.Properties = drawProperties(t, v, mqtt.PropSessionExpiry, mqtt.PropServerReference, mqtt.PropReasonString, mqtt.PropUser)
		}
		return d
	}
	a := &mqtt.Auth{Reason: drawReason(t, typ), Properties: drawProperties(t, v, mqtt.PropAuthData, mqtt.PropReasonString, mqtt.PropUser)}
	a.Properties.AuthMethod = drawText(t)
	a.Properties.Mark(mqtt.PropAuthMethod)
	return a
}

func drawConnect(t *rapid.T, v mqtt.Version) *mqtt.Connect {
	c := &mqtt.Connect{Version: v, CleanStart: rapid.Bool().Draw(t, "clean"), KeepAlive: rapid.Uint16().Draw(t, "keep alive"),
		ClientID: drawText(t), HasUsername: rapid.Bool().Draw(t, "has user"), HasPassword: rapid.Bool().Draw(t, "has password"),
		Properties: drawProperties(t, v, mqtt.PropSessionExpiry, mqtt.PropAuthMethod, mqtt.PropRequestProblemInfo,
			mqtt.PropRequestResponseInfo, mqtt.PropReceiveMaximum, mqtt.PropTopicAliasMaximum, mqtt.PropUser, mqtt.PropMaximumPacketSize)}
	if v != mqtt.V5 {
		c.CleanStart = c.CleanStart || c.ClientID == ""
		c.HasPassword = c.HasPassword && c.HasUsername
	}
	if c.HasUsername {
		c.Username = drawText(t)
	}
	if c.HasPassword {
		c.Password = drawBytes(t)
	}
	if rapid.Bool().Draw(t, "has will") {
		c.Will = &mqtt.Will{Topic: drawTopic(t), Payload: drawBytes(t), QoS: drawQoS(t), Retain: rapid.Bool().Draw(t, "retain"),
			Properties: drawProperties(t, v, mqtt.PropPayloadFormat, mqtt.PropMessageExpiry, mqtt.PropContentType,
				mqtt.PropResponseTopic, mqtt.PropCorrelationData, mqtt.PropWillDelay, mqtt.PropUser)}
	}
	return c
}

func drawConnack(t *rapid.T, v mqtt.Version) *mqtt.Connack {
	c := &mqtt.Connack{Properties: drawProperties(t, v, mqtt.PropSessionExpiry, mqtt.PropAssignedClientID, mqtt.PropServerKeepAlive,
		mqtt.PropAuthMethod, mqtt.PropResponseInfo, mqtt.PropServerReference, mqtt.PropReasonString, mqtt.PropReceiveMaximum,
		mqtt.PropTopicAliasMaximum, mqtt.PropMaximumQoS, mqtt.PropRetainAvailable, mqtt.PropUser, mqtt.PropMaximumPacketSize,
		mqtt.PropWildcardAvailable, mqtt.PropSubscriptionIDAvailable, mqtt.PropSharedAvailable)}
	c.Reason = rapid.SampledFrom([]mqtt.ReasonCode{0, 0x84, 0x85, 0x86, 0x87, 0x88}).Draw(t, "return code")
	if v == mqtt.V5 {
		c.Reason = drawReason(t, mqtt.TypeConnack)
	}
	c.SessionPresent = c.Reason == mqtt.Success && rapid.Bool().Draw(t, "session")
	return c
}

func drawPublish(t *rapid.T, v mqtt.Version) *mqtt.Publish {
	p := &mqtt.Publish{Topic: []byte(drawTopic(t)), Payload: drawBytes(t), QoS: drawQoS(t), Retain: rapid.Bool().Draw(t, "retain"),
		Properties: drawProperties(t, v, mqtt.PropPayloadFormat, mqtt.PropMessageExpiry, mqtt.PropContentType, mqtt.PropResponseTopic,
			mqtt.PropCorrelationData, mqtt.PropTopicAlias, mqtt.PropSubscriptionID, mqtt.PropUser)}
	if p.Properties.Has(mqtt.PropTopicAlias) && rapid.Bool().Draw(t, "alias only") {
		p.Topic = nil
	}
	if p.QoS > 0 {
		p.PacketID = drawID(t)
		p.Dup = rapid.Bool().Draw(t, "dup")
	}
	return p
}

func drawSubscribe(t *rapid.T, v mqtt.Version) *mqtt.Subscribe {
	s := &mqtt.Subscribe{PacketID: drawID(t), Properties: drawProperties(t, v, mqtt.PropSubscriptionID, mqtt.PropUser)}
	if len(s.Properties.SubscriptionIDs) > 1 {
		s.Properties.SubscriptionIDs = s.Properties.SubscriptionIDs[:1]
	}
	for range rapid.IntRange(1, 9).Draw(t, "filters") {
		sub := mqtt.Subscription{Filter: drawFilter(t), QoS: drawQoS(t)}
		if v == mqtt.V5 {
			sub.NoLocal = rapid.Bool().Draw(t, "no local") && !strings.HasPrefix(sub.Filter, "$share/")
			sub.RetainAsPublished = rapid.Bool().Draw(t, "retain as published")
			sub.RetainHandling = rapid.ByteRange(0, 2).Draw(t, "retain handling")
		}
		s.Filters = append(s.Filters, sub)
	}
	return s
}

// drawProperties sets some of the given properties; none for MQTT 3.1.1.
func drawProperties(t *rapid.T, v mqtt.Version, ids ...mqtt.PropertyID) mqtt.Properties {
	var p mqtt.Properties
	if v != mqtt.V5 {
		return p
	}
	for _, id := range ids {
		if rapid.Bool().Draw(t, id.String()) {
			drawProperty(t, &p, id)
			p.Mark(id)
		}
	}
	return p
}

func drawProperty(t *rapid.T, p *mqtt.Properties, id mqtt.PropertyID) {
	flags := map[mqtt.PropertyID]*byte{
		mqtt.PropPayloadFormat: &p.PayloadFormat, mqtt.PropRequestProblemInfo: &p.RequestProblemInfo,
		mqtt.PropRequestResponseInfo: &p.RequestResponseInfo, mqtt.PropMaximumQoS: &p.MaximumQoS,
		mqtt.PropRetainAvailable: &p.RetainAvailable, mqtt.PropWildcardAvailable: &p.WildcardAvailable,
		mqtt.PropSubscriptionIDAvailable: &p.SubscriptionIDAvailable, mqtt.PropSharedAvailable: &p.SharedAvailable,
	}
	shorts := map[mqtt.PropertyID]*uint16{
		mqtt.PropServerKeepAlive: &p.ServerKeepAlive, mqtt.PropReceiveMaximum: &p.ReceiveMaximum,
		mqtt.PropTopicAliasMaximum: &p.TopicAliasMaximum, mqtt.PropTopicAlias: &p.TopicAlias,
	}
	longs := map[mqtt.PropertyID]*uint32{
		mqtt.PropMessageExpiry: &p.MessageExpiry, mqtt.PropSessionExpiry: &p.SessionExpiry,
		mqtt.PropWillDelay: &p.WillDelay, mqtt.PropMaximumPacketSize: &p.MaximumPacketSize,
	}
	texts := map[mqtt.PropertyID]*string{
		mqtt.PropContentType: &p.ContentType, mqtt.PropAssignedClientID: &p.AssignedClientID, mqtt.PropAuthMethod: &p.AuthMethod,
		mqtt.PropResponseInfo: &p.ResponseInfo, mqtt.PropServerReference: &p.ServerReference, mqtt.PropReasonString: &p.ReasonString,
	}
	switch {
	case flags[id] != nil:
		*flags[id] = rapid.ByteRange(0, 1).Draw(t, "flag")
	case shorts[id] != nil:
		*shorts[id] = rapid.Uint16Min(1).Draw(t, "short")
	case longs[id] != nil:
		*longs[id] = rapid.Uint32Min(1).Draw(t, "long")
	case texts[id] != nil:
		*texts[id] = drawText(t)
	case id == mqtt.PropResponseTopic:
		p.ResponseTopic = drawTopic(t)
	case id == mqtt.PropCorrelationData:
		p.CorrelationData = drawBytes(t)
	case id == mqtt.PropAuthData:
		p.AuthData = drawBytes(t)
	case id == mqtt.PropSubscriptionID:
		p.SubscriptionIDs = rapid.SliceOfN(rapid.Uint32Range(1, mqtt.MaxRemaining), 1, 4).Draw(t, "ids")
	case id == mqtt.PropUser:
		for range rapid.IntRange(1, 6).Draw(t, "pairs") {
			p.User = append(p.User, mqtt.UserProperty{Key: drawText(t), Value: drawText(t)})
		}
	default:
		t.Fatalf("couldn't draw a value for %s", id)
	}
}

func reasonsOf(typ mqtt.PacketType) *rapid.Generator[mqtt.ReasonCode] {
	var codes []mqtt.ReasonCode
	for c := range 256 {
		if mqtt.ReasonCode(c).AllowedIn(typ) {
			codes = append(codes, mqtt.ReasonCode(c))
		}
	}
	return rapid.SampledFrom(codes)
}

func drawReason(t *rapid.T, typ mqtt.PacketType) mqtt.ReasonCode {
	return reasonsOf(typ).Draw(t, "reason")
}

func drawID(t *rapid.T) uint16 { return rapid.Uint16Min(1).Draw(t, "packet id") }

func drawQoS(t *rapid.T) mqtt.QoS { return mqtt.QoS(rapid.ByteRange(0, 2).Draw(t, "qos")) }

func drawBytes(t *rapid.T) []byte {
	size := rapid.SampledFrom([]int{0, 1, 100, 200, 20_000}).Draw(t, "most bytes")
	if size == 20_000 {
		return make([]byte, size)
	}
	return rapid.SliceOfN(rapid.Byte(), 0, size).Draw(t, "bytes")
}

// drawText draws any text that MQTT allows, of up to some hundred bytes.
func drawText(t *rapid.T) string {
	return rapid.StringN(0, 60, 200).Filter(func(s string) bool {
		return !strings.ContainsRune(s, 0) && strings.ToValidUTF8(s, "") == s
	}).Draw(t, "text")
}

func drawTopic(t *rapid.T) string {
	s := strings.NewReplacer("+", "p", "#", "h").Replace(drawText(t))
	if s == "" {
		return "/"
	}
	return s
}

func drawFilter(t *rapid.T) string {
	levels := rapid.StringMatching(`(\$share/[a-z]{1,5}/)?(\+|[^+#/\x00]{0,6})(/(\+|[^+#/\x00]{0,6})){0,7}(/#)?`)
	return levels.Filter(func(s string) bool {
		_, _, _, err := mqtt.ParseSharedFilter(s)
		return err == nil
	}).Draw(t, "filter")
}
