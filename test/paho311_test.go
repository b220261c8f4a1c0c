package test

import (
	"crypto/tls"
	"fmt"
	"slices"
	"testing"
	"time"

	paho311 "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/mqtt"
)

// mqtt3 is a client of Eclipse Paho for MQTT 3.1.1.
type mqtt3 struct {
	paho311.Client
	t        *testing.T
	messages chan paho311.Message
	connects chan struct{} // each time that it is on
}

// old makes a Paho client for MQTT 3.1.1; it isn't on yet. Address, when not
// empty, is another one than the server's.
func (s *side) old(t *testing.T, id, address string, change func(*paho311.ClientOptions)) *mqtt3 {
	t.Helper()
	if address == "" {
		address = s.stage.device()
	}
	c := &mqtt3{t: t, messages: make(chan paho311.Message, 1000), connects: make(chan struct{}, 100)}
	o := paho311.NewClientOptions().AddBroker("ssl://" + address).SetClientID(id).SetProtocolVersion(4).
		SetTLSConfig(&tls.Config{RootCAs: s.roots, ServerName: s.host, MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{s.pair}}).
		SetCleanSession(true).SetAutoReconnect(false).SetConnectTimeout(patience).SetKeepAlive(time.Minute).
		SetMaxReconnectInterval(100 * time.Millisecond).
		SetDefaultPublishHandler(func(_ paho311.Client, m paho311.Message) { c.messages <- m }).
		SetOnConnectHandler(func(paho311.Client) { c.connects <- struct{}{} })
	if change != nil {
		change(o)
	}
	c.Client = paho311.NewClient(o)
	t.Cleanup(func() { c.Disconnect(50) })
	return c
}

// wait waits for a token, which must succeed.
func (c *mqtt3) wait(what string, token paho311.Token) {
	c.t.Helper()
	if !token.WaitTimeout(patience) {
		c.t.Fatalf("%s: nothing within %s", what, patience)
	}
	if token.Error() != nil {
		c.t.Fatalf("%s: %v", what, token.Error())
	}
}

// on connects and says whether a session was present.
func (c *mqtt3) on() bool {
	c.t.Helper()
	token := c.Connect()
	c.wait("CONNECT", token)
	return token.(*paho311.ConnectToken).SessionPresent()
}

func (c *mqtt3) subscribe(filter string, qos byte) {
	c.t.Helper()
	token := c.Subscribe(filter, qos, nil)
	c.wait("SUBSCRIBE", token)
	if got := token.(*paho311.SubscribeToken).Result()[filter]; got != qos {
		c.t.Fatalf("SUBACK of %s: got %#x, want %d", filter, got, qos)
	}
}

func (c *mqtt3) publish(topic, payload string, retain bool) {
	c.t.Helper()
	c.wait("PUBLISH", c.Publish(topic, 1, retain, payload))
}

func (c *mqtt3) receive() paho311.Message {
	c.t.Helper()
	select {
	case m := <-c.messages:
		return m
	case <-time.After(patience):
		c.t.Fatalf("no message came within %s", patience)
		return nil
	}
}

func (c *mqtt3) receiveAll(n int) []string {
	c.t.Helper()
	var list []string
	for range n {
		list = append(list, string(c.receive().Payload()))
	}
	return list
}

// kept makes a session persistent.
func kept(o *paho311.ClientOptions) { o.SetCleanSession(false) }

// numbered are n different payloads.
func numbered(word string, n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("%s %03d", word, i))
	}
	return list
}

func TestPaho311FindsItsSessionAgain(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	twin := s.newTwin(t, "p3")
	// The other tenant has a session of the same client id, which stays empty.
	theirs := s.two.old(t, "p3", "", kept)
	theirs.on()
	theirs.subscribe("p3/mine/#", 1)
	theirs.Disconnect(50)

	c := s.one.old(t, "p3", "", kept)
	if c.on() {
		t.Error("session present at the first connection: got true, want false")
	}
	c.subscribe("p3/a/#", 1)
	c.subscribe("p3/zero", 0)
	c.subscribe("p3/gone", 1)
	c.wait("UNSUBSCRIBE", c.Unsubscribe("p3/gone"))
	c.Disconnect(50)
	from := s.one.old(t, "p3-from", "", nil)
	from.on()
	want := numbered("while away", 30)
	for n, payload := range want {
		from.publish(fmt.Sprintf("p3/a/%d", n%4), payload, false)
		twin.clash(fmt.Sprintf("p3/a/%d", n%4))
	}
	from.publish("p3/zero", "a subscription with QoS 0 keeps nothing", false)
	from.publish("p3/gone", "no subscription any more", false)
	from.wait("PUBLISH", from.Publish("p3/a/0", 0, false, "QoS 0 is not kept"))
	c = s.one.old(t, "p3", "", kept)
	if !c.on() {
		t.Error("session present at the second connection: got false, want true")
	}
	from.publish("p3/a/0", "end", false)
	got := c.receiveAll(len(want) + 1)
	if diff := cmp.Diff(append(want, "end"), got); diff != "" {
		t.Errorf("messages after resuming (-want +got):\n%s", diff)
	}
	c.Disconnect(50)
	// A clean session ends the old one.
	clean := s.one.old(t, "p3", "", nil)
	if clean.on() {
		t.Error("session present of a clean session: got true, want false")
	}
	clean.Disconnect(50)
	from.publish("p3/a/0", "for nobody", false)
	c = s.one.old(t, "p3", "", kept)
	if c.on() {
		t.Error("session present after a clean session: got true, want false")
	}
	c.subscribe("p3/end", 1)
	from.publish("p3/end", "end", false)
	if got := c.receiveAll(1); got[0] != "end" {
		t.Errorf("message after a clean session: got %q, want end", got)
	}
}

func TestPaho311GetsUnacknowledgedMessagesAgainWithDUPAndInOrder(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	p := newProxy(t, s.device)
	silent := func(o *paho311.ClientOptions) { kept(o); o.SetAutoAckDisabled(true) }
	c := s.one.old(t, "redo", p.address(), silent)
	c.on()
	c.subscribe("redo/#", 1)
	from := s.one.old(t, "redo-from", "", nil)
	from.on()
	gone := presence + "disconnected/redo"
	from.subscribe(gone, 1)
	want := numbered("message", 12)
	for _, payload := range want[:6] {
		from.publish("redo/a", payload, false)
	}
	first := c.receiveAll(6)
	p.cutAll()
	// Until the server has noticed the cut, it sends into it.
	if m := from.receive(); m.Topic() != gone {
		t.Fatalf("after the cut: got a message on %s, want %s", m.Topic(), gone)
	}
	for _, payload := range want[6:] {
		from.publish("redo/a", payload, false)
	}
	c = s.one.old(t, "redo", "", kept)
	if !c.on() {
		t.Error("session present after the cut: got false, want true")
	}
	var again []string
	for n := range want {
		m := c.receive()
		again = append(again, string(m.Payload()))
		// What was sent before comes with DUP; what wasn't may not.
		if sent := n < 6; m.Duplicate() != sent {
			t.Errorf("DUP of %q: got %t, want %t", m.Payload(), m.Duplicate(), sent)
		}
	}
	if diff := cmp.Diff(want[:6], first); diff != "" {
		t.Errorf("messages at first (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, again); diff != "" {
		t.Errorf("messages after the cut (-want +got):\n%s", diff)
	}
}

func TestPaho311SendsAgainWhatWasNotAcknowledged(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	listener := s.one.open(t, mqtt.Connect{ClientID: "sure-listener", CleanStart: true}, mqtt.V5)
	listener.subscribe(at1("sure/#"))
	p := newProxy(t, s.device)
	c := s.one.old(t, "sure", p.address(), func(o *paho311.ClientOptions) {
		kept(o)
		o.SetAutoReconnect(true).SetConnectRetry(true)
	})
	c.on()
	<-c.connects
	want := numbered("sure", 8)
	var got []string
	// hear listens until a message has come.
	hear := func(payload string) {
		for !slices.Contains(got, payload) {
			got = append(got, string(listener.receive().Payload))
		}
	}
	for n, payload := range want {
		if n%2 == 0 {
			// The PUBLISH arrives, its PUBACK doesn't.
			p.only(t).freezeDown()
			token := c.Publish("sure/a", 1, false, payload)
			hear(payload)
			p.cutAll()
			c.wait("PUBLISH", token)
		} else {
			// The PUBLISH is cut in its middle, at another byte each time. Paho may
			// call that an error; it keeps the message and sends it again.
			p.only(t).cutAfter(1 + 5*n)
			c.Publish("sure/a", 1, false, payload).WaitTimeout(patience)
		}
		<-c.connects
		hear(payload)
	}
	c.publish("sure/end", "end", false)
	hear("end")
	var firsts []string
	for _, payload := range got {
		if !slices.Contains(firsts, payload) {
			firsts = append(firsts, payload)
		}
	}
	if diff := cmp.Diff(append(want, "end"), firsts); diff != "" {
		t.Errorf("messages, without the copies behind them (-want +got):\n%s", diff)
	}
}
