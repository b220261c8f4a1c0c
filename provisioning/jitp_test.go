package provisioning_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

// templateOf makes a template of a thing named by CN, a certificate, and more
// resources.
func templateOf(thing, certificate string, more ...string) string {
	return `{"Parameters":{"AWS::IoT::Certificate::CommonName":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},
	 "Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"}` + thing + `,
	 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}` + certificate + `}` + strings.Join(more, "") + `}}`
}

func policyResource(name, member string) string {
	return `,"` + name + `":{"Type":"AWS::IoT::Policy","Properties":{` + member + `}}`
}

func quoted(s string) string {
	b, _ := json.Marshal(s) // a string can't fail
	return string(b)
}

// connect is one CONNECT of a device; it gives the refusal's code and the steps.
func (w *world) connect(t *testing.T, leaf *x509.Certificate, change ...func(*provisioning.Newcomer)) (imprint.Code, []imprint.Step) {
	t.Helper()
	n := provisioning.Newcomer{Tenant: home, Leaf: leaf, ID: idOf(leaf), Rec: w.log.Begin("192.0.2.1:1")}
	for _, fn := range change {
		fn(&n)
	}
	err := w.engine.FirstConnection(t.Context(), n)
	n.Rec.End(imprint.OutcomeRefused, imprint.CodeOf(err))
	flushErr := w.log.Flush(t.Context())
	if flushErr != nil {
		t.Fatal(flushErr)
	}
	var attempt imprint.Attempt
	view(t, w.store, func(tx imprint.ReadTx) error {
		var err error
		attempt, err = tx.Attempt(n.Rec.ID())
		return err
	})
	for _, s := range attempt.Steps {
		if s.Verdict == imprint.VerdictFailed && (s.Code == "" || s.Fix == "" || s.Detail == "") {
			t.Errorf("step %+v lacks a code, a fix or a detail", s)
		}
	}
	return imprint.CodeOf(err), attempt.Steps
}

// state is what the registry holds of a device.
type state struct {
	Status   imprint.CertificateStatus
	Things   []string // name, with ! when exclusive
	Policies int
	Events   int
}

func (w *world) state(t *testing.T, id imprint.CertificateID) state {
	t.Helper()
	var s state
	view(t, w.store, func(tx imprint.ReadTx) error {
		s = state{}
		cert, err := tx.Certificate(home, id)
		if err == nil {
			s.Status = cert.Status
		}
		things, _, err := tx.CertificateThings(home, id, imprint.Page{Limit: 10, Ascending: true})
		if err != nil {
			return err
		}
		for _, a := range things {
			name := string(a.Thing)
			if a.Exclusive {
				name += "!"
			}
			s.Things = append(s.Things, name)
		}
		policies, _, err := tx.TargetPolicies(home, home.CertificateARN(id), imprint.Page{Limit: 20})
		if err != nil {
			return err
		}
		s.Policies = len(policies)
		events, err := tx.Events(home, 100)
		if err != nil {
			return err
		}
		for _, e := range events {
			if strings.Contains(string(e.Payload), string(id)) {
				s.Events++
			}
		}
		return nil
	})
	return s
}

func putThing(attributes map[string]string) func(imprint.Tx) error {
	return func(tx imprint.Tx) error {
		return tx.PutThing(imprint.Thing{Tenant: home, Name: "unit", ID: "old", Attributes: attributes, Version: 1, CreatedAt: instant, ModifiedAt: instant})
	}
}

func override(member string) string { return `},"OverrideSettings":{` + member + `}}` }

func TestTemplatesBecomeRows(t *testing.T) {
	t.Parallel()
	pending := state{Status: imprint.CertificatePendingActivation, Events: 1}
	tooMany := make([]string, 0, 11)
	for n := range 11 {
		tooMany = append(tooMany, policyResource(fmt.Sprintf("p%d", n), `"PolicyDocument":`+quoted(strings.Replace(connectPolicy, "topic/x", fmt.Sprintf("topic/%d", n), 1))))
	}
	attributes := `,"AttributePayload":{"a":"new","b":"new"}`
	for _, row := range []struct {
		name   string
		body   string
		before func(imprint.Tx) error
		code   imprint.Code
		step   string // that fails; empty: none
		want   state
		attrs  map[string]string // of the thing; nil: not looked at
	}{
		{name: "a thing, and the certificate ACTIVE by default", body: templateOf("}}", "}"), code: imprint.CodeProvisioned,
			want: state{Status: imprint.CertificateActive, Things: []string{"unit"}, Events: 1}},
		{name: "the status in any case", body: templateOf("}}", `,"Status":"Active"}`), code: imprint.CodeProvisioned,
			want: state{Status: imprint.CertificateActive, Things: []string{"unit"}, Events: 1}},
		{name: "a template may leave the certificate INACTIVE", body: templateOf("}}", `,"Status":"INACTIVE"}`), code: imprint.CodeCertificateInactive, step: "activate",
			want: state{Status: imprint.CertificateInactive, Things: []string{"unit"}, Events: 1}},
		{name: "status DO_NOTHING still activates a pending certificate", body: templateOf("}}", `,"Status":"ACTIVE"},"OverrideSettings":{"Status":"DO_NOTHING"}`), code: imprint.CodeProvisioned,
			want: state{Status: imprint.CertificateActive, Things: []string{"unit"}, Events: 1}},
		{name: "an exclusive attachment", body: templateOf("}}", `,"ThingPrincipalType":"EXCLUSIVE_THING"}`), code: imprint.CodeProvisioned,
			want: state{Status: imprint.CertificateActive, Things: []string{"unit!"}, Events: 1}},
		{name: "a policy by name", body: templateOf("}}", "}", policyResource("p", `"PolicyName":"sensors"`)), code: imprint.CodeProvisioned,
			before: func(tx imprint.Tx) error { return putPolicy(tx, home, "sensors", connectPolicy) },
			want:   state{Status: imprint.CertificateActive, Things: []string{"unit"}, Policies: 1, Events: 1}},
		{name: "a policy that doesn't exist leaves the certificate pending, without a thing", body: templateOf("}}", "}", policyResource("p", `"PolicyName":"sensors"`)),
			code: imprint.CodePolicyMissing, step: "policy", want: pending},
		{name: "one document in two resources is one policy", body: templateOf("}}", "}", policyResource("p", `"PolicyDocument":`+quoted(connectPolicy)), policyResource("q", `"PolicyDocument":`+quoted(connectPolicy))),
			code: imprint.CodeProvisioned, want: state{Status: imprint.CertificateActive, Things: []string{"unit"}, Policies: 1, Events: 1}},
		{name: "a document that is no policy is refused before anything is stored", body: templateOf("}}", "}", policyResource("p", `"PolicyDocument":"{\"Statement\":[{\"Effect\":\"Permit\"}]}"`)),
			code: imprint.CodeTemplateValue, step: "template.policy", want: pending},
		{name: "eleven policies are one too many", body: templateOf("}}", "}", tooMany...), code: imprint.CodeLimitExceeded, step: "policy", want: pending},
		{name: "an existing thing is left as it was by default", body: templateOf(attributes+"}}", "}"), before: putThing(map[string]string{"a": "old", "c": "old"}), code: imprint.CodeProvisioned,
			want: state{Status: imprint.CertificateActive, Things: []string{"unit"}, Events: 1}, attrs: map[string]string{"a": "old", "c": "old"}},
		{name: "REPLACE", body: templateOf(attributes+override(`"AttributePayload":"REPLACE"`), "}"), before: putThing(map[string]string{"a": "old", "c": "old"}), code: imprint.CodeProvisioned,
			want: state{Status: imprint.CertificateActive, Things: []string{"unit"}, Events: 1}, attrs: map[string]string{"a": "new", "b": "new"}},
		{name: "REPLACE by an empty payload clears", body: templateOf(`,"AttributePayload":{}`+override(`"AttributePayload":"REPLACE"`), "}"), before: putThing(map[string]string{"a": "old"}), code: imprint.CodeProvisioned,
			want: state{Status: imprint.CertificateActive, Things: []string{"unit"}, Events: 1}, attrs: map[string]string{}},
		{name: "MERGE", body: templateOf(attributes+override(`"AttributePayload":"MERGE"`), "}"), before: putThing(map[string]string{"a": "old", "c": "old"}), code: imprint.CodeProvisioned,
			want: state{Status: imprint.CertificateActive, Things: []string{"unit"}, Events: 1}, attrs: map[string]string{"a": "new", "b": "new", "c": "old"}},
		{name: "MERGE over the limit of attributes", body: templateOf(attributes+override(`"AttributePayload":"MERGE"`), "}"), before: putThing(map[string]string{"c": "old", "d": "old"}),
			code: imprint.CodeTemplateValue, step: "thing", want: pending, attrs: map[string]string{"c": "old", "d": "old"}},
		{name: "FAIL", body: templateOf(attributes+override(`"AttributePayload":"FAIL"`), "}"), before: putThing(map[string]string{"a": "old"}),
			code: imprint.CodeConflictingUpdate, step: "thing", want: pending, attrs: map[string]string{"a": "old"}},
		{name: "FAIL means nothing for a new thing", body: templateOf(attributes+override(`"AttributePayload":"FAIL"`), "}"), code: imprint.CodeProvisioned,
			want: state{Status: imprint.CertificateActive, Things: []string{"unit"}, Events: 1}, attrs: map[string]string{"a": "new", "b": "new"}},
		{name: "a thing type that doesn't exist leaves the certificate pending, without a thing", body: templateOf(`,"ThingTypeName":"x"}}`, "}"), code: imprint.CodeThingTypeMissing, step: "thing", want: pending},
		{name: "a thing group that doesn't exist leaves the certificate pending, without a thing", body: templateOf(`,"ThingGroups":["x"]}}`, "}"), code: imprint.CodeGroupMissing, step: "thing.groups", want: pending},
		{name: "a billing group that doesn't exist leaves the certificate pending, without a thing", body: templateOf(`,"BillingGroup":"x"}}`, "}"), code: imprint.CodeGroupMissing, step: "thing", want: pending},
		{name: "a parameter that the subject lacks", body: strings.Replace(templateOf("}}", "}"), `"Parameters":{`, `"Parameters":{"AWS::IoT::Certificate::Country":{"Type":"String"},`, 1),
			code: imprint.CodeParameterMissing, step: "template.plan", want: pending},
		{name: "a name that isn't legal", body: strings.Replace(templateOf("}}", "}"), `{"Ref":"AWS::IoT::Certificate::CommonName"}`, `{"Fn::Join":["",["a b",{"Ref":"AWS::IoT::Certificate::CommonName"}]]}`, 1),
			code: imprint.CodeTemplateValue, step: "template.plan", want: pending},
		{name: "a template that isn't valid", body: `{"Resources":{}}`, code: imprint.CodeTemplateInvalid, step: "template", want: pending},
		{name: "no template: just-in-time registration", code: imprint.CodeRegisteredPending, step: "activate", want: pending},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, row.body, provisioning.Options{})
			if row.before != nil {
				update(t, w.store, row.before)
			}
			leaf := w.ca.device(t, pkix.Name{CommonName: "unit"}, nil)
			if row.code != imprint.CodeRegisteredPending {
				w.foretell(t, row.body, leaf, row.code)
			}
			code, steps := w.connect(t, leaf)
			if code != row.code {
				t.Errorf("got code %s, want %s", code, row.code)
			}
			checkFailure(t, steps, row.step, row.code)
			if diff := cmp.Diff(row.want, w.state(t, idOf(leaf))); diff != "" {
				t.Errorf("the registry differs (-want +got):\n%s", diff)
			}
			if row.attrs == nil {
				return
			}
			view(t, w.store, func(tx imprint.ReadTx) error {
				thing, err := tx.Thing(home, "unit")
				if got := thing.Attributes; len(got) != len(row.attrs) || len(got) > 0 && !cmp.Equal(got, row.attrs) {
					t.Errorf("got attributes %v, want %v", got, row.attrs)
				}
				return err
			})
		})
	}
}

func checkFailure(t *testing.T, steps []imprint.Step, name string, code imprint.Code) {
	t.Helper()
	failed := slices.DeleteFunc(slices.Clone(steps), func(s imprint.Step) bool { return s.Verdict != imprint.VerdictFailed })
	if name == "" {
		if len(failed) > 0 {
			t.Errorf("got failed steps %+v, want none", failed)
		}
		return
	}
	if len(failed) != 1 || failed[0].Name != name || failed[0].Code != code {
		t.Errorf("got failed steps %+v, want one, %s with %s", failed, name, code)
	}
}

func TestWhoIsRefusedBeforeRegistration(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(*imprint.CACertificate)
		leaf   func(*testing.T, *world) *x509.Certificate
		noName bool
		code   imprint.Code
	}{
		{name: "the CA is INACTIVE", change: func(ca *imprint.CACertificate) { ca.Status = imprint.CAInactive }, code: imprint.CodeCAInactive},
		{name: "auto-registration is off", change: func(ca *imprint.CACertificate) { ca.AutoRegistration = false }, code: imprint.CodeAutoRegistrationOff},
		{name: "the CA has expired", change: func(ca *imprint.CACertificate) { ca.NotAfter = instant.Add(-1) }, code: imprint.CodeCAExpired},
		{name: "the CA is SNI_ONLY and there was no server name", change: func(ca *imprint.CACertificate) { ca.Mode = imprint.ModeSNIOnly }, noName: true, code: imprint.CodeSNIRequired},
		{name: "no CA of this name", code: imprint.CodeCANotRegistered, leaf: func(t *testing.T, _ *world) *x509.Certificate {
			return newAuthority(t, "Another", nil).device(t, pkix.Name{CommonName: "unit"}, nil)
		}},
		{name: "another key of this name", code: imprint.CodeCASignature, leaf: func(t *testing.T, _ *world) *x509.Certificate {
			return newAuthority(t, "Line 1", nil).device(t, pkix.Name{CommonName: "unit"}, nil)
		}},
		{name: "the certificate has expired", code: imprint.CodeCertificateExpired, leaf: func(t *testing.T, w *world) *x509.Certificate {
			return sign(t, &x509.Certificate{SerialNumber: big.NewInt(7), NotAfter: instant.Add(-1)}, w.ca.cert, &newKey(t).PublicKey, w.ca.key)
		}},
		{name: "the certificate isn't valid yet", code: imprint.CodeCertificateNotYetValid, leaf: func(t *testing.T, w *world) *x509.Certificate {
			return sign(t, &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: instant.Add(1e9), NotAfter: instant.Add(2e9)}, w.ca.cert, &newKey(t).PublicKey, w.ca.key)
		}},
		{name: "the key is too short", code: imprint.CodeCertificateWeak, leaf: func(t *testing.T, w *world) *x509.Certificate {
			key, err := rsa.GenerateKey(rand.Reader, 1024)
			if err != nil {
				t.Fatal(err) // crypto/rsa makes keys from 1,024 bits
			}
			return sign(t, &x509.Certificate{SerialNumber: big.NewInt(7), NotAfter: instant.Add(1e12)}, w.ca.cert, &key.PublicKey, w.ca.key)
		}},
		{name: "the certificate is the CA's own", code: imprint.CodeCertificateValidation, leaf: func(_ *testing.T, w *world) *x509.Certificate { return w.ca.cert }},
		{name: "the certificate is huge", code: imprint.CodeCertificateValidation, leaf: func(t *testing.T, w *world) *x509.Certificate {
			return w.ca.device(t, pkix.Name{CommonName: strings.Repeat("x", 40_000)}, nil)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "", provisioning.Options{})
			if row.change != nil {
				ca := w.ca.registered(home, templateOf("}}", "}"))
				row.change(&ca)
				update(t, w.store, func(tx imprint.Tx) error { return tx.PutCA(ca) })
			}
			if row.leaf == nil {
				row.leaf = func(t *testing.T, w *world) *x509.Certificate {
					return w.ca.device(t, pkix.Name{CommonName: "unit"}, nil)
				}
			}
			leaf := row.leaf(t, w)
			if row.code != imprint.CodeSNIRequired {
				w.foretell(t, templateOf("}}", "}"), leaf, row.code)
			}
			code, steps := w.connect(t, leaf, func(n *provisioning.Newcomer) { n.NoServerName = row.noName })
			if code != row.code {
				t.Errorf("got code %s, want %s", code, row.code)
			}
			checkFailure(t, steps, steps[len(steps)-1].Name, row.code)
			if diff := cmp.Diff(state{}, w.state(t, idOf(leaf))); diff != "" {
				t.Errorf("something is stored (-want +got):\n%s", diff)
			}
			if got := w.engine.Counters(); got.Refused != 1 || got.Pending+got.Provisioned != 0 {
				t.Errorf("got counters %+v, want one refused", got)
			}
		})
	}
}

func TestHoldLetsTheDeviceStay(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		hold bool
		ca   imprint.FirstConnection
		want imprint.Code
	}{
		{"the server closes", false, imprint.FirstConnectionDefault, imprint.CodeProvisioned},
		{"the server holds", true, imprint.FirstConnectionDefault, ""},
		{"the CA holds", false, imprint.FirstConnectionHold, ""},
		{"the CA closes", true, imprint.FirstConnectionClose, imprint.CodeProvisioned},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "", provisioning.Options{Hold: row.hold})
			ca := w.ca.registered(home, templateOf("}}", "}"))
			ca.FirstConnection = row.ca
			update(t, w.store, func(tx imprint.Tx) error { return tx.PutCA(ca) })
			code, _ := w.connect(t, w.ca.device(t, pkix.Name{CommonName: "unit"}, nil))
			if code != row.want {
				t.Errorf("got %q, want %q", code, row.want)
			}
		})
	}
}

// A certificate that stays PENDING_ACTIVATION is announced once for each
// CONNECT, and a later CONNECT finishes what the template couldn't do.
func TestPendingCertificatesAreTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, templateOf("}}", "}", policyResource("p", `"PolicyName":"sensors"`)), provisioning.Options{})
	leaf := w.ca.device(t, pkix.Name{CommonName: "unit"}, nil)
	for n := 1; n <= 3; n++ {
		code, _ := w.connect(t, leaf)
		want := state{Status: imprint.CertificatePendingActivation, Events: n}
		if diff := cmp.Diff(want, w.state(t, idOf(leaf))); code != imprint.CodePolicyMissing || diff != "" {
			t.Errorf("connect %d: got %s, the registry differs (-want +got):\n%s", n, code, diff)
		}
	}
	update(t, w.store, func(tx imprint.Tx) error { return putPolicy(tx, home, "sensors", connectPolicy) })
	code, _ := w.connect(t, leaf)
	want := state{Status: imprint.CertificateActive, Things: []string{"unit"}, Policies: 1, Events: 4}
	if diff := cmp.Diff(want, w.state(t, idOf(leaf))); code != imprint.CodeProvisioned || diff != "" {
		t.Errorf("got %s, the registry differs (-want +got):\n%s", code, diff)
	}
	code, _ = w.connect(t, leaf)
	if diff := cmp.Diff(want, w.state(t, idOf(leaf))); code != imprint.CodeProvisioned || diff != "" {
		t.Errorf("once more: got %s, the registry differs (-want +got):\n%s", code, diff)
	}
}

func TestTheRegisteredEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", provisioning.Options{})
	leaf := w.ca.device(t, pkix.Name{CommonName: "unit"}, nil)
	w.connect(t, leaf)
	ca := idOf(w.ca.cert)
	view(t, w.store, func(tx imprint.ReadTx) error {
		events, err := tx.Events(home, 10)
		if err != nil || len(events) != 1 {
			t.Fatalf("got %d events, %v, want one", len(events), err)
		}
		want := fmt.Sprintf(`{"certificateId":"%s","caCertificateId":"%s","timestamp":%d,"certificateStatus":"PENDING_ACTIVATION",`+
			`"awsAccountId":"000000000000","certificateRegistrationTimestamp":"%d"}`, idOf(leaf), ca, instant.UnixMilli(), instant.UnixMilli())
		if got := string(events[0].Payload); got != want {
			t.Errorf("got payload\n%s\nwant\n%s", got, want)
		}
		if got, want := events[0].Topic, "$aws/events/certificates/registered/"+string(ca); got != want || events[0].Tenant != home {
			t.Errorf("got %s in %s, want %s in %s", got, events[0].Tenant, want, home)
		}
		return nil
	})
}

func TestConcurrentFirstConnectionsProvisionOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, templateOf("}}", "}", policyResource("p", `"PolicyDocument":`+quoted(connectPolicy))), provisioning.Options{})
	leaf := w.ca.device(t, pkix.Name{CommonName: "unit"}, nil)
	var connections sync.WaitGroup
	for range 16 {
		connections.Go(func() {
			err := w.engine.FirstConnection(t.Context(), provisioning.Newcomer{Tenant: home, Leaf: leaf, ID: idOf(leaf)})
			if imprint.CodeOf(err) != imprint.CodeProvisioned {
				t.Errorf("got %v, want %s", err, imprint.CodeProvisioned)
			}
		})
	}
	connections.Wait()
	want := state{Status: imprint.CertificateActive, Things: []string{"unit"}, Policies: 1, Events: 1}
	if diff := cmp.Diff(want, w.state(t, idOf(leaf))); diff != "" {
		t.Errorf("the registry differs (-want +got):\n%s", diff)
	}
	if got := w.engine.Counters().Provisioned; got != 1 {
		t.Errorf("provisioned %d times, want once", got)
	}
}

// A commit that fails leaves nothing, and the next CONNECT does all.
func TestAFailedCommitLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, templateOf("}}", "}"), provisioning.Options{})
	leaf := w.ca.device(t, pkix.Name{CommonName: "unit"}, nil)
	w.failing.left <- struct{}{}
	n := provisioning.Newcomer{Tenant: home, Leaf: leaf, ID: idOf(leaf)}
	err := w.engine.FirstConnection(context.Background(), n)
	if got := imprint.CodeOf(err); got != imprint.CodeUnavailable {
		t.Errorf("got %v, want %s", err, imprint.CodeUnavailable)
	}
	if diff := cmp.Diff(state{}, w.state(t, idOf(leaf))); diff != "" {
		t.Errorf("something is stored (-want +got):\n%s", diff)
	}
	err = w.engine.FirstConnection(context.Background(), n)
	if got := imprint.CodeOf(err); got != imprint.CodeProvisioned {
		t.Errorf("got %v, want %s", err, imprint.CodeProvisioned)
	}
}

func TestTemplatesByName(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		put    *imprint.ProvisioningTemplate
		code   imprint.Code
		status imprint.CertificateStatus
	}{
		{"an enabled one", &imprint.ProvisioningTemplate{Type: imprint.TemplateJITP, Enabled: true}, imprint.CodeProvisioned, imprint.CertificateActive},
		{"a disabled one", &imprint.ProvisioningTemplate{Type: imprint.TemplateJITP}, imprint.CodeTemplateDisabled, imprint.CertificatePendingActivation},
		{"one for fleets", &imprint.ProvisioningTemplate{Type: imprint.TemplateFleet, Enabled: true}, imprint.CodeTemplateMissing, imprint.CertificatePendingActivation},
		{"a missing one", nil, imprint.CodeTemplateMissing, imprint.CertificatePendingActivation},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "", provisioning.Options{})
			leaf := w.ca.device(t, pkix.Name{CommonName: "unit"}, nil)
			w.connect(t, leaf) // the CA is in the cache now
			update(t, w.store, func(tx imprint.Tx) error {
				ca := w.ca.registered(home, "")
				ca.Registration = &imprint.RegistrationConfig{TemplateName: "line"}
				err := tx.PutCA(ca)
				if err != nil || row.put == nil {
					return err
				}
				row.put.Tenant, row.put.Name, row.put.DefaultVersion, row.put.LastVersion = home, "line", 2, 2
				err = tx.PutTemplate(*row.put)
				if err != nil {
					return err
				}
				return tx.PutTemplateVersion(imprint.TemplateVersion{Tenant: home, Template: "line", Version: 2, Body: templateOf("}}", "}")})
			})
			code, _ := w.connect(t, leaf)
			if got := w.state(t, idOf(leaf)).Status; code != row.code || got != row.status {
				t.Errorf("got %s and %s, want %s and %s", code, got, row.code, row.status)
			}
		})
	}
}

// An operator's certificate that waits for activation may belong to another
// thing already.
func TestAnExclusiveAttachmentElsewhereStopsTheTemplate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", provisioning.Options{})
	leaf := w.ca.device(t, pkix.Name{CommonName: "unit"}, nil)
	w.connect(t, leaf)
	update(t, w.store, func(tx imprint.Tx) error {
		err := tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: "elsewhere", Certificate: idOf(leaf), Exclusive: true})
		if err != nil {
			return err
		}
		return tx.PutCA(w.ca.registered(home, templateOf("}}", "}")))
	})
	code, steps := w.connect(t, leaf)
	if code != imprint.CodeConflictingUpdate {
		t.Errorf("got %s, want %s", code, imprint.CodeConflictingUpdate)
	}
	checkFailure(t, steps, "thing.attach", imprint.CodeConflictingUpdate)
	want := state{Status: imprint.CertificatePendingActivation, Things: []string{"elsewhere!"}, Events: 2}
	if diff := cmp.Diff(want, w.state(t, idOf(leaf))); diff != "" {
		t.Errorf("the registry differs (-want +got):\n%s", diff)
	}
}
