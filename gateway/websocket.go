package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/policy"
	"github.com/imprint-iot/imprint/trace"
)

// webSocketPath is where MQTT over WebSocket is.
const webSocketPath = "/mqtt"

// Operator is a caller that proved by a signature who it is.
type Operator struct {
	identity.Operator
	// Until is when its credentials end; zero: never.
	Until time.Time
}

// maxWebSocketLife bounds a connection that was opened by a signature, as AWS
// IoT Core bounds it.
const maxWebSocketLife = 24 * time.Hour

// maxWebSocketMessage bounds one WebSocket message. It may hold many packets or
// a part of one [MQTT-6.0.0-4], is never kept as a whole, and the broker bounds
// each packet: this is only to refuse what can't be meant well.
const maxWebSocketMessage = 1 << 20

// webSocketProtocols are the names by which clients ask for MQTT; "mqtt" is the
// one of the specification, the others those of older libraries.
var webSocketProtocols = []string{"mqtt", "mqttv5", "mqttv3.1", "mqttv3.1.1"}

// WebSocket serves MQTT over WebSocket on a listener that isn't the gateway's
// own. It must be given every request of the path /mqtt.
func (g *Gateway) WebSocket() http.Handler { return http.HandlerFunc(g.web.serveWebSocket) }

// serveWebSocket opens a WebSocket for an operator and lets the broker serve it.
func (w *web) serveWebSocket(rw http.ResponseWriter, r *http.Request) {
	u := w.newUpgrade(r)
	defer w.gateway.survive(u.rec)
	operator, step, err := u.authenticate(r)
	if err != nil {
		u.refuse(rw, step, err)
		return
	}
	u.rec.Describe(func(a *imprint.Attempt) { a.Tenant = operator.Tenant })
	u.rec.OK("http.signature", "signed by %s for %s", operator.Principal, operator.Tenant)
	socket, err := u.open(rw, r)
	if err != nil {
		w.count(outcomeOf(statusOf(err)))
		u.end(err, "websocket")
		return
	}
	defer func() { _ = socket.Close() }()
	w.count(outcomeOK)
	w.sockets.Add(1)
	u.rec.OK("websocket", "open, sub-protocol %q", socket.ws.Subprotocol())
	until := w.gateway.rooms.Clock().Add(maxWebSocketLife)
	if !operator.Until.IsZero() && operator.Until.Before(until) {
		until = operator.Until
	}
	who := identity.NewOperator(operator.Operator)
	address, serverName := u.arrival.address, u.serverName
	// The server ends the request's context when the connection ends; the broker
	// ends the connection by itself.
	w.gateway.rooms.Broker.Serve(context.WithoutCancel(r.Context()), socket, broker.Peer{
		Address: address, Rec: u.rec, Until: until, Admitted: u.arrival.admitted,
		Admit: func(context.Context, *trace.Recorder) (*identity.Identity, error) { return who, nil },
		Variables: func(who *identity.Identity, client imprint.ClientID) *policy.Variables {
			return who.Variables(identity.Connection{ClientID: client, Address: address, ServerName: serverName})
		},
	})
}

// upgrade is one request for a WebSocket.
type upgrade struct {
	web        *web
	conn       *webConn // nil on another listener
	arrival    *arrival // nil while the socket isn't counted in
	rec        *trace.Recorder
	serverName string
}

func (w *web) newUpgrade(r *http.Request) *upgrade {
	if conn := connOf(r); conn != nil {
		return &upgrade{web: w, conn: conn, arrival: conn.arrival, rec: conn.rec, serverName: conn.visitor.serverName}
	}
	u := &upgrade{web: w, rec: w.gateway.rooms.Trace.Begin(r.RemoteAddr)}
	if r.TLS == nil {
		return u
	}
	u.serverName = r.TLS.ServerName
	u.rec.Describe(func(a *imprint.Attempt) {
		a.SNI, a.ALPN, a.TLSVersion = imprint.Excerpt(r.TLS.ServerName), r.TLS.NegotiatedProtocol, tls.VersionName(r.TLS.Version)
	})
	return u
}

// authenticate tells who asks. The text names the step that failed.
func (u *upgrade) authenticate(r *http.Request) (Operator, string, error) {
	if r.Method != http.MethodGet {
		return Operator{}, "http.request", &statusError{http.StatusMethodNotAllowed, imprint.Errorf(imprint.CodeHTTPRequest, "a WebSocket is opened with GET, not %s", imprint.Excerpt(r.Method))}
	}
	if u.web.gateway.rooms.Operators == nil {
		return Operator{}, "http.signature", imprint.Errorf(imprint.CodeSignature, "nobody may open a WebSocket here")
	}
	operator, err := u.web.gateway.rooms.Operators(r)
	if err != nil {
		return Operator{}, "http.signature", err
	}
	if !offersMQTT(r.Header) {
		return Operator{}, "websocket", imprint.Errorf(imprint.CodeHTTPRequest, "the client offers the sub-protocols %q, none of which is MQTT", imprint.Excerpt(strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ", "))).
			WithHint("Let the client ask for the sub-protocol mqtt.")
	}
	return operator, "", nil
}

// offersMQTT tells whether a client asks for MQTT, which it must [MQTT-6.0.0-3].
func offersMQTT(header http.Header) bool {
	for _, value := range header.Values("Sec-WebSocket-Protocol") {
		for offered := range strings.SplitSeq(value, ",") {
			for _, known := range webSocketProtocols {
				if strings.EqualFold(strings.TrimSpace(offered), known) {
					return true
				}
			}
		}
	}
	return false
}

// refuse answers and records a request that gets no WebSocket.
func (u *upgrade) refuse(rw http.ResponseWriter, step string, err error) {
	if u.conn != nil {
		u.web.refuse(rw, u.conn, step, err)
		return
	}
	status := statusOf(err)
	u.web.count(outcomeOf(status))
	u.end(err, step)
	u.web.answer(rw, u.rec.ID(), status, messageOf(err, status))
}

// end ends the attempt of a request that got no WebSocket.
func (u *upgrade) end(err error, step string) {
	u.rec.Fail(step, err)
	if u.conn != nil {
		u.conn.refused++
		u.conn.last = imprint.CodeOf(err)
		if u.conn.ended {
			u.rec.End(imprint.OutcomeRefused, imprint.CodeOf(err))
		}
		return
	}
	u.rec.End(imprint.OutcomeRefused, imprint.CodeOf(err))
}

// open answers the handshake and takes the connection over from the HTTP
// server. Any origin is let in: the origin check protects callers whom a
// browser makes known by itself, with a cookie; here every request is signed
// with a secret that a foreign page doesn't have. AWS IoT Core allows any, too.
func (u *upgrade) open(rw http.ResponseWriter, r *http.Request) (*socket, error) {
	taking := &hijacking{ResponseWriter: rw, upgrade: u}
	s := &socket{}
	ws, err := websocket.Accept(taking, r, &websocket.AcceptOptions{
		Subprotocols: webSocketProtocols, InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled,
		OnPingReceived: s.pinged,
	})
	if err != nil {
		if taking.conn != nil {
			_ = taking.conn.Close()
		}
		if taking.refusal != nil {
			return nil, taking.refusal
		}
		// The library has answered; it writes what is wrong with the handshake.
		return nil, imprint.Errorf(imprint.CodeHTTPRequest, "couldn't open the WebSocket: %w", err)
	}
	ws.SetReadLimit(maxWebSocketMessage)
	s.Conn, s.ws = taking.conn, ws
	return s, nil
}

// hijacking notes the connection that the WebSocket library takes over, and
// counts it in where it isn't the gateway's.
type hijacking struct {
	http.ResponseWriter
	upgrade *upgrade
	conn    net.Conn
	refusal error // at a limit
}

// Hijack implements http.Hijacker.
func (h *hijacking) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	u := h.upgrade
	if u.conn != nil {
		u.conn.ended = true // the attempt is the broker's from here
		h.conn = conn
		return conn, rw, nil
	}
	below := conn
	if secure, ok := conn.(*tls.Conn); ok {
		below = secure.NetConn() // closing it never waits
	}
	u.arrival, err = u.web.gateway.admit(below)
	if err != nil {
		h.refusal = err
		_ = conn.Close()
		return nil, nil, err
	}
	h.conn = &counted{Conn: conn, arrival: u.arrival}
	return h.conn, rw, nil
}

// counted is a connection that leaves the gateway when it is closed.
type counted struct {
	net.Conn
	arrival *arrival
}

// Close closes the connection and counts it out.
func (c *counted) Close() error {
	err := c.Conn.Close()
	c.arrival.leave()
	return err
}

// socket is a WebSocket as the byte stream that MQTT sees [MQTT-6.0.0-2]: what
// boundaries the frames have means nothing. Deadlines are those of the
// connection below, so that one that passes ends a read and nothing else.
type socket struct {
	net.Conn // the connection below
	ws       *websocket.Conn
	message  io.Reader // of which a part is read; nil between two
	closing  sync.Once

	// sending is held by who sends a message, or the answer to a ping.
	sending sync.Mutex

	// mu guards what follows. The connection below has the write deadline only while
	// sending is held: the library's close frame may come long after it has passed.
	mu       sync.Mutex
	deadline time.Time
	writing  bool
	pong     []byte // the answer to the last ping, until it is sent; nil: there is none
	broken   bool   // the client's frames are no WebSocket's
}

// SetWriteDeadline implements net.Conn. It also holds for what is being sent.
func (s *socket) SetWriteDeadline(deadline time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = deadline
	if s.writing {
		return s.Conn.SetWriteDeadline(deadline)
	}
	return nil
}

// bound puts the write deadline into force, or out of it.
func (s *socket) bound(writing bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = writing
	if writing {
		return s.Conn.SetWriteDeadline(s.deadline)
	}
	return s.Conn.SetWriteDeadline(time.Time{})
}

// takePong gives the answer to a ping, nil when none waits, with a write deadline in
// force: what is left of the time of the last message, or, when that is long over, a
// time of its own.
func (s *socket) takePong() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pong := s.pong
	s.pong = nil
	if pong == nil {
		return nil, nil
	}
	s.writing = true
	deadline := s.deadline
	if now := time.Now(); !deadline.After(now) {
		deadline = now.Add(pongTimeout)
	}
	return pong, s.Conn.SetWriteDeadline(deadline)
}

// pongWaits tells that a ping isn't answered.
func (s *socket) pongWaits() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pong != nil
}

// Read implements net.Conn. It is called by one goroutine at a time.
func (s *socket) Read(p []byte) (int, error) {
	for {
		if s.message == nil {
			err := s.next()
			if err != nil {
				return 0, err
			}
		}
		n, err := s.message.Read(p)
		if errors.Is(err, io.EOF) {
			s.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, s.explain(err)
		}
	}
}

// next waits for a message.
func (s *socket) next() error {
	kind, message, err := s.ws.Reader(context.Background())
	if err != nil {
		return s.explain(err)
	}
	if kind != websocket.MessageBinary {
		_ = s.ws.Close(websocket.StatusUnsupportedData, "MQTT travels in binary messages")
		return imprint.Errorf(imprint.CodeProtocolViolation, "a WebSocket message isn't binary [MQTT-6.0.0-1]")
	}
	s.message = message
	return nil
}

// explain puts the end of a WebSocket into words that the broker knows.
func (s *socket) explain(err error) error {
	// The library has no error of its own for this, and leaves it to its caller to say goodbye
	// with the status that RFC 6455 section 5.1 demands; what else is wrong it says itself. A
	// client's own goodbye may have any words.
	if err != nil && websocket.CloseStatus(err) == -1 && strings.Contains(err.Error(), "received unmasked frame") {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.broken = true
		return imprint.Errorf(imprint.CodeProtocolViolation, "a WebSocket frame of the client isn't masked (RFC 6455 section 5.1)")
	}
	switch websocket.CloseStatus(err) {
	case websocket.StatusNormalClosure, websocket.StatusGoingAway, websocket.StatusNoStatusRcvd:
		return imprint.Errorf(imprint.CodeClientDisconnect, "the client closed the WebSocket")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		// It isn't the deadline of a read, which the broker has set.
		return imprint.Errorf(imprint.CodeConnectionLost, "a WebSocket control frame wasn't complete after five seconds")
	}
	if errors.Is(err, websocket.ErrMessageTooBig) {
		return imprint.Errorf(imprint.CodePacketTooLarge, "a WebSocket message has more than %d bytes", maxWebSocketMessage)
	}
	return err
}

// Write implements net.Conn: each write is a message. It is called by one goroutine
// at a time.
func (s *socket) Write(p []byte) (int, error) {
	s.sending.Lock()
	err := s.bound(true)
	if err == nil {
		err = s.ws.Write(context.Background(), websocket.MessageBinary, p)
	}
	err = s.sent(err)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// pongTimeout bounds the answer to a ping long after the last message.
const pongTimeout = 5 * time.Second

// pinged answers a ping: at once, or between two messages. The library would wait for a
// message that is being sent for five seconds, and then close the connection: a client
// with a slow link, which reads what is sent, may need longer. Of several pings that
// come meanwhile, the last one is answered (RFC 6455 section 5.5.3).
func (s *socket) pinged(_ context.Context, payload []byte) bool {
	pong := append([]byte{finalPong, byte(len(payload))}, payload...)
	s.mu.Lock()
	s.pong = pong
	s.mu.Unlock()
	if !s.sending.TryLock() {
		return false // whoever sends answers it
	}
	err := s.sent(nil)
	if err != nil {
		_ = s.Conn.Close() // the reader notices that
	}
	return false
}

// finalPong begins a pong (RFC 6455 section 5.2). Those of a server are as they are,
// without a mask, and the payload of a ping has at most 125 bytes.
const finalPong = 0x8a

// sent answers pings that came while something was sent, unless that failed, and lets
// the next one send.
func (s *socket) sent(err error) error {
	for {
		var pong []byte
		if err == nil {
			pong, err = s.takePong()
		}
		if pong != nil && err == nil {
			// The library has written all of the message that it was given.
			_, err = s.Conn.Write(pong)
			continue
		}
		err = errors.Join(err, s.bound(false))
		s.sending.Unlock()
		// A ping may have come in the moment before.
		if err != nil || !s.pongWaits() || !s.sending.TryLock() {
			return err
		}
	}
}

// closeTimeout bounds the wait for the client's close frame.
const closeTimeout = time.Second

// Close says goodbye and closes the connection.
func (s *socket) Close() error {
	s.closing.Do(func() {
		_ = s.Conn.SetDeadline(time.Now().Add(closeTimeout))
		status := websocket.StatusNormalClosure
		s.mu.Lock()
		if s.broken {
			status = websocket.StatusProtocolError
		}
		s.mu.Unlock()
		// Whatever comes of it, the connection is closed.
		_ = s.ws.Close(status, "")
		_ = s.Conn.Close()
	})
	return nil
}
