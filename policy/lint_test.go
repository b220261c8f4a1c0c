package policy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/policy"
)

// codes renders findings as "Code line:column", those in skip left out.
func codes(findings []policy.Finding, skip ...policy.LintCode) string {
	var all []string
next:
	for _, f := range findings {
		for _, s := range skip {
			if f.Code == s {
				continue next
			}
		}
		all = append(all, fmt.Sprintf("%s %d:%d", f.Code, f.Line, f.Column))
	}
	return strings.Join(all, ", ")
}

// A statement stands on line 2, its resource at column 13.
func TestLintFindsTheUsualMistakes(t *testing.T) {
	t.Parallel()
	const bound = `,{"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:*:*:client/${iot:Connection.Thing.ThingName}"}`
	one := func(effect, action, resource, more string) string {
		return "{\"Version\":\"2012-10-17\",\"Statement\":[\n" + `{"Resource":` + resource + `,"Action":` + action + `,"Effect":"` + effect + `"` + more + "}\n" + bound + "]}"
	}
	allowed := func(action, resource string) string { return one("Allow", action, resource, "") }
	const mine = `"arn:aws:iot:*:*:topic/d/${iot:Connection.Thing.ThingName}"`
	for _, tt := range []struct{ name, doc, want, part string }{
		{"nothing", allowed(`"iot:Publish"`, mine), "", ""},
		{"no JSON", "{", "Syntax 1:2", ""},
		{"an open variable", allowed(`"iot:Publish"`, `["*","arn:aws:iot:*:*:topic/${iot:ClientId"]`), "VariableUnbalanced 2:18", "${$}{"},
		{"a variable in braces alone", allowed(`"iot:Publish"`, `"arn:aws:iot:*:*:topic/{iot:ClientId}/x"`), "VariableSyntax 2:13", "write ${iot:ClientId}"},
		{"a variable in parentheses", allowed(`"iot:Publish"`, `"arn:aws:iot:*:*:topic/$(iot:ClientId)/x"`), "VariableSyntax 2:13", `"$(iot:ClientId)"`},
		{"a variable without braces", allowed(`"iot:Publish"`, `"arn:aws:iot:*:*:topic/$iot:ClientId/x"`), "VariableSyntax 2:13", "write ${iot:ClientId}"},
		{"version 2008", strings.Replace(allowed(`"iot:Publish"`, mine), "2012-10-17", "2008-10-17", 1), "VariablesOff 2:13, VariablesOff 3:54, ConnectNotBound 3:54", "2012-10-17"},
		{"an unknown variable", allowed(`"iot:Publish"`, `"arn:aws:iot:*:*:topic/${iot:Connection.Thing.Name}"`), "VariableUnknown 2:13", "iot:Connection.Thing.ThingName?"},
		{"a variable of several values", allowed(`"iot:Publish"`, `"arn:aws:iot:*:*:topic/${iot:Certificate.Subject.CommonName.List}"`), "VariableWithoutValue 2:13", "condition key"},
		{"the certificate's id", allowed(`"iot:Publish"`, `"arn:aws:iot:*:*:topic/${iot:CertificateId}"`), "VariableWithoutValue 2:13", "CommonName"},
		{"an unknown variable with a default", allowed(`"iot:Publish"`, `"arn:aws:iot:*:*:topic/${x:y, 'd'}"`), "", ""},
		{"an unknown condition key", one("Allow", `"iot:Publish"`, mine, `,"Condition":{"StringEquals":{"aws:SourceIp":"x","iot:ClientID2":"a"}}`), "ConditionKeyUnknown 2:161", "iot:ClientId?"},
		{"a variable in a condition", one("Allow", `"iot:Publish"`, mine, `,"Condition":{"StringEquals":{"iot:ClientId":["x","${iot:Nothing}"]}}`), "VariableUnknown 2:157", ""},
		{"an action with a slip", allowed(`["iot:Publish","iot:Publsh"]`, mine), "ActionUnknown 2:97", `"iot:Publish"?`},
		{"an action of operators", allowed(`"iot:CreateThing"`, mine), "ActionUnknown 2:82", "operators"},
		{"a pattern of actions that matches none", allowed(`"iot:Del*Job"`, mine), "ActionUnknown 2:82", ""},
		{"everything on everything", allowed(`"iot:*"`, `"*"`), "AllowsEverything 2:13", ""},
		{"everything of a tenant", allowed(`"*"`, `"arn:aws:iot:*:*:*"`), "AllowsEverything 2:13", ""},
		{"a Deny of everything", one("Deny", `"iot:*"`, `"*"`, ""), "", ""},
		{"all but", "{\"Version\":\"2012-10-17\",\"Statement\":[\n" + `{"Effect":"Allow","NotAction":"iot:Publish","NotResource":"arn:aws:iot:*:*:topic/x"}]}`, "AllowsAllBut 2:31, AllowsAllBut 2:59", ""},
		{"any client", allowed(`"iot:Connect"`, `"arn:aws:iot:us-east-1:000000000000:client/*"`), "ClientForEveryone 2:13", `"arn:aws:iot:us-east-1:000000000000:client/${iot:Connection.Thing.ThingName}"`},
		{"any client on everything", allowed(`["iot:Connect"]`, `"*"`), "ClientForEveryone 2:13", ""},
		{"the client id that the client itself says", allowed(`"iot:Connect"`, `"arn:aws:iot:*:*:client/${iot:ClientId}"`), "ClientForEveryone 2:13", ""},
		{"any client with a thing", one("Allow", `"iot:Connect"`, `"*"`, `,"Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}`), "", ""},
		{"any client of the certificate", one("Allow", `"iot:Connect"`, `"*"`, `,"Condition":{"StringEquals":{"iot:ClientId":"${iot:Certificate.Subject.CommonName}"}}`), "", ""},
		{"fixed client ids", allowed(`"iot:Connect"`, `"arn:aws:iot:*:*:client/sensor-*"`), "ConnectNotBound 2:13", ""},
		{"all topics", allowed(`["iot:Publish","iot:Receive"]`, `"arn:aws:iot:*:*:topic/*"`), "TopicForEveryone 2:13", "topic/devices/${"},
		{"subscribe on a topic", allowed(`"iot:Subscribe"`, mine), "ReceiveMissing 2:1, SubscribeOnTopic 2:13", "topicfilter/d/${"},
		{"subscribe and receive on a topic", allowed(`["iot:Subscribe","iot:Receive"]`, mine), "SubscribeOnTopic 2:83", "topicfilter/d/${"},
		{"subscribe and receive on both", allowed(`["iot:Subscribe","iot:Receive"]`, `[`+mine+`,"arn:aws:iot:*:*:topicfilter/d/${iot:Connection.Thing.ThingName}"]`), "", ""},
		{"publish on a topicfilter", allowed(`"iot:Publish"`, `["arn:aws:iot:*:*:topicfilter/x",`+mine+`]`), "TopicOnTopicfilter 2:14", "topic/x"},
		{"a Deny of another type", one("Deny", `"iot:Publish"`, `"arn:aws:iot:*:*:topicfilter/x"`, ""), "TopicOnTopicfilter 2:13", ""},
		{"connect on a thing", allowed(`"iot:Connect"`, `"arn:aws:iot:*:*:thing/x"`), "ResourceKind 2:13", "client/x"},
		{"a type in upper case", allowed(`"iot:Publish"`, `"arn:aws:iot:*:*:Topic/x"`), "ResourceKind 2:13", "topic/x"},
		{"a list action on one thing", allowed(`"iot:ListRetainedMessages"`, `"arn:aws:iot:*:*:topic/x"`), "ResourceKind 2:13", `"Resource": "*"`},
		{"another service", allowed(`"iot:Publish"`, `"arn:aws:iotdata:*:*:topic/x"`), "ResourceElsewhere 2:13", `"arn:aws:iot:*:*:topic/x"`},
		{"a placeholder", allowed(`"iot:Publish"`, `"arn:aws:iot:us-east-1:ACCOUNT:topic/x"`), "ResourceElsewhere 2:13", `"arn:aws:iot:us-east-1:000000000000:topic/x"`},
		{"no region", allowed(`"iot:Publish"`, `"arn:aws:iot::000000000000:topic/x"`), "ResourceElsewhere 2:13", "eu-west-1"},
		{"another account", allowed(`"iot:Publish"`, `"arn:aws:iot:*:111111111111:topic/x"`), "ResourceElsewhere 2:13", "in account 111111111111, not in 000000000000"},
		{"MQTT's wildcards", allowed(`"iot:Publish"`, `"arn:aws:iot:*:*:topic/a/+/b"`), "MQTTWildcard 2:13", "topic/a/*/b"},
		{"MQTT's wildcards in a filter", allowed(`["iot:Subscribe","iot:Receive"]`, `["arn:aws:iot:*:*:topicfilter/a/#","arn:aws:iot:*:*:topic/a/*"]`), "MQTTWildcardInFilter 2:14", "topicfilter/a/*"},
		{"subscribe without receive", allowed(`"iot:Subscribe"`, `"arn:aws:iot:*:*:topicfilter/a/#"`), "ReceiveMissing 2:1, MQTTWildcardInFilter 2:13", "topic/a/*"},
		{"subscribe beside a client", allowed(`["iot:Connect","iot:Subscribe"]`, `["arn:aws:iot:*:*:client/${iot:Connection.Thing.ThingName}","arn:aws:iot:*:*:topicfilter/a/*"]`), "ReceiveMissing 2:1", "topic/a/*"},
		{"subscribe and receive beside a client", allowed(`["iot:Connect","iot:Subscribe","iot:Receive"]`, `["arn:aws:iot:*:*:client/${iot:Connection.Thing.ThingName}","arn:aws:iot:*:*:topicfilter/a/*","arn:aws:iot:*:*:topic/a/*"]`), "", ""},
		{"receive elsewhere", allowed(`["iot:Subscribe","iot:Receive"]`, `["arn:aws:iot:*:*:topicfilter/a/*","arn:aws:iot:*:*:topic/b/*"]`), "ReceiveMissing 2:1", ""},
		{"a Deny by a variable", one("Deny", `"iot:Publish"`, mine, ""), "DenyByVariable 2:13", ""},
		{"no connect", doc(allow("iot:Publish", arn+"topic/x")), "ConnectMissing 1:1", ""},
		{"too long", doc(allow("iot:Publish", arn+"topic/"+strings.Repeat("x", 2048))), "TooLong 1:1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			found := policy.Lint([]byte(tt.doc), policy.LintOptions{Region: "eu-west-1", Account: "000000000000"})
			if tt.name != "no region" {
				found = policy.Lint([]byte(tt.doc), policy.LintOptions{Account: "000000000000"})
			}
			var skip []policy.LintCode
			if tt.name == "too long" || tt.name == "all but" {
				skip = []policy.LintCode{policy.LintConnectMissing}
			}
			if got := codes(found, skip...); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			said := ""
			for _, f := range found {
				if f.Message == "" || f.Fix == "" || f.Severity == "" {
					t.Errorf("a finding lacks words: %+v", f)
				}
				said += f.Message + " " + f.Fix + "\n"
			}
			if !strings.Contains(said, tt.part) {
				t.Errorf("got %q, want %q in it", said, tt.part)
			}
		})
	}
}

func TestLintedMembersAreNamed(t *testing.T) {
	t.Parallel()
	found := policy.Lint([]byte(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["iot:*"],"Resource":["arn:aws:iot:*:*:topic/x","*"]}}`), policy.LintOptions{})
	if len(found) != 1 || found[0].Member != "Statement.Resource[1]" {
		t.Errorf("got %+v, want one finding at Statement.Resource[1]", found)
	}
}

// The policies for devices that the project's own pages recommend have no findings.
func TestLintIsSilentOnThePoliciesOfThePages(t *testing.T) {
	t.Parallel()
	for page, want := range map[string]int{"../README.md": 1, "../docs/fleet-provisioning.md": 2} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for rest := string(text); ; found++ {
			at := strings.Index(rest, `{"Version": "2012-10-17"`)
			if at < 0 {
				break
			}
			rest = rest[at:]
			var document json.RawMessage
			err = json.NewDecoder(strings.NewReader(rest)).Decode(&document)
			if err != nil {
				t.Fatalf("%s: %v", page, err)
			}
			rest = rest[len(document):]
			if got := policy.Lint(document, policy.LintOptions{}); len(got) > 0 {
				t.Errorf("%s: got %+v, want nothing on %s", page, got, document)
			}
		}
		if found != want {
			t.Errorf("%s shows %d policies, want %d", page, found, want)
		}
	}
}

func TestLintRulesAreOnceEach(t *testing.T) {
	t.Parallel()
	seen := map[policy.LintCode]bool{}
	for _, rule := range policy.LintRules() {
		if seen[rule.Code] || rule.Meaning == "" || rule.Fix == "" || rule.Severity == "" {
			t.Errorf("rule %+v is there twice, or lacks words", rule)
		}
		seen[rule.Code] = true
	}
}

func FuzzLint(f *testing.F) {
	f.Add([]byte(doc(allow("iot:Publish", arn+"topic/${iot:ClientId}"))))
	f.Add([]byte(`{"Version":"2012-10-17","Statement":{"NotAction":"iot:x","NotResource":["*","arn:aws:*"],"Effect":"Deny","Condition":{"StringLike":{"iot:x":["${a:b}"]}}}}`))
	f.Add([]byte(`{"Statement":[{"Effect":"Allow","Action":["iot:Subscribe"],"Resource":"arn:aws:iot:{iot:x:$(aws:y:topicfilter/$share//+"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		lines := strings.Count(string(text), "\n") + 1
		for _, found := range policy.Lint(text, policy.LintOptions{Region: "us-east-1", Account: "000000000000"}) {
			if found.Line < 1 || found.Line > lines || found.Column < 1 || found.Code == "" {
				t.Errorf("a finding is nowhere: %+v", found)
			}
		}
	})
}
