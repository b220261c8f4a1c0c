package iot_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/awsapi/iot"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

// kindSteps are what TestThingTypesAndBillingGroupsWithTheAWSCLI does. ARN: begins an
// ARN of the tenant. Debian's AWS CLI is older than UpdateThingType, which the SDK
// tests (TestThingTypes).
var kindSteps = []struct {
	command string
	want    string // a part of the answer, JSON without spaces
	refused string // a part of standard error instead
}{
	{`update-event-configurations --event-configurations {"THING":{"Enabled":true},"THING_TYPE_ASSOCIATION":{"Enabled":true}}`, "", ""},
	{"describe-event-configurations", `"THING_TYPE_ASSOCIATION":{"Enabled":true}`, ""},
	{`create-thing-type --thing-type-name press --thing-type-properties {"thingTypeDescription":"Presses","searchableAttributes":["site"]} --tags Key=owner,Value=me`, `"thingTypeArn":"ARN:thingtype/press"`, ""},
	{"describe-thing-type --thing-type-name press", `"searchableAttributes":["site"],"thingTypeDescription":"Presses"`, ""},
	{"create-thing-type --thing-type-name pump", `"thingTypeName":"pump"`, ""},
	{"list-thing-types --thing-type-name press", `"thingTypeArn":"ARN:thingtype/press"`, ""},
	{"list-tags-for-resource --resource-arn ARN:thingtype/press", `"Key":"owner"`, ""},
	{"create-billing-group --billing-group-name plant --billing-group-properties billingGroupDescription=Plant --tags Key=owner,Value=me", `"billingGroupArn":"ARN:billinggroup/plant"`, ""},
	{"update-billing-group --billing-group-name plant --billing-group-properties billingGroupDescription=Works --expected-version 1", `"version":2`, ""},
	{"describe-billing-group --billing-group-name plant", `"billingGroupProperties":{"billingGroupDescription":"Works"}`, ""},
	{"list-billing-groups --name-prefix-filter pl", `{"billingGroups":[{"groupArn":"ARN:billinggroup/plant","groupName":"plant"}]}`, ""},
	{`create-thing --thing-name sensor --thing-type-name press --billing-group-name plant --attribute-payload {"attributes":{"a":"1","b":"2","c":"3","site":"north"}}`, `"thingName":"sensor"`, ""},
	{"describe-thing --thing-name sensor", `"billingGroupName":"plant"`, ""},
	{"list-things --thing-type-name press", `"thingName":"sensor"`, ""},
	{"list-things-in-billing-group --billing-group-name plant", `{"things":["sensor"]}`, ""},
	{"remove-thing-from-billing-group --billing-group-name plant --thing-name sensor", "", ""},
	{"add-thing-to-billing-group --billing-group-arn ARN:billinggroup/plant --thing-arn ARN:thing/sensor", "", ""},
	{"update-thing --thing-name sensor --thing-type-name pump --expected-version 1", "", ""},
	{"describe-thing --thing-name sensor", `"thingTypeName":"pump","version":2`, ""},
	{`update-thing --thing-name sensor --remove-thing-type --attribute-payload {"attributes":{"site":"north"}}`, "", ""},
	{"deprecate-thing-type --thing-type-name press", "", ""},
	{"describe-thing-type --thing-type-name press", `"deprecated":true`, ""},
	{"create-thing --thing-name another --thing-type-name press", "", "Can not create new thing with depreated thing type:press"},
	{"deprecate-thing-type --thing-type-name press --undo-deprecate", "", ""},
	{"deprecate-thing-type --thing-type-name press", "", ""},
	{"delete-thing-type --thing-type-name press", "", ""},
	{"delete-billing-group --billing-group-name plant --expected-version 2", "", ""},
	{"delete-thing --thing-name sensor", "", ""},
}

// TestThingTypesAndBillingGroupsWithTheAWSCLI leads the unmodified AWS CLI through
// types and billing groups from creation to deletion, beside a tenant that has the
// same names and keeps all of it.
func TestThingTypesAndBillingGroupsWithTheAWSCLI(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t, func(rooms *iot.Rooms) { rooms.ThingTypeDeletionDelay = -1 })
	o, other := newOperator(t, server), newOperator(t, server)
	other.kinds("press", "pump")
	other.billing("plant")
	other.must(other.typed("sensor", "press"))
	other.must(other.bill("sensor", "plant"))
	kept := other.contents()
	cli := server.CLI(t, o.tenant, t.TempDir())
	fill := strings.NewReplacer("ARN:", o.tenant.ARN(""))
	for _, step := range kindSteps {
		stdout, stderr, ok := cli.IoT(t, strings.Fields(fill.Replace(step.command))...)
		if ok != (step.refused == "") || !strings.Contains(stderr, step.refused) {
			t.Errorf("aws iot %s: got %t and %q, want %q", step.command, ok, stderr, step.refused)
		}
		if !strings.Contains(compact(t, stdout), fill.Replace(step.want)) {
			t.Errorf("aws iot %s: got %s, want %s in it", step.command, stdout, fill.Replace(step.want))
		}
	}
	o.must(o.deprecate("pump", false))
	o.must(o.deleteType("pump"))
	want(t, "topics", o.toldTopics(), []string{"thing/sensor/created", "thing/sensor/deleted", "thing/sensor/updated", "thing/sensor/updated 2",
		"thingTypeAssociation/thing/sensor/thingType/press/added", "thingTypeAssociation/thing/sensor/thingType/press/removed",
		"thingTypeAssociation/thing/sensor/thingType/pump/added", "thingTypeAssociation/thing/sensor/thingType/pump/removed"})
	if diff := cmp.Diff(contents{}, o.contents()); diff != "" {
		t.Errorf("something is left (-want +got):\n%s", diff)
	}
	want(t, "the other tenant's rows", other.contents(), kept)
	want(t, "the other tenant's topics", other.toldTopics(), nil)
}
