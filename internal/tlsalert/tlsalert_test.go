package tlsalert_test

import (
	"testing"

	"github.com/imprint-iot/imprint/internal/tlsalert"
)

// TestAlertsInTheClearAreFound ensures that an alert is found behind whatever came
// with it, and nothing else is taken for one.
func TestAlertsInTheClearAreFound(t *testing.T) {
	const changeCipherSpec = "\x14\x03\x03\x00\x01\x01"
	for _, tt := range []struct {
		name, sent string
		want       uint8
	}{
		{"alone", "\x15\x03\x03\x00\x02\x02\x30", 48},
		{"behind ChangeCipherSpec", changeCipherSpec + "\x15\x03\x03\x00\x02\x02\x2a", 42},
		{"a warning", "\x15\x03\x01\x00\x02\x01\x2d", 45},
		{"nothing", "", 0},
		{"half", "\x15\x03\x03\x00\x02\x02", 0},
		{"encrypted", "\x17\x03\x03\x00\x13\x02\x30", 0},
		{"another level", "\x15\x03\x03\x00\x02\x03\x30", 0},
		{"ChangeCipherSpec", changeCipherSpec, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tlsalert.Plain([]byte(tt.sent)); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}
