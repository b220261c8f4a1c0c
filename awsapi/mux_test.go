package awsapi_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/restjson"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

type pingInput struct {
	Name  string  `api:"path name Name required"`
	Count *int    `api:"query count Any"`
	Note  *string `api:"body note Any"`
}

type pingOutput struct {
	Name string `api:"body name Any"`
}

type greedyInput struct {
	Rest string `api:"path rest Any required"`
}

var (
	codec = restjson.New(restjson.Shapes{"Name": {Limits: restjson.AtMost(20)}}, "InvalidRequestException")
	ping  = awsapi.Define[pingInput, pingOutput](codec, awsapi.Operation{Name: "Ping", Method: "POST", Path: "/pings/{name}",
		Action: "test:Ping", Resource: "arn:{partition}:test:{region}:{account}:ping/{name}"})
	special = awsapi.Define[struct{}, pingOutput](codec, awsapi.Operation{Name: "Special", Method: "POST", Path: "/pings/special", Resource: "*"})
	greedy  = awsapi.Define[greedyInput, pingOutput](codec, awsapi.Operation{Name: "Greedy", Method: "GET", Path: "/rest/{rest+}", Resource: "*"})
	deeper  = awsapi.Define[pingInput, pingOutput](codec, awsapi.Operation{Name: "Deeper", Method: "POST", Path: "/pings/{name}/more/", Resource: "*"})
	missing = awsapi.Define[pingInput, pingOutput](codec, awsapi.Operation{Name: "Missing", Method: "GET", Path: "/pings/{name}", Resource: "*"})
)

func operations() []awsapi.Operation {
	return []awsapi.Operation{ping.Operation, special.Operation, greedy.Operation, deeper.Operation, missing.Operation}
}

func echo(_ context.Context, _ awsapi.Caller, in *pingInput) (*pingOutput, error) {
	return &pingOutput{Name: in.Name}, nil
}

type oneKey struct{}

func (oneKey) AccessKey(_ context.Context, id string) (sigv4.AccessKey, error) {
	if id != "AKIDEXAMPLE" {
		return sigv4.AccessKey{}, sigv4.ErrUnknownKey
	}
	return sigv4.AccessKey{ID: id, Secret: "secret", Account: "123456789012", PrincipalARN: "arn:aws:iam::123456789012:user/u"}, nil
}

var now = time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)

func newMux(t *testing.T, change func(*awsapi.Config), routes ...awsapi.Route) *awsapi.Mux {
	t.Helper()
	verifier, err := sigv4.New(sigv4.Config{Keys: oneKey{}, Services: []string{"iot"}, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	config := awsapi.Config{Verifier: verifier, NewRequestID: func() string { return "request-1" }, Now: func() time.Time { return now }}
	if change != nil {
		change(&config)
	}
	mux, err := awsapi.NewMux(config, operations(), routes)
	if err != nil {
		t.Fatal(err)
	}
	return mux
}

// send signs a request and gives the answer.
func send(t *testing.T, mux *awsapi.Mux, method, target, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "api.example.com"
	r.RemoteAddr = "192.0.2.7:4711"
	hash := sha256.Sum256([]byte(body))
	err := v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"},
		r, hex.EncodeToString(hash[:]), "iot", "cn-north-1", now)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

func wantError(t *testing.T, w *httptest.ResponseRecorder, status int, code, message string) {
	t.Helper()
	var body struct{ Message string }
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("the body %q isn't JSON: %v", w.Body, err)
	}
	if w.Code != status || w.Header().Get("x-amzn-ErrorType") != code || !strings.Contains(body.Message, message) {
		t.Errorf("got %d %s %q, want %d %s %q", w.Code, w.Header().Get("x-amzn-ErrorType"), body.Message, status, code, message)
	}
	if got := w.Header().Get("x-amzn-RequestId"); got != "request-1" {
		t.Errorf("got the request id %q, want request-1", got)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("got the content type %q, want application/json", got)
	}
}

func TestRoutingLooksAtTheWirePath(t *testing.T) {
	t.Parallel()
	mux := newMux(t, nil,
		awsapi.Handle(ping, echo),
		awsapi.Handle(deeper, echo),
		awsapi.Handle(special, func(context.Context, awsapi.Caller, *struct{}) (*pingOutput, error) {
			return &pingOutput{Name: "literal"}, nil
		}),
		awsapi.Handle(greedy, func(_ context.Context, _ awsapi.Caller, in *greedyInput) (*pingOutput, error) {
			return &pingOutput{Name: in.Rest}, nil
		}),
	)
	tests := []struct{ method, target, want string }{
		{"POST", "/pings/a", "a"},
		{"POST", "/pings/special", "literal"},
		{"POST", "/pings/s%70ecial", "special"}, // the wire form isn't the literal
		{"POST", "/pings/a%2Fb%3Ac", "a/b:c"},
		{"POST", "/pings/a%252Fb", "a%2Fb"}, // unescaped once
		{"POST", "/pings/a+b", "a+b"},
		{"POST", "/pings/..", ".."},
		{"POST", "/pings/special/more/", "special"}, // a literal that leads nowhere gives way
		{"POST", "/pings/a/more", "a"},              // the SDK for Go leaves the last slash out
		{"GET", "/rest/a", "a"},
		{"GET", "/rest/a/b/c/d/e", "a/b/c/d/e"},
		{"GET", "/rest/arn%3Aaws/x//y/", "arn:aws/x//y/"},
		{"POST", "/pings/", ""},
		{"POST", "/pings", ""},
		{"POST", "//pings/a", ""},
		{"POST", "/x/../pings/a", ""},
		{"POST", "/pings/a/", ""},
		{"POST", "/pings/a//", ""},
		{"GET", "/rest/", ""},
		{"PUT", "/pings/a", ""},
		{"HEAD", "/pings/a", ""},
		{"GET", "/rest/" + strings.Repeat("a", 8<<10), ""},
	}
	for _, tt := range tests {
		w := send(t, mux, tt.method, tt.target, "")
		if tt.want == "" {
			wantError(t, w, 404, "UnknownOperationException", "No operation")
			continue
		}
		var got struct{ Name string }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
			t.Errorf("%s %s: got %d %s", tt.method, tt.target, w.Code, w.Body)
		}
		if got.Name != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.method, tt.target, got.Name, tt.want)
		}
	}
}

func TestTheRestOfAPathMayBeginWithASlash(t *testing.T) {
	t.Parallel()
	mux := newMux(t, func(c *awsapi.Config) { c.MethodNotAllowed = "MethodNotAllowedException" },
		awsapi.Handle(greedy, func(_ context.Context, _ awsapi.Caller, in *greedyInput) (*pingOutput, error) {
			return &pingOutput{Name: in.Rest}, nil
		}))
	for target, want := range map[string]string{"/rest//a": "/a", "/rest//": "/", "/rest/a//b/": "a//b/", "/rest/%2Fa": "/a"} {
		if w := send(t, mux, "GET", target, ""); w.Code != http.StatusOK || w.Body.String() != `{"name":"`+want+`"}` {
			t.Errorf("%s: got %d %s, want the rest %q", target, w.Code, w.Body, want)
		}
	}
	wantError(t, send(t, mux, "GET", "/rest/", ""), http.StatusNotFound, awsapi.CodeUnknownOperation, "")
	wantError(t, send(t, mux, "DELETE", "/rest/a", ""), http.StatusMethodNotAllowed, "MethodNotAllowedException", "DELETE")
	wantError(t, send(t, mux, "DELETE", "/elsewhere", ""), http.StatusNotFound, awsapi.CodeUnknownOperation, "")
}

func TestTheFunctionGetsTheCaller(t *testing.T) {
	t.Parallel()
	var got awsapi.Caller
	mux := newMux(t, nil, awsapi.Handle(ping, func(_ context.Context, caller awsapi.Caller, _ *pingInput) (*pingOutput, error) {
		got = caller
		return nil, nil
	}))
	w := send(t, mux, "POST", "/pings/a", "{}")
	if w.Code != 200 || w.Body.String() != "{}" {
		t.Errorf("got %d %s, want 200 {}", w.Code, w.Body)
	}
	want := awsapi.Caller{Account: "123456789012", Region: "cn-north-1", AccessKeyID: "AKIDEXAMPLE",
		PrincipalARN: "arn:aws:iam::123456789012:user/u", RequestID: "request-1", SourceIP: "192.0.2.7"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestErrorsGetTheirWireForm(t *testing.T) {
	t.Parallel()
	errDomain := errors.New("no such thing")
	translate := func(c *awsapi.Config) {
		c.Translate = func(err error) awsapi.APIError {
			switch {
			case errors.Is(err, errDomain):
				return awsapi.APIError{Code: "ResourceAlreadyExistsException", Status: 409, Message: err.Error(),
					Extra: map[string]string{"resourceId": "id", "resourceArn": ""}}
			case err.Error() == "translate panics":
				panic(err)
			}
			return awsapi.APIError{}
		}
	}
	tests := []struct {
		name    string
		config  func(*awsapi.Config)
		err     error
		status  int
		code    string
		message string
	}{
		{"domain error", translate, fmt.Errorf("wrapped: %w", errDomain), 409, "ResourceAlreadyExistsException", "wrapped: no such thing"},
		{"error that nothing translates", translate, errors.New("disk on fire"), 500, "InternalFailureException", "An internal error occurred."},
		{"no translation", nil, errDomain, 500, "InternalFailureException", "An internal error occurred."},
		{"translation that panics", translate, errors.New("translate panics"), 500, "InternalFailureException", "An internal error occurred."},
		{"finished error", translate, fmt.Errorf("x: %w", &awsapi.APIError{Code: "SqlParseException", Status: 400, Message: "line 1"}), 400, "SqlParseException", "line 1"},
		{"status that isn't an error's", nil, &awsapi.APIError{Code: "Odd", Status: 200}, 500, "Odd", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			mux := newMux(t, tt.config, awsapi.Handle(ping, func(context.Context, awsapi.Caller, *pingInput) (*pingOutput, error) {
				return nil, tt.err
			}))
			w := send(t, mux, "POST", "/pings/a", "")
			wantError(t, w, tt.status, tt.code, tt.message)
			if strings.Contains(w.Body.String(), "fire") {
				t.Errorf("the cause of an internal error is sent: %s", w.Body)
			}
			if tt.name == "domain error" && w.Body.String() != `{"message":"wrapped: no such thing","resourceId":"id"}` {
				t.Errorf("got the body %s", w.Body)
			}
		})
	}
}

func TestTheDoorsOwnRefusals(t *testing.T) {
	t.Parallel()
	deny := func(c *awsapi.Config) {
		c.Authorize = func(_ context.Context, _ awsapi.Caller, ask awsapi.Ask) error {
			return &awsapi.APIError{Code: "AccessDeniedException", Status: 403, Message: ask.Action + " on " + ask.Resource}
		}
	}
	route := awsapi.Handle(ping, echo)
	tests := []struct {
		name, method, target, body string
		config                     func(*awsapi.Config)
		status                     int
		code, message              string
	}{
		{"operation without function", "GET", "/pings/a", "", nil, 501, "NotImplementedException", "does not offer the operation Missing"},
		{"broken constraint", "POST", "/pings/" + strings.Repeat("a", 21), "", nil, 400, "InvalidRequestException", "at 'name'"},
		{"malformed body", "POST", "/pings/a", "{", nil, 400, "SerializationException", "valid JSON"},
		{"action refused", "POST", "/pings/a%2Fb", "", deny, 403, "AccessDeniedException", "test:Ping on arn:aws-cn:test:cn-north-1:123456789012:ping/a/b"},
		{"constraints come before the decision", "POST", "/pings/a?count=x", "", deny, 400, "InvalidRequestException", "count"},
		{"too many requests", "POST", "/pings/a", "", func(c *awsapi.Config) {
			c.Allow = func(caller awsapi.Caller, operation string) bool { return caller.Account == "" || operation != "Ping" }
		}, 400, "ThrottlingException", "Rate exceeded"},
		{"body over the limit", "POST", "/pings/a", strings.Repeat(" ", 101), func(c *awsapi.Config) { c.MaxBody = 100 }, 413, "RequestEntityTooLargeException", "more than 100 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			wantError(t, send(t, newMux(t, tt.config, route), tt.method, tt.target, tt.body), tt.status, tt.code, tt.message)
		})
	}
}

func TestHandleForNamesItsOwnResource(t *testing.T) {
	t.Parallel()
	var got string
	mux := newMux(t, func(c *awsapi.Config) {
		c.Authorize = func(_ context.Context, _ awsapi.Caller, ask awsapi.Ask) error {
			got = ask.Resource
			return nil
		}
	}, awsapi.HandleFor(ping, func(caller awsapi.Caller, in *pingInput) string { return caller.Region + "/" + *in.Note }, echo))
	if w := send(t, mux, "POST", "/pings/a", `{"note":"n"}`); w.Code != 200 {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	if want := "cn-north-1/n"; got != want {
		t.Errorf("got the resource %q, want %q", got, want)
	}
}

// endless is a body without a known length that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte{' '}, len(p))), nil }

func TestABodyOfUnknownLengthIsBounded(t *testing.T) {
	t.Parallel()
	mux := newMux(t, nil, awsapi.Handle(ping, echo))
	r := httptest.NewRequest("POST", "/pings/a", endless{})
	r.Host = "api.example.com"
	r.ContentLength = -1
	if err := v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"},
		r, strings.Repeat("0", 64), "iot", "us-east-1", now); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	wantError(t, w, 413, "RequestEntityTooLargeException", "524288 bytes")
}

// TestATooLargeBodyIsToldToThoseWhoSendItWhole ensures that a client which looks at
// the answer only when it has sent all finds the refusal, and no broken connection.
func TestATooLargeBodyIsToldToThoseWhoSendItWhole(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(newMux(t, nil, awsapi.Handle(ping, echo)))
	defer server.Close()
	const size = 16 << 20
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("length known %t", known), func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/pings/a", io.LimitReader(endless{}, size))
			if err != nil {
				t.Fatal(err)
			}
			r.ContentLength = -1
			if known {
				r.ContentLength = size
			}
			err = v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"},
				r, strings.Repeat("0", 64), "iot", "us-east-1", now)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			err = r.Write(conn)
			if err != nil {
				t.Fatalf("the connection broke while the body was sent: %v", err)
			}
			answer, err := http.ReadResponse(bufio.NewReader(conn), r)
			if err != nil {
				t.Fatalf("there is no answer: %v", err)
			}
			defer func() { _ = answer.Body.Close() }()
			if answer.StatusCode != http.StatusRequestEntityTooLarge || answer.Header.Get("X-Amzn-ErrorType") != "RequestEntityTooLargeException" {
				t.Errorf("got %s with %v, want 413", answer.Status, answer.Header)
			}
		})
	}
}

func TestAnUnsignedRequestsBodyIsNotRead(t *testing.T) {
	t.Parallel()
	body := &countingReader{}
	r := httptest.NewRequest("POST", "/pings/a", body)
	w := httptest.NewRecorder()
	newMux(t, nil).ServeHTTP(w, r)
	wantError(t, w, 403, "MissingAuthenticationTokenException", "no Authorization header")
	if body.reads != 0 {
		t.Errorf("the body was read %d times, want 0", body.reads)
	}
}

type countingReader struct{ reads int }

func (c *countingReader) Read([]byte) (int, error) { c.reads++; return 0, io.EOF }

func TestAPanicBecomesAnInternalFailureThatIsObserved(t *testing.T) {
	t.Parallel()
	var seen []awsapi.Access
	mux := newMux(t, func(c *awsapi.Config) { c.Observe = func(a awsapi.Access) { seen = append(seen, a) } },
		awsapi.Handle(ping, func(context.Context, awsapi.Caller, *pingInput) (*pingOutput, error) { panic("secret reason") }))
	w := send(t, mux, "POST", "/pings/a%20b", "{}")
	wantError(t, w, 500, "InternalFailureException", "An internal error occurred.")
	if strings.Contains(w.Body.String(), "secret") {
		t.Errorf("the reason of a panic is sent: %s", w.Body)
	}
	if len(seen) != 1 {
		t.Fatalf("observed %d requests, want 1", len(seen))
	}
	got := seen[0]
	if got.Err == nil || !strings.Contains(got.Err.Error(), "secret reason") || !strings.Contains(got.Err.Error(), "mux_test.go") {
		t.Errorf("got the error %v, want the panic and its stack", got.Err)
	}
	got.Err, got.Caller = nil, awsapi.Caller{}
	want := awsapi.Access{RequestID: "request-1", Method: "POST", Path: "/pings/a%20b", Operation: "Ping",
		Status: 500, Code: "InternalFailureException", BytesIn: 2, BytesOut: w.Body.Len()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNewMuxRefusesTablesThatContradictThemselves(t *testing.T) {
	t.Parallel()
	verifier, err := sigv4.New(sigv4.Config{Keys: oneKey{}, Services: []string{"iot"}})
	if err != nil {
		t.Fatal(err)
	}
	twin := ping.Operation
	twin.Name = "Twin"
	foreign := awsapi.Define[pingInput, pingOutput](codec, twin)
	tests := []struct {
		name       string
		config     awsapi.Config
		operations []awsapi.Operation
		routes     []awsapi.Route
	}{
		{"no verifier", awsapi.Config{}, operations(), nil},
		{"one path for two operations", awsapi.Config{Verifier: verifier}, append(operations(), twin), nil},
		{"one operation twice", awsapi.Config{Verifier: verifier}, append(operations(), ping.Operation), nil},
		{"route of another API", awsapi.Config{Verifier: verifier}, operations(), []awsapi.Route{awsapi.Handle(foreign, echo)}},
		{"two routes of one operation", awsapi.Config{Verifier: verifier}, operations(), []awsapi.Route{awsapi.Handle(ping, echo), awsapi.Handle(ping, echo)}},
		{"route without function", awsapi.Config{Verifier: verifier}, operations(), []awsapi.Route{awsapi.Handle[pingInput, pingOutput](ping, nil)}},
		{"empty route", awsapi.Config{Verifier: verifier}, operations(), []awsapi.Route{{}}},
		{"greedy label in the middle", awsapi.Config{Verifier: verifier}, []awsapi.Operation{{Name: "X", Method: "GET", Path: "/{a+}/b"}}, nil},
		{"path without slash", awsapi.Config{Verifier: verifier}, []awsapi.Operation{{Name: "X", Method: "GET", Path: "a"}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := awsapi.NewMux(tt.config, tt.operations, tt.routes); err == nil {
				t.Error("got no error")
			}
		})
	}
}

// Whatever comes, the door answers with a request id, JSON and a status that it
// documents.
func FuzzServeHTTP(f *testing.F) {
	f.Add("GET", "/pings/a?x=%zz", "AWS4-HMAC-SHA256 Credential=a/b", "{}")
	f.Add("POST", "//pings/%2F", "", "")
	f.Add("GET", "/rest/%", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20240102/us-east-1/iot/aws4_request, SignedHeaders=host;x-amz-date, Signature="+strings.Repeat("0", 64), "")
	verifier, err := sigv4.New(sigv4.Config{Keys: oneKey{}, Services: []string{"iot"}, Now: func() time.Time { return now }})
	if err != nil {
		f.Fatal(err)
	}
	mux, err := awsapi.NewMux(awsapi.Config{Verifier: verifier}, operations(), []awsapi.Route{awsapi.Handle(ping, echo)})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, target, authorization, body string) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Method, r.RequestURI = method, target
		_, r.URL.RawQuery, _ = strings.Cut(target, "?")
		r.Header["Authorization"] = []string{authorization}
		r.Header.Set("X-Amz-Date", "20240102T030405Z")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		if w.Code != 403 && w.Code != 404 {
			t.Errorf("got %d %s, want 403 or 404", w.Code, w.Body)
		}
		if !json.Valid(w.Body.Bytes()) || w.Header().Get("x-amzn-RequestId") == "" || w.Header().Get("x-amzn-ErrorType") == "" {
			t.Errorf("got %s with %v", w.Body, w.Header())
		}
	})
}

var _ http.Handler = (*awsapi.Mux)(nil)
