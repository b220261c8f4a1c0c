package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Use is something that a device did or tried. Vars are the values of its
// connection.
type Use struct {
	Action   Action
	Resource string // an ARN
	Vars     *Variables
}

// minValue is the length from which on a level that equals a value is taken for it;
// shorter ones coincide by chance.
const minValue = 3

// Least gives the documents that together allow what was used, and as little else as
// the language lets one say: levels that equal the thing's name, a name of the
// certificate or the client id become variables, so that the same documents serve a
// fleet; all else is written out. A subscription comes with iot:Receive on what it
// brings. Each document keeps to MaxCharacters. There are none without uses.
//
// Every use is checked against the result. The error says which couldn't be allowed.
func Least(uses []Use) ([]string, error) {
	wanted := map[Action][]string{}
	for _, u := range uses {
		for _, grant := range grantsOf(u) {
			if !slices.Contains(wanted[grant.action], grant.resource) {
				wanted[grant.action] = append(wanted[grant.action], grant.resource)
			}
		}
	}
	documents, err := pack(statementsOf(wanted))
	if err != nil {
		return nil, err
	}
	named := make([]Named, 0, len(documents))
	for i, text := range documents {
		doc, err := Parse([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("couldn't write a policy: %w", err)
		}
		named = append(named, Named{Name: fmt.Sprint(i), Doc: doc})
	}
	set := Compile(named...)
	for _, u := range uses {
		r := &Request{Action: u.Action, ResourceName: u.Resource, Vars: u.Vars}
		if set.Decide(r) != Allowed {
			return nil, fmt.Errorf("couldn't write a policy that allows %s on %s", u.Action, u.Resource)
		}
	}
	return documents, nil
}

type grant struct {
	action   Action
	resource string
}

// grantsOf gives what a use needs.
func grantsOf(u Use) []grant {
	parts := splitARN(u.Resource)
	if len(parts) != 6 {
		return []grant{{u.Action, u.Resource}}
	}
	head := strings.Join(parts[:5], ":") + ":"
	kind, name, _ := strings.Cut(parts[5], "/")
	variables := candidates(u)
	grants := []grant{{u.Action, head + kind + "/" + variables.levels(name, false)}}
	if u.Action != Subscribe {
		return grants
	}
	if shared, found := strings.CutPrefix(name, "$share/"); found {
		_, name, _ = strings.Cut(shared, "/")
	}
	// At AWS IoT Core a/# doesn't match a.
	return append(grants, grant{Receive, head + "topic/" + variables.levels(name, true)})
}

// candidate is a variable with its value.
type candidate struct{ name, value string }

type variablesOfUse []candidate

// candidates are the variables for a use, the one that says most about who it is
// first. The client id never bounds iot:Connect: it would allow every client id.
func candidates(u Use) variablesOfUse {
	e := newEval(&Request{Action: u.Action, Vars: u.Vars})
	var found variablesOfUse
	for _, name := range []string{
		"iot:Connection.Thing.ThingName", "iot:Certificate.Subject.CommonName", "iot:Certificate.Subject.SerialNumber",
		"iot:Certificate.Subject.DistinguishedNameQualifier", "iot:Certificate.SerialNumber", "iot:ClientId",
	} {
		key := parseKey(name)
		if u.Action == Connect && key.id == keyClientID {
			continue
		}
		value, ok := e.substitute(&key)
		if ok && (len(value) >= minValue || u.Action == Connect) {
			found = append(found, candidate{name, value})
		}
	}
	return found
}

// levels writes a name level by level; wild turns MQTT's wildcards into a policy's.
func (c variablesOfUse) levels(name string, wild bool) string {
	for _, v := range c {
		if v.value == name && !wild {
			return "${" + v.name + "}"
		}
	}
	levels := strings.Split(name, "/")
	for i, level := range levels {
		levels[i] = c.level(level, wild)
	}
	return strings.Join(levels, "/")
}

func (c variablesOfUse) level(level string, wild bool) string {
	if wild && (level == "+" || level == "#") {
		return "*"
	}
	for _, v := range c {
		if v.value == level {
			return "${" + v.name + "}"
		}
	}
	return literal(level)
}

// literal writes a text that stands for itself.
func literal(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch {
		case s[i] == '*', s[i] == '?':
			b.WriteString("${" + s[i:i+1] + "}")
		case s[i] == '$' && strings.HasPrefix(s[i+1:], "{"):
			b.WriteString("${$}")
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// granted is a statement to be written.
type granted struct {
	Effect   Effect   `json:"Effect"`
	Action   []string `json:"Action"`
	Resource []string `json:"Resource"`
}

// statementsOf puts actions that have the same resources into one statement.
func statementsOf(wanted map[Action][]string) []granted {
	var actions []Action
	for action := range wanted {
		slices.Sort(wanted[action])
		actions = append(actions, action)
	}
	order := DataPlaneActions()
	place := func(a Action) int {
		if i := slices.Index(order, a); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortFunc(actions, func(a, b Action) int {
		if d := place(a) - place(b); d != 0 {
			return d
		}
		return strings.Compare(string(a), string(b))
	})
	var statements []granted
next:
	for _, action := range actions {
		for i := range statements {
			if slices.Equal(statements[i].Resource, wanted[action]) {
				statements[i].Action = append(statements[i].Action, string(action))
				continue next
			}
		}
		statements = append(statements, granted{Effect: Allow, Action: []string{string(action)}, Resource: wanted[action]})
	}
	return statements
}

// pack fills documents with statements, resource by resource.
func pack(statements []granted) ([]string, error) {
	var documents []string
	var full []granted
	for _, st := range statements {
		fresh := true
		for _, resource := range st.Resource {
			larger := slices.Clone(full)
			if fresh {
				larger = append(larger, granted{Effect: Allow, Action: st.Action, Resource: []string{resource}})
			} else {
				last := &larger[len(larger)-1]
				last.Resource = append(slices.Clone(last.Resource), resource)
			}
			text, err := render(larger)
			if err != nil {
				return nil, err
			}
			if characters(text) > MaxCharacters && len(full) > 0 {
				text, err = render(full)
				if err != nil {
					return nil, err
				}
				documents = append(documents, text)
				larger = []granted{{Effect: Allow, Action: st.Action, Resource: []string{resource}}}
			}
			full, fresh = larger, false
		}
	}
	if len(full) == 0 {
		return documents, nil
	}
	text, err := render(full)
	return append(documents, text), err
}

func render(statements []granted) (string, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(struct {
		Version   string
		Statement []granted
	}{Version2012, statements})
	if err != nil {
		return "", fmt.Errorf("couldn't encode a policy: %w", err)
	}
	return strings.TrimSpace(b.String()), nil
}

// characters counts as AWS IoT does, without whitespace.
func characters(text string) int {
	return utf8.RuneCountInString(text) - strings.Count(text, " ") - strings.Count(text, "\n") - strings.Count(text, "\t")
}
