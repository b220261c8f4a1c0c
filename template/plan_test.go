package template_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/template"
)

func TestPlanOfTheFleetExample(t *testing.T) {
	t.Parallel()
	parsed := mustParse(t, fleetExample, template.Fleet)
	got, err := parsed.Plan(map[string]string{
		"SerialNumber": "SN-0017", "Site": "plant", "AWS::IoT::Certificate::Id": certID, "Undeclared": "x",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &template.Plan{
		Thing: &template.ThingPlan{
			LogicalName: "thing", ThingName: "sensor-SN-0017",
			Attributes:    map[string]string{"serial": "SN-0017", "site": "plant"},
			ThingTypeName: "sensor", ThingGroups: []string{"all-sensors", "plant"}, BillingGroup: "plant-a",
			Overrides: template.ThingOverrides{
				AttributePayload: template.Merge, ThingTypeName: template.Replace, ThingGroups: template.DoNothing,
			},
		},
		Certificate: &template.CertificatePlan{
			LogicalName: "certificate", Source: template.SourceID, CertificateID: certID,
			Status: template.StatusActive, ThingPrincipalType: template.ExclusiveThing, StatusOverride: template.Replace,
		},
		Policies:            []template.PolicyPlan{{LogicalName: "policy", PolicyName: "sensor-policy"}},
		DeviceConfiguration: map[string]string{"ApiUrl": "https://plant.example.com", "Interval": "60"},
		Used: []template.ParameterUse{
			{Name: "SerialNumber", Value: "SN-0017", Source: template.FromValue},
			{Name: "Site", Value: "plant", Source: template.FromValue},
			{Name: "AWS::IoT::Certificate::Id", Value: certID, Source: template.FromValue},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

func TestPlanUsesDefaultsOfAbsentParameters(t *testing.T) {
	t.Parallel()
	parsed := mustParse(t, fleetExample, template.Fleet)
	got, err := parsed.Plan(map[string]string{"SerialNumber": "1", "AWS::IoT::Certificate::Id": certID})
	if err != nil {
		t.Fatal(err)
	}
	if url := got.DeviceConfiguration["ApiUrl"]; url != "https://lab.example.com" {
		t.Errorf("got ApiUrl %q, want that of the default site", url)
	}
	want := template.ParameterUse{Name: "Site", Value: "lab", Source: template.FromDefault}
	if diff := cmp.Diff(want, got.Used[1]); diff != "" {
		t.Errorf("use (-want +got):\n%s", diff)
	}
}

func TestPlanOfTheJITPExample(t *testing.T) {
	t.Parallel()
	got, err := mustParse(t, jitpExample, template.JITP).Plan(jitpParams())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(jitpDocument))
	want := &template.Plan{
		Thing: &template.ThingPlan{
			LogicalName: "thing", ThingName: "bulb-17",
			Attributes:    map[string]string{"version": "v1", "serialNumber": "SN-0017"},
			ThingTypeName: "lightBulb-versionA", ThingGroups: []string{"v1-lightbulbs", "FR"},
			Overrides: template.ThingOverrides{
				AttributePayload: template.Merge, ThingTypeName: template.Replace, ThingGroups: template.DoNothing,
			},
		},
		Certificate: &template.CertificatePlan{
			LogicalName: "certificate", Source: template.SourceID, CertificateID: certID,
			Status: template.StatusActive, ThingPrincipalType: template.NonExclusiveThing, StatusOverride: template.DoNothing,
		},
		Policies: []template.PolicyPlan{{
			LogicalName: "policy", PolicyDocument: jitpDocument, GeneratedName: hex.EncodeToString(sum[:]),
		}},
		DeviceConfiguration: map[string]string{},
		Used: []template.ParameterUse{
			{Name: "AWS::IoT::Certificate::CommonName", Value: "bulb-17", Source: template.FromValue},
			{Name: "AWS::IoT::Certificate::SerialNumber", Value: "SN-0017", Source: template.FromValue},
			{Name: "AWS::IoT::Certificate::Country", Value: "FR", Source: template.FromValue},
			{Name: "AWS::IoT::Certificate::Id", Value: certID, Source: template.FromValue},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

func TestBulkPlanTakesEverySource(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		properties string
		want       template.CertificatePlan
	}{
		"CertificateId, normalised to lower case": {`{"CertificateId":"` + strings.ToUpper(certID) + `"}`,
			template.CertificatePlan{Source: template.SourceID, CertificateID: certID}},
		"CertificateSigningRequest": {`{"CertificateSigningRequest":{"Ref":"A"}}`,
			template.CertificatePlan{Source: template.SourceCSR, CertificateSigningRequest: "from A"}},
		"CertificatePem": {`{"CertificatePem":{"Ref":"A"}}`,
			template.CertificatePlan{Source: template.SourcePEM, CertificatePem: "from A"}},
		"CertificatePem with CACertificatePem": {`{"CACertificatePem":"ca","CertificatePem":{"Ref":"A"}}`,
			template.CertificatePlan{Source: template.SourcePEM, CertificatePem: "from A", CACertificatePem: "ca"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := withResource("AWS::IoT::Certificate", row.properties)
			plan, err := mustParse(t, body, template.Bulk).Plan(map[string]string{"A": "from A"})
			if err != nil {
				t.Fatal(err)
			}
			row.want.LogicalName, row.want.Status = "r", template.StatusActive
			row.want.ThingPrincipalType, row.want.StatusOverride = template.NonExclusiveThing, template.Replace
			if diff := cmp.Diff(&row.want, plan.Certificate); diff != "" {
				t.Errorf("certificate (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFunctions(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ value, want string }{
		"a literal stands for itself":                   {`"x ${A}"`, "x ${A}"},
		"Ref gives the value":                           {`{"Ref":"A"}`, "a,b,c"},
		"Ref gives the default":                         {`{"Ref":"B"}`, "b"},
		"Join puts the delimiter between":               {`{"Fn::Join":["-",["x",{"Ref":"B"},"z"]]}`, "x-b-z"},
		"Join takes an empty delimiter":                 {`{"Fn::Join":["",["x","y"]]}`, "xy"},
		"Join of one item":                              {`{"Fn::Join":["-",["x"]]}`, "x"},
		"Join of no item is empty":                      {`{"Fn::Join":["-",[]]}`, ""},
		"Join takes a function as its delimiter":        {`{"Fn::Join":[{"Ref":"B"},["x","y"]]}`, "xby"},
		"Join takes the list of a Split":                {`{"Fn::Join":["/",{"Fn::Split":[",",{"Ref":"A"}]}]}`, "a/b/c"},
		"Select by string index":                        {`{"Fn::Select":["1",["x","y"]]}`, "y"},
		"Select by number index":                        {`{"Fn::Select":[0,["x","y"]]}`, "x"},
		"Select by evaluated index":                     {`{"Fn::Select":[{"Fn::Sub":"1"},["x","y"]]}`, "y"},
		"Select from a Split":                           {`{"Fn::Select":["2",{"Fn::Split":[",",{"Ref":"A"}]}]}`, "c"},
		"Split at a longer delimiter":                   {`{"Fn::Select":["1",{"Fn::Split":["::","x::y"]}]}`, "y"},
		"Split without a hit gives the whole":           {`{"Fn::Select":["0",{"Fn::Split":["|",{"Ref":"A"}]}]}`, "a,b,c"},
		"FindInMap by literals":                         {`{"Fn::FindInMap":["M","k","s"]}`, "v"},
		"FindInMap by evaluated names":                  {`{"Fn::FindInMap":[{"Fn::Sub":"M"},{"Fn::Join":["",["k","2"]]},{"Fn::Sub":"s2"}]}`, "v2"},
		"Sub replaces from the map":                     {`{"Fn::Sub":["${x}-${x}",{"x":{"Ref":"B"}}]}`, "b-b"},
		"Sub replaces from the map before parameters":   {`{"Fn::Sub":["${B}",{"B":"mine"}]}`, "mine"},
		"Sub replaces from parameters in array form":    {`{"Fn::Sub":["${x}${B}",{"x":"y"}]}`, "yb"},
		"Sub replaces from parameters in string form":   {`{"Fn::Sub":"<${A}>"}`, "<a,b,c>"},
		"Sub keeps ${!name} as ${name}":                 {`{"Fn::Sub":"${!iot:ClientId}/${B}"}`, "${iot:ClientId}/b"},
		"Sub leaves a lone $ alone":                     {`{"Fn::Sub":"$5 }{ $"}`, "$5 }{ $"},
		"Sub does not look into what it put in":         {`{"Fn::Sub":["${x}",{"x":"${A}"}]}`, "${A}"},
		"functions nest":                                {`{"Fn::Join":["-",[{"Fn::Select":["0",{"Fn::Split":[",",{"Fn::Sub":"${A}"}]}]},{"Fn::FindInMap":["M",{"Fn::Sub":["${p}",{"p":"k"}]},"s"]}]]}`, "a-v"},
		"a number in DeviceConfiguration is as written": {`60.50`, "60.50"},
		"a boolean in DeviceConfiguration is text":      {`true`, "true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan, err := mustParse(t, configured(row.value), template.Fleet).Plan(map[string]string{"A": "a,b,c"})
			if err != nil {
				t.Fatal(err)
			}
			if got := plan.DeviceConfiguration["v"]; got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestPolicyDocumentForms(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ property, want string }{
		"a string is taken byte for byte": {`" { \"b\" : 1,\n \"a\" : \"${iot:ClientId}<&>\" } "`, " { \"b\" : 1,\n \"a\" : \"${iot:ClientId}<&>\" } "},
		"an object is compact in its own order": {`{ "Version" : "2012-10-17", "B" : [ 1.50, true, null, "<&>" ], "A" : { } }`,
			`{"Version":"2012-10-17","B":[1.50,true,null,"<&>"],"A":{}}`},
		"policy variables are untouched":     {`{"R":"${iot:Connection.Thing.ThingName}/${A}"}`, `{"R":"${iot:Connection.Thing.ThingName}/${A}"}`},
		"functions in an object are values":  {`{"R":[{"Fn::Join":["/",["t",{"Ref":"A"}]]}]}`, `{"R":["t/q\"uote"]}`},
		"a list function becomes a list":     {`{"R":{"Fn::Split":["u",{"Ref":"A"}]}}`, `{"R":["q\"","ote"]}`},
		"a function may give the whole text": {`{"Fn::Sub":["{\"R\":\"${!iot:ClientId}${x}\"}",{"x":"y"}]}`, `{"R":"${iot:ClientId}y"}`},
	} {
		for _, kind := range []template.Kind{template.Bulk, template.Fleet} {
			t.Run(name+", "+kind.String(), func(t *testing.T) {
				t.Parallel()
				body := withResource("AWS::IoT::Policy", `{"PolicyDocument":`+row.property+`}`)
				plan, err := mustParse(t, body, kind).Plan(map[string]string{"A": `q"uote`})
				if err != nil {
					t.Fatal(err)
				}
				want := []template.PolicyPlan{{
					LogicalName: "r", PolicyDocument: row.want, GeneratedName: fmt.Sprintf("%x", sha256.Sum256([]byte(row.want))),
				}}
				if diff := cmp.Diff(want, plan.Policies); diff != "" {
					t.Errorf("policies (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestSeveralPoliciesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	body := `{"Resources":{"z":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"p1"}},
		"a":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"p2"},"OverrideSettings":{}}}}`
	plan, err := mustParse(t, body, template.Bulk).Plan(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []template.PolicyPlan{{LogicalName: "z", PolicyName: "p1"}, {LogicalName: "a", PolicyName: "p2"}}
	if diff := cmp.Diff(want, plan.Policies); diff != "" {
		t.Errorf("policies (-want +got):\n%s", diff)
	}
}

func TestThingProperties(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		properties string
		want       template.ThingPlan
	}{
		"only a name leaves the rest nil": {`{"ThingName":"t"}`, template.ThingPlan{}},
		"flat attributes": {`{"ThingName":"t","AttributePayload":{"a":{"Ref":"A"},"b":""}}`,
			template.ThingPlan{Attributes: map[string]string{"a": "x", "b": ""}}},
		"attributes in the nested form": {`{"ThingName":"t","AttributePayload":{"attributes":{"a":{"Ref":"A"}}}}`,
			template.ThingPlan{Attributes: map[string]string{"a": "x"}}},
		"an attribute may be called attributes": {`{"ThingName":"t","AttributePayload":{"attributes":{"Ref":"A"},"b":"c"}}`,
			template.ThingPlan{Attributes: map[string]string{"attributes": "x", "b": "c"}}},
		"an empty payload is not an absent one": {`{"ThingName":"t","AttributePayload":{}}`,
			template.ThingPlan{Attributes: map[string]string{}}},
		"groups keep their order and appear once": {`{"ThingName":"t","ThingGroups":["z",{"Ref":"A"},"x","z"]}`,
			template.ThingPlan{ThingGroups: []string{"z", "x"}}},
		"groups from a function": {`{"ThingName":"t","ThingGroups":{"Fn::Split":["-","g-h"]}}`,
			template.ThingPlan{ThingGroups: []string{"g", "h"}}},
		"no groups are not absent groups": {`{"ThingName":"t","ThingGroups":[]}`,
			template.ThingPlan{ThingGroups: []string{}}},
		"package versions": {`{"ThingName":"t","PackageVersions":{"fw":{"Ref":"A"},"app":"1.0.2-rc"}}`,
			template.ThingPlan{PackageVersions: map[string]string{"fw": "x", "app": "1.0.2-rc"}}},
		"evaluated type and billing group": {`{"ThingName":"t","ThingTypeName":{"Ref":"A"},"BillingGroup":{"Ref":"A"}}`,
			template.ThingPlan{ThingTypeName: "x", BillingGroup: "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan, err := mustParse(t, withResource("AWS::IoT::Thing", row.properties), template.Bulk).Plan(map[string]string{"A": "x"})
			if err != nil {
				t.Fatal(err)
			}
			row.want.LogicalName, row.want.ThingName, row.want.Overrides = "r", "t", template.DefaultThingOverrides()
			if diff := cmp.Diff(&row.want, plan.Thing); diff != "" {
				t.Errorf("thing (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatusIsComparedWithoutCase(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]template.CertificateStatus{
		`"ACTIVE"`: template.StatusActive, `"Active"`: template.StatusActive, `"inactive"`: template.StatusInactive,
		`"INACTIVE"`: template.StatusInactive, `{"Ref":"A"}`: template.StatusInactive,
	} {
		body := withResource("AWS::IoT::Certificate", `{"CertificatePem":"x","Status":`+written+`}`)
		plan, err := mustParse(t, body, template.Bulk).Plan(map[string]string{"A": "iNactive"})
		if err != nil {
			t.Fatal(err)
		}
		if got := plan.Certificate.Status; got != want {
			t.Errorf("%s: got %s, want %s", written, got, want)
		}
	}
}

func TestOverrideSettings(t *testing.T) {
	t.Parallel()
	thing, certificate := "AWS::IoT::Thing", "AWS::IoT::Certificate"
	properties := map[string]string{thing: `{"ThingName":"t"}`, certificate: `{"CertificatePem":"x"}`}
	keys := []struct {
		typ, key string
		merge    bool
		get      func(*template.Plan) template.Override
	}{
		{thing, "AttributePayload", true, func(p *template.Plan) template.Override { return p.Thing.Overrides.AttributePayload }},
		{thing, "ATTRIBUTE_PAYLOAD", true, func(p *template.Plan) template.Override { return p.Thing.Overrides.AttributePayload }},
		{thing, "ThingTypeName", false, func(p *template.Plan) template.Override { return p.Thing.Overrides.ThingTypeName }},
		{thing, "THING_TYPE_NAME", false, func(p *template.Plan) template.Override { return p.Thing.Overrides.ThingTypeName }},
		{thing, "ThingGroups", true, func(p *template.Plan) template.Override { return p.Thing.Overrides.ThingGroups }},
		{thing, "THING_GROUPS", true, func(p *template.Plan) template.Override { return p.Thing.Overrides.ThingGroups }},
		{certificate, "Status", false, func(p *template.Plan) template.Override { return p.Certificate.StatusOverride }},
		{certificate, "STATUS", false, func(p *template.Plan) template.Override { return p.Certificate.StatusOverride }},
	}
	for _, k := range keys {
		for _, value := range []template.Override{template.DoNothing, template.Replace, template.Fail, template.Merge, "replace", ""} {
			t.Run(fmt.Sprintf("%s is %q", k.key, value), func(t *testing.T) {
				t.Parallel()
				valid := value == template.DoNothing || value == template.Replace || value == template.Fail ||
					value == template.Merge && k.merge
				for _, written := range []string{fmt.Sprintf("%q", value), `{"Ref":"A"}`} {
					body := fmt.Sprintf(`{"Parameters":{"A":{"Type":"String"}},"Resources":{"r":{"Type":%q,"Properties":%s,"OverrideSettings":{%q:%s}}}}`,
						k.typ, properties[k.typ], k.key, written)
					plan, err := parseAndPlan(body, template.Bulk, map[string]string{"A": string(value)})
					if !valid {
						if err == nil {
							t.Fatalf("%s: got no error, want one", written)
						}
						e := asError(t, err)
						if want := "Resources.r.OverrideSettings." + k.key; e.Member != want {
							t.Errorf("%s: got member %s, want %s", written, e.Member, want)
						}
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
					if got := k.get(plan); got != value {
						t.Errorf("%s: got %s, want %s", written, got, value)
					}
				}
			})
		}
	}
}

func parseAndPlan(body string, kind template.Kind, params map[string]string) (*template.Plan, error) {
	parsed, err := template.Parse([]byte(body), kind)
	if err != nil {
		return nil, err
	}
	return parsed.Plan(params)
}

func TestAnEmptyValueIsAValue(t *testing.T) {
	t.Parallel()
	plan, err := parseAndPlan(configured(`{"Fn::Sub":"<${A}${B}>"}`), template.Fleet, map[string]string{"A": "", "B": ""})
	if err != nil {
		t.Fatal(err)
	}
	if got := plan.DeviceConfiguration["v"]; got != "<>" {
		t.Errorf("got %q, want %q", got, "<>")
	}
}

func TestCertificateIdNeedsNoDeclaration(t *testing.T) {
	t.Parallel()
	body := `{"Resources":{"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}}}`
	for _, kind := range []template.Kind{template.Fleet, template.JITP} {
		parsed := mustParse(t, body, kind)
		plan, err := parsed.Plan(map[string]string{"AWS::IoT::Certificate::Id": certID})
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if plan.Certificate.CertificateID != certID {
			t.Errorf("%s: got %s, want %s", kind, plan.Certificate.CertificateID, certID)
		}
		if got := parsed.Parameters(); len(got) != 1 || got[0].Declared {
			t.Errorf("%s: got parameters %+v, want one that is not declared", kind, got)
		}
	}
	_, err := template.Parse([]byte(body), template.Bulk)
	if got := asError(t, err).Code; got != template.CodeUnresolved {
		t.Errorf("bulk: got code %s, want %s", got, template.CodeUnresolved)
	}
}

func TestParametersTellWhereTheyAreUsed(t *testing.T) {
	t.Parallel()
	body := "{\"Parameters\":{\n \"A\":{\"Type\":\"String\"},\n \"B\":{\"Type\":\"String\",\"Default\":\"\"}},\n\"Resources\":{\"é\":{\"Type\":\"AWS::IoT::Thing\",\"Properties\":{\n" +
		"  \"ThingName\":{\"Ref\":\"A\"},\"ThingGroups\":[\"g\",{\"Fn::Sub\":\"${A}\"}]}}}}"
	parsed := mustParse(t, body, template.Bulk)
	want := []template.Parameter{
		{Name: "A", Declared: true, Line: 2, Column: 2, References: []template.Reference{
			{Member: "Resources.é.Properties.ThingName", Line: 5, Column: 22},
			{Member: "Resources.é.Properties.ThingGroups[1]", Line: 5, Column: 57},
		}},
		{Name: "B", HasDefault: true, Declared: true, Line: 3, Column: 2},
	}
	if diff := cmp.Diff(want, parsed.Parameters()); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
	parsed.Parameters()[0].References[0].Member = "changed"
	if diff := cmp.Diff(want, parsed.Parameters()); diff != "" {
		t.Errorf("a caller changed the template (-want +got):\n%s", diff)
	}
	if parsed.Text() != body || parsed.Kind() != template.Bulk {
		t.Errorf("got kind %s and text %q, want what was parsed", parsed.Kind(), parsed.Text())
	}
}
