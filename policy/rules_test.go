package policy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/policy"
)

const arn = "arn:aws:iot:us-east-1:000000000000:"

func mustParse(t testing.TB, text string) *policy.Document {
	t.Helper()
	doc, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatalf("Parse(%s): %v", text, err)
	}
	return doc
}

func compile(t testing.TB, text string) *policy.Set {
	t.Helper()
	return policy.Compile(policy.Named{Name: "p", Doc: mustParse(t, text)})
}

// doc wraps statements into a document of version 2012-10-17.
func doc(statements ...string) string {
	return `{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`
}

func allow(action, resource string) string {
	return fmt.Sprintf(`{"Effect":"Allow","Action":%q,"Resource":%q}`, action, resource)
}

func deny(action, resource string) string {
	return fmt.Sprintf(`{"Effect":"Deny","Action":%q,"Resource":%q}`, action, resource)
}

func connected() *policy.Variables {
	return policy.NewVariables(policy.Binding{
		ClientID: "dev1", SourceIP: netip.MustParseAddr("192.0.2.7"), DomainName: "iot.example.com",
		Thing: &policy.Thing{Name: "thing1", TypeName: "lamp", Attributes: map[string]string{"site": "A1", "Site": "B2", "void": ""}},
	})
}

func ask(action policy.Action, prefix, name string) *policy.Request {
	return &policy.Request{Action: action, ResourcePrefix: arn + prefix, ResourceName: name, Vars: connected(),
		Now: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)}
}

// check decides and explains, which must agree.
func check(t *testing.T, set *policy.Set, r *policy.Request, want policy.Decision) {
	t.Helper()
	got := set.Decide(r)
	if got != want {
		t.Errorf("Decide(%s on %s) = %v, want %v", r.Action, r.Resource(), got, want)
	}
	x := set.Explain(r)
	if x.Decision != got {
		t.Errorf("Explain says %v, Decide says %v: %s", x.Decision, got, x)
	}
}

const (
	yes    = policy.Allowed
	no     = policy.ImplicitDeny
	denied = policy.ExplicitDeny
)

func TestRules(t *testing.T) {
	t.Parallel()
	both := doc(allow("iot:*", "*"), deny("iot:Publish", arn+"topic/secret/*"))
	for _, tt := range []struct {
		name, doc string
		req       *policy.Request
		want      policy.Decision
	}{
		{"Statement may be a single object", `{"Version":"2012-10-17","Statement":` + allow("iot:Connect", "*") + `}`, ask(policy.Connect, "client/", "a"), yes},
		{"action may be an array", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["iot:Connect","iot:Publish"],"Resource":["*"]}}`, ask(policy.Publish, "topic/", "a"), yes},
		{"action * allows everything", doc(allow("*", "*")), ask("iam:PassRole", "role/", "a"), yes},
		{"action iot:* does not reach another service", doc(allow("iot:*", "*")), ask("iam:PassRole", "role/", "a"), no},
		{"action iot:Pub* matches Publish", doc(allow("iot:Pub*", "*")), ask(policy.Publish, "topic/", "a"), yes},
		{"action iot:Pub* does not match RetainPublish", doc(allow("iot:Pub*", "*")), ask(policy.RetainPublish, "topic/", "a"), no},
		{"Publish does not imply RetainPublish", doc(allow("iot:Publish", "*")), ask(policy.RetainPublish, "topic/", "a"), no},
		{"action ? is one character", doc(allow("iot:Connec?", "*")), ask(policy.Connect, "client/", "a"), yes},
		{"service wildcard matches", doc(allow("*:CreateThing", "*")), ask("iot:CreateThing", "thing/", "a"), yes},
		{"control plane action matches by name", doc(allow("iot:CreateThing", arn+"thing/a*")), ask("iot:CreateThing", "thing/", "ab"), yes},
		{"action ignores case", doc(allow("IOT:connect", "*")), ask(policy.Connect, "client/", "a"), yes},
		{"an empty action matches only *", doc(allow("iot:*", "*")), ask("", "client/", "a"), no},
		{"NotAction allows every other action", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","NotAction":"iot:Publish","Resource":"*"}}`, ask(policy.Connect, "client/", "a"), yes},
		{"NotAction leaves its action out", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","NotAction":"iot:Publish","Resource":"*"}}`, ask(policy.Publish, "topic/", "a"), no},
		{"NotResource allows every other resource", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","NotResource":"` + arn + `topic/a"}}`, ask(policy.Publish, "topic/", "b"), yes},
		{"NotResource leaves its resource out", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","NotResource":"` + arn + `topic/a"}}`, ask(policy.Publish, "topic/", "a"), no},
		{"NotResource with an unresolved variable allows nothing", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","NotResource":"` + arn + `topic/${x:y}"}}`, ask(policy.Publish, "topic/", "a"), no},
		{"NotResource with an unresolved variable denies", doc(allow("*", "*"), `{"Effect":"Deny","Action":"iot:*","NotResource":"`+arn+`topic/${x:y}"}`), ask(policy.Publish, "topic/", "a"), denied},
		{"connect with a topic resource matches nothing", doc(allow("iot:Connect", arn+"topic/a")), ask(policy.Connect, "client/", "a"), no},
		{"no match is an implicit deny", doc(allow("iot:Connect", arn+"client/a")), ask(policy.Connect, "client/", "b"), no},
		{"deny wins over allow", both, ask(policy.Publish, "topic/", "secret/x"), denied},
		{"deny leaves the rest", both, ask(policy.Publish, "topic/", "open/x"), yes},
		{"another action than the denied one passes", both, ask(policy.Receive, "topic/", "secret/x"), yes},
		{"* crosses slashes", doc(allow("iot:Publish", arn+"topic/a/*")), ask(policy.Publish, "topic/", "a/b/c"), yes},
		{"* matches nothing too", doc(allow("iot:Publish", arn+"topic/a/*")), ask(policy.Publish, "topic/", "a/"), yes},
		{"* in the middle", doc(allow("iot:Publish", arn+"topic/*/state")), ask(policy.Publish, "topic/", "a/b/state"), yes},
		{"* in region and account", doc(allow("iot:Publish", "arn:aws:iot:*:*:topic/a")), ask(policy.Publish, "topic/", "a"), yes},
		{"matching is on the whole string", doc(allow("iot:Publish", arn+"topic/a")), ask(policy.Publish, "topic/", "ab"), no},
		{"matching is case-sensitive", doc(allow("iot:Publish", arn+"topic/A")), ask(policy.Publish, "topic/", "a"), no},
		{"? is exactly one character", doc(allow("iot:Publish", arn+"topic/a?c")), ask(policy.Publish, "topic/", "abc"), yes},
		{"? is one letter of two bytes", doc(allow("iot:Publish", arn+"topic/a?c")), ask(policy.Publish, "topic/", "aéc"), yes},
		{"? does not match nothing", doc(allow("iot:Publish", arn+"topic/a?c")), ask(policy.Publish, "topic/", "ac"), no},
		{"+ is ordinary in a filter", doc(allow("iot:Subscribe", arn+"topicfilter/a/+/x")), ask(policy.Subscribe, "topicfilter/", "a/b/x"), no},
		{"a policy with + allows the literal filter", doc(allow("iot:Subscribe", arn+"topicfilter/a/+/x")), ask(policy.Subscribe, "topicfilter/", "a/+/x"), yes},
		{"* allows the filter a/+/x", doc(allow("iot:Subscribe", arn+"topicfilter/a/*")), ask(policy.Subscribe, "topicfilter/", "a/+/x"), yes},
		{"* allows the filter a/#", doc(allow("iot:Subscribe", arn+"topicfilter/a/*")), ask(policy.Subscribe, "topicfilter/", "a/#"), yes},
		{"# is ordinary", doc(allow("iot:Subscribe", arn+"topicfilter/#")), ask(policy.Subscribe, "topicfilter/", "a"), no},
		{"denying a sub-topic filter does not stop a/#", doc(allow("*", "*"), deny("iot:Subscribe", arn+"topicfilter/a/secret/*")), ask(policy.Subscribe, "topicfilter/", "a/#"), yes},
		{"a shared subscription shows its full string", doc(allow("iot:Subscribe", arn+"topicfilter/$share/g/a")), ask(policy.Subscribe, "topicfilter/", "$share/g/a"), yes},
		{"$ is special only before a brace", doc(allow("iot:Publish", arn+"topic/$aws/things/x")), ask(policy.Publish, "topic/", "$aws/things/x"), yes},
		{"${*} is a star", doc(allow("iot:Publish", arn+"topic/${*}")), ask(policy.Publish, "topic/", "*"), yes},
		{"${*} is no wildcard", doc(allow("iot:Publish", arn+"topic/${*}")), ask(policy.Publish, "topic/", "a"), no},
		{"${?} is a question mark", doc(allow("iot:Publish", arn+"topic/${?}")), ask(policy.Publish, "topic/", "?"), yes},
		{"${?} is no wildcard", doc(allow("iot:Publish", arn+"topic/${?}")), ask(policy.Publish, "topic/", "a"), no},
		{"${$} is a dollar sign", doc(allow("iot:Publish", arn+"topic/${$}{x}")), ask(policy.Publish, "topic/", "${x}"), yes},
		{"an unresolved variable matches nothing", doc(allow("iot:Publish", arn+"topic/${x:y}")), ask(policy.Publish, "topic/", "a"), no},
		{"an unresolved variable stays as its text", doc(allow("iot:Publish", arn+"topic/${x:y}")), ask(policy.Publish, "topic/", "${x:y}"), yes},
		{"an unresolved variable denies nothing", doc(allow("*", "*"), deny("iot:Publish", arn+"topic/${x:y}")), ask(policy.Publish, "topic/", "a"), yes},
		{"a default value replaces an absent variable", doc(allow("iot:Publish", arn+"topic/${x:y, 'all'}")), ask(policy.Publish, "topic/", "all"), yes},
		{"version 2008 takes variables as text", `{"Version":"2008-10-17","Statement":` + allow("iot:Publish", arn+"topic/${iot:ClientId}") + `}`, ask(policy.Publish, "topic/", "dev1"), no},
		{"version 2008 matches the text itself", `{"Version":"2008-10-17","Statement":` + allow("iot:Publish", arn+"topic/${iot:ClientId}") + `}`, ask(policy.Publish, "topic/", "${iot:ClientId}"), yes},
		{"version 2008 has wildcards", `{"Version":"2008-10-17","Statement":` + allow("iot:Publish", arn+"topic/*") + `}`, ask(policy.Publish, "topic/", "a"), yes},
		{"no version is version 2008", `{"Statement":` + allow("iot:Publish", arn+"topic/${iot:ClientId}") + `}`, ask(policy.Publish, "topic/", "dev1"), no},
		{"every data plane action matches iot:*", doc(allow("iot:*", "*")), ask(policy.AssumeRoleWithCertificate, "rolealias/", "a"), yes},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			check(t, compile(t, tt.doc), tt.req, tt.want)
		})
	}
}

func TestEachDataPlaneActionMatchesOnlyItself(t *testing.T) {
	t.Parallel()
	for _, written := range policy.DataPlaneActions() {
		set := compile(t, doc(allow(string(written), "*")))
		for _, asked := range policy.DataPlaneActions() {
			want := no
			if asked == written {
				want = yes
			}
			check(t, set, ask(asked, asked.ResourceKind()+"/", "a"), want)
		}
	}
}

func TestSeveralPoliciesDecideTogether(t *testing.T) {
	t.Parallel()
	set := policy.Compile(
		policy.Named{Name: "a", Doc: mustParse(t, doc(allow("iot:Publish", "*")))},
		policy.Named{Name: "b", Doc: mustParse(t, doc(allow("iot:Connect", "*"), deny("iot:Publish", arn+"topic/x")))},
		policy.Named{Name: "none"},
	)
	check(t, set, ask(policy.Publish, "topic/", "y"), yes)
	check(t, set, ask(policy.Connect, "client/", "y"), yes)
	check(t, set, ask(policy.Publish, "topic/", "x"), denied)
	check(t, policy.Compile(), ask(policy.Publish, "topic/", "x"), no)
	check(t, set, &policy.Request{}, no)
}

func TestTextIsKeptByteForByte(t *testing.T) {
	t.Parallel()
	text := "\n { \"Version\" : \"2012-10-17\",\t\"Id\":\"i\", \"Statement\":" + allow("iot:*", "*") + "}\r\n"
	d := mustParse(t, text)
	if got := d.Text(); got != text {
		t.Errorf("Text() = %q, want %q", got, text)
	}
	if d.ID() != "i" || d.Version() != policy.Version2012 {
		t.Errorf("ID, Version = %q, %q", d.ID(), d.Version())
	}
	statements := d.Statements()
	statements[0].Actions[0] = "changed"
	if got := d.Statements()[0].Actions[0]; got != "iot:*" {
		t.Errorf("Statements shares memory: action is %q", got)
	}
}
