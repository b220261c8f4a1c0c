package broker

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// outbound is what waits to be written to one client's socket, and the one
// writer that writes it. The session's lock guards it.
//
// Whoever has something to send appends encoded packets under the lock and
// starts the writer if none runs; the lock is never held while a socket is
// written. The writer takes all that waits in one write and ends when nothing
// is left, so that an idle session has neither writer nor buffer.
//
// Options.MaxQueuedBytes bounds pending and the session's waiting messages
// together; the buffer that is being written comes on top, and controlRoom for
// acknowledgements.
type outbound struct {
	pending []byte
	writing bool
	// corked: CONNACK stands in pending, but may not be sent yet.
	corked bool
	// closing: nothing more is taken; the writer closes the socket at the end, or its
	// own side of it where the client is told why: see farewell.
	closing bool
	told    bool

	// aliases are the topic aliases that the client was told, by topic.
	aliases map[string]uint16

	// room is closed when the backlog is low again, for publishers that wait;
	// nil when nobody does. Behind says that the client takes so little that
	// nobody waits for it.
	room    chan struct{}
	behind  bool
	written int64    // bytes given to the socket, for the pace
	paced   paceMark // where the present window of waiting began
	// declined: a shared subscription's message had no room.
	declined bool

	owedBy   *connection // will start the writer
	messages uint64      // in pending
}

// controlRoom is how many bytes of acknowledgements and other control packets
// wait beyond MaxQueuedBytes before a client that doesn't read them is ended.
const controlRoom = 64 << 10

// Buffers come in two sizes, and are pooled between bursts. What outgrows the
// large ones is left to the garbage collector.
const (
	smallBuffer = 4 << 10
	largeBuffer = 128 << 10
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

func takeBuffer() []byte {
	return smallBuffers.Get().(*[smallBuffer]byte)[:0]
}

func giveBuffer(b []byte) {
	switch cap(b) {
	case smallBuffer:
		smallBuffers.Put((*[smallBuffer]byte)(b[:smallBuffer]))
	case largeBuffer:
		largeBuffers.Put((*[largeBuffer]byte)(b[:largeBuffer]))
	}
}

// roomFor gives a buffer that n more bytes fit into, if it can do so without
// allocating.
func roomFor(b []byte, n int) []byte {
	if b == nil {
		b = takeBuffer()
	}
	if len(b)+n <= cap(b) || cap(b) >= largeBuffer {
		return b
	}
	large := append(largeBuffers.Get().(*[largeBuffer]byte)[:0], b...)
	giveBuffer(b)
	return large
}

// startWriter must be called with the lock held.
func (c *connection) startWriter() {
	if c.out.writing || c.out.corked {
		return
	}
	c.out.writing = true
	go c.write(false)
}

// takeWriter makes the caller the writer, if there is none, so that all that is appended
// until it calls write goes in one write.
func (c *connection) takeWriter() bool {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	if c.out.writing || c.out.corked || c.out.closing {
		return false
	}
	c.out.writing = true
	return true
}

// buffer makes sure that there is one to append n bytes to. The lock is held.
func (o *outbound) buffer(n int) { o.pending = roomFor(o.pending, n) }

// controlPacket is about what an acknowledgement takes.
const controlPacket = 64

// append adds an encoded control packet, which is never dropped; flush sends
// it. A client that makes the server answer and doesn't read the answers is
// ended.
func (c *connection) append(encode func(dst []byte) []byte) {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	c.appendLocked(encode)
}

func (c *connection) appendLocked(encode func(dst []byte) []byte) {
	if c.out.closing {
		return
	}
	c.out.buffer(controlPacket)
	c.out.pending = encode(c.out.pending)
	if len(c.out.pending) > c.broker.opts.MaxQueuedBytes+controlRoom {
		c.tooSlow("%d bytes wait to be read by the client", len(c.out.pending))
	}
}

// aliasSize is what the alias may add to a packet: the property, and a longer
// length of the properties and of the packet.
const aliasSize = 3 + 1 + 1

// putAliased encodes a message into the pending buffer, with a topic alias if
// the client takes one. The first topics get the aliases that it allows (MQTT 5
// section 3.3.2.3.4), set up by the topic's first message; the client sees the
// packets in the order of the buffer, so it learns an alias before it is used.
// The lock is held.
func (c *connection) putAliased(p *mqtt.Publish) {
	c.out.buffer(p.Size(c.version) + controlPacket)
	c.out.messages++
	if c.aliasMaximum == 0 {
		c.out.pending = p.Append(c.out.pending, c.version)
		return
	}
	alias, known := c.out.aliases[string(p.Topic)]
	switch {
	case c.maxPacket > 0 && p.Size(c.version)+aliasSize > c.maxPacket:
		// With an alias it would be too large for the client.
		c.out.pending = p.Append(c.out.pending, c.version)
		return
	case known:
		p.Topic = nil
	case len(c.out.aliases) < int(c.aliasMaximum):
		alias = uint16(len(c.out.aliases) + 1)
		if c.out.aliases == nil {
			c.out.aliases = make(map[string]uint16, 1)
		}
		c.out.aliases[string(p.Topic)] = alias
	default:
		c.out.pending = p.Append(c.out.pending, c.version)
		return
	}
	p.Properties.TopicAlias = alias
	p.Properties.Mark(mqtt.PropTopicAlias)
	c.out.pending = p.Append(c.out.pending, c.version)
}

// flush sends what the reader's own packets were answered with: on the reader's
// goroutine when no writer runs, so that a client that doesn't read its
// acknowledgements slows only itself.
func (c *connection) flush() {
	c.session.mu.Lock()
	if c.out.writing || c.out.corked || len(c.out.pending) == 0 {
		c.session.mu.Unlock()
		return
	}
	c.out.writing = true
	c.session.mu.Unlock()
	c.write(true)
}

// uncork lets CONNACK and what came after it go.
func (c *connection) uncork() {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	c.out.corked = false
	if c.out.closing {
		c.startWriter()
		return
	}
	c.session.pump(c, nil)
	if len(c.out.pending) > 0 {
		c.startWriter()
	}
}

// write is the writer. Once makes it hand over to a goroutine of its own after
// the first write, for callers that have something else to do.
func (c *connection) write(once bool) {
	var spare []byte
	for wrote := false; ; wrote = true {
		c.session.mu.Lock()
		if wrote && !c.out.closing && c.session.conn.Load() == c {
			c.session.pump(c, c)
		}
		buf := c.out.pending
		c.broker.count.publishOut.Add(c.out.messages)
		c.out.messages = 0
		if len(buf) == 0 {
			c.out.writing = false
			c.out.pending = nil
			closing := c.out.closing
			c.session.mu.Unlock()
			giveBuffer(buf)
			giveBuffer(spare)
			if closing {
				c.hangUp()
			}
			return
		}
		if once && wrote {
			c.session.mu.Unlock()
			giveBuffer(spare)
			go c.write(false)
			return
		}
		c.out.pending = spare
		c.session.mu.Unlock()
		err := c.writeAll(buf)
		if err != nil {
			c.writeFailed(err)
			return
		}
		spare = buf[:0]
		if cap(spare) > largeBuffer {
			spare = nil
		}
	}
}

// writePart is what is given to the socket at a time, one TLS record, and what
// the client must take within Options.WriteTimeout: a slow link takes a long
// buffer in many parts.
const writePart = 16 << 10

// writeAll writes a buffer.
func (c *connection) writeAll(buf []byte) error {
	for len(buf) > 0 {
		c.armWrite()
		n, err := c.conn.Write(buf[:min(len(buf), writePart)])
		if err != nil {
			return err
		}
		c.wrote(n)
		buf = buf[n:]
	}
	return nil
}

// wrote counts what the client's socket took.
func (c *connection) wrote(n int) {
	c.session.mu.Lock()
	c.out.written += int64(n)
	c.signalRoom()
	c.session.mu.Unlock()
}

// armWrite bounds the next write. Who ends a session sets the reason first and
// its own short deadline then, so one of the two is seen: the reason here, or
// the deadline by the write.
//
// A deadline is set anew when an eighth of the time has gone: it then allows that
// much more.
func (c *connection) armWrite() {
	now := time.Now()
	slack := c.broker.opts.WriteTimeout / 8
	since := now.Sub(c.broker.began)
	if c.armed == 0 || since-c.armed >= slack {
		c.armed = since
		_ = c.conn.SetWriteDeadline(now.Add(c.broker.opts.WriteTimeout + slack))
	}
	if c.ended.Load() != nil {
		_ = c.conn.SetWriteDeadline(now.Add(goodbyeTimeout))
	}
}

// writeFailed ends the session's output; the reader notices the closed socket.
func (c *connection) writeFailed(err error) {
	if isTimeout(err) {
		c.slow(end(imprint.CodeSlowConsumer, "the client took less than 16 KiB in %s", c.broker.opts.WriteTimeout))
	}
	c.session.mu.Lock()
	c.out.closing = true
	c.out.pending = nil
	c.signalRoom()
	c.signalAcks()
	c.session.mu.Unlock()
	_ = c.conn.Close()
}

// kick ends the connection from outside with a code of the error table. It
// doesn't block.
func (c *connection) kick(code imprint.Code) {
	c.stop(end(code, "%s", imprint.Describe(code).Meaning))
}

// stop ends the connection with a reason: a DISCONNECT for MQTT 5, a plain
// close for 3.1.1. The first reason stays. It doesn't block.
func (c *connection) stop(why *endError) {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	c.stopLocked(why)
}

func (c *connection) stopLocked(why *endError) {
	c.ended.CompareAndSwap(nil, why)
	if c.out.closing {
		return
	}
	why = c.ended.Load()
	c.out.closing = true
	reason := why.reason(mqtt.TypeDisconnect)
	if c.version == mqtt.V5 && reason != 0 {
		c.out.buffer(controlPacket)
		packet := mqtt.Disconnect{Reason: reason}
		c.tell(&packet.Properties, why.err)
		c.out.pending = packet.Append(c.out.pending, c.version)
		c.out.told = true
	}
	// A writer that is stuck in a dead peer's socket, and the goodbye itself,
	// get a second; the reader stops waiting at once.
	_ = c.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
	_ = c.conn.SetReadDeadline(time.Now())
	c.signalRoom()
	c.signalAcks()
	c.startWriter()
}

// goodbyeTimeout bounds how long a device that is disconnected is waited for, and
// goodbyeBytes what it may send until then.
const (
	goodbyeTimeout = time.Second
	goodbyeBytes   = 4 << 20
)

// hangUp ends the writer's side.
func (c *connection) hangUp() {
	c.session.mu.Lock()
	told := c.out.told
	c.session.mu.Unlock()
	if !told || !halfClose(c.conn) {
		_ = c.conn.Close()
	}
}

// halfClose tells the client that nothing more comes, and leaves the socket open to
// read. It reports false where that can't be done: a WebSocket says goodbye as it is
// closed.
func halfClose(conn net.Conn) bool {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return false
	}
	_ = half.CloseWrite()
	if below := netConn(conn); below != conn { // of TLS, that was its own goodbye
		if half, ok := below.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}
	return true
}

// netConn gives the connection below TLS.
func netConn(conn net.Conn) net.Conn {
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok {
		return over.NetConn()
	}
	return conn
}

// farewell reads, and throws away, what a client sends that was told why it is
// disconnected, until it hangs up. A socket that is closed with bytes unread resets the
// connection, and what the client was told may be lost then. What it sends isn't
// deciphered: it is to cost little.
func farewell(conn net.Conn) {
	_ = conn.SetReadDeadline(time.Now().Add(goodbyeTimeout))
	_, _ = io.CopyN(io.Discard, netConn(conn), goodbyeBytes)
}

// slow records that the client doesn't keep up, unless it ends for another
// reason already.
func (c *connection) slow(why *endError) {
	if c.ended.CompareAndSwap(nil, why) {
		c.broker.count.slowConsumers.Add(1)
	}
}

// tooSlow ends the connection of a client that doesn't keep up. The lock is
// held.
func (c *connection) tooSlow(format string, args ...any) {
	c.slow(end(imprint.CodeSlowConsumer, format, args...))
	c.stopLocked(c.ended.Load())
}
