// Package client calls the control plane for Imprint's own command line and
// benchmarks. It speaks what the AWS CLI speaks: rest-json, signed with SigV4.
//
//	c, err := client.New(client.Config{Endpoint: url, KeyID: id, Secret: secret, Region: region, RootPath: pem})
//	err = c.Call(ctx, "POST", "/things/sensor-17", map[string]any{}, &out)
//
// It proves nothing about compatibility; the tests do that with AWS's own
// clients.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

// Config says where the control plane is and who calls.
type Config struct {
	Endpoint   string // https://host:port
	KeyID      string
	Secret     string
	Region     string
	Service    string        // that requests are signed for [iot]
	Header     http.Header   // sent with each request
	RootPath   string        // PEM file of the server's root; empty: the system's roots
	Timeout    time.Duration // of one call [30 s]
	Clock      func() time.Time
	HTTPClient *http.Client // nil: made from the above
}

// Client calls one control plane as one access key.
type Client struct {
	config Config
	http   *http.Client
}

// Error is a refusal by the control plane.
type Error struct {
	Status    int
	Code      string // such as ResourceNotFoundException
	Message   string
	RequestID string
}

// Error renders "code: message".
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// New makes a client.
func New(config Config) (*Client, error) {
	if config.Endpoint == "" || config.KeyID == "" || config.Secret == "" || config.Region == "" {
		return nil, errors.New("couldn't make a control-plane client: endpoint, access key, secret and region must be set")
	}
	if config.Timeout <= 0 {
		config.Timeout = 30 * time.Second
	}
	if config.Clock == nil {
		config.Clock = time.Now
	}
	if config.Service == "" {
		config.Service = "iot"
	}
	c := &Client{config: config, http: config.HTTPClient}
	if c.http != nil {
		return c, nil
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if config.RootPath != "" {
		pem, err := os.ReadFile(config.RootPath)
		if err != nil {
			return nil, fmt.Errorf("couldn't read the server's root: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("couldn't read the server's root: %s holds no certificate", config.RootPath)
		}
	}
	c.http = &http.Client{Timeout: config.Timeout, Transport: &http.Transport{TLSClientConfig: settings, Proxy: http.ProxyFromEnvironment}}
	return c, nil
}

// Endpoint is where the control plane is: https://host:port.
func (c *Client) Endpoint() string { return c.config.Endpoint }

// With is a client that sends a further header with each request.
func (c *Client) With(name, value string) *Client {
	config := c.config
	config.Header = config.Header.Clone()
	if config.Header == nil {
		config.Header = http.Header{}
	}
	config.Header.Set(name, value)
	return &Client{config: config, http: c.http}
}

// For is a client that signs its requests for another service of the same server.
func (c *Client) For(service string) *Client {
	config := c.config
	config.Service = service
	return &Client{config: config, http: c.http}
}

// Invoke calls an operation of an API of the protocol JSON 1.1, whose target is such as
// ACMPrivateCA.ListTags.
func (c *Client) Invoke(ctx context.Context, target string, in, out any) error {
	return c.With("X-Amz-Target", target).Call(ctx, "POST", "/", in, out)
}

// maxAnswer bounds what is read of a response.
const maxAnswer = 16 << 20

// Call sends a request and decodes the answer into out. Body and out may be
// nil. The path is escaped already and may have a query. Refusals are *Error.
func (c *Client) Call(ctx context.Context, method, path string, body, out any) error {
	var payload []byte
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("couldn't encode the request: %w", err)
		}
		payload = encoded
	}
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.config.Endpoint, "/")+path, bytes.NewReader(payload))
	if err != nil {
		return fmt.Errorf("couldn't make the request: %w", err)
	}
	maps.Copy(request.Header, c.config.Header)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	sigv4.Sign(request, payload, sigv4.AccessKey{ID: c.config.KeyID, Secret: c.config.Secret}, c.config.Region, c.config.Service, c.config.Clock())
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("couldn't reach the control plane: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("couldn't read the answer: %w", err)
	}
	if response.StatusCode/100 != 2 {
		return refusal(response, answer)
	}
	if out == nil || len(answer) == 0 {
		return nil
	}
	err = json.Unmarshal(answer, out)
	if err != nil {
		return fmt.Errorf("couldn't decode the answer: %w", err)
	}
	return nil
}

func refusal(response *http.Response, answer []byte) error {
	e := &Error{Status: response.StatusCode, Code: response.Header.Get("X-Amzn-Errortype"), RequestID: response.Header.Get("X-Amzn-Requestid")}
	var body struct{ Message string }
	err := json.Unmarshal(answer, &body)
	if err != nil || body.Message == "" {
		body.Message = http.StatusText(response.StatusCode)
	}
	e.Message = body.Message
	return e
}
