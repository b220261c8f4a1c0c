package registry

import (
	"fmt"
	"strings"

	"github.com/imprint-iot/imprint"
)

const (
	groupColumns      = "tenant, name, group_id, place, description, attributes, version, created_at, modified_at"
	allGroups         = "thing_groups WHERE tenant = $1"
	membershipColumns = "tenant, thing, group_name"
	// afterNames sorts after every character of a name, afterSlash right after the
	// slash between the names of a place.
	afterNames = "\x7f"
	afterSlash = "0"

	placedMemberKind keyKind = "Xss"
	// nextMembers reads the members of one group after a thing, membersBelow those
	// of the groups between two places. Each is in the order of one index; the cross
	// join keeps the groups in the outer loop.
	nextMembers  = "SELECT " + membershipColumns + " FROM thing_group_members WHERE tenant = $1 AND group_name = $2 AND thing > $3 ORDER BY thing LIMIT $4"
	membersBelow = "SELECT m.tenant, m.thing, m.group_name, g.place FROM thing_groups AS g CROSS JOIN thing_group_members AS m " +
		"WHERE g.tenant = $1 AND g.place > $2 AND g.place < $3 AND m.tenant = $1 AND m.group_name = g.name " +
		"ORDER BY g.place, m.thing LIMIT $4"
)

var (
	putThingGroup = upsert("thing_groups", 2, "tenant", "name", "group_id", "parent", "place", "description", "attributes",
		"version", "created_at", "modified_at")
	putThingGroupMembership = upsert("thing_group_members", 3, "tenant", "thing", "group_name")

	groupsByName   = newRange("Ts", groupColumns, allGroups, 1, "name", scanThingGroup, groupName)
	groupsByParent = newRange("Ts", groupColumns, allGroups+" AND parent = $2", 2, "name", scanThingGroup, groupName)
	groupsByPlace  = newRange("Us", groupColumns, allGroups, 1, "place", scanThingGroup, groupPlace)

	thingMemberships = newList("Vs", membershipColumns, "thing_group_members WHERE tenant = $1 AND thing = $2", 2,
		[]string{"group_name"}, scanMembership,
		func(m *imprint.ThingGroupMembership) []any { return []any{string(m.Group)} })
	groupMembers = newList("Ws", membershipColumns, "thing_group_members WHERE tenant = $1 AND group_name = $2", 2,
		[]string{"thing"}, scanMembership,
		func(m *imprint.ThingGroupMembership) []any { return []any{string(m.Thing)} })
)

func groupName(g *imprint.ThingGroup) []any { return []any{string(g.Name)} }

func groupPlace(g *imprint.ThingGroup) []any { return []any{placeOf(g)} }

func placeOf(g *imprint.ThingGroup) string {
	var b strings.Builder
	for _, name := range g.Ancestors {
		b.WriteString(string(name))
		b.WriteByte('/')
	}
	b.WriteString(string(g.Name))
	return b.String()
}

// lastOf gives the name of the group at a place.
func lastOf(place string) string { return place[strings.LastIndexByte(place, '/')+1:] }

func scanThingGroup(t *Tx, r Rows, g *imprint.ThingGroup) error {
	var tenant, place, attributes string
	var created, modified int64
	err := r.Scan(&tenant, (*string)(&g.Name), &g.ID, &place, &g.Description, &attributes, &g.Version, &created, &modified)
	if err != nil {
		return err
	}
	g.Tenant = t.readTenant(tenant)
	g.CreatedAt, g.ModifiedAt = readTime(created), readTime(modified)
	names := strings.Split(place, "/")
	for _, name := range names[:len(names)-1] {
		g.Ancestors = append(g.Ancestors, imprint.ThingGroupName(name))
	}
	g.Attributes, err = readAttributes(attributes)
	if err != nil {
		return fmt.Errorf("couldn't read the attributes of thing group %s: %w", g.Name, err)
	}
	return nil
}

func scanMembership(t *Tx, r Rows, m *imprint.ThingGroupMembership) error {
	var tenant string
	err := r.Scan(&tenant, (*string)(&m.Thing), (*string)(&m.Group))
	m.Tenant = t.readTenant(tenant)
	return err
}

// placedMember is a membership with the place of its group.
type placedMember struct {
	imprint.ThingGroupMembership
	place string
}

func scanPlacedMember(t *Tx, r Rows, m *placedMember) error {
	var tenant string
	err := r.Scan(&tenant, (*string)(&m.Thing), (*string)(&m.Group), &m.place)
	m.Tenant = t.readTenant(tenant)
	return err
}

// ThingGroup implements imprint.ThingGroupReader.
func (t *Tx) ThingGroup(tenant imprint.Tenant, name imprint.ThingGroupName) (imprint.ThingGroup, error) {
	g, found, err := t.thingGroup(tenant, name)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "thing group %s doesn't exist in %s", name, tenant)
	}
	return g, err
}

func (t *Tx) thingGroup(tenant imprint.Tenant, name imprint.ThingGroupName) (imprint.ThingGroup, bool, error) {
	return first(t, scanThingGroup, "SELECT "+groupColumns+" FROM thing_groups WHERE tenant = $1 AND name = $2",
		t.in(tenant), string(name))
}

// ThingGroups implements imprint.ThingGroupReader. The prefix of a recursive
// list below a parent is looked for in each group; the others run over it.
func (t *Tx) ThingGroups(tenant imprint.Tenant, f imprint.ThingGroupFilter, p imprint.Page) ([]imprint.ThingGroup, string, error) {
	after, before := beforePrefix(f.Prefix), f.Prefix+afterNames
	switch {
	case !f.Recursive:
		return groupsByParent.page(t, p, nil, after, before, t.in(tenant), string(f.Parent))
	case f.Parent == "":
		return groupsByName.page(t, p, nil, after, before, t.in(tenant))
	}
	parent, found, err := t.thingGroup(tenant, f.Parent)
	if err != nil || !found {
		return nil, "", err
	}
	var keep func(*imprint.ThingGroup) bool
	if f.Prefix != "" {
		keep = func(g *imprint.ThingGroup) bool { return strings.HasPrefix(string(g.Name), f.Prefix) }
	}
	place := placeOf(&parent)
	return groupsByPlace.page(t, p, keep, place+"/", place+afterSlash, t.in(tenant))
}

// beforePrefix gives a text that sorts after all names before those with the
// prefix, and before these.
func beforePrefix(prefix string) string {
	if prefix == "" {
		return ""
	}
	last := len(prefix) - 1
	return prefix[:last] + string(rune(prefix[last]-1)) + afterNames
}

// ThingMemberships implements imprint.ThingGroupReader.
func (t *Tx) ThingMemberships(tenant imprint.Tenant, thing imprint.ThingName, p imprint.Page) ([]imprint.ThingGroupMembership, string, error) {
	return thingMemberships.page(t, p, nil, t.in(tenant), string(thing))
}

// ThingGroupMembers implements imprint.ThingGroupReader.
func (t *Tx) ThingGroupMembers(tenant imprint.Tenant, group imprint.ThingGroupName, recursive bool, p imprint.Page) ([]imprint.ThingGroupMembership, string, error) {
	if !recursive {
		return groupMembers.page(t, p, nil, t.in(tenant), string(group))
	}
	limit, err := pageLimit(p)
	if err != nil {
		return nil, "", err
	}
	top, found, err := t.thingGroup(tenant, group)
	if err != nil || !found {
		return nil, "", err
	}
	place, thing := placeOf(&top), ""
	below, end := place+"/", place+afterSlash
	if p.Cursor != "" {
		from, err := readCursor(placedMemberKind, p.Cursor)
		if err != nil {
			return nil, "", err
		}
		at := from[0].(string)
		if at != place && !strings.HasPrefix(at, below) {
			return nil, "", errCursor()
		}
		place, thing = at, from[1].(string)
	}
	members, err := t.membersFrom(tenant, place, thing, [2]string{max(place, below), end}, limit+1)
	if err != nil {
		return nil, "", err
	}
	next := ""
	if len(members) > limit {
		members = members[:limit]
		last := &members[limit-1]
		next = writeCursor(placedMemberKind, []any{last.place, string(last.Thing)})
	}
	list := make([]imprint.ThingGroupMembership, 0, len(members))
	for i := range members {
		list = append(list, members[i].ThingGroupMembership)
	}
	return list, next, nil
}

// membersFrom reads what is left of the group at a place, then the groups at
// the places between two others.
func (t *Tx) membersFrom(tenant imprint.Tenant, place, thing string, between [2]string, limit int) ([]placedMember, error) {
	own, err := all(t, scanMembership, nextMembers, t.in(tenant), lastOf(place), thing, int64(limit))
	if err != nil {
		return nil, err
	}
	members := make([]placedMember, 0, len(own))
	for _, m := range own {
		members = append(members, placedMember{m, place})
	}
	if len(members) >= limit {
		return members, nil
	}
	err = each(t, true, scanPlacedMember, func(m placedMember) bool {
		members = append(members, m)
		return true
	}, membersBelow, t.in(tenant), between[0], between[1], int64(limit-len(members)))
	return members, err
}

// PutThingGroup implements imprint.ThingGroupWriter.
func (t *Tx) PutThingGroup(g imprint.ThingGroup) error {
	attributes, err := writeAttributes(g.Attributes)
	if err != nil {
		return fmt.Errorf("couldn't encode the attributes of thing group %s: %w", g.Name, err)
	}
	_, err = t.exec(putThingGroup, t.in(g.Tenant), string(g.Name), g.ID, string(g.Parent()), placeOf(&g), g.Description,
		attributes, g.Version, millis(g.CreatedAt), millis(g.ModifiedAt))
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeThingGroup, g.Tenant, string(g.Name))
	return nil
}

// DeleteThingGroup implements imprint.ThingGroupWriter. It counts as a change of
// the group alone, however many things are in it.
func (t *Tx) DeleteThingGroup(tenant imprint.Tenant, name imprint.ThingGroupName) error {
	err := t.remove(imprint.ChangeThingGroup, tenant, string(name),
		"DELETE FROM thing_group_members WHERE tenant = $1 AND group_name = $2", t.in(tenant), string(name))
	if err != nil {
		return err
	}
	return t.remove(imprint.ChangeThingGroup, tenant, string(name),
		"DELETE FROM thing_groups WHERE tenant = $1 AND name = $2", t.in(tenant), string(name))
}

// PutThingGroupMembership implements imprint.ThingGroupWriter. It counts as a
// change of the thing: a group can have millions of them.
func (t *Tx) PutThingGroupMembership(m imprint.ThingGroupMembership) error {
	_, err := t.exec(putThingGroupMembership, t.in(m.Tenant), string(m.Thing), string(m.Group))
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeThing, m.Tenant, string(m.Thing))
	return nil
}

// DeleteThingGroupMembership implements imprint.ThingGroupWriter, with the
// change of PutThingGroupMembership.
func (t *Tx) DeleteThingGroupMembership(m imprint.ThingGroupMembership) error {
	return t.remove(imprint.ChangeThing, m.Tenant, string(m.Thing),
		"DELETE FROM thing_group_members WHERE tenant = $1 AND thing = $2 AND group_name = $3",
		t.in(m.Tenant), string(m.Thing), string(m.Group))
}
