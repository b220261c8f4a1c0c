package provisioning_test

import (
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

// putKinds makes the types kind, other and closed and the billing groups cost and
// else, and the thing in its shape before, when that isn't nil.
func putKinds(before *imprint.Thing) func(imprint.Tx) error {
	return func(tx imprint.Tx) error {
		for _, name := range []imprint.ThingTypeName{"kind", "other", "closed"} {
			one := imprint.ThingType{Tenant: home, Name: name}
			if name == "closed" {
				one, _ = one.Deprecate(false, instant.Add(-time.Hour))
			}
			err := tx.PutThingType(one)
			if err != nil {
				return err
			}
		}
		for _, name := range []imprint.BillingGroupName{"cost", "else"} {
			err := tx.PutBillingGroup(imprint.BillingGroup{Tenant: home, Name: name})
			if err != nil {
				return err
			}
		}
		if before == nil {
			return nil
		}
		thing := *before
		thing.Tenant, thing.Name, thing.ID, thing.Version, thing.CreatedAt, thing.ModifiedAt = home, "unit", "old", 1, instant, instant
		return tx.PutThing(thing)
	}
}

// shape is what templates decide of a thing.
func (w *world) shape(t *testing.T) string {
	t.Helper()
	var text string
	view(t, w.store, func(tx imprint.ReadTx) error {
		thing, err := tx.Thing(home, "unit")
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			text = "none"
			return nil
		}
		text = fmt.Sprintf("%s/%s v%d %v", thing.TypeName, thing.BillingGroup, thing.Version, thing.Attributes)
		return err
	})
	return text
}

// Each value of each key of OverrideSettings, over a thing that exists and one that
// doesn't. A template that fails changes nothing.
func TestTemplatesGiveThingsTheirTypeAndBillingGroup(t *testing.T) {
	t.Parallel()
	const kind, cost = `,"ThingTypeName":"kind"`, `,"BillingGroup":"cost"`
	bare, typed, other := &imprint.Thing{}, &imprint.Thing{TypeName: "kind"}, &imprint.Thing{TypeName: "other"}
	closed := &imprint.Thing{TypeName: "closed"}
	four := `,"AttributePayload":{"a":"1","b":"2","c":"3","d":"4"}`
	full := &imprint.Thing{TypeName: "other", BillingGroup: "else", Attributes: map[string]string{"a": "old", "z": "old"}}
	set := func(typeName string) string { return override(`"ThingTypeName":"` + typeName + `"`) }
	for _, row := range []struct {
		name   string
		thing  string // members of the template's thing
		before *imprint.Thing
		code   imprint.Code
		want   string
	}{
		{"a new thing gets both", kind + cost + "}}", nil, imprint.CodeProvisioned, "kind/cost v1 map[]"},
		{"a type allows more attributes", kind + four + "}}", nil, imprint.CodeProvisioned, "kind/ v1 map[a:1 b:2 c:3 d:4]"},
		{"a missing type", `,"ThingTypeName":"x"}}`, nil, imprint.CodeThingTypeMissing, "none"},
		{"a deprecated type", `,"ThingTypeName":"closed"}}`, nil, imprint.CodeTemplateValue, "none"},
		{"a missing billing group beside a type", kind + `,"BillingGroup":"x"}}`, nil, imprint.CodeGroupMissing, "none"},
		{"type by default, over none", kind + "}}", bare, imprint.CodeProvisioned, "/ v1 map[]"},
		{"type by default, over another", kind + "}}", other, imprint.CodeProvisioned, "other/ v1 map[]"},
		{"type DO_NOTHING, over none", kind + set("DO_NOTHING"), bare, imprint.CodeProvisioned, "/ v1 map[]"},
		{"type DO_NOTHING, over another", kind + set("DO_NOTHING"), other, imprint.CodeProvisioned, "other/ v1 map[]"},
		{"type DO_NOTHING doesn't even look for it", `,"ThingTypeName":"x"` + set("DO_NOTHING"), other, imprint.CodeProvisioned, "other/ v1 map[]"},
		{"type REPLACE, over none", kind + set("REPLACE"), bare, imprint.CodeProvisioned, "kind/ v2 map[]"},
		{"type REPLACE, over the same", kind + set("REPLACE"), typed, imprint.CodeProvisioned, "kind/ v1 map[]"},
		{"type REPLACE, over another", kind + set("REPLACE"), other, imprint.CodeProvisioned, "kind/ v2 map[]"},
		{"type REPLACE without the member", set("REPLACE"), other, imprint.CodeProvisioned, "other/ v1 map[]"},
		{"type REPLACE by a missing one", `,"ThingTypeName":"x"` + set("REPLACE"), other, imprint.CodeThingTypeMissing, "other/ v1 map[]"},
		{"type REPLACE by a deprecated one", `,"ThingTypeName":"closed"` + set("REPLACE"), other, imprint.CodeTemplateValue, "other/ v1 map[]"},
		{"type REPLACE by a deprecated one that it has", `,"ThingTypeName":"closed"` + set("REPLACE"), closed, imprint.CodeProvisioned, "closed/ v1 map[]"},
		{"type FAIL, over none", kind + set("FAIL"), bare, imprint.CodeConflictingUpdate, "/ v1 map[]"},
		{"type FAIL, over the same", kind + set("FAIL"), typed, imprint.CodeConflictingUpdate, "kind/ v1 map[]"},
		{"type FAIL, over another", kind + set("FAIL"), other, imprint.CodeConflictingUpdate, "other/ v1 map[]"},
		{"type FAIL means nothing for a new thing", kind + set("FAIL"), nil, imprint.CodeProvisioned, "kind/ v1 map[]"},
		{"type FAIL without the member", set("FAIL"), other, imprint.CodeProvisioned, "other/ v1 map[]"},
		{"type MERGE doesn't exist", kind + set("MERGE"), other, imprint.CodeTemplateInvalid, "other/ v1 map[]"},
		{"the upper-case key", kind + override(`"THING_TYPE_NAME":"REPLACE"`), other, imprint.CodeProvisioned, "kind/ v2 map[]"},
		{"type REPLACE and attributes MERGE are one update", kind + four + override(`"ThingTypeName":"REPLACE","AttributePayload":"MERGE"`), full, imprint.CodeProvisioned,
			"kind/else v2 map[a:1 b:2 c:3 d:4 z:old]"},
		{"type DO_NOTHING and attributes REPLACE", kind + four + override(`"ThingTypeName":"DO_NOTHING","AttributePayload":"REPLACE"`), full, imprint.CodeProvisioned,
			"other/else v2 map[a:1 b:2 c:3 d:4]"},
		{"type REPLACE and attributes DO_NOTHING", kind + four + override(`"ThingTypeName":"REPLACE","AttributePayload":"DO_NOTHING"`), full, imprint.CodeProvisioned,
			"kind/else v2 map[a:old z:old]"},
		{"type REPLACE and attributes FAIL", kind + four + override(`"ThingTypeName":"REPLACE","AttributePayload":"FAIL"`), full, imprint.CodeConflictingUpdate,
			"other/else v1 map[a:old z:old]"},
		{"attributes of a type over a thing that stays without one", kind + four + override(`"AttributePayload":"REPLACE"`), bare, imprint.CodeTemplateValue, "/ v1 map[]"},
		{"an existing thing keeps its billing group", cost + "}}", full, imprint.CodeProvisioned, "other/else v1 map[a:old z:old]"},
		{"and gets none that it hasn't", cost + "}}", bare, imprint.CodeProvisioned, "/ v1 map[]"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, templateOf(row.thing, "}"), provisioning.Options{})
			update(t, w.store, putKinds(row.before))
			leaf := w.ca.device(t, pkix.Name{CommonName: "unit"}, nil)
			w.foretell(t, templateOf(row.thing, "}"), leaf, row.code)
			code, steps := w.connect(t, leaf)
			if code != row.code {
				t.Errorf("got code %s, want %s", code, row.code)
			}
			step := "thing"
			switch row.code {
			case imprint.CodeProvisioned:
				step = ""
			case imprint.CodeTemplateInvalid:
				step = "template"
			}
			checkFailure(t, steps, step, row.code)
			if diff := cmp.Diff(row.want, w.shape(t)); diff != "" {
				t.Errorf("the thing differs (-want +got):\n%s", diff)
			}
		})
	}
}

// registryEvents gives the topics, below $aws/events/, of the registry events that
// wait in a tenant.
func (w *world) registryEvents(t *testing.T, tenant imprint.Tenant) []string {
	t.Helper()
	var topics []string
	view(t, w.store, func(tx imprint.ReadTx) error {
		events, err := tx.Events(tenant, 100)
		for _, e := range events {
			topic := strings.TrimPrefix(e.Topic, "$aws/events/")
			if !strings.HasPrefix(topic, "certificates/") {
				topics = append(topics, topic)
			}
			if !json.Valid(e.Payload) {
				t.Errorf("the payload on %s isn't JSON: %s", e.Topic, e.Payload)
			}
		}
		return err
	})
	slices.Sort(topics)
	return topics
}

// What a template makes is told of as what an operator makes is, and nothing of a
// template that fails.
func TestTemplatesTellOfWhatTheyChange(t *testing.T) {
	t.Parallel()
	const members = `,"ThingTypeName":"kind","ThingGroups":["a"],"AttributePayload":{"x":"1"}`
	all := override(`"ThingTypeName":"REPLACE","ThingGroups":"REPLACE","AttributePayload":"REPLACE"`)
	wanted := func(types ...imprint.EventType) func(imprint.Tx) error {
		return func(tx imprint.Tx) error {
			return tx.PutEventConfigurations(imprint.EventConfigurations{Tenant: home, Enabled: types})
		}
	}
	for _, row := range []struct {
		name   string
		thing  string
		before *imprint.Thing
		joined string
		wants  []imprint.EventType
		want   []string
	}{
		{"a new thing, all wanted", members + "}}", nil, "", imprint.EventTypes(), []string{
			"thing/unit/created", "thingGroupMembership/thingGroup/a/thing/unit/added", "thingTypeAssociation/thing/unit/thingType/kind/added"}},
		{"nothing is wanted", members + "}}", nil, "", nil, nil},
		{"only memberships are", members + "}}", nil, "", []imprint.EventType{imprint.EventsOfMemberships}, []string{
			"thingGroupMembership/thingGroup/a/thing/unit/added"}},
		{"a thing that exists, all replaced", members + all, &imprint.Thing{TypeName: "other"}, "r1", imprint.EventTypes(), []string{
			"thing/unit/updated", "thingGroupMembership/thingGroup/a/thing/unit/added", "thingGroupMembership/thingGroup/r1/thing/unit/removed",
			"thingTypeAssociation/thing/unit/thingType/kind/added", "thingTypeAssociation/thing/unit/thingType/other/removed"}},
		{"a thing that is left as it was", members + "}}", &imprint.Thing{TypeName: "other"}, "r1", imprint.EventTypes(), nil},
		{"a template that fails", `,"ThingTypeName":"kind","ThingGroups":["a","missing"]}}`, nil, "", imprint.EventTypes(), nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, templateOf(row.thing, "}"), provisioning.Options{})
			update(t, w.store, putGroups())
			update(t, w.store, putKinds(row.before))
			if row.joined != "" {
				update(t, w.store, func(tx imprint.Tx) error {
					return tx.PutThingGroupMembership(imprint.ThingGroupMembership{Tenant: home, Group: imprint.ThingGroupName(row.joined), Thing: "unit"})
				})
			}
			update(t, w.store, wanted(row.wants...))
			w.connect(t, w.ca.device(t, pkix.Name{CommonName: "unit"}, nil))
			if diff := cmp.Diff(row.want, w.registryEvents(t, home)); diff != "" {
				t.Errorf("the events differ (-want +got):\n%s", diff)
			}
			if got := w.registryEvents(t, another); got != nil {
				t.Errorf("got events %v in another tenant", got)
			}
		})
	}
}
