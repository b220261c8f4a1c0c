package iot

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/internal/announced"
)

// thingTypeRoutes are the operations on thing types (AWS IoT API reference,
// CreateThingType and its neighbours).
func (s *Service) thingTypeRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(CreateThingType, s.createThingType),
		awsapi.Handle(DescribeThingType, s.describeThingType),
		awsapi.Handle(UpdateThingType, s.updateThingType),
		awsapi.Handle(DeprecateThingType, s.deprecateThingType),
		awsapi.Handle(DeleteThingType, s.deleteThingType),
		awsapi.Handle(ListThingTypes, s.listThingTypes),
	}
}

// createThingType answers a repetition with the same values as it answered the
// first call; other values are ResourceAlreadyExistsException.
func (s *Service) createThingType(ctx context.Context, caller awsapi.Caller, in *CreateThingTypeInput) (*CreateThingTypeOutput, error) {
	name, err := imprint.ParseThingTypeName(in.ThingTypeName)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	wanted := imprint.ThingType{Tenant: tenantOf(caller), Name: name, ID: uuid.NewString(), CreatedAt: now, ModifiedAt: now}
	wanted = withTypeProperties(wanted, in.ThingTypeProperties)
	err = wanted.Check()
	if err != nil {
		return nil, err
	}
	_, err = s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*CreateThingTypeOutput, error) {
		present, err := tx.ThingType(wanted.Tenant, name)
		switch {
		case err == nil && !present.Same(wanted):
			return nil, imprint.Errorf(imprint.CodeAlreadyExists, "Thing Type %s already exists in current account with different properties", name).
				WithResource(present.ID, present.ARN())
		case err == nil:
			return createdThingType(present), nil
		case imprint.CodeOf(err) != imprint.CodeNotFound:
			return nil, fmt.Errorf("couldn't read thing type %s: %w", name, err)
		}
		err = announced.In(tx, wanted.Tenant, now).CreateThingType(wanted)
		if err != nil {
			return nil, err
		}
		return createdThingType(wanted), putTags(tx, wanted.Tenant, wanted.ARN(), in.Tags)
	})
}

func createdThingType(t imprint.ThingType) *CreateThingTypeOutput {
	return &CreateThingTypeOutput{ThingTypeName: string(t.Name), ThingTypeArn: t.ARN(), ThingTypeId: t.ID}
}

// withTypeProperties gives the type with what a request sets of its properties.
func withTypeProperties(t imprint.ThingType, properties *ThingTypeProperties) imprint.ThingType {
	if properties == nil {
		return t
	}
	if properties.ThingTypeDescription != nil {
		t.Description = *properties.ThingTypeDescription
	}
	if properties.SearchableAttributes != nil {
		t.SearchableAttributes = properties.SearchableAttributes
	}
	if mqtt := properties.Mqtt5Configuration; mqtt != nil && mqtt.PropagatingAttributes != nil {
		t.PropagatingAttributes = make([]imprint.PropagatingAttribute, 0, len(mqtt.PropagatingAttributes))
		for _, p := range mqtt.PropagatingAttributes {
			t.PropagatingAttributes = append(t.PropagatingAttributes, imprint.PropagatingAttribute{
				UserPropertyKey: textOf(p.UserPropertyKey), ThingAttribute: textOf(p.ThingAttribute), ConnectionAttribute: textOf(p.ConnectionAttribute),
			})
		}
	}
	return t
}

// textOf gives the empty text for an absent member; optionalText is its inverse.
func textOf(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func optionalText(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// readThingType finds a type by the name in a request.
func readThingType(tx imprint.ReadTx, tenant imprint.Tenant, text string) (imprint.ThingType, error) {
	return readNamed("Thing type", tenant, text, imprint.ParseThingTypeName, tx.ThingType)
}

func (s *Service) describeThingType(ctx context.Context, caller awsapi.Caller, in *DescribeThingTypeInput) (*DescribeThingTypeOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*DescribeThingTypeOutput, error) {
		found, err := readThingType(tx, tenantOf(caller), in.ThingTypeName)
		if err != nil {
			return nil, err
		}
		return &DescribeThingTypeOutput{
			ThingTypeName: string(found.Name), ThingTypeId: found.ID, ThingTypeArn: found.ARN(),
			ThingTypeProperties: typeProperties(found), ThingTypeMetadata: typeMetadata(found),
		}, nil
	})
}

func typeProperties(t imprint.ThingType) *ThingTypeProperties {
	properties := &ThingTypeProperties{ThingTypeDescription: optionalText(t.Description), SearchableAttributes: t.SearchableAttributes}
	if properties.SearchableAttributes == nil {
		properties.SearchableAttributes = []string{}
	}
	if len(t.PropagatingAttributes) == 0 {
		return properties
	}
	properties.Mqtt5Configuration = &Mqtt5Configuration{}
	for _, p := range t.PropagatingAttributes {
		properties.Mqtt5Configuration.PropagatingAttributes = append(properties.Mqtt5Configuration.PropagatingAttributes, PropagatingAttribute{
			UserPropertyKey: &p.UserPropertyKey, ThingAttribute: optionalText(p.ThingAttribute), ConnectionAttribute: optionalText(p.ConnectionAttribute),
		})
	}
	return properties
}

func typeMetadata(t imprint.ThingType) *ThingTypeMetadata {
	return &ThingTypeMetadata{Deprecated: new(t.Deprecated()), DeprecationDate: t.DeprecatedAt, CreationDate: t.CreatedAt}
}

// updateThingType replaces the properties that the request has; the others stay.
func (s *Service) updateThingType(ctx context.Context, caller awsapi.Caller, in *UpdateThingTypeInput) (*UpdateThingTypeOutput, error) {
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*UpdateThingTypeOutput, error) {
		found, err := readThingType(tx, tenantOf(caller), in.ThingTypeName)
		if err != nil {
			return nil, err
		}
		found = withTypeProperties(found, in.ThingTypeProperties)
		err = found.Check()
		if err != nil {
			return nil, err
		}
		found.ModifiedAt = now
		return &UpdateThingTypeOutput{}, announced.In(tx, found.Tenant, now).UpdateThingType(found)
	})
}

// deprecateThingType closes a type to new things, or opens it again. A repetition
// changes nothing.
func (s *Service) deprecateThingType(ctx context.Context, caller awsapi.Caller, in *DeprecateThingTypeInput) (*DeprecateThingTypeOutput, error) {
	undo := in.UndoDeprecate != nil && *in.UndoDeprecate
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*DeprecateThingTypeOutput, error) {
		found, err := readThingType(tx, tenantOf(caller), in.ThingTypeName)
		if err != nil {
			return nil, err
		}
		after, changed := found.Deprecate(undo, now)
		if !changed {
			return &DeprecateThingTypeOutput{}, nil
		}
		return &DeprecateThingTypeOutput{}, announced.In(tx, after.Tenant, now).UpdateThingType(after)
	})
}

// deleteThingType deletes a type that was deprecated long enough ago and that no
// thing has, with its tags.
func (s *Service) deleteThingType(ctx context.Context, caller awsapi.Caller, in *DeleteThingTypeInput) (*DeleteThingTypeOutput, error) {
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*DeleteThingTypeOutput, error) {
		found, err := readThingType(tx, tenantOf(caller), in.ThingTypeName)
		if err != nil {
			return nil, err
		}
		err = found.CheckDeletable(now, s.rooms.ThingTypeDeletionDelay)
		if err != nil {
			return nil, err
		}
		things, _, err := tx.Things(found.Tenant, imprint.ThingFilter{TypeName: found.Name}, imprint.Page{Limit: 1, Ascending: true})
		if err != nil {
			return nil, fmt.Errorf("couldn't read the things of thing type %s: %w", found.Name, err)
		}
		if len(things) > 0 {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "Cannot delete. Thing type %s is still associated with one or more things.", found.Name).
				WithHint("aws iot list-things --thing-type-name %s shows them.", found.Name)
		}
		err = tx.DeleteTags(found.Tenant, found.ARN())
		if err != nil {
			return nil, fmt.Errorf("couldn't delete the tags of thing type %s: %w", found.Name, err)
		}
		return &DeleteThingTypeOutput{}, announced.In(tx, found.Tenant, now).DeleteThingType(found)
	})
}

// listThingTypes lists all types, or the one that is named.
func (s *Service) listThingTypes(ctx context.Context, caller awsapi.Caller, in *ListThingTypesInput) (*ListThingTypesOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*ListThingTypesOutput, error) {
		types, next, err := thingTypes(tx, tenantOf(caller), in)
		if err != nil {
			return nil, err
		}
		out := &ListThingTypesOutput{ThingTypes: make([]ThingTypeDefinition, 0, len(types)), NextToken: next}
		for _, t := range types {
			out.ThingTypes = append(out.ThingTypes, ThingTypeDefinition{
				ThingTypeName: string(t.Name), ThingTypeArn: t.ARN(), ThingTypeProperties: typeProperties(t), ThingTypeMetadata: typeMetadata(t),
			})
		}
		return out, nil
	})
}

func thingTypes(tx imprint.ReadTx, tenant imprint.Tenant, in *ListThingTypesInput) ([]imprint.ThingType, string, error) {
	if in.ThingTypeName != nil {
		found, err := readThingType(tx, tenant, *in.ThingTypeName)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return nil, "", nil
		}
		return []imprint.ThingType{found}, "", err
	}
	types, next, err := tx.ThingTypes(tenant, registryPage(in.MaxResults, in.NextToken))
	if err != nil {
		return nil, "", fmt.Errorf("couldn't list thing types: %w", err)
	}
	return types, next, nil
}
