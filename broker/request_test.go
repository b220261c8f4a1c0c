package broker_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// desk answers requests to $aws/certificates/create/json with their payload, once
// it is let.
type desk struct {
	let     chan struct{} // nil: at once
	running atomic.Int64
	asked   chan broker.Request
	code    imprint.Code // that all are refused with; empty: none is
}

const asking = "$aws/certificates/create/json"

func (d *desk) Answers(topic string) bool { return topic == asking }

func (d *desk) Answer(ctx context.Context, r broker.Request) broker.Answer {
	d.running.Add(1)
	defer d.running.Add(-1)
	if d.asked != nil {
		d.asked <- r
	}
	if d.code != "" {
		return d.Refuse(r, imprint.Errorf(d.code, "the handler refuses"))
	}
	if string(r.Payload) == "panic" {
		panic("a failure of the handler's own")
	}
	if d.let != nil {
		select {
		case <-d.let:
		case <-ctx.Done():
		}
	}
	return broker.Answer{Topic: r.Topic + "/accepted", Payload: bytes.Clone(r.Payload)}
}

func (d *desk) Refuse(r broker.Request, why error) broker.Answer {
	return broker.Answer{Topic: r.Topic + "/rejected", Payload: []byte(imprint.CodeOf(why)), Refused: imprint.CodeOf(why)}
}

func request(payload string, qos mqtt.QoS) *mqtt.Publish {
	p := &mqtt.Publish{Topic: []byte(asking), Payload: []byte(payload), QoS: qos}
	if qos > 0 {
		p.PacketID = 7
	}
	return p
}

func (c *client) listen(filters ...mqtt.Subscription) {
	c.Helper()
	c.send(&mqtt.Subscribe{PacketID: 1, Filters: filters})
	for n, code := range expect[*mqtt.Suback](c).Codes {
		if code != mqtt.ReasonCode(filters[n].QoS) {
			c.Fatalf("SUBACK of %s: got %s", filters[n].Filter, code)
		}
	}
}

// answered wants an answer, and acknowledges it.
func (c *client) answered(end, payload string, qos mqtt.QoS) {
	c.Helper()
	got := expect[*mqtt.Publish](c)
	if string(got.Topic) != asking+end || string(got.Payload) != payload || got.QoS != qos || got.Retain {
		c.Errorf("got %s %q, want %s %q with QoS %d", got.Detail(), got.Payload, asking+end, payload, qos)
	}
	if got.QoS > 0 {
		c.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: got.PacketID})
	}
}

// TestARequestIsAnsweredOnItsConnectionAlone ensures that no other session gets
// an answer, whatever it subscribed to.
func TestARequestIsAnsweredOnItsConnectionAlone(t *testing.T) {
	d := &desk{}
	bothVersions(t, broker.Options{Reserved: d}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		other := h.on(first, id, v, connectAs("other"))
		other.listen(mqtt.Subscription{Filter: asking + "/accepted", QoS: 1}, mqtt.Subscription{Filter: "#", QoS: 1},
			mqtt.Subscription{Filter: "$share/g/" + asking + "/+", QoS: 1})
		c := h.on(first, id, v, connectAs("asks"))
		for _, sub := range []mqtt.Subscription{{Filter: asking + "/accepted", QoS: 0}, {Filter: asking + "/+", QoS: 1}} {
			c.listen(sub)
			c.send(request("hello", 0))
			c.answered("/accepted", "hello", sub.QoS)
		}
		c.send(request("again", 1))
		if ack := expect[*mqtt.Ack](c); ack.PacketID != 7 || ack.Reason != mqtt.Success {
			c.Errorf("PUBACK: got %s", ack.Detail())
		}
		c.answered("/accepted", "again", 1)
		retained := request("retained", 0)
		retained.Retain = true
		c.send(retained)
		c.answered("/accepted", "retained", 1)
		c.send(&mqtt.Unsubscribe{PacketID: 2, Filters: []string{asking + "/accepted", asking + "/+"}})
		expect[*mqtt.Unsuback](c)
		c.send(request("nobody listens", 0))
		c.listen(mqtt.Subscription{Filter: asking + "/+", QoS: 1})
		c.send(request("now", 0))
		for {
			// The one before may still be answered, as its client listens again.
			got := expect[*mqtt.Publish](c)
			c.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: got.PacketID})
			if string(got.Payload) == "now" {
				break
			}
		}
		other.silent()
	})
}

// countingConn counts what is written at a time.
type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// TestAnAnswerComesWithItsPuback ensures that both are one write, PUBACK first.
func TestAnAnswerComesWithItsPuback(t *testing.T) {
	d := &desk{let: make(chan struct{}), asked: make(chan broker.Request, 1)}
	h := newHouse(t, broker.Options{Reserved: d, RequestPuback: time.Hour})
	var writes atomic.Int64
	h.wrap = func(conn net.Conn) net.Conn { return countingConn{conn, &writes} }
	c := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("asks"))
	c.listen(mqtt.Subscription{Filter: asking + "/+", QoS: 0})
	c.send(request("quick", 1))
	<-d.asked
	c.send(&mqtt.Pingreq{})
	expect[*mqtt.Pingresp](c) // not held up by what waits
	before := writes.Load()
	close(d.let)
	c.acknowledged()
	c.answered("/accepted", "quick", 0)
	if n := writes.Load() - before; n != 1 {
		t.Errorf("PUBACK and answer took %d writes, want 1", n)
	}
}

// TestAPubackDoesNotWaitLongForAnAnswer ensures that each request has its own PUBACK, once.
func TestAPubackDoesNotWaitLongForAnAnswer(t *testing.T) {
	d := &desk{let: make(chan struct{})}
	h := newHouse(t, broker.Options{Reserved: d, RequestPuback: time.Millisecond})
	c := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("asks"))
	c.listen(mqtt.Subscription{Filter: asking + "/+", QoS: 0})
	for range 2 {
		c.send(request("slow", 1)) // the identifier is free again
		c.acknowledged()
	}
	close(d.let)
	for range 2 {
		c.answered("/accepted", "slow", 0)
	}
	c.send(&mqtt.Pingreq{})
	expect[*mqtt.Pingresp](c)
}

func (c *client) acknowledged() {
	c.Helper()
	ack := expect[*mqtt.Ack](c)
	if ack.PacketID != 7 || ack.Reason != mqtt.Success {
		c.Errorf("PUBACK: got %s", ack.Detail())
	}
}

// TestPoliciesHoldForRequests ensures iot:Publish and iot:Receive.
func TestPoliciesHoldForRequests(t *testing.T) {
	const mute = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Connect","iot:Subscribe","iot:Publish"],"Resource":"*"}]}`
	const deaf = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Connect","iot:Subscribe","iot:Receive"],"Resource":"*"}]}`
	h := newHouse(t, broker.Options{Reserved: &desk{}})
	c := h.on(first, h.register(first, mute), mqtt.V5, connectAs("mute"))
	c.listen(mqtt.Subscription{Filter: asking + "/+", QoS: 1})
	c.send(request("x", 1))
	expect[*mqtt.Ack](c)
	c.silent()
	c.goodbye()
	c.hasStep(imprint.CodeClientDisconnect, imprint.CodeReceiveDenied)
	c = h.on(first, h.register(first, deaf), mqtt.V5, connectAs("deaf"))
	c.send(request("x", 1))
	if got := expect[*mqtt.Ack](c).Reason; got != mqtt.NotAuthorized {
		t.Errorf("PUBACK without iot:Publish: got %s", got)
	}
	// Where the service doesn't answer, clients may not publish.
	c = h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("forger"))
	p := request("x", 1)
	p.Topic = []byte(asking + "/accepted")
	c.send(p)
	if got := expect[*mqtt.Ack](c).Reason; got != mqtt.TopicNameInvalid {
		t.Errorf("PUBACK of an answer's topic: got %s", got)
	}
}

// TestRequestsAreBounded ensures the bounds of one connection, and of all of an account.
func TestRequestsAreBounded(t *testing.T) {
	d := &desk{let: make(chan struct{})}
	h := newHouse(t, broker.Options{Reserved: d, MaxRequests: 5, MaxRequestsPerConnection: 2})
	id := h.register(first, allowAll)
	var clients []*client
	for _, name := range []string{"one", "two"} {
		c := h.on(first, id, mqtt.V311, connectAs(name))
		c.listen(mqtt.Subscription{Filter: asking + "/+", QoS: 0})
		clients = append(clients, c)
	}
	for range 3 {
		clients[0].send(request("a", 0))
	}
	clients[0].answered("/rejected", string(imprint.CodeThrottled), 0)
	clients[1].send(request("b", 0), request("c", 0))
	clients[1].answered("/rejected", string(imprint.CodeThrottled), 0)
	close(d.let)
	for range 2 {
		clients[0].answered("/accepted", "a", 0)
	}
	clients[1].answered("/accepted", "b", 0)
	clients[1].send(request("d", 0))
	clients[1].answered("/accepted", "d", 0)
	if c := h.broker.Counters(); c.Requests != 4 || c.RequestsThrottled != 2 {
		t.Errorf("counters: got %d requests, %d throttled; want 4, 2", c.Requests, c.RequestsThrottled)
	}
}

// TestRequestsOfOneAccountLeavePlacesToOthers ensures that an account has at most half of
// the places alone, in however many regions, and that another finds one.
func TestRequestsOfOneAccountLeavePlacesToOthers(t *testing.T) {
	d := &desk{let: make(chan struct{})}
	h := newHouse(t, broker.Options{Reserved: d, MaxRequests: 4})
	on := func(tenant imprint.Tenant) *client {
		c := h.on(tenant, h.register(tenant, allowAll), mqtt.V311, connectAs("asks"))
		c.listen(mqtt.Subscription{Filter: asking + "/+", QoS: 0})
		return c
	}
	here, elsewhere := on(first), on(second)
	other := on(imprint.Tenant{Account: "111111111111", Region: "us-east-1"})
	here.send(request("a", 0), &mqtt.Pingreq{})
	expect[*mqtt.Pingresp](here)
	elsewhere.send(request("b", 0), request("c", 0))
	elsewhere.answered("/rejected", string(imprint.CodeThrottled), 0)
	other.send(request("d", 0), request("e", 0))
	other.answered("/rejected", string(imprint.CodeThrottled), 0)
	close(d.let)
	here.answered("/accepted", "a", 0)
	elsewhere.answered("/accepted", "b", 0)
	other.answered("/accepted", "d", 0)
	for range 3 {
		elsewhere.send(request("f", 0))
		elsewhere.answered("/accepted", "f", 0)
	}
}

// TestAConnectionsRequestsHaveARate ensures that a client that asks too often is
// refused before anything is done for it, that others aren't, and that what a
// handler refuses is counted by its code.
func TestAConnectionsRequestsHaveARate(t *testing.T) {
	d := &desk{code: imprint.CodeClaimStopped}
	h := newHouseAt(t, broker.Options{Reserved: d, RequestRate: 3}, registry, time.Now())
	id := h.register(first, allowAll)
	for _, name := range []string{"one", "two"} {
		c := h.on(first, id, mqtt.V311, connectAs(name))
		c.listen(mqtt.Subscription{Filter: asking + "/+", QoS: 0})
		for range 3 {
			c.send(request("a", 0))
			c.answered("/rejected", string(imprint.CodeClaimStopped), 0)
		}
		for range 5 {
			c.send(request("a", 0))
			c.answered("/rejected", string(imprint.CodeThrottled), 0)
		}
	}
	if c := h.broker.Counters(); c.Requests != 6 || c.RequestsThrottled != 10 {
		t.Errorf("counters: got %d requests, %d throttled; want 6, 10", c.Requests, c.RequestsThrottled)
	}
	counts := h.broker.Refusals()
	if counts[imprint.CodeClaimStopped] != 6 || counts[imprint.CodeThrottled] != 10 {
		t.Errorf("refusals: got %v, want 6 ClaimStopped and 10 Throttled", counts)
	}
}

// TestARequestThatFailsCostsTheServerNothing ensures that a panic is an answer.
func TestARequestThatFailsCostsTheServerNothing(t *testing.T) {
	h := newHouse(t, broker.Options{Reserved: &desk{}})
	c := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("unlucky"))
	c.listen(mqtt.Subscription{Filter: asking + "/+", QoS: 1})
	c.send(request("panic", 0))
	c.answered("/rejected", string(imprint.CodeInternal), 1)
	c.send(request("fine", 0))
	c.answered("/accepted", "fine", 1)
}

// TestARequestEndsWithItsConnection ensures that nothing runs on for a device
// that is gone, and that its trace is whole.
func TestARequestEndsWithItsConnection(t *testing.T) {
	d := &desk{let: make(chan struct{}), asked: make(chan broker.Request, 1)}
	h := newHouse(t, broker.Options{Reserved: d})
	c := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("hasty"))
	c.send(request("x", 0))
	if r := <-d.asked; r.Tenant != first || r.ClientID != "hasty" || r.Certificate == "" || r.Rec == nil || !strings.HasPrefix(r.Address.String(), "192.0.2.") {
		t.Errorf("request: got %+v", r)
	}
	c.goodbye()
	c.ended(imprint.CodeClientDisconnect)
	if n := d.running.Load(); n != 0 {
		t.Errorf("requests that run on: got %d, want 0", n)
	}
}

// TestAnAnswerIsInNoStoredQueue ensures that a persistent session keeps its
// messages and never an answer, which may hold a private key.
func TestAnAnswerIsInNoStoredQueue(t *testing.T) {
	bothVersions(t, broker.Options{Reserved: &desk{}}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		name := "keeps" + strings.ReplaceAll(t.Name(), "/", "")
		c := h.on(first, id, v, lasting(v, name, 1000))
		c.listen(mqtt.Subscription{Filter: asking + "/+", QoS: 1}, mqtt.Subscription{Filter: "stored", QoS: 1})
		c.send(&mqtt.Publish{Topic: []byte("stored"), Payload: []byte("kept"), QoS: 1, PacketID: 9})
		ids := map[uint16]bool{}
		for range 2 {
			p, err := c.receive()
			h.must(err)
			if message, ok := p.(*mqtt.Publish); ok {
				ids[message.PacketID] = true
			}
		}
		c.send(request("secret", 0))
		got := expect[*mqtt.Publish](c)
		if string(got.Payload) != "secret" || ids[got.PacketID] {
			t.Errorf("answer: got %q with packet id %d, which is in use: %t", got.Payload, got.PacketID, ids[got.PacketID])
		}
		c.cut()
		c = h.back(first, id, v, lasting(v, name, 1000))
		again := expect[*mqtt.Publish](c)
		if string(again.Payload) != "kept" || !again.Dup {
			t.Errorf("after the reconnect: got %s %q, want the stored message again", again.Detail(), again.Payload)
		}
		c.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: again.PacketID})
		c.silent()
		var held int
		err := h.store.View(context.Background(), func(tx imprint.ReadTx) error {
			sizes, err := tx.QueueSizes(0, 1000)
			for _, size := range sizes {
				rows, err := tx.Queued(size.Session, 0, 1000, 1<<20)
				if err != nil {
					return err
				}
				for _, row := range rows {
					if bytes.Contains(row.Packet, []byte("secret")) {
						held++
					}
				}
			}
			return err
		})
		if err != nil || held > 0 {
			t.Errorf("answers in the store: got %d (%v), want none", held, err)
		}
	})
}
