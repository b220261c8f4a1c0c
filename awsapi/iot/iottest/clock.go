package iottest

import (
	"sync"
	"time"
)

// Clock stands still until a test advances it. It is the clock of the service
// and of its authority; signatures of requests are checked by the real time,
// because clients sign with it.
type Clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

// NewClock makes a clock that stands at a time, in whole milliseconds as the
// store keeps it.
func NewClock(now time.Time) *Clock { return &Clock{now: now.UTC().Truncate(time.Millisecond)} }

// Now tells the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock and tells the new time.
func (c *Clock) Advance(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return c.now
}
