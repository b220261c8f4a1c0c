package registry

import (
	"github.com/imprint-iot/imprint"
)

const (
	taskColumns   = "tenant, id, template_body, bucket, file_key, role_arn, started_by, status, message, lines, byte_offset, byte_size, version, succeeded, failed, created_at, modified_at"
	reportColumns = "tenant, task_id, kind, line, body"
)

var (
	putTask = upsert("registration_tasks", 2, "tenant", "id", "template_body", "bucket", "file_key", "role_arn", "started_by", "status", "message",
		"lines", "byte_offset", "byte_size", "version", "succeeded", "failed", "created_at", "modified_at")
	putReport = upsert("registration_reports", 4, "tenant", "task_id", "kind", "line", "body")

	tasksByTime = newList("ris", taskColumns, "registration_tasks WHERE tenant = $1", 1, []string{"created_at", "id"}, scanTask, taskKey)
	tasksInThat = newList("tis", taskColumns, "registration_tasks WHERE tenant = $1 AND status = $2", 2, []string{"created_at", "id"}, scanTask, taskKey)
)

func scanTask(t *Tx, r Rows, k *imprint.RegistrationTask) error {
	var tenant string
	var created, modified int64
	err := r.Scan(&tenant, &k.ID, &k.TemplateBody, &k.Bucket, &k.Key, &k.RoleARN, &k.StartedBy, (*string)(&k.Status), &k.Message,
		&k.Lines, &k.Offset, &k.Size, &k.Version, &k.Succeeded, &k.Failed, &created, &modified)
	k.Tenant, k.CreatedAt, k.ModifiedAt = t.readTenant(tenant), readTime(created), readTime(modified)
	return err
}

func taskKey(k *imprint.RegistrationTask) []any { return []any{millis(k.CreatedAt), k.ID} }

func scanReport(t *Tx, r Rows, p *imprint.RegistrationReport) error {
	var tenant string
	err := r.Scan(&tenant, &p.Task, &p.Kind, &p.Line, &p.Body)
	p.Tenant = t.readTenant(tenant)
	return err
}

// RegistrationTask implements imprint.RegistrationTaskReader.
func (t *Tx) RegistrationTask(tenant imprint.Tenant, id string) (imprint.RegistrationTask, error) {
	k, found, err := first(t, scanTask, "SELECT "+taskColumns+" FROM registration_tasks WHERE tenant = $1 AND id = $2", t.in(tenant), id)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "registration task %q doesn't exist", imprint.Excerpt(id))
	}
	return k, err
}

// RegistrationTasks implements imprint.RegistrationTaskReader.
func (t *Tx) RegistrationTasks(tenant imprint.Tenant, status imprint.RegistrationTaskStatus, p imprint.Page) ([]imprint.RegistrationTask, string, error) {
	if status == "" {
		return tasksByTime.page(t, p, nil, t.in(tenant))
	}
	return tasksInThat.page(t, p, nil, t.in(tenant), string(status))
}

// RunningRegistrationTasks implements imprint.RegistrationTaskReader. The statuses
// stand in the text so that the partial index is found.
func (t *Tx) RunningRegistrationTasks() ([]imprint.RegistrationTask, error) {
	return all(t, scanTask, "SELECT "+taskColumns+" FROM registration_tasks WHERE status IN ('InProgress', 'Cancelling') ORDER BY created_at, id LIMIT $1",
		int64(maxPage))
}

// RegistrationReports implements imprint.RegistrationTaskReader.
func (t *Tx) RegistrationReports(tenant imprint.Tenant, task, kind string, after int64, limit int) ([]imprint.RegistrationReport, error) {
	return some(t, limit, scanReport, "SELECT "+reportColumns+` FROM registration_reports
		WHERE tenant = $1 AND task_id = $2 AND kind = $3 AND line > $4 ORDER BY line LIMIT $5`, t.in(tenant), task, kind, after)
}

// PutRegistrationTask implements imprint.RegistrationTaskWriter.
func (t *Tx) PutRegistrationTask(k imprint.RegistrationTask) error {
	_, err := t.exec(putTask, t.in(k.Tenant), k.ID, k.TemplateBody, k.Bucket, k.Key, k.RoleARN, k.StartedBy, string(k.Status), k.Message,
		k.Lines, k.Offset, k.Size, k.Version, k.Succeeded, k.Failed, millis(k.CreatedAt), millis(k.ModifiedAt))
	return err
}

// PutRegistrationReport implements imprint.RegistrationTaskWriter.
func (t *Tx) PutRegistrationReport(p imprint.RegistrationReport) error {
	_, err := t.exec(putReport, t.in(p.Tenant), p.Task, p.Kind, p.Line, p.Body)
	return err
}

// DeleteRegistrationTask implements imprint.RegistrationTaskWriter.
func (t *Tx) DeleteRegistrationTask(tenant imprint.Tenant, id string, limit int) (bool, error) {
	n, err := t.exec(`DELETE FROM registration_reports WHERE (tenant, task_id, kind, line) IN
		(SELECT tenant, task_id, kind, line FROM registration_reports WHERE tenant = $1 AND task_id = $2 ORDER BY kind, line LIMIT $3)`,
		t.in(tenant), id, int64(min(max(limit, 1), maxPage)))
	if err != nil || n > 0 {
		return false, err
	}
	_, err = t.exec("DELETE FROM registration_tasks WHERE tenant = $1 AND id = $2", t.in(tenant), id)
	return err == nil, err
}
