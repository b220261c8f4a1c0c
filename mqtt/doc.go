// Package mqtt is the wire codec of MQTT 3.1.1 and MQTT 5: bytes to packets and
// back, and the rules for topic names and topic filters. Brokers, clients and
// load generators share it.
//
// # Reading
//
// ParseFixedHeader says which packet comes and how many bytes it has; the
// caller compares Remaining with its limit, gets that many bytes, and hands
// them to the packet's Decode:
//
//	h, ok, err := mqtt.ParseFixedHeader(buf)
//	// err: refuse; !ok: read more; h.Remaining too large: refuse
//	var p mqtt.Publish
//	err = p.Decode(h, buf[h.Size:h.Size+h.Remaining], mqtt.V5)
//
// # Writing
//
// Append adds the packet to a slice and returns the longer slice:
//
//	dst = (&mqtt.Ack{Type: mqtt.TypePuback, PacketID: 7}).Append(dst, mqtt.V311)
//
// # What it promises
//
//   - Strict decoding: what breaks a MUST of the specification that can be seen
//     in one packet alone is refused with an *Error, which carries the reason
//     code an MQTT 5 peer would be told and the normative statement that was
//     broken. No input makes it panic.
//   - Whatever was decoded encodes again to a packet that decodes to the same
//     value.
//   - Memory in proportion to the body: a packet keeps at most about seven times
//     its length, and some thirty times in all is allocated while its lists
//     grow. The worst are packets full of empty user properties or of filters
//     of one byte. There is no recursion.
//   - A PUBLISH without string properties is decoded without allocation, and
//     appended without allocation when dst has room.
//   - Every []byte in a decoded packet aliases the body: who keeps it clones it.
//     Every string is a copy; the string properties of one packet share one.
//
// # What it does not do
//
// It holds no state, so rules that need more than one packet are the caller's:
// packet sizes, topic aliases, packet identifiers in use, which packet may come
// when, which side may send what (a SUBSCRIBE to a client, a Subscription
// Identifier from a client, AUTH in MQTT 3.1.1), maximum QoS. QoS 2 packets
// decode like others. Append trusts its receiver: strings and binary data of at
// most 65535 bytes, valid UTF-8, packets of at most MaxRemaining bytes, and
// values that Decode would accept.
//
// # Sources
//
// OASIS MQTT Version 3.1.1 (29 October 2014) and MQTT Version 5.0 (7 March
// 2019). Statement ids such as [MQTT-3.1.2-3] number differently in the two;
// an Error cites the version that the packet was decoded for, and MQTT 5.0
// where no version is known. A rule without an id is cited by its section.
// Match follows the AWS IoT Core developer guide, page "MQTT", in the one point
// where it departs from the standard.
package mqtt
