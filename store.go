package imprint

import (
	"context"
	"time"
)

// Store keeps the registry. Its writers share transactions (group commit), so
// that many small updates cost one fsync.
//
// Contract, checked by package storetest on every engine:
//
//   - Update returns nil only when the changes of fn are durable: kill -9 or
//     power loss after that loses nothing of them. It returns fn's error, with
//     nothing of fn kept, or an error of the store, after which the change is
//     not kept as far as the caller can tell: a caller that must know reads.
//   - fn runs with no other writer between its reads and its writes. It may run
//     more than once; it must not block, keep the Tx, or act on anything but the
//     Tx and variables that it sets anew each time.
//   - A panic in fn is returned as an error of CodeInternal.
//   - Watchers are told of a commit before the Updates in it return.
//   - Not found is an *Error of CodeNotFound; other failures are CodeInternal or
//     CodeUnavailable.
type Store interface {
	Update(ctx context.Context, fn func(Tx) error) error
	View(ctx context.Context, fn func(ReadTx) error) error
	// Glance is View for a closure that reads once: each read in it sees the
	// latest state by itself, and begins and ends no transaction.
	Glance(ctx context.Context, fn func(ReadTx) error) error
	// Watch calls fn after every commit with what it changed, from the
	// committer's goroutine: fn must not block and must not call the store.
	// The returned function ends it.
	Watch(fn func([]Change)) (stop func())
	// Ready says whether the store can answer now.
	Ready(ctx context.Context) error
	Close() error
}

// ChangeKind says what a Change is about.
type ChangeKind string

// What caches of the connection path need to hear of.
const (
	ChangeCertificate ChangeKind = "certificate" // also its attachments to things and of policies
	ChangeCA          ChangeKind = "ca"
	ChangeThing       ChangeKind = "thing"      // also its memberships of groups
	ChangeThingGroup  ChangeKind = "thinggroup" // also its attachments of policies
	ChangePolicy      ChangeKind = "policy"
	ChangeTemplate    ChangeKind = "template"
	ChangeClaimGuard  ChangeKind = "claimguard" // Key is the claim's certificate id
	ChangeProvider    ChangeKind = "provider"   // of certificates
	ChangeSettings    ChangeKind = "settings"
	ChangeAccessKey   ChangeKind = "accesskey"
	ChangeRollover    ChangeKind = "rollover"  // Key is the certificate id of the CA that ends
	ChangeFunction    ChangeKind = "function"  // also its versions, aliases and permissions
	ChangeTopicRule   ChangeKind = "topicrule" // also the destinations of rules; Key is a name or an id
	ChangeEvent       ChangeKind = "event"     // an event waits for publication; Key is its ID
)

// Change names one thing that a commit changed. Key is the resource's name in
// its tenant: a certificate id, thing name, policy name and so on.
type Change struct {
	Kind   ChangeKind
	Tenant Tenant
	Key    string
}

// Page asks for one page of a list. Cursor is empty for the first page, else
// what the list call before returned. Limit is at least 1.
type Page struct {
	Cursor    string
	Limit     int
	Ascending bool
}

// ReadTx reads a consistent state of the registry. Lists return the items and
// the cursor of the next page, empty on the last one; an invalid cursor is
// CodeInvalidRequest.
type ReadTx interface {
	CertificateReader
	CAReader
	ThingReader
	ThingGroupReader
	ThingTypeReader
	BillingGroupReader
	EventConfigurationReader
	PolicyReader
	TemplateReader
	SettingsReader
	TraceReader
	IssuanceReader
	IssuanceLogReader
	ProfileRulesReader
	AuthorityReader
	RolloverReader
	ForeignListReader
	SessionReader
	FunctionReader
	TopicRuleReader
	UserReader
	RegistrationTaskReader
	ClaimReader
	AuditReader
	MitigationReader
	EnrolmentReader
	RenewalReader
}

// Tx reads and writes. Put inserts or replaces the whole row; Delete of
// something absent is no error.
type Tx interface {
	ReadTx
	CertificateWriter
	CAWriter
	ThingWriter
	ThingGroupWriter
	ThingTypeWriter
	BillingGroupWriter
	EventConfigurationWriter
	PolicyWriter
	TemplateWriter
	SettingsWriter
	TraceWriter
	IssuanceWriter
	IssuanceLogWriter
	ProfileRulesWriter
	AuthorityWriter
	RolloverWriter
	ForeignListWriter
	SessionWriter
	FunctionWriter
	TopicRuleWriter
	UserWriter
	RegistrationTaskWriter
	ClaimWriter
	AuditWriter
	MitigationWriter
	EnrolmentWriter
	RenewalWriter
	// Try runs fn, whose writes through this Tx are undone, and nothing else, when
	// it returns an error. It can't be used inside itself.
	Try(fn func() error) error
}

// CertificateReader reads device certificates.
type CertificateReader interface {
	Certificate(Tenant, CertificateID) (Certificate, error)
	// Principal reads a certificate with what is attached to it, of one state even
	// in a Glance: at most limit things and policies, and 10,000 memberships.
	Principal(t Tenant, id CertificateID, limit int) (Principal, error)
	// CertificateTenants lists the registrations of one certificate in all
	// tenants, oldest first: at most 100.
	CertificateTenants(CertificateID) ([]Certificate, error)
	// Certificates lists by creation time, newest first unless the page asks
	// otherwise; ca limits it to one signer when not empty.
	Certificates(t Tenant, ca CertificateID, p Page) ([]Certificate, string, error)
	// CertificatesBySerial lists those with a serial, at most 100.
	CertificatesBySerial(t Tenant, serial string) ([]Certificate, error)
}

// Principal is a certificate with what is attached to it.
type Principal struct {
	Certificate Certificate      // without PEM, Serial, Subject and GenerationID
	Things      []PrincipalThing // by name
	Policies    []PolicyName     // by name
}

// PrincipalThing is a thing that a certificate is attached to, and the groups
// that the thing is in, by name. Of one that doesn't exist only the attachment is
// there.
type PrincipalThing struct {
	Attachment ThingAttachment
	Thing      *Thing
	Groups     []ThingGroupName
}

// CertificateWriter writes device certificates. Deleting one does not touch
// its attachments: flows check those first.
type CertificateWriter interface {
	PutCertificate(Certificate) error
	DeleteCertificate(Tenant, CertificateID) error
}

// CAReader reads registered CA certificates.
type CAReader interface {
	CA(Tenant, CertificateID) (CACertificate, error)
	// CAsBySubject lists the tenant's CAs with CACertificate.SubjectKey, oldest
	// first.
	CAsBySubject(t Tenant, subjectKey string) ([]CACertificate, error)
	// CATenants lists the registrations of one CA in all tenants of a region.
	CATenants(region Region, id CertificateID) ([]CACertificate, error)
	// CAs lists by creation time; template limits it to CAs whose registration
	// names that template when not empty.
	CAs(t Tenant, template TemplateName, p Page) ([]CACertificate, string, error)
}

// CAWriter writes registered CA certificates.
type CAWriter interface {
	PutCA(CACertificate) error
	DeleteCA(Tenant, CertificateID) error
}

// ThingFilter limits a list of things; empty members select all.
type ThingFilter struct {
	TypeName                      ThingTypeName
	AttributeName, AttributeValue string
	PrefixValue                   bool // AttributeValue is a prefix
}

// ThingReader reads things and what is attached to them.
type ThingReader interface {
	Thing(Tenant, ThingName) (Thing, error)
	Things(Tenant, ThingFilter, Page) ([]Thing, string, error) // by name
	ThingPrincipals(Tenant, ThingName, Page) ([]ThingAttachment, string, error)
	CertificateThings(Tenant, CertificateID, Page) ([]ThingAttachment, string, error)
}

// ThingWriter writes things and attachments.
type ThingWriter interface {
	PutThing(Thing) error
	DeleteThing(Tenant, ThingName) error // with its memberships of groups
	PutThingAttachment(ThingAttachment) error
	DeleteThingAttachment(Tenant, ThingName, CertificateID) error
}

// ThingGroupFilter limits a list of thing groups.
type ThingGroupFilter struct {
	// Parent selects the groups right below it; empty, the roots.
	Parent ThingGroupName
	// Recursive selects groups at any depth: all below the parent, or all.
	Recursive bool
	Prefix    string // of the name
}

// ThingGroupReader reads thing groups and what is in them.
type ThingGroupReader interface {
	ThingGroup(Tenant, ThingGroupName) (ThingGroup, error)
	// ThingGroups lists by name; below a parent recursively by place, ancestors
	// before what is below them. An unknown parent has nothing below it.
	ThingGroups(Tenant, ThingGroupFilter, Page) ([]ThingGroup, string, error)
	ThingMemberships(Tenant, ThingName, Page) ([]ThingGroupMembership, string, error) // by group
	// ThingGroupMembers lists by thing; recursively the members of all groups
	// below it, too, then in ascending order by the groups' place and by thing.
	ThingGroupMembers(t Tenant, group ThingGroupName, recursive bool, p Page) ([]ThingGroupMembership, string, error)
}

// ThingGroupWriter writes thing groups and memberships.
type ThingGroupWriter interface {
	PutThingGroup(ThingGroup) error
	// DeleteThingGroup deletes the group and the memberships of it. It does not
	// touch groups below it and attachments of policies: flows check those first.
	DeleteThingGroup(Tenant, ThingGroupName) error
	PutThingGroupMembership(ThingGroupMembership) error
	DeleteThingGroupMembership(ThingGroupMembership) error
}

// PolicyReader reads policies, versions and attachments.
type PolicyReader interface {
	Policy(Tenant, PolicyName) (Policy, error)
	Policies(Tenant, Page) ([]Policy, string, error) // by name
	PolicyVersion(Tenant, PolicyName, int) (PolicyVersion, error)
	PolicyVersions(Tenant, PolicyName) ([]PolicyVersion, error)                 // newest first
	TargetPolicies(Tenant, string, Page) ([]PolicyAttachment, string, error)    // by policy name
	PolicyTargets(Tenant, PolicyName, Page) ([]PolicyAttachment, string, error) // by target
}

// PolicyWriter writes policies, versions and attachments.
type PolicyWriter interface {
	PutPolicy(Policy) error
	DeletePolicy(Tenant, PolicyName) error // with its versions
	PutPolicyVersion(PolicyVersion) error
	DeletePolicyVersion(Tenant, PolicyName, int) error
	PutPolicyAttachment(PolicyAttachment) error
	DeletePolicyAttachment(PolicyAttachment) error
}

// TemplateReader reads provisioning templates and tags.
type TemplateReader interface {
	Template(Tenant, TemplateName) (ProvisioningTemplate, error)
	Templates(Tenant, Page) ([]ProvisioningTemplate, string, error) // by name
	TemplateVersion(Tenant, TemplateName, int) (TemplateVersion, error)
	TemplateVersions(Tenant, TemplateName, Page) ([]TemplateVersion, string, error) // by version
	Tags(t Tenant, arn string) ([]Tag, error)                                       // by key
}

// TemplateWriter writes provisioning templates and tags.
type TemplateWriter interface {
	PutTemplate(ProvisioningTemplate) error
	DeleteTemplate(Tenant, TemplateName) error // with its versions
	PutTemplateVersion(TemplateVersion) error
	DeleteTemplateVersion(Tenant, TemplateName, int) error
	PutTag(t Tenant, arn string, tag Tag) error
	DeleteTag(t Tenant, arn, key string) error
	DeleteTags(t Tenant, arn string) error
}

// SettingsReader reads what the server and its tenants have one of.
type SettingsReader interface {
	TenantSettings(Tenant) (TenantSettings, error)
	TenantByPrefix(endpointPrefix string) (TenantSettings, error)
	// TenantList gives the tenants behind another, by account and region, at most
	// limit and 10,000 of them; behind the zero tenant are all. AllTenants gives all.
	TenantList(after Tenant, limit int) ([]TenantSettings, error)
	AccessKey(id string) (AccessKey, error)
	AccessKeys(AccountID) ([]AccessKey, error)
}

// AllTenants reads the settings of every tenant, by account and region.
func AllTenants(tx SettingsReader) ([]TenantSettings, error) {
	const page = 10_000
	var all []TenantSettings
	for after := (Tenant{}); ; after = all[len(all)-1].Tenant {
		rows, err := tx.TenantList(after, page)
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
		if len(rows) < page {
			return all, nil
		}
	}
}

// SettingsWriter writes them. Access keys are sealed by the keeper.
type SettingsWriter interface {
	PutTenantSettings(TenantSettings) error
	PutAccessKey(AccessKey) error
	DeleteAccessKey(id string) error
}

// TraceReader reads attempts and unpublished events.
type TraceReader interface {
	Attempt(id string) (Attempt, error)
	Attempts(AttemptFilter, Page) ([]Attempt, string, error) // newest first
	// LiveAttempts lists the ids of attempts of devices that are on, in their order, from
	// the first after an id.
	LiveAttempts(after string, limit int) ([]string, error)
	// AttemptsMaking lists the attempts of others that made a certificate, newest first:
	// those of the claim that asked for it.
	AttemptsMaking(tenant Tenant, id CertificateID, limit int) ([]Attempt, error)
	// AttemptWords lists the ids of attempts and of certificates, registered or shown in
	// an attempt, that begin with hex digits in lower case; unassigned: also of attempts
	// that died before a tenant was known.
	AttemptWords(tenant Tenant, unassigned bool, prefix string, limit int) ([]string, error)
	// Events lists a tenant's events that wait for publication, oldest first, EventUnits
	// is how much of the bound they take, OwedUnits of topic and payload of each, and
	// EventTenants whose.
	Events(tenant Tenant, limit int) ([]Event, error)
	EventUnits(tenant Tenant) (int, error)
	EventTenants() ([]Tenant, error)
}

// TraceWriter writes attempts and events.
type TraceWriter interface {
	PutAttempt(Attempt) error
	DeleteAttempt(id string) error
	PutAttemptAlias(AttemptAlias) error
	// TrimAttempts deletes attempts that neither began nor changed since a time
	// (Attempt.ChangedAt), then the oldest beyond a number to keep, at most limit rows in
	// one call, and returns how many.
	TrimAttempts(before time.Time, keep, limit int) (int, error)
	// TrimAttemptAliases deletes aliases that lead to folds older than the oldest
	// attempt, then the oldest beyond a number to keep, at most limit in one call, and
	// returns how many.
	TrimAttemptAliases(keep, limit int) (int, error)
	PutEvent(Event) error
	DeleteEvents(tenant Tenant, ids []string) error
}

// SessionReader reads MQTT sessions that outlive their connections, their queues,
// and retained messages. A limit under 1 gives no rows; one over 10,000 is
// 10,000.
type SessionReader interface {
	// Sessions lists all tenants' sessions by key, from the first after a key, at
	// most limit.
	Sessions(after int64, limit int) ([]Session, error)
	// SessionSubscriptions lists all subscriptions by session and filter, from the
	// first after that pair, at most limit.
	SessionSubscriptions(session int64, filter string, limit int) ([]SessionSubscription, error)
	// ShareGroups lists all tenants' groups by key, from the first after a key, at
	// most limit.
	ShareGroups(after int64, limit int) ([]ShareGroup, error)
	// QueueSizes lists what waits in each queue, by session, from the first after
	// a session, at most limit.
	QueueSizes(after int64, limit int) ([]QueueSize, error)
	// Queued reads a queue in its order, from the first after a Seq: at most limit
	// messages, and no more once their packets have maxBytes together. The first
	// comes whatever its size.
	Queued(session, after int64, limit int, maxBytes int64) ([]QueuedMessage, error)
	// QueuedShared is Queued for those that have a Group.
	QueuedShared(session, after int64, limit int, maxBytes int64) ([]QueuedMessage, error)
	Retained(Tenant, string) (RetainedMessage, error)
	// RetainedMessages lists a tenant's retained messages by topic, without their
	// packets.
	RetainedMessages(Tenant, Page) ([]RetainedMessage, string, error)
}

// SessionWriter writes them. Watchers hear nothing of these changes: the broker
// that makes them knows them.
type SessionWriter interface {
	PutSession(Session) error
	// DeleteSession deletes the session with this key, its subscriptions and its
	// queue.
	DeleteSession(key int64) error
	PutSessionSubscription(SessionSubscription) error
	DeleteSessionSubscription(session int64, filter string) error
	PutShareGroup(ShareGroup) error
	DeleteShareGroup(key int64) error // with its queue
	PutQueued(QueuedMessage) error
	DeleteQueued(session, seq int64) error
	// DeleteQueuedAll deletes messages of one queue, for less than one DeleteQueued
	// each.
	DeleteQueuedAll(session int64, seqs []int64) error
	PutRetained(RetainedMessage) error
	DeleteRetained(Tenant, string) error
}

// Clock tells the time. Code takes one instead of calling time.Now, so that
// tests decide what time it is.
type Clock func() time.Time
