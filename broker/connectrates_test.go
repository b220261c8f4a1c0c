package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// TestConnectRatesBeyondTheBoundTakeThePlaceOfOne ensures that a client id too many doesn't
// let in all others too soon, and that one that is known takes no other's place.
func TestConnectRatesBeyondTheBoundTakeThePlaceOfOne(t *testing.T) {
	t.Parallel()
	var r realm
	now := time.Now()
	for n := range maxConnectBuckets {
		r.mayConnect(imprint.ClientID(fmt.Sprint(n)), now, 1)
	}
	if r.mayConnect("0", now, 1) || len(r.connects) != maxConnectBuckets {
		t.Errorf("a client id that is known may connect again at once, or %d are counted, want %d", len(r.connects), maxConnectBuckets)
	}
	if !r.mayConnect("new", now, 1) || len(r.connects) != maxConnectBuckets {
		t.Errorf("a new client id may not connect, or %d are counted, want %d", len(r.connects), maxConnectBuckets)
	}
}
