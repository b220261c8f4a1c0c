package broker

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// reader cuts a connection's bytes into packets.
type reader struct {
	connection *connection
	buf        []byte // connection.small, or a larger one while it is needed
	start      int
	end        int
}

const largeRead = 16 << 10

// next gives the next packet's header and body, which are valid until the next
// call. While it waits for bytes, what was answered so far is sent. The whole
// packet must come within the idle time, so that a client that sends a byte now
// and then isn't waited for.
func (r *reader) next(ctx context.Context, limit int, idle time.Duration) (mqtt.FixedHeader, []byte, error) {
	var deadline time.Time
	for {
		header, ok, err := mqtt.ParseFixedHeader(r.buf[r.start:r.end])
		if err != nil {
			return header, nil, err
		}
		need := 0
		if ok {
			if header.Remaining > limit {
				return header, nil, end(imprint.CodePacketTooLarge, "a packet of %d bytes came, at most %d are taken", header.Remaining, limit)
			}
			need = header.Size + header.Remaining
			if r.end-r.start >= need {
				body := r.buf[r.start+header.Size : r.start+need]
				r.start += need
				return header, body, nil
			}
		}
		r.connection.settleBatch()
		if deadline.IsZero() {
			deadline = time.Now().Add(idle)
		}
		r.connection.wakeBy(deadline, min(deadlineSlack, idle/8))
		err = r.fill(ctx, need)
		if err != nil {
			return header, nil, err
		}
	}
}

// settleBatch sends what came of the packets that were read so far.
func (c *connection) settleBatch() {
	c.payOwed()
	c.flush()
	c.countArrived()
	if c.publishing != nil {
		giveBuffer(c.publishing.scratch)
		c.publishing.scratch = nil
	}
}

// countArrived adds the messages of the last bytes to the broker's count.
func (c *connection) countArrived() {
	if c.arrived > 0 {
		c.broker.count.publishIn.Add(c.arrived)
		c.arrived = 0
	}
}

// deadlineSlack is how much later than asked a silent connection may be noticed:
// it spares setting the deadline for every read.
const deadlineSlack = time.Second

// wakeBy bounds the next read.
func (c *connection) wakeBy(deadline time.Time, slack time.Duration) {
	due := deadline.Sub(c.broker.began)
	if c.wakeAt >= due && c.wakeAt-due <= slack {
		return
	}
	c.wakeAt = due + slack
	_ = c.conn.SetReadDeadline(deadline.Add(slack))
}

// fill reads more bytes of a packet of need bytes.
func (r *reader) fill(ctx context.Context, need int) error {
	c := r.connection
	r.makeRoom(need)
	// Who ends the session sets the reason first and the deadline then: one of
	// the two is seen here.
	if c.ended.Load() != nil {
		return c.over()
	}
	n, err := c.conn.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		c.now = c.broker.clock()
		c.payFor(ctx, n)
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// makeRoom keeps the small buffer while a connection is quiet, and takes a
// larger one while reads fill it. What a header announces is no reason to take
// more than twice what has come.
func (r *reader) makeRoom(need int) {
	small := r.connection.small[:]
	unread := r.end - r.start
	full := r.end == len(r.buf)
	if unread == 0 && !full {
		// The last read left room: the burst is over.
		if len(r.buf) != len(small) {
			r.swap(small)
		}
		r.start, r.end = 0, 0
		return
	}
	want := len(small)
	if full || need > len(small) {
		want = min(max(need, largeRead), max(2*unread, largeRead))
	}
	if want > len(r.buf) {
		r.swap(r.allocate(want))
		return
	}
	if r.start > 0 {
		copy(r.buf, r.buf[r.start:r.end])
		r.start, r.end = 0, unread
	}
}

func (r *reader) allocate(n int) []byte {
	switch {
	case n <= len(r.connection.small):
		return r.connection.small[:]
	case n <= largeRead:
		return readPool.Get().(*[largeRead]byte)[:]
	}
	return make([]byte, n)
}

// swap goes on with another buffer. The last PUBLISH, which points into this
// one, would keep it in memory.
func (r *reader) swap(buf []byte) {
	if r.connection.publishing != nil {
		r.connection.publishing.packet = mqtt.Publish{}
	}
	unread := copy(buf, r.buf[r.start:r.end])
	r.release()
	r.buf, r.start, r.end = buf, 0, unread
}

// release gives the buffer back.
func (r *reader) release() {
	if len(r.buf) == largeRead {
		readPool.Put((*[largeRead]byte)(r.buf))
	}
	r.buf, r.start, r.end = nil, 0, 0
}

var readPool = sync.Pool{New: func() any { return new([largeRead]byte) }}
