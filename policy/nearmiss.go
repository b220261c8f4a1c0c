package policy

import (
	"fmt"
	"strings"
)

// NearMissKind names what a statement lacked to allow a request.
type NearMissKind string

// The kinds, from the closest miss to the farthest.
const (
	MissCondition    NearMissKind = "condition"     // action and resource match, a condition does not
	MissVariable     NearMissKind = "variable"      // a variable has no value
	MissVersion      NearMissKind = "version"       // variables in a document of version 2008-10-17
	MissResourceKind NearMissKind = "resource-kind" // topic/ where topicfilter/ is needed, and the like
	MissLocation     NearMissKind = "location"      // another partition, service, region or account
	MissMQTTWildcard NearMissKind = "mqtt-wildcard" // + or # written where * is needed
	MissCase         NearMissKind = "case"          // differs only in upper and lower case
	MissExcluded     NearMissKind = "excluded"      // NotResource leaves the resource out
	MissResource     NearMissKind = "resource"      // another resource
	MissAction       NearMissKind = "action"        // no statement allows the action
	MissNoPolicy     NearMissKind = "no-policy"     // nothing is attached
)

// NearMiss is the statement that came closest to allowing a request.
type NearMiss struct {
	Kind      NearMissKind  `json:"kind"`
	Statement *StatementRef `json:"statement,omitempty"`
	Pattern   string        `json:"pattern,omitempty"` // the resource or action as written
	Sentence  string        `json:"sentence"`
	Hint      string        `json:"hint"`

	entry *entry
}

// nearMiss looks at each allow statement and keeps the closest.
func (s *Set) nearMiss(x *Explanation, e *eval) *NearMiss {
	if len(s.names) == 0 {
		return &NearMiss{Kind: MissNoPolicy, Sentence: "No policy is attached.",
			Hint: "attach a policy to the certificate, or to a thing group of its thing"}
	}
	var best *NearMiss
	bestRank := len(missOrder())
	for i := range s.allow {
		en := &s.allow[i]
		if !en.matchesAction(e.req.Action) {
			continue
		}
		miss := examine(x, e, en)
		rank := rankOf(miss.Kind)
		if rank < bestRank || best != nil && rank == bestRank && closer(miss, best, x.Resource) {
			ref := en.ref()
			miss.Statement, miss.entry = &ref, en
			best, bestRank = miss, rank
		}
	}
	if best == nil {
		return s.missedAction(e.req.Action)
	}
	return best
}

func missOrder() []NearMissKind {
	return []NearMissKind{MissCondition, MissVariable, MissVersion, MissResourceKind, MissLocation,
		MissMQTTWildcard, MissCase, MissExcluded, MissResource, MissAction, MissNoPolicy}
}

func rankOf(kind NearMissKind) int {
	for i, k := range missOrder() {
		if k == kind {
			return i
		}
	}
	return len(missOrder())
}

// closer prefers the pattern that begins more like the resource.
func closer(a, b *NearMiss, resource string) bool {
	return commonPrefix(a.Pattern, resource) > commonPrefix(b.Pattern, resource)
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func (s *Set) missedAction(a Action) *NearMiss {
	miss := &NearMiss{Kind: MissAction,
		Sentence: fmt.Sprintf("%s is missing: no Allow statement names the action.", a),
		Hint:     fmt.Sprintf("add a statement with \"Effect\": \"Allow\" and \"Action\": %q to one of the attached policies: %s", a, strings.Join(s.names, ", "))}
	var written []string
	for i := range s.allow {
		if !s.allow[i].source.NotAction {
			written = append(written, s.allow[i].source.Actions...)
		}
	}
	known := map[string]bool{}
	for _, action := range DataPlaneActions() {
		known[strings.ToLower(string(action))] = true
	}
	for _, w := range written {
		if len(w) < 64 && len(a) < 64 && !known[strings.ToLower(w)] && !strings.ContainsAny(w, "*?") && editDistance(strings.ToLower(w), strings.ToLower(string(a))) <= 2 {
			miss.Pattern = w
			miss.Hint = fmt.Sprintf("the policy says %q; did it mean %q?", w, a)
		}
	}
	return miss
}

// examine tells what an allow statement of the right action lacked.
func examine(x *Explanation, e *eval, en *entry) *NearMiss {
	text := subject{b: x.Resource}
	if en.matchesResource(e, &text) {
		return missedCondition(x, en)
	}
	if en.source.NotResource {
		return missedExclusion(e, en)
	}
	best := &NearMiss{Kind: MissResource, Pattern: en.source.Resources[0]}
	for i, p := range en.resources {
		miss := examinePattern(x, e, en, p, &text)
		if miss == nil {
			miss = missedResource(x, en.source.Resources[i])
		}
		if i == 0 || rankOf(miss.Kind) < rankOf(best.Kind) || rankOf(miss.Kind) == rankOf(best.Kind) && closer(miss, best, x.Resource) {
			best = miss
		}
	}
	return best
}

func missedCondition(x *Explanation, en *entry) *NearMiss {
	miss := &NearMiss{Kind: MissCondition, Sentence: fmt.Sprintf("A condition of %s is not met.", en.ref()),
		Hint: "see the failed conditions"}
	for _, c := range x.Conditions {
		if c.StatementRef != en.ref() {
			continue
		}
		got := fmt.Sprintf("is %q", c.Got)
		if len(c.Got) == 0 {
			got = "has no value"
		}
		miss.Sentence = fmt.Sprintf("Condition %s of %s is not met: %s %s, wanted is %q.", c.Operator, en.ref(), c.Key, got, c.Want)
		miss.Hint = fmt.Sprintf("change the condition, or what %s stands for", c.Key)
		break
	}
	return miss
}

func missedExclusion(e *eval, en *entry) *NearMiss {
	for _, v := range variablesOf(e, en) {
		if !v.Resolved {
			return &NearMiss{Kind: MissVariable,
				Sentence: fmt.Sprintf("${%s} in NotResource of %s has no value: %s.", v.Name, en.ref(), v.Reason),
				Hint:     "an Allow with NotResource grants nothing while one of its variables has no value"}
		}
	}
	return &NearMiss{Kind: MissExcluded, Sentence: fmt.Sprintf("NotResource of %s excludes this resource.", en.ref()),
		Hint: "remove it from NotResource, or allow it in another statement"}
}

func missedResource(x *Explanation, source string) *NearMiss {
	return &NearMiss{Kind: MissResource, Pattern: source,
		Sentence: fmt.Sprintf("The nearest resource is %q, which does not match.", source),
		Hint:     fmt.Sprintf("add %q to Resource, or use * for the part that varies", x.Resource)}
}

// examinePattern tries one change after another and tells the one that would have made the pattern match.
func examinePattern(x *Explanation, e *eval, en *entry, p *pattern, text *subject) *NearMiss {
	mode := patternMode{variables: en.doc.version == Version2012, wildcards: true}
	matches := func(source string, m patternMode) bool {
		changed, err := parsePattern(source, m)
		return err == nil && changed.match(e, text)
	}
	if v, ok := firstUnresolved(e, p); ok && matches(wildUnresolved(e, p), mode) {
		return &NearMiss{Kind: MissVariable, Pattern: p.source,
			Sentence: fmt.Sprintf("%s in %q has no value: %s.", v.text, p.source, e.unresolvedReason(&v.key)),
			Hint:     "give the variable a value, or write the resource without it"}
	}
	if !mode.variables && strings.Contains(p.source, "${") && matches(p.source, patternMode{variables: true, wildcards: true}) {
		return &NearMiss{Kind: MissVersion, Pattern: p.source,
			Sentence: fmt.Sprintf("%q has a variable, but the document's Version is %s, where ${...} is plain text.", p.source, en.doc.version),
			Hint:     `write "Version": "2012-10-17"`}
	}
	if miss := examineKind(x, p, mode, matches); miss != nil {
		return miss
	}
	if located, differs := relocate(p.source, x.Resource); differs != "" && matches(located, mode) {
		return &NearMiss{Kind: MissLocation, Pattern: p.source,
			Sentence: fmt.Sprintf("%q is for another %s.", p.source, differs),
			Hint:     fmt.Sprintf("write %q", located)}
	}
	if starred := outsideVariables(p.source, mode, func(s string) string {
		return strings.NewReplacer("+", "*", "#", "*").Replace(s)
	}); starred != p.source && matches(starred, mode) {
		return &NearMiss{Kind: MissMQTTWildcard, Pattern: p.source,
			Sentence: fmt.Sprintf("+ and # are ordinary characters in a policy, so %q matches only itself.", p.source),
			Hint:     fmt.Sprintf("write %q", starred)}
	}
	return examineCase(x, e, p, mode)
}

func examineCase(x *Explanation, e *eval, p *pattern, mode patternMode) *NearMiss {
	lowered, err := parsePattern(outsideVariables(p.source, mode, strings.ToLower), mode)
	if err != nil || !lowered.match(e, &subject{b: strings.ToLower(x.Resource)}) {
		return nil
	}
	return &NearMiss{Kind: MissCase, Pattern: p.source,
		Sentence: fmt.Sprintf("%q differs from the resource only in upper and lower case.", p.source),
		Hint:     "resources are case-sensitive; write it as the device does"}
}

// examineKind puts the resource type of the request into the pattern.
func examineKind(x *Explanation, p *pattern, mode patternMode, matches func(string, patternMode) bool) *NearMiss {
	want := x.Action.ResourceKind()
	parts := splitARN(p.source)
	if want == "" || len(parts) != 6 {
		return nil
	}
	have, rest, found := strings.Cut(parts[5], "/")
	if want == "*" {
		return &NearMiss{Kind: MissResourceKind, Pattern: p.source,
			Sentence: fmt.Sprintf("%s knows no single resources, but %q names one.", x.Action, p.source),
			Hint:     `write "Resource": "*"`}
	}
	if !found || have == want {
		return nil
	}
	parts[5] = want + "/" + rest
	changed := strings.Join(parts, ":")
	if !matches(changed, mode) {
		changed, _ = relocate(changed, x.Resource)
		if !matches(changed, mode) {
			return nil
		}
	}
	return &NearMiss{Kind: MissResourceKind, Pattern: p.source,
		Sentence: fmt.Sprintf("%s is checked against %s/, but %q names %s/.", x.Action, want, p.source, have),
		Hint:     fmt.Sprintf("write %q", changed)}
}

// relocate puts partition, service, region and account of the resource into the
// pattern, and names those that differed.
func relocate(source, resource string) (string, string) {
	have, want := splitARN(source), splitARN(resource)
	if len(have) != 6 || len(want) != 6 {
		return source, ""
	}
	var differs []string
	for i, name := range [...]string{1: "partition", 2: "service", 3: "region", 4: "account"} {
		if i > 0 && have[i] != want[i] && !actionMatch(have[i], want[i]) {
			differs = append(differs, name)
			have[i] = want[i]
		}
	}
	return strings.Join(have, ":"), strings.Join(differs, " and ")
}

func firstUnresolved(e *eval, p *pattern) (*piece, bool) {
	var found *piece
	p.variables(func(v *piece) bool {
		_, ok := e.substitute(&v.key)
		if !ok && !v.hasFall {
			found = v
		}
		return found == nil
	})
	return found, found != nil
}

// wildUnresolved replaces the variables without a value by '*'.
func wildUnresolved(e *eval, p *pattern) string {
	source := p.source
	p.variables(func(v *piece) bool {
		_, ok := e.substitute(&v.key)
		if !ok && !v.hasFall {
			source = strings.ReplaceAll(source, v.text, "*")
		}
		return true
	})
	return source
}

// outsideVariables changes the text between variables.
func outsideVariables(source string, mode patternMode, change func(string) string) string {
	if !mode.variables {
		return change(source)
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(source, "${")
		b.WriteString(change(before))
		if !found {
			return b.String()
		}
		name, rest, _ := strings.Cut(after, "}")
		b.WriteString("${" + name + "}")
		source = rest
	}
}
