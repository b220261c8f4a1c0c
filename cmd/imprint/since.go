package main

import (
	"errors"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// since is a flag's time from which on something is listed: how far to look back, or when.
// The zero value is no bound.
type since struct{ time.Time }

func (s *since) String() string {
	if s.IsZero() {
		return ""
	}
	return s.Format(time.RFC3339)
}

// Type is what usage calls it.
func (s *since) Type() string { return "time" }

// Set reads 1h, 2d, 1w, RFC 3339, or a time here as lists of attempts show it.
func (s *since) Set(text string) error {
	back, err := parseDays(text)
	if weeks, ok := strings.CutSuffix(text, "w"); ok {
		back, err = parseDays(weeks + "d")
		if back > math.MaxInt64/7 {
			back = 0
		}
		back *= 7
	}
	if err == nil && back > 0 {
		s.Time = time.Now().Add(-back)
		return nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		at, err := time.ParseInLocation(layout, text, time.Local)
		if err == nil {
			s.Time = at
			return nil
		}
	}
	return errors.New("it is how far to look back, such as 1h, 2d or 1w, or a time, such as 2026-11-30T09:00:00Z")
}

func addSinceFlag(cmd *cobra.Command, from *since) {
	cmd.Flags().Var(from, "since", "only attempts that began, failed or ended in the last such `time`, such as 1h, 2d or 1w, or from a time on, such as 2026-11-30T09:00:00Z")
}
