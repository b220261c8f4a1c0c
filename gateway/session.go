package gateway

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
)

// tlsOptions are what one listener's TLS has of its own.
type tlsOptions struct {
	// protocols are the application protocols that are spoken, the preferred
	// first. A hello that offers none at all is let in; one that offers only
	// others is refused.
	protocols []string
	// clientAuth says whether a client certificate is demanded. Session tickets
	// are issued only where it is, because a ticket stands for a certificate.
	clientAuth tls.ClientAuthType
	// port443 says that the listener stands for AWS's port 443, where one of the
	// security policies has a cipher suite more.
	port443 bool
}

// tlsProfile is the TLS of one listener, or of one of the things that it speaks.
type tlsProfile struct {
	protocols []string
	tickets   *TicketKeys // nil: none are issued
	clock     imprint.Clock
	base      *tls.Config

	mu   sync.Mutex
	free []*tlsSession
}

// tlsProfile makes the profile of a listener.
func (g *Gateway) tlsProfile(o tlsOptions) *tlsProfile {
	p := &tlsProfile{protocols: o.protocols, clock: g.rooms.Clock, base: &tls.Config{
		MinVersion:             g.opts.SecurityPolicy.minVersion(),
		MaxVersion:             g.opts.SecurityPolicy.maxVersion(),
		CipherSuites:           g.opts.SecurityPolicy.suites(o.port443),
		ClientAuth:             o.clientAuth,
		GetCertificate:         g.rooms.Certificates.Get,
		NextProtos:             o.protocols,
		SessionTicketsDisabled: true,
	}}
	if o.clientAuth == tls.RequireAnyClientCert {
		p.tickets = g.rooms.Tickets
	}
	return p
}

// tlsSession is the configuration of one handshake at a time. crypto/tls asks it
// to open the ticket that the client shows, and then to seal the next one, and
// tells it by no argument that both belong to one connection. It is used again
// for later handshakes, so a connection keeps no configuration of its own alive.
type tlsSession struct {
	profile *tlsProfile
	config  *tls.Config
	// proved is when the device last proved that it holds its private key: in
	// the full handshake from which the resumed session descends.
	proved time.Time
}

// borrow gives a session for one handshake, to be given back after it.
func (p *tlsProfile) borrow() *tlsSession {
	p.mu.Lock()
	last := len(p.free) - 1
	if last >= 0 {
		s := p.free[last]
		p.free = p.free[:last]
		p.mu.Unlock()
		return s
	}
	p.mu.Unlock()
	s := &tlsSession{profile: p, config: p.base.Clone()}
	if p.tickets != nil {
		s.config.SessionTicketsDisabled = false
		s.config.WrapSession = s.seal
		s.config.UnwrapSession = s.open
	}
	return s
}

// giveBack takes a session whose handshake is over. The connection reads its
// configuration on, and calls none of its functions any more.
func (p *tlsProfile) giveBack(s *tlsSession) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, s)
}

// ticketNote marks what Imprint adds to a session: the time of the last full
// handshake in milliseconds since 1970, and the server name.
var ticketNote = []byte("imprint\x01")

// seal makes a ticket. RFC 8446 section 4.6.1 recommends to bound how long
// tickets may follow upon tickets without a new proof of the client's key.
func (s *tlsSession) seal(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
	proved := s.proved
	if !state.DidResume {
		proved = s.profile.clock()
	}
	note := binary.BigEndian.AppendUint64(bytes.Clone(ticketNote), uint64(proved.UnixMilli()))
	session.Extra = append(session.Extra, append(note, state.ServerName...))
	return s.profile.tickets.seal(state, session)
}

// open resumes a session, or answers nil: then there is a full handshake. A
// session isn't resumed under another server name (RFC 6066, section 3).
func (s *tlsSession) open(ticket []byte, state tls.ConnectionState) (*tls.SessionState, error) {
	session := s.profile.tickets.open(ticket, state)
	if session == nil {
		return nil, nil
	}
	for _, extra := range session.Extra {
		rest, found := bytes.CutPrefix(extra, ticketNote)
		if !found || len(rest) < 8 {
			continue
		}
		proved := time.UnixMilli(int64(binary.BigEndian.Uint64(rest)))
		if string(rest[8:]) != state.ServerName || s.profile.clock().Sub(proved) >= s.profile.tickets.opts.Keep {
			return nil, nil
		}
		s.proved = proved
		return session, nil
	}
	return nil, nil
}
