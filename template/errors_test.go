package template_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/template"
)

// A refusal is an invalid template or call: at names the text whose first character is the place
// of the error, and member and msg are exact.
type refusal struct {
	name   string
	kind   template.Kind
	body   string
	params map[string]string
	code   template.Code
	at     string
	member string
	msg    string
	hint   string // a part of it
}

func (r refusal) run(t *testing.T) {
	t.Parallel()
	parsed, err := template.Parse([]byte(r.body), r.kind)
	if r.params != nil {
		if err != nil {
			t.Fatalf("couldn't parse: %v", err)
		}
		_, err = parsed.Plan(r.params)
	}
	if err == nil {
		t.Fatalf("got no error, want %q", r.msg)
	}
	got := *asError(t, err)
	if !strings.Contains(got.Hint, r.hint) {
		t.Errorf("got hint %q, want one with %q", got.Hint, r.hint)
	}
	got.Hint, got.Parameter = "", ""
	want := template.Error{Code: r.code, Member: r.member, Msg: r.msg}
	if r.at != "" {
		want.Line, want.Column = place(r.body, r.at)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("error (-want +got):\n%s\nat %q in %s", diff, r.at, r.body)
	}
}

func TestParseRefusesWrongDocuments(t *testing.T) {
	t.Parallel()
	fleet, bulk, jitp := template.Fleet, template.Bulk, template.JITP
	ok := `"Resources":{"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"p"}}}`
	rows := []refusal{
		{name: "unknown kind", kind: 9, body: "{}", code: template.CodeInvalid, msg: "unknown kind of template 9"},
		{name: "duplicate section", kind: fleet, body: "{" + ok + ",\n \"Resources\":{}}", code: template.CodeInvalid,
			at: "\"Resources\":{}", member: "Resources", msg: `duplicate member "Resources"`, hint: "line 1"},
		{name: "duplicate written with an escape", kind: fleet, body: `{"Parameters":{"A":{"Type":"String"},"\u0041":{"Type":"String"}},` + ok + "}",
			code: template.CodeInvalid, at: `"\u0041"`, member: "Parameters.A", msg: `duplicate member "A"`},
		{name: "duplicate inside a list", kind: bulk, body: withResource("AWS::IoT::Policy", `{"PolicyDocument":{"S":[{},{"a":1,"a":2}]}}`),
			code: template.CodeInvalid, at: `"a":2`, member: "Resources.r.Properties.PolicyDocument.S[1].a", msg: `duplicate member "a"`},
		{name: "no object", kind: fleet, body: ` []`, code: template.CodeInvalid, at: "[", msg: "must be an object, not a list"},
		{name: "no Resources", kind: fleet, body: `{"Parameters":{}}`, code: template.CodeInvalid, at: "{", msg: "the template has no Resources section"},
		{name: "empty Resources", kind: fleet, body: `{"Resources":{}}`, code: template.CodeInvalid, at: "{}", member: "Resources", msg: "the Resources section is empty"},
		{name: "unknown section", kind: fleet, body: `{"parameters":{},` + ok + "}", code: template.CodeInvalid, at: `"parameters"`, member: "parameters",
			msg: `unknown member "parameters"`, hint: "did you mean Parameters?"},
		{name: "Version must be a string", kind: fleet, body: `{"Version":1,` + ok + "}", code: template.CodeInvalid, at: "1,", member: "Version",
			msg: "must be a string, not a number", hint: "quotes"},
		{name: "Mappings in a bulk template", kind: bulk, body: `{"Mappings":{},` + ok + "}", code: template.CodeInvalid, at: `"Mappings"`, member: "Mappings",
			msg: "a bulk registration template has no Mappings section", hint: "FLEET_PROVISIONING"},
		{name: "DeviceConfiguration in a JITP template", kind: jitp, body: `{"DeviceConfiguration":{},` + ok + "}", code: template.CodeInvalid,
			at: `"DeviceConfiguration"`, member: "DeviceConfiguration", msg: "a JITP template has no DeviceConfiguration section"},
		{name: "parameter that is no object", kind: fleet, body: `{"Parameters":{"A":"String"},` + ok + "}", code: template.CodeInvalid,
			at: `"String"`, member: "Parameters.A", msg: "must be an object, not a string"},
		{name: "parameter without a name", kind: fleet, body: `{"Parameters":{"":{"Type":"String"}},` + ok + "}", code: template.CodeInvalid,
			at: `"":`, member: "Parameters.", msg: "a parameter must have a name"},
		{name: "parameter without Type", kind: fleet, body: `{"Parameters":{"A":{}},` + ok + "}", code: template.CodeInvalid,
			at: `"A"`, member: "Parameters.A", msg: `parameter "A" has no Type`, hint: `"Type": "String"`},
		{name: "parameter of another type", kind: fleet, body: `{"Parameters":{"A":{"Type":"Number"}},` + ok + "}", code: template.CodeInvalid,
			at: `"Number"`, member: "Parameters.A.Type", msg: `parameter type "Number" is not known`, hint: "String"},
		{name: "parameter with an unknown member", kind: fleet, body: `{"Parameters":{"A":{"Type":"String","MaxLength":1}},` + ok + "}", code: template.CodeInvalid,
			at: `"MaxLength"`, member: "Parameters.A.MaxLength", msg: `unknown member "MaxLength"`, hint: "known here: Type, Default"},
		{name: "default that is no string", kind: fleet, body: `{"Parameters":{"A":{"Type":"String","Default":5}},` + ok + "}", code: template.CodeInvalid,
			at: `5`, member: "Parameters.A.Default", msg: "must be a string, not a number", hint: "quotes"},
		{name: "default that is too long", kind: fleet, body: `{"Parameters":{"A":{"Type":"String","Default":"` + strings.Repeat("é", 4097) + `"}},` + ok + "}",
			code: template.CodeLimit, at: `"é`, member: "Parameters.A.Default", msg: "the default has 4097 characters, a parameter value may have 4096"},
		{name: "JITP parameter that is not of the certificate", kind: jitp, body: `{"Parameters":{"SerialNumber":{"Type":"String"}},` + ok + "}",
			code: template.CodeInvalid, at: `"SerialNumber"`, member: "Parameters.SerialNumber",
			msg: `a JITP template cannot declare parameter "SerialNumber"`, hint: "AWS::IoT::Certificate::CommonName"},
		{name: "JITP template without a certificate", kind: jitp, body: "{" + ok + "}", code: template.CodeInvalid, at: `{"p"`, member: "Resources",
			msg: "a JITP template must have a certificate resource", hint: "AWS::IoT::Certificate::Id"},
	}
	for _, r := range rows {
		t.Run(r.name, r.run)
	}
}

func TestParseRefusesWhatIsNoJSON(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		body         string
		line, column int
		hint         string
	}{
		"empty":                {"", 1, 1, ""},
		"cut off":              {"{\n \"Resources\":{", 2, 15, ""},
		"a trailing comma":     {"{\n  \"é\": 1,}", 2, 10, ""},
		"a second value":       {"{}\n {}", 2, 2, ""},
		"a comment":            {"{} // x", 1, 4, ""},
		"invalid UTF-8":        {"{\"\xff\":1}", 1, 3, ""},
		"a byte order mark":    {"\ufeff{}", 1, 1, "byte order mark"},
		"control in a string":  {"{\"a\":\"\x01\"}", 1, 7, ""},
		"NaN":                  {`{"a":NaN}`, 1, 6, ""},
		"a number in a string": {`{"a":01}`, 1, 7, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := template.Parse([]byte(row.body), template.Fleet)
			if err == nil {
				t.Fatal("got no error, want one")
			}
			e := asError(t, err)
			if e.Code != template.CodeSyntax || e.Line != row.line || e.Column != row.column || !strings.Contains(e.Hint, row.hint) {
				t.Errorf("got %s at line %d, column %d (%s), want syntax at %d, %d", e.Code, e.Line, e.Column, e.Msg, row.line, row.column)
			}
		})
	}
}

func TestParseRefusesWrongResources(t *testing.T) {
	t.Parallel()
	thing := "AWS::IoT::Thing"
	id := `{"CertificateId":"` + certID + `"}`
	runInvalid(t, []refusal{
		{name: "unknown type", body: withResource("AWS::IoT::Rule", "{}"), at: `"AWS::IoT::Rule"`, member: "Resources.r.Type",
			msg: `resource type "AWS::IoT::Rule" is not known`, hint: thing},
		{name: "no type", body: `{"Resources":{"r":{}}}`, at: `"r"`, member: "Resources.r", msg: `resource "r" has no Type`},
		{name: "type from a function", body: `{"Resources":{"r":{"Type":{"Ref":"A"}}}}`, at: `{"Ref"`, member: "Resources.r.Type", msg: "must be a string, not an object"},
		{name: "no properties", body: `{"Resources":{"r":{"Type":"AWS::IoT::Thing"}}}`, at: `"r"`, member: "Resources.r", msg: `resource "r" has no Properties`},
		{name: "no name", body: `{"Resources":{"":{"Type":"AWS::IoT::Thing"}}}`, at: `"":`, member: "Resources.", msg: "a resource must have a name"},
		{name: "resource that is a list", body: `{"Resources":{"r":[]}}`, at: "[", member: "Resources.r", msg: "must be an object, not a list"},
		{name: "unknown member of a resource", body: `{"Resources":{"r":{"Type":"AWS::IoT::Thing","DependsOn":"x"}}}`, at: `"DependsOn"`,
			member: "Resources.r.DependsOn", msg: `unknown member "DependsOn"`, hint: "Type, Properties, OverrideSettings"},
		{name: "two things", body: `{"Resources":{"a":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"x"}},"b":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"y"}}}}`,
			at: `"b"`, member: "Resources.b", msg: `the template has two things, "a" and "b"`, hint: "one thing"},
		{name: "two certificates", body: `{"Resources":{"a":{"Type":"AWS::IoT::Certificate","Properties":` + id + `},"b":{"Type":"AWS::IoT::Certificate","Properties":` + id + `}}}`,
			at: `"b"`, member: "Resources.b", msg: `the template has two certificates, "a" and "b"`, hint: "one certificate"},
	})
}

func TestParseRefusesWrongThings(t *testing.T) {
	t.Parallel()
	thing := "AWS::IoT::Thing"
	p := "Resources.r.Properties"
	runInvalid(t, []refusal{
		{name: "thing without a name", body: withResource(thing, `{}`), at: `{}}}}`, member: p, msg: "a thing needs a ThingName"},
		{name: "unknown property of a thing", body: withResource(thing, `{"ThingName":"t","Thinggroups":[]}`), at: `"Thinggroups"`, member: p + ".Thinggroups",
			msg: `unknown member "Thinggroups"`, hint: "did you mean ThingGroups?"},
		{name: "bad thing name", body: withResource(thing, `{"ThingName":"a b"}`), at: `"a b"`, member: p + ".ThingName",
			msg: `thing name "a b" must match [a-zA-Z0-9:_-]{1,128}`},
		{name: "long thing name", body: withResource(thing, `{"ThingName":"`+strings.Repeat("x", 129)+`"}`), at: `"xxx`, member: p + ".ThingName",
			msg: `thing name "` + strings.Repeat("x", 80) + `"... must match [a-zA-Z0-9:_-]{1,128}`},
		{name: "thing name of another kind", body: withResource(thing, `{"ThingName":7}`), at: "7", member: p + ".ThingName",
			msg: "must be a string or a function, not a number", hint: "quotes"},
		{name: "null", body: withResource(thing, `{"ThingName":null}`), at: "null", member: p + ".ThingName", msg: "must be a string or a function, not null"},
		{name: "attributes that are a list", body: withResource(thing, `{"ThingName":"t","AttributePayload":["a"]}`), at: `["a"]`, member: p + ".AttributePayload",
			msg: "must be an object, not a list"},
		{name: "attributes that are a function", body: withResource(thing, `{"ThingName":"t","AttributePayload":{"Ref":"A"}}`), at: `{"Ref"`, member: p + ".AttributePayload",
			msg: "must be an object of names and values, not a function"},
		{name: "bad attribute name", body: withResource(thing, `{"ThingName":"t","AttributePayload":{"a b":"x"}}`), at: `"a b"`, member: p + ".AttributePayload.a b",
			msg: `attribute name "a b" must match [a-zA-Z0-9_.,@/:#-]{1,128}`},
		{name: "bad attribute value", body: withResource(thing, `{"ThingName":"t","AttributePayload":{"a":"x y"}}`), at: `"x y"`, member: p + ".AttributePayload.a",
			msg: `attribute value "x y" must match [a-zA-Z0-9_.,@/:#=\[\]-]{0,800}`},
		{name: "merge in the nested form", body: withResource(thing, `{"ThingName":"t","AttributePayload":{"attributes":{},"merge":true}}`), at: `"merge"`,
			member: p + ".AttributePayload.merge", msg: `unknown member "merge" beside attributes`, hint: "OverrideSettings"},
		{name: "nested attribute", body: withResource(thing, `{"ThingName":"t","AttributePayload":{"a":{"b":"c"}}}`), at: `{"b"`, member: p + ".AttributePayload.a",
			msg: "must be a string or a function, not an object"},
		{name: "fifty-one attributes", body: withResource(thing, `{"ThingName":"t","ThingTypeName":"x","AttributePayload":`+manyAttributes(51)+`}`), code: template.CodeLimit,
			at: `{"a0"`, member: p + ".AttributePayload", msg: "51 attributes, a thing may have 50"},
		{name: "groups that are a string", body: withResource(thing, `{"ThingName":"t","ThingGroups":"g"}`), at: `"g"`, member: p + ".ThingGroups",
			msg: "must be a list or a function that gives one, not a string", hint: "square brackets"},
		{name: "groups from a string function", body: withResource(thing, `{"ThingName":"t","ThingGroups":{"Ref":"A"}}`), at: `{"Ref"`, member: p + ".ThingGroups",
			msg: "Ref gives a string where a list is needed", hint: "Fn::Split"},
		{name: "bad group name", body: withResource(thing, `{"ThingName":"t","ThingGroups":["g","a/b"]}`), at: `"a/b"`, member: p + ".ThingGroups[1]",
			msg: `thing group name "a/b" must match [a-zA-Z0-9:_-]{1,128}`},
		{name: "a list in the groups", body: withResource(thing, `{"ThingName":"t","ThingGroups":[{"Fn::Split":[",","a"]}]}`), at: `{"Fn::Split"`, member: p + ".ThingGroups[0]",
			msg: "Fn::Split gives a list where a string is needed", hint: "Fn::Select"},
		{name: "bad type name", body: withResource(thing, `{"ThingName":"t","ThingTypeName":""}`), at: `""`, member: p + ".ThingTypeName",
			msg: `thing type name "" must match [a-zA-Z0-9:_-]{1,128}`},
		{name: "bad billing group", body: withResource(thing, `{"ThingName":"t","BillingGroup":"ä"}`), at: `"ä"`, member: p + ".BillingGroup",
			msg: `billing group name "ä" must match [a-zA-Z0-9:_-]{1,128}`},
		{name: "bad package", body: withResource(thing, `{"ThingName":"t","PackageVersions":{"a/b":"1"}}`), at: `"a/b"`, member: p + ".PackageVersions.a/b",
			msg: `package name "a/b" must match [a-zA-Z0-9_.-]{1,128}`},
		{name: "bad package version", body: withResource(thing, `{"ThingName":"t","PackageVersions":{"a":""}}`), at: `""`, member: p + ".PackageVersions.a",
			msg: `package version name "" must match [a-zA-Z0-9_.-]{1,64}`},
	})
}

func TestParseRefusesWrongCertificates(t *testing.T) {
	t.Parallel()
	certificate := "AWS::IoT::Certificate"
	p := "Resources.r.Properties"
	runInvalid(t, []refusal{
		{name: "certificate without a source", body: withResource(certificate, `{"Status":"ACTIVE"}`), at: `{"Status"`, member: p,
			msg: "the certificate has no source", hint: "CertificateSigningRequest"},
		{name: "certificate with two sources", body: withResource(certificate, `{"CertificatePem":"x","CertificateSigningRequest":"y"}`), at: `"CertificateSigningRequest"`,
			member: p + ".CertificateSigningRequest", msg: "the certificate has two sources, CertificatePem and CertificateSigningRequest"},
		{name: "CA without CertificatePem", body: withResource(certificate, `{"CACertificatePem":"x","CertificateSigningRequest":"y"}`), at: `"x"`,
			member: p + ".CACertificatePem", msg: "CACertificatePem goes with CertificatePem, not with CertificateSigningRequest"},
		{name: "CSR in a fleet template", kind: template.Fleet, body: withResource(certificate, `{"CertificateSigningRequest":"y"}`), at: `"CertificateSigningRequest"`,
			member: p + ".CertificateSigningRequest", msg: "a fleet provisioning template cannot use CertificateSigningRequest", hint: "CertificateId"},
		{name: "PEM in a JITP template", kind: template.JITP, body: `{"Resources":{"r":{"Type":"AWS::IoT::Certificate","Properties":{"CertificatePem":"x"}}}}`, at: `"CertificatePem"`,
			member: p + ".CertificatePem", msg: "a JITP template cannot use CertificatePem", hint: "CertificateId"},
		{name: "bad certificate id", body: withResource(certificate, `{"CertificateId":"abc"}`), at: `"abc"`, member: p + ".CertificateId",
			msg: `certificate id "abc" must match [a-fA-F0-9]{64,64}`},
		{name: "empty CSR", body: withResource(certificate, `{"CertificateSigningRequest":""}`), at: `""`, member: p + ".CertificateSigningRequest",
			msg: "certificate signing request has 0 characters, must have 1 to 4096"},
		{name: "bad status", body: withResource(certificate, `{"CertificatePem":"x","Status":"REVOKED"}`), at: `"REVOKED"`, member: p + ".Status",
			msg: `certificate status "REVOKED" is none of ACTIVE, INACTIVE`},
		{name: "bad principal type", body: withResource(certificate, `{"CertificatePem":"x","ThingPrincipalType":"EXCLUSIVE"}`), at: `"EXCLUSIVE"`, member: p + ".ThingPrincipalType",
			msg: `ThingPrincipalType "EXCLUSIVE" is none of EXCLUSIVE_THING, NON_EXCLUSIVE_THING`},
	})
}

func TestParseRefusesWrongPoliciesAndOverrides(t *testing.T) {
	t.Parallel()
	policy := "AWS::IoT::Policy"
	p := "Resources.r.Properties"
	runInvalid(t, []refusal{
		{name: "policy with nothing", body: withResource(policy, `{}`), at: `{}}}}`, member: p, msg: "a policy needs either PolicyName or PolicyDocument"},
		{name: "policy with both", body: withResource(policy, `{"PolicyName":"x","PolicyDocument":"{}"}`), at: `{"PolicyName"`, member: p,
			msg: "a policy cannot have both PolicyName and PolicyDocument"},
		{name: "bad policy name", body: withResource(policy, `{"PolicyName":"a/b"}`), at: `"a/b"`, member: p + ".PolicyName",
			msg: `policy name "a/b" must match [\w+=,.@-]{1,128}`},
		{name: "document that is no object", body: withResource(policy, `{"PolicyDocument":"[]"}`), at: `"[]"`, member: p + ".PolicyDocument",
			msg: "the policy document is not a JSON object"},
		{name: "document that is cut off", body: withResource(policy, `{"PolicyDocument":"{"}`), at: `"}}}}`, member: p + ".PolicyDocument",
			msg: "the policy document is not a JSON object: unexpected end of JSON input"},
		{name: "document with a mistake behind escapes", body: withResource(policy, `{"PolicyDocument":"{\n\"\u00e9\ud83d\ude00\ud800e\":?}"}`), at: `?}`, member: p + ".PolicyDocument",
			msg: "the policy document is not a JSON object: invalid character '?' looking for beginning of value"},
		{name: "document with a wrong function", body: withResource(policy, `{"PolicyDocument":{"S":[{"R":{"Fn::If":[]}}]}}`), at: `"Fn::If"`,
			member: p + ".PolicyDocument.S[0].R", msg: `unknown function "Fn::If"`},
		{name: "override of a policy", body: `{"Resources":{"r":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"p"},"OverrideSettings":{"Status":"FAIL"}}}}`,
			at: `"Status"`, member: "Resources.r.OverrideSettings.Status", msg: `unknown member "Status"`, hint: "nothing is allowed here"},
		{name: "override of an unknown setting", body: `{"Resources":{"r":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"t"},"OverrideSettings":{"BillingGroup":"FAIL"}}}}`,
			at: `"BillingGroup"`, member: "Resources.r.OverrideSettings.BillingGroup", msg: `unknown member "BillingGroup"`, hint: "THING_GROUPS"},
		{name: "one override in both spellings", body: `{"Resources":{"r":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"t"},"OverrideSettings":{"THING_GROUPS":"FAIL","ThingGroups":"FAIL"}}}}`,
			at: `"ThingGroups"`, member: "Resources.r.OverrideSettings.ThingGroups", msg: "ThingGroups and THING_GROUPS are the same setting"},
	})
}

// runInvalid runs refusals whose kind is Bulk and whose code is CodeInvalid where they name none.
func runInvalid(t *testing.T, rows []refusal) {
	t.Helper()
	for _, r := range rows {
		if r.kind == 0 {
			r.kind = template.Bulk
		}
		if r.code == "" {
			r.code = template.CodeInvalid
		}
		t.Run(r.name, r.run)
	}
}

func manyAttributes(n int) string {
	var parts []string
	for i := range n {
		parts = append(parts, fmt.Sprintf(`"a%d":"v"`, i))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestErrorTextNamesPlaceAndMember(t *testing.T) {
	t.Parallel()
	body := thingNamed(`{"Ref":"Missing"}`)
	_, err := template.Parse([]byte(body), template.Fleet)
	_, column := place(body, `"Missing"`)
	want := "line 1, column " + strconv.Itoa(column) + ", Resources.thing.Properties.ThingName: Cannot resolve reference value: Missing"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	e := &template.Error{Msg: "m"}
	if e.Error() != "m" {
		t.Errorf("got %q, want m", e.Error())
	}
}
