package provisioning_test

import (
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

// putGroups makes group a below top, b below it, and eleven roots, and puts the
// thing into some of them, when it exists.
func putGroups(joined ...imprint.ThingGroupName) func(imprint.Tx) error {
	return func(tx imprint.Tx) error {
		groups := []imprint.ThingGroup{{Tenant: home, Name: "top"}, {Tenant: home, Name: "a", Ancestors: []imprint.ThingGroupName{"top"}},
			{Tenant: home, Name: "b", Ancestors: []imprint.ThingGroupName{"top", "a"}}}
		for n := range 11 {
			groups = append(groups, imprint.ThingGroup{Tenant: home, Name: imprint.ThingGroupName(fmt.Sprintf("r%d", n))})
		}
		for _, g := range groups {
			err := tx.PutThingGroup(g)
			if err != nil {
				return err
			}
		}
		if joined == nil {
			return nil
		}
		for _, name := range joined {
			err := tx.PutThingGroupMembership(imprint.ThingGroupMembership{Tenant: home, Group: name, Thing: "unit"})
			if err != nil {
				return err
			}
		}
		return putThing(map[string]string{"a": "old"})(tx)
	}
}

// A template that fails leaves the thing in the groups in which it was.
func TestTemplatesPutThingsIntoGroups(t *testing.T) {
	t.Parallel()
	const groups = `,"ThingGroups":["a","r1"]`
	var many []string
	for n := range 10 {
		many = append(many, fmt.Sprintf(`"r%d"`, n))
	}
	for _, row := range []struct {
		name   string
		thing  string // members of the template's thing
		before func(imprint.Tx) error
		code   imprint.Code
		step   string
		want   string
	}{
		{"a new thing joins them", groups + "}}", putGroups(), imprint.CodeProvisioned, "", "a r1"},
		{"a new thing joins ten", `,"ThingGroups":[` + strings.Join(many, ",") + `]}}`, putGroups(), imprint.CodeProvisioned, "", "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9"},
		{"two of one hierarchy", `,"ThingGroups":["a","b"]}}`, putGroups(), imprint.CodeTemplateValue, "thing.groups", ""},
		{"a missing one beside another", `,"ThingGroups":["a","x"]}}`, putGroups(), imprint.CodeGroupMissing, "thing.groups", ""},
		{"an existing thing stays where it was by default", groups + "}}", putGroups("r2"), imprint.CodeProvisioned, "", "r2"},
		{"DO_NOTHING doesn't even look for them", `,"ThingGroups":["x"]` + override(`"ThingGroups":"DO_NOTHING"`), putGroups("r2"), imprint.CodeProvisioned, "", "r2"},
		{"REPLACE", groups + override(`"ThingGroups":"REPLACE"`), putGroups("b", "r1", "r2"), imprint.CodeProvisioned, "", "a r1"},
		{"REPLACE by no group takes it out of all", `,"ThingGroups":[]` + override(`"ThingGroups":"REPLACE"`), putGroups("b", "r1"), imprint.CodeProvisioned, "", ""},
		{"REPLACE without the member leaves all", override(`"ThingGroups":"REPLACE"`), putGroups("b", "r1"), imprint.CodeProvisioned, "", "b r1"},
		{"MERGE", groups + override(`"ThingGroups":"MERGE"`), putGroups("r1", "r2"), imprint.CodeProvisioned, "", "a r1 r2"},
		{"MERGE within a hierarchy", groups + override(`"ThingGroups":"MERGE"`), putGroups("b"), imprint.CodeTemplateValue, "thing.groups", "b"},
		{"MERGE over the limit", groups + override(`"ThingGroups":"MERGE"`), putGroups("r0", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"), imprint.CodeTemplateValue, "thing.groups", "r0 r2 r3 r4 r5 r6 r7 r8 r9"},
		{"FAIL", groups + override(`"ThingGroups":"FAIL"`), putGroups("r2"), imprint.CodeConflictingUpdate, "thing.groups", "r2"},
		{"FAIL means nothing for a new thing", groups + override(`"ThingGroups":"FAIL"`), putGroups(), imprint.CodeProvisioned, "", "a r1"},
		{"attributes and groups have settings of their own", `,"AttributePayload":{"a":"new"}` + groups + override(`"AttributePayload":"DO_NOTHING","ThingGroups":"MERGE"`), putGroups("r2"), imprint.CodeProvisioned, "", "a r1 r2"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, templateOf(row.thing, "}"), provisioning.Options{})
			update(t, w.store, row.before)
			leaf := w.ca.device(t, pkix.Name{CommonName: "unit"}, nil)
			w.foretell(t, templateOf(row.thing, "}"), leaf, row.code)
			code, steps := w.connect(t, leaf)
			if code != row.code {
				t.Errorf("got code %s, want %s", code, row.code)
			}
			checkFailure(t, steps, row.step, row.code)
			var got []string
			view(t, w.store, func(tx imprint.ReadTx) error {
				memberships, _, err := tx.ThingMemberships(home, "unit", imprint.Page{Limit: 20, Ascending: true})
				for _, m := range memberships {
					got = append(got, string(m.Group))
				}
				return err
			})
			if diff := cmp.Diff(row.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("the groups differ (-want +got):\n%s", diff)
			}
		})
	}
}
