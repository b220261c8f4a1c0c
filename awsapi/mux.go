package awsapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/restjson"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

// Config says how a Mux works.
type Config struct {
	// Verifier checks signatures. Required.
	Verifier *sigv4.Verifier
	// Translate gives the outward form of the errors of functions, of Authorize
	// and of the Verifier's KeySource. Nil, or a result without Code, means
	// InternalFailureException.
	Translate func(error) APIError
	// Authorize decides whether a caller may do what an Ask says, whose Action is set.
	// Nil allows everything.
	Authorize func(ctx context.Context, caller Caller, ask Ask) error
	// Allow decides whether a caller may make one more request for an operation
	// now. Nil means always.
	Allow func(caller Caller, operation string) bool
	// Observe is told of each request after its response was written. Nil means
	// nobody is.
	Observe func(Access)
	// MaxBody bounds a request's body in bytes. Zero means 512 KiB.
	MaxBody int64
	// BodyTime bounds how long a body of more than 64 KiB may take in all. Zero means 30
	// seconds.
	BodyTime time.Duration
	// Bodies bound what is read of all bodies before it is known who sends them. The APIs
	// of a server share one. Nil means bounds of this API's own.
	Bodies *Bodies
	// TooLarge is the code of the refusal of a larger one, with status 413. Empty
	// means RequestEntityTooLargeException.
	TooLarge string
	// ThrottlingStatus is the status of a ThrottlingException. Zero means 400, as
	// in the AWS IoT control plane.
	ThrottlingStatus int
	// MethodNotAllowed is the code of the refusal, with status 405, of a method
	// that no operation of the path has. Empty means that it is
	// UnknownOperationException, as for other paths.
	MethodNotAllowed string
	// Target makes it an API of the protocol JSON 1.1: every request is POST / with the
	// header X-Amz-Target: Target.Operation. Paths and methods of operations mean nothing.
	Target string
	// NewRequestID makes request ids. Nil means random UUIDs.
	NewRequestID func() string
	// SourceIP gives a caller's address. Nil means the connection's.
	SourceIP func(*http.Request) string
	// Now is the clock behind Access.Duration. Nil means time.Now.
	Now func() time.Time
}

// Access is what happened to one request.
type Access struct {
	RequestID string
	Method    string
	Path      string // as it came over the wire
	Operation string // empty when none was found
	Caller    Caller // Account is empty when the signature wasn't good
	Status    int
	Code      string // of the error; empty when there was none
	Duration  time.Duration
	BytesIn   int // of the body
	BytesOut  int // of the body
	// Err is the error behind the response, for logs: it may hold what the
	// caller mustn't see, such as the cause of an internal error or, as
	// sigv4.Error.Detail, the canonical request.
	Err error
}

// Mux answers the requests of an API. It is an http.Handler, safe for
// concurrent use, and must get requests with their path untouched: not behind
// an http.ServeMux or http.StripPrefix.
type Mux struct {
	config     Config
	router     *router               // nil with Config.Target
	targets    map[string]*Operation // by name, with Config.Target
	operations []Operation
	routes     map[string]Route
}

// NewMux makes a Mux that knows the operations and answers those that have a
// Route; the others are 501 NotImplementedException.
func NewMux(config Config, operations []Operation, routes []Route) (*Mux, error) {
	if config.Verifier == nil {
		return nil, errors.New("couldn't make an API: its Config has no Verifier")
	}
	m := &Mux{config: withDefaults(config), operations: slices.Clone(operations), routes: make(map[string]Route)}
	var err error
	if config.Target == "" {
		m.router, err = newRouter(m.operations)
	} else {
		m.targets, err = byName(m.operations)
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't make an API: %w", err)
	}
	for _, route := range routes {
		if err := m.add(route); err != nil {
			return nil, fmt.Errorf("couldn't make an API: %w", err)
		}
	}
	return m, nil
}

func (m *Mux) add(route Route) error {
	if err := route.check(); err != nil {
		return err
	}
	name := route.operation.Name
	if !slices.Contains(m.operations, route.operation) {
		return fmt.Errorf("the operation %s isn't one of this API", name)
	}
	if _, twice := m.routes[name]; twice {
		return fmt.Errorf("the operation %s has two routes", name)
	}
	m.routes[name] = route
	return nil
}

func withDefaults(config Config) Config {
	if config.MaxBody <= 0 {
		config.MaxBody = 512 << 10
	}
	if config.BodyTime <= 0 {
		config.BodyTime = 30 * time.Second
	}
	if config.Bodies == nil {
		config.Bodies = NewBodies(BodyLimits{})
	}
	if config.TooLarge == "" {
		config.TooLarge = CodeTooLarge
	}
	if config.ThrottlingStatus == 0 {
		config.ThrottlingStatus = http.StatusBadRequest
	}
	if config.NewRequestID == nil {
		config.NewRequestID = uuid.NewString
	}
	if config.SourceIP == nil {
		config.SourceIP = remoteIP
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Authorize == nil {
		config.Authorize = func(context.Context, Caller, Ask) error { return nil }
	}
	if config.Allow == nil {
		config.Allow = func(Caller, string) bool { return true }
	}
	if config.Observe == nil {
		config.Observe = func(Access) {}
	}
	return config
}

func remoteIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// OperationOf gives the name of the operation that a method and wire path
// belong to, and whether it is offered. The name is empty when there is none.
func (m *Mux) OperationOf(method, path string) (name string, offered bool) {
	var op *Operation
	if m.router != nil {
		op = m.router.find(method, path)
	}
	if op == nil {
		return "", false
	}
	_, offered = m.routes[op.Name]
	return op.Name, offered
}

// ServeHTTP answers one request.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := m.config.Now()
	access := Access{RequestID: m.config.NewRequestID(), Method: r.Method, Path: sigv4.EscapedPath(r)}
	answer, err := m.answer(w, r, &access)
	body := answer.Body
	if err != nil {
		body = m.fail(w, err, &access)
	} else {
		access.Status = max(answer.Status, http.StatusOK)
	}
	if access.Status == http.StatusNoContent {
		body = nil
	}
	access.BytesOut = len(body)
	header := w.Header()
	header.Set("X-Amzn-RequestId", access.RequestID)
	header.Set("Content-Type", m.contentType())
	if err == nil {
		maps.Copy(header, answer.Header)
	}
	w.WriteHeader(access.Status)
	_, writeErr := w.Write(body)
	if err == nil && writeErr != nil {
		err = fmt.Errorf("couldn't write the response: %w", writeErr)
	}
	access.Err = err
	access.Duration = m.config.Now().Sub(start)
	m.config.Observe(access)
}

// fail sets status and headers of an error and gives its body.
func (m *Mux) fail(w http.ResponseWriter, err error, access *Access) []byte {
	api := m.toAPIError(err)
	if m.targets != nil {
		api.Extra = maps.Clone(api.Extra)
		if api.Extra == nil {
			api.Extra = map[string]string{}
		}
		api.Extra["__type"] = api.Code
	}
	body, encodeErr := api.body()
	if encodeErr != nil {
		body = []byte(`{}`)
	}
	access.Status, access.Code = api.Status, api.Code
	w.Header().Set("X-Amzn-ErrorType", api.Code)
	if api.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(api.RetryAfter.Seconds())))
	}
	return body
}

// panicError is a panic of a function, with its stack.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.value, e.stack) }

// answer gives a success. A panic on the way becomes an error.
func (m *Mux) answer(w http.ResponseWriter, r *http.Request, access *Access) (answer Answer, err error) {
	defer func() {
		if value := recover(); value != nil {
			answer, err = Answer{}, &panicError{value, debug.Stack()}
		}
	}()
	op := m.find(r, access.Path)
	if op == nil {
		return Answer{}, m.unknown(r.Method, access.Path)
	}
	access.Operation = op.Name
	data, caller, err := m.authenticate(w, r, access, op)
	if err != nil {
		return Answer{}, err
	}
	access.Caller = caller
	if !m.config.Allow(caller, op.Name) {
		return Answer{}, &APIError{Code: CodeThrottling, Status: m.config.ThrottlingStatus, Message: "Rate exceeded"}
	}
	route, ok := m.routes[op.Name]
	if !ok {
		return Answer{}, &APIError{Code: CodeNotImplemented, Status: http.StatusNotImplemented,
			Message: "This build of Imprint does not offer the operation " + op.Name + "."}
	}
	source, err := sourceOf(r, op, access.Path, data)
	if err != nil {
		return Answer{}, err
	}
	answer, err = route.serve(context.WithValue(r.Context(), callerKey{}, caller), call{caller: caller, source: source,
		authorize: func(ctx context.Context, ask Ask) error {
			if ask.Action == "" {
				ask.Action = op.Action
			}
			return m.config.Authorize(ctx, caller, ask)
		}})
	if answer.Status == 0 {
		answer.Status = op.Status
	}
	return answer, err
}

// find gives the operation of a request; nil: there is none.
func (m *Mux) find(r *http.Request, path string) *Operation {
	if m.targets == nil {
		return m.router.find(r.Method, path)
	}
	service, name, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	if r.Method != http.MethodPost || path != "/" || service != m.config.Target {
		return nil
	}
	return m.targets[name]
}

func (m *Mux) contentType() string {
	if m.targets != nil {
		return "application/x-amz-json-1.1"
	}
	return "application/json"
}

func byName(operations []Operation) (map[string]*Operation, error) {
	all := make(map[string]*Operation, len(operations))
	for i := range operations {
		if all[operations[i].Name] != nil {
			return nil, fmt.Errorf("the operation %s is there twice", operations[i].Name)
		}
		all[operations[i].Name] = &operations[i]
	}
	return all, nil
}

// unknown is the refusal of a request that no operation answers.
func (m *Mux) unknown(method, path string) error {
	if m.targets != nil {
		return &APIError{Code: CodeUnknownOperation, Status: http.StatusBadRequest, Message: "No operation has this target."}
	}
	if m.config.MethodNotAllowed != "" && m.router.knows(path) {
		return &APIError{Code: m.config.MethodNotAllowed, Status: http.StatusMethodNotAllowed,
			Message: "No operation of this path has the method " + strconv.Quote(method) + "."}
	}
	return &APIError{Code: CodeUnknownOperation, Status: http.StatusNotFound,
		Message: fmt.Sprintf("No operation has the method %s and the path %s: this server doesn't offer it.", imprint.Excerpt(method), imprint.Excerpt(path))}
}

// authenticate reads the body and gives it with the caller.
func (m *Mux) authenticate(w http.ResponseWriter, r *http.Request, access *Access, op *Operation) ([]byte, Caller, error) {
	claim, err := m.config.Verifier.Parse(r)
	if err != nil {
		return nil, Caller{}, err
	}
	body, done, err := m.readBody(w, r, op, func() error { return m.config.Verifier.Known(r.Context(), claim) })
	defer done()
	if err != nil {
		return nil, Caller{}, err
	}
	access.BytesIn = len(body)
	identity, err := m.config.Verifier.Verify(r.Context(), claim, r, body)
	if err != nil {
		return nil, Caller{}, err
	}
	return body, Caller{
		Account:      identity.Key.Account,
		Region:       identity.Region,
		AccessKeyID:  identity.Key.ID,
		PrincipalARN: identity.Key.PrincipalARN,
		RequestID:    access.RequestID,
		SourceIP:     m.config.SourceIP(r),
	}, nil
}

func sourceOf(r *http.Request, op *Operation, path string, body []byte) (restjson.Source, error) {
	found, err := labels(op, path)
	if err != nil {
		return restjson.Source{}, err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return restjson.Source{}, &APIError{Code: CodeSerialization, Status: http.StatusBadRequest,
			Message: "The query string isn't well formed: " + strings.TrimPrefix(err.Error(), "invalid ") + "."}
	}
	return restjson.Source{Path: found, Query: query, Header: r.Header, Body: body}, nil
}
