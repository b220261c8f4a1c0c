package broker_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// hears wants the connection to end without a reset, which may cost a client the last
// packet, whatever it sends in the meantime.
func (c *client) hears(last []byte) {
	c.Helper()
	c.write(last)
	_, err := c.receive()
	if !errors.Is(err, io.EOF) {
		c.Errorf("after the last packet: got %v, want %v", err, io.EOF)
	}
}

// TestWhoStillSendsHearsWhyItIsDisconnected ensures that a client that is in the middle
// of sending something gets the reason of its end.
func TestWhoStillSendsHearsWhyItIsDisconnected(t *testing.T) {
	t.Parallel()
	part := []byte(strings.Repeat("x", 500_000))
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	tooLarge := append([]byte("\x32\xc0\x84\x3d"), part...) // half of a PUBLISH of 1,000,000 bytes

	c := h.on(first, id, mqtt.V5, connectAs("large"))
	c.write(tooLarge)
	if got := expect[*mqtt.Disconnect](c).Reason; got != mqtt.PacketTooLarge {
		t.Errorf("got %s, want packet too large", got)
	}
	c.hears(part)
	c.ended(imprint.CodePacketTooLarge)

	c = h.on(first, id, mqtt.V5, connectAs("twice"))
	other := h.on(first, id, mqtt.V5, connectAs("twice"))
	c.write(part) // nobody reads it any more
	if got := expect[*mqtt.Disconnect](c).Reason; got != mqtt.SessionTakenOver {
		t.Errorf("got %s, want session taken over", got)
	}
	c.hears(part)
	other.silent()

	c = h.door(first, id, mqtt.V5)
	c.write(append(connectAs(strings.Repeat("x", 129)).Append(nil, mqtt.V5), tooLarge...))
	if got := expect[*mqtt.Connack](c).Reason; got != mqtt.ClientIdentifierNotValid {
		t.Errorf("got %s, want client identifier not valid", got)
	}
	c.hears(part)
}

// TestWhoDoesntHangUpIsHungUpOn ensures that a client that was told to go and stays isn't
// waited for for long.
func TestWhoDoesntHangUpIsHungUpOn(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	c := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("stays"))
	c.send(&mqtt.Ack{Type: mqtt.TypePubrel, PacketID: 1})
	if got := expect[*mqtt.Disconnect](c).Reason; got != mqtt.QoSNotSupported {
		t.Errorf("got %s, want QoS not supported", got)
	}
	h.eventually("the socket is closed", func() bool {
		_, err := c.conn.Write([]byte{0xc0, 0})
		return err != nil
	})
}
