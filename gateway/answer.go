package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/time/rate"

	"github.com/imprint-iot/imprint"
)

// HTTPOutcome is what became of an HTTP request, for metrics.
type HTTPOutcome int

// The outcomes.
const (
	outcomeOK HTTPOutcome = iota
	outcomeInvalid
	outcomeForbidden
	outcomeThrottled
	outcomeUnavailable
	outcomeInternal
	httpOutcomes
)

// String names the outcome for a label.
func (o HTTPOutcome) String() string {
	return [...]string{"ok", "invalid", "forbidden", "throttled", "unavailable", "internal"}[o]
}

func outcomeOf(status int) HTTPOutcome {
	switch {
	case status < 400:
		return outcomeOK
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return outcomeForbidden
	case status == http.StatusTooManyRequests:
		return outcomeThrottled
	case status == http.StatusServiceUnavailable:
		return outcomeUnavailable
	case status >= 500:
		return outcomeInternal
	}
	return outcomeInvalid
}

func (w *web) count(o HTTPOutcome) { w.requests[o].Add(1) }

// statusError is a refusal whose HTTP status isn't the one of its code.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// statusOf gives the HTTP status of a refusal.
func statusOf(err error) int {
	var special *statusError
	if errors.As(err, &special) {
		return special.status
	}
	switch imprint.CodeOf(err) {
	case imprint.CodeHTTPRequest, imprint.CodeInvalidRequest, imprint.CodeTopicInvalid, imprint.CodeReservedTopic,
		imprint.CodeQoSNotSupported:
		return http.StatusBadRequest
	case imprint.CodePacketTooLarge:
		return http.StatusRequestEntityTooLarge
	case imprint.CodePublishRate, imprint.CodeRetainedQuota, imprint.CodeThrottled, imprint.CodeQuotaExceeded:
		return http.StatusTooManyRequests
	case imprint.CodeUnavailable, imprint.CodeOverloaded, imprint.CodeRulesBusy, imprint.CodeServerShutdown:
		return http.StatusServiceUnavailable
	case imprint.CodeInternal:
		return http.StatusInternalServerError
	}
	return http.StatusForbidden
}

// messageOf is what the device reads: who is refused learns nothing of the
// policies, which the trace explains.
func messageOf(err error, status int) string {
	switch {
	case imprint.CodeOf(err) == imprint.CodeNoClientCertificate:
		return "Missing authentication token"
	case status == http.StatusForbidden:
		return "Forbidden"
	}
	return imprint.MessageOf(err)
}

// refuse answers a request with an error and records it.
func (w *web) refuse(rw http.ResponseWriter, conn *webConn, step string, err error) {
	status := statusOf(err)
	w.count(outcomeOf(status))
	conn.refused++
	conn.last = imprint.CodeOf(err)
	conn.rec.FailWith(step, err, fmt.Sprintf("sent HTTP %d (%s)", status, http.StatusText(status)))
	if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
		rw.Header().Set("Connection", "close")
	}
	w.answer(rw, conn.rec.ID(), status, messageOf(err, status))
}

// answer writes the JSON body that AWS IoT Core's HTTPS endpoint writes. The
// trace id is the attempt's id in the form of a UUID.
func (w *web) answer(rw http.ResponseWriter, attempt string, status int, message string) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	// The client may be gone; nobody is left to tell.
	_, _ = rw.Write(w.answerBody(attempt, message))
}

func (w *web) answerBody(attempt, message string) []byte {
	body, err := json.Marshal(struct {
		Message string `json:"message"`
		TraceID string `json:"traceId"`
	}{message, traceID(attempt)})
	if err != nil {
		w.gateway.opts.Logger.Error("couldn't encode an answer", "error", err)
		return []byte("{}")
	}
	return body
}

// refuseUnreadable is refuse for what net/http can't read as a request, and answers
// itself. Its status stays.
func (w *web) refuseUnreadable(conn *webConn, answer []byte) error {
	line, _, _ := strings.Cut(string(answer), "\r\n")
	_, line, _ = strings.Cut(line, " ")
	number, _, _ := strings.Cut(line, " ")
	status, err := strconv.Atoi(number)
	if err != nil {
		status = http.StatusBadRequest
	}
	refusal := imprint.Errorf(imprint.CodeHTTPRequest, "what came can't be read as an HTTP request (%s)", line)
	if status == http.StatusBadRequest {
		refusal = refusal.WithHint("Look for a %% in the path that no two hexadecimal digits follow (%%25 is a %%), and for the Host header; docs/http.md has the whole form.")
	}
	w.count(outcomeInvalid)
	conn.refused++
	conn.last = imprint.CodeHTTPRequest
	conn.rec.Fail("http.request", refusal)
	body := w.answerBody(conn.rec.ID(), messageOf(refusal, status))
	_, err = fmt.Fprintf(conn.Conn, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), len(body), body)
	return err
}

// traceID puts an attempt's id into the form of a UUID.
func traceID(id string) string {
	if len(id) != 32 {
		return id
	}
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
}

// publishRates bound the messages a second of each certificate.
type publishRates struct {
	perSecond int // negative: no bound
	mu        sync.Mutex
	buckets   map[rateKey]*rate.Limiter
}

type rateKey struct {
	tenant imprint.Tenant
	id     imprint.CertificateID
}

// maxPublishRates bounds the memory of rates; beyond it any one begins anew.
const maxPublishRates = 20_000

func newPublishRates(perSecond int) *publishRates {
	return &publishRates{perSecond: perSecond, buckets: map[rateKey]*rate.Limiter{}}
}

func (r *publishRates) allow(key rateKey) bool {
	if r.perSecond < 0 {
		return true
	}
	r.mu.Lock()
	bucket := r.buckets[key]
	if bucket == nil {
		if len(r.buckets) >= maxPublishRates {
			for old := range r.buckets {
				delete(r.buckets, old)
				break
			}
		}
		bucket = rate.NewLimiter(rate.Limit(r.perSecond), r.perSecond)
		r.buckets[key] = bucket
	}
	r.mu.Unlock()
	return bucket.Allow()
}
