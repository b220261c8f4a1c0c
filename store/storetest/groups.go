package storetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
)

// group makes a group below its ancestors.
func group(tenant imprint.Tenant, name string, ancestors ...imprint.ThingGroupName) imprint.ThingGroup {
	return imprint.ThingGroup{Tenant: tenant, Name: imprint.ThingGroupName(name), Ancestors: ancestors, ID: "id of " + name, Version: 1,
		CreatedAt: instant, ModifiedAt: instant}
}

// groupLists share groups: each looks in a part of its own.
func groupLists() []pagedList {
	list := func(f imprint.ThingGroupFilter) func(imprint.ReadTx, imprint.Tenant, imprint.Page) ([]int, string, error) {
		return func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.ThingGroups(t, f, p)
			return numbers(items, next, err, func(i imprint.ThingGroup) string { return string(i.Name) })
		}
	}
	add := func(prefix string, ancestors ...imprint.ThingGroupName) func(imprint.Tx, imprint.Tenant, int) error {
		return func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutThingGroup(group(t, prefix+name(n), ancestors...))
		}
	}
	under := func(add func(imprint.Tx, imprint.Tenant, int) error) func(imprint.Tx, imprint.Tenant, int) error {
		return func(tx imprint.Tx, t imprint.Tenant, n int) error {
			err := tx.PutThingGroup(group(t, "top"))
			if err != nil {
				return err
			}
			return add(tx, t, n)
		}
	}
	return []pagedList{
		{"thing groups", add(""), list(imprint.ThingGroupFilter{Recursive: true})},
		{"thing groups of a prefix", add("p"), list(imprint.ThingGroupFilter{Recursive: true, Prefix: "p"})},
		{"root groups of a prefix", add("r"), list(imprint.ThingGroupFilter{Prefix: "r"})},
		{"groups right below one", add("b", "beyond"), list(imprint.ThingGroupFilter{Parent: "beyond"})},
		{"groups anywhere below one", under(add("d", "top", "middle")), list(imprint.ThingGroupFilter{Parent: "top", Recursive: true})},
		{"groups of a prefix anywhere below one", under(add("e", "top", "other")), list(imprint.ThingGroupFilter{Parent: "top", Recursive: true, Prefix: "e"})},
		{"groups of a thing", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutThingGroupMembership(imprint.ThingGroupMembership{Tenant: t, Thing: "one", Group: imprint.ThingGroupName(name(n))})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.ThingMemberships(t, "one", p)
			return numbers(items, next, err, func(i imprint.ThingGroupMembership) string { return string(i.Group) })
		}},
		{"things of a group", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutThingGroupMembership(imprint.ThingGroupMembership{Tenant: t, Thing: imprint.ThingName(name(n)), Group: "one"})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.ThingGroupMembers(t, "one", false, p)
			return numbers(items, next, err, func(i imprint.ThingGroupMembership) string { return string(i.Thing) })
		}},
	}
}

// putTree makes the groups at the places, which are names with slashes between
// them.
func putTree(t *testing.T, store imprint.Store, tenant imprint.Tenant, places ...string) {
	t.Helper()
	update(t, store, func(tx imprint.Tx) error {
		for _, place := range places {
			names := strings.Split(place, "/")
			g := group(tenant, names[len(names)-1])
			for _, ancestor := range names[:len(names)-1] {
				g.Ancestors = append(g.Ancestors, imprint.ThingGroupName(ancestor))
			}
			err := tx.PutThingGroup(g)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func testThingGroups(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	putTree(t, store, here, "a", "a-b", "a:b", "a0", "a/c", "a/c/d", "a/c-1", "a/c-1/d-1", "Z", "a-b/x", "a/c/d/e")
	putTree(t, store, there, "a", "a/other")
	for _, c := range []struct {
		filter imprint.ThingGroupFilter
		want   string
	}{
		{imprint.ThingGroupFilter{}, "Z a a-b a0 a:b"},
		{imprint.ThingGroupFilter{Prefix: "a"}, "a a-b a0 a:b"},
		{imprint.ThingGroupFilter{Prefix: "a-"}, "a-b"},
		{imprint.ThingGroupFilter{Prefix: "b"}, ""},
		{imprint.ThingGroupFilter{Recursive: true}, "Z a a-b a0 a:b c c-1 d d-1 e x"},
		{imprint.ThingGroupFilter{Recursive: true, Prefix: "c"}, "c c-1"},
		{imprint.ThingGroupFilter{Recursive: true, Prefix: "d"}, "d d-1"},
		{imprint.ThingGroupFilter{Parent: "a"}, "c c-1"},
		{imprint.ThingGroupFilter{Parent: "a", Prefix: "c-"}, "c-1"},
		{imprint.ThingGroupFilter{Parent: "c"}, "d"},
		{imprint.ThingGroupFilter{Parent: "a", Recursive: true}, "c c-1 d-1 d e"},
		{imprint.ThingGroupFilter{Parent: "a", Recursive: true, Prefix: "d"}, "d-1 d"},
		{imprint.ThingGroupFilter{Parent: "e", Recursive: true}, ""},
		{imprint.ThingGroupFilter{Parent: "unknown"}, ""},
		{imprint.ThingGroupFilter{Parent: "unknown", Recursive: true}, ""},
	} {
		for _, limit := range []int{1, 2, 100} {
			var got []string
			p := imprint.Page{Limit: limit, Ascending: true}
			view(t, store, func(tx imprint.ReadTx) error {
				for {
					groups, next, err := tx.ThingGroups(here, c.filter, p)
					for _, g := range groups {
						got = append(got, string(g.Name))
					}
					if err != nil || next == "" {
						return err
					}
					p.Cursor = next
				}
			})
			if strings.Join(got, " ") != c.want {
				t.Errorf("%+v by pages of %d: got %v, want %s", c.filter, limit, got, c.want)
			}
		}
	}
}

func testMembersBelow(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	putTree(t, store, here, "a", "a-b", "a0", "a/b", "a/b-1", "a/b/c", "a/empty")
	update(t, store, func(tx imprint.Tx) error {
		for _, g := range []imprint.ThingGroupName{"a", "a-b", "a0", "b", "b-1", "c"} {
			for n := range 3 {
				for _, tenant := range []imprint.Tenant{here, there} {
					m := imprint.ThingGroupMembership{Tenant: tenant, Group: g, Thing: imprint.ThingName(fmt.Sprintf("%s.%d", g, n))}
					err := tx.PutThingGroupMembership(m)
					if err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	for group, want := range map[imprint.ThingGroupName]string{
		"a": "a.0 a.1 a.2 b.0 b.1 b.2 b-1.0 b-1.1 b-1.2 c.0 c.1 c.2", "b": "b.0 b.1 b.2 c.0 c.1 c.2", "c": "c.0 c.1 c.2", "empty": "", "unknown": "",
	} {
		for limit := 1; limit < 14; limit++ {
			if got := membersOf(t, store, group, limit); got != want {
				t.Errorf("below %s by pages of %d: got %s, want %s", group, limit, got, want)
			}
		}
	}
	view(t, store, func(tx imprint.ReadTx) error {
		_, cursor, err := tx.ThingGroupMembers(here, "a", true, imprint.Page{Limit: 1, Ascending: true})
		if err != nil {
			return err
		}
		for _, wrong := range []string{cursor, "x", strings.Repeat("A", 10_000)} {
			_, _, err = tx.ThingGroupMembers(here, "b", true, imprint.Page{Limit: 1, Ascending: true, Cursor: wrong})
			wantCode(t, err, imprint.CodeInvalidRequest)
		}
		_, _, err = tx.ThingGroupMembers(here, "b", true, imprint.Page{Ascending: true})
		wantCode(t, err, imprint.CodeInvalidRequest)
		return nil
	})
}

func membersOf(t *testing.T, store imprint.Store, group imprint.ThingGroupName, limit int) string {
	t.Helper()
	var got []string
	p := imprint.Page{Limit: limit, Ascending: true}
	view(t, store, func(tx imprint.ReadTx) error {
		for {
			members, next, err := tx.ThingGroupMembers(here, group, true, p)
			if next != "" && len(members) != limit {
				t.Errorf("a page of %d has %d members", limit, len(members))
			}
			for _, m := range members {
				if !strings.HasPrefix(string(m.Thing), string(m.Group)+".") || m.Tenant != here {
					t.Errorf("got %+v, want a member of its group", m)
				}
				got = append(got, string(m.Thing))
			}
			if err != nil || next == "" {
				return err
			}
			p.Cursor = next
		}
	})
	return strings.Join(got, " ")
}
