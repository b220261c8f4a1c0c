package gateway

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/policy"
	"github.com/imprint-iot/imprint/trace"
)

// HTTPOptions tune the HTTP side of a Gateway. Zero values give the defaults in
// brackets.
type HTTPOptions struct {
	HeaderTimeout  time.Duration // from the handshake, or the one before, to the end of a request's headers [10 s]
	RequestTimeout time.Duration // for a whole request, and for its answer [30 s]
	IdleTimeout    time.Duration // between two requests [60 s]
	MaxPayload     int           // bytes of a message [128 KiB]
	// PublishRate bounds the messages a second of one certificate. Negative: no
	// bound [100].
	PublishRate int
}

func (o HTTPOptions) withDefaults() HTTPOptions {
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{{&o.HeaderTimeout, 10 * time.Second}, {&o.RequestTimeout, 30 * time.Second}, {&o.IdleTimeout, time.Minute}} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	if o.MaxPayload <= 0 {
		o.MaxPayload = 128 << 10
	}
	if o.PublishRate == 0 {
		o.PublishRate = 100
	}
	return o
}

// maxHeaderBytes bounds the head of a request; net/http adds 4 KiB of its own.
const maxHeaderBytes = 32 << 10

// web is the HTTP side of the gateway: net/http's server on connections whose
// TLS handshake the gateway has completed.
//
// One connection is one attempt of the trace. It is recorded as connected at
// its first request that succeeds. A request that is refused ends it, so that
// the trace tells of it at once and a device that can't succeed costs a
// handshake for each try; only those for whom there is no room just now (429,
// 503) may try again on the same connection.
type web struct {
	gateway *Gateway
	server  *http.Server
	feed    *feed
	rates   *publishRates

	begin    sync.Once
	serving  sync.WaitGroup
	sockets  atomic.Uint64
	requests [httpOutcomes]atomic.Uint64
}

func newWeb(g *Gateway) *web {
	o := g.opts.HTTP
	w := &web{gateway: g, feed: newFeed(), rates: newPublishRates(o.PublishRate)}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	w.server = &http.Server{
		Handler:           w,
		ReadHeaderTimeout: o.HeaderTimeout,
		ReadTimeout:       o.RequestTimeout,
		// It begins with the body, whose time is to be over before the answer's.
		WriteTimeout:                 2 * o.RequestTimeout,
		IdleTimeout:                  o.IdleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true,
		Protocols:                    protocols,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, webConnKey{}, c)
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			conn, ok := c.(*webConn)
			switch {
			case !ok:
			case state == http.StateIdle:
				conn.answering = false
			case state == http.StateClosed:
				conn.finish()
			}
		},
		ErrorLog: slog.NewLogLogger(g.opts.Logger.Handler(), slog.LevelDebug),
	}
	return w
}

// start runs the HTTP server, once.
func (w *web) start(ctx context.Context) {
	w.begin.Do(func() {
		w.server.BaseContext = func(net.Listener) context.Context { return ctx }
		w.serving.Go(func() {
			// It ends when the server is shut down, and for no other reason, as the
			// feed gives no other error.
			_ = w.server.Serve(w.feed)
		})
	})
}

// stop ends the HTTP server: idle connections at once, others after their
// answer.
func (w *web) stop(ctx context.Context) {
	w.begin.Do(func() {}) // from now on start does nothing
	// What isn't closed in time is closed by its socket.
	_ = w.server.Shutdown(ctx)
	_ = w.feed.Close()
	w.serving.Wait()
}

// take hands a connection to the HTTP server.
func (w *web) take(c *webConn) {
	c.web = w
	select {
	case w.feed.conns <- c:
	case <-w.feed.closed:
		c.rec.Fail("http.request", imprint.Errorf(imprint.CodeServerShutdown, "the server is shutting down"))
		c.rec.End(imprint.OutcomeRefused, imprint.CodeServerShutdown)
		_ = c.Close()
	}
}

// feed is a net.Listener of connections that were accepted elsewhere.
type feed struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newFeed() *feed { return &feed{conns: make(chan net.Conn), closed: make(chan struct{})} }

// Accept implements net.Listener.
func (f *feed) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (f *feed) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

// Addr implements net.Listener.
func (f *feed) Addr() net.Addr { return &net.TCPAddr{} }

type webConnKey struct{}

// webConn is a connection that speaks HTTP, with what is known of its peer. Its
// fields are used by the goroutine that serves it.
type webConn struct {
	*tls.Conn
	web     *web
	arrival *arrival
	visitor *visitor
	rec     *trace.Recorder

	begun             bool // something came
	answering         bool // a request was read, and its answer isn't complete
	unreadable        bool // what came can't be read as a request
	connected         bool // a request succeeded
	ended             bool // the attempt is over, or is the broker's
	answered, refused int
	last              imprint.Code // of the refusal after which nothing succeeded
	uses              []use        // what the trace was told that it was allowed
}

// use is something that a policy allowed.
type use struct {
	action   policy.Action
	resource string
}

// maxUses bounds what the trace is told of one connection, as the broker bounds it.
const maxUses = 16

// allowed tells the trace what a policy allowed, once for each action and topic: the
// device's least policy is made of that.
func (c *webConn) allowed(step string, request *policy.Request, by string) {
	u := use{request.Action, request.Resource()}
	if len(c.uses) >= maxUses || slices.Contains(c.uses, u) {
		return
	}
	c.uses = append(c.uses, u)
	c.rec.AllowedBy(step, string(u.action), u.resource, by)
}

// mqttConnect is the first byte of an MQTT connection; no HTTP method begins with it.
const mqttConnect = 0x10

// Read implements net.Conn. A device that speaks MQTT is ended at once: net/http would
// wait for the end of a line.
func (c *webConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.begun || n == 0 {
		return n, err
	}
	c.begun = true
	if p[0] != mqttConnect {
		return n, err
	}
	c.web.count(outcomeInvalid)
	c.refused++
	c.last = imprint.CodeALPNMissing
	c.rec.FailWith("mqtt.connect", imprint.Errorf(imprint.CodeALPNMissing, "an MQTT CONNECT packet came, and the TLS hello didn't ask for MQTT by its application protocol (ALPN)"), "closed without CONNACK")
	return 0, io.EOF
}

// Close closes the connection and counts it out.
func (c *webConn) Close() error {
	err := c.Conn.Close()
	c.arrival.leave()
	return err
}

// Write implements net.Conn. What comes while no request is answered is net/http's own
// answer to something that it can't read as one, in plain text, and the last one: the
// device gets ours, with the trace id, in its place.
func (c *webConn) Write(p []byte) (int, error) {
	if c.answering {
		return c.Conn.Write(p)
	}
	if !c.unreadable {
		c.unreadable = true
		err := c.web.refuseUnreadable(c, p)
		if err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// connOf gives the connection that a request came on, nil on another listener.
func connOf(r *http.Request) *webConn {
	conn, _ := r.Context().Value(webConnKey{}).(*webConn)
	return conn
}

// succeed records a request that was answered well.
func (c *webConn) succeed() {
	c.answered++
	c.last = "" // a refusal that the client got over stays a step of the attempt
	if !c.connected {
		c.connected = true
		c.rec.Connected()
	}
	c.arrival.admitted()
}

// finish ends the attempt with the connection.
func (c *webConn) finish() {
	switch {
	case c.ended:
		return
	case c.connected:
		code := imprint.CodeClientDisconnect
		if c.last != "" {
			code = c.last
		}
		c.rec.Info("http.connection", "%d request(s) answered, %d refused", c.answered, c.refused)
		c.rec.End(imprint.OutcomeClosed, code)
	case c.last != "":
		c.rec.End(imprint.OutcomeRefused, c.last)
	default:
		c.rec.Fail("http.request", imprint.Errorf(imprint.CodeNoRequest, "the connection ended before a complete HTTP request came"))
		c.rec.End(imprint.OutcomeRefused, imprint.CodeNoRequest)
	}
	c.ended = true
}

// ServeHTTP sends a request to what answers it. It is no ServeMux: that would
// clean paths, and topics may have empty levels.
func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	conn := connOf(r)
	conn.answering = true
	defer w.survive(rw, conn)
	switch {
	case r.URL.Path == webSocketPath:
		w.serveWebSocket(rw, r)
	case conn.visitor.leaf == nil && signed(r) && w.gateway.rooms.DataAPI != nil:
		w.forward(rw, r, conn)
	default:
		w.publish(rw, r, conn)
	}
}

// survive ends a request that panicked, and its connection, and nothing else.
func (w *web) survive(rw http.ResponseWriter, conn *webConn) {
	p := recover()
	if p == nil {
		return
	}
	g := w.gateway
	g.panics.Add(1)
	g.opts.Logger.Error("a request panicked", "attempt", conn.rec.ID(), "panic", p, "stack", string(debug.Stack()))
	err := imprint.Errorf(imprint.CodeInternal, "the server failed while it handled this request").
		WithHint("Look for attempt %s in the server's log, and report it.", conn.rec.ID())
	w.refuse(rw, conn, "internal", err)
}

// signed tells a request that carries a signature from one of a device.
func signed(r *http.Request) bool {
	return r.Header.Get("Authorization") != "" || r.URL.Query().Has("X-Amz-Signature")
}

// forward lets the data plane API answer an operator. It decides who that is.
func (w *web) forward(rw http.ResponseWriter, r *http.Request, conn *webConn) {
	answer := &watched{ResponseWriter: rw, stranger: !conn.connected}
	w.gateway.rooms.DataAPI.ServeHTTP(answer, r)
	switch {
	case answer.status == http.StatusForbidden || answer.status == http.StatusUnauthorized:
		w.count(outcomeForbidden)
		conn.refused, conn.last = conn.refused+1, imprint.CodeSignature
		conn.rec.Fail("http.signature", imprint.Errorf(imprint.CodeSignature, "%s %s was answered %d %s", r.Method, imprint.Excerpt(r.URL.EscapedPath()), answer.status, answer.Header().Get("X-Amzn-Errortype")).
			WithHint("The answer says which part of the signature isn't good; the server's log has it at level debug."))
	case answer.status >= http.StatusBadRequest:
		// It may have been answered before anybody looked at the signature.
		w.count(outcomeOf(answer.status))
		conn.rec.Info("http.request", "%s %s was answered %d", r.Method, imprint.Excerpt(r.URL.EscapedPath()), answer.status)
	default:
		w.count(outcomeOf(answer.status))
		if !conn.connected {
			conn.rec.OK("http.request", "%s %s, signed, was answered %d", r.Method, imprint.Excerpt(r.URL.EscapedPath()), answer.status)
		}
		conn.succeed()
	}
}

// watched notes the status of an answer, and ends the connection of a caller
// that isn't let in, or that has never been: it takes a place of those that devices
// connect in.
type watched struct {
	http.ResponseWriter
	status   int
	stranger bool
}

// WriteHeader implements http.ResponseWriter.
func (a *watched) WriteHeader(status int) {
	a.status = status
	if status == http.StatusForbidden || status == http.StatusUnauthorized || a.stranger && status >= http.StatusBadRequest {
		a.Header().Set("Connection", "close")
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *watched) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(p)
}
