package mqtt_test

import (
	"testing"

	"github.com/imprint-iot/imprint/mqtt"
)

// FuzzPlainPuback ensures that what PlainPuback reads is what Decode reads.
func FuzzPlainPuback(f *testing.F) {
	for _, seed := range []string{"\x40\x02\x00\x07", "\x40\x02\x00\x00", "\x40\x82\x00\x00\x07", "\x40\x03\x00\x07\x00", "\x41\x02\x00\x07", "\x50\x02\x00\x07", "\x40\x02\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok, err := mqtt.ParseFixedHeader(b)
		if err != nil || !ok || len(b) < h.Size+h.Remaining {
			return
		}
		body := b[h.Size : h.Size+h.Remaining]
		id, plain := mqtt.PlainPuback(h, body)
		for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
			var ack mqtt.Ack
			err := ack.Decode(h, body, v)
			if plain && (err != nil || ack.Type != mqtt.TypePuback || ack.PacketID != id || ack.Reason != mqtt.Success) {
				t.Errorf("got %d, Decode says %+v, %v", id, ack, err)
			}
			if !plain && err == nil && ack.Type == mqtt.TypePuback && len(body) == 2 && h.Size == 2 {
				t.Errorf("%x is plain", b)
			}
		}
	})
}
