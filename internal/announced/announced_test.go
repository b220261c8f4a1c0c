package announced_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/announced"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var home = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}

var errOwn = errors.New("the change undoes itself")

// world is the registry as someone knows it: lines by what they are about.
type world map[string]string

// follow applies what an event tells.
func (w world) follow(t *rapid.T, e imprint.Event) {
	var told struct {
		Operation  string            `json:"operation"`
		Version    int64             `json:"versionNumber"`
		Type       string            `json:"thingTypeName"`
		Attributes map[string]string `json:"attributes"`
		Deprecated bool              `json:"isDeprecated"`
		Parent     string            `json:"parentGroupName"`
	}
	err := json.Unmarshal(e.Payload, &told)
	if err != nil {
		t.Fatalf("the event on %s: %v", e.Topic, err)
	}
	topic := strings.TrimPrefix(e.Topic, "$aws/events/")
	about := topic[:strings.LastIndexByte(topic, '/')]
	last := topic[len(about)+1:]
	if !strings.EqualFold(last, told.Operation) || e.Tenant != home {
		t.Errorf("got %s of %s on %s", told.Operation, e.Tenant, e.Topic)
	}
	_, known := w[about]
	if begins := last == "created" || last == "added"; begins == known {
		t.Errorf("got %s although what it is about is known: %t", e.Topic, known)
	}
	if last == "deleted" || last == "removed" {
		delete(w, about)
		return
	}
	kind, _, _ := strings.Cut(about, "/")
	switch kind {
	case "thing":
		w[about] = fmt.Sprint(told.Version, told.Type, told.Attributes)
	case "thingType":
		w[about] = fmt.Sprint(told.Deprecated)
	case "thingGroup":
		w[about] = fmt.Sprint(told.Version, told.Parent, told.Attributes)
	default:
		w[about] = ""
	}
}

// read gives the registry as it is.
func read(tx imprint.ReadTx) (world, error) {
	w := world{}
	p := imprint.Page{Limit: 100, Ascending: true}
	things, _, err := tx.Things(home, imprint.ThingFilter{}, p)
	for _, thing := range things {
		w["thing/"+string(thing.Name)] = fmt.Sprint(thing.Version, thing.TypeName, orEmpty(thing.Attributes))
		if thing.TypeName != "" {
			w["thingTypeAssociation/thing/"+string(thing.Name)+"/thingType/"+string(thing.TypeName)] = ""
		}
		memberships, _, memberErr := tx.ThingMemberships(home, thing.Name, p)
		err = errors.Join(err, memberErr)
		for _, m := range memberships {
			w["thingGroupMembership/thingGroup/"+string(m.Group)+"/thing/"+string(m.Thing)] = ""
		}
	}
	kinds, _, kindErr := tx.ThingTypes(home, p)
	for _, kind := range kinds {
		w["thingType/"+string(kind.Name)] = fmt.Sprint(kind.Deprecated())
	}
	groups, _, groupErr := tx.ThingGroups(home, imprint.ThingGroupFilter{Recursive: true}, p)
	for _, g := range groups {
		w["thingGroup/"+string(g.Name)] = fmt.Sprint(g.Version, g.Parent(), orEmpty(g.Attributes))
		if g.Parent() != "" {
			w["thingGroupHierarchy/thingGroup/"+string(g.Parent())+"/childThingGroup/"+string(g.Name)] = ""
		}
	}
	return w, errors.Join(err, kindErr, groupErr)
}

func orEmpty(attributes map[string]string) map[string]string {
	if attributes == nil {
		return map[string]string{}
	}
	return attributes
}

// change draws one change that the flows would make; nil when the registry has
// nothing for it.
func change(t *rapid.T, tx imprint.ReadTx, now time.Time) (func(*announced.Registry) error, error) {
	things, _, err := tx.Things(home, imprint.ThingFilter{}, imprint.Page{Limit: 100, Ascending: true})
	kinds, _, kindErr := tx.ThingTypes(home, imprint.Page{Limit: 100, Ascending: true})
	groups, _, groupErr := tx.ThingGroups(home, imprint.ThingGroupFilter{Recursive: true}, imprint.Page{Limit: 100, Ascending: true})
	err = errors.Join(err, kindErr, groupErr)
	if err != nil {
		return nil, err
	}
	name := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "name")
	attributes := map[string]string{"n": rapid.SampledFrom([]string{"1", "2"}).Draw(t, "attribute")}
	thing, hasThing := pick(things, func(one imprint.Thing) bool { return string(one.Name) == name })
	kind, hasKind := pick(kinds, func(one imprint.ThingType) bool { return string(one.Name) == name })
	group, hasGroup := pick(groups, func(one imprint.ThingGroup) bool { return string(one.Name) == name })
	member := imprint.ThingGroupMembership{Tenant: home, Thing: imprint.ThingName(name)}
	if len(groups) > 0 {
		member.Group = rapid.SampledFrom(groups).Draw(t, "group").Name
	}
	switch rapid.SampledFrom([]string{"thing", "thing deleted", "type", "type deleted", "group", "group deleted", "join", "leave"}).Draw(t, "change") {
	case "thing":
		return putThing(t, name, attributes, kinds, thing, hasThing), nil
	case "thing deleted":
		if hasThing {
			return func(r *announced.Registry) error { return r.DeleteThing(thing) }, nil
		}
	case "type":
		if hasKind {
			after, _ := kind.Deprecate(kind.Deprecated(), now)
			return func(r *announced.Registry) error { return r.UpdateThingType(after) }, nil
		}
		return func(r *announced.Registry) error {
			return r.CreateThingType(imprint.ThingType{Tenant: home, Name: imprint.ThingTypeName(name)})
		}, nil
	case "type deleted":
		used := slices.ContainsFunc(things, func(one imprint.Thing) bool { return string(one.TypeName) == name })
		if hasKind && !used {
			return func(r *announced.Registry) error { return r.DeleteThingType(kind) }, nil
		}
	case "group":
		return putGroup(t, name, attributes, groups, group, hasGroup), nil
	case "group deleted":
		parent := slices.ContainsFunc(groups, func(one imprint.ThingGroup) bool { return string(one.Parent()) == name })
		if hasGroup && !parent {
			members, _, err := tx.ThingGroupMembers(home, group.Name, false, imprint.Page{Limit: 100, Ascending: true})
			return func(r *announced.Registry) error { return r.DeleteThingGroup(group, members) }, err
		}
	case "join":
		present, _, err := tx.ThingMemberships(home, member.Thing, imprint.Page{Limit: 100, Ascending: true})
		if hasThing && member.Group != "" && !slices.Contains(present, member) {
			return func(r *announced.Registry) error { return r.Join(member) }, err
		}
	case "leave":
		if hasThing && member.Group != "" {
			return func(r *announced.Registry) error { return r.Leave(member) }, nil
		}
	}
	return nil, nil
}

func putThing(t *rapid.T, name string, attributes map[string]string, kinds []imprint.ThingType, present imprint.Thing, exists bool) func(*announced.Registry) error {
	after := present
	after.Version, after.TypeName, after.Attributes = present.Version+1, "", attributes
	if len(kinds) > 0 && rapid.Bool().Draw(t, "typed") {
		after.TypeName = rapid.SampledFrom(kinds).Draw(t, "type").Name
	}
	if exists {
		return func(r *announced.Registry) error { return r.UpdateThing(present, after) }
	}
	after.Tenant, after.Name, after.ID = home, imprint.ThingName(name), "id of "+name
	return func(r *announced.Registry) error { return r.CreateThing(after) }
}

func putGroup(t *rapid.T, name string, attributes map[string]string, groups []imprint.ThingGroup, present imprint.ThingGroup, exists bool) func(*announced.Registry) error {
	after := present
	after.Version, after.Attributes = present.Version+1, attributes
	if exists {
		return func(r *announced.Registry) error { return r.UpdateThingGroup(after) }
	}
	after.Tenant, after.Name, after.ID = home, imprint.ThingGroupName(name), "id of "+name
	if len(groups) > 0 && rapid.Bool().Draw(t, "below") {
		above := rapid.SampledFrom(groups).Draw(t, "parent")
		after.Ancestors = append(slices.Clone(above.Ancestors), above.Name)
	}
	return func(r *announced.Registry) error { return r.CreateThingGroup(after) }
}

func pick[T any](all []T, is func(T) bool) (T, bool) {
	n := slices.IndexFunc(all, is)
	if n < 0 {
		var none T
		return none, false
	}
	return all[n], true
}

// TestWhoFollowsTheEventsKnowsTheRegistry makes random changes, some of which undo
// themselves: the events alone tell what the registry holds.
func TestWhoFollowsTheEventsKnowsTheRegistry(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	rapid.Check(t, func(t *rapid.T) {
		update(t, store, wipe)
		known := world{}
		now := time.Unix(1_800_000_000, 0)
		for range rapid.IntRange(1, 40).Draw(t, "changes") {
			now = now.Add(time.Millisecond)
			undone := rapid.IntRange(0, 9).Draw(t, "undone") == 0
			var do func(*announced.Registry) error
			err := store.View(context.Background(), func(tx imprint.ReadTx) error {
				var err error
				do, err = change(t, tx, now)
				return err
			})
			if err != nil {
				t.Fatalf("couldn't read the registry: %v", err)
			}
			if do == nil {
				continue
			}
			err = store.Update(context.Background(), func(tx imprint.Tx) error {
				err := do(announced.In(tx, home, now))
				if err == nil && undone {
					err = errOwn
				}
				return err
			})
			if err != nil && !errors.Is(err, errOwn) {
				t.Fatalf("couldn't change the registry: %v", err)
			}
			var is world
			update(t, store, func(tx imprint.Tx) error {
				events, err := tx.Events(home, 1000)
				if err != nil {
					return err
				}
				for _, e := range events {
					known.follow(t, e)
					err = tx.DeleteEvents(home, []string{e.ID})
					if err != nil {
						return err
					}
				}
				is, err = read(tx)
				return err
			})
			if diff := cmp.Diff(is, known); diff != "" {
				t.Fatalf("the registry is not what the events tell (-registry +events):\n%s", diff)
			}
		}
	})
}

// wipe empties the registry and switches all events on.
func wipe(tx imprint.Tx) error {
	for _, name := range []string{"a", "b", "c", "d"} {
		err := errors.Join(tx.DeleteThing(home, imprint.ThingName(name)), tx.DeleteThingType(home, imprint.ThingTypeName(name)),
			tx.DeleteThingGroup(home, imprint.ThingGroupName(name)))
		if err != nil {
			return err
		}
	}
	return tx.PutEventConfigurations(imprint.EventConfigurations{Tenant: home, Enabled: imprint.EventTypes()})
}

func update(t *rapid.T, store imprint.Store, fn func(imprint.Tx) error) {
	err := store.Update(context.Background(), fn)
	if err != nil {
		t.Fatalf("couldn't use the store: %v", err)
	}
}
