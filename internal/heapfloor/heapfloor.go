// Package heapfloor guarantees that the garbage collector of a small process
// doesn't run all the time.
//
// Go's collector starts a cycle when the heap has grown by GOGC percent of what
// is live. A server that holds little but allocates much, as one that makes TLS
// handshakes does, would collect many times a second. A floor counts as live
// without being used, so that at least that much is allocated between two
// cycles; its pages are never touched and cost address space, not memory.
//
//	defer heapfloor.Hold(64 << 20)()
package heapfloor

import "runtime"

// Hold makes the heap count as at least size bytes until the returned function
// is called.
func Hold(size int) (release func()) {
	floor := make([]byte, size)
	return func() { runtime.KeepAlive(floor) }
}
