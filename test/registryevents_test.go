package test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint/mqtt"
)

// switchEvents turns registry events on in a tenant.
func switchEvents(t *testing.T, api *iot.Client, names ...string) {
	t.Helper()
	in := &iot.UpdateEventConfigurationsInput{EventConfigurations: map[string]types.Configuration{}}
	for _, name := range names {
		in.EventConfigurations[name] = types.Configuration{Enabled: true}
	}
	must(api.UpdateEventConfigurations(t.Context(), in))(t)
}

// kinds makes a type, a group below another, and a billing group, which
// kindTemplate names.
func kinds(t *testing.T, api *iot.Client) {
	t.Helper()
	must(api.CreateThingType(t.Context(), &iot.CreateThingTypeInput{ThingTypeName: aws.String("press")}))(t)
	must(api.CreateThingGroup(t.Context(), &iot.CreateThingGroupInput{ThingGroupName: aws.String("plant")}))(t)
	must(api.CreateThingGroup(t.Context(), &iot.CreateThingGroupInput{ThingGroupName: aws.String("line"), ParentGroupName: aws.String("plant")}))(t)
	must(api.CreateBillingGroup(t.Context(), &iot.CreateBillingGroupInput{BillingGroupName: aws.String("works")}))(t)
}

func kindTemplate() string {
	return strings.Replace(jitpTemplate("devices", ""), `"origin":"template"}}`,
		`"origin":"template"},"ThingTypeName":"press","ThingGroups":["line"],"BillingGroup":"works"}`, 1)
}

// TestRegistryEventsReachMosquitto ensures that what operators and templates change
// arrives with AWS's members, only what is switched on, and in its own tenant alone.
func TestRegistryEventsReachMosquitto(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := newStage(t)
	api := s.sdk(t)
	elsewhere := s.sdk(t, func(o *iot.Options) { o.Region = s.two.region })
	other := s.two.open(t, mqtt.Connect{ClientID: "other", CleanStart: true}, mqtt.V5)
	other.subscribe(mqtt.Subscription{Filter: "$aws/events/#", QoS: 1})
	watch := s.subscribe(t, s.one.device, "watch", "$aws/events/thing/#", "$aws/events/thingType/#", "$aws/events/thingTypeAssociation/#",
		"$aws/events/thingGroup/#", "$aws/events/thingGroupMembership/#", "$aws/events/thingGroupHierarchy/#")
	switchEvents(t, api, "THING", "THING_TYPE", "THING_TYPE_ASSOCIATION", "THING_GROUP_MEMBERSHIP", "THING_GROUP_HIERARCHY")
	kinds(t, api)
	kinds(t, elsewhere)
	const events = "$aws/events/"
	checkFields(t, watch.awaitJSON(t, events+"thingType/press/created", 1), map[string]string{
		"eventType": `"THING_TYPE_EVENT"`, "eventId": uuid, "timestamp": millis, "operation": `"CREATED"`, "accountId": `"000000000000"`,
		"thingTypeId": uuid, "thingTypeName": `"press"`, "isDeprecated": "false", "deprecationDate": "null", "searchableAttributes": `\[\]`, "description": `""`,
	})
	checkFields(t, watch.awaitJSON(t, events+"thingGroupHierarchy/thingGroup/plant/childThingGroup/line/added", 1), map[string]string{
		"eventType": `"THING_GROUP_HIERARCHY_EVENT"`, "eventId": uuid, "timestamp": millis, "operation": `"ADDED"`, "accountId": `"000000000000"`,
		"thingGroupId": uuid, "thingGroupName": `"plant"`, "childGroupId": uuid, "childGroupName": `"line"`,
	})

	f := newFactory(t, "Kinds", "P-256")
	s.createPolicy(t, "devices", devicePolicy)
	s.registerCA(t, f, func(in *iot.RegisterCACertificateInput) {
		in.RegistrationConfig = &types.RegistrationConfig{TemplateBody: aws.String(kindTemplate()), RoleArn: aws.String(role)}
	})
	s.join(t, f.device(t, "press-1", "P-256"))
	checkFields(t, watch.awaitJSON(t, events+"thing/press-1/created", 1), map[string]string{
		"eventType": `"THING_EVENT"`, "eventId": uuid, "timestamp": millis, "operation": `"CREATED"`, "accountId": `"000000000000"`,
		"thingId": uuid, "thingName": `"press-1"`, "versionNumber": "1", "thingTypeName": `"press"`, "attributes": `\{"origin":"template","serial":".*"\}`,
	})
	checkFields(t, watch.awaitJSON(t, events+"thingTypeAssociation/thing/press-1/thingType/press/added", 1), map[string]string{
		"eventType": `"THING_TYPE_ASSOCIATION_EVENT"`, "eventId": uuid, "timestamp": millis, "operation": `"ADDED"`,
		"thingId": uuid, "thingName": `"press-1"`, "thingTypeName": `"press"`,
	})
	checkFields(t, watch.awaitJSON(t, events+"thingGroupMembership/thingGroup/line/thing/press-1/added", 1), map[string]string{
		"eventType": `"THING_GROUP_MEMBERSHIP_EVENT"`, "eventId": uuid, "timestamp": millis, "operation": `"ADDED"`, "accountId": `"000000000000"`,
		"groupArn": `"` + arn + `thinggroup/line"`, "groupId": uuid, "thingArn": `"` + arn + `thing/press-1"`, "thingId": uuid, "membershipId": uuid,
	})
	got := must(api.DescribeThing(t.Context(), &iot.DescribeThingInput{ThingName: aws.String("press-1")}))(t)
	if aws.ToString(got.ThingTypeName) != "press" || aws.ToString(got.BillingGroupName) != "works" {
		t.Errorf("the thing has type %q and billing group %q, want press and works", aws.ToString(got.ThingTypeName), aws.ToString(got.BillingGroupName))
	}

	must(api.UpdateThing(t.Context(), &iot.UpdateThingInput{ThingName: aws.String("press-1"), AttributePayload: attributes(map[string]string{"site": "north"})}))(t)
	watch.awaitJSON(t, events+"thing/press-1/updated", 1)
	if text := watch.said.String(); strings.Contains(text, "message "+events+"thingGroup/") {
		t.Errorf("events of groups came, which are off:\n%s", text)
	}
	other.ping()
	for _, m := range other.inbox {
		if !strings.HasPrefix(string(m.Topic), events+"presence/") && !strings.HasPrefix(string(m.Topic), events+"subscriptions/") {
			t.Errorf("the other tenant, in which all is off, got %s %s", m.Topic, m.Payload)
		}
	}
}

// TestThingTypesDecideForTheNextPacket ensures that a changed type holds for a
// connection that is on.
func TestThingTypesDecideForTheNextPacket(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	api := s.sdk(t)
	who, _ := s.member(t, api, "van-2", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
		{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:*:*:topic/${iot:Connection.Thing.ThingTypeName}/data"}]}`)
	w := who.open(t, persistent("van-2", mqtt.V5), mqtt.V5)
	for _, kind := range []string{"van", "truck"} {
		must(api.CreateThingType(t.Context(), &iot.CreateThingTypeInput{ThingTypeName: aws.String(kind)}))(t)
		if allowed(t, w, kind+"/data") {
			t.Errorf("%s/data is allowed before the thing has the type", kind)
		}
		must(api.UpdateThing(t.Context(), &iot.UpdateThingInput{ThingName: aws.String("van-2"), ThingTypeName: aws.String(kind)}))(t)
		if !allowed(t, w, kind+"/data") {
			t.Errorf("%s/data is denied although the thing has the type", kind)
		}
	}
	if allowed(t, w, "van/data") {
		t.Error("van/data is still allowed after the type has changed")
	}
	must(api.UpdateThing(t.Context(), &iot.UpdateThingInput{ThingName: aws.String("van-2"), RemoveThingType: true}))(t)
	if allowed(t, w, "truck/data") {
		t.Error("truck/data is still allowed after the type was taken away")
	}
}

// TestAKillLeavesNoChangeWithoutItsEvents ensures that a server that is killed
// between changes tells of each one that it kept, and of none that it didn't.
func TestAKillLeavesNoChangeWithoutItsEvents(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	api := s.sdk(t)
	switchEvents(t, api, "THING", "THING_TYPE_ASSOCIATION")
	kinds(t, api)
	client := persistent("keeper", mqtt.V5)
	w := s.one.open(t, client, mqtt.V5)
	w.subscribe(mqtt.Subscription{Filter: "$aws/events/thing/+/created", QoS: 1}, mqtt.Subscription{Filter: "$aws/events/thingTypeAssociation/#", QoS: 1})
	w.cut()
	random := newRandom(t)
	book := newLedger()
	for round := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		var writers sync.WaitGroup
		for n := range 4 {
			writers.Go(func() { s.createTyped(ctx, t, fmt.Sprintf("r%d-w%d", round, n), book) })
		}
		if !book.await(ctx, len(book.all())+1+random.IntN(48)) {
			t.Error("the things weren't created in time")
		}
		pause(ctx, time.Duration(random.IntN(20_000))*time.Microsecond)
		s.signal(killed)
		cancel()
		writers.Wait()
		s.start()
	}
	things := map[string]bool{}
	pages := iot.NewListThingsPaginator(s.sdk(t), &iot.ListThingsInput{ThingTypeName: aws.String("press"), MaxResults: aws.Int32(250)})
	for pages.HasMorePages() {
		for _, thing := range must(pages.NextPage(t.Context()))(t).Things {
			things[aws.ToString(thing.ThingName)] = true
		}
	}
	for _, name := range book.all() {
		if !things[name] {
			t.Errorf("acknowledged before the kill and gone after it: thing %s", name)
		}
	}
	created, associated := map[string]bool{}, map[string]bool{}
	client.CleanStart = false
	w = s.one.open(t, client, mqtt.V5)
	for len(created) < len(things) || len(associated) < len(things) {
		m := w.receive()
		var event struct{ EventType, ThingName string }
		err := json.Unmarshal(m.Payload, &event)
		if err != nil {
			t.Fatalf("the event on %s: %v", m.Topic, err)
		}
		if !things[event.ThingName] {
			t.Errorf("got %s of thing %s, which doesn't exist", m.Topic, event.ThingName)
		}
		if event.EventType == "THING_EVENT" {
			created[event.ThingName] = true
			continue
		}
		associated[event.ThingName] = true
	}
	t.Logf("%d things and the events of all", len(things))
}

// createTyped creates things until the context ends, and notes those that were
// acknowledged.
func (s *server) createTyped(ctx context.Context, t *testing.T, prefix string, book *ledger) {
	api := s.sdk(t, func(o *iot.Options) { o.RetryMaxAttempts = 1 })
	for n := 0; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("%s-%d", prefix, n)
		_, err := api.CreateThing(ctx, &iot.CreateThingInput{ThingName: &name, ThingTypeName: aws.String("press")})
		if err != nil {
			pause(ctx, 5*time.Millisecond)
			continue
		}
		book.note(name)
	}
}
