package template_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint/template"
)

// encode gives the JSON of a value.
func encode(t *rapid.T, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// evaluate gives the value of an expression with parameter A.
func evaluate(t *rapid.T, expression, a string) string {
	plan, err := parseAndPlan(configured(expression), template.Fleet, map[string]string{"A": a})
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return plan.DeviceConfiguration["v"]
}

var text = rapid.StringMatching(`[a-c,;é"\\$]{0,12}`)

func TestJoinOfSplitIsTheIdentity(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value, delimiter := text.Draw(t, "value"), rapid.StringMatching(`[a,é]{1,2}`).Draw(t, "delimiter")
		d := encode(t, delimiter)
		got := evaluate(t, `{"Fn::Join":[`+d+`,{"Fn::Split":[`+d+`,{"Ref":"A"}]}]}`, value)
		if got != value {
			t.Errorf("got %q, want %q", got, value)
		}
	})
}

func TestSelectFromAListIsIndexing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		items := rapid.SliceOfN(text, 1, 6).Draw(t, "items")
		i := rapid.IntRange(0, len(items)-1).Draw(t, "index")
		got := evaluate(t, `{"Fn::Select":[`+encode(t, i)+`,`+encode(t, items)+`]}`, "")
		if got != items[i] {
			t.Errorf("got %q, want %q", got, items[i])
		}
	})
}

func TestSelectFromASplitOfAJoinGivesTheItem(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		items := rapid.SliceOfN(rapid.StringMatching(`[a-z]{0,5}`), 1, 6).Draw(t, "items")
		i := rapid.IntRange(0, len(items)-1).Draw(t, "index")
		got := evaluate(t, `{"Fn::Select":[{"Ref":"A"},{"Fn::Split":["|",{"Fn::Join":["|",`+encode(t, items)+`]}]}]}`, encode(t, i))
		if got != items[i] {
			t.Errorf("got %q, want %q", got, items[i])
		}
	})
}

func TestSubAgreesWithJoin(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.StringMatching(`[a-c }{é]{0,5}`)
		before, after, value := plain.Draw(t, "before"), plain.Draw(t, "after"), text.Draw(t, "value")
		sub := evaluate(t, `{"Fn::Sub":`+encode(t, before+"${A}"+after)+`}`, value)
		join := evaluate(t, `{"Fn::Join":["",[`+encode(t, before)+`,{"Ref":"A"},`+encode(t, after)+`]]}`, value)
		if sub != join || sub != before+value+after {
			t.Errorf("got %q by Sub, %q by Join, want %q", sub, join, before+value+after)
		}
	})
}

func TestPolicyObjectsKeepTheirMeaning(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		document := rapid.MapOf(rapid.StringMatching(`[A-Z]{1,4}`), rapid.SliceOf(text)).Draw(t, "document")
		plan, err := parseAndPlan(withResource("AWS::IoT::Policy", `{"PolicyDocument":`+encode(t, document)+`}`), template.Bulk, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string][]string
		err = json.Unmarshal([]byte(plan.Policies[0].PolicyDocument), &got)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(document, got); diff != "" {
			t.Errorf("document (-want +got):\n%s", diff)
		}
	})
}

func TestPlanIsDeterministic(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		params := rapid.MapOf(rapid.SampledFrom([]string{"SerialNumber", "Site", "AWS::IoT::Certificate::Id"}),
			rapid.SampledFrom([]string{certID, "plant", "lab", "", "a b"})).Draw(t, "params")
		first, err1 := parseAndPlan(fleetExample, template.Fleet, params)
		second, err2 := parseAndPlan(fleetExample, template.Fleet, params)
		if diff := cmp.Diff(first, second); diff != "" {
			t.Errorf("two plans differ:\n%s", diff)
		}
		if diff := cmp.Diff(err1, err2); diff != "" {
			t.Errorf("two errors differ:\n%s", diff)
		}
	})
}

func FuzzParseAndPlan(f *testing.F) {
	seeds := []string{
		fleetExample, jitpExample, configured(`{"Fn::Sub":["${x}${!y}${A}",{"x":{"Fn::Select":[0,{"Fn::Split":[",",{"Ref":"A"}]}]}}]}`),
		withResource("AWS::IoT::Policy", `{"PolicyDocument":{"R":[{"Fn::Split":[",",{"Ref":"A"}]},1.5,null]}}`),
		withResource("AWS::IoT::Certificate", `{"CertificatePem":{"Ref":"A"},"CACertificatePem":"x","Status":"Active"}`),
		withResource("AWS::IoT::Thing", `{"ThingName":{"Ref":"A"},"PackageVersions":{"a":"1"},"AttributePayload":{"attributes":{"a":"b"}}}`),
		`{"Resources":{"a":{},"a":{}}}`, strings.Repeat("[", 100), "{\"\xff\":1}", "",
	}
	for _, seed := range seeds {
		f.Add(seed, "x,y")
	}
	f.Fuzz(func(t *testing.T, body, a string) {
		for _, kind := range []template.Kind{template.JITP, template.Fleet, template.Bulk} {
			parsed, err := template.Parse([]byte(body), kind)
			if err != nil {
				asError(t, err)
				continue
			}
			again, err := template.Parse([]byte(parsed.Text()), kind)
			if err != nil {
				t.Fatalf("an accepted template is refused from its own text: %v", err)
			}
			params := jitpParams()
			for _, p := range parsed.Parameters() {
				if _, known := params[p.Name]; !known {
					params[p.Name] = a
				}
			}
			checkPlan(t, parsed, again, params)
			checkLint(t, parsed, params)
		}
	})
}

// checkPlan compares the plans of a template and of its second parse, and checks what every plan promises.
func checkPlan(t *testing.T, parsed, again *template.Template, params map[string]string) {
	t.Helper()
	plan, err := parsed.Plan(params)
	second, secondErr := again.Plan(params)
	if diff := cmp.Diff(err, secondErr); diff != "" {
		t.Fatalf("two errors differ:\n%s", diff)
	}
	if err != nil {
		asError(t, err)
		return
	}
	if diff := cmp.Diff(plan, second); diff != "" {
		t.Fatalf("two plans differ:\n%s", diff)
	}
	if plan.Thing != nil && (plan.Thing.ThingName == "" || len(plan.Thing.ThingName) > 128) {
		t.Errorf("got thing name %q, want 1 to 128 characters", plan.Thing.ThingName)
	}
	for _, policy := range plan.Policies {
		if (policy.PolicyName == "") == (policy.PolicyDocument == "") {
			t.Errorf("got policy %+v, want either a name or a document", policy)
		}
		if policy.PolicyDocument != "" && !json.Valid([]byte(policy.PolicyDocument)) {
			t.Errorf("got document %q, want JSON", policy.PolicyDocument)
		}
	}
}

// checkLint checks what findings, documents and missing parameters promise.
func checkLint(t *testing.T, parsed *template.Template, params map[string]string) {
	t.Helper()
	lines := strings.Count(parsed.Text(), "\n") + 1
	for _, f := range parsed.Lint() {
		if f.Rule == "" || f.Severity == "" || f.Msg == "" || f.Line > lines || (f.Line == 0) != (f.Member == "") {
			t.Errorf("got finding %+v of a text of %d lines", f, lines)
		}
	}
	for _, d := range parsed.Documents() {
		line, column := d.Place("Statement[0].Action[1]", 2, 3)
		if line < 1 || line > lines || column < 1 {
			t.Errorf("got line %d, column %d of a text of %d lines", line, column, lines)
		}
		if d.Err == nil && !json.Valid([]byte(d.Text)) {
			t.Errorf("got document %q, want JSON", d.Text)
		}
	}
	if missing := parsed.Missing(params); len(missing) > 0 {
		_, err := parsed.Plan(params)
		if err == nil {
			t.Errorf("got missing %+v, and a plan without them", missing[0])
		}
	}
}
