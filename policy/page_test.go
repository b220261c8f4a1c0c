package policy_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/policy"
)

// page gives a section of docs/policies.md, with those below it.
func page(t *testing.T, heading string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("the page has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

var code = regexp.MustCompile("`([^`]+)`")

// inColumns gives the code of the first columns of all tables in a section.
func inColumns(section string, columns int) []string {
	var found []string
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 || cells[0] != "" {
			continue
		}
		for _, cell := range cells[1:min(1+columns, len(cells))] {
			for _, match := range code.FindAllStringSubmatch(cell, -1) {
				found = append(found, match[1])
			}
		}
	}
	return found
}

// The page lists each variable and condition key that there is, and no other.
func TestThePageOfPoliciesHasEveryKey(t *testing.T) {
	t.Parallel()
	var listed []string
	for _, name := range inColumns(page(t, "Variables and condition keys"), 2) {
		if strings.HasPrefix(name, "iot:") && name != "iot:Connect" || strings.HasPrefix(name, "aws:") {
			listed = append(listed, name)
			if !policy.IsKnown(name) {
				t.Errorf("%s is no key of this package", name)
			}
		}
	}
	slices.Sort(listed)
	want := policy.KeysByName()
	slices.Sort(want)
	if diff := cmp.Diff(want, listed); diff != "" {
		t.Errorf("keys of docs/policies.md (-known +listed):\n%s", diff)
	}
}

// The page lists each condition operator, and the five actions that are asked.
func TestThePageOfPoliciesHasEveryOperatorAndAction(t *testing.T) {
	t.Parallel()
	conditions, _, _ := strings.Cut(page(t, "Conditions"), "\n| goal")
	listed, want := inColumns(conditions, 1), policy.Operators()
	slices.Sort(listed)
	slices.Sort(want)
	if diff := cmp.Diff(want, listed); diff != "" {
		t.Errorf("operators of docs/policies.md (-known +listed):\n%s", diff)
	}
	rows := strings.Split(page(t, "Actions and resources"), "\n")
	for _, action := range []policy.Action{policy.Connect, policy.Publish, policy.RetainPublish, policy.Subscribe, policy.Receive} {
		row := "| `" + string(action) + "` | `" + action.ResourceKind() + "/"
		if !slices.ContainsFunc(rows, func(line string) bool { return strings.HasPrefix(line, row) }) {
			t.Errorf("the page has no row %q...", row)
		}
	}
}

// Each document and condition of the page is one.
func TestTheExamplesOfThePageOfPoliciesAreValid(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	var documents []string
	for n, part := range strings.Split(string(text), "```") {
		if document, found := strings.CutPrefix(part, "json\n"); n%2 == 1 && found {
			documents = append(documents, document)
		}
	}
	for _, condition := range inColumns(page(t, "Conditions"), 2) {
		if strings.HasPrefix(condition, "{") {
			documents = append(documents, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":`+condition+`}}`)
		}
	}
	if len(documents) < 8 {
		t.Fatalf("found %d examples, want at least 8", len(documents))
	}
	for _, document := range documents {
		_, err := policy.Parse([]byte(document))
		if err != nil {
			t.Errorf("%s\n%v", document, err)
		}
	}
}

// Wildcards in resources do what the page says that they do.
func TestWildcardsOfResources(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		action          policy.Action
		resource, asked string
		want            policy.Decision
	}{
		{policy.Publish, "topic/a/+/x", "topic/a/1/x", no}, {policy.Publish, "topic/a/#", "topic/a/1", no},
		{policy.Publish, "topic/a/*", "topic/a/1/x", yes}, {policy.Publish, "topic/a/*/x", "topic/a/1/2/x", yes},
		{policy.Subscribe, "topicfilter/a/+/x", "topicfilter/a/+/x", yes}, {policy.Subscribe, "topicfilter/a/+/x", "topicfilter/a/1/x", no},
		{policy.Subscribe, "topicfilter/a/*", "topicfilter/a/+/x", yes}, {policy.Subscribe, "topicfilter/a/*", "topicfilter/a/1/x", yes},
		{policy.Subscribe, "topicfilter/a/*", "topicfilter/a/#", yes}, {policy.Subscribe, "topicfilter/#", "topicfilter/#", yes},
		{policy.Subscribe, "topicfilter/#", "topicfilter/a", no}, {policy.Subscribe, "topic/a", "topicfilter/a", no},
		{policy.Subscribe, "topicfilter/a/*", "topicfilter/$share/g/a/1", no},
		{policy.Subscribe, "topicfilter/$share/g/a/*", "topicfilter/$share/g/a/1", yes},
		{policy.Publish, "topic/a?", "topic/ab", yes}, {policy.Publish, "topic/a?", "topic/aé", yes}, {policy.Publish, "topic/a?", "topic/a", no},
		{policy.Publish, "topic/a${*}", "topic/a*", yes}, {policy.Publish, "topic/a${*}", "topic/ab", no}, {policy.Publish, "topic/A", "topic/a", no},
	} {
		kind, name, _ := strings.Cut(row.asked, "/")
		set := compile(t, doc(allow(string(row.action), arn+row.resource)))
		if got := set.Decide(ask(row.action, kind+"/", name)); got != row.want {
			t.Errorf("%s on %s with %s: got %s, want %s", row.action, row.asked, row.resource, got, row.want)
		}
	}
	// A Deny of a filter leaves wider ones; that of the topic doesn't.
	set := compile(t, doc(allow("*", "*"), strings.Replace(allow("iot:Subscribe", arn+"topicfilter/a/secret"), "Allow", "Deny", 1),
		strings.Replace(allow("iot:Receive", arn+"topic/a/secret"), "Allow", "Deny", 1)))
	check(t, set, ask(policy.Subscribe, "topicfilter/", "a/+"), yes)
	check(t, set, ask(policy.Receive, "topic/", "a/secret"), policy.ExplicitDeny)
}
