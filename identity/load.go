package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/imprint-iot/imprint"
)

// known is what a read found of a policy or a thing group.
type known struct {
	text string // a policy's default document

	ancestors []imprint.ThingGroupName // of a group
	policies  []imprint.PolicyName     // attached to it
}

// finding is a policy or a group that a load has read, for the next certificate
// that shows it.
type finding struct {
	kind imprint.ChangeKind
	name string
	known
}

// loading is one read of an identity.
type loading struct {
	r   *Resolver
	tx  imprint.ReadTx // nil: what isn't known is errUnknown
	key certKey
	who *Identity

	own []document // of the certificate's policies, by name
	// members are the groups of each of who.Things; nil when none is in a group.
	members  [][]imprint.ThingGroupName
	findings []finding
	sets     [][]document // see groupPolicies

	// What follows is used only when a thing is in a group. A policy that doesn't
	// exist has nil, and so has a group.
	documents map[imprint.PolicyName]*document
	groups    map[imprint.ThingGroupName]*known
}

// document is one policy's default version.
type document struct {
	name    imprint.PolicyName
	text    string
	instead string // see policy.Named; of the documents of a name always the same
}

// errUnknown says that a policy or a group must be read that nobody knows.
var errUnknown = errors.New("a policy or a group isn't known")

// load reads an identity, and what else of it the next load can use, from the
// store: with one look-up when what it shows of policies and groups is known from
// other certificates.
func (r *Resolver) load(ctx context.Context, key certKey) (*Identity, []finding, error) {
	var l *loading
	err := r.store.Glance(ctx, func(tx imprint.ReadTx) error {
		l = &loading{r: r, key: key, who: &Identity{}}
		return l.look(tx)
	})
	if errors.Is(err, errUnknown) {
		err = r.store.View(ctx, func(tx imprint.ReadTx) error {
			l = &loading{r: r, tx: tx, key: key, who: &Identity{}}
			return l.look(tx)
		})
	}
	if err != nil {
		return nil, nil, fmt.Errorf("couldn't look up certificate %s: %w", key.id, err)
	}
	err = l.compile()
	if err != nil {
		return nil, nil, err
	}
	return l.who, l.findings, nil
}

// compile makes policies of what was read.
func (l *loading) compile() (err error) {
	l.who.Policies, err = l.r.sets.compiled(l.own)
	if err != nil {
		return err
	}
	for n, documents := range l.sets {
		if documents == nil {
			continue
		}
		l.who.Things[n].policies, err = l.r.sets.compiled(documents)
		if err != nil {
			return err
		}
	}
	return nil
}

// look reads everything.
func (l *loading) look(tx imprint.ReadTx) error {
	p, err := tx.Principal(l.key.tenant, l.key.id, maxAttached)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return l.lookClaim(tx, err)
	}
	if err != nil {
		return err
	}
	return l.take(p)
}

// take makes an identity of what is attached to its certificate.
func (l *loading) take(p imprint.Principal) error {
	l.who.Certificate = p.Certificate
	l.things(p.Things)
	err := l.policies(p.Policies)
	if err != nil || l.members == nil {
		return err
	}
	l.sets, err = l.groupPolicies()
	return err
}

// things takes the attached things and the groups that they are in.
func (l *loading) things(attached []imprint.PrincipalThing) {
	i := l.who
	if len(attached) == 0 {
		return
	}
	i.Things = make([]Attachment, 0, len(attached))
	i.names = make([]imprint.ThingName, 0, len(attached))
	for n := range attached {
		a := &attached[n]
		i.names = append(i.names, a.Attachment.Thing)
		if a.Thing == nil {
			continue
		}
		i.Things = append(i.Things, Attachment{Thing: *a.Thing, Exclusive: a.Attachment.Exclusive})
		if len(a.Groups) == 0 {
			continue
		}
		if l.members == nil {
			l.members = make([][]imprint.ThingGroupName, len(attached))
		}
		l.members[len(i.Things)-1] = a.Groups
	}
}

// policies reads the documents of the certificate's policies.
func (l *loading) policies(attached []imprint.PolicyName) error {
	if len(attached) == 0 {
		return nil
	}
	l.own = make([]document, 0, len(attached))
	l.who.marks = make([]mark, 0, len(attached))
	for _, name := range attached {
		d, err := l.read(name)
		if err != nil {
			return err
		}
		if d != nil {
			l.own = append(l.own, *d)
		}
	}
	return nil
}

// read gives the default document of a policy, nil when it doesn't exist, and
// marks it. A document that is known from another certificate isn't read again.
func (l *loading) read(name imprint.PolicyName) (*document, error) {
	l.mark(imprint.ChangePolicy, string(name))
	text := ""
	if k := l.r.known(imprint.ChangePolicy, l.key.tenant, string(name)); k != nil {
		text = k.text
	} else {
		if l.tx == nil {
			return nil, errUnknown
		}
		p, err := l.tx.Policy(l.key.tenant, name)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		version, err := l.tx.PolicyVersion(l.key.tenant, name, p.DefaultVersion)
		if err != nil {
			return nil, err
		}
		text = version.Document
		l.findings = append(l.findings, finding{imprint.ChangePolicy, string(name), known{text: text}})
	}
	return &document{name: name, text: text}, nil
}

func (l *loading) mark(kind imprint.ChangeKind, name string) {
	l.who.marks = append(l.who.marks, mark{kind: kind, name: name})
}

// groupPolicies gives for each thing that is in a group the documents of the
// certificate's policies together with those of its groups and their ancestors,
// by name; nil for other things.
func (l *loading) groupPolicies() ([][]document, error) {
	l.documents = make(map[imprint.PolicyName]*document, len(l.own))
	for n := range l.own {
		l.documents[l.own[n].name] = &l.own[n]
	}
	for n := range l.who.marks {
		name := imprint.PolicyName(l.who.marks[n].name)
		if l.documents[name] == nil {
			l.documents[name] = nil // marked, and doesn't exist
		}
	}
	l.groups = map[imprint.ThingGroupName]*known{}
	sets := make([][]document, len(l.who.Things))
	for n := range l.who.Things {
		if len(l.members[n]) == 0 {
			continue
		}
		documents := slices.Clone(l.own)
		for _, name := range l.members[n] {
			var err error
			documents, err = l.withGroup(documents, name)
			if err != nil {
				return nil, err
			}
		}
		slices.SortFunc(documents, func(a, b document) int { return cmp.Compare(a.name, b.name) })
		sets[n] = slices.CompactFunc(documents, func(a, b document) bool { return a.name == b.name })
	}
	return sets, nil
}

// withGroup adds the documents of a group and its ancestors.
func (l *loading) withGroup(documents []document, name imprint.ThingGroupName) ([]document, error) {
	group, err := l.group(name)
	if err != nil || group == nil {
		return documents, err
	}
	documents, err = l.withPolicies(documents, group)
	if err != nil {
		return nil, err
	}
	for _, above := range group.ancestors {
		ancestor, err := l.group(above)
		if err != nil {
			return nil, err
		}
		if ancestor == nil {
			continue
		}
		documents, err = l.withPolicies(documents, ancestor)
		if err != nil {
			return nil, err
		}
	}
	return documents, nil
}

func (l *loading) withPolicies(documents []document, group *known) ([]document, error) {
	for _, name := range group.policies {
		d, seen := l.documents[name]
		if !seen {
			var err error
			d, err = l.read(name)
			if err != nil {
				return nil, err
			}
			l.documents[name] = d
		}
		if d != nil {
			documents = append(documents, *d)
		}
	}
	return documents, nil
}

// group reads a group's ancestors and policies, once in a load, and marks it; nil
// when it doesn't exist. A group that is known from another certificate isn't
// read again.
func (l *loading) group(name imprint.ThingGroupName) (*known, error) {
	group, seen := l.groups[name]
	if seen {
		return group, nil
	}
	l.mark(imprint.ChangeThingGroup, string(name))
	group = l.r.known(imprint.ChangeThingGroup, l.key.tenant, string(name))
	if group == nil {
		if l.tx == nil {
			return nil, errUnknown
		}
		row, err := l.tx.ThingGroup(l.key.tenant, name)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			l.groups[name] = nil
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		attached, _, err := l.tx.TargetPolicies(l.key.tenant, row.ARN(), imprint.Page{Limit: maxAttached, Ascending: true})
		if err != nil {
			return nil, err
		}
		group = &known{ancestors: row.Ancestors}
		for _, a := range attached {
			group.policies = append(group.policies, a.Policy)
		}
		l.findings = append(l.findings, finding{imprint.ChangeThingGroup, string(name), *group})
	}
	l.groups[name] = group
	return group, nil
}
