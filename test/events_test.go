package test

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/eclipse/paho.golang/paho"
)

const presence = "$aws/events/presence/"

// checkFields compares an event's members; a pattern is a regular expression
// over the JSON text of the value.
func checkFields(t *testing.T, event map[string]any, want map[string]string) {
	t.Helper()
	if got, all := slices.Sorted(maps.Keys(event)), slices.Sorted(maps.Keys(want)); !slices.Equal(got, all) {
		t.Errorf("members: got %v, want %v", got, all)
	}
	for name, pattern := range want {
		text, err := json.Marshal(event[name])
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile("^(" + pattern + ")$").Match(text) {
			t.Errorf("member %s: got %s, want %s", name, text, pattern)
		}
	}
}

const (
	millis = `1[0-9]{12}`
	uuid   = `"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"`
)

func TestPresenceEventsArriveWithAWSFields(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := startServer(t)
	d := s.line(t, "Presence").device(t, "here-1", "P-256")
	s.join(t, d)
	s.awaitMetric(t, "imprint_connections_open", 0) // whose events nobody hears
	principal := `"` + d.id(t) + `"`
	watch := s.subscribe(t, s.watcher(t), "watch", presence+"connected/+", presence+"disconnected/+", presence+"connect_failed/+")
	c := s.connect(t, d, d.name, dialing{})
	connected := watch.awaitJSON(t, presence+"connected/here-1", 1)
	checkFields(t, connected, map[string]string{
		"clientId": `"here-1"`, "timestamp": millis, "eventType": `"connected"`, "sessionIdentifier": uuid,
		"principalIdentifier": principal, "ipAddress": `"127.0.0.1"`, "versionNumber": `[0-9]+`,
	})
	_ = c.Disconnect(&paho.Disconnect{})
	disconnected := watch.awaitJSON(t, presence+"disconnected/here-1", 1)
	checkFields(t, disconnected, map[string]string{
		"clientId": `"here-1"`, "timestamp": millis, "eventType": `"disconnected"`, "sessionIdentifier": uuid,
		"principalIdentifier": principal, "clientInitiatedDisconnect": `true`, "disconnectReason": `"CLIENT_INITIATED_DISCONNECT"`,
		"versionNumber": `[0-9]+`,
	})
	for _, name := range []string{"sessionIdentifier", "versionNumber"} {
		if connected[name] != disconnected[name] {
			t.Errorf("%s of one connection: got %v and %v, want the same", name, connected[name], disconnected[name])
		}
	}
	c = s.connect(t, d, d.name, dialing{})
	second := watch.awaitJSON(t, presence+"connected/here-1", 2)
	if a, b := number(t, connected["versionNumber"]), number(t, second["versionNumber"]); b != a+1 {
		t.Errorf("versionNumber of the next connection: got %d after %d", b, a)
	}
	c.cut()
	lost := watch.awaitJSON(t, presence+"disconnected/here-1", 2)
	if lost["disconnectReason"] != "CONNECTION_LOST" || lost["clientInitiatedDisconnect"] != false {
		t.Errorf("after a cut: got %v, want CONNECTION_LOST, not by the client", lost)
	}
	s.refused(t, d, "forbidden-id", dialing{})
	checkFields(t, watch.awaitJSON(t, presence+"connect_failed/forbidden-id", 1), map[string]string{
		"clientId": `"forbidden-id"`, "timestamp": millis, "eventType": `"connect_failed"`, "connectFailureReason": `"AUTHORIZATION_FAILED"`,
		"principalIdentifier": principal, "sessionIdentifier": uuid, "ipAddress": `"127.0.0.1"`,
	})
}

func number(t *testing.T, value any) int64 {
	t.Helper()
	n, ok := value.(json.Number)
	if !ok {
		t.Fatalf("got %v of type %T, want a number", value, value)
	}
	i, err := n.Int64()
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestRegisteredEventArrivesAtEachConnectUntilActivation(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := startServer(t)
	f := newFactory(t, "JITR", "P-256")
	caID := s.registerCA(t, f, nil)
	topic := "$aws/events/certificates/registered/" + caID
	watch := s.subscribe(t, s.watcher(t), "watch", topic)
	d := f.device(t, "jitr-1", "P-256")
	id := d.id(t)
	var events []map[string]any
	for n := range 2 {
		checkSilentClose(t, s.publish(t, d, d.name, "d/jitr-1/x"))
		event := watch.awaitJSON(t, topic, n+1)
		checkFields(t, event, map[string]string{
			"certificateId": `"` + id + `"`, "caCertificateId": `"` + caID + `"`, "timestamp": millis,
			"certificateStatus": `"PENDING_ACTIVATION"`, "awsAccountId": `"000000000000"`, "certificateRegistrationTimestamp": `"` + millis + `"`,
		})
		events = append(events, event)
	}
	if events[0]["certificateRegistrationTimestamp"] != events[1]["certificateRegistrationTimestamp"] {
		t.Errorf("certificateRegistrationTimestamp changed: %v", events)
	}
	if registered, err := strconv.ParseInt(events[1]["certificateRegistrationTimestamp"].(string), 10, 64); err != nil || number(t, events[1]["timestamp"]) < registered {
		t.Errorf("timestamp of the second event is before the registration: %v, %v", events[1], err)
	}
	// What a rule would do.
	api := s.sdk(t)
	s.createPolicy(t, "jitr", strings.ReplaceAll(devicePolicy, "${iot:Connection.Thing.ThingName}", "${iot:ClientId}"))
	must(api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: aws.String("jitr"), Target: aws.String(arn + "cert/" + id)}))(t)
	must(api.UpdateCertificate(t.Context(), &iot.UpdateCertificateInput{CertificateId: aws.String(id), NewStatus: types.CertificateStatusActive}))(t)
	run := s.publish(t, d, d.name, "d/jitr-1/x")
	if run.exit != 0 || run.puback != 0 {
		t.Errorf("after activation: got exit code %d, PUBACK %d; want 0, 0\n%s", run.exit, run.puback, run.all())
	}
}

func TestASecondConnectionWithTheSameClientIDTakesOver(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := startServer(t)
	d := s.line(t, "Takeover").device(t, "twin-1", "P-256")
	watch := s.subscribe(t, s.watcher(t), "watch", presence+"disconnected/twin-1")
	first := s.join5(t, d, dialing{})
	second := s.connect(t, d, d.name, dialing{})
	if got := first.goodbye(t); got != 0x8e {
		t.Errorf("DISCONNECT of the old client: got %#x, want 0x8e", got)
	}
	if event := watch.awaitJSON(t, presence+"disconnected/twin-1", 1); event["disconnectReason"] != "DUPLICATE_CLIENTID" {
		t.Errorf("event of the old connection: got %v, want DUPLICATE_CLIENTID", event)
	}
	if got := second.send(t, "d/twin-1/x", "still here", 1); got != 0 {
		t.Errorf("PUBACK of the new client: got %#x, want 0", got)
	}
	// An MQTT 3.1.1 client takes over, and is taken over, without a word.
	old := s.subscribe(t, d, d.name, "d/twin-1/#")
	if got := second.goodbye(t); got != 0x8e {
		t.Errorf("DISCONNECT after a takeover by MQTT 3.1.1: got %#x, want 0x8e", got)
	}
	third := s.connect(t, d, d.name, dialing{})
	// mosquitto_sub comes again as soon as it is cut off.
	if got := third.goodbye(t); got != 0x8e {
		t.Errorf("DISCONNECT after the MQTT 3.1.1 client came again: got %#x, want 0x8e", got)
	}
	old.kill()
}

func TestWillsArePublishedAfterACutAndNotAfterDISCONNECT(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := startServer(t)
	d := s.line(t, "Wills").device(t, "frail-1", "P-256")
	s.join(t, d)
	s.awaitMetric(t, "imprint_connections_open", 0) // whose end nobody hears of
	const topic, gone = "d/frail-1/will", presence + "disconnected/frail-1"
	watch := s.subscribe(t, s.watcher(t), "watch", topic, gone)
	will := &paho.WillMessage{Topic: topic, Payload: []byte("cut5"), QoS: 1}
	c := s.connect(t, d, d.name, dialing{will: will})
	c.cut()
	if got := watch.await(t, topic, 1); got != "cut5" {
		t.Errorf("will after a cut, MQTT 5: got %q, want cut5", got)
	}
	watch.await(t, gone, 1)
	sub := s.trySubscribe(t, d, d.name, []string{"--will-topic", topic, "--will-payload", "cut3", "--will-qos", "1"}, "d/frail-1/x")
	sub.said.wait(t, "SUBACK", func(text string) bool { return strings.Contains(text, "received SUBACK") })
	sub.kill()
	if got := watch.await(t, topic, 2); got != "cut3" {
		t.Errorf("will after a kill, MQTT 3.1.1: got %q, want cut3", got)
	}
	watch.await(t, gone, 2)
	// A clean end publishes none; the event behind it proves that none is due.
	c = s.connect(t, d, d.name, dialing{will: will})
	_ = c.Disconnect(&paho.Disconnect{})
	watch.await(t, gone, 3)
	s.publish(t, d, d.name, "d/frail-1/x", "--will-topic", topic, "--will-payload", "clean")
	watch.await(t, gone, 4)
	if got := messages(watch.said.String(), topic); len(got) != 2 {
		t.Errorf("wills: got %q, want two", got)
	}
	// MQTT 5 has a DISCONNECT that asks for the will.
	c = s.connect(t, d, d.name, dialing{will: will})
	_ = c.Disconnect(&paho.Disconnect{ReasonCode: 4})
	watch.await(t, topic, 3)
}

func TestKeepAliveIsClampedInTheCONNACK(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := startServer(t)
	d := s.line(t, "Keep-alive").device(t, "alive-1", "P-256")
	_ = s.join5(t, d, dialing{}).Disconnect(&paho.Disconnect{})
	for asked, want := range map[uint16]uint16{5: 30, 29: 30, 2000: 1200, 30: 0, 1200: 0} {
		c := s.connect(t, d, d.name, dialing{keepAlive: asked})
		got := uint16(0)
		if c.connack.Properties.ServerKeepAlive != nil {
			got = *c.connack.Properties.ServerKeepAlive
		}
		if got != want {
			t.Errorf("keep-alive %d: got Server Keep Alive %d, want %d (0: none)", asked, got, want)
		}
		_ = c.Disconnect(&paho.Disconnect{})
	}
}

func TestAChangedCertificateEndsLiveSessionsWithinASecond(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := startServer(t)
	f := s.line(t, "Changes")
	api := s.sdk(t)
	update := func(status types.CertificateStatus) func(*testing.T, string) {
		return func(t *testing.T, id string) {
			must(api.UpdateCertificate(t.Context(), &iot.UpdateCertificateInput{CertificateId: aws.String(id), NewStatus: status}))(t)
		}
	}
	for name, change := range map[string]func(*testing.T, string){
		"inactive": update(types.CertificateStatusInactive),
		"revoked":  update(types.CertificateStatusRevoked),
		"deleted": func(t *testing.T, id string) {
			must(api.DeleteCertificate(t.Context(), &iot.DeleteCertificateInput{CertificateId: aws.String(id), ForceDelete: true}))(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := f.device(t, name, "P-256")
			c := s.join5(t, d, dialing{})
			if name == "deleted" {
				principal := aws.String(arn + "cert/" + d.id(t))
				must(api.DetachThingPrincipal(t.Context(), &iot.DetachThingPrincipalInput{ThingName: aws.String(name), Principal: principal}))(t)
				update(types.CertificateStatusInactive)(t, d.id(t))
				change(t, d.id(t))
				if got := c.goodbye(t); got != 0x87 {
					t.Errorf("DISCONNECT: got %#x, want 0x87", got)
				}
				return
			}
			change(t, d.id(t))
			changed := time.Now()
			if got := c.goodbye(t); got != 0x87 {
				t.Errorf("DISCONNECT: got %#x, want 0x87", got)
			}
			if took := time.Since(changed); took > time.Second {
				t.Errorf("the session ended %s after the change was acknowledged, want at most a second", took)
			}
			if got := s.refused(t, d, d.name, dialing{}); got != 0x87 {
				t.Errorf("CONNACK of the next connection: got %#x, want 0x87", got)
			}
		})
	}
}

func TestAChangedPolicyHoldsForTheNextPacket(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := startServer(t)
	d := s.line(t, "Policies").device(t, "rule-1", "P-256")
	c := s.join5(t, d, dialing{})
	api := s.sdk(t)
	const topic = "d/rule-1/x"
	if got := c.ask(t, topic); !slices.Equal(got, []byte{1}) {
		t.Fatalf("SUBACK: got %#x, want 1", got)
	}
	expect := func(when string, want byte) {
		t.Helper()
		if got := c.send(t, topic, when, 1); got != want {
			t.Errorf("PUBACK %s: got %#x, want %#x", when, got, want)
		}
	}
	expect("before", 0)
	deny := strings.Replace(devicePolicy, `"Action":["iot:Publish","iot:Receive"]`, `"Action":["iot:Receive"]`, 1)
	version := must(api.CreatePolicyVersion(t.Context(), &iot.CreatePolicyVersionInput{
		PolicyName: aws.String("devices"), PolicyDocument: aws.String(deny), SetAsDefault: true,
	}))(t)
	expect("after a version that denies", 0x87)
	must(api.SetDefaultPolicyVersion(t.Context(), &iot.SetDefaultPolicyVersionInput{PolicyName: aws.String("devices"), PolicyVersionId: aws.String("1")}))(t)
	expect("after the first version again", 0)
	target := aws.String(arn + "cert/" + d.id(t))
	must(api.DetachPolicy(t.Context(), &iot.DetachPolicyInput{PolicyName: aws.String("devices"), Target: target}))(t)
	expect("after the policy was detached", 0x87)
	must(api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: aws.String("devices"), Target: target}))(t)
	expect("after it was attached again", 0)
	// Receiving is decided for each message, too.
	mute := strings.Replace(devicePolicy, `"Action":["iot:Publish","iot:Receive"]`, `"Action":["iot:Publish"]`, 1)
	must(api.DeletePolicyVersion(t.Context(), &iot.DeletePolicyVersionInput{PolicyName: aws.String("devices"), PolicyVersionId: version.PolicyVersionId}))(t)
	must(api.CreatePolicyVersion(t.Context(), &iot.CreatePolicyVersionInput{
		PolicyName: aws.String("devices"), PolicyDocument: aws.String(mute), SetAsDefault: true,
	}))(t)
	expect("without iot:Receive", 0)
	must(api.SetDefaultPolicyVersion(t.Context(), &iot.SetDefaultPolicyVersionInput{PolicyName: aws.String("devices"), PolicyVersionId: aws.String("1")}))(t)
	expect("with iot:Receive", 0)
	for _, want := range []string{"before", "after the first version again", "after it was attached again", "with iot:Receive"} {
		if got := c.receive(t).payload; got != want {
			t.Errorf("message: got %q, want %q", got, want)
		}
	}
}
