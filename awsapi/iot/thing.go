package iot

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/internal/announced"
)

// thingRoutes are the operations on things (AWS IoT API reference, CreateThing,
// DescribeThing, UpdateThing, DeleteThing, ListThings).
func (s *Service) thingRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.HandleForAll(CreateThing, func(c awsapi.Caller, in *CreateThingInput) []string {
			if in.BillingGroupName == nil {
				return []string{thingResource(c, in.ThingName)}
			}
			return pairOf(thingResource(c, in.ThingName), callerARN(c, "billinggroup/"+*in.BillingGroupName))
		}, s.createThing),
		awsapi.Handle(DescribeThing, s.describeThing),
		awsapi.Handle(UpdateThing, s.updateThing),
		awsapi.Handle(DeleteThing, s.deleteThing),
		awsapi.Handle(ListThings, s.listThings),
	}
}

// defaultRegistryPageSize is the length of a page of things and attachments
// when the caller gives none. AWS IoT Core doesn't document its own.
const defaultRegistryPageSize = 50

// registryPage reads the paging members of lists that go by name.
func registryPage(size *int, token *string) imprint.Page {
	ascending := true
	p := page(size, token, &ascending)
	if size == nil {
		p.Limit = defaultRegistryPageSize
	}
	return p
}

// createThing answers a repetition with the same values as it answered the
// first call; other values are ResourceAlreadyExistsException.
func (s *Service) createThing(ctx context.Context, caller awsapi.Caller, in *CreateThingInput) (*CreateThingOutput, error) {
	name, err := imprint.ParseThingName(in.ThingName)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	described := imprint.Thing{
		Tenant: tenantOf(caller), Name: name, ID: uuid.NewString(), Attributes: map[string]string{},
		Version: 1, CreatedAt: now, ModifiedAt: now,
	}
	if in.AttributePayload != nil && in.AttributePayload.Attributes != nil {
		described.Attributes = in.AttributePayload.Attributes
	}
	_, err = s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*CreateThingOutput, error) {
		wanted, err := withKind(tx, described, in.ThingTypeName, in.BillingGroupName)
		if err != nil {
			return nil, err
		}
		err = wanted.CheckAttributes()
		if err != nil {
			return nil, err
		}
		present, err := tx.Thing(wanted.Tenant, name)
		switch {
		case err == nil && !present.Same(wanted):
			return nil, imprint.Errorf(imprint.CodeAlreadyExists, "Thing %s already exists in account with different attributes", name).
				WithResource(present.ID, present.ARN())
		case err == nil:
			return createdThing(present), nil
		case imprint.CodeOf(err) != imprint.CodeNotFound:
			return nil, fmt.Errorf("couldn't read thing %s: %w", name, err)
		}
		err = checkOpenType(tx, wanted)
		if err != nil {
			return nil, err
		}
		return createdThing(wanted), announced.In(tx, wanted.Tenant, now).CreateThing(wanted)
	})
}

func createdThing(t imprint.Thing) *CreateThingOutput {
	return &CreateThingOutput{ThingName: string(t.Name), ThingArn: t.ARN(), ThingId: t.ID}
}

// withKind gives a new thing the type and the billing group that a request names.
func withKind(tx imprint.ReadTx, thing imprint.Thing, thingType, billingGroup *string) (imprint.Thing, error) {
	if thingType != nil {
		found, err := readThingType(tx, thing.Tenant, *thingType)
		if err != nil {
			return thing, err
		}
		thing.TypeName = found.Name
	}
	if billingGroup != nil {
		found, err := readBillingGroup(tx, thing.Tenant, *billingGroup)
		if err != nil {
			return thing, err
		}
		thing.BillingGroup = found.Name
	}
	return thing, nil
}

// checkOpenType refuses a deprecated type for a thing that would get it.
func checkOpenType(tx imprint.ReadTx, thing imprint.Thing) error {
	if thing.TypeName == "" {
		return nil
	}
	found, err := readThingType(tx, thing.Tenant, string(thing.TypeName))
	if err != nil {
		return err
	}
	return found.CheckOpen()
}

func (s *Service) describeThing(ctx context.Context, caller awsapi.Caller, in *DescribeThingInput) (*DescribeThingOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*DescribeThingOutput, error) {
		thing, err := readThing(tx, tenantOf(caller), in.ThingName)
		if err != nil {
			return nil, err
		}
		return &DescribeThingOutput{
			DefaultClientId: string(thing.Name), ThingName: string(thing.Name), ThingId: thing.ID, ThingArn: thing.ARN(),
			ThingTypeName: string(thing.TypeName), Attributes: attributesOf(thing), Version: &thing.Version,
			BillingGroupName: string(thing.BillingGroup),
		}, nil
	})
}

// readThing finds a thing by the name in a request.
func readThing(tx imprint.ReadTx, tenant imprint.Tenant, text string) (imprint.Thing, error) {
	return readNamed("Thing", tenant, text, imprint.ParseThingName, tx.Thing)
}

// attributesOf is never nil: AWS sends {} for a thing without attributes.
func attributesOf(t imprint.Thing) map[string]string {
	if t.Attributes == nil {
		return map[string]string{}
	}
	return t.Attributes
}

// updateThing replaces the attributes, or merges into them, where an empty
// value takes one away. Without attributes in the request they stay.
func (s *Service) updateThing(ctx context.Context, caller awsapi.Caller, in *UpdateThingInput) (*UpdateThingOutput, error) {
	removeType := in.RemoveThingType != nil && *in.RemoveThingType
	if removeType && in.ThingTypeName != nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "thingTypeName and removeThingType can't be given together.")
	}
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*UpdateThingOutput, error) {
		thing, err := readThing(tx, tenantOf(caller), in.ThingName)
		if err != nil {
			return nil, err
		}
		err = checkVersion(thing, in.ExpectedVersion)
		if err != nil {
			return nil, err
		}
		before := thing
		thing, err = withUpdate(tx, thing, in)
		if err != nil {
			return nil, err
		}
		thing.Version++
		thing.ModifiedAt = now
		return &UpdateThingOutput{}, announced.In(tx, thing.Tenant, now).UpdateThing(before, thing)
	})
}

// withUpdate gives the thing with what a request changes of it.
func withUpdate(tx imprint.ReadTx, thing imprint.Thing, in *UpdateThingInput) (imprint.Thing, error) {
	if in.ThingTypeName != nil {
		var err error
		thing, err = withKind(tx, thing, in.ThingTypeName, nil)
		if err != nil {
			return thing, err
		}
		err = checkOpenType(tx, thing)
		if err != nil {
			return thing, err
		}
	}
	if in.RemoveThingType != nil && *in.RemoveThingType {
		thing.TypeName = ""
	}
	if in.AttributePayload != nil && in.AttributePayload.Attributes != nil {
		merge := in.AttributePayload.Merge != nil && *in.AttributePayload.Merge
		thing.Attributes = thing.MergeAttributes(in.AttributePayload.Attributes, merge)
	}
	return thing, thing.CheckAttributes()
}

// checkVersion compares a thing's version with the one that the caller expects.
func checkVersion(thing imprint.Thing, expected *int64) error {
	if expected == nil || *expected == thing.Version {
		return nil
	}
	return imprint.Errorf(imprint.CodeVersionConflict, "The version for thing %s does not match the expected version.", thing.Name).
		WithHint("Its version is %d, not %d.", thing.Version, *expected)
}

// deleteThing succeeds for a thing that doesn't exist, as AWS IoT Core does. The
// thing leaves its groups and its billing group; principals are in its way.
func (s *Service) deleteThing(ctx context.Context, caller awsapi.Caller, in *DeleteThingInput) (*DeleteThingOutput, error) {
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*DeleteThingOutput, error) {
		thing, err := readThing(tx, tenantOf(caller), in.ThingName)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return &DeleteThingOutput{}, nil
		}
		if err != nil {
			return nil, err
		}
		err = checkVersion(thing, in.ExpectedVersion)
		if err != nil {
			return nil, err
		}
		attached, _, err := tx.ThingPrincipals(thing.Tenant, thing.Name, imprint.Page{Limit: 1, Ascending: true})
		if err != nil {
			return nil, fmt.Errorf("couldn't read the principals of thing %s: %w", thing.Name, err)
		}
		if len(attached) > 0 {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "Cannot delete. Thing %s is still attached to one or more principals", thing.Name)
		}
		return &DeleteThingOutput{}, announced.In(tx, thing.Tenant, now).DeleteThing(thing)
	})
}

func (s *Service) listThings(ctx context.Context, caller awsapi.Caller, in *ListThingsInput) (*ListThingsOutput, error) {
	filter, err := thingFilter(in)
	if err != nil {
		return nil, err
	}
	return view(ctx, s, func(tx imprint.ReadTx) (*ListThingsOutput, error) {
		things, next, err := tx.Things(tenantOf(caller), filter, registryPage(in.MaxResults, in.NextToken))
		if err != nil {
			return nil, fmt.Errorf("couldn't list things: %w", err)
		}
		out := &ListThingsOutput{Things: make([]ThingAttribute, 0, len(things)), NextToken: next}
		for _, thing := range things {
			out.Things = append(out.Things, ThingAttribute{
				ThingName: string(thing.Name), ThingTypeName: string(thing.TypeName), ThingArn: thing.ARN(),
				Attributes: attributesOf(thing), Version: &thing.Version,
			})
		}
		return out, nil
	})
}

// thingFilter reads the filter of ListThings. A name without a value, or the
// reverse, would silently list something else than was asked for.
func thingFilter(in *ListThingsInput) (imprint.ThingFilter, error) {
	if (in.AttributeName == nil) != (in.AttributeValue == nil) {
		return imprint.ThingFilter{}, imprint.Errorf(imprint.CodeInvalidRequest, "attributeName and attributeValue must be given together.")
	}
	prefix := in.UsePrefixAttributeValue != nil && *in.UsePrefixAttributeValue
	if prefix && in.AttributeName == nil {
		return imprint.ThingFilter{}, imprint.Errorf(imprint.CodeInvalidRequest, "usePrefixAttributeValue needs attributeName and attributeValue.")
	}
	filter := imprint.ThingFilter{PrefixValue: prefix}
	if in.AttributeName != nil {
		filter.AttributeName, filter.AttributeValue = *in.AttributeName, *in.AttributeValue
	}
	if in.ThingTypeName != nil {
		filter.TypeName = imprint.ThingTypeName(*in.ThingTypeName)
	}
	return filter, nil
}
