package test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/eclipse/paho.golang/paho"
	"github.com/google/go-cmp/cmp"
)

// tls12 makes programs that use OpenSSL's defaults stay with TLS 1.2.
const tls12 = `openssl_conf = top
[top]
ssl_conf = ssl
[ssl]
system_default = limit
[limit]
MaxProtocol = TLSv1.2
`

func TestDevicesOfEveryKeyKindJoinOverBothTLSAndMQTTVersions(t *testing.T) {
	need(t, "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	f := s.line(t, "Key kinds")
	limit := filepath.Join(t.TempDir(), "tls12.cnf")
	writeFile(t, limit, tls12)
	for kind := range keyKinds {
		short := strings.ReplaceAll(kind, " ", "-")
		for _, tt := range []struct {
			mosquitto []string // environment
			paho      uint16
			seen      string // by the server, of mosquitto
		}{
			{[]string{"OPENSSL_CONF=" + limit}, tls.VersionTLS13, "TLS 1.2"},
			{nil, tls.VersionTLS12, "TLS 1.3"},
		} {
			old := f.device(t, short+"-311-"+tt.seen[len(tt.seen)-1:], kind)
			t.Run(kind+", MQTT 3.1.1, "+tt.seen, func(t *testing.T) {
				s.joinWith(t, old, tt.mosquitto)
				list := s.awaitExplained(t, old.cert, 2)
				for _, a := range list {
					if a.TLSVersion != tt.seen {
						t.Errorf("TLS version: got %s, want %s", a.TLSVersion, tt.seen)
					}
				}
				if len(list) == 2 && (list[1].Outcome != "provisioned" || list[0].Outcome != "closed") {
					t.Errorf("outcomes: got %s, then %s; want provisioned, then closed", list[1].Outcome, list[0].Outcome)
				}
			})
			t.Run(kind+", MQTT 5, "+tls.VersionName(tt.paho), func(t *testing.T) {
				d := f.device(t, short+"-5-"+tt.seen[len(tt.seen)-1:], kind)
				c := s.join5(t, d, dialing{version: tt.paho})
				if got := c.send(t, "d/"+d.name+"/x", "hello", 1); got != 0 {
					t.Errorf("PUBACK: got %#x, want 0", got)
				}
			})
		}
	}
}

func TestDevicesOfCAsOfEveryKeyKindJoin(t *testing.T) {
	need(t, "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	s.createPolicy(t, "devices", devicePolicy)
	for _, kind := range []string{"P-384", "P-521", "RSA 2048", "RSA 3072"} {
		t.Run(kind, func(t *testing.T) {
			f := newFactory(t, "CA "+kind, kind)
			s.registerCA(t, f, withTemplate(jitpTemplate("devices", "")))
			s.join(t, f.device(t, "of-"+strings.ReplaceAll(kind, " ", "-"), "P-256"))
		})
	}
}

var serverBlock = regexp.MustCompile(`(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----`)

func TestTheServerCertificateIsOneThatTheClientCanVerify(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := startServer(t)
	d := s.line(t, "Server certificates").device(t, "chooser", "P-256")
	rsaOnly := []x509.SignatureAlgorithm{x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS}
	tests := []struct {
		name, want string
		args       []string
		// signed lists the algorithms that the certificate itself may be signed
		// with, where the client can verify these only (RFC 5246 section 7.4.2,
		// RFC 8446 section 4.4.2.2). Nil: any.
		signed []x509.SignatureAlgorithm
	}{
		{"a client that can do all gets ECDSA", "ECDSA", nil, nil},
		{"TLS 1.2 with ECDSA suites only", "ECDSA", []string{"-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"}, nil},
		{"TLS 1.2 with RSA suites only", "RSA(-PSS)?", []string{"-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384"}, nil},
		{"TLS 1.2 with RSA signatures only", "RSA", []string{"-tls1_2", "-sigalgs", "RSA+SHA256:RSA+SHA384"}, rsaOnly},
		{"TLS 1.3 with ECDSA signatures only", "ECDSA", []string{"-tls1_3", "-sigalgs", "ECDSA+SHA256"}, nil},
		{"TLS 1.3 with RSA signatures only", "RSA-PSS", []string{"-tls1_3", "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"}, rsaOnly},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"s_client", "-connect", s.device(), "-servername", "localhost", "-cert", d.cert, "-key", d.key,
				"-CAfile", s.at().CABundle, "-verify_return_error", "-verify_hostname", "localhost"}, tt.args...)
			run := runTool(t, "", cleanEnv(), "openssl", args...)
			if !regexp.MustCompile("(?m)^Peer signature type: "+tt.want+"$").MatchString(run.stdout) || !strings.Contains(run.stdout, "Verify return code: 0 (ok)") {
				t.Fatalf("got exit code %d, want signature type %s and a verified chain\n%s", run.exit, tt.want, run.all())
			}
			block, _ := pem.Decode([]byte(serverBlock.FindString(run.stdout)))
			if block == nil {
				t.Fatalf("openssl showed no certificate:\n%s", run.stdout)
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			if tt.signed != nil && !slices.Contains(tt.signed, cert.SignatureAlgorithm) {
				t.Errorf("signature on the server's certificate: got %s, which this client doesn't offer", cert.SignatureAlgorithm)
			}
		})
	}
}

func TestTheTemplateDecidesWhatHappensToAThingThatExists(t *testing.T) {
	need(t, "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	s.createPolicy(t, "devices", devicePolicy)
	api := s.sdk(t)
	tests := []struct {
		override string
		fails    bool
		want     map[string]string
	}{
		{"MERGE", false, map[string]string{"serial": "SN-MERGE", "origin": "template", "site": "lab"}},
		{"REPLACE", false, map[string]string{"serial": "SN-REPLACE", "origin": "template"}},
		{"DO_NOTHING", false, map[string]string{"serial": "old", "site": "lab"}},
		{"FAIL", true, map[string]string{"serial": "old", "site": "lab"}},
	}
	for _, tt := range tests {
		t.Run(tt.override, func(t *testing.T) {
			f := newFactory(t, "Override "+tt.override, "P-256")
			name := strings.ReplaceAll(tt.override, "_", "-")
			s.registerCA(t, f, withTemplate(jitpTemplate("devices", `,"OverrideSettings":{"AttributePayload":"`+tt.override+`"}`)))
			must(api.CreateThing(t.Context(), &iot.CreateThingInput{
				ThingName: aws.String(name), AttributePayload: attributes(map[string]string{"serial": "old", "site": "lab"}),
			}))(t)
			d := f.device(t, name, "P-256")
			id := d.id(t)
			before := s.registry(t)
			if tt.fails {
				for range 2 {
					run := s.publish(t, d, d.name, "d/"+d.name+"/x")
					if run.exit == 0 || run.connack != noConnack {
						t.Errorf("got exit code %d, CONNACK %d; want a close without CONNACK\n%s", run.exit, run.connack, run.all())
					}
				}
				want := []string{"+ cert/" + id + " PENDING_ACTIVATION"}
				if diff := cmp.Diff(want, changes(before, s.registry(t))); diff != "" {
					t.Errorf("what the refused device changed (-want +got):\n%s", diff)
				}
				checkRefused(t, s.awaitExplained(t, d.cert, 2), "thing", "ConflictingUpdate")
			} else {
				s.join(t, d)
				after := s.registry(t)
				for _, line := range []string{"cert/" + id + " ACTIVE", "cert/" + id + " policy devices", "thing " + d.name + " has cert/" + id} {
					if !slices.Contains(after, line) {
						t.Errorf("the registry lacks %q:\n%s", line, strings.Join(after, "\n"))
					}
				}
			}
			thing := must(api.DescribeThing(t.Context(), &iot.DescribeThingInput{ThingName: aws.String(d.name)}))(t)
			if diff := cmp.Diff(tt.want, thing.Attributes); diff != "" {
				t.Errorf("attributes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnMQTT311DeviceMayDoJustWhatItsPolicyAllows(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := startServer(t)
	f := s.line(t, "Policy 3.1.1")
	d := f.device(t, "old-1", "P-256")
	s.join(t, d)
	sub := s.subscribe(t, d, d.name, "d/old-1/+", "mute/+")
	spectator := s.watcher(t)
	// From another client, so that the subscriber's own connection stays.
	for _, topic := range []string{"mute/old-1", "d/other/x", "d/old-1/x"} {
		run := s.publish(t, spectator, "spectator", topic)
		if run.exit != 0 {
			t.Fatalf("publish on %s: exit code %d\n%s", topic, run.exit, run.all())
		}
	}
	if got := sub.await(t, "d/old-1/x", 1); got != "hello" {
		t.Errorf("message: got %q, want hello", got)
	}
	if muted := messages(sub.said.String(), "mute/old-1"); len(muted) != 0 {
		t.Errorf("messages that iot:Receive doesn't allow: got %q, want none", muted)
	}
	sub.kill()
	tests := []struct {
		name, topic, qos string
	}{
		{"QoS 0", "d/other/x", "0"},
		{"QoS 1", "d/other/x", "1"},
		{"reserved topic", "$aws/events/presence/connected/old-1", "1"},
	}
	for _, tt := range tests {
		t.Run("publish denied with "+tt.name, func(t *testing.T) {
			// A QoS 0 publisher says DISCONNECT behind its message and sees no
			// refusal: the server's record tells.
			run := s.publish(t, d, d.name, tt.topic, "-q", tt.qos)
			if tt.qos == "1" && (run.exit == 0 || run.connack != 0 || run.puback != noConnack) {
				t.Errorf("got exit code %d, CONNACK %d, PUBACK %d; want a close instead of PUBACK\n%s", run.exit, run.connack, run.puback, run.all())
			}
			checkEnded(t, s.awaitExplained(t, d.name, 1), "PublishDenied")
		})
	}
	t.Run("subscribe denied", func(t *testing.T) {
		sub := s.trySubscribe(t, d, d.name, []string{"-W", "20"}, "d/other/x")
		sub.said.wait(t, "SUBSCRIBE", func(text string) bool { return strings.Contains(text, "sending SUBSCRIBE") })
		checkEnded(t, s.awaitExplained(t, d.name, 1), "SubscribeDenied")
		if text := sub.said.String(); strings.Contains(text, "received SUBACK") {
			t.Errorf("a denied SUBSCRIBE: got SUBACK, want a close\n%s", text)
		}
		sub.kill()
	})
}

func TestAnMQTT5DeviceMayDoJustWhatItsPolicyAllows(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := startServer(t)
	f := s.line(t, "Policy 5")
	d := f.device(t, "new-1", "P-256")
	c := s.join5(t, d, dialing{})
	if got, want := c.ask(t, "d/new-1/#", "d/other/#", "mute/+"), []byte{1, 0x87, 1}; !slices.Equal(got, want) {
		t.Errorf("SUBACK: got %#x, want %#x", got, want)
	}
	if got := c.send(t, "d/other/x", "denied", 1); got != 0x87 {
		t.Errorf("PUBACK of a denied PUBLISH: got %#x, want 0x87", got)
	}
	if got := c.send(t, "mute/new-1", "not received", 1); got != 0 {
		t.Errorf("PUBACK: got %#x, want 0", got)
	}
	if got := c.send(t, "d/new-1/x", "received", 1); got != 0 {
		t.Errorf("PUBACK: got %#x, want 0", got)
	}
	// What comes first is all that came: one connection keeps its order.
	if got, want := c.receive(t), (message{"d/new-1/x", "received"}); got != want {
		t.Errorf("message: got %v, want %v", got, want)
	}
	c.send(t, "d/other/x", "denied", 0)
	if got := c.goodbye(t); got != 0x87 {
		t.Errorf("DISCONNECT after a denied QoS 0 PUBLISH: got %#x, want 0x87", got)
	}
	checkEnded(t, s.awaitExplained(t, d.name, 1), "PublishDenied")
	_ = c.Disconnect(&paho.Disconnect{})
}
