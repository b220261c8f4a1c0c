package gateway

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/trace"
)

// Application protocols of the MQTT door (AWS IoT Core developer guide,
// "Device communication protocols").
var mqttProtocols = []string{"x-amzn-mqtt-ca", "mqtt"}

// httpProtocols are those of HTTP, on the listener that speaks it: HTTP/2 is
// not offered there, as AWS IoT Core doesn't offer it.
var httpProtocols = []string{"x-amzn-http-ca", "http/1.1", "http/1.0"}

// Certificates hold the server's certificates; they can be replaced while
// connections live.
type Certificates struct {
	current atomic.Pointer[pair]
}

type pair struct{ ecdsa, rsa *tls.Certificate }

// NewCertificates holds an ECDSA and an RSA certificate.
func NewCertificates(ecdsaCert, rsaCert tls.Certificate) *Certificates {
	c := &Certificates{}
	c.Replace(ecdsaCert, rsaCert)
	return c
}

// Replace makes new handshakes use other certificates.
func (c *Certificates) Replace(ecdsaCert, rsaCert tls.Certificate) {
	c.current.Store(&pair{ecdsa: &ecdsaCert, rsa: &rsaCert})
}

// HostName is a host name that the certificates stand for: localhost if they do,
// else the first that is no wildcard.
func (c *Certificates) HostName() string {
	leaf := c.current.Load().ecdsa.Leaf
	if leaf == nil || leaf.VerifyHostname("localhost") == nil {
		return "localhost"
	}
	for _, name := range leaf.DNSNames {
		if !strings.HasPrefix(name, "*") {
			return name
		}
	}
	return "localhost"
}

// ExpiresAt is when the first of them expires; zero if that isn't known.
func (c *Certificates) ExpiresAt() time.Time {
	var first time.Time
	p := c.current.Load()
	for _, cert := range []*tls.Certificate{p.ecdsa, p.rsa} {
		if cert.Leaf != nil && (first.IsZero() || cert.Leaf.NotAfter.Before(first)) {
			first = cert.Leaf.NotAfter
		}
	}
	return first
}

// Get picks what the client can verify: ECDSA if it can, else RSA.
func (c *Certificates) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	p := c.current.Load()
	// The names aren't compared: the server name was decided on before, and a
	// client that reaches the server under an alias judges by itself.
	nameless := *hello
	nameless.ServerName = ""
	if nameless.SupportsCertificate(p.ecdsa) == nil {
		return p.ecdsa, nil
	}
	return p.rsa, nil
}

// handshake is one TLS handshake and what it learns.
type handshake struct {
	gateway *Gateway
	rec     *trace.Recorder
	// profile is that of MQTT until the hello was read, and then the one that it
	// selects. https is that of HTTP, nil where it isn't spoken: a hello that
	// offers no protocol of MQTT means it.
	profile    *tlsProfile
	https      *tlsProfile
	turn       turn
	session    *tlsSession // borrowed once the hello is accepted
	tenant     imprint.Tenant
	serverName string
	// refusal is set when the hello itself is refused.
	refusal error
}

// run completes TLS. Errors are *imprint.Error, recorded.
func (h *handshake) run(conn net.Conn) (*tls.Conn, error) {
	defer h.end()
	// A deadline on the socket bounds the whole handshake, however slowly the
	// bytes come; a context would cost a goroutine for each.
	deadline := time.Now().Add(h.gateway.opts.HandshakeTimeout)
	err := conn.SetDeadline(deadline)
	var tlsConn *tls.Conn
	if err == nil {
		h.turn = turn{turnstile: h.gateway.turnstile, deadline: deadline}
		paced := &pacedConn{Conn: conn, turn: &h.turn}
		// Tickets are the business of what configure gives; crypto/tls would make
		// keys for them here.
		tlsConn = tls.Server(paced, &tls.Config{GetConfigForClient: h.configure, SessionTicketsDisabled: true})
		err = tlsConn.Handshake()
		paced.turn = nil
		if err != nil && paced.alert != 0 && !strings.Contains(err.Error(), "remote error") {
			err = fmt.Errorf("remote error: %w", tls.AlertError(paced.alert))
		}
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		err = h.explain(err)
		h.rec.Fail("tls", err)
		return nil, err
	}
	h.record(tlsConn.ConnectionState())
	return tlsConn, nil
}

// end gives back what the handshake held.
func (h *handshake) end() {
	h.turn.leave()
	if h.session != nil {
		h.profile.giveBack(h.session)
		h.session = nil
	}
}

// record tells the trace what was agreed upon.
func (h *handshake) record(state tls.ConnectionState) {
	version := tls.VersionName(state.Version)
	h.rec.Describe(func(a *imprint.Attempt) {
		a.ALPN = state.NegotiatedProtocol
		a.TLSVersion = version
	})
	shown := strconv.Itoa(len(state.PeerCertificates)) + " certificate(s) sent"
	if state.DidResume {
		h.gateway.resumed.Add(1)
		shown = "session resumed, its key last proved at " + h.session.proved.UTC().Format(time.RFC3339)
	}
	h.rec.OK("tls", "%s, %s, client key %s, %s", version, tls.CipherSuiteName(state.CipherSuite),
		describeClient(state.PeerCertificates), shown)
}

// configure answers the hello: tenant by server name, application protocol. From
// here on the handshake computes.
func (h *handshake) configure(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	h.serverName = hello.ServerName
	h.rec.Describe(func(a *imprint.Attempt) { a.SNI = imprint.Excerpt(hello.ServerName) })
	tenant, err := h.gateway.rooms.Endpoints.Tenant(hello.ServerName)
	if err != nil {
		h.refusal = err
		return unrecognizedName, nil
	}
	h.tenant = tenant
	h.rec.Describe(func(a *imprint.Attempt) { a.Tenant = tenant })
	if h.https != nil && !h.profile.speaks(hello.SupportedProtos) {
		h.profile = h.https
	}
	if len(hello.SupportedProtos) > 0 && !h.profile.speaks(hello.SupportedProtos) {
		h.refusal = h.unknownProtocols(hello.SupportedProtos)
	}
	if h.serverName == "" {
		h.rec.Info("tls.hello", "no server name; tenant %s unless the certificate says otherwise", tenant)
	} else {
		h.rec.OK("tls.hello", "server name %s, tenant %s", hello.ServerName, tenant)
	}
	err = h.turn.take()
	if err != nil {
		return nil, err
	}
	h.session = h.profile.borrow()
	return h.session.config, nil
}

// speaks tells whether a profile speaks one of the application protocols.
func (p *tlsProfile) speaks(offered []string) bool {
	return slices.ContainsFunc(offered, func(name string) bool { return slices.Contains(p.protocols, name) })
}

func (h *handshake) unknownProtocols(offered []string) error {
	err := imprint.Errorf(imprint.CodeALPNUnknown, "the device offers only %q", offered)
	if h.profile != h.https {
		return err
	}
	return err.WithHint("Offer http/1.1 or x-amzn-http-ca for HTTP, x-amzn-mqtt-ca or mqtt for MQTT; no ALPN at all means HTTP on this port.")
}

// unrecognizedName makes crypto/tls send the alert of that name, because it has
// no certificates.
var unrecognizedName = &tls.Config{MinVersion: tls.VersionTLS12}

// The alerts by which a device says that it won't talk to this server, in the words
// of crypto/tls.
const (
	alertUnknownCA          = "remote error: tls: unknown certificate authority"
	alertBadCertificate     = "remote error: tls: bad certificate"
	alertUnknownCertificate = "remote error: tls: unknown certificate"
	alertExpiredCertificate = "remote error: tls: expired certificate"
)

// explain puts a failed handshake into the table's words.
func (h *handshake) explain(err error) error {
	var record tls.RecordHeaderError
	var network net.Error
	text := err.Error()
	switch {
	case h.refusal != nil:
		return h.refusal
	case errors.As(err, &record):
		return imprint.Errorf(imprint.CodeNotTLS, "the first bytes were %x: %w", record.RecordHeader, err)
	case errors.As(err, &network) && network.Timeout():
		return imprint.Errorf(imprint.CodeHandshakeTimeout, "the handshake wasn't complete after %s", h.gateway.opts.HandshakeTimeout)
	case errors.Is(err, net.ErrClosed):
		return imprint.Errorf(imprint.CodeServerShutdown, "the server is shutting down")
	case strings.Contains(text, alertUnknownCA):
		return imprint.Errorf(imprint.CodeHandshakeFailed, "the device doesn't trust this server's root: %w", err).
			WithHint("Give the device this server's roots, the file that imprint env names as IMPRINT_CA.")
	case strings.Contains(text, alertBadCertificate), strings.Contains(text, alertUnknownCertificate):
		return imprint.Errorf(imprint.CodeHandshakeFailed, "the device doesn't accept this server's certificate: %w", err).
			WithHint("Set the device's clock (one that was never set is before the certificate's time), give it the roots that imprint env names as IMPRINT_CA, and an endpoint that the server's certificate names.")
	case strings.Contains(text, alertExpiredCertificate):
		return imprint.Errorf(imprint.CodeHandshakeFailed, "the device takes this server's certificate for one outside its validity: %w", err).
			WithHint("Set the device's clock; if it is right, look at the server's certificate: imprint doctor --endpoint HOST:PORT")
	case strings.Contains(text, "client didn't provide a certificate"):
		return imprint.Errorf(imprint.CodeNoClientCertificate, "%w", err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return imprint.Errorf(imprint.CodeHandshakeFailed, "the device closed the connection during the handshake").
			WithHint("The device may not trust this server's root and say nothing about it; or something that isn't a device looked at the port.")
	case strings.Contains(text, "unsupported versions"), strings.Contains(text, "no cipher suite supported"):
		return imprint.Errorf(imprint.CodeHandshakeFailed, "%w", err).WithHint("%s", h.gateway.opts.SecurityPolicy.hint())
	case errors.Is(err, errChainTooLong):
		return imprint.Errorf(imprint.CodeHandshakeFailed, "%w", err).
			WithHint("Only the first certificate counts: let the device send it alone, or with the CA certificate that signed it.")
	case strings.Contains(text, "invalid signature by the client certificate"):
		return imprint.Errorf(imprint.CodeHandshakeFailed, "%w", err).
			WithHint("The device's key doesn't belong to its certificate: compare openssl x509 -pubkey with openssl pkey -pubout.")
	case strings.Contains(text, "failed to parse"), strings.Contains(text, "client certificate"):
		return imprint.Errorf(imprint.CodeHandshakeFailed, "%w", err).
			WithHint("The device's certificate can't be read or used: openssl x509 -in FILE -noout -text.")
	default:
		return imprint.Errorf(imprint.CodeHandshakeFailed, "%w", err)
	}
}

// describeClient names the kind of a client's key.
func describeClient(chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return "none"
	}
	return describeKey(chain[0])
}

func describeKey(cert *x509.Certificate) string {
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return key.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	default:
		return cert.PublicKeyAlgorithm.String()
	}
}
