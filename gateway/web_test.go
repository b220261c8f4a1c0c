package gateway_test

import (
	"bufio"
	"bytes"
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
	"github.com/imprint-iot/imprint/gateway"
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
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
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

func TestRefusedRequestsAreAnsweredTracedAndEndTheConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	device, restricted := w.device(t, home), w.registerWith(t, "limited", limited)
	strange := issue(ecdsaKey(), "strange", w.ca)
	w.registerCA(t, home, imprint.ModeDefault, "")
	inactive := selfSigned(ecdsaKey(), "inactive")
	w.register(t, home, inactive, imprint.ModeDefault, imprint.CertificateInactive)
	pending := selfSigned(ecdsaKey(), "pending")
	w.register(t, home, pending, imprint.ModeDefault, imprint.CertificatePendingActivation)
	large := strings.Repeat("x", 128<<10+1)
	for _, row := range []struct {
		name    string
		certs   []tls.Certificate
		request string
		status  int
		message string // "" for any
		step    string
		code    imprint.Code
	}{
		{"no certificate", nil, post("/topics/a", ""), 403, "Missing authentication token", "certificate", imprint.CodeNoClientCertificate},
		{"a certificate that a CA with auto-registration signed", []tls.Certificate{strange}, post("/topics/a", ""), 403, "Forbidden", "certificate", imprint.CodeCertificateUnknown},
		{"INACTIVE", []tls.Certificate{inactive}, post("/topics/a", ""), 403, "Forbidden", "certificate", imprint.CodeCertificateInactive},
		{"PENDING_ACTIVATION", []tls.Certificate{pending}, post("/topics/a", ""), 403, "Forbidden", "certificate", imprint.CodeCertificatePending},
		{"a topic that no policy allows", []tls.Certificate{restricted}, post("/topics/yours", ""), 403, "Forbidden", "policy.publish", imprint.CodePublishDenied},
		{"a client id that doesn't exist on HTTP", []tls.Certificate{restricted}, post("/topics/limited/x", ""), 403, "Forbidden", "policy.publish", imprint.CodePublishDenied},
		{"a thing that doesn't count on HTTP", []tls.Certificate{restricted}, post("/topics/by-thing/limited", ""), 403, "Forbidden", "policy.publish", imprint.CodePublishDenied},
		{"RETAIN without iot:RetainPublish", []tls.Certificate{restricted}, post("/topics/mine?retain=true", ""), 403, "Forbidden", "policy.retain", imprint.CodeRetainDenied},
		{"a reserved topic", []tls.Certificate{device}, post("/topics/$aws/things/a", ""), 400, "", "http.publish", imprint.CodeReservedTopic},
		{"a topic with a wildcard", []tls.Certificate{device}, post("/topics/a+b", ""), 400, "", "http.publish", imprint.CodeTopicInvalid},
		{"a topic that isn't UTF-8", []tls.Certificate{device}, post("/topics/%ff", ""), 400, "", "http.publish", imprint.CodeTopicInvalid},
		{"a topic that is too long", []tls.Certificate{device}, post("/topics/"+strings.Repeat("a", 257), ""), 400, "", "http.publish", imprint.CodeTopicInvalid},
		{"a topic that is too deep", []tls.Certificate{device}, post("/topics/1/2/3/4/5/6/7/8/9", ""), 400, "", "http.publish", imprint.CodeTopicInvalid},
		{"no topic", []tls.Certificate{device}, post("/topics/", ""), 400, "", "http.request", imprint.CodeInvalidRequest},
		{"qos 2", []tls.Certificate{device}, post("/topics/a?qos=2", ""), 400, "", "http.request", imprint.CodeQoSNotSupported},
		{"qos twice", []tls.Certificate{device}, post("/topics/a?qos=1&qos=0", ""), 400, "", "http.request", imprint.CodeInvalidRequest},
		{"a strange flag", []tls.Certificate{device}, post("/topics/a?retain=1", ""), 400, "", "http.request", imprint.CodeInvalidRequest},
		{"a malformed header", []tls.Certificate{device}, post("/topics/a", "", "x-amz-mqtt5-correlation-data: %%"), 400, "", "http.request", imprint.CodeInvalidRequest},
		{"a payload that is too large", []tls.Certificate{device}, post("/topics/a", large), 413, "", "http.request", imprint.CodePacketTooLarge},
		{"the same in chunks", []tls.Certificate{device}, fmt.Sprintf("POST /topics/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(large), large), 413, "", "http.request", imprint.CodePacketTooLarge},
		{"GET", []tls.Certificate{device}, "GET /topics/a HTTP/1.1\r\nHost: a\r\n\r\n", 405, "", "http.request", imprint.CodeHTTPRequest},
		{"another path", []tls.Certificate{device}, post("/topic/a", ""), 404, "", "http.request", imprint.CodeHTTPRequest},
		{"a path that cleaning would turn into one", []tls.Certificate{device}, post("/x/../topics/a", ""), 404, "", "http.request", imprint.CodeHTTPRequest},
		{"OPTIONS *", []tls.Certificate{device}, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404, "", "http.request", imprint.CodeHTTPRequest},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			conn := w.dialHTTPS(t, client("localhost", row.certs...))
			got := ask(t, conn, row.request)
			if got.status != row.status || row.message != "" && got.message != row.message || !got.closed {
				t.Errorf("got %+v, want %d %q and a close", got, row.status, row.message)
			}
			if left, err := io.ReadAll(conn); err != nil || len(left) > 0 {
				t.Errorf("after the answer came %d bytes, %v; want the end", len(left), err)
			}
			a := w.attempt(t, conn)
			wantRefused(t, a, row.step, row.code)
			if a.Outcome != imprint.OutcomeRefused || strings.ReplaceAll(got.traceID, "-", "") != a.ID {
				t.Errorf("the attempt is %s %s, want %s and the id of %s", a.ID, a.Outcome, imprint.OutcomeRefused, got.traceID)
			}
		})
	}
}

func TestAnUnknownCertificateIsNotRegisteredOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	w.registerCA(t, home, imprint.ModeDefault, jitp)
	cert := issue(ecdsaKey(), "device-1", w.ca)
	if got := ask(t, w.dialHTTPS(t, client("localhost", cert)), post("/topics/a", "")); got.status != http.StatusForbidden {
		t.Errorf("got %+v, want 403", got)
	}
	err := w.store.View(t.Context(), func(tx imprint.ReadTx) error {
		_, err := tx.Certificate(home, pki.CertificateID(cert.Certificate[0]))
		return err
	})
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		t.Errorf("looking for the certificate: got %v, want %s", err, imprint.CodeNotFound)
	}
}

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

func TestSlowRequestsAreEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{options: gateway.Options{HTTP: gateway.HTTPOptions{
		HeaderTimeout: 50 * time.Millisecond, RequestTimeout: 100 * time.Millisecond, IdleTimeout: 50 * time.Millisecond,
	}}})
	device := w.device(t, home)
	for _, row := range []struct {
		name, say string
		code      imprint.Code
		outcome   imprint.Outcome
		status    int // 0: no answer
	}{
		{"nothing", "", imprint.CodeNoRequest, imprint.OutcomeRefused, 0},
		{"half a head", "POST /topics/a HTTP/1.1\r\nHost:", imprint.CodeNoRequest, imprint.OutcomeRefused, 0},
		{"half a body", "POST /topics/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf", imprint.CodeHTTPRequest, imprint.OutcomeRefused, http.StatusRequestTimeout},
		{"nothing after a request", post("/topics/a", ""), imprint.CodeClientDisconnect, imprint.OutcomeClosed, http.StatusOK},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			conn := w.dialHTTPS(t, client("localhost", device))
			_, err := io.WriteString(conn, row.say)
			if err == nil {
				err = conn.Handshake()
			}
			if err != nil {
				t.Fatal(err)
			}
			answered, _ := io.ReadAll(conn) // ends when the server closes
			if row.status != 0 {
				if got := readAnswer(t, bufio.NewReader(bytes.NewReader(answered))); got.status != row.status {
					t.Errorf("got %+v, want %d", got, row.status)
				}
			}
			a := w.attempt(t, conn)
			for a.EndedAt.IsZero() && t.Context().Err() == nil {
				a = w.attempt(t, conn)
			}
			if a.Code != row.code || a.Outcome != row.outcome {
				t.Errorf("the attempt ended %s %s, want %s %s", a.Outcome, a.Code, row.outcome, row.code)
			}
		})
	}
}

func TestHeadersAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	conn := w.dialHTTPS(t, client("localhost", w.device(t, home)))
	// It may be refused while it is sent.
	_, _ = io.WriteString(conn, post("/topics/a", "", "X-Long: "+strings.Repeat("x", 64<<10)))
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil {
		_ = response.Body.Close()
	}
	if err == nil && response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got status %d, want 431 or a close", response.StatusCode)
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

func TestTheRateOfACertificateIsBoundedOverAllItsConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{options: gateway.Options{HTTP: gateway.HTTPOptions{PublishRate: 1}}})
	device := w.device(t, home)
	conns := []*tls.Conn{w.dialHTTPS(t, client("localhost", device)), w.dialHTTPS(t, client("localhost", device))}
	for n := range 1000 {
		got := ask(t, conns[n%2], post("/topics/a", ""))
		if got.status == http.StatusOK {
			continue
		}
		if n == 0 || got.status != http.StatusTooManyRequests || got.closed {
			t.Errorf("request %d got %+v, want 200 for the first and then 429 on a connection that stays", n, got)
		}
		return
	}
	t.Error("1000 requests were taken, want one a second")
}

// TestARefusalThatADeviceGotOverDoesntEndItsAttempt ensures that an attempt ends well
// whose last request was answered well; the refusal is one of its steps.
func TestARefusalThatADeviceGotOverDoesntEndItsAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{options: gateway.Options{HTTP: gateway.HTTPOptions{PublishRate: 1}}})
	conn := w.dialHTTPS(t, client("localhost", w.device(t, home)))
	refused, last := 0, 0
	for refused == 0 || last != http.StatusOK {
		if t.Context().Err() != nil {
			t.Fatal("no request was taken after a refused one")
		}
		last = ask(t, conn, post("/topics/a", "")).status
		if last == http.StatusTooManyRequests {
			refused++
		}
	}
	_ = conn.Close()
	ended := w.attempt(t, conn)
	for ended.Outcome != imprint.OutcomeClosed && t.Context().Err() == nil {
		ended = w.attempt(t, conn)
	}
	if ended.Code != imprint.CodeClientDisconnect {
		t.Errorf("the attempt ended with %s, want %s", ended.Code, imprint.CodeClientDisconnect)
	}
	told := false
	for _, step := range ended.Steps {
		told = told || step.Code == imprint.CodePublishRate
	}
	if !told {
		t.Errorf("steps: got %+v, want one that tells of the refusal", ended.Steps)
	}
}
