package iot_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

// group makes a thing group below a parent, or a root, and gives its ARN.
func (o *operator) group(name, parent string) *string {
	o.t.Helper()
	in := &sdk.CreateThingGroupInput{ThingGroupName: &name}
	if parent != "" {
		in.ParentGroupName = &parent
	}
	out, err := o.CreateThingGroup(o.ctx(), in)
	o.must(err)
	return out.ThingGroupArn
}

// groups makes a chain of groups, the root first.
func (o *operator) groups(names ...string) {
	o.t.Helper()
	parent := ""
	for _, name := range names {
		o.group(name, parent)
		parent = name
	}
}

func (o *operator) join(thing, group string) error {
	return refused(o.AddThingToThingGroup(o.ctx(), &sdk.AddThingToThingGroupInput{ThingName: &thing, ThingGroupName: &group}))
}

func (o *operator) describeGroup(name string) *sdk.DescribeThingGroupOutput {
	o.t.Helper()
	out, err := o.DescribeThingGroup(o.ctx(), &sdk.DescribeThingGroupInput{ThingGroupName: &name})
	o.must(err)
	return out
}

func (o *operator) listGroups(in *sdk.ListThingGroupsInput) []string {
	o.t.Helper()
	names := []string{}
	pages := sdk.NewListThingGroupsPaginator(o.Client, in)
	for pages.HasMorePages() {
		out, err := pages.NextPage(o.ctx())
		o.must(err)
		names = append(names, o.groupNames(out.ThingGroups)...)
	}
	return names
}

// groupNames checks that each name comes with its ARN.
func (o *operator) groupNames(groups []types.GroupNameAndArn) []string {
	o.t.Helper()
	names := []string{}
	for _, g := range groups {
		want(o.t, "ARN", *g.GroupArn, o.tenant.ThingGroupARN(imprint.ThingGroupName(*g.GroupName)))
		names = append(names, *g.GroupName)
	}
	return names
}

func (o *operator) groupsOf(thing string) []string {
	o.t.Helper()
	names := []string{}
	pages := sdk.NewListThingGroupsForThingPaginator(o.Client, &sdk.ListThingGroupsForThingInput{ThingName: &thing, MaxResults: new(int32(2))})
	for pages.HasMorePages() {
		out, err := pages.NextPage(o.ctx())
		o.must(err)
		names = append(names, o.groupNames(out.ThingGroups)...)
	}
	return names
}

func (o *operator) thingsIn(group string, recursive bool) []string {
	o.t.Helper()
	names := []string{}
	pages := sdk.NewListThingsInThingGroupPaginator(o.Client, &sdk.ListThingsInThingGroupInput{ThingGroupName: &group, Recursive: recursive, MaxResults: new(int32(2))})
	for pages.HasMorePages() {
		out, err := pages.NextPage(o.ctx())
		o.must(err)
		names = append(names, out.Things...)
	}
	return names
}

func properties(description string, pairs ...string) *types.ThingGroupProperties {
	p := &types.ThingGroupProperties{AttributePayload: payload(pairs...)}
	if description != "" {
		p.ThingGroupDescription = &description
	}
	return p
}

func TestThingGroups(t *testing.T) {
	t.Parallel()
	checkRules(t, iottest.Start(t), []rule{
		{"CreateThingGroup gives name, ARN and a UUID, and DescribeThingGroup all of it", func(t *testing.T, o *operator) {
			o.groups("world", "europe")
			made, err := o.CreateThingGroup(o.ctx(), &sdk.CreateThingGroupInput{ThingGroupName: new("a:b_C-1"), ParentGroupName: new("europe"),
				ThingGroupProperties: properties("What it is for", "site", "lab"), Tags: tags("owner", "me")})
			o.must(err)
			arn := "arn:aws:iot:us-east-1:" + string(o.tenant.Account) + ":thinggroup/a:b_C-1"
			want(t, "ARN", *made.ThingGroupArn, arn)
			if !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(*made.ThingGroupId) {
				t.Errorf("got group id %q, want a lowercase UUID", *made.ThingGroupId)
			}
			got := o.describeGroup("a:b_C-1")
			want(t, "identity", []string{*got.ThingGroupName, *got.ThingGroupArn, *got.ThingGroupId}, []string{"a:b_C-1", arn, *made.ThingGroupId})
			want(t, "description", *got.ThingGroupProperties.ThingGroupDescription, "What it is for")
			want(t, "attributes", got.ThingGroupProperties.AttributePayload.Attributes, map[string]string{"site": "lab"})
			want(t, "version", got.Version, 1)
			want(t, "parent", *got.ThingGroupMetadata.ParentGroupName, "europe")
			want(t, "ancestors", o.groupNames(got.ThingGroupMetadata.RootToParentThingGroups), []string{"world", "europe"})
			want(t, "creation", got.ThingGroupMetadata.CreationDate.UnixMilli(), o.server.Clock.Now().UnixMilli())
			want(t, "tags", o.contents().Tags, []imprint.Tag{{Key: "owner", Value: "me"}})
			root := o.describeGroup("world")
			want(t, "parent of a root", root.ThingGroupMetadata.ParentGroupName, nil)
			want(t, "no dynamic group", []any{root.IndexName, root.QueryString, string(root.Status)}, []any{(*string)(nil), (*string)(nil), ""})
		}},
		{"CreateThingGroup again with the same values answers as before and changes nothing", func(t *testing.T, o *operator) {
			o.group("top", "")
			in := &sdk.CreateThingGroupInput{ThingGroupName: new("g"), ParentGroupName: new("top"), ThingGroupProperties: properties("d", "a", "1")}
			first, err := o.CreateThingGroup(o.ctx(), in)
			o.must(err)
			before := o.contents()
			second, err := o.CreateThingGroup(o.ctx(), in)
			o.must(err)
			want(t, "second answer", []string{*second.ThingGroupId, *second.ThingGroupArn}, []string{*first.ThingGroupId, *first.ThingGroupArn})
			want(t, "rows", o.contents(), before)
		}},
		{"CreateThingGroup with other values names the existing group in a typed error", func(t *testing.T, o *operator) {
			arn := o.group("g", "")
			_, err := o.CreateThingGroup(o.ctx(), &sdk.CreateThingGroupInput{ThingGroupName: new("g"), ThingGroupProperties: properties("d")})
			var exists *types.ResourceAlreadyExistsException
			if !errors.As(err, &exists) {
				t.Fatalf("got %v, want ResourceAlreadyExistsException", err)
			}
			want(t, "resource", *exists.ResourceArn, *arn)
		}},
		{"UpdateThingGroup replaces or merges, counts the version and gives it back", func(t *testing.T, o *operator) {
			_, err := o.CreateThingGroup(o.ctx(), &sdk.CreateThingGroupInput{ThingGroupName: new("g"), ThingGroupProperties: properties("d", "a", "1", "b", "2")})
			o.must(err)
			merged := properties("", "a", "", "c", "3")
			merged.AttributePayload.Merge = true
			out, err := o.UpdateThingGroup(o.ctx(), &sdk.UpdateThingGroupInput{ThingGroupName: new("g"), ThingGroupProperties: merged, ExpectedVersion: new(int64(1))})
			o.must(err)
			want(t, "version", out.Version, 2)
			got := o.describeGroup("g").ThingGroupProperties
			want(t, "merged", got.AttributePayload.Attributes, map[string]string{"b": "2", "c": "3"})
			want(t, "description", *got.ThingGroupDescription, "d")
			out, err = o.UpdateThingGroup(o.ctx(), &sdk.UpdateThingGroupInput{ThingGroupName: new("g"), ThingGroupProperties: properties("new", "z", "9")})
			o.must(err)
			want(t, "version", out.Version, 3)
			got = o.describeGroup("g").ThingGroupProperties
			want(t, "replaced", got.AttributePayload.Attributes, map[string]string{"z": "9"})
			want(t, "description", *got.ThingGroupDescription, "new")
		}},
		{"DeleteThingGroup takes memberships, attachments and tags along, and things stay", func(t *testing.T, o *operator) {
			o.policy("p")
			_, err := o.CreateThingGroup(o.ctx(), &sdk.CreateThingGroupInput{ThingGroupName: new("g"), Tags: tags("a", "1")})
			o.must(err)
			o.attachPolicy(new(o.tenant.ThingGroupARN("g")), "p")
			o.thing("sensor")
			o.must(o.join("sensor", "g"))
			o.must(refused(o.DeleteThingGroup(o.ctx(), &sdk.DeleteThingGroupInput{ThingGroupName: new("g"), ExpectedVersion: new(int64(1))})))
			want(t, "groups", o.groupsOf("sensor"), []string{})
			want(t, "targets", o.targets("p"), []string{})
			o.group("g", "")
			want(t, "things in a new group of the name", o.thingsIn("g", true), []string{})
			want(t, "tags of a new group of the name", o.contents().Tags, nil)
		}},
		{"DeleteThingGroup of a group with thousands of things takes them all out", func(t *testing.T, o *operator) {
			o.group("g", "")
			const many = 2500
			o.server.Put(t, func(tx imprint.Tx) error {
				for i := range many {
					name := imprint.ThingName(fmt.Sprintf("t%d", i))
					err := tx.PutThing(imprint.Thing{Tenant: o.tenant, Name: name, Version: 1})
					if err != nil {
						return err
					}
					err = tx.PutThingGroupMembership(imprint.ThingGroupMembership{Tenant: o.tenant, Group: "g", Thing: name})
					if err != nil {
						return err
					}
				}
				return nil
			})
			o.must(refused(o.DeleteThingGroup(o.ctx(), &sdk.DeleteThingGroupInput{ThingGroupName: new("g"), ExpectedVersion: new(int64(1))})))
			o.server.View(t, func(tx imprint.ReadTx) error {
				left, _, err := tx.ThingGroupMembers(o.tenant, "g", false, imprint.Page{Limit: 1})
				want(t, "memberships", len(left), 0)
				_, groupErr := tx.ThingGroup(o.tenant, "g")
				want(t, "the group", imprint.CodeOf(groupErr), imprint.CodeNotFound)
				return err
			})
		}},
		{"DeleteThingGroup of an unknown group succeeds", func(_ *testing.T, o *operator) {
			o.must(refused(o.DeleteThingGroup(o.ctx(), &sdk.DeleteThingGroupInput{ThingGroupName: new("nobody"), ExpectedVersion: new(int64(7))})))
		}},
		{"ListThingGroups pages by parent, prefix and depth", func(t *testing.T, o *operator) {
			o.groups("a", "b", "c")
			o.group("b2", "a")
			o.group("z", "")
			all, below, direct := true, new("a"), false
			for name, c := range map[string]struct {
				in   sdk.ListThingGroupsInput
				want []string
			}{
				"all":             {sdk.ListThingGroupsInput{}, []string{"a", "b", "b2", "c", "z"}},
				"all, recursive":  {sdk.ListThingGroupsInput{Recursive: &all}, []string{"a", "b", "b2", "c", "z"}},
				"roots":           {sdk.ListThingGroupsInput{Recursive: &direct}, []string{"a", "z"}},
				"below":           {sdk.ListThingGroupsInput{ParentGroup: below}, []string{"b", "b2"}},
				"below, direct":   {sdk.ListThingGroupsInput{ParentGroup: below, Recursive: &direct}, []string{"b", "b2"}},
				"below, all":      {sdk.ListThingGroupsInput{ParentGroup: below, Recursive: &all}, []string{"b", "c", "b2"}},
				"prefix":          {sdk.ListThingGroupsInput{NamePrefixFilter: new("b")}, []string{"b", "b2"}},
				"below, prefix":   {sdk.ListThingGroupsInput{ParentGroup: below, NamePrefixFilter: new("b2")}, []string{"b2"}},
				"all of a prefix": {sdk.ListThingGroupsInput{ParentGroup: below, Recursive: &all, NamePrefixFilter: new("c")}, []string{"c"}},
				"no prefix's":     {sdk.ListThingGroupsInput{NamePrefixFilter: new("q")}, []string{}},
			} {
				for _, size := range []int32{1, 2, 250} {
					in := c.in
					in.MaxResults = &size
					want(t, fmt.Sprintf("%s by %d", name, size), o.listGroups(&in), c.want)
				}
			}
		}},
		{"two regions with the same group name don't see each other", func(t *testing.T, o *operator) {
			abroad := o.abroad()
			o.group("g", "")
			o.group("only-here", "g")
			abroad.group("g", "")
			o.thing("sensor")
			abroad.thing("sensor")
			o.must(o.join("sensor", "only-here"))
			want(t, "groups abroad", abroad.listGroups(&sdk.ListThingGroupsInput{}), []string{"g"})
			want(t, "things abroad", abroad.thingsIn("g", true), []string{})
			want(t, "groups of the thing abroad", abroad.groupsOf("sensor"), []string{})
		}},
	})
}

func TestThingGroupsRefused(t *testing.T) {
	t.Parallel()
	const invalid, missing = "InvalidRequestException", "ResourceNotFoundException"
	create := func(in sdk.CreateThingGroupInput) func(o *operator) error {
		return func(o *operator) error {
			asked := in
			return refused(o.CreateThingGroup(o.ctx(), &asked))
		}
	}
	remove := func(name string, version *int64) func(o *operator) error {
		return func(o *operator) error {
			return refused(o.DeleteThingGroup(o.ctx(), &sdk.DeleteThingGroupInput{ThingGroupName: &name, ExpectedVersion: version}))
		}
	}
	change := func(name string, version *int64, p *types.ThingGroupProperties) func(o *operator) error {
		return func(o *operator) error {
			return refused(o.UpdateThingGroup(o.ctx(), &sdk.UpdateThingGroupInput{ThingGroupName: &name, ExpectedVersion: version, ThingGroupProperties: p}))
		}
	}
	pair := func(o *operator) { o.groups("top", "below") }
	var many []string
	for i := range 51 {
		many = append(many, fmt.Sprintf("a%d", i), "1")
	}
	checkRefusals(t, iottest.Start(t), []refusal{
		{"CreateThingGroup with other attributes", pair, create(sdk.CreateThingGroupInput{ThingGroupName: new("top"), ThingGroupProperties: properties("", "a", "1")}), "ResourceAlreadyExistsException", 409, "Thing Group top already exists in current account with different properties"},
		{"CreateThingGroup with another parent", pair, create(sdk.CreateThingGroupInput{ThingGroupName: new("below")}), "ResourceAlreadyExistsException", 409, "Thing Group below already exists"},
		{"CreateThingGroup below itself", pair, create(sdk.CreateThingGroupInput{ThingGroupName: new("top"), ParentGroupName: new("top")}), "ResourceAlreadyExistsException", 409, "Thing Group top"},
		{"CreateThingGroup below an unknown one", pair, create(sdk.CreateThingGroupInput{ThingGroupName: new("g"), ParentGroupName: new("nobody")}), missing, 404, "Thing group nobody cannot be found."},
		{"CreateThingGroup at depth eight", func(o *operator) { o.groups("1", "2", "3", "4", "5", "6", "7") }, create(sdk.CreateThingGroupInput{ThingGroupName: new("8"), ParentGroupName: new("7")}), invalid, 400, "depth 7"},
		{"CreateThingGroup with 51 attributes", pair, create(sdk.CreateThingGroupInput{ThingGroupName: new("g"), ThingGroupProperties: properties("", many...)}), invalid, 400, "has 51 attributes, at most 50"},
		{"CreateThingGroup with an illegal name", pair, create(sdk.CreateThingGroupInput{ThingGroupName: new("a b")}), invalid, 400, "thingGroupName"},
		{"CreateThingGroup with an illegal tag", pair, create(sdk.CreateThingGroupInput{ThingGroupName: new("g"), Tags: tags("aws:x", "1")}), invalid, 400, "aws:"},
		{"the 101st group below one", func(o *operator) {
			o.group("top", "")
			o.server.Put(o.t, func(tx imprint.Tx) error {
				for i := range 100 {
					err := tx.PutThingGroup(imprint.ThingGroup{Tenant: o.tenant, Name: imprint.ThingGroupName(fmt.Sprintf("g%d", i)), Ancestors: []imprint.ThingGroupName{"top"}, Version: 1})
					if err != nil {
						return err
					}
				}
				return nil
			})
		}, create(sdk.CreateThingGroupInput{ThingGroupName: new("g"), ParentGroupName: new("top")}), invalid, 400, "has 100 child groups"},
		{"DescribeThingGroup of an unknown group", nil, func(o *operator) error {
			return refused(o.DescribeThingGroup(o.ctx(), &sdk.DescribeThingGroupInput{ThingGroupName: new("nobody")}))
		}, missing, 404, "Thing group nobody cannot be found."},
		{"UpdateThingGroup of an unknown group", nil, change("nobody", nil, properties("d")), missing, 404, "Thing group nobody cannot be found."},
		{"UpdateThingGroup of another version", pair, change("top", new(int64(2)), properties("d")), "VersionConflictException", 409, "The version for thing group top does not match the expected version. Its version is 1, not 2."},
		{"UpdateThingGroup with 51 attributes", pair, change("top", nil, properties("", many...)), invalid, 400, "at most 50"},
		{"DeleteThingGroup of another version", pair, remove("below", new(int64(2))), "VersionConflictException", 409, "does not match the expected version"},
		{"DeleteThingGroup with one below it", pair, remove("top", nil), invalid, 400, "Cannot delete thing group : top when there are still child groups attached to it."},
		{"ListThingGroups below an unknown group", nil, func(o *operator) error {
			return refused(o.ListThingGroups(o.ctx(), &sdk.ListThingGroupsInput{ParentGroup: new("nobody")}))
		}, missing, 404, "Thing group nobody cannot be found."},
		{"ListThingGroups with a made-up token", pair, func(o *operator) error {
			return refused(o.ListThingGroups(o.ctx(), &sdk.ListThingGroupsInput{NextToken: new("AAAA")}))
		}, invalid, 400, "page marker"},
		{"CreateDynamicThingGroup", nil, func(o *operator) error {
			return refused(o.CreateDynamicThingGroup(o.ctx(), &sdk.CreateDynamicThingGroupInput{ThingGroupName: new("g"), QueryString: new("*")}))
		}, "NotImplementedException", 501, "CreateDynamicThingGroup"},
	})
}

func TestThingGroupMembers(t *testing.T) {
	t.Parallel()
	move := func(o *operator, thing string, add, remove []string) error {
		return refused(o.UpdateThingGroupsForThing(o.ctx(), &sdk.UpdateThingGroupsForThingInput{ThingName: &thing, ThingGroupsToAdd: add, ThingGroupsToRemove: remove}))
	}
	checkRules(t, iottest.Start(t), []rule{
		{"a membership is listed from both sides and upwards, over all pages", func(t *testing.T, o *operator) {
			o.groups("a", "b", "c")
			for _, name := range []string{"v", "w", "x", "y", "z"} {
				o.thing(name)
			}
			for thing, group := range map[string]string{"v": "a", "w": "b", "x": "b", "y": "b", "z": "c"} {
				o.must(o.join(thing, group))
			}
			for i := range 4 {
				o.group(fmt.Sprintf("g%d", i), "")
				o.must(o.join("v", fmt.Sprintf("g%d", i)))
			}
			want(t, "groups of a thing", o.groupsOf("v"), []string{"a", "g0", "g1", "g2", "g3"})
			want(t, "groups without ancestors", o.groupsOf("z"), []string{"c"})
			want(t, "things", o.thingsIn("b", false), []string{"w", "x", "y"})
			want(t, "things below", o.thingsIn("a", true), []string{"v", "w", "x", "y", "z"})
			want(t, "things of the root alone", o.thingsIn("a", false), []string{"v"})
		}},
		{"joining and leaving again change nothing, by names and by ARNs", func(t *testing.T, o *operator) {
			group := o.group("g", "")
			o.thing("sensor")
			thing := new(o.tenant.ThingARN("sensor"))
			o.must(refused(o.AddThingToThingGroup(o.ctx(), &sdk.AddThingToThingGroupInput{ThingArn: thing, ThingGroupArn: group})))
			before := o.contents()
			o.must(o.join("sensor", "g"))
			o.must(refused(o.AddThingToThingGroup(o.ctx(), &sdk.AddThingToThingGroupInput{ThingArn: thing, ThingGroupArn: group, ThingName: new("sensor"), ThingGroupName: new("g"), OverrideDynamicGroups: true})))
			want(t, "rows", o.contents(), before)
			for range 2 {
				o.must(refused(o.RemoveThingFromThingGroup(o.ctx(), &sdk.RemoveThingFromThingGroupInput{ThingArn: thing, ThingGroupName: new("g")})))
				want(t, "groups", o.groupsOf("sensor"), []string{})
			}
		}},
		{"UpdateThingGroupsForThing moves a thing within a hierarchy and at its limit in one call", func(t *testing.T, o *operator) {
			o.groups("a", "b")
			o.thing("sensor")
			o.must(o.join("sensor", "a"))
			for i := range 9 {
				o.group(fmt.Sprintf("g%d", i), "")
				o.must(o.join("sensor", fmt.Sprintf("g%d", i)))
			}
			o.must(move(o, "sensor", []string{"b"}, []string{"a"}))
			want(t, "groups", o.groupsOf("sensor"), []string{"b", "g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8"})
			o.must(move(o, "sensor", []string{"b", "b"}, []string{"g0", "a"}))
			want(t, "groups", len(o.groupsOf("sensor")), 9)
		}},
		{"DeleteThing takes its memberships along", func(t *testing.T, o *operator) {
			o.group("g", "")
			o.thing("sensor")
			o.must(o.join("sensor", "g"))
			o.must(refused(o.DeleteThing(o.ctx(), &sdk.DeleteThingInput{ThingName: new("sensor")})))
			want(t, "things", o.thingsIn("g", false), []string{})
			o.thing("sensor")
			want(t, "groups of a new thing of the name", o.groupsOf("sensor"), []string{})
		}},
	})
	const invalid, missing = "InvalidRequestException", "ResourceNotFoundException"
	given := func(o *operator) {
		o.groups("a", "b", "c")
		o.group("side", "a")
		o.thing("sensor")
		o.must(o.join("sensor", "b"))
	}
	add := func(in sdk.AddThingToThingGroupInput) func(o *operator) error {
		return func(o *operator) error {
			asked := in
			return refused(o.AddThingToThingGroup(o.ctx(), &asked))
		}
	}
	in := func(group string) sdk.AddThingToThingGroupInput {
		return sdk.AddThingToThingGroupInput{ThingName: new("sensor"), ThingGroupName: &group}
	}
	strange := in("b")
	strange.ThingArn = new("arn:aws:iot:us-east-1:999999999999:thing/sensor")
	other := in("b")
	other.ThingGroupArn = new("arn:aws:iot:us-east-1:999999999999:thinggroup/b")
	rows := []refusal{
		{"joining without a thing", given, add(sdk.AddThingToThingGroupInput{ThingGroupName: new("b")}), invalid, 400, "thingName or thingArn must be given."},
		{"joining without a group", given, add(sdk.AddThingToThingGroupInput{ThingName: new("sensor")}), invalid, 400, "thingGroupName or thingGroupArn must be given."},
		{"joining with a strange thing ARN", given, add(strange), invalid, 400, "thingArn"},
		{"joining with a strange group ARN", given, add(other), invalid, 400, "thingGroupArn"},
		{"joining with a name and an ARN that differ", given, func(o *operator) error {
			asked := in("b")
			asked.ThingGroupArn = new(o.tenant.ThingGroupARN("c"))
			return add(asked)(o)
		}, invalid, 400, "thingGroupName and thingGroupArn name different resources."},
		{"joining an unknown group", given, add(in("nobody")), missing, 404, "Thing group nobody cannot be found."},
		{"an unknown thing's joining", given, add(sdk.AddThingToThingGroupInput{ThingName: new("nobody"), ThingGroupName: new("b")}), missing, 404, "Thing nobody cannot be found."},
		{"joining a second group of a hierarchy", given, add(in("side")), invalid, 400, "same hierarchy"},
		{"joining an ancestor", given, add(in("a")), invalid, 400, "same hierarchy"},
		{"joining an eleventh group", func(o *operator) {
			o.thing("sensor")
			for i := range 11 {
				o.group(fmt.Sprintf("g%d", i), "")
				if i > 0 {
					o.must(o.join("sensor", fmt.Sprintf("g%d", i)))
				}
			}
		}, add(in("g0")), invalid, 400, "in 10 thing groups"},
		{"leaving an unknown group", given, func(o *operator) error {
			return refused(o.RemoveThingFromThingGroup(o.ctx(), &sdk.RemoveThingFromThingGroupInput{ThingName: new("sensor"), ThingGroupName: new("nobody")}))
		}, missing, 404, "Thing group nobody cannot be found."},
		{"moving to an unknown group, which leaves nothing", given, func(o *operator) error { return move(o, "sensor", []string{"nobody"}, []string{"b"}) }, missing, 404, "Thing group nobody cannot be found."},
		{"moving within a hierarchy without leaving", given, func(o *operator) error { return move(o, "sensor", []string{"c"}, nil) }, invalid, 400, "same hierarchy"},
		{"moving to and from a group", given, func(o *operator) error { return move(o, "sensor", []string{"b"}, []string{"b"}) }, invalid, 400, "to be added and to be removed"},
		{"moving between 21 groups", given, func(o *operator) error { return move(o, "sensor", slices.Repeat([]string{"b"}, 21), nil) }, invalid, 400, "at most 20"},
		{"moving nobody", given, func(o *operator) error {
			return refused(o.UpdateThingGroupsForThing(o.ctx(), &sdk.UpdateThingGroupsForThingInput{ThingGroupsToAdd: []string{"b"}}))
		}, invalid, 400, "thingName must be given."},
		{"the things of an unknown group", given, func(o *operator) error {
			return refused(o.ListThingsInThingGroup(o.ctx(), &sdk.ListThingsInThingGroupInput{ThingGroupName: new("nobody")}))
		}, missing, 404, "Thing group nobody cannot be found."},
		{"the groups of an unknown thing", given, func(o *operator) error {
			return refused(o.ListThingGroupsForThing(o.ctx(), &sdk.ListThingGroupsForThingInput{ThingName: new("nobody")}))
		}, missing, 404, "Thing nobody cannot be found."},
	}
	checkRefusals(t, iottest.Start(t), rows)
}

func TestGroupPolicies(t *testing.T) {
	t.Parallel()
	doc := func(names ...string) []string {
		all := []string{}
		for _, name := range names {
			all = append(all, name+" "+allowAll)
		}
		return all
	}
	// Every rule has groups top, middle and leaf with the policies t, m, and l
	// with both, and the thing sensor in leaf.
	given := func(o *operator) {
		o.groups("top", "middle", "leaf")
		o.policy("t", "m", "l", "c")
		o.attachPolicy(new(o.tenant.ThingGroupARN("top")), "t")
		o.attachPolicy(new(o.tenant.ThingGroupARN("middle")), "m", "t")
		o.attachPolicy(new(o.tenant.ThingGroupARN("leaf")), "l")
		o.thing("sensor")
		o.must(o.join("sensor", "leaf"))
	}
	checkRules(t, iottest.Start(t), []rule{
		{"a group's policies are listed, recursively with those above", func(t *testing.T, o *operator) {
			given(o)
			want(t, "recursive", o.attachedPolicies(new(o.tenant.ThingGroupARN("leaf"))), []string{"l", "m", "t"})
			want(t, "of the root", o.attachedPolicies(new(o.tenant.ThingGroupARN("top"))), []string{"t"})
			own, err := o.ListAttachedPolicies(o.ctx(), &sdk.ListAttachedPoliciesInput{Target: new(o.tenant.ThingGroupARN("leaf"))})
			o.must(err)
			want(t, "own", []any{len(own.Policies), *own.Policies[0].PolicyName}, []any{1, "l"})
			want(t, "targets", o.targets("t"), []string{o.tenant.ThingGroupARN("middle"), o.tenant.ThingGroupARN("top")})
			o.must(o.detachPolicy(new(o.tenant.ThingGroupARN("middle")), "t"))
			want(t, "targets", o.targets("t"), []string{o.tenant.ThingGroupARN("top")})
		}},
		{"effective are those of certificate, groups and ancestors, each once", func(t *testing.T, o *operator) {
			given(o)
			cert := o.certificate()
			o.attachPolicy(cert, "c", "m")
			want(t, "thing", o.effective(&sdk.GetEffectivePoliciesInput{ThingName: new("sensor")}), doc("l", "m", "t"))
			want(t, "both", o.effective(&sdk.GetEffectivePoliciesInput{ThingName: new("sensor"), Principal: cert}), doc("c", "l", "m", "t"))
			want(t, "certificate", o.effective(&sdk.GetEffectivePoliciesInput{Principal: cert}), doc("c", "m"))
			want(t, "group", o.effective(&sdk.GetEffectivePoliciesInput{Principal: new(o.tenant.ThingGroupARN("middle"))}), doc("m", "t"))
		}},
		{"TestAuthorization decides as a connection of the thing", func(t *testing.T, o *operator) {
			o.groups("top", "leaf")
			o.policyOf("leaf", `{"Effect":"Allow","Action":"iot:Publish","Resource":"ARNtopic/${iot:Connection.Thing.ThingName}"}`)
			o.policyOf("top", `{"Effect":"Deny","Action":"iot:Publish","Resource":"ARNtopic/secret"}`)
			o.policyOf("own", `{"Effect":"Allow","Action":"iot:Publish","Resource":"ARNtopic/secret"}`)
			o.attachPolicy(new(o.tenant.ThingGroupARN("leaf")), "leaf")
			o.attachPolicy(new(o.tenant.ThingGroupARN("top")), "top")
			cert := o.certificate()
			o.attachPolicy(cert, "own")
			o.thing("sensor")
			o.must(o.join("sensor", "leaf"))
			o.must(o.attachThing("sensor", cert, ""))
			ask := []types.AuthInfo{o.ask(types.ActionTypePublish, "topic/sensor"), o.ask(types.ActionTypePublish, "topic/secret")}
			want(t, "its client id", o.verdicts(&sdk.TestAuthorizationInput{Principal: cert, ClientId: new("sensor"), AuthInfos: ask}),
				[]string{"ALLOWED allow:leaf deny: silent: missing:", "EXPLICIT_DENY allow:own deny:top silent: missing:"})
			want(t, "another client id", o.verdicts(&sdk.TestAuthorizationInput{Principal: cert, ClientId: new("other"), AuthInfos: ask}),
				[]string{"IMPLICIT_DENY allow: deny: silent:own missing:", "ALLOWED allow:own deny: silent: missing:"})
			want(t, "skipped", o.verdicts(&sdk.TestAuthorizationInput{Principal: cert, ClientId: new("sensor"), AuthInfos: ask[1:], PolicyNamesToSkip: []string{"top"}}),
				[]string{"ALLOWED allow:own deny: silent: missing:"})
			want(t, "the group", o.verdicts(&sdk.TestAuthorizationInput{Principal: new(o.tenant.ThingGroupARN("leaf")), AuthInfos: ask[1:], PolicyNamesToAdd: []string{"own"}}),
				[]string{"EXPLICIT_DENY allow:own deny:top silent: missing:iot:Connection.Thing.ThingName"})
		}},
		{"the deprecated operations take a group, too", func(t *testing.T, o *operator) {
			given(o)
			group := new(o.tenant.ThingGroupARN("leaf"))
			//lint:ignore SA1019 clients in the field use it
			o.must(refused(o.AttachPrincipalPolicy(o.ctx(), &sdk.AttachPrincipalPolicyInput{PolicyName: new("c"), Principal: group})))
			//lint:ignore SA1019 clients in the field use it
			policies, err := o.ListPrincipalPolicies(o.ctx(), &sdk.ListPrincipalPoliciesInput{Principal: group, AscendingOrder: true})
			o.must(err)
			want(t, "policies", len(policies.Policies), 2)
			//lint:ignore SA1019 clients in the field use it
			o.must(refused(o.DetachPrincipalPolicy(o.ctx(), &sdk.DetachPrincipalPolicyInput{PolicyName: new("c"), Principal: group})))
			//lint:ignore SA1019 clients in the field use it
			iottest.WantRefusal(t, refused(o.DetachPrincipalPolicy(o.ctx(), &sdk.DetachPrincipalPolicyInput{PolicyName: new("c"), Principal: group})),
				"ResourceNotFoundException", 404, "Policy c is not attached to thing group leaf.")
		}},
		{"a third policy, a policy in use and a marker of another list are refused", func(t *testing.T, o *operator) {
			given(o)
			group := new(o.tenant.ThingGroupARN("middle"))
			iottest.WantRefusal(t, refused(o.AttachPolicy(o.ctx(), &sdk.AttachPolicyInput{PolicyName: new("c"), Target: group})),
				"LimitExceededException", 410, "Thing group middle has the maximum number of policies (2)")
			o.attachPolicy(group, "m")
			iottest.WantRefusal(t, refused(o.DeletePolicy(o.ctx(), &sdk.DeletePolicyInput{PolicyName: new("l")})), "DeleteConflictException", 409, "attached to one or more")
			iottest.WantRefusal(t, refused(o.ListAttachedPolicies(o.ctx(), &sdk.ListAttachedPoliciesInput{Target: group, Recursive: true, Marker: new(strings.Repeat("A", 7))})),
				"InvalidRequestException", 400, "page marker")
		}},
	})
}
