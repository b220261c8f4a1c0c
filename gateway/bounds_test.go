package gateway

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/imprint-iot/imprint"
)

// TestRatesBeyondTheBoundTakeThePlaceOfOne ensures that an account with many certificates
// doesn't have the rates of all begin anew.
func TestRatesBeyondTheBoundTakeThePlaceOfOne(t *testing.T) {
	t.Parallel()
	r := newPublishRates(1)
	for n := range maxPublishRates + 10 {
		r.allow(rateKey{id: imprint.CertificateID(fmt.Sprint(n))})
	}
	if got := len(r.buckets); got != maxPublishRates {
		t.Errorf("%d rates are kept, want %d", got, maxPublishRates)
	}
}

// TestPeersBeyondTheBoundTakeThePlaceOfOne ensures the same of who begins connections from
// many networks.
func TestPeersBeyondTheBoundTakeThePlaceOfOne(t *testing.T) {
	t.Parallel()
	var r rates
	network := netip.MustParseAddr("10.0.0.0")
	for range maxRates + 10 {
		r.take(network, 1)
		network = network.Next()
	}
	if got := len(r.buckets); got != maxRates {
		t.Errorf("%d rates are kept, want %d", got, maxRates)
	}
}

// TestNamesBeyondTheBoundTakeThePlaceOfOne ensures that names that anybody invents don't
// have those of all others be read again.
func TestNamesBeyondTheBoundTakeThePlaceOfOne(t *testing.T) {
	t.Parallel()
	var names nameTexts
	for n := range maxNames + 10 {
		names.text([]byte(fmt.Sprint(n)))
	}
	if got := len(names.known); got != maxNames {
		t.Errorf("%d names are kept, want %d", got, maxNames)
	}
}
