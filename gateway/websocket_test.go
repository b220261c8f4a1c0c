package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/coder/websocket"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/gateway"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/policy"
)

// operatorKey is the access key of a world with operators.
var operatorKey = aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}

type oneKey struct{}

func (oneKey) AccessKey(_ context.Context, id string) (sigv4.AccessKey, error) {
	if id != operatorKey.AccessKeyID {
		return sigv4.AccessKey{}, sigv4.ErrUnknownKey
	}
	return sigv4.AccessKey{ID: id, Secret: operatorKey.SecretAccessKey, Account: string(home.Account), PrincipalARN: "arn:aws:iam::000000000000:user/operator"}, nil
}

// operators lets those in whose signature is good.
func operators(t testing.TB) func(*http.Request) (gateway.Operator, error) {
	t.Helper()
	verifier, err := sigv4.New(sigv4.Config{Keys: oneKey{}, Services: []string{"iotdevicegateway"}, MaxExpiry: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	document, err := policy.Parse([]byte(allow))
	if err != nil {
		t.Fatal(err)
	}
	set := policy.Compile(policy.Named{Name: "operator", Doc: document})
	return func(r *http.Request) (gateway.Operator, error) {
		claim, err := verifier.Parse(r)
		var signer sigv4.Identity
		if err == nil {
			signer, err = verifier.Verify(r.Context(), claim, r, nil)
		}
		if err != nil {
			return gateway.Operator{}, imprint.Errorf(imprint.CodeSignature, "%w", err)
		}
		return gateway.Operator{Operator: identity.Operator{
			Tenant:    imprint.Tenant{Account: home.Account, Region: imprint.Region(signer.Region)},
			Principal: signer.Key.PrincipalARN, Policies: set,
		}}, nil
	}
}

func emptyHash() string {
	sum := sha256.Sum256(nil)
	return hex.EncodeToString(sum[:])
}

// presigned makes a URL with AWS's own signer. It is good for long: subtests wait for their
// turn.
func presigned(t testing.TB, address string) string {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, address+"/mqtt", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.URL.RawQuery = url.Values{"X-Amz-Expires": {"3600"}}.Encode()
	signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), operatorKey, r, emptyHash(), "iotdevicegateway", "us-east-1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// noting is an HTTP client that notes the connections that it makes.
func noting(config *tls.Config, made *net.Conn) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: config, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			*made = conn
			return conn, err
		},
	}}
}

// openSocket opens a WebSocket on the HTTPS listener.
func (w *world) openSocket(t *testing.T, target string, header http.Header, protocols ...string) (*websocket.Conn, net.Conn, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	var below net.Conn
	ws, response, err := websocket.Dial(ctx, target, &websocket.DialOptions{
		HTTPClient: noting(client("localhost"), &below), HTTPHeader: header, Subprotocols: protocols,
	})
	if err == nil {
		t.Cleanup(func() { _ = ws.CloseNow() })
	}
	return ws, below, response, err
}

func TestAnOperatorConnectsOverWebSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{operators: operators(t)})
	byHeader, err := http.NewRequest(http.MethodGet, "https://"+w.https+"/mqtt", nil)
	if err != nil {
		t.Fatal(err)
	}
	err = v4.NewSigner().SignHTTP(t.Context(), operatorKey, byHeader, emptyHash(), "iotdevicegateway", "us-east-1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := http.Header{"Origin": {"https://elsewhere.example.com"}}
	for _, row := range []struct {
		name, target, protocol string
		header                 http.Header
	}{
		{"a presigned URL", presigned(t, "https://"+w.https), "mqtt", nil},
		{"from a page of another origin", presigned(t, "https://"+w.https), "mqtt", elsewhere},
		{"by an older name of the sub-protocol", presigned(t, "https://"+w.https), "mqttv3.1", nil},
		{"a signed header", "https://" + w.https + "/mqtt", "mqtt", byHeader.Header},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			ws, below, _, err := w.openSocket(t, row.target, row.header, row.protocol)
			if err != nil {
				t.Fatal(err)
			}
			if ws.Subprotocol() != row.protocol {
				t.Errorf("the sub-protocol is %q, want %q", ws.Subprotocol(), row.protocol)
			}
			conn := websocket.NetConn(t.Context(), ws, websocket.MessageBinary)
			_, err = conn.Write((&mqtt.Connect{ClientID: "op-" + strings.ReplaceAll(row.name, " ", "-"), CleanStart: true, KeepAlive: 60}).Append(nil, mqtt.V5))
			if err != nil {
				t.Fatal(err)
			}
			header, body := readPacket(t, conn)
			if header.Type != mqtt.TypeConnack || body[1] != 0 {
				t.Fatalf("got %s % x, want an accepting CONNACK", header.Type, body)
			}
			_ = ws.Close(websocket.StatusNormalClosure, "")
			a := w.attempt(t, below)
			for a.EndedAt.IsZero() && t.Context().Err() == nil {
				a = w.attempt(t, below)
			}
			if a.Outcome != imprint.OutcomeClosed || a.Tenant != home || a.SNI != "localhost" || a.ClientID == "" {
				t.Errorf("the attempt is %+v", a)
			}
			var steps []string
			for _, s := range a.Steps {
				steps = append(steps, s.Name)
			}
			if got := strings.Join(steps, " "); !contains(got, "tls.hello tls http.signature websocket mqtt.connect policy.connect connected session") {
				t.Errorf("the steps are %s", got)
			}
		})
	}
}

// A client may ask by WebSocket pings whether the server is there, for longer than
// the broker has had nothing to write.
func TestWebSocketPingsAreAnsweredLongAfterTheLastWrite(t *testing.T) {
	t.Parallel()
	const writeTimeout = 400 * time.Millisecond // a busy machine has a write wait, too
	w := newWorld(t, settings{operators: operators(t), broker: broker.Options{WriteTimeout: writeTimeout}})
	ws, _, _, err := w.openSocket(t, presigned(t, "https://"+w.https), nil, "mqtt")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = ws.Write(ctx, websocket.MessageBinary, (&mqtt.Connect{ClientID: "pings", CleanStart: true, KeepAlive: 60}).Append(nil, mqtt.V5))
	if err != nil {
		t.Fatal(err)
	}
	_, connack, err := ws.Read(ctx)
	if err != nil || len(connack) < 4 || connack[3] != 0 {
		t.Fatalf("got % x, %v, want an accepting CONNACK", connack, err)
	}
	answers := make(chan error, 1)
	go func() { // pongs are seen by who reads
		_, _, err := ws.Read(ctx)
		answers <- err
	}()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for began := time.Now(); time.Since(began) < 2*writeTimeout; <-ticker.C {
		err = ws.Ping(ctx)
		if err != nil {
			t.Fatalf("a ping %s after the last write isn't answered: %v", time.Since(began), err)
		}
	}
	// The broker's next write has the whole of its own time.
	err = ws.Write(ctx, websocket.MessageBinary, (&mqtt.Pingreq{}).Append(nil, mqtt.V5))
	if err == nil {
		err = <-answers
	}
	if err != nil {
		t.Errorf("PINGREQ isn't answered: %v", err)
	}
}

func TestWebSocketsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{operators: operators(t)})
	good := presigned(t, "https://"+w.https)
	for _, row := range []struct {
		name, target, protocol string
		status                 int
		step                   string
		code                   imprint.Code
	}{
		{"no signature", "https://" + w.https + "/mqtt", "mqtt", 403, "http.signature", imprint.CodeSignature},
		{"a signature for another path", strings.Replace(good, "/mqtt", "/mqtt/", 1), "mqtt", 404, "http.request", imprint.CodeHTTPRequest},
		{"a changed signature", flipped(good), "mqtt", 403, "http.signature", imprint.CodeSignature},
		{"a parameter more", good + "&x=y", "mqtt", 403, "http.signature", imprint.CodeSignature},
		{"a longer life", strings.Replace(good, "X-Amz-Expires=3600", "X-Amz-Expires=3601", 1), "mqtt", 403, "http.signature", imprint.CodeSignature},
		{"no sub-protocol", good, "", 400, "websocket", imprint.CodeHTTPRequest},
		{"another sub-protocol", good, "chat", 400, "websocket", imprint.CodeHTTPRequest},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var protocols []string
			if row.protocol != "" {
				protocols = []string{row.protocol}
			}
			_, below, response, err := w.openSocket(t, row.target, nil, protocols...)
			if err == nil || response == nil || response.StatusCode != row.status {
				t.Fatalf("got %+v, %v, want status %d", response, err, row.status)
			}
			wantRefused(t, w.attempt(t, below), row.step, row.code)
		})
	}
}

func TestWebSocketsOfAnotherListenerCountAndEndWithTheGateway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{operators: operators(t)})
	server := httptest.NewTLSServer(w.gateway.WebSocket())
	t.Cleanup(server.Close)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var below net.Conn
	ws, _, err := websocket.Dial(ctx, presigned(t, server.URL), &websocket.DialOptions{
		HTTPClient: noting(&tls.Config{InsecureSkipVerify: true}, &below), Subprotocols: []string{"mqtt"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.CloseNow() }()
	// The server counts it beside its answer, which the client may read before.
	eventually(t, "one is pending and open before CONNECT", func() bool {
		c := w.gateway.Counters()
		return c.Pending == 1 && c.Open == 1 && c.WebSockets == 1
	})
	conn := websocket.NetConn(ctx, ws, websocket.MessageBinary)
	_, err = conn.Write((&mqtt.Connect{ClientID: "a", CleanStart: true, KeepAlive: 60}).Append(nil, mqtt.V5))
	if err != nil {
		t.Fatal(err)
	}
	readPacket(t, conn)
	// The slot is given back just after CONNACK is sent.
	eventually(t, "none is pending after CONNECT", func() bool {
		c := w.gateway.Counters()
		return c.Pending == 0 && c.Open == 1
	})
	// A second connection with this client id ends the first: it hears why, and
	// then a close frame.
	second, _, _, err := w.openSocket(t, presigned(t, "https://"+w.https), nil, "mqtt")
	if err != nil {
		t.Fatal(err)
	}
	_, err = websocket.NetConn(ctx, second, websocket.MessageBinary).Write((&mqtt.Connect{ClientID: "a", CleanStart: true, KeepAlive: 60}).Append(nil, mqtt.V5))
	if err != nil {
		t.Fatal(err)
	}
	header, body := readPacket(t, conn)
	if header.Type != mqtt.TypeDisconnect || mqtt.ReasonCode(body[0]) != mqtt.SessionTakenOver {
		t.Errorf("got %s % x, want a DISCONNECT that says taken over", header.Type, body)
	}
	_, _, err = ws.Read(ctx)
	if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		// NetConn has taken the close frame when the read ended with EOF.
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("after DISCONNECT came %v, want a close frame", err)
		}
	}
}

// rawSocket opens a WebSocket whose frames are the test's.
func (w *world) rawSocket(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn := w.dialHTTPS(t, client("localhost"))
	_, target, _ := strings.Cut(presigned(t, "https://"+w.https), w.https)
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n", target, w.https)
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %+v, %v, want 101", response, err)
	}
	return conn, in
}

// TestAFrameWithoutAMaskIsAProtocolError (RFC 6455 section 5.1), and words of a goodbye aren't one.
func TestAFrameWithoutAMaskIsAProtocolError(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{operators: operators(t)})
	masked := func(first byte, payload []byte) []byte {
		return append([]byte{first, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
	}
	for name, row := range map[string]struct {
		say, want []byte
		code      imprint.Code
	}{
		"a frame without a mask":   {append([]byte{0x82, byte(len(connectPacket))}, connectPacket...), []byte{0x88, 2, 0x03, 0xea}, imprint.CodeProtocolViolation},
		"a goodbye that names one": {append(masked(0x82, connectPacket), masked(0x88, []byte("\x03\xe8received unmasked frame"))...), nil, imprint.CodeClientDisconnect},
	} {
		t.Run(name, func(t *testing.T) {
			conn, in := w.rawSocket(t)
			_, err := conn.Write(row.say)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(in)
			if err != nil || row.want != nil && !bytes.Equal(got, row.want) {
				t.Errorf("got % x, %v, want a close frame, % x", got, err, row.want)
			}
			a := w.attempt(t, conn)
			for a.EndedAt.IsZero() && t.Context().Err() == nil {
				a = w.attempt(t, conn)
			}
			if a.Code != row.code {
				t.Errorf("got %s, %+v", a.Code, a.Steps)
			}
		})
	}
}

func TestWhatIsNoMQTTOverWebSocketEndsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{operators: operators(t)})
	hello := (&mqtt.Connect{ClientID: "c", CleanStart: true, KeepAlive: 60}).Append(nil, mqtt.V5)
	for _, row := range []struct {
		name   string
		kind   websocket.MessageType
		say    []byte
		status websocket.StatusCode
		code   imprint.Code
	}{
		{"text", websocket.MessageText, hello, websocket.StatusUnsupportedData, imprint.CodeProtocolViolation},
		{"a message without end", websocket.MessageBinary, append(bytes.Clone(hello), bytes.Repeat((&mqtt.Pingreq{}).Append(nil, mqtt.V5), 1<<20)...), websocket.StatusMessageTooBig, imprint.CodePacketTooLarge},
		{"another packet first", websocket.MessageBinary, (&mqtt.Pingreq{}).Append(nil, mqtt.V5), websocket.StatusNormalClosure, imprint.CodeProtocolViolation},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			ws, below, _, err := w.openSocket(t, presigned(t, "https://"+w.https), nil, "mqtt")
			if err != nil {
				t.Fatal(err)
			}
			go func() { _ = ws.Write(t.Context(), row.kind, row.say) }()
			for err == nil {
				_, _, err = ws.Read(t.Context())
			}
			a := w.attempt(t, below)
			for a.EndedAt.IsZero() && t.Context().Err() == nil {
				a = w.attempt(t, below)
			}
			if a.Code != row.code {
				t.Errorf("the attempt ended with %s, want %s: %+v", a.Code, row.code, a.Steps)
			}
			if got := websocket.CloseStatus(err); got != row.status && got != -1 {
				t.Errorf("the WebSocket was closed with %v, want %v", err, row.status)
			}
		})
	}
}

// However the bytes of a session are cut into frames and messages, the session
// is the same.
func FuzzFramesMeanNothing(f *testing.F) {
	w := newWorld(f, settings{operators: operators(f)})
	server := httptest.NewServer(w.gateway.WebSocket())
	f.Cleanup(server.Close)
	for _, seed := range [][]byte{nil, {0}, {0x80}, {0x81, 0x80, 0x05}, {1, 2, 3, 4, 0x85}, bytes.Repeat([]byte{0}, 64), bytes.Repeat([]byte{0x80}, 64)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, cuts []byte) {
		whole, cut := w.session(t, server.URL, nil), w.session(t, server.URL, cuts)
		if !bytes.Equal(whole, cut) || len(whole) == 0 {
			t.Errorf("cut by %x, the session answers % x, want % x", cuts, cut, whole)
		}
	})
}

// session sends a session's packets, cut as told, and gives what comes back. Of
// each cut, the lower bits are its length, less one, and the highest says that a
// message ends behind it.
func (w *world) session(t *testing.T, address string, cuts []byte) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, presigned(t, address), &websocket.DialOptions{Subprotocols: []string{"mqtt"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.CloseNow() }()
	said := (&mqtt.Connect{ClientID: "fuzz", CleanStart: true, KeepAlive: 60}).Append(nil, mqtt.V5)
	said = (&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "a"}}}).Append(said, mqtt.V5)
	said = (&mqtt.Publish{QoS: 1, PacketID: 2, Topic: []byte("a"), Payload: bytes.Repeat([]byte("x"), 300)}).Append(said, mqtt.V5)
	said = (&mqtt.Pingreq{}).Append(said, mqtt.V5)
	said = (&mqtt.Disconnect{}).Append(said, mqtt.V5)
	message, err := ws.Writer(ctx, websocket.MessageBinary)
	for _, c := range cuts {
		if err != nil || len(said) == 0 {
			break
		}
		n := min(int(c&0x7f)+1, len(said))
		_, err = message.Write(said[:n])
		said = said[n:]
		if err == nil && c&0x80 != 0 {
			err = message.Close()
			if err == nil {
				message, err = ws.Writer(ctx, websocket.MessageBinary)
			}
		}
	}
	if err == nil {
		_, err = message.Write(said)
	}
	if err == nil {
		err = message.Close()
	}
	if err != nil {
		t.Fatalf("couldn't send: %v", err)
	}
	answered, err := io.ReadAll(websocket.NetConn(ctx, ws, websocket.MessageBinary))
	if err != nil {
		t.Fatalf("after % x: %v", answered, err)
	}
	return answered
}

// flipped changes the last digit of a URL, which is one of the signature.
func flipped(s string) string {
	last := byte('0')
	if s[len(s)-1] == last {
		last = '1'
	}
	return s[:len(s)-1] + string(last)
}

// TestAWebSocketThatMeetsALimitIsRefusedForIt ensures that a socket of another listener
// that is one too many counts, and is traced, as that and not as an invalid request.
func TestAWebSocketThatMeetsALimitIsRefusedForIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{operators: operators(t), options: gateway.Options{MaxConnections: 1}})
	server := httptest.NewTLSServer(w.gateway.WebSocket())
	t.Cleanup(server.Close)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 2 {
		var below net.Conn
		// The second may hear 101 before its socket is closed.
		ws, _, err := websocket.Dial(ctx, presigned(t, server.URL), &websocket.DialOptions{
			HTTPClient: noting(&tls.Config{InsecureSkipVerify: true}, &below), Subprotocols: []string{"mqtt"},
		})
		if err == nil {
			defer func() { _ = ws.CloseNow() }()
		}
	}
	requests := func() map[string]uint64 {
		counts := map[string]uint64{}
		for outcome, n := range w.gateway.Counters().Requests {
			if n > 0 {
				counts[gateway.HTTPOutcome(outcome).String()] = n
			}
		}
		return counts
	}
	// The socket is closed a moment before it is counted.
	eventually(t, "both are counted", func() bool { return len(requests()) == 2 })
	if got := requests(); got["ok"] != 1 || got["unavailable"] != 1 {
		t.Errorf("requests: got %v, want one ok, one unavailable", got)
	}
}
