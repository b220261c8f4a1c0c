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

var bothVersions = []mqtt.Version{mqtt.V311, mqtt.V5}

func short(v mqtt.Version) string { return map[mqtt.Version]string{mqtt.V311: "311", mqtt.V5: "5"}[v] }

func TestASubscriberOnADeadLinkLosesNothingWhenItComesElsewhere(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	for _, version := range bothVersions {
		t.Run(version.String(), func(t *testing.T) {
			t.Parallel()
			id := "half-" + short(version)
			twin := s.newTwin(t, id)
			p := newProxy(t, s.device)
			watch := s.one.open(t, mqtt.Connect{ClientID: id + "-watch", CleanStart: true}, mqtt.V5)
			watch.subscribe(at1(presence + "disconnected/" + id))
			sub := s.one.openAt(t, p.address(), persistent(id, version), version)
			sub.subscribe(at1(id + "/#"))
			from := s.one.open(t, mqtt.Connect{ClientID: id + "-from", CleanStart: true}, mqtt.V5)
			want := numbered("message", 60)
			for n, payload := range want {
				if n == 10 {
					sub.expect(want[:10]...)
					sub.ping() // so that its PUBACKs have arrived
					p.only(t).freeze()
				}
				from.say(id+"/a", payload)
				twin.clash(id + "/a")
			}
			again := s.one.open(t, persistent(id, version), version)
			if !again.connack.SessionPresent {
				t.Error("session present after the takeover: got false, want true")
			}
			again.expect(want[10:]...)
			again.expectNothing()
			checkPresence(t, watch.receive(), "disconnected", id, "DUPLICATE_CLIENTID")
			var list []attempt
			until(t, "the older attempt of "+id+" to end", func() bool {
				list = s.explain(t, id)
				return len(list) == 2 && list[1].Ended > 0
			})
			if list[1].Outcome != "closed" || list[1].Code != "SessionTakenOver" {
				t.Errorf("attempts of %s: got %+v, want the older one closed, SessionTakenOver", id, list)
			}
		})
	}
}

func TestCutsAtAnyByteLeaveNothingBehind(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t, "IMPRINT_TRACE_FOLD_AFTER=0") // each cut is looked at
	s.cutsInsidePackets(t)
	s.cutsOfTheHandshake(t)
	s.awaitEmpty(t)
}

// cutsInsidePackets ends connections after each of some bytes of a packet.
func (s *stage) cutsInsidePackets(t *testing.T) {
	connect := mqtt.Connect{ClientID: "torn", CleanStart: true, KeepAlive: 60, Will: &mqtt.Will{Topic: "torn/will", Payload: []byte("will"), QoS: 1}}
	for _, version := range bothVersions {
		packets := map[string]mqtt.Packet{
			"CONNECT":     &connect,
			"SUBSCRIBE":   &mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{at1("torn/a"), at1("torn/b")}},
			"UNSUBSCRIBE": &mqtt.Unsubscribe{PacketID: 1, Filters: []string{"torn/a"}},
			"PUBLISH":     &mqtt.Publish{Topic: []byte("torn/a"), Payload: []byte("half a message"), QoS: 1, PacketID: 1},
		}
		for name, packet := range packets {
			t.Run(version.String()+" "+name, func(t *testing.T) {
				watch := s.one.open(t, mqtt.Connect{ClientID: "torn-watch", CleanStart: true}, mqtt.V5)
				watch.subscribe(at1("torn/#"), at1(presence+"disconnected/torn"))
				whole := packet.Append(nil, version)
				for _, n := range []int{0, 1, 2, len(whole) / 2, len(whole) - 1} {
					before := s.metric(t, "imprint_connections_accepted_total")
					w, err := s.one.tryDial(t, "")
					if err == nil && name != "CONNECT" {
						err = w.tryConnect(connect, version)
					}
					if err != nil {
						t.Fatal(err)
					}
					w.sendBytes(whole[:n])
					w.cut()
					if name == "CONNECT" {
						s.awaitRefusals(t)
						if got := s.metric(t, "imprint_connections_accepted_total"); got != before+1 {
							t.Errorf("connections: got %v more, want 1", got-before)
						}
						continue
					}
					var topics []string
					for range 2 {
						topics = append(topics, string(watch.receive().Topic))
					}
					slices.Sort(topics)
					if want := []string{presence + "disconnected/torn", "torn/will"}; !slices.Equal(topics, want) {
						t.Errorf("after %d bytes: got %v, want %v", n, topics, want)
					}
				}
				// Nothing of what was half said is in force.
				watch.expectNothing()
				watch.close()
				checkLost(t, s, name == "CONNECT")
			})
		}
	}
}

// checkLost looks at the attempts of torn connections.
func checkLost(t *testing.T, s *stage, refused bool) {
	t.Helper()
	who, outcome := "torn", "closed"
	if refused {
		who, outcome = s.one.device.id(t), "refused"
	}
	list := s.awaitExplained(t, who, 3)
	if refused {
		list = slices.DeleteFunc(list, func(a attempt) bool { return a.Outcome == "closed" }) // the watcher's own
	}
	if len(list) == 0 {
		t.Errorf("attempts of %s: got none", who)
	}
	for _, a := range list {
		if a.Outcome != outcome || a.Code != "ConnectionLost" {
			t.Errorf("attempt: got %s %s, want %s ConnectionLost", a.Outcome, a.Code, outcome)
		}
	}
}

// cutsOfTheHandshake ends connections after some bytes of the device's side of
// the TLS handshake.
func (s *stage) cutsOfTheHandshake(t *testing.T) {
	p := newProxy(t, s.device)
	for _, n := range []int{1, 4, 5, 40, 300, 600, 900} {
		t.Run(fmt.Sprintf("TLS, %d bytes", n), func(t *testing.T) {
			before := s.metric(t, "imprint_connections_accepted_total")
			p.cutNextAfter(n)
			w, err := s.one.tryDial(t, p.address())
			if err == nil {
				// With TLS 1.3 the device is done before the server is.
				err = w.tryConnect(mqtt.Connect{ClientID: "torn", CleanStart: true}, mqtt.V5)
			}
			if err == nil {
				t.Fatal("the connection was let in")
			}
			until(t, "the connection to have come and gone", func() bool {
				return s.metric(t, "imprint_connections_accepted_total") == before+1 && s.metric(t, "imprint_connections_open") == 0
			})
		})
	}
	list := s.imprint(t, "attempts", "--failed", "--json", "--limit", "20")
	if !strings.Contains(list.stdout, `"ClosedInHandshake"`) {
		t.Errorf("imprint attempts: got no ClosedInHandshake in\n%s", list.stdout)
	}
}

func TestDevicesWorkOverASlowAndChoppyNetwork(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	p := newProxy(t, s.device)
	p.behave(rules{delay: time.Millisecond, piece: 7})
	c := s.connect(t, s.one.device, "slow-5", dialing{address: p.address()})
	if got := c.ask(t, "slow/#"); !slices.Equal(got, []byte{1}) {
		t.Fatalf("SUBACK: got %#x, want 1", got)
	}
	old := s.one.old(t, "slow-311", p.address(), nil)
	old.on()
	old.subscribe("slow/#", 1)
	want := numbered(strings.Repeat("long ", 40), 5)
	for n, payload := range want {
		if n%2 == 0 {
			old.publish("slow/a", payload, false)
			continue
		}
		if got := c.send(t, "slow/a", payload, 1); got != 0 {
			t.Errorf("PUBACK: got %#x, want 0", got)
		}
	}
	var got []string
	for range want {
		got = append(got, c.receive(t).payload)
	}
	for what, got := range map[string][]string{"MQTT 5": got, "MQTT 3.1.1": old.receiveAll(len(want))} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("messages, %s (-want +got):\n%s", what, diff)
		}
	}
	_ = c.Disconnect(&paho.Disconnect{})
}

func TestASilentDeviceIsGivenUpAndItsMessagesWait(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	watch := s.one.open(t, mqtt.Connect{ClientID: "watch", CleanStart: true}, mqtt.V5)
	subs := map[mqtt.Version]*wire{}
	p := newProxy(t, s.device)
	for _, version := range bothVersions {
		id := "silent-" + short(version)
		watch.subscribe(at1(presence+"disconnected/"+id), at1("will/"+id))
		connect := persistent(id, version)
		connect.KeepAlive = 30 // no less is taken
		connect.Will = &mqtt.Will{Topic: "will/" + id, Payload: []byte(id), QoS: 1}
		subs[version] = s.one.openAt(t, p.address(), connect, version)
		subs[version].subscribe(at1("silent/" + id))
	}
	for _, l := range p.open() {
		l.freeze()
	}
	began := time.Now()
	for _, version := range bothVersions {
		watch.say("silent/silent-"+short(version), "for the silent one")
	}
	seen := map[string]*mqtt.Publish{}
	for len(seen) < 4 {
		// Longer than patience: 45 s are due.
		packet, err := watch.tryNext(time.Minute)
		if err != nil {
			t.Fatalf("waited for the end of the silent devices: %v", err)
		}
		if m, ok := packet.(*mqtt.Publish); ok {
			seen[string(m.Topic)] = m
		}
	}
	if took := time.Since(began); took < 40*time.Second {
		t.Errorf("the silent devices were given up after %s, want one and a half times 30 s", took)
	}
	for _, version := range bothVersions {
		id := "silent-" + short(version)
		checkPresence(t, seen[presence+"disconnected/"+id], "disconnected", id, "MQTT_KEEP_ALIVE_TIMEOUT")
		if seen["will/"+id] == nil {
			t.Errorf("no will of %s came", id)
		}
		checkEnded(t, s.awaitExplained(t, id, 1), "KeepAliveTimeout")
		again := s.one.open(t, persistent(id, version), version)
		if !again.connack.SessionPresent {
			t.Errorf("%s, session present: got false, want true", id)
		}
		again.expect("for the silent one")
	}
}

func TestManyBrokenConnectionsLeaveTheServerEmpty(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	p := newProxy(t, s.device)
	random := newRandom(t)
	good := s.one.open(t, mqtt.Connect{ClientID: "good", CleanStart: true}, mqtt.V5)
	good.subscribe(at1("good/#"))
	for n := range 40 {
		p.cutNextAfter(random.IntN(4000))
		version := bothVersions[n%2]
		w, err := s.one.tryOpen(t, p.address(), persistent(fmt.Sprintf("broken-%d", n%5), version), version)
		if err == nil {
			for _, topic := range numbered("broken/", 30) {
				_, err = w.trySubscribe(at1("broken/#"))
				if err == nil {
					_, err = w.tryPublish(mqtt.Publish{Topic: []byte(topic), Payload: []byte(strings.Repeat("x", 100)), QoS: 1})
				}
				if err != nil {
					break
				}
			}
			w.cut()
		}
		if n%10 == 0 {
			good.say("good/a", "still here")
			good.expect("still here")
		}
	}
	good.close()
	s.awaitEmpty(t)
}
