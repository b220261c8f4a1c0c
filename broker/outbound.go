package broker

import (
	"slices"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// outbound is what waits to be sent to one client, and the one writer that
// sends it.
//
// Whoever has something to send appends encoded packets under the lock and
// starts the writer if none runs; the lock is never held while a socket is
// written. The writer takes all that waits in one write and ends when nothing
// is left, so that an idle session has neither writer nor buffer.
//
// Options.MaxQueuedBytes bounds pending and waiting together; the buffer that
// is being written comes on top, and controlRoom for acknowledgements.
type outbound struct {
	mu      sync.Mutex
	pending []byte
	writing bool
	// closing: nothing more is taken; the writer closes the socket at the end.
	closing bool

	// QoS 1 to the client: packet ids in flight, in the order of sending, and
	// messages that wait for the client's receive maximum.
	nextID       uint16
	inflight     []uint16
	waiting      []held
	waitingBytes int
}

// outgoing is a message on its way to its subscribers, one after the other. QoS,
// packet id and RETAIN are set for each.
type outgoing struct {
	mqtt.Publish
	expires time.Time // zero: doesn't expire
	// kept is a copy that outlives the publisher's buffer, made when the first
	// subscriber has to wait, and shared by all that do. It isn't changed.
	kept *mqtt.Publish
}

// held is a QoS 1 message that waits for room in the client's window.
type held struct {
	packet *mqtt.Publish
	retain bool
	size   int
	until  time.Time // zero: doesn't expire
}

// controlRoom is how many bytes of acknowledgements and other control packets
// wait beyond MaxQueuedBytes before a client that doesn't read them is ended.
const controlRoom = 64 << 10

// bufferPool holds writers' buffers between bursts. Buffers over
// maxPooledBuffer are left to the garbage collector.
var bufferPool = sync.Pool{New: func() any {
	b := make([]byte, 0, 4096)
	return &b
}}

const maxPooledBuffer = 64 << 10

func takeBuffer() []byte {
	return (*bufferPool.Get().(*[]byte))[:0]
}

func giveBuffer(b []byte) {
	if cap(b) == 0 || cap(b) > maxPooledBuffer {
		return
	}
	b = b[:0]
	bufferPool.Put(&b)
}

// startWriter must be called with the lock held.
func (s *session) startWriter() {
	if s.out.writing {
		return
	}
	s.out.writing = true
	go s.write(false)
}

// room makes sure that there is a buffer to append to. The lock is held.
func (o *outbound) room() {
	if o.pending == nil {
		o.pending = takeBuffer()
	}
}

// append adds an encoded control packet, which is never dropped; flush sends
// it. A client that makes the server answer and doesn't read the answers is
// ended.
func (s *session) append(encode func(dst []byte) []byte) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.out.closing {
		return
	}
	s.out.room()
	s.out.pending = encode(s.out.pending)
	if len(s.out.pending) > s.broker.opts.MaxQueuedBytes+controlRoom {
		s.tooSlow("%d bytes wait to be read by the client", len(s.out.pending))
	}
}

// flush sends what the reader's own packets were answered with: on the reader's
// goroutine when no writer runs, so that a client that doesn't read its
// acknowledgements slows only itself.
func (s *session) flush() {
	s.out.mu.Lock()
	if s.out.writing || len(s.out.pending) == 0 {
		s.out.mu.Unlock()
		return
	}
	s.out.writing = true
	s.out.mu.Unlock()
	s.write(true)
}

// write is the writer. Once makes it hand over to a goroutine of its own after
// the first write, for callers that have something else to do.
func (s *session) write(once bool) {
	var spare []byte
	for wrote := false; ; wrote = true {
		s.out.mu.Lock()
		buf := s.out.pending
		if len(buf) == 0 {
			s.out.writing = false
			s.out.pending = nil
			closing := s.out.closing
			s.out.mu.Unlock()
			giveBuffer(buf)
			giveBuffer(spare)
			if closing {
				_ = s.conn.Close()
			}
			return
		}
		if once && wrote {
			s.out.mu.Unlock()
			giveBuffer(spare)
			go s.write(false)
			return
		}
		s.out.pending = spare
		s.out.mu.Unlock()
		s.armWrite()
		_, err := s.conn.Write(buf)
		if err != nil {
			s.writeFailed(err)
			return
		}
		spare = buf[:0]
		if cap(spare) > maxPooledBuffer {
			spare = nil
		}
	}
}

// armWrite bounds the next write. Who ends a session sets the reason first and
// its own short deadline then, so one of the two is seen: the reason here, or
// the deadline by the write.
func (s *session) armWrite() {
	now := time.Now()
	_ = s.conn.SetWriteDeadline(now.Add(s.broker.opts.WriteTimeout))
	if s.ended.Load() != nil {
		_ = s.conn.SetWriteDeadline(now.Add(goodbyeTimeout))
	}
}

// writeFailed ends the session's output; the reader notices the closed socket.
func (s *session) writeFailed(err error) {
	if isTimeout(err) {
		s.slow(end(imprint.CodeSlowConsumer, "the client took nothing for %s", s.broker.opts.WriteTimeout))
	}
	s.out.mu.Lock()
	s.out.closing = true
	s.out.drop()
	s.out.mu.Unlock()
	_ = s.conn.Close()
}

// drop forgets what waits. The lock is held.
func (o *outbound) drop() {
	o.pending = nil
	o.dropWaiting()
}

func (o *outbound) dropWaiting() { o.waiting, o.waitingBytes, o.inflight = nil, 0, nil }

// kick ends the connection from outside with a code of the error table. It
// doesn't block.
func (s *session) kick(code imprint.Code) {
	s.stop(end(code, "%s", imprint.Describe(code).Meaning))
}

// stop ends the connection with a reason: a DISCONNECT for MQTT 5, a plain
// close for 3.1.1. The first reason stays. It doesn't block.
func (s *session) stop(why *endError) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	s.stopLocked(why)
}

func (s *session) stopLocked(why *endError) {
	s.ended.CompareAndSwap(nil, why)
	if s.out.closing {
		return
	}
	why = s.ended.Load()
	s.out.closing = true
	s.out.dropWaiting()
	reason := why.reason(mqtt.TypeDisconnect)
	if s.version == mqtt.V5 && reason != 0 {
		s.out.room()
		packet := mqtt.Disconnect{Reason: reason}
		s.out.pending = packet.Append(s.out.pending, s.version)
	}
	// A writer that is stuck in a dead peer's socket, and the goodbye itself,
	// get a second; the reader stops waiting at once.
	_ = s.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
	_ = s.conn.SetReadDeadline(time.Now())
	s.startWriter()
}

// goodbyeTimeout bounds how long a device that is disconnected is waited for.
const goodbyeTimeout = time.Second

// slow records that the client doesn't keep up, unless it ends for another
// reason already.
func (s *session) slow(why *endError) {
	if s.ended.CompareAndSwap(nil, why) {
		s.broker.count.slowConsumers.Add(1)
	}
}

// tooSlow ends the connection of a client that doesn't keep up. The lock is
// held.
func (s *session) tooSlow(format string, args ...any) {
	s.slow(end(imprint.CodeSlowConsumer, format, args...))
	s.stopLocked(s.ended.Load())
}

// deliver sends a message to the session's client. It never blocks on the
// client.
func (s *session) deliver(m *outgoing, qos mqtt.QoS) {
	m.QoS, m.PacketID = qos, 0
	size := m.Size(s.version)
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.out.closing {
		return
	}
	count := &s.broker.count
	if s.maxPacket > 0 && size > s.maxPacket {
		// "The Server MUST discard it and then behave as if it had completed
		// sending" [MQTT-3.1.2-25].
		count.publishDropped.Add(1)
		return
	}
	queued := len(s.out.pending) + s.out.waitingBytes
	if queued > 0 && queued+size > s.broker.opts.MaxQueuedBytes {
		count.publishDropped.Add(1)
		if qos > 0 {
			s.tooSlow("%d bytes of messages wait for the client", queued)
		}
		return
	}
	if qos > 0 && (len(s.out.inflight) >= s.window || len(s.out.waiting) > 0) {
		s.hold(m, size)
		return
	}
	s.send(&m.Publish)
}

// send encodes a message into the pending buffer. The lock is held.
func (s *session) send(p *mqtt.Publish) {
	if p.QoS > 0 {
		p.PacketID = s.out.takeID()
	}
	s.out.room()
	s.out.pending = p.Append(s.out.pending, s.version)
	s.broker.count.publishOut.Add(1)
	s.startWriter()
}

// takeID finds a free packet id. The window is smaller than the id space, so
// there is one near.
func (o *outbound) takeID() uint16 {
	for {
		o.nextID++
		if o.nextID != 0 && !slices.Contains(o.inflight, o.nextID) {
			o.inflight = append(o.inflight, o.nextID)
			return o.nextID
		}
	}
}

// hold keeps a message until the window has room. The lock is held.
func (s *session) hold(m *outgoing, size int) {
	if len(s.out.waiting) >= s.broker.opts.MaxQueuedMessages {
		s.broker.count.publishDropped.Add(1)
		s.tooSlow("%d messages wait for the client's acknowledgements", len(s.out.waiting))
		return
	}
	if m.kept == nil {
		m.kept = clonePublish(&m.Publish)
	}
	s.out.waiting = append(s.out.waiting, held{packet: m.kept, retain: m.Retain, size: size, until: m.expires})
	s.out.waitingBytes += size
}

// acknowledged takes a PUBACK from the client and sends what waited for it. An
// id that isn't in flight is of no consequence.
func (s *session) acknowledged(id uint16) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	at := slices.Index(s.out.inflight, id)
	if at < 0 || s.out.closing {
		return
	}
	s.out.inflight = slices.Delete(s.out.inflight, at, at+1)
	for len(s.out.waiting) > 0 && len(s.out.inflight) < s.window {
		next := s.out.waiting[0]
		s.out.waiting[0] = held{}
		s.out.waiting = s.out.waiting[1:]
		s.out.waitingBytes -= next.size
		packet := *next.packet
		packet.QoS, packet.Retain = 1, next.retain
		if !next.until.IsZero() && !refreshExpiry(&packet, next.until, s.broker.clock()) {
			s.broker.count.publishDropped.Add(1)
			continue
		}
		s.send(&packet)
	}
	if len(s.out.waiting) == 0 {
		s.out.waiting = nil
	}
}
