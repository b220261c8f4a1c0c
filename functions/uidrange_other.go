//go:build !linux

package functions

import "io"

// holdUIDs knows no locks of this kind here: ranges that overlap aren't noticed.
func holdUIDs(uint32, uint32) (io.Closer, error) { return nil, nil }
