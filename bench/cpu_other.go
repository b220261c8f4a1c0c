//go:build !linux

package bench

import (
	"errors"
	"runtime"
	"time"
)

// cpuTime says that this system isn't measured on.
func cpuTime(int) (time.Duration, error) {
	return 0, errors.New("couldn't read the CPU time of another process: benches run on Linux, not on " + runtime.GOOS)
}
