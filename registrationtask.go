package imprint

import "time"

// RegistrationTaskStatus is where a bulk registration is.
type RegistrationTaskStatus string

// The statuses, in the mixed case that the API has for them. A task ends as
// Completed, Failed or Cancelled.
const (
	TaskInProgress RegistrationTaskStatus = "InProgress"
	TaskCancelling RegistrationTaskStatus = "Cancelling"
	TaskCompleted  RegistrationTaskStatus = "Completed"
	TaskFailed     RegistrationTaskStatus = "Failed"
	TaskCancelled  RegistrationTaskStatus = "Cancelled"
)

// Running says that the task isn't over.
func (s RegistrationTaskStatus) Running() bool { return s == TaskInProgress || s == TaskCancelling }

// RegistrationTask is one bulk registration: a template over each line of an
// input.
type RegistrationTask struct {
	Tenant       Tenant
	ID           string // UUID
	TemplateBody string
	Bucket, Key  string // of the input
	RoleARN      string
	StartedBy    string // ARN of the caller
	Status       RegistrationTaskStatus
	Message      string // why it failed, or what it waits for

	// Lines and Offset say how much of the input is done: both are stored with what
	// the lines registered.
	Lines, Offset     int64
	Size              int64  // of the input in bytes; 0: not known
	Version           string // of the input, which must not change before the end
	Succeeded, Failed int64

	CreatedAt, ModifiedAt time.Time
}

// Kinds of reports.
const (
	ReportResults = "RESULTS"
	ReportErrors  = "ERRORS"
)

// RegistrationReport is a part of a task's report: the verdicts on some lines, as
// JSON objects with a newline after each.
type RegistrationReport struct {
	Tenant Tenant
	Task   string
	Kind   string // ReportResults or ReportErrors
	Line   int64  // the number of its first line in the input
	Body   []byte
}

// RegistrationTaskReader reads bulk registrations and their reports.
type RegistrationTaskReader interface {
	RegistrationTask(t Tenant, id string) (RegistrationTask, error)
	// RegistrationTasks lists by creation time, newest first unless the page asks
	// otherwise; an empty status selects all.
	RegistrationTasks(Tenant, RegistrationTaskStatus, Page) ([]RegistrationTask, string, error)
	// RunningRegistrationTasks lists those of all tenants that aren't over, oldest
	// first, at most 10,000.
	RunningRegistrationTasks() ([]RegistrationTask, error)
	// RegistrationReports lists the parts of a report by line, from the first after a
	// line, at most limit.
	RegistrationReports(t Tenant, task, kind string, after int64, limit int) ([]RegistrationReport, error)
}

// RegistrationTaskWriter writes them. Watchers hear nothing of these changes.
type RegistrationTaskWriter interface {
	PutRegistrationTask(RegistrationTask) error
	PutRegistrationReport(RegistrationReport) error
	// DeleteRegistrationTask deletes the task once no part of its reports is left,
	// and before that at most limit parts of them; it says whether all is gone.
	DeleteRegistrationTask(t Tenant, id string, limit int) (bool, error)
}
