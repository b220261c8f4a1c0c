// Package stackroom guarantees that a new goroutine doesn't outgrow its stack
// again and again.
//
// A goroutine begins with 2 KiB of stack, which Go doubles, and copies frame by
// frame, each time a call needs more. One that makes a TLS handshake or reads JSON
// goes deep at once: it would be copied three times, each time from deeper down.
// Reserve grows the stack once, while there is next to nothing to be copied. A
// goroutine that waits gives room back: the collector halves stacks of which little
// is used.
//
//	go func() {
//		stackroom.Reserve()
//		...
//	}()
package stackroom

// size is what a handshake with the hybrid key exchange needs. With what stands above
// it, the stack gets 16 KiB.
const size = 13 << 10

// Reserve makes the stack of the calling goroutine at least 16 KiB large.
//
//go:noinline
func Reserve() {
	var room [size]byte
	touch(&room)
}

// touch keeps the compiler from leaving out the room.
//
//go:noinline
func touch(room *[size]byte) { room[0] = 1 }
