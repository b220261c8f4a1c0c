package policy_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/policy"
	"pgregory.net/rapid"
)

// reference is the wildcard rule written as a table over characters: cell
// [i][j] says whether the first i symbols match the first j characters.
func reference(symbols []symbol, text []rune) bool {
	row := make([]bool, len(text)+1)
	row[0] = true
	for _, s := range symbols {
		next := make([]bool, len(text)+1)
		for j := range next {
			switch {
			case s.star:
				next[j] = row[j] || j > 0 && next[j-1]
			case j > 0:
				next[j] = row[j-1] && (s.any || s.char == text[j-1])
			}
		}
		row = next
	}
	return row[len(text)]
}

type symbol struct {
	star, any bool
	char      rune
}

// randomPattern draws a pattern as policy text and as symbols, the client id standing for a variable.
func randomPattern(t *rapid.T, clientID string) (string, []symbol) {
	var text strings.Builder
	var symbols []symbol
	for range rapid.IntRange(0, 10).Draw(t, "length") {
		part := rapid.SampledFrom([]string{"*", "?", "a", "b", "é", "/", "${*}", "${?}", "${$}", "${iot:ClientId}"}).Draw(t, "part")
		text.WriteString(part)
		switch part {
		case "*":
			symbols = append(symbols, symbol{star: true})
		case "?":
			symbols = append(symbols, symbol{any: true})
		case "${iot:ClientId}":
			for _, c := range clientID {
				symbols = append(symbols, symbol{char: c})
			}
		default:
			chars := []rune(part)
			c := chars[0]
			if len(chars) > 1 {
				c = chars[2]
			}
			symbols = append(symbols, symbol{char: c})
		}
	}
	return text.String(), symbols
}

func prefixed(symbols []symbol) []symbol {
	var out []symbol
	for _, c := range arn + "topic/" {
		out = append(out, symbol{char: c})
	}
	return append(out, symbols...)
}

func TestMatcherAgreesWithTheReference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		clientID := rapid.StringOfN(rapid.SampledFrom([]rune("abé")), 1, 3, -1).Draw(t, "client id")
		text, symbols := randomPattern(t, clientID)
		name := rapid.StringOfN(rapid.SampledFrom([]rune("abé/*?$")), 0, 12, -1).Draw(t, "name")
		d, err := policy.Parse([]byte(doc(allow("iot:Publish", arn+"topic/"+text))))
		if err != nil {
			t.Fatal(err)
		}
		set := policy.Compile(policy.Named{Name: "p", Doc: d})
		whole := arn + "topic/" + name
		want := reference(prefixed(symbols), []rune(whole))
		// The place where the resource is cut in two must not matter.
		cut := rapid.IntRange(0, len(whole)).Draw(t, "cut")
		for cut < len(whole) && whole[cut]&0xc0 == 0x80 {
			cut++
		}
		r := &policy.Request{Action: policy.Publish, ResourcePrefix: whole[:cut], ResourceName: whole[cut:],
			Vars: policy.NewVariables(policy.Binding{ClientID: clientID})}
		if got := set.Decide(r) == policy.Allowed; got != want {
			t.Fatalf("pattern %q on %q cut at %d: got %v, want %v", text, name, cut, got, want)
		}
	})
}

func TestStringLikeAgreesWithTheReference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text, symbols := randomPattern(t, "ab")
		name := rapid.StringOfN(rapid.SampledFrom([]rune("abé/*?$")), 0, 12, -1).Draw(t, "name")
		d, err := policy.Parse([]byte(conditional(fmt.Sprintf(`"StringLike":{"x:k":%q}`, text))))
		if err != nil {
			t.Fatal(err)
		}
		r := &policy.Request{Action: policy.Publish, Vars: policy.NewVariables(policy.Binding{ClientID: "ab"}),
			Keys: policy.NewKeys(map[string][]string{"x:k": {name}})}
		want := reference(symbols, []rune(name))
		if got := policy.Compile(policy.Named{Doc: d}).Decide(r) == policy.Allowed; got != want {
			t.Fatalf("pattern %q on %q: got %v, want %v", text, name, got, want)
		}
	})
}

// drawDocs draws statements over a small world, so that they often apply.
func drawDocs(t *rapid.T, effects ...string) []policy.Named {
	var docs []policy.Named
	for i := range rapid.IntRange(0, 3).Draw(t, "policies") {
		var statements []string
		for range rapid.IntRange(1, 3).Draw(t, "statements") {
			effect := rapid.SampledFrom(effects).Draw(t, "effect")
			statement := map[string]any{
				"Effect": effect,
				rapid.SampledFrom([]string{"Action", "NotAction"}).Draw(t, "a"):     rapid.SampledFrom([]string{"*", "iot:*", "iot:Publish", "iot:Connect", "x:Y"}).Draw(t, "action"),
				rapid.SampledFrom([]string{"Resource", "NotResource"}).Draw(t, "r"): rapid.SampledFrom([]string{"*", arn + "topic/a", arn + "topic/*", arn + "topic/${iot:ClientId}", arn + "topic/${x:y}"}).Draw(t, "resource"),
			}
			operator := rapid.SampledFrom([]string{"", "StringEquals", "StringNotEquals", "ForAnyValue:StringLike", "ForAllValues:StringNotLike", "StringEqualsIfExists"}).Draw(t, "operator")
			if operator != "" {
				statement["Condition"] = map[string]any{operator: map[string]any{
					rapid.SampledFrom([]string{"iot:ClientId", "x:y"}).Draw(t, "key"): rapid.SampledFrom([]string{"a", "*", "${x:y}"}).Draw(t, "value")}}
			}
			encoded, err := json.Marshal(statement)
			if err != nil {
				t.Fatal(err)
			}
			statements = append(statements, string(encoded))
		}
		d, err := policy.Parse([]byte(doc(statements...)))
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, policy.Named{Name: fmt.Sprint(i), Doc: d})
	}
	return docs
}

func drawRequest(t *rapid.T) *policy.Request {
	return &policy.Request{
		Action:         rapid.SampledFrom([]policy.Action{policy.Publish, policy.Connect, "x:Y", "x:Z"}).Draw(t, "asked action"),
		ResourcePrefix: arn + "topic/", ResourceName: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "asked name"),
		Vars: policy.NewVariables(policy.Binding{ClientID: rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "client id")}),
	}
}

func TestExplainAgreesWithDecide(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		set := policy.Compile(drawDocs(t, "Allow", "Deny")...)
		r := drawRequest(t)
		x := set.Explain(r)
		want := policy.ImplicitDeny
		switch {
		case len(x.DeniedBy) > 0:
			want = policy.ExplicitDeny
		case len(x.AllowedBy) > 0:
			want = policy.Allowed
		}
		if got := set.Decide(r); got != want || x.Decision != want {
			t.Fatalf("Decide = %v, Explain = %v, want %v", got, x.Decision, want)
		}
	})
}

func TestDenyAlwaysWins(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := drawRequest(t)
		denying := drawDocs(t, "Deny")
		alone := policy.Compile(denying...).Decide(r)
		allowing := drawDocs(t, "Allow")
		granted := policy.Compile(allowing...).Decide(r)
		want := granted
		if alone == policy.ExplicitDeny {
			want = policy.ExplicitDeny
		}
		for _, docs := range [][]policy.Named{slices.Concat(denying, allowing), slices.Concat(allowing, denying)} {
			if got := policy.Compile(docs...).Decide(r); got != want {
				t.Fatalf("denies alone %v, allows alone %v, together %v, want %v", alone, granted, got, want)
			}
		}
	})
}

func TestWithoutAllowNothingIsAllowed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		set := policy.Compile(drawDocs(t, "Deny")...)
		if got := set.Decide(drawRequest(t)); got == policy.Allowed {
			t.Fatal("a set without Allow allows")
		}
	})
}

// A matcher that tries stars again needs 2^n or n^stars steps here and would never end.
func TestAdversarialPatternsEnd(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{strings.Repeat("*a", 400) + "*b", strings.Repeat("*?a", 300) + "*b", strings.Repeat("a?*", 300) + "b"} {
		set := compile(t, doc(allow("iot:Publish", arn+"topic/"+pattern)))
		check(t, set, ask(policy.Publish, "topic/", strings.Repeat("a", 20000)), no)
	}
	set := compile(t, doc(allow(strings.Repeat("*a", 400)+":*b", "*")))
	check(t, set, ask(policy.Action(strings.Repeat("a", 20000)), "topic/", "a"), no)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(doc(allow("iot:*", "*"), deny("iot:Publish", arn+"topic/${iot:ClientId}/*"))), "iot:Publish", "topic/dev1/x")
	f.Add([]byte(conditional(`"ForAllValues:StringLike":{"iot:ConnectAttributes":["P*"]},"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}`)), "iot:Connect", "client/a")
	f.Add([]byte(conditional(`"DateLessThan":{"aws:CurrentTime":"2030-01-01"},"NumericEquals":{"aws:EpochTime":5},"Null":{"x:y":true},"ArnLike":{"iot:LastWillTopic":"arn:aws:iot:*:*:*"}`)), "iot:Connect", "client/a")
	f.Add([]byte(`{"Statement":{"Effect":"Allow","NotAction":["a:b"],"NotResource":["arn:aws:iot:r:a:topic/${*}?*${x:y, 'z'}"]}}`), "x:Y", "é")
	f.Add([]byte("{\"\\ud83d\\ude00\":[1e5,null,true]}"), "", "")
	f.Fuzz(func(t *testing.T, text []byte, action, name string) {
		d, err := policy.Parse(text)
		if err != nil {
			return
		}
		if d.Text() != string(text) {
			t.Fatalf("Text() differs from what was parsed")
		}
		again, err := policy.Parse([]byte(d.Text()))
		if err != nil {
			t.Fatalf("accepted document does not parse again: %v", err)
		}
		if !json.Valid(text) {
			t.Fatal("accepted what encoding/json refuses")
		}
		set, second := policy.Compile(policy.Named{Name: "p", Doc: d}), policy.Compile(policy.Named{Name: "p", Doc: again})
		r := &policy.Request{Action: policy.Action(action), ResourcePrefix: arn, ResourceName: name, Vars: connected(),
			Now: time.Unix(1e9, 0), ConnectAttributes: policy.LastWill, LastWillTopic: name, Keys: policy.NewKeys(map[string][]string{"x:y": {name, action}})}
		got := set.Decide(r)
		if x := set.Explain(r); got != second.Decide(r) || x.Decision != got || x.String() == "" {
			t.Fatalf("decisions differ: %v, %v, %s", got, second.Decide(r), x)
		}
	})
}
