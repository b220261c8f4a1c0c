package broker

import (
	"testing"
	"time"
)

// TestPublishersShareOneWindow ensures that many publishers that wait for one client
// don't judge it by the moments between their own windows' ends.
func TestPublishersShareOneWindow(t *testing.T) {
	t.Parallel()
	began := time.Unix(0, 0)
	m := paceMark{at: began}
	taken := int64(0)
	for ms := range 500 {
		taken += 4 << 10 // in each millisecond: three times what is fair
		if m.slow(began.Add(time.Duration(ms)*time.Millisecond), taken) {
			t.Fatalf("after %d ms a client that takes 4 MB/s counts as slow", ms)
		}
	}
	if !m.slow(began.Add(time.Second), taken) {
		t.Error("a client that took nothing for half a second doesn't count as slow")
	}
}
