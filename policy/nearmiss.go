package policy

import (
	"fmt"
	"strings"

	"github.com/imprint-iot/imprint/internal/nearest"
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
	MissShare        NearMissKind = "share"         // a shared subscription, whose filter begins with $share/NAME/
	MissCase         NearMissKind = "case"          // differs only in upper and lower case
	MissSlash        NearMissKind = "slash"         // differs only in a slash at an end, or two in a row
	MissLevel        NearMissKind = "level"         // ends one level too high or begins one too low
	MissExcluded     NearMissKind = "excluded"      // NotResource leaves the resource out
	MissOtherAction  NearMissKind = "other-action"  // a related action is allowed on it, such as iot:Publish for iot:RetainPublish
	MissResource     NearMissKind = "resource"      // another resource
	MissAction       NearMissKind = "action"        // no statement allows the action
	MissNoPolicy     NearMissKind = "no-policy"     // nothing is attached
)

// NearMiss is the statement that came closest to allowing a request.
type NearMiss struct {
	Kind      NearMissKind  `json:"kind"`
	Statement *StatementRef `json:"statement,omitempty"`
	Pattern   string        `json:"pattern,omitempty"`  // the resource or action as written
	Variable  string        `json:"variable,omitempty"` // MissVariable: its name
	Sentence  string        `json:"sentence"`
	Hint      string        `json:"hint"`

	entry *entry
	from  *pattern // MissResource: what is put into words if nothing comes closer
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
	if best == nil || bestRank >= rankOf(MissResource) {
		if miss := s.missedSibling(x, e); miss != nil {
			return miss
		}
	}
	if best == nil {
		return s.missedAction(e.req.Action)
	}
	best.describe(x, e)
	return best
}

// siblings are the actions that are taken for one another.
func (a Action) siblings() []Action {
	switch a {
	case RetainPublish:
		return []Action{Publish}
	case Publish:
		return []Action{RetainPublish, Receive, Subscribe}
	case Receive:
		return []Action{Subscribe, Publish}
	case Subscribe:
		return []Action{Receive, Publish}
	}
	return nil
}

// missedSibling finds a statement that allows a related action on the resource, in
// the resource type of that action.
func (s *Set) missedSibling(x *Explanation, e *eval) *NearMiss {
	for _, sibling := range x.Action.siblings() {
		moved, ok := withKind(x.Resource, sibling.ResourceKind())
		if !ok {
			return nil
		}
		text := subject{b: moved}
		for i := range s.allow {
			en := &s.allow[i]
			if !en.matchesAction(sibling) || en.matchesAction(x.Action) || !en.matchesResource(e, &text) || !en.matchesConditions(e) {
				continue
			}
			ref := en.ref()
			miss := &NearMiss{Kind: MissOtherAction, Statement: &ref, Pattern: string(sibling), entry: en,
				Sentence: fmt.Sprintf("%s is missing: %s allows only %s there.", x.Action, ref, sibling),
				Hint:     fmt.Sprintf("add %q to Action of %s", x.Action, ref)}
			if sibling.ResourceKind() != x.Action.ResourceKind() {
				miss.Hint = fmt.Sprintf("add a statement that allows %s on %q", x.Action, en.asKind(e, &text, x))
			}
			return miss
		}
	}
	return nil
}

// asKind gives the resource that matched a text in the type that the request's
// action is checked against.
func (en *entry) asKind(e *eval, text *subject, x *Explanation) string {
	if !en.source.NotResource {
		for _, p := range en.resources {
			moved, ok := withKind(p.source, x.Action.ResourceKind())
			if ok && p.match(e, text) {
				return moved
			}
		}
	}
	return x.Resource
}

// withKind puts another resource type into an ARN.
func withKind(arn, kind string) (string, bool) {
	parts := splitARN(arn)
	if len(parts) != 6 || kind == "" {
		return "", false
	}
	_, rest, found := strings.Cut(parts[5], "/")
	if !found {
		return "", false
	}
	parts[5] = kind + "/" + rest
	return strings.Join(parts, ":"), true
}

func missOrder() []NearMissKind {
	return []NearMissKind{MissCondition, MissVariable, MissVersion, MissResourceKind, MissLocation,
		MissMQTTWildcard, MissShare, MissCase, MissSlash, MissLevel, MissExcluded, MissOtherAction, MissResource, MissAction, MissNoPolicy}
}

// NearMissKinds lists the kinds, from the closest miss to the farthest.
func NearMissKinds() []NearMissKind { return missOrder() }

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
		if len(w) < 64 && len(a) < 64 && !known[strings.ToLower(w)] && !strings.ContainsAny(w, "*?") && nearest.Distance(w, string(a)) <= 2 {
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
			miss = &NearMiss{Kind: MissResource, Pattern: p.source, from: p}
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
			return &NearMiss{Kind: MissVariable, Variable: v.Name,
				Sentence: fmt.Sprintf("${%s} in NotResource of %s has no value: %s.", v.Name, en.ref(), v.Reason),
				Hint:     "an Allow with NotResource grants nothing while one of its variables has no value"}
		}
	}
	return &NearMiss{Kind: MissExcluded, Sentence: fmt.Sprintf("NotResource of %s excludes this resource.", en.ref()),
		Hint: "remove it from NotResource, or allow it in another statement"}
}

// describe words a resource that isn't like the request's in any way that has a
// kind of its own.
func (n *NearMiss) describe(x *Explanation, e *eval) {
	p := n.from
	if p == nil {
		return
	}
	n.Sentence = fmt.Sprintf("The nearest resource is %q, which does not match.", p.source)
	n.Hint = fmt.Sprintf("add %q to Resource, or use * for the part that varies", x.Resource)
	if p.hasVars && p.resolved(e) {
		n.Sentence = fmt.Sprintf("The nearest resource is %q, which stands for %q here and does not match.", p.source, p.rendered(e))
	}
}

// rendered is the pattern with the values of its variables.
func (p *pattern) rendered(e *eval) string {
	source := p.source
	p.variables(func(v *piece) bool {
		source = strings.ReplaceAll(source, v.text, v.value(e))
		return true
	})
	return source
}

// examinePattern tries one change after another and tells the one that would have made the pattern match.
func examinePattern(x *Explanation, e *eval, en *entry, p *pattern, text *subject) *NearMiss {
	mode := patternMode{variables: en.doc.version == Version2012, wildcards: true}
	matches := func(source string, m patternMode) bool {
		changed, err := parsePattern(source, m)
		return err == nil && changed.match(e, text)
	}
	if v, ok := firstUnresolved(e, p); ok && matches(wildUnresolved(e, p), mode) {
		return &NearMiss{Kind: MissVariable, Pattern: p.source, Variable: v.key.text,
			Sentence: fmt.Sprintf("%s in %q has no value: %s.", v.text, p.source, e.unresolvedReason(&v.key)),
			Hint:     e.unresolvedHint(&v.key)}
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
	if miss := examineShare(x, e, p); miss != nil {
		return miss
	}
	if miss := examineCase(x, e, p, mode); miss != nil {
		return miss
	}
	return examineEnds(x, p, matches, mode)
}

// examineShare looks whether the filter inside of a shared subscription matches.
func examineShare(x *Explanation, e *eval, p *pattern) *NearMiss {
	before, shared, found := strings.Cut(x.Resource, ":topicfilter/$share/")
	_, inner, named := strings.Cut(shared, "/")
	if !found || !named || !p.match(e, &subject{b: before + ":topicfilter/" + inner}) {
		return nil
	}
	head, filter, found := strings.Cut(p.source, ":topicfilter/")
	if !found {
		return nil
	}
	return &NearMiss{Kind: MissShare, Pattern: p.source,
		Sentence: fmt.Sprintf("%q matches the filter, but a shared subscription is asked for by its whole text.", p.source),
		Hint:     fmt.Sprintf("write %q", head+":topicfilter/$share/*/"+filter)}
}

// examineEnds changes slashes and the last level.
func examineEnds(x *Explanation, p *pattern, matches func(string, patternMode) bool, mode patternMode) *NearMiss {
	s, resource := p.source, x.Resource
	name := ""
	if parts := splitARN(s); len(parts) == 6 {
		_, name, _ = strings.Cut(parts[5], "/")
	}
	head := strings.TrimSuffix(s, name)
	if name == "" {
		return nil
	}
	for _, try := range []struct {
		worth   bool // spares the parsing of what can't match
		changed string
	}{
		{strings.HasSuffix(resource, "/"), s + "/"},
		{strings.HasSuffix(s, "/"), strings.TrimSuffix(s, "/")},
		{strings.Contains(resource, "//"), head + "/" + name},
		{strings.HasPrefix(name, "/"), head + strings.TrimPrefix(name, "/")},
		{strings.Contains(name, "//"), head + strings.ReplaceAll(name, "//", "/")},
	} {
		changed := try.changed
		if try.worth && matches(changed, mode) {
			return &NearMiss{Kind: MissSlash, Pattern: s,
				Sentence: fmt.Sprintf("%q differs from the resource only in a slash.", s),
				Hint:     fmt.Sprintf("every slash counts; write %q, or send what the policy says", changed)}
		}
	}
	if above, found := strings.CutSuffix(s, "/*"); found && name != "*" && matches(above, mode) {
		return &NearMiss{Kind: MissLevel, Pattern: s,
			Sentence: fmt.Sprintf("%q begins one level below the resource.", s),
			Hint:     fmt.Sprintf("add %q", above)}
	}
	above := strings.TrimSuffix(s, "/")
	if !strings.ContainsAny(s, "*?$") && !strings.HasPrefix(resource, above) {
		return nil
	}
	if below := above + "/*"; matches(below, mode) {
		return &NearMiss{Kind: MissLevel, Pattern: s,
			Sentence: fmt.Sprintf("%q ends above the resource.", s),
			Hint:     fmt.Sprintf("for everything below it add %q", below)}
	}
	return nil
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
