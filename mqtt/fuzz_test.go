package mqtt_test

import (
	"errors"
	"testing"

	"github.com/imprint-iot/imprint/mqtt"
)

// fuzzPacket feeds bodies to the decoder of one packet type. Property: it does
// not panic, every refusal is an *mqtt.Error with code and rule, and what it
// accepts encodes to a packet that decodes to the same value.
func fuzzPacket(f *testing.F, types ...mqtt.PacketType) {
	f.Helper()
	for _, x := range fixtures() {
		seedPacket(f, wire(f, x.wire), x.v, types)
	}
	for _, list := range [][]refusal{connectRefusals(), publishRefusals(), propertyRefusals(), subscriptionRefusals(), answerRefusals()} {
		for _, x := range list {
			seedPacket(f, wire(f, x.wire), x.v, types)
		}
	}
	f.Fuzz(func(t *testing.T, first byte, body []byte, five bool) {
		v := mqtt.V311
		if five {
			v = mqtt.V5
		}
		typ := types[int(first>>4)%len(types)]
		h := mqtt.FixedHeader{Type: typ, Flags: first & 0x0f, Remaining: len(body), Size: 2}
		checkDecoder(t, h, body, v)
	})
}

func seedPacket(f *testing.F, raw []byte, v mqtt.Version, types []mqtt.PacketType) {
	f.Helper()
	h, ok, err := mqtt.ParseFixedHeader(raw)
	if err != nil || !ok {
		return
	}
	for i, typ := range types {
		if typ == h.Type {
			f.Add(byte(i)<<4|h.Flags, raw[h.Size:], v == mqtt.V5)
		}
	}
}

func checkDecoder(t *testing.T, h mqtt.FixedHeader, body []byte, v mqtt.Version) {
	t.Helper()
	p := mqtt.NewPacket(h.Type)
	err := p.Decode(h, body, v)
	if err != nil {
		var refused *mqtt.Error
		if !errors.As(err, &refused) || !refused.Code.Failure() || refused.Rule == "" {
			t.Fatalf("got error %v, want an *mqtt.Error with code and rule", err)
		}
		return
	}
	connect, isConnect := p.(*mqtt.Connect)
	if isConnect {
		v = connect.Version
	}
	raw := p.Append(nil, v)
	again, err := decode(raw, v)
	if err != nil {
		t.Fatalf("second decode: got error %v, want none for %x", err, raw)
	}
	if diff := same(p, again); diff != "" {
		t.Errorf("second value (-first +second):\n%s", diff)
	}
	if p.Detail() == "" {
		t.Error("got an empty detail, want a line")
	}
}

func FuzzConnect(f *testing.F)     { fuzzPacket(f, mqtt.TypeConnect) }
func FuzzConnack(f *testing.F)     { fuzzPacket(f, mqtt.TypeConnack) }
func FuzzPublish(f *testing.F)     { fuzzPacket(f, mqtt.TypePublish) }
func FuzzSubscribe(f *testing.F)   { fuzzPacket(f, mqtt.TypeSubscribe) }
func FuzzSuback(f *testing.F)      { fuzzPacket(f, mqtt.TypeSuback) }
func FuzzUnsubscribe(f *testing.F) { fuzzPacket(f, mqtt.TypeUnsubscribe) }
func FuzzUnsuback(f *testing.F)    { fuzzPacket(f, mqtt.TypeUnsuback) }
func FuzzDisconnect(f *testing.F)  { fuzzPacket(f, mqtt.TypeDisconnect) }
func FuzzAuth(f *testing.F)        { fuzzPacket(f, mqtt.TypeAuth) }
func FuzzPing(f *testing.F)        { fuzzPacket(f, mqtt.TypePingreq, mqtt.TypePingresp) }
func FuzzAck(f *testing.F) {
	fuzzPacket(f, mqtt.TypePuback, mqtt.TypePubrec, mqtt.TypePubrel, mqtt.TypePubcomp)
}

// FuzzStream reads packet after packet as a connection does. Property: a header
// never lies about its size, and each packet obeys the property of fuzzPacket.
func FuzzStream(f *testing.F) {
	for _, x := range fixtures() {
		f.Add(wire(f, x.wire), x.v == mqtt.V5)
	}
	for _, x := range headerRefusals() {
		f.Add(wire(f, x.wire), x.v == mqtt.V5)
	}
	f.Fuzz(func(t *testing.T, stream []byte, five bool) {
		v := mqtt.V311
		if five {
			v = mqtt.V5
		}
		for {
			h, ok, err := mqtt.ParseFixedHeader(stream)
			if err != nil || !ok {
				return
			}
			if h.Size < 2 || h.Size > 5 || h.Size > len(stream) || h.Remaining < 0 || h.Remaining > mqtt.MaxRemaining {
				t.Fatalf("got header %+v for %x, want sizes in range", h, stream)
			}
			if len(stream) < h.Size+h.Remaining {
				return
			}
			checkDecoder(t, h, stream[h.Size:h.Size+h.Remaining], v)
			stream = stream[h.Size+h.Remaining:]
		}
	})
}

// FuzzTopic holds the functions on topics against each other. Property: a name
// is a filter that matches itself, a shared filter splits into parts that join
// again, and whatever AWS matches the standard matches.
func FuzzTopic(f *testing.F) {
	for _, s := range []string{"a/b", "a/#", "+/b", "#", "$share/g/a/+", "$share//", "$SYS/x", "/", "a+", "\xff", "\x00", ""} {
		f.Add(s, "a/b")
	}
	f.Fuzz(func(t *testing.T, filter, topic string) {
		if mqtt.ValidTopicName(topic) && (!mqtt.ValidTopicFilter(topic) || !mqtt.Match(topic, topic)) {
			t.Errorf("got topic name %q that is no filter or does not match itself", topic)
		}
		if mqtt.Match(filter, topic) && !mqtt.MatchStandard(filter, topic) {
			t.Errorf("Match(%q, %q): got true, want no match that the standard does not have", filter, topic)
		}
		group, inner, shared, err := mqtt.ParseSharedFilter(filter)
		if err != nil {
			return
		}
		if !mqtt.ValidTopicFilter(filter) || !mqtt.ValidTopicFilter(inner) {
			t.Errorf("got %q and %q out of %q, want valid filters", group, inner, filter)
		}
		if shared && "$share/"+group+"/"+inner != filter || !shared && inner != filter {
			t.Errorf("got %q and %q out of %q, want its parts", group, inner, filter)
		}
	})
}
