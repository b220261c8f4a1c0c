package provisioning

import (
	"fmt"
	"maps"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/template"
)

// putThing makes the template's thing with its type and its billing group, or
// brings the one that exists up to date.
func (a *application) putThing(plan *template.ThingPlan) error {
	name, err := imprint.ParseThingName(plan.ThingName)
	if err != nil {
		return illegal("couldn't name the thing", err)
	}
	a.thing = name
	thing, err := a.tx.Thing(a.cert.Tenant, name)
	switch {
	case err == nil:
		return a.overrideThing(thing, plan)
	case imprint.CodeOf(err) != imprint.CodeNotFound:
		return fmt.Errorf("couldn't read thing %s: %w", name, err)
	}
	a.change = "created"
	thing = imprint.Thing{
		Tenant: a.cert.Tenant, Name: name, ID: uuid.NewString(), Attributes: plan.Attributes,
		Version: 1, CreatedAt: a.now, ModifiedAt: a.now,
	}
	thing.TypeName, err = a.findType(plan)
	if err != nil {
		return err
	}
	thing.BillingGroup, err = a.findBillingGroup(plan)
	if err != nil {
		return err
	}
	a.kind, a.billing = thing.TypeName, thing.BillingGroup
	err = thing.CheckAttributes()
	if err != nil {
		return illegal("couldn't create thing "+string(name), err)
	}
	a.made = &thing
	return a.registry.CreateThing(thing)
}

// overrideThing applies the template's OverrideSettings to a thing that exists
// (developer guide, "Provisioning templates", override settings). There is none for
// the billing group: an existing thing keeps its own, as it keeps all that isn't
// overridden.
func (a *application) overrideThing(thing imprint.Thing, plan *template.ThingPlan) error {
	a.existed, a.change = true, "left as it was"
	before := thing
	err := a.overrideType(&thing, plan)
	if err != nil {
		return err
	}
	err = a.overrideAttributes(&thing, plan)
	if err != nil {
		return err
	}
	a.kind, a.billing = thing.TypeName, thing.BillingGroup
	if thing.TypeName == before.TypeName && maps.Equal(thing.Attributes, before.Attributes) {
		return nil
	}
	a.change = "updated"
	err = thing.CheckAttributes()
	if err != nil {
		return illegal("couldn't update thing "+string(thing.Name), err)
	}
	thing.Version++
	thing.ModifiedAt = a.now
	return a.registry.UpdateThing(before, thing)
}

func (a *application) overrideType(thing *imprint.Thing, plan *template.ThingPlan) error {
	if plan.ThingTypeName == "" {
		return nil
	}
	switch plan.Overrides.ThingTypeName {
	case template.Fail:
		return conflict(thing.Name, "ThingTypeName", "REPLACE or DO_NOTHING")
	case template.Replace:
		if plan.ThingTypeName == string(thing.TypeName) {
			return nil
		}
		kind, err := a.findType(plan)
		if err != nil {
			return err
		}
		thing.TypeName = kind
	}
	return nil
}

func (a *application) overrideAttributes(thing *imprint.Thing, plan *template.ThingPlan) error {
	if plan.Attributes == nil {
		return nil
	}
	switch plan.Overrides.AttributePayload {
	case template.Fail:
		return conflict(thing.Name, "AttributePayload", "REPLACE, MERGE or DO_NOTHING")
	case template.Replace:
		thing.Attributes = thing.MergeAttributes(plan.Attributes, false)
	case template.Merge:
		thing.Attributes = thing.MergeAttributes(plan.Attributes, true)
	}
	return nil
}

// conflict is what FAIL answers for a thing that exists.
func conflict(thing imprint.ThingName, key, others string) error {
	return imprint.Errorf(imprint.CodeConflictingUpdate, "thing %s exists already, and the template's OverrideSettings say FAIL", thing).
		WithHint("Delete the thing, or set %s in the template's OverrideSettings to %s.", key, others)
}

// findType gives the type that the template names, which must exist and be open;
// empty when it names none.
func (a *application) findType(plan *template.ThingPlan) (imprint.ThingTypeName, error) {
	if plan.ThingTypeName == "" {
		return "", nil
	}
	name, err := imprint.ParseThingTypeName(plan.ThingTypeName)
	if err != nil {
		return "", illegal("couldn't name the thing type", err)
	}
	found, err := a.tx.ThingType(a.cert.Tenant, name)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return "", imprint.Errorf(imprint.CodeThingTypeMissing, "thing type %q, which the template names, doesn't exist", name).
			WithHint("aws iot create-thing-type --thing-type-name %s", name)
	}
	if err != nil {
		return "", fmt.Errorf("couldn't read thing type %s: %w", name, err)
	}
	err = found.CheckOpen()
	if err != nil {
		return "", illegal("couldn't give the thing its type", err)
	}
	return name, nil
}

// findBillingGroup gives the billing group that the template names, which must
// exist; empty when it names none.
func (a *application) findBillingGroup(plan *template.ThingPlan) (imprint.BillingGroupName, error) {
	if plan.BillingGroup == "" {
		return "", nil
	}
	name, err := imprint.ParseBillingGroupName(plan.BillingGroup)
	if err != nil {
		return "", illegal("couldn't name the billing group", err)
	}
	_, err = a.tx.BillingGroup(a.cert.Tenant, name)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return "", imprint.Errorf(imprint.CodeGroupMissing, "billing group %q, which the template names, doesn't exist", name).
			WithHint("aws iot create-billing-group --billing-group-name %s", name)
	}
	if err != nil {
		return "", fmt.Errorf("couldn't read billing group %s: %w", name, err)
	}
	return name, nil
}
