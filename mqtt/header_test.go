package mqtt_test

import (
	"testing"

	"github.com/imprint-iot/imprint/mqtt"
)

func TestParseFixedHeaderReadsEveryLengthOfTheRemainingLength(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		wire string
		want mqtt.FixedHeader
	}{
		{"30 00", mqtt.FixedHeader{Type: mqtt.TypePublish, Size: 2}},
		{"3d 7f", mqtt.FixedHeader{Type: mqtt.TypePublish, Flags: 0x0d, Remaining: 127, Size: 2}},
		{"30 8001", mqtt.FixedHeader{Type: mqtt.TypePublish, Remaining: 128, Size: 3}},
		{"30 ff7f", mqtt.FixedHeader{Type: mqtt.TypePublish, Remaining: 16_383, Size: 3}},
		{"30 808001", mqtt.FixedHeader{Type: mqtt.TypePublish, Remaining: 16_384, Size: 4}},
		{"30 ffff7f", mqtt.FixedHeader{Type: mqtt.TypePublish, Remaining: 2_097_151, Size: 4}},
		{"30 80808001", mqtt.FixedHeader{Type: mqtt.TypePublish, Remaining: 2_097_152, Size: 5}},
		{"30 ffffff7f", mqtt.FixedHeader{Type: mqtt.TypePublish, Remaining: mqtt.MaxRemaining, Size: 5}},
		{"f0 00", mqtt.FixedHeader{Type: mqtt.TypeAuth, Size: 2}},
	} {
		raw := wire(t, c.wire)
		got, ok, err := mqtt.ParseFixedHeader(append(raw, 0xff, 0xff))
		if err != nil || !ok || got != c.want {
			t.Errorf("%s: got %+v, %t, %v, want %+v", c.wire, got, ok, err, c.want)
		}
		for n := range raw {
			_, ok, err = mqtt.ParseFixedHeader(raw[:n])
			if ok || err != nil {
				t.Errorf("%s cut to %d bytes: got %t, %v, want a request for more", c.wire, n, ok, err)
			}
		}
	}
}

func TestParseFixedHeaderRefusesAtTheFirstByteThatIsWrong(t *testing.T) {
	t.Parallel()
	_, _, err := mqtt.ParseFixedHeader([]byte{0x81})
	checkRefusal(t, err, malformed, "MQTT-3.8.1-1")
	_, _, err = mqtt.ParseFixedHeader([]byte{0x30, 0xff, 0xff, 0xff, 0xff})
	checkRefusal(t, err, malformed, "MQTT-1.5.5-1")
}

func TestAppendWritesRemainingLengthsOfEverySize(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 120, 122, 16_300, 16_380, 70_000, 2_097_140, 2_097_160} {
		p := &mqtt.Publish{Topic: []byte("t"), Payload: make([]byte, size)}
		raw := p.Append(nil, mqtt.V311)
		if len(raw) != p.Size(mqtt.V311) {
			t.Errorf("payload of %d bytes: got %d bytes, want Size %d", size, len(raw), p.Size(mqtt.V311))
		}
		got, err := decode(raw, mqtt.V311)
		if err != nil {
			t.Fatalf("payload of %d bytes: got error %v, want none", size, err)
		}
		if n := len(got.(*mqtt.Publish).Payload); n != size {
			t.Errorf("got a payload of %d bytes, want %d", n, size)
		}
	}
	for _, filters := range []int{1, 20, 30, 4000, 5000, 500_000} {
		p := &mqtt.Unsubscribe{PacketID: 1}
		for range filters {
			p.Filters = append(p.Filters, "a/b")
		}
		got, err := decode(p.Append(nil, mqtt.V311), mqtt.V311)
		if err != nil {
			t.Fatalf("%d filters: got error %v, want none", filters, err)
		}
		if n := len(got.(*mqtt.Unsubscribe).Filters); n != filters {
			t.Errorf("got %d filters, want %d", n, filters)
		}
	}
}

func TestConnackAndSubackTranslateForMQTT311(t *testing.T) {
	t.Parallel()
	raw := (&mqtt.Connack{Reason: mqtt.QuotaExceeded}).Append(nil, mqtt.V311)
	if want := wire(t, "20 | 00 03"); string(raw) != string(want) {
		t.Errorf("CONNACK: got %x, want %x", raw, want)
	}
	raw = (&mqtt.Suback{PacketID: 1, Codes: []mqtt.ReasonCode{1, mqtt.NotAuthorized}}).Append(nil, mqtt.V311)
	if want := wire(t, "90 | 0001 01 80"); string(raw) != string(want) {
		t.Errorf("SUBACK: got %x, want %x", raw, want)
	}
	_, ok := mqtt.ConnackReturnCode(mqtt.QuotaExceeded)
	if ok {
		t.Error("got a return code for Quota exceeded, want none")
	}
}

func TestReasonCodesHaveTheirPlacesAndNames(t *testing.T) {
	t.Parallel()
	named := 0
	for c := range 256 {
		code := mqtt.ReasonCode(c)
		allowed := false
		for typ := range mqtt.TypeAuth + 2 {
			allowed = allowed || code.AllowedIn(typ)
		}
		if allowed {
			named++
		}
	}
	if named != 43 {
		t.Errorf("got %d codes that some packet may carry, want the 43 of MQTT 5.0 table 2-6", named)
	}
	if got := mqtt.SessionTakenOver.String(); got != "Session taken over" {
		t.Errorf("got %q, want the name in the specification", got)
	}
	if got := mqtt.ReasonCode(0x7f).String(); got != "reason code 0x7F" {
		t.Errorf("got %q, want the number", got)
	}
	if !mqtt.UnspecifiedError.Failure() || mqtt.Reauthenticate.Failure() {
		t.Error("want codes from 0x80 on, and no others, to be failures")
	}
}

func TestDecodedSlicesCannotGrowIntoTheirNeighbours(t *testing.T) {
	t.Parallel()
	raw := wire(t, "30 | s:ab t:payload")
	p, err := decode(raw, mqtt.V311)
	if err != nil {
		t.Fatalf("got error %v, want none", err)
	}
	publish := p.(*mqtt.Publish)
	_ = append(publish.Topic, "XXX"...)
	if got := string(publish.Payload); got != "payload" {
		t.Errorf("got payload %q after an append to the topic, want it unchanged", got)
	}
}

func TestDetailShowsNeitherPasswordNorPayload(t *testing.T) {
	t.Parallel()
	p := &mqtt.Connect{Version: mqtt.V5, ClientID: "dev\n1", HasPassword: true, Password: []byte("hunter2"),
		Will:       &mqtt.Will{Topic: "w", Payload: []byte("secret")},
		Properties: props(mqtt.Properties{SessionExpiry: 5, AuthMethod: "m"}, mqtt.PropSessionExpiry, mqtt.PropAuthMethod)}
	want := `CONNECT MQTT 5 client="dev\n1" clean=false keepalive=0s password=yes` +
		`, Session Expiry Interval=5, Authentication Method will="w" qos=0 retain=false payload=6 bytes`
	if got := p.Detail(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
