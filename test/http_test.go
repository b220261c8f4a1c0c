package test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/coder/websocket"
	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/imprint-iot/imprint/mqtt"
)

// publisherPolicy lets a device publish and listen under its own tree.
const publisherPolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
 {"Effect":"Allow","Action":["iot:Publish","iot:RetainPublish","iot:Receive"],"Resource":"arn:aws:iot:*:*:topic/mine/*"},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:*:*:topicfilter/mine/*"}]}`

// publisher registers a device with the policy.
func (s *server) publisher(t *testing.T) *device {
	t.Helper()
	d := selfSigned(t, "publisher")
	api := s.sdk(t)
	s.createPolicy(t, "publisher", publisherPolicy)
	out := must(api.RegisterCertificateWithoutCA(t.Context(), &iot.RegisterCertificateWithoutCAInput{
		CertificatePem: aws.String(readFile(t, d.cert)), Status: types.CertificateStatusActive,
	}))(t)
	must(api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: aws.String("publisher"), Target: out.CertificateArn}))(t)
	return d
}

// httpsURL is the HTTPS door by its name in the server's certificate.
func (s *server) httpsURL(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(s.at().HTTPSAddress)
	if err != nil {
		t.Fatalf("server.json has the HTTPS address %q: %v", s.at().HTTPSAddress, err)
	}
	return "https://localhost:" + port
}

// listen subscribes a device to its tree.
func (s *server) listen(t *testing.T, d *device) *mqtt5 {
	t.Helper()
	c := s.connect(t, d, "listener", dialing{})
	if reasons := c.ask(t, "mine/#"); len(reasons) != 1 || reasons[0] > 1 {
		t.Fatalf("the subscription got %v, want it granted", reasons)
	}
	return c
}

func TestCurlPublishesWithAClientCertificate(t *testing.T) {
	need(t, "curl")
	t.Parallel()
	s := startServer(t)
	d := s.publisher(t)
	listener := s.listen(t, d)
	curl := func(path string, args ...string) toolRun {
		args = append([]string{"--silent", "--show-error", "--path-as-is", "--cacert", s.at().CABundle, "--max-time", "20", "--write-out", "\n%{http_code}"}, args...)
		return runTool(t, "", cleanEnv(), "curl", append(args, s.httpsURL(t)+path)...)
	}
	large := filepath.Join(t.TempDir(), "large")
	writeFile(t, large, strings.Repeat("x", 128<<10+1))
	with := []string{"--cert", d.cert, "--key", d.key}
	for _, row := range []struct {
		name, path string
		args       []string
		status     string
		want       message
	}{
		{"slashes as they are", "/topics/mine/a?qos=1", append([]string{"--data", "1"}, with...), "200", message{"mine/a", "1"}},
		{"escaped slashes", "/topics/mine%2Fb%2F%2Fc?qos=0", append([]string{"--data", "2"}, with...), "200", message{"mine/b//c", "2"}},
		{"the protocol of port 443", "/topics/mine/..", append([]string{"--data", "3", "--no-alpn"}, with...), "200", message{"mine/..", "3"}},
		{"no certificate", "/topics/mine/a", []string{"--data", "4"}, "403", message{}},
		{"a topic of others", "/topics/yours/a", append([]string{"--data", "5"}, with...), "403", message{}},
		{"no message at all", "/topics/mine/a", append([]string{"--request", "GET"}, with...), "405", message{}},
		{"Expect: 100-continue and too much", "/topics/mine/a", append([]string{"--header", "Expect: 100-continue", "--data-binary", "@" + large}, with...), "413", message{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			run := curl(row.path, row.args...)
			body, status, _ := strings.Cut(strings.TrimSpace(run.stdout), "\n")
			var answer struct{ Message, TraceID string }
			err := json.Unmarshal([]byte(body), &answer)
			if err != nil || status != row.status || answer.Message == "" {
				t.Fatalf("got %s, want status %s and a message (%v)", run.all(), row.status, err)
			}
			if row.want.topic != "" {
				if got := listener.receive(t); got != row.want {
					t.Errorf("the listener got %v, want %v", got, row.want)
				}
				return
			}
			found := s.awaitExplained(t, answer.TraceID, 1)
			if len(found) == 0 || found[0].Outcome != "refused" {
				t.Errorf("imprint explain %s: got %+v, want a refused attempt", answer.TraceID, found)
			}
		})
	}
	metrics := runTool(t, "", cleanEnv(), "curl", "--silent", "--cacert", s.at().CABundle, s.at().APIURL+"/metrics")
	for _, want := range []string{`imprint_https_requests_total{outcome="ok"} 3`, `imprint_https_requests_total{outcome="forbidden"} 2`, `imprint_https_requests_total{outcome="invalid"} 2`} {
		if !strings.Contains(metrics.stdout, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

func TestTheCLIPublishesThroughTheDataPlane(t *testing.T) {
	need(t, "bash", "aws")
	t.Parallel()
	s := startServer(t)
	listener := s.listen(t, s.publisher(t))
	for _, row := range []struct {
		name, command string
		fails         string
		want          message
	}{
		{"a message", "--topic mine/a --qos 1 --cli-binary-format raw-in-base64-out --payload hello", "", message{"mine/a", "hello"}},
		{"all members", `--topic mine//b --qos 1 --cli-binary-format raw-in-base64-out --payload x --content-type text/plain --response-topic mine/r --correlation-data AAE= --message-expiry 60 --payload-format-indicator UTF8_DATA --user-properties '[{"a":"b"}]'`, "", message{"mine//b", "x"}},
		{"a wildcard", "--topic mine/#", "(InvalidRequestException)", message{}},
		{"a reserved topic", "--topic '$aws/x'", "(InvalidRequestException)", message{}},
		{"on the devices' door", "--topic mine/c --endpoint-url \"https://$IMPRINT_HTTPS\" --cli-binary-format raw-in-base64-out --payload there", "", message{"mine/c", "there"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			script := "aws iot-data publish " + row.command
			if strings.Contains(row.command, "--endpoint-url") {
				script = "command " + script
			}
			run := s.shell(t, t.TempDir(), script)
			if row.fails != "" {
				if run.exit == 0 || !strings.Contains(run.stderr, row.fails) {
					t.Errorf("got exit code %d, want %s\n%s", run.exit, row.fails, run.all())
				}
				return
			}
			if run.exit != 0 {
				t.Fatalf("exit code %d\n%s", run.exit, run.all())
			}
			if got := listener.receive(t); got != row.want {
				t.Errorf("the listener got %v, want %v", got, row.want)
			}
		})
	}
}

// signed sends a request of the data plane, signed for a service, and gives the
// status and the error's name.
func (s *server) signed(t *testing.T, method, address, service string) (int, string) {
	t.Helper()
	response := s.send(t, method, address, service)
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, response.Body)
	name, _, _ := strings.Cut(response.Header.Get("X-Amzn-Errortype"), ":")
	return response.StatusCode, name
}

// signedBody is signed, and gives what a good answer says.
func (s *server) signedBody(t *testing.T, method, address, service string) string {
	t.Helper()
	response := s.send(t, method, address, service)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: got status %d, %v, %s", method, address, response.StatusCode, err, body)
	}
	return string(body)
}

func (s *server) send(t *testing.T, method, address, service string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = v4.NewSigner().SignHTTP(t.Context(), s.credentials(), r, emptyHash(), service, "us-east-1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	response, err := s.httpClient(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

func (s *server) credentials() aws.Credentials {
	return aws.Credentials{AccessKeyID: s.env["AWS_ACCESS_KEY_ID"], SecretAccessKey: s.env["AWS_SECRET_ACCESS_KEY"]}
}

func emptyHash() string {
	sum := sha256.Sum256(nil)
	return hex.EncodeToString(sum[:])
}

func TestAnOperatorEndsAConnection(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	c := s.listen(t, s.publisher(t))
	for _, row := range []struct {
		name, method, address, service string
		status                         int
		code                           string
	}{
		{"a client that isn't there", http.MethodDelete, s.at().APIURL + "/connections/nobody", "iotdevicegateway", 404, "ResourceNotFoundException"},
		{"an id that no client may have", http.MethodDelete, s.at().APIURL + "/connections/%24x", "iotdevicegateway", 400, "InvalidRequestException"},
		{"another method", http.MethodPost, s.at().APIURL + "/connections/listener", "iotdata", 405, "MethodNotAllowedException"},
		{"another service's signature", http.MethodDelete, s.at().APIURL + "/connections/listener", "iot", 403, "InvalidSignatureException"},
		{"a shadow", http.MethodGet, s.at().APIURL + "/things/a/shadow", "iotdata", 501, "NotImplementedException"},
		{"the connection", http.MethodDelete, s.httpsURL(t) + "/connections/listener?cleanSession=true&preventWillMessage=TRUE", "iotdevicegateway", 200, ""},
	} {
		status, code := s.signed(t, row.method, row.address, row.service)
		if status != row.status || code != row.code {
			t.Errorf("%s: got %d %s, want %d %s", row.name, status, code, row.status, row.code)
		}
	}
	if reason := c.goodbye(t); reason != 0x98 {
		t.Errorf("the client was told %#x, want 0x98 (administrative action)", reason)
	}
}

// presigned is a URL for a WebSocket, made by AWS's own signer.
func (s *server) presigned(t *testing.T, address string) string {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, address+"/mqtt", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.URL.RawQuery = url.Values{"X-Amz-Expires": {"300"}}.Encode()
	signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), s.credentials(), r, emptyHash(), "iotdevicegateway", "us-east-1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestPahoSpeaksMQTTOverWebSocketOnBothDoors(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	device := s.listen(t, s.publisher(t))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots(t)}}}
	for _, row := range []struct{ name, address, id string }{
		{"the devices' door", s.httpsURL(t), "operator-1"}, {"the control plane's", s.at().APIURL, "operator-2"},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			ws, _, err := websocket.Dial(ctx, s.presigned(t, row.address), &websocket.DialOptions{HTTPClient: client, Subprotocols: []string{"mqtt"}})
			if err != nil {
				t.Fatal(err)
			}
			c := paho.NewClient(paho.ClientConfig{Conn: packets.NewThreadSafeConn(websocket.NetConn(ctx, ws, websocket.MessageBinary)), PacketTimeout: patience})
			_, err = c.Connect(ctx, &paho.Connect{ClientID: row.id, KeepAlive: 60, CleanStart: true})
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Publish(ctx, &paho.Publish{Topic: "mine/ws", QoS: 1, Payload: []byte(row.id)})
			if err != nil {
				t.Fatal(err)
			}
			if got := device.receive(t); got != (message{"mine/ws", row.id}) {
				t.Errorf("the device got %v, want %v", got, message{"mine/ws", row.id})
			}
			err = c.Disconnect(&paho.Disconnect{})
			if err != nil {
				t.Errorf("couldn't disconnect: %v", err)
			}
			ended := s.awaitExplained(t, row.id, 1)
			if len(ended) == 0 || ended[0].Outcome != "closed" || ended[0].Code != "ClientDisconnect" {
				t.Errorf("got the attempts %+v, want one that the client ended", ended)
			}
		})
	}
}

// overWebSocket connects with Paho's Python client, subscribes, publishes to
// itself and prints what comes back.
const overWebSocket = `
import ssl, sys
import paho.mqtt.client as mqtt
host, port, path, roots = sys.argv[1:5]
c = mqtt.Client("python", protocol=mqtt.MQTTv311, transport="websockets")
c.ws_set_options(path=path)
c.tls_set(roots)
c.on_connect = lambda c, u, f, rc: (print("connected", rc), c.subscribe("python/#", 1))
c.on_subscribe = lambda c, u, mid, qos: c.publish("python/x", "y" * 70000, 1)
def on_message(c, u, m):
    print("message", m.topic, len(m.payload))
    c.disconnect()
c.on_message = on_message
c.connect(host, int(port))
c.loop_forever()
`

func TestPythonsPahoSpeaksMQTTOverWebSocket(t *testing.T) {
	need(t, "/usr/bin/python3", "timeout")
	t.Parallel()
	s := startServer(t)
	u, err := url.Parse(s.presigned(t, s.httpsURL(t)))
	if err != nil {
		t.Fatal(err)
	}
	run := runTool(t, "", cleanEnv(), "timeout", "60", "/usr/bin/python3", "-c", overWebSocket, u.Hostname(), u.Port(), u.RequestURI(), s.at().CABundle)
	if run.exit != 0 || run.stdout != "connected 0\nmessage python/x 70000\n" {
		t.Errorf("got exit code %d\n%s", run.exit, run.all())
	}
}

// TestACloseFrameTakesTheWillBack ensures that a WebSocket client that closes
// properly is treated like one that says DISCONNECT, and one that is cut isn't.
func TestACloseFrameTakesTheWillBack(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	watch := s.one.open(t, mqtt.Connect{ClientID: "watch", CleanStart: true}, mqtt.V5)
	watch.subscribe(at1("will/+"), at1("$aws/events/presence/disconnected/+"))
	ctx := soon(t)
	open := func(name string) *websocket.Conn {
		ws, _, err := websocket.Dial(ctx, s.presigned(t, s.httpsURL(t)), &websocket.DialOptions{HTTPClient: s.httpClient(t), Subprotocols: []string{"mqtt"}})
		if err != nil {
			t.Fatalf("couldn't open a WebSocket: %v", err)
		}
		connect := mqtt.Connect{ClientID: name, CleanStart: true, KeepAlive: 60, Will: &mqtt.Will{Topic: "will/" + name, Payload: []byte("bye"), QoS: 1}}
		err = ws.Write(ctx, websocket.MessageBinary, connect.Append(nil, mqtt.V311))
		if err == nil {
			_, _, err = ws.Read(ctx)
		}
		if err != nil {
			t.Fatalf("couldn't connect: %v", err)
		}
		return ws
	}
	_ = open("closes").Close(websocket.StatusNormalClosure, "")
	if got := watch.receive(); string(got.Topic) != "$aws/events/presence/disconnected/closes" {
		t.Errorf("after a close frame: got a message on %s, want only the event", got.Topic)
	}
	_ = open("cut").CloseNow()
	topics := []string{string(watch.receive().Topic), string(watch.receive().Topic)}
	if !slices.Contains(topics, "will/cut") {
		t.Errorf("after a cut: got messages on %v, want the will among them", topics)
	}
}
