package test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/imprint-iot/imprint/mqtt"
)

// jsVersions are the SDK's two clients.
var jsVersions = map[string]int{"MQTT 3.1.1": 4, "MQTT 5": 5}

// forJS runs a test with each of the SDK's clients.
func forJS(t *testing.T, run func(t *testing.T, version int, prefix string)) {
	for name, version := range jsVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, version, fmt.Sprintf("js%d", version))
		})
	}
}

func TestAWSDeviceSDKTalksAndListens(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	forJS(t, func(t *testing.T, version int, prefix string) {
		twin := s.newTwin(t, prefix)
		d := s.one.jsDevice(t, jsConfig{Version: version, ClientID: prefix, KeepAlive: 5})
		on := d.connect()
		if got := on.Connack["serverKeepAlive"]; version == 5 && got != float64(30) {
			t.Errorf("Server Keep Alive for 5 s: got %v, want 30", got)
		}
		if got := d.subscribe(jsSubscription{Filter: prefix + "/+", QoS: 1}, jsSubscription{Filter: prefix + "/zero/#", QoS: 0}); !slices.Equal(got, []int{1, 0}) {
			t.Errorf("SUBACK: got %v, want 1, 0", got)
		}
		twin.clash(prefix+"/a", prefix+"/zero/a")
		for n, m := range []jsMessage{
			{Topic: prefix + "/a", Payload: "one", QoS: 1},
			{Topic: prefix + "/b", Payload: "zero", QoS: 0},
			{Topic: prefix + "/zero/a", Payload: "lowered", QoS: 1},
			{Topic: prefix + "/c", Payload: "\x00\xff bytes", QoS: 1},
			{Topic: prefix + "/d", Payload: base64Text(strings.Repeat("x", 128<<10)), QoS: 1},
		} {
			if got := d.publish(m); got != 0 {
				t.Errorf("PUBACK of message %d: got %#x, want 0", n, got)
			}
			want := m
			if strings.HasPrefix(m.Topic, prefix+"/zero/") {
				want.QoS = 0
			}
			got := *d.await("message").Message
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("message %d (-want +got):\n%s", n, diff)
			}
		}
		var codes []int
		d.do("unsubscribe", map[string]any{"filters": []string{prefix + "/+"}}, &codes)
		d.publish(jsMessage{Topic: prefix + "/a", Payload: "nobody listens", QoS: 1})
		d.publish(jsMessage{Topic: prefix + "/zero/b", Payload: "end", QoS: 1})
		if got := d.received(1); got[0] != "end" {
			t.Errorf("message after UNSUBSCRIBE: got %q, want end", got)
		}
		d.stop(nil)
		list := s.awaitExplained(t, prefix, 1)
		if len(list) == 1 && (list[0].Outcome != "closed" || list[0].Code != "ClientDisconnect") {
			t.Errorf("attempt: got %s %s, want closed ClientDisconnect", list[0].Outcome, list[0].Code)
		}
	})
}

func TestAWSDeviceSDKSendsAndGetsEveryPropertyOfMQTT5(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	one, expiry := 1, 600
	full := jsMessage{
		Topic: "props/a", Payload: `{"ok":true}`, QoS: 1, Format: &one, Expiry: &expiry, ResponseTopic: "props/answers",
		Correlation: "\x01\x02\x00\xff", ContentType: "application/json",
		User: []jsProperty{{"b", "2"}, {"a", "1"}, {"b", "3"}, {"", ""}, {"ünïcode", "✓"}},
	}
	for _, aliases := range []bool{false, true} {
		t.Run(fmt.Sprintf("aliases %t", aliases), func(t *testing.T) {
			t.Parallel()
			id := fmt.Sprintf("props-%t", aliases)
			m := full
			m.Topic = id + "/a"
			d := s.one.jsDevice(t, jsConfig{Version: 5, ClientID: id, Aliases: aliases})
			d.connect()
			old := s.one.open(t, mqtt.Connect{ClientID: id + "-old", CleanStart: true}, mqtt.V311)
			old.subscribe(at1(id + "/#"))
			d.subscribe(jsSubscription{Filter: id + "/#", QoS: 1})
			// With aliases, the second and later ones carry no topic.
			for range 4 {
				if got := d.publish(m); got != 0 {
					t.Errorf("PUBACK: got %#x, want 0", got)
				}
				got := *d.await("message").Message
				if got.Expiry == nil || *got.Expiry > expiry || *got.Expiry < expiry-30 {
					t.Errorf("message expiry: got %v, want at most %d", got.Expiry, expiry)
				}
				if diff := cmp.Diff(m, got, cmpopts.IgnoreFields(jsMessage{}, "Expiry")); diff != "" {
					t.Errorf("message (-want +got):\n%s", diff)
				}
				plain := old.receive()
				if string(plain.Topic) != m.Topic || string(plain.Payload) != string(m.Payload) {
					t.Errorf("message to MQTT 3.1.1: got %s %q", plain.Topic, plain.Payload)
				}
			}
			d.stop(nil)
		})
	}
}

func TestAWSDeviceSDKGetsRetainedMessagesByTheirExactTopic(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	forJS(t, func(t *testing.T, version int, prefix string) {
		topic := prefix + "/kept"
		s.newTwin(t, prefix, topic, prefix+"/only-theirs")
		d := s.one.jsDevice(t, jsConfig{Version: version, ClientID: prefix})
		d.connect()
		d.publish(jsMessage{Topic: topic, Payload: "first", QoS: 1, Retain: true})
		d.publish(jsMessage{Topic: topic, Payload: "second", QoS: 1, Retain: true})
		d.subscribe(jsSubscription{Filter: prefix + "/only-theirs", QoS: 1})
		d.subscribe(jsSubscription{Filter: topic, QoS: 1})
		got := d.await("message").Message
		if string(got.Payload) != "second" || !got.Retain {
			t.Errorf("message to an exact filter: got %q, retain %t; want second, true", got.Payload, got.Retain)
		}
		d.publish(jsMessage{Topic: topic, Payload: "third", QoS: 1, Retain: true})
		got = d.await("message").Message
		if string(got.Payload) != "third" || got.Retain {
			t.Errorf("message to a subscriber that is there: got %q, retain %t; want third, false", got.Payload, got.Retain)
		}
		// A wildcard gets nothing that is kept; the message behind it proves it.
		d.subscribe(jsSubscription{Filter: prefix + "/+", QoS: 1})
		d.publish(jsMessage{Topic: prefix + "/end", Payload: "end", QoS: 1})
		if got := d.await("message").Message; string(got.Payload) != "end" {
			t.Errorf("message to a wildcard: got %q, want end", got.Payload)
		}
		d.publish(jsMessage{Topic: topic, QoS: 1, Retain: true})
		if got := d.await("message").Message; string(got.Payload) != "" {
			t.Errorf("message that deletes: got %q, want an empty one", got.Payload)
		}
		d.stop(nil)
		later := s.one.open(t, mqtt.Connect{ClientID: prefix + "-later", CleanStart: true}, mqtt.V5)
		later.subscribe(at1(topic))
		later.expectNothing()
	})
}

func TestAWSDeviceSDKResumesItsSession(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	forJS(t, func(t *testing.T, version int, prefix string) {
		twin := s.newTwin(t, prefix)
		config := jsConfig{Version: version, ClientID: prefix, Behavior: "always", SessionExpiry: 3600}
		d := s.one.jsDevice(t, config)
		if d.connect().SessionPresent {
			t.Error("session present at the first connection: got true, want false")
		}
		d.subscribe(jsSubscription{Filter: prefix + "/#", QoS: 1})
		d.kill()
		from := s.one.open(t, mqtt.Connect{ClientID: prefix + "-from", CleanStart: true}, mqtt.V5)
		var want []string
		for n := range 20 {
			want = append(want, fmt.Sprintf("while away %d", n))
			from.say(fmt.Sprintf("%s/%d", prefix, n%3), want[n])
			twin.clash(fmt.Sprintf("%s/%d", prefix, n%3))
		}
		from.publish(mqtt.Publish{Topic: []byte(prefix + "/0"), Payload: []byte("QoS 0 is not kept")})
		d = s.one.jsDevice(t, config)
		if !d.connect().SessionPresent {
			t.Error("session present at the second connection: got false, want true")
		}
		from.say(prefix+"/end", "end")
		if diff := cmp.Diff(append(want, "end"), d.received(len(want)+1)); diff != "" {
			t.Errorf("messages after resuming (-want +got):\n%s", diff)
		}
	})
}

func TestAWSDeviceSDKSharesASubscription(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	forJS(t, func(t *testing.T, version int, prefix string) {
		filter := "$share/workers/" + prefix + "/#"
		theirs := s.two.open(t, mqtt.Connect{ClientID: prefix + "-other", CleanStart: true}, mqtt.V5)
		theirs.subscribe(at1(filter))
		var members []*jsDevice
		for n := range 2 {
			d := s.one.jsDevice(t, jsConfig{Version: version, ClientID: fmt.Sprintf("%s-%d", prefix, n)})
			d.connect()
			if got := d.subscribe(jsSubscription{Filter: filter, QoS: 1}); !slices.Equal(got, []int{1}) {
				t.Fatalf("SUBACK of a shared subscription: got %v, want 1", got)
			}
			members = append(members, d)
		}
		from := s.one.open(t, mqtt.Connect{ClientID: prefix + "-from", CleanStart: true}, mqtt.V5)
		const sent = 60
		var want []string
		for n := range sent {
			want = append(want, fmt.Sprintf("%03d", n))
			from.say(prefix+"/job", want[n])
		}
		var got []string
		counts := make([]int, len(members))
		until(t, "all jobs to be handed out", func() bool {
			got = got[:0]
			for n, d := range members {
				counts[n] = 0
				for _, line := range d.lines(d.said.String()) {
					if line.Event == "message" {
						counts[n]++
						got = append(got, string(line.Message.Payload))
					}
				}
			}
			return len(got) >= sent
		})
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("jobs, each to one member (-want +got):\n%s", diff)
		}
		if counts[0] == 0 || counts[1] == 0 {
			t.Errorf("jobs of each member: got %v, want some for both", counts)
		}
		theirs.expectNothing()
	})
}

func TestAWSDeviceSDKsWillIsPublishedWhenItIsKilled(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	watch := s.one.open(t, mqtt.Connect{ClientID: "watch", CleanStart: true}, mqtt.V5)
	watch.subscribe(at1("js4/will"), at1("js5/will"), at1("$aws/events/presence/+/js4"), at1("$aws/events/presence/+/js5"))
	// One after the other, so that what the watcher sees has an order.
	for _, version := range []int{4, 5} {
		prefix := fmt.Sprintf("js%d", version)
		config := jsConfig{Version: version, ClientID: prefix, Will: &jsMessage{
			Topic: prefix + "/will", Payload: "last words", QoS: 1, ContentType: "text/plain", Correlation: "\x00\x01", ResponseTopic: "answers",
			User: []jsProperty{{"a", "1"}, {"a", "2"}},
		}}
		d := s.one.jsDevice(t, config)
		d.connect()
		checkPresence(t, watch.receive(), "connected", prefix, "")
		d.kill()
		seen := map[string]*mqtt.Publish{}
		for range 2 {
			m := watch.receive()
			seen[string(m.Topic)] = m
		}
		if m := seen[prefix+"/will"]; m == nil || string(m.Payload) != "last words" {
			t.Errorf("%s killed: got %v, want its will", prefix, seen)
		} else if p := m.Properties; version == 5 && (p.ContentType != "text/plain" || string(p.CorrelationData) != "\x00\x01" ||
			p.ResponseTopic != "answers" || !slices.Equal(p.User, []mqtt.UserProperty{{Key: "a", Value: "1"}, {Key: "a", Value: "2"}})) {
			t.Errorf("properties of the will: got %+v", p)
		}
		checkPresence(t, seen["$aws/events/presence/disconnected/"+prefix], "disconnected", prefix, "CONNECTION_LOST")
		d = s.one.jsDevice(t, config)
		d.connect()
		checkPresence(t, watch.receive(), "connected", prefix, "")
		d.stop(nil)
		checkPresence(t, watch.receive(), "disconnected", prefix, "CLIENT_INITIATED_DISCONNECT")
	}
	watch.expectNothing()
}

// checkPresence looks at a presence event.
func checkPresence(t *testing.T, m *mqtt.Publish, event, clientID, reason string) {
	t.Helper()
	if m == nil {
		t.Errorf("no event %s of %s came", event, clientID)
		return
	}
	var got struct {
		ClientID string `json:"clientId"`
		Event    string `json:"eventType"`
		Reason   string `json:"disconnectReason"`
	}
	err := json.Unmarshal(m.Payload, &got)
	if err != nil || got.ClientID != clientID || got.Event != event || got.Reason != reason {
		t.Errorf("event on %s: got %s, want %s of %s, reason %q", m.Topic, m.Payload, event, clientID, reason)
	}
}

func TestAWSDeviceSDKComesBackAfterAServerRestart(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	// The server is on another port after its restart; the devices' address
	// stays.
	p := newProxy(t, s.device)
	_, port, err := net.SplitHostPort(p.address())
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	devices := map[string]*jsDevice{}
	for _, version := range jsVersions {
		prefix := fmt.Sprintf("js%d", version)
		d := s.one.jsDevice(t, jsConfig{Version: version, ClientID: prefix, Behavior: "always", SessionExpiry: 3600, Port: number})
		d.connect()
		d.subscribe(jsSubscription{Filter: prefix + "/#", QoS: 1})
		devices[prefix] = d
	}
	s.signal(killed)
	p.cutAll()
	for _, d := range devices {
		d.await("disconnected")
	}
	s.start()
	for prefix, d := range devices {
		if !d.await("connected").SessionPresent {
			t.Errorf("%s, session present after the restart: got false, want true", prefix)
		}
		// Nobody subscribed again.
		d.publish(jsMessage{Topic: prefix + "/a", Payload: "hello again", QoS: 1})
		if got := d.received(1); got[0] != "hello again" {
			t.Errorf("%s: got %q, want its own message", prefix, got)
		}
		d.stop(nil)
	}
}

// What the SDK sends is what the server of the other tests takes; it is looked
// at where TLS ends at the test itself.
func TestAWSDeviceSDKSendsServerNameALPNAndItsUserName(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	// A certificate that the SDK trusts: it stands for the server's.
	f := newFactory(t, "Looking glass", "P-256")
	d, csr := f.request(t, "localhost", "/CN=localhost", "P-256")
	extensions := filepath.Join(f.dir, "server.cnf")
	writeFile(t, extensions, "subjectAltName = DNS:localhost\n")
	openssl(t, f.dir, "x509", "-req", "-in", csr, "-CA", f.cert, "-CAkey", f.key, "-set_serial", randomSerial(), "-days", "2", "-sha256",
		"-extfile", extensions, "-out", d.cert)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{d.keyPair(t)}, ClientAuth: tls.RequireAnyClientCert,
		NextProtos: []string{"x-amzn-mqtt-ca"}, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	for _, version := range []int{4, 5} {
		device := s.one.jsDevice(t, jsConfig{Version: version, ClientID: "looked-at", Port: listener.Addr().(*net.TCPAddr).Port, CA: f.cert})
		device.ask("start", nil)
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		w := &wire{t: t, conn: conn}
		first, err := w.tryRead(patience)
		connect, ok := first.(*mqtt.Connect)
		if err != nil || !ok {
			t.Fatalf("first packet: got %v, %v; want CONNECT", first, err)
		}
		state := conn.(*tls.Conn).ConnectionState()
		if state.ServerName != "localhost" || state.NegotiatedProtocol != "x-amzn-mqtt-ca" || len(state.PeerCertificates) != 1 {
			t.Errorf("hello: got server name %q, protocol %q, %d certificates; want localhost, x-amzn-mqtt-ca, 1",
				state.ServerName, state.NegotiatedProtocol, len(state.PeerCertificates))
		}
		if int(connect.Version) != version || !strings.HasPrefix(connect.Username, "?SDK=") || connect.HasPassword {
			t.Errorf("CONNECT: got level %d, user name %q, password %t; want %d, ?SDK=..., none", connect.Version, connect.Username, connect.HasPassword, version)
		}
		device.kill()
		_ = conn.Close()
	}
}
