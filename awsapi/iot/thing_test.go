package iot_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

func (o *operator) describeThing(name string) *sdk.DescribeThingOutput {
	o.t.Helper()
	out, err := o.DescribeThing(o.ctx(), &sdk.DescribeThingInput{ThingName: &name})
	o.must(err)
	return out
}

func (o *operator) updateThing(in *sdk.UpdateThingInput) error {
	in.ThingName = new("sensor")
	return refused(o.UpdateThing(o.ctx(), in))
}

func (o *operator) listThings(in *sdk.ListThingsInput) []string {
	o.t.Helper()
	names := []string{}
	pages := sdk.NewListThingsPaginator(o.Client, in)
	for pages.HasMorePages() {
		out, err := pages.NextPage(o.ctx())
		o.must(err)
		for _, thing := range out.Things {
			names = append(names, *thing.ThingName)
		}
	}
	return names
}

func TestThings(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	checkRules(t, server, []rule{
		{"CreateThing gives name, ARN and a UUID, and DescribeThing all of it", func(t *testing.T, o *operator) {
			made, err := o.CreateThing(o.ctx(), &sdk.CreateThingInput{ThingName: new("a:b_C-1"), AttributePayload: payload("site", "lab")})
			o.must(err)
			arn := "arn:aws:iot:us-east-1:" + string(o.tenant.Account) + ":thing/a:b_C-1"
			want(t, "ARN", *made.ThingArn, arn)
			if !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(*made.ThingId) {
				t.Errorf("got thing id %q, want a lowercase UUID", *made.ThingId)
			}
			got := o.describeThing("a:b_C-1")
			want(t, "identity", []string{*got.ThingName, *got.ThingArn, *got.ThingId, *got.DefaultClientId}, []string{"a:b_C-1", arn, *made.ThingId, "a:b_C-1"})
			want(t, "attributes", got.Attributes, map[string]string{"site": "lab"})
			want(t, "version", got.Version, 1)
			want(t, "type", got.ThingTypeName, nil)
		}},
		{"DescribeThing sends empty attributes as an object", func(t *testing.T, o *operator) {
			o.thing("sensor")
			want(t, "attributes", o.describeThing("sensor").Attributes, map[string]string{})
		}},
		{"CreateThing again with the same values answers as before and changes nothing", func(t *testing.T, o *operator) {
			in := &sdk.CreateThingInput{ThingName: new("sensor"), AttributePayload: payload("a", "1", "b", "2")}
			first, err := o.CreateThing(o.ctx(), in)
			o.must(err)
			before := o.contents()
			second, err := o.CreateThing(o.ctx(), in)
			o.must(err)
			want(t, "second answer", []string{*second.ThingId, *second.ThingArn}, []string{*first.ThingId, *first.ThingArn})
			want(t, "rows", o.contents(), before)
		}},
		{"CreateThing with other values names the existing thing in a typed error", func(t *testing.T, o *operator) {
			made, err := o.CreateThing(o.ctx(), &sdk.CreateThingInput{ThingName: new("sensor")})
			o.must(err)
			_, err = o.CreateThing(o.ctx(), &sdk.CreateThingInput{ThingName: new("sensor"), AttributePayload: payload("a", "1")})
			var exists *types.ResourceAlreadyExistsException
			if !errors.As(err, &exists) {
				t.Fatalf("got %v, want ResourceAlreadyExistsException", err)
			}
			want(t, "resource", []string{*exists.ResourceId, *exists.ResourceArn}, []string{*made.ThingId, *made.ThingArn})
		}},
		{"UpdateThing without merge replaces all attributes and counts the version", func(t *testing.T, o *operator) {
			o.thing("sensor", "a", "1", "b", "2")
			o.must(o.updateThing(&sdk.UpdateThingInput{AttributePayload: payload("c", "3")}))
			got := o.describeThing("sensor")
			want(t, "attributes", got.Attributes, map[string]string{"c": "3"})
			want(t, "version", got.Version, 2)
		}},
		{"UpdateThing with merge adds, replaces, and deletes what is empty", func(t *testing.T, o *operator) {
			o.thing("sensor", "a", "1", "b", "2")
			update := payload("a", "", "b", "9", "c", "3")
			update.Merge = true
			o.must(o.updateThing(&sdk.UpdateThingInput{AttributePayload: update}))
			want(t, "attributes", o.describeThing("sensor").Attributes, map[string]string{"b": "9", "c": "3"})
		}},
		{"UpdateThing without attributes keeps them", func(t *testing.T, o *operator) {
			o.thing("sensor", "a", "1")
			o.must(o.updateThing(&sdk.UpdateThingInput{RemoveThingType: true}))
			want(t, "attributes", o.describeThing("sensor").Attributes, map[string]string{"a": "1"})
		}},
		{"UpdateThing with empty attributes takes all away", func(t *testing.T, o *operator) {
			o.thing("sensor", "a", "1")
			o.must(o.updateThing(&sdk.UpdateThingInput{AttributePayload: payload()}))
			want(t, "attributes", o.describeThing("sensor").Attributes, map[string]string{})
		}},
		{"UpdateThing and DeleteThing accept the version that there is", func(t *testing.T, o *operator) {
			o.thing("sensor")
			o.must(o.updateThing(&sdk.UpdateThingInput{ExpectedVersion: new(int64(1))}))
			o.must(refused(o.DeleteThing(o.ctx(), &sdk.DeleteThingInput{ThingName: new("sensor"), ExpectedVersion: new(int64(2))})))
			want(t, "rows", o.contents(), contents{})
		}},
		{"DeleteThing of an unknown thing succeeds", func(_ *testing.T, o *operator) {
			o.must(refused(o.DeleteThing(o.ctx(), &sdk.DeleteThingInput{ThingName: new("nobody"), ExpectedVersion: new(int64(7))})))
		}},
		{"ListThings pages by name without loss or repetition", func(t *testing.T, o *operator) {
			var all []string
			for i := range 7 {
				all = append(all, fmt.Sprintf("thing-%d", i))
				o.thing(all[i])
			}
			want(t, "names", o.listThings(&sdk.ListThingsInput{MaxResults: new(int32(3))}), all)
			last, err := o.ListThings(o.ctx(), &sdk.ListThingsInput{MaxResults: new(int32(7))})
			o.must(err)
			want(t, "token of the last page", last.NextToken, nil)
		}},
		{"ListThings filters by attribute, by its prefix and by type", func(t *testing.T, o *operator) {
			o.thing("one", "site", "lab-1")
			o.thing("two", "site", "lab-2")
			o.thing("three", "city", "lab-1")
			name, value := new("site"), new("lab-1")
			want(t, "whole value", o.listThings(&sdk.ListThingsInput{AttributeName: name, AttributeValue: value}), []string{"one"})
			want(t, "value as no prefix", o.listThings(&sdk.ListThingsInput{AttributeName: name, AttributeValue: new("lab")}), []string{})
			want(t, "prefix", o.listThings(&sdk.ListThingsInput{AttributeName: name, AttributeValue: new("lab"), UsePrefixAttributeValue: true}), []string{"one", "two"})
			want(t, "type", o.listThings(&sdk.ListThingsInput{ThingTypeName: new("none")}), []string{})
		}},
		{"two regions with the same thing name don't see each other", func(t *testing.T, o *operator) {
			abroad := o.abroad()
			o.thing("sensor", "a", "1")
			abroad.thing("sensor", "a", "2")
			o.must(refused(o.DeleteThing(o.ctx(), &sdk.DeleteThingInput{ThingName: new("sensor")})))
			want(t, "attributes abroad", abroad.describeThing("sensor").Attributes, map[string]string{"a": "2"})
			want(t, "things here", o.listThings(&sdk.ListThingsInput{}), []string{})
			want(t, "ARN abroad", *abroad.describeThing("sensor").ThingArn, "arn:aws:iot:eu-central-1:"+string(o.tenant.Account)+":thing/sensor")
		}},
		{"the first thing makes its tenant", func(t *testing.T, o *operator) {
			o.thing("sensor")
			o.server.View(t, func(tx imprint.ReadTx) error {
				_, err := tx.TenantSettings(o.tenant)
				return err
			})
		}},
	})
}

func TestThingsRefused(t *testing.T) {
	t.Parallel()
	sensor := func(o *operator) { o.thing("sensor", "a", "1") }
	create := func(in sdk.CreateThingInput) func(o *operator) error {
		return func(o *operator) error {
			asked := in
			if asked.ThingName == nil {
				asked.ThingName = new("sensor")
			}
			return refused(o.CreateThing(o.ctx(), &asked))
		}
	}
	change := func(in sdk.UpdateThingInput) func(o *operator) error {
		return func(o *operator) error {
			asked := in
			return o.updateThing(&asked)
		}
	}
	list := func(in sdk.ListThingsInput) func(o *operator) error {
		return func(o *operator) error { return refused(o.ListThings(o.ctx(), &in)) }
	}
	merged := payload("b", "2", "c", "3", "d", "4")
	merged.Merge = true
	const invalid, missing = "InvalidRequestException", "ResourceNotFoundException"
	checkRefusals(t, iottest.Start(t), []refusal{
		{"CreateThing with other attributes", sensor, create(sdk.CreateThingInput{}), "ResourceAlreadyExistsException", 409, "Thing sensor already exists in account with different attributes"},
		{"CreateThing with a thing type", nil, create(sdk.CreateThingInput{ThingTypeName: new("bulb")}), missing, 404, "Thing type bulb cannot be found."},
		{"CreateThing with a billing group", nil, create(sdk.CreateThingInput{BillingGroupName: new("plant")}), missing, 404, "Billing group plant cannot be found."},
		{"CreateThing with four attributes", nil, create(sdk.CreateThingInput{AttributePayload: payload("a", "1", "b", "2", "c", "3", "d", "4")}), invalid, 400, "has 4 attributes, at most 3"},
		{"CreateThing with a space in a value", nil, create(sdk.CreateThingInput{AttributePayload: payload("a", "b c")}), invalid, 400, "attributePayload.attributes"},
		{"CreateThing with a value of 801 characters", nil, create(sdk.CreateThingInput{AttributePayload: payload("a", strings.Repeat("x", 801))}), invalid, 400, "800"},
		{"CreateThing with an empty attribute name", nil, create(sdk.CreateThingInput{AttributePayload: payload("", "x")}), invalid, 400, "attribute"},
		{"CreateThing with a slash in the name", nil, create(sdk.CreateThingInput{ThingName: new("a/b")}), invalid, 400, "thingName"},
		{"CreateThing with a name of 129 characters", nil, create(sdk.CreateThingInput{ThingName: new(strings.Repeat("x", 129))}), invalid, 400, "thingName"},
		{"DescribeThing of an unknown thing", nil, func(o *operator) error {
			return refused(o.DescribeThing(o.ctx(), &sdk.DescribeThingInput{ThingName: new("nobody")}))
		}, missing, 404, "Thing nobody cannot be found."},
		{"DescribeThing of another region's thing", sensor, func(o *operator) error {
			return refused(o.abroad().DescribeThing(o.ctx(), &sdk.DescribeThingInput{ThingName: new("sensor")}))
		}, missing, 404, "Thing sensor cannot be found."},
		{"UpdateThing of an unknown thing", nil, change(sdk.UpdateThingInput{}), missing, 404, "Thing sensor cannot be found."},
		{"UpdateThing with another version", sensor, change(sdk.UpdateThingInput{ExpectedVersion: new(int64(2)), AttributePayload: payload()}), "VersionConflictException", 409, "The version for thing sensor does not match the expected version."},
		{"UpdateThing with thing type and its removal", sensor, change(sdk.UpdateThingInput{ThingTypeName: new("bulb"), RemoveThingType: true}), invalid, 400, "thingTypeName and removeThingType"},
		{"UpdateThing with a thing type", sensor, change(sdk.UpdateThingInput{ThingTypeName: new("bulb")}), missing, 404, "Thing type bulb cannot be found."},
		{"UpdateThing merged to four attributes", sensor, change(sdk.UpdateThingInput{AttributePayload: merged}), invalid, 400, "has 4 attributes, at most 3"},
		{"DeleteThing with another version", sensor, func(o *operator) error {
			return refused(o.DeleteThing(o.ctx(), &sdk.DeleteThingInput{ThingName: new("sensor"), ExpectedVersion: new(int64(9))}))
		}, "VersionConflictException", 409, "Its version is 1, not 9."},
		{"DeleteThing with a principal", func(o *operator) { sensor(o); o.must(o.attachThing("sensor", o.certificate(), "")) }, func(o *operator) error {
			return refused(o.DeleteThing(o.ctx(), &sdk.DeleteThingInput{ThingName: new("sensor")}))
		}, invalid, 400, "Cannot delete. Thing sensor is still attached to one or more principals"},
		{"ListThings with a name and no value", nil, list(sdk.ListThingsInput{AttributeName: new("a")}), invalid, 400, "attributeName and attributeValue must be given together"},
		{"ListThings with a value and no name", nil, list(sdk.ListThingsInput{AttributeValue: new("a")}), invalid, 400, "attributeName and attributeValue must be given together"},
		{"ListThings by prefix without attribute", nil, list(sdk.ListThingsInput{UsePrefixAttributeValue: true}), invalid, 400, "usePrefixAttributeValue"},
		{"ListThings with a token that no list gave", nil, list(sdk.ListThingsInput{NextToken: new("bm90IG91cnM")}), invalid, 400, "marker"},
		{"ListThings with 251 results a page", nil, list(sdk.ListThingsInput{MaxResults: new(int32(251))}), invalid, 400, "maxResults"},
	})
}
