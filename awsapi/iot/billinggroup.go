package iot

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

// billingGroupRoutes are the operations on billing groups (AWS IoT API reference,
// CreateBillingGroup and its neighbours).
func (s *Service) billingGroupRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(CreateBillingGroup, s.createBillingGroup),
		awsapi.Handle(DescribeBillingGroup, s.describeBillingGroup),
		awsapi.Handle(UpdateBillingGroup, s.updateBillingGroup),
		awsapi.Handle(DeleteBillingGroup, s.deleteBillingGroup),
		awsapi.Handle(ListBillingGroups, s.listBillingGroups),
		awsapi.HandleForAll(AddThingToBillingGroup, func(c awsapi.Caller, in *AddThingToBillingGroupInput) []string {
			return pairOf(billingGroupARNOf(c, in.BillingGroupName, in.BillingGroupArn), thingARNFrom(c, in.ThingName, in.ThingArn))
		}, s.addThingToBillingGroup),
		awsapi.HandleForAll(RemoveThingFromBillingGroup, func(c awsapi.Caller, in *RemoveThingFromBillingGroupInput) []string {
			return pairOf(billingGroupARNOf(c, in.BillingGroupName, in.BillingGroupArn), thingARNFrom(c, in.ThingName, in.ThingArn))
		}, s.removeThingFromBillingGroup),
		awsapi.Handle(ListThingsInBillingGroup, s.listThingsInBillingGroup),
	}
}

// billingGroupARNOf is groupARNOf for billing groups.
func billingGroupARNOf(caller awsapi.Caller, name, arn *string) string {
	if name != nil {
		return callerARN(caller, "billinggroup/"+*name)
	}
	if arn == nil {
		return "*"
	}
	parsed, err := tenantOf(caller).ParseBillingGroupARN(*arn)
	if err != nil {
		return *arn
	}
	return callerARN(caller, "billinggroup/"+string(parsed))
}

// createBillingGroup answers a repetition with the same values as it answered the
// first call; other values are ResourceAlreadyExistsException.
func (s *Service) createBillingGroup(ctx context.Context, caller awsapi.Caller, in *CreateBillingGroupInput) (*CreateBillingGroupOutput, error) {
	name, err := imprint.ParseBillingGroupName(in.BillingGroupName)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	wanted := imprint.BillingGroup{Tenant: tenantOf(caller), Name: name, ID: uuid.NewString(), Version: 1, CreatedAt: now, ModifiedAt: now}
	wanted = withBillingProperties(wanted, in.BillingGroupProperties)
	_, err = s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*CreateBillingGroupOutput, error) {
		present, err := tx.BillingGroup(wanted.Tenant, name)
		switch {
		case err == nil && !present.Same(wanted):
			return nil, imprint.Errorf(imprint.CodeAlreadyExists, "Billing Group %s already exists in current account with different properties", name).
				WithResource(present.ID, present.ARN())
		case err == nil:
			return createdBillingGroup(present), nil
		case imprint.CodeOf(err) != imprint.CodeNotFound:
			return nil, fmt.Errorf("couldn't read billing group %s: %w", name, err)
		}
		err = tx.PutBillingGroup(wanted)
		if err != nil {
			return nil, fmt.Errorf("couldn't create billing group %s: %w", name, err)
		}
		return createdBillingGroup(wanted), putTags(tx, wanted.Tenant, wanted.ARN(), in.Tags)
	})
}

func createdBillingGroup(g imprint.BillingGroup) *CreateBillingGroupOutput {
	return &CreateBillingGroupOutput{BillingGroupName: string(g.Name), BillingGroupArn: g.ARN(), BillingGroupId: g.ID}
}

func withBillingProperties(g imprint.BillingGroup, properties *BillingGroupProperties) imprint.BillingGroup {
	if properties != nil && properties.BillingGroupDescription != nil {
		g.Description = *properties.BillingGroupDescription
	}
	return g
}

// readBillingGroup finds a billing group by the name in a request.
func readBillingGroup(tx imprint.ReadTx, tenant imprint.Tenant, text string) (imprint.BillingGroup, error) {
	return readNamed("Billing group", tenant, text, imprint.ParseBillingGroupName, tx.BillingGroup)
}

func (s *Service) describeBillingGroup(ctx context.Context, caller awsapi.Caller, in *DescribeBillingGroupInput) (*DescribeBillingGroupOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*DescribeBillingGroupOutput, error) {
		group, err := readBillingGroup(tx, tenantOf(caller), in.BillingGroupName)
		if err != nil {
			return nil, err
		}
		return &DescribeBillingGroupOutput{
			BillingGroupName: string(group.Name), BillingGroupId: group.ID, BillingGroupArn: group.ARN(), Version: &group.Version,
			BillingGroupProperties: &BillingGroupProperties{BillingGroupDescription: optionalText(group.Description)},
			BillingGroupMetadata:   &BillingGroupMetadata{CreationDate: group.CreatedAt},
		}, nil
	})
}

func (s *Service) updateBillingGroup(ctx context.Context, caller awsapi.Caller, in *UpdateBillingGroupInput) (*UpdateBillingGroupOutput, error) {
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*UpdateBillingGroupOutput, error) {
		group, err := readBillingGroup(tx, tenantOf(caller), in.BillingGroupName)
		if err != nil {
			return nil, err
		}
		err = checkBillingVersion(group, in.ExpectedVersion)
		if err != nil {
			return nil, err
		}
		group = withBillingProperties(group, in.BillingGroupProperties)
		group.Version++
		group.ModifiedAt = now
		err = tx.PutBillingGroup(group)
		if err != nil {
			return nil, fmt.Errorf("couldn't update billing group %s: %w", group.Name, err)
		}
		return &UpdateBillingGroupOutput{Version: &group.Version}, nil
	})
}

// checkBillingVersion compares a group's version with the one that the caller
// expects.
func checkBillingVersion(group imprint.BillingGroup, expected *int64) error {
	if expected == nil || *expected == group.Version {
		return nil
	}
	return imprint.Errorf(imprint.CodeVersionConflict, "The version for billing group %s does not match the expected version.", group.Name).
		WithHint("Its version is %d, not %d.", group.Version, *expected)
}

// deleteBillingGroup succeeds for a group that doesn't exist. The things in it
// leave it, at most maxLeaving in one transaction; the last one takes the group and
// its tags along.
func (s *Service) deleteBillingGroup(ctx context.Context, caller awsapi.Caller, in *DeleteBillingGroupInput) (*DeleteBillingGroupOutput, error) {
	expected := in.ExpectedVersion
	for {
		gone, err := update(ctx, s, func(tx imprint.Tx) (bool, error) {
			group, err := readBillingGroup(tx, tenantOf(caller), in.BillingGroupName)
			if imprint.CodeOf(err) == imprint.CodeNotFound {
				return true, nil
			}
			if err != nil {
				return false, err
			}
			err = checkBillingVersion(group, expected)
			if err != nil {
				return false, err
			}
			return dissolveBilling(tx, group)
		})
		if err != nil {
			return nil, err
		}
		if gone {
			return &DeleteBillingGroupOutput{}, nil
		}
		// What was expected was so when the deletion began.
		expected = nil
	}
}

// dissolveBilling takes things out of a billing group, and deletes it when none is
// left.
func dissolveBilling(tx imprint.Tx, group imprint.BillingGroup) (gone bool, err error) {
	things, next, err := tx.BillingGroupThings(group.Tenant, group.Name, imprint.Page{Limit: maxLeaving, Ascending: true})
	if err != nil {
		return false, fmt.Errorf("couldn't read the things in billing group %s: %w", group.Name, err)
	}
	for _, thing := range things {
		err = setBillingGroup(tx, thing, "")
		if err != nil {
			return false, err
		}
	}
	if next != "" {
		return false, nil
	}
	err = tx.DeleteTags(group.Tenant, group.ARN())
	if err != nil {
		return false, fmt.Errorf("couldn't delete the tags of billing group %s: %w", group.Name, err)
	}
	err = tx.DeleteBillingGroup(group.Tenant, group.Name)
	if err != nil {
		return false, fmt.Errorf("couldn't delete billing group %s: %w", group.Name, err)
	}
	return true, nil
}

// setBillingGroup puts a thing into a billing group in place of its own, or into
// none. It is no update of the thing: the version stays.
func setBillingGroup(tx imprint.Tx, thing imprint.Thing, group imprint.BillingGroupName) error {
	if thing.BillingGroup == group {
		return nil
	}
	thing.BillingGroup = group
	err := tx.PutThing(thing)
	if err != nil {
		return fmt.Errorf("couldn't change the billing group of thing %s: %w", thing.Name, err)
	}
	return nil
}

func (s *Service) listBillingGroups(ctx context.Context, caller awsapi.Caller, in *ListBillingGroupsInput) (*ListBillingGroupsOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*ListBillingGroupsOutput, error) {
		groups, next, err := tx.BillingGroups(tenantOf(caller), textOf(in.NamePrefixFilter), registryPage(in.MaxResults, in.NextToken))
		if err != nil {
			return nil, fmt.Errorf("couldn't list billing groups: %w", err)
		}
		out := &ListBillingGroupsOutput{BillingGroups: make([]GroupNameAndArn, 0, len(groups)), NextToken: next}
		for _, g := range groups {
			out.BillingGroups = append(out.BillingGroups, GroupNameAndArn{GroupName: string(g.Name), GroupArn: g.ARN()})
		}
		return out, nil
	})
}

// billed finds the thing and the billing group that a request names.
func billed(tx imprint.ReadTx, tenant imprint.Tenant, groupName, groupARN, thingName, thingARN *string) (imprint.Thing, imprint.BillingGroup, error) {
	name, err := nameOf("billingGroup", groupName, groupARN, imprint.ParseBillingGroupName, tenant.ParseBillingGroupARN)
	if err != nil {
		return imprint.Thing{}, imprint.BillingGroup{}, err
	}
	named, err := nameOf("thing", thingName, thingARN, imprint.ParseThingName, tenant.ParseThingARN)
	if err != nil {
		return imprint.Thing{}, imprint.BillingGroup{}, err
	}
	group, err := readBillingGroup(tx, tenant, string(name))
	if err != nil {
		return imprint.Thing{}, imprint.BillingGroup{}, err
	}
	thing, err := readThing(tx, tenant, string(named))
	return thing, group, err
}

// addThingToBillingGroup moves a thing that is in another billing group.
func (s *Service) addThingToBillingGroup(ctx context.Context, caller awsapi.Caller, in *AddThingToBillingGroupInput) (*AddThingToBillingGroupOutput, error) {
	return update(ctx, s, func(tx imprint.Tx) (*AddThingToBillingGroupOutput, error) {
		thing, group, err := billed(tx, tenantOf(caller), in.BillingGroupName, in.BillingGroupArn, in.ThingName, in.ThingArn)
		if err != nil {
			return nil, err
		}
		return &AddThingToBillingGroupOutput{}, setBillingGroup(tx, thing, group.Name)
	})
}

// removeThingFromBillingGroup succeeds for a thing that isn't in the group.
func (s *Service) removeThingFromBillingGroup(ctx context.Context, caller awsapi.Caller, in *RemoveThingFromBillingGroupInput) (*RemoveThingFromBillingGroupOutput, error) {
	return update(ctx, s, func(tx imprint.Tx) (*RemoveThingFromBillingGroupOutput, error) {
		thing, group, err := billed(tx, tenantOf(caller), in.BillingGroupName, in.BillingGroupArn, in.ThingName, in.ThingArn)
		if err != nil || thing.BillingGroup != group.Name {
			return &RemoveThingFromBillingGroupOutput{}, err
		}
		return &RemoveThingFromBillingGroupOutput{}, setBillingGroup(tx, thing, "")
	})
}

func (s *Service) listThingsInBillingGroup(ctx context.Context, caller awsapi.Caller, in *ListThingsInBillingGroupInput) (*ListThingsInBillingGroupOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*ListThingsInBillingGroupOutput, error) {
		group, err := readBillingGroup(tx, tenantOf(caller), in.BillingGroupName)
		if err != nil {
			return nil, err
		}
		things, next, err := tx.BillingGroupThings(group.Tenant, group.Name, registryPage(in.MaxResults, in.NextToken))
		if err != nil {
			return nil, fmt.Errorf("couldn't list the things in billing group %s: %w", group.Name, err)
		}
		out := &ListThingsInBillingGroupOutput{Things: make([]string, 0, len(things)), NextToken: next}
		for _, thing := range things {
			out.Things = append(out.Things, string(thing.Name))
		}
		return out, nil
	})
}
