package policy

import "slices"

// Effect is what a statement does when it applies.
type Effect string

// The two effects, written in this case in a document.
const (
	Allow Effect = "Allow"
	Deny  Effect = "Deny"
)

// The two versions of the policy language. Version2008 has no variables.
const (
	Version2012 = "2012-10-17"
	Version2008 = "2008-10-17"
)

// Document is a valid policy document. It never changes.
type Document struct {
	text       string
	version    string
	id         string
	statements []*statement
}

// Text gives the document byte for byte as it was parsed.
func (d *Document) Text() string { return d.text }

// Version is Version2012 or Version2008; a document without one is Version2008.
func (d *Document) Version() string { return d.version }

// ID is the optional Id member.
func (d *Document) ID() string { return d.id }

// Statements gives a copy of the statements in their order, for linting and display.
func (d *Document) Statements() []Statement {
	out := make([]Statement, 0, len(d.statements))
	for _, st := range d.statements {
		s := st.source
		s.Actions = slices.Clone(s.Actions)
		s.Resources = slices.Clone(s.Resources)
		s.Conditions = slices.Clone(s.Conditions)
		for i := range s.Conditions {
			s.Conditions[i].Values = slices.Clone(s.Conditions[i].Values)
		}
		out = append(out, s)
	}
	return out
}

// Statement is one statement as written. NotAction and NotResource tell which of
// the two members Actions and Resources come from. Line and Column say where it
// begins in the document.
type Statement struct {
	Sid         string      `json:"sid,omitempty"`
	Effect      Effect      `json:"effect"`
	NotAction   bool        `json:"notAction,omitempty"`
	Actions     []string    `json:"actions"`
	NotResource bool        `json:"notResource,omitempty"`
	Resources   []string    `json:"resources"`
	Conditions  []Condition `json:"conditions,omitempty"`
	Line        int         `json:"line"`
	Column      int         `json:"column"`
	Text        string      `json:"text"` // byte for byte
}

// Condition is one operator with one key, as written.
type Condition struct {
	Operator string   `json:"operator"`
	Key      string   `json:"key"`
	Values   []string `json:"values"`
}

// statement is the compiled form of a Statement.
type statement struct {
	source     Statement
	resources  []*pattern
	conditions []*condition
}

// matchesAction applies Action or NotAction.
func (st *statement) matchesAction(a Action) bool {
	for _, p := range st.source.Actions {
		if p == "*" || actionMatch(p, string(a)) {
			return !st.source.NotAction
		}
	}
	return st.source.NotAction
}

// matchesResource applies Resource or NotResource.
func (st *statement) matchesResource(e *eval, s *subject) bool {
	for _, p := range st.resources {
		if p.match(e, s) {
			return !st.source.NotResource
		}
	}
	if !st.source.NotResource {
		return false
	}
	if st.source.Effect == Deny {
		return true
	}
	// The text of an unresolved variable excludes nothing: without this, an
	// Allow would grant exactly what it was written to exclude.
	for _, p := range st.resources {
		if !p.resolved(e) {
			return false
		}
	}
	return true
}

// matchesConditions is the AND of all conditions.
func (st *statement) matchesConditions(e *eval) bool {
	for _, c := range st.conditions {
		if !c.holds(e, st.source.Effect) {
			return false
		}
	}
	return true
}
