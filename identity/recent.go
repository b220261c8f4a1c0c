package identity

import (
	"hash/maphash"

	"github.com/imprint-iot/imprint"
)

// recentSlots is how many places the log of recent changes has.
const recentSlots = 1 << 13

// recent remembers, for every thing that ever changed, when that was last: now
// counts changes. Things share places by hash, so that it never grows; of a
// thing that shares its place it may say that it changed when another one did.
type recent struct {
	now  uint64
	last [recentSlots]uint64
}

var recentSeed = maphash.MakeSeed()

func place(c imprint.Change) uint64 { return maphash.Comparable(recentSeed, c) % recentSlots }

func (r *recent) add(c imprint.Change) {
	r.now++
	r.last[place(c)] = r.now
}

// since tells whether a thing changed after now stood at began.
func (r *recent) since(c imprint.Change, began uint64) bool {
	return r.now != began && r.last[place(c)] > began
}
