package broker

import (
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
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

// busy is a subscriber that is always behind and keeps pace.
type busy struct{}

func (busy) caughtUp(over <-chan time.Time, late *bool) bool {
	<-over
	*late = true
	return false
}

func (busy) keepsPace() bool { return true }

// TestAPublisherThatEndsWaitsForNobody ensures that a connection that was taken over,
// for example, goes although a subscriber of its last message takes for ever.
func TestAPublisherThatEndsWaitsForNobody(t *testing.T) {
	t.Parallel()
	c := &connection{}
	c.ended.Store(end(imprint.CodeTakenOver, "taken over"))
	done := make(chan struct{})
	go func() {
		c.awaitRoom([]paced{busy{}})
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(15 * time.Second):
		t.Fatal("it still waits after 15 s")
	}
}
