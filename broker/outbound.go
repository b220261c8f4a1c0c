package broker

import (
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
type outbound struct {
	mu      sync.Mutex
	pending []byte
	writing bool
	// closing: nothing more is taken; the writer closes the socket at the end.
	closing bool
	// QoS 1 to the client: ids in flight, and messages that wait for the
	// client's receive maximum.
	nextID   uint16
	inflight map[uint16]struct{}
	waiting  []*held
	// aliases and such need no state here: this server sends no topic aliases.
}

// held is a QoS 1 message that waits for room in the client's window.
type held struct {
	packet mqtt.Publish
	until  time.Time // zero: doesn't expire
}

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

// startWriter must be called with the lock held, after something was appended.
func (s *session) startWriter() {
	if s.out.writing {
		return
	}
	s.out.writing = true
	go s.write(false)
}

// append adds an encoded control packet, which is never dropped.
func (s *session) append(encode func(dst []byte) []byte) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.out.closing {
		return
	}
	if s.out.pending == nil {
		s.out.pending = takeBuffer()
	}
	s.out.pending = encode(s.out.pending)
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
	for {
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
		s.out.pending = spare
		closing := s.out.closing
		s.out.mu.Unlock()

		if !closing {
			_ = s.conn.SetWriteDeadline(time.Now().Add(s.broker.opts.WriteTimeout))
		}
		_, err := s.conn.Write(buf)
		if err != nil {
			s.writeFailed()
			giveBuffer(buf)
			return
		}
		spare = buf[:0]
		if cap(spare) > maxPooledBuffer {
			spare = nil
		}
		if once {
			once = false
			s.out.mu.Lock()
			more := len(s.out.pending) > 0
			s.out.mu.Unlock()
			if more {
				giveBuffer(spare)
				go s.write(false)
				return
			}
		}
	}
}

// writeFailed ends the session's output; the reader notices the closed socket.
func (s *session) writeFailed() {
	s.out.mu.Lock()
	s.out.closing = true
	s.out.pending = nil
	s.out.waiting = nil
	s.out.mu.Unlock()
	_ = s.conn.Close()
}

// kick ends the connection from outside with a reason: a DISCONNECT for MQTT 5,
// a plain close for 3.1.1. The first reason stays. It doesn't block.
func (s *session) kick(code imprint.Code) {
	s.reason.CompareAndSwap(nil, &code)
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.out.closing {
		return
	}
	s.out.closing = true
	s.out.waiting = nil
	reason := mqtt.ReasonCode(imprint.Describe(code).Reason)
	if s.version == mqtt.V5 && reason != 0 {
		if s.out.pending == nil {
			s.out.pending = takeBuffer()
		}
		packet := mqtt.Disconnect{Reason: reason}
		s.out.pending = packet.Append(s.out.pending, s.version)
	}
	// A writer that is stuck in a dead peer's socket, and the goodbye itself,
	// get a second.
	_ = s.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
	if !s.out.writing {
		s.out.writing = true
		go s.write(false)
	}
}

// goodbyeTimeout bounds how long a device that is disconnected is waited for.
const goodbyeTimeout = time.Second

// deliver sends a message to the session's client. It never blocks on the
// client.
func (s *session) deliver(p *mqtt.Publish, qos mqtt.QoS, expires time.Time) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.out.closing {
		return
	}
	count := &s.broker.count
	if len(s.out.pending)+len(p.Payload)+len(p.Topic) > s.broker.opts.MaxQueuedBytes {
		count.publishDropped.Add(1)
		if qos == 0 {
			return
		}
		count.slowConsumers.Add(1)
		s.tooSlow()
		return
	}
	if qos == 1 {
		if len(s.out.inflight) >= s.window || len(s.out.waiting) > 0 {
			s.hold(p, expires)
			return
		}
		s.send(p, qos)
		return
	}
	s.send(p, 0)
}

// send encodes a message into the pending buffer. The lock is held.
func (s *session) send(p *mqtt.Publish, qos mqtt.QoS) {
	out := *p
	out.QoS, out.Dup, out.PacketID = qos, false, 0
	if qos == 1 {
		out.PacketID = s.takeID()
	}
	if s.out.pending == nil {
		s.out.pending = takeBuffer()
	}
	s.out.pending = out.Append(s.out.pending, s.version)
	s.broker.count.publishOut.Add(1)
	s.startWriter()
}

// takeID finds a free packet id. The window is far smaller than the id space,
// so there is one near.
func (s *session) takeID() uint16 {
	if s.out.inflight == nil {
		s.out.inflight = make(map[uint16]struct{}, 8)
	}
	for {
		s.out.nextID++
		if s.out.nextID == 0 {
			s.out.nextID = 1
		}
		if _, used := s.out.inflight[s.out.nextID]; !used {
			s.out.inflight[s.out.nextID] = struct{}{}
			return s.out.nextID
		}
	}
}

// hold keeps a copy of a message until the window has room. The lock is held.
func (s *session) hold(p *mqtt.Publish, expires time.Time) {
	if len(s.out.waiting) >= s.broker.opts.MaxQueuedMessages {
		s.broker.count.publishDropped.Add(1)
		s.broker.count.slowConsumers.Add(1)
		s.tooSlow()
		return
	}
	s.out.waiting = append(s.out.waiting, &held{packet: clonePublish(p), until: expires})
}

// tooSlow ends the connection of a client that doesn't keep up. The lock is
// held.
func (s *session) tooSlow() { go s.kick(imprint.CodeSlowConsumer) }

// acknowledged takes a PUBACK from the client and sends what waited for it.
func (s *session) acknowledged(id uint16) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	_, known := s.out.inflight[id]
	if !known || s.out.closing {
		return
	}
	delete(s.out.inflight, id)
	for len(s.out.waiting) > 0 && len(s.out.inflight) < s.window {
		next := s.out.waiting[0]
		s.out.waiting[0] = nil
		s.out.waiting = s.out.waiting[1:]
		if !next.until.IsZero() && !refreshExpiry(&next.packet, next.until, s.broker.clock()) {
			continue
		}
		s.send(&next.packet, 1)
	}
	if len(s.out.waiting) == 0 {
		s.out.waiting = nil
	}
}
