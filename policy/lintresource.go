package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint/internal/nearest"
)

func (l *linter) resources(st *linted) {
	nodes, paths := st.items("Resource")
	kinds, all := st.kinds()
	for i, written := range st.source.Resources {
		at, path := nodes[i].offset, paths[i]
		l.variables(st.resources[i], written, at, path)
		if st.source.Effect == Deny && !st.source.NotResource && st.resources[i].hasVars {
			l.find(LintDenyByVariable, at, path, "an Allow that needs the variable denies by itself what it doesn't match",
				"this denies nothing to a device that has no value for the variable of %q", written)
		}
		parts := splitARN(written)
		if len(parts) != 6 {
			continue
		}
		l.elsewhere(parts, at, path)
		l.mqttWildcards(parts, written, at, path)
		if !all {
			l.kind(st, kinds, parts, at, path)
		}
	}
	if !all && !st.source.NotResource {
		l.unserved(st, kinds)
	}
}

// kindOf gives the resource type of an ARN's parts, with "" when it has a wildcard or
// no name.
func kindOf(parts []string) (kind, name string) {
	kind, name, found := strings.Cut(parts[5], "/")
	if !found || strings.ContainsAny(kind, "*?$") {
		return "", name
	}
	return kind, name
}

// kind looks at one resource that no action of its statement is checked against.
func (l *linter) kind(st *linted, kinds, parts []string, at int, path string) {
	kind, name := kindOf(parts)
	if kind == "" || slices.Contains(kinds, kind) {
		return
	}
	wants := slices.Clone(kinds)
	slices.Sort(wants)
	moved := func(kind string) string {
		return fmt.Sprintf("write %q", strings.Join(parts[:5], ":")+":"+kind+"/"+name)
	}
	actions := strings.Join(st.source.Actions, ", ")
	switch {
	case kind == "topic" && slices.Contains(kinds, "topicfilter"):
		l.find(LintSubscribeOnTopic, at, path, moved("topicfilter"), "%s is checked against topicfilter/, not topic/", Subscribe)
	case kind == "topicfilter" && slices.Contains(kinds, "topic"):
		l.find(LintTopicOnTopicfilter, at, path, moved("topic"), "%s is checked against topic/, not topicfilter/", actions)
	case slices.Equal(wants, []string{"*"}):
		l.find(LintResourceKind, at, path, `write "Resource": "*"`, "%s knows no single resources", actions)
	default:
		near := nearest.Name(kind, kinds)
		if near == "" {
			near = wants[len(wants)-1]
		}
		l.find(LintResourceKind, at, path, moved(near), "%s is checked against %s, not %s/", actions, strings.Join(wants, "/, ")+"/", kind)
	}
}

// unserved looks for an action without any resource of its type beside others that
// have one: Subscribe and Publish on topics alone.
func (l *linter) unserved(st *linted, kinds []string) {
	nodes, paths := st.items("Action")
	for i, written := range st.source.Actions {
		for _, a := range DataPlaneActions() {
			need := a.ResourceKind()
			if !strings.EqualFold(written, string(a)) || need == "*" {
				continue
			}
			// A resource of a type that nobody needs was found on its own.
			served, wrong, from := false, false, ""
			for _, resource := range st.source.Resources {
				parts := splitARN(resource)
				if len(parts) != 6 {
					served = true
					continue
				}
				kind, _ := kindOf(parts)
				served = served || kind == "" || kind == need
				wrong = wrong || kind != "" && !slices.Contains(kinds, kind)
				from = resource
			}
			if served || wrong {
				continue
			}
			code := LintResourceKind
			switch need {
			case "topicfilter":
				code = LintSubscribeOnTopic
			case "topic":
				code = LintTopicOnTopicfilter
			}
			moved, _ := withKind(from, need)
			l.find(code, nodes[i].offset, paths[i], fmt.Sprintf("add %q to Resource", moved), "%s is checked against %s/, and the statement has no such resource", a, need)
		}
	}
}

// elsewhere looks at partition, service, region and account.
func (l *linter) elsewhere(parts []string, at int, path string) {
	open := func(s string) bool { return strings.ContainsAny(s, "*?") }
	prefix := func(i int, part string) string {
		changed := slices.Clone(parts)
		changed[i] = part
		return fmt.Sprintf("write %q", strings.Join(changed, ":"))
	}
	or := func(s, otherwise string) string {
		if s == "" {
			return otherwise
		}
		return s
	}
	switch partition, service, region, account := parts[1], parts[2], parts[3], parts[4]; {
	case !open(partition) && partition != "aws" && partition != "aws-cn" && partition != "aws-us-gov":
		l.find(LintResourceElsewhere, at, path, prefix(1, "aws"), "there is no partition %q", partition)
	case !open(service) && service != "iot" && service != "greengrass":
		l.find(LintResourceElsewhere, at, path, prefix(2, "iot"), "the resource belongs to service %q, not to iot", service)
	case !open(region) && !isRegion(region):
		l.find(LintResourceElsewhere, at, path, prefix(3, or(l.options.Region, "*")), "%q is no region", region)
	case !open(account) && !isAccount(account):
		l.find(LintResourceElsewhere, at, path, prefix(4, or(l.options.Account, "*")), "%q is no account", account)
	case l.options.Region != "" && !actionMatch(region, l.options.Region):
		l.find(LintResourceElsewhere, at, path, prefix(3, l.options.Region), "the resource is in region %s, not in %s", region, l.options.Region)
	case l.options.Account != "" && !actionMatch(account, l.options.Account):
		l.find(LintResourceElsewhere, at, path, prefix(4, l.options.Account), "the resource is in account %s, not in %s", account, l.options.Account)
	}
}

// isRegion accepts what looks like us-east-1.
func isRegion(s string) bool {
	parts := strings.Split(s, "-")
	last := parts[len(parts)-1]
	if len(parts) < 3 || len(last) != 1 || last < "0" || last > "9" {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

func isAccount(s string) bool {
	return len(s) == 12 && !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

func (l *linter) mqttWildcards(parts []string, written string, at int, path string) {
	kind, _ := kindOf(parts)
	starred := outsideVariables(written, l.mode, func(s string) string { return strings.NewReplacer("+", "*", "#", "*").Replace(s) })
	if kind == "" || starred == written {
		return
	}
	if kind != "topicfilter" {
		l.find(LintMQTTWildcard, at, path, fmt.Sprintf("write %q", starred), "+ and # are ordinary characters in a policy, and no %s has them: %q matches nothing", kind, written)
		return
	}
	_, filter, _ := strings.Cut(parts[5], "/")
	if slices.ContainsFunc(strings.Split(filter, "/"), func(level string) bool { return level == "+" || level == "#" }) {
		l.find(LintMQTTWildcardFilter, at, path, fmt.Sprintf("for all filters of that form write %q", starred), "%q allows exactly this filter: + and # are ordinary characters in a policy", written)
	}
}
