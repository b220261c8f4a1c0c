package broker

import (
	"testing"
	"unsafe"
)

// A fleet holds very many connections that only listen. The allocator rounds a size up
// to one of its classes: one byte above 1,024 costs 128 more.
func TestAConnectionFitsItsSizeClass(t *testing.T) {
	t.Parallel()
	if size := unsafe.Sizeof(connection{}); size > 1024 {
		t.Errorf("a connection takes %d bytes, more than 1024: what only publishers need belongs into publishing", size)
	}
}
