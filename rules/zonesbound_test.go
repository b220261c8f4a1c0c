package rules

import (
	"strings"
	"testing"
	"time"
)

// TestZonesBeyondTheBoundTakeThePlaceOfOne ensures that messages that name zones in ever
// other ways don't have those of all rules be read again.
func TestZonesBeyondTheBoundTakeThePlaceOfOne(t *testing.T) {
	t.Parallel()
	z := zones{known: map[string]*time.Location{}}
	for n := range maxZones {
		z.known[strings.Repeat("./", n)+"Europe/Berlin"] = time.UTC
	}
	_, err := z.location("Europe/Paris")
	if err != nil {
		t.Fatal(err)
	}
	if got := len(z.known); got != maxZones || z.known["Europe/Paris"] == nil {
		t.Errorf("%d zones are kept, want %d, the last among them", got, maxZones)
	}
}
