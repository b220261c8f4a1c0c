package iot_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

// kinds makes thing types.
func (o *operator) kinds(names ...string) {
	o.t.Helper()
	for _, name := range names {
		o.must(refused(o.CreateThingType(o.ctx(), &sdk.CreateThingTypeInput{ThingTypeName: &name})))
	}
}

func (o *operator) describeType(name string) *sdk.DescribeThingTypeOutput {
	o.t.Helper()
	out, err := o.DescribeThingType(o.ctx(), &sdk.DescribeThingTypeInput{ThingTypeName: &name})
	o.must(err)
	return out
}

func (o *operator) listTypes(in *sdk.ListThingTypesInput) []string {
	o.t.Helper()
	names := []string{}
	pages := sdk.NewListThingTypesPaginator(o.Client, in)
	for pages.HasMorePages() {
		out, err := pages.NextPage(o.ctx())
		o.must(err)
		for _, one := range out.ThingTypes {
			want(o.t, "ARN", *one.ThingTypeArn, o.tenant.ThingTypeARN(imprint.ThingTypeName(*one.ThingTypeName)))
			names = append(names, *one.ThingTypeName)
		}
	}
	return names
}

func (o *operator) deprecate(name string, undo bool) error {
	return refused(o.DeprecateThingType(o.ctx(), &sdk.DeprecateThingTypeInput{ThingTypeName: &name, UndoDeprecate: undo}))
}

func (o *operator) deleteType(name string) error {
	return refused(o.DeleteThingType(o.ctx(), &sdk.DeleteThingTypeInput{ThingTypeName: &name}))
}

// typed makes a thing of a type.
func (o *operator) typed(name, kind string, attributes ...string) error {
	return refused(o.CreateThing(o.ctx(), &sdk.CreateThingInput{ThingName: &name, ThingTypeName: &kind, AttributePayload: payload(attributes...)}))
}

func typeProperties(description string, searchable ...string) *types.ThingTypeProperties {
	p := &types.ThingTypeProperties{SearchableAttributes: searchable}
	if description != "" {
		p.ThingTypeDescription = &description
	}
	return p
}

func propagating(pairs ...string) *types.Mqtt5Configuration {
	c := &types.Mqtt5Configuration{PropagatingAttributes: []types.PropagatingAttribute{}}
	for i := 0; i < len(pairs); i += 2 {
		c.PropagatingAttributes = append(c.PropagatingAttributes, types.PropagatingAttribute{UserPropertyKey: &pairs[i], ThingAttribute: &pairs[i+1]})
	}
	return c
}

func TestThingTypes(t *testing.T) {
	t.Parallel()
	checkRules(t, iottest.Start(t), []rule{
		{"CreateThingType gives name, ARN and an id, and DescribeThingType all of it", func(t *testing.T, o *operator) {
			properties := typeProperties("What it is", "b", "a")
			properties.Mqtt5Configuration = propagating("k", "site")
			made, err := o.CreateThingType(o.ctx(), &sdk.CreateThingTypeInput{ThingTypeName: new("a:b_C-1"), ThingTypeProperties: properties, Tags: tags("owner", "me")})
			o.must(err)
			arn := "arn:aws:iot:us-east-1:" + string(o.tenant.Account) + ":thingtype/a:b_C-1"
			got := o.describeType("a:b_C-1")
			want(t, "identity", []string{*got.ThingTypeName, *got.ThingTypeArn, *got.ThingTypeId}, []string{"a:b_C-1", arn, *made.ThingTypeId})
			want(t, "ARN", *made.ThingTypeArn, arn)
			want(t, "description", *got.ThingTypeProperties.ThingTypeDescription, "What it is")
			want(t, "searchable attributes", got.ThingTypeProperties.SearchableAttributes, []string{"b", "a"})
			p := got.ThingTypeProperties.Mqtt5Configuration.PropagatingAttributes
			want(t, "propagating attribute", []string{*p[0].UserPropertyKey, *p[0].ThingAttribute, fmt.Sprint(len(p))}, []string{"k", "site", "1"})
			want(t, "deprecated", got.ThingTypeMetadata.Deprecated, false)
			want(t, "deprecation", got.ThingTypeMetadata.DeprecationDate, nil)
			want(t, "creation", got.ThingTypeMetadata.CreationDate.UnixMilli(), o.server.Clock.Now().UnixMilli())
			want(t, "tags", o.contents().Tags, []imprint.Tag{{Key: "owner", Value: "me"}})
		}},
		{"CreateThingType again with the same values answers as before and changes nothing", func(t *testing.T, o *operator) {
			in := &sdk.CreateThingTypeInput{ThingTypeName: new("k"), ThingTypeProperties: typeProperties("d", "a")}
			first, err := o.CreateThingType(o.ctx(), in)
			o.must(err)
			before := o.contents()
			second, err := o.CreateThingType(o.ctx(), in)
			o.must(err)
			want(t, "second answer", *second.ThingTypeId, *first.ThingTypeId)
			want(t, "rows", o.contents(), before)
		}},
		{"CreateThingType with other values names the existing type in a typed error", func(t *testing.T, o *operator) {
			o.kinds("k")
			_, err := o.CreateThingType(o.ctx(), &sdk.CreateThingTypeInput{ThingTypeName: new("k"), ThingTypeProperties: typeProperties("d")})
			var exists *types.ResourceAlreadyExistsException
			if !errors.As(err, &exists) {
				t.Fatalf("got %v, want ResourceAlreadyExistsException", err)
			}
			want(t, "resource", *exists.ResourceArn, o.tenant.ThingTypeARN("k"))
		}},
		{"UpdateThingType replaces what it names and keeps the rest", func(t *testing.T, o *operator) {
			properties := typeProperties("d", "a", "b")
			properties.Mqtt5Configuration = propagating("k", "a")
			o.must(refused(o.CreateThingType(o.ctx(), &sdk.CreateThingTypeInput{ThingTypeName: new("k"), ThingTypeProperties: properties})))
			o.must(refused(o.UpdateThingType(o.ctx(), &sdk.UpdateThingTypeInput{ThingTypeName: new("k"), ThingTypeProperties: typeProperties("", "c")})))
			got := o.describeType("k").ThingTypeProperties
			want(t, "searchable attributes", got.SearchableAttributes, []string{"c"})
			want(t, "description", *got.ThingTypeDescription, "d")
			want(t, "propagating", len(got.Mqtt5Configuration.PropagatingAttributes), 1)
			o.must(refused(o.UpdateThingType(o.ctx(), &sdk.UpdateThingTypeInput{ThingTypeName: new("k"), ThingTypeProperties: &types.ThingTypeProperties{
				ThingTypeDescription: new("e"), SearchableAttributes: []string{}, Mqtt5Configuration: propagating()}})))
			got = o.describeType("k").ThingTypeProperties
			want(t, "description", *got.ThingTypeDescription, "e")
			want(t, "searchable attributes", got.SearchableAttributes, []string{})
			want(t, "propagating", got.Mqtt5Configuration, nil)
		}},
		{"a thing has its type's room for attributes, and ListThings finds it by type", func(t *testing.T, o *operator) {
			o.kinds("k", "other")
			o.must(o.typed("one", "k", "a", "1", "b", "2", "c", "3", "d", "4"))
			o.must(o.typed("two", "other"))
			o.thing("three")
			got := o.describeThing("one")
			want(t, "type", *got.ThingTypeName, "k")
			want(t, "version", got.Version, 1)
			want(t, "things of the type", o.listThings(&sdk.ListThingsInput{ThingTypeName: new("k")}), []string{"one"})
			want(t, "of the type with an attribute", o.listThings(&sdk.ListThingsInput{ThingTypeName: new("k"), AttributeName: new("a"), AttributeValue: new("1")}), []string{"one"})
		}},
		{"UpdateThing gives a type, changes and removes it, each time with a new version", func(t *testing.T, o *operator) {
			o.kinds("k", "other")
			o.thing("sensor", "a", "1")
			o.must(o.updateThing(&sdk.UpdateThingInput{ThingTypeName: new("k")}))
			o.must(o.updateThing(&sdk.UpdateThingInput{ThingTypeName: new("other"), ExpectedVersion: new(int64(2))}))
			got := o.describeThing("sensor")
			want(t, "type and version", []any{*got.ThingTypeName, got.Version, got.Attributes["a"]}, []any{"other", int64(3), "1"})
			o.must(o.updateThing(&sdk.UpdateThingInput{RemoveThingType: true}))
			got = o.describeThing("sensor")
			want(t, "type", got.ThingTypeName, nil)
			want(t, "version", got.Version, 4)
		}},
		{"ListThingTypes pages by name, and finds one", func(t *testing.T, o *operator) {
			var all []string
			for i := range 7 {
				all = append(all, fmt.Sprintf("type-%d", i))
			}
			o.kinds(all...)
			want(t, "names", o.listTypes(&sdk.ListThingTypesInput{MaxResults: new(int32(3))}), all)
			want(t, "one", o.listTypes(&sdk.ListThingTypesInput{ThingTypeName: new("type-3")}), []string{"type-3"})
			want(t, "none", o.listTypes(&sdk.ListThingTypesInput{ThingTypeName: new("type-")}), []string{})
		}},
		{"two regions with the same names don't see each other", func(t *testing.T, o *operator) {
			abroad := o.abroad()
			o.kinds("k")
			want(t, "types abroad", abroad.listTypes(&sdk.ListThingTypesInput{}), []string{})
			iottest.WantRefusal(t, abroad.typed("sensor", "k"), "ResourceNotFoundException", 404, "Thing type k")
			abroad.kinds("k")
			o.must(abroad.typed("sensor", "k"))
			o.must(o.deprecate("k", false))
			want(t, "type abroad", *abroad.describeThing("sensor").ThingTypeName, "k")
			o.must(abroad.typed("another", "k"))
		}},
	})
}

// A deprecated type keeps its first date and is closed to new things, until that is
// undone; it can be deleted five minutes later, when no thing has it.
func TestThingTypesAreDeprecatedAndDeleted(t *testing.T) {
	t.Parallel()
	o := newOperator(t, iottest.Start(t))
	o.must(refused(o.CreateThingType(o.ctx(), &sdk.CreateThingTypeInput{ThingTypeName: new("k"), Tags: tags("a", "1")})))
	o.must(o.typed("old", "k"))
	o.must(o.deprecate("k", false))
	since := o.describeType("k").ThingTypeMetadata
	want(t, "deprecated", since.Deprecated, true)
	want(t, "date", since.DeprecationDate.UnixMilli(), o.server.Clock.Now().UnixMilli())
	o.server.Clock.Advance(time.Minute)
	o.must(o.deprecate("k", false))
	want(t, "date", *o.describeType("k").ThingTypeMetadata.DeprecationDate, *since.DeprecationDate)
	want(t, "the type of a thing that had it", *o.describeThing("old").ThingTypeName, "k")
	o.must(o.typed("old", "k"))
	iottest.WantRefusal(t, o.typed("new", "k"), "InvalidRequestException", 400, "Can not create new thing with depreated thing type:k")
	for range 2 {
		o.must(o.deprecate("k", true))
	}
	want(t, "deprecated", o.describeType("k").ThingTypeMetadata.Deprecated, false)
	o.must(o.typed("new", "k"))
	o.must(o.deprecate("k", false))
	o.server.Clock.Advance(5*time.Minute - 1*time.Millisecond)
	iottest.WantRefusal(t, o.deleteType("k"), "InvalidRequestException", 400, "less than 5m0s ago")
	o.server.Clock.Advance(time.Millisecond)
	iottest.WantRefusal(t, o.deleteType("k"), "InvalidRequestException", 400, "still associated")
	for _, name := range []string{"old", "new"} {
		o.must(refused(o.DeleteThing(o.ctx(), &sdk.DeleteThingInput{ThingName: &name})))
	}
	o.must(o.deleteType("k"))
	o.kinds("k")
	want(t, "tags", o.contents().Tags, nil)
}

// Without the delay a deprecated type can be deleted at once, as for tests of one's
// own.
func TestTheDelayOfThingTypesCanBeTakenAway(t *testing.T) {
	t.Parallel()
	o := newOperator(t, iottest.Start(t, func(rooms *iot.Rooms) { rooms.ThingTypeDeletionDelay = -1 }))
	o.kinds("k")
	iottest.WantRefusal(t, o.deleteType("k"), "InvalidRequestException", 400, "not deprecated")
	o.must(o.deprecate("k", false))
	o.must(o.deleteType("k"))
	want(t, "rows", o.contents(), contents{})
}

func TestThingTypesRefused(t *testing.T) {
	t.Parallel()
	kind := func(o *operator) { o.kinds("k") }
	used := func(o *operator) {
		o.kinds("k")
		o.must(o.typed("sensor", "k", "a", "1", "b", "2", "c", "3", "d", "4"))
	}
	deprecated := func(o *operator) { used(o); o.thing("bare"); o.must(o.deprecate("k", false)) }
	create := func(name string, properties *types.ThingTypeProperties) func(o *operator) error {
		return func(o *operator) error {
			return refused(o.CreateThingType(o.ctx(), &sdk.CreateThingTypeInput{ThingTypeName: &name, ThingTypeProperties: properties}))
		}
	}
	mqtt := func(pairs ...string) *types.ThingTypeProperties {
		return &types.ThingTypeProperties{Mqtt5Configuration: propagating(pairs...)}
	}
	var many []string
	for n := range 21 {
		many = append(many, fmt.Sprintf("k%d", n), "a")
	}
	neither := &types.ThingTypeProperties{Mqtt5Configuration: &types.Mqtt5Configuration{PropagatingAttributes: []types.PropagatingAttribute{{UserPropertyKey: new("k")}}}}
	const invalid, missing = "InvalidRequestException", "ResourceNotFoundException"
	checkRefusals(t, iottest.Start(t), []refusal{
		{"CreateThingType with other values", kind, create("k", typeProperties("d")), "ResourceAlreadyExistsException", 409, "already exists"},
		{"CreateThingType with four searchable attributes", nil, create("k", typeProperties("", "a", "b", "c", "d")), invalid, 400, "at most 3"},
		{"CreateThingType with a searchable attribute twice", nil, create("k", typeProperties("", "a", "a")), invalid, 400, "twice"},
		{"CreateThingType with a space in an attribute", nil, create("k", typeProperties("", "a b")), invalid, 400, "searchableAttributes"},
		{"CreateThingType with a slash in the name", nil, create("a/b", nil), invalid, 400, "thingTypeName"},
		{"CreateThingType with a name of 129 characters", nil, create(strings.Repeat("x", 129), nil), invalid, 400, "thingTypeName"},
		{"CreateThingType with a long description", nil, create("k", typeProperties(strings.Repeat("x", 2029))), invalid, 400, "thingTypeDescription"},
		{"CreateThingType with a propagating attribute of nothing", nil, create("k", neither), invalid, 400, "must have a thingAttribute"},
		{"CreateThingType with a property twice", nil, create("k", mqtt("k", "a", "k", "b")), invalid, 400, "twice"},
		{"CreateThingType with a propagating attribute that is no attribute", nil, create("k", mqtt("k", "a b")), invalid, 400, "thingAttribute"},
		{"CreateThingType with 21 propagating attributes", nil, create("k", mqtt(many...)), invalid, 400, "at most 20"},
		{"DescribeThingType of an unknown type", nil, func(o *operator) error {
			return refused(o.DescribeThingType(o.ctx(), &sdk.DescribeThingTypeInput{ThingTypeName: new("k")}))
		}, missing, 404, "Thing type k cannot be found."},
		{"UpdateThingType of an unknown type", nil, func(o *operator) error {
			return refused(o.UpdateThingType(o.ctx(), &sdk.UpdateThingTypeInput{ThingTypeName: new("k")}))
		}, missing, 404, "Thing type k cannot be found."},
		{"UpdateThingType to four searchable attributes", kind, func(o *operator) error {
			return refused(o.UpdateThingType(o.ctx(), &sdk.UpdateThingTypeInput{ThingTypeName: new("k"), ThingTypeProperties: typeProperties("", "a", "b", "c", "d")}))
		}, invalid, 400, "at most 3"},
		{"DeprecateThingType of an unknown type", nil, func(o *operator) error { return o.deprecate("k", false) }, missing, 404, "Thing type k cannot be found."},
		{"DeleteThingType of an unknown type", nil, func(o *operator) error { return o.deleteType("k") }, missing, 404, "Thing type k cannot be found."},
		{"DeleteThingType of a type that isn't deprecated", kind, func(o *operator) error { return o.deleteType("k") }, invalid, 400, "not deprecated"},
		{"DeleteThingType at once", func(o *operator) { kind(o); o.must(o.deprecate("k", false)) }, func(o *operator) error { return o.deleteType("k") }, invalid, 400, "less than 5m0s ago"},
		{"CreateThing of an unknown type", nil, func(o *operator) error { return o.typed("sensor", "k") }, missing, 404, "Thing type k cannot be found."},
		{"CreateThing of a deprecated type", deprecated, func(o *operator) error { return o.typed("new", "k") }, invalid, 400, "Can not create new thing with depreated thing type:k"},
		{"CreateThing again with another type", func(o *operator) { used(o); o.kinds("other") }, func(o *operator) error {
			return o.typed("sensor", "other", "a", "1", "b", "2", "c", "3", "d", "4")
		}, "ResourceAlreadyExistsException", 409, "Thing sensor already exists"},
		{"UpdateThing to a deprecated type", deprecated, func(o *operator) error {
			return refused(o.UpdateThing(o.ctx(), &sdk.UpdateThingInput{ThingName: new("bare"), ThingTypeName: new("k")}))
		}, invalid, 400, "depreated thing type:k"},
		{"UpdateThing that takes the type and leaves too many attributes", used, func(o *operator) error {
			return o.updateThing(&sdk.UpdateThingInput{RemoveThingType: true})
		}, invalid, 400, "has 4 attributes, at most 3"},
		{"ListThingTypes with a token that no list gave", nil, func(o *operator) error {
			return refused(o.ListThingTypes(o.ctx(), &sdk.ListThingTypesInput{NextToken: new("bm90IG91cnM")}))
		}, invalid, 400, "marker"},
	})
}
