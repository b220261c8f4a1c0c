package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// StatementRef names a statement: its policy, its place counted from 1, its Sid.
type StatementRef struct {
	Policy    string `json:"policy"`
	Statement int    `json:"statement"`
	Sid       string `json:"sid,omitempty"`
}

// String gives `statement 1 ("Sid") of policy "name"`.
func (r StatementRef) String() string {
	text := "statement " + strconv.Itoa(r.Statement)
	if r.Sid != "" {
		text += " (" + strconv.Quote(r.Sid) + ")"
	}
	return text + " of policy " + strconv.Quote(r.Policy)
}

func (en *entry) ref() StatementRef {
	return StatementRef{Policy: en.policy, Statement: en.index + 1, Sid: en.source.Sid}
}

// StatementText is a statement as its author wrote it, and where it begins in the
// document.
type StatementText struct {
	StatementRef
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Text   string `json:"text"`
}

func (en *entry) written() *StatementText {
	return &StatementText{StatementRef: en.ref(), Line: en.source.Line, Column: en.source.Column, Text: en.source.Text}
}

// VariableValue is a variable that a statement uses, with what became of it.
type VariableValue struct {
	Name     string `json:"name"`
	Value    string `json:"value,omitempty"`
	Resolved bool   `json:"resolved"`
	// Reason tells why an unresolved variable has no value.
	Reason string `json:"reason,omitempty"`
}

// FailedCondition is a condition that kept a statement from applying although
// its action and resource matched.
type FailedCondition struct {
	StatementRef
	Operator string   `json:"operator"`
	Key      string   `json:"key"`
	Want     []string `json:"want"`
	Got      []string `json:"got"` // empty when the key is absent
}

// MetCondition is a condition of the statement that denies, all of which are met.
type MetCondition struct {
	Operator string   `json:"operator"`
	Key      string   `json:"key"`
	Want     []string `json:"want"`
	Got      []string `json:"got"` // empty when the key is absent
}

func (c MetCondition) String() string {
	if len(c.Got) == 0 {
		return fmt.Sprintf("%s with %s, which has no value, for %q", c.Operator, c.Key, c.Want)
	}
	return fmt.Sprintf("%s with %s, which is %q, for %q", c.Operator, c.Key, c.Got, c.Want)
}

// Explanation is a decision with its reason. Deciding is nil for an implicit deny.
// Statement is the deciding statement, else the one that came nearest; nil when
// none names the action.
type Explanation struct {
	Decision   Decision          `json:"decision"`
	Action     Action            `json:"action"`
	Resource   string            `json:"resource"`
	Deciding   *StatementRef     `json:"deciding,omitempty"`
	Statement  *StatementText    `json:"statement,omitempty"`
	AllowedBy  []StatementRef    `json:"allowedBy,omitempty"`
	DeniedBy   []StatementRef    `json:"deniedBy,omitempty"`
	Variables  []VariableValue   `json:"variables,omitempty"`
	Conditions []FailedCondition `json:"failedConditions,omitempty"`
	Met        []MetCondition    `json:"metConditions,omitempty"` // of an explicit deny
	Missing    []string          `json:"missingKeys,omitempty"`   // keys without a value, sorted
	NearMiss   *NearMiss         `json:"nearMiss,omitempty"`      // for implicit denials
	Dropped    []DroppedDeny     `json:"droppedDenies,omitempty"`
	Sentence   string            `json:"sentence"`
	Hint       string            `json:"hint,omitempty"`
}

// DroppedDeny is a Deny that would have applied if its variable had a value.
type DroppedDeny struct {
	StatementRef
	Pattern  string `json:"pattern"`
	Variable string `json:"variable"`
	Reason   string `json:"reason"`
}

// String gives the sentence, the hint and the variables, a line each.
func (x Explanation) String() string {
	var b strings.Builder
	b.WriteString(x.Sentence)
	if x.Hint != "" {
		b.WriteString("\nhint: ")
		b.WriteString(x.Hint)
	}
	for _, v := range x.Variables {
		if v.Resolved {
			fmt.Fprintf(&b, "\n${%s} = %q", v.Name, v.Value)
			continue
		}
		fmt.Fprintf(&b, "\n${%s} has no value: %s", v.Name, v.Reason)
	}
	for _, c := range x.Conditions {
		fmt.Fprintf(&b, "\ncondition %s %s wants %q, got %q in %s", c.Operator, c.Key, c.Want, c.Got, c.StatementRef)
	}
	for _, d := range x.Dropped {
		fmt.Fprintf(&b, "\n%s denies nothing here: %s in %q has no value: %s", d.StatementRef, d.Variable, d.Pattern, d.Reason)
	}
	return b.String()
}

// Paragraph gives the sentence and what became of the variables, in one line,
// for traces, which keep the hint beside it.
func (x Explanation) Paragraph() string {
	var b strings.Builder
	b.WriteString(x.Sentence)
	for _, v := range x.Variables {
		if v.Resolved {
			fmt.Fprintf(&b, " ${%s} is %q.", v.Name, v.Value)
			continue
		}
		if x.NearMiss != nil && x.NearMiss.Variable == v.Name {
			continue // the sentence says it
		}
		fmt.Fprintf(&b, " ${%s} has no value: %s.", v.Name, v.Reason)
	}
	return b.String()
}

// Explain decides like Decide and tells why. It is meant for people and traces:
// it costs a few microseconds a statement.
func (s *Set) Explain(r *Request) Explanation {
	e := newEval(r)
	x := Explanation{Action: r.Action, Resource: r.Resource()}
	text := subject{a: r.ResourcePrefix, b: r.ResourceName}
	deciding := x.collect(&e, &text, s.deny, &x.DeniedBy)
	allowing := x.collect(&e, &text, s.allow, &x.AllowedBy)
	switch {
	case deciding != nil:
		x.Decision = ExplicitDeny
	case allowing != nil:
		x.Decision, deciding = Allowed, allowing
	}
	if deciding == nil {
		x.explainNothing(s, &e)
	} else {
		x.explainDecided(&e, deciding, allowing)
	}
	x.noteDropped(&e, &text, s.deny)
	if s.instead != "" && x.Decision != Allowed {
		x.Hint = s.instead
	}
	slices.Sort(x.Missing)
	x.Missing = slices.Compact(x.Missing)
	return x
}

func (x *Explanation) explainDecided(e *eval, deciding, allowing *entry) {
	ref := deciding.ref()
	x.Deciding, x.Statement = &ref, deciding.written()
	x.Variables = variablesOf(e, deciding)
	x.Sentence = fmt.Sprintf("%s on %s: %s ", x.Action, x.Resource, ref)
	switch {
	case x.Decision == Allowed:
		x.Sentence += "allows it."
		return
	case allowing != nil:
		x.Sentence += fmt.Sprintf("denies it, and wins over %s, which allows it.", allowing.ref())
	default:
		x.Sentence += "denies it."
	}
	x.Hint = "an explicit deny wins over every allow; narrow or remove that statement"
	var met []string
	for _, c := range deciding.conditions {
		var one [1]string
		m := MetCondition{Operator: c.name, Key: c.key.text, Want: c.sources(), Got: slices.Clone(e.values(&c.key, &one, true))}
		x.Met = append(x.Met, m)
		met = append(met, m.String())
	}
	if len(met) > 0 {
		x.Sentence += " Its condition is met: " + strings.Join(met, ", and ") + "."
		x.Hint = "an explicit deny wins over every allow; change what the condition asks for, or narrow or remove that statement"
	}
}

// noteDropped finds the Deny statements that a variable without a value keeps from
// applying: whoever wrote one meant it to.
func (x *Explanation) noteDropped(e *eval, text *subject, entries []entry) {
	for i := range entries {
		en := &entries[i]
		if en.source.NotResource || !en.matchesAction(e.req.Action) || en.matchesResource(e, text) || !en.matchesConditions(e) {
			continue
		}
		for _, p := range en.resources {
			v, ok := firstUnresolved(e, p)
			if !ok {
				continue
			}
			wide, err := parsePattern(wildUnresolved(e, p), patternMode{variables: true, wildcards: true})
			if err == nil && wide.match(e, text) {
				x.Dropped = append(x.Dropped, DroppedDeny{StatementRef: en.ref(), Pattern: p.source, Variable: v.text, Reason: e.unresolvedReason(&v.key)})
				break
			}
		}
	}
}

// collect finds the statements that apply and notes the conditions of those
// that nearly do. It gives the first.
func (x *Explanation) collect(e *eval, text *subject, entries []entry, into *[]StatementRef) *entry {
	var found *entry
	for i := range entries {
		en := &entries[i]
		if !en.matchesAction(e.req.Action) {
			continue
		}
		x.noteMissing(e, en)
		if !en.matchesResource(e, text) {
			continue
		}
		if !en.matchesConditions(e) {
			x.noteConditions(e, en)
			continue
		}
		*into = append(*into, en.ref())
		if found == nil {
			found = en
		}
	}
	return found
}

func (x *Explanation) noteMissing(e *eval, en *entry) {
	for _, v := range variablesOf(e, en) {
		if !v.Resolved {
			x.Missing = append(x.Missing, v.Name)
		}
	}
	for _, c := range en.conditions {
		var one [1]string
		if len(e.values(&c.key, &one, false)) == 0 {
			x.Missing = append(x.Missing, c.key.text)
		}
	}
}

func (x *Explanation) noteConditions(e *eval, en *entry) {
	for _, c := range en.conditions {
		if c.holds(e, en.source.Effect) {
			continue
		}
		var one [1]string
		x.Conditions = append(x.Conditions, FailedCondition{
			StatementRef: en.ref(),
			Operator:     c.name,
			Key:          c.key.text,
			Want:         c.sources(),
			Got:          slices.Clone(e.values(&c.key, &one, true)),
		})
	}
}

func (x *Explanation) explainNothing(s *Set, e *eval) {
	x.NearMiss = s.nearMiss(x, e)
	miss := x.NearMiss
	x.Sentence = fmt.Sprintf("%s on %s: no statement allows it", x.Action, x.Resource)
	if len(s.names) > 0 {
		x.Sentence += ", of " + s.looked()
	}
	x.Sentence += ". "
	x.Hint = miss.Hint
	if miss.Statement != nil {
		ref := miss.Statement.String()
		if !strings.Contains(miss.Sentence, ref) {
			x.Sentence += "Nearest is " + ref + ": "
		}
		if miss.Kind.edits() && !strings.Contains(miss.Hint, ref) {
			x.Hint += " (" + ref + ")"
		}
	}
	x.Sentence += miss.Sentence
	if en := x.NearMiss.entry; en != nil {
		x.Variables, x.Statement = variablesOf(e, en), en.written()
	}
}

// maxLooked bounds the policies that a denial names.
const maxLooked = 8

// looked names the policies that were looked at.
func (s *Set) looked() string {
	var b strings.Builder
	b.WriteString("policy ")
	if len(s.names) > 1 {
		b.Reset()
		b.WriteString("policies ")
	}
	for i, name := range s.names {
		if i == maxLooked {
			fmt.Fprintf(&b, " and %d more", len(s.names)-maxLooked)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", name)
	}
	return b.String()
}

// variablesOf lists the variables of a statement, each once, in their order.
func variablesOf(e *eval, en *entry) []VariableValue {
	var out []VariableValue
	note := func(p *piece) bool {
		for _, v := range out {
			if v.Name == p.key.text {
				return true
			}
		}
		v := VariableValue{Name: p.key.text}
		v.Value, v.Resolved = e.substitute(&p.key)
		switch {
		case v.Resolved:
		case p.hasFall:
			v.Value, v.Resolved = p.fallback, true
		default:
			v.Value = ""
			v.Reason = e.unresolvedReason(&p.key)
		}
		out = append(out, v)
		return true
	}
	for _, p := range en.resources {
		p.variables(note)
	}
	for _, c := range en.conditions {
		for _, v := range c.values {
			v.pattern.variables(note)
		}
	}
	return out
}

// unresolvedReason tells a person why a variable has no value.
func (e *eval) unresolvedReason(k *keyRef) string {
	b := e.single(k)
	switch {
	case b.present && b.refused:
		return fmt.Sprintf("its value %q has a character that is never substituted, or is empty or too long", b.text)
	case k.list || k.id == keyConnectAttributes:
		return "it has several values and can only be used as a condition key"
	}
	switch k.id {
	case keyThingName, keyThingTypeName, keyThingAttribute:
		switch {
		case !e.vars.attached.present:
			return "the request is not made on an MQTT connection"
		case e.vars.attached.text == "false":
			return "no thing belongs to this connection: attach the certificate to a thing whose name is the client id"
		case k.id == keyThingTypeName:
			return "the thing has no thing type"
		}
		return fmt.Sprintf("the thing has no attribute %q", k.name)
	case keyClientID:
		return "the request is not made on an MQTT connection"
	case keyCertificateName, keyCertificateSerial:
		if e.vars.certificate == nil {
			return "the connection has no client certificate"
		}
		return "the certificate has no such attribute"
	case keyCertificateID:
		return "iot:CertificateId is not switched on"
	}
	return "the request has no such key"
}

// unresolvedHint tells what gives a variable a value.
func (e *eval) unresolvedHint(k *keyRef) string {
	const without = ", or write the resource without the variable"
	b := e.single(k)
	switch k.id {
	case keyThingName, keyThingTypeName, keyThingAttribute:
		switch {
		case b.present:
			return "give it a value without those characters" + without
		case !e.vars.attached.present:
			return "use MQTT" + without
		case e.vars.attached.text == "false":
			return "connect with the thing's name as client id, and attach the certificate to that thing"
		case k.id == keyThingTypeName:
			return "give the thing a type" + without
		}
		return fmt.Sprintf("give the thing the attribute %q", k.name) + without
	case keyCertificateName, keyCertificateSerial:
		return "issue certificates with that attribute" + without
	}
	return "give the variable a value, or write the resource without it"
}
