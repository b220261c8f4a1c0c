package mqtt_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/imprint-iot/imprint/mqtt"
)

// wire turns the notation of the fixtures into bytes. Tokens are hexadecimal
// bytes; s:text is a string with its two bytes of length; t:text is bare text;
// "|" is the Remaining Length of all that follows; "[" and "]" enclose
// properties and stand for their length.
func wire(t testing.TB, notation string) []byte {
	t.Helper()
	out := [][]byte{nil} // one buffer for each thing whose length comes first
	framed := false
	closeTop := func() {
		top := out[len(out)-1]
		out = out[:len(out)-1]
		outer := out[len(out)-1]
		outer = appendLength(outer, len(top))
		out[len(out)-1] = append(outer, top...)
	}
	for _, token := range strings.Fields(notation) {
		last := len(out) - 1
		text, isString := strings.CutPrefix(token, "s:")
		bare, isBare := strings.CutPrefix(token, "t:")
		switch {
		case token == "|":
			framed = true
			out = append(out, nil)
		case token == "[":
			out = append(out, nil)
		case token == "]":
			closeTop()
		case isString:
			out[last] = append(out[last], byte(len(text)>>8), byte(len(text)))
			out[last] = append(out[last], text...)
		case isBare:
			out[last] = append(out[last], bare...)
		default:
			b, err := hex.DecodeString(token)
			if err != nil {
				t.Fatalf("couldn't read token %q: %v", token, err)
			}
			out[last] = append(out[last], b...)
		}
	}
	if framed {
		closeTop()
	}
	return out[0]
}

func appendLength(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

// decode reads exactly one packet from b.
func decode(b []byte, v mqtt.Version) (mqtt.Packet, error) {
	h, ok, err := mqtt.ParseFixedHeader(b)
	if err != nil {
		return nil, err
	}
	if !ok || len(b) != h.Size+h.Remaining {
		return nil, fmt.Errorf("couldn't frame %d bytes: complete header %t, header %+v", len(b), ok, h)
	}
	p := mqtt.NewPacket(h.Type)
	err = p.Decode(h, b[h.Size:], v)
	return p, err
}

// same treats nil and empty slices alike, as the wire does. Payloads are
// compared as a whole: element by element takes seconds for large ones.
func same(want, got mqtt.Packet) string {
	whole := cmp.FilterValues(func(a, b []byte) bool { return len(a) > 0 || len(b) > 0 }, cmp.Comparer(bytes.Equal))
	return cmp.Diff(want, got, cmpopts.EquateEmpty(), whole)
}

func checkRefusal(t *testing.T, err error, code mqtt.ReasonCode, rule string) {
	t.Helper()
	var refusal *mqtt.Error
	if !errors.As(err, &refusal) {
		t.Fatalf("got error %v, want an *mqtt.Error 0x%02X %s", err, byte(code), rule)
	}
	if refusal.Code != code || refusal.Rule != rule {
		t.Errorf("got 0x%02X %s (%s), want 0x%02X %s",
			byte(refusal.Code), refusal.Rule, refusal.Msg, byte(code), rule)
	}
	if refusal.Msg == "" || !strings.Contains(err.Error(), rule) {
		t.Errorf("got message %q, want one that names the fault and the rule", err)
	}
}

// props marks every property that its argument sets.
func props(p mqtt.Properties, ids ...mqtt.PropertyID) mqtt.Properties {
	p.Mark(ids...)
	return p
}
