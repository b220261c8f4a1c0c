package registry

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
)

const (
	auditTaskColumns = "tenant, id, type, schedule_name, started_by, status, message, runs, restarts, created_at, ended_at, modified_at"
	findingColumns   = "tenant, id, task_id, check_name, found_at, body"
	scheduledColumns = "tenant, name, frequency, day_of_month, day_of_week, checks, day_minute, next_at, created_at, modified_at"
)

var (
	putAuditConfiguration = upsert("audit_configurations", 1, "tenant", "role_arn", "checks", "targets", "created_at", "modified_at")
	putAuditTask          = upsert("audit_tasks", 2, "tenant", "id", "type", "schedule_name", "started_by", "status", "message", "runs", "restarts",
		"created_at", "ended_at", "modified_at")
	putFinding     = upsert("audit_findings", 2, "tenant", "id", "task_id", "check_name", "found_at", "body")
	putSuppression = upsert("audit_suppressions", 3, "tenant", "check_name", "resource", "expires_at", "body")
	putScheduled   = upsert("scheduled_audits", 2, "tenant", "name", "frequency", "day_of_month", "day_of_week", "checks", "day_minute", "next_at",
		"created_at", "modified_at")

	auditTasks   = newList("kis", auditTaskColumns, "audit_tasks WHERE tenant = $1", 1, []string{"created_at", "id"}, scanAuditTask, auditTaskKey)
	auditTasksIn = newList("kis", auditTaskColumns, "audit_tasks WHERE tenant = $1 AND created_at >= $2 AND created_at <= $3", 3,
		[]string{"created_at", "id"}, scanAuditTask, auditTaskKey)
	findingsOfTask = newList("mss", findingColumns, "audit_findings WHERE tenant = $1 AND task_id = $2", 2, []string{"check_name", "id"}, scanFinding,
		func(f *imprint.AuditFinding) []any { return []any{string(f.Check), f.ID} })
	findingsIn = slowly(newList("nis", findingColumns, "audit_findings WHERE tenant = $1 AND found_at >= $2 AND found_at <= $3", 3,
		[]string{"found_at", "id"}, scanFinding, func(f *imprint.AuditFinding) []any { return []any{millis(f.FoundAt), f.ID} }))
	auditSuppressions = newList("Piss", "tenant, check_name, resource, expires_at, body", "audit_suppressions WHERE tenant = $1", 1,
		[]string{"expires_at", "check_name", "resource"}, scanSuppression,
		func(s *imprint.AuditSuppression) []any {
			return []any{expiry(s.ExpiresAt), string(s.Check), s.Resource.Key()}
		})
	scheduledAudits = newList("os", scheduledColumns, "scheduled_audits WHERE tenant = $1", 1, []string{"name"}, scanScheduled,
		func(a *imprint.ScheduledAudit) []any { return []any{a.Name} })
)

// findingBody is what stands in the column of that name.
type findingBody struct {
	TaskStartedAt int64                   `json:"taskStarted"`
	Severity      imprint.AuditSeverity   `json:"severity"`
	Resource      imprint.AuditResource   `json:"resource"`
	Related       []imprint.AuditResource `json:"related,omitempty"`
	Code          string                  `json:"code"`
	Reason        string                  `json:"reason"`
	Mitigation    string                  `json:"mitigation"`
	Suppressed    bool                    `json:"suppressed,omitempty"`
}

// suppressionBody is what stands in the column of that name.
type suppressionBody struct {
	Resource    imprint.AuditResource `json:"resource"`
	Description string                `json:"description,omitempty"`
	Token       string                `json:"token,omitempty"`
	CreatedAt   int64                 `json:"created"`
}

// never is the column expires_at of a suppression that doesn't expire.
var never = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

func expiry(at time.Time) int64 {
	if at.IsZero() {
		return never
	}
	return min(millis(at), never-1)
}

func auditTaskKey(k *imprint.AuditTask) []any { return []any{millis(k.CreatedAt), k.ID} }

func scanAuditTask(t *Tx, r Rows, k *imprint.AuditTask) error {
	var tenant, runs string
	var restarts, created, ended, modified int64
	err := r.Scan(&tenant, &k.ID, (*string)(&k.Type), &k.Schedule, &k.StartedBy, (*string)(&k.Status), &k.Message, &runs, &restarts, &created, &ended, &modified)
	if err != nil {
		return err
	}
	k.Tenant, k.Restarts = t.readTenant(tenant), int(restarts)
	k.CreatedAt, k.EndedAt, k.ModifiedAt = readTime(created), readTime(ended), readTime(modified)
	err = json.Unmarshal([]byte(runs), &k.Runs)
	if err != nil {
		return fmt.Errorf("couldn't read the checks of audit %s: %w", k.ID, err)
	}
	return nil
}

func scanFinding(t *Tx, r Rows, f *imprint.AuditFinding) error {
	var tenant, text string
	var found int64
	err := r.Scan(&tenant, &f.ID, &f.Task, (*string)(&f.Check), &found, &text)
	if err != nil {
		return err
	}
	var body findingBody
	err = json.Unmarshal([]byte(text), &body)
	if err != nil {
		return fmt.Errorf("couldn't read finding %s: %w", f.ID, err)
	}
	f.Tenant, f.FoundAt, f.TaskStartedAt = t.readTenant(tenant), readTime(found), readTime(body.TaskStartedAt)
	f.Severity, f.Resource, f.Related, f.Code, f.Reason, f.Mitigation = body.Severity, body.Resource, body.Related, body.Code, body.Reason, body.Mitigation
	f.Suppressed = body.Suppressed
	return nil
}

func scanSuppression(t *Tx, r Rows, s *imprint.AuditSuppression) error {
	var tenant, resource, text string
	var expires int64
	err := r.Scan(&tenant, (*string)(&s.Check), &resource, &expires, &text)
	if err != nil {
		return err
	}
	var body suppressionBody
	err = json.Unmarshal([]byte(text), &body)
	if err != nil {
		return fmt.Errorf("couldn't read the suppression of %s for %s: %w", s.Check, resource, err)
	}
	if expires != never {
		s.ExpiresAt = readTime(expires)
	}
	s.Tenant, s.Resource, s.Description, s.Token, s.CreatedAt = t.readTenant(tenant), body.Resource, body.Description, body.Token, readTime(body.CreatedAt)
	return nil
}

func scanScheduled(t *Tx, r Rows, a *imprint.ScheduledAudit) error {
	var tenant, checks string
	var minute, next, created, modified int64
	err := r.Scan(&tenant, &a.Name, (*string)(&a.Frequency), &a.DayOfMonth, &a.DayOfWeek, &checks, &minute, &next, &created, &modified)
	a.Tenant, a.Minute = t.readTenant(tenant), int(minute)
	a.NextAt, a.CreatedAt, a.ModifiedAt = readTime(next), readTime(created), readTime(modified)
	for _, check := range strings.Fields(checks) {
		a.Checks = append(a.Checks, imprint.AuditCheck(check))
	}
	return err
}

// AuditConfiguration implements imprint.AuditReader.
func (t *Tx) AuditConfiguration(tenant imprint.Tenant) (imprint.AuditConfiguration, error) {
	c, found, err := first(t, func(t *Tx, r Rows, c *imprint.AuditConfiguration) error {
		var checks, targets string
		var created, modified int64
		err := r.Scan(&c.RoleARN, &checks, &targets, &created, &modified)
		if err != nil {
			return err
		}
		c.Tenant, c.CreatedAt, c.ModifiedAt = tenant, readTime(created), readTime(modified)
		err = json.Unmarshal([]byte(checks), &c.Checks)
		if err == nil {
			err = json.Unmarshal([]byte(targets), &c.Targets)
		}
		return err
	}, "SELECT role_arn, checks, targets, created_at, modified_at FROM audit_configurations WHERE tenant = $1", t.in(tenant))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "%s has no configuration of audits", tenant)
	}
	return c, err
}

// AuditTask implements imprint.AuditReader.
func (t *Tx) AuditTask(tenant imprint.Tenant, id string) (imprint.AuditTask, error) {
	k, found, err := first(t, scanAuditTask, "SELECT "+auditTaskColumns+" FROM audit_tasks WHERE tenant = $1 AND id = $2", t.in(tenant), id)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "audit %q doesn't exist", imprint.Excerpt(id))
	}
	return k, err
}

// AuditTasks implements imprint.AuditReader.
func (t *Tx) AuditTasks(tenant imprint.Tenant, f imprint.AuditTaskFilter, p imprint.Page) ([]imprint.AuditTask, string, error) {
	keep := func(k *imprint.AuditTask) bool {
		return (f.Type == "" || k.Type == f.Type) && (f.Status == "" || k.Status == f.Status)
	}
	if f.From.IsZero() && f.To.IsZero() {
		return auditTasks.page(t, p, keep, t.in(tenant))
	}
	return auditTasksIn.page(t, p, keep, t.in(tenant), millis(f.From), millis(f.To))
}

// RunningAuditTasks implements imprint.AuditReader. The status stands in the text so
// that the partial index is found.
func (t *Tx) RunningAuditTasks() ([]imprint.AuditTask, error) {
	return all(t, scanAuditTask, "SELECT "+auditTaskColumns+" FROM audit_tasks WHERE status = 'IN_PROGRESS' ORDER BY created_at, id LIMIT $1", int64(maxPage))
}

// AuditFinding implements imprint.AuditReader.
func (t *Tx) AuditFinding(tenant imprint.Tenant, id string) (imprint.AuditFinding, error) {
	f, found, err := first(t, scanFinding, "SELECT "+findingColumns+" FROM audit_findings WHERE tenant = $1 AND id = $2", t.in(tenant), id)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "finding %q doesn't exist", imprint.Excerpt(id))
	}
	return f, err
}

// AuditFindings implements imprint.AuditReader.
func (t *Tx) AuditFindings(tenant imprint.Tenant, f imprint.AuditFindingFilter, p imprint.Page) ([]imprint.AuditFinding, string, error) {
	keep := func(one *imprint.AuditFinding) bool {
		return (f.Suppressed == nil || one.Suppressed == *f.Suppressed) && (f.Check == "" || one.Check == f.Check) && (f.Resource == "" || one.Resource.Key() == f.Resource)
	}
	if f.Task != "" {
		return findingsOfTask.page(t, p, keep, t.in(tenant), f.Task)
	}
	return findingsIn.page(t, p, keep, t.in(tenant), millis(f.From), millis(f.To))
}

// AuditSuppression implements imprint.AuditReader.
func (t *Tx) AuditSuppression(tenant imprint.Tenant, check imprint.AuditCheck, resource string) (imprint.AuditSuppression, error) {
	s, found, err := first(t, scanSuppression, "SELECT tenant, check_name, resource, expires_at, body FROM audit_suppressions WHERE tenant = $1 AND check_name = $2 AND resource = $3",
		t.in(tenant), string(check), resource)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "%s isn't suppressed for %s", check, imprint.Excerpt(resource))
	}
	return s, err
}

// AuditSuppressions implements imprint.AuditReader.
func (t *Tx) AuditSuppressions(tenant imprint.Tenant, f imprint.AuditSuppressionFilter, p imprint.Page) ([]imprint.AuditSuppression, string, error) {
	return auditSuppressions.page(t, p, func(s *imprint.AuditSuppression) bool {
		return (f.Check == "" || s.Check == f.Check) && (f.Resource == "" || s.Resource.Key() == f.Resource)
	}, t.in(tenant))
}

// ScheduledAudit implements imprint.AuditReader.
func (t *Tx) ScheduledAudit(tenant imprint.Tenant, name string) (imprint.ScheduledAudit, error) {
	a, found, err := first(t, scanScheduled, "SELECT "+scheduledColumns+" FROM scheduled_audits WHERE tenant = $1 AND name = $2", t.in(tenant), name)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "scheduled audit %q doesn't exist", imprint.Excerpt(name))
	}
	return a, err
}

// ScheduledAudits implements imprint.AuditReader.
func (t *Tx) ScheduledAudits(tenant imprint.Tenant, p imprint.Page) ([]imprint.ScheduledAudit, string, error) {
	return scheduledAudits.page(t, p, nil, t.in(tenant))
}

// ScheduledAuditsDue implements imprint.AuditReader.
func (t *Tx) ScheduledAuditsDue(at time.Time, limit int) ([]imprint.ScheduledAudit, error) {
	return some(t, limit, scanScheduled, "SELECT "+scheduledColumns+" FROM scheduled_audits WHERE next_at <= $1 ORDER BY next_at, tenant, name LIMIT $2", millis(at))
}

// NextScheduledAudit implements imprint.AuditReader.
func (t *Tx) NextScheduledAudit() (time.Time, error) {
	next, _, err := first(t, func(_ *Tx, r Rows, at *time.Time) error {
		var ms int64
		err := r.Scan(&ms)
		*at = readTime(ms)
		return err
	}, "SELECT next_at FROM scheduled_audits ORDER BY next_at, tenant, name LIMIT 1")
	return next, err
}

// PutAuditConfiguration implements imprint.AuditWriter.
func (t *Tx) PutAuditConfiguration(c imprint.AuditConfiguration) error {
	checks, err := json.Marshal(c.Checks)
	if err != nil {
		return fmt.Errorf("couldn't encode the checks of audits: %w", err)
	}
	targets, err := json.Marshal(c.Targets)
	if err != nil {
		return fmt.Errorf("couldn't encode the targets of audits: %w", err)
	}
	_, err = t.exec(putAuditConfiguration, t.in(c.Tenant), c.RoleARN, string(checks), string(targets), millis(c.CreatedAt), millis(c.ModifiedAt))
	return err
}

// DeleteAuditConfiguration implements imprint.AuditWriter.
func (t *Tx) DeleteAuditConfiguration(tenant imprint.Tenant) error {
	_, err := t.exec("DELETE FROM audit_configurations WHERE tenant = $1", t.in(tenant))
	return err
}

// PutAuditTask implements imprint.AuditWriter.
func (t *Tx) PutAuditTask(k imprint.AuditTask) error {
	runs, err := json.Marshal(k.Runs)
	if err != nil {
		return fmt.Errorf("couldn't encode the checks of audit %s: %w", k.ID, err)
	}
	_, err = t.exec(putAuditTask, t.in(k.Tenant), k.ID, string(k.Type), k.Schedule, k.StartedBy, string(k.Status), k.Message, string(runs), int64(k.Restarts),
		millis(k.CreatedAt), millis(k.EndedAt), millis(k.ModifiedAt))
	return err
}

// DeleteAuditTask implements imprint.AuditWriter.
func (t *Tx) DeleteAuditTask(tenant imprint.Tenant, id string) error {
	_, err := t.exec("DELETE FROM audit_tasks WHERE tenant = $1 AND id = $2 AND NOT EXISTS (SELECT 1 FROM audit_findings WHERE tenant = $1 AND task_id = $2)",
		t.in(tenant), id)
	return err
}

// PutAuditFinding implements imprint.AuditWriter.
func (t *Tx) PutAuditFinding(f imprint.AuditFinding) error {
	text, err := json.Marshal(findingBody{millis(f.TaskStartedAt), f.Severity, f.Resource, f.Related, f.Code, f.Reason, f.Mitigation, f.Suppressed})
	if err != nil {
		return fmt.Errorf("couldn't encode finding %s: %w", f.ID, err)
	}
	_, err = t.exec(putFinding, t.in(f.Tenant), f.ID, f.Task, string(f.Check), millis(f.FoundAt), string(text))
	return err
}

// DeleteAuditFindings implements imprint.AuditWriter.
func (t *Tx) DeleteAuditFindings(tenant imprint.Tenant, task string, check imprint.AuditCheck, limit int) (int, error) {
	if limit < 1 {
		return 0, nil
	}
	selection, args := "tenant = $1 AND task_id = $2", []any{t.in(tenant), task, int64(min(limit, maxPage))}
	if check != "" {
		selection, args = selection+" AND check_name = $4", append(args, string(check))
	}
	n, err := t.exec("DELETE FROM audit_findings WHERE (tenant, id) IN (SELECT tenant, id FROM audit_findings WHERE "+selection+" ORDER BY check_name, id LIMIT $3)", args...)
	return int(n), err
}

// PutAuditSuppression implements imprint.AuditWriter.
func (t *Tx) PutAuditSuppression(s imprint.AuditSuppression) error {
	text, err := json.Marshal(suppressionBody{s.Resource, s.Description, s.Token, millis(s.CreatedAt)})
	if err != nil {
		return fmt.Errorf("couldn't encode the suppression of %s: %w", s.Check, err)
	}
	_, err = t.exec(putSuppression, t.in(s.Tenant), string(s.Check), s.Resource.Key(), expiry(s.ExpiresAt), string(text))
	return err
}

// DeleteAuditSuppression implements imprint.AuditWriter.
func (t *Tx) DeleteAuditSuppression(tenant imprint.Tenant, check imprint.AuditCheck, resource string) error {
	_, err := t.exec("DELETE FROM audit_suppressions WHERE tenant = $1 AND check_name = $2 AND resource = $3", t.in(tenant), string(check), resource)
	return err
}

// PutScheduledAudit implements imprint.AuditWriter.
func (t *Tx) PutScheduledAudit(a imprint.ScheduledAudit) error {
	checks := make([]string, len(a.Checks))
	for n, check := range a.Checks {
		checks[n] = string(check)
	}
	_, err := t.exec(putScheduled, t.in(a.Tenant), a.Name, string(a.Frequency), a.DayOfMonth, a.DayOfWeek, strings.Join(checks, " "), int64(a.Minute),
		millis(a.NextAt), millis(a.CreatedAt), millis(a.ModifiedAt))
	return err
}

// DeleteScheduledAudit implements imprint.AuditWriter.
func (t *Tx) DeleteScheduledAudit(tenant imprint.Tenant, name string) error {
	_, err := t.exec("DELETE FROM scheduled_audits WHERE tenant = $1 AND name = $2", t.in(tenant), name)
	return err
}
