package policy

import (
	"cmp"
	"fmt"
	"slices"
)

// Decision is the answer to a request. The zero value denies.
type Decision uint8

// The three answers: nothing allows it, something denies it, something allows
// it and nothing denies it.
const (
	ImplicitDeny Decision = iota
	ExplicitDeny
	Allowed
)

// String gives the names that TestAuthorization uses.
func (d Decision) String() string {
	switch d {
	case ExplicitDeny:
		return "EXPLICIT_DENY"
	case Allowed:
		return "ALLOWED"
	}
	return "IMPLICIT_DENY"
}

// MarshalText gives String.
func (d Decision) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText gives.
func (d *Decision) UnmarshalText(text []byte) error {
	for _, known := range []Decision{ImplicitDeny, ExplicitDeny, Allowed} {
		if known.String() == string(text) {
			*d = known
			return nil
		}
	}
	return fmt.Errorf("%q is no decision", text)
}

// Named is a document under the name of its policy.
type Named struct {
	Name string
	Doc  *Document
	// Instead is what a person can do about a denial, where nobody can edit the policy.
	Instead string
}

// entry is a statement with its place.
type entry struct {
	*statement
	policy string
	index  int
	doc    *Document
}

// Set is any number of documents, ready to decide. It never changes.
type Set struct {
	names []string
	deny  []entry
	allow []entry
	hot   [hotActions]struct{ deny, allow []entry }
	timed bool

	instead string // see Named
}

// Timeless tells that no statement looks at the time: the answer to a request
// then holds as long as its variables do.
func (s *Set) Timeless() bool { return !s.timed }

// Names lists the policies of the set, as they were given.
func (s *Set) Names() []string { return slices.Clone(s.names) }

// Compile makes a Set. A Named without a document counts as a policy without
// statements. Without any allow, everything is denied.
func Compile(docs ...Named) *Set {
	s := &Set{}
	for _, named := range docs {
		s.names = append(s.names, named.Name)
		s.instead = cmp.Or(s.instead, named.Instead)
		if named.Doc == nil {
			continue
		}
		for i, st := range named.Doc.statements {
			en := entry{statement: st, policy: named.Name, index: i, doc: named.Doc}
			s.timed = s.timed || st.timed()
			if st.source.Effect == Deny {
				s.deny = append(s.deny, en)
				continue
			}
			s.allow = append(s.allow, en)
		}
	}
	for _, action := range DataPlaneActions()[:hotActions] {
		h := &s.hot[action.hot()]
		h.deny = withAction(s.deny, action)
		h.allow = withAction(s.allow, action)
	}
	return s
}

func withAction(entries []entry, a Action) []entry {
	var out []entry
	for _, en := range entries {
		if en.matchesAction(a) {
			out = append(out, en)
		}
	}
	return out
}

// Decide answers a request: an explicit deny wins, then an allow, else the
// answer is an implicit deny. It is safe for concurrent use.
func (s *Set) Decide(r *Request) Decision {
	decision, _ := s.decide(r)
	return decision
}

// Allows says whether any statement allows an action, on whatever resource and condition.
func (s *Set) Allows(a Action) bool { return len(withAction(s.allow, a)) > 0 }

// Judge is Decide with the statement that decided: the first that denies, else the first
// that allows; the zero value for an implicit deny. It costs no more.
func (s *Set) Judge(r *Request) (Decision, StatementRef) {
	decision, by := s.decide(r)
	if by == nil {
		return decision, StatementRef{}
	}
	return decision, by.ref()
}

func (s *Set) decide(r *Request) (Decision, *entry) {
	e := newEval(r)
	text := subject{a: r.ResourcePrefix, b: r.ResourceName}
	deny, allow, indexed := s.deny, s.allow, false
	if i := r.Action.hot(); i >= 0 {
		deny, allow, indexed = s.hot[i].deny, s.hot[i].allow, true
	}
	if by := applies(&e, &text, deny, indexed); by != nil {
		return ExplicitDeny, by
	}
	if by := applies(&e, &text, allow, indexed); by != nil {
		return Allowed, by
	}
	return ImplicitDeny, nil
}

// applies gives the first statement that applies; indexed entries were chosen by action
// already.
func applies(e *eval, text *subject, entries []entry, indexed bool) *entry {
	for i := range entries {
		en := &entries[i]
		if !indexed && !en.matchesAction(e.req.Action) {
			continue
		}
		if en.matchesResource(e, text) && en.matchesConditions(e) {
			return en
		}
	}
	return nil
}

// timed tells whether a statement looks at the time, in a condition's key or in
// a variable.
func (st *statement) timed() bool {
	for _, c := range st.conditions {
		if c.key.timed() {
			return true
		}
		for _, v := range c.values {
			if v.pattern.timed() {
				return true
			}
		}
	}
	return slices.ContainsFunc(st.resources, (*pattern).timed)
}

func (p *pattern) timed() bool {
	if p == nil {
		return false
	}
	for _, chunk := range p.chunks {
		for _, piece := range chunk {
			if piece.kind == pieceVariable && piece.key.timed() {
				return true
			}
		}
	}
	return false
}

func (k *keyRef) timed() bool { return k.id == keyCurrentTime || k.id == keyEpochTime }
