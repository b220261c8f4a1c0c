package iot

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/internal/announced"
)

// thingGroupRoutes are the operations on static thing groups (AWS IoT API
// reference, CreateThingGroup and its neighbours).
func (s *Service) thingGroupRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(CreateThingGroup, s.createThingGroup),
		awsapi.Handle(DescribeThingGroup, s.describeThingGroup),
		awsapi.Handle(UpdateThingGroup, s.updateThingGroup),
		awsapi.Handle(DeleteThingGroup, s.deleteThingGroup),
		awsapi.Handle(ListThingGroups, s.listThingGroups),
	}
}

// createThingGroup answers a repetition with the same values as it answered the
// first call; other values are ResourceAlreadyExistsException.
func (s *Service) createThingGroup(ctx context.Context, caller awsapi.Caller, in *CreateThingGroupInput) (*CreateThingGroupOutput, error) {
	name, err := imprint.ParseThingGroupName(in.ThingGroupName)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	wanted := imprint.ThingGroup{Tenant: tenantOf(caller), Name: name, ID: uuid.NewString(), Version: 1, CreatedAt: now, ModifiedAt: now}
	wanted = withProperties(wanted, in.ThingGroupProperties)
	err = wanted.CheckAttributes()
	if err != nil {
		return nil, err
	}
	_, err = s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*CreateThingGroupOutput, error) {
		group := wanted
		var parent *imprint.ThingGroup
		if in.ParentGroupName != nil {
			found, err := readThingGroup(tx, group.Tenant, *in.ParentGroupName)
			if err != nil {
				return nil, err
			}
			group.Ancestors, err = found.Below()
			if err != nil {
				return nil, err
			}
			parent = &found
		}
		present, err := tx.ThingGroup(group.Tenant, name)
		switch {
		case err == nil && !present.Same(group):
			return nil, imprint.Errorf(imprint.CodeAlreadyExists, "Thing Group %s already exists in current account with different properties", name).
				WithResource(present.ID, present.ARN())
		case err == nil:
			return createdThingGroup(present), nil
		case imprint.CodeOf(err) != imprint.CodeNotFound:
			return nil, fmt.Errorf("couldn't read thing group %s: %w", name, err)
		}
		err = checkChildren(tx, parent)
		if err != nil {
			return nil, err
		}
		err = announced.In(tx, group.Tenant, now).CreateThingGroup(group)
		if err != nil {
			return nil, err
		}
		return createdThingGroup(group), putTags(tx, group.Tenant, group.ARN(), in.Tags)
	})
}

// checkChildren refuses a group more below one that has as many as it can.
func checkChildren(tx imprint.ReadTx, parent *imprint.ThingGroup) error {
	if parent == nil {
		return nil
	}
	children, _, err := tx.ThingGroups(parent.Tenant, imprint.ThingGroupFilter{Parent: parent.Name}, imprint.Page{Limit: imprint.MaxGroupChildren, Ascending: true})
	if err != nil {
		return fmt.Errorf("couldn't read the groups below thing group %s: %w", parent.Name, err)
	}
	if len(children) >= imprint.MaxGroupChildren {
		return imprint.Errorf(imprint.CodeInvalidRequest, "Thing group %s has %d child groups, as many as allowed.", parent.Name, len(children))
	}
	return nil
}

func createdThingGroup(g imprint.ThingGroup) *CreateThingGroupOutput {
	return &CreateThingGroupOutput{ThingGroupName: string(g.Name), ThingGroupArn: g.ARN(), ThingGroupId: g.ID}
}

// withProperties gives the group with what a request sets of its properties.
func withProperties(g imprint.ThingGroup, properties *ThingGroupProperties) imprint.ThingGroup {
	if properties == nil {
		return g
	}
	if properties.ThingGroupDescription != nil {
		g.Description = *properties.ThingGroupDescription
	}
	if payload := properties.AttributePayload; payload != nil && payload.Attributes != nil {
		g.Attributes = g.MergeAttributes(payload.Attributes, payload.Merge != nil && *payload.Merge)
	}
	return g
}

// readThingGroup finds a group by the name in a request.
func readThingGroup(tx imprint.ReadTx, tenant imprint.Tenant, text string) (imprint.ThingGroup, error) {
	return readNamed("Thing group", tenant, text, imprint.ParseThingGroupName, tx.ThingGroup)
}

func (s *Service) describeThingGroup(ctx context.Context, caller awsapi.Caller, in *DescribeThingGroupInput) (*DescribeThingGroupOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*DescribeThingGroupOutput, error) {
		group, err := readThingGroup(tx, tenantOf(caller), in.ThingGroupName)
		if err != nil {
			return nil, err
		}
		out := &DescribeThingGroupOutput{
			ThingGroupName: string(group.Name), ThingGroupId: group.ID, ThingGroupArn: group.ARN(), Version: &group.Version,
			ThingGroupProperties: &ThingGroupProperties{},
			ThingGroupMetadata: &ThingGroupMetadata{
				ParentGroupName: string(group.Parent()), CreationDate: group.CreatedAt,
				RootToParentThingGroups: namesAndARNs(group.Tenant, group.Ancestors),
			},
		}
		if group.Description != "" {
			out.ThingGroupProperties.ThingGroupDescription = &group.Description
		}
		if len(group.Attributes) > 0 {
			out.ThingGroupProperties.AttributePayload = &AttributePayload{Attributes: group.Attributes}
		}
		return out, nil
	})
}

// namesAndARNs is never nil, as lists are sent.
func namesAndARNs(tenant imprint.Tenant, names []imprint.ThingGroupName) []GroupNameAndArn {
	list := make([]GroupNameAndArn, 0, len(names))
	for _, name := range names {
		list = append(list, GroupNameAndArn{GroupName: string(name), GroupArn: tenant.ThingGroupARN(name)})
	}
	return list
}

// updateThingGroup replaces the description and the attributes, or merges into
// the attributes; what the request leaves out stays.
func (s *Service) updateThingGroup(ctx context.Context, caller awsapi.Caller, in *UpdateThingGroupInput) (*UpdateThingGroupOutput, error) {
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*UpdateThingGroupOutput, error) {
		group, err := readThingGroup(tx, tenantOf(caller), in.ThingGroupName)
		if err != nil {
			return nil, err
		}
		err = checkGroupVersion(group, in.ExpectedVersion)
		if err != nil {
			return nil, err
		}
		group = withProperties(group, in.ThingGroupProperties)
		err = group.CheckAttributes()
		if err != nil {
			return nil, err
		}
		group.Version++
		group.ModifiedAt = now
		return &UpdateThingGroupOutput{Version: &group.Version}, announced.In(tx, group.Tenant, now).UpdateThingGroup(group)
	})
}

// checkGroupVersion compares a group's version with the one that the caller
// expects.
func checkGroupVersion(group imprint.ThingGroup, expected *int64) error {
	if expected == nil || *expected == group.Version {
		return nil
	}
	return imprint.Errorf(imprint.CodeVersionConflict, "The version for thing group %s does not match the expected version.", group.Name).
		WithHint("Its version is %d, not %d.", group.Version, *expected)
}

// maxLeaving bounds the memberships that one transaction ends: other changes wait
// while it runs.
const maxLeaving = 1000

// deleteThingGroup succeeds for a group that doesn't exist, as AWS IoT Core does.
// The things in it leave it, at most maxLeaving in one transaction; the last one
// takes the group, its policies and its tags along.
func (s *Service) deleteThingGroup(ctx context.Context, caller awsapi.Caller, in *DeleteThingGroupInput) (*DeleteThingGroupOutput, error) {
	expected := in.ExpectedVersion
	now := s.rooms.Clock()
	for {
		gone, err := update(ctx, s, func(tx imprint.Tx) (bool, error) {
			group, err := readThingGroup(tx, tenantOf(caller), in.ThingGroupName)
			if imprint.CodeOf(err) == imprint.CodeNotFound {
				return true, nil
			}
			if err != nil {
				return false, err
			}
			err = checkGroupVersion(group, expected)
			if err != nil {
				return false, err
			}
			return dissolve(tx, group, announced.In(tx, group.Tenant, now))
		})
		if err != nil {
			return nil, err
		}
		if gone {
			return &DeleteThingGroupOutput{}, nil
		}
		// What was expected was so when the deletion began.
		expected = nil
	}
}

// dissolve takes things out of a group, or deletes it when few are left.
func dissolve(tx imprint.Tx, group imprint.ThingGroup, registry *announced.Registry) (gone bool, err error) {
	children, _, err := tx.ThingGroups(group.Tenant, imprint.ThingGroupFilter{Parent: group.Name}, imprint.Page{Limit: 1, Ascending: true})
	if err != nil {
		return false, fmt.Errorf("couldn't read the groups below thing group %s: %w", group.Name, err)
	}
	if len(children) > 0 {
		return false, imprint.Errorf(imprint.CodeInvalidRequest, "Cannot delete thing group : %s when there are still child groups attached to it.", group.Name)
	}
	members, next, err := tx.ThingGroupMembers(group.Tenant, group.Name, false, imprint.Page{Limit: maxLeaving, Ascending: true})
	if err != nil {
		return false, fmt.Errorf("couldn't read the things in thing group %s: %w", group.Name, err)
	}
	if next != "" {
		for _, m := range members {
			err = registry.Leave(m)
			if err != nil {
				return false, err
			}
		}
		return false, nil
	}
	names, err := targetPolicies(tx, target{tenant: group.Tenant, arn: group.ARN()})
	if err != nil {
		return false, err
	}
	for _, name := range names {
		err = tx.DeletePolicyAttachment(imprint.PolicyAttachment{Tenant: group.Tenant, Policy: name, Target: group.ARN()})
		if err != nil {
			return false, fmt.Errorf("couldn't detach policy %s from thing group %s: %w", name, group.Name, err)
		}
	}
	err = tx.DeleteTags(group.Tenant, group.ARN())
	if err != nil {
		return false, fmt.Errorf("couldn't delete the tags of thing group %s: %w", group.Name, err)
	}
	err = registry.DeleteThingGroup(group, members)
	if err != nil {
		return false, err
	}
	return true, nil
}

// listThingGroups lists all groups when neither a parent is named nor recursive
// is given; with recursive=false only the roots, or what is right below the
// parent.
func (s *Service) listThingGroups(ctx context.Context, caller awsapi.Caller, in *ListThingGroupsInput) (*ListThingGroupsOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*ListThingGroupsOutput, error) {
		tenant := tenantOf(caller)
		filter := imprint.ThingGroupFilter{Recursive: in.ParentGroup == nil}
		if in.ParentGroup != nil {
			parent, err := readThingGroup(tx, tenant, *in.ParentGroup)
			if err != nil {
				return nil, err
			}
			filter.Parent = parent.Name
		}
		if in.Recursive != nil {
			filter.Recursive = *in.Recursive
		}
		if in.NamePrefixFilter != nil {
			filter.Prefix = *in.NamePrefixFilter
		}
		groups, next, err := tx.ThingGroups(tenant, filter, registryPage(in.MaxResults, in.NextToken))
		if err != nil {
			return nil, fmt.Errorf("couldn't list thing groups: %w", err)
		}
		names := make([]imprint.ThingGroupName, 0, len(groups))
		for _, g := range groups {
			names = append(names, g.Name)
		}
		return &ListThingGroupsOutput{ThingGroups: namesAndARNs(tenant, names), NextToken: next}, nil
	})
}
