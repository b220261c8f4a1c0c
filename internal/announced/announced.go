// Package announced changes things, thing types and thing groups so that whoever
// subscribed hears of it: the row and its registry event are written into one
// transaction, the event only if the tenant wants its kind.
//
//	registry := announced.In(tx, tenant, now)
//	err := registry.CreateThing(thing)
//
// What it promises: no event without its change and no change that is wanted
// without its event, whichever flow makes it; one look-up of the tenant's event
// configurations for each transaction.
//
// What it does not do: it checks nothing about the rows, and sends nothing; package
// events does. Things leave groups, and types, when they are deleted, and so do the
// members of a deleted group: their removal is told of, too.
//
// Source: AWS IoT Core developer guide, "Registry events".
package announced

import (
	"fmt"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
)

// Registry changes one tenant's registry in one transaction.
type Registry struct {
	tx     imprint.Tx
	tenant imprint.Tenant
	now    time.Time
	wanted *imprint.EventConfigurations // nil: not read yet
}

// In makes a Registry for a transaction. Now is when its changes happen.
func In(tx imprint.Tx, tenant imprint.Tenant, now time.Time) *Registry {
	return &Registry{tx: tx, tenant: tenant, now: now}
}

// wants says whether events of a kind are to be written.
func (r *Registry) wants(kind imprint.EventType) (bool, error) {
	if r.wanted == nil {
		found, err := r.tx.EventConfigurations(r.tenant)
		if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
			return false, fmt.Errorf("couldn't read which events are wanted: %w", err)
		}
		r.wanted = &found
	}
	return r.wanted.Has(kind), nil
}

// CreateThing stores a thing that wasn't there.
func (r *Registry) CreateThing(thing imprint.Thing) error {
	err := r.tx.PutThing(thing)
	if err != nil {
		return fmt.Errorf("couldn't create thing %s: %w", thing.Name, err)
	}
	err = r.thing(created, thing)
	if err != nil {
		return err
	}
	return r.association(added, thing)
}

// UpdateThing stores what became of a thing.
func (r *Registry) UpdateThing(before, after imprint.Thing) error {
	err := r.tx.PutThing(after)
	if err != nil {
		return fmt.Errorf("couldn't update thing %s: %w", after.Name, err)
	}
	err = r.thing(updated, after)
	if err != nil || before.TypeName == after.TypeName {
		return err
	}
	err = r.association(removed, before)
	if err != nil {
		return err
	}
	return r.association(added, after)
}

// DeleteThing deletes a thing, which leaves its groups.
func (r *Registry) DeleteThing(thing imprint.Thing) error {
	on, err := r.wants(imprint.EventsOfMemberships)
	if err != nil {
		return err
	}
	if on {
		memberships, err := r.membershipsOf(thing.Name)
		if err != nil {
			return err
		}
		for _, m := range memberships {
			err = r.membership(removed, m)
			if err != nil {
				return err
			}
		}
	}
	err = r.tx.DeleteThing(thing.Tenant, thing.Name)
	if err != nil {
		return fmt.Errorf("couldn't delete thing %s: %w", thing.Name, err)
	}
	err = r.association(removed, thing)
	if err != nil {
		return err
	}
	return r.thing(deleted, thing)
}

// CreateThingType stores a type that wasn't there.
func (r *Registry) CreateThingType(kind imprint.ThingType) error {
	return r.putThingType(created, kind)
}

// UpdateThingType stores what became of a type.
func (r *Registry) UpdateThingType(kind imprint.ThingType) error {
	return r.putThingType(updated, kind)
}

func (r *Registry) putThingType(what operation, kind imprint.ThingType) error {
	err := r.tx.PutThingType(kind)
	if err != nil {
		return fmt.Errorf("couldn't store thing type %s: %w", kind.Name, err)
	}
	return r.thingType(what, kind)
}

// DeleteThingType deletes a type.
func (r *Registry) DeleteThingType(kind imprint.ThingType) error {
	err := r.tx.DeleteThingType(kind.Tenant, kind.Name)
	if err != nil {
		return fmt.Errorf("couldn't delete thing type %s: %w", kind.Name, err)
	}
	return r.thingType(deleted, kind)
}

// CreateThingGroup stores a group that wasn't there, below its parent.
func (r *Registry) CreateThingGroup(group imprint.ThingGroup) error {
	err := r.tx.PutThingGroup(group)
	if err != nil {
		return fmt.Errorf("couldn't create thing group %s: %w", group.Name, err)
	}
	err = r.group(created, group)
	if err != nil {
		return err
	}
	return r.hierarchy(added, group)
}

// UpdateThingGroup stores what became of a group.
func (r *Registry) UpdateThingGroup(group imprint.ThingGroup) error {
	err := r.tx.PutThingGroup(group)
	if err != nil {
		return fmt.Errorf("couldn't update thing group %s: %w", group.Name, err)
	}
	return r.group(updated, group)
}

// DeleteThingGroup deletes a group. The members that are left are taken out of
// it.
func (r *Registry) DeleteThingGroup(group imprint.ThingGroup, members []imprint.ThingGroupMembership) error {
	for _, m := range members {
		err := r.membership(removed, m)
		if err != nil {
			return err
		}
	}
	err := r.hierarchy(removed, group)
	if err != nil {
		return err
	}
	err = r.group(deleted, group)
	if err != nil {
		return err
	}
	err = r.tx.DeleteThingGroup(group.Tenant, group.Name)
	if err != nil {
		return fmt.Errorf("couldn't delete thing group %s: %w", group.Name, err)
	}
	return nil
}

// Join puts a thing into a group in which it isn't.
func (r *Registry) Join(m imprint.ThingGroupMembership) error {
	err := r.tx.PutThingGroupMembership(m)
	if err != nil {
		return fmt.Errorf("couldn't put thing %s into thing group %s: %w", m.Thing, m.Group, err)
	}
	return r.membership(added, m)
}

// Leave takes a thing out of a group. It does nothing when the thing isn't in it.
func (r *Registry) Leave(m imprint.ThingGroupMembership) error {
	on, err := r.wants(imprint.EventsOfMemberships)
	if err != nil {
		return err
	}
	if on {
		memberships, err := r.membershipsOf(m.Thing)
		if err != nil {
			return err
		}
		if !slices.Contains(memberships, m) {
			return nil
		}
		err = r.membership(removed, m)
		if err != nil {
			return err
		}
	}
	err = r.tx.DeleteThingGroupMembership(m)
	if err != nil {
		return fmt.Errorf("couldn't take thing %s out of thing group %s: %w", m.Thing, m.Group, err)
	}
	return nil
}

// membershipsOf gives all memberships of a thing: there is a limit at joining.
func (r *Registry) membershipsOf(thing imprint.ThingName) ([]imprint.ThingGroupMembership, error) {
	memberships, _, err := r.tx.ThingMemberships(r.tenant, thing, imprint.Page{Limit: 2 * imprint.MaxGroupsPerThing, Ascending: true})
	if err != nil {
		return nil, fmt.Errorf("couldn't read the groups of thing %s: %w", thing, err)
	}
	return memberships, nil
}
