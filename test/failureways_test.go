package test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/eclipse/paho.golang/paho"

	"github.com/imprint-iot/imprint/mqtt"
)

// known are openssl's arguments for a device that may come in.
func (w *ward) known(more ...string) []string {
	return append([]string{"-cert", w.side.device.cert, "-key", w.side.device.key}, more...)
}

// dialFrom makes a TCP connection from an address of its own.
func dialFrom(t *testing.T, s *server, address string) *net.TCPConn {
	t.Helper()
	dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	conn, err := dialer.Dial("tcp", s.device())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

// serverCloses reads until the server closes.
func serverCloses(t *testing.T, conn net.Conn) string {
	t.Helper()
	data, err := io.ReadAll(conn)
	if network, ok := err.(net.Error); ok && network.Timeout() || len(data) > 0 {
		t.Fatalf("got %x, %v; want the server to close", data, err)
	}
	return "closed"
}

var tlsWays = map[string]func(*ward, *testing.T, string) way{
	"wrong root": func(w *ward, t *testing.T, from string) way {
		s, d := w.server(), w.side.device
		run := runTool(t, "", cleanEnv(), "mosquitto_pub", "-d", "-h", "localhost", "-p", s.port(), "-A", from, "--cafile", w.ca.cert,
			"--cert", d.cert, "--key", d.key, "-i", "distrust", "-t", "a", "-m", "b")
		return way{word: from, seen: hungUp(t, run)}
	},
	"clock never set": func(w *ward, t *testing.T, from string) way {
		return way{word: from, seen: hungUp(t, w.server().sClient(t, from, "", w.known("-servername", "localhost", "-verify_return_error", "-attime", "1000000000")...))}
	},
	"clock ahead": func(w *ward, t *testing.T, from string) way {
		return way{word: from, seen: hungUp(t, w.server().sClient(t, from, "", w.known("-servername", "localhost", "-verify_return_error", "-attime", "5000000000")...))}
	},
	"hangs up in silence": func(w *ward, t *testing.T, from string) way {
		conn := dialFrom(t, w.server(), from)
		err := tls.Client(&mutedConn{Conn: conn}, &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}).Handshake()
		if err == nil {
			t.Fatal("a client without roots took the server's certificate")
		}
		_ = conn.Close()
		return way{word: from, seen: "it hangs up"}
	},
	"hangs up at once": func(w *ward, t *testing.T, from string) way {
		conn := dialFrom(t, w.server(), from)
		// The begin of a TLS record that holds a hello of 512 bytes.
		_, err := conn.Write([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		return way{word: from, seen: "it hangs up"}
	},
	"silent after TCP": func(w *ward, t *testing.T, from string) way {
		return way{on: w.hasty.server, word: from, seen: serverCloses(t, dialFrom(t, w.hasty.server, from))}
	},
	"not TLS": func(w *ward, t *testing.T, from string) way {
		run := runTool(t, "", cleanEnv(), "mosquitto_pub", "-d", "-h", "127.0.0.1", "-p", w.server().port(), "-A", from, "-i", "plain", "-t", "a", "-m", "b")
		if run.exit == 0 || !strings.Contains(run.all(), "sending CONNECT") || strings.Contains(run.all(), "received CONNACK") {
			t.Errorf("mosquitto_pub without TLS: exit code %d\n%s", run.exit, run.all())
		}
		return way{word: from, seen: "closed"}
	},
	"old TLS": func(w *ward, t *testing.T, from string) way {
		return way{word: from, seen: alert(t, w.server().sClient(t, from, "", w.known("-servername", "localhost", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")...))}
	},
	"no shared cipher suite": func(w *ward, t *testing.T, from string) way {
		return way{word: from, seen: alert(t, w.server().sClient(t, from, "", w.known("-servername", "localhost", "-tls1_2", "-cipher", "ECDHE-ECDSA-CAMELLIA128-SHA256")...))}
	},
	"wrong ALPN": func(w *ward, t *testing.T, from string) way {
		return way{word: from, seen: alert(t, w.server().sClient(t, from, "", w.known("-servername", "localhost", "-alpn", "http/1.1")...))}
	},
	"wrong server name": func(w *ward, t *testing.T, from string) way {
		s, d := w.server(), w.side.device
		return way{word: from, seen: alert(t, s.sClient(t, from, "", w.known("-servername", "other.example.com")...)),
			retry: func(t *testing.T, printed string) { w.inAsDescribed(t, d, "named", printed) }}
	},
	"no client certificate, TLS 1.3": func(w *ward, t *testing.T, from string) way {
		return way{word: from, seen: alert(t, w.server().sClient(t, from, "", "-servername", "localhost", "-tls1_3"))}
	},
	"no client certificate, TLS 1.2": func(w *ward, t *testing.T, from string) way {
		return way{word: from, seen: alert(t, w.server().sClient(t, from, "", "-servername", "localhost", "-tls1_2"))}
	},
	"wrong key": func(w *ward, t *testing.T, from string) way {
		pair := w.side.pair
		pair.PrivateKey = w.stage.two.pair.PrivateKey
		return w.mismatched(t, from, pair)
	},
	"chain order": func(w *ward, t *testing.T, from string) way {
		pair := w.b.good.device(t, "reversed", "P-256").keyPair(t)
		ca, _ := pem.Decode([]byte(readFile(t, w.b.good.cert)))
		pair.Certificate = [][]byte{ca.Bytes, pair.Certificate[0]}
		return w.mismatched(t, from, pair)
	},
	"too many at once": func(w *ward, t *testing.T, from string) way {
		for range pendingPerAddress {
			dialFrom(t, w.hasty.server, from)
		}
		// Those before are let wait by their time, which is longer.
		return way{on: w.hasty.server, word: from, seen: closedNow(t, dialFrom(t, w.hasty.server, from))}
	},
}

// pendingPerAddress is how many connections of one address may wait to be let in by the
// hasty server.
const pendingPerAddress = 8

// closedNow expects that the server closes a connection without having read anything.
func closedNow(t *testing.T, conn net.Conn) string {
	t.Helper()
	began := time.Now()
	seen := serverCloses(t, conn)
	if took := time.Since(began); took > 2*time.Second { // handshakes end after 3
		t.Errorf("the connection was closed after %s, want at once", took)
	}
	return seen
}

// mismatched shows certificates with a key that isn't the first one's. openssl and
// mosquitto refuse such a pair themselves; firmware doesn't.
func (w *ward) mismatched(t *testing.T, from string, pair tls.Certificate) way {
	t.Helper()
	conn := tls.Client(dialFrom(t, w.server(), from), &tls.Config{RootCAs: w.roots, ServerName: "localhost", MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}})
	_, err := io.ReadAll(conn)
	var told tls.AlertError
	var network *net.OpError
	if !errors.As(err, &network) || !asAlert(network.Err, &told) {
		t.Fatalf("got %v, want an alert", err)
	}
	return way{word: from, seen: fmt.Sprintf("TLS alert %d", uint8(told))}
}

// mutedConn lets a client's hello through, and nothing after it.
type mutedConn struct {
	net.Conn
	said bool
}

func (c *mutedConn) Write(b []byte) (int, error) {
	if c.said {
		return len(b), nil
	}
	c.said = true
	return c.Conn.Write(b)
}

// asAlert finds the number of the alert that the server sent; crypto/tls keeps its
// type for itself.
func asAlert(err error, to *tls.AlertError) bool {
	for number := range 256 {
		if err != nil && err.Error() == tls.AlertError(number).Error() {
			*to = tls.AlertError(number)
			return true
		}
	}
	return false
}

// inAsDescribed lets a device in by the name that describe-endpoint printed.
func (w *ward) inAsDescribed(t *testing.T, d *device, clientID, printed string) {
	t.Helper()
	_, rest, _ := strings.Cut(printed, `"endpointAddress": "`)
	host, _, found := strings.Cut(rest, `"`)
	if !found {
		t.Fatalf("describe-endpoint printed no address: %s", printed)
	}
	_ = w.server().connect(t, d, clientID, dialing{host: host}).Disconnect(&paho.Disconnect{})
}

var connectWays = map[string]func(*ward, *testing.T, string) way{
	"no CONNECT": func(w *ward, t *testing.T, from string) way {
		conn, _, err := w.hasty.dialSide(t, w.hasty.one, "", from)
		if err != nil {
			t.Fatal(err)
		}
		return way{on: w.hasty.server, word: from, seen: serverCloses(t, conn)}
	},
	"packet before CONNECT": func(w *ward, t *testing.T, from string) way {
		conn, _, err := w.stage.dialSide(t, w.side, "", from)
		if err == nil {
			_, err = conn.Write(publishing("a", 0).Append(nil, mqtt.V311))
		}
		if err != nil {
			t.Fatal(err)
		}
		return way{word: from, seen: serverCloses(t, conn)}
	},
	"MQTT 3.1": func(w *ward, t *testing.T, from string) way {
		run := w.server().publish(t, w.side.device, "ancient", "a", "-V", "31", "-A", from)
		return way{word: from, seen: fmt.Sprintf("CONNACK %d", run.connack)}
	},
	"enhanced authentication": func(w *ward, t *testing.T, from string) way {
		how := dialing{from: from, connect: func(c *paho.Connect) {
			c.Properties = &paho.ConnectProperties{AuthMethod: "SCRAM-SHA-256"}
		}}
		return way{word: from, seen: connack(w.server().refused(t, w.side.device, "scram", how))}
	},
	"client id too long": func(w *ward, t *testing.T, from string) way {
		return way{word: from, seen: turnedAway(t, w.server(), w.side.device, strings.Repeat("x", 129), from)}
	},
	"client id with $": func(w *ward, t *testing.T, from string) way {
		return way{word: from, seen: turnedAway(t, w.server(), w.side.device, "$device", from)}
	},
	"client id mismatch": func(w *ward, t *testing.T, from string) way {
		return way{word: from, seen: turnedAway(t, w.server(), w.b.joined("")(t), "somebody-else", from), names: map[string]string{"client": "somebody-else"}}
	},
	"policy without Connect": func(w *ward, t *testing.T, from string) way {
		d := w.holding(t, "mute", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Publish","Resource":"*"}]}`)
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from)}
	},
	"no policy attached": func(w *ward, t *testing.T, from string) way {
		d := w.holding(t, "bare", "")
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from),
			names: map[string]string{"certificateArn": arn + "cert/" + d.id(t)}, person: map[string]string{"NAME": "all"}, retry: admitted(w.server(), d, d.name)}
	},
	"will denied": func(w *ward, t *testing.T, from string) way {
		d := w.b.joined("")(t)
		how := dialing{from: from, will: &paho.WillMessage{Topic: "elsewhere/will", Payload: []byte("gone")}}
		return way{word: from, seen: turnedAwayAt(t, w.server(), d, d.name, how, "--will-topic", "elsewhere/will", "--will-payload", "gone")}
	},
	"connect rate": func(w *ward, t *testing.T, _ string) way {
		// However slowly connections come, some of them come within one second.
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			wire, err := w.hasty.one.tryDial(t, "")
			if err != nil {
				t.Fatal(err)
			}
			err = wire.tryConnect(mqtt.Connect{ClientID: "eager", CleanStart: true}, mqtt.V5)
			if err != nil && wire.connack != nil {
				_ = wire.conn.Close()
				return way{on: w.hasty.server, word: "eager", seen: connack(int(wire.connack.Reason))}
			}
			_ = wire.conn.Close()
		}
		t.Fatal("every connection was let in")
		return way{}
	},
}

// holding registers a self-signed device; its policy, of its name, may be none.
func (w *ward) holding(t *testing.T, name, document string) *device {
	t.Helper()
	d := selfSigned(t, name)
	out := must(w.api.RegisterCertificateWithoutCA(t.Context(), &iot.RegisterCertificateWithoutCAInput{
		CertificatePem: aws.String(readFile(t, d.cert)), Status: types.CertificateStatusActive,
	}))(t)
	if document != "" {
		w.server().createPolicy(t, name, document)
		must(w.api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: aws.String(name), Target: out.CertificateArn}))(t)
	}
	return d
}

// set changes a certificate's status.
func (w *ward) set(t *testing.T, d *device, status types.CertificateStatus) {
	t.Helper()
	must(w.api.UpdateCertificate(t.Context(), &iot.UpdateCertificateInput{CertificateId: aws.String(d.id(t)), NewStatus: status}))(t)
}

// registered is a next try of a device whose certificate was registered again: it is
// known, and refused for want of a policy alone, which is attached then.
func (w *ward) registered(d *device) func(*testing.T, string) {
	return func(t *testing.T, _ string) {
		t.Helper()
		must(w.api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: aws.String("all"), Target: aws.String(arn + "cert/" + d.id(t))}))(t)
		admitted(w.server(), d, d.name)(t, "")
	}
}

var certificateWays = map[string]func(*ward, *testing.T, string) way{
	"expired": func(w *ward, t *testing.T, from string) way {
		d := w.b.good.between(t, "past", time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour))
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from)}
	},
	"not yet valid": func(w *ward, t *testing.T, from string) way {
		d := w.b.good.between(t, "future", time.Now().Add(24*time.Hour), time.Now().Add(48*time.Hour))
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from)}
	},
	"RSA 1024": func(w *ward, t *testing.T, from string) way {
		// mosquitto's OpenSSL doesn't take such a key itself.
		f := w.b.factoryWith(t, nil)
		d := w.weak(t, f)
		return way{word: from, seen: connack(w.server().refused(t, d, d.name, dialing{from: from}))}
	},
	"not registered": func(w *ward, t *testing.T, from string) way {
		d := selfSigned(t, "lonely")
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from), dir: asFile(t, "device.pem", readFile(t, d.cert)), retry: w.registered(d)}
	},
	"deleted": func(w *ward, t *testing.T, from string) way {
		d := w.holding(t, "deleted", "")
		w.set(t, d, types.CertificateStatusInactive)
		must(w.api.DeleteCertificate(t.Context(), &iot.DeleteCertificateInput{CertificateId: aws.String(d.id(t))}))(t)
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from), dir: asFile(t, "device.pem", readFile(t, d.cert)), retry: w.registered(d)}
	},
	"inactive": func(w *ward, t *testing.T, from string) way {
		d := w.b.joined(types.CertificateStatusInactive)(t)
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from), names: map[string]string{"certificate": d.id(t)}, retry: admitted(w.server(), d, d.name)}
	},
	"deactivated while on": func(w *ward, t *testing.T, from string) way {
		d := w.b.joined("")(t)
		c := w.server().connect(t, d, d.name, dialing{from: from})
		w.set(t, d, types.CertificateStatusInactive)
		return way{word: from, seen: goodbye(c.goodbye(t)), names: map[string]string{"certificate": d.id(t)}, retry: admitted(w.server(), d, d.name)}
	},
	"revoked": func(w *ward, t *testing.T, from string) way {
		d := w.b.joined(types.CertificateStatusRevoked)(t)
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from)}
	},
	"revoked before it came": func(w *ward, t *testing.T, from string) way {
		f := w.b.factoryWith(t, nil)
		d := f.device(t, "never-came", "P-256")
		run := w.server().shell(t, f.dir, "imprint ca adopt --cert "+f.cert+" && imprint ca revoke --reason key-compromise --cert "+d.cert)
		if run.exit != 0 {
			t.Fatalf("exit code %d\n%s", run.exit, run.all())
		}
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from)}
	},
	"on a revocation list": func(w *ward, t *testing.T, from string) way {
		f := w.b.factoryWith(t, withTemplate(jitpTemplate("devices", "")))
		d := f.device(t, "listed", "P-256")
		w.importList(t, f, time.Hour, "", d)
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from)}
	},
	"pending activation": func(w *ward, t *testing.T, from string) way {
		d := w.b.under(nil)(t)
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from), names: map[string]string{"certificate": d.id(t)}, retry: w.registered(d)}
	},
	"no server name, two tenants": func(w *ward, t *testing.T, from string) way {
		d := w.holding(t, "twin", watcherPolicy)
		must(w.other.api.RegisterCertificateWithoutCA(t.Context(), &iot.RegisterCertificateWithoutCAInput{
			CertificatePem: aws.String(readFile(t, d.cert)), Status: types.CertificateStatusActive,
		}))(t)
		// An address is never sent as a server name.
		return way{word: from, seen: connack(w.server().refused(t, d, d.name, dialing{from: from, host: "127.0.0.1"})),
			retry: func(t *testing.T, printed string) { w.inAsDescribed(t, d, d.name, printed) }}
	},
}

// weak makes a device with an RSA key of 1024 bits.
func (w *ward) weak(t *testing.T, f *factory) *device {
	t.Helper()
	d := f.device(t, "weak", "P-256")
	openssl(t, f.dir, "req", "-new", "-nodes", "-subj", "/CN=weak", "-newkey", "rsa:1024", "-keyout", d.key, "-out", d.cert+".csr")
	openssl(t, f.dir, "x509", "-req", "-in", d.cert+".csr", "-CA", f.cert, "-CAkey", f.key, "-set_serial", randomSerial(), "-days", "365", "-sha256", "-out", d.cert)
	return d
}

// goodbye is a reason of DISCONNECT in the table's words.
func goodbye(reason byte) string { return fmt.Sprintf("DISCONNECT %#x", reason) }

var caWays = map[string]func(*ward, *testing.T, string) way{
	"CA not registered": func(w *ward, t *testing.T, from string) way {
		f := newFactory(t, "Nobody knows", "P-256")
		d := f.device(t, "stranger", "P-256")
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from), dir: asFile(t, "ca.pem", readFile(t, f.cert)),
			retry: func(t *testing.T, _ string) {
				// The CA has no template: the next attempt leads one step further, and so
				// does the fix that the trace has for it.
				w.server().refused(t, d, d.name, dialing{})
				step := w.failed(t, d.id(t), "activate")
				typed(t, w.server(), "", step.Fix[strings.Index(step.Fix, "aws iot"):])
				w.registered(d)(t, "")
			}}
	},
	"missing intermediate": func(w *ward, t *testing.T, from string) way {
		root := w.b.factoryWith(t, nil)
		below := root.intermediate(t, "Intermediate")
		d := below.device(t, "below", "P-256")
		// It sends what it should: its certificate and the intermediate one.
		writeFile(t, d.cert, readFile(t, d.cert)+readFile(t, below.cert))
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from)}
	},
	"another CA's name": func(w *ward, t *testing.T, from string) way {
		d := newFactory(t, "Good", "P-256").device(t, "impostor", "P-256")
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from)}
	},
	"CA inactive": func(w *ward, t *testing.T, from string) way {
		d, ca := w.ofCA(t, func(in *iot.RegisterCACertificateInput) { in.SetAsActive = false })
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from), names: map[string]string{"ca": ca}, retry: provisioned(w.server(), d)}
	},
	"CA expired": func(w *ward, t *testing.T, from string) way {
		d := w.expired.between(t, "orphan", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
		until(t, "the CA to expire", func() bool { return time.Now().After(w.caExpires) })
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from)}
	},
	"revocation list too old": func(w *ward, t *testing.T, from string) way {
		f := w.b.factoryWith(t, withTemplate(jitpTemplate("devices", "")))
		d := f.device(t, "unsure", "P-256")
		w.importList(t, f, time.Second, "--stale refuse")
		over := time.Now().Add(time.Second)
		until(t, "the list to be past its time", func() bool { return time.Now().After(over) })
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from), names: map[string]string{"ca": certificateID(t, readFile(t, f.cert))}, retry: provisioned(w.server(), d)}
	},
	"auto-registration off": func(w *ward, t *testing.T, from string) way {
		d, ca := w.ofCA(t, func(in *iot.RegisterCACertificateInput) { in.AllowAutoRegistration = false })
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from), names: map[string]string{"ca": ca}, retry: provisioned(w.server(), d)}
	},
}

// importList lets openssl sign a revocation list, and imports it.
func (w *ward) importList(t *testing.T, f *factory, lasts time.Duration, flags string, revoked ...*device) {
	t.Helper()
	// Only lists with a number are of version 2.
	config := filepath.Join(f.dir, "numbered.cnf")
	writeFile(t, config, strings.Replace(readFile(t, filepath.Join(f.dir, "openssl.cnf")), "[line]", "[line]\ncrlnumber = "+filepath.Join(f.dir, "crlnumber"), 1))
	writeFile(t, filepath.Join(f.dir, "crlnumber"), "01\n")
	ca := []string{"ca", "-config", config, "-cert", f.cert, "-keyfile", f.key}
	for _, d := range revoked {
		openssl(t, f.dir, append(ca, "-revoke", d.cert, "-crl_reason", "keyCompromise")...)
	}
	openssl(t, f.dir, append(ca, "-gencrl", "-crlexts", "list", "-crlsec", fmt.Sprint(int(lasts.Seconds())), "-out", filepath.Join(f.dir, "list.pem"))...)
	typed(t, w.server(), f.dir, "imprint ca crl import --ca "+certificateID(t, readFile(t, f.cert))+" "+flags+" list.pem")
}

// ofCA makes a device of a CA with a template that works, registered in a way of its
// own, and gives the CA's id.
func (w *ward) ofCA(t *testing.T, change func(*iot.RegisterCACertificateInput)) (*device, string) {
	t.Helper()
	f := w.b.factoryWith(t, func(in *iot.RegisterCACertificateInput) {
		withTemplate(jitpTemplate("devices", ""))(in)
		change(in)
	})
	return f.device(t, fmt.Sprintf("of-ca-%d", w.b.next()), "P-256"), certificateID(t, readFile(t, f.cert))
}

// failed waits for a failed step in what is told about a device.
func (w *ward) failed(t *testing.T, word, name string) traceStep {
	t.Helper()
	var found traceStep
	until(t, "the step "+name+" of "+word, func() bool {
		for _, a := range w.server().explain(t, word) {
			for _, s := range a.Steps {
				if s.Name == name && s.Verdict == "failed" && strings.Contains(s.Fix, "aws iot") {
					found = s
					return true
				}
			}
		}
		return false
	})
	return found
}

// intermediate is a CA below another one.
func (f *factory) intermediate(t *testing.T, name string) *factory {
	t.Helper()
	below := emptyFactory(t)
	csr := below.cert + ".csr"
	openssl(t, below.dir, append([]string{"req", "-new", "-nodes", "-subj", "/O=Example Devices/CN=" + name, "-keyout", below.key, "-out", csr}, keyKinds["P-256"]...)...)
	openssl(t, below.dir, "x509", "-req", "-in", csr, "-CA", f.cert, "-CAkey", f.key, "-set_serial", randomSerial(),
		"-days", "365", "-sha256", "-extfile", f.dir+"/openssl.cnf", "-extensions", "authority", "-out", below.cert)
	return below
}

// template makes a JITP template of a name, and gives a device of a CA that names it.
func (w *ward) template(t *testing.T, name, body string, enabled bool) *device {
	t.Helper()
	must(w.api.CreateProvisioningTemplate(t.Context(), &iot.CreateProvisioningTemplateInput{
		TemplateName: aws.String(name), Type: types.TemplateTypeJitp, Enabled: aws.Bool(enabled),
		TemplateBody: aws.String(body), ProvisioningRoleArn: aws.String(role),
	}))(t)
	f := w.b.factoryWith(t, func(in *iot.RegisterCACertificateInput) {
		in.RegistrationConfig = &types.RegistrationConfig{TemplateName: aws.String(name)}
	})
	return f.device(t, "of-"+name, "P-256")
}

// lacking is a way in which a resource of the template is missing, and made then.
func (w *ward) lacking(t *testing.T, from, body string, names map[string]string, dir string) way {
	t.Helper()
	d := w.b.under(withTemplate(body))(t)
	return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from), names: names, dir: dir, retry: provisioned(w.server(), d)}
}

// withThing is jitpTemplate with more properties of the thing.
func withThing(properties string) string {
	return strings.Replace(jitpTemplate("devices", ""), `"ThingName":`, properties+`,"ThingName":`, 1)
}

var templateWays = map[string]func(*ward, *testing.T, string) way{
	"missing Country": func(w *ward, t *testing.T, from string) way {
		body := strings.Replace(jitpTemplate("devices", ""), `"AWS::IoT::Certificate::Id":`, `"AWS::IoT::Certificate::Country":{"Type":"String"},"AWS::IoT::Certificate::Id":`, 1)
		body = strings.Replace(body, `"origin":"template"`, `"origin":{"Ref":"AWS::IoT::Certificate::Country"}`, 1)
		d := w.b.under(withTemplate(body))(t)
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from)}
	},
	"illegal value": func(w *ward, t *testing.T, from string) way {
		d := w.b.good.make(t, "two words", "/CN=two words/serialNumber=1", "P-256")
		return way{word: from, seen: turnedAway(t, w.server(), d, "two-words", from)}
	},
	"template disabled": func(w *ward, t *testing.T, from string) way {
		d := w.template(t, "off", jitpTemplate("devices", ""), false)
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from), names: map[string]string{"template": "off"}, retry: provisioned(w.server(), d)}
	},
	"policy missing": func(w *ward, t *testing.T, from string) way {
		return w.lacking(t, from, jitpTemplate("later", ""), map[string]string{"policy": "later"}, asFile(t, "policy.json", devicePolicy))
	},
	"thing type missing": func(w *ward, t *testing.T, from string) way {
		return w.lacking(t, from, withThing(`"ThingTypeName":"kettle"`), map[string]string{"type": "kettle"}, "")
	},
	"thing group missing": func(w *ward, t *testing.T, from string) way {
		return w.lacking(t, from, withThing(`"ThingGroups":["kitchen"]`), map[string]string{"group": "kitchen"}, "")
	},
	"billing group missing": func(w *ward, t *testing.T, from string) way {
		return w.lacking(t, from, withThing(`"BillingGroup":"payer"`), map[string]string{"group": "payer"}, "")
	},
	"thing exists": func(w *ward, t *testing.T, from string) way {
		d := w.b.under(withTemplate(jitpTemplate("devices", `,"OverrideSettings":{"AttributePayload":"FAIL"}`)))(t)
		must(w.api.CreateThing(t.Context(), &iot.CreateThingInput{ThingName: aws.String(d.name)}))(t)
		return way{word: from, seen: turnedAway(t, w.server(), d, d.name, from)}
	},
}
