package main

import (
	"testing"
	"time"
)

// TestSinceIsASpanOrATime ensures that what a person types to look back is read.
func TestSinceIsASpanOrATime(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for text, want := range map[string]time.Time{
		"90m": now.Add(-90 * time.Minute), "2d": now.Add(-48 * time.Hour), "1w": now.Add(-7 * 24 * time.Hour),
		"2026-11-30T09:00:00Z": time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC), "2026-11-30T10:00:00.5+01:00": time.Date(2026, 11, 30, 9, 0, 0, 5e8, time.UTC),
		"2026-11-30 09:00:00.123": time.Date(2026, 11, 30, 9, 0, 0, 123e6, time.Local), "2026-11-30": time.Date(2026, 11, 30, 0, 0, 0, 0, time.Local),
		"": {}, "0": {}, "0d": {}, "-1h": {}, "-1d": {}, "d": {}, "w": {}, "1dw": {}, "1x": {}, "yesterday": {}, "100001d": {}, "100000w": {},
	} {
		var got since
		err := got.Set(text)
		if (err != nil) != want.IsZero() || got.Sub(want).Abs() > time.Minute {
			t.Errorf("%q: got %s, %v, want %s", text, got, err, want)
		}
	}
}
