package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// alertNumbers finds the number of an alert by its text: crypto/tls keeps the
// type of those that a peer sent to itself. It is never written to.
var alertNumbers = func() map[string]int {
	m := map[string]int{}
	for n := range 256 {
		m[tls.AlertError(n).Error()] = n
	}
	return m
}()

// alertOf gives the alert that a peer sent.
func alertOf(err error) (int, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return 0, false
	}
	n, known := alertNumbers[op.Err.Error()]
	return n, known
}

// Alerts of TLS (RFC 8446 section 6.2).
const (
	alertHandshakeFailure    = 40
	alertBadCertificate      = 42
	alertUnsupportedCert     = 43
	alertCertRevoked         = 44
	alertCertExpired         = 45
	alertCertUnknown         = 46
	alertUnknownCA           = 48
	alertAccessDenied        = 49
	alertDecryptError        = 51
	alertProtocolVersion     = 70
	alertInsufficientSecure  = 71
	alertUnrecognizedName    = 112
	alertCertRequired        = 116
	alertNoApplicationProtoc = 120
)

// aboutClient says whether an alert is about the device's certificate. In TLS 1.2
// there is no alert of its own for a missing certificate.
func aboutClient(code Code) bool {
	switch code {
	case ClientCertMissing, ClientCertRefused, ClientCertExpired, ClientCertRevoked, ClientCARefused, ClientKeyRefused:
		return true
	}
	return false
}

// tlsTrouble translates the end of a handshake, or of a connection.
func (x *examination) tlsTrouble(o *outcome) *finding {
	if !o.dialed {
		return dialTrouble(x.address, o.err)
	}
	if n, is := alertOf(o.err); is {
		return x.alert(n, o)
	}
	var record tls.RecordHeaderError
	var network net.Error
	text := o.err.Error()
	switch {
	case errors.Is(o.err, errTooMuch):
		return found(TLSTooMuch, "%v", o.err)
	case errors.As(o.err, &record), len(o.head) > 0 && !tlsBytes(o.head):
		return notTLS(o.head)
	case errors.Is(o.err, os.ErrDeadlineExceeded), errors.Is(o.err, context.DeadlineExceeded), errors.As(o.err, &network) && network.Timeout():
		if len(o.head) == 0 {
			return found(TLSTimeout, "the server accepts the connection and says nothing for %s", x.opts.Timeout)
		}
		return found(TLSTimeout, "the handshake wasn't complete after %s", x.opts.Timeout)
	case errors.Is(o.err, io.EOF), errors.Is(o.err, io.ErrUnexpectedEOF), errors.Is(o.err, syscall.ECONNRESET), errors.Is(o.err, syscall.EPIPE):
		if len(o.head) == 0 {
			f := found(TLSClosed, "the server closed the connection at the first bytes of TLS")
			if x.at.port == 1883 {
				f.with("Port 1883 speaks MQTT without TLS: --endpoint %s", net.JoinHostPort(x.at.host, "8883"))
			}
			return f
		}
		return found(TLSClosed, "the server closed the connection in the middle of the handshake")
	case strings.Contains(text, "certificate's signature algorithms"):
		return found(ClientCertRefused, "the server's TLS library can't use the device's key (%s)", describeKey(x.leaf.PublicKey)).
			with("Use a P-256 or RSA key for the device.")
	case strings.Contains(text, "unsupported versions"), strings.Contains(text, "protocol version not supported"), strings.Contains(text, "selected unsupported protocol version"):
		return found(TLSVersionRefused, "the server answers with a TLS version that wasn't offered")
	case strings.Contains(text, "unadvertised ALPN"):
		return found(TLSBroken, "the server chose an application protocol that wasn't offered")
	}
	return found(TLSBroken, "the handshake can't go on: %s", shown(text))
}

// alert says what an alert means here.
func (x *examination) alert(n int, o *outcome) *finding {
	name := strings.TrimPrefix(tls.AlertError(n).Error(), "tls: ")
	code := TLSRefused
	switch n {
	case alertUnrecognizedName:
		code = ServerNameRefused
	case alertNoApplicationProtoc:
		code = ALPNRefused
	case alertProtocolVersion, alertInsufficientSecure:
		code = TLSVersionRefused
	case alertCertRequired:
		code = ClientCertMissing
	case alertBadCertificate, alertUnsupportedCert, alertCertUnknown, alertAccessDenied:
		code = ClientCertRefused
	case alertCertRevoked:
		code = ClientCertRevoked
	case alertCertExpired:
		code = ClientCertExpired
	case alertUnknownCA:
		code = ClientCARefused
	case alertDecryptError:
		code = ClientKeyRefused
	case alertHandshakeFailure:
		// Before the server's certificate: nothing in common. After it, and after
		// the server asked for one: the certificate that it was given, or wasn't.
		code = TLSVersionRefused
		if o.asked {
			code = ClientCertRefused
		}
	}
	if code == ClientCertRefused && !o.sent {
		code = ClientCertMissing
	}
	if aboutClient(code) && !o.asked && !o.complete {
		// The server judges a certificate that it never asked for: it means another.
		code = TLSRefused
	}
	f := found(code, "the server sent the alert %q (%d)", name, n)
	switch code {
	case ServerNameRefused:
		f.detail += ": it doesn't know the server name " + shown(x.serverName)
		if x.serverName == "" {
			f.detail = "the server sent the alert " + name + ": it wants a server name"
		}
		f.fix = x.nameFix()
	case ALPNRefused:
		if len(o.offered) == 0 {
			break
		}
		f.detail += ": it doesn't speak " + shown(strings.Join(o.offered, ", "))
	}
	return f
}

// nameFix says which name to connect to.
func (x *examination) nameFix() string {
	if x.opts.ServerName != "" {
		return "Leave --server-name out, so that the endpoint's own name is sent; or give one that the server knows."
	}
	return ""
}

// tlsBytes says whether bytes can begin a TLS record: handshake or alert, of a
// version 3.x.
func tlsBytes(head []byte) bool {
	return (head[0] == 0x16 || head[0] == 0x15) && (len(head) < 2 || head[1] == 3)
}

// notTLS says what the first bytes look like.
func notTLS(head []byte) *finding {
	text := string(head)
	switch {
	case strings.HasPrefix(text, "HTTP/"):
		return found(NotTLS, "the server answers with HTTP without TLS").with("Look at the port: 8883 speaks MQTT over TLS.")
	case strings.HasPrefix(text, "SSH-"):
		return found(NotTLS, "the server speaks SSH").with("Look at the port: 8883 speaks MQTT over TLS.")
	case len(head) > 0 && head[0] == 0x20:
		return found(NotTLS, "the server answers with MQTT without TLS").with("Look at the port: 8883 speaks MQTT over TLS.")
	}
	return found(NotTLS, "the first bytes of the server are no TLS: %x", head[:min(len(head), 8)])
}
