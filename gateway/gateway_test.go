package gateway_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/gateway"
)

const jitp = `{"Parameters":{"AWS::IoT::Certificate::CommonName":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},
 "Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"}}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}},
 "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"all"}}}}`

const otherName = "bbbbbbbbbbbbbb-ats.iot.eu-west-1.localhost"

func TestHandshakesThatDieLeaveAStepWithAFix(t *testing.T) {
	t.Parallel()
	device := selfSigned(ecdsaKey(), "device")
	wrongKey := device
	wrongKey.PrivateKey = ecdsaKey()
	w := newWorld(t, settings{options: gateway.Options{HandshakeTimeout: 100 * time.Millisecond}})
	patient := newWorld(t, settings{})
	for _, row := range []struct {
		name  string
		world *world
		say   []byte      // raw bytes
		tls   *tls.Config // or a handshake
		code  imprint.Code
		alert string
		hang  bool // the client stays silent after its bytes
	}{
		{name: "an unknown server name", tls: client("elsewhere.example.com", device), code: imprint.CodeSNIUnknown, alert: "unrecognized name"},
		{name: "no client certificate", tls: client("localhost"), code: imprint.CodeNoClientCertificate, alert: "certificate required"},
		{name: "no client certificate, TLS 1.2", tls: &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, code: imprint.CodeNoClientCertificate, alert: "handshake failure"},
		{name: "only other protocols", tls: &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, NextProtos: []string{"h2", "x"}}, code: imprint.CodeALPNUnknown, alert: "no application protocol"},
		{name: "a client that doesn't trust the server", tls: &tls.Config{ServerName: "localhost", Certificates: []tls.Certificate{device}}, code: imprint.CodeHandshakeFailed, alert: "unknown authority"},
		{name: "TLS 1.1", tls: &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, code: imprint.CodeHandshakeFailed, alert: "protocol version"},
		{name: "plain MQTT", say: connectPacket, code: imprint.CodeNotTLS},
		{name: "HTTP", say: []byte("GET / HTTP/1.1\r\n\r\n"), code: imprint.CodeNotTLS},
		{name: "nothing but a close", say: []byte{}, code: imprint.CodeHandshakeFailed},
		{name: "half a hello and a close", say: []byte{22, 3, 1, 0, 200, 1}, code: imprint.CodeHandshakeFailed},
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

// At a limit a connection is closed at once and counted; one that had its
// CONNECT accepted isn't pending any more.
func TestLimits(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		options gateway.Options
	}{
		{"handshakes", gateway.Options{MaxHandshakes: 2}},
		{"handshakes from one address", gateway.Options{MaxPending: 2}},
		{"connections", gateway.Options{MaxConnections: 3}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{options: row.options})
			cert := selfSigned(ecdsaKey(), "device")
			w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
			live, accepted, err := w.connect(t, client("localhost", cert))
			if err != nil || !accepted {
				t.Fatalf("accepted %t, %v", accepted, err)
			}
			// The slot is given back just after CONNACK is sent.
			for w.gateway.Counters().Pending > 0 && t.Context().Err() == nil {
				runtime.Gosched()
			}
			first, second := w.dial(t), w.dial(t) // stay silent
			refused := w.dial(t)
			_, err = refused.Read(make([]byte, 1))
			if err == nil {
				t.Error("the connection over the limit was kept")
			}
			wantRefused(t, w.attempt(t, refused), "admission", imprint.CodeOverloaded)
			if c := w.gateway.Counters(); c.Overloaded != 1 || c.Pending != 2 || c.Open != 3 || c.Accepted != 4 {
				t.Errorf("got %+v, want one overloaded, two pending, three open, four accepted", c)
			}
			_, err = live.Write([]byte{0xc0, 0})
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadFull(live, make([]byte, 2))
			if err != nil {
				t.Errorf("the live connection suffered: %v", err)
			}
			_ = first.Close()
			w.attempt(t, first) // ended: its place is free soon
			_ = second.Close()
			w.attempt(t, second)
		})
	}
}

// One address may have so many connections open, and begin so many in a second;
// those that are on stay, and a place that is given up can be taken.
func TestLimitsOfOneAddress(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		options gateway.Options
		allowed int
		frees   bool // an ended connection makes room
	}{
		{"open connections", gateway.Options{MaxPerAddress: 3}, 3, true},
		{"connections begun", gateway.Options{RatePerAddress: 1}, 2, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{options: row.options})
			cert := selfSigned(ecdsaKey(), "device")
			w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
			live, accepted, err := w.connect(t, client("localhost", cert))
			if err != nil || !accepted {
				t.Fatalf("accepted %t, %v", accepted, err)
			}
			last := live.NetConn()
			for range row.allowed - 1 {
				last = w.dial(t)
			}
			refused := w.dial(t)
			_, err = refused.Read(make([]byte, 1))
			if err == nil {
				t.Error("the connection over the limit was kept")
			}
			wantRefused(t, w.attempt(t, refused), "admission", imprint.CodeOverloaded)
			if c := w.gateway.Counters(); c.Overloaded != 1 || c.Open != int64(row.allowed) {
				t.Errorf("got %+v, want one overloaded and %d open", c, row.allowed)
			}
			if !row.frees {
				return
			}
			_ = last.Close()
			for w.gateway.Counters().Open == int64(row.allowed) && t.Context().Err() == nil {
				runtime.Gosched()
			}
			conn := tls.Client(w.dial(t), client("localhost", cert))
			err = conn.Handshake()
			if err != nil {
				t.Errorf("the place that was given up can't be taken: %v", err)
			}
		})
	}
}

// A panic in one connection ends that one.
func TestAPanicEndsOneConnection(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	w := newWorld(t, settings{clock: func() time.Time {
		if broken.CompareAndSwap(true, false) {
			panic("the clock fell off the wall")
		}
		return time.Now()
	}})
	cert := selfSigned(ecdsaKey(), "device")
	w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
	conn := tls.Client(w.dial(t), client("localhost", cert))
	err := conn.Handshake()
	if err != nil {
		t.Fatal(err)
	}
	broken.Store(true) // for the next step of this connection
	_, _ = conn.Write(connectPacket)
	_, err = conn.Read(make([]byte, 1))
	if err == nil {
		t.Error("the connection goes on")
	}
	a := w.attempt(t, conn)
	wantRefused(t, a, "internal", imprint.CodeInternal)
	if got := w.gateway.Counters().Panics; got != 1 {
		t.Errorf("counted %d panics, want 1", got)
	}
	_, accepted, err := w.connect(t, client("localhost", cert))
	if !accepted || err != nil {
		t.Errorf("the next connection: accepted %t, %v", accepted, err)
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
