package policy_test

import (
	"fmt"
	"testing"

	"github.com/imprint-iot/imprint/policy"
)

// tenStatements is a device policy with variables, conditions and a deny.
func tenStatements(t testing.TB) *policy.Set {
	condition := func(effect, action, resource, condition string) string {
		return fmt.Sprintf(`{"Effect":%q,"Action":%q,"Resource":%q,"Condition":{%s}}`, effect, action, resource, condition)
	}
	text := doc(
		condition("Allow", "iot:Connect", arn+"client/${iot:ClientId}", `"Bool":{"iot:Connection.Thing.IsAttached":"true"}`),
		allow("iot:Publish", arn+"topic/$aws/things/${iot:Connection.Thing.ThingName}/shadow/*"),
		allow("iot:Publish", arn+"topic/sites/${iot:Connection.Thing.Attributes[site]}/${iot:ClientId}/log"),
		condition("Allow", "iot:Publish", arn+"topic/fw/${iot:ClientId}", `"IpAddress":{"aws:SourceIp":"198.51.100.0/24"}`),
		condition("Allow", "iot:Publish", arn+"topic/late/*", `"DateLessThan":{"aws:CurrentTime":"2020-01-01"}`),
		allow("iot:Publish", arn+"topic/*/${iot:ClientId}/state"),
		allow("iot:Publish", arn+"topic/data/${iot:Connection.Thing.ThingTypeName}/${iot:ClientId}/*"),
		allow("iot:Subscribe", arn+"topicfilter/data/${iot:ClientId}/*"),
		allow("iot:Receive", arn+"topic/data/${iot:ClientId}/*"),
		condition("Deny", "iot:Publish", arn+"topic/data/*/secret", `"StringNotEquals":{"iot:Connection.Thing.ThingTypeName":"gateway"}`),
	)
	d, err := policy.ParseWith([]byte(text), policy.ParseOptions{MaxCharacters: -1})
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Statements()) != 10 {
		t.Fatalf("%d statements, want 10", len(d.Statements()))
	}
	return policy.Compile(policy.Named{Name: "p", Doc: d})
}

func benchRequests() map[string]*policy.Request {
	return map[string]*policy.Request{
		"connect":       ask(policy.Connect, "client/", "dev1"),
		"publish":       ask(policy.Publish, "topic/", "data/lamp/dev1/temperature"),
		"denied":        ask(policy.Publish, "topic/", "data/lamp/dev1/secret"),
		"nothing":       ask(policy.Publish, "topic/", "late/fw/somewhere/quite/different/and/long"),
		"subscribe":     ask(policy.Subscribe, "topicfilter/", "data/dev1/#"),
		"control plane": ask("iot:CreateThing", "thing/", "a"),
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	set := tenStatements(t)
	for name, r := range benchRequests() {
		got := testing.AllocsPerRun(100, func() { set.Decide(r) })
		if got != 0 {
			t.Errorf("%s: %v allocations, want none", name, got)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	set := tenStatements(b)
	for name, r := range benchRequests() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				set.Decide(r)
			}
		})
	}
}

// sameAction has ten statements of one action, none of which can be skipped.
func sameAction(t testing.TB) *policy.Set {
	var statements []string
	for i := range 10 {
		statements = append(statements, allow("iot:Publish", fmt.Sprintf(arn+"topic/s/${iot:Connection.Thing.ThingName}/${iot:ClientId}/%d/*", i)))
	}
	d, err := policy.ParseWith([]byte(doc(statements...)), policy.ParseOptions{MaxCharacters: -1})
	if err != nil {
		t.Fatal(err)
	}
	return policy.Compile(policy.Named{Name: "p", Doc: d})
}

func BenchmarkDecideTenOfOneAction(b *testing.B) {
	set, r := sameAction(b), ask(policy.Publish, "topic/", "s/thing1/dev1/9/temperature")
	b.ReportAllocs()
	for b.Loop() {
		if set.Decide(r) != policy.Allowed {
			b.Fatal("not allowed")
		}
	}
}

func BenchmarkExplain(b *testing.B) {
	set, r := tenStatements(b), benchRequests()["nothing"]
	for b.Loop() {
		set.Explain(r)
	}
}

func BenchmarkParse(b *testing.B) {
	text := []byte(doc(allow("iot:Connect", arn+"client/${iot:ClientId}"), allow("iot:Publish", arn+"topic/a/*")))
	for b.Loop() {
		_, err := policy.Parse(text)
		if err != nil {
			b.Fatal(err)
		}
	}
}
