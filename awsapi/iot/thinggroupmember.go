package iot

import (
	"context"
	"fmt"
	"slices"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/internal/announced"
)

// thingGroupMemberRoutes are the operations that put things into groups (AWS IoT
// API reference, AddThingToThingGroup and its neighbours).
func (s *Service) thingGroupMemberRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.HandleForAll(AddThingToThingGroup, func(c awsapi.Caller, in *AddThingToThingGroupInput) []string {
			return pairOf(groupARNOf(c, in.ThingGroupName, in.ThingGroupArn), thingARNFrom(c, in.ThingName, in.ThingArn))
		}, s.addThingToThingGroup),
		awsapi.HandleForAll(RemoveThingFromThingGroup, func(c awsapi.Caller, in *RemoveThingFromThingGroupInput) []string {
			return pairOf(groupARNOf(c, in.ThingGroupName, in.ThingGroupArn), thingARNFrom(c, in.ThingName, in.ThingArn))
		}, s.removeThingFromThingGroup),
		awsapi.HandleForAll(UpdateThingGroupsForThing, func(c awsapi.Caller, in *UpdateThingGroupsForThingInput) []string {
			resources := []string{thingARNFrom(c, in.ThingName, nil)}
			for _, group := range slices.Concat(in.ThingGroupsToAdd, in.ThingGroupsToRemove) {
				resources = append(resources, callerARN(c, "thinggroup/"+group))
			}
			return resources
		}, s.updateThingGroupsForThing),
		awsapi.Handle(ListThingsInThingGroup, s.listThingsInThingGroup),
		awsapi.Handle(ListThingGroupsForThing, s.listThingGroupsForThing),
	}
}

// groupARNOf is what identity policies see as the resource of an operation that
// names its group in the body: the ARN in its one form, or as it came when it has
// none.
func groupARNOf(caller awsapi.Caller, name, arn *string) string {
	if name != nil {
		return callerARN(caller, "thinggroup/"+*name)
	}
	if arn == nil {
		return "*"
	}
	parsed, err := tenantOf(caller).ParseThingGroupARN(*arn)
	if err != nil {
		return *arn
	}
	return callerARN(caller, "thinggroup/"+string(parsed))
}

// nameOf reads what a request names by name, by ARN, or by both when they agree.
func nameOf[N ~string](what string, name, arn *string, parse, parseARN func(string) (N, error)) (N, error) {
	if name == nil && arn == nil {
		return "", imprint.Errorf(imprint.CodeInvalidRequest, "%sName or %sArn must be given.", what, what)
	}
	var byARN N
	var err error
	if arn != nil {
		byARN, err = parseARN(*arn)
		if err != nil {
			return "", fmt.Errorf("couldn't read %sArn: %w", what, err)
		}
	}
	if name == nil {
		return byARN, nil
	}
	byName, err := parse(*name)
	if err != nil {
		return "", err
	}
	if arn != nil && byName != byARN {
		return "", imprint.Errorf(imprint.CodeInvalidRequest, "%sName and %sArn name different resources.", what, what)
	}
	return byName, nil
}

// membershipOf reads a thing and a group out of the body of a request.
func membershipOf(tenant imprint.Tenant, groupName, groupARN, thingName, thingARN *string) (imprint.ThingGroupMembership, error) {
	group, err := nameOf("thingGroup", groupName, groupARN, imprint.ParseThingGroupName, tenant.ParseThingGroupARN)
	if err != nil {
		return imprint.ThingGroupMembership{}, err
	}
	thing, err := nameOf("thing", thingName, thingARN, imprint.ParseThingName, tenant.ParseThingARN)
	if err != nil {
		return imprint.ThingGroupMembership{}, err
	}
	return imprint.ThingGroupMembership{Tenant: tenant, Group: group, Thing: thing}, nil
}

// addThingToThingGroup ignores overrideDynamicGroups, as no group is dynamic. A
// repetition changes nothing.
func (s *Service) addThingToThingGroup(ctx context.Context, caller awsapi.Caller, in *AddThingToThingGroupInput) (*AddThingToThingGroupOutput, error) {
	wanted, err := membershipOf(tenantOf(caller), in.ThingGroupName, in.ThingGroupArn, in.ThingName, in.ThingArn)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*AddThingToThingGroupOutput, error) {
		group, err := readThingGroup(tx, wanted.Tenant, string(wanted.Group))
		if err != nil {
			return nil, err
		}
		thing, err := readThing(tx, wanted.Tenant, string(wanted.Thing))
		if err != nil {
			return nil, err
		}
		present, err := groupsOf(tx, thing)
		if err != nil {
			return nil, err
		}
		_, err = joinGroup(announced.In(tx, thing.Tenant, now), thing, present, group)
		return &AddThingToThingGroupOutput{}, err
	})
}

// groupsOf gives the groups that a thing is in: all, because of the limit at
// joining.
func groupsOf(tx imprint.ReadTx, thing imprint.Thing) ([]imprint.ThingGroup, error) {
	memberships, _, err := tx.ThingMemberships(thing.Tenant, thing.Name, imprint.Page{Limit: maxPageSize, Ascending: true})
	if err != nil {
		return nil, fmt.Errorf("couldn't read the groups of thing %s: %w", thing.Name, err)
	}
	groups := make([]imprint.ThingGroup, 0, len(memberships))
	for _, m := range memberships {
		group, err := tx.ThingGroup(m.Tenant, m.Group)
		if err != nil {
			// A group takes its memberships along: that it is missing is no mistake of the caller's.
			return nil, imprint.Errorf(imprint.CodeInternal, "couldn't read thing group %s of thing %s: %w", m.Group, thing.Name, err)
		}
		groups = append(groups, group)
	}
	return groups, nil
}

// joinGroup puts a thing that is in the present groups into another one, and
// gives all that it is in then.
func joinGroup(registry *announced.Registry, thing imprint.Thing, present []imprint.ThingGroup, group imprint.ThingGroup) ([]imprint.ThingGroup, error) {
	if slices.ContainsFunc(present, func(g imprint.ThingGroup) bool { return g.Name == group.Name }) {
		return present, nil
	}
	err := group.CheckJoin(thing.Name, present)
	if err != nil {
		return nil, err
	}
	err = registry.Join(imprint.ThingGroupMembership{Tenant: thing.Tenant, Group: group.Name, Thing: thing.Name})
	if err != nil {
		return nil, err
	}
	return append(present, group), nil
}

// removeThingFromThingGroup succeeds for a thing that isn't in the group.
func (s *Service) removeThingFromThingGroup(ctx context.Context, caller awsapi.Caller, in *RemoveThingFromThingGroupInput) (*RemoveThingFromThingGroupOutput, error) {
	wanted, err := membershipOf(tenantOf(caller), in.ThingGroupName, in.ThingGroupArn, in.ThingName, in.ThingArn)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*RemoveThingFromThingGroupOutput, error) {
		_, err := readThingGroup(tx, wanted.Tenant, string(wanted.Group))
		if err != nil {
			return nil, err
		}
		_, err = readThing(tx, wanted.Tenant, string(wanted.Thing))
		if err != nil {
			return nil, err
		}
		return &RemoveThingFromThingGroupOutput{}, announced.In(tx, wanted.Tenant, now).Leave(wanted)
	})
}

// maxGroupsNamed bounds the lists of UpdateThingGroupsForThing. AWS IoT Core
// documents no bound; a thing is in no more groups than that.
const maxGroupsNamed = 2 * imprint.MaxGroupsPerThing

// updateThingGroupsForThing takes the thing out of groups first, so that it can
// move within a hierarchy or at its limit in one call.
func (s *Service) updateThingGroupsForThing(ctx context.Context, caller awsapi.Caller, in *UpdateThingGroupsForThingInput) (*UpdateThingGroupsForThingOutput, error) {
	if in.ThingName == nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "thingName must be given.")
	}
	if len(in.ThingGroupsToAdd)+len(in.ThingGroupsToRemove) > maxGroupsNamed {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "%d thing groups are named, at most %d can be.", len(in.ThingGroupsToAdd)+len(in.ThingGroupsToRemove), maxGroupsNamed)
	}
	for _, name := range in.ThingGroupsToAdd {
		if slices.Contains(in.ThingGroupsToRemove, name) {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "thing group %s is to be added and to be removed.", name)
		}
	}
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*UpdateThingGroupsForThingOutput, error) {
		thing, err := readThing(tx, tenantOf(caller), *in.ThingName)
		if err != nil {
			return nil, err
		}
		registry := announced.In(tx, thing.Tenant, now)
		for _, name := range in.ThingGroupsToRemove {
			group, err := readThingGroup(tx, thing.Tenant, name)
			if err != nil {
				return nil, err
			}
			err = registry.Leave(imprint.ThingGroupMembership{Tenant: thing.Tenant, Group: group.Name, Thing: thing.Name})
			if err != nil {
				return nil, err
			}
		}
		present, err := groupsOf(tx, thing)
		if err != nil {
			return nil, err
		}
		for _, name := range in.ThingGroupsToAdd {
			group, err := readThingGroup(tx, thing.Tenant, name)
			if err != nil {
				return nil, err
			}
			present, err = joinGroup(registry, thing, present, group)
			if err != nil {
				return nil, err
			}
		}
		return &UpdateThingGroupsForThingOutput{}, nil
	})
}

func (s *Service) listThingsInThingGroup(ctx context.Context, caller awsapi.Caller, in *ListThingsInThingGroupInput) (*ListThingsInThingGroupOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*ListThingsInThingGroupOutput, error) {
		group, err := readThingGroup(tx, tenantOf(caller), in.ThingGroupName)
		if err != nil {
			return nil, err
		}
		recursive := in.Recursive != nil && *in.Recursive
		members, next, err := tx.ThingGroupMembers(group.Tenant, group.Name, recursive, registryPage(in.MaxResults, in.NextToken))
		if err != nil {
			return nil, fmt.Errorf("couldn't list the things in thing group %s: %w", group.Name, err)
		}
		out := &ListThingsInThingGroupOutput{Things: make([]string, 0, len(members)), NextToken: next}
		for _, m := range members {
			out.Things = append(out.Things, string(m.Thing))
		}
		return out, nil
	})
}

// listThingGroupsForThing lists the groups that the thing is in itself, without
// their ancestors.
func (s *Service) listThingGroupsForThing(ctx context.Context, caller awsapi.Caller, in *ListThingGroupsForThingInput) (*ListThingGroupsForThingOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*ListThingGroupsForThingOutput, error) {
		thing, err := readThing(tx, tenantOf(caller), in.ThingName)
		if err != nil {
			return nil, err
		}
		memberships, next, err := tx.ThingMemberships(thing.Tenant, thing.Name, registryPage(in.MaxResults, in.NextToken))
		if err != nil {
			return nil, fmt.Errorf("couldn't list the groups of thing %s: %w", thing.Name, err)
		}
		names := make([]imprint.ThingGroupName, 0, len(memberships))
		for _, m := range memberships {
			names = append(names, m.Group)
		}
		return &ListThingGroupsForThingOutput{ThingGroups: namesAndARNs(thing.Tenant, names), NextToken: next}, nil
	})
}
