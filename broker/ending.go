package broker

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// endError is why a connection ends.
type endError struct {
	code imprint.Code
	// wire is what an MQTT 5 client is told where that is more exact than the
	// error table's reason for the code; else 0.
	wire mqtt.ReasonCode
	// heard is the reason with which an MQTT 5 client said that it goes, where that isn't
	// the normal one.
	heard mqtt.ReasonCode
	err   error
}

func (e *endError) Error() string { return e.err.Error() }
func (e *endError) Unwrap() error { return e.err }

func end(code imprint.Code, format string, args ...any) *endError {
	return &endError{code: code, err: imprint.Errorf(code, format, args...)}
}

// telling sets the reason that an MQTT 5 client is told.
func (e *endError) telling(reason mqtt.ReasonCode) *endError {
	e.wire = reason
	return e
}

// reason is what a packet of type t tells an MQTT 5 client; 0 where nothing is
// to be said.
func (e *endError) reason(t mqtt.PacketType) mqtt.ReasonCode {
	if e.wire != 0 {
		return allowed(e.wire, t)
	}
	return reasonFor(e.code, t)
}

// reasonFor is the error table's reason for a code, or its nearest one that a
// packet of type t may carry (MQTT 5 section 2.4).
func reasonFor(code imprint.Code, t mqtt.PacketType) mqtt.ReasonCode {
	return allowed(mqtt.ReasonCode(imprint.Describe(code).Reason), t)
}

func allowed(reason mqtt.ReasonCode, t mqtt.PacketType) mqtt.ReasonCode {
	if reason == 0 || reason.AllowedIn(t) {
		return reason
	}
	nearest := mqtt.UnspecifiedError
	switch reason {
	case mqtt.ServerShuttingDown:
		nearest = mqtt.ServerUnavailable
	case mqtt.ServerUnavailable:
		nearest = mqtt.ServerBusy
	case mqtt.TopicNameInvalid:
		nearest = mqtt.TopicFilterInvalid
	}
	if nearest.AllowedIn(t) {
		return nearest
	}
	return mqtt.UnspecifiedError
}

// ending gives the reason behind an error of a packet's handling, of the codec
// or of the network.
func (c *connection) ending(err error) *endError {
	var ended *endError
	if errors.As(err, &ended) {
		return ended
	}
	var broken *mqtt.Error
	if errors.As(err, &broken) {
		return codecEnding(broken)
	}
	var known *imprint.Error
	if errors.As(err, &known) {
		return &endError{code: known.Code, err: err}
	}
	switch {
	case isTimeout(err):
		return end(imprint.CodeKeepAliveTimeout, "nothing came for one and a half times the keep-alive of %s", c.keepAlive)
	case errors.Is(err, io.EOF):
		return end(imprint.CodeConnectionLost, "the device closed the connection without a DISCONNECT packet")
	default:
		return end(imprint.CodeConnectionLost, "%w", err)
	}
}

// codecEnding puts a codec's error into the table's words.
func codecEnding(broken *mqtt.Error) *endError {
	code := imprint.CodeProtocolViolation
	switch broken.Code {
	case mqtt.UnsupportedProtocolVersion:
		code = imprint.CodeUnsupportedVersion
	case mqtt.PacketTooLarge:
		code = imprint.CodePacketTooLarge
	case mqtt.TopicNameInvalid:
		code = imprint.CodeTopicInvalid
	case mqtt.TopicFilterInvalid:
		code = imprint.CodeFilterInvalid
	case mqtt.QoSNotSupported:
		code = imprint.CodeQoSNotSupported
	case mqtt.ClientIdentifierNotValid:
		code = imprint.CodeClientIDInvalid
	}
	return end(code, "%w", broken).telling(broken.Code)
}

// maxReason bounds a reason string; a client whose packets must be smaller than
// minReasonPacket gets none [MQTT-3.2.2-19].
const (
	maxReason       = 256
	minReasonPacket = 1024
)

// tell puts words to a refusal, for clients that want them (MQTT 5 section
// 3.1.2.11.7): what happened, and the attempt that says more.
func (c *connection) tell(p *mqtt.Properties, why error) {
	if !c.reasons || why == nil || c.maxPacket > 0 && c.maxPacket < minReasonPacket {
		return
	}
	text := imprint.Describe(imprint.CodeOf(why)).Meaning
	if id := c.peer.Rec.ID(); id != "" {
		text += " (attempt " + id + ")"
	}
	p.ReasonString = text[:min(len(text), maxReason)]
	p.Mark(mqtt.PropReasonString)
}

// saidGoodbye tells that the client ended the connection below MQTT as a
// DISCONNECT ends it: a WebSocket's close frame (AWS IoT Core developer guide,
// "Lifecycle events").
func saidGoodbye(err error) bool {
	var ended *endError
	return !errors.As(err, &ended) && imprint.CodeOf(err) == imprint.CodeClientDisconnect
}

// refused counts what a client isn't given, by its code, and makes it a step of the
// attempt.
func (c *connection) refused(step string, err error) { c.refusedWith(step, err, "") }

// refusedWith is refused with what the client was sent.
func (c *connection) refusedWith(step string, err error, wire string) {
	c.broker.count.refuse(imprint.CodeOf(err))
	c.peer.Rec.FailWith(step, err, wire)
}

// refuse counts a refusal. Codes are those of the error table.
func (c *counters) refuse(code imprint.Code) {
	n, found := c.refusals.Load(code)
	if !found {
		n, _ = c.refusals.LoadOrStore(code, &atomic.Uint64{})
	}
	n.(*atomic.Uint64).Add(1)
}

// Refusals gives how often clients were refused something, or ended, by code.
func (b *Broker) Refusals() map[imprint.Code]uint64 {
	counts := map[imprint.Code]uint64{}
	b.count.refusals.Range(func(code, n any) bool {
		counts[code.(imprint.Code)] = n.(*atomic.Uint64).Load()
		return true
	})
	return counts
}

// misuse tells the ends that a client brought about by breaking the protocol.
func misuse(code imprint.Code) bool {
	switch code {
	case imprint.CodeProtocolViolation, imprint.CodeUnsupportedVersion, imprint.CodePacketTooLarge,
		imprint.CodeTopicInvalid, imprint.CodeFilterInvalid, imprint.CodeQoSNotSupported, imprint.CodeClientIDInvalid,
		imprint.CodeReceiveMaximum:
		return true
	}
	return false
}

// isTimeout tells a deadline from other ends of a connection.
func isTimeout(err error) bool {
	var network net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &network) && network.Timeout()
}
