package gateway_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/gateway"
	"github.com/imprint-iot/imprint/pki"
)

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

func TestSlowRequestsAreEnded(t *testing.T) {
	t.Parallel()
	const short = 100 * time.Millisecond
	for _, row := range []struct {
		name, say string
		// ends is the bound that is met; the others are far off, as what is quick enough
		// depends on the machine.
		ends    gateway.HTTPOptions
		code    imprint.Code
		outcome imprint.Outcome
		status  int // 0: no answer
	}{
		{"nothing", "", gateway.HTTPOptions{HeaderTimeout: short, RequestTimeout: patience}, imprint.CodeNoRequest, imprint.OutcomeRefused, 0},
		{"half a head", "POST /topics/a HTTP/1.1\r\nHost:", gateway.HTTPOptions{HeaderTimeout: short, RequestTimeout: patience}, imprint.CodeNoRequest, imprint.OutcomeRefused, 0},
		{"half a body", "POST /topics/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf", gateway.HTTPOptions{HeaderTimeout: patience, RequestTimeout: time.Second}, imprint.CodeHTTPRequest, imprint.OutcomeRefused, http.StatusRequestTimeout},
		{"nothing after a request", post("/topics/a", ""), gateway.HTTPOptions{HeaderTimeout: patience, RequestTimeout: patience, IdleTimeout: short}, imprint.CodeClientDisconnect, imprint.OutcomeClosed, http.StatusOK},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{options: gateway.Options{HTTP: row.ends}})
			conn := w.dialHTTPS(t, client("localhost", w.device(t, home)))
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

// TestWhatCantBeReadAsARequestIsAnsweredLikeOthers ensures that what net/http answers by
// itself is told, traced and counted as any other refusal, also after a good request.
func TestWhatCantBeReadAsARequestIsAnsweredLikeOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	device := w.device(t, home)
	for _, row := range []struct {
		name, say string
		status    int
	}{
		{"percent", "POST /topics/a/%zz?qos=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", http.StatusBadRequest},
		{"no host", "POST /topics/a HTTP/1.1\r\nContent-Length: 0\r\n\r\n", http.StatusBadRequest},
		{"no HTTP", "\x11\x0c\x00\x04MQTT\x04\x02\x00\x1e\x00\x00\r\n\r\n", http.StatusBadRequest},
		{"encoding", "POST /topics/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: odd\r\n\r\n", http.StatusNotImplemented},
		{"expectation", "POST /topics/a HTTP/1.1\r\nHost: a\r\nExpect: much\r\nContent-Length: 0\r\n\r\n", http.StatusExpectationFailed},
	} {
		for _, good := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s after %d", row.name, good), func(t *testing.T) {
				conn := w.dialHTTPS(t, client("localhost", device))
				for range good {
					if got := ask(t, conn, post("/topics/a", "")); got.status != http.StatusOK {
						t.Fatalf("got %+v, want 200", got)
					}
				}
				before := w.gateway.Counters().Requests[1]
				got := ask(t, conn, row.say)
				if got.status != row.status || got.message == "" {
					t.Errorf("got %+v, want %d and a message", got, row.status)
				}
				_, _ = io.Copy(io.Discard, conn) // ends when the server closes
				a := w.attempt(t, conn)
				for a.EndedAt.IsZero() && t.Context().Err() == nil {
					a = w.attempt(t, conn)
				}
				if a.Code != imprint.CodeHTTPRequest || strings.ReplaceAll(got.traceID, "-", "") != a.ID {
					t.Errorf("the attempt is %s, ended with %s; want %s, with %s", a.ID, a.Code, got.traceID, imprint.CodeHTTPRequest)
				}
				if n := w.gateway.Counters().Requests[1] - before; n != 1 {
					t.Errorf("%d requests are counted as invalid, want 1", n)
				}
			})
		}
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

// TestMQTTOnTheHTTPSPortIsToldAsThat: AWS's SDKs need ALPN on such a port, and firmware
// without it would wait for an answer that HTTP doesn't give.
func TestMQTTOnTheHTTPSPortIsToldAsThat(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	conn := w.dialHTTPS(t, client("localhost", w.device(t, home)))
	_, err := conn.Write([]byte("\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a"))
	if err != nil {
		t.Fatal(err)
	}
	left, err := io.ReadAll(conn)
	if err != nil || len(left) > 0 {
		t.Errorf("CONNECT is answered %q, %v; want the end", left, err)
	}
	a := w.attempt(t, conn)
	wantRefused(t, a, "mqtt.connect", imprint.CodeALPNMissing)
	if last := a.Steps[len(a.Steps)-1]; !strings.Contains(last.Fix, "x-amzn-mqtt-ca") {
		t.Errorf("the fix is %q", last.Fix)
	}
}
