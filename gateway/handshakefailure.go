package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/tlsalert"
	"github.com/imprint-iot/imprint/pki"
)

// handshakeFailure is what is known of a TLS handshake that died.
type handshakeFailure struct {
	*handshake
	err   error
	state tls.ConnectionState
	// received and sent are the numbers of alerts (RFC 8446 section 6); 0: none. A
	// handshake never dies of close_notify, which is 0.
	received, sent uint8
}

func (h *handshake) failure(err error, conn *tls.Conn, socket *pacedConn) *handshakeFailure {
	f := &handshakeFailure{handshake: h, err: err}
	if conn == nil {
		return f
	}
	f.state = conn.ConnectionState()
	f.received, f.sent = tlsalert.Received(err), socket.sent
	if f.received == 0 {
		f.received = socket.alert
	}
	if f.sent == 0 && f.received == 0 && f.state.Version == tls.VersionTLS13 {
		f.sent = sealedAlert(err.Error())
	}
	return f
}

// sealedAlert is the number of the alert that crypto/tls sends, encrypted, when it ends
// a handshake of TLS 1.3 behind ServerHello, by its error; 0: another error.
func sealedAlert(text string) uint8 {
	for _, row := range []struct {
		part   string
		number uint8
	}{
		{"client didn't provide a certificate", 116},
		{"invalid signature by the client certificate", 51},
		{"client certificate used with invalid signature algorithm", 47},
		{"failed to parse client certificate", 50},
		{"client sent certificate containing RSA key larger", 42},
		{"client certificate contains an unsupported public key", 43},
	} {
		if strings.Contains(text, row.part) {
			return row.number
		}
	}
	return 0
}

// wire is the alert, as the device's own log has it.
func (f *handshakeFailure) wire() string {
	switch {
	case f.received != 0:
		return "received " + tlsalert.Text(f.received)
	case f.sent != 0:
		return "sent " + tlsalert.Text(f.sent)
	}
	return ""
}

// describeFailed tells the trace what the handshake agreed on before it died, and whose
// certificate was shown: a device with another key than its certificate's is found by
// it, though nothing proves that it is that device.
func (h *handshake) describeFailed(f *handshakeFailure) {
	h.rec.Describe(func(a *imprint.Attempt) {
		if f.state.Version != 0 {
			a.TLSVersion = tls.VersionName(f.state.Version)
		}
		a.ALPN = f.state.NegotiatedProtocol
		if len(f.state.PeerCertificates) > 0 {
			leaf := f.state.PeerCertificates[0]
			a.CertificateID = pki.CertificateID(leaf.Raw)
			a.Serial = imprint.Excerpt(pki.SerialHex(leaf.SerialNumber))
			a.Subject = pki.SubjectText(leaf.RawSubject)
		}
	})
}

// explain puts the failure into the table's words.
func (f *handshakeFailure) explain() *imprint.Error {
	var record tls.RecordHeaderError
	var network net.Error
	text := f.err.Error()
	switch {
	case f.refusal != nil:
		return asRefusal(f.refusal)
	case f.received != 0:
		return f.refusedByDevice()
	case errors.As(f.err, &record):
		return notTLS(record)
	case errors.As(f.err, &network) && network.Timeout():
		return imprint.Errorf(imprint.CodeHandshakeTimeout, "the handshake wasn't complete after %s", f.gateway.opts.HandshakeTimeout)
	case errors.Is(f.err, net.ErrClosed):
		return imprint.Errorf(imprint.CodeServerShutdown, "the server is shutting down")
	case strings.Contains(text, "client didn't provide a certificate"):
		return imprint.Errorf(imprint.CodeNoClientCertificate, "%w", f.err)
	case errors.Is(f.err, io.EOF), errors.Is(f.err, io.ErrUnexpectedEOF), errors.Is(f.err, syscall.ECONNRESET), errors.Is(f.err, syscall.EPIPE):
		return f.closed()
	case strings.Contains(text, "unsupported versions"):
		return imprint.Errorf(imprint.CodeTLSVersion, "the device speaks %s alone, and the server's security policy %s takes %s", versionNames(f.versions),
			f.gateway.opts.SecurityPolicy, f.gateway.opts.SecurityPolicy.versions()).WithHint("%s", f.gateway.opts.SecurityPolicy.hint())
	case strings.Contains(text, "no cipher suite supported"):
		return imprint.Errorf(imprint.CodeCipherSuite, "the device offers none of the cipher suites of the server's security policy %s, but %s", f.gateway.opts.SecurityPolicy,
			suiteNames(f.suites)).WithHint("%s", f.gateway.opts.SecurityPolicy.hint())
	}
	return f.badCertificate(text)
}

// onHTTPS says where HTTP is spoken.
const onHTTPS = "HTTPS is on a port of its own (--https-address, 8443 unless it says otherwise)."

// notTLS says what the first bytes look like.
func notTLS(record tls.RecordHeaderError) *imprint.Error {
	err := imprint.Errorf(imprint.CodeNotTLS, "the first bytes were %x: %w", record.RecordHeader, record)
	for _, method := range []string{"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS "} {
		start := method[:min(len(method), len(record.RecordHeader))]
		if strings.HasPrefix(string(record.RecordHeader[:]), start) {
			return err.WithHint("HTTP must be spoken over TLS: https://. %s", onHTTPS)
		}
	}
	return err
}

func asRefusal(err error) *imprint.Error {
	var known *imprint.Error
	if errors.As(err, &known) {
		return known
	}
	return &imprint.Error{Code: imprint.CodeInternal, Err: err}
}

// closed says how far a device came that hung up without a word.
func (f *handshakeFailure) closed() *imprint.Error {
	if !f.hello {
		return imprint.Errorf(imprint.CodeClosedInHandshake, "the device closed the connection before its TLS hello was complete").
			WithHint("Something that isn't a device may have looked at the port, such as a health check; of a device, look at its link and its power.")
	}
	return imprint.Errorf(imprint.CodeClosedInHandshake, "the device closed the connection after the server's certificate was sent to it, without an alert")
}

// refusedByDevice puts the alert of a device that won't talk to this server into words.
func (f *handshakeFailure) refusedByDevice() *imprint.Error {
	alert := tlsalert.Text(f.received)
	invalid := f.gateway.rooms.Certificates.outside(f.gateway.rooms.Clock())
	switch f.received {
	case 42, 43, 44, 45, 46, 48:
		if invalid != "" {
			return imprint.Errorf(imprint.CodeServerCertInvalid, "the device doesn't accept this server's certificate, which %s: it sent %s", invalid, alert)
		}
	}
	switch f.received {
	case 48:
		return imprint.Errorf(imprint.CodeServerNotTrusted, "the device doesn't trust this server's root: it sent %s", alert)
	case 42, 43, 44, 46:
		return imprint.Errorf(imprint.CodeServerCertRefused, "the device doesn't accept this server's certificate: it sent %s", alert)
	case 45:
		return imprint.Errorf(imprint.CodeDeviceClock, "the device takes this server's certificate for one outside its validity: it sent %s", alert)
	}
	return imprint.Errorf(imprint.CodeHandshakeFailed, "the device ended the handshake: it sent %s", alert)
}

// badCertificate explains what is wrong with what the device showed.
func (f *handshakeFailure) badCertificate(text string) *imprint.Error {
	chain := f.state.PeerCertificates
	switch {
	case errors.Is(f.err, errChainTooLong):
		return imprint.Errorf(imprint.CodeClientCertificate, "%w", f.err).
			WithHint("Only the first certificate counts: let the device send it alone, or with the CA certificate that signed it.")
	case strings.Contains(text, "invalid signature by the client certificate"):
		shown := ""
		if len(chain) > 0 {
			shown = fmt.Sprintf(" of certificate %s: subject %q, %s", pki.CertificateID(chain[0].Raw), pki.SubjectText(chain[0].RawSubject), shownBy(chain))
		}
		refusal := imprint.Errorf(imprint.CodeClientKey, "the device's signature isn't by the key%s", shown)
		if len(chain) > 1 && (chain[0].IsCA || !chain[1].IsCA) {
			return refusal.WithHint("The device's own certificate must stand first in the chain that it sends, and its CA behind it: turn the file round.")
		}
		return refusal
	case strings.Contains(text, "failed to parse"), strings.Contains(text, "client certificate"), strings.Contains(text, "client sent certificate"):
		return imprint.Errorf(imprint.CodeClientCertificate, "%w", f.err)
	default:
		return imprint.Errorf(imprint.CodeHandshakeFailed, "%w", f.err)
	}
}

// outside says why a certificate of the server isn't valid at a time; empty: all are.
func (c *Certificates) outside(now time.Time) string {
	p := c.current.Load()
	for _, cert := range []*tls.Certificate{p.ecdsa, p.rsa} {
		switch {
		case cert.Leaf == nil:
		case now.After(cert.Leaf.NotAfter):
			return "expired at " + cert.Leaf.NotAfter.UTC().Format(time.RFC3339)
		case now.Before(cert.Leaf.NotBefore):
			return "is valid from " + cert.Leaf.NotBefore.UTC().Format(time.RFC3339) + " on only, by the server's clock"
		}
	}
	return ""
}

// maxNamed bounds what is listed of an offer.
const maxNamed = 8

// versionNames names TLS versions, without the values that mean nothing (RFC 8701).
func versionNames(versions []uint16) string {
	return namesOf(versions, tls.VersionName)
}

func suiteNames(suites []uint16) string {
	return namesOf(suites, tls.CipherSuiteName)
}

func namesOf(values []uint16, name func(uint16) string) string {
	var names []string
	more := 0
	for _, v := range values {
		const grease = 0x0a0a
		if v&0x0f0f == grease && v>>8 == v&0xff || slices.Contains(names, name(v)) {
			continue
		}
		if len(names) == maxNamed {
			more++
			continue
		}
		names = append(names, name(v))
	}
	switch {
	case len(names) == 0:
		return "nothing"
	case more > 0:
		return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), more)
	}
	return strings.Join(names, ", ")
}
