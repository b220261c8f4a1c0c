package imprint

import (
	"slices"
	"time"
)

// EventType is one switch of a tenant's event configurations.
type EventType string

// The switches (AWS IoT API reference, UpdateEventConfigurations). Those of jobs,
// policies and certificates are kept and switch nothing: registered-certificate
// events come whatever they say.
const (
	EventsOfThings             EventType = "THING"
	EventsOfThingGroups        EventType = "THING_GROUP"
	EventsOfThingTypes         EventType = "THING_TYPE"
	EventsOfMemberships        EventType = "THING_GROUP_MEMBERSHIP"
	EventsOfHierarchies        EventType = "THING_GROUP_HIERARCHY"
	EventsOfTypeAssociations   EventType = "THING_TYPE_ASSOCIATION"
	EventsOfJobs               EventType = "JOB"
	EventsOfJobExecutions      EventType = "JOB_EXECUTION"
	EventsOfPolicies           EventType = "POLICY"
	EventsOfCertificates       EventType = "CERTIFICATE"
	EventsOfRegisteringDevices EventType = "CA_CERTIFICATE"
)

// EventTypes lists all switches.
func EventTypes() []EventType {
	return []EventType{
		EventsOfThings, EventsOfThingGroups, EventsOfThingTypes, EventsOfMemberships, EventsOfHierarchies, EventsOfTypeAssociations,
		EventsOfJobs, EventsOfJobExecutions, EventsOfPolicies, EventsOfCertificates, EventsOfRegisteringDevices,
	}
}

// EventConfigurations say which registry events a tenant wants. A tenant without
// such a row wants none.
type EventConfigurations struct {
	Tenant                Tenant
	Enabled               []EventType // sorted, each once
	CreatedAt, ModifiedAt time.Time
}

// Has says whether events of a type are wanted.
func (c EventConfigurations) Has(t EventType) bool { return slices.Contains(c.Enabled, t) }

// With gives the configurations with one switch set. Errors: CodeInvalidRequest
// for a type that there isn't.
func (c EventConfigurations) With(t EventType, on bool) (EventConfigurations, error) {
	if !slices.Contains(EventTypes(), t) {
		return c, Errorf(CodeInvalidRequest, "event type %q doesn't exist", Excerpt(string(t)))
	}
	c.Enabled = slices.DeleteFunc(slices.Clone(c.Enabled), func(one EventType) bool { return one == t })
	if on {
		c.Enabled = append(c.Enabled, t)
		slices.Sort(c.Enabled)
	}
	return c, nil
}

// EventConfigurationReader reads them.
type EventConfigurationReader interface {
	// EventConfigurations is CodeNotFound for a tenant that has none.
	EventConfigurations(Tenant) (EventConfigurations, error)
}

// EventConfigurationWriter writes them. Watchers hear nothing of it: whoever changes
// the registry reads them in the transaction of the change.
type EventConfigurationWriter interface {
	PutEventConfigurations(EventConfigurations) error
}
