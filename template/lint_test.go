package template_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/template"
)

// lintRow is a template and the one finding that it must have; at names the text whose first
// character is its place.
type lintRow struct {
	name     string
	kind     template.Kind
	body     string
	rule     string
	severity template.Severity
	at       string
	msg      string // a part of it
}

const (
	certificateResource = `"certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}}`
	policyResource      = `"policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"p"}}`
)

// linted is a whole template around a thing's properties.
func linted(parameters, properties string) string {
	return `{"Parameters":{` + parameters + `},"Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{` + properties + `}},` +
		certificateResource + `,` + policyResource + `}}`
}

func TestLintFinds(t *testing.T) {
	t.Parallel()
	const (
		serial = `"S":{"Type":"String"}`
		name   = `"ThingName":{"Ref":"S"}`
		common = `"AWS::IoT::Certificate::CommonName":{"Type":"String"}`
		org    = `"AWS::IoT::Certificate::Organization":{"Type":"String"}`
	)
	id := func(properties string) string { return linted(serial, properties) }
	for _, row := range []lintRow{
		{"an unused parameter", template.Fleet, linted(serial+`,"Unused":{"Type":"String"}`, name), template.RuleUnusedParameter, template.Warning, `"Unused"`, "parameter Unused is never used"},
		{"an unused one of JITP, which is demanded all the same", template.JITP, linted(common+`,`+org, `"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"}`),
			template.RuleUnusedParameter, template.Warning, `"AWS::IoT::Certificate::Organization"`, "a certificate without its organization (O, 2.5.4.10) is refused"},
		{"a field of the subject in fleet provisioning", template.Fleet, linted(common, `"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"}`),
			template.RuleParameterNotGiven, template.Warning, `"AWS::IoT::Certificate::CommonName":`, "only JITP does"},
		{"the service's parameter in bulk registration", template.Bulk, linted(serial+`,"AWS::IoT::Certificate::Id":{"Type":"String"}`, name),
			template.RuleParameterNotGiven, template.Warning, `"AWS::IoT::Certificate::Id":{`, "supply no parameter"},
		{"a Ref to a resource", template.Fleet, id(name + `,"ThingTypeName":{"Ref":"policy"}`), template.RuleResourceReference, template.Mistake, `"policy"}`, `"policy" is a resource`},
		{"a Ref to a resource inside a document", template.Fleet, strings.Replace(id(name), `"PolicyName":"p"`, `"PolicyDocument":{"Statement":[{"Resource":{"Ref":"thing"}}]}`, 1),
			template.RuleResourceReference, template.Mistake, `"thing"}`, `"thing" is a resource`},
		{"one name for all", template.Fleet, linted("", `"ThingName":"sensor"`), template.RuleThingName, template.Mistake, `"sensor"`, "the same for every device"},
		{"one of a few names", template.Fleet, `{"Mappings":{"M":{"a":{"n":"x"},"b":{"n":"y"}}},` + linted(serial, `"ThingName":{"Fn::FindInMap":["M",{"Ref":"S"},"n"]}`)[1:],
			template.RuleThingName, template.Mistake, `{"Fn::FindInMap"`, "one of a few"},
		{"one of a few names by index", template.Fleet, id(`"ThingName":{"Fn::Select":[{"Ref":"S"},["x","y"]]}`), template.RuleThingName, template.Mistake, `{"Fn::Select"`, "one of a few"},
		{"a name of what many subjects have alike", template.JITP, linted(org, `"ThingName":{"Fn::Join":["-",["x",{"Ref":"AWS::IoT::Certificate::Organization"}]]}`),
			template.RuleThingName, template.Warning, `{"Fn::Join"`, "AWS::IoT::Certificate::Organization alone"},
		{"a name with a default", template.Fleet, linted(`"S":{"Type":"String","Default":"x"}`, name), template.RuleThingName, template.Warning, `"S"}`, "devices that give no S share one thing"},
		{"four attributes without a type", template.Fleet, id(name + `,"AttributePayload":{"a":"1","b":"2","c":"3","d":"4"}`),
			template.RuleAttributesWithoutType, template.Mistake, `{"a":"1"`, "4 attributes"},
		{"eleven groups", template.Fleet, id(name + `,"ThingGroups":["0","1","2","3","4","5","6","7","8","9","a"]`), template.RuleTooManyGroups, template.Mistake, `["0"`, "11 groups"},
		{"groups that the device chooses", template.Fleet, id(name + `,"ThingGroups":["g",{"Ref":"S"}]`), template.RuleGroupByDevice, template.Note, `["g"`, "parameter S"},
		{"an override of a property that isn't there", template.Fleet, id(name + `},"OverrideSettings":{"ThingGroups":"MERGE"`), template.RuleOverrideOfNothing, template.Warning, `"MERGE"`, "no such property"},
		{"an override that refuses renewed certificates", template.Fleet, id(name + `,"ThingTypeName":"x"},"OverrideSettings":{"THING_TYPE_NAME":"FAIL"`),
			template.RuleOverrideFail, template.Note, `"FAIL"`, "renewed certificate"},
		{"an override of a status that is always new", template.JITP, strings.Replace(linted(common, `"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"}`),
			`"Status":"ACTIVE"}`, `"Status":"ACTIVE"},"OverrideSettings":{"Status":"REPLACE"}`, 1), template.RuleOverrideNoEffect, template.Note, `"REPLACE"`, "no effect in a JITP template"},
		{"an inactive certificate", template.Fleet, strings.Replace(id(name), "ACTIVE", "Inactive", 1), template.RuleCertificateInactive, template.Warning, `"Inactive"`, "can't connect"},
		{"no thing", template.Fleet, `{"Resources":{` + certificateResource + `,` + policyResource + `}}`, template.RuleNoThing, template.Note, "", "no thing"},
		{"no certificate", template.Fleet, strings.Replace(id(name), certificateResource+",", "", 1), template.RuleNoCertificate, template.Warning, "", "PENDING_ACTIVATION"},
		{"no policy", template.Fleet, strings.Replace(id(name), ","+policyResource, "", 1), template.RuleNoPolicy, template.Warning, "", "no policy"},
		{"a policy for nothing", template.Bulk, strings.Replace(id(name), certificateResource+",", "", 1), template.RulePolicyNoCertificate, template.Mistake, `"p"`, "no certificate"},
		{"a policy that the device chooses", template.Fleet, strings.Replace(id(name), `"PolicyName":"p"`, `"PolicyName":{"Ref":"S"}`, 1), template.RulePolicyByDevice, template.Warning, `"S"}}}}}`, "parameter S"},
		{"a document with values in its text", template.Fleet, strings.Replace(id(name), `"PolicyName":"p"`, `"PolicyDocument":{"Fn::Sub":"{\"Version\":\"${S}\"}"}`, 1),
			template.RulePolicyDocumentByValues, template.Warning, `{"Fn::Sub"`, "the value of S"},
	} {
		t.Run(row.name, row.run)
	}
}

func (r lintRow) run(t *testing.T) {
	t.Parallel()
	findings := mustParse(t, r.body, r.kind).Lint()
	at := slices.IndexFunc(findings, func(f template.Finding) bool { return f.Rule == r.rule })
	if at < 0 {
		t.Fatalf("got %+v, want one of %s", findings, r.rule)
	}
	got := findings[at]
	var want struct{ Line, Column int }
	if r.at != "" {
		want.Line, want.Column = place(r.body, r.at)
	}
	if got.Line != want.Line || got.Column != want.Column || got.Severity != r.severity || !strings.Contains(got.Msg, r.msg) {
		t.Errorf("got %+v, want %s with %q at line %d, column %d of\n%s", got, r.severity, r.msg, want.Line, want.Column, r.body)
	}
}

// Published examples and others that nothing is wrong with.
func TestLintFindsNothingInGoodTemplates(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		kind template.Kind
		body string
		want []string
	}{
		"fleet": {template.Fleet, linted(`"S":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}`, `"ThingName":{"Fn::Sub":"sensor-${S}"}`), nil},
		"JITP":  {template.JITP, linted(`"AWS::IoT::Certificate::Id":{"Type":"String"}`, `"ThingName":{"Ref":"AWS::IoT::Certificate::Id"}`), nil},
		"bulk":  {template.Bulk, strings.Replace(linted(`"S":{"Type":"String"},"CSR":{"Type":"String"}`, `"ThingName":{"Ref":"S"}`), `"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}`, `"CertificateSigningRequest":{"Ref":"CSR"}`, 1), nil},
		// AWS's own example sets an override that has no effect.
		"JITP example of the guide":  {template.JITP, jitpExample, []string{template.RuleOverrideNoEffect}},
		"fleet example of the guide": {template.Fleet, fleetExample, []string{template.RuleGroupByDevice}},
	} {
		var got []string
		for _, f := range mustParse(t, row.body, row.kind).Lint() {
			got = append(got, f.Rule)
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s: findings (-want +got):\n%s", name, diff)
		}
	}
}

func TestMissingListsAllThatPlanWouldMiss(t *testing.T) {
	t.Parallel()
	body := `{"Parameters":{"A":{"Type":"String"},"B":{"Type":"String"},"C":{"Type":"String"},"D":{"Type":"String","Default":"d"}},` +
		`"Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"C"},"AttributePayload":{"a":{"Ref":"A"},"d":{"Ref":"D"}}}}}}`
	missing := mustParse(t, body, template.Fleet).Missing(map[string]string{"B": "b"})
	if len(missing) != 2 || missing[0].Parameter != "A" || missing[1].Parameter != "C" {
		t.Fatalf("got %+v, want A and C", missing)
	}
	line, column := place(body, `"A"}`)
	if got := missing[0]; got.Line != line || got.Column != column || got.Member != "Resources.thing.Properties.AttributePayload.a" {
		t.Errorf("got %+v, want line %d, column %d", got, line, column)
	}
	jitp := mustParse(t, jitpExample, template.JITP)
	if got := jitp.Missing(jitpParams()); got != nil {
		t.Errorf("got %+v, want nothing missing", got)
	}
	params := jitpParams()
	delete(params, "AWS::IoT::Certificate::Country")
	_, err := jitp.Plan(params)
	got := jitp.Missing(params)
	if len(got) != 1 || got[0].Parameter != asError(t, err).Parameter || got[0].Hint != asError(t, err).Hint {
		t.Errorf("got %+v, want what Plan says: %+v", got, asError(t, err))
	}
}

func TestPlacesOfDocumentsAreFound(t *testing.T) {
	t.Parallel()
	asText := withResource("AWS::IoT::Policy", `{"PolicyDocument":"{\n \"Version\":\"2012-10-17\",\n \"é\":1}"}`)
	documents := mustParse(t, asText, template.Bulk).Documents()
	if len(documents) != 1 || documents[0].Sampled || documents[0].Err != nil {
		t.Fatalf("got %+v, want one document", documents)
	}
	line, column := place(asText, `1}`)
	if l, c := documents[0].Place("", 3, 6); l != line || c+len("é")-1 != column {
		t.Errorf("got line %d, column %d, want %d, %d", l, c, line, column)
	}
	asObject := withResource("AWS::IoT::Policy", `{"PolicyDocument":{"Version":"2012-10-17",
  "Statement":[{"Effect":"Allow","Action":"x","Condition":{"StringEquals":{"a.b":{"Ref":"A"}}}}]}}`)
	documents = mustParse(t, asObject, template.Bulk).Documents()
	if len(documents) != 1 || !documents[0].Sampled || !strings.Contains(documents[0].Text, `"a.b":"SAMPLE"`) {
		t.Fatalf("got %+v, want one document with a sample", documents)
	}
	for member, text := range map[string]string{"Statement[0].Action": `"x"`, "Statement[0].Condition.StringEquals.a.b": `{"Ref"`, "Statement[0].Nothing": `{"Effect"`, "Statement[7]": `[{"Effect"`} {
		line, column = place(asObject, text)
		if l, c := documents[0].Place(member, 0, 0); l != line || c != column {
			t.Errorf("%s: got line %d, column %d, want %d, %d", member, l, c, line, column)
		}
	}
	broken := mustParse(t, withResource("AWS::IoT::Policy", `{"PolicyDocument":{"Fn::Sub":"{${A}}"}}`), template.Bulk).Documents()
	if len(broken) != 1 || broken[0].Err == nil {
		t.Errorf("got %+v, want an error", broken)
	}
}
