package test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
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

const registerSensor = "$aws/provisioning-templates/sensors/provision/json"

// functional is a fleet whose template asks a real function as its hook, or whose
// tenant has it sign; the other tenant has neither.
type functional struct {
	*fleet
	other *fleet
	ca    *factory
	gate  string // where the function waits
}

// What a function of a fleet is for.
const (
	asHook     = "hook"
	asProvider = "provider"
)

// patientHooks keep a slow machine from failing what isn't about time.
const patientHooks = "IMPRINT_HOOK_TIMEOUT=25s"

// newFunctional puts the function of hookfunction onto a server, through the AWS CLI.
func newFunctional(t *testing.T, settings []string, roles ...string) *functional {
	t.Helper()
	need(t, "openssl", "aws", "bash")
	s := newStage(t, append(settings, "IMPRINT_CLAIM_RATE=0")...)
	f := &functional{fleet: s.one.fleet(t), other: s.two.fleet(t), ca: newFactory(t, "Maker's CA", "P-256"), gate: filepath.Join(openDirectory(t), "go")}
	dir := t.TempDir()
	target := s.putFunction(t, dir, f.ca, f.gate)
	for _, role := range roles {
		source := arn + "provisioningtemplate/sensors"
		if role == asProvider {
			source = f.provide(t, target)
		} else {
			must(f.api.UpdateProvisioningTemplate(t.Context(), &iot.UpdateProvisioningTemplateInput{
				TemplateName: aws.String("sensors"), PreProvisioningHook: &types.ProvisioningHook{TargetArn: aws.String(target)},
			}))(t)
		}
		s.permit(t, dir, role, source)
	}
	return f
}

// putFunction puts the function of hookfunction onto a server, through the AWS CLI, and
// gives its ARN.
func (s *server) putFunction(t *testing.T, dir string, ca *factory, gate string) string {
	t.Helper()
	code := buildFunction(t, dir, "./hookfunction")
	writeFile(t, filepath.Join(dir, "env.json"), jsonOf(t, map[string]any{"Variables": map[string]string{
		"GATE": gate, "CA_CERTIFICATE": readFile(t, ca.cert), "CA_KEY": readFile(t, ca.key),
	}}))
	return s.aws(t, dir, "lambda create-function --function-name decide --runtime provided.al2023 --handler bootstrap --timeout 30"+
		" --role arn:aws:iam::000000000000:role/x --zip-file fileb://"+code+" --environment file://env.json --query FunctionArn --output text")
}

// permit lets the service invoke that function for one of its roles.
func (s *server) permit(t *testing.T, dir, role, source string) {
	t.Helper()
	s.aws(t, dir, "lambda add-permission --function-name decide --statement-id "+role+
		" --action lambda:InvokeFunction --principal iot.amazonaws.com --source-arn "+source)
}

// provide has a function sign in place of the built-in CA, and gives the ARN of the
// certificate provider.
func (f *fleet) provide(t *testing.T, target string) string {
	t.Helper()
	made := must(f.api.CreateCertificateProvider(t.Context(), &iot.CreateCertificateProviderInput{
		CertificateProviderName: aws.String("maker"), LambdaFunctionArn: aws.String(target),
		AccountDefaultForOperations: []types.CertificateProviderOperation{types.CertificateProviderOperationCreateCertificateFromCsr},
	}))(t)
	return aws.ToString(made.CertificateProviderArn)
}

// request makes a key and a signing request for a name.
func (f *functional) request(t *testing.T, name string) (key, csr string) {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "openssl.cnf"), opensslConfig)
	key, file := filepath.Join(dir, "own.key"), filepath.Join(dir, "own.csr")
	openssl(t, dir, append([]string{"req", "-new", "-nodes", "-subj", "/CN=" + name, "-keyout", key, "-out", file}, keyKinds["P-256"]...)...)
	return key, readFile(t, file)
}

// step finds what the trace says of one client about a step that failed.
func (f *functional) step(t *testing.T, client, name string) traceStep {
	t.Helper()
	var found traceStep
	eventuallyTrue(t, "the step "+name+" of "+client, func() bool {
		for _, a := range f.stage.explain(t, f.claimID) {
			for _, step := range a.Steps {
				if a.ClientID == client && step.Name == name && step.Verdict == "failed" {
					found = step
					return true
				}
			}
		}
		return false
	})
	return found
}

// checkUnregistered ensures that nothing of a device stays but its certificate, which
// may try again.
func (f *functional) checkUnregistered(t *testing.T, serial, id string) {
	t.Helper()
	_, err := f.api.DescribeThing(t.Context(), &iot.DescribeThingInput{ThingName: aws.String("sensor-" + serial)})
	var missing *types.ResourceNotFoundException
	if !errors.As(err, &missing) {
		t.Errorf("DescribeThing sensor-%s: got %v, want ResourceNotFoundException", serial, err)
	}
	cert := must(f.api.DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: aws.String(id)}))(t).CertificateDescription
	policies := must(f.api.ListAttachedPolicies(t.Context(), &iot.ListAttachedPoliciesInput{Target: cert.CertificateArn}))(t).Policies
	things := must(f.api.ListPrincipalThings(t.Context(), &iot.ListPrincipalThingsInput{Principal: cert.CertificateArn}))(t).Things
	if cert.Status != types.CertificateStatusPendingActivation || len(policies) > 0 || len(things) > 0 {
		t.Errorf("certificate of %s: got %s, policies %v, things %v; want PENDING_ACTIVATION and none", serial, cert.Status, policies, things)
	}
}

// TestAFunctionIsThePreProvisioningHook ensures what a real AWS Lambda function does as
// a hook: each way to fail is a no, seen by the device, told by the trace, and leaves
// nothing behind; the same token is good for the next try.
func TestAFunctionIsThePreProvisioningHook(t *testing.T) {
	t.Parallel()
	f := newFunctional(t, []string{patientHooks}, asHook)
	for _, c := range []struct{ kind, code, detail string }{
		{"deny", "HookDenied", "allowProvisioning false"},
		{"silent", "HookDenied", "no allowProvisioning"},
		{"text", "HookFailed", "answered something else than it should"},
		{"error", "HookFailed", "the database is away"},
		{"panic", "HookFailed", "out of its mind"},
		{"crash", "HookFailed", "exit status 3"},
		{"nonsense", "HookFailed", "Runtime.InvalidResponse"},
		{"large", "HookFailed", "Function.ResponseSizeTooLarge"},
	} {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			client := "hook-" + c.kind
			a := f.open5(t, f.claim, client, "json")
			made := mustCall(t, a, "$aws/certificates/create/json", nil)
			ask := func(serial string) map[string]any {
				return map[string]any{"certificateOwnershipToken": made.Token, "parameters": map[string]string{"SerialNumber": serial}}
			}
			mustReject(t, a, registerSensor, ask(c.kind+"-1"), 403, "AccessDenied")
			f.checkUnregistered(t, c.kind+"-1", made.ID)
			if got := mustCall(t, a, registerSensor, ask("allow-after-"+c.kind)); got.Thing != "sensor-allow-after-"+c.kind {
				t.Errorf("the next try: got thing %q", got.Thing)
			}
			a.leave(t)
			step := f.step(t, client, "claim.hook")
			if step.Code != c.code || !strings.Contains(step.Detail, c.detail) || step.Fix == "" {
				t.Errorf("step claim.hook: got %+v; want %s with %q and a fix", step, c.code, c.detail)
			}
			// The other tenant's template of that name has no hook.
			a = f.other.open5(t, f.other.claim, client, "json")
			d, registered := f.other.onboard(t, a, "json", c.kind+"-1", false)
			f.other.checkOnboarded(t, d, registered)
			a.leave(t)
		})
	}
}

// TestAFunctionThatHangsIsLeftAfterFiveSeconds ensures the time limit of AWS IoT Core,
// of hooks and of certificate providers.
func TestAFunctionThatHangsIsLeftAfterFiveSeconds(t *testing.T) {
	t.Parallel()
	f := newFunctional(t, nil, asHook, asProvider)
	a := f.open5(t, f.claim, "hang", "json")
	made := mustCall(t, a, "$aws/certificates/create/json", nil)
	_, csr := f.request(t, "hang-1")
	for topic, request := range map[string]map[string]any{
		registerSensor:                           {"certificateOwnershipToken": made.Token, "parameters": map[string]string{"SerialNumber": "hang-1"}},
		"$aws/certificates/create-from-csr/json": {"certificateSigningRequest": csr},
	} {
		began := time.Now()
		mustReject(t, a, topic, request, 403, "AccessDenied")
		if took := time.Since(began); took < 5*time.Second || took > 15*time.Second {
			t.Errorf("%s: refused after %s, want 5 s", topic, took)
		}
	}
	f.checkUnregistered(t, "hang-1", made.ID)
	a.leave(t)
	for name, code := range map[string]string{"claim.hook": "HookFailed", "claim.provider": "CertificateProviderFailed"} {
		step := f.step(t, "hang", name)
		if step.Code != code || !strings.Contains(step.Detail, "didn't answer in 5s") || !strings.Contains(step.Fix, "It has 5s (--hook-timeout)") {
			t.Errorf("step %s: got %+v; want %s, with the time and a fix", name, step, code)
		}
	}
}

// TestWhatAHookOverridesIsTaken ensures that a hook's answer may have more than it
// should: members and parameters that nobody asked for change nothing, and the
// certificate's id is the server's.
func TestWhatAHookOverridesIsTaken(t *testing.T) {
	t.Parallel()
	f := newFunctional(t, []string{patientHooks}, asHook)
	for _, kind := range []string{"allow", "unasked"} {
		a := f.open5(t, f.claim, "overridden-"+kind, "json")
		key, csr := f.request(t, kind)
		made := mustCall(t, a, "$aws/certificates/create-from-csr/json", map[string]any{"certificateSigningRequest": csr})
		d := &device{name: "sensor-" + kind + "-1", cert: filepath.Join(t.TempDir(), "cert.pem"), key: key}
		writeFile(t, d.cert, made.PEM)
		registered := mustCall(t, a, registerSensor, map[string]any{
			"certificateOwnershipToken": made.Token, "parameters": map[string]string{"SerialNumber": kind + "-1", "Site": "lab"},
		})
		a.leave(t)
		f.checkOnboarded(t, d, registered) // at the plant, as the hook says
	}
}

// TestAFunctionIsTheCertificateProvider ensures what a real AWS Lambda function does in
// place of the built-in CA.
func TestAFunctionIsTheCertificateProvider(t *testing.T) {
	t.Parallel()
	f := newFunctional(t, []string{patientHooks}, asProvider)
	count := func() int {
		return len(must(f.api.ListCertificates(t.Context(), &iot.ListCertificatesInput{PageSize: aws.Int32(250)}))(t).Certificates)
	}
	before := count()
	t.Run("failures", func(t *testing.T) {
		for _, c := range []struct{ kind, detail string }{
			{"otherkey", "another key than the request's"},
			{"expired", "can't be used"},
			{"empty", "answered no certificatePem"},
			{"notpem", "isn't a certificate"},
			{"error", "the database is away"},
			{"panic", "out of its mind"},
			{"crash", "exit status 3"},
			{"nonsense", "Runtime.InvalidResponse"},
			{"large", "Function.ResponseSizeTooLarge"},
		} {
			t.Run(c.kind, func(t *testing.T) {
				t.Parallel()
				client := "provider-" + c.kind
				a := f.open5(t, f.claim, client, "json")
				_, csr := f.request(t, c.kind+"-1")
				mustReject(t, a, "$aws/certificates/create-from-csr/json", map[string]any{"certificateSigningRequest": csr}, 403, "AccessDenied")
				a.leave(t)
				step := f.step(t, client, "claim.provider")
				if step.Code != "CertificateProviderFailed" || !strings.Contains(step.Detail, c.detail) || step.Fix == "" {
					t.Errorf("step claim.provider: got %+v; want CertificateProviderFailed with %q and a fix", step, c.detail)
				}
				// The other tenant has no provider: the built-in CA signs.
				a = f.other.open5(t, f.other.claim, client, "json")
				mustCall(t, a, "$aws/certificates/create-from-csr/json", map[string]any{"certificateSigningRequest": csr})
				a.leave(t)
			})
		}
	})
	if after := count(); after != before {
		t.Errorf("certificates after failures: got %d, want %d as before", after, before)
	}
	a := f.open5(t, f.claim, "signed", "json")
	key, csr := f.request(t, "sign-1")
	made := mustCall(t, a, "$aws/certificates/create-from-csr/json", map[string]any{"certificateSigningRequest": csr})
	d := &device{name: "sensor-signed", cert: filepath.Join(t.TempDir(), "cert.pem"), key: key}
	writeFile(t, d.cert, made.PEM)
	checkSignedBy(t, made.PEM, readFile(t, f.ca.cert))
	registered := mustCall(t, a, registerSensor, map[string]any{
		"certificateOwnershipToken": made.Token, "parameters": map[string]string{"SerialNumber": "signed", "Site": "plant"},
	})
	a.leave(t)
	f.checkOnboarded(t, d, registered)
}

func checkSignedBy(t *testing.T, certificate, ca string) {
	t.Helper()
	var read []*x509.Certificate
	for _, text := range []string{certificate, ca} {
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			t.Fatalf("no PEM: %q", text)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		read = append(read, cert)
	}
	err := read[0].CheckSignatureFrom(read[1])
	if err != nil {
		t.Errorf("the certificate isn't of the maker's CA: %v", err)
	}
}

// pending is a device that has its certificate and isn't registered yet.
type pending struct {
	claimed
	device *device
	serial string
	asker  asker5
}

// kill kills the server and starts it again.
func (f *functional) kill(t *testing.T) {
	t.Helper()
	f.stage.signal(killed)
	f.stage.start()
	f.api = f.stage.sdk(t) // it listens somewhere else now
}

// create has a certificate made for a device, over a connection of its own.
func (f *functional) create(t *testing.T, serial string) pending {
	t.Helper()
	a := f.open5(t, f.claim, "kill-"+serial, "json").(asker5)
	key, csr := f.request(t, serial)
	made := mustCall(t, a, "$aws/certificates/create-from-csr/json", map[string]any{"certificateSigningRequest": csr})
	d := &device{name: "sensor-" + serial, cert: filepath.Join(t.TempDir(), "cert.pem"), key: key}
	writeFile(t, d.cert, made.PEM)
	return pending{made, d, serial, a}
}

// registration is the request that registers the device.
func (p pending) registration() map[string]any {
	return map[string]any{"certificateOwnershipToken": p.Token, "parameters": map[string]string{"SerialNumber": p.serial, "Site": "plant"}}
}

// register asks for the registration and doesn't wait for the answer.
func (p pending) register(t *testing.T) {
	t.Helper()
	payload, err := json.Marshal(p.registration())
	if err != nil {
		t.Fatal(err)
	}
	p.asker.send(t, registerSensor, string(payload), 1)
}

// checkAllOrNothing looks at a device that asked for its registration before a
// kill: it is registered, and its token used up, or it isn't, and can be with the
// same token. It says which.
func (f *functional) checkAllOrNothing(t *testing.T, a asker, p pending) (registered bool) {
	t.Helper()
	cert := must(f.api.DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: aws.String(p.ID)}))(t).CertificateDescription
	if cert.Status == types.CertificateStatusActive {
		mustReject(t, a, registerSensor, p.registration(), 400, "InvalidCertificateOwnershipToken")
		f.checkOnboarded(t, p.device, claimed{Thing: p.device.name, Configuration: map[string]string{"ApiUrl": "https://plant.example.net", "Interval": "60"}})
		return true
	}
	f.checkUnregistered(t, p.serial, p.ID)
	f.checkOnboarded(t, p.device, mustCall(t, a, registerSensor, p.registration()))
	return false
}

// TestAKillBetweenCreateAndRegisterLeavesNothingHalfDone kills the server after
// CreateCertificateFromCsr, once while the hook runs and then while registrations are
// under way: a device is registered as a whole or not at all, and what isn't can be
// with the same token.
func TestAKillBetweenCreateAndRegisterLeavesNothingHalfDone(t *testing.T) {
	t.Parallel()
	f := newFunctional(t, []string{patientHooks}, asHook)
	waiting := f.create(t, "wait-1")
	waiting.register(t)
	eventuallyTrue(t, "the hook to run", func() bool {
		found, _ := filepath.Glob(f.gate + ".running")
		return len(found) == 1
	})
	f.kill(t)
	f.checkUnregistered(t, waiting.serial, waiting.ID)
	writeFile(t, f.gate, "")
	a := f.open5(t, f.claim, "after the kill", "json")
	f.checkOnboarded(t, waiting.device, mustCall(t, a, registerSensor, waiting.registration()))
	mustReject(t, a, registerSensor, waiting.registration(), 400, "InvalidCertificateOwnershipToken")

	var all []pending
	for n := range 6 {
		all = append(all, f.create(t, fmt.Sprintf("allow-%d", n)))
	}
	for _, p := range all {
		p.register(t)
	}
	if answer := all[0].asker.receive(t); answer.topic != registerSensor+"/accepted" {
		t.Fatalf("the answer of the first one came on %s: %s", answer.topic, answer.payload)
	}
	f.kill(t)
	a = f.open5(t, f.claim, "after the second kill", "json")
	for n, p := range all {
		registered := f.checkAllOrNothing(t, a, p)
		t.Logf("%s was registered before the kill: %t", p.serial, registered)
		if n == 0 && !registered {
			t.Errorf("%s was told that it is registered, and wasn't after the kill", p.serial)
		}
	}
}
