package functions

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// maxPayload bounds events of synchronous calls and answers, as at AWS Lambda;
// maxErrorBody bounds what a runtime says about an error.
const (
	maxPayload   = 6 << 20
	maxErrorBody = 256 << 10
)

const runtimePrefix = "/2018-06-01/runtime/"

// ServeHTTP is the Runtime API for one process: next, response and error of an
// invocation, the error of an init; and of the Extensions API what a runtime
// needs to hear SIGTERM. All paths begin with the process's secret: the port alone
// lets nobody take its events or answer for it.
func (p *process) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secret, called, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if subtle.ConstantTimeCompare([]byte(secret), []byte(p.secret)) != 1 {
		refuse(w, http.StatusForbidden, "Forbidden", "The Runtime API is at AWS_LAMBDA_RUNTIME_API, with its path.")
		return
	}
	called = "/" + called
	path, isRuntime := strings.CutPrefix(called, runtimePrefix)
	switch {
	case isRuntime && path == "invocation/next" && r.Method == http.MethodGet:
		p.serveNext(w, r)
	case isRuntime && path == "init/error" && r.Method == http.MethodPost:
		p.serveInitError(w, r)
	case isRuntime && strings.HasPrefix(path, "invocation/") && r.Method == http.MethodPost:
		id, what, _ := strings.Cut(strings.TrimPrefix(path, "invocation/"), "/")
		switch what {
		case "response":
			p.serveResponse(w, r, id)
		case "error":
			p.serveError(w, r, id)
		default:
			refuse(w, http.StatusNotFound, "InvalidPath", "The Runtime API has no such path.")
		}
	case called == "/2020-01-01/extension/register" && r.Method == http.MethodPost:
		p.serveRegister(w, r)
	case called == "/2020-01-01/extension/event/next" && r.Method == http.MethodGet:
		// An extension without events hears nothing until the end.
		select {
		case <-p.ended:
		case <-r.Context().Done():
		}
	default:
		refuse(w, http.StatusNotFound, "InvalidPath", "The Runtime API has no such path.")
	}
}

// refuse answers with the Runtime API's form of errors.
func refuse(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The runtime may be gone; nobody is left to tell.
	_, _ = w.Write(errorObject(kind, "%s", message))
}

func accept(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"status":"OK"}`)
}

// serveNext makes the process ready and gives it its next event.
func (p *process) serveNext(w http.ResponseWriter, r *http.Request) {
	h := p.host
	h.mu.Lock()
	switch {
	case p.state == stateStarting:
		p.ready = true
		p.initTimer.Stop()
		p.pool.starting--
		h.offer(p, true)
	case p.state == stateBusy && p.current != nil && p.answered:
		p.current = nil
		p.runTimer.Stop()
		p.returnedLocked()
		h.offer(p, false)
	case p.state == stateBusy && p.current != nil && len(p.events) == 0:
		h.mu.Unlock()
		refuse(w, http.StatusForbidden, "InvalidStateTransition", "The invocation under way has no response yet.")
		return
	}
	h.mu.Unlock()
	select {
	case in := <-p.events:
		p.sendEvent(w, in)
	case <-p.ended:
	case <-r.Context().Done():
	}
}

func (p *process) sendEvent(w http.ResponseWriter, in *invocation) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(in.payload)))
	header.Set("Lambda-Runtime-Aws-Request-Id", in.id)
	header.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(in.deadline.UnixMilli(), 10))
	header.Set("Lambda-Runtime-Invoked-Function-Arn", in.arn)
	header.Set("Lambda-Runtime-Trace-Id", in.traceID)
	w.WriteHeader(http.StatusOK)
	// A runtime that is gone is noticed by its end, or by the time limit.
	_, _ = w.Write(in.payload)
}

// running gives the invocation of an id that waits for its answer, or refuses.
func (p *process) running(w http.ResponseWriter, id string) *invocation {
	p.host.mu.Lock()
	in, answered := p.current, p.answered
	p.host.mu.Unlock()
	switch {
	case in == nil || in.id != id:
		refuse(w, http.StatusBadRequest, "InvalidRequestID", "No invocation of this id is under way.")
	case answered:
		refuse(w, http.StatusForbidden, "InvalidStateTransition", "The invocation has ended.")
	default:
		return in
	}
	return nil
}

func (p *process) serveResponse(w http.ResponseWriter, r *http.Request, id string) {
	in := p.running(w, id)
	if in == nil {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPayload))
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		p.finish(in, outcome{kind: outcomeError, payload: errorObject("Function.ResponseSizeTooLarge",
			"Response payload size exceeded maximum allowed payload size (%d bytes).", maxPayload)})
		refuse(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", fmt.Sprintf("The response has more than %d bytes.", maxPayload))
		return
	}
	if err != nil {
		// The process ended in the middle, or will be judged by its time.
		refuse(w, http.StatusBadRequest, "InvalidRequest", "The response ended too early.")
		return
	}
	p.finish(in, answerOf(body, r.Trailer))
	accept(w)
}

// answerOf judges a response: a stream that broke says so in its trailers.
func answerOf(body []byte, trailer http.Header) outcome {
	if kind := trailer.Get("Lambda-Runtime-Function-Error-Type"); kind != "" {
		said, err := base64.StdEncoding.DecodeString(trailer.Get("Lambda-Runtime-Function-Error-Body"))
		if err != nil || !json.Valid(said) {
			said = errorObject(kind, "The response broke off.")
		}
		return outcome{kind: outcomeError, payload: said}
	}
	if len(body) == 0 {
		body = []byte("null")
	}
	if !json.Valid(body) {
		return outcome{kind: outcomeError, payload: errorObject("Runtime.InvalidResponse", "The function's response isn't JSON.")}
	}
	return outcome{kind: outcomeAnswer, payload: body}
}

func (p *process) finish(in *invocation, out outcome) {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	p.finishLocked(in, out)
}

func (p *process) serveError(w http.ResponseWriter, r *http.Request, id string) {
	in := p.running(w, id)
	if in == nil {
		return
	}
	said, ok := readErrorBody(w, r)
	if !ok {
		return
	}
	p.finish(in, outcome{kind: outcomeError, payload: said})
	accept(w)
}

func (p *process) serveInitError(w http.ResponseWriter, r *http.Request) {
	said, ok := readErrorBody(w, r)
	if !ok {
		return
	}
	p.host.mu.Lock()
	starting := p.state == stateStarting
	if starting {
		p.initError = said
	}
	p.host.mu.Unlock()
	if !starting {
		refuse(w, http.StatusForbidden, "InvalidStateTransition", "The runtime is past its init.")
		return
	}
	accept(w)
}

// readErrorBody gives the error object of a request, one of our own if it sends
// none.
func readErrorBody(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxErrorBody))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		body = errorObject("Function.ErrorSizeTooLarge", "The error has more than %d bytes.", maxErrorBody)
	case err != nil:
		refuse(w, http.StatusBadRequest, "InvalidRequest", "The request ended too early.")
		return nil, false
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(body, &object) != nil {
		kind := r.Header.Get("Lambda-Runtime-Function-Error-Type")
		if kind == "" || len(kind) > 128 {
			kind = "Runtime.Unknown"
		}
		body = errorObject(kind, "%s", strings.ToValidUTF8(string(body), "\uFFFD"))
	}
	return body, true
}

// serveRegister takes an extension without events: runtimes make one to hear
// SIGTERM before they end.
func (p *process) serveRegister(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Events []string `json:"events"`
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxErrorBody))
	if err == nil {
		err = json.Unmarshal(body, &in)
	}
	if err != nil || len(in.Events) > 0 || r.Header.Get("Lambda-Extension-Name") == "" {
		refuse(w, http.StatusBadRequest, "InvalidRequestFormat", "An extension here has a name and no events.")
		return
	}
	p.host.mu.Lock()
	p.terminates = true
	p.host.mu.Unlock()
	f := p.pool.function
	// Strings can always be encoded.
	said, _ := json.Marshal(map[string]string{"functionName": string(f.Name), "functionVersion": f.Version, "handler": f.Handler})
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Lambda-Extension-Identifier", uuid.NewString())
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(said)
}

func newRequestID() string { return uuid.NewString() }
