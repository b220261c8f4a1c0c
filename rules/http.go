package rules

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/outward"
)

// posting is the request of an http delivery.
type posting struct {
	URL     string              `json:"url"`
	Headers []imprint.RuleField `json:"headers,omitempty"`
	JSON    bool                `json:"json,omitempty"` // the body's type, unless a header says it
	Body    []byte              `json:"body,omitempty"`
}

// ownHeaders are those that http actions can't set.
var ownHeaders = map[string]bool{
	"Host": true, "Content-Length": true, "Connection": true, "Transfer-Encoding": true, "Upgrade": true, "Te": true, "Trailer": true,
	"Proxy-Authorization": true, "Proxy-Connection": true, "Keep-Alive": true,
}

func validHeader(name string) bool {
	return httpguts.ValidHeaderFieldName(name) && !ownHeaders[http.CanonicalHeaderKey(name)] &&
		!strings.HasPrefix(strings.ToLower(name), "x-amz-rules-engine-")
}

// postLater is the http action: the request is in the outbox when it returns.
func (e *Engine) postLater(ctx context.Context, u *run, a *action) (string, error) {
	record := a.record.HTTP
	target, err := u.text(ctx, a, fieldURL)
	if err != nil {
		return record.URL, err
	}
	err = CheckURL(target)
	if err == nil {
		err = u.snapshot.mayPost(target)
	}
	if err != nil {
		return target, imprint.Errorf(imprint.CodeRuleAction, "%w", err)
	}
	headers, err := u.pairs(ctx, a, len(record.Headers))
	if err != nil {
		return target, err
	}
	for _, h := range headers {
		if !validHeader(h.Key) || !httpguts.ValidHeaderFieldValue(h.Value) {
			return target, imprint.Errorf(imprint.CodeRuleAction, "header %q has a name or a value that HTTP doesn't allow", imprint.Excerpt(h.Key))
		}
	}
	err = e.outbox.owe(ctx, u, ActionHTTP, hostOf(target), posting{URL: target, Headers: headers, JSON: !u.unchanged || json.Valid(u.payload), Body: u.payload})
	return target, err
}

// mayPost says whether an enabled destination covers a URL.
func (s *snapshot) mayPost(target string) error {
	for _, d := range s.destinations {
		if covers(d.URL, target) {
			return nil
		}
	}
	return imprint.Errorf(imprint.CodeRuleAction, "no enabled destination covers %s", imprint.Excerpt(target)).
		WithHint("aws iot create-topic-rule-destination, and let the URL's owner confirm it; aws iot list-topic-rule-destinations shows the states.")
}

// hostOf gives the host of a valid URL, with its port: what is slow for one URL
// is slow for all of it.
func hostOf(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}

// covers says whether a URL is a destination's, or below it: of the same scheme
// and host, and with the destination's path in front.
func covers(destination, target string) bool {
	d, err := url.Parse(destination)
	if err != nil {
		return false
	}
	u, err := url.Parse(target)
	if err != nil || d.Scheme != u.Scheme || !strings.EqualFold(d.Host, u.Host) {
		return false
	}
	above, below := strings.TrimSuffix(d.EscapedPath(), "/"), u.EscapedPath()
	return !leadsUp(below) && (below == above || strings.HasPrefix(below, above+"/"))
}

// leadsUp says whether a server may read a step up into an escaped path. Texts of
// devices stand in it, and servers and the proxies before them undo escapes, once or
// more often, take \ for / and leave out what follows a semicolon. What is escaped
// more often than anybody means is refused, too: each time costs the text's length.
func leadsUp(path string) bool {
	const mostEscapes = 8
	for range mostEscapes {
		for level := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '/' || r == '\\' }) {
			level, _, _ = strings.Cut(level, ";")
			if level == ".." {
				return true
			}
		}
		plain := unescape(path)
		if plain == path {
			return false
		}
		path = plain
	}
	return true
}

// unescape undoes the escapes of a text and leaves what isn't one.
func unescape(text string) string {
	var plain strings.Builder
	for n := 0; n < len(text); n++ {
		if text[n] == '%' && n+3 <= len(text) {
			one, err := url.PathUnescape(text[n : n+3])
			if err == nil {
				plain.WriteString(one)
				n += 2
				continue
			}
		}
		plain.WriteByte(text[n])
	}
	return plain.String()
}

// poster sends requests.
type poster struct {
	// anywhere is the client of who may reach private addresses, public that of others.
	anywhere, public *http.Client
	private          imprint.AccountID // who may; empty: all
	timeout          time.Duration
}

// maxIdle bounds the connections that are kept for the next request, to all hosts: each
// takes a file, of which devices' connections need theirs.
const maxIdle = 100

func newPoster(opts Options) *poster {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: opts.Roots},
		DialContext:         (&net.Dialer{Timeout: opts.HTTPTimeout}).DialContext,
		TLSHandshakeTimeout: opts.HTTPTimeout, MaxIdleConnsPerHost: opts.DeliveryWorkers, IdleConnTimeout: 90 * time.Second,
		MaxIdleConns: maxIdle, MaxResponseHeaderBytes: 64 << 10,
	}
	client := func(t *http.Transport) *http.Client {
		return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return &poster{
		anywhere: client(transport), public: client(outward.Transport(transport, opts.HTTPTimeout)),
		private: opts.PrivateAccount, timeout: opts.HTTPTimeout,
	}
}

func (p *poster) close() {
	p.anywhere.CloseIdleConnections()
	p.public.CloseIdleConnections()
}

// send sends a request of an account and gives the beginning of what a refusal says. The
// error, which doesn't have that, is permanent unless the server may do better later: it
// answered 429 or 5xx, or none.
func (p *poster) send(ctx context.Context, account imprint.AccountID, target string, header http.Header, body []byte) (said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return "", permanent{fmt.Errorf("couldn't make the request: %w", err)}
	}
	request.Header = header
	request.Header.Set("User-Agent", "imprint")
	client := p.anywhere
	if outward.Bounds(account, p.private) {
		client = p.public
	}
	answer, err := client.Do(request)
	var withURL *url.Error
	if errors.As(err, &withURL) {
		err = withURL.Err // the address may hold a secret
	}
	var refused *outward.Refused
	if errors.As(err, &refused) {
		return "", permanent{fmt.Errorf("couldn't reach the server: %w", refused)}
	}
	if err != nil {
		return "", fmt.Errorf("couldn't reach the server: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	const excerpt = 256
	start, err := io.ReadAll(io.LimitReader(answer.Body, excerpt))
	if err != nil {
		return "", fmt.Errorf("the answer ended too early: %w", err)
	}
	if answer.StatusCode >= 200 && answer.StatusCode < 300 {
		return "", nil
	}
	err = fmt.Errorf("the server answered %d", answer.StatusCode)
	if answer.StatusCode != http.StatusTooManyRequests && answer.StatusCode < 500 {
		err = permanent{err}
	}
	return imprint.Excerpt(string(start)), err
}

// post tries an http delivery. The destination must still be enabled.
func (o *outbox) post(ctx context.Context, d imprint.RuleDelivery) (string, error) {
	var p posting
	err := json.Unmarshal(d.Request, &p)
	if err != nil {
		return "", permanent{fmt.Errorf("couldn't read the request: %w", err)}
	}
	s, err := o.engine.tenant(d.Tenant).current(ctx)
	if err != nil {
		return p.URL, err
	}
	err = s.mayPost(p.URL)
	if err != nil {
		return p.URL, permanent{err}
	}
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	if p.JSON {
		header.Set("Content-Type", "application/json")
	}
	for _, h := range p.Headers {
		header.Set(h.Key, h.Value)
	}
	said, err := o.http.send(ctx, d.Tenant.Account, p.URL, header, p.Body)
	if err != nil && said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return p.URL, err
}
