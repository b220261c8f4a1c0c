package imprint

import "time"

// MitigationKind is what a mitigation action does (AWS IoT API reference,
// MitigationAction).
type MitigationKind string

// The kinds of actions that are done here.
const (
	MitigateDeviceCertificate MitigationKind = "UPDATE_DEVICE_CERTIFICATE"
	MitigateCACertificate     MitigationKind = "UPDATE_CA_CERTIFICATE"
	MitigateThingGroup        MitigationKind = "ADD_THINGS_TO_THING_GROUP"
	MitigatePolicy            MitigationKind = "REPLACE_DEFAULT_POLICY_VERSION"
)

// MitigationAction is what can be done about findings. What is to be done to a
// certificate or a policy has one way each: it is deactivated, it becomes blank.
type MitigationAction struct {
	Tenant  Tenant
	Name    string
	ID      string // a new one for another action of the same name
	Kind    MitigationKind
	RoleARN string
	// Groups are those that things join, and OverrideDynamic is kept for who asks.
	Groups                []ThingGroupName
	OverrideDynamic       *bool
	CreatedAt, ModifiedAt time.Time
}

// ARN names the action.
func (a MitigationAction) ARN() string { return a.Tenant.ARN("mitigationaction/" + a.Name) }

// MitigationTally counts the findings of one check in a task. What is neither of the
// last three is still to be done, or, in a task that was canceled, never will be.
type MitigationTally struct {
	Total     int64 `json:"total"`
	Failed    int64 `json:"failed,omitempty"`
	Succeeded int64 `json:"succeeded,omitempty"`
	Skipped   int64 `json:"skipped,omitempty"`
}

// MitigationTask applies actions to findings: to those of an audit, or to some by
// their ids.
type MitigationTask struct {
	Tenant    Tenant
	ID        string
	Status    AuditTaskStatus
	Token     string // of the request that made it
	StartedBy string
	Audit     string   // whose findings; empty: Findings has them
	Findings  []string // ids
	// Reasons limits the findings of an audit to some codes of a check; a check that
	// it hasn't has all.
	Reasons map[AuditCheck][]string
	// Mapping has the names of the actions of a check in their order, Actions what they
	// were when the task began.
	Mapping map[AuditCheck][]string
	Actions []MitigationAction
	Tallies map[AuditCheck]MitigationTally
	// Counted says that the totals are complete. Done is the cursor of the page after
	// the last one that was dealt with.
	Counted bool
	Done    string
	// Executions is how many there are of the task.
	Executions                     int64
	Restarts                       int
	Message                        string
	CreatedAt, EndedAt, ModifiedAt time.Time
}

// MitigationStatus is what came of one action for one finding.
type MitigationStatus string

// The statuses of an execution (AWS IoT API reference,
// ListAuditMitigationActionsExecutions). One that is pending or canceled has no row.
const (
	MitigationCompleted MitigationStatus = "COMPLETED"
	MitigationFailed    MitigationStatus = "FAILED"
	MitigationSkipped   MitigationStatus = "SKIPPED"
	MitigationPending   MitigationStatus = "PENDING"
	MitigationCanceled  MitigationStatus = "CANCELED"
)

// MitigationExecution is one action applied to one finding. Its row is written in the
// transaction that has the action's effect.
type MitigationExecution struct {
	Tenant             Tenant
	Task, Finding      string
	Action, ActionID   string
	Status             MitigationStatus
	Code, Message      string // of one that failed or was skipped
	StartedAt, EndedAt time.Time
}

// MitigationTaskFilter selects tasks that began from one time to another; other
// members that are empty select all.
type MitigationTaskFilter struct {
	From, To time.Time
	Status   AuditTaskStatus
	Audit    string
	Finding  string // that the task has applied an action to, or names
}

// MitigationReader reads mitigation actions and their tasks.
type MitigationReader interface {
	MitigationAction(t Tenant, name string) (MitigationAction, error)
	MitigationActions(Tenant, MitigationKind, Page) ([]MitigationAction, string, error) // by name; an empty kind: all
	MitigationTask(t Tenant, id string) (MitigationTask, error)
	// MitigationTasks lists by creation time, newest first unless the page asks otherwise.
	MitigationTasks(Tenant, MitigationTaskFilter, Page) ([]MitigationTask, string, error)
	// RunningMitigationTasks lists those of all tenants that are in progress, oldest
	// first, at most 10,000.
	RunningMitigationTasks() ([]MitigationTask, error)
	// MitigationExecutions gives those of a task about one finding by action, at most
	// 100.
	MitigationExecutions(t Tenant, task, finding string) ([]MitigationExecution, error)
}

// MitigationWriter writes them. Watchers hear nothing of these changes.
type MitigationWriter interface {
	PutMitigationAction(MitigationAction) error
	DeleteMitigationAction(t Tenant, name string) error
	PutMitigationTask(MitigationTask) error
	// DeleteMitigationTask deletes the task once none of its executions is left.
	DeleteMitigationTask(t Tenant, id string) error
	PutMitigationExecution(MitigationExecution) error
	// DeleteMitigationExecutions deletes executions of a task, at most limit, and says
	// how many.
	DeleteMitigationExecutions(t Tenant, task string, limit int) (int, error)
}
