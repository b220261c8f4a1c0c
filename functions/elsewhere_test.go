package functions_test

import (
	"context"
	"crypto/hmac"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
	"github.com/imprint-iot/imprint/functions"
)

const secret = "a secret of the webhook"

// hook serves a webhook over TLS and gives its URL and roots.
func hook(t *testing.T, handle http.HandlerFunc) (address, roots string) {
	t.Helper()
	server := httptest.NewTLSServer(handle)
	t.Cleanup(server.Close)
	return server.URL, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

func (h *house) webhook(name, address, roots string, timeout time.Duration) {
	h.t.Helper()
	h.putZip(name, nil, func(f *imprint.Function) {
		f.Runtime, f.Handler, f.Timeout = functions.RuntimeWebhook, address, timeout
		f.Environment = map[string]string{functions.WebhookSecret: secret, functions.WebhookCA: roots}
	})
}

func TestWebhooksGetSignedRequests(t *testing.T) {
	t.Parallel()
	address, roots := hook(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		timestamp := r.Header.Get("Imprint-Timestamp")
		seconds, err := strconv.ParseInt(timestamp, 10, 64)
		if err != nil || time.Since(time.Unix(seconds, 0)) > time.Minute {
			t.Errorf("timestamp %q: %v", timestamp, err)
		}
		if !hmac.Equal([]byte(r.Header.Get("Imprint-Signature")), []byte(functions.SignWebhook(secret, timestamp, body))) {
			t.Errorf("signature %q isn't of this body", r.Header.Get("Imprint-Signature"))
		}
		if r.Header.Get("Imprint-Function-Arn") != home.FunctionARN("f") || r.Header.Get("Imprint-Source-Arn") != "source" ||
			r.Header.Get("Imprint-Request-Id") == "" || r.Header.Get("Content-Type") != "application/json" || r.Method != http.MethodPost {
			t.Errorf("got %s with %v", r.Method, r.Header)
		}
		_, _ = w.Write(body)
	})
	h := open(t, nil)
	h.webhook("f", address, roots, patience)
	c := call("f", `{"a":1}`)
	c.SourceARN = "source"
	result, err := h.Invoke(t.Context(), c)
	if err != nil || string(result.Payload) != `{"a":1}` || result.Cold {
		t.Errorf("got %+v, %v", result, err)
	}
}

// The signature of the manual's example.
func TestTheSignatureIsAsDocumented(t *testing.T) {
	t.Parallel()
	// printf '1767225600.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef
	const want = "v1=539b0e21b535c5201ef7d1453c0a0de4ad132293226de9018be0cfbf0092faa6"
	if got := functions.SignWebhook("0123456789abcdef", "1767225600", []byte(`{"a":1}`)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWebhooksThatFail(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	gone := make(chan struct{})
	address, roots := hook(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/status":
			http.Error(w, "no such device", http.StatusInternalServerError)
		case "/throttled":
			w.WriteHeader(http.StatusTooManyRequests)
		case "/text":
			_, _ = io.WriteString(w, "not JSON")
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
		case "/large":
			_, _ = io.WriteString(w, `"`+strings.Repeat("x", 6<<20)+`"`)
		case "/redirect":
			http.Redirect(w, r, "/empty", http.StatusTemporaryRedirect)
		case "/hang":
			select {
			case <-r.Context().Done():
			case <-gone:
			}
		}
	})
	t.Cleanup(func() { close(gone) })
	for _, test := range []struct {
		name, path, roots string
		code              imprint.Code
		payload           string
	}{
		{"status", "/status", roots, imprint.CodeFunctionFailed, "the webhook answered 500: no such device"},
		{"throttled", "/throttled", roots, imprint.CodeFunctionThrottled, ""},
		{"text", "/text", roots, imprint.CodeFunctionFailed, "isn't JSON"},
		{"empty", "/empty", roots, "", "null"},
		{"large", "/large", roots, imprint.CodeFunctionFailed, "more than"},
		{"redirect", "/redirect", roots, imprint.CodeFunctionFailed, "answered 307"},
		{"hang", "/hang", roots, imprint.CodeFunctionTimeout, "timed out after 1.00 seconds"},
		{"untrusted", "/empty", "", imprint.CodeFunctionFailed, "certificate"},
	} {
		timeout := patience
		if test.path == "/hang" {
			timeout = time.Second
		}
		h.webhook(test.name, address+test.path, test.roots, timeout)
		result, err := h.Invoke(t.Context(), call(test.name, "{}"))
		wantCode(t, err, test.code)
		if !strings.Contains(string(result.Payload), test.payload) {
			t.Errorf("%s: got %.300s", test.name, result.Payload)
		}
		if strings.Contains(string(result.Payload), secret) || err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the secret is told", test.name)
		}
	}
}

func TestWebhookRunsAtOnceAreBounded(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}, 3), make(chan struct{})
	address, roots := hook(t, func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-release
	})
	h := open(t, func(o *functions.Options) { o.MaxConcurrency = 2 })
	h.webhook("f", address, roots, patience)
	ended := make(chan error, 3)
	for range 3 {
		go func() {
			_, err := h.Invoke(context.Background(), call("f", "{}"))
			ended <- err
		}()
	}
	<-begun
	<-begun
	hasty := call("f", "{}")
	hasty.Timeout = 50 * time.Millisecond
	_, err := h.Invoke(t.Context(), hasty)
	wantCode(t, err, imprint.CodeFunctionTimeout)
	select {
	case <-begun:
		t.Error("a third run began")
	default:
	}
	close(release)
	for range 3 {
		err := <-ended
		if err != nil {
			t.Error(err)
		}
	}
}

// oneKey is a source of access keys with one in it.
type oneKey struct{ key sigv4.AccessKey }

func (k oneKey) AccessKey(_ context.Context, id string) (sigv4.AccessKey, error) {
	if id != k.key.ID {
		return sigv4.AccessKey{}, sigv4.ErrUnknownKey
	}
	return k.key, nil
}

const foreign = "arn:aws:lambda:eu-west-1:123456789012:function:real:prod"

// remote puts a function that runs at an Invoke API.
func (h *house) remote(name, address, roots string) {
	h.putZip(name, nil, func(f *imprint.Function) {
		f.Runtime, f.Handler, f.Timeout = functions.RuntimeRemote, foreign, patience
		f.Environment = map[string]string{functions.RemoteAccessKeyID: "AKIAEXAMPLE000000000", functions.RemoteSecretAccessKey: "the secret key",
			functions.RemoteEndpoint: address, functions.RemoteCA: roots}
	})
}

func TestRemoteFunctionsAreInvokedSigned(t *testing.T) {
	t.Parallel()
	verifier, err := sigv4.New(sigv4.Config{
		Keys:     oneKey{sigv4.AccessKey{ID: "AKIAEXAMPLE000000000", Secret: "the secret key", Account: "123456789012"}},
		Services: []string{"lambda"}, Regions: []string{"eu-west-1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	address, roots := hook(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		claim, err := verifier.Parse(r)
		if err == nil {
			_, err = verifier.Verify(r.Context(), claim, r, body)
		}
		if err != nil {
			t.Errorf("the signature: %v", err)
		}
		if r.URL.Path != "/2015-03-31/functions/"+foreign+"/invocations" || r.Header.Get("X-Amz-Invocation-Type") != "RequestResponse" {
			t.Errorf("got %s with %v", r.URL.Path, r.Header)
		}
		w.Header().Set("X-Amz-Log-Result", base64.StdEncoding.EncodeToString([]byte("a log line")))
		switch string(body) {
		case `"fail"`:
			w.Header().Set("X-Amz-Function-Error", "Unhandled")
			_, _ = io.WriteString(w, `{"errorMessage":"no such device","errorType":"E"}`)
		case `"timeout"`:
			w.Header().Set("X-Amz-Function-Error", "Unhandled")
			_, _ = io.WriteString(w, `{"errorMessage":"x Task timed out after 3.00 seconds"}`)
		case `"missing"`:
			w.WriteHeader(http.StatusNotFound)
		case `"throttled"`:
			w.WriteHeader(http.StatusTooManyRequests)
		case `"refused"`:
			w.Header().Set("X-Amzn-ErrorType", "AccessDeniedException")
			w.WriteHeader(http.StatusForbidden)
		default:
			_, _ = w.Write(body)
		}
	})
	h := open(t, nil)
	h.remote("f", address, roots)
	for event, code := range map[string]imprint.Code{
		`{"a":1}`: "", `"fail"`: imprint.CodeFunctionFailed, `"timeout"`: imprint.CodeFunctionTimeout, `"missing"`: imprint.CodeFunctionMissing,
		`"throttled"`: imprint.CodeFunctionThrottled, `"refused"`: imprint.CodeFunctionFailed,
	} {
		result, err := h.Invoke(t.Context(), call("f", event))
		wantCode(t, err, code)
		if code == "" && (string(result.Payload) != event || result.Log != "a log line") {
			t.Errorf("got %+v", result)
		}
		if event == `"refused"` && !strings.Contains(string(result.Payload), "AccessDeniedException") {
			t.Errorf("got %s", result.Payload)
		}
	}
	// Rules and templates may name it by its own ARN.
	result, err := h.Invoke(t.Context(), imprint.FunctionCall{Tenant: home, ARN: foreign, Payload: []byte("2")})
	if err != nil || string(result.Payload) != "2" {
		t.Errorf("by its own ARN: got %s, %v", result.Payload, err)
	}
	_, err = h.Invoke(t.Context(), imprint.FunctionCall{Tenant: home, ARN: foreign, Payload: []byte("2"), Principal: "iot.amazonaws.com"})
	wantCode(t, err, imprint.CodeFunctionDenied)
}

// TestPrivateAddressesAreTheFirstAccountsAlone ensures that another account's webhooks and
// functions elsewhere don't reach this machine, by an address or by a name that leads there.
func TestPrivateAddressesAreTheFirstAccountsAlone(t *testing.T) {
	t.Parallel()
	h := open(t, func(o *functions.Options) { o.PrivateAccount = home.Account })
	stranger := imprint.Tenant{Account: "111111111111", Region: home.Region}
	var allowed atomic.Bool
	address, roots := hook(t, func(w http.ResponseWriter, _ *http.Request) {
		if !allowed.Load() {
			t.Error("another account's function reached this machine")
		}
		_, _ = io.WriteString(w, "{}")
	})
	port := address[strings.LastIndex(address, ":"):]
	for name, change := range map[string]func(*imprint.Function){
		"address": func(f *imprint.Function) { f.Handler = address },
		"name":    func(f *imprint.Function) { f.Handler = "https://localhost" + port },
		"remote": func(f *imprint.Function) {
			f.Runtime, f.Handler = functions.RuntimeRemote, "arn:aws:lambda:eu-west-1:123456789012:function:real"
			f.Environment = map[string]string{
				functions.RemoteAccessKeyID: "AKIAEXAMPLE", functions.RemoteSecretAccessKey: "secret", functions.RemoteEndpoint: address, functions.RemoteCA: roots,
			}
		},
	} {
		h.putZip(name, nil, func(f *imprint.Function) {
			f.Tenant, f.Runtime = stranger, functions.RuntimeWebhook
			f.Environment = map[string]string{functions.WebhookSecret: secret, functions.WebhookCA: roots}
			change(f)
		})
		result, err := h.Invoke(t.Context(), imprint.FunctionCall{Tenant: stranger, ARN: stranger.FunctionARN(imprint.FunctionName(name)), Payload: []byte("{}")})
		wantCode(t, err, imprint.CodeFunctionFailed)
		if !strings.Contains(string(result.Payload), "only the server's first account") {
			t.Errorf("%s: got %s", name, result.Payload)
		}
	}
	allowed.Store(true)
	h.webhook("own", address, roots, patience)
	h.must("own", "{}")
}

// TestConnectionsThatAreKeptAreBounded ensures that an account with webhooks on many hosts
// doesn't take a file of the server's for each, long after its calls.
func TestConnectionsThatAreKeptAreBounded(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	const hosts, most = 130, 100
	var connections atomic.Int64
	for n := range hosts {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				connections.Add(1)
			case http.StateClosed:
				connections.Add(-1)
			}
		}
		server.Start()
		t.Cleanup(server.Close)
		name := "f" + strconv.Itoa(n)
		h.webhook(name, server.URL, "", patience)
		_, err := h.Invoke(t.Context(), imprint.FunctionCall{Tenant: home, ARN: home.FunctionARN(imprint.FunctionName(name))})
		if err != nil {
			t.Fatal(err)
		}
	}
	// Idle ones would end by themselves after 90 seconds.
	for deadline := time.Now().Add(time.Minute); connections.Load() > most; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are kept, want %d at most", connections.Load(), most)
		}
	}
}

// TestRootsOfManyServersCostNoOthersTheirConnections ensures that an account whose webhooks
// have more roots than clients are kept for loses those that it uses least, and that its own
// webhook in use, and another account's, keep their connections.
func TestRootsOfManyServersCostNoOthersTheirConnections(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	_, root := hook(t, func(http.ResponseWriter, *http.Request) {})
	serve := func() (address string, connections *atomic.Int64) {
		connections = &atomic.Int64{}
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				connections.Add(1)
			}
		}
		server.Start()
		t.Cleanup(server.Close)
		return server.URL, connections
	}
	invoke := func(tenant imprint.Tenant, name string) {
		t.Helper()
		_, err := h.Invoke(t.Context(), imprint.FunctionCall{Tenant: tenant, ARN: tenant.FunctionARN(imprint.FunctionName(name))})
		if err != nil {
			t.Fatal(err)
		}
	}
	stranger := imprint.Tenant{Account: "111111111111", Region: home.Region}
	used, ofUsed := serve()
	h.webhook("used", used, root, patience)
	once, ofOnce := serve()
	h.webhook("once", once, "\n"+root, patience)
	theirs, ofTheirs := serve()
	h.putZip("theirs", nil, func(f *imprint.Function) {
		f.Tenant, f.Runtime, f.Handler = stranger, functions.RuntimeWebhook, theirs
		f.Environment = map[string]string{functions.WebhookSecret: secret, functions.WebhookCA: root}
	})
	invoke(stranger, "theirs")
	invoke(home, "once")
	others, _ := serve()
	for n := range 110 {
		name := "f" + strconv.Itoa(n)
		h.webhook(name, others, strings.Repeat("\n", n+2)+root, patience)
		invoke(home, "used")
		invoke(home, name)
	}
	// Servers whose roots the system has: their accounts push nobody's clients out.
	plain, ofPlain := serve()
	h.webhook("plain", plain, "", patience)
	invoke(home, "plain")
	for n := range 101 {
		account := imprint.Tenant{Account: imprint.AccountID(fmt.Sprintf("2%011d", n)), Region: home.Region}
		h.putZip("other", nil, func(f *imprint.Function) {
			f.Tenant, f.Runtime, f.Handler = account, functions.RuntimeWebhook, others
			f.Environment = map[string]string{functions.WebhookSecret: secret}
		})
		invoke(account, "other")
	}
	invoke(home, "plain")
	if got := ofPlain.Load(); got != 1 {
		t.Errorf("the server without roots was connected to %d times, want once", got)
	}
	invoke(stranger, "theirs")
	invoke(home, "once")
	for name, got := range map[string]*atomic.Int64{"used": ofUsed, "theirs": ofTheirs} {
		if got.Load() != 1 {
			t.Errorf("webhook %s has had %d connections, want one", name, got.Load())
		}
	}
	if ofOnce.Load() != 2 {
		t.Errorf("the webhook that is used least has had %d connections, want two", ofOnce.Load())
	}
}
