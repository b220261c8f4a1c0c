package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/mqtt"
)

// paho5 is a Paho client for MQTT 5 whose messages are kept whole.
type paho5 struct {
	*mqtt5
	t   *testing.T
	got chan *paho.Publish
}

// five says how a paho5 connects.
type five struct {
	id      string
	expiry  uint32 // session expiry interval; 0: the session ends with the connection
	clean   bool
	silent  bool // acknowledges only when told
	address string
	connect func(*paho.Connect)
}

func (s *side) tryFive(t *testing.T, how five) (*paho5, error) {
	t.Helper()
	c := &paho5{t: t, got: make(chan *paho.Publish, 2000)}
	dialed, err := s.stage.dial(soon(t), t, s.device, how.id, dialing{
		host: s.host, address: how.address,
		connect: func(packet *paho.Connect) {
			packet.CleanStart = how.clean
			packet.Properties = &paho.ConnectProperties{RequestProblemInfo: true}
			if how.expiry > 0 {
				packet.Properties.SessionExpiryInterval = &how.expiry
			}
			if how.connect != nil {
				how.connect(packet)
			}
		},
		client: func(config *paho.ClientConfig) {
			config.EnableManualAcknowledgment = how.silent
			config.OnPublishReceived = []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
				c.got <- p.Packet
				return true, nil
			}}
		},
	})
	c.mqtt5 = dialed
	return c, err
}

func (s *side) five(t *testing.T, how five) *paho5 {
	t.Helper()
	c, err := s.tryFive(t, how)
	if err != nil {
		t.Fatalf("%s couldn't connect: %v", how.id, err)
	}
	return c
}

// next gives the next message whole.
func (c *paho5) next() *paho.Publish {
	c.t.Helper()
	select {
	case m := <-c.got:
		return m
	case <-time.After(patience):
		c.t.Fatalf("no message came within %s", patience)
		return nil
	}
}

func (c *paho5) nextAll(n int) []string {
	c.t.Helper()
	var list []string
	for range n {
		list = append(list, string(c.next().Payload))
	}
	return list
}

// grant subscribes and must be granted the QoS that it asks for.
func (c *paho5) grant(options ...paho.SubscribeOptions) {
	c.t.Helper()
	answer, err := c.Subscribe(soon(c.t), &paho.Subscribe{Subscriptions: options})
	if err != nil {
		c.t.Fatalf("couldn't subscribe to %v: %v", options, err)
	}
	for n, o := range options {
		if answer.Reasons[n] != o.QoS {
			c.t.Fatalf("SUBACK of %s: got %#x, want %d", o.Topic, answer.Reasons[n], o.QoS)
		}
	}
}

func (c *paho5) leave(reason byte, expiry *uint32) {
	packet := &paho.Disconnect{ReasonCode: reason}
	if expiry != nil {
		packet.Properties = &paho.DisconnectProperties{SessionExpiryInterval: expiry}
	}
	_ = c.Disconnect(packet)
	<-c.lost
}

func TestSessionsAndSubscriptionsOfMQTT5(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	for name, run := range map[string]func(*testing.T){
		"Paho finds its session again":                                   s.paho5FindsItsSessionAgain,
		"Paho gets unacknowledged messages again, with DUP and in order": s.paho5GetsUnacknowledgedMessagesAgainWithDUPAndInOrder,
		"a client gets no more than its receive maximum at once":         s.aClientGetsNoMoreThanItsReceiveMaximumAtOnce,
		"topic aliases work in both directions":                          s.topicAliasesWorkInBothDirections,
		"DISCONNECT changes the session's expiry":                        s.disconnectChangesTheSessionsExpiry,
		"subscription options":                                           s.subscriptionOptionsOfMQTT5,
		"a client gets no packet over its maximum":                       s.aClientGetsNoPacketOverItsMaximum,
		"the server assigns client ids":                                  s.theServerAssignsClientIDs,
		"will delays":                                                    s.willDelays,
		"a takeover goes on with the session":                            s.aTakeoverGoesOnWithTheSession,
		"no version resumes a session of the other":                      s.noVersionResumesASessionOfTheOther,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t)
		})
	}
}

func (s *stage) paho5FindsItsSessionAgain(t *testing.T) {
	twin := s.newTwin(t, "p5")
	theirs := s.two.five(t, five{id: "p5", expiry: 600})
	theirs.grant(paho.SubscribeOptions{Topic: "p5/mine/#", QoS: 1})
	theirs.leave(0, nil)

	c := s.one.five(t, five{id: "p5", expiry: 600})
	if c.connack.SessionPresent {
		t.Error("session present at the first connection: got true, want false")
	}
	if got := c.connack.Properties.SessionExpiryInterval; got != nil && *got != 600 {
		t.Errorf("session expiry interval: got %d, want 600 or none", *got)
	}
	c.grant(paho.SubscribeOptions{Topic: "p5/a/#", QoS: 1}, paho.SubscribeOptions{Topic: "p5/zero", QoS: 0})
	c.leave(0, nil)
	from := s.one.five(t, five{id: "p5-from", clean: true})
	want := numbered("while away", 30)
	for n, payload := range want {
		topic := fmt.Sprintf("p5/a/%d", n%4)
		if got := from.send(t, topic, payload, 1); got != 0 && got != 0x10 {
			t.Errorf("PUBACK: got %#x, want 0", got)
		}
		twin.clash(topic)
	}
	from.send(t, "p5/zero", "a subscription with QoS 0 keeps nothing", 1)
	from.send(t, "p5/a/0", "QoS 0 is not kept", 0)
	c = s.one.five(t, five{id: "p5", expiry: 600})
	if !c.connack.SessionPresent {
		t.Error("session present at the second connection: got false, want true")
	}
	from.send(t, "p5/a/0", "end", 1)
	if diff := cmp.Diff(append(want, "end"), c.nextAll(len(want)+1)); diff != "" {
		t.Errorf("messages after resuming (-want +got):\n%s", diff)
	}
	// Clean Start ends the old session.
	c.leave(0, nil)
	clean := s.one.five(t, five{id: "p5", clean: true, expiry: 600})
	if clean.connack.SessionPresent {
		t.Error("session present with Clean Start: got true, want false")
	}
}

func (s *stage) paho5GetsUnacknowledgedMessagesAgainWithDUPAndInOrder(t *testing.T) {
	c := s.one.five(t, five{id: "redo", expiry: 600, silent: true})
	c.grant(paho.SubscribeOptions{Topic: "redo/#", QoS: 1})
	from := s.one.five(t, five{id: "redo-from", clean: true})
	watch := s.one.open(t, mqtt.Connect{ClientID: "redo-watch", CleanStart: true}, mqtt.V5)
	watch.subscribe(at1(presence + "disconnected/redo"))
	want := numbered("message", 12)
	for _, payload := range want[:6] {
		from.send(t, "redo/a", payload, 1)
	}
	if diff := cmp.Diff(want[:6], c.nextAll(6)); diff != "" {
		t.Errorf("messages at first (-want +got):\n%s", diff)
	}
	c.cut()
	// Until the server has noticed the cut, it sends into it.
	checkPresence(t, watch.receive(), "disconnected", "redo", "CONNECTION_LOST")
	for _, payload := range want[6:] {
		from.send(t, "redo/a", payload, 1)
	}
	c = s.one.five(t, five{id: "redo", expiry: 600})
	for n, payload := range want {
		m := c.next()
		if sent := n < 6; string(m.Payload) != payload || m.Duplicate() != sent {
			t.Errorf("message %d after the cut: got %q, DUP %t; want %q, DUP %t", n, m.Payload, m.Duplicate(), payload, sent)
		}
	}
}

func (s *stage) aClientGetsNoMoreThanItsReceiveMaximumAtOnce(t *testing.T) {
	from := s.one.five(t, five{id: "window-from", clean: true})
	for _, most := range []uint16{1, 2, 5, 20} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			topic := fmt.Sprintf("window/%d", most)
			w := s.one.open(t, mqtt.Connect{ClientID: fmt.Sprintf("window-%d", most), CleanStart: true, Properties: receiveMaximum(most)}, mqtt.V5)
			w.subscribe(at1(topic))
			w.withhold = true
			want := numbered("message", 30)
			for _, payload := range want {
				from.send(t, topic, payload, 1)
			}
			var got []string
			for len(got) < len(want) {
				w.ping()
				if len(w.inbox) > int(most) {
					t.Fatalf("messages that weren't acknowledged: got %d, want at most %d", len(w.inbox), most)
				}
				for len(w.inbox) == 0 {
					_, err := w.tryNext(patience)
					if err != nil {
						t.Fatal(err)
					}
				}
				for _, m := range w.inbox {
					got = append(got, string(m.Payload))
				}
				w.inbox = nil
				err := w.tryAcknowledge()
				if err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
			// QoS 0 isn't held back by it.
			w.unacked = nil
			from.send(t, topic, "one in flight", 1)
			w.expect("one in flight")
			from.send(t, topic, "QoS 0", 0)
			from.send(t, "window/other", "so that QoS 0 was handled", 1)
			w.expect("QoS 0")
		})
	}
}

func receiveMaximum(n uint16) mqtt.Properties {
	p := mqtt.Properties{ReceiveMaximum: n}
	p.Mark(mqtt.PropReceiveMaximum)
	return p
}

func (s *stage) topicAliasesWorkInBothDirections(t *testing.T) {
	connect := mqtt.Connect{ClientID: "alias", CleanStart: true, Properties: mqtt.Properties{TopicAliasMaximum: 3}}
	connect.Properties.Mark(mqtt.PropTopicAliasMaximum)
	w := s.one.open(t, connect, mqtt.V5)
	w.subscribe(at1("alias/#"))
	from := s.one.five(t, five{id: "alias-from", clean: true})
	most := from.connack.Properties.TopicAliasMaximum
	if most == nil || *most != 8 {
		t.Fatalf("Topic Alias Maximum of CONNACK: got %v, want 8", most)
	}
	names := map[uint16]string{} // what the server's aliases mean
	check := func(topic, payload string) {
		t.Helper()
		m := w.receive()
		name := string(m.Topic)
		if alias := m.Properties.TopicAlias; alias > 0 {
			if alias > 3 {
				t.Errorf("alias from the server: got %d, want at most 3", alias)
			}
			if name == "" {
				name = names[alias]
			}
			names[alias] = name
		}
		if name != topic || string(m.Payload) != payload {
			t.Errorf("message: got %s %q, want %s %q", name, m.Payload, topic, payload)
		}
	}
	for round := range 3 {
		for n := range 8 {
			topic, payload, alias := fmt.Sprintf("alias/%d", n), fmt.Sprintf("%d of round %d", n, round), uint16(n+1)
			p := &paho.Publish{Topic: topic, Payload: []byte(payload), QoS: 1, Properties: &paho.PublishProperties{TopicAlias: &alias}}
			if round > 0 {
				p.Topic = ""
			}
			answer, err := from.Publish(soon(t), p)
			if err != nil || answer.ReasonCode != 0 {
				t.Fatalf("PUBLISH with alias %d: got %+v, %v", alias, answer, err)
			}
			check(topic, payload)
		}
	}
	// An alias may get another meaning.
	alias := uint16(1)
	for n, topic := range []string{"alias/new", ""} {
		_, err := from.Publish(soon(t), &paho.Publish{Topic: topic, Payload: []byte{byte('a' + n)}, QoS: 1, Properties: &paho.PublishProperties{TopicAlias: &alias}})
		if err != nil {
			t.Fatal(err)
		}
		check("alias/new", string(rune('a'+n)))
	}
}

func (s *stage) disconnectChangesTheSessionsExpiry(t *testing.T) {
	zero, one, long := uint32(0), uint32(1), uint32(600)
	present := func(id string) bool {
		c := s.one.five(t, five{id: id, expiry: long})
		defer c.leave(0, &zero)
		return c.connack.SessionPresent
	}
	s.one.five(t, five{id: "expiry-0", expiry: long}).leave(0, &zero)
	if present("expiry-0") {
		t.Error("session whose DISCONNECT says 0: got it again, want it gone")
	}
	s.one.five(t, five{id: "expiry-kept", expiry: one}).leave(0, &long)
	s.one.five(t, five{id: "expiry-1", expiry: long}).leave(0, &one)
	// AWS IoT Core keeps sessions up to half an hour longer, and never shorter;
	// here a second is enough to be told apart.
	awaitSeconds(t, 2)
	if present("expiry-1") {
		t.Error("session whose DISCONNECT says 1 s: got it again after 2 s, want it gone")
	}
	if !present("expiry-kept") {
		t.Error("session whose DISCONNECT says 600 s: want it again after 2 s")
	}
	// From none to some is against the rules.
	c := s.one.five(t, five{id: "expiry-none", clean: true})
	w := s.one.open(t, mqtt.Connect{ClientID: "expiry-rule", CleanStart: true}, mqtt.V5)
	packet := &mqtt.Disconnect{Properties: mqtt.Properties{SessionExpiry: 5}}
	packet.Properties.Mark(mqtt.PropSessionExpiry)
	w.send(packet)
	if goodbye := w.ended(); goodbye == nil || goodbye.Reason != mqtt.ProtocolError {
		t.Errorf("answer to a DISCONNECT that sets an expiry: got %+v, want 0x82", goodbye)
	}
	c.leave(0, nil)
	// More than a session may live is lowered, and said.
	c = s.one.five(t, five{id: "expiry-most", expiry: 0xffffffff})
	if got := c.connack.Properties.SessionExpiryInterval; got == nil || *got == 0 || *got > 604800 {
		t.Errorf("session expiry interval for the longest one: got %v, want at most 604800", got)
	}
	c.leave(0, &zero)
}

func (s *stage) subscriptionOptionsOfMQTT5(t *testing.T) {
	from := s.one.five(t, five{id: "options-from", clean: true})
	keep := func(topic, payload string) {
		_, err := from.Publish(soon(t), &paho.Publish{Topic: topic, Payload: []byte(payload), QoS: 1, Retain: true})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Run("no local", func(t *testing.T) {
		c := s.one.five(t, five{id: "options-local", clean: true})
		c.grant(paho.SubscribeOptions{Topic: "options/local", QoS: 1, NoLocal: true})
		c.send(t, "options/local", "mine", 1)
		from.send(t, "options/local", "another's", 1)
		if got := c.nextAll(1); got[0] != "another's" {
			t.Errorf("message: got %q, want another's", got)
		}
	})
	t.Run("retain as published", func(t *testing.T) {
		c := s.one.five(t, five{id: "options-rap", clean: true})
		c.grant(paho.SubscribeOptions{Topic: "options/rap", QoS: 1, RetainAsPublished: true}, paho.SubscribeOptions{Topic: "options/no-rap", QoS: 1})
		keep("options/rap", "as published")
		keep("options/no-rap", "cleared")
		for _, want := range []bool{true, false} {
			if m := c.next(); m.Retain != want {
				t.Errorf("RETAIN of %q: got %t, want %t", m.Payload, m.Retain, want)
			}
		}
	})
	t.Run("retain handling", func(t *testing.T) {
		keep("options/kept", "kept")
		c := s.one.five(t, five{id: "options-handling", clean: true})
		// 2: never; 1: when the subscription is new, which it isn't any more; 0: always.
		c.grant(paho.SubscribeOptions{Topic: "options/kept", QoS: 1, RetainHandling: 2})
		c.grant(paho.SubscribeOptions{Topic: "options/kept", QoS: 1, RetainHandling: 1})
		from.send(t, "options/kept", "first", 1)
		c.grant(paho.SubscribeOptions{Topic: "options/kept", QoS: 1, RetainHandling: 0})
		got := c.nextAll(2)
		_, err := c.Unsubscribe(soon(t), &paho.Unsubscribe{Topics: []string{"options/kept"}})
		if err != nil {
			t.Fatal(err)
		}
		c.grant(paho.SubscribeOptions{Topic: "options/kept", QoS: 1, RetainHandling: 1})
		got = append(got, c.nextAll(1)...)
		if want := []string{"first", "kept", "kept"}; !slices.Equal(got, want) {
			t.Errorf("messages: got %q, want %q", got, want)
		}
	})
}

func (s *stage) aClientGetsNoPacketOverItsMaximum(t *testing.T) {
	most := uint32(200)
	for _, expiry := range []uint32{0, 600} {
		id := fmt.Sprintf("narrow-%d", expiry)
		c := s.one.five(t, five{id: id, clean: true, expiry: expiry, connect: func(p *paho.Connect) { p.Properties.MaximumPacketSize = &most }})
		c.grant(paho.SubscribeOptions{Topic: id, QoS: 1})
		wide := s.one.five(t, five{id: id + "-wide", clean: true})
		wide.grant(paho.SubscribeOptions{Topic: id, QoS: 1})
		from := s.one.five(t, five{id: id + "-from", clean: true})
		long := strings.Repeat("x", 300)
		for _, payload := range []string{"short", long, "end"} {
			from.send(t, id, payload, 1)
		}
		if got, want := c.nextAll(2), []string{"short", "end"}; !slices.Equal(got, want) {
			t.Errorf("messages to %s: got %.20q, want %q", id, got, want)
		}
		if got, want := wide.nextAll(3), []string{"short", long, "end"}; !slices.Equal(got, want) {
			t.Errorf("messages to a client without a maximum: got %.20q, want %.20q", got, want)
		}
	}
}

func (s *stage) theServerAssignsClientIDs(t *testing.T) {
	a, b := s.one.five(t, five{clean: true}), s.one.five(t, five{clean: true})
	first, second := a.connack.Properties.AssignedClientID, b.connack.Properties.AssignedClientID
	if first == "" || first == second {
		t.Errorf("assigned client ids: got %q and %q, want two different ones", first, second)
	}
	// An assigned id is as good as any other.
	a.leave(0, nil)
	again := s.one.five(t, five{id: first, clean: true})
	again.grant(paho.SubscribeOptions{Topic: "assigned", QoS: 1})
	b.send(t, "assigned", "hello", 1)
	if got := again.nextAll(1); got[0] != "hello" {
		t.Errorf("message: got %q, want hello", got)
	}
}

func (s *stage) willDelays(t *testing.T) {
	watch := s.one.open(t, mqtt.Connect{ClientID: "late-watch", CleanStart: true}, mqtt.V5)
	watch.subscribe(at1("late/#"))
	ends := s.one.open(t, mqtt.Connect{ClientID: "late-ends", CleanStart: true}, mqtt.V5)
	ends.subscribe(at1(presence+"disconnected/back"), at1(presence+"disconnected/anew"))
	theirs := s.newTwin(t, "late")
	will := func(id string, delay uint32) func(*paho.Connect) {
		return func(p *paho.Connect) {
			p.WillMessage = &paho.WillMessage{Topic: "late/" + id, Payload: []byte("will of " + id), QoS: 1}
			p.WillProperties = &paho.WillProperties{WillDelayInterval: &delay}
		}
	}
	// Comes back before its will is due: no will.
	s.one.five(t, five{id: "back", expiry: 600, connect: will("back", 2)}).cut()
	checkPresence(t, ends.receive(), "disconnected", "back", "CONNECTION_LOST")
	back := s.one.five(t, five{id: "back", expiry: 600, connect: will("back", 600)})
	if !back.connack.SessionPresent {
		t.Error("session present: got false, want true")
	}
	// The delay ends with the session.
	began := time.Now()
	s.one.five(t, five{id: "ends", expiry: 1, connect: will("ends", 600)}).cut()
	s.one.five(t, five{id: "waits", expiry: 600, connect: will("waits", 3)}).cut()
	first := watch.receive()
	if took := time.Since(began); string(first.Payload) != "will of ends" || took < 900*time.Millisecond {
		t.Errorf("first will: got %q after %s, want will of ends after a second", first.Payload, took)
	}
	second := watch.receive()
	if took := time.Since(began); string(second.Payload) != "will of waits" || took < 2900*time.Millisecond {
		t.Errorf("second will: got %q after %s, want will of waits after three seconds", second.Payload, took)
	}
	// A new session of the same client ends the old one, and the delay with it.
	s.one.five(t, five{id: "anew", expiry: 600, connect: will("anew", 600)}).cut()
	checkPresence(t, ends.receive(), "disconnected", "anew", "CONNECTION_LOST")
	s.one.five(t, five{id: "anew", clean: true})
	watch.expect("will of anew")
	// The will of the one that came back has never been sent.
	watch.expectNothing()
	theirs.clash("late/end")
}

func (s *stage) aTakeoverGoesOnWithTheSession(t *testing.T) {
	// The same client id in the other tenant stays on.
	theirs := s.two.five(t, five{id: "twice", expiry: 600})
	first := s.one.five(t, five{id: "twice", expiry: 600})
	first.grant(paho.SubscribeOptions{Topic: "twice/#", QoS: 1})
	second := s.one.five(t, five{id: "twice", expiry: 600})
	if got := first.goodbye(t); got != 0x8e {
		t.Errorf("DISCONNECT of the first: got %#x, want 0x8e", got)
	}
	if !second.connack.SessionPresent {
		t.Error("session present of the second: got false, want true")
	}
	second.send(t, "twice/a", "to itself", 1)
	if got := second.nextAll(1); got[0] != "to itself" {
		t.Errorf("message: got %q, want to itself", got)
	}
	if got := theirs.send(t, "twice/a", "still here", 1); got != 0 && got != 0x10 {
		t.Errorf("PUBACK of the other tenant's client: got %#x, want 0", got)
	}
	select {
	case reason := <-theirs.reasons:
		t.Errorf("the other tenant's client was ended with %#x", reason)
	default:
	}
}

func (s *stage) noVersionResumesASessionOfTheOther(t *testing.T) {
	from := s.one.open(t, mqtt.Connect{ClientID: "across-from", CleanStart: true}, mqtt.V5)
	for _, version := range bothVersions {
		other := mqtt.V311 + mqtt.V5 - version
		t.Run(version.String()+", then "+other.String(), func(t *testing.T) {
			id := "across-" + short(version)
			w := s.one.open(t, persistent(id, version), version)
			w.subscribe(at1(id + "/#"))
			w.close()
			from.say(id+"/a", "waits")
			w = s.one.open(t, persistent(id, other), other)
			if w.connack.SessionPresent {
				t.Error("session present: got true, want false")
			}
			w.expectNothing()
			w.close()
			// The old session is gone for good.
			w = s.one.open(t, persistent(id, version), version)
			if w.connack.SessionPresent {
				t.Error("session present of the first version again: got true, want false")
			}
			w.expectNothing()
		})
	}
}
