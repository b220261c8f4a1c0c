package functions

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/outward"
)

// The variables of a webhook's environment.
const (
	// WebhookSecret signs requests. Required, 16 characters at least.
	WebhookSecret = "IMPRINT_WEBHOOK_SECRET"
	// WebhookCA has the PEM of the roots that verify the webhook's server.
	WebhookCA = "IMPRINT_WEBHOOK_CA"
)

const minSecret = 16

// The headers of a webhook's request.
const (
	headerRequestID = "Imprint-Request-Id"
	headerARN       = "Imprint-Function-Arn"
	headerSource    = "Imprint-Source-Arn"
	headerTimestamp = "Imprint-Timestamp"
	headerSignature = "Imprint-Signature"
)

// SignWebhook gives the signature of a webhook's request: "v1=" and the lowercase
// hex of HMAC-SHA256, under the secret, over the timestamp (seconds since 1970 in
// decimal), a dot, and the body.
func SignWebhook(secret, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(timestamp + "."))
	mac.Write(body)
	return "v1=" + hex.EncodeToString(mac.Sum(nil))
}

// checkAddress refuses what isn't an https URL; plain http is for this machine
// alone.
func checkAddress(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return imprint.Errorf(imprint.CodeInvalidRequest, "%q isn't an https URL", imprint.Excerpt(address))
	}
	if u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()) {
		return nil
	}
	return imprint.Errorf(imprint.CodeInvalidRequest, "%q isn't an https URL (http is for loopback addresses alone)", imprint.Excerpt(address))
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// postWebhook posts the event and takes the answer.
func (s *Service) postWebhook(ctx context.Context, call imprint.FunctionCall, f imprint.Function) (imprint.FunctionResult, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, f.Handler, bytes.NewReader(call.Payload))
	if err != nil {
		return imprint.FunctionResult{}, fmt.Errorf("couldn't make the request of a webhook: %w", err)
	}
	timestamp := strconv.FormatInt(s.clock().Unix(), 10)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "imprint")
	request.Header.Set(headerRequestID, newRequestID())
	request.Header.Set(headerARN, f.ARN())
	if call.SourceARN != "" {
		request.Header.Set(headerSource, call.SourceARN)
	}
	request.Header.Set(headerTimestamp, timestamp)
	request.Header.Set(headerSignature, SignWebhook(f.Environment[WebhookSecret], timestamp, call.Payload))
	status, _, body, err := s.exchange(request, f.Tenant.Account, f.Environment[WebhookCA])
	if err != nil {
		return failedElsewhere(f, "Webhook.ConnectionError", err.Error())
	}
	switch {
	case status == http.StatusTooManyRequests:
		return imprint.FunctionResult{}, imprint.Errorf(imprint.CodeFunctionThrottled, "the webhook of function %s answered 429", f.Name)
	case status < 200 || status > 299:
		return failedElsewhere(f, "Webhook.Status", fmt.Sprintf("the webhook answered %d: %s", status, imprint.Excerpt(string(body))))
	}
	if len(bytes.TrimSpace(body)) == 0 {
		body = []byte("null")
	}
	if !json.Valid(body) {
		return failedElsewhere(f, "Webhook.InvalidResponse", "the webhook's answer isn't JSON")
	}
	return imprint.FunctionResult{Payload: body}, nil
}

func failedElsewhere(f imprint.Function, kind, text string) (imprint.FunctionResult, error) {
	return imprint.FunctionResult{Payload: errorObject(kind, "%s", text)},
		imprint.Errorf(imprint.CodeFunctionFailed, "function %s: %s: %s", f.Name, kind, text)
}

// exchange sends a request and reads the bounded answer. Redirections aren't
// followed: the event is for the address that was configured.
func (s *Service) exchange(request *http.Request, account imprint.AccountID, roots string) (int, http.Header, []byte, error) {
	client, err := s.client(account, roots)
	if err != nil {
		return 0, nil, nil, err
	}
	answer, err := client.Do(request)
	var withURL *url.Error
	if errors.As(err, &withURL) {
		err = withURL.Err // the address may hold a secret
	}
	if err != nil {
		return 0, nil, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxPayload+1))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("the answer ended too early: %w", err)
	}
	if len(body) > maxPayload {
		return 0, nil, nil, fmt.Errorf("the answer has more than %d bytes", maxPayload)
	}
	return answer.StatusCode, answer.Header, body, nil
}

// maxClients bounds the clients with roots of an account that are kept: the account with most loses
// the one that it used least lately.
const maxClients = 100

// maxIdle bounds the connections that a client keeps for the next request, to all hosts:
// each takes a file, of which devices' connections need theirs.
const maxIdle = 100

// client gives the client of an account that trusts some roots; empty: the system's.
func (s *Service) client(account imprint.AccountID, roots string) (*http.Client, error) {
	s.clientsMu.Lock()
	defer s.clientsMu.Unlock()
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if roots == "" {
		bounded := outward.Bounds(account, s.opts.PrivateAccount)
		if s.plain[bounded] == nil {
			s.plain[bounded] = s.newClient(account, config)
		}
		return s.plain[bounded], nil
	}
	if _, known := s.clients.Known(account, roots); !known {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(roots)) {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the roots of a function's server aren't PEM certificates")
		}
	}
	return s.clients.Of(account, roots, func() *http.Client { return s.newClient(account, config) }), nil
}

func (s *Service) newClient(account imprint.AccountID, config *tls.Config) *http.Client {
	const dialTimeout = 10 * time.Second
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: s.opts.MaxConcurrency, IdleConnTimeout: 90 * time.Second,
		MaxIdleConns: maxIdle, MaxResponseHeaderBytes: 64 << 10,
	}
	if outward.Bounds(account, s.opts.PrivateAccount) {
		transport = outward.Transport(transport, dialTimeout)
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
