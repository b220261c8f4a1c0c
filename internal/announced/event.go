package announced

import (
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/trace"
)

// operation is what happened to a resource or to a relation.
type operation struct {
	name  string // in the payload
	topic string // the last level of the topic
}

var (
	created = operation{"CREATED", "created"}
	updated = operation{"UPDATED", "updated"}
	deleted = operation{"DELETED", "deleted"}
	added   = operation{"ADDED", "added"}
	removed = operation{"REMOVED", "removed"}
)

// head is what all payloads begin with.
type head struct {
	EventType string `json:"eventType"`
	EventID   string `json:"eventId"`
	Timestamp int64  `json:"timestamp"` // milliseconds
	Operation string `json:"operation"`
}

func (r *Registry) head(eventType string, what operation) head {
	return head{EventType: eventType, EventID: uuid.NewString(), Timestamp: r.now.UnixMilli(), Operation: what.name}
}

// put stores an event. The topic is what follows $aws/events/, without the
// operation.
func (r *Registry) put(topic string, what operation, payload any) error {
	text, err := json.Marshal(payload)
	if err != nil {
		return fmt.Errorf("couldn't encode the event on %s: %w", topic, err)
	}
	err = r.tx.PutEvent(imprint.Event{
		ID: trace.NewID(r.now), Tenant: r.tenant, At: r.now, Topic: "$aws/events/" + topic + "/" + what.topic, Payload: text,
	})
	if err != nil {
		return fmt.Errorf("couldn't store the event on %s: %w", topic, err)
	}
	return nil
}

// orNull gives null for an empty name.
func orNull[S ~string](s S) *string {
	if s == "" {
		return nil
	}
	return new(string(s))
}

// orEmpty gives {} for no attributes.
func orEmpty(attributes map[string]string) map[string]string {
	if attributes == nil {
		return map[string]string{}
	}
	return attributes
}

type thingEvent struct {
	head
	Account    imprint.AccountID `json:"accountId"`
	ID         string            `json:"thingId"`
	Name       imprint.ThingName `json:"thingName"`
	Version    int64             `json:"versionNumber"`
	Type       *string           `json:"thingTypeName"`
	Attributes map[string]string `json:"attributes"`
}

func (r *Registry) thing(what operation, t imprint.Thing) error {
	on, err := r.wants(imprint.EventsOfThings)
	if err != nil || !on {
		return err
	}
	return r.put("thing/"+string(t.Name), what, thingEvent{
		r.head("THING_EVENT", what), r.tenant.Account, t.ID, t.Name, t.Version, orNull(t.TypeName), orEmpty(t.Attributes),
	})
}

type associationEvent struct {
	head
	ID   string                `json:"thingId"`
	Name imprint.ThingName     `json:"thingName"`
	Type imprint.ThingTypeName `json:"thingTypeName"`
}

// association tells that a thing has its type, or lost it; nothing when it has
// none.
func (r *Registry) association(what operation, t imprint.Thing) error {
	if t.TypeName == "" {
		return nil
	}
	on, err := r.wants(imprint.EventsOfTypeAssociations)
	if err != nil || !on {
		return err
	}
	return r.put("thingTypeAssociation/thing/"+string(t.Name)+"/thingType/"+string(t.TypeName), what, associationEvent{
		r.head("THING_TYPE_ASSOCIATION_EVENT", what), t.ID, t.Name, t.TypeName,
	})
}

type thingTypeEvent struct {
	head
	Account     imprint.AccountID     `json:"accountId"`
	ID          string                `json:"thingTypeId"`
	Name        imprint.ThingTypeName `json:"thingTypeName"`
	Deprecated  bool                  `json:"isDeprecated"`
	Date        *int64                `json:"deprecationDate"` // milliseconds
	Searchable  []string              `json:"searchableAttributes"`
	Description string                `json:"description"`
}

func (r *Registry) thingType(what operation, t imprint.ThingType) error {
	on, err := r.wants(imprint.EventsOfThingTypes)
	if err != nil || !on {
		return err
	}
	payload := thingTypeEvent{
		head: r.head("THING_TYPE_EVENT", what), Account: r.tenant.Account, ID: t.ID, Name: t.Name,
		Deprecated: t.Deprecated(), Searchable: t.SearchableAttributes, Description: t.Description,
	}
	if t.Deprecated() {
		payload.Date = new(t.DeprecatedAt.UnixMilli())
	}
	if payload.Searchable == nil {
		payload.Searchable = []string{}
	}
	return r.put("thingType/"+string(t.Name), what, payload)
}

type groupEvent struct {
	head
	Account     imprint.AccountID      `json:"accountId"`
	ID          string                 `json:"thingGroupId"`
	Name        imprint.ThingGroupName `json:"thingGroupName"`
	Version     int64                  `json:"versionNumber"`
	ParentName  *string                `json:"parentGroupName"`
	ParentID    *string                `json:"parentGroupId"`
	Description string                 `json:"description"`
	Ancestors   []ancestor             `json:"rootToParentThingGroups"`
	Attributes  map[string]string      `json:"attributes"`
	Dynamic     *string                `json:"dynamicGroupMappingId"` // null: no group is dynamic
}

type ancestor struct {
	ARN string `json:"groupArn"`
	ID  string `json:"groupId"`
}

func (r *Registry) group(what operation, g imprint.ThingGroup) error {
	on, err := r.wants(imprint.EventsOfThingGroups)
	if err != nil || !on {
		return err
	}
	payload := groupEvent{
		head: r.head("THING_GROUP_EVENT", what), Account: r.tenant.Account, ID: g.ID, Name: g.Name, Version: g.Version,
		ParentName: orNull(g.Parent()), Description: g.Description, Ancestors: []ancestor{}, Attributes: orEmpty(g.Attributes),
	}
	for _, name := range g.Ancestors {
		above, err := r.readGroup(name)
		if err != nil {
			return err
		}
		payload.Ancestors = append(payload.Ancestors, ancestor{above.ARN(), above.ID})
		payload.ParentID = new(above.ID)
	}
	return r.put("thingGroup/"+string(g.Name), what, payload)
}

func (r *Registry) readGroup(name imprint.ThingGroupName) (imprint.ThingGroup, error) {
	group, err := r.tx.ThingGroup(r.tenant, name)
	if err != nil {
		return group, fmt.Errorf("couldn't read thing group %s: %w", name, err)
	}
	return group, nil
}

type hierarchyEvent struct {
	head
	Account   imprint.AccountID      `json:"accountId"`
	ID        string                 `json:"thingGroupId"`
	Name      imprint.ThingGroupName `json:"thingGroupName"`
	ChildID   string                 `json:"childGroupId"`
	ChildName imprint.ThingGroupName `json:"childGroupName"`
}

// hierarchy tells that a group came below its parent, or went; nothing for a
// root.
func (r *Registry) hierarchy(what operation, child imprint.ThingGroup) error {
	if child.Parent() == "" {
		return nil
	}
	on, err := r.wants(imprint.EventsOfHierarchies)
	if err != nil || !on {
		return err
	}
	parent, err := r.readGroup(child.Parent())
	if err != nil {
		return err
	}
	return r.put("thingGroupHierarchy/thingGroup/"+string(parent.Name)+"/childThingGroup/"+string(child.Name), what, hierarchyEvent{
		r.head("THING_GROUP_HIERARCHY_EVENT", what), r.tenant.Account, parent.ID, parent.Name, child.ID, child.Name,
	})
}

type membershipEvent struct {
	head
	Account      imprint.AccountID `json:"accountId"`
	GroupARN     string            `json:"groupArn"`
	GroupID      string            `json:"groupId"`
	ThingARN     string            `json:"thingArn"`
	ThingID      string            `json:"thingId"`
	MembershipID string            `json:"membershipId"`
}

// membershipSpace is the name space (RFC 9562 section 6.6) of membership ids. They
// follow from group and thing, so that the end of a membership has the id of its
// beginning.
var membershipSpace = uuid.MustParse("5f0bb1a6-3b3b-4a52-9d2b-6f7a3a8d1c40")

func (r *Registry) membership(what operation, m imprint.ThingGroupMembership) error {
	on, err := r.wants(imprint.EventsOfMemberships)
	if err != nil || !on {
		return err
	}
	group, err := r.readGroup(m.Group)
	if err != nil {
		return err
	}
	thing, err := r.tx.Thing(r.tenant, m.Thing)
	if err != nil {
		return fmt.Errorf("couldn't read thing %s: %w", m.Thing, err)
	}
	return r.put("thingGroupMembership/thingGroup/"+string(m.Group)+"/thing/"+string(m.Thing), what, membershipEvent{
		r.head("THING_GROUP_MEMBERSHIP_EVENT", what), r.tenant.Account, group.ARN(), group.ID, thing.ARN(), thing.ID,
		uuid.NewSHA1(membershipSpace, []byte(group.ID+"/"+thing.ID)).String(),
	})
}
