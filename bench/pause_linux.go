package bench

import (
	"syscall"
	"time"
)

// pause sleeps with the kernel's timer. The runtime's own wakes up to a
// millisecond late in an idle process, which would count as the server's delay.
func pause(d time.Duration) {
	if d <= 0 {
		return
	}
	left := syscall.NsecToTimespec(int64(d))
	for {
		// The runtime's own signals end a sleep early.
		err := syscall.Nanosleep(&left, &left)
		if err != syscall.EINTR {
			return
		}
	}
}
