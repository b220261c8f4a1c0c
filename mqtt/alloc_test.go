package mqtt_test

import (
	"testing"

	"github.com/imprint-iot/imprint/mqtt"
)

type publishCase struct {
	name string
	v    mqtt.Version
	wire string
}

func publishCases() []publishCase {
	return []publishCase{
		{"3.1.1 QoS 0", mqtt.V311, "30 | s:fleet/site-7/device-000042/temperature 00000000000000000000000000000000"},
		{"3.1.1 QoS 1", mqtt.V311, "32 | s:fleet/site-7/device-000042/temperature 0007 00000000000000000000000000000000"},
		{"5 QoS 1 without properties", mqtt.V5, "32 | s:fleet/site-7/device-000042/temperature 0007 [ ] 00000000000000000000000000000000"},
		{"5 QoS 1 with alias, expiry and correlation", mqtt.V5, "32 | 0000 0007 [ 01 01 02 0000003c 09 s:corr 23 0001 ] 00000000000000000000000000000000"},
	}
}

func TestPublishIsDecodedAndAppendedWithoutAllocation(t *testing.T) {
	for _, c := range publishCases() {
		raw := wire(t, c.wire)
		dst := make([]byte, 0, 2*len(raw))
		var p mqtt.Publish
		allocations := testing.AllocsPerRun(100, func() {
			h, _, err := mqtt.ParseFixedHeader(raw)
			if err != nil {
				t.Fatalf("%s: got error %v, want none", c.name, err)
			}
			err = p.Decode(h, raw[h.Size:], c.v)
			if err != nil {
				t.Fatalf("%s: got error %v, want none", c.name, err)
			}
			dst = p.Append(dst[:0], c.v)
			dst = p.AppendHeader(dst[:0], c.v, len(p.Payload))
		})
		if allocations != 0 {
			t.Errorf("%s: got %v allocations, want 0", c.name, allocations)
		}
	}
}

func TestAcknowledgementsAreDecodedAndAppendedWithoutAllocation(t *testing.T) {
	raw := wire(t, "40 | 0001 10")
	dst := make([]byte, 0, 64)
	var a mqtt.Ack
	allocations := testing.AllocsPerRun(100, func() {
		h, _, err := mqtt.ParseFixedHeader(raw)
		if err != nil {
			t.Fatalf("got error %v, want none", err)
		}
		err = a.Decode(h, raw[h.Size:], mqtt.V5)
		if err != nil {
			t.Fatalf("got error %v, want none", err)
		}
		dst = a.Append(dst[:0], mqtt.V5)
	})
	if allocations != 0 {
		t.Errorf("got %v allocations, want 0", allocations)
	}
}

func TestUserPropertiesCostTwoAllocationsForAFew(t *testing.T) {
	raw := wire(t, "30 | s:a [ 26 s:k s:v 26 s:l s:w 03 s:text/plain 08 s:re/ply ]")
	var p mqtt.Publish
	h, _, err := mqtt.ParseFixedHeader(raw)
	if err != nil {
		t.Fatalf("got error %v, want none", err)
	}
	allocations := testing.AllocsPerRun(100, func() {
		err = p.Decode(h, raw[h.Size:], mqtt.V5)
	})
	if err != nil || allocations > 2 {
		t.Errorf("got %v allocations and error %v, want at most 2 and none", allocations, err)
	}
}

func BenchmarkPublishDecode(b *testing.B) {
	cases := append(publishCases(), publishCase{"5 QoS 1 with two user properties", mqtt.V5,
		"32 | s:fleet/site-7/device-000042/temperature 0007 [ 26 s:unit s:celsius 26 s:source s:probe-1 ] 00000000000000000000000000000000"})
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			raw := wire(b, c.wire)
			var p mqtt.Publish
			b.ReportAllocs()
			for b.Loop() {
				h, _, err := mqtt.ParseFixedHeader(raw)
				if err != nil {
					b.Fatal(err)
				}
				err = p.Decode(h, raw[h.Size:h.Size+h.Remaining], c.v)
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPublishAppend(b *testing.B) {
	for _, c := range publishCases() {
		b.Run(c.name, func(b *testing.B) {
			p, err := decode(wire(b, c.wire), c.v)
			if err != nil {
				b.Fatal(err)
			}
			publish := p.(*mqtt.Publish)
			dst := make([]byte, 0, 256)
			b.ReportAllocs()
			for b.Loop() {
				dst = publish.Append(dst[:0], c.v)
			}
		})
	}
}

func BenchmarkAck(b *testing.B) {
	a := mqtt.Ack{Type: mqtt.TypePuback, PacketID: 7}
	dst := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		dst = a.Append(dst[:0], mqtt.V5)
		h, _, err := mqtt.ParseFixedHeader(dst)
		if err != nil {
			b.Fatal(err)
		}
		err = a.Decode(h, dst[h.Size:], mqtt.V5)
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if !mqtt.Match("fleet/+/device-000042/#", "fleet/site-7/device-000042/temperature") {
			b.Fatal("got no match, want one")
		}
	}
}
