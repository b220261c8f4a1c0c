package storetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// registryRows are those of thing types, billing groups and event configurations.
func registryRows() []row {
	return []row{{
		name: "thing type",
		full: func(t imprint.Tenant) any {
			return imprint.ThingType{Tenant: t, Name: "kind:1", ID: "uuid " + string(t.Region), Description: unusual,
				SearchableAttributes: []string{"b", "a", unusual},
				PropagatingAttributes: []imprint.PropagatingAttribute{{UserPropertyKey: "k", ThingAttribute: "a"},
					{UserPropertyKey: unusual, ConnectionAttribute: "iot:ClientId"}},
				DeprecatedAt: instant.Add(time.Minute), CreatedAt: instant, ModifiedAt: instant.Add(time.Second)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.ThingType{Tenant: t, Name: "kind:1"} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutThingType(v.(imprint.ThingType)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.ThingType(t, "kind:1") },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteThingType(t, "kind:1") },
	}, {
		name: "billing group",
		full: func(t imprint.Tenant) any {
			return imprint.BillingGroup{Tenant: t, Name: "cost:1", ID: "uuid " + string(t.Region), Description: unusual, Version: 1 << 40,
				CreatedAt: instant, ModifiedAt: instant.Add(time.Second)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.BillingGroup{Tenant: t, Name: "cost:1"} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutBillingGroup(v.(imprint.BillingGroup)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.BillingGroup(t, "cost:1") },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteBillingGroup(t, "cost:1") },
	}, {
		name: "event configurations",
		full: func(t imprint.Tenant) any {
			return imprint.EventConfigurations{Tenant: t, Enabled: []imprint.EventType{imprint.EventsOfThings, imprint.EventsOfThingGroups},
				CreatedAt: instant, ModifiedAt: instant.Add(time.Second)}
		},
		bare: func(t imprint.Tenant) any { return imprint.EventConfigurations{Tenant: t} },
		put:  func(tx imprint.Tx, v any) error { return tx.PutEventConfigurations(v.(imprint.EventConfigurations)) },
		get:  func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.EventConfigurations(t) },
	}}
}

// registryLists are those of thing types and billing groups.
func registryLists() []pagedList {
	billing := func(prefix string) pagedList {
		return pagedList{"billing groups of the prefix " + prefix, func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutBillingGroup(imprint.BillingGroup{Tenant: t, Name: imprint.BillingGroupName(prefix + name(n))})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.BillingGroups(t, prefix, p)
			return numbers(items, next, err, func(i imprint.BillingGroup) string { return string(i.Name) })
		}}
	}
	return []pagedList{
		{"thing types", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutThingType(imprint.ThingType{Tenant: t, Name: imprint.ThingTypeName(name(n))})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.ThingTypes(t, p)
			return numbers(items, next, err, func(i imprint.ThingType) string { return string(i.Name) })
		}},
		billing(""), billing("p"),
		{"things of a billing group", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			one := thing(t, "b"+name(n))
			one.BillingGroup = "cost"
			return tx.PutThing(one)
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.BillingGroupThings(t, "cost", p)
			return numbers(items, next, err, func(i imprint.Thing) string { return string(i.Name) })
		}},
	}
}

// registryCalls are changes of several rows of which each commit can fail.
func registryCalls() []call {
	typed := thing(here, "device")
	typed.TypeName, typed.BillingGroup = "kind", "cost"
	return []call{{"a thing of a new type in a new billing group, told of", func(imprint.Tx) error { return nil }, steps(
		func(tx imprint.Tx) error { return tx.PutThingType(imprint.ThingType{Tenant: here, Name: "kind"}) },
		func(tx imprint.Tx) error { return tx.PutBillingGroup(imprint.BillingGroup{Tenant: here, Name: "cost"}) },
		func(tx imprint.Tx) error {
			return tx.PutEventConfigurations(imprint.EventConfigurations{Tenant: here, Enabled: []imprint.EventType{imprint.EventsOfThings}})
		},
		func(tx imprint.Tx) error { return tx.PutThing(typed) },
		func(tx imprint.Tx) error { return tx.PutEvent(imprint.Event{ID: "e", Tenant: here, Topic: "t"}) }), registryState, false}}
}

func registryState(tx imprint.ReadTx) string {
	_, typeErr := tx.ThingType(here, "kind")
	_, groupErr := tx.BillingGroup(here, "cost")
	wanted, wantedErr := tx.EventConfigurations(here)
	p := imprint.Page{Limit: 10}
	byType, _, _ := tx.Things(here, imprint.ThingFilter{TypeName: "kind"}, p)
	byGroup, _, _ := tx.BillingGroupThings(here, "cost", p)
	events, _ := tx.Events(here, 10)
	return fmt.Sprint(imprint.CodeOf(typeErr), imprint.CodeOf(groupErr), imprint.CodeOf(wantedErr), wanted.Enabled, len(byType), len(byGroup), len(events))
}

// Things leave a billing group's list with their name for it, and stay when the
// group's row goes.
func testBillingGroups(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	put := func(tenant imprint.Tenant, name string, group imprint.BillingGroupName) {
		one := thing(tenant, name)
		one.BillingGroup = group
		update(t, store, func(tx imprint.Tx) error { return tx.PutThing(one) })
	}
	for _, one := range []string{"a", "b", "c"} {
		put(here, one, "cost")
	}
	put(there, "a", "cost")
	put(here, "d", "")
	put(here, "b", "other")
	update(t, store, func(tx imprint.Tx) error { return tx.DeleteBillingGroup(here, "cost") })
	for group, want := range map[imprint.BillingGroupName]string{"cost": "a c", "other": "b", "": "", "unknown": ""} {
		view(t, store, func(tx imprint.ReadTx) error {
			var got []string
			things, next, err := tx.BillingGroupThings(here, group, imprint.Page{Limit: 10, Ascending: true})
			for _, one := range things {
				got = append(got, string(one.Name))
			}
			if strings.Join(got, " ") != want || next != "" {
				t.Errorf("in %q: got %v and the cursor %q, want %s", group, got, next, want)
			}
			return err
		})
	}
}
