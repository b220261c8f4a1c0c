package mqtt

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// reader takes the data types of MQTT 5.0 section 1.5 from a body, in order.
// The first failure sticks: every later call does nothing and returns zero, so
// that a decoder reads like the packet's layout and looks at err at the end.
type reader struct {
	b   []byte
	off int
	v   Version
	err error
}

func (r *reader) fail(code ReasonCode, rule, msg string) {
	if r.err == nil {
		r.err = &Error{Code: code, Rule: rule, Msg: msg}
	}
}

func (r *reader) malformed(rule, msg string) {
	r.fail(MalformedPacket, rule, msg)
}

// rest is the number of unread bytes.
func (r *reader) rest() int {
	return len(r.b) - r.off
}

// end refuses bytes after the last field.
func (r *reader) end() error {
	if r.err == nil && r.rest() > 0 {
		r.malformed(closeRule(r.v), "there are bytes after the last field")
	}
	return r.err
}

// take returns the next n bytes, which alias the body and have no capacity
// beyond themselves, so that appending to them cannot damage what follows.
func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > r.rest() {
		r.malformed(closeRule(r.v), "the packet ends inside a field")
		return nil
	}
	b := r.b[r.off : r.off+n : r.off+n]
	r.off += n
	return b
}

func (r *reader) uint8() byte {
	b := r.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

func (r *reader) uint16() uint16 {
	b := r.take(2)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

func (r *reader) uint32() uint32 {
	b := r.take(4)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// varint reads a Variable Byte Integer in its shortest form [MQTT-1.5.5-1].
func (r *reader) varint() int {
	n := 0
	for i := range 4 {
		c := r.uint8()
		if r.err != nil {
			return 0
		}
		n |= int(c&0x7f) << (7 * i)
		if c >= 0x80 {
			continue
		}
		if c == 0 && i > 0 {
			r.malformed("MQTT-1.5.5-1", "a variable byte integer has needless bytes")
			return 0
		}
		return n
	}
	r.malformed("MQTT-1.5.5-1", "a variable byte integer has more than four bytes")
	return 0
}

// binary reads two bytes of length and as many bytes of data.
func (r *reader) binary() []byte {
	return r.take(int(r.uint16()))
}

// text reads a UTF-8 string: well-formed, without surrogates
// [MQTT-1.5.4-1], without U+0000 [MQTT-1.5.4-2]. A byte order mark stays where
// it is [MQTT-1.5.4-3]; control characters and non-characters are allowed.
func (r *reader) text() []byte {
	b := r.binary()
	if !utf8.Valid(b) {
		r.malformed(pick(r.v, "MQTT-1.5.3-1", "MQTT-1.5.4-1"), "a string is not valid UTF-8")
		return nil
	}
	if bytes.IndexByte(b, 0) >= 0 {
		r.malformed(pick(r.v, "MQTT-1.5.3-2", "MQTT-1.5.4-2"), "a string contains U+0000")
		return nil
	}
	return b
}

// topic reads a topic name without wildcards; it may be empty.
func (r *reader) topic(rule string) []byte {
	b := r.text()
	if bytes.IndexByte(b, '+') >= 0 || bytes.IndexByte(b, '#') >= 0 {
		r.fail(TopicNameInvalid, rule, "a topic name contains a wildcard")
		return nil
	}
	return b
}

// filter reads a topic filter.
func (r *reader) filter() string {
	s := string(r.text())
	if r.err == nil {
		r.err = checkFilter(s, r.v)
	}
	return s
}

func (r *reader) packetID(rule311, rule5 string) uint16 {
	id := r.uint16()
	if r.err == nil && id == 0 {
		r.fail(ProtocolError, pick(r.v, rule311, rule5), "the Packet Identifier is zero")
	}
	return id
}

// reason reads a reason code that MQTT 5 packets of type t may carry.
func (r *reader) reason(t PacketType, rule string) ReasonCode {
	c := ReasonCode(r.uint8())
	if r.err == nil && !c.AllowedIn(t) {
		r.fail(ProtocolError, rule, "a reason code is not allowed in "+t.String())
	}
	return c
}

func varintLen(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}

func appendVarint(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

func appendString(dst []byte, s string) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

func appendBinary(dst, b []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(b)))
	return append(dst, b...)
}

// open starts a packet whose length is not known yet; seal ends it, given the
// position that open returned.
func open(dst []byte, t PacketType, flags byte) ([]byte, int) {
	dst = append(dst, byte(t)<<4|flags, 0)
	return dst, len(dst)
}

// seal writes the Remaining Length into the byte that open left for it, and
// moves the body up when one byte is not enough.
func seal(dst []byte, body int) []byte {
	n := len(dst) - body
	more := varintLen(n) - 1
	if more > 0 {
		var room [3]byte
		dst = append(dst, room[:more]...)
		copy(dst[body+more:], dst[body:body+n])
	}
	appendVarint(dst[:body-1], n)
	return dst
}
