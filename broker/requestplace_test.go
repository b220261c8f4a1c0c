package broker_test

import (
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// fullConn is a socket that takes nothing more once it is full, until it is let.
type fullConn struct {
	net.Conn
	full    atomic.Bool
	writing chan struct{}
	let     chan struct{}
}

func (c *fullConn) Write(b []byte) (int, error) {
	if c.full.Load() {
		c.writing <- struct{}{}
		<-c.let
	}
	return c.Conn.Write(b)
}

// TestAClientThatDoesntReadKeepsNoPlaceForRequests ensures that a request is over when its
// answer is made, however long its client takes to read it.
func TestAClientThatDoesntReadKeepsNoPlaceForRequests(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{Reserved: &desk{}, MaxRequests: 1})
	id := h.register(first, allowAll)
	other := h.on(first, id, mqtt.V5, connectAs("other"))
	other.listen(mqtt.Subscription{Filter: asking + "/+"})
	socket := &fullConn{writing: make(chan struct{}, 1), let: make(chan struct{})}
	h.wrap = func(conn net.Conn) net.Conn {
		socket.Conn = conn
		return socket
	}
	stuck := h.on(first, id, mqtt.V5, connectAs("stuck"))
	stuck.listen(mqtt.Subscription{Filter: asking + "/+"})
	socket.full.Store(true)
	stuck.send(request("unread", 0))
	<-socket.writing
	other.send(request("read", 0))
	other.answered("/accepted", "read", 0)
	socket.full.Store(false)
	close(socket.let)
	stuck.answered("/accepted", "unread", 0)
}

// TestALateAnswerAcknowledgesNothingElse ensures that an answer that comes after its
// request's PUBACK doesn't acknowledge what uses the packet identifier by then, and isn't
// stored.
func TestALateAnswerAcknowledgesNothingElse(t *testing.T) {
	t.Parallel()
	d := &desk{let: make(chan struct{})}
	g := &gate{}
	h := newHouseOn(t, broker.Options{Reserved: d, RequestPuback: time.Millisecond}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), g.faults()))
	id := h.register(first, allowAll)
	h.keeper(id, mqtt.V5, "m")
	c := h.on(first, id, mqtt.V5, connectAs("asks"))
	c.listen(mqtt.Subscription{Filter: asking + "/+", QoS: 0})
	c.send(request("slow", 1))
	c.acknowledged()
	open := g.shut(t)
	c.publish(1, 7, "m", "x")
	c.silent()
	close(d.let)
	c.answered("/accepted", "slow", 0)
	c.silent()
	open()
	c.acknowledged()
}
