package iot

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

// thingRoutes are the operations on things (AWS IoT API reference, CreateThing,
// DescribeThing, UpdateThing, DeleteThing, ListThings).
func (s *Service) thingRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(CreateThing, s.createThing),
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
	err = refuseUnkept(in.ThingTypeName, in.BillingGroupName)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	wanted := imprint.Thing{
		Tenant: tenantOf(caller), Name: name, ID: uuid.NewString(), Attributes: map[string]string{},
		Version: 1, CreatedAt: now, ModifiedAt: now,
	}
	if in.AttributePayload != nil && in.AttributePayload.Attributes != nil {
		wanted.Attributes = in.AttributePayload.Attributes
	}
	err = wanted.CheckAttributes()
	if err != nil {
		return nil, err
	}
	_, err = s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*CreateThingOutput, error) {
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
		err = tx.PutThing(wanted)
		if err != nil {
			return nil, fmt.Errorf("couldn't create thing %s: %w", name, err)
		}
		return createdThing(wanted), nil
	})
}

func createdThing(t imprint.Thing) *CreateThingOutput {
	return &CreateThingOutput{ThingName: string(t.Name), ThingArn: t.ARN(), ThingId: t.ID}
}

// refuseUnkept answers requests that name a thing type or a billing group. This
// build keeps none, so that each is one that doesn't exist.
func refuseUnkept(thingType, billingGroup *string) error {
	if thingType != nil {
		return imprint.Errorf(imprint.CodeNotFound, "Thing type %s cannot be found.", *thingType).
			WithHint("This build of Imprint keeps no thing types: leave thingTypeName out.")
	}
	if billingGroup != nil {
		return imprint.Errorf(imprint.CodeNotFound, "Billing group %s cannot be found.", *billingGroup).
			WithHint("This build of Imprint keeps no billing groups: leave billingGroupName out.")
	}
	return nil
}

func (s *Service) describeThing(ctx context.Context, caller awsapi.Caller, in *DescribeThingInput) (*DescribeThingOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*DescribeThingOutput, error) {
		thing, err := readThing(tx, tenantOf(caller), in.ThingName)
		if err != nil {
			return nil, err
		}
		return &DescribeThingOutput{
			DefaultClientId: string(thing.Name), ThingName: string(thing.Name), ThingId: thing.ID, ThingArn: thing.ARN(),
			ThingTypeName: thing.TypeName, Attributes: attributesOf(thing), Version: &thing.Version,
			BillingGroupName: thing.BillingGroup,
		}, nil
	})
}

// readThing finds a thing by the name in a request.
func readThing(tx imprint.ReadTx, tenant imprint.Tenant, text string) (imprint.Thing, error) {
	name, err := imprint.ParseThingName(text)
	if err != nil {
		return imprint.Thing{}, err
	}
	thing, err := tx.Thing(tenant, name)
	if err != nil {
		return imprint.Thing{}, explainNotFound(err, "Thing", text)
	}
	return thing, nil
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
		err = refuseUnkept(in.ThingTypeName, nil)
		if err != nil {
			return nil, err
		}
		if removeType {
			thing.TypeName = ""
		}
		if in.AttributePayload != nil && in.AttributePayload.Attributes != nil {
			merge := in.AttributePayload.Merge != nil && *in.AttributePayload.Merge
			thing.Attributes = thing.MergeAttributes(in.AttributePayload.Attributes, merge)
		}
		err = thing.CheckAttributes()
		if err != nil {
			return nil, err
		}
		thing.Version++
		thing.ModifiedAt = now
		err = tx.PutThing(thing)
		if err != nil {
			return nil, fmt.Errorf("couldn't update thing %s: %w", thing.Name, err)
		}
		return &UpdateThingOutput{}, nil
	})
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
// thing leaves its groups; principals are in its way.
func (s *Service) deleteThing(ctx context.Context, caller awsapi.Caller, in *DeleteThingInput) (*DeleteThingOutput, error) {
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
		err = tx.DeleteThing(thing.Tenant, thing.Name)
		if err != nil {
			return nil, fmt.Errorf("couldn't delete thing %s: %w", thing.Name, err)
		}
		return &DeleteThingOutput{}, nil
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
				ThingName: string(thing.Name), ThingTypeName: thing.TypeName, ThingArn: thing.ARN(),
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
		filter.TypeName = *in.ThingTypeName
	}
	return filter, nil
}
