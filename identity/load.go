package identity

import (
	"cmp"
	"context"
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
	tx  imprint.ReadTx
	key certKey
	who *Identity

	own []document // of the certificate's policies, by name
	// members are the groups of each of who.Things; nil when none is in a group.
	members  [][]imprint.ThingGroupName
	findings []finding

	// What follows is used only when a thing is in a group. A policy that doesn't
	// exist has nil, and so has a group.
	documents map[imprint.PolicyName]*document
	groups    map[imprint.ThingGroupName]*known
}

// document is one policy's default version.
type document struct {
	name imprint.PolicyName
	text string
}

// load reads an identity, and what else of it the next load can use, from the
// store.
func (r *Resolver) load(ctx context.Context, key certKey) (*Identity, []finding, error) {
	var l *loading
	var sets [][]document
	err := r.store.View(ctx, func(tx imprint.ReadTx) error {
		l, sets = &loading{r: r, tx: tx, key: key, who: &Identity{}}, nil
		cert, err := tx.Certificate(key.tenant, key.id)
		if err != nil {
			return err
		}
		l.who.Certificate = lean(cert)
		err = l.things()
		if err != nil {
			return err
		}
		err = l.policies()
		if err != nil || l.members == nil {
			return err
		}
		sets, err = l.groupPolicies()
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("couldn't look up certificate %s: %w", key.id, err)
	}
	l.who.Policies, err = r.sets.compiled(l.own)
	if err != nil {
		return nil, nil, err
	}
	for n, documents := range sets {
		if documents == nil {
			continue
		}
		l.who.Things[n].policies, err = r.sets.compiled(documents)
		if err != nil {
			return nil, nil, err
		}
	}
	return l.who, l.findings, nil
}

// lean drops what no connection needs, to spare memory.
func lean(cert imprint.Certificate) imprint.Certificate {
	cert.PEM, cert.Serial, cert.Subject, cert.GenerationID = "", "", "", ""
	return cert
}

// things reads the attached things and the groups that they are in.
func (l *loading) things() error {
	i, tenant := l.who, l.key.tenant
	attached, _, err := l.tx.CertificateThings(tenant, l.key.id, imprint.Page{Limit: maxThings, Ascending: true})
	if err != nil || len(attached) == 0 {
		return err
	}
	i.Things = make([]Attachment, 0, len(attached))
	i.names = make([]imprint.ThingName, 0, len(attached))
	for _, a := range attached {
		i.names = append(i.names, a.Thing)
		thing, err := l.tx.Thing(tenant, a.Thing)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			continue
		}
		if err != nil {
			return err
		}
		i.Things = append(i.Things, Attachment{Thing: thing, Exclusive: a.Exclusive})
		memberships, _, err := l.tx.ThingMemberships(tenant, a.Thing, imprint.Page{Limit: maxGroups, Ascending: true})
		if err != nil {
			return err
		}
		if len(memberships) > 0 && l.members == nil {
			l.members = make([][]imprint.ThingGroupName, len(attached))
		}
		for _, m := range memberships {
			l.members[len(i.Things)-1] = append(l.members[len(i.Things)-1], m.Group)
		}
	}
	return nil
}

// policies reads the documents of the certificate's policies.
func (l *loading) policies() error {
	attached, _, err := l.tx.TargetPolicies(l.key.tenant, l.who.Certificate.ARN(), imprint.Page{Limit: maxPolicies, Ascending: true})
	if err != nil || len(attached) == 0 {
		return err
	}
	l.own = make([]document, 0, len(attached))
	l.findings = make([]finding, 0, len(attached))
	l.who.marks = make([]mark, 0, len(attached))
	for _, a := range attached {
		d, err := l.read(a.Policy)
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
	return &document{name, text}, nil
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
		row, err := l.tx.ThingGroup(l.key.tenant, name)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			l.groups[name] = nil
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		attached, _, err := l.tx.TargetPolicies(l.key.tenant, row.ARN(), imprint.Page{Limit: maxPolicies, Ascending: true})
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
