package doctor_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/doctor"
	"github.com/imprint-iot/imprint/mqtt"
)

// drain reads until the client has gone.
func drain(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// overTLS serves TLS and hands over what is inside.
func overTLS(t *testing.T, config *tls.Config, serve func(net.Conn)) string {
	t.Helper()
	return listen(t, func(conn net.Conn) {
		inside := tls.Server(conn, config)
		if inside.Handshake() == nil {
			serve(inside)
		}
	})
}

// Servers that speak no TLS, or no MQTT, or don't stop, are named in bounded time.
func TestServersThatAreNone(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "Root")
	config := a.server(t, nil)
	const patience = 1500 * time.Millisecond
	endless := func(conn net.Conn, piece []byte) {
		for {
			_, err := conn.Write(piece)
			if err != nil {
				return
			}
		}
	}
	// connack answers CONNECT and goes on as more says.
	connack := func(more func(net.Conn)) func(net.Conn) {
		return func(conn net.Conn) {
			_, err := io.ReadFull(conn, make([]byte, 16))
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte{0x20, 2, 0, 0})
			more(conn)
		}
	}
	publish := (&mqtt.Publish{Topic: []byte("flood"), Payload: make([]byte, 60_000)}).Append(nil, mqtt.V311)
	rows := []struct {
		name  string
		serve func(net.Conn)
		tls   bool
		check string
		code  doctor.Code
		words string
	}{
		{"closes at once", func(net.Conn) {}, false, "tls", doctor.TLSClosed, ""},
		{"silent", drain, false, "tls", doctor.TLSTimeout, "says nothing"},
		{"random bytes", func(conn net.Conn) {
			b := make([]byte, 4096)
			_, _ = rand.Read(b)
			b[0] = 0x99
			_, _ = conn.Write(b)
			drain(conn)
		}, false, "tls", doctor.NotTLS, "99"},
		{"HTTP", func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n"); drain(conn) }, false, "tls", doctor.NotTLS, "HTTP"},
		{"SSH", func(conn net.Conn) { _, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.2\r\n"); drain(conn) }, false, "tls", doctor.NotTLS, "SSH"},
		{"MQTT in the clear", func(conn net.Conn) { _, _ = conn.Write([]byte{0x20, 2, 0, 5}); drain(conn) }, false, "tls", doctor.NotTLS, "MQTT without TLS"},
		{"MQTT in the clear, which says nothing about TLS", func(conn net.Conn) {
			first := make([]byte, 16)
			n, _ := conn.Read(first)
			if n > 0 && first[0] == 0x10 {
				_, _ = conn.Write([]byte{0x20, 2, 0, 5})
			}
		}, false, "tls", doctor.NotTLS, "port speaks MQTT without TLS"},
		{"TLS records of rubbish", func(conn net.Conn) {
			_, _ = conn.Write([]byte{0x16, 3, 3, 0, 4, 2, 0, 0, 0})
			drain(conn)
		}, false, "tls", doctor.TLSBroken, ""},
		{"slow", func(conn net.Conn) {
			// A record of 16 KiB, a byte now and then.
			_, _ = conn.Write([]byte{0x16, 3, 3, 0x40, 0})
			for {
				_, err := conn.Write([]byte{2})
				if err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond) // the slowness itself
			}
		}, false, "tls", doctor.TLSTimeout, "wasn't complete"},
		{"endless bytes", func(conn net.Conn) { endless(conn, make([]byte, 32<<10)) }, false, "tls", doctor.NotTLS, ""},
		{"endless handshake messages", func(conn net.Conn) {
			// HelloRequest in TLS 1.2: legal bytes that lead nowhere.
			endless(conn, []byte{0x16, 3, 3, 0, 4, 0, 0, 0, 0})
		}, false, "tls", doctor.TLSBroken, ""},
		{"TLS, and then silence", drain, true, "mqtt.connect.3", doctor.ConnectUnanswered, ""},
		{"TLS, and then rubbish", func(conn net.Conn) {
			_, _ = conn.Write([]byte("\x00 this is no packet"))
			drain(conn)
		}, true, "mqtt.connect.3", doctor.NotMQTT, ""},
		{"TLS, and then HTTP", func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			drain(conn)
		}, true, "mqtt.connect.3", doctor.NotMQTT, "--alpn x-amzn-mqtt-ca"},
		{"a huge packet", func(conn net.Conn) { _, _ = conn.Write([]byte{0x20, 0xff, 0xff, 0xff, 0x7f}); drain(conn) }, true, "mqtt.connect.3", doctor.NotMQTT, "is announced"},
		{"PUBLISH before CONNACK", func(conn net.Conn) { endless(conn, publish) }, true, "mqtt.connect.3", doctor.NotMQTT, "before CONNACK"},
		{"no answer to PINGREQ", connack(drain), true, "mqtt.ping", doctor.PingUnanswered, ""},
		{"endless messages", connack(func(conn net.Conn) { endless(conn, publish) }), true, "mqtt.ping", doctor.TLSTooMuch, ""},
		{"closes after CONNACK", connack(func(net.Conn) {}), true, "mqtt.ping", doctor.ConnectionEnded, "Switch the device off"},
	}
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := a.device(t, nil)
			d.options.Timeout = patience
			// The others may not end by time.
			switch {
			case tt.code == doctor.TLSTimeout, tt.code == doctor.ConnectUnanswered, tt.code == doctor.PingUnanswered:
			case tt.words == "MQTT without TLS": // four bytes, and a TLS record begins with five
			default:
				d.options.Timeout = 20 * time.Second
			}
			d.options.MQTT = []mqtt.Version{mqtt.V311}
			if tt.tls {
				d.options.Endpoint = overTLS(t, config, tt.serve)
			} else {
				d.options.Endpoint = listen(t, tt.serve)
			}
			begun := time.Now()
			report := examine(t, d.options)
			expect(t, report, tt.check, doctor.Failed, tt.code, tt.words)
			if took := time.Since(begun); took > 15*time.Second {
				t.Errorf("the examination took %s", took)
			}
		})
	}
}

// A context that ends ends the examination, wherever it is.
func TestAnExaminationEndsWithItsContext(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "Root")
	d := a.device(t, nil)
	d.options.Timeout = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// Silent once the doctor is there.
	d.options.Endpoint = overTLS(t, a.server(t, nil), func(conn net.Conn) {
		n, _ := conn.Read(make([]byte, 1))
		if n > 0 {
			cancel()
		}
		drain(conn)
	})
	done := make(chan error)
	go func() {
		_, err := doctor.Examine(ctx, d.options)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("got no error, want one of the context")
		}
	case <-time.After(30 * time.Second):
		t.Error("the examination goes on")
	}
}

// Options that can't be used are an error, which shows no password.
func TestEndpointsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "Root")
	for _, endpoint := range []string{"", ":8883", "host:0", "host:70000", "host:x", "gopher://host", "a b", "mqtts://user:secret@host:8883", "$(reboot):8883"} {
		d := a.device(t, nil)
		d.options.Endpoint = endpoint
		_, err := doctor.Examine(t.Context(), d.options)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("endpoint %q: got error %v, want one without the password", endpoint, err)
		}
	}
	for endpoint, want := range map[string]string{
		"127.0.0.1": "127.0.0.1:8883", "mqtts://127.0.0.1:1/": "127.0.0.1:1", "[::1]:1": "[::1]:1", "::1": "[::1]:8883", "LOCALHOST.:1": "localhost:1",
	} {
		d := a.device(t, nil)
		d.options.Endpoint, d.options.Timeout = endpoint, 100*time.Millisecond
		if got := examine(t, d.options).Endpoint; got != want {
			t.Errorf("endpoint %q: got %s, want %s", endpoint, got, want)
		}
	}
}

// A wrong clock is told from a certificate that is out of its time.
func TestTheClockIsComparedWithTheServers(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "Root")
	config := a.server(t, &x509.Certificate{NotBefore: time.Now().Add(-400 * 24 * time.Hour), NotAfter: time.Now().Add(400 * 24 * time.Hour)})
	a.cert = issue(t, &x509.Certificate{Subject: a.cert.Subject, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-500 * 24 * time.Hour), NotAfter: time.Now().Add(500 * 24 * time.Hour)}, a.key.Public(), nil, a.key)
	endpoint := overTLS(t, config, drain)
	https := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }))
	https.TLS = config.Clone()
	https.StartTLS()
	t.Cleanup(https.Close)
	_, port, _ := net.SplitHostPort(https.Listener.Addr().String())
	rows := []struct {
		name          string
		off           time.Duration
		clock         doctor.Verdict
		code          doctor.Code
		words         string
		local, remote doctor.Verdict
	}{
		{"right", 0, doctor.OK, "", "", doctor.OK, doctor.OK},
		{"two minutes behind", -2 * time.Minute, doctor.Warning, doctor.ClockOff, "behind", doctor.OK, doctor.OK},
		{"an hour ahead", time.Hour, doctor.Failed, doctor.ClockWrong, "ahead of", doctor.OK, doctor.OK},
		{"a month behind", -30 * 24 * time.Hour, doctor.Failed, doctor.ClockWrong, "30 days behind", doctor.Failed, doctor.OK},
		{"a year and a bit ahead", 370 * 24 * time.Hour, doctor.Failed, doctor.ClockWrong, "ahead of", doctor.Failed, doctor.OK},
	}
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := a.device(t, nil)
			d.options.Endpoint, d.options.HTTPS, d.options.NoMQTT, d.options.Timeout = endpoint, "localhost:"+port, true, 5*time.Second
			d.options.Clock = func() time.Time { return time.Now().Add(tt.off) }
			report := examine(t, d.options)
			expect(t, report, "clock", tt.clock, tt.code, tt.words)
			if got := named(t, report, "certificate.validity").Verdict; got != tt.local {
				t.Errorf("validity by the own clock: got %s, want %s", got, tt.local)
			}
			if got := named(t, report, "certificate.validity.server").Verdict; got != tt.remote {
				t.Errorf("validity by the server's clock: got %s, want %s", got, tt.remote)
			}
		})
	}
	t.Run("known by the server's certificate alone", func(t *testing.T) {
		d := a.device(t, nil)
		d.options.Endpoint, d.options.NoMQTT = endpoint, true
		d.options.Clock = func() time.Time { return time.Unix(0, 0) }
		report := examine(t, d.options)
		expect(t, report, "clock", doctor.Failed, doctor.ClockWrong, "1970-01-01")
		expect(t, report, "tls.server", doctor.Failed, doctor.ServerNotYet, "timedatectl")
		if got := named(t, report, "certificate.validity.server").Verdict; got != doctor.Skipped {
			t.Errorf("validity by a clock that isn't known: got %s, want skipped", got)
		}
	})
}

// scripted is a broker that says what a test wants: it answers CONNECT of each
// version with bytes, or closes where there are none.
func scripted(t *testing.T, config *tls.Config, answers func(n int, c *mqtt.Connect) []byte) string {
	t.Helper()
	var mu sync.Mutex
	count := 0
	return overTLS(t, config, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		for {
			header, body, err := packet(in)
			if err != nil {
				return
			}
			var answer []byte
			switch header.Type {
			case mqtt.TypeConnect:
				c := &mqtt.Connect{}
				if c.Decode(header, body, 0) != nil {
					return
				}
				mu.Lock()
				answer = answers(count, c)
				count++
				mu.Unlock()
			case mqtt.TypePingreq:
				answer = (&mqtt.Pingresp{}).Append(nil, mqtt.V311)
			}
			if answer == nil {
				return
			}
			_, _ = conn.Write(answer)
		}
	})
}

func packet(in *bufio.Reader) (mqtt.FixedHeader, []byte, error) {
	var start []byte
	for {
		b, err := in.ReadByte()
		if err != nil {
			return mqtt.FixedHeader{}, nil, err
		}
		start = append(start, b)
		header, whole, err := mqtt.ParseFixedHeader(start)
		if err != nil || whole {
			body := make([]byte, header.Remaining)
			_, readErr := io.ReadFull(in, body)
			if err == nil {
				err = readErr
			}
			return header, body, err
		}
	}
}

// What a broker answers to CONNECT is put into words.
func TestAnswersToConnect(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "Root")
	config := a.server(t, nil)
	code := func(reason mqtt.ReasonCode) func(int, *mqtt.Connect) []byte {
		return func(_ int, c *mqtt.Connect) []byte { return (&mqtt.Connack{Reason: reason}).Append(nil, c.Version) }
	}
	accept := func(c *mqtt.Connect) []byte { return (&mqtt.Connack{}).Append(nil, c.Version) }
	rows := []struct {
		name        string
		answers     func(n int, c *mqtt.Connect) []byte
		clientID    string
		three, five doctor.Code
		healthy     bool
	}{
		{"accepted", code(mqtt.Success), "", "", "", true},
		{"not authorized", code(mqtt.NotAuthorized), "", doctor.NotAuthorized, doctor.NotAuthorized, false},
		{"client id not valid", code(mqtt.ClientIdentifierNotValid), "", doctor.ClientIDRefused, doctor.ClientIDRefused, false},
		{"password wanted", code(mqtt.BadUserNameOrPassword), "", doctor.BadUserNameOrPassword, doctor.BadUserNameOrPassword, false},
		{"busy", code(mqtt.ServerUnavailable), "", doctor.ServerBusy, doctor.ServerBusy, false},
		{"closed", func(int, *mqtt.Connect) []byte { return nil }, "", doctor.ConnectClosed, doctor.ConnectClosed, false},
		{"MQTT 3.1.1 alone", func(_ int, c *mqtt.Connect) []byte {
			if c.Version == mqtt.V5 {
				return (&mqtt.Connack{Reason: mqtt.UnsupportedProtocolVersion}).Append(nil, mqtt.V5)
			}
			return accept(c)
		}, "", "", doctor.MQTTVersionRefused, true},
		{"a first connection that is closed", func(n int, c *mqtt.Connect) []byte {
			if n == 0 {
				return nil
			}
			return accept(c)
		}, "", doctor.FirstConnectionClosed, "", true},
		{"a clean session alone", func(_ int, c *mqtt.Connect) []byte {
			if !c.CleanStart {
				return nil
			}
			return accept(c)
		}, "", doctor.PersistentRefused, "", true},
		{"the common name alone", func(_ int, c *mqtt.Connect) []byte {
			if c.ClientID != "sensor-17" {
				return nil
			}
			return accept(c)
		}, "other", doctor.ClientIDNotAllowed, doctor.ClientIDNotAllowed, false},
	}
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := a.device(t, nil)
			d.options.Endpoint, d.options.ClientID = scripted(t, config, tt.answers), tt.clientID
			d.options.Timeout = 10 * time.Second
			report := examine(t, d.options)
			for name, want := range map[string]doctor.Code{"mqtt.connect.3": tt.three, "mqtt.connect.5": tt.five} {
				if got := named(t, report, name); got.Code != want {
					t.Errorf("%s: got %+v, want code %q", name, got, want)
				}
			}
			if report.Healthy != tt.healthy {
				t.Errorf("healthy: got %t, want %t: %+v", report.Healthy, tt.healthy, report.Checks)
			}
		})
	}
}

// A session that the device has stored is left alone: it is resumed, and neither
// ended by a clean start nor by another version, nor subscribed for.
func TestAStoredSessionIsLeftAlone(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "Root")
	for _, versions := range [][]mqtt.Version{{mqtt.V311, mqtt.V5}, {mqtt.V5}} {
		t.Run(fmt.Sprint(versions), func(t *testing.T) {
			d := a.device(t, nil)
			var mu sync.Mutex
			var seen []mqtt.Connect
			d.options.Endpoint = scripted(t, a.server(t, nil), func(_ int, c *mqtt.Connect) []byte {
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, *c)
				return (&mqtt.Connack{SessionPresent: !c.CleanStart}).Append(nil, c.Version)
			})
			d.options.MQTT, d.options.Subscribe, d.options.Timeout = versions, "a/#", 10*time.Second
			report := examine(t, d.options)
			mu.Lock()
			defer mu.Unlock()
			if len(seen) == 0 {
				t.Fatal("nobody connected")
			}
			for _, c := range seen {
				if c.CleanStart || c.Version != versions[0] || c.Version == mqtt.V5 && c.Properties.SessionExpiry == 0 {
					t.Errorf("got %s, want no clean start, %s and a session that is kept", c.Detail(), versions[0])
				}
			}
			if got := named(t, report, "mqtt.subscribe"); got.Verdict != doctor.Skipped || !strings.Contains(got.Detail, "stored session") {
				t.Errorf("mqtt.subscribe: got %+v, want it skipped for the stored session", got)
			}
			if !report.Healthy {
				t.Errorf("healthy: got false: %+v", report.Checks)
			}
		})
	}
}

// The root that the server's chain leads to is named, with the command that gets
// it where it is one of Amazon's.
func TestTheRootThatIsMissingIsNamed(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Amazon Root CA 1": "curl -O https://www.amazontrust.com/repository/AmazonRootCA1.pem", "Amazon Root CA 3": "AmazonRootCA3.pem",
		"Starfield Services Root Certificate Authority - G2": "SFSRootCAG2.pem", "Imprint server root 1": "server-roots.pem", "Company root": `"CN=Company root"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t, name)
			d := newAuthority(t, "Factory").device(t, nil)
			d.options.CA = a.file(t, "other.pem", certPEM(newAuthority(t, "Another root").cert))
			d.options.NoMQTT, d.options.Endpoint = true, overTLS(t, a.server(t, nil), drain)
			expect(t, examine(t, d.options), "tls.server", doctor.Failed, doctor.ServerRootUnknown, want)
			if strings.HasPrefix(name, "Imprint") {
				d.options.CA = "" // as of a server that isn't the data directory's, or is named otherwise
				expect(t, examine(t, d.options), "tls.server", doctor.Failed, doctor.ServerRootUnknown, "--ca with pki/server-roots.pem")
			}
			d.options.CA = a.file(t, "namesake.pem", certPEM(newAuthority(t, name).cert))
			expect(t, examine(t, d.options), "tls.server", doctor.Failed, doctor.ServerRootUnknown, "has another key")
			d.options.CA = a.file(t, "right.pem", certPEM(a.cert))
			expect(t, examine(t, d.options), "tls.server", doctor.OK, "")
		})
	}
}

// A server that answers the first handshake and no other isn't said to lack what
// the others tried.
func TestAServerThatGetsSlowIsToldAsSlow(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "Root")
	config := a.server(t, nil)
	var mu sync.Mutex
	n := 0
	d := a.device(t, nil)
	d.options.NoMQTT, d.options.Timeout = true, 1500*time.Millisecond
	d.options.Endpoint = listen(t, func(conn net.Conn) {
		mu.Lock()
		n++
		first := n == 1 // that of the check of the port
		mu.Unlock()
		if first {
			conn = tls.Server(conn, config)
		}
		drain(conn)
	})
	report := examine(t, d.options)
	for _, name := range []string{"tls.servername", "tls.versions", "tls.alpn"} {
		expect(t, report, name, doctor.Warning, doctor.TLSTimeout, "one more handshake")
	}
}

// What only the check of application protocols offers is named where it is refused.
func TestAnApplicationProtocolThatIsRefusedIsNamed(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "Root")
	config := a.server(t, nil)
	config.NextProtos = []string{"h2"}
	d := a.device(t, nil)
	d.options.NoMQTT, d.options.Endpoint = true, overTLS(t, config, drain)
	expect(t, examine(t, d.options), "tls.alpn", doctor.Warning, doctor.ALPNRefused, "(120): it doesn't speak x-amzn-mqtt-ca")
}

// A device that comes while the doctor is connected is told apart from a broker
// that ends the connection.
func TestAConnectionThatIsTakenOverIsTold(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "Root")
	for reason, want := range map[mqtt.ReasonCode]doctor.Code{mqtt.SessionTakenOver: doctor.TakenOver, mqtt.AdministrativeAction: doctor.ConnectionEnded} {
		d := a.device(t, nil)
		d.options.MQTT, d.options.Timeout = []mqtt.Version{mqtt.V5}, 10*time.Second
		d.options.Endpoint = overTLS(t, a.server(t, nil), func(conn net.Conn) {
			in := bufio.NewReader(conn)
			for {
				header, _, err := packet(in)
				switch {
				case err != nil:
					return
				case header.Type == mqtt.TypeConnect:
					_, _ = conn.Write((&mqtt.Connack{}).Append(nil, mqtt.V5))
				case header.Type == mqtt.TypePingreq:
					_, _ = conn.Write((&mqtt.Disconnect{Reason: reason}).Append(nil, mqtt.V5))
				}
			}
		})
		expect(t, examine(t, d.options), "mqtt.ping", doctor.Failed, want, reason.String())
	}
}
