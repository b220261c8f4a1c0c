package iot_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

// billing makes billing groups.
func (o *operator) billing(names ...string) {
	o.t.Helper()
	for _, name := range names {
		o.must(refused(o.CreateBillingGroup(o.ctx(), &sdk.CreateBillingGroupInput{BillingGroupName: &name})))
	}
}

func (o *operator) bill(thing, group string) error {
	return refused(o.AddThingToBillingGroup(o.ctx(), &sdk.AddThingToBillingGroupInput{ThingName: &thing, BillingGroupName: &group}))
}

func (o *operator) listBilling(in *sdk.ListBillingGroupsInput) []string {
	o.t.Helper()
	names := []string{}
	pages := sdk.NewListBillingGroupsPaginator(o.Client, in)
	for pages.HasMorePages() {
		out, err := pages.NextPage(o.ctx())
		o.must(err)
		for _, g := range out.BillingGroups {
			want(o.t, "ARN", *g.GroupArn, o.tenant.BillingGroupARN(imprint.BillingGroupName(*g.GroupName)))
			names = append(names, *g.GroupName)
		}
	}
	return names
}

func (o *operator) billed(group string) []string {
	o.t.Helper()
	names := []string{}
	pages := sdk.NewListThingsInBillingGroupPaginator(o.Client, &sdk.ListThingsInBillingGroupInput{BillingGroupName: &group, MaxResults: new(int32(2))})
	for pages.HasMorePages() {
		out, err := pages.NextPage(o.ctx())
		o.must(err)
		names = append(names, out.Things...)
	}
	return names
}

func TestBillingGroups(t *testing.T) {
	t.Parallel()
	described := func(text string) *types.BillingGroupProperties {
		return &types.BillingGroupProperties{BillingGroupDescription: &text}
	}
	checkRules(t, iottest.Start(t), []rule{
		{"CreateBillingGroup gives name, ARN and an id, and DescribeBillingGroup all of it", func(t *testing.T, o *operator) {
			made, err := o.CreateBillingGroup(o.ctx(), &sdk.CreateBillingGroupInput{BillingGroupName: new("a:b_C-1"), BillingGroupProperties: described("Whose it is"), Tags: tags("owner", "me")})
			o.must(err)
			arn := "arn:aws:iot:us-east-1:" + string(o.tenant.Account) + ":billinggroup/a:b_C-1"
			got, err := o.DescribeBillingGroup(o.ctx(), &sdk.DescribeBillingGroupInput{BillingGroupName: new("a:b_C-1")})
			o.must(err)
			want(t, "identity", []string{*got.BillingGroupName, *got.BillingGroupArn, *got.BillingGroupId}, []string{"a:b_C-1", arn, *made.BillingGroupId})
			want(t, "description", *got.BillingGroupProperties.BillingGroupDescription, "Whose it is")
			want(t, "version", got.Version, 1)
			want(t, "creation", got.BillingGroupMetadata.CreationDate.UnixMilli(), o.server.Clock.Now().UnixMilli())
			want(t, "tags", o.contents().Tags, []imprint.Tag{{Key: "owner", Value: "me"}})
		}},
		{"CreateBillingGroup again with the same values changes nothing, with others it names the existing group", func(t *testing.T, o *operator) {
			in := &sdk.CreateBillingGroupInput{BillingGroupName: new("g"), BillingGroupProperties: described("d")}
			first, err := o.CreateBillingGroup(o.ctx(), in)
			o.must(err)
			before := o.contents()
			second, err := o.CreateBillingGroup(o.ctx(), in)
			o.must(err)
			want(t, "second answer", *second.BillingGroupId, *first.BillingGroupId)
			want(t, "rows", o.contents(), before)
			_, err = o.CreateBillingGroup(o.ctx(), &sdk.CreateBillingGroupInput{BillingGroupName: new("g")})
			var exists *types.ResourceAlreadyExistsException
			if !errors.As(err, &exists) {
				t.Fatalf("got %v, want ResourceAlreadyExistsException", err)
			}
			want(t, "resource", *exists.ResourceArn, *first.BillingGroupArn)
		}},
		{"UpdateBillingGroup counts the version and gives it back", func(t *testing.T, o *operator) {
			o.billing("g")
			out, err := o.UpdateBillingGroup(o.ctx(), &sdk.UpdateBillingGroupInput{BillingGroupName: new("g"), BillingGroupProperties: described("e"), ExpectedVersion: new(int64(1))})
			o.must(err)
			want(t, "version", out.Version, 2)
			want(t, "description", o.contents().Billing[0].Description, "e")
		}},
		{"a thing is created in a billing group, moves, leaves, and keeps its version", func(t *testing.T, o *operator) {
			o.billing("g", "h")
			o.must(refused(o.CreateThing(o.ctx(), &sdk.CreateThingInput{ThingName: new("sensor"), BillingGroupName: new("g")})))
			want(t, "group", *o.describeThing("sensor").BillingGroupName, "g")
			o.must(refused(o.AddThingToBillingGroup(o.ctx(), &sdk.AddThingToBillingGroupInput{
				ThingArn: new(o.tenant.ThingARN("sensor")), BillingGroupArn: new(o.tenant.BillingGroupARN("h"))})))
			want(t, "things of the first", o.billed("g"), []string{})
			want(t, "things of the second", o.billed("h"), []string{"sensor"})
			leave := func(group string) {
				o.must(refused(o.RemoveThingFromBillingGroup(o.ctx(), &sdk.RemoveThingFromBillingGroupInput{ThingName: new("sensor"), BillingGroupName: &group})))
			}
			leave("g")
			want(t, "after leaving another", *o.describeThing("sensor").BillingGroupName, "h")
			leave("h")
			got := o.describeThing("sensor")
			want(t, "group", got.BillingGroupName, nil)
			want(t, "version", got.Version, 1)
		}},
		{"DeleteBillingGroup lets things go, with its tags, and forgets an unknown group", func(t *testing.T, o *operator) {
			o.must(refused(o.CreateBillingGroup(o.ctx(), &sdk.CreateBillingGroupInput{BillingGroupName: new("g"), Tags: tags("a", "1")})))
			o.thing("sensor")
			o.must(o.bill("sensor", "g"))
			for _, version := range []int64{1, 7} {
				o.must(refused(o.DeleteBillingGroup(o.ctx(), &sdk.DeleteBillingGroupInput{BillingGroupName: new("g"), ExpectedVersion: &version})))
			}
			want(t, "group", o.describeThing("sensor").BillingGroupName, nil)
			o.billing("g")
			want(t, "things", o.billed("g"), []string{})
			want(t, "tags", o.contents().Tags, nil)
		}},
		{"DeleteBillingGroup lets more things go than one transaction takes", func(t *testing.T, o *operator) {
			o.billing("g")
			o.server.Put(t, func(tx imprint.Tx) error {
				var err error
				for n := range 1001 {
					err = errors.Join(err, tx.PutThing(imprint.Thing{Tenant: o.tenant, Name: imprint.ThingName(fmt.Sprintf("t%04d", n)), BillingGroup: "g", Version: 1}))
				}
				return err
			})
			o.must(refused(o.DeleteBillingGroup(o.ctx(), &sdk.DeleteBillingGroupInput{BillingGroupName: new("g"), ExpectedVersion: new(int64(1))})))
			for _, name := range []string{"t0000", "t0999", "t1000"} {
				want(t, "group of "+name, o.describeThing(name).BillingGroupName, nil)
			}
			want(t, "groups", o.listBilling(&sdk.ListBillingGroupsInput{}), []string{})
		}},
		{"lists page by name and filter by prefix", func(t *testing.T, o *operator) {
			o.billing("a", "b-1", "b-2", "b-3", "c")
			want(t, "all", o.listBilling(&sdk.ListBillingGroupsInput{MaxResults: new(int32(2))}), []string{"a", "b-1", "b-2", "b-3", "c"})
			want(t, "prefix", o.listBilling(&sdk.ListBillingGroupsInput{MaxResults: new(int32(2)), NamePrefixFilter: new("b-")}), []string{"b-1", "b-2", "b-3"})
			all := []string{"t1", "t2", "t3", "t4", "t5"}
			for _, name := range all {
				o.thing(name)
				o.must(o.bill(name, "a"))
			}
			want(t, "things", o.billed("a"), all)
		}},
		{"two regions with the same names don't see each other", func(t *testing.T, o *operator) {
			abroad := o.abroad()
			for _, one := range []*operator{o, abroad} {
				one.billing("g")
				one.thing("sensor")
				one.must(one.bill("sensor", "g"))
			}
			o.must(refused(o.DeleteBillingGroup(o.ctx(), &sdk.DeleteBillingGroupInput{BillingGroupName: new("g")})))
			want(t, "things abroad", abroad.billed("g"), []string{"sensor"})
		}},
	})
}

func TestBillingGroupsRefused(t *testing.T) {
	t.Parallel()
	given := func(o *operator) { o.billing("g"); o.thing("sensor") }
	add := func(in sdk.AddThingToBillingGroupInput) func(o *operator) error {
		return func(o *operator) error { return refused(o.AddThingToBillingGroup(o.ctx(), &in)) }
	}
	const invalid, missing = "InvalidRequestException", "ResourceNotFoundException"
	checkRefusals(t, iottest.Start(t), []refusal{
		{"CreateBillingGroup with a slash in the name", nil, func(o *operator) error {
			return refused(o.CreateBillingGroup(o.ctx(), &sdk.CreateBillingGroupInput{BillingGroupName: new("a/b")}))
		}, invalid, 400, "billingGroupName"},
		{"CreateBillingGroup with a long description", nil, func(o *operator) error {
			return refused(o.CreateBillingGroup(o.ctx(), &sdk.CreateBillingGroupInput{BillingGroupName: new("g"),
				BillingGroupProperties: &types.BillingGroupProperties{BillingGroupDescription: new(strings.Repeat("x", 2029))}}))
		}, invalid, 400, "billingGroupDescription"},
		{"DescribeBillingGroup of an unknown group", nil, func(o *operator) error {
			return refused(o.DescribeBillingGroup(o.ctx(), &sdk.DescribeBillingGroupInput{BillingGroupName: new("g")}))
		}, missing, 404, "Billing group g cannot be found."},
		{"UpdateBillingGroup of an unknown group", nil, func(o *operator) error {
			return refused(o.UpdateBillingGroup(o.ctx(), &sdk.UpdateBillingGroupInput{BillingGroupName: new("g"), BillingGroupProperties: &types.BillingGroupProperties{}}))
		}, missing, 404, "Billing group g cannot be found."},
		{"UpdateBillingGroup with another version", given, func(o *operator) error {
			return refused(o.UpdateBillingGroup(o.ctx(), &sdk.UpdateBillingGroupInput{BillingGroupName: new("g"), BillingGroupProperties: &types.BillingGroupProperties{}, ExpectedVersion: new(int64(2))}))
		}, "VersionConflictException", 409, "The version for billing group g"},
		{"DeleteBillingGroup with another version", given, func(o *operator) error {
			return refused(o.DeleteBillingGroup(o.ctx(), &sdk.DeleteBillingGroupInput{BillingGroupName: new("g"), ExpectedVersion: new(int64(2))}))
		}, "VersionConflictException", 409, "The version for billing group g"},
		{"AddThingToBillingGroup without a group", given, add(sdk.AddThingToBillingGroupInput{ThingName: new("sensor")}), invalid, 400, "billingGroupName or billingGroupArn"},
		{"AddThingToBillingGroup without a thing", given, add(sdk.AddThingToBillingGroupInput{BillingGroupName: new("g")}), invalid, 400, "thingName or thingArn"},
		{"AddThingToBillingGroup of an unknown thing", given, add(sdk.AddThingToBillingGroupInput{BillingGroupName: new("g"), ThingName: new("nobody")}), missing, 404, "Thing nobody"},
		{"AddThingToBillingGroup to an unknown group", given, add(sdk.AddThingToBillingGroupInput{BillingGroupName: new("x"), ThingName: new("sensor")}), missing, 404, "Billing group x"},
		{"AddThingToBillingGroup with an ARN of a thing group", given, add(sdk.AddThingToBillingGroupInput{BillingGroupArn: new("arn:aws:iot:us-east-1:000000000000:thinggroup/g"), ThingName: new("sensor")}), invalid, 400, "billing group"},
		{"AddThingToBillingGroup with name and ARN that disagree", given, func(o *operator) error {
			return add(sdk.AddThingToBillingGroupInput{BillingGroupName: new("g"), BillingGroupArn: new(o.tenant.BillingGroupARN("h")), ThingName: new("sensor")})(o)
		}, invalid, 400, "different resources"},
		{"RemoveThingFromBillingGroup of an unknown group", given, func(o *operator) error {
			return refused(o.RemoveThingFromBillingGroup(o.ctx(), &sdk.RemoveThingFromBillingGroupInput{BillingGroupName: new("x"), ThingName: new("sensor")}))
		}, missing, 404, "Billing group x"},
		{"ListThingsInBillingGroup of an unknown group", nil, func(o *operator) error {
			return refused(o.ListThingsInBillingGroup(o.ctx(), &sdk.ListThingsInBillingGroupInput{BillingGroupName: new("x")}))
		}, missing, 404, "Billing group x"},
		{"ListBillingGroups with a token that no list gave", nil, func(o *operator) error {
			return refused(o.ListBillingGroups(o.ctx(), &sdk.ListBillingGroupsInput{NextToken: new("bm90IG91cnM")}))
		}, invalid, 400, "marker"},
	})
}
