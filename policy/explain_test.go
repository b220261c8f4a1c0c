package policy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/imprint-iot/imprint/policy"
)

func TestNearMisses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, doc string
		req       *policy.Request
		kind      policy.NearMissKind
		part      string // must appear in String()
	}{
		{"action missing", doc(allow("iot:Publish", "*")), ask(policy.Connect, "client/", "a"), policy.MissAction, `"Action": "iot:Connect"`},
		{"action misspelt", doc(allow("iot:Conect", "*")), ask(policy.Connect, "client/", "a"), policy.MissAction, `did it mean "iot:Connect"?`},
		{"publish but not retain", doc(allow("iot:Publish", "*")), ask(policy.RetainPublish, "topic/", "a"), policy.MissOtherAction, "iot:RetainPublish is missing"},
		{"subscribe but not receive", doc(allow("iot:Subscribe", arn+"topicfilter/a/*")), ask(policy.Receive, "topic/", "a/b"), policy.MissOtherAction, `allows iot:Receive on "` + arn + `topic/a/*"`},
		{"receive but not subscribe, nearer than another filter", doc(allow("iot:Subscribe", arn+"topicfilter/z"), allow("iot:Receive", arn+"topic/a/b")), ask(policy.Subscribe, "topicfilter/", "a/b"), policy.MissOtherAction, `allows iot:Subscribe on "` + arn + `topicfilter/a/b"`},
		{"a related action elsewhere is no near miss", doc(allow("iot:Publish", arn+"topic/z")), ask(policy.RetainPublish, "topic/", "a"), policy.MissAction, `"Action": "iot:RetainPublish"`},
		{"shared subscription", doc(allow("iot:Subscribe", arn+"topicfilter/a/*")), ask(policy.Subscribe, "topicfilter/", "$share/g/a/b"), policy.MissShare, `write "` + arn + `topicfilter/$share/*/a/*"`},
		{"slash at the end of the policy", doc(allow("iot:Publish", arn+"topic/a/b/")), ask(policy.Publish, "topic/", "a/b"), policy.MissSlash, `topic/a/b"`},
		{"slash at the end of the topic", doc(allow("iot:Publish", arn+"topic/a/${iot:ClientId}")), ask(policy.Publish, "topic/", "a/dev1/"), policy.MissSlash, `topic/a/${iot:ClientId}/"`},
		{"slash at the beginning of the topic", doc(allow("iot:Publish", arn+"topic/a")), ask(policy.Publish, "topic/", "/a"), policy.MissSlash, `topic//a"`},
		{"two slashes", doc(allow("iot:Publish", arn+"topic/a//b")), ask(policy.Publish, "topic/", "a/b"), policy.MissSlash, `topic/a/b"`},
		{"the level above", doc(allow("iot:Subscribe", arn+"topicfilter/a/*")), ask(policy.Subscribe, "topicfilter/", "a"), policy.MissLevel, `add "` + arn + `topicfilter/a"`},
		{"the level below", doc(allow("iot:Publish", arn+"topic/a")), ask(policy.Publish, "topic/", "a/b/c"), policy.MissLevel, `add "` + arn + `topic/a/*"`},
		{"another service", doc(allow("iot:Publish", "arn:aws:iotdata:us-east-1:000000000000:topic/a")), ask(policy.Publish, "topic/", "a"), policy.MissLocation, "another service"},
		{"client id that isn't the thing's name", doc(allow("iot:Connect", arn+"client/${iot:Connection.Thing.ThingName}")), ask(policy.Connect, "client/", "other"), policy.MissResource, `stands for "` + arn + `client/thing1" here`},
		{"topic where topicfilter is needed", doc(allow("iot:Subscribe", arn+"topic/a/*")), ask(policy.Subscribe, "topicfilter/", "a/b"), policy.MissResourceKind, `write "` + arn + `topicfilter/a/*"`},
		{"topicfilter where topic is needed", doc(allow("iot:Receive", arn+"topicfilter/a")), ask(policy.Receive, "topic/", "a"), policy.MissResourceKind, "topic/"},
		{"kind and region", doc(allow("iot:Subscribe", "arn:aws:iot:eu-west-1:000000000000:topic/a")), ask(policy.Subscribe, "topicfilter/", "a"), policy.MissResourceKind, `write "` + arn + `topicfilter/a"`},
		{"single resource for a list action", doc(allow("iot:ListRetainedMessages", arn+"topic/a")), &policy.Request{Action: policy.ListRetainedMessages, ResourceName: "*"}, policy.MissResourceKind, `"Resource": "*"`},
		{"another region", doc(allow("iot:Publish", "arn:aws:iot:eu-west-1:000000000000:topic/a")), ask(policy.Publish, "topic/", "a"), policy.MissLocation, "another region"},
		{"another account and region", doc(allow("iot:Publish", "arn:aws:iot:eu-west-1:111111111111:topic/${iot:ClientId}")), ask(policy.Publish, "topic/", "dev1"), policy.MissLocation, "region and account"},
		{"unresolved variable", doc(allow("iot:Publish", arn+"topic/${iot:Connection.Thing.Attributes[floor]}/x")), ask(policy.Publish, "topic/", "3/x"), policy.MissVariable, `give the thing the attribute "floor"`},
		{"MQTT wildcard", doc(allow("iot:Publish", arn+"topic/a/+/c")), ask(policy.Publish, "topic/", "a/b/c"), policy.MissMQTTWildcard, `topic/a/*/c`},
		{"version 2008", `{"Statement":` + allow("iot:Publish", arn+"topic/${iot:ClientId}") + `}`, ask(policy.Publish, "topic/", "dev1"), policy.MissVersion, `"Version": "2012-10-17"`},
		{"case", doc(allow("iot:Publish", arn+"topic/Abc")), ask(policy.Publish, "topic/", "abc"), policy.MissCase, "upper and lower case"},
		{"another resource, the nearest of two", doc(allow("iot:Publish", arn+"topic/x"), allow("iot:Publish", arn+"topic/abd")), ask(policy.Publish, "topic/", "abc"), policy.MissResource, "topic/abd"},
		{"condition with a value", doc(`{"Sid":"S","Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"iot:ClientId":"dev2"}}}`), ask(policy.Publish, "topic/", "a"), policy.MissCondition, `is ["dev1"]`},
		{"condition without a value", doc(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"x:y":"dev2"}}}`), ask(policy.Publish, "topic/", "a"), policy.MissCondition, "has no value"},
		{"excluded", doc(`{"Effect":"Allow","Action":"*","NotResource":"` + arn + `topic/a"}`), ask(policy.Publish, "topic/", "a"), policy.MissExcluded, "NotResource"},
		{"excluded by an unresolved variable", doc(`{"Effect":"Allow","Action":"*","NotResource":"` + arn + `topic/${x:y}"}`), ask(policy.Publish, "topic/", "a"), policy.MissVariable, "x:y"},
		{"another account, and case", doc(allow("iot:Publish", "arn:aws:iot:us-east-1:111111111111:topic/Abc")), ask(policy.Publish, "topic/", "abc"), policy.MissTwice, `write "` + arn + `topic/Abc"; and resources are case-sensitive`},
		{"another region, and a wildcard of MQTT", doc(allow("iot:Publish", "arn:aws:iot:eu-west-1:000000000000:topic/a/+")), ask(policy.Publish, "topic/", "a/b"), policy.MissTwice, `write "` + arn + `topic/a/*"`},
		{"the wrong type, and the level above", doc(allow("iot:Subscribe", arn+"topic/a/*")), ask(policy.Subscribe, "topicfilter/", "a"), policy.MissTwice, `add "` + arn + `topicfilter/a"`},
		{"another account, and a variable without a value", doc(allow("iot:Publish", "arn:aws:iot:us-east-1:111111111111:topic/${iot:Connection.Thing.Attributes[floor]}")), ask(policy.Publish, "topic/", "3"), policy.MissTwice, `give the thing the attribute "floor"`},
		{"one that is wrong in one way is nearer", doc(allow("iot:Publish", "arn:aws:iot:us-east-1:111111111111:topic/Abc"), allow("iot:Publish", arn+"topic/ABC")), ask(policy.Publish, "topic/", "abc"), policy.MissCase, ""},
		{"the closest kind wins", doc(allow("iot:Publish", arn+"topic/zzz"), allow("iot:Publish", arn+"topic/A")), ask(policy.Publish, "topic/", "a"), policy.MissCase, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			set := compile(t, tt.doc)
			check(t, set, tt.req, no)
			x := set.Explain(tt.req)
			if x.NearMiss.Kind != tt.kind {
				t.Errorf("kind = %q, want %q: %s", x.NearMiss.Kind, tt.kind, x)
			}
			if !strings.Contains(x.String(), tt.part) {
				t.Errorf("explanation does not say %q:\n%s", tt.part, x)
			}
			if x.NearMiss.Hint == "" || x.NearMiss.Sentence == "" {
				t.Errorf("sentence or hint is empty: %+v", x.NearMiss)
			}
		})
	}
	if got := policy.Compile().Explain(ask(policy.Connect, "client/", "a")).NearMiss.Kind; got != policy.MissNoPolicy {
		t.Errorf("without policies: kind = %q, want %q", got, policy.MissNoPolicy)
	}
}

func TestUnresolvedVariableReasons(t *testing.T) {
	t.Parallel()
	for variable, want := range map[string]string{
		"iot:Connection.Thing.ThingName":          "attach the certificate to a thing",
		"iot:Certificate.Subject.CommonName":      "no client certificate",
		"iot:CertificateId":                       "not switched on",
		"iot:Certificate.Subject.CommonName.List": "several values",
		"iot:ClientId":                            "never substituted",
		"x:y":                                     "no such key",
	} {
		set := compile(t, doc(allow("iot:Publish", arn+"topic/${"+variable+"}")))
		r := ask(policy.Publish, "topic/", "a")
		r.Vars = policy.NewVariables(policy.Binding{ClientID: "a*"})
		if got := set.Explain(r).String(); !strings.Contains(got, want) {
			t.Errorf("${%s}: %q does not say %q", variable, got, want)
		}
	}
}

func TestExplanationNamesTheDecidingStatement(t *testing.T) {
	t.Parallel()
	const guard = `{"Sid":"NoSecrets","Effect":"Deny","Action":"iot:Publish","Resource":"` + arn + `topic/${iot:ClientId}/secret"}`
	set := policy.Compile(
		policy.Named{Name: "open", Doc: mustParse(t, doc(allow("iot:Connect", "*"), allow("iot:*", "*")))},
		policy.Named{Name: "guard", Doc: mustParse(t, doc(guard))},
	)
	x := set.Explain(ask(policy.Publish, "topic/", "dev1/secret"))
	want := policy.Explanation{
		Decision: policy.ExplicitDeny, Action: policy.Publish, Resource: arn + "topic/dev1/secret",
		Deciding:  &policy.StatementRef{Policy: "guard", Statement: 1, Sid: "NoSecrets"},
		Statement: &policy.StatementText{StatementRef: policy.StatementRef{Policy: "guard", Statement: 1, Sid: "NoSecrets"}, Line: 1, Column: 38, Text: guard},
		AllowedBy: []policy.StatementRef{{Policy: "open", Statement: 2}},
		DeniedBy:  []policy.StatementRef{{Policy: "guard", Statement: 1, Sid: "NoSecrets"}},
		Variables: []policy.VariableValue{{Name: "iot:ClientId", Value: "dev1", Resolved: true}},
		Sentence:  `iot:Publish on ` + arn + `topic/dev1/secret: statement 1 ("NoSecrets") of policy "guard" denies it, and wins over statement 2 of policy "open", which allows it.`,
		Hint:      "an explicit deny wins over every allow; narrow or remove that statement",
	}
	if diff := cmp.Diff(want, x); diff != "" {
		t.Errorf("Explain (-want +got):\n%s", diff)
	}
	encoded, err := json.Marshal(x)
	if err != nil || !strings.Contains(string(encoded), `"decision":"EXPLICIT_DENY"`) {
		t.Errorf("JSON is %s, error %v", encoded, err)
	}
	var back policy.Explanation
	err = json.Unmarshal(encoded, &back)
	if diff := cmp.Diff(x, back); err != nil || diff != "" {
		t.Errorf("read back: %v (-want +got):\n%s", err, diff)
	}
	if diff := cmp.Diff([]string{"open", "guard"}, set.Names()); diff != "" {
		t.Errorf("Names (-want +got):\n%s", diff)
	}
	allowed := set.Explain(ask(policy.Publish, "topic/", "x"))
	if allowed.Deciding == nil || allowed.Deciding.Statement != 2 {
		t.Errorf("allowed by %v, want statement 2", allowed.Deciding)
	}
}

func TestADenyByConditionShowsIt(t *testing.T) {
	t.Parallel()
	set := compile(t, doc(allow("iot:*", "*"), `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringLike":{"iot:ClientId":"dev*"},"Null":{"x:y":"true"}}}`))
	x := set.Explain(ask(policy.Publish, "topic/", "a"))
	want := []policy.MetCondition{{Operator: "StringLike", Key: "iot:ClientId", Want: []string{"dev*"}, Got: []string{"dev1"}}, {Operator: "Null", Key: "x:y", Want: []string{"true"}}}
	if diff := cmp.Diff(want, x.Met); x.Decision != policy.ExplicitDeny || diff != "" {
		t.Errorf("%s (-want +got):\n%s", x.Decision, diff)
	}
	if part := `StringLike with iot:ClientId, which is ["dev1"], for ["dev*"], and Null with x:y, which has no value`; !strings.Contains(x.Sentence, part) || !strings.Contains(x.Hint, "condition") {
		t.Errorf("got %q and %q, want %q", x.Sentence, x.Hint, part)
	}
}

func TestExplanationListsMissingKeysAndConditions(t *testing.T) {
	t.Parallel()
	set := compile(t, doc(`{"Effect":"Allow","Action":"*","Resource":"`+arn+`topic/*","Condition":{"StringEquals":{"x:b":"${x:a}","iot:ClientId":"q"}}}`))
	x := set.Explain(ask(policy.Publish, "topic/", "a"))
	if diff := cmp.Diff([]string{"x:a", "x:b"}, x.Missing); diff != "" {
		t.Errorf("Missing (-want +got):\n%s", diff)
	}
	if len(x.Conditions) != 2 || x.Conditions[1].Got[0] != "dev1" {
		t.Errorf("failed conditions are %+v, want two", x.Conditions)
	}
}

func TestExplanationShowsTheNearestStatement(t *testing.T) {
	t.Parallel()
	const second = `{ "Sid": "Own", "Effect": "Allow", "Action": "iot:Publish", "Resource": "` + arn + `topic/${iot:Connection.Thing.Attributes[floor]}/x" }`
	set := compile(t, "{\"Version\":\"2012-10-17\",\n\"Statement\":["+allow("iot:Publish", arn+"topic/q")+",\n  "+second+"]}")
	x := set.Explain(ask(policy.Publish, "topic/", "3/x"))
	want := &policy.StatementText{StatementRef: policy.StatementRef{Policy: "p", Statement: 2, Sid: "Own"}, Line: 3, Column: 3, Text: second}
	if diff := cmp.Diff(want, x.Statement); diff != "" {
		t.Errorf("Statement (-want +got):\n%s", diff)
	}
	if x.NearMiss.Variable != "iot:Connection.Thing.Attributes[floor]" {
		t.Errorf("the missing variable is %q", x.NearMiss.Variable)
	}
	if x := set.Explain(ask(policy.Connect, "client/", "a")); x.Statement != nil {
		t.Errorf("a statement of another action is shown: %v", x.Statement)
	}
}

// A Deny that a variable without a value keeps from applying grants what its
// author meant to forbid, so that the explanation says so.
func TestExplanationTellsOfDeniesThatAreDropped(t *testing.T) {
	t.Parallel()
	set := compile(t, doc(allow("iot:*", "*"), deny("iot:Publish", arn+"topic/${iot:Connection.Thing.Attributes[floor]}/x"), deny("iot:Publish", arn+"topic/${x:y}/other")))
	x := set.Explain(ask(policy.Publish, "topic/", "3/x"))
	want := []policy.DroppedDeny{{StatementRef: policy.StatementRef{Policy: "p", Statement: 2}, Pattern: arn + "topic/${iot:Connection.Thing.Attributes[floor]}/x",
		Variable: "${iot:Connection.Thing.Attributes[floor]}", Reason: `the thing has no attribute "floor"`}}
	if diff := cmp.Diff(want, x.Dropped); diff != "" {
		t.Errorf("Dropped (-want +got):\n%s", diff)
	}
	if x.Decision != policy.Allowed || !strings.Contains(x.String(), "denies nothing here") {
		t.Errorf("got %s: %s", x.Decision, x)
	}
}

// TestADenialSaysWhichPoliciesWereLookedAt ensures that an implicit denial names the
// policies, the statement that came nearest, what to change in which, and each reason
// once.
func TestADenialSaysWhichPoliciesWereLookedAt(t *testing.T) {
	t.Parallel()
	set := policy.Compile(
		policy.Named{Name: "first", Doc: mustParse(t, doc(allow("iot:Connect", "*")))},
		policy.Named{Name: "second", Doc: mustParse(t, doc(allow("iot:Connect", "*"), allow("iot:Publish", arn+"topic/d/a")))},
		policy.Named{Name: "third", Doc: mustParse(t, doc(allow("iot:Subscribe", arn+"topicfilter/${iot:Connection.Thing.ThingName}")))},
	)
	for _, row := range []struct {
		request *policy.Request
		says    []string
		hint    string
	}{
		{ask(policy.Publish, "topic/", "d/b"), []string{`no statement allows it, of policies "first", "second", "third".`, `Nearest is statement 2 of policy "second"`}, `(statement 2 of policy "second")`},
		{ask(policy.Subscribe, "topicfilter/", "x"), []string{`Nearest is statement 1 of policy "third"`, "has no value: "}, "connect with the thing's name as client id"},
		{ask(policy.Receive, "topic/", "q/r"), []string{`policies "first", "second", "third"`, "no Allow statement names the action"}, "first, second, third"},
	} {
		row.request.Vars = policy.NewVariables(policy.Binding{ClientID: "dev"})
		x := set.Explain(row.request)
		paragraph := x.Paragraph()
		for _, part := range row.says {
			if strings.Count(paragraph, part) != 1 {
				t.Errorf("got %q, want %q in it once", paragraph, part)
			}
		}
		if !strings.Contains(x.Hint, row.hint) {
			t.Errorf("got hint %q, want %q in it", x.Hint, row.hint)
		}
	}
}

// TestJudgeNamesTheStatementThatDecided ensures that deciding tells by which statement,
// as explaining does.
func TestJudgeNamesTheStatementThatDecided(t *testing.T) {
	t.Parallel()
	set := policy.Compile(
		policy.Named{Name: "open", Doc: mustParse(t, doc(allow("iot:Publish", arn+"topic/a"), allow("iot:*", "*")))},
		policy.Named{Name: "guard", Doc: mustParse(t, doc(`{"Sid":"No","Effect":"Deny","Action":"iot:Publish","Resource":"`+arn+`topic/secret"}`))},
	)
	for _, row := range []struct {
		topic    string
		decision policy.Decision
		by       string
	}{
		{"a", policy.Allowed, `statement 1 of policy "open"`},
		{"b", policy.Allowed, `statement 2 of policy "open"`},
		{"secret", policy.ExplicitDeny, `statement 1 ("No") of policy "guard"`},
	} {
		r := ask(policy.Publish, "topic/", row.topic)
		decision, by := set.Judge(r)
		if x := set.Explain(r); decision != row.decision || by.String() != row.by || x.Decision != decision || *x.Deciding != by {
			t.Errorf("%s: got %s by %s, Explain says %s by %v; want %s by %s", row.topic, decision, by, x.Decision, x.Deciding, row.decision, row.by)
		}
	}
	decision, by := policy.Compile().Judge(ask(policy.Publish, "topic/", "a"))
	if decision != policy.ImplicitDeny || by != (policy.StatementRef{}) {
		t.Errorf("no policy: got %s by %s", decision, by)
	}
}
