package imprint

import (
	"slices"
	"strconv"
	"time"
)

// AuditCheck names a check of an audit, such as DEVICE_CERTIFICATE_SHARED_CHECK.
// Package audit lists them.
type AuditCheck string

// AuditTaskStatus is where an audit is.
type AuditTaskStatus string

// The statuses of an audit (AWS IoT API reference, DescribeAuditTask).
const (
	AuditInProgress AuditTaskStatus = "IN_PROGRESS"
	AuditCompleted  AuditTaskStatus = "COMPLETED"
	AuditFailed     AuditTaskStatus = "FAILED"
	AuditCanceled   AuditTaskStatus = "CANCELED"
)

// AuditTaskType says who began an audit: a person or a schedule.
type AuditTaskType string

// The two types of audits.
const (
	AuditOnDemand  AuditTaskType = "ON_DEMAND_AUDIT_TASK"
	AuditScheduled AuditTaskType = "SCHEDULED_AUDIT_TASK"
)

// AuditRunStatus is where one check of an audit is.
type AuditRunStatus string

// The statuses of a check (AWS IoT API reference, AuditCheckDetails).
const (
	AuditRunInProgress   AuditRunStatus = "IN_PROGRESS"
	AuditRunWaiting      AuditRunStatus = "WAITING_FOR_DATA_COLLECTION"
	AuditRunCanceled     AuditRunStatus = "CANCELED"
	AuditRunCompliant    AuditRunStatus = "COMPLETED_COMPLIANT"
	AuditRunNonCompliant AuditRunStatus = "COMPLETED_NON_COMPLIANT"
	AuditRunFailed       AuditRunStatus = "FAILED"
)

// Over says that the check is done, in whatever way.
func (s AuditRunStatus) Over() bool { return s != AuditRunInProgress && s != AuditRunWaiting }

// AuditRun is one check of an audit with what came of it.
type AuditRun struct {
	Check  AuditCheck     `json:"check"`
	Status AuditRunStatus `json:"status"`
	// ThresholdDays is the setting of the check when the audit began; 0: it has none.
	ThresholdDays int   `json:"days,omitempty"`
	Resources     int64 `json:"resources,omitempty"`    // looked at
	NonCompliant  int64 `json:"nonCompliant,omitempty"` // of these
	// Suppressed is how many of those somebody said are known.
	Suppressed int64 `json:"suppressed,omitempty"`
	// Findings is how many of NonCompliant are kept as findings: no more than the server
	// keeps of one check.
	Findings int64  `json:"findings,omitempty"`
	Code     string `json:"code,omitempty"` // of a failed one
	Message  string `json:"message,omitempty"`
}

// AuditTask is one audit of a tenant.
type AuditTask struct {
	Tenant    Tenant
	ID        string // UUID
	Type      AuditTaskType
	Schedule  string // name of the scheduled audit; empty: on demand
	StartedBy string // ARN of the caller; empty: a schedule
	Status    AuditTaskStatus
	Message   string     // why it failed, or that it was begun again
	Runs      []AuditRun // by name of the check
	// Restarts is how often the server stopped in the middle of it.
	Restarts                       int
	CreatedAt, EndedAt, ModifiedAt time.Time // EndedAt is zero before the end
}

// Run gives the run of a check, nil without one.
func (t *AuditTask) Run(check AuditCheck) *AuditRun {
	for i := range t.Runs {
		if t.Runs[i].Check == check {
			return &t.Runs[i]
		}
	}
	return nil
}

// Findings is how many findings of the task are kept.
func (t *AuditTask) Findings() int64 {
	n := int64(0)
	for _, run := range t.Runs {
		n += run.Findings
	}
	return n
}

// AuditSeverity says how much a finding matters.
type AuditSeverity string

// The severities of AWS IoT Device Defender.
const (
	AuditCritical AuditSeverity = "CRITICAL"
	AuditHigh     AuditSeverity = "HIGH"
	AuditMedium   AuditSeverity = "MEDIUM"
	AuditLow      AuditSeverity = "LOW"
)

// Kinds of resources that findings are about. The last two are Imprint's own.
const (
	AuditDeviceCertificate = "DEVICE_CERTIFICATE"
	AuditCACertificate     = "CA_CERTIFICATE"
	AuditPolicy            = "IOT_POLICY"
	AuditClientID          = "CLIENT_ID"
	AuditAccountSettings   = "ACCOUNT_SETTINGS"
	AuditThing             = "THING"
	AuditTemplate          = "PROVISIONING_TEMPLATE"
)

// AuditResource names a resource: by certificate id, client id, account, or the
// name of a policy, thing or template.
type AuditResource struct {
	Kind    string            `json:"kind"`
	ID      string            `json:"id"`
	Version int               `json:"version,omitempty"` // of a policy
	Info    map[string]string `json:"info,omitempty"`
}

// Key is what the store finds the resource by. A policy's has its version.
func (r AuditResource) Key() string {
	key := r.Kind + "/" + r.ID
	if r.Version > 0 {
		key += ":" + strconv.Itoa(r.Version)
	}
	return key
}

// AuditFinding is one resource that doesn't meet a check, with what a person can
// type about it.
type AuditFinding struct {
	Tenant        Tenant
	ID            string // made of task, check and resource: found twice, it is one
	Task          string
	TaskStartedAt time.Time
	Check         AuditCheck
	FoundAt       time.Time
	Severity      AuditSeverity
	Resource      AuditResource
	Related       []AuditResource
	Code, Reason  string
	Mitigation    string
	Suppressed    bool
}

// AuditSuppression says that what a check finds about a resource is known, and no
// longer to be told.
type AuditSuppression struct {
	Tenant      Tenant
	Check       AuditCheck
	Resource    AuditResource // its Info is nobody's
	ExpiresAt   time.Time     // zero: never
	Description string
	Token       string // of the request that made it
	CreatedAt   time.Time
}

// Holds says whether the suppression is in force.
func (s AuditSuppression) Holds(now time.Time) bool {
	return s.ExpiresAt.IsZero() || now.Before(s.ExpiresAt)
}

// AuditCheckSetting is what a tenant set for a check.
type AuditCheckSetting struct {
	Enabled bool `json:"enabled"`
	// Days is the threshold of checks that have one, 0: its default.
	Days int `json:"days,omitempty"`
}

// AuditNotificationTarget is where AWS IoT Device Defender would send word. It is
// kept; nothing is sent.
type AuditNotificationTarget struct {
	TargetARN string `json:"targetArn,omitempty"`
	RoleARN   string `json:"roleArn,omitempty"`
	Enabled   bool   `json:"enabled,omitempty"`
}

// AuditConfiguration is what a tenant set for its audits. Without such a row all
// checks are off.
type AuditConfiguration struct {
	Tenant                Tenant
	RoleARN               string
	Checks                map[AuditCheck]AuditCheckSetting
	Targets               map[string]AuditNotificationTarget // by kind of notification
	CreatedAt, ModifiedAt time.Time
}

// AuditFrequency is how often a scheduled audit runs.
type AuditFrequency string

// The frequencies of AWS IoT Device Defender.
const (
	AuditDaily    AuditFrequency = "DAILY"
	AuditWeekly   AuditFrequency = "WEEKLY"
	AuditBiweekly AuditFrequency = "BIWEEKLY"
	AuditMonthly  AuditFrequency = "MONTHLY"
)

// LastDayOfMonth is the ScheduledAudit.DayOfMonth that means the last one.
const LastDayOfMonth = "LAST"

// auditDays are the days of the week as the API has them, by time.Weekday.
var auditDays = []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}

// ScheduledAudit is an audit that begins by itself.
type ScheduledAudit struct {
	Tenant     Tenant
	Name       string
	Frequency  AuditFrequency
	DayOfMonth string // 1 to 31 or LAST, of a monthly one
	DayOfWeek  string // SUN to SAT, of a weekly or biweekly one
	Checks     []AuditCheck
	// Minute is the minute of the day, in UTC, at which it begins.
	Minute                int
	NextAt                time.Time
	CreatedAt, ModifiedAt time.Time
}

// ARN names the scheduled audit.
func (a ScheduledAudit) ARN() string { return a.Tenant.ARN("scheduledaudit/" + a.Name) }

// Check says whether frequency and day fit each other (AWS IoT API reference,
// CreateScheduledAudit). Errors: CodeInvalidRequest.
func (a ScheduledAudit) Check() error {
	switch a.Frequency {
	case AuditDaily:
		return nil
	case AuditWeekly, AuditBiweekly:
		if !slices.Contains(auditDays, a.DayOfWeek) {
			return Errorf(CodeInvalidRequest, "a %s audit needs dayOfWeek", a.Frequency).WithHint("Give a day from SUN to SAT.")
		}
		return nil
	case AuditMonthly:
		day, err := strconv.Atoi(a.DayOfMonth)
		if a.DayOfMonth != LastDayOfMonth && (err != nil || day < 1 || day > 31) {
			return Errorf(CodeInvalidRequest, "a MONTHLY audit needs dayOfMonth").WithHint("Give a day from 1 to 31, or LAST.")
		}
		return nil
	}
	return Errorf(CodeInvalidRequest, "frequency %q isn't DAILY, WEEKLY, BIWEEKLY or MONTHLY", Excerpt(string(a.Frequency)))
}

// Next is the first time after an instant at which the audit begins. A day that a
// month doesn't have is its last. Every second week of a biweekly one is counted
// from NextAt, while that is set.
func (a ScheduledAudit) Next(after time.Time) time.Time {
	after = after.UTC()
	if a.Frequency == AuditBiweekly && !a.NextAt.IsZero() {
		next := a.NextAt.UTC()
		for !next.After(after) {
			next = next.AddDate(0, 0, 14)
		}
		return next
	}
	year, month, day := after.Date()
	at := func(year int, month time.Month, day int) time.Time {
		return time.Date(year, month, day, a.Minute/60, a.Minute%60, 0, 0, time.UTC)
	}
	if a.Frequency == AuditMonthly {
		for ; ; month++ {
			last := at(year, month+1, 0).Day()
			wanted, err := strconv.Atoi(a.DayOfMonth)
			if err != nil || wanted > last {
				wanted = last
			}
			if next := at(year, month, wanted); next.After(after) {
				return next
			}
		}
	}
	for ; ; day++ {
		next := at(year, month, day)
		if next.After(after) && (a.Frequency == AuditDaily || auditDays[next.Weekday()] == a.DayOfWeek) {
			return next
		}
	}
}

// AuditTaskFilter selects audits; empty members select all.
type AuditTaskFilter struct {
	From, To time.Time // of CreatedAt; both are set or none
	Type     AuditTaskType
	Status   AuditTaskStatus
}

// AuditFindingFilter selects findings: those of a task, by check and id, or,
// without one, those that were found from one time to another, newest first unless
// the page asks otherwise.
type AuditFindingFilter struct {
	Task     string
	From, To time.Time
	Check    AuditCheck // empty: all
	Resource string     // the Key of one; empty: all
	// Suppressed selects those that are suppressed, or those that aren't; nil: all.
	Suppressed *bool
}

// AuditSuppressionFilter selects suppressions; empty members select all.
type AuditSuppressionFilter struct {
	Check    AuditCheck
	Resource string // the Key of one
}

// AuditReader reads audits. A limit under 1 gives no rows; one over 10,000 is
// 10,000.
type AuditReader interface {
	// AuditConfiguration is CodeNotFound for a tenant that has none.
	AuditConfiguration(Tenant) (AuditConfiguration, error)
	AuditTask(t Tenant, id string) (AuditTask, error)
	// AuditTasks lists by creation time, newest first unless the page asks otherwise.
	AuditTasks(Tenant, AuditTaskFilter, Page) ([]AuditTask, string, error)
	// RunningAuditTasks lists those of all tenants that are in progress, oldest first,
	// at most 10,000.
	RunningAuditTasks() ([]AuditTask, error)
	AuditFinding(t Tenant, id string) (AuditFinding, error)
	AuditFindings(Tenant, AuditFindingFilter, Page) ([]AuditFinding, string, error)
	AuditSuppression(t Tenant, check AuditCheck, resource string) (AuditSuppression, error)
	// AuditSuppressions lists by expiration, those that don't expire last.
	AuditSuppressions(Tenant, AuditSuppressionFilter, Page) ([]AuditSuppression, string, error)
	ScheduledAudit(t Tenant, name string) (ScheduledAudit, error)
	ScheduledAudits(Tenant, Page) ([]ScheduledAudit, string, error) // by name
	// ScheduledAuditsDue lists those of all tenants whose NextAt isn't after a time,
	// the most overdue first.
	ScheduledAuditsDue(at time.Time, limit int) ([]ScheduledAudit, error)
	// NextScheduledAudit is the earliest NextAt of all tenants; zero: there is none.
	NextScheduledAudit() (time.Time, error)
}

// AuditWriter writes them. Watchers hear nothing of these changes.
type AuditWriter interface {
	PutAuditConfiguration(AuditConfiguration) error
	DeleteAuditConfiguration(Tenant) error
	PutAuditTask(AuditTask) error
	// DeleteAuditTask deletes the task once none of its findings is left.
	DeleteAuditTask(t Tenant, id string) error
	PutAuditFinding(AuditFinding) error
	// DeleteAuditFindings deletes findings of a task, of one check or, when that is
	// empty, of all, at most limit, and says how many.
	DeleteAuditFindings(t Tenant, task string, check AuditCheck, limit int) (int, error)
	PutAuditSuppression(AuditSuppression) error
	DeleteAuditSuppression(t Tenant, check AuditCheck, resource string) error
	PutScheduledAudit(ScheduledAudit) error
	DeleteScheduledAudit(t Tenant, name string) error
}
