package provisioning_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/template"
)

// storeRegistry lets dry runs read a store.
type storeRegistry struct{ imprint.Store }

func read[T any](ctx context.Context, store imprint.Store, fn func(imprint.ReadTx) (T, error)) (T, error) {
	var out T
	err := store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		out, err = fn(tx)
		return err
	})
	return out, err
}

func (s storeRegistry) Certificate(ctx context.Context, id imprint.CertificateID) (imprint.Certificate, error) {
	return read(ctx, s.Store, func(tx imprint.ReadTx) (imprint.Certificate, error) { return tx.Certificate(home, id) })
}

func (s storeRegistry) Thing(ctx context.Context, name imprint.ThingName) (imprint.Thing, error) {
	return read(ctx, s.Store, func(tx imprint.ReadTx) (imprint.Thing, error) { return tx.Thing(home, name) })
}

func (s storeRegistry) ThingType(ctx context.Context, name imprint.ThingTypeName) (imprint.ThingType, error) {
	return read(ctx, s.Store, func(tx imprint.ReadTx) (imprint.ThingType, error) { return tx.ThingType(home, name) })
}

func (s storeRegistry) ThingGroup(ctx context.Context, name imprint.ThingGroupName) (imprint.ThingGroup, error) {
	return read(ctx, s.Store, func(tx imprint.ReadTx) (imprint.ThingGroup, error) { return tx.ThingGroup(home, name) })
}

func (s storeRegistry) ThingGroupsOf(ctx context.Context, name imprint.ThingName) ([]imprint.ThingGroupName, error) {
	return read(ctx, s.Store, func(tx imprint.ReadTx) ([]imprint.ThingGroupName, error) {
		memberships, _, err := tx.ThingMemberships(home, name, imprint.Page{Limit: 20, Ascending: true})
		var names []imprint.ThingGroupName
		for _, m := range memberships {
			names = append(names, m.Group)
		}
		return names, err
	})
}

func (s storeRegistry) BillingGroup(ctx context.Context, name imprint.BillingGroupName) (imprint.BillingGroup, error) {
	return read(ctx, s.Store, func(tx imprint.ReadTx) (imprint.BillingGroup, error) { return tx.BillingGroup(home, name) })
}

func (s storeRegistry) Policy(ctx context.Context, name imprint.PolicyName) (imprint.Policy, error) {
	return read(ctx, s.Store, func(tx imprint.ReadTx) (imprint.Policy, error) { return tx.Policy(home, name) })
}

// foretell runs a JITP template dry, against what the store has, and holds the dry
// run to the code with which the connection that comes next ends. It gives the name
// of the failed step with that code.
func (w *world) foretell(t *testing.T, body string, leaf *x509.Certificate, code imprint.Code) {
	t.Helper()
	parsed, err := template.Parse([]byte(body), template.JITP)
	if (err != nil) != (code == imprint.CodeTemplateInvalid) {
		t.Errorf("got %v from the parser, and the flow ends with %s", err, code)
	}
	if err != nil {
		return
	}
	ca, err := read(t.Context(), w.store, func(tx imprint.ReadTx) (imprint.CACertificate, error) {
		return tx.CA(home, pki.CertificateID(w.ca.cert.Raw))
	})
	if err != nil {
		t.Fatal(err)
	}
	result, err := provisioning.DryRun{
		Template: parsed, Source: "t", Tenant: home, Now: instant, Leaf: leaf,
		CAs: []*x509.Certificate{w.ca.cert}, RegisteredCA: &ca, Registry: storeRegistry{w.store},
	}.Run(t.Context())
	if err != nil {
		t.Fatalf("couldn't run dry: %v", err)
	}
	failed := failures(t, result)
	switch code {
	case imprint.CodeProvisioned:
		if len(failed) > 0 {
			t.Errorf("got failures %v of a dry run, and the flow has none", failed)
		}
	case imprint.CodeCertificateInactive:
		if len(failed) > 0 || result.Worst() != provisioning.VerdictWarning {
			t.Errorf("got steps %+v of a dry run, want a warning", result.Steps)
		}
	default:
		if !slices.Contains(failed, code) {
			t.Errorf("got failures %v of a dry run, and the flow fails with %s", failed, code)
		}
	}
}

// failures gives the codes of failed steps, each of which has what people need.
func failures(t *testing.T, result *provisioning.DryRunResult) []imprint.Code {
	t.Helper()
	var codes []imprint.Code
	for _, s := range result.Steps {
		if s.Verdict != imprint.VerdictFailed {
			continue
		}
		codes = append(codes, s.Code)
		if s.Name == "" || s.Code == "" || s.Detail == "" || s.Fix == "" || s.Member != "" && s.Line == 0 {
			t.Errorf("step %+v lacks a name, a code, a detail, a fix or a place", s)
		}
	}
	return codes
}

// dry runs a template without a server.
func dry(t *testing.T, body string, kind template.Kind, change func(*provisioning.DryRun)) *provisioning.DryRunResult {
	t.Helper()
	parsed, err := template.Parse([]byte(body), kind)
	if err != nil {
		t.Fatal(err)
	}
	run := provisioning.DryRun{Template: parsed, Source: "t", Now: instant}
	change(&run)
	result, err := run.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// TestADryRunOutOfTimeNamesNoServersClock ensures that where no server is asked, its clock isn't
// said to have told the time.
func TestADryRunOutOfTimeNamesNoServersClock(t *testing.T) {
	t.Parallel()
	line := newAuthority(t, "Line 1", nil)
	leaf := sign(t, &x509.Certificate{SerialNumber: big.NewInt(7), NotAfter: instant.Add(-1e9)}, line.cert, &newKey(t).PublicKey, line.key)
	result := dry(t, `{"Resources":{"certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}}}`, template.JITP, func(d *provisioning.DryRun) {
		d.Leaf, d.CAs = leaf, []*x509.Certificate{line.cert}
		d.RegisteredCA = &imprint.CACertificate{ID: pki.CertificateID(line.cert.Raw), Status: imprint.CAActive, AutoRegistration: true, NotAfter: instant.Add(-1e9)}
	})
	told := 0
	for _, s := range result.Steps {
		if s.Code != imprint.CodeCertificateExpired && s.Code != imprint.CodeCAExpired {
			continue
		}
		told++
		if !strings.Contains(s.Detail, ", the clock says "+instant.UTC().Format(time.RFC3339)) {
			t.Errorf("%s: got %q", s.Name, s.Detail)
		}
	}
	if told != 2 {
		t.Errorf("got steps %+v, want those of an expired certificate and an expired CA", result.Steps)
	}
}

func TestADryRunNamesAllThatIsMissingAndWhere(t *testing.T) {
	t.Parallel()
	body := "{\"Parameters\":{\"A\":{\"Type\":\"String\"},\"B\":{\"Type\":\"String\"},\"C\":{\"Type\":\"String\",\"Default\":\"c\"}},\n" +
		"\"Resources\":{\"thing\":{\"Type\":\"AWS::IoT::Thing\",\"Properties\":{\n\"ThingName\":{\"Ref\":\"A\"},\n\"ThingTypeName\":{\"Ref\":\"B\"}}}}}"
	result := dry(t, body, template.Fleet, func(d *provisioning.DryRun) { d.Parameters = map[string]string{"b": "x"} })
	if result.Plan != nil {
		t.Errorf("got plan %+v, want none", result.Plan)
	}
	var got []string
	for _, s := range result.Steps {
		if s.Verdict == imprint.VerdictFailed {
			got = append(got, string(s.Code)+" "+s.Detail+" "+s.Member)
		}
	}
	want := []string{
		"ParameterMissing Cannot resolve reference value: A Resources.thing.Properties.ThingName",
		"ParameterMissing Cannot resolve reference value: B Resources.thing.Properties.ThingTypeName",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
	if s := result.Steps[1]; s.Line != 3 || s.Column != 20 {
		t.Errorf("got line %d, column %d of A, want 3, 20", s.Line, s.Column)
	}
	if s := result.Steps[0]; s.Verdict != provisioning.VerdictWarning || !strings.Contains(s.Fix, "did you mean B") {
		t.Errorf("got %+v, want a warning that asks for B", s)
	}
	sources := map[string]string{}
	for _, p := range result.Parameters {
		sources[p.Name] = p.Source
	}
	if diff := cmp.Diff(map[string]string{"A": "missing", "B": "missing", "C": "default"}, sources); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}

func TestADryRunOfFleetProvisioning(t *testing.T) {
	t.Parallel()
	result := dry(t, fleetBody(ownPolicy), template.Fleet, func(d *provisioning.DryRun) {
		d.Parameters = map[string]string{"SerialNumber": "7", template.CertificateIDParameter: "another's"}
	})
	if got := failures(t, result); len(got) > 0 || result.Plan == nil {
		t.Fatalf("got %+v, want a plan", result.Steps)
	}
	if result.Plan.Thing.ThingName != "sensor-7" || result.Plan.Certificate.CertificateID != string(provisioning.StandInID) || result.Plan.DeviceConfiguration["Site"] != "lab" {
		t.Errorf("got %+v %+v", result.Plan.Thing, result.Plan.Certificate)
	}
	if !slices.ContainsFunc(result.Unchecked, func(s string) bool { return strings.Contains(s, "hooks aren't called") }) {
		t.Errorf("got %q unchecked, want the hook", result.Unchecked)
	}
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	known := dry(t, fleetBody(ownPolicy), template.Fleet, func(d *provisioning.DryRun) {
		d.Parameters, d.Registry, d.Hook, d.Tenant = map[string]string{"SerialNumber": "7"}, storeRegistry{o.store}, hookARN, home
		d.Unusable = imprint.Errorf(imprint.CodeTemplateDisabled, "it is disabled")
	})
	if diff := cmp.Diff([]imprint.Code{imprint.CodeTemplateDisabled}, failures(t, known)); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
	if !slices.ContainsFunc(known.Steps, func(s provisioning.DryRunStep) bool {
		return s.Name == "claim.hook" && strings.Contains(s.Detail, hookARN+" isn't called")
	}) {
		t.Errorf("got %+v, want a word about the hook", known.Steps)
	}
}

// A dry run and RegisterThing agree.
func TestADryRunSaysWhatRegisterThingDoes(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	ca := newAuthority(t, "Line 1", nil)
	expired := ca.registered(home, "")
	other := newAuthority(t, "Line 2", nil)
	expired.AutoRegistration = false // which RegisterThing doesn't ask for
	update(t, o.store, func(tx imprint.Tx) error { return tx.PutCA(expired) })
	csr, _ := signingRequest(t, "unit")
	pem := func(a *authority) string {
		return pki.EncodeCertificatePEM(a.device(t, pkix.Name{CommonName: "unit"}, nil).Raw)
	}
	withSource := func(source string) string {
		return `{"Parameters":{"N":{"Type":"String"},"C":{"Type":"String"}},"Resources":{"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"N"}}},
		"c":{"Type":"AWS::IoT::Certificate","Properties":{"` + source + `":{"Ref":"C"}}}}}`
	}
	policyOnly := `{"Parameters":{"N":{"Type":"String"},"C":{"Type":"String"}},"Resources":{"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}}}}}`
	for _, row := range []struct {
		name, body, thing, certificate string
		works                          bool
	}{
		{"a signing request", withSource("CertificateSigningRequest"), "a", csr, true},
		{"no signing request", withSource("CertificateSigningRequest"), "b", "nothing", false},
		{"a certificate", withSource("CertificatePem"), "c", pem(ca), true},
		{"a certificate of an unknown CA", withSource("CertificatePem"), "d", pem(other), false},
		{"an id of nothing", withSource("CertificateId"), "e", strings.Repeat("e", 64), false},
		{"an illegal name", withSource("CertificateSigningRequest"), "a b", csr, false},
		{"a policy alone", policyOnly, "", "", false},
		{"packages", strings.Replace(withSource("CertificateSigningRequest"), `{"ThingName"`, `{"PackageVersions":{"a":"1"},"ThingName"`, 1), "f", csr, false},
	} {
		parameters := map[string]string{"N": row.thing, "C": row.certificate}
		result := dry(t, row.body, template.Bulk, func(d *provisioning.DryRun) {
			d.Parameters, d.Tenant, d.Registry = parameters, home, storeRegistry{o.store}
			d.CAs, d.RegisteredCA = []*x509.Certificate{ca.cert}, &expired
		})
		failed := failures(t, result)
		_, err := o.claims.RegisterThing(t.Context(), home, row.body, parameters)
		if (err == nil) != row.works || (len(failed) == 0) != row.works {
			t.Errorf("%s: got %v from RegisterThing and %+v from a dry run, want that both work: %t", row.name, err, result.Steps, row.works)
		}
	}
}

// A file is taken for the parameter that the template has its certificate from.
func TestADryRunFillsInTheCertificate(t *testing.T) {
	t.Parallel()
	text, _ := signingRequest(t, "unit")
	csr, err := pki.ParseCSRPEM(text)
	if err != nil {
		t.Fatal(err)
	}
	body := func(source string) string {
		return `{"Parameters":{"C":{"Type":"String"}},"Resources":{"c":{"Type":"AWS::IoT::Certificate","Properties":{"` + source + `":{"Ref":"C"}}}}}`
	}
	leaf := newAuthority(t, "Line 1", nil).device(t, pkix.Name{CommonName: "unit"}, nil)
	for source, device := range map[string]func(*provisioning.DryRun){
		"CertificateSigningRequest": func(d *provisioning.DryRun) { d.CSR = csr },
		"CertificatePem":            func(d *provisioning.DryRun) { d.Leaf = leaf },
		"CertificateId":             func(d *provisioning.DryRun) { d.Leaf = leaf },
	} {
		result := dry(t, body(source), template.Bulk, device)
		if result.Worst() != imprint.VerdictOK {
			t.Errorf("%s: got %+v, want that it works", source, result.Steps)
		}
	}
	result := dry(t, body("CertificateSigningRequest"), template.Bulk, func(d *provisioning.DryRun) { d.Leaf = leaf })
	if got := result.Steps[0]; got.Verdict != provisioning.VerdictWarning {
		t.Errorf("got %+v, want a warning that the certificate isn't used", got)
	}
}

// What can't be read of the server ends the dry run; it isn't a template's fault.
func TestADryRunEndsWhenTheRegistryCantBeRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", provisioning.Options{})
	parsed, err := template.Parse([]byte(templateOf("}}", "}")), template.JITP)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = provisioning.DryRun{
		Template: parsed, Now: instant, Leaf: w.ca.device(t, pkix.Name{CommonName: "unit"}, nil), Registry: storeRegistry{w.store},
	}.Run(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestThingsThatDevicesShareAreNamed(t *testing.T) {
	t.Parallel()
	owners := map[string]string{}
	for n, want := range []imprint.Verdict{imprint.VerdictOK, provisioning.VerdictWarning} {
		result := dry(t, fleetBody(ownPolicy), template.Fleet, func(d *provisioning.DryRun) { d.Parameters = map[string]string{"SerialNumber": "7"} })
		result.Shares(owners, "device")
		if got := result.Worst(); got != want {
			t.Errorf("device %d: got %s, want %s", n, got, want)
		}
	}
}

// TestCertificatesThatDevicesShareAreNamed ensures that two lines of a bulk registration
// with one certificate, by its text or its id, are told, and that ids which the service
// makes aren't taken for one.
func TestCertificatesThatDevicesShareAreNamed(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "Line 1", nil)
	one, two := ca.device(t, pkix.Name{CommonName: "a"}, nil), ca.device(t, pkix.Name{CommonName: "b"}, nil)
	ofPEM := strings.NewReplacer("CertificateId", "CertificatePem").Replace(bulkTemplate)
	owners := map[string]string{}
	for n, row := range []struct {
		body, value string
		want        string // whose certificate it is
	}{
		{bulkTemplate, string(pki.CertificateID(one.Raw)), ""},
		{bulkTemplate, string(pki.CertificateID(two.Raw)), ""},
		{ofPEM, pki.EncodeCertificatePEM(one.Raw), "line 0"},
		{bulkTemplate, strings.ToUpper(string(pki.CertificateID(two.Raw))), "line 1"},
		{bulkTemplate, string(provisioning.StandInID), ""},
		{bulkTemplate, string(provisioning.StandInID), ""},
	} {
		name := "line " + strconv.Itoa(n)
		result := dry(t, row.body, template.Bulk, func(d *provisioning.DryRun) { d.Parameters = map[string]string{"Name": name[5:], "Id": row.value} })
		result.Shares(owners, name)
		told := slices.ContainsFunc(result.Steps, func(s provisioning.DryRunStep) bool {
			return s.Name == "certificate" && s.Verdict == provisioning.VerdictWarning && s.Fix != "" && strings.Contains(s.Detail, "is that of "+row.want+", too")
		})
		if told != (row.want != "") {
			t.Errorf("%s: got the steps %+v, want a warning: %q", name, result.Steps, row.want)
		}
	}
}

func TestLintOfTemplatesKnowsPoliciesAndSubjects(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "Line 1", nil)
	french := ca.device(t, pkix.Name{CommonName: "a", Country: []string{"FR"}}, nil)
	stateless := ca.device(t, pkix.Name{CommonName: "b"}, nil)
	object := func(statement string) string {
		return templateOf("}}", "}", policyResource("p", "\n"+`"PolicyDocument":{"Version":"2012-10-17","Statement":`+statement+`}`))
	}
	text := func(document string) string {
		return templateOf("}}", "}", policyResource("p", "\n"+`"PolicyDocument":`+quoted(document)))
	}
	// The client id is each device's own, whatever stands in for it.
	demanding := strings.Replace(object(`{"Effect":"Allow","Action":"iot:Connect","Resource":{"Fn::Join":["",["arn:aws:iot:*:*:client/",{"Ref":"AWS::IoT::Certificate::CommonName"}]]}}`), `"Parameters":{`, `"Parameters":{`+"\n"+`"AWS::IoT::Certificate::Country":{"Type":"String"},`, 1)
	for _, row := range []struct {
		name, body string
		certs      []*x509.Certificate
		rule       string
		severity   template.Severity
		at         string // the text at the place
	}{
		{"everything allowed", object(`[{"Effect":"Deny","Action":"iot:*","Resource":"*"},{"Effect":"Allow","Action":["iot:*"],"Resource":["*"]}]`), nil,
			provisioning.RulePolicyTooWide, template.Warning, `"*"]}]`},
		{"everything allowed in a text", text(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`), nil,
			provisioning.RulePolicyTooWide, template.Warning, `\"*\"}}`},
		{"every data plane action on everything", object(`{"Effect":"Allow","Action":["iot:Connect","iot:Publish","iot:Subscribe","iot:Receive"],"Resource":"*"}`), nil,
			provisioning.RulePolicyTooWide, template.Warning, `"*"}`},
		{"any client id", object(`[{"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:*:*:client/*"}]`), nil,
			provisioning.RulePolicyTooWide, template.Warning, `"arn:aws:iot:*:*:client/*"`},
		{"any topic", object(`[{"Effect":"Allow","Action":"iot:Publish","Resource":["arn:aws:iot:*:*:topic/a","arn:aws:iot:*:*:topic/*"]}]`), nil,
			provisioning.RulePolicyTooWide, template.Warning, `"arn:aws:iot:*:*:topic/*"`},
		{"all resources by an ARN", object(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:iot:*:*:*"}`), nil,
			provisioning.RulePolicyTooWide, template.Warning, `"arn:aws:iot:*:*:*"`},
		{"a subscription without iot:Receive", object(`[{"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:*:*:topicfilter/x"}]`), nil,
			provisioning.RulePolicyMistake, template.Warning, `{"Effect":"Allow","Action":"iot:Subscribe"`},
		{"no policy", object(`[{"Effect":"Permit","Action":"iot:Connect","Resource":"*"}]`), nil, provisioning.RulePolicyInvalid, template.Mistake, `"Permit"`},
		{"no policy in a text", text("{\"Version\":\"2012-10-17\",\n\"Statement\":[{\"Effect\":\"Permit\",\"Action\":\"iot:Connect\",\"Resource\":\"*\"}]}"), nil,
			provisioning.RulePolicyInvalid, template.Mistake, `\"Permit\"`},
		{"no policy with a sample", object(`[{"Effect":{"Ref":"AWS::IoT::Certificate::CommonName"},"Action":"iot:Connect","Resource":"*"}]`), nil,
			provisioning.RulePolicyInvalid, template.Warning, `{"Ref":"AWS::IoT::Certificate::CommonName"},"Action"`},
		{"packages", strings.Replace(object(`{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}`), `"Properties":{"ThingName"`, `"Properties":{"PackageVersions":{"a":"1"},"ThingName"`, 1), nil,
			provisioning.RulePackageVersions, template.Mistake, `{"a":"1"}`},
		{"a field that one lacks", demanding, []*x509.Certificate{french, stateless}, provisioning.RuleSubjectLacks, template.Warning, `"AWS::IoT::Certificate::Country"`},
		{"a field that all lack", demanding, []*x509.Certificate{stateless}, provisioning.RuleSubjectLacks, template.Mistake, `"AWS::IoT::Certificate::Country"`},
		{"variables of no thing", `{"Resources":{"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}` +
			policyResource("p", `"PolicyDocument":`+quoted(connectPolicy)) + `}}`, nil, provisioning.RulePolicyNeedsThing, template.Warning, `{\"Version`},
	} {
		parsed, err := template.Parse([]byte(row.body), template.JITP)
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		findings := provisioning.LintTemplate(parsed, row.certs...)
		at := slices.IndexFunc(findings, func(f template.Finding) bool { return f.Rule == row.rule })
		if at < 0 {
			t.Errorf("%s: got %+v, want %s", row.name, findings, row.rule)
			continue
		}
		f := findings[at]
		line := strings.Split(row.body, "\n")[f.Line-1]
		if f.Severity != row.severity || !strings.HasPrefix(line[f.Column-1:], row.at) {
			t.Errorf("%s: got %+v, at %q, want %s at %q", row.name, f, line[f.Column-1:], row.severity, row.at)
		}
	}
	parsed, err := template.Parse([]byte(demanding), template.JITP)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range provisioning.LintTemplate(parsed, french) {
		if f.Rule != template.RuleUnusedParameter {
			t.Errorf("got %+v of a good template", f)
		}
	}
}

func TestBulkLinesAreReadAsABulkRegistrationReadsThem(t *testing.T) {
	t.Parallel()
	input := "\ufeff{\"a\":\"1\"}\n\n{\"a\":2}\n" + strings.Repeat("x", 200_000) + "\nnull\n  {\"a\":\"5\"}"
	var got []string
	err := provisioning.ReadBulkLines(strings.NewReader(input), func(line int64, parameters map[string]string, err error) error {
		text, _ := json.Marshal([]any{line, parameters, err != nil})
		got = append(got, string(text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`[1,{"a":"1"},false]`, `[3,null,true]`, `[4,null,true]`, `[5,null,true]`, `[6,{"a":"5"},false]`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// The page has every rule of the linter.
func TestThePageOfTemplateTestsHasEveryRule(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/template-test.md")
	if err != nil {
		t.Fatal(err)
	}
	rule := regexp.MustCompile(`(?m)^\tRule\w+\s+= "([a-z-]+)"$`)
	found := 0
	for _, path := range []string{"templatelint.go", "../template/lint.go"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range rule.FindAllSubmatch(text, -1) {
			found++
			if !bytes.Contains(page, append(append([]byte("`"), match[1]...), '`')) {
				t.Errorf("docs/template-test.md lacks the rule %s", match[1])
			}
		}
	}
	if found < 20 {
		t.Errorf("found %d rules, want at least 20", found)
	}
}
