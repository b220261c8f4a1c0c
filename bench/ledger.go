package bench

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"
)

// stamp is what the payload of each message begins with.
type stamp struct {
	publisher uint32
	number    uint64        // of the publisher's messages, from 0
	due       time.Duration // when it was to be sent, since the flow's epoch
}

// stampSize is how many bytes a stamp takes, and so the smallest payload.
const stampSize = 4 + 8 + 8

// put writes the stamp to the begin of a payload.
func (s stamp) put(payload []byte) {
	binary.BigEndian.PutUint32(payload, s.publisher)
	binary.BigEndian.PutUint64(payload[4:], s.number)
	binary.BigEndian.PutUint64(payload[12:], uint64(s.due))
}

// readStamp reads the stamp of a payload that has the size that all have.
func readStamp(payload []byte, size int) (stamp, error) {
	if len(payload) != size || size < stampSize {
		return stamp{}, fmt.Errorf("couldn't read a message: its payload has %d bytes, %d were sent", len(payload), size)
	}
	return stamp{
		publisher: binary.BigEndian.Uint32(payload), number: binary.BigEndian.Uint64(payload[4:]),
		due: time.Duration(binary.BigEndian.Uint64(payload[12:])),
	}, nil
}

// ledger is what one subscriber got of each publisher: every message below the
// count, each once and in order, because it refuses all else. One goroutine
// takes; any may look at the counts.
type ledger struct{ counts []atomic.Uint64 }

func newLedger(publishers int) *ledger { return &ledger{counts: make([]atomic.Uint64, publishers)} }

// take enters a message. Only one that is marked as a possible duplicate may
// come again; it doesn't count.
func (l *ledger) take(s stamp, dup bool) error {
	if int64(s.publisher) >= int64(len(l.counts)) {
		return fmt.Errorf("couldn't account for every message: one came from publisher %d, of %d", s.publisher, len(l.counts))
	}
	count := &l.counts[s.publisher]
	switch next := count.Load(); {
	case s.number == next:
		count.Store(next + 1)
	case s.number > next:
		return fmt.Errorf("couldn't account for every message: number %d of publisher %d came where number %d is next: %d were lost or overtaken",
			s.number, s.publisher, next, s.number-next)
	case !dup:
		return fmt.Errorf("couldn't account for every message: number %d of publisher %d came again, without DUP, where number %d is next",
			s.number, s.publisher, next)
	}
	return nil
}

// count is how many messages of a publisher came.
func (l *ledger) count(publisher int) uint64 { return l.counts[publisher].Load() }

// total is how many messages came.
func (l *ledger) total() uint64 {
	sum := uint64(0)
	for n := range l.counts {
		sum += l.count(n)
	}
	return sum
}
