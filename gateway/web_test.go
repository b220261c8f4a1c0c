package gateway_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/pki"
)

// dialHTTPS opens a TLS connection to the listener that speaks HTTP.
func (w *world) dialHTTPS(t *testing.T, config *tls.Config) *tls.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", w.https)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return tls.Client(conn, config)
}

// answer is what came back for a request.
type answer struct {
	status  int
	closed  bool // the server said that it closes the connection
	header  http.Header
	message string
	traceID string
}

// ask sends a request as it stands and reads the answer.
func ask(t *testing.T, conn net.Conn, request string) answer {
	t.Helper()
	_, err := io.WriteString(conn, request)
	if err != nil {
		t.Fatalf("couldn't send the request: %v", err)
	}
	return readAnswer(t, bufio.NewReader(conn))
}

func readAnswer(t *testing.T, r *bufio.Reader) answer {
	t.Helper()
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("couldn't read the answer: %v", err)
	}
	defer func() { _ = response.Body.Close() }()
	var body struct{ Message, TraceID string }
	err = json.NewDecoder(response.Body).Decode(&body)
	if err != nil {
		t.Fatalf("status %d, and the body isn't JSON: %v", response.StatusCode, err)
	}
	return answer{response.StatusCode, response.Close, response.Header, body.Message, body.TraceID}
}

// post is a request to publish.
func post(target, payload string, headers ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n%s", target, len(payload), lines(headers), payload)
}

func lines(headers []string) string {
	var b strings.Builder
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	return b.String()
}

// device makes and registers a device certificate in a tenant.
func (w *world) device(t *testing.T, tenant imprint.Tenant) tls.Certificate {
	t.Helper()
	cert := selfSigned(ecdsaKey(), "device")
	w.register(t, tenant, cert, imprint.ModeDefault, imprint.CertificateActive)
	return cert
}

// subscribe connects with MQTT 5 and subscribes to a filter.
func (w *world) subscribe(t *testing.T, config *tls.Config, filter string) *tls.Conn {
	t.Helper()
	conn := tls.Client(w.dial(t), config)
	hello := (&mqtt.Connect{ClientID: "subscriber", CleanStart: true, KeepAlive: 600}).Append(nil, mqtt.V5)
	hello = (&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: filter, QoS: 1}}}).Append(hello, mqtt.V5)
	_, err := conn.Write(hello)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []mqtt.PacketType{mqtt.TypeConnack, mqtt.TypeSuback} {
		header, _ := readPacket(t, conn)
		if header.Type != want {
			t.Fatalf("got a %s, want a %s", header.Type, want)
		}
	}
	return conn
}

func readPacket(t *testing.T, conn io.Reader) (mqtt.FixedHeader, []byte) {
	t.Helper()
	var raw []byte
	for {
		var b [1]byte
		_, err := io.ReadFull(conn, b[:])
		if err != nil {
			t.Fatalf("couldn't read a packet: %v", err)
		}
		raw = append(raw, b[0])
		header, ok, err := mqtt.ParseFixedHeader(raw)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			continue
		}
		body := make([]byte, header.Remaining)
		_, err = io.ReadFull(conn, body)
		if err != nil {
			t.Fatalf("couldn't read a packet: %v", err)
		}
		return header, body
	}
}

// received is a message as a subscriber gets it.
type received struct {
	Topic, Payload string
	QoS            mqtt.QoS
	Properties     mqtt.Properties
}

func receive(t *testing.T, conn io.Reader) received {
	t.Helper()
	header, body := readPacket(t, conn)
	var p mqtt.Publish
	err := p.Decode(header, body, mqtt.V5)
	if err != nil {
		t.Fatal(err)
	}
	return received{string(p.Topic), string(p.Payload), p.QoS, p.Properties}
}

func TestTheApplicationProtocolChoosesHTTPOrMQTT(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	device := w.device(t, home)
	for _, row := range []struct {
		offered []string
		bare    bool   // no client certificate
		speaks  string // "mqtt" or "http"
		agreed  string
		alert   string
		code    imprint.Code
	}{
		{offered: nil, speaks: "http"},
		{offered: nil, speaks: "http", bare: true},
		{offered: []string{"http/1.1"}, speaks: "http", agreed: "http/1.1"},
		{offered: []string{"http/1.0"}, speaks: "http", agreed: "http/1.0"},
		{offered: []string{"h2", "http/1.1"}, speaks: "http", agreed: "http/1.1"},
		{offered: []string{"x-amzn-http-ca"}, speaks: "http", agreed: "x-amzn-http-ca"},
		{offered: []string{"x-amzn-mqtt-ca"}, speaks: "mqtt", agreed: "x-amzn-mqtt-ca"},
		{offered: []string{"mqtt"}, speaks: "mqtt", agreed: "mqtt"},
		{offered: []string{"http/1.1", "x-amzn-mqtt-ca"}, speaks: "mqtt", agreed: "x-amzn-mqtt-ca"},
		{offered: []string{"x-amzn-mqtt-ca"}, bare: true, alert: "certificate required", code: imprint.CodeNoClientCertificate},
		{offered: []string{"h2"}, alert: "no application protocol", code: imprint.CodeALPNUnknown},
		{offered: []string{"x", "y"}, bare: true, alert: "no application protocol", code: imprint.CodeALPNUnknown},
	} {
		t.Run(fmt.Sprintf("%q bare %t", row.offered, row.bare), func(t *testing.T) {
			t.Parallel()
			config := client("localhost", device)
			if row.bare {
				config = client("localhost")
			}
			config.NextProtos = row.offered
			conn := w.dialHTTPS(t, config)
			err := conn.Handshake()
			if row.alert != "" {
				if err == nil {
					_, err = conn.Read(make([]byte, 1)) // TLS 1.3 tells of the certificate later
				}
				if err == nil || !contains(err.Error(), row.alert) {
					t.Errorf("got %v, want the alert %q", err, row.alert)
				}
				wantRefused(t, w.attempt(t, conn), "tls", row.code)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := conn.ConnectionState().NegotiatedProtocol; got != row.agreed {
				t.Errorf("the protocol agreed upon is %q, want %q", got, row.agreed)
			}
			if row.speaks == "http" {
				if got := ask(t, conn, "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"); got.status != http.StatusNotFound {
					t.Errorf("got %+v, want 404 by HTTP", got)
				}
				return
			}
			_, err = conn.Write((&mqtt.Connect{ClientID: imprintID(t), CleanStart: true, KeepAlive: 600}).Append(nil, mqtt.V5))
			if err != nil {
				t.Fatal(err)
			}
			header, body := readPacket(t, conn)
			if header.Type != mqtt.TypeConnack || body[1] != 0 {
				t.Errorf("got %s % x, want an accepting CONNACK", header.Type, body)
			}
		})
	}
}

// imprintID is a client id of the test's own.
func imprintID(t *testing.T) string {
	return fmt.Sprintf("client-%x", []byte(t.Name())[len(t.Name())-20:])
}

// TestTheTraceTellsWhatAPublisherOverHTTPWasAllowed ensures that the least policy of a
// device that publishes over HTTPS has all that it needs: each topic of a connection, and
// RETAIN.
func TestTheTraceTellsWhatAPublisherOverHTTPWasAllowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	conn := w.dialHTTPS(t, client("localhost", w.device(t, home)))
	for _, target := range []string{"/topics/a", "/topics/b?retain=true", "/topics/b?retain=true", "/topics/a"} {
		if got := ask(t, conn, post(target, "x")); got.status != http.StatusOK {
			t.Fatalf("%s: got %+v, want 200", target, got)
		}
	}
	for n := range 30 {
		ask(t, conn, post(fmt.Sprint("/topics/many/", n), "x"))
	}
	_ = conn.Close()
	a := w.attempt(t, conn)
	for a.EndedAt.IsZero() && t.Context().Err() == nil {
		a = w.attempt(t, conn)
	}
	var got []string
	for _, s := range a.Steps {
		if s.Action != "" {
			got = append(got, s.Name+" "+s.Action+" "+s.Resource)
		}
	}
	if len(got) != 16 {
		t.Fatalf("got %d decisions, want 16: %q", len(got), got)
	}
	want := []string{
		"policy.publish iot:Publish " + home.ARN("topic/a"), "policy.publish iot:Publish " + home.ARN("topic/b"),
		"policy.retain iot:RetainPublish " + home.ARN("topic/b"), "policy.publish iot:Publish " + home.ARN("topic/many/0"),
	}
	if diff := cmp.Diff(want, got[:len(want)]); diff != "" {
		t.Errorf("decisions (-want +got):\n%s", diff)
	}
}

func TestThePathIsTheTopicDecodedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	device := w.device(t, home)
	subscriber := w.subscribe(t, client("localhost", device), "#")
	publisher := w.dialHTTPS(t, client("localhost", device))
	for _, row := range []struct{ path, topic string }{
		{"/topics/a/b", "a/b"},
		{"/topics/a%2Fb", "a/b"},
		{"/topics/a%2fb/c", "a/b/c"},
		{"/topics//a", "/a"},
		{"/topics/%2Fa", "/a"},
		{"/topics/a//b", "a//b"},
		{"/topics/a%2F%2Fb/", "a//b/"},
		{"/topics/a/./../b", "a/./../b"},
		{"/topics/100%2525", "100%25"},
		{"/topics/a%20b", "a b"},
		{"/topics/caf%C3%A9", "caf\u00e9"},
		{"/topics/a?qos=0", "a"},
		{"https://elsewhere.example.com/topics/absolute%2Fform", "absolute/form"},
	} {
		got := ask(t, publisher, post(row.path, "hello "+row.topic))
		if got.status != http.StatusOK || got.message != "OK" {
			t.Fatalf("%s: got %+v, want 200 OK", row.path, got)
		}
		if diff := cmp.Diff(received{Topic: row.topic, Payload: "hello " + row.topic}, receive(t, subscriber)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.path, diff)
		}
	}
}

func TestAMessageKeepsItsMQTT5Members(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	device := w.device(t, home)
	subscriber := w.subscribe(t, client("localhost", device), "a")
	publisher := w.dialHTTPS(t, client("localhost", device))
	got := ask(t, publisher, post("/topics/a?qos=1&contentType=text%2Fplain&responseTopic=b%2Fc&messageExpiry=60", "payload",
		"x-amz-mqtt5-user-properties: W3siYSI6IjEifSx7ImEiOiIyIn1d", // [{"a":"1"},{"a":"2"}]
		"x-amz-mqtt5-payload-format-indicator: UTF8_DATA", "x-amz-mqtt5-correlation-data: AAE="))
	if got.status != http.StatusOK {
		t.Fatalf("got %+v, want 200", got)
	}
	want := mqtt.Properties{
		PayloadFormat: 1, ContentType: "text/plain", ResponseTopic: "b/c", MessageExpiry: 60, CorrelationData: []byte{0, 1},
		User: []mqtt.UserProperty{{Key: "a", Value: "1"}, {Key: "a", Value: "2"}},
	}
	want.Mark(mqtt.PropPayloadFormat, mqtt.PropContentType, mqtt.PropResponseTopic, mqtt.PropMessageExpiry, mqtt.PropCorrelationData)
	if diff := cmp.Diff(received{"a", "payload", 1, want}, receive(t, subscriber)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// registerWith registers a certificate with a policy of its own.
func (w *world) registerWith(t *testing.T, name imprint.PolicyName, document string) tls.Certificate {
	t.Helper()
	cert := selfSigned(ecdsaKey(), string(name))
	id := pki.CertificateID(cert.Certificate[0])
	w.update(t, func(tx imprint.Tx) error {
		err := tx.PutCertificate(imprint.Certificate{Tenant: home, ID: id, Status: imprint.CertificateActive, Mode: imprint.ModeDefault, NotBefore: cert.Leaf.NotBefore, NotAfter: cert.Leaf.NotAfter})
		if err != nil {
			return err
		}
		err = tx.PutPolicy(imprint.Policy{Tenant: home, Name: name, DefaultVersion: 1, LastVersion: 1})
		if err != nil {
			return err
		}
		err = tx.PutPolicyVersion(imprint.PolicyVersion{Tenant: home, Policy: name, Version: 1, Document: document})
		if err != nil {
			return err
		}
		return tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: home, Policy: name, Target: home.CertificateARN(id)})
	})
	return cert
}

const limited = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Publish","Resource":["arn:aws:iot:us-east-1:000000000000:topic/mine","arn:aws:iot:us-east-1:000000000000:topic/${iot:ClientId}/x","arn:aws:iot:us-east-1:000000000000:topic/n/a/x"]},
 {"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:us-east-1:000000000000:topic/by-thing/${iot:Connection.Thing.ThingName}"}]}`

func TestAConnectionIsOneAttemptHoweverManyRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	device := w.registerWith(t, "limited", limited)
	conn := w.dialHTTPS(t, client("localhost", device))
	for range 3 {
		if got := ask(t, conn, post("/topics/mine", "x")); got.status != http.StatusOK || got.closed {
			t.Fatalf("got %+v, want 200 on a connection that stays", got)
		}
	}
	if c := w.gateway.Counters(); c.Pending != 0 || c.Open != 1 {
		t.Errorf("%d connections are pending, %d open; want 0 and 1", c.Pending, c.Open)
	}
	a := w.attempt(t, conn)
	if a.Outcome != imprint.OutcomeConnected || a.CertificateID == "" || a.Tenant != home {
		t.Errorf("while it is open the attempt is %+v, want it connected", a)
	}
	if got := ask(t, conn, post("/topics/yours", "x")); got.status != http.StatusForbidden {
		t.Fatalf("got %+v, want 403", got)
	}
	_, _ = io.Copy(io.Discard, conn) // ends when the server closes
	ended := w.attempt(t, conn)
	for ended.Outcome != imprint.OutcomeClosed && t.Context().Err() == nil {
		ended = w.attempt(t, conn)
	}
	last := ended.Steps[len(ended.Steps)-1]
	if ended.ID != a.ID || ended.Code != imprint.CodePublishDenied || last.Detail != "3 request(s) answered, 1 refused" {
		t.Errorf("got %s, code %s, last step %+v", ended.ID, ended.Code, last)
	}
	if c := w.gateway.Counters(); c.Requests[0] != 3 {
		t.Errorf("%d requests are counted as good, want 3", c.Requests[0])
	}
}

func TestOneTopicOfTwoTenantsIsTwoTopics(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	device := w.device(t, home)
	w.register(t, other, device, imprint.ModeSNIOnly, imprint.CertificateActive)
	here, there := w.subscribe(t, client("localhost", device), "t"), w.subscribe(t, client(otherName, device), "t")
	for _, row := range []struct{ name, payload string }{{otherName, "there"}, {"localhost", "here"}} {
		if got := ask(t, w.dialHTTPS(t, client(row.name, device)), post("/topics/t", row.payload)); got.status != http.StatusOK {
			t.Fatalf("%s: got %+v, want 200", row.name, got)
		}
	}
	if got := receive(t, here).Payload; got != "here" {
		t.Errorf("the first message in %s is %q, want %q", home, got, "here")
	}
	if got := receive(t, there).Payload; got != "there" {
		t.Errorf("the first message in %s is %q, want %q", other, got, "there")
	}
}
