package provisioning

import (
	"fmt"
	"slices"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/template"
)

// joinGroups puts the thing into the groups that the template names. A thing that
// was there before follows the template's OverrideSettings (developer guide,
// "Provisioning templates", override settings): it is left as it was, gets these
// groups in place of its own (REPLACE), or beside them (MERGE).
func (a *application) joinGroups(plan *template.ThingPlan) error {
	if plan.ThingGroups == nil || a.existed && plan.Overrides.ThingGroups == template.DoNothing {
		return nil
	}
	if a.existed && plan.Overrides.ThingGroups == template.Fail {
		return conflict(a.thing, "ThingGroups", "REPLACE, MERGE or DO_NOTHING")
	}
	wanted := make([]imprint.ThingGroup, 0, len(plan.ThingGroups))
	for _, text := range plan.ThingGroups {
		group, err := a.findGroup(text)
		if err != nil {
			return err
		}
		wanted = append(wanted, group)
	}
	var present []imprint.ThingGroup
	if a.existed {
		var err error
		present, err = a.leaveGroups(plan.Overrides.ThingGroups == template.Replace, wanted)
		if err != nil {
			return err
		}
	}
	for _, group := range wanted {
		a.groups = append(a.groups, group.Name)
		if holdsGroup(present, group.Name) {
			continue
		}
		err := group.CheckJoin(a.thing, present)
		if err != nil {
			return illegal("couldn't put the thing into its groups", err)
		}
		err = a.registry.Join(imprint.ThingGroupMembership{Tenant: group.Tenant, Group: group.Name, Thing: a.thing})
		if err != nil {
			return err
		}
		present = append(present, group)
	}
	return nil
}

func holdsGroup(groups []imprint.ThingGroup, name imprint.ThingGroupName) bool {
	return slices.ContainsFunc(groups, func(g imprint.ThingGroup) bool { return g.Name == name })
}

func (a *application) findGroup(text string) (imprint.ThingGroup, error) {
	name, err := imprint.ParseThingGroupName(text)
	if err != nil {
		return imprint.ThingGroup{}, illegal("couldn't name the thing group", err)
	}
	group, err := a.tx.ThingGroup(a.cert.Tenant, name)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return group, imprint.Errorf(imprint.CodeGroupMissing, "thing group %q, which the template names, doesn't exist", name).
			WithHint("aws iot create-thing-group --thing-group-name %s", name)
	}
	if err != nil {
		return group, fmt.Errorf("couldn't read thing group %s: %w", name, err)
	}
	return group, nil
}

// leaveGroups gives the groups that the thing stays in: all, or only wanted ones
// when the template's replace its own.
func (a *application) leaveGroups(replace bool, wanted []imprint.ThingGroup) ([]imprint.ThingGroup, error) {
	memberships, _, err := a.tx.ThingMemberships(a.cert.Tenant, a.thing, imprint.Page{Limit: 2 * imprint.MaxGroupsPerThing, Ascending: true})
	if err != nil {
		return nil, fmt.Errorf("couldn't read the groups of thing %s: %w", a.thing, err)
	}
	stays := make([]imprint.ThingGroup, 0, len(memberships))
	for _, m := range memberships {
		if replace && !holdsGroup(wanted, m.Group) {
			err = a.registry.Leave(m)
			if err != nil {
				return nil, err
			}
			continue
		}
		group, err := a.tx.ThingGroup(m.Tenant, m.Group)
		if err != nil {
			return nil, imprint.Errorf(imprint.CodeInternal, "couldn't read thing group %s of thing %s: %w", m.Group, a.thing, err)
		}
		stays = append(stays, group)
	}
	return stays, nil
}
