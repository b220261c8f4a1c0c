package template_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/template"
)

const nameMember = "Resources.thing.Properties.ThingName"

func TestParseRefusesWrongFunctions(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, value, at, msg, hint string }{
		{"unknown function", `{"Fn::GetAtt":["x","y"]}`, `"Fn::GetAtt"`, `unknown function "Fn::GetAtt"`, "Fn::FindInMap"},
		{"object that is no function", `{"x":"y"}`, `{"x"`, "must be a string or a function, not an object", ""},
		{"empty object", `{}`, `{}}}}`, "must be a string or a function, not an object", ""},
		{"list instead of a string", `["x"]`, `["x"]`, "must be a string or a function, not a list", ""},
		{"function with a second member", `{"Ref":"A","x":"y"}`, `{"Ref"`, "a function must be the only member of its object", "Fn::..."},
		{"Ref of a list", `{"Ref":["A"]}`, `["A"]`, "Ref needs the name of a parameter, not a list", ""},
		{"Ref of a function", `{"Ref":{"Ref":"A"}}`, `{"Ref":"A"}`, "Ref needs the name of a parameter, not an object", ""},
		{"Join of one argument", `{"Fn::Join":[["x"]]}`, `[["x"]]`, "Fn::Join needs a list of 2, not a list of 1", `"delimiter"`},
		{"Join of a string", `{"Fn::Join":"x"}`, `"x"`, "Fn::Join needs a list of 2, not a string", ""},
		{"Join with a number as delimiter", `{"Fn::Join":[1,["x"]]}`, `1,["x"]`, "must be a string or a function, not a number", "quotes"},
		{"Join of no list", `{"Fn::Join":["-","x"]}`, `"x"`, "must be a list or a function that gives one, not a string", ""},
		{"Join with null", `{"Fn::Join":["-",["x",null]]}`, `null`, "must be a string or a function, not null", ""},
		{"Join of lists", `{"Fn::Join":["-",[["x"]]]}`, `["x"]]`, "must be a string or a function, not a list", ""},
		{"Split where a string is needed", `{"Fn::Split":[",","x"]}`, `{"Fn::Split"`, "Fn::Split gives a list where a string is needed", "Fn::Select"},
		{"Split of three", `{"Fn::Select":["0",{"Fn::Split":[",","x","y"]}]}`, `[",","x","y"]`, "Fn::Split needs a list of 2, not a list of 3", ""},
		{"Split at nothing", `{"Fn::Select":["0",{"Fn::Split":["","x"]}]}`, `"","x"`, "the delimiter of Fn::Split must not be empty", ""},
		{"Select without a list", `{"Fn::Select":["0"]}`, `["0"]`, "Fn::Select needs a list of 2, not a list of 1", ""},
		{"Select from a string", `{"Fn::Select":["0","x"]}`, `"x"`, "must be a list or a function that gives one, not a string", ""},
		{"Select with null", `{"Fn::Select":["0",["x",null]]}`, `null`, "the list of Fn::Select must not contain null", ""},
		{"Select out of range", `{"Fn::Select":["2",["x","y"]]}`, `"2"`, "the index 2 of Fn::Select is out of range: the list has 2 items", ""},
		{"Select by a negative index", `{"Fn::Select":[-1,["x"]]}`, `-1`, `the index "-1" of Fn::Select is not a whole number from 0`, ""},
		{"Select by a fraction", `{"Fn::Select":[0.0,["x"]]}`, `0.0`, `the index "0.0" of Fn::Select is not a whole number from 0`, ""},
		{"Select by a word", `{"Fn::Select":["first",["x"]]}`, `"first"`, `the index "first" of Fn::Select is not a whole number from 0`, ""},
		{"Select by null", `{"Fn::Select":[null,["x"]]}`, `null`, "must be a string or a function, not null", ""},
		{"FindInMap of two", `{"Fn::FindInMap":["M","k"]}`, `["M","k"]`, "Fn::FindInMap needs a list of 3, not a list of 2", ""},
		{"FindInMap of an unknown map", `{"Fn::FindInMap":["N",{"Ref":"A"},"s"]}`, `"N"`, `unknown map "N"`, "Mappings has M"},
		{"FindInMap of an unknown key", `{"Fn::FindInMap":["M","no",{"Ref":"A"}]}`, `"no"`, `unknown key "no" in map "M"`, "the map has k, k2"},
		{"FindInMap of an unknown sub-key", `{"Fn::FindInMap":["M","k","s2"]}`, `"s2"]`, `unknown sub-key "s2" in map "M"`, ""},
		{"FindInMap of a sub-key that no key has", `{"Fn::FindInMap":["M",{"Ref":"A"},"s3"]}`, `"s3"`, `unknown sub-key "s3" in map "M"`, ""},
		{"Sub of three", `{"Fn::Sub":["x",{},{}]}`, `["x"`, "Fn::Sub needs a list of 2, not a list of 3", "${name}"},
		{"Sub without variables", `{"Fn::Sub":["x"]}`, `["x"]`, "Fn::Sub needs a list of 2, not a list of 1", ""},
		{"Sub of a number", `{"Fn::Sub":5}`, `5`, "Fn::Sub needs a list of 2, not a number", ""},
		{"Sub with a function as text", `{"Fn::Sub":[{"Ref":"A"},{}]}`, `{"Ref":"A"}`, "the text of Fn::Sub must be a string, not an object", ""},
		{"Sub with a list of variables", `{"Fn::Sub":["x",[]]}`, `[]`, "the variables of Fn::Sub must be an object of names and values, not a list", ""},
		{"Sub with a function as variables", `{"Fn::Sub":["x",{"Ref":"A"}]}`, `{"Ref":"A"}`, "the variables of Fn::Sub must be an object of names and values, not a function", ""},
		{"Sub with an unclosed name", `{"Fn::Sub":"a${B"}`, `"a${B"`, "the text of Fn::Sub has a ${ without a name and a closing }", "${!name}"},
		{"Sub with an empty name", `{"Fn::Sub":"${}"}`, `"${}"`, "the text of Fn::Sub has a ${ without a name and a closing }", ""},
	} {
		t.Run(row.name, refusal{kind: template.Fleet, body: thingNamed(row.value), code: template.CodeInvalid,
			at: row.at, member: nameMember, msg: row.msg, hint: row.hint}.run)
	}
}

func TestUnresolvedReferencesHaveTheTextOfAWS(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, value, at, reference, hint string
		kind                             template.Kind
	}{
		{"Ref", `{"Ref":"SerialNumber"}`, `"SerialNumber"`, "SerialNumber", "declare it in Parameters", template.Fleet},
		{"a nested Ref", "{\"Fn::Join\":[\"\",[\"é\",\n {\"Ref\":\"X\"}]]}", `"X"`, "X", "declare it in Parameters", template.Fleet},
		{"Sub as a string", `{"Fn::Sub":"${X}"}`, `"${X}"`, "X", "declare it in Parameters", template.Fleet},
		{"Sub with variables", `{"Fn::Sub":["${x}${X}",{"x":""}]}`, `"${x}${X}"`, "X", "declare it in Parameters", template.Fleet},
		{"a pseudo parameter", `{"Ref":"AWS::Region"}`, `"AWS::Region"`, "AWS::Region", "pseudo parameters do not exist", template.Fleet},
		{"a pseudo parameter in Sub", `{"Fn::Sub":"${AWS::AccountId}"}`, `"${AWS::AccountId}"`, "AWS::AccountId", "pseudo parameters do not exist", template.Fleet},
		{"a policy variable in Sub", `{"Fn::Sub":"${iot:ClientId}"}`, `"${iot:ClientId}"`, "iot:ClientId", "${!iot:ClientId}", template.Fleet},
		{"another case", `{"Ref":"a"}`, `"a"`, "a", "did you mean A?", template.Fleet},
	} {
		t.Run(row.name, func(t *testing.T) {
			refusal{kind: row.kind, body: thingNamed(row.value), code: template.CodeUnresolved, at: row.at, member: nameMember,
				msg: "Cannot resolve reference value: " + row.reference, hint: row.hint}.run(t)
			_, err := template.Parse([]byte(thingNamed(row.value)), row.kind)
			if got := asError(t, err).Parameter; got != row.reference {
				t.Errorf("got parameter %q, want %q", got, row.reference)
			}
		})
	}
	jitp := `{"Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"}}}}}`
	t.Run("an undeclared attribute of the subject", refusal{kind: template.JITP, body: jitp, code: template.CodeUnresolved,
		at: `"AWS::IoT::Certificate::CommonName"`, member: nameMember,
		msg: "Cannot resolve reference value: AWS::IoT::Certificate::CommonName", hint: "comes from the certificate's subject"}.run)
}

func TestFunctionsInsideMappingsAreRefused(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ mappings, at, member string }{
		{`{"Ref":"x"}`, `{"Ref"`, "Mappings"},
		{`{"M":{"Fn::Sub":"x"}}`, `{"Fn::Sub"`, "Mappings.M"},
		{`{"M":{"k":{"Ref":"x"}}}`, `{"Ref"`, "Mappings.M.k"},
		{`{"M":{"k":{"s":{"Ref":"x"}}}}`, `{"Ref"`, "Mappings.M.k.s"},
	} {
		body := `{"Mappings":` + row.mappings + `,"Resources":{"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"p"}}}}`
		t.Run(row.member, refusal{kind: template.Fleet, body: body, code: template.CodeInvalid, at: row.at, member: row.member,
			msg: "functions cannot be used inside Mappings", hint: "the value itself"}.run)
	}
	for _, row := range []struct{ mappings, at, member, msg string }{
		{`[]`, `[]`, "Mappings", "must be an object, not a list"},
		{`{"M":"x"}`, `"x"`, "Mappings.M", "must be an object, not a string"},
		{`{"M":{"k":"x"}}`, `"x"`, "Mappings.M.k", "must be an object, not a string"},
		{`{"M":{"k":{"s":1}}}`, `1`, "Mappings.M.k.s", "must be a string, not a number"},
		{`{"M":{"k":{"s":{}}}}`, `{}}`, "Mappings.M.k.s", "must be a string, not an object"},
	} {
		body := `{"Mappings":` + row.mappings + `,"Resources":{"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"p"}}}}`
		t.Run(row.mappings, refusal{kind: template.Fleet, body: body, code: template.CodeInvalid, at: row.at, member: row.member, msg: row.msg}.run)
	}
}

func TestDeviceConfigurationIsFlat(t *testing.T) {
	t.Parallel()
	rows := []refusal{
		{name: "object", body: configured(`{"a":"b"}`), at: `{"a"`, member: "DeviceConfiguration.v", msg: `DeviceConfiguration must be flat: "v" is an object`},
		{name: "list", body: configured(`["a"]`), at: `["a"]`, member: "DeviceConfiguration.v", msg: "must be a string or a function, not a list"},
		{name: "null", body: configured(`null`), at: `null`, member: "DeviceConfiguration.v", msg: "must be a string or a function, not null"},
		{name: "function as a whole", body: `{"Resources":{"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"p"}}},"DeviceConfiguration":{"Ref":"p"}}`,
			at: `{"Ref"`, member: "DeviceConfiguration", msg: "must be an object of names and values, not a function"},
		{name: "FindInMap without mappings", body: `{"Resources":{"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"p"}}},"DeviceConfiguration":{"v":{"Fn::FindInMap":["a","b","c"]}}}`,
			at: `{"Fn::FindInMap"`, member: "DeviceConfiguration.v", msg: "Fn::FindInMap is used, but the template has no mappings"},
	}
	for _, r := range rows {
		r.kind, r.code = template.Fleet, template.CodeInvalid
		t.Run(r.name, r.run)
	}
}

// withA gives parameter A a value.
func withA(a string) map[string]string { return map[string]string{"A": a} }

func TestPlanRefusesFunctionsWithoutAValue(t *testing.T) {
	t.Parallel()
	const v = "DeviceConfiguration.v"
	rows := []refusal{
		{name: "a referenced parameter without value", kind: template.Fleet, body: configured("{\"Fn::Join\":[\"\",[\n{\"Ref\":\"A\"}]]}"), params: map[string]string{},
			code: template.CodeMissingParameter, at: "\"A\"}]", member: v, msg: "Cannot resolve reference value: A", hint: "send a value for parameter A"},
		{name: "a parameter of Sub without value", kind: template.Fleet, body: configured(`{"Fn::Sub":"${A}"}`), params: map[string]string{},
			code: template.CodeMissingParameter, at: `"${A}"`, member: v, msg: "Cannot resolve reference value: A"},
		{name: "an unused variable of Sub without value", kind: template.Fleet, body: configured(`{"Fn::Sub":["x",{"y":{"Ref":"A"}}]}`), params: map[string]string{},
			code: template.CodeMissingParameter, at: `"A"}}`, member: v, msg: "Cannot resolve reference value: A"},
		{name: "a parameter in an item that Select leaves", kind: template.Fleet, body: configured(`{"Fn::Select":["0",["x",{"Ref":"A"}]]}`), params: map[string]string{},
			code: template.CodeMissingParameter, at: `"A"}]`, member: v, msg: "Cannot resolve reference value: A"},
		{name: "a resource as value", kind: template.Fleet, body: configured(`{"Ref":"thing"}`), params: map[string]string{},
			code: template.CodeResourceReference, at: `"thing"}}`, member: v, msg: "Cannot resolve reference value: thing", hint: "resources have no value"},
		{name: "a resource in Sub", kind: template.Fleet, body: configured(`{"Fn::Sub":"${thing}"}`), params: map[string]string{},
			code: template.CodeResourceReference, at: `"${thing}"`, member: v, msg: "Cannot resolve reference value: thing"},
		{name: "an evaluated index out of range", kind: template.Fleet, body: configured(`{"Fn::Select":[{"Ref":"A"},["x"]]}`), params: withA("1"),
			code: template.CodeIndexOutOfRange, at: `"A"},["x"]`, member: v, msg: "the index 1 of Fn::Select is out of range: the list has 1 items"},
		{name: "an index past a Split", kind: template.Fleet, body: configured(`{"Fn::Select":["2",{"Fn::Split":[",",{"Ref":"A"}]}]}`), params: withA("x,y"),
			code: template.CodeIndexOutOfRange, at: `"2"`, member: v, msg: "the index 2 of Fn::Select is out of range: the list has 2 items"},
		{name: "an evaluated index that is no number", kind: template.Fleet, body: configured(`{"Fn::Select":[{"Ref":"A"},["x"]]}`), params: withA("-1"),
			code: template.CodeBadValue, at: `"A"},["x"]`, member: v, msg: `the index "-1" of Fn::Select is not a whole number from 0`},
		{name: "an evaluated delimiter that is empty", kind: template.Fleet, body: configured(`{"Fn::Select":["0",{"Fn::Split":[{"Ref":"A"},"x"]}]}`), params: withA(""),
			code: template.CodeBadValue, at: `"A"},"x"`, member: v, msg: "the delimiter of Fn::Split must not be empty"},
		{name: "a missing map", kind: template.Fleet, body: configured(`{"Fn::FindInMap":[{"Ref":"A"},"k","s"]}`), params: withA("N"),
			code: template.CodeMissingMapKey, at: `"A"},"k"`, member: v, msg: `Fn::FindInMap finds no map "N"`, hint: "Mappings has M"},
		{name: "a missing map key", kind: template.Fleet, body: configured(`{"Fn::FindInMap":["M",{"Ref":"A"},"s"]}`), params: withA("no"),
			code: template.CodeMissingMapKey, at: `"A"},"s"`, member: v, msg: `Fn::FindInMap finds no key "no" in map "M"`, hint: "the map has k, k2"},
		{name: "a missing sub-key", kind: template.Fleet, body: configured(`{"Fn::FindInMap":["M","k",{"Ref":"A"}]}`), params: withA("no"),
			code: template.CodeMissingMapKey, at: `"A"}]`, member: v, msg: `Fn::FindInMap finds no sub-key "no" under key "k" in map "M"`, hint: "the key has s"},
	}
	for _, r := range rows {
		t.Run(r.name, r.run)
	}
}

func TestPlanRefusesValuesThatTheRegistryWouldRefuse(t *testing.T) {
	t.Parallel()
	thing := func(properties string) string { return withResource("AWS::IoT::Thing", properties) }
	fleetCertificate := `{"Parameters":{"A":{"Type":"String"}},"Resources":{"r":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"A"}}}}}`
	ten := `"a","b","c","d","e","f","g","h","i","j"`
	rows := []refusal{
		{name: "a thing name that the registry refuses", kind: template.Bulk, body: thing(`{"ThingName":{"Ref":"A"}}`), params: withA("a b"),
			code: template.CodeBadValue, at: `"A"}}}}`, member: "Resources.r.Properties.ThingName", msg: `thing name "a b" must match [a-zA-Z0-9:_-]{1,128}`, hint: "parameter A"},
		{name: "an empty thing name", kind: template.Bulk, body: thing(`{"ThingName":{"Ref":"A"}}`), params: withA(""),
			code: template.CodeBadValue, at: `"A"}}}}`, member: "Resources.r.Properties.ThingName", msg: `thing name "" must match [a-zA-Z0-9:_-]{1,128}`},
		{name: "an attribute value that is too long", kind: template.Bulk, body: thing(`{"ThingName":"t","AttributePayload":{"a":{"Ref":"A"}}}`), params: withA(strings.Repeat("x", 801)),
			code: template.CodeBadValue, at: `"A"}}}}}`, member: "Resources.r.Properties.AttributePayload.a",
			msg: `attribute value "` + strings.Repeat("x", 80) + `"... must match [a-zA-Z0-9_.,@/:#=\[\]-]{0,800}`},
		{name: "four attributes without a type", kind: template.Bulk, body: thing(`{"ThingName":"t","AttributePayload":` + manyAttributes(4) + `}`), params: withA(""),
			code: template.CodeBadValue, at: `{"a0"`, member: "Resources.r.Properties.AttributePayload", msg: "4 attributes, a thing without a type may have 3", hint: "ThingTypeName"},
		{name: "a group name that the registry refuses", kind: template.Bulk, body: thing(`{"ThingName":"t","ThingGroups":["g",{"Ref":"A"}]}`), params: withA("a b"),
			code: template.CodeBadValue, at: `"A"}]`, member: "Resources.r.Properties.ThingGroups[1]", msg: `thing group name "a b" must match [a-zA-Z0-9:_-]{1,128}`},
		{name: "a split group name that the registry refuses", kind: template.Bulk, body: thing(`{"ThingName":"t","ThingGroups":{"Fn::Split":[",",{"Ref":"A"}]}}`), params: withA("a,"),
			code: template.CodeBadValue, at: `{"Fn::Split"`, member: "Resources.r.Properties.ThingGroups", msg: `thing group name "" must match [a-zA-Z0-9:_-]{1,128}`},
		{name: "eleven groups", kind: template.Bulk, body: thing(`{"ThingName":"t","ThingGroups":[` + ten + `,{"Ref":"A"}]}`), params: withA("k"),
			code: template.CodeLimit, at: `["a"`, member: "Resources.r.Properties.ThingGroups", msg: "more than 10 groups, which is the most for a thing"},
		{name: "a status that does not exist", kind: template.Bulk, body: withResource("AWS::IoT::Certificate", `{"CertificatePem":"x","Status":{"Ref":"A"}}`), params: withA("REVOKED"),
			code: template.CodeBadValue, at: `"A"}}}}`, member: "Resources.r.Properties.Status", msg: `certificate status "REVOKED" is none of ACTIVE, INACTIVE`},
		{name: "a policy document that is no JSON", kind: template.Bulk, body: withResource("AWS::IoT::Policy", `{"PolicyDocument":{"Ref":"A"}}`), params: withA("x"),
			code: template.CodeBadValue, at: `"A"}}}}`, member: "Resources.r.Properties.PolicyDocument", msg: "the policy document is not a JSON object"},
		{name: "a value that is no text", kind: template.Fleet, body: configured(`{"Ref":"A"}`), params: withA("\xff"),
			code: template.CodeBadValue, at: `"A"`, member: "Parameters.A", msg: `the value of parameter "A" is not valid UTF-8 text`},
		{name: "a bulk value that is too long", kind: template.Bulk, body: thing(`{"ThingName":{"Ref":"A"}}`), params: withA(strings.Repeat("x", 4097)),
			code: template.CodeLimit, at: `"A"`, member: "Parameters.A", msg: `the value of parameter "A" has more than 4096 characters`},
		{name: "a fleet value that is too long", kind: template.Fleet, body: configured(`{"Ref":"A"}`), params: withA(strings.Repeat("x", 65537)),
			code: template.CodeLimit, at: `"A"`, member: "Parameters.A", msg: `the value of parameter "A" has more than 65536 bytes`},
		{name: "the certificate of another device", kind: template.Fleet, body: fleetCertificate,
			params: map[string]string{"A": strings.Repeat("0", 64), "AWS::IoT::Certificate::Id": certID}, code: template.CodeBadValue, at: `"A"}}}}`,
			member: "Resources.r.Properties.CertificateId", msg: `certificate id "` + strings.Repeat("0", 64) + `" is not the certificate that is being provisioned`},
		{name: "no certificate id from the service", kind: template.Fleet, body: fleetCertificate, params: withA(certID), code: template.CodeMissingParameter, at: `"A"}}}}`,
			member: "Resources.r.Properties.CertificateId", msg: "Cannot resolve reference value: AWS::IoT::Certificate::Id", hint: "the service supplies"},
	}
	for _, r := range rows {
		t.Run(r.name, r.run)
	}
}

func TestJITPNeedsEveryDeclaredParameterEvenUnreferenced(t *testing.T) {
	t.Parallel()
	body := "{\"Parameters\":{\n  \"AWS::IoT::Certificate::Country\":{\"Type\":\"String\"%s}},\n" +
		`"Resources":{"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}}}`
	params := map[string]string{"AWS::IoT::Certificate::Id": certID}
	t.Run("without a default it fails", refusal{kind: template.JITP, body: fmt.Sprintf(body, ""), params: params,
		code: template.CodeMissingParameter, at: `"AWS::IoT::Certificate::Country"`, member: "Parameters.AWS::IoT::Certificate::Country",
		msg: "Cannot resolve reference value: AWS::IoT::Certificate::Country", hint: "the certificate's subject has no country (C, 2.5.4.6)"}.run)
	plan, err := parseAndPlan(fmt.Sprintf(body, `,"Default":"FR"`), template.JITP, params)
	if err != nil {
		t.Fatalf("with a default: %v", err)
	}
	if len(plan.Used) != 1 {
		t.Errorf("got uses %+v, want only that of the certificate id", plan.Used)
	}
	fleet := `{"Parameters":{"Unused":{"Type":"String"}},"Resources":{"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"p"}}}}`
	_, err = parseAndPlan(fleet, template.Fleet, nil)
	if err != nil {
		t.Errorf("a fleet template may declare what nobody uses: %v", err)
	}
}
