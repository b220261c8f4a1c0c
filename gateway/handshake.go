package gateway

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

// Chains gives what the server shows, each with the leaf first.
func (c *Certificates) Chains() [][]*x509.Certificate {
	var chains [][]*x509.Certificate
	p := c.current.Load()
	for _, cert := range []*tls.Certificate{p.ecdsa, p.rsa} {
		var chain []*x509.Certificate
		for _, der := range cert.Certificate {
			parsed, err := x509.ParseCertificate(der)
			if err != nil {
				break // devices can't read it either
			}
			chain = append(chain, parsed)
		}
		chains = append(chains, chain)
	}
	return chains
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
	// hello is set once a whole one was read; versions and suites are what it offers.
	hello    bool
	versions []uint16
	suites   []uint16
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
	var paced *pacedConn
	if err == nil {
		h.turn = turn{turnstile: h.gateway.turnstile, deadline: deadline}
		paced = &pacedConn{Conn: conn, turn: &h.turn}
		// Tickets are the business of what configure gives; crypto/tls would make
		// keys for them here.
		tlsConn = tls.Server(paced, &tls.Config{GetConfigForClient: h.configure, SessionTicketsDisabled: true})
		err = tlsConn.Handshake()
		paced.turn = nil
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		failed := h.failure(err, tlsConn, paced)
		h.describeFailed(failed)
		refusal := failed.explain()
		h.rec.FailWith("tls", refusal, failed.wire())
		return nil, refusal
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
	h.rec.OK("tls", "%s, %s, client key %s, %s", version, suiteName(state.CipherSuite),
		describeClient(state.PeerCertificates), shown)
}

// cipherNames are those of crypto/tls, which makes a list of all to find one.
var cipherNames = sync.OnceValue(func() map[uint16]string {
	names := map[uint16]string{}
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		names[suite.ID] = suite.Name
	}
	return names
})

func suiteName(id uint16) string {
	name, known := cipherNames()[id]
	if !known {
		return tls.CipherSuiteName(id)
	}
	return name
}

// configure answers the hello: tenant by server name, application protocol. From
// here on the handshake computes.
func (h *handshake) configure(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	h.serverName = hello.ServerName
	h.hello, h.versions, h.suites = true, hello.SupportedVersions, hello.CipherSuites
	h.rec.Describe(func(a *imprint.Attempt) { a.SNI = imprint.Excerpt(hello.ServerName) })
	tenant, err := h.gateway.rooms.Endpoints.Tenant(hello.ServerName)
	if err != nil && isAddress(hello.ServerName) {
		h.serverName, tenant, err = "", h.gateway.rooms.Endpoints.Home(), nil
	}
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
	switch {
	case h.serverName == "" && hello.ServerName != "":
		h.rec.Info("tls.hello", "the address %s is no server name; tenant %s unless the certificate says otherwise", imprint.Excerpt(hello.ServerName), tenant)
	case h.serverName == "":
		h.rec.Info("tls.hello", "no server name; tenant %s unless the certificate says otherwise", tenant)
	default:
		h.rec.OK("tls.hello", "server name %s, tenant %s", hello.ServerName, tenant)
	}
	err = h.turn.take()
	if err != nil {
		return nil, err
	}
	h.session = h.profile.borrow()
	return h.session.config, nil
}

// isAddress says whether a server name is an IP address, which the extension can't carry
// (RFC 6066, 3): clients that send what they connect to, such as mosquitto, mean no name.
func isAddress(serverName string) bool {
	_, err := netip.ParseAddr(serverName)
	return err == nil
}

// speaks tells whether a profile speaks one of the application protocols.
func (p *tlsProfile) speaks(offered []string) bool {
	return slices.ContainsFunc(offered, func(name string) bool { return slices.Contains(p.protocols, name) })
}

func (h *handshake) unknownProtocols(offered []string) error {
	err := imprint.Errorf(imprint.CodeALPNUnknown, "the device offers only %q", offered)
	switch {
	case h.profile == h.https:
	case slices.Contains(offered, "http/1.1"), slices.Contains(offered, "h2"):
		return err.WithHint("Offer x-amzn-mqtt-ca, mqtt, or no ALPN at all: this port speaks MQTT. %s", onHTTPS)
	default:
		return err
	}
	return err.WithHint("Offer http/1.1 or x-amzn-http-ca for HTTP, x-amzn-mqtt-ca or mqtt for MQTT; no ALPN at all means HTTP on this port.")
}

// unrecognizedName makes crypto/tls send the alert of that name, because it has
// no certificates.
var unrecognizedName = &tls.Config{MinVersion: tls.VersionTLS12}

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
