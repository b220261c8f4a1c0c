package test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/eclipse/paho.golang/paho"
	"github.com/google/go-cmp/cmp"
)

func attributes(values map[string]string) *types.AttributePayload {
	return &types.AttributePayload{Attributes: values}
}

// checkRefused says whether attempts ended at a step with a code and a fix.
func checkRefused(t *testing.T, list []attempt, step, code string) {
	t.Helper()
	for _, a := range list {
		if a.Outcome != "refused" || a.Code != code {
			t.Errorf("attempt: got %s %s, want refused %s\n%+v", a.Outcome, a.Code, code, a)
			continue
		}
		found := false
		for _, st := range a.Steps {
			if st.Verdict == "failed" {
				found = true
				if st.Name != step || st.Code != code || st.Fix == "" || st.Detail == "" {
					t.Errorf("failed step: got %+v, want step %s, code %s, a detail and a fix", st, step, code)
				}
			}
		}
		if !found {
			t.Errorf("no step of the attempt failed: %+v", a)
		}
	}
}

// checkEnded says whether connections that were let in ended for a reason that
// a failed step explains.
func checkEnded(t *testing.T, list []attempt, code string) {
	t.Helper()
	for _, a := range list {
		if a.Outcome != "closed" || a.Code != code {
			t.Errorf("attempt: got %s %s, want closed %s\n%+v", a.Outcome, a.Code, code, a)
			continue
		}
		last := a.Steps[len(a.Steps)-1]
		if last.Verdict != "failed" || last.Code != code || last.Fix == "" || last.Detail == "" {
			t.Errorf("last step: got %+v, want failed, code %s, a detail and a fix", last, code)
		}
	}
}

// refusal is a row of the table of devices that aren't let in.
type refusal struct {
	name string
	// arrange makes the device and what it meets.
	arrange func(t *testing.T) *device
	// client id, the device's name when empty; will is a will's topic.
	clientID, will string

	step, code string
	reason     int // of the MQTT 5 CONNACK
	// leaves is the status in which the certificate is registered by the
	// refusal; empty when nothing may change.
	leaves string
	things bool // the device has a thing of its name
}

// bench is a server with what the rows of the table need.
type bench struct {
	*server
	good *factory // auto-registration with a template that works
	rows atomic.Int64
}

func (b *bench) factoryWith(t *testing.T, change func(*iot.RegisterCACertificateInput)) *factory {
	f := newFactory(t, fmt.Sprintf("Refusals %d", b.next()), "P-256")
	b.registerCA(t, f, change)
	return f
}

func (b *bench) next() int {
	return int(b.rows.Add(1))
}

// joined makes a device that was provisioned, then has its certificate changed.
func (b *bench) joined(status types.CertificateStatus) func(*testing.T) *device {
	return func(t *testing.T) *device {
		d := b.good.device(t, fmt.Sprintf("joined-%d", b.next()), "P-256")
		b.join(t, d)
		if status != "" {
			must(b.sdk(t).UpdateCertificate(t.Context(), &iot.UpdateCertificateInput{CertificateId: aws.String(d.id(t)), NewStatus: status}))(t)
		}
		return d
	}
}

// under makes a device of a CA registered in a way of its own.
func (b *bench) under(change func(*iot.RegisterCACertificateInput)) func(*testing.T) *device {
	return func(t *testing.T) *device {
		return b.factoryWith(t, change).device(t, fmt.Sprintf("under-%d", b.next()), "P-256")
	}
}

func (b *bench) refusals(expired *factory, caExpires time.Time) []refusal {
	now := time.Now()
	const pending = "PENDING_ACTIVATION"
	return []refusal{
		{name: "CA without auto-registration", step: "ca", code: "AutoRegistrationOff", reason: 0x87,
			arrange: b.under(func(in *iot.RegisterCACertificateInput) { in.AllowAutoRegistration = false })},
		{name: "CA INACTIVE", step: "ca", code: "CAInactive", reason: 0x87,
			arrange: b.under(func(in *iot.RegisterCACertificateInput) { in.SetAsActive = false })},
		{name: "unknown CA", step: "ca", code: "CANotRegistered", reason: 0x87,
			arrange: func(t *testing.T) *device {
				return newFactory(t, "Nobody knows", "P-256").device(t, "stranger", "P-256")
			}},
		{name: "a CA's name with another key", step: "ca", code: "CASignatureMismatch", reason: 0x87,
			arrange: func(t *testing.T) *device { return newFactory(t, "Good", "P-256").device(t, "impostor", "P-256") }},
		{name: "unknown certificate that no CA signed", step: "ca", code: "CANotRegistered", reason: 0x87,
			arrange: func(t *testing.T) *device { return selfSigned(t, "lonely") }},
		{name: "certificate INACTIVE", step: "certificate", code: "CertificateInactive", reason: 0x87, things: true,
			arrange: b.joined(types.CertificateStatusInactive)},
		{name: "certificate REVOKED", step: "certificate", code: "CertificateRevoked", reason: 0x87, things: true,
			arrange: b.joined(types.CertificateStatusRevoked)},
		{name: "certificate PENDING_ACTIVATION by just-in-time registration", step: "activate", code: "RegisteredPendingActivation",
			reason: 0x87, leaves: pending, arrange: b.under(nil)},
		{name: "certificate expired", step: "certificate.validity", code: "CertificateExpired", reason: 0x87,
			arrange: func(t *testing.T) *device {
				return b.good.between(t, "past", now.Add(-48*time.Hour), now.Add(-24*time.Hour))
			}},
		{name: "certificate not yet valid", step: "certificate.validity", code: "CertificateNotYetValid", reason: 0x87,
			arrange: func(t *testing.T) *device {
				return b.good.between(t, "future", now.Add(24*time.Hour), now.Add(48*time.Hour))
			}},
		{name: "subject without a field that the template needs", step: "template.plan", code: "ParameterMissing", reason: 0x87, leaves: pending,
			arrange: func(t *testing.T) *device { return b.good.make(t, "no-serial", "/CN=no-serial", "P-256") }},
		{name: "template names a policy that doesn't exist", step: "policy", code: "PolicyMissing", reason: 0x87, leaves: pending,
			arrange: b.under(withTemplate(jitpTemplate("no-such-policy", "")))},
		{name: "template disabled", step: "template", code: "TemplateDisabled", reason: 0x87, leaves: pending,
			arrange: b.under(func(in *iot.RegisterCACertificateInput) {
				in.RegistrationConfig = &types.RegistrationConfig{TemplateName: aws.String("disabled")}
			})},
		{name: "client id that the policy doesn't allow", step: "policy.connect", code: "ConnectDenied", reason: 0x87, clientID: "somebody-else",
			arrange: b.joined("")},
		{name: "client id that begins with $", step: "mqtt.clientid", code: "ClientIDInvalid", reason: 0x85, clientID: "$device", arrange: b.joined("")},
		{name: "will on a forbidden topic", step: "mqtt.will", code: "WillDenied", reason: 0x87, will: "d/other/will", things: true, arrange: b.joined("")},
		{name: "CA expired", step: "ca", code: "CAExpired", reason: 0x87,
			arrange: func(t *testing.T) *device {
				d := expired.between(t, "orphan", now.Add(-time.Hour), now.Add(time.Hour))
				// The one wait for time: a CA that has expired can't be registered.
				until(t, "the CA to expire", func() bool { return time.Now().After(caExpires) })
				return d
			}},
	}
}

func TestDevicesThatMayNotConnectAreRefusedAndToldWhy(t *testing.T) {
	need(t, "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	b := &bench{server: s, good: s.line(t, "Good")}
	expired, caExpires := s.shortLivedCA(t)
	must(s.sdk(t).CreateProvisioningTemplate(t.Context(), &iot.CreateProvisioningTemplateInput{
		TemplateName: aws.String("disabled"), Type: types.TemplateTypeJitp,
		TemplateBody: aws.String(jitpTemplate("devices", "")), ProvisioningRoleArn: aws.String(role),
	}))(t)
	for n, tt := range b.refusals(expired, caExpires) {
		// An address of its own tells the row's attempts from all others.
		address := fmt.Sprintf("127.0.1.%d", n+1)
		t.Run(tt.name, func(t *testing.T) { b.check(t, tt, address) })
	}
}

// check takes a device of a row to the server, with both versions of MQTT.
func (b *bench) check(t *testing.T, tt refusal, address string) {
	d := tt.arrange(t)
	clientID := tt.clientID
	if clientID == "" {
		clientID = d.name
	}
	before := b.registry(t)
	more := []string{"-A", address}
	how := dialing{from: address}
	if tt.will != "" {
		more = append(more, "--will-topic", tt.will, "--will-payload", "gone")
		how.will = &paho.WillMessage{Topic: tt.will, Payload: []byte("gone")}
	}
	checkSilentClose(t, b.publish(t, d, clientID, "d/"+d.name+"/x", more...))
	if got := b.refused(t, d, clientID, how); got != tt.reason {
		t.Errorf("MQTT 5 CONNACK: got %#x, want %#x", got, tt.reason)
	}
	var want []string
	if tt.leaves != "" {
		want = []string{"+ cert/" + d.id(t) + " " + tt.leaves}
	}
	if diff := cmp.Diff(want, changes(before, b.registry(t))); diff != "" {
		t.Errorf("what the refused connections changed (-want +got):\n%s", diff)
	}
	who := []string{d.cert, d.serial(t), d.id(t), address}
	if tt.things {
		who = append(who, d.name)
	}
	for _, word := range who {
		checkRefused(t, b.awaitExplained(t, word, 2), tt.step, tt.code)
	}
}

// sClient runs openssl s_client from an address of its own.
func (s *server) sClient(t *testing.T, address, input string, args ...string) toolRun {
	t.Helper()
	return runTool(t, input, cleanEnv(), "openssl", append([]string{"s_client", "-connect", s.device(), "-bind", address + ":0", "-CAfile", s.at().CABundle, "-ign_eof"}, args...)...)
}

func TestPeersThatDoNotGetThroughTLSAreRefusedAndTheOperatorIsToldWhy(t *testing.T) {
	need(t, "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	d := s.line(t, "TLS").device(t, "tls-1", "P-256")
	s.join(t, d)
	known := []string{"-cert", d.cert, "-key", d.key}
	before := s.registry(t)
	tests := []struct {
		name, code, alert string
		run               func(t *testing.T, address string) toolRun
	}{
		{"wrong server name", "SNIUnknown", "SSL alert number 112", func(t *testing.T, from string) toolRun {
			return s.sClient(t, from, "", append(known, "-servername", "other.example.com")...)
		}},
		{"only application protocols that are unknown", "ALPNUnknown", "SSL alert number 120", func(t *testing.T, from string) toolRun {
			return s.sClient(t, from, "", append(known, "-servername", "localhost", "-alpn", "http/1.1,stun.turn")...)
		}},
		{"no client certificate, TLS 1.3", "NoClientCertificate", "SSL alert number 116", func(t *testing.T, from string) toolRun {
			return s.sClient(t, from, "", "-servername", "localhost", "-tls1_3")
		}},
		{"no client certificate, TLS 1.2", "NoClientCertificate", "SSL alert number 4", func(t *testing.T, from string) toolRun {
			return s.sClient(t, from, "", "-servername", "localhost", "-tls1_2")
		}},
		{"a TLS version that is too old", "TLSVersionRefused", "SSL alert number 70", func(t *testing.T, from string) toolRun {
			return s.sClient(t, from, "", append(known, "-servername", "localhost", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")...)
		}},
		{"MQTT without TLS", "NotTLS", "", func(t *testing.T, from string) toolRun {
			return runTool(t, "", cleanEnv(), "mosquitto_pub", "-h", "127.0.0.1", "-p", s.port(), "-A", from, "-i", "plain", "-t", "a", "-m", "b")
		}},
	}
	for n, tt := range tests {
		address := fmt.Sprintf("127.0.2.%d", n+1)
		t.Run(tt.name, func(t *testing.T) {
			run := tt.run(t, address)
			if run.exit == 0 || !strings.Contains(run.all(), tt.alert) {
				t.Errorf("the client: got exit code %d, want a failure with %q\n%s", run.exit, tt.alert, run.all())
			}
			checkRefused(t, s.awaitExplained(t, address, 1), "tls", tt.code)
			list := s.imprint(t, "attempts", "--failed", "--json", "--limit", "5")
			if list.exit != 0 || !strings.Contains(list.stdout, `"address": "`+address+`:`) {
				t.Errorf("imprint attempts --failed: got exit code %d, want 0 and the attempt from %s", list.exit, address)
			}
		})
	}
	if diff := cmp.Diff(before, s.registry(t)); diff != "" {
		t.Errorf("the registry changed (-before +after):\n%s", diff)
	}
}
