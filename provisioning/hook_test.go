package provisioning_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
)

func TestTheHookIsAskedBeforeAnythingIsMade(t *testing.T) {
	t.Parallel()
	var asked imprint.FunctionCall
	var o *office
	var things []string
	o = newOffice(t, function(func(_ context.Context, call imprint.FunctionCall) (imprint.FunctionResult, error) {
		asked, things = call, o.things(home)
		return imprint.FunctionResult{Payload: []byte(`{"allowProvisioning":true,"parameterOverrides":{"Site":"plant","SerialNumber":"2"}}`), Cold: true}, nil
	}), provisioning.ClaimOptions{})
	o.template(home, fleetBody(ownPolicy), hookARN)
	made := o.create(home)
	got, ok := o.register(home, made.Token, map[string]string{"SerialNumber": "1"})
	if want := (reply{Thing: "sensor-2", Configuration: map[string]string{"Site": "plant"}}); !ok || !cmp.Equal(got, want) {
		t.Errorf("got %t %+v, want %+v", ok, got, want)
	}
	if asked.Tenant != home || asked.ARN != hookARN || asked.Principal != "iot.amazonaws.com" || asked.SourceARN != home.TemplateARN("sensors") ||
		asked.Timeout != 5*time.Second || asked.AttemptID == "" {
		t.Errorf("call: got %+v", asked)
	}
	var event map[string]any
	err := json.Unmarshal(asked.Payload, &event)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"claimCertificateId": string(claimID), "certificateId": made.ID, "certificatePem": made.PEM,
		"templateArn": home.TemplateARN("sensors"), "clientId": "unit", "parameters": map[string]any{"SerialNumber": "1"},
	}
	if diff := cmp.Diff(want, event); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	if len(things) > 0 {
		t.Errorf("things when the hook was asked: got %v, want none", things)
	}
	steps := o.steps()
	found := false
	for _, step := range steps {
		found = found || step.Name == "claim.hook" && step.Verdict == imprint.VerdictOK && strings.Contains(step.Detail, "cold")
	}
	if !found {
		t.Errorf("the trace has no step of the hook: %+v", steps)
	}
}

// TestAHookThatDoesNotSayYesSaysNo ensures the rows of the failure table that
// are about hooks.
func TestAHookThatDoesNotSayYesSaysNo(t *testing.T) {
	t.Parallel()
	failing := func(code imprint.Code) imprint.Functions {
		return function(func(context.Context, imprint.FunctionCall) (imprint.FunctionResult, error) {
			return imprint.FunctionResult{}, imprint.Errorf(code, "the function's own words")
		})
	}
	for _, tt := range []struct {
		name      string
		functions imprint.Functions
		step      imprint.Code
	}{
		{"false", answering(`{"allowProvisioning":false}`), imprint.CodeHookDenied},
		{"nothing", answering(`{}`), imprint.CodeHookDenied},
		{"null", answering(`null`), imprint.CodeHookDenied},
		{"a text", answering(`{"allowProvisioning":"true"}`), imprint.CodeHookFailed},
		{"no JSON", answering(`yes`), imprint.CodeHookFailed},
		{"an override that isn't text", answering(`{"allowProvisioning":true,"parameterOverrides":{"Site":7}}`), imprint.CodeHookFailed},
		{"yes under a name in other case", answering(`{"AllowProvisioning":true,"ALLOWPROVISIONING":true}`), imprint.CodeHookDenied},
		{"no, and yes under a name in other case", answering(`{"allowProvisioning":false,"AllowProvisioning":true}`), imprint.CodeHookDenied},
		{"an override that is null", answering(`{"allowProvisioning":true,"parameterOverrides":{"SerialNumber":null}}`), imprint.CodeHookFailed},
		{"it crashed", failing(imprint.CodeFunctionFailed), imprint.CodeHookFailed},
		{"it doesn't exist", failing(imprint.CodeFunctionMissing), imprint.CodeHookFailed},
		{"it may not be invoked", failing(imprint.CodeFunctionDenied), imprint.CodeHookFailed},
		{"it is busy", failing(imprint.CodeFunctionThrottled), imprint.CodeHookFailed},
		{"nobody runs functions", nil, imprint.CodeHookFailed},
		{"it takes too long", function(func(ctx context.Context, _ imprint.FunctionCall) (imprint.FunctionResult, error) {
			<-ctx.Done()
			return imprint.FunctionResult{}, ctx.Err()
		}), imprint.CodeHookFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t, tt.functions, provisioning.ClaimOptions{HookTimeout: 50 * time.Millisecond})
			o.template(home, fleetBody(ownPolicy), hookARN)
			made := o.create(home)
			out, ok := o.register(home, made.Token, map[string]string{"SerialNumber": "1"})
			rejectedWith(t, out, ok, 403, "AccessDenied")
			if want := imprint.Describe(tt.step).Meaning; out.Message != want {
				t.Errorf("the device is told %q, want %q", out.Message, want)
			}
			steps := o.steps()
			checkFailure(t, steps, "claim.hook", tt.step)
			if text := detail(t, steps); !strings.Contains(text, hookARN) {
				t.Errorf("the trace says %q, and doesn't name the hook", text)
			}
			if tt.name == "it takes too long" {
				checkFix(t, steps, "It has 50ms (--hook-timeout)")
			}
			cert, err := o.certificate(home, made.ID)
			if err != nil || cert.Status != imprint.CertificatePendingActivation || len(o.things(home)) > 0 {
				t.Errorf("left behind: certificate %s (%v), things %v", cert.Status, err, o.things(home))
			}
		})
	}
}

// TestACertificateProviderSigns ensures whose certificates are taken.
func TestACertificateProviderSigns(t *testing.T) {
	t.Parallel()
	maker := newAuthority(t, "Maker", nil)
	signing := func(change func(*x509.Certificate) any) imprint.Functions {
		return function(func(_ context.Context, call imprint.FunctionCall) (imprint.FunctionResult, error) {
			var event struct{ CertificateSigningRequest, PrincipalID, ClientID string }
			err := json.Unmarshal(call.Payload, &event)
			if err != nil || event.PrincipalID != string(claimID) || event.ClientID != "unit" || call.SourceARN != home.ARN("certificateprovider/maker") {
				t.Errorf("event: got %+v, %v", event, err)
			}
			csr, err := pki.ParseCSRPEM(event.CertificateSigningRequest)
			if err != nil {
				return imprint.FunctionResult{}, err
			}
			template := &x509.Certificate{SerialNumber: big.NewInt(77), Subject: csr.Subject, NotBefore: instant.Add(-time.Hour), NotAfter: instant.Add(time.Hour)}
			key := change(template)
			if key == nil {
				key = csr.PublicKey
			}
			cert := sign(t, template, maker.cert, key, maker.key)
			payload, err := json.Marshal(map[string]string{"certificatePem": pki.EncodeCertificatePEM(cert.Raw)})
			return imprint.FunctionResult{Payload: payload}, err
		})
	}
	for _, tt := range []struct {
		name      string
		functions imprint.Functions
		fails     bool
		revoked   bool
	}{
		{"its certificate is taken", signing(func(*x509.Certificate) any { return nil }), false, false},
		{"one that its issuer revoked", signing(func(*x509.Certificate) any { return nil }), true, true},
		{"a certificate for another key", signing(func(*x509.Certificate) any { return &newKey(t).PublicKey }), true, false},
		{"an expired one", signing(func(c *x509.Certificate) any { c.NotAfter = instant.Add(-time.Minute); return nil }), true, false},
		{"a CA certificate", signing(func(c *x509.Certificate) any { c.BasicConstraintsValid, c.IsCA = true, true; return nil }), true, false},
		{"no certificate", answering(`{}`), true, false},
		{"a certificate under a name in other case", function(func(ctx context.Context, call imprint.FunctionCall) (imprint.FunctionResult, error) {
			out, err := signing(func(*x509.Certificate) any { return nil }).(function)(ctx, call)
			out.Payload = bytes.Replace(out.Payload, []byte("certificatePem"), []byte("CertificatePem"), 1)
			return out, err
		}), true, false},
		{"what isn't one", answering(`{"certificatePem":"x"}`), true, false},
		{"nobody runs functions", nil, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t, tt.functions, provisioning.ClaimOptions{})
			update(t, o.store, func(tx imprint.Tx) error {
				if tt.revoked {
					err := waysToRevoke["it stood on a list of before"](tx, maker, &x509.Certificate{SerialNumber: big.NewInt(77)})
					if err != nil {
						return err
					}
				}
				return tx.PutCertificateProvider(imprint.CertificateProvider{Tenant: home, Name: "maker", FunctionARN: hookARN, Operations: []string{"CreateCertificateFromCsr"}})
			})
			csr, _ := signingRequest(t, "unit")
			out, ok := o.ask(home, csrTopic, object(t, map[string]any{"certificateSigningRequest": csr}))
			if tt.fails {
				rejectedWith(t, out, ok, 403, "AccessDenied")
				step := "claim.provider"
				if tt.revoked {
					step = "claim.certificate"
				}
				checkFailure(t, o.steps(), step, imprint.CodeProviderFailed)
				return
			}
			cert, err := pki.ParseCertificatePEM(out.PEM)
			if !ok || err != nil || cert.CheckSignatureFrom(maker.cert) != nil {
				t.Fatalf("got %t %+v, %v; want the maker's certificate", ok, out, err)
			}
			got, ok := o.register(home, out.Token, map[string]string{"SerialNumber": "1"})
			if !ok || got.Thing != "sensor-1" {
				t.Errorf("RegisterThing: got %t %+v", ok, got)
			}
			// Keys are still the server's own business, and so are other tenants.
			made, ok := o.ask(home, keysTopic, "")
			if !ok || made.Key == "" {
				t.Errorf("CreateKeysAndCertificate: got %t %+v", ok, made)
			}
			o.create(another)
		})
	}
}

// checkFix ensures that the one failed step says what to do.
func checkFix(t *testing.T, steps []imprint.Step, want string) {
	t.Helper()
	for _, s := range steps {
		if s.Verdict == imprint.VerdictFailed && !strings.Contains(s.Fix, want) {
			t.Errorf("the fix of %s is %q, want %q in it", s.Name, s.Fix, want)
		}
	}
}
