package gateway_test

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/gateway"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/pki"
)

const jitp = `{"Parameters":{"AWS::IoT::Certificate::CommonName":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},
 "Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"}}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}},
 "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"all"}}}}`

const otherName = "bbbbbbbbbbbbbb-ats.iot.eu-west-1.localhost"

func TestHandshakesThatDieLeaveAStepWithAFix(t *testing.T) {
	t.Parallel()
	device := selfSigned(ecdsaKey(), "device")
	// crypto/tls looks whether key and certificate fit, unless it isn't told of the leaf.
	wrongKey := tls.Certificate{Certificate: device.Certificate, PrivateKey: ecdsaKey()}
	unreadable := tls.Certificate{Certificate: [][]byte{[]byte("no DER")}, PrivateKey: ecdsaKey(), Leaf: device.Leaf}
	w := newWorld(t, settings{options: gateway.Options{HandshakeTimeout: 100 * time.Millisecond}})
	patient := newWorld(t, settings{})
	for _, row := range []struct {
		name  string
		world *world
		say   []byte      // raw bytes
		tls   *tls.Config // or a handshake
		code  imprint.Code
		alert string
		hang  bool  // the client stays silent after its bytes
		ends  uint8 // the client ends the handshake with this alert, in the clear as OpenSSL does
		mute  bool  // the client closes instead of its second flight
		wire  string
		says  string // part of the detail
		fix   string // part of the fix
	}{
		{name: "an unknown server name", tls: client("elsewhere.example.com", device), code: imprint.CodeSNIUnknown, alert: "unrecognized name", wire: "sent TLS alert 112 (unrecognized_name)"},
		{name: "no client certificate", tls: client("localhost"), code: imprint.CodeNoClientCertificate, alert: "certificate required", wire: "sent TLS alert 116 (certificate_required)"},
		{name: "no client certificate, TLS 1.2", tls: &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, code: imprint.CodeNoClientCertificate, alert: "handshake failure", wire: "sent TLS alert 40 (handshake_failure)"},
		{name: "only other protocols", tls: &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, NextProtos: []string{"h2", "x"}}, code: imprint.CodeALPNUnknown, alert: "no application protocol", wire: "sent TLS alert 120 (no_application_protocol)", fix: "this port speaks MQTT. HTTPS is on a port of its own (--https-address"},
		{name: "a client that doesn't trust the server", tls: &tls.Config{ServerName: "localhost", Certificates: []tls.Certificate{device}}, code: imprint.CodeServerCertRefused, alert: "unknown authority", wire: "received TLS alert 42 (bad_certificate)"},
		{name: "a client whose clock is ahead", tls: &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, Certificates: []tls.Certificate{device}}, ends: 45, code: imprint.CodeDeviceClock, wire: "received TLS alert 45 (certificate_expired)"},
		{name: "a client without the root", ends: 48, tls: client("localhost", device), code: imprint.CodeServerNotTrusted, wire: "received TLS alert 48 (unknown_ca)"},
		{name: "a client that tells something else", ends: 80, tls: client("localhost", device), code: imprint.CodeHandshakeFailed, wire: "received TLS alert 80 (internal_error)"},
		{name: "another key", tls: client("localhost", wrongKey), code: imprint.CodeClientKey, alert: "error decrypting message", wire: "sent TLS alert 51 (decrypt_error)", says: "CN=device"},
		{name: "another key, TLS 1.2", tls: &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{wrongKey}}, code: imprint.CodeClientKey, alert: "error decrypting message", wire: "sent TLS alert 51 (decrypt_error)"},
		{name: "what is no certificate", tls: client("localhost", unreadable), code: imprint.CodeClientCertificate, alert: "error decoding message", wire: "sent TLS alert 50 (decode_error)"},
		{name: "no shared cipher suite", tls: &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}}, code: imprint.CodeCipherSuite, alert: "handshake failure", wire: "sent TLS alert 40 (handshake_failure)", says: "TLS_RSA_WITH_3DES_EDE_CBC_SHA"},
		{name: "TLS 1.1", tls: &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, code: imprint.CodeTLSVersion, alert: "protocol version", wire: "sent TLS alert 70 (protocol_version)", says: "the device speaks TLS 1.1, TLS 1.0 alone"},
		{name: "plain MQTT", say: connectPacket, code: imprint.CodeNotTLS, fix: "plain MQTT is never accepted"},
		{name: "HTTP", say: []byte("GET / HTTP/1.1\r\n\r\n"), code: imprint.CodeNotTLS, fix: "https://. HTTPS is on a port of its own"},
		{name: "HTTP with a body", say: []byte("POST /topics/a HTTP/1.1\r\n\r\n"), code: imprint.CodeNotTLS, fix: "https://"},
		{name: "nothing but a close", say: []byte{}, code: imprint.CodeClosedInHandshake, says: "before its TLS hello"},
		{name: "half a hello and a close", say: []byte{22, 3, 1, 0, 200, 1}, code: imprint.CodeClosedInHandshake, says: "before its TLS hello"},
		{name: "a close when the server's certificate came", tls: client("localhost", device), mute: true, code: imprint.CodeClosedInHandshake, says: "after the server's certificate"},
		{name: "half a hello and silence", world: w, say: []byte{22, 3, 1, 0, 200, 1}, hang: true, code: imprint.CodeHandshakeTimeout},
		{name: "silence", world: w, hang: true, code: imprint.CodeHandshakeTimeout},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if row.world == nil {
				row.world = patient
			}
			conn := row.world.dial(t)
			switch {
			case row.ends != 0 || row.mute:
				err := tls.Client(&curtConn{Conn: conn, alert: row.ends}, row.tls).Handshake()
				if err == nil {
					t.Error("the client's handshake was completed")
				}
			case row.tls != nil:
				secure := tls.Client(conn, row.tls)
				err := secure.Handshake()
				if err == nil {
					_, err = secure.Read(make([]byte, 1)) // TLS 1.3 tells of the certificate later
				}
				if err == nil || !contains(err.Error(), row.alert) {
					t.Errorf("the client got %v, want %q", err, row.alert)
				}
			default:
				_, err := conn.Write(row.say)
				if err != nil {
					t.Fatal(err)
				}
				if row.hang {
					_, _ = io.Copy(io.Discard, conn) // ends when the server closes
				}
			}
			_ = conn.Close()
			a := row.world.attempt(t, conn)
			wantRefused(t, a, "tls", row.code)
			if a.Outcome != imprint.OutcomeRefused {
				t.Errorf("got outcome %s, want %s", a.Outcome, imprint.OutcomeRefused)
			}
			last := a.Steps[len(a.Steps)-1]
			if last.Wire != row.wire || !strings.Contains(last.Detail, row.says) || !strings.Contains(last.Fix, row.fix) {
				t.Errorf("got wire %q, detail %q and fix %q, want %q, %q and %q", last.Wire, last.Detail, last.Fix, row.wire, row.says, row.fix)
			}
		})
	}
}

// curtConn sends a client's hello, and an alert, if any, or nothing instead of what comes
// then.
type curtConn struct {
	net.Conn
	alert uint8
	said  bool
}

func (c *curtConn) Write(b []byte) (int, error) {
	if !c.said {
		c.said = true
		return c.Conn.Write(b)
	}
	if c.alert != 0 {
		_, _ = c.Conn.Write([]byte{21, 3, 3, 0, 2, 2, c.alert})
		c.alert = 0
	}
	return 0, net.ErrClosed
}

// TestADeviceWithAnotherKeyIsFoundByItsCertificate ensures that what a device showed
// leads to its attempt, though it didn't prove that it holds the key, and that a chain
// that is the wrong way round is told as such.
func TestADeviceWithAnotherKeyIsFoundByItsCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	cert := issue(ecdsaKey(), "device", w.ca)
	ca := w.ca.cert.Raw
	for _, row := range []struct {
		name  string
		chain [][]byte
		fix   string
	}{
		{"leaf first", [][]byte{cert.Certificate[0], ca}, "openssl pkey -pubout"},
		{"CA first", [][]byte{ca, cert.Certificate[0]}, "must stand first"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			conn := w.dial(t)
			key := cert.PrivateKey
			if row.name == "leaf first" {
				key = ecdsaKey()
			}
			secure := tls.Client(conn, client("localhost", tls.Certificate{Certificate: row.chain, PrivateKey: key}))
			_ = secure.Handshake()
			_, err := secure.Read(make([]byte, 1))
			if err == nil {
				t.Fatal("the connection was taken")
			}
			a := w.attempt(t, conn)
			wantRefused(t, a, "tls", imprint.CodeClientKey)
			if a.CertificateID != pki.CertificateID(row.chain[0]) || a.TLSVersion != "TLS 1.3" || a.Serial == "" || a.Subject == "" {
				t.Errorf("got %+v", a)
			}
			if last := a.Steps[len(a.Steps)-1]; !strings.Contains(last.Fix, row.fix) || !strings.Contains(last.Detail, "valid from") {
				t.Errorf("got detail %q, fix %q, want %q", last.Detail, last.Fix, row.fix)
			}
		})
	}
}

// TestTheTraceSaysWhatARegisteredDeviceShowed ensures that issuer, validity and chain of
// a registered certificate are told, also when it may not come in.
func TestTheTraceSaysWhatARegisteredDeviceShowed(t *testing.T) {
	t.Parallel()
	for _, status := range []imprint.CertificateStatus{imprint.CertificateActive, imprint.CertificateRevoked} {
		t.Run(string(status), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{})
			cert := issue(ecdsaKey(), "device", w.ca)
			w.register(t, home, cert, imprint.ModeDefault, status)
			cert.Certificate = append(cert.Certificate, w.ca.cert.Raw)
			conn, _, _ := w.connect(t, client("localhost", cert))
			var told string
			for _, s := range w.attempt(t, conn).Steps {
				if s.Name == "certificate" {
					told = s.Detail
				}
			}
			ca := strconv.Quote(pki.SubjectText(w.ca.cert.RawSubject))
			want := "issuer " + ca + ", valid from " + cert.Leaf.NotBefore.UTC().Format(time.RFC3339) + " until " + cert.Leaf.NotAfter.UTC().Format(time.RFC3339) + "; sent with " + ca
			if !strings.Contains(told, want) {
				t.Errorf("got %q, want %q in it", told, want)
			}
		})
	}
}

func contains(s, part string) bool {
	for i := 0; i+len(part) <= len(s); i++ {
		if s[i:i+len(part)] == part {
			return true
		}
	}
	return false
}

func TestKeysVersionsAndProtocolsThatConnect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	keys := map[string]crypto.Signer{}
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = key
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys["RSA 2048"], keys["Ed25519"] = rsaKey, edKey
	for name, key := range keys {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+" "+tls.VersionName(version), func(t *testing.T) {
				t.Parallel()
				cert := selfSigned(key, name)
				w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
				config := client("localhost", cert)
				config.MinVersion, config.MaxVersion = version, version
				config.NextProtos = []string{"x-amzn-mqtt-ca"}
				conn, accepted, err := w.connect(t, config)
				if err != nil || !accepted {
					t.Fatalf("accepted %t, %v, want true", accepted, err)
				}
				a := w.attempt(t, conn)
				if a.Outcome == imprint.OutcomeRefused || a.TLSVersion != tls.VersionName(version) || a.ALPN != "x-amzn-mqtt-ca" || a.SNI != "localhost" || a.Tenant != home {
					t.Errorf("got %+v", a)
				}
				if a.Subject != "CN="+name || !contains(a.Steps[1].Detail, "client key "+name) {
					t.Errorf("got subject %q and step %q", a.Subject, a.Steps[1].Detail)
				}
			})
		}
	}
}

// The server shows a certificate that the client can check, and a replaced one
// to new connections only.
func TestServerCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	cert := selfSigned(ecdsaKey(), "device")
	w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
	rsaOnly := client("localhost", cert)
	rsaOnly.MaxVersion = tls.VersionTLS12
	rsaOnly.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	live, accepted, err := w.connect(t, rsaOnly)
	if err != nil || !accepted {
		t.Fatalf("accepted %t, %v", accepted, err)
	}
	if got := live.ConnectionState().PeerCertificates[0].PublicKeyAlgorithm; got != x509.RSA {
		t.Errorf("a client without ECDSA got %s, want RSA", got)
	}
	fresh := selfSigned(ecdsaKey(), "fresh")
	w.certificates.Replace(fresh, fresh)
	next, accepted, err := w.connect(t, client("localhost", selfSigned(ecdsaKey(), "unknown")))
	if err == nil || accepted {
		t.Error("an unknown certificate was accepted")
	}
	if got := next.ConnectionState().PeerCertificates[0].Subject.CommonName; got != "fresh" {
		t.Errorf("a new connection got %q, want the new certificate", got)
	}
	_, err = live.Write([]byte{0xc0, 0}) // PINGREQ
	if err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 2)
	_, err = io.ReadFull(live, answer)
	if err != nil || answer[0] != 0xd0 {
		t.Errorf("the live connection got %x, %v, want PINGRESP", answer, err)
	}
}

func TestCertificatesAreDecidedOnAtConnect(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		put     func(*testing.T, *world, tls.Certificate)
		server  string
		code    imprint.Code // empty: let in
		step    string
		outcome imprint.Outcome
		tenant  imprint.Tenant
	}{
		{name: "ACTIVE", server: "localhost", tenant: home, put: func(t *testing.T, w *world, c tls.Certificate) {
			w.register(t, home, c, imprint.ModeDefault, imprint.CertificateActive)
		}},
		{name: "INACTIVE", server: "localhost", tenant: home, code: imprint.CodeCertificateInactive, step: "certificate", put: func(t *testing.T, w *world, c tls.Certificate) {
			w.register(t, home, c, imprint.ModeDefault, imprint.CertificateInactive)
		}},
		{name: "REVOKED", server: "localhost", tenant: home, code: imprint.CodeCertificateRevoked, step: "certificate", put: func(t *testing.T, w *world, c tls.Certificate) {
			w.register(t, home, c, imprint.ModeDefault, imprint.CertificateRevoked)
		}},
		{name: "in transfer", server: "localhost", tenant: home, code: imprint.CodeCertificateTransfer, step: "certificate", put: func(t *testing.T, w *world, c tls.Certificate) {
			w.register(t, home, c, imprint.ModeDefault, imprint.CertificatePendingTransfer)
		}},
		{name: "registered in the other tenant only", server: "localhost", tenant: home, code: imprint.CodeCANotRegistered, step: "ca", put: func(t *testing.T, w *world, c tls.Certificate) {
			w.register(t, other, c, imprint.ModeDefault, imprint.CertificateActive)
		}},
		{name: "the other tenant by its name", server: otherName, tenant: other, put: func(t *testing.T, w *world, c tls.Certificate) {
			w.register(t, other, c, imprint.ModeSNIOnly, imprint.CertificateActive)
		}},
		{name: "in both tenants, one of them revoked", server: otherName, tenant: other, put: func(t *testing.T, w *world, c tls.Certificate) {
			w.register(t, home, c, imprint.ModeSNIOnly, imprint.CertificateRevoked)
			w.register(t, other, c, imprint.ModeSNIOnly, imprint.CertificateActive)
		}},
		{name: "no name, DEFAULT in the home tenant", tenant: home, put: func(t *testing.T, w *world, c tls.Certificate) {
			w.register(t, home, c, imprint.ModeDefault, imprint.CertificateActive)
		}},
		{name: "no name, DEFAULT in the other tenant", tenant: other, put: func(t *testing.T, w *world, c tls.Certificate) {
			w.register(t, other, c, imprint.ModeDefault, imprint.CertificateActive)
		}},
		{name: "no name, SNI_ONLY", tenant: home, code: imprint.CodeSNIRequired, step: "certificate", put: func(t *testing.T, w *world, c tls.Certificate) {
			w.register(t, home, c, imprint.ModeSNIOnly, imprint.CertificateActive)
		}},
		{name: "no name, SNI_ONLY here and DEFAULT there", tenant: other, put: func(t *testing.T, w *world, c tls.Certificate) {
			w.register(t, home, c, imprint.ModeSNIOnly, imprint.CertificateActive)
			w.register(t, other, c, imprint.ModeDefault, imprint.CertificateActive)
		}},
		{name: "no name, an SNI_ONLY CA", tenant: home, code: imprint.CodeSNIRequired, step: "ca", put: func(t *testing.T, w *world, _ tls.Certificate) {
			w.registerCA(t, home, imprint.ModeSNIOnly, jitp)
		}},
		{name: "unknown", server: "localhost", tenant: home, code: imprint.CodeCANotRegistered, step: "ca", put: func(*testing.T, *world, tls.Certificate) {}},
		{name: "just-in-time registration", server: "localhost", tenant: home, code: imprint.CodeRegisteredPending, step: "activate", put: func(t *testing.T, w *world, _ tls.Certificate) {
			w.registerCA(t, home, imprint.ModeDefault, "")
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{})
			cert := issue(ecdsaKey(), "device", w.ca)
			row.put(t, w, cert)
			conn, accepted, err := w.connect(t, client(row.server, cert))
			if accepted != (row.code == "") {
				t.Errorf("accepted %t, %v, want %t", accepted, err, row.code == "")
			}
			a := w.attempt(t, conn)
			if a.Tenant != row.tenant {
				t.Errorf("got tenant %s, want %s", a.Tenant, row.tenant)
			}
			if row.code != "" {
				wantRefused(t, a, row.step, row.code)
			}
		})
	}
}

// TestMQTT5DevicesAreToldThatTheyAreRefused ensures that a certificate that can't be
// taken in this way is told in a CONNACK as others are.
func TestMQTT5DevicesAreToldThatTheyAreRefused(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, server string
		code         imprint.Code
		put          func(t *testing.T, w *world, c tls.Certificate)
	}{
		{"an SNI_ONLY certificate without a name", "", imprint.CodeSNIRequired, func(t *testing.T, w *world, c tls.Certificate) {
			w.register(t, home, c, imprint.ModeSNIOnly, imprint.CertificateActive)
		}},
		{"a DEFAULT certificate of another account", "localhost", imprint.CodeCertificateConflict, func(t *testing.T, w *world, c tls.Certificate) {
			w.registerCA(t, home, imprint.ModeDefault, jitp)
			w.register(t, imprint.Tenant{Account: "111111111111", Region: home.Region}, c, imprint.ModeDefault, imprint.CertificateActive)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{})
			cert := issue(ecdsaKey(), "device", w.ca)
			row.put(t, w, cert)
			conn := tls.Client(w.dial(t), client(row.server, cert))
			_, err := conn.Write((&mqtt.Connect{ClientID: "device", CleanStart: true, KeepAlive: 600}).Append(nil, mqtt.V5))
			if err != nil {
				t.Fatal(err)
			}
			// Type, length, flags, reason (MQTT 5 section 3.2).
			answer := bufio.NewReader(conn)
			kind, err := answer.ReadByte()
			if err != nil {
				t.Fatalf("no answer came: %v", err)
			}
			_, _ = binary.ReadUvarint(answer)
			_, _ = answer.ReadByte()
			reason, err := answer.ReadByte()
			if err != nil || kind != 0x20 || mqtt.ReasonCode(reason) != mqtt.NotAuthorized {
				t.Errorf("got type %#x, reason %#x, %v; want a CONNACK with %#x", kind, reason, err, byte(mqtt.NotAuthorized))
			}
			a := w.attempt(t, conn)
			if last := a.Steps[len(a.Steps)-1]; last.Code != row.code {
				t.Errorf("the attempt ends with %+v, want %s", last, row.code)
			}
		})
	}
}

func TestFirstAndSecondConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	w.registerCA(t, home, imprint.ModeDefault, jitp)
	cert := issue(ecdsaKey(), "device", w.ca)
	first, accepted, err := w.connect(t, client("localhost", cert))
	if accepted || err == nil {
		t.Fatalf("the first connection was accepted %t, %v", accepted, err)
	}
	if a := w.attempt(t, first); a.Outcome != imprint.OutcomeProvisioned || a.Thing != "device" {
		t.Errorf("got %+v, want it provisioned", a)
	}
	second, accepted, err := w.connect(t, client("localhost", cert))
	if !accepted || err != nil {
		t.Fatalf("the second connection: accepted %t, %v", accepted, err)
	}
	if a := w.attempt(t, second); a.Outcome != imprint.OutcomeConnected || a.Thing != "device" {
		t.Errorf("got %+v, want it connected", a)
	}
}

func TestAHeldFirstConnectionStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{hold: true})
	w.registerCA(t, home, imprint.ModeDefault, jitp)
	_, accepted, err := w.connect(t, client("localhost", issue(ecdsaKey(), "device", w.ca)))
	if !accepted || err != nil {
		t.Fatalf("accepted %t, %v, want true", accepted, err)
	}
}

// TestAnUnknownCertificateIsToldWhole ensures that the trace tells the validity of a
// certificate that nobody registered, and what was sent behind it.
func TestAnUnknownCertificateIsToldWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	leaf := selfSigned(ecdsaKey(), "stranger")
	for n, want := range []string{"; sent without its CA", `; sent with "CN=ca0"`, `; sent with "CN=ca0", "CN=ca1", "CN=ca2", "CN=ca3" and 2 more`} {
		sent := leaf
		for i := range []int{0, 1, 6}[n] {
			sent.Certificate = append(sent.Certificate[:i+1:i+1], selfSigned(ecdsaKey(), fmt.Sprint("ca", i)).Certificate[0])
		}
		conn, accepted, _ := w.connect(t, client("localhost", sent))
		if accepted {
			t.Fatal("a stranger was let in")
		}
		detail := ""
		for _, step := range w.attempt(t, conn).Steps {
			if step.Name == "certificate" {
				detail = step.Detail
			}
		}
		valid := "valid from " + leaf.Leaf.NotBefore.UTC().Format(time.RFC3339) + " until " + leaf.Leaf.NotAfter.UTC().Format(time.RFC3339)
		if !strings.HasSuffix(detail, valid+want) {
			t.Errorf("got %q, want it to end with %q", detail, valid+want)
		}
	}
}
