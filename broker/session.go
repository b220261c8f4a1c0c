package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/policy"
	"github.com/imprint-iot/imprint/trace"
)

// Peer is what a door knows of a connection that it hands over.
type Peer struct {
	Address netip.Addr
	Rec     *trace.Recorder
	// Admit decides who the peer is; called once, at CONNECT.
	Admit Admission
	// Variables binds the policy variables for an identity of this connection.
	Variables func(who *identity.Identity, client imprint.ClientID) *policy.Variables
	// Admitted is called once when the connection needs no admission slot any
	// more: its CONNECT was accepted.
	Admitted func()
}

// binding is an identity with the policy variables of one connection.
type binding struct {
	who  *identity.Identity
	vars *policy.Variables
}

// session is one connection, from its CONNECT on.
type session struct {
	broker *Broker
	conn   net.Conn
	peer   Peer
	gone   chan struct{} // closed at the very end

	// Set at CONNECT, constant after.
	realm           *realm
	version         mqtt.Version
	clientID        imprint.ClientID
	certificate     imprint.CertificateID
	keepAlive       time.Duration // 0 before CONNECT
	window          int           // QoS 1 messages that the client takes at once
	maxPacket       int           // largest packet that the client takes; 0: any
	will            *will
	id              string // session identifier of the lifecycle events
	presenceVersion int64

	// bound is replaced when the identity changed; rebinding guards that.
	bound     atomic.Pointer[binding]
	rebinding sync.Mutex

	// reason is why the connection ends, when that is known before the reader
	// notices.
	reason atomic.Pointer[imprint.Code]

	// Owned by the reader.
	subscriptions map[string]*subscription
	aliases       []string
	route         route
	small         [256]byte

	out outbound
}

// route is what the last PUBLISH of a connection found, which mostly serves the
// next one too.
type route struct {
	topic   string
	version uint64
	subs    []*subscription
	valid   bool
}

// endError carries the reason for which the reader ends the connection itself.
type endError struct {
	code imprint.Code
	err  error
}

func (e *endError) Error() string { return e.err.Error() }
func (e *endError) Unwrap() error { return e.err }

func end(code imprint.Code, format string, args ...any) error {
	err := imprint.Errorf(code, format, args...)
	return &endError{code: code, err: err}
}

// Serve runs one connection until it has ended. The door closes the socket
// after.
func (b *Broker) Serve(ctx context.Context, conn net.Conn, peer Peer) {
	s := &session{broker: b, conn: conn, peer: peer, gone: make(chan struct{})}
	defer close(s.gone)
	in := &reader{session: s}
	err := s.connect(ctx, in)
	if err != nil {
		b.count.refused.Add(1)
		s.refuse(err)
		return
	}
	peer.Admitted()
	err = in.run(ctx)
	s.finish(err)
}

// current gives the binding to decide with, renewed when something behind it
// changed. It returns nil when the certificate may not be connected any more;
// the session has been kicked then.
func (s *session) current(ctx context.Context) *binding {
	b := s.bound.Load()
	if b != nil && !b.who.Stale() {
		return b
	}
	return s.rebind(ctx)
}

func (s *session) rebind(ctx context.Context) *binding {
	s.rebinding.Lock()
	defer s.rebinding.Unlock()
	old := s.bound.Load()
	if old == nil {
		return nil // the session is over
	}
	if !old.who.Stale() {
		return old
	}
	identities := s.broker.identities
	who, err := identities.Acquire(ctx, s.realm.tenant, s.certificate)
	if err != nil {
		code := imprint.CodeOf(err)
		if code == imprint.CodeNotFound {
			code = imprint.CodeCertificateDeleted
		}
		s.kick(code)
		return nil
	}
	refusal := who.Certificate.Refusal(s.broker.clock())
	if refusal != nil {
		identities.Release(who)
		s.kick(refusal.Code)
		return nil
	}
	fresh := &binding{who: who, vars: s.peer.Variables(who, s.clientID)}
	s.bound.Store(fresh)
	identities.Release(old.who)
	return fresh
}

// finish takes an accepted session out of the world and tells of it.
func (s *session) finish(err error) {
	code := imprint.CodeConnectionLost
	var ended *endError
	if errors.As(err, &ended) {
		code = ended.code
		s.kick(code)
	}
	if reason := s.reason.Load(); reason != nil {
		code = *reason
	} else {
		s.reason.CompareAndSwap(nil, &code)
	}
	for filter := range s.subscriptions {
		s.realm.topics.remove(s, filter)
	}
	s.broker.leave(s)
	if ended != nil && code == ended.code && code != imprint.CodeClientDisconnect {
		s.peer.Rec.Fail("session", ended.err)
	} else {
		s.peer.Rec.Info("session", "%s", imprint.Describe(code).Meaning)
	}
	if s.will != nil && code != imprint.CodeClientDisconnect {
		s.publishWill()
	}
	s.announceDisconnected(code)
	s.awaitGoodbye()
	s.rebinding.Lock()
	old := s.bound.Swap(nil)
	s.rebinding.Unlock()
	if old != nil {
		s.broker.identities.Release(old.who)
	}
	s.peer.Rec.End(imprint.OutcomeClosed, code)
}

// awaitGoodbye lets a writer that is sending the reason finish; kick bounds it.
func (s *session) awaitGoodbye() {
	s.out.mu.Lock()
	writing := s.out.writing
	s.out.closing = true
	s.out.mu.Unlock()
	if !writing {
		return
	}
	// The writer closes the socket when it is done; reading notices that.
	_ = s.conn.SetReadDeadline(time.Now().Add(goodbyeTimeout))
	_, _ = io.Copy(io.Discard, s.conn)
}

// reader cuts a connection's bytes into packets.
type reader struct {
	session *session
	buf     []byte // session.small, or a larger one while it is needed
	start   int
	end     int
}

const largeRead = 16 << 10

// next gives the next packet's header and body, which are valid until the next
// call. While it waits for bytes, what was answered so far is sent.
func (r *reader) next(limit int, idle time.Duration) (mqtt.FixedHeader, []byte, error) {
	for {
		header, ok, err := mqtt.ParseFixedHeader(r.buf[r.start:r.end])
		if err != nil {
			return header, nil, err
		}
		need := 0
		if ok {
			if header.Remaining > limit {
				return header, nil, end(imprint.CodePacketTooLarge, "a packet of %d bytes came, at most %d are taken", header.Remaining, limit)
			}
			need = header.Size + header.Remaining
			if r.end-r.start >= need {
				body := r.buf[r.start+header.Size : r.start+need]
				r.start += need
				return header, body, nil
			}
		}
		err = r.fill(need, idle)
		if err != nil {
			return header, nil, err
		}
	}
}

// fill reads more bytes, with room for a packet of need bytes.
func (r *reader) fill(need int, idle time.Duration) error {
	s := r.session
	s.flush()
	r.makeRoom(need)
	_ = s.conn.SetReadDeadline(time.Now().Add(idle))
	n, err := s.conn.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// makeRoom keeps the small buffer while a connection is quiet, and takes a
// larger one while reads fill it.
func (r *reader) makeRoom(need int) {
	small := r.session.small[:]
	unread := r.end - r.start
	full := r.end == len(r.buf)
	want := len(r.buf)
	switch {
	case unread == 0 && !full && len(r.buf) > len(small):
		// The last read left room: the burst is over.
		if len(r.buf) == largeRead {
			giveRead(r.buf)
		}
		r.buf, r.start, r.end = small, 0, 0
		return
	case full:
		want = max(largeRead, need)
	}
	want = max(want, need, len(small))
	if want <= len(r.buf) {
		if r.start > 0 {
			copy(r.buf, r.buf[r.start:r.end])
			r.start, r.end = 0, unread
		}
		return
	}
	var larger []byte
	if want <= len(small) {
		larger = small
	} else if want <= largeRead {
		larger = takeRead()
	} else {
		larger = make([]byte, want)
	}
	copy(larger, r.buf[r.start:r.end])
	if len(r.buf) == largeRead {
		giveRead(r.buf)
	}
	r.buf, r.start, r.end = larger, 0, unread
}

var readPool = sync.Pool{New: func() any {
	b := make([]byte, largeRead)
	return &b
}}

func takeRead() []byte  { return *readPool.Get().(*[]byte) }
func giveRead(b []byte) { readPool.Put(&b) }

// isTimeout tells a deadline from other ends of a connection.
func isTimeout(err error) bool {
	var network net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &network) && network.Timeout()
}
