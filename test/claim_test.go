package test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// TestDevicesAreProvisionedByClaim ensures both flows with foreign clients of
// both versions and in both formats, in two tenants that use the same names.
func TestDevicesAreProvisionedByClaim(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t, "IMPRINT_CLAIM_RATE=0")
	fleets := []*fleet{s.one.fleet(t), s.two.fleet(t)}
	for _, client := range []struct {
		name string
		open func(*fleet, *testing.T, *device, string, string) asker
	}{{"MQTT 3.1.1", (*fleet).open3}, {"MQTT 5", (*fleet).open5}} {
		for _, format := range []string{"json", "cbor"} {
			for _, ownKey := range []bool{false, true} {
				kind := map[bool]string{false: "keys", true: "csr"}[ownKey]
				name := strings.NewReplacer(" ", "", ".", "").Replace(client.name) + "-" + format + "-" + kind
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					for _, f := range fleets {
						a := client.open(f, t, f.claim, "provisioning-"+name, format)
						d, registered := f.onboard(t, a, format, name, ownKey)
						a.leave(t)
						f.checkOnboarded(t, d, registered)
					}
				})
			}
		}
	}
}

// TestAnAnswerGoesToTheOneThatAsked ensures that others with the same claim, and
// with subscriptions to the same topics, never see a private key.
func TestAnAnswerGoesToTheOneThatAsked(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t, "IMPRINT_CLAIM_RATE=0")
	f := s.one.fleet(t)
	t.Cleanup(func() {
		if strings.Contains(s.stderr.String(), "PRIVATE KEY") {
			t.Error("the log has a private key")
		}
	})
	one, two := f.open5(t, f.claim, "one", "json"), f.open5(t, f.claim, "two", "json")
	watcher := s.connect(t, s.one.device, "watcher", dialing{host: f.host})
	watcher.ask(t, "#", "$aws/certificates/create/json/+", "$share/g/$aws/certificates/create/json/accepted")
	first := mustCall(t, one, "$aws/certificates/create/json", nil)
	second := mustCall(t, two, "$aws/certificates/create/json", nil)
	if first.ID == second.ID || first.Key == second.Key {
		t.Error("two devices got the same certificate")
	}
	watcher.ask(t, "end")
	watcher.send(t, "end", "end", 1)
	if got := watcher.receive(t); got.topic != "end" {
		t.Errorf("a watcher got the answer on %s", got.topic)
	}
	one.leave(t)
	two.leave(t)
	for _, a := range s.awaitExplained(t, f.claimID, 2) {
		for _, step := range a.Steps {
			if strings.Contains(step.Detail, "PRIVATE KEY") || strings.Contains(step.Detail, first.Token) {
				t.Errorf("the trace has a secret: %s", step.Detail)
			}
		}
	}
}

// TestOwnershipTokensAreGoodOnceForTheirClaim ensures what a token is bound to.
func TestOwnershipTokensAreGoodOnceForTheirClaim(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t, "IMPRINT_CLAIM_RATE=0")
	f, elsewhere := s.one.fleet(t), s.two.fleet(t)
	const provision = "$aws/provisioning-templates/sensors/provision/json"
	a := f.open5(t, f.claim, "tokens", "json")
	made := mustCall(t, a, "$aws/certificates/create/json", nil)
	request := map[string]any{"certificateOwnershipToken": made.Token, "parameters": map[string]string{"SerialNumber": "token"}}
	const invalid = "InvalidCertificateOwnershipToken"

	mustReject(t, a, provision, map[string]any{"certificateOwnershipToken": ""}, 400, invalid)
	mustReject(t, a, provision, map[string]any{"certificateOwnershipToken": "eyJ2ZXJzaW9uIjoiMSJ9"}, 400, invalid)
	mustReject(t, a, provision, map[string]any{"certificateOwnershipToken": made.Token[:60] + strings.Repeat("A", len(made.Token)-60)}, 400, invalid)
	mustReject(t, elsewhere.open5(t, elsewhere.claim, "tokens", "json"), provision, request, 400, invalid)
	other := selfSigned(t, "another claim")
	f.register(t, other)
	mustReject(t, f.open5(t, other, "other claim", "json"), provision, request, 400, invalid)

	mustReject(t, a, provision, map[string]any{"certificateOwnershipToken": made.Token}, 400, "InvalidParameters")
	// Another connection of the same claim may go on.
	b := f.open5(t, f.claim, "tokens again", "json")
	if got := mustCall(t, b, provision, request); got.Thing != "sensor-token" {
		t.Errorf("thing: got %q, want sensor-token", got.Thing)
	}
	mustReject(t, a, provision, request, 400, invalid)
}

// TestATokenOutlivesTheServer ensures that a kill between the certificate and
// its registration costs nothing.
func TestATokenOutlivesTheServer(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t, "IMPRINT_CLAIM_RATE=0")
	f := s.one.fleet(t)
	made := mustCall(t, f.open5(t, f.claim, "before", "json"), "$aws/certificates/create/json", nil)
	s.signal(killed)
	s.start()
	got := mustCall(t, f.open5(t, f.claim, "after", "json"), "$aws/provisioning-templates/sensors/provision/json", map[string]any{
		"certificateOwnershipToken": made.Token, "parameters": map[string]string{"SerialNumber": "survivor"},
	})
	if got.Thing != "sensor-survivor" {
		t.Errorf("thing: got %q, want sensor-survivor", got.Thing)
	}
}

// TestTrustedUsersClaimsAreGoodForTheirTemplateAlone ensures the whole way of a
// trusted user.
func TestTrustedUsersClaimsAreGoodForTheirTemplateAlone(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t, "IMPRINT_CLAIM_RATE=0")
	f := s.one.fleet(t)
	before := len(must(f.api.ListCertificates(t.Context(), &iot.ListCertificatesInput{}))(t).Certificates)
	claim := must(f.api.CreateProvisioningClaim(t.Context(), &iot.CreateProvisioningClaimInput{TemplateName: aws.String("sensors")}))(t)
	if left := time.Until(aws.ToTime(claim.Expiration)); left < 4*time.Minute || left > 5*time.Minute {
		t.Errorf("the claim is good for %s, want five minutes", left)
	}
	if got := len(must(f.api.ListCertificates(t.Context(), &iot.ListCertificatesInput{}))(t).Certificates); got != before {
		t.Errorf("ListCertificates: got %d certificates, want %d: claims aren't listed", got, before)
	}
	installer := &device{name: "installer", cert: t.TempDir() + "/cert.pem", key: t.TempDir() + "/key.pem"}
	writeFile(t, installer.cert, aws.ToString(claim.CertificatePem))
	writeFile(t, installer.key, aws.ToString(claim.KeyPair.PrivateKey))
	a := f.open5(t, installer, "any client id", "json")
	d, registered := f.onboard(t, a, "json", "installed", true)
	f.checkOnboarded(t, d, registered)
	a.leave(t)
	list := s.awaitExplained(t, aws.ToString(claim.CertificateId), 1)
	if len(list) == 0 {
		t.FailNow()
	}
	var asked, came bool
	for _, step := range list[0].Steps {
		asked = asked || step.Name == "certificate" && strings.Contains(step.Detail, "claim for template sensors that arn:aws:iam::")
		came = came || step.Name == "claim.registered" && strings.Contains(step.Detail, "sensor-installed") && strings.Contains(step.Detail, d.id(t))
	}
	if !asked || !came || list[0].Thing != "sensor-installed" {
		t.Errorf("the trace doesn't say who asked and what came of it:\n%+v", list[0])
	}
	// Nothing but its own topics.
	c := s.connect(t, installer, "curious", dialing{host: f.host})
	if got := c.ask(t, "devices/#", "$aws/provisioning-templates/others/provision/json/accepted"); got[0] != 0x87 || got[1] != 0x87 {
		t.Errorf("SUBACK of foreign topics: got %v, want 0x87", got)
	}
	if got := c.send(t, "$aws/provisioning-templates/others/provision/json", "{}", 1); got != 0x87 {
		t.Errorf("PUBACK of another template: got %#x, want 0x87", got)
	}
}

// TestWhatNobodyRegistersIsDeleted ensures that a certificate ends with its
// token, also over a restart.
func TestWhatNobodyRegistersIsDeleted(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t, append(quickSweep(2*time.Second), "IMPRINT_CLAIM_SWEEP=1s")...)
	f := s.one.fleet(t)
	made := mustCall(t, f.open5(t, f.claim, "late", "json"), "$aws/certificates/create/json", nil)
	s.signal(killed)
	s.start()
	api := s.sdk(t) // it listens somewhere else now
	until(t, "the certificate to be deleted", func() bool {
		_, err := api.DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: aws.String(made.ID)})
		var missing *types.ResourceNotFoundException
		return errors.As(err, &missing)
	})
	mustReject(t, f.open5(t, f.claim, "late", "json"), "$aws/provisioning-templates/sensors/provision/json",
		map[string]any{"certificateOwnershipToken": made.Token}, 400, "InvalidCertificateOwnershipToken")
}

// TestAClaimsGuardIsSetByTheCommandLine ensures quota, allow list, event, trace
// and metric as operators meet them.
func TestAClaimsGuardIsSetByTheCommandLine(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t, "IMPRINT_CLAIM_RATE=0")
	f := s.one.fleet(t)
	// The same claim certificate in another account, with a guard of its own there: what
	// stops the one stops nothing of the other.
	const neighbour = "111111111111"
	key := s.addAccount(t, neighbour)
	elsewhere := s.side(t, neighbour, key, "us-east-1").fleet(t)
	if id := elsewhere.register(t, f.claim); id != f.claimID {
		t.Fatalf("the claim has the id %s in one account and %s in another", f.claimID, id)
	}
	guarded := s.shell(t, t.TempDir(), as(key)+"imprint claim guard "+f.claimID+" --quota 2")
	if guarded.exit != 0 {
		t.Fatalf("the other account's guard: exit code %d\n%s", guarded.exit, guarded.all())
	}
	done := func(args ...string) string {
		t.Helper()
		run := s.imprint(t, args[0], args[1:]...)
		if run.exit != 0 {
			t.Fatalf("imprint %s: exit code %d\n%s", strings.Join(args, " "), run.exit, run.all())
		}
		return run.stdout
	}
	done("claim", "guard", f.claim.cert, "--quota", "1", "--serial-parameter", "SerialNumber", "--network", "127.0.0.0/8,::1", "--max-refusals", "100", "--window", "1m")
	var list strings.Builder
	list.WriteString("product,serial\n")
	for n := range 12_000 {
		fmt.Fprintf(&list, "sensor,SN-%05d\n", n)
	}
	file := filepath.Join(t.TempDir(), "serials.csv")
	writeFile(t, file, list.String())
	if got, want := done("claim", "allow", f.claimID, "--file", file, "--column", "serial"), "12000 read, 12000 added, 12000 in the allow list\n"; got != want {
		t.Errorf("claim allow: got %q, want %q", got, want)
	}
	if got, want := done("claim", "allow", f.claimID, "--file", file, "--column", "serial"), "12000 read, 0 added, 12000 in the allow list\n"; got != want {
		t.Errorf("claim allow again: got %q, want %q", got, want)
	}
	watcher := s.connect(t, s.one.device, "watcher", dialing{host: f.host})
	watcher.ask(t, "$aws/events/imprint/claims/stopped/+")
	a := f.open5(t, f.claim, "guarded", "json")
	const provision = "$aws/provisioning-templates/sensors/provision/json"
	register := func(serial string) map[string]any {
		made := mustCall(t, a, "$aws/certificates/create/json", nil)
		return map[string]any{"certificateOwnershipToken": made.Token, "parameters": map[string]string{"SerialNumber": serial}}
	}
	mustReject(t, a, provision, register("SN-99999"), 403, "AccessDenied")
	mustCall(t, a, provision, register("SN-00042"))
	mustReject(t, a, "$aws/certificates/create/json", nil, 403, "AccessDenied")
	if m := watcher.receive(t); !strings.HasSuffix(m.topic, f.claimID) || !strings.Contains(m.payload, "ClaimQuotaExceeded") {
		t.Errorf("event: got %s %s", m.topic, m.payload)
	}
	b := elsewhere.open5(t, f.claim, "guarded", "json")
	made := mustCall(t, b, "$aws/certificates/create/json", nil)
	mustCall(t, b, provision, map[string]any{"certificateOwnershipToken": made.Token, "parameters": map[string]string{"SerialNumber": "SN-99999"}})
	b.leave(t)
	if got := s.metric(t, "imprint_claim_stopped_total"); got != 1 {
		t.Errorf("imprint_claim_stopped_total: got %v, want 1", got)
	}
	if got := done("claim", "guard"); !strings.Contains(got, f.claimID) || !strings.Contains(got, "STOPPED") || !strings.Contains(got, "1 of 1 devices") {
		t.Errorf("claim guard: got %q", got)
	}
	mustReject(t, a, "$aws/certificates/create/json", nil, 403, "AccessDenied")
	done("claim", "guard", f.claimID, "--quota", "5", "--resume", "--network", "any")
	mustCall(t, a, provision, register("SN-00043"))
	a.leave(t)
	if list := s.awaitExplained(t, f.claimID, 1); len(list) == 1 {
		stopped := false
		for _, step := range list[0].Steps {
			stopped = stopped || step.Name == "claim.stopped"
		}
		if !stopped {
			t.Errorf("the trace doesn't say that the claim was stopped: %+v", list[0].Steps)
		}
	}
	done("claim", "guard", f.claimID, "--delete")
	if run := s.imprint(t, "claim", "guard", f.claimID); run.exit != 1 || !strings.Contains(run.stderr, "has no claim guard") {
		t.Errorf("claim guard after --delete: exit code %d, %q", run.exit, run.all())
	}
}

// TestTheCommandsOfTheClaimPageWork ensures that who types what docs/fleet-provisioning.md
// says has a device that is on, and a guarded claim.
func TestTheCommandsOfTheClaimPageWork(t *testing.T) {
	need(t, "bash", "aws", "openssl", "mosquitto_rr", "mosquitto_pub")
	t.Parallel()
	s, dir := startServer(t), t.TempDir()
	run := s.shell(t, dir, commandsOf(t, "fleet-provisioning.md")+`
imprint explain sensor-SN-17 | grep policy.publish
`)
	if run.exit != 0 {
		t.Fatalf("exit code %d\n%s", run.exit, run.all())
	}
	for _, want := range []string{`"thingName":"sensor-SN-17"`, "iot:Publish on arn:aws:iot:us-east-1:000000000000:topic/devices/sensor-SN-17/temperature is allowed", "1 read, 1 added"} {
		if !strings.Contains(run.stdout, want) {
			t.Errorf("the commands don't say %q:\n%s", want, run.all())
		}
	}
}
