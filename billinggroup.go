package imprint

import "time"

// BillingGroup is a name under which costs of things are counted. A thing is in at
// most one, and carries its name. Nothing else depends on it.
type BillingGroup struct {
	Tenant                Tenant
	Name                  BillingGroupName
	ID                    string // UUID
	Description           string
	Version               int64 // 1 at creation, +1 for each update
	CreatedAt, ModifiedAt time.Time
}

// ARN names the group.
func (g BillingGroup) ARN() string { return g.Tenant.BillingGroupARN(g.Name) }

// Same tells whether a second CreateBillingGroup with the other's values is the
// idempotent repetition that AWS IoT Core answers with success.
func (g BillingGroup) Same(other BillingGroup) bool { return g.Description == other.Description }

// BillingGroupReader reads billing groups and what is in them.
type BillingGroupReader interface {
	BillingGroup(Tenant, BillingGroupName) (BillingGroup, error)
	// BillingGroups lists those whose names begin with the prefix, by name.
	BillingGroups(t Tenant, prefix string, p Page) ([]BillingGroup, string, error)
	BillingGroupThings(Tenant, BillingGroupName, Page) ([]Thing, string, error) // by name
}

// BillingGroupWriter writes billing groups. Watchers hear nothing of them.
type BillingGroupWriter interface {
	PutBillingGroup(BillingGroup) error
	// DeleteBillingGroup doesn't touch the things in the group: flows take them out
	// first.
	DeleteBillingGroup(Tenant, BillingGroupName) error
}
