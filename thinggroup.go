package imprint

import (
	"maps"
	"slices"
	"time"
)

// Limits of thing groups, from the AWS IoT Core quotas page.
const (
	MaxGroupDepth       = 7 // a group and its ancestors
	MaxGroupChildren    = 100
	MaxGroupAttributes  = 50
	MaxGroupsPerThing   = 10
	MaxPoliciesPerGroup = 2
)

// ThingGroup is a static thing group. Its policies, and those of its
// ancestors, hold for the connections of the things in it.
type ThingGroup struct {
	Tenant Tenant
	Name   ThingGroupName
	ID     string // UUID
	// Ancestors are the groups above it, the root first and the parent last; none
	// for a root. A group's place is fixed for life, and an ancestor can't be
	// deleted before it.
	Ancestors             []ThingGroupName
	Description           string
	Attributes            map[string]string
	Version               int64 // 1 at creation, +1 for each update
	CreatedAt, ModifiedAt time.Time
}

// ThingGroupMembership puts a thing into a group.
type ThingGroupMembership struct {
	Tenant Tenant
	Group  ThingGroupName
	Thing  ThingName
}

// ARN names the group.
func (g ThingGroup) ARN() string { return g.Tenant.ThingGroupARN(g.Name) }

// Parent is the group right above; empty for a root.
func (g ThingGroup) Parent() ThingGroupName {
	if len(g.Ancestors) == 0 {
		return ""
	}
	return g.Ancestors[len(g.Ancestors)-1]
}

// Root is the uppermost group of the hierarchy: the group itself when nothing
// is above it.
func (g ThingGroup) Root() ThingGroupName {
	if len(g.Ancestors) == 0 {
		return g.Name
	}
	return g.Ancestors[0]
}

// Below gives what Ancestors are in a group right below this one. Errors:
// CodeInvalidRequest when that would be too deep.
func (g ThingGroup) Below() ([]ThingGroupName, error) {
	if len(g.Ancestors)+2 > MaxGroupDepth {
		return nil, Errorf(CodeInvalidRequest, "thing group %s is at depth %d, the deepest that a hierarchy has", g.Name, MaxGroupDepth)
	}
	return append(slices.Clone(g.Ancestors), g.Name), nil
}

// Same tells whether a second CreateThingGroup with the other's values is the
// idempotent repetition that AWS IoT Core answers with success.
func (g ThingGroup) Same(other ThingGroup) bool {
	return g.Description == other.Description && slices.Equal(g.Ancestors, other.Ancestors) &&
		maps.Equal(g.Attributes, other.Attributes)
}

// CheckAttributes says whether the group's attributes are legal in name, value
// and number. Errors: CodeInvalidRequest.
func (g ThingGroup) CheckAttributes() error {
	if len(g.Attributes) > MaxGroupAttributes {
		return Errorf(CodeInvalidRequest, "thing group %s has %d attributes, at most %d are allowed", g.Name, len(g.Attributes), MaxGroupAttributes)
	}
	return checkAttributes(g.Attributes)
}

// MergeAttributes gives the attributes after an update, as Thing.MergeAttributes
// does.
func (g ThingGroup) MergeAttributes(update map[string]string, merge bool) map[string]string {
	return mergeAttributes(g.Attributes, update, merge)
}

// CheckJoin says whether a thing that is in some groups may join the group: a
// thing is in at most MaxGroupsPerThing, and in one of each hierarchy (developer
// guide, "Static thing groups"). The group itself isn't among the present ones.
// Errors: CodeInvalidRequest.
func (g ThingGroup) CheckJoin(thing ThingName, present []ThingGroup) error {
	for i := range present {
		if present[i].Root() == g.Root() {
			return Errorf(CodeInvalidRequest, "thing %s is in thing group %s, which is in the same hierarchy as %s", thing, present[i].Name, g.Name).
				WithHint("A thing can be in one group of a hierarchy: take it out of %s first.", present[i].Name)
		}
	}
	if len(present) >= MaxGroupsPerThing {
		return Errorf(CodeInvalidRequest, "thing %s is in %d thing groups, as many as allowed", thing, len(present))
	}
	return nil
}
