package policy

import (
	"fmt"
	"slices"
	"strings"
)

// own tells a key whose value the device can't choose.
func (k *keyRef) own() bool {
	switch k.id {
	case keyThingName, keyThingTypeName, keyThingAttribute, keyIsAttached, keyCertificateName, keyCertificateSerial, keyCertificateID:
		return true
	}
	return false
}

func (p *pattern) own() bool {
	found := false
	p.variables(func(v *piece) bool {
		found = v.key.own()
		return !found
	})
	return found
}

// bound tells whether a statement's conditions tie it to the thing or the certificate.
func (st *statement) bound() bool {
	return slices.ContainsFunc(st.conditions, func(c *condition) bool {
		return c.key.own() || slices.ContainsFunc(c.values, func(v *condValue) bool { return v.pattern != nil && v.pattern.own() })
	})
}

// wide looks for Allow statements that give away more than a device's own.
func (l *linter) wide(st *linted) {
	nodes, paths := st.items("Resource")
	everything := slices.ContainsFunc(st.source.Actions, func(a string) bool { return a == "*" || strings.EqualFold(a, "iot:*") })
	anywhere := slices.IndexFunc(st.source.Resources, anyResource)
	if everything && anywhere >= 0 {
		l.find(LintAllowsEverything, nodes[anywhere].offset, paths[anywhere], "name the actions, and resources with ${iot:Connection.Thing.ThingName}",
			"every device with this policy may do everything, as everyone")
		return
	}
	for i, written := range st.source.Resources {
		kind, rest := "", "*" // of "*"
		arn := "arn:aws:iot:*:*:"
		if !anyResource(written) {
			parts := splitARN(written)
			if len(parts) != 6 {
				continue
			}
			kind, rest = kindOf(parts)
			arn = strings.Join(parts[:5], ":") + ":"
		}
		everyone := strings.Trim(strings.ReplaceAll(rest, "${iot:ClientId}", "*"), "*") == ""
		if !l.claim && st.matchesAction(Connect) && (kind == "" || kind == "client") && !st.bound() && !st.resources[i].own() {
			fix := fmt.Sprintf("write %q", arn+"client/${iot:Connection.Thing.ThingName}")
			if everyone {
				l.find(LintClientForEveryone, nodes[i].offset, paths[i], fix+`, or add {"Bool": {"iot:Connection.Thing.IsAttached": "true"}} to Condition`,
					"%q lets every device connect as any client id, and so end another's connection", written)
			} else {
				l.find(LintConnectNotBound, nodes[i].offset, paths[i], fix, "%q is bound neither to the thing nor to the certificate", written)
			}
		}
		for _, a := range []Action{Publish, Subscribe, Receive} {
			if rest == "*" && st.matchesAction(a) && (kind == "" || kind == a.ResourceKind()) {
				l.find(LintTopicForEveryone, nodes[i].offset, paths[i], fmt.Sprintf("write such as %q", arn+a.ResourceKind()+"/devices/${iot:Connection.Thing.ThingName}/*"),
					"%q allows %s on every topic", written, a)
				break
			}
		}
	}
}

// forClaims tells the policy of a claim certificate by the topics of fleet
// provisioning. Devices that share one have neither things nor names yet, so that its
// iot:Connect can't be bound.
func (d *Document) forClaims() bool {
	return slices.ContainsFunc(d.statements, func(st *statement) bool {
		return st.source.Effect == Allow && st.matchesAction(Publish) && slices.ContainsFunc(st.source.Resources, func(resource string) bool {
			return strings.Contains(resource, ":topic/$aws/certificates/create") || strings.Contains(resource, ":topic/$aws/provisioning-templates/")
		})
	})
}

// anyResource tells a resource that matches all of a tenant.
func anyResource(written string) bool {
	if written == "*" {
		return true
	}
	parts := splitARN(written)
	last := parts[len(parts)-1]
	return last != "" && strings.Trim(last, "*") == ""
}

// maxFilters bounds the filters that are compared with all topics.
const maxFilters = 200

// whole looks at what the document as a whole lacks; paths are those of its statements.
func (l *linter) whole(paths []string) {
	connects, subscribes := false, []*pattern(nil)
	var places []*entry
	for i, st := range l.doc.statements {
		if st.source.Effect == Deny {
			continue
		}
		connects = connects || st.matchesAction(Connect)
		if st.matchesAction(Subscribe) && !st.source.NotResource && len(subscribes) < maxFilters {
			subscribes = append(subscribes, st.resources...)
			for range st.resources {
				places = append(places, &entry{statement: st, index: i})
			}
		}
	}
	if !connects {
		l.findings = append(l.findings, Finding{Code: LintConnectMissing, Severity: severityOf(LintConnectMissing), Line: 1, Column: 1,
			Message: "no statement allows iot:Connect", Fix: "allow iot:Connect on client/${iot:Connection.Thing.ThingName}, here or in another policy of the device"})
	}
	told := map[int]bool{}
	for n, p := range subscribes {
		en := places[n]
		if told[en.index] || !ofTopics(p.source) || l.received(p.source) {
			continue
		}
		told[en.index] = true
		fix := "allow iot:Receive"
		if moved, ok := withKind(p.source, "topic"); ok {
			moved = outsideVariables(moved, l.mode, func(s string) string { return strings.NewReplacer("+", "*", "#", "*").Replace(s) })
			fix = fmt.Sprintf("allow iot:Receive on %q", moved)
		}
		l.findings = append(l.findings, Finding{Code: LintReceiveMissing, Severity: severityOf(LintReceiveMissing), Line: en.source.Line, Column: en.source.Column, Member: paths[en.index],
			Message: fmt.Sprintf("iot:Subscribe on %q without iot:Receive: messages are dropped in silence", p.source), Fix: fix})
	}
}

// ofTopics tells whether iot:Subscribe can be meant by a resource: one statement may have
// those of other actions, too.
func ofTopics(resource string) bool {
	parts := splitARN(resource)
	if len(parts) != 6 {
		return true
	}
	kind, _ := kindOf(parts)
	return kind == "" || kind == "topic" || kind == "topicfilter"
}

// received tells whether a statement allows iot:Receive on something that a filter
// may bring. Patterns are compared as texts: one must match the other.
func (l *linter) received(filter string) bool {
	plain := func(s string) string {
		parts := splitARN(s)
		name := parts[len(parts)-1]
		if _, rest, found := strings.Cut(name, "/"); found && len(parts) == 6 {
			name = rest
		}
		if shared, found := strings.CutPrefix(name, "$share/"); found {
			_, name, _ = strings.Cut(shared, "/")
		}
		return outsideVariables(name, l.mode, func(s string) string { return strings.NewReplacer("+", "*", "#", "*").Replace(s) })
	}
	want := plain(filter)
	for _, st := range l.doc.statements {
		if st.source.Effect == Deny || !st.matchesAction(Receive) {
			continue
		}
		if st.source.NotResource {
			return true
		}
		for _, p := range st.resources {
			if parts := splitARN(p.source); len(parts) == 6 {
				if kind, _ := kindOf(parts); kind != "" && kind != "topic" {
					continue
				}
			}
			have := plain(p.source)
			if actionMatch(have, want) || actionMatch(want, have) {
				return true
			}
		}
	}
	return false
}
