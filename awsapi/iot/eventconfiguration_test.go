package iot_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

// setEvents sets switches; with no names all of them.
func (o *operator) setEvents(on bool, names ...string) {
	o.t.Helper()
	if names == nil {
		for _, t := range imprint.EventTypes() {
			names = append(names, string(t))
		}
	}
	in := &sdk.UpdateEventConfigurationsInput{EventConfigurations: map[string]types.Configuration{}}
	for _, name := range names {
		in.EventConfigurations[name] = types.Configuration{Enabled: on}
	}
	o.must(refused(o.UpdateEventConfigurations(o.ctx(), in)))
}

// enabled gives the switches that are on, and checks that all are there.
func (o *operator) enabled() []string {
	o.t.Helper()
	out, err := o.DescribeEventConfigurations(o.ctx(), &sdk.DescribeEventConfigurationsInput{})
	o.must(err)
	on := []string{}
	for _, name := range slices.Sorted(maps.Keys(out.EventConfigurations)) {
		if out.EventConfigurations[name].Enabled {
			on = append(on, name)
		}
	}
	want(o.t, "number of switches", len(out.EventConfigurations), 11)
	return on
}

// told takes the tenant's waiting events: their payloads by topic below
// $aws/events/, with a number behind the second on one topic.
func (o *operator) told() map[string]string {
	o.t.Helper()
	told := map[string]string{}
	o.server.Put(o.t, func(tx imprint.Tx) error {
		clear(told)
		events, err := tx.Events(o.tenant, 1000)
		if err != nil {
			return err
		}
		var ids []string
		for _, e := range events {
			ids = append(ids, e.ID)
			topic, found := strings.CutPrefix(e.Topic, "$aws/events/")
			if !found {
				o.t.Errorf("got an event on %s, want it below $aws/events/", e.Topic)
			}
			key := topic
			for n := 2; told[key] != ""; n++ {
				key = fmt.Sprintf("%s %d", topic, n)
			}
			told[key] = string(e.Payload)
		}
		return tx.DeleteEvents(o.tenant, ids)
	})
	return told
}

func (o *operator) toldTopics() []string { return slices.Sorted(maps.Keys(o.told())) }

func TestEventConfigurations(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	checkRules(t, server, []rule{
		{"all are off until they are set, and only what is named changes", func(t *testing.T, o *operator) {
			want(t, "at first", o.enabled(), []string{})
			o.setEvents(true, "THING", "POLICY")
			o.setEvents(true, "THING_TYPE")
			o.setEvents(false, "POLICY", "JOB")
			want(t, "switches", o.enabled(), []string{"THING", "THING_TYPE"})
			want(t, "abroad", o.abroad().enabled(), []string{})
			o.setEvents(true)
			want(t, "all", len(o.enabled()), 11)
		}},
		{"the times are those of the tenant, then of the change", func(t *testing.T, o *operator) {
			none, err := o.DescribeEventConfigurations(o.ctx(), &sdk.DescribeEventConfigurationsInput{})
			o.must(err)
			want(t, "creation without a tenant", none.CreationDate, nil)
			o.setEvents(true, "THING")
			out, err := o.DescribeEventConfigurations(o.ctx(), &sdk.DescribeEventConfigurationsInput{})
			o.must(err)
			now := server.Clock.Now().UnixMilli()
			want(t, "times", []int64{out.CreationDate.UnixMilli(), out.LastModifiedDate.UnixMilli()}, []int64{now, now})
		}},
		{"an empty update succeeds", func(t *testing.T, o *operator) {
			o.must(refused(o.UpdateEventConfigurations(o.ctx(), &sdk.UpdateEventConfigurationsInput{})))
			want(t, "switches", o.enabled(), []string{})
		}},
		{"a switch that there isn't is refused, with the others", func(t *testing.T, o *operator) {
			iottest.WantRefusal(t, refused(o.UpdateEventConfigurations(o.ctx(), &sdk.UpdateEventConfigurationsInput{
				EventConfigurations: map[string]types.Configuration{"SHADOW": {Enabled: true}, "THING": {Enabled: true}},
			})), "InvalidRequestException", 400, "")
			want(t, "switches", o.enabled(), []string{})
		}},
	})
}

var eventUUID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// wantEvent compares a payload, whose UUIDs count as UUID, with JSON in which NOW is
// the time in milliseconds, ACCOUNT the account and ARN: begins an ARN of the tenant.
func (o *operator) wantEvent(told map[string]string, topic, payload string) {
	o.t.Helper()
	fill := strings.NewReplacer("NOW", jsonMillis(o), "ACCOUNT", string(o.tenant.Account), "ARN:", o.tenant.ARN(""))
	got, ok := told[topic]
	delete(told, topic)
	if !ok {
		o.t.Errorf("there is no event on %s", topic)
		return
	}
	if diff := cmp.Diff(decoded(o.t, fill.Replace(payload)), decoded(o.t, eventUUID.ReplaceAllString(got, "UUID"))); diff != "" {
		o.t.Errorf("the event on %s differs (-want +got):\n%s", topic, diff)
	}
}

func jsonMillis(o *operator) string {
	text, _ := json.Marshal(o.server.Clock.Now().UnixMilli()) // a number can't fail
	return string(text)
}

func decoded(t *testing.T, text string) any {
	t.Helper()
	var value any
	err := json.Unmarshal([]byte(text), &value)
	if err != nil {
		t.Fatalf("couldn't read %s: %v", text, err)
	}
	return value
}

// TestRegistryEventsHaveAWSsPayloads leads a tenant through every kind of change.
func TestRegistryEventsHaveAWSsPayloads(t *testing.T) {
	t.Parallel()
	o := newOperator(t, iottest.Start(t))
	o.setEvents(true)
	head := func(kind, operation string) string {
		return `{"eventType":"` + kind + `","eventId":"UUID","timestamp":NOW,"operation":"` + operation + `"`
	}
	done := func(told map[string]string) {
		t.Helper()
		if len(told) > 0 {
			t.Errorf("events that nobody expects: %v", told)
		}
	}
	o.must(refused(o.CreateThingType(o.ctx(), &sdk.CreateThingTypeInput{ThingTypeName: new("k"), ThingTypeProperties: typeProperties("Presses", "site")})))
	told := o.told()
	o.wantEvent(told, "thingType/k/created", head("THING_TYPE_EVENT", "CREATED")+`,"accountId":"ACCOUNT","thingTypeId":"UUID","thingTypeName":"k",
		"isDeprecated":false,"deprecationDate":null,"searchableAttributes":["site"],"description":"Presses"}`)
	done(told)

	o.must(o.typed("sensor", "k", "site", "north"))
	told = o.told()
	o.wantEvent(told, "thing/sensor/created", head("THING_EVENT", "CREATED")+`,"accountId":"ACCOUNT","thingId":"UUID","thingName":"sensor",
		"versionNumber":1,"thingTypeName":"k","attributes":{"site":"north"}}`)
	o.wantEvent(told, "thingTypeAssociation/thing/sensor/thingType/k/added", head("THING_TYPE_ASSOCIATION_EVENT", "ADDED")+
		`,"thingId":"UUID","thingName":"sensor","thingTypeName":"k"}`)
	done(told)

	o.must(refused(o.CreateThingGroup(o.ctx(), &sdk.CreateThingGroupInput{ThingGroupName: new("top"), ThingGroupProperties: properties("All", "a", "1")})))
	o.group("line", "top")
	told = o.told()
	o.wantEvent(told, "thingGroup/top/created", head("THING_GROUP_EVENT", "CREATED")+`,"accountId":"ACCOUNT","thingGroupId":"UUID","thingGroupName":"top",
		"versionNumber":1,"parentGroupName":null,"parentGroupId":null,"description":"All","rootToParentThingGroups":[],"attributes":{"a":"1"},"dynamicGroupMappingId":null}`)
	o.wantEvent(told, "thingGroup/line/created", head("THING_GROUP_EVENT", "CREATED")+`,"accountId":"ACCOUNT","thingGroupId":"UUID","thingGroupName":"line",
		"versionNumber":1,"parentGroupName":"top","parentGroupId":"UUID","description":"","rootToParentThingGroups":[{"groupArn":"ARN:thinggroup/top","groupId":"UUID"}],
		"attributes":{},"dynamicGroupMappingId":null}`)
	o.wantEvent(told, "thingGroupHierarchy/thingGroup/top/childThingGroup/line/added", head("THING_GROUP_HIERARCHY_EVENT", "ADDED")+
		`,"accountId":"ACCOUNT","thingGroupId":"UUID","thingGroupName":"top","childGroupId":"UUID","childGroupName":"line"}`)
	done(told)

	const membership = `,"accountId":"ACCOUNT","groupArn":"ARN:thinggroup/line","groupId":"UUID","thingArn":"ARN:thing/sensor","thingId":"UUID","membershipId":"UUID"}`
	o.must(o.join("sensor", "line"))
	o.must(o.join("sensor", "line"))
	told = o.told()
	first := told["thingGroupMembership/thingGroup/line/thing/sensor/added"]
	o.wantEvent(told, "thingGroupMembership/thingGroup/line/thing/sensor/added", head("THING_GROUP_MEMBERSHIP_EVENT", "ADDED")+membership)
	done(told)
	for range 2 {
		o.must(refused(o.RemoveThingFromThingGroup(o.ctx(), &sdk.RemoveThingFromThingGroupInput{ThingName: new("sensor"), ThingGroupName: new("line")})))
	}
	told = o.told()
	id := func(payload string) any { return decoded(t, payload).(map[string]any)["membershipId"] }
	want(t, "id of the membership", id(told["thingGroupMembership/thingGroup/line/thing/sensor/removed"]), id(first))
	o.wantEvent(told, "thingGroupMembership/thingGroup/line/thing/sensor/removed", head("THING_GROUP_MEMBERSHIP_EVENT", "REMOVED")+membership)
	done(told)

	o.must(o.deprecate("k", false))
	o.must(o.deprecate("k", false))
	told = o.told()
	o.wantEvent(told, "thingType/k/updated", head("THING_TYPE_EVENT", "UPDATED")+`,"accountId":"ACCOUNT","thingTypeId":"UUID","thingTypeName":"k",
		"isDeprecated":true,"deprecationDate":NOW,"searchableAttributes":["site"],"description":"Presses"}`)
	done(told)

	o.must(o.updateThing(&sdk.UpdateThingInput{RemoveThingType: true, AttributePayload: payload()}))
	told = o.told()
	o.wantEvent(told, "thing/sensor/updated", head("THING_EVENT", "UPDATED")+`,"accountId":"ACCOUNT","thingId":"UUID","thingName":"sensor",
		"versionNumber":2,"thingTypeName":null,"attributes":{}}`)
	o.wantEvent(told, "thingTypeAssociation/thing/sensor/thingType/k/removed", head("THING_TYPE_ASSOCIATION_EVENT", "REMOVED")+
		`,"thingId":"UUID","thingName":"sensor","thingTypeName":"k"}`)
	done(told)
}

// What is deleted takes its relations along, and tells of each.
func TestRegistryEventsOfDeletions(t *testing.T) {
	t.Parallel()
	checkRules(t, iottest.Start(t), []rule{
		{"a thing with type and groups", func(t *testing.T, o *operator) {
			o.kinds("k")
			o.groups("top", "line")
			o.group("other", "")
			o.must(o.typed("sensor", "k"))
			o.must(o.join("sensor", "line"))
			o.must(o.join("sensor", "other"))
			o.setEvents(true)
			o.must(refused(o.DeleteThing(o.ctx(), &sdk.DeleteThingInput{ThingName: new("sensor")})))
			want(t, "topics", o.toldTopics(), []string{"thing/sensor/deleted", "thingGroupMembership/thingGroup/line/thing/sensor/removed",
				"thingGroupMembership/thingGroup/other/thing/sensor/removed", "thingTypeAssociation/thing/sensor/thingType/k/removed"})
			o.must(refused(o.DeleteThing(o.ctx(), &sdk.DeleteThingInput{ThingName: new("sensor")})))
			want(t, "topics of the second deletion", o.toldTopics(), nil)
		}},
		{"a group with members", func(t *testing.T, o *operator) {
			o.groups("top", "line")
			o.thing("one")
			o.thing("two")
			o.must(o.join("one", "line"))
			o.must(o.join("two", "line"))
			o.setEvents(true)
			o.must(refused(o.DeleteThingGroup(o.ctx(), &sdk.DeleteThingGroupInput{ThingGroupName: new("line")})))
			want(t, "topics", o.toldTopics(), []string{"thingGroup/line/deleted", "thingGroupHierarchy/thingGroup/top/childThingGroup/line/removed",
				"thingGroupMembership/thingGroup/line/thing/one/removed", "thingGroupMembership/thingGroup/line/thing/two/removed"})
		}},
		{"groups of a thing in one call", func(t *testing.T, o *operator) {
			o.group("a", "")
			o.group("b", "")
			o.thing("sensor")
			o.must(o.join("sensor", "a"))
			o.setEvents(true, "THING_GROUP_MEMBERSHIP")
			o.must(refused(o.UpdateThingGroupsForThing(o.ctx(), &sdk.UpdateThingGroupsForThingInput{ThingName: new("sensor"),
				ThingGroupsToAdd: []string{"b"}, ThingGroupsToRemove: []string{"a"}})))
			want(t, "topics", o.toldTopics(), []string{"thingGroupMembership/thingGroup/a/thing/sensor/removed", "thingGroupMembership/thingGroup/b/thing/sensor/added"})
		}},
	})
}

// Each switch lets its own events through and no others, and only in its tenant.
func TestEachSwitchHasItsOwnEvents(t *testing.T) {
	t.Parallel()
	every := func(o *operator) {
		o.kinds("k", "l")
		o.must(refused(o.UpdateThingType(o.ctx(), &sdk.UpdateThingTypeInput{ThingTypeName: new("k"), ThingTypeProperties: typeProperties("d")})))
		o.groups("top", "line")
		o.must(o.typed("sensor", "k"))
		o.must(o.updateThing(&sdk.UpdateThingInput{ThingTypeName: new("l")}))
		o.must(o.join("sensor", "line"))
		o.must(refused(o.UpdateThingGroup(o.ctx(), &sdk.UpdateThingGroupInput{ThingGroupName: new("line"), ThingGroupProperties: properties("d")})))
		o.billing("cost")
		o.must(o.bill("sensor", "cost"))
	}
	server := iottest.Start(t)
	for _, row := range []struct {
		on   []string
		want []string
	}{
		{nil, nil},
		{[]string{"THING"}, []string{"thing/sensor/created", "thing/sensor/updated"}},
		{[]string{"THING_TYPE"}, []string{"thingType/k/created", "thingType/k/updated", "thingType/l/created"}},
		{[]string{"THING_TYPE_ASSOCIATION"}, []string{"thingTypeAssociation/thing/sensor/thingType/k/added", "thingTypeAssociation/thing/sensor/thingType/k/removed",
			"thingTypeAssociation/thing/sensor/thingType/l/added"}},
		{[]string{"THING_GROUP"}, []string{"thingGroup/line/created", "thingGroup/line/updated", "thingGroup/top/created"}},
		{[]string{"THING_GROUP_MEMBERSHIP"}, []string{"thingGroupMembership/thingGroup/line/thing/sensor/added"}},
		{[]string{"THING_GROUP_HIERARCHY"}, []string{"thingGroupHierarchy/thingGroup/top/childThingGroup/line/added"}},
		{[]string{"JOB", "JOB_EXECUTION", "POLICY", "CERTIFICATE", "CA_CERTIFICATE"}, nil},
	} {
		t.Run(strings.Join(row.on, " and "), func(t *testing.T) {
			t.Parallel()
			o := newOperator(t, server)
			abroad := o.abroad()
			if row.on != nil {
				o.setEvents(true, row.on...)
			}
			every(o)
			every(abroad)
			want(t, "topics", o.toldTopics(), row.want)
			want(t, "topics abroad", abroad.toldTopics(), nil)
			o.setEvents(false, append(row.on, "THING")...)
			o.thing("another")
			want(t, "topics when it is off again", o.toldTopics(), nil)
		})
	}
}
