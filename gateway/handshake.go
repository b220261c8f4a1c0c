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
var httpProtocols = []string{"x-amzn-http-ca", "http/1.1"}

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
	// config is that of MQTT, see tlsConfig; https that of HTTP, nil where it
	// isn't spoken. A hello that offers no protocol of MQTT means HTTP there.
	config, https *tls.Config
	web           bool // HTTP is spoken, set by configure
	rec           *trace.Recorder
	tenant        imprint.Tenant
	serverName    string
	// refusal is set when the hello itself is refused.
	refusal error
}

// run completes TLS. Errors are *imprint.Error, recorded.
func (h *handshake) run(conn net.Conn) (*tls.Conn, error) {
	// A deadline on the socket bounds the whole handshake, however slowly the
	// bytes come; a context would cost a goroutine for each.
	err := conn.SetDeadline(time.Now().Add(h.gateway.opts.HandshakeTimeout))
	var tlsConn *tls.Conn
	if err == nil {
		tlsConn = tls.Server(conn, &tls.Config{GetConfigForClient: h.configure})
		err = tlsConn.Handshake()
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		err = h.explain(err)
		h.rec.Fail("tls", err)
		return nil, err
	}
	state := tlsConn.ConnectionState()
	version := tls.VersionName(state.Version)
	h.rec.Describe(func(a *imprint.Attempt) {
		a.ALPN = state.NegotiatedProtocol
		a.TLSVersion = version
	})
	h.rec.OK("tls", "%s, %s, client key %s, %d certificate(s) sent", version, tls.CipherSuiteName(state.CipherSuite),
		describeClient(state.PeerCertificates), len(state.PeerCertificates))
	return tlsConn, nil
}

// configure answers the hello: tenant by server name, application protocol.
func (h *handshake) configure(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	h.serverName = hello.ServerName
	h.rec.Describe(func(a *imprint.Attempt) { a.SNI = shown(hello.ServerName) })
	tenant, err := h.gateway.rooms.Endpoints.Tenant(hello.ServerName)
	if err != nil {
		h.refusal = err
		return unrecognizedName, nil
	}
	h.tenant = tenant
	h.rec.Describe(func(a *imprint.Attempt) { a.Tenant = tenant })
	config := h.config
	if h.https != nil && !offers(hello, config.NextProtos) {
		config, h.web = h.https, true
	}
	if len(hello.SupportedProtos) > 0 && !offers(hello, config.NextProtos) {
		h.refusal = imprint.Errorf(imprint.CodeALPNUnknown, "the device offers only %q", hello.SupportedProtos)
		if h.web {
			h.refusal = imprint.Errorf(imprint.CodeALPNUnknown, "the device offers only %q", hello.SupportedProtos).
				WithHint("Offer http/1.1 or x-amzn-http-ca for HTTP, x-amzn-mqtt-ca or mqtt for MQTT, or no ALPN at all, which means HTTP on this port.")
		}
	}
	if h.serverName == "" {
		h.rec.Info("tls.hello", "no server name; tenant %s unless the certificate says otherwise", tenant)
	} else {
		h.rec.OK("tls.hello", "server name %s, tenant %s", hello.ServerName, tenant)
	}
	return config, nil
}

// offers tells whether a hello offers one of some protocols.
func offers(hello *tls.ClientHelloInfo, protocols []string) bool {
	return slices.ContainsFunc(hello.SupportedProtos, func(p string) bool { return slices.Contains(protocols, p) })
}

// maxShown bounds what of a peer's text stands in a field of its attempt.
const maxShown = 255

func shown(s string) string {
	if len(s) > maxShown {
		s = s[:maxShown] + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// unrecognizedName makes crypto/tls send the alert of that name, because it has
// no certificates.
var unrecognizedName = &tls.Config{MinVersion: tls.VersionTLS12}

// tlsOptions are what one listener's TLS has of its own.
type tlsOptions struct {
	// protocols are the application protocols that are spoken, the preferred
	// first. A hello that offers none at all is let in; one that offers only
	// others is refused.
	protocols []string
	// clientAuth says whether a client certificate is demanded.
	clientAuth tls.ClientAuthType
}

// tlsConfig makes the configuration of a listener. AWS IoT Core issues no
// session tickets either.
func tlsConfig(certificates *Certificates, o tlsOptions) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		ClientAuth:             o.clientAuth,
		GetCertificate:         certificates.Get,
		NextProtos:             o.protocols,
		SessionTicketsDisabled: true,
	}
}

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
	case strings.Contains(text, "client didn't provide a certificate"):
		return imprint.Errorf(imprint.CodeNoClientCertificate, "%w", err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return imprint.Errorf(imprint.CodeHandshakeFailed, "the device closed the connection during the handshake").
			WithHint("The device may not trust this server's root and say nothing about it; or something that isn't a device looked at the port.")
	case strings.Contains(text, "unsupported versions"):
		return imprint.Errorf(imprint.CodeHandshakeFailed, "%w", err).WithHint("Let the device speak TLS 1.2 or 1.3.")
	case strings.Contains(text, "no cipher suite supported"):
		return imprint.Errorf(imprint.CodeHandshakeFailed, "%w", err).
			WithHint("Let the device offer a suite with ECDHE and AES-GCM or ChaCha20-Poly1305.")
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
