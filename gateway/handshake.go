package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/trace"
)

// Application protocols of the MQTT door (AWS IoT Core developer guide,
// "Device communication protocols").
var mqttProtocols = []string{"x-amzn-mqtt-ca", "mqtt"}

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
	gateway    *Gateway
	rec        *trace.Recorder
	tenant     imprint.Tenant
	serverName string
	// refusal is set when the hello itself is refused.
	refusal error
}

// run completes TLS. Errors are *imprint.Error, recorded.
func (h *handshake) run(ctx context.Context, conn net.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, h.gateway.opts.HandshakeTimeout)
	defer cancel()
	tlsConn := tls.Server(conn, &tls.Config{GetConfigForClient: h.configure})
	err := tlsConn.HandshakeContext(ctx)
	if err != nil {
		err = h.explain(ctx, err)
		h.rec.Fail("tls", err)
		return nil, err
	}
	state := tlsConn.ConnectionState()
	leaf := state.PeerCertificates[0]
	version := tls.VersionName(state.Version)
	h.rec.Describe(func(a *imprint.Attempt) {
		a.ALPN = state.NegotiatedProtocol
		a.TLSVersion = version
	})
	h.rec.OK("tls", "%s, %s, client key %s, %d certificate(s) sent", version, tls.CipherSuiteName(state.CipherSuite),
		describeKey(leaf), len(state.PeerCertificates))
	return tlsConn, nil
}

// configure answers the hello: tenant by server name, application protocol.
func (h *handshake) configure(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	h.serverName = hello.ServerName
	h.rec.Describe(func(a *imprint.Attempt) { a.SNI = hello.ServerName })
	tenant, err := h.gateway.rooms.Endpoints.Tenant(hello.ServerName)
	if err != nil {
		h.refusal = err
		// A configuration without certificates makes crypto/tls send the alert
		// unrecognized_name.
		return &tls.Config{MinVersion: tls.VersionTLS12}, nil
	}
	h.tenant = tenant
	if len(hello.SupportedProtos) > 0 && !slices.ContainsFunc(hello.SupportedProtos, func(p string) bool { return slices.Contains(mqttProtocols, p) }) {
		h.refusal = imprint.Errorf(imprint.CodeALPNUnknown, "the device offers only %s", strings.Join(hello.SupportedProtos, ", "))
	}
	if h.serverName == "" {
		h.rec.Info("tls.hello", "no server name; tenant %s unless the certificate says otherwise", tenant)
	} else {
		h.rec.OK("tls.hello", "server name %s, tenant %s", hello.ServerName, tenant)
	}
	return h.gateway.tlsConfig(), nil
}

// tlsConfig is the configuration of the MQTT door.
func (g *Gateway) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		ClientAuth:     tls.RequireAnyClientCert,
		GetCertificate: g.rooms.Certificates.Get,
		NextProtos:     mqttProtocols,
		// A resumed session would skip the look at the certificate.
		SessionTicketsDisabled: true,
	}
}

// explain puts a failed handshake into the table's words.
func (h *handshake) explain(ctx context.Context, err error) error {
	var record tls.RecordHeaderError
	var network net.Error
	switch {
	case h.refusal != nil:
		return h.refusal
	case errors.As(err, &record):
		return imprint.Errorf(imprint.CodeNotTLS, "the first bytes were %x: %w", record.RecordHeader, err)
	case ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &network) && network.Timeout():
		return imprint.Errorf(imprint.CodeHandshakeTimeout, "the handshake wasn't complete after %s", h.gateway.opts.HandshakeTimeout)
	case strings.Contains(err.Error(), "client didn't provide a certificate"):
		return imprint.Errorf(imprint.CodeNoClientCertificate, "%w", err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return imprint.Errorf(imprint.CodeHandshakeFailed, "the device closed the connection during the handshake").
			WithHint("The device may not trust this server's root and say nothing about it; or something that isn't a device looked at the port.")
	default:
		return imprint.Errorf(imprint.CodeHandshakeFailed, "%w", err)
	}
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
